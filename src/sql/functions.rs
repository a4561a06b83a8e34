//! SQL functions of ours and the few of PostgreSQL that clients call at start; registered on every connection.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

use super::outcome::Outcomes;
use super::{access, calendar, errors};
use crate::error::ServerError;
use crate::node::NodeStatus;

/// The server's version as PostgreSQL clients understand it, with ours.
pub const SERVER_VERSION: &str = concat!("15.0 (HotStandby ", env!("CARGO_PKG_VERSION"), ")");
/// The one database has this name whatever name a client connects with.
pub const DATABASE_NAME: &str = "hotstandby";

/// The role in a state's name: PRIMARY, SECONDARY, STANDALONE, or nothing.
pub fn role_of_state(state: &str) -> &'static str {
    ["PRIMARY", "SECONDARY", "STANDALONE"].into_iter().find(|role| state.starts_with(role)).unwrap_or("")
}

/// Registers the functions.
pub fn register(
    connection: &Connection,
    status: &Arc<NodeStatus>,
    outcomes: &Arc<Outcomes>,
) -> Result<(), ServerError> {
    let state = status.clone();
    text_function(connection, "HOTSTANDBY_STATE", move || state.state_name())?;
    let link = status.clone();
    text_function(connection, "HOTSTANDBY_CONNECTSTATUS", move || link.connect_status())?;
    let role = status.clone();
    text_function(connection, "HOTSTANDBY_ROLE", move || role_of_state(&role.state_name()).to_string())?;
    let login = status.clone();
    text_function(connection, "LOGIN_SERVER", move || role_of_state(&login.state_name()).to_string())?;
    outcome_function(connection, outcomes.clone())?;
    text_function(connection, "version", || {
        format!("PostgreSQL {SERVER_VERSION}, SQLite {}", rusqlite::version())
    })?;
    for name in ["current_schema", "current_catalog", "current_database"] {
        let value = if name == "current_schema" { "public" } else { DATABASE_NAME };
        text_function(connection, name, move || value.to_string())?;
    }
    for name in ["current_user", "session_user"] {
        text_function(connection, name, || {
            access::identity().map(|identity| identity.user.clone()).unwrap_or_default()
        })?;
    }
    text_function(connection, "now", calendar::now_text)?;
    // Connection pools send it before they give a connection to the next user; there are no such locks.
    connection
        .create_scalar_function("pg_advisory_unlock_all", 0, flags(), |_| Ok(None::<i64>))
        .map_err(|error| errors::from_sqlite(&error))?;
    let recovery = status.clone();
    number_function(connection, "pg_is_in_recovery", move || {
        i64::from(recovery.is_read_only() && role_of_state(&recovery.state_name()) != "PRIMARY")
    })?;
    number_function(connection, "pg_backend_pid", || {
        access::identity().map_or(0, |identity| i64::from(super::registry::process_id(identity.session)))
    })
}

/// Harmless, so that views may use them although the schema is not trusted.
fn flags() -> FunctionFlags {
    FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS
}

/// HOTSTANDBY_OUTCOME(token); of no token, nothing is known.
fn outcome_function(connection: &Connection, outcomes: Arc<Outcomes>) -> Result<(), ServerError> {
    let outcome = move |context: &rusqlite::functions::Context<'_>| -> rusqlite::Result<Option<&str>> {
        let Some(token) = context.get::<Option<String>>(0)? else { return Ok(None) };
        let outcome = outcomes.outcome(&token);
        let outcome = outcome.map_err(|error| rusqlite::Error::UserFunctionError(error.into()))?;
        Ok(Some(outcome.name()))
    };
    connection
        .create_scalar_function("HOTSTANDBY_OUTCOME", 1, flags(), outcome)
        .map_err(|error| errors::from_sqlite(&error))
}

fn text_function(
    connection: &Connection,
    name: &str,
    value: impl Fn() -> String + Send + Sync + std::panic::UnwindSafe + 'static,
) -> Result<(), ServerError> {
    connection
        .create_scalar_function(name, 0, flags(), move |_| Ok(value()))
        .map_err(|error| errors::from_sqlite(&error))
}

fn number_function(
    connection: &Connection,
    name: &str,
    value: impl Fn() -> i64 + Send + Sync + std::panic::UnwindSafe + 'static,
) -> Result<(), ServerError> {
    connection
        .create_scalar_function(name, 0, flags(), move |_| Ok(value()))
        .map_err(|error| errors::from_sqlite(&error))
}
