//! Runs one statement on a connection and gives its rows to a sink.
//!
//! Used for the session's reader, and inside jobs of the writer.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rusqlite::types::{Type, Value, ValueRef};
use rusqlite::{Connection, Row, Statement as Compiled};

use super::access::{ClientScope, Identity};
use super::describe::{self, Metadata, ResultColumn};
use super::rows::{RowSink, give_row};
use super::statement::{Kind, Statement};
use super::user_statement::UserCommand;
use super::{errors, users};
use crate::error::ServerError;
use crate::pgtypes;
use crate::storage::writer::WriteTransaction;
use crate::storage::{limits, memory};

/// A statement that was parsed and described.
#[derive(Debug)]
pub struct Prepared {
    /// What it is.
    pub statement: Statement,
    /// What is known of it.
    pub metadata: Metadata,
    /// The schema it was described under.
    pub generation: u64,
    /// The types of parameters as the client gave them.
    pub declared: Vec<u32>,
    /// The client was told its columns before there were values; their types stay.
    pub described: AtomicBool,
}

fn sqlite(error: rusqlite::Error) -> ServerError {
    errors::from_sqlite(&error)
}

/// Binds the client's parameters.
pub fn bind(
    compiled: &mut Compiled<'_>,
    metadata: &Metadata,
    parameters: &[Value],
) -> Result<(), ServerError> {
    for (index, place) in metadata.parameter_places.iter().enumerate() {
        let value = parameters.get(*place).unwrap_or(&Value::Null);
        compiled.raw_bind_parameter(index + 1, value).map_err(sqlite)?;
    }
    Ok(())
}

/// The schema changed under a statement whose columns the client knows already.
pub fn plan_changed() -> ServerError {
    ServerError::sql("0A000", "cached plan must not change result type; prepare the statement again")
}

/// Steps, and gives at most `limit` rows (0: all) to the sink; true if there are no more. Otherwise the statement stays where
/// it is, to be stepped on by the next call.
pub fn step_rows(
    compiled: &mut Compiled<'_>,
    columns: &[ResultColumn],
    limit: u64,
    sink: &mut impl RowSink,
) -> Result<(u64, bool), ServerError> {
    let mut is_first = true;
    step(compiled, limit, |row| {
        if std::mem::take(&mut is_first) && width(row) != columns.len() {
            return Err(plan_changed());
        }
        if columns.is_empty() { Ok(()) } else { give_row(row, columns, sink) }
    })
}

/// The same for whoever looks at the rows as SQLite has them. After an error the statement stands at its beginning.
pub fn step(
    compiled: &mut Compiled<'_>,
    limit: u64,
    mut visit: impl FnMut(&Row<'_>) -> Result<(), ServerError>,
) -> Result<(u64, bool), ServerError> {
    let mut count = 0;
    // Dropping them resets the statement, which is to stay where it is; at its end and after an error it resets itself.
    let mut rows = ManuallyDrop::new(compiled.raw_query());
    while let Some(row) = rows.next().map_err(sqlite)? {
        if let Err(error) = visit(row) {
            drop(ManuallyDrop::into_inner(rows));
            return Err(error);
        }
        count += 1;
        if count == limit {
            return Ok((count, false));
        }
    }
    Ok((count, true))
}

fn width(row: &Row<'_>) -> usize {
    row.as_ref().column_count()
}

/// Gives columns whose type nobody declared the type of their first value.
pub fn refine(columns: &mut [ResultColumn], row: &Row<'_>) {
    let _fetching = memory::fetching();
    let mut left = limits::message_bytes();
    for (index, column) in columns.iter_mut().enumerate().filter(|(_, column)| !column.certain) {
        let value = row.get_ref(index);
        // A row that is too long has no types: it is refused when it is encoded.
        if let Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) = value {
            let Some(rest) = left.checked_sub(bytes.len()) else { return };
            left = rest;
        }
        column.kind = pgtypes::of_value(value.map_or(Type::Null, |value| value.data_type()));
    }
}

/// Runs a prepared statement at the writer.
fn run_prepared(
    connection: &Connection,
    prepared: &Prepared,
    parameters: &[Value],
    sink: &mut impl RowSink,
) -> Result<u64, ServerError> {
    let mut compiled = connection.prepare_cached(&prepared.statement.sql).map_err(sqlite)?;
    bind(&mut compiled, &prepared.metadata, parameters)?;
    let (stepped, _) = step_rows(&mut compiled, &prepared.metadata.columns, 0, sink)?;
    Ok(if prepared.metadata.readonly { stepped } else { connection.changes() })
}

