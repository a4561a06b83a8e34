//! The counters of AUTOINCREMENT tables, which SQLite changes without telling the hook.
//!
//! The receiver's counters move by themselves when it inserts the rows, so a counter is recorded if it differs from
//! what it was, and also if rows were inserted and it does *not*: then somebody set it back.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use crate::codec;
use crate::error::ServerError;
use crate::storage::change::Change;

/// The counters as the receiver has them after what is in the buffer.
#[derive(Default)]
pub(super) struct Sequences {
    values: HashMap<String, i64>,
    /// Whether `sqlite_sequence` is there; none: look.
    exists: Option<bool>,
    /// Counters before they were recorded at a place of the buffer.
    undo: Vec<(usize, String, Option<i64>)>,
    /// Which tables rows were inserted into is not known.
    any_inserted: bool,
}

impl Sequences {
    pub fn load(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.is_there(connection)? {
            let mut statement = connection.prepare("SELECT name, seq FROM sqlite_sequence")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            self.values = rows.collect::<rusqlite::Result<_>>()?;
        }
        Ok(())
    }

    fn is_there(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        if let Some(exists) = self.exists {
            return Ok(exists);
        }
        let sql = "SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'";
        let exists = connection.query_row(sql, [], |_| Ok(())).optional()?.is_some();
        self.exists = Some(exists);
        Ok(exists)
    }

    pub fn schema_changed(&mut self, any_inserted: bool) {
        self.exists = None;
        self.any_inserted |= any_inserted;
    }

    pub fn forget_undo(&mut self) {
        self.undo.clear();
    }

    pub fn undo_after(&mut self, mark: usize) {
        while let Some((_, name, value)) = self.undo.pop_if(|(at, _, _)| *at >= mark) {
            match value {
                Some(value) => self.values.insert(name, value),
                None => self.values.remove(&name),
            };
        }
    }

    /// Appends what changed.
    pub fn record(
        &mut self,
        connection: &Connection,
        buffer: &mut Vec<u8>,
        mut was_inserted: impl FnMut(&str) -> bool,
    ) -> Result<(), ServerError> {
        let any_inserted = std::mem::take(&mut self.any_inserted);
        let exists = self.is_there(connection).map_err(ServerError::from)?;
        if !exists && self.values.is_empty() {
            return Ok(());
        }
        let at = buffer.len();
        let mut found = 0;
        if exists {
            let sql = "SELECT name, seq FROM sqlite_sequence";
            let mut statement = connection.prepare_cached(sql).map_err(ServerError::from)?;
            let mut rows = statement.query([]).map_err(ServerError::from)?;
            while let Some(row) = rows.next().map_err(ServerError::from)? {
                let unfit =
                    |_| ServerError::sql("0A000", "sqlite_sequence may hold only table names and integers.");
                let name = row.get_ref(0).map_err(ServerError::from)?.as_str().map_err(unfit)?;
                let value = row.get_ref(1).map_err(ServerError::from)?.as_i64().map_err(unfit)?;
                let before = self.values.get(name).copied();
                found += usize::from(before.is_some());
                // Asked in any case: asking clears it.
                let inserted = was_inserted(name) || any_inserted;
                if before == Some(value) && !inserted {
                    continue;
                }
                put(buffer, name, before, Some(value))?;
                if before != Some(value) {
                    found += usize::from(before.is_none());
                    self.undo.push((at, name.to_owned(), before));
                    self.values.insert(name.to_owned(), value);
                }
            }
        }
        if found == self.values.len() { Ok(()) } else { self.record_removed(connection, buffer, at, exists) }
    }

    fn record_removed(
        &mut self,
        connection: &Connection,
        buffer: &mut Vec<u8>,
        at: usize,
        exists: bool,
    ) -> Result<(), ServerError> {
        let mut removed: Vec<String> = self.values.keys().cloned().collect();
        if exists {
            let mut statement =
                connection.prepare("SELECT name FROM sqlite_sequence").map_err(ServerError::from)?;
            let names = statement.query_map([], |row| row.get::<_, String>(0)).map_err(ServerError::from)?;
            for name in names {
                let name = name.map_err(ServerError::from)?;
                removed.retain(|other| *other != name);
            }
        }
        removed.sort_unstable();
        for name in removed {
            let before = self.values.remove(&name);
            put(buffer, &name, before, None)?;
            self.undo.push((at, name, before));
        }
        Ok(())
    }
}

fn put(
    buffer: &mut Vec<u8>,
    table: &str,
    before: Option<i64>,
    value: Option<i64>,
) -> Result<(), ServerError> {
    codec::append_value(buffer, &Change::Sequence { table, before, value })
        .map_err(|error| ServerError::sql("XX000", error.to_string()))
}
