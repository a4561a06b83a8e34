//! SQL functions of ours and the few of PostgreSQL that clients call at start: what each gives a session. Their names and
//! types are rows of `storage::functions`, for the connections that only have to know that they exist.

use std::panic::UnwindSafe;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::functions::Context;
use rusqlite::types::Value;

use super::{access, errors};
use crate::calendar;
use crate::error::ServerError;
use crate::services::outcomes::Outcomes;
use crate::services::registry::process_id;
use crate::services::status::NodeStatus;
use crate::storage::functions::{FLAGS, FunctionId, ServerFunction, TABLE};
use crate::storage::memory;

/// The server's version as PostgreSQL clients understand it, with ours.
pub const SERVER_VERSION: &str = concat!("15.0 (HotStandby ", env!("CARGO_PKG_VERSION"), ")");
/// The one database has this name whatever name a client connects with.
pub const DATABASE_NAME: &str = "hotstandby";

/// The role in a state's name: PRIMARY, SECONDARY, STANDALONE, or nothing.
pub fn role_of_state(state: &str) -> &'static str {
    ["PRIMARY", "SECONDARY", "STANDALONE"].into_iter().find(|role| state.starts_with(role)).unwrap_or("")
}

/// The row of a function of the server.
pub fn server_function(name: &str) -> Option<&'static ServerFunction> {
    TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(name))
}

/// Registers the functions.
pub fn register(
    connection: &Connection,
    status: &Arc<NodeStatus>,
    outcomes: &Arc<Outcomes>,
) -> Result<(), ServerError> {
    for row in &TABLE {
        let evaluate = evaluation(row.id, Arc::clone(status), Arc::clone(outcomes));
        connection
            .create_scalar_function(row.name, row.arguments, FLAGS, move |context| evaluate(context))
            .map_err(|error| errors::from_sqlite(&error))?;
    }
    Ok(())
}

type Evaluation = Box<dyn Fn(&Context<'_>) -> rusqlite::Result<Value> + Send + Sync + UnwindSafe>;

/// What a function gives.
fn evaluation(function: FunctionId, status: Arc<NodeStatus>, outcomes: Arc<Outcomes>) -> Evaluation {
    match function {
        FunctionId::State => of_text(move || status.state_name()),
        FunctionId::ConnectStatus => of_text(move || status.connect_status()),
        FunctionId::Role | FunctionId::LoginServer => {
            of_text(move || role_of_state(&status.state_name()).to_owned())
        }
        FunctionId::Outcome => Box::new(move |context| outcome(context, &outcomes)),
        FunctionId::Version => {
            of_text(|| format!("PostgreSQL {SERVER_VERSION}, SQLite {}", rusqlite::version()))
        }
        FunctionId::CurrentSchema => of_text(|| "public".to_owned()),
        FunctionId::CurrentCatalog | FunctionId::CurrentDatabase => of_text(|| DATABASE_NAME.to_owned()),
        FunctionId::CurrentUser | FunctionId::SessionUser => {
            of_text(|| access::identity().map(|identity| identity.user.clone()).unwrap_or_default())
        }
        FunctionId::Now => of_text(calendar::now_text),
        // Connection pools send it before they give a connection to the next user; there are no such locks.
        FunctionId::UnlockAdvisoryLocks => Box::new(|_| Ok(Value::Null)),
        FunctionId::IsInRecovery => of_number(move || {
            i64::from(status.is_read_only() && role_of_state(&status.state_name()) != "PRIMARY")
        }),
        FunctionId::ProcessId => {
            of_number(|| access::identity().map_or(0, |identity| i64::from(process_id(identity.session))))
        }
    }
}

fn of_text(value: impl Fn() -> String + Send + Sync + UnwindSafe + 'static) -> Evaluation {
    Box::new(move |_| Ok(Value::Text(value())))
}

fn of_number(value: impl Fn() -> i64 + Send + Sync + UnwindSafe + 'static) -> Evaluation {
    Box::new(move |_| Ok(Value::Integer(value())))
}

/// HOTSTANDBY_OUTCOME(token); of no token, nothing is known.
fn outcome(context: &Context<'_>, outcomes: &Outcomes) -> rusqlite::Result<Value> {
    let _fetching = memory::fetching();
    let Some(token) = context.get::<Option<String>>(0)? else { return Ok(Value::Null) };
    let outcome = outcomes.outcome(&token);
    let outcome = outcome.map_err(|error| rusqlite::Error::UserFunctionError(error.into()))?;
    Ok(Value::Text(outcome.name().to_owned()))
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
