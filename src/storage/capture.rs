//! Records what write transactions do to the database, as the changes of a batch.
//!
//! Installed on the writer connection when it is opened, before any statement is prepared on it (SQLite compiles
//! a DELETE without WHERE differently when the hook is there). From then on every change of a row in the main
//! database is appended to a buffer in the order of execution, whoever made it: statement, trigger, foreign-key
//! action or conflict resolution. Not captured: `_hsb_meta`, which each node writes itself, and SQLite's own tables,
//! whose contents follow from the rest (`sqlite_sequence` is compared at the end of each transaction).
//!
//! SQLite announces a change before it makes it, and takes back the changes of a statement that fails. So the owner
//! must call [`Capture::truncate`] with the mark from before whenever it rolls back, and must roll back to a savepoint
//! after every failed statement. `OR ROLLBACK` and `RAISE(ROLLBACK)` end the whole SQLite transaction, the batch.
//!
//! Schema changes go through [`Capture::execute_schema`] only.

mod hook;
mod schema;
mod sequences;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use self::hook::{Operation, RowChange};
use self::sequences::Sequences;
use super::change::{
    Change, TAG_DELETE, TAG_INSERT, TAG_UPDATE, Value, put_count, put_head, put_optional_rowid,
    put_primary_key, put_rowid_key, put_value,
};
use super::table::Table;
use crate::codec;
use crate::error::ServerError;

/// What one batch may hold: a frame, less its head and what ends a transaction. What comes after is not kept, and the
/// transaction is refused before anything of it has left.
const MAX_BYTES: usize = if cfg!(test) { 16 << 20 } else { codec::MAX_BODY_BYTES - (1 << 20) };
/// Of a buffer that is empty again so much is kept.
const KEPT_BYTES: usize = 1 << 20;

/// Records the changes made on one connection.
pub struct Capture {
    shared: Arc<Shared>,
}

/// What hook and owner share.
struct Shared {
    state: Mutex<State>,
}

/// A table as far as the hook has met it.
struct Known {
    table: Table,
    /// Rows were inserted since the last end of a transaction.
    inserted: bool,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    tables: HashMap<String, Known>,
    sequences: Sequences,
    /// What went wrong first, and where the buffer ended then.
    problem: Option<(usize, ServerError)>,
    /// The schema was changed since the last batch.
    schema_touched: bool,
    /// `execute_schema` is running.
    in_schema: bool,
    /// The owner is gone.
    closed: bool,
}

impl Capture {
    /// Starts to record on a connection.
    pub fn install(connection: &Connection) -> Result<Capture, ServerError> {
        let encoding: String =
            connection.query_row("PRAGMA encoding", [], |row| row.get(0)).map_err(ServerError::from)?;
        if encoding != "UTF-8" {
            return Err(ServerError::sql(
                "0A000",
                format!("A database with the encoding {encoding} cannot be replicated."),
            ));
        }
        let mut state = State::default();
        state.sequences.load(connection).map_err(ServerError::from)?;
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        hook::install(connection, Arc::clone(&shared));
        Ok(Capture { shared })
    }

    /// Length of the buffer now.
    pub fn mark(&self) -> usize {
        self.shared.lock().buffer.len()
    }

    /// Forgets what came after the mark: SQLite was rolled back to where it was then. `truncate(0)` between [`take`] and
    /// [`committed`] says that the batch taken was rolled back.
    ///
    /// [`take`]: Capture::take
    /// [`committed`]: Capture::committed
    pub fn truncate(&self, mark: usize) {
        let mut state = self.shared.lock();
        state.buffer.truncate(mark);
        if mark == 0 {
            state.buffer.shrink_to(KEPT_BYTES);
        }
        if state.problem.as_ref().is_some_and(|(at, _)| *at >= mark) {
            state.problem = None;
        }
        state.sequences.undo_after(mark);
        if state.schema_touched {
            state.forget_tables();
        }
    }

    /// Ends a transaction: records how `sqlite_sequence` changed and the commit.
    pub fn end_transaction(&self, connection: &Connection) -> Result<(), ServerError> {
        // The hook is not called in here, nothing is written; so the lock may be held.
        let mut state = self.shared.lock();
        let state = &mut *state;
        let tables = &mut state.tables;
        let was_inserted =
            |name: &str| tables.get_mut(name).is_some_and(|known| std::mem::take(&mut known.inserted));
        state.sequences.record(connection, &mut state.buffer, was_inserted)?;
        codec::append_value(&mut state.buffer, &Change::Commit)
            .map_err(|error| ServerError::sql("XX000", error.to_string()))
    }

    /// The changes of the whole batch; the buffer is empty again.
    pub fn take(&self) -> Vec<u8> {
        let mut state = self.shared.lock();
        state.problem = None;
        // The next batch will most likely be as large as this one.
        let capacity = state.buffer.len().min(KEPT_BYTES);
        std::mem::replace(&mut state.buffer, Vec::with_capacity(capacity))
    }

    /// The batch that was taken is committed: nothing can bring back what was before it.
    pub fn committed(&self) {
        let mut state = self.shared.lock();
        state.schema_touched = false;
        state.sequences.forget_undo();
    }

    /// Whether deferred foreign keys are violated as things stand: what SQLite would refuse at COMMIT, when it is too
    /// late.
    pub fn has_deferred_violations(&self, connection: &Connection) -> bool {
        hook::has_deferred_violations(connection)
    }

