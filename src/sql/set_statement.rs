//! The syntax of SET, of transaction modes and of the names after SHOW and RESET.

use std::time::Duration;

use super::known_settings;
use super::lexer::{Reader, TokenKind, unquoted};
use super::statement::syntax;
use crate::error::ServerError;
use crate::hsb::settings::{Durability, Safeness};
use crate::pgtypes;

/// How far a transaction sees the commits of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// The whole transaction sees one state.
    RepeatableRead,
    /// As REPEATABLE READ: writers run one after another and a moved-on snapshot cannot write.
    Serializable,
}

impl Isolation {
    /// As SHOW says it.
    pub fn name(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "read committed",
            Isolation::RepeatableRead => "repeatable read",
            Isolation::Serializable => "serializable",
        }
    }

    /// Reads a name; the one level that PostgreSQL has and we have not is raised to the next.
    pub fn parse(text: &str) -> Option<Isolation> {
        match text.to_ascii_lowercase().as_str() {
            "read committed" | "read uncommitted" | "default" => Some(Isolation::ReadCommitted),
            "repeatable read" => Some(Isolation::RepeatableRead),
            "serializable" => Some(Isolation::Serializable),
            _ => None,
        }
    }
}

/// What BEGIN and SET TRANSACTION can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransactionModes {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
}

/// How far a setting reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All transactions of the session from now on.
    Session,
    /// This transaction, or the next one if none is open.
    Transaction,
}

/// A SET statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetCommand {
    /// SAFENESS.
    Safeness(Scope, Safeness),
    /// DURABILITY.
    Durability(Scope, Durability),
    /// ISOLATION LEVEL, READ ONLY, READ WRITE.
    Modes(Scope, TransactionModes),
    /// LOCK TIMEOUT; none: the default.
    LockTimeout(Option<Duration>),
    /// IDLE TIMEOUT; none: never.
    IdleTimeout(Option<Duration>),
    /// STATEMENT MAXTIME; none: no limit.
    StatementMaxTime(Option<Duration>),
    /// TRANSACTION TOKEN.
    Token(String),
    /// A setting of PostgreSQL.
    Generic {
        /// In small letters.
        name: String,
        /// None: DEFAULT.
        value: Option<String>,
        /// Until the end of the transaction.
        local: bool,
    },
}

/// Reads a SET statement from its first token.
pub fn set(reader: &mut Reader<'_>) -> Result<SetCommand, ServerError> {
    reader.at = 1;
    if reader.accept(&["SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"]) {
        return Ok(SetCommand::Modes(Scope::Session, transaction_modes(reader)?));
    }
    let scope = if reader.accept(&["TRANSACTION"]) { Scope::Transaction } else { Scope::Session };
    if scope == Scope::Transaction && reader.accept(&["TOKEN"]) {
        let token = reader.string().filter(|_| reader.at_end());
        let wrong = || syntax("SET TRANSACTION TOKEN takes a string in single quotes");
        return token.map(SetCommand::Token).ok_or_else(wrong);
    }
    if reader.accept(&["SAFENESS"]) {
        return Ok(SetCommand::Safeness(scope, choice(reader, "SAFENESS", &Safeness::WORDS)?));
    }
    if reader.accept(&["DURABILITY"]) {
        return Ok(SetCommand::Durability(scope, choice(reader, "DURABILITY", &Durability::WORDS)?));
    }
    let starts_mode = ["ISOLATION", "READ", "WRITE"].iter().any(|word| reader.clone().accept(&[word]));
    if scope == Scope::Transaction || starts_mode {
        return Ok(SetCommand::Modes(scope, transaction_modes(reader)?));
    }
    if reader.accept(&["LOCK", "TIMEOUT"]) {
        return Ok(SetCommand::LockTimeout(seconds(reader)?));
    }
    if reader.accept(&["IDLE", "TIMEOUT"]) {
        return Ok(SetCommand::IdleTimeout(seconds(reader)?.filter(|time| !time.is_zero())));
    }
    if reader.accept(&["STATEMENT", "MAXTIME"]) {
        return Ok(SetCommand::StatementMaxTime(seconds(reader)?.filter(|time| !time.is_zero())));
    }
    if reader.accept(&["SESSION", "AUTHORIZATION"]) {
        return Ok(SetCommand::Generic {
            name: "session_authorization".into(),
            value: value(reader),
            local: false,
        });
    }
    let local = !reader.accept(&["SESSION"]) && reader.accept(&["LOCAL"]);
    generic(reader, local)
}

fn generic(reader: &mut Reader<'_>, local: bool) -> Result<SetCommand, ServerError> {
    // The forms that have neither = nor TO.
    for (words, name) in [
        (&["TIME", "ZONE"][..], "timezone"),
        (&["NAMES"], "client_encoding"),
        (&["SCHEMA"], "search_path"),
        (&["ROLE"], "role"),
    ] {
        let mut other = reader.clone();
        if other.accept(words) && !other.accept_symbol("=") && !other.accept(&["TO"]) {
            *reader = other;
            return Ok(SetCommand::Generic { name: name.into(), value: value(reader), local });
        }
    }
    let mut name = reader.name().ok_or_else(|| syntax("SET takes a name and a value"))?.to_lowercase();
    while reader.accept_symbol(".") {
        name = format!("{name}.{}", reader.name().unwrap_or_default().to_lowercase());
    }
    let is_assigned = reader.accept_symbol("=") || reader.accept(&["TO"]);
    if known_settings::find(&name).is_none() && !known_settings::is_custom(&name) {
        // Most likely one of ours, misspelt: they have neither = nor TO.
        return Err(known_settings::unknown(&name));
    }
    if !is_assigned || reader.at_end() {
        return Err(syntax(format!("SET {name} takes = or TO, and a value")));
    }
    Ok(SetCommand::Generic { name, value: value(reader), local })
}

