//! The settings of PostgreSQL that SET takes: what each may be, and what it does here.
//!
//! A setting that is not in the table is refused, and so is a value that would mean something which this server does not
//! do: an answer SET that changes nothing would be a lie. Not here: where values are kept (`settings`), and our own SET
//! statements (`set_statement`). docs/settings.md is generated from the table.

use crate::config::distance;
use crate::error::ServerError;
use crate::pgtypes;

/// What a value may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allowed {
    /// Any text.
    Text,
    /// on or off.
    Truth,
    /// A number, with or without a unit.
    Number,
    /// A time: milliseconds, or with ms, s, min or h.
    Time,
    /// One of these, in any letter case.
    OneOf(&'static [&'static str]),
    /// A list of names, each one of these.
    ListOf(&'static [&'static str]),
    /// Nothing: it can only be shown.
    Fixed,
}

/// A setting.
#[derive(Debug)]
pub struct Known {
    /// In small letters.
    pub name: &'static str,
    /// Until something else is set.
    pub factory: &'static str,
    /// What it may be.
    pub allowed: Allowed,
    /// What it does here.
    pub effect: &'static str,
}

const fn known(name: &'static str, factory: &'static str, allowed: Allowed, effect: &'static str) -> Known {
    Known { name, factory, allowed, effect }
}

use Allowed::{Fixed, ListOf, Number, OneOf, Text, Time, Truth};

const LEVELS: &[&str] = &["read uncommitted", "read committed", "repeatable read", "serializable"];
/// Hints for a planner and for memory that this server does not have: nothing that a client is promised depends on them.
const HINT: &str = "accepted, without effect: a hint for PostgreSQL's planner, memory or log";

