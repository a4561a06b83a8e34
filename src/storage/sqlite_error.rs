//! What an error of SQLite means to a client: disk full, damage, or a plain SQL error with its SQLSTATE.

use rusqlite::ErrorCode;

use crate::error::ServerError;
use crate::hsb::codes::Code;

/// Translates an error of the database.
pub fn sqlite_error(error: rusqlite::Error) -> ServerError {
    let code = error.sqlite_error_code();
    let text = error.to_string();
    match code {
        Some(ErrorCode::DiskFull) => ServerError::with(Code::DISK_FULL, text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            ServerError::with(Code::DATABASE_CORRUPT, text)
        }
        Some(ErrorCode::ConstraintViolation) => ServerError::sql(constraint_state(&text), text),
        Some(ErrorCode::OperationInterrupted) => ServerError::sql("57014", text),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ServerError::sql("55P03", text),
        Some(ErrorCode::TooBig) => ServerError::sql("54000", text),
        _ => ServerError::sql(statement_state(&text), text),
    }
}

fn constraint_state(text: &str) -> &'static str {
    const STATES: &[(&str, &str)] = &[
        ("UNIQUE", "23505"),
        ("PRIMARY KEY", "23505"),
        ("NOT NULL", "23502"),
        ("FOREIGN KEY", "23503"),
        ("CHECK", "23514"),
    ];
    STATES.iter().find(|(part, _)| text.contains(part)).map_or("23000", |(_, state)| state)
}

fn statement_state(text: &str) -> &'static str {
    const STATES: &[(&str, &str)] = &[
        ("already exists", "42P07"),
        ("already another", "42P07"),
        ("no such table", "42P01"),
        ("no such view", "42P01"),
        ("no such column", "42703"),
        ("duplicate column", "42701"),
        ("no such index", "42704"),
        ("no such trigger", "42704"),
        ("no such function", "42883"),
        ("syntax error", "42601"),
        ("incomplete input", "42601"),
    ];
    STATES.iter().find(|(part, _)| text.contains(part)).map_or("XX000", |(_, state)| state)
}
