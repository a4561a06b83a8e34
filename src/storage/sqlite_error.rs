//! What an error of SQLite means: disk full, damage, something that passes, or a plain SQL error with its SQLSTATE.
//!
//! The SQLSTATE is the classification: whoever meets an error while it applies, commits, recovers or copies asks
//! [`ServerError::passes`] (a lock, no memory, no descriptors: says nothing about what was asked for, try again),
//! [`ServerError::is_of_the_medium`] (the disk is full or fails), and takes only the rest for a misfit.

use rusqlite::{Error, ErrorCode, ffi};

use crate::error::ServerError;
use crate::hsb::codes::Code;

impl From<Error> for ServerError {
    fn from(error: Error) -> ServerError {
        sqlite_error(&error)
    }
}

/// The error as a client sees it.
pub fn sqlite_error(error: &Error) -> ServerError {
    match error {
        Error::SqliteFailure(code, message) => failure(code, message.as_deref().unwrap_or("")),
        Error::SqlInputError { error, msg, .. } => failure(error, msg),
        other => ServerError::sql("XX000", other.to_string()),
    }
}

fn failure(error: &ffi::Error, message: &str) -> ServerError {
    let text = if message.is_empty() { error.to_string() } else { message.to_string() };
    let sqlstate = match error.code {
        ErrorCode::ConstraintViolation => constraint(error.extended_code),
        ErrorCode::OperationInterrupted => return ServerError::sql("57014", "the statement was cancelled"),
        ErrorCode::AuthorizationForStatementDenied => "0A000",
        ErrorCode::DiskFull => return ServerError::with(Code::DISK_FULL, text),
        // SQLite's shared index of its log has its own number for a full disk.
        ErrorCode::SystemIoFailure if error.extended_code == ffi::SQLITE_IOERR_SHMSIZE => {
            return ServerError::with(Code::DISK_FULL, text);
        }
        ErrorCode::SystemIoFailure if error.extended_code == ffi::SQLITE_IOERR_NOMEM => "53200",
        ErrorCode::SystemIoFailure if is_want_of_resources(error.extended_code) => "53000",
        // For want of descriptors, mostly; a file that is not there is noticed before SQLite is asked.
        ErrorCode::CannotOpen => "53000",
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            return ServerError::with(Code::DATABASE_CORRUPT, text);
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "55P03",
        ErrorCode::ReadOnly => "25006",
        ErrorCode::OutOfMemory => "53200",
        ErrorCode::TooBig => "54000",
        ErrorCode::TypeMismatch => "42804",
        ErrorCode::SystemIoFailure => "58030",
        _ => plain(&text),
    };
    ServerError::sql(sqlstate, text)
}

/// Failures of locking, opening and mapping, for which the system lacked locks, descriptors or memory. Reading, writing
/// and syncing are not among them: there the disk fails.
fn is_want_of_resources(extended: i32) -> bool {
    matches!(
        extended,
        ffi::SQLITE_IOERR_LOCK
            | ffi::SQLITE_IOERR_RDLOCK
            | ffi::SQLITE_IOERR_UNLOCK
            | ffi::SQLITE_IOERR_CHECKRESERVEDLOCK
            | ffi::SQLITE_IOERR_BLOCKED
            | ffi::SQLITE_IOERR_ACCESS
            | ffi::SQLITE_IOERR_SHMOPEN
            | ffi::SQLITE_IOERR_SHMLOCK
            | ffi::SQLITE_IOERR_SHMMAP
            | ffi::SQLITE_IOERR_GETTEMPPATH
    )
}

fn constraint(extended: i32) -> &'static str {
    match extended {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            "23505"
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "P0001",
        _ => "23000",
    }
}

/// How SQLite says that a limit (docs/limits.md) is reached.
const LIMITS: [&str; 6] = [
    "nested too deep",
    "Expression tree is too large",
    "Recursion limit",
    "pattern too complex",
    "variable number must be between",
    "tables in a join",
];

/// SQLITE_ERROR says what it is only in its text.
fn plain(text: &str) -> &'static str {
    let starts = |start: &str| text.starts_with(start);
    if starts("no such table") || starts("no such view") {
        "42P01"
    } else if starts("no such column") || text.contains("has no column named") {
        "42703"
    } else if starts("ambiguous column") {
        "42702"
    } else if starts("no such function") || starts("wrong number of arguments") {
        "42883"
    } else if starts("no such index") || starts("no such trigger") {
        "42704"
    } else if text.ends_with("already exists") || starts("there is already") {
        "42P07"
    } else if starts("duplicate column name") {
        "42701"
    } else if starts("too many") || LIMITS.iter().any(|limit| text.contains(limit)) {
        "54000"
    } else if text.contains("integer overflow") {
        "22003"
    } else {
        "42601"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_reached_is_no_error_of_grammar() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let of = |sql: &str| sqlite_error(&connection.query_row(sql, [], |_| Ok(())).unwrap_err());
        let views: String =
            (1..=1100).map(|number| format!(", c{number} AS (SELECT a FROM c{})", number - 1)).collect();
        for sql in [
            format!("SELECT {}1", "- ".repeat(1100)),
            format!("SELECT {}1{}", "(".repeat(3000), ")".repeat(3000)),
            format!("WITH c0 AS (SELECT 1 AS a){views} SELECT * FROM c1100"),
            "SELECT 'a' LIKE hex(zeroblob(100000))".to_owned(),
            "SELECT ?99999".to_owned(),
            format!("SELECT 1 FROM (SELECT 1){}", ", (SELECT 1)".repeat(70)),
            format!("SELECT 1{}", ", 1".repeat(3000)),
        ] {
            let error = of(&sql);
            assert_eq!(error.sqlstate, "54000", "{}: {error}", &sql[..40.min(sql.len())]);
        }
        assert_eq!(of("SELECT FROM").sqlstate, "42601");
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let of = |extended| sqlite_error(&Error::SqliteFailure(ffi::Error::new(extended), None));
        let passing = [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_SNAPSHOT,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_IOERR_NOMEM,
            ffi::SQLITE_IOERR_LOCK,
            ffi::SQLITE_IOERR_SHMMAP,
        ];
        for extended in passing {
            let error = of(extended);
            assert!(error.passes() && !error.is_of_the_medium(), "{extended}: {error:?}");
        }
        for extended in
            [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_READ]
        {
            let error = of(extended);
            assert!(!error.passes() && error.is_of_the_medium(), "{extended}: {error:?}");
        }
        for extended in
            [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CORRUPT, ffi::SQLITE_ERROR, ffi::SQLITE_MISMATCH]
        {
            let error = of(extended);
            assert!(!error.passes() && !error.is_of_the_medium(), "{extended}: {error:?}");
        }
    }
}
