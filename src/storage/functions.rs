//! Functions that the server adds to SQLite's: one row each. What they give a session is in `sql::functions`.
//!
//! A CHECK or a view of a user's may call them, so the connections that apply what the primary sends, at recovery too, have
//! to know them when they execute the schema. None of them is ever evaluated there, because what the primary's evaluation
//! led to is a change of a row already; and none is deterministic, so no index or column is made of them.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

use crate::pgtypes::oid;

/// A function of the server.
pub struct ServerFunction {
    /// Which it is.
    pub id: FunctionId,
    /// What it is called, in small letters. A name once given stays: the schema of a database may have it.
    pub name: &'static str,
    /// How many arguments it takes.
    pub arguments: i32,
    /// The type of its value; 0 unknown.
    pub gives: u32,
    /// Where it may stand.
    pub places: Places,
}

/// Where a function may stand beside the places where all may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// Nowhere.
    Queries,
    /// In a DEFAULT.
    Defaults,
    /// In a DEFAULT, and PostgreSQL calls it without parentheses.
    Word,
}

/// The functions; `sql::functions` says what each gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum FunctionId {
    State,
    ConnectStatus,
    Role,
    LoginServer,
    Outcome,
    Version,
    CurrentSchema,
    CurrentCatalog,
    CurrentDatabase,
    CurrentUser,
    SessionUser,
    Now,
    UnlockAdvisoryLocks,
    IsInRecovery,
    ProcessId,
}

const fn row(
    id: FunctionId,
    name: &'static str,
    arguments: i32,
    gives: u32,
    places: Places,
) -> ServerFunction {
    ServerFunction { id, name, arguments, gives, places }
}

/// All of them.
pub static TABLE: [ServerFunction; 15] = [
    row(FunctionId::State, "hotstandby_state", 0, oid::TEXT, Places::Queries),
    row(FunctionId::ConnectStatus, "hotstandby_connectstatus", 0, oid::TEXT, Places::Queries),
    row(FunctionId::Role, "hotstandby_role", 0, oid::TEXT, Places::Queries),
    row(FunctionId::LoginServer, "login_server", 0, oid::TEXT, Places::Queries),
    row(FunctionId::Outcome, "hotstandby_outcome", 1, oid::TEXT, Places::Queries),
    row(FunctionId::Version, "version", 0, oid::TEXT, Places::Queries),
    row(FunctionId::CurrentSchema, "current_schema", 0, oid::TEXT, Places::Word),
    row(FunctionId::CurrentCatalog, "current_catalog", 0, oid::TEXT, Places::Word),
    row(FunctionId::CurrentDatabase, "current_database", 0, oid::TEXT, Places::Defaults),
    row(FunctionId::CurrentUser, "current_user", 0, oid::TEXT, Places::Word),
    row(FunctionId::SessionUser, "session_user", 0, oid::TEXT, Places::Word),
    row(FunctionId::Now, "now", 0, oid::TEXT, Places::Defaults),
    row(FunctionId::UnlockAdvisoryLocks, "pg_advisory_unlock_all", 0, 0, Places::Queries),
    row(FunctionId::IsInRecovery, "pg_is_in_recovery", 0, oid::BOOL, Places::Queries),
    row(FunctionId::ProcessId, "pg_backend_pid", 0, oid::INT8, Places::Queries),
];

/// Harmless, so that a schema may use them although it is not trusted.
pub const FLAGS: FunctionFlags = FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_INNOCUOUS);

/// Makes the names known.
pub fn declare(connection: &Connection) -> rusqlite::Result<()> {
    for ServerFunction { name, arguments, .. } in &TABLE {
        let evaluate = move |_: &rusqlite::functions::Context<'_>| -> rusqlite::Result<Option<i64>> {
            let reason = format!("{name}() is for sessions of clients");
            Err(rusqlite::Error::UserFunctionError(reason.into()))
        };
        connection.create_scalar_function(*name, *arguments, FLAGS, evaluate)?;
    }
    Ok(())
}
