//! The reverse: takes back a batch that this database holds, from the before images.

use std::collections::HashMap;

use super::{Applier, Failure, expect_fits};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::storage::batch::Batch;
use crate::storage::change::{Change, ColumnChange, RowKey, changes};

impl Applier {
    /// Undoes the batch that leads to [`Applier::position`]. After an error the caller must roll back.
    pub fn undo(&mut self, batch: &Batch) -> Result<(), ServerError> {
        if batch.after != self.position {
            let detail = format!("The batch leads to {}, the database is at {}.", batch.after, self.position);
            return Err(ServerError::with(Code::APPLY_FAILED, detail));
        }
        let list: Result<Vec<Change<'_>>, _> = changes(batch.changes()).collect();
        let list = list.map_err(|error| ServerError::with(Code::APPLY_FAILED, error))?;
        // Undoing a deletion can move a counter that the deletion did not, so all are set when the rows are undone.
        let mut counters = self.counters()?;
        for change in list.iter().rev() {
            let undone = match change {
                Change::Commit => Ok(()),
                Change::Sequence { table, before: Some(before), .. } => {
                    counters.insert((*table).to_string(), *before);
                    Ok(())
                }
                Change::Sequence { table, before: None, .. } => {
                    counters.remove(*table);
                    Ok(())
                }
                change => self.inverse(change).and_then(|inverse| self.execute(&inverse)),
            };
            expect_fits(change, undone)?;
        }
        self.set_counters(&counters)?;
        self.position = batch.header.before;
        Ok(())
    }

    /// The counters of AUTOINCREMENT tables.
    fn counters(&self) -> Result<HashMap<String, i64>, ServerError> {
        let sql = "SELECT count(*) FROM main.sqlite_master WHERE name = 'sqlite_sequence'";
        if self.connection.query_row(sql, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(HashMap::new());
        }
        let mut statement = self.connection.prepare_cached("SELECT name, seq FROM main.sqlite_sequence")?;
        let counters = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(counters.collect::<rusqlite::Result<_>>()?)
    }

    fn set_counters(&self, wanted: &HashMap<String, i64>) -> Result<(), ServerError> {
        let present = self.counters()?;
        for table in present.keys().filter(|table| !wanted.contains_key(*table)) {
            self.set_sequence(table, None)?;
        }
        for (table, value) in wanted.iter().filter(|(table, value)| present.get(*table) != Some(value)) {
            self.set_sequence(table, Some(*value))?;
        }
        Ok(())
    }

    fn inverse<'a>(&mut self, change: &Change<'a>) -> Result<Change<'a>, Failure> {
        Ok(match change {
            Change::Insert { table, rowid, values } => {
                Change::Delete { table, rowid: *rowid, values: values.clone() }
            }
            Change::Delete { table, rowid, values } => {
                Change::Insert { table, rowid: *rowid, values: values.clone() }
            }
            Change::Update { table, key, columns } => {
                let key = match key {
                    RowKey::Rowid { old, new } => RowKey::Rowid { old: *new, new: *old },
                    RowKey::Primary(values) => {
                        let (_, statements) = self.table(table)?;
                        let places = statements.table.key.iter().map(|key| key.column);
                        let after = |(place, value)| {
                            let changed = columns.iter().find(|column| usize::from(column.column) == place);
                            changed.map_or(value, |column| column.new)
                        };
                        RowKey::Primary(places.zip(values.iter().copied()).map(after).collect())
                    }
                };
                let swapped = |change: &ColumnChange<'a>| ColumnChange {
                    column: change.column,
                    old: change.new,
                    new: change.old,
                };
                Change::Update { table, key, columns: columns.iter().map(swapped).collect() }
            }
            Change::Statement { .. } | Change::Was { .. } => {
                return Err("a change of the schema cannot be undone".into());
            }
            Change::Sequence { .. } | Change::Commit => return Err("it is no change of a row".into()),
        })
    }
}
