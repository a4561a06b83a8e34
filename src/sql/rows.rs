//! Where the rows of a result go. What runs statements drives a [`RowSink`] and does not know what becomes of them: messages
//! to a client (`net::pg`).

use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::describe::ResultColumn;
use super::errors;
use crate::error::ServerError;
use crate::storage::memory;

/// Takes a result, value by value, as SQLite has it.
pub trait RowSink {
    /// What the columns are: before the rows, where nobody has asked for it before.
    fn columns(&mut self, columns: &[ResultColumn]);

    /// A row begins; it has so many values.
    fn begin_row(&mut self, values: usize);

    /// The next value of the row.
    fn value(&mut self, value: ValueRef<'_>, column: &ResultColumn) -> Result<(), ServerError>;

    /// The row is complete.
    fn end_row(&mut self) -> Result<(), ServerError>;

    /// The row will not be completed, and nothing of it is to be seen.
    fn drop_row(&mut self);
}

/// Gives SQLite's current row to the sink.
pub fn give_row(row: &Row<'_>, columns: &[ResultColumn], sink: &mut impl RowSink) -> Result<(), ServerError> {
    sink.begin_row(columns.len());
    let given = give_values(row, columns, sink);
    match given {
        Ok(()) => sink.end_row(),
        Err(error) => {
            sink.drop_row();
            Err(error)
        }
    }
}

fn give_values(row: &Row<'_>, columns: &[ResultColumn], sink: &mut impl RowSink) -> Result<(), ServerError> {
    let _fetching = memory::fetching();
    for (index, column) in columns.iter().enumerate() {
        let value = row.get_ref(index).map_err(|error| errors::from_sqlite(&error))?;
        sink.value(value, column)?;
    }
    Ok(())
}
