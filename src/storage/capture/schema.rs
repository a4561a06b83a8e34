//! Schema changes: executed, checked for what replication cannot carry, recorded so that they give the same elsewhere.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;

use super::Capture;
use crate::codec::{self, FrameError};
use crate::error::ServerError;
use crate::storage::change::{Change, TAG_INSERT, Value, put_count, put_head, put_optional_rowid, put_value};
use crate::storage::table::{Table, quoted};

/// Why a table without a usable rowid is refused.
pub(super) const NO_ROWID: &str = "its columns take all the names of the rowid (rowid, _rowid_, oid) and it has no INTEGER PRIMARY KEY, so its rows \
     cannot be told apart at the other server";

/// Tables of the main database: name to root page and SQL text.
type Tables = HashMap<String, (i64, String)>;

impl Capture {
    /// Executes one schema statement and records it; on error nothing has happened.
    ///
    /// Rows that it removes (DROP TABLE of a parent) are recorded before it. A new table is recorded as the text that
    /// SQLite keeps of it and its rows, because CREATE TABLE AS SELECT might select something else elsewhere.
    pub fn execute_schema(&self, connection: &Connection, sql: &str) -> Result<(), ServerError> {
        let mark = self.mark();
        connection.execute_batch("SAVEPOINT _hsb_schema").map_err(ServerError::from)?;
        self.set_in_schema(true);
        let result = self.run_schema(connection, sql);
        self.set_in_schema(false);
        match result {
            Ok(()) => connection.execute_batch("RELEASE _hsb_schema").map_err(ServerError::from),
            Err(error) => {
                self.truncate(mark);
                // Fails only if SQLite has rolled back everything by itself; the first error is the one to tell.
                let _ = connection.execute_batch("ROLLBACK TO _hsb_schema; RELEASE _hsb_schema");
                Err(error)
            }
        }
    }

    fn set_in_schema(&self, running: bool) {
        let mut state = self.shared.lock();
        state.in_schema = running;
        state.schema_touched = true;
        state.forget_tables();
    }

    fn run_schema(&self, connection: &Connection, sql: &str) -> Result<(), ServerError> {
        let before = tables(connection).map_err(ServerError::from)?;
        execute_one(connection, sql)?;
        if let Some(problem) = self.problem() {
            return Err(problem);
        }
        refuse_temporary(connection)?;
        let after = tables(connection).map_err(ServerError::from)?;
        let mut created = None;
        for (name, (root, text)) in &after {
            if before.get(name).is_some_and(|(_, old)| old == text) {
                continue;
            }
            refuse_unfit(connection, name, *root)?;
            if !before.values().any(|(old, _)| old == root) {
                created = Some((name, text));
            }
        }
        let mut recorded = Vec::new();
        for (table, (_, sql)) in &before {
            if after.get(table).is_none_or(|(_, text)| text != sql) {
                put(&mut recorded, &Change::Was { table, sql })?;
            }
        }
        match created {
            Some((name, text)) => {
                put(&mut recorded, &Change::Statement { sql: text })?;
                put_rows(connection, name, &mut recorded)?;
            }
            None => put(&mut recorded, &Change::Statement { sql })?,
        }
        self.shared.lock().buffer.extend_from_slice(&recorded);
        Ok(())
    }
}

fn put(buffer: &mut Vec<u8>, change: &Change<'_>) -> Result<(), ServerError> {
    codec::append_value(buffer, change)
        .map_err(|error: FrameError| ServerError::sql("XX000", error.to_string()))
}

fn execute_one(connection: &Connection, sql: &str) -> Result<(), ServerError> {
    let mut batch = rusqlite::Batch::new(connection, sql);
    let statement = batch.next().map_err(ServerError::from)?;
    let mut statement = statement.ok_or_else(|| ServerError::sql("42601", "There is no statement."))?;
    let mut rows = statement.raw_query();
    while rows.next().map_err(ServerError::from)?.is_some() {}
    drop(rows);
    drop(statement);
    match batch.next() {
        Ok(None) => Ok(()),
        _ => Err(ServerError::sql("42601", "A schema change must be one statement.")),
    }
}

fn tables(connection: &Connection) -> rusqlite::Result<Tables> {
    let sql = "SELECT name, rootpage, sql FROM sqlite_master WHERE type = 'table' AND sql IS NOT NULL
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    rows.collect()
}

fn refuse_temporary(connection: &Connection) -> Result<(), ServerError> {
    use rusqlite::OptionalExtension;
    let sql = "SELECT type || ' ' || name FROM sqlite_temp_master LIMIT 1";
    match connection
        .query_row(sql, [], |row| row.get::<_, String>(0))
        .optional()
        .map_err(ServerError::from)?
    {
        None => Ok(()),
        Some(object) => Err(ServerError::sql(
            "0A000",
            format!("Temporary {object}: temporary objects are not supported."),
        )),
    }
}

fn refuse_unfit(connection: &Connection, name: &str, root: i64) -> Result<(), ServerError> {
    // A table without pages of its own is a virtual one.
    let why = if root == 0 {
        "virtual tables cannot be replicated"
    } else {
        match Table::load(connection, name).map_err(ServerError::from)? {
            Some(table) if table.can_be_replicated() => return Ok(()),
            _ => NO_ROWID,
        }
    };
    Err(ServerError::sql("0A000", format!("Table {name}: {why}.")))
}

/// All rows of a new table, which the hook has not seen.
fn put_rows(connection: &Connection, name: &str, buffer: &mut Vec<u8>) -> Result<(), ServerError> {
    let Some(table) = Table::load(connection, name).map_err(ServerError::from)? else { return Ok(()) };
    let rowid = table.rowid_name.as_deref().map_or("NULL".to_owned(), quoted);
    let columns: String = table.columns.iter().map(|column| format!(", {}", quoted(&column.name))).collect();
    let sql = format!("SELECT {rowid}{columns} FROM main.{}", quoted(name));
    let mut statement = connection.prepare(&sql).map_err(ServerError::from)?;
    let mut rows = statement.query([]).map_err(ServerError::from)?;
    while let Some(row) = rows.next().map_err(ServerError::from)? {
        put_head(buffer, TAG_INSERT, name);
        put_optional_rowid(buffer, row.get(0).map_err(ServerError::from)?);
        put_count(buffer, table.columns.len());
        for place in 0..table.columns.len() {
            put_value(
                buffer,
                match row.get_ref(place + 1).map_err(ServerError::from)? {
                    ValueRef::Null => Value::Null,
                    ValueRef::Integer(value) => Value::Integer(value),
                    ValueRef::Real(value) => Value::Real(value),
                    ValueRef::Text(value) => Value::Text(value),
                    ValueRef::Blob(value) => Value::Blob(value),
                },
            );
        }
    }
    Ok(())
}