fn value(reader: &mut Reader<'_>) -> Option<String> {
    if reader.accept(&["DEFAULT"]) {
        return None;
    }
    let mut text = String::new();
    while let Some(token) = reader.take() {
        let part = token.text(reader.sql);
        match token.kind {
            TokenKind::Text | TokenKind::Quoted => text.push_str(&unquoted(part)),
            TokenKind::Symbol if part == "," => text.push_str(", "),
            _ => text.push_str(part),
        }
    }
    Some(text)
}

fn choice<T: Copy>(reader: &mut Reader<'_>, what: &str, words: &[(T, &str)]) -> Result<T, ServerError> {
    let text = reader.take().map(|token| token.text(reader.sql).to_ascii_lowercase()).unwrap_or_default();
    let found = words.iter().find(|(_, word)| *word == text).filter(|_| reader.at_end());
    found.map(|(value, _)| *value).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(_, word)| word.to_uppercase()).collect();
        syntax(format!("{what} is one of {}", words.join(", ")))
    })
}

fn seconds(reader: &mut Reader<'_>) -> Result<Option<Duration>, ServerError> {
    let _ = reader.accept_symbol("=") || reader.accept(&["TO"]);
    if reader.accept(&["DEFAULT"]) {
        return Ok(None);
    }
    let text = reader.rest();
    if let Some(milliseconds) =
        text.to_ascii_lowercase().strip_suffix("ms").and_then(|text| text.trim().parse().ok())
    {
        return Ok(Some(Duration::from_millis(milliseconds)));
    }
    let wrong = || ServerError::sql("22023", format!("'{text}' is no number of seconds"));
    text.parse::<u32>().map(|seconds| Some(Duration::from_secs(u64::from(seconds)))).map_err(|_| wrong())
}

/// Reads transaction modes up to the end.
pub fn transaction_modes(reader: &mut Reader<'_>) -> Result<TransactionModes, ServerError> {
    let mut modes = TransactionModes::default();
    while !reader.at_end() {
        if reader.accept_symbol(",")
            || reader.accept(&["DEFERRABLE"])
            || reader.accept(&["NOT", "DEFERRABLE"])
        {
            continue;
        }
        if reader.accept(&["ISOLATION", "LEVEL"]) {
            modes.isolation = Some(isolation(reader)?);
        } else if reader.accept(&["READ", "ONLY"]) {
            modes.read_only = Some(true);
        } else if reader.accept(&["READ", "WRITE"]) || reader.accept(&["WRITE"]) {
            modes.read_only = Some(false);
        } else {
            return Err(syntax(format!("syntax error at \"{}\"", reader.rest())));
        }
    }
    Ok(modes)
}

fn isolation(reader: &mut Reader<'_>) -> Result<Isolation, ServerError> {
    if reader.accept(&["READ", "COMMITTED"]) || reader.accept(&["READ", "UNCOMMITTED"]) {
        return Ok(Isolation::ReadCommitted);
    }
    if reader.accept(&["REPEATABLE", "READ"]) {
        return Ok(Isolation::RepeatableRead);
    }
    if reader.accept(&["SERIALIZABLE"]) {
        return Ok(Isolation::Serializable);
    }
    Err(syntax("ISOLATION LEVEL is one of READ COMMITTED, REPEATABLE READ, SERIALIZABLE"))
}

/// The name after SHOW or RESET as one word in small letters.
pub fn shown_name(reader: &mut Reader<'_>) -> String {
    let text = unquoted(reader.rest()).to_ascii_lowercase();
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["transaction", "isolation", "level"] => "transaction_isolation".into(),
        ["transaction", "token"] => "transaction_token".into(),
        ["session", "authorization"] => "session_authorization".into(),
        ["time", "zone"] => "timezone".into(),
        _ => words.join(" "),
    }
}

/// A SELECT of nothing but one setting, as drivers send it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingQuery {
    /// The setting.
    pub name: String,
    /// Its new value, with set_config.
    pub value: Option<String>,
    /// The new value is for this transaction alone.
    pub local: bool,
    /// An unknown setting is NULL and no error.
    pub missing_ok: bool,
    /// What the result's column is called.
    pub column: String,
}

/// Reads `SELECT current_setting('name' [, missing_ok])` or `SELECT set_config('name', 'value', is_local)` with
/// literals; none if the statement is another one.
pub fn setting_query(reader: &mut Reader<'_>) -> Option<SettingQuery> {
    reader.at = 1;
    if reader.accept(&["pg_catalog"]) && !reader.accept_symbol(".") {
        return None;
    }
    let sets = reader.accept(&["set_config"]);
    if !sets && !reader.accept(&["current_setting"]) {
        return None;
    }
    let name = reader.accept_symbol("(").then(|| reader.string())??;
    let value = if sets { Some(reader.accept_symbol(",").then(|| reader.string())??) } else { None };
    let mut flag = false;
    if reader.accept_symbol(",") {
        flag = pgtypes::truth(&unquoted(reader.take()?.text(reader.sql)))?;
    } else if sets {
        return None;
    }
    if !reader.accept_symbol(")") {
        return None;
    }
    let function = if sets { "set_config" } else { "current_setting" };
    let column = if reader.accept(&["AS"]) { reader.name()? } else { function.to_string() };
    reader.at_end().then_some(SettingQuery {
        name,
        value,
        local: sets && flag,
        missing_ok: !sets && flag,
        column,
    })
}
