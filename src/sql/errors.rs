//! SQLite's errors in a session: what the access rules refused carries their own words.

use rusqlite::{Error, ErrorCode};

use super::access;
use super::lexer::{self, TokenKind};
use crate::error::ServerError;
use crate::storage::sqlite_error::sqlite_error;
use crate::storage::{limits, memory};

/// The error as a client sees it.
pub fn from_sqlite(error: &Error) -> ServerError {
    if error.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied)
        && let Some(refusal) = access::take_refusal()
    {
        return ServerError::sql("0A000", refusal);
    }
    let found = sqlite_error(error);
    match error.sqlite_error_code() {
        Some(ErrorCode::OutOfMemory) => {
            let text = format!(
                "{found}: the statements of a session that reads may take {} MB, those of all sessions four times that; ask for less at once, or raise General.MaxStatementMemory",
                memory::session_bytes() >> 20
            );
            found.saying(text)
        }
        Some(ErrorCode::TooBig) if found.detail().contains("string or blob") => {
            let text = format!(
                "{found}: a value or row may have {} MB; divide it, or raise General.MaxStatementMemory",
                limits::value_bytes() >> 20
            );
            found.saying(text)
        }
        _ => found,
    }
}

/// The error of a statement that SQLite does not take. Queries on PostgreSQL's catalog, which tools send, end in any
/// error of grammar; they are told what is missing instead.
pub fn from_preparing(error: &Error, sql: &str) -> ServerError {
    let found = from_sqlite(error);
    let class = found.sqlstate.get(..2);
    if class != Some("42") || !about_catalog(found.detail(), sql) {
        return found;
    }
    ServerError::sql(
        "0A000",
        "PostgreSQL's catalog is not available; SELECT name, sql FROM sqlite_schema shows the tables",
    )
}

fn about_catalog(message: &str, sql: &str) -> bool {
    // A table of the user's own that is missing is the better answer.
    if let Some(table) = message.strip_prefix("no such table: ") {
        return table.split('.').any(is_of_catalog);
    }
    let tokens = lexer::tokens(sql);
    tokens.iter().enumerate().any(|(index, token)| {
        let named = matches!(token.kind, TokenKind::Word | TokenKind::Quoted);
        let calls = tokens.get(index + 1).is_some_and(|next| next.is_symbol(sql, "("));
        named && !calls && is_of_catalog(&lexer::unquoted(token.text(sql)))
    })
}

fn is_of_catalog(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with("pg_") || lower == "information_schema"
}
