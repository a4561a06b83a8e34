//! The settings of a session: ours, and those of PostgreSQL that drivers send and ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::functions;
use super::outcome::HeldToken;
use super::set_statement::{Isolation, TransactionModes};
use super::types;
use crate::error::ServerError;
use crate::hsb::settings::{Durability, Safeness};

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
pub struct Settings {
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
    /// How long a statement may run.
    pub statement_max_time: Option<Duration>,
    /// SET TRANSACTION … outside a transaction: for the next one.
    pub next_transaction: TransactionOptions,
    generic: BTreeMap<String, String>,
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

/// Settings that cannot be set and what they are.
const FIXED: &[(&str, &str)] = &[
    ("server_version", functions::SERVER_VERSION),
    ("server_version_num", "150000"),
    ("server_encoding", "UTF8"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("max_identifier_length", "63"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("transaction_deferrable", "off"),
];

/// Settings that are only remembered.
const REMEMBERED: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("search_path", "public"),
    ("application_name", ""),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("client_min_messages", "notice"),
    ("synchronous_commit", "on"),
];

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            isolation: Isolation::ReadCommitted,
            read_only: false,
            safeness: Safeness::Default,
            durability: Durability::Default,
            lock_timeout: None,
            idle_timeout: None,
            statement_max_time: None,
            next_transaction: TransactionOptions::default(),
            generic: BTreeMap::new(),
        }
    }
}

fn invalid(name: &str, value: &str) -> ServerError {
    ServerError::sql("22023", format!("invalid value for parameter \"{name}\": \"{value}\""))
}

impl Settings {
    /// Sets a setting of PostgreSQL; no value: back to the default.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), ServerError> {
        let name = name.to_ascii_lowercase();
        let truth = |fallback: bool| match value {
            None => Ok(fallback),
            Some(text) => types::truth(text).ok_or_else(|| invalid(&name, text)),
        };
        match name.as_str() {
            "default_transaction_read_only" => self.read_only = truth(false)?,
            "default_transaction_isolation" => {
                let text = value.unwrap_or("default");
                self.isolation = Isolation::parse(text).ok_or_else(|| invalid(&name, text))?;
            }
            "statement_timeout" => self.statement_max_time = milliseconds(&name, value)?,
            "lock_timeout" => self.lock_timeout = milliseconds(&name, value)?,
            "idle_session_timeout" => self.idle_timeout = milliseconds(&name, value)?,
            "client_encoding" => self.set_encoding(value)?,
            "standard_conforming_strings" if !truth(true)? => {
                return Err(ServerError::sql("0A000", "standard_conforming_strings is always on"));
            }
            "in_hot_standby" | "is_superuser" | "session_authorization" => return Err(cannot_change(&name)),
            _ if FIXED.iter().any(|(fixed, _)| *fixed == name && name != "standard_conforming_strings") => {
                return Err(cannot_change(&name));
            }
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

    fn set_encoding(&mut self, value: Option<&str>) -> Result<(), ServerError> {
        let text = value.unwrap_or("UTF8");
        let plain: String =
            text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        if !["utf8", "unicode", "sqlascii"].contains(&plain.as_str()) {
            return Err(ServerError::sql(
                "0A000",
                format!("client_encoding {text} is not supported; use UTF8"),
            ));
        }
        Ok(())
    }

    /// The value of a setting as text; none if it is unknown.
    pub fn show(&self, name: &str) -> Option<String> {
        let lower = name.to_ascii_lowercase();
        let milliseconds = |time: Option<Duration>| Some(time.map_or(0, |time| time.as_millis()).to_string());
        let listed = |list: &[(&str, &str)]| {
            list.iter().find(|(known, _)| *known == lower).map(|(_, value)| value.to_string())
        };
        match lower.as_str() {
            "default_transaction_isolation" => Some(self.isolation.name().to_string()),
            "statement_timeout" => milliseconds(self.statement_max_time),
            "lock_timeout" => milliseconds(self.lock_timeout),
            "idle_session_timeout" => milliseconds(self.idle_timeout),
            "safeness" => Some(format!("{:?}", self.safeness).to_lowercase()),
            "durability" => Some(format!("{:?}", self.durability).to_lowercase()),
            _ => listed(FIXED).or_else(|| self.generic.get(&lower).cloned()).or_else(|| listed(REMEMBERED)),
        }
    }

    /// Back to the defaults.
    pub fn reset_all(&mut self) {
        *self = Settings::default();
    }
}

fn cannot_change(name: &str) -> ServerError {
    ServerError::sql("55P02", format!("parameter \"{name}\" cannot be changed"))
}

/// `500`, `500ms`, `2s`, `1min`: PostgreSQL's times, without a unit in milliseconds; 0 means none.
fn milliseconds(name: &str, value: Option<&str>) -> Result<Option<Duration>, ServerError> {
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
