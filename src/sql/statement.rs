//! Tells the statements of a text apart and says of each what it is.
//!
//! Statements that are SQLite's business keep their (rewritten) text; ours are taken apart here. Nothing in here
//! knows a connection.

use super::lexer::{Reader, Token, TokenKind, tokens};
use super::rewrite;
use super::set_statement::{self, SetCommand, SettingQuery, TransactionModes};
use super::split::{self, Parts};
use super::user_statement::{self, UserCommand};
use crate::error::ServerError;

/// One statement.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What it is.
    pub kind: Kind,
    /// Text for SQLite; for statements of ours the text as it came.
    pub sql: String,
    /// First word of the command tag.
    pub tag: &'static str,
    /// It said FOR UPDATE or FOR SHARE: inside a transaction it runs at the writer, which keeps all others out.
    pub locks: bool,
}

/// What a statement is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Nothing but blanks and comments.
    Empty,
    /// SELECT, VALUES, WITH, EXPLAIN: SQLite says whether it writes.
    Query,
    /// A PRAGMA: always on the reader; the access rules let only harmless ones through.
    Pragma,
    /// INSERT, UPDATE, DELETE, REPLACE.
    Change,
    /// CREATE, DROP, ALTER.
    Schema,
    /// One statement of PostgreSQL that is several of SQLite; run as one. True: they change the schema.
    Several(Vec<String>, bool),
    /// BEGIN and its variants.
    Begin(TransactionModes),
    /// COMMIT, END.
    Commit,
    /// ROLLBACK, ABORT.
    Rollback,
    /// SAVEPOINT.
    Savepoint(String),
    /// ROLLBACK TO.
    RollbackTo(String),
    /// RELEASE.
    Release(String),
    /// ADMIN COMMAND.
    Admin(String),
    /// SET.
    Set(SetCommand),
    /// SHOW.
    Show(String),
    /// RESET; none: all.
    Reset(Option<String>),
    /// DISCARD.
    Discard,
    /// DEALLOCATE; none: all.
    Deallocate(Option<String>),
    /// LISTEN.
    Listen(String),
    /// UNLISTEN; none: all.
    Unlisten(Option<String>),
    /// CREATE USER and the like.
    User(UserCommand),
    /// COPY.
    Copy(CopyCommand),
    /// CLOSE ALL: there are no cursors of SQL, so all of them are closed.
    CloseAll,
    /// `SELECT current_setting(…)` and `SELECT set_config(…)`.
    Setting(SettingQuery),
    /// CREATE TRIGGER without its END, which the client has cut at a semicolon.
    CutTrigger,
    /// Accepted and not done; the notice says why.
    Skipped(&'static str),
    /// Refused, with the reason.
    Refused(&'static str),
}

/// A COPY statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyCommand {
    /// Table, or a query in parentheses for COPY … TO.
    pub source: String,
    /// Named columns.
    pub columns: Vec<String>,
    /// From the client, or to it.
    pub from_client: bool,
}

/// The statements of a text, one after another.
#[derive(Clone)]
pub struct Statements<'a> {
    sql: &'a str,
    parts: Parts<'a>,
}