    /// Forgets what is known of the schema: others have changed the database since.
    pub fn refresh(&self, connection: &Connection) -> Result<(), ServerError> {
        let mut state = State::default();
        state.sequences.load(connection)?;
        *self.shared.lock() = state;
        Ok(())
    }

    /// Set if a change could not be captured; the transaction must be rolled back.
    pub fn problem(&self) -> Option<ServerError> {
        self.shared.lock().problem.as_ref().map(|(_, error)| error.clone())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        *state = State { closed: true, ..State::default() };
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a change cannot be captured.
    fn refuse(&self, why: &str) {
        self.lock().refuse(ServerError::sql("0A000", why));
    }

    /// Records one change of a row; called by the hook.
    fn record(&self, change: &RowChange<'_>) {
        let mut state = self.lock();
        // With a problem there is no batch; so there is nothing to keep either.
        if state.closed
            || state.problem.is_some()
            || change.table == "_hsb_meta" && change.database == b"main"
        {
            return;
        }
        let start = state.buffer.len();
        let outcome = state.record(change).map_err(|why| ServerError::sql("0A000", why));
        let limited =
            outcome.and_then(|()| if state.buffer.len() > MAX_BYTES { Err(too_large()) } else { Ok(()) });
        if let Err(error) = limited {
            state.buffer.truncate(start);
            state.refuse(error);
        }
    }
}

impl State {
    fn refuse(&mut self, error: ServerError) {
        if self.problem.is_none() {
            self.problem = Some((self.buffer.len(), error));
            // So that every later mark is behind it. These bytes never leave: with a problem there is no batch.
            self.buffer.push(0xff);
        }
    }

    fn forget_tables(&mut self) {
        self.sequences.schema_changed(self.tables.values().any(|known| known.inserted));
        self.tables.clear();
    }

    fn record(&mut self, change: &RowChange<'_>) -> Result<(), String> {
        let name = change.table;
        if change.database != b"main" {
            return Err(format!("table {name} is not in the main database and cannot be replicated"));
        }
        if name.starts_with("sqlite_") {
            return match name {
                "sqlite_sequence" => Ok(()),
                _ if self.in_schema => Ok(()),
                _ => Err(format!(
                    "table {name} is SQLite's own and cannot be written in a replicated database"
                )),
            };
        }
        if change.is_blob_write() {
            return Err(format!("table {name}: writing into an open blob cannot be replicated"));
        }
        if !self.tables.contains_key(name) {
            let loaded = change.with_connection(|connection| Table::load(connection, name));
            let table = loaded.map_err(|error| format!("table {name}: {error}"))?;
            let table = table.ok_or_else(|| format!("table {name} has no columns that can be read"))?;
            self.tables.insert(name.to_owned(), Known { table, inserted: false });
        }
        let State { tables, buffer, .. } = self;
        let Some(known) = tables.get_mut(name) else { return Ok(()) };
        if !known.table.can_be_replicated() {
            return Err(format!("table {name}: {}", schema::NO_ROWID));
        }
        if known.table.column_count != change.column_count() {
            return Err(format!("table {name} changed its columns unseen"));
        }
        known.inserted |= change.operation == Operation::Insert;
        put_change(buffer, &known.table, change).map_err(|code| {
            format!("table {name}: a value cannot be read: {}", rusqlite::ffi::code_to_str(code))
        })
    }
}

/// Of a transaction that no frame can hold.
pub fn too_large() -> ServerError {
    let limit = codec::MAX_BODY_BYTES >> 20;
    let text = format!(
        "the transaction is larger than a batch may be ({limit} MB of changes); nothing of it was sent; split it"
    );
    ServerError::sql("54000", text)
}

fn put_change(buffer: &mut Vec<u8>, table: &Table, change: &RowChange<'_>) -> Result<(), i32> {
    let (tag, rowid) = match change.operation {
        Operation::Insert => (TAG_INSERT, change.new_rowid),
        Operation::Delete => (TAG_DELETE, change.old_rowid),
        Operation::Update => return put_update(buffer, table, change),
    };
    put_head(buffer, tag, &table.name);
    put_optional_rowid(buffer, table.has_rowid().then_some(rowid));
    put_count(buffer, table.columns.len());
    for column in &table.columns {
        let value =
            if tag == TAG_INSERT { change.after(column.index)? } else { change.before(column.index)? };
        put_value(buffer, value);
    }
    Ok(())
}

fn put_update(buffer: &mut Vec<u8>, table: &Table, change: &RowChange<'_>) -> Result<(), i32> {
    let start = buffer.len();
    put_head(buffer, TAG_UPDATE, &table.name);
    if table.has_rowid() {
        put_rowid_key(buffer, change.old_rowid, change.new_rowid);
    } else {
        put_primary_key(buffer, table.key.len());
        for key in &table.key {
            put_value(buffer, change.before(table.columns[key.column].index)?);
        }
    }
    let count_at = buffer.len();
    put_count(buffer, 0);
    let mut count = 0_u64;
    for (place, column) in table.columns.iter().enumerate() {
        let (old, new): (Value<'_>, Value<'_>) = (change.before(column.index)?, change.after(column.index)?);
        if !old.is_same(&new) {
            buffer.extend_from_slice(&(place as u16).to_le_bytes());
            put_value(buffer, old);
            put_value(buffer, new);
            count += 1;
        }
    }
    if count == 0 && (!table.has_rowid() || change.old_rowid == change.new_rowid) {
        buffer.truncate(start);
    } else {
        buffer[count_at..count_at + 8].copy_from_slice(&count.to_le_bytes());
    }
    Ok(())
}