/// Every setting, those with an effect first.
pub const TABLE: &[Known] = &[
    known("application_name", "", Text, "shown again; kept for the session"),
    known(
        "client_encoding",
        "UTF8",
        OneOf(&["utf8", "utf-8", "unicode", "sql_ascii"]),
        "text is always UTF-8",
    ),
    known(
        "default_transaction_isolation",
        "read committed",
        OneOf(LEVELS),
        "isolation of the transactions that follow",
    ),
    known("default_transaction_read_only", "off", Truth, "the transactions that follow cannot write"),
    known(
        "idle_in_transaction_session_timeout",
        "0",
        Time,
        "a session that idles so long inside a transaction is ended (25P03); 0: never",
    ),
    known(
        "idle_session_timeout",
        "0",
        Time,
        "a session that idles so long outside a transaction is ended (57P05); 0: never",
    ),
    known(
        "lock_timeout",
        "",
        Time,
        "how long a statement waits to become the writer (55P03); 0: without limit; DEFAULT: General.LockWaitTimeOut",
    ),
    known("statement_timeout", "0", Time, "how long a statement may run (57014); 0: without limit"),
    known("timezone", "UTC", Text, "reported and shown again; times are always given in UTC"),
    known("transaction_isolation", "read committed", OneOf(LEVELS), "isolation of the transaction at hand"),
    known("transaction_read_only", "off", Truth, "whether the transaction at hand may write"),
    known("bytea_output", "hex", OneOf(&["hex"]), "bytes are always given in hexadecimal digits"),
    known("check_function_bodies", "on", Truth, "accepted, without effect: there are no functions to check"),
    known(
        "client_min_messages",
        "notice",
        OneOf(&[
            "debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "notice", "warning", "error",
        ]),
        "accepted; notices are sent all the same",
    ),
    known("datestyle", "ISO, MDY", ListOf(&["iso", "mdy", "dmy", "ymd"]), "dates are always ISO"),
    known("default_table_access_method", "heap", OneOf(&["heap"]), "there is one kind of table"),
    known("default_tablespace", "", OneOf(&[""]), "there are no tablespaces"),
    known(
        "default_transaction_deferrable",
        "off",
        OneOf(&["off", "false", "no", "0"]),
        "transactions are not deferrable",
    ),
    known("default_with_oids", "off", OneOf(&["off", "false", "no", "0"]), "tables have no OIDs"),
    known(
        "extra_float_digits",
        "1",
        Number,
        "accepted, without effect: numbers are always given with all their digits",
    ),
    known("intervalstyle", "postgres", OneOf(&["postgres"]), "there is one style"),
    known("role", "", OneOf(&["none"]), "a session is what its user may do"),
    known("row_security", "on", Truth, "accepted, without effect: there are no row policies"),
    known(
        "search_path",
        "public",
        ListOf(&["", "public", "main", "pg_catalog", "pg_temp", "$user"]),
        "there is one schema, public",
    ),
    known(
        "session_replication_role",
        "origin",
        OneOf(&["origin", "local"]),
        "triggers always run at the primary, and never at the secondary",
    ),
    known(
        "synchronous_commit",
        "on",
        OneOf(&["on", "off", "local", "remote_write", "true", "false", "yes", "no", "0", "1"]),
        "accepted, without effect: SET SAFENESS and SET DURABILITY decide",
    ),
    known(
        "xmloption",
        "content",
        OneOf(&["content", "document"]),
        "accepted, without effect: there is no XML",
    ),
    known("backslash_quote", "safe_encoding", Text, HINT),
    known("cursor_tuple_fraction", "0.1", Number, HINT),
    known("effective_cache_size", "4GB", Number, HINT),
    known("escape_string_warning", "on", Truth, HINT),
    known("force_parallel_mode", "off", Text, HINT),
    known("from_collapse_limit", "8", Number, HINT),
    known("geqo", "on", Truth, HINT),
    known("jit", "on", Truth, HINT),
    known("join_collapse_limit", "8", Number, HINT),
    known("log_duration", "off", Truth, HINT),
    known("log_min_duration_statement", "-1", Number, HINT),
    known("log_statement", "none", Text, HINT),
    known("maintenance_work_mem", "64MB", Number, HINT),
    known("max_parallel_maintenance_workers", "2", Number, HINT),
    known("max_parallel_workers", "8", Number, HINT),
    known("max_parallel_workers_per_gather", "2", Number, HINT),
    known("plan_cache_mode", "auto", Text, HINT),
    known("quote_all_identifiers", "off", Truth, HINT),
    known("random_page_cost", "4", Number, HINT),
    known("seq_page_cost", "1", Number, HINT),
    known("synchronize_seqscans", "on", Truth, HINT),
    known("temp_buffers", "8MB", Number, HINT),
    known("work_mem", "4MB", Number, HINT),
    known("in_hot_standby", "", Fixed, "on at a server that is no primary"),
    known("integer_datetimes", "on", Fixed, ""),
    known("is_superuser", "", Fixed, "on for SYS_ADMIN_ROLE"),
    known("lc_collate", "C", Fixed, "text is compared byte by byte"),
    known("lc_ctype", "C", Fixed, ""),
    known("max_identifier_length", "63", Fixed, ""),
    known("server_encoding", "UTF8", Fixed, ""),
    known(
        "server_version",
        super::functions::SERVER_VERSION,
        Fixed,
        "the PostgreSQL whose protocol is spoken",
    ),
    known("server_version_num", "150000", Fixed, ""),
    known("session_authorization", "", Fixed, "the user of the session"),
    known(
        "standard_conforming_strings",
        "on",
        OneOf(&["on", "true", "yes", "1"]),
        "a backslash in a string is a backslash",
    ),
    known("transaction_deferrable", "off", Fixed, ""),
];

/// The row of a setting; `name` in small letters.
pub fn find(name: &str) -> Option<&'static Known> {
    // PostgreSQL has some twenty switches of this kind.
    const SWITCH: &Known = &known("enable_…", "on", Truth, HINT);
    TABLE.iter().find(|row| row.name == name).or_else(|| name.starts_with("enable_").then_some(SWITCH))
}

/// An application's own setting, as `myapp.user`: only kept.
pub fn is_custom(name: &str) -> bool {
    name.contains('.')
}

/// The refusal of a name that is none, with the nearest one that is.
pub fn unknown(name: &str) -> ServerError {
    const OURS: [&str; 5] = ["safeness", "durability", "lock timeout", "idle timeout", "statement maxtime"];
    let names = TABLE.iter().map(|row| row.name).chain(OURS);
    if OURS.contains(&name) {
        let text =
            format!("SET LOCAL takes PostgreSQL's settings; for one transaction: SET TRANSACTION {name}");
        return ServerError::sql("42601", text);
    }
    let nearest = names.map(|known| (distance(known, name), known)).min();
    let hint = nearest
        .filter(|(far, _)| *far <= 3 && *far < name.len())
        .map_or(String::new(), |(_, known)| format!("; did you mean {known}?"));
    ServerError::sql("42704", format!("unrecognized configuration parameter \"{name}\"{hint}"))
}