impl<'a> Statements<'a> {
    /// From the beginning; an error if the text is too long.
    pub fn of(sql: &'a str) -> Result<Statements<'a>, ServerError> {
        Ok(Statements { sql, parts: Parts::of(sql)? })
    }

    /// The next one; none at the end.
    pub fn take_next(&mut self) -> Result<Option<Statement>, ServerError> {
        self.parts.take_next()?.map(|part| classify(self.sql, &part)).transpose()
    }
}

impl Statement {
    /// What a text without statements is.
    pub fn empty() -> Statement {
        statement(Kind::Empty, String::new(), "")
    }
}

/// Statements of `sql` in order; never empty.
pub fn parse(sql: &str) -> Result<Vec<Statement>, ServerError> {
    let mut statements = Statements::of(sql)?;
    let mut found = Vec::with_capacity(1);
    while let Some(statement) = statements.take_next()? {
        found.push(statement);
    }
    if found.is_empty() {
        found.push(Statement::empty());
    }
    Ok(found)
}

fn statement(kind: Kind, sql: impl Into<String>, tag: &'static str) -> Statement {
    Statement { kind, sql: sql.into(), tag, locks: false }
}

fn classify(sql: &str, part: &[Token]) -> Result<Statement, ServerError> {
    let mut reader = Reader::new(sql, part);
    let first = part[0];
    let text = reader.rest();
    let word =
        if first.kind == TokenKind::Word { first.text(sql).to_ascii_uppercase() } else { String::new() };
    let (kind, tag) = match word.as_str() {
        "SELECT" if let Some(setting) = set_statement::setting_query(&mut reader) => {
            (Kind::Setting(setting), "SELECT")
        }
        "SELECT" | "VALUES" | "WITH" | "EXPLAIN" => return Ok(query(sql, part, word == "WITH")),
        "INSERT" | "REPLACE" => return Ok(change(sql, part, "INSERT")),
        "UPDATE" => return Ok(change(sql, part, "UPDATE")),
        "DELETE" => return Ok(change(sql, part, "DELETE")),
        "CREATE" | "DROP" | "ALTER" => return schema(sql, part),
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
            return transaction(&word, &mut reader, text);
        }
        "GRANT" | "REVOKE" => (
            Kind::User(user_statement::grant(&mut reader)?),
            if word == "GRANT" { "GRANT" } else { "REVOKE" },
        ),
        "SET" => (Kind::Set(set_statement::set(&mut reader)?), "SET"),
        "TRUNCATE" => (truncate(&mut reader)?, "TRUNCATE TABLE"),
        "COPY" => (Kind::Copy(copy(&mut reader)?), "COPY"),
        "PRAGMA" => (Kind::Pragma, "PRAGMA"),
        "VACUUM" => (vacuum(sql, part), "VACUUM"),
        "ANALYZE" => {
            (Kind::Skipped("ANALYZE is accepted and not done: statistics are not replicated"), "ANALYZE")
        }
        "REINDEX" => {
            (Kind::Skipped("REINDEX is accepted and not done: indexes are always current"), "REINDEX")
        }
        "CHECKPOINT" => (Kind::Skipped("use ADMIN COMMAND 'makecp' for a checkpoint"), "CHECKPOINT"),
        "ATTACH" | "DETACH" => {
            (Kind::Refused("ATTACH and DETACH are refused: only the replicated database can be used"), "")
        }
        "PREPARE" | "EXECUTE" => {
            (Kind::Refused("PREPARE and EXECUTE as SQL are not supported: prepare through the driver"), "")
        }
        "CLOSE" if part.len() == 2 && part[1].is(sql, "ALL") => (Kind::CloseAll, "CLOSE CURSOR ALL"),
        "DECLARE" | "FETCH" | "CLOSE" | "MOVE" => {
            (Kind::Refused("cursors as SQL are not supported: fetch through the driver"), "")
        }
        _ => {
            return Ok(
                other(&word, &mut reader, text)?.unwrap_or_else(|| statement(Kind::Query, text, "SELECT"))
            );
        }
    };
    Ok(statement(kind, text, tag))
}

/// The small statements about the session itself.
fn other(word: &str, reader: &mut Reader<'_>, text: &str) -> Result<Option<Statement>, ServerError> {
    reader.at = 1;
    let (kind, tag) = match word {
        "ADMIN" => {
            let command = if reader.accept(&["COMMAND"]) { reader.string() } else { None };
            let Some(command) = command.filter(|_| reader.at_end()) else {
                return Err(syntax(
                    "ADMIN COMMAND takes one command in single quotes: ADMIN COMMAND 'hsb state'",
                ));
            };
            (Kind::Admin(command), "ADMIN COMMAND")
        }
        "SHOW" => (Kind::Show(set_statement::shown_name(reader)), "SHOW"),
        "RESET" => {
            (Kind::Reset(Some(set_statement::shown_name(reader)).filter(|name| name != "all")), "RESET")
        }
        "DISCARD" => (Kind::Discard, "DISCARD ALL"),
        "DEALLOCATE" => {
            let _ = reader.accept(&["PREPARE"]);
            let all = reader.accept(&["ALL"]);
            (Kind::Deallocate(if all { None } else { reader.name() }), "DEALLOCATE")
        }
        "LISTEN" => {
            let channel = channel(reader).ok_or_else(|| syntax("LISTEN takes the name of an event"))?;
            (Kind::Listen(channel), "LISTEN")
        }
        "UNLISTEN" => (Kind::Unlisten(channel(reader)), "UNLISTEN"),
        _ => return Ok(None),
    };
    Ok(Some(statement(kind, text, tag)))
}

