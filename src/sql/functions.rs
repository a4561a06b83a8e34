//! SQL functions of ours and the few of PostgreSQL that clients call at start; registered on the connections of sessions.
//! Each is named in `storage::functions` as well, for the connections that only have to know that it exists.

use std::sync::Arc;

use rusqlite::Connection;

use super::{access, errors};
use crate::calendar;
use crate::error::ServerError;
use crate::services::outcomes::Outcomes;
use crate::services::status::NodeStatus;
use crate::storage::functions::FLAGS;
use crate::storage::memory;

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
        .create_scalar_function("pg_advisory_unlock_all", 0, FLAGS, |_| Ok(None::<i64>))
        .map_err(|error| errors::from_sqlite(&error))?;
    let recovery = status.clone();
    number_function(connection, "pg_is_in_recovery", move || {
        i64::from(recovery.is_read_only() && role_of_state(&recovery.state_name()) != "PRIMARY")
    })?;
    number_function(connection, "pg_backend_pid", || {
        access::identity()
            .map_or(0, |identity| i64::from(crate::services::registry::process_id(identity.session)))
    })
}

/// HOTSTANDBY_OUTCOME(token); of no token, nothing is known.
fn outcome_function(connection: &Connection, outcomes: Arc<Outcomes>) -> Result<(), ServerError> {
    let outcome = move |context: &rusqlite::functions::Context<'_>| -> rusqlite::Result<Option<&str>> {
        let _fetching = memory::fetching();
        let Some(token) = context.get::<Option<String>>(0)? else { return Ok(None) };
        let outcome = outcomes.outcome(&token);
        let outcome = outcome.map_err(|error| rusqlite::Error::UserFunctionError(error.into()))?;
        Ok(Some(outcome.name()))
    };
    connection
        .create_scalar_function("HOTSTANDBY_OUTCOME", 1, FLAGS, outcome)
        .map_err(|error| errors::from_sqlite(&error))
}

fn text_function(
    connection: &Connection,
    name: &str,
    value: impl Fn() -> String + Send + Sync + std::panic::UnwindSafe + 'static,
) -> Result<(), ServerError> {
    connection
        .create_scalar_function(name, 0, FLAGS, move |_| Ok(value()))
        .map_err(|error| errors::from_sqlite(&error))
}

fn number_function(
    connection: &Connection,
    name: &str,
    value: impl Fn() -> i64 + Send + Sync + std::panic::UnwindSafe + 'static,
) -> Result<(), ServerError> {
    connection
        .create_scalar_function(name, 0, FLAGS, move |_| Ok(value()))
        .map_err(|error| errors::from_sqlite(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::storage::database::Database;

    /// Else a schema that uses it could be executed by a session and not by the secondary, or at recovery.
    #[test]
    fn every_function_is_known_where_changes_are_applied() {
        let directory = tempfile::tempdir().unwrap();
        let (parameters, _) = Parameters::from_text(directory.path(), "").unwrap();
        let settings = parameters.settings();
        let status = Arc::new(NodeStatus::plain(settings));
        let database = Arc::new(Database::at(directory.path().join("solid.db"), 1 << 20));
        database.create(4096, |_| Ok(())).unwrap();
        let outcomes = Arc::new(Outcomes::new(Arc::clone(&database), Arc::clone(&status)));
        let connection = Connection::open_in_memory().unwrap();
        let functions = |connection: &Connection| {
            let query = "SELECT name, narg FROM pragma_function_list WHERE builtin = 0 ORDER BY name";
            let mut statement = connection.prepare(query).unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.collect::<rusqlite::Result<Vec<(String, i32)>>>().unwrap()
        };
        register(&connection, &status, &outcomes).unwrap();
        assert_eq!(functions(&connection), functions(&database.open_for_apply().unwrap()));
    }
}
