//! The settings of a session: ours, and those of PostgreSQL that drivers send and ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::known_settings;
use super::set_statement::{Isolation, TransactionModes};
use crate::error::ServerError;
use crate::hsb::settings::{Durability, Safeness};
use crate::pgtypes;
use crate::services::outcomes::HeldToken;

/// What holds for one transaction before the session's settings.
#[derive(Debug, Clone, Default)]
pub struct TransactionOptions {
    /// Isolation and access.
    pub modes: TransactionModes,
    /// SET TRANSACTION SAFENESS.
    pub safeness: Option<Safeness>,
    /// SET TRANSACTION DURABILITY.
    pub durability: Option<Durability>,
    /// SET TRANSACTION TOKEN; held until the transaction has ended.
    pub token: Option<Arc<HeldToken>>,
}

/// A session's settings.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Isolation of transactions.
    pub isolation: Isolation,
    /// Transactions are read only.
    pub read_only: bool,
    /// Safeness of commits.
    pub safeness: Safeness,
    /// Durability of commits.
    pub durability: Durability,
    /// How long a statement waits to become the writer; none: the server's default.
    pub lock_timeout: Option<Duration>,
    /// How long the session may be idle.
    pub idle_timeout: Option<Duration>,
    /// How long the session may be idle inside a transaction.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// How long a statement may run.
    pub statement_max_time: Option<Duration>,
    /// SET TRANSACTION … outside a transaction: for the next one.
    pub next_transaction: TransactionOptions,
    generic: BTreeMap<String, String>,
    /// Since the first SET of the open transaction.
    before: Option<Box<Before>>,
}

/// What SET may have to undo.
#[derive(Debug, Clone)]
struct Before {
    settings: SessionSettings,
    /// Those of SET LOCAL, and what each was set to before it; none: nothing.
    local: Vec<(String, Option<String>)>,
}

/// Settings that clients are told of at login and at every change, as they are spelled there.
pub const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// `lock_timeout = 0`, as PostgreSQL means it: longer than any server lives.
pub const WITHOUT_LIMIT: Duration = Duration::from_secs(u32::MAX as u64);

impl Default for SessionSettings {
    fn default() -> SessionSettings {
        SessionSettings {
            isolation: Isolation::ReadCommitted,
            read_only: false,
            safeness: Safeness::Default,
            durability: Durability::Default,
            lock_timeout: None,
            idle_timeout: None,
            idle_in_transaction_timeout: None,
            statement_max_time: None,
            next_transaction: TransactionOptions::default(),
            generic: BTreeMap::new(),
            before: None,
        }
    }
}

fn invalid(name: &str, value: &str) -> ServerError {
    ServerError::sql("22023", format!("invalid value for parameter \"{name}\": \"{value}\""))
}

