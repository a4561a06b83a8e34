//! Runs one statement on a connection and encodes its rows straight into the output.
//!
//! Used for the session's reader, where full buffers go to the client between rows, and inside jobs of the writer,
//! where the whole result is buffered so that a slow client never holds the writer.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rusqlite::types::{Type, Value, ValueRef};
use rusqlite::{Connection, Row, Statement as Compiled};

use super::access::{ClientScope, Identity};
use super::describe::{self, Column, Metadata};
use super::statement::{Kind, Statement};
use super::user_statement::UserCommand;
use super::{errors, types, users};
use crate::error::ServerError;
use crate::net::pg::codec::Formats;
use crate::net::pg::values;
use crate::storage::writer::WriteTransaction;
use crate::storage::{limits, memory};

/// Most that a result made at the writer may take.
pub const MAX_BUFFERED_RESULT_BYTES: usize = 256 << 20;

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

/// What a statement did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Encoded messages: rows, with their description in the simple protocol.
    pub rows: Vec<u8>,
    /// For the command tag.
    pub count: Option<u64>,
}

/// Takes full output away between rows.
pub type Flush<'a> = &'a mut dyn FnMut(&mut Vec<u8>) -> Result<(), ServerError>;

#[allow(clippy::ptr_arg)] // the type that Flush has
/// A [`Flush`] for the writer: nothing leaves, but there is a limit.
pub fn keep_buffered(out: &mut Vec<u8>) -> Result<(), ServerError> {
    if out.len() > MAX_BUFFERED_RESULT_BYTES {
        let limit = MAX_BUFFERED_RESULT_BYTES >> 20;
        return Err(ServerError::sql(
            "54000",
            format!("a result inside a write transaction is limited to {limit} MB"),
        ));
    }
    Ok(())
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

/// Steps and encodes at most `limit` rows (0: all); true if there are no more. Otherwise the statement stays where it
/// is, to be stepped on by the next call.
pub fn step_rows(
    compiled: &mut Compiled<'_>,
    columns: &[Column],
    formats: &Formats,
    limit: u64,
    out: &mut Vec<u8>,
    flush: Flush<'_>,
) -> Result<(u64, bool), ServerError> {
    let mut count = 0;
    let mut rows = compiled.raw_query();
    while let Some(row) = rows.next().map_err(sqlite)? {
        if count == 0 && width(row) != columns.len() {
            return Err(plan_changed());
        }
        if !columns.is_empty() {
            values::append_row(out, row, columns, formats)?;
        }
        count += 1;
        if limit != 0 && count == limit {
            // Dropping `rows` would reset the statement; without it the next call goes on after this row.
            std::mem::forget(rows);
            return Ok((count, false));
        }
        flush(out)?;
    }
    Ok((count, true))
}

fn width(row: &Row<'_>) -> usize {
    row.as_ref().column_count()
}

/// Gives columns whose type nobody declared the type of their first value.
pub fn refine(columns: &mut [Column], row: &Row<'_>) {
    let _fetching = memory::fetching();
    let mut left = limits::message_bytes();
    for (index, column) in columns.iter_mut().enumerate().filter(|(_, column)| !column.certain) {
        let value = row.get_ref(index);
        // A row that is too long has no types: it is refused when it is encoded.
        if let Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) = value {
            let Some(rest) = left.checked_sub(bytes.len()) else { return };
            left = rest;
        }
        column.oid = match value.map(|value| value.data_type()) {
            Ok(Type::Integer) => types::INT8,
            Ok(Type::Real) => types::FLOAT8,
            Ok(Type::Blob) => types::BYTEA,
            _ => types::TEXT,
        };
    }
}

/// Runs a prepared statement at the writer.
fn run_prepared(
    connection: &Connection,
    prepared: &Prepared,
    parameters: &[Value],
    formats: &Formats,
) -> Result<Outcome, ServerError> {
    let mut compiled = connection.prepare_cached(&prepared.statement.sql).map_err(sqlite)?;
    bind(&mut compiled, &prepared.metadata, parameters)?;
    let mut rows = Vec::new();
    let columns = &prepared.metadata.columns;
    let (stepped, _) = step_rows(&mut compiled, columns, formats, 0, &mut rows, &mut keep_buffered)?;
    let count = if prepared.metadata.readonly { stepped } else { connection.changes() };
    Ok(Outcome { rows, count: Some(count) })
}

/// Runs a statement without parameters as the simple protocol wants it: description and rows. None if it writes and
/// `only_readonly` is set; nothing has happened then.
pub fn run_simple(
    connection: &Connection,
    statement: &Statement,
    only_readonly: bool,
    out: &mut Vec<u8>,
    flush: Flush<'_>,
) -> Result<Option<u64>, ServerError> {
    let mut compiled =
        connection.prepare(&statement.sql).map_err(|error| errors::from_preparing(&error, &statement.sql))?;
    describe::refuse_parameters(&compiled)?;
    if only_readonly && !compiled.readonly() && !matches!(statement.kind, Kind::Pragma) {
        return Ok(None);
    }
    if compiled.column_count() == 0 {
        let (stepped, _) = step_rows(&mut compiled, &[], &Formats::Text, 0, out, flush)?;
        return Ok(Some(if compiled.readonly() { stepped } else { connection.changes() }));
    }
    let metadata = describe::describe_compiled(connection, statement, &compiled, &[])?;
    let readonly = metadata.readonly;
    let mut count = 0;
    let mut rows = compiled.raw_query();
    let mut first = rows.next().map_err(sqlite)?;
    let metadata = match first {
        Some(row) if metadata.is_uncertain() => {
            let mut columns = metadata.columns;
            refine(&mut columns, row);
            Metadata::of_columns(columns, readonly)
        }
        _ => metadata,
    };
    metadata.append_description(out, &Formats::Text);
    while let Some(row) = first {
        values::append_row(out, row, &metadata.columns, &Formats::Text)?;
        count += 1;
        flush(out)?;
        first = rows.next().map_err(sqlite)?;
    }
    Ok(Some(if readonly { count } else { connection.changes() }))
}

/// What a session has the writer do; owned, because it may run on another thread.
pub enum Work {
    /// A prepared statement of the extended protocol.
    Prepared(Arc<Prepared>, Vec<Value>, Formats),
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
    /// Does it inside a write transaction.
    pub fn run(
        self,
        transaction: &mut WriteTransaction<'_>,
        identity: &Arc<Identity>,
    ) -> Result<Outcome, ServerError> {
        match self {
            Work::Prepared(prepared, parameters, formats) => {
                let _scope = ClientScope::enter(identity);
                run_prepared(transaction.connection(), &prepared, &parameters, &formats)
            }
            Work::Simple(statement) => {
                let _scope = ClientScope::enter(identity);
                let mut outcome = Outcome::default();
                let connection = transaction.connection();
                outcome.count =
                    run_simple(connection, &statement, false, &mut outcome.rows, &mut keep_buffered)?;
                Ok(outcome)
            }
            Work::Schema(sql) => schema(transaction, identity, &sql).map(|()| Outcome::default()),
            Work::Several(list, true) => list
                .iter()
                .try_for_each(|sql| schema(transaction, identity, sql))
                .map(|()| Outcome::default()),
            Work::Several(list, false) => {
                let _scope = ClientScope::enter(identity);
                let connection = transaction.connection();
                let run = |sql: &String| connection.execute(sql, []).map(drop).map_err(sqlite);
                list.iter().try_for_each(run).map(|()| Outcome::default())
            }
            Work::User(command) => {
                transaction.users_changed();
                users::execute(transaction.connection(), &command).map(|()| Outcome::default())
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
