//! SQLite's errors in a session: what the access rules refused carries their own words.

use rusqlite::{Error, ErrorCode};

use super::access;
use crate::error::ServerError;
use crate::storage::sqlite_error::sqlite_error;

/// The error as a client sees it.
pub fn from_sqlite(error: &Error) -> ServerError {
    if error.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied)
        && let Some(refusal) = access::take_refusal()
    {
        return ServerError::sql("0A000", refusal);
    }
    sqlite_error(error)
}