/// The name of a channel, as PostgreSQL spells it in notifications: in small letters unless it is quoted.
fn channel(reader: &mut Reader<'_>) -> Option<String> {
    let is_quoted = reader.peek().is_some_and(|token| token.kind == TokenKind::Quoted);
    reader.name().map(|name| if is_quoted { name } else { name.to_lowercase() })
}

/// A syntax error of ours.
pub fn syntax(message: impl Into<String>) -> ServerError {
    ServerError::sql("42601", message)
}

fn query(sql: &str, part: &[Token], with: bool) -> Statement {
    let mut depth = 0usize;
    let mut tag = "SELECT";
    for token in part {
        match token.text(sql) {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ if !with || depth > 0 || tag != "SELECT" => {}
            _ if token.is(sql, "INSERT") || token.is(sql, "REPLACE") => tag = "INSERT",
            _ if token.is(sql, "UPDATE") => tag = "UPDATE",
            _ if token.is(sql, "DELETE") => tag = "DELETE",
            _ => {}
        }
    }
    let (part, locks) = rewrite::without_lock_clause(sql, part);
    Statement { kind: Kind::Query, sql: rewrite::expressions(sql, part), tag, locks }
}

fn change(sql: &str, part: &[Token], tag: &'static str) -> Statement {
    statement(Kind::Change, rewrite::expressions(sql, part), tag)
}

fn schema(sql: &str, part: &[Token]) -> Result<Statement, ServerError> {
    let mut reader = Reader::new(sql, part);
    let verb = part[0].text(sql).to_ascii_uppercase();
    reader.at = 1;
    if reader.accept(&["USER"]) || reader.accept(&["ROLE"]) {
        let tag = match verb.as_str() {
            "CREATE" => "CREATE ROLE",
            "ALTER" => "ALTER ROLE",
            _ => "DROP ROLE",
        };
        let command = user_statement::user(&verb, &mut reader)?;
        return Ok(statement(Kind::User(command), "", tag));
    }
    if verb == "CREATE" && (reader.accept(&["TEMP"]) || reader.accept(&["TEMPORARY"])) {
        let reason =
            "CREATE TEMP is refused: temporary objects would live on one shared connection of one server";
        return Ok(statement(Kind::Refused(reason), "", ""));
    }
    if part.iter().any(|token| {
        super::lexer::unquoted(token.text(sql))
            .get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case("_hsb_"))
    }) {
        return Err(ServerError::sql("42501", "names that begin with _hsb_ belong to the server"));
    }
    if split::is_cut(sql, part) {
        return Ok(statement(Kind::CutTrigger, "", ""));
    }
    if let Some(text) = split::without_dollar_quotes(sql, part)? {
        return schema(&text, &tokens(&text));
    }
    let (kind, text) = rewrite::schema(sql, part)?;
    Ok(statement(kind, text, schema_tag(&verb, sql, part)))
}

fn schema_tag(verb: &str, sql: &str, part: &[Token]) -> &'static str {
    let object = part.iter().skip(1).find_map(|token| {
        ["TABLE", "INDEX", "VIEW", "TRIGGER"].into_iter().find(|object| token.is(sql, object))
    });
    match (verb, object.unwrap_or("TABLE")) {
        ("CREATE", "INDEX") => "CREATE INDEX",
        ("CREATE", "VIEW") => "CREATE VIEW",
        ("CREATE", "TRIGGER") => "CREATE TRIGGER",
        ("CREATE", _) => "CREATE TABLE",
        ("DROP", "INDEX") => "DROP INDEX",
        ("DROP", "VIEW") => "DROP VIEW",
        ("DROP", "TRIGGER") => "DROP TRIGGER",
        ("DROP", _) => "DROP TABLE",
        _ => "ALTER TABLE",
    }
}