impl Known {
    /// Whether it can be this.
    pub fn check(&self, name: &str, value: &str) -> Result<(), ServerError> {
        let text = value.trim().to_ascii_lowercase();
        let fits = match self.allowed {
            Text => true,
            Truth => pgtypes::truth(&text).is_some(),
            Number => text
                .trim_end_matches(|letter: char| letter.is_ascii_alphabetic())
                .trim()
                .parse::<f64>()
                .is_ok(),
            Time => super::settings::milliseconds(name, Some(value)).is_ok(),
            OneOf(words) => words.contains(&text.as_str()),
            ListOf(words) => text.split(',').all(|word| words.contains(&word.trim().trim_matches('"'))),
            Fixed => {
                return Err(ServerError::sql("55P02", format!("parameter \"{name}\" cannot be changed")));
            }
        };
        if fits {
            return Ok(());
        }
        match self.allowed {
            OneOf(words) | ListOf(words) => Err(ServerError::sql(
                "0A000",
                format!("{name} cannot be \"{value}\" here: {}; it takes {}", self.effect, listed(words)),
            )),
            _ => {
                Err(ServerError::sql("22023", format!("invalid value for parameter \"{name}\": \"{value}\"")))
            }
        }
    }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| if word.is_empty() { "''" } else { *word }).collect::<Vec<_>>().join(", ")
}

/// docs/settings.md.
pub fn document() -> String {
    let mut text = String::from(
        "# Settings of a session\n\n\
         Generated from src/sql/known_settings.rs.\n\n\
         Ours, each shown again by SHOW with the same words (`SHOW SAFENESS`, `SHOW LOCK TIMEOUT`):\n\n\
         | statement | values | meaning |\n|---|---|---|\n\
         | `SET [TRANSACTION] SAFENESS` | 1SAFE, 2SAFE, DEFAULT | whether a commit waits for the secondary |\n\
         | `SET [TRANSACTION] DURABILITY` | RELAXED, STRICT, DEFAULT | whether a commit waits for the disk |\n\
         | `SET [TRANSACTION] ISOLATION LEVEL` | READ COMMITTED, REPEATABLE READ, SERIALIZABLE | how far others' commits are seen |\n\
         | `SET [TRANSACTION] READ ONLY`, `READ WRITE`, `WRITE` | | whether the transaction may write |\n\
         | `SET LOCK TIMEOUT` | seconds, or 500ms; DEFAULT | how long a statement waits to become the writer; 0: not at all |\n\
         | `SET IDLE TIMEOUT` | seconds, or 500ms; DEFAULT | as idle_session_timeout; 0: never |\n\
         | `SET STATEMENT MAXTIME` | seconds, or 500ms; DEFAULT | as statement_timeout; 0: without limit |\n\
         | `SET TRANSACTION TOKEN` | 'text' | see [outcome.md](outcome.md) |\n\n\
         PostgreSQL's, for drivers and tools. `SET LOCAL` holds until the end of the transaction; what SET changed of these\n\
         inside a transaction that is rolled back is as before (going back to a savepoint takes no SET back, and ours are no part of\n\
         a transaction). A name that is not here is refused (42704), and so is a value that would mean\n\
         something which this server does not do (0A000). Names with a dot, as `myapp.user`, are kept for the application.\n\n\
         | setting | factory | values | what it does here |\n|---|---|---|---|\n",
    );
    for row in TABLE {
        let values = match row.allowed {
            Text => "any text".to_string(),
            Truth => "on, off".to_string(),
            Number => "a number".to_string(),
            Time => "milliseconds, or with ms, s, min, h".to_string(),
            OneOf(words) => listed(words),
            ListOf(words) => format!("a list of {}", listed(words)),
            Fixed => "only shown".to_string(),
        };
        text.push_str(&format!("| {} | {} | {values} | {} |\n", row.name, row.factory, row.effect));
    }
    text.push_str(&format!("| enable_… | on | on, off | {HINT} |\n"));
    text
}