impl SessionSettings {
    /// Sets a setting of PostgreSQL; no value: back to the default.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), ServerError> {
        let name = name.to_ascii_lowercase();
        // As in PostgreSQL only letters and digits count: asyncpg says 'utf-8', quotes included.
        let encoding = value.filter(|_| name == "client_encoding").map(plain_name);
        let value = encoding.as_deref().or(value);
        match known_settings::find(&name) {
            Some(row) => row.check(&name, value.unwrap_or(row.factory)).or_else(|error| {
                // DEFAULT changes nothing where nothing can be changed.
                if value.is_none() { Ok(()) } else { Err(error) }
            })?,
            None if known_settings::is_custom(&name) => {}
            None => return Err(known_settings::unknown(&name)),
        }
        match name.as_str() {
            "default_transaction_read_only" => {
                self.read_only = value.and_then(pgtypes::truth).unwrap_or(false)
            }
            "default_transaction_isolation" => {
                let text = value.unwrap_or("default");
                self.isolation = Isolation::parse(text).ok_or_else(|| invalid(&name, text))?;
            }
            "statement_timeout" => self.statement_max_time = milliseconds(&name, value)?,
            "lock_timeout" => {
                self.lock_timeout = match value {
                    Some(_) => Some(milliseconds(&name, value)?.unwrap_or(WITHOUT_LIMIT)),
                    None => None,
                };
            }
            "idle_session_timeout" => self.idle_timeout = milliseconds(&name, value)?,
            "idle_in_transaction_session_timeout" => {
                self.idle_in_transaction_timeout = milliseconds(&name, value)?;
            }
            // Always UTF-8, whatever it is called.
            "client_encoding" => {}
            _ => match value {
                // What is remembered is bounded: a client chooses the names.
                Some(text) if self.generic.len() < 200 && text.len() < 4096 => {
                    self.generic.insert(name, text.to_string());
                }
                Some(text) => return Err(invalid(&name, text)),
                None => drop(self.generic.remove(&name)),
            },
        }
        Ok(())
    }

    /// What was set, as [`SessionSettings::set`] takes it; none: nothing was.
    fn was_set(&self, name: &str) -> Option<String> {
        match name {
            "default_transaction_read_only" => Some(self.read_only.to_string()),
            "lock_timeout" => self.lock_timeout.and_then(|_| self.show(name)),
            _ if self.generic.contains_key(name) => self.generic.get(name).cloned(),
            "default_transaction_isolation"
            | "statement_timeout"
            | "idle_session_timeout"
            | "idle_in_transaction_session_timeout" => self.show(name),
            _ => None,
        }
    }

    /// The value of a setting as text; none if it is unknown. Each can be set again as it is shown.
    pub fn show(&self, name: &str) -> Option<String> {
        let lower = name.to_ascii_lowercase();
        let time = |time: Option<Duration>| Some(time.map_or(0, |time| time.as_millis()).to_string());
        match lower.as_str() {
            "default_transaction_isolation" => Some(self.isolation.name().to_string()),
            "default_transaction_read_only" => Some(if self.read_only { "on" } else { "off" }.to_string()),
            "statement_timeout" => time(self.statement_max_time),
            "lock_timeout" => time(self.lock_timeout.filter(|time| *time != WITHOUT_LIMIT)),
            "idle_session_timeout" => time(self.idle_timeout),
            "idle_in_transaction_session_timeout" => time(self.idle_in_transaction_timeout),
            "lock timeout" => self.lock_timeout.map(in_seconds),
            "idle timeout" => Some(in_seconds(self.idle_timeout.unwrap_or_default())),
            "statement maxtime" => Some(in_seconds(self.statement_max_time.unwrap_or_default())),
            _ => {
                let factory = || known_settings::find(&lower).map(|row| row.factory.to_string());
                self.generic.get(&lower).cloned().or_else(factory)
            }
        }
    }

    /// Before a SET inside a transaction: what has to come back if it is rolled back, or at its end if `local`.
    pub fn remember(&mut self, name: &str, local: bool) {
        if self.before.is_none() {
            self.before = Some(Box::new(Before { settings: self.clone(), local: Vec::new() }));
        }
        let name = name.to_ascii_lowercase();
        let was = self.was_set(&name);
        let Some(before) = self.before.as_mut() else { return };
        let is_local = before.local.iter().any(|(known, _)| *known == name);
        match local {
            true if !is_local => before.local.push((name, was)),
            true => {}
            // What SET says after SET LOCAL outlives the transaction.
            false => before.local.retain(|(known, _)| *known != name),
        }
    }

    /// At the end of a transaction: PostgreSQL's settings are as they were before it if it was rolled back, and those that
    /// were set for it alone in any case.
    pub fn end_transaction(&mut self, committed: bool) {
        let Some(before) = self.before.take() else { return };
        if committed {
            for (name, was) in &before.local {
                // It had this value, so it can have it.
                let _ = self.set(name, was.as_deref());
            }
            return;
        }
        let after = std::mem::replace(self, before.settings);
        // SET SAFENESS and its like are no part of a transaction.
        self.safeness = after.safeness;
        self.durability = after.durability;
        self.next_transaction = after.next_transaction;
    }

    /// Back to the defaults.
    pub fn reset_all(&mut self) {
        let before = self.before.take();
        *self = SessionSettings { before, ..SessionSettings::default() };
    }
}

fn plain_name(encoding: &str) -> String {
    let letters = encoding.chars().filter(char::is_ascii_alphanumeric);
    let name = letters.collect::<String>().to_ascii_lowercase();
    if name == "sqlascii" { "sql_ascii".to_owned() } else { name }
}

/// As SET LOCK TIMEOUT and its like take it.
fn in_seconds(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis()) {
        (seconds, 0) => seconds.to_string(),
        _ => format!("{}ms", time.as_millis()),
    }
}

/// `500`, `500ms`, `2s`, `1min`: PostgreSQL's times, without a unit in milliseconds; 0 means none.
pub(super) fn milliseconds(name: &str, value: Option<&str>) -> Result<Option<Duration>, ServerError> {
    let Some(text) = value else { return Ok(None) };
    let digits =
        text.trim().trim_end_matches(|character: char| character.is_ascii_alphabetic() || character == ' ');
    let unit = match text.trim()[digits.len()..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(invalid(name, text)),
    };
    let number: u32 = digits.trim().parse().map_err(|_| invalid(name, text))?;
    Ok(Some(Duration::from_millis(u64::from(number) * unit)).filter(|time| !time.is_zero()))
}