fn transaction(word: &str, reader: &mut Reader<'_>, text: &str) -> Result<Statement, ServerError> {
    reader.at = 1;
    let skip_noise = |reader: &mut Reader<'_>| {
        let _ = reader.accept(&["WORK"]) || reader.accept(&["TRANSACTION"]);
    };
    let (kind, tag) = match word {
        "BEGIN" | "START" => {
            let _ = ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"].iter().any(|mode| reader.accept(&[mode]));
            skip_noise(reader);
            let modes = set_statement::transaction_modes(reader)?;
            (Kind::Begin(modes), if word == "BEGIN" { "BEGIN" } else { "START TRANSACTION" })
        }
        "SAVEPOINT" => (Kind::Savepoint(wanted_name(reader)?), "SAVEPOINT"),
        "RELEASE" => {
            let _ = reader.accept(&["SAVEPOINT"]);
            (Kind::Release(wanted_name(reader)?), "RELEASE")
        }
        "COMMIT" | "END" => {
            skip_noise(reader);
            (Kind::Commit, "COMMIT")
        }
        _ => {
            skip_noise(reader);
            if reader.accept(&["TO"]) {
                let _ = reader.accept(&["SAVEPOINT"]);
                (Kind::RollbackTo(wanted_name(reader)?), "ROLLBACK")
            } else {
                (Kind::Rollback, "ROLLBACK")
            }
        }
    };
    let _ = reader.accept(&["AND", "NO", "CHAIN"]);
    if !reader.at_end() {
        return Err(syntax(format!("syntax error at \"{}\"", reader.rest())));
    }
    Ok(statement(kind, text, tag))
}

fn wanted_name(reader: &mut Reader<'_>) -> Result<String, ServerError> {
    reader.name().map(|name| name.to_lowercase()).ok_or_else(|| syntax("a savepoint name is missing"))
}

/// `TRUNCATE [TABLE] a, b`: DELETE of all rows.
fn truncate(reader: &mut Reader<'_>) -> Result<Kind, ServerError> {
    reader.at = 1;
    let _ = reader.accept(&["TABLE"]);
    let _ = reader.accept(&["ONLY"]);
    let names = rewrite::name_list(reader)?;
    let deletes = names.iter().map(|name| format!("DELETE FROM {name}")).collect();
    Ok(Kind::Several(deletes, false))
}

fn vacuum(sql: &str, part: &[Token]) -> Kind {
    if part.iter().any(|token| token.is(sql, "INTO")) {
        return Kind::Refused("VACUUM INTO is refused: use ADMIN COMMAND 'backup'");
    }
    Kind::Skipped("VACUUM is accepted and not done: it is not needed, free pages are used again")
}

/// `COPY table [(columns)] FROM STDIN | TO STDOUT …`; text format only.
fn copy(reader: &mut Reader<'_>) -> Result<CopyCommand, ServerError> {
    reader.at = 1;
    let source = if reader.peek().is_some_and(|token| token.is_symbol(reader.sql, "(")) {
        parenthesized(reader)?
    } else {
        rewrite::qualified_name(reader)?
    };
    let mut columns = Vec::new();
    if reader.accept_symbol("(") {
        while let Some(name) = reader.name() {
            columns.push(name);
            let _ = reader.accept_symbol(",");
        }
        let _ = reader.accept_symbol(")");
    }
    let from_client = reader.accept(&["FROM", "STDIN"]);
    if !from_client && !reader.accept(&["TO", "STDOUT"]) {
        return Err(ServerError::sql(
            "0A000",
            "COPY works only FROM STDIN and TO STDOUT: the server reads and writes no other files",
        ));
    }
    let options = reader.rest().to_ascii_lowercase();
    if ["csv", "binary", "delimiter", "null"].iter().any(|option| options.contains(option)) {
        return Err(ServerError::sql("0A000", "COPY takes the text format with its defaults only"));
    }
    Ok(CopyCommand { source, columns, from_client })
}

fn parenthesized(reader: &mut Reader<'_>) -> Result<String, ServerError> {
    let first = reader.at;
    let mut depth = 0usize;
    while let Some(token) = reader.take() {
        match token.text(reader.sql) {
            "(" => depth += 1,
            ")" if depth == 1 => {
                return Ok(rewrite::expressions(reader.sql, &reader.tokens[first..reader.at]));
            }
            ")" => depth -= 1,
            _ => {}
        }
    }
    Err(syntax("a closing parenthesis is missing"))
}