/// Runs a statement without parameters as the simple protocol wants it: its columns and its rows. None if it writes and
/// `only_readonly` is set; nothing has happened then.
pub fn run_simple(
    connection: &Connection,
    statement: &Statement,
    only_readonly: bool,
    sink: &mut impl RowSink,
) -> Result<Option<u64>, ServerError> {
    let mut compiled =
        connection.prepare(&statement.sql).map_err(|error| errors::from_preparing(&error, &statement.sql))?;
    describe::refuse_parameters(&compiled)?;
    if only_readonly && !compiled.readonly() && !matches!(statement.kind, Kind::Pragma) {
        return Ok(None);
    }
    if compiled.column_count() == 0 {
        let (stepped, _) = step_rows(&mut compiled, &[], 0, sink)?;
        return Ok(Some(if compiled.readonly() { stepped } else { connection.changes() }));
    }
    let metadata = describe::describe_compiled(connection, statement, &compiled, &[])?;
    let (uncertain, readonly, mut columns) = (metadata.is_uncertain(), metadata.readonly, metadata.columns);
    let mut count = 0;
    let mut rows = compiled.raw_query();
    let mut next = rows.next().map_err(sqlite)?;
    if let Some(first) = next.filter(|_| uncertain) {
        refine(&mut columns, first);
    }
    sink.columns(&columns);
    while let Some(row) = next {
        give_row(row, &columns, sink)?;
        count += 1;
        next = rows.next().map_err(sqlite)?;
    }
    Ok(Some(if readonly { count } else { connection.changes() }))
}

/// Runs a query that was described before.
pub fn run_query(
    connection: &Connection,
    sql: &str,
    columns: &[ResultColumn],
    sink: &mut impl RowSink,
) -> Result<u64, ServerError> {
    let mut compiled = connection.prepare(sql).map_err(sqlite)?;
    step_rows(&mut compiled, columns, 0, sink).map(|(count, _)| count)
}

/// What a session has the writer do; owned, because it may run on another thread.
pub enum Work {
    /// A prepared statement of the extended protocol.
    Prepared(Arc<Prepared>, Vec<Value>),
    /// A statement of the simple protocol.
    Simple(Statement),
    /// Changes of the schema.
    Schema(String),
    /// Several statements as one; true: they change the schema.
    Several(Vec<String>, bool),
    /// A statement about users.
    User(UserCommand),
}

impl Work {
    /// Does it inside a write transaction; gives the number for the command tag.
    pub fn run(
        self,
        transaction: &mut WriteTransaction<'_>,
        identity: &Arc<Identity>,
        sink: &mut impl RowSink,
    ) -> Result<Option<u64>, ServerError> {
        match self {
            Work::Prepared(prepared, parameters) => {
                let _scope = ClientScope::enter(identity);
                run_prepared(transaction.connection(), &prepared, &parameters, sink).map(Some)
            }
            Work::Simple(statement) => {
                let _scope = ClientScope::enter(identity);
                run_simple(transaction.connection(), &statement, false, sink)
            }
            Work::Schema(sql) => schema(transaction, identity, &sql).map(|()| None),
            Work::Several(list, true) => {
                list.iter().try_for_each(|sql| schema(transaction, identity, sql)).map(|()| None)
            }
            Work::Several(list, false) => {
                let _scope = ClientScope::enter(identity);
                let connection = transaction.connection();
                let run = |sql: &String| connection.execute(sql, []).map(drop).map_err(sqlite);
                list.iter().try_for_each(run).map(|()| None)
            }
            Work::User(command) => {
                transaction.users_changed();
                users::execute(transaction.connection(), &command).map(|()| None)
            }
        }
    }
}

/// Asks the access rules, then lets the server change the schema.
fn schema(
    transaction: &mut WriteTransaction<'_>,
    identity: &Arc<Identity>,
    sql: &str,
) -> Result<(), ServerError> {
    {
        let _scope = ClientScope::enter_schema(identity);
        let compiled = transaction.connection().prepare(sql).map_err(sqlite)?;
        describe::refuse_parameters(&compiled)?;
    }
    transaction.execute_schema(sql)
}
