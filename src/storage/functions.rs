//! Functions that the server adds to SQLite's: their names.
//!
//! A CHECK or a view of a user's may call them, so the connections that apply what the primary sends, at recovery too, have
//! to know them when they execute the schema. None of them is ever evaluated there, because what the primary's evaluation
//! led to is a change of a row already; and none is deterministic, so no index or column is made of them. What they give a
//! session is in `sql::functions`.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

/// Name and number of arguments. A name once given stays: the schema of a database may have it.
const FUNCTIONS: &[(&str, i32)] = &[
    ("hotstandby_state", 0),
    ("hotstandby_connectstatus", 0),
    ("hotstandby_role", 0),
    ("hotstandby_outcome", 1),
    ("login_server", 0),
    ("version", 0),
    ("current_schema", 0),
    ("current_catalog", 0),
    ("current_database", 0),
    ("current_user", 0),
    ("session_user", 0),
    ("now", 0),
    ("pg_advisory_unlock_all", 0),
    ("pg_is_in_recovery", 0),
    ("pg_backend_pid", 0),
];

/// Harmless, so that a schema may use them although it is not trusted.
pub const FLAGS: FunctionFlags = FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_INNOCUOUS);

/// Makes the names known.
pub fn declare(connection: &Connection) -> rusqlite::Result<()> {
    for (name, arguments) in FUNCTIONS {
        let evaluate = move |_: &rusqlite::functions::Context<'_>| -> rusqlite::Result<Option<i64>> {
            let reason = format!("{name}() is for sessions of clients");
            Err(rusqlite::Error::UserFunctionError(reason.into()))
        };
        connection.create_scalar_function(*name, *arguments, FLAGS, evaluate)?;
    }
    Ok(())
}
