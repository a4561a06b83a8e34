//! The reverse: takes back a batch that this database holds, from the before images.

use super::{Applier, expect_fits};
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
        // Undoing a deletion moves a counter, so the counters of a transaction come after its rows.
        let mut counters = Vec::new();
        for change in list.iter().rev() {
            let undone = match change {
                Change::Commit => self.set_counters(&mut counters),
                Change::Sequence { .. } => {
                    counters.push(change);
                    Ok(())
                }
                change => self.inverse(change).and_then(|inverse| self.execute(&inverse)),
            };
            expect_fits(change, undone)?;
        }
        self.set_counters(&mut counters)
            .map_err(|what| ServerError::with(Code::APPLY_FAILED, format!("Sequences: {what}.")))?;
        self.position = batch.header.before;
        Ok(())
    }

    fn set_counters(&mut self, counters: &mut Vec<&Change<'_>>) -> Result<(), String> {
        for change in counters.drain(..) {
            if let Change::Sequence { table, before, .. } = change {
                self.set_sequence(table, *before).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn inverse<'a>(&mut self, change: &Change<'a>) -> Result<Change<'a>, String> {
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
            Change::Statement { .. } => return Err("a change of the schema cannot be undone".into()),
            Change::Sequence { .. } | Change::Commit => return Err("it is no change of a row".into()),
        })
    }
}
