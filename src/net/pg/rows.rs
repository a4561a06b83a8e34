//! Rows on the wire: values straight from SQLite into the output.
//!
//! Rows of a read leave between each other when there are many of them; those that are made at the writer are kept, so that
//! a slow client never holds it.

use rusqlite::types::ValueRef;

use super::codec::{self, Formats};
use super::connection::flush_large;
use crate::error::ServerError;
use crate::sql::describe::ResultColumn;
use crate::sql::rows::RowSink;
use crate::storage::limits;
use crate::stream::Stream;

/// Most that a result made at the writer may take.
pub const MAX_KEPT_RESULT_BYTES: usize = 256 << 20;

/// Who takes rows when there are many.
#[derive(Clone, Copy)]
pub enum Outlet<'c> {
    /// The client, between them.
    Client(&'c Stream),
    /// Nobody, yet.
    Kept,
}

impl Outlet<'_> {
    fn relieve(self, out: &mut Vec<u8>) -> Result<(), ServerError> {
        match self {
            Outlet::Client(stream) => flush_large(stream, out),
            Outlet::Kept if out.len() > MAX_KEPT_RESULT_BYTES => {
                let limit = MAX_KEPT_RESULT_BYTES >> 20;
                let text = format!("a result inside a write transaction is limited to {limit} MB");
                Err(ServerError::sql("54000", text))
            }
            Outlet::Kept => Ok(()),
        }
    }
}

/// RowDescription and DataRow messages, behind what is in the output already.
pub struct DataRows<'c> {
    /// The output.
    pub out: Vec<u8>,
    /// Which columns the client wants in binary.
    pub formats: Formats,
    outlet: Outlet<'c>,
    /// Where the row under way begins, and its next column.
    start: usize,
    column: usize,
}

impl<'c> DataRows<'c> {
    /// Behind this output.
    pub fn new(out: Vec<u8>, formats: Formats, outlet: Outlet<'c>) -> DataRows<'c> {
        DataRows { out, formats, outlet, start: 0, column: 0 }
    }

    /// Appends a row that does not come from SQLite.
    pub fn give(&mut self, columns: &[ResultColumn], values: &[ValueRef<'_>]) -> Result<(), ServerError> {
        self.begin_row(columns.len());
        columns.iter().zip(values).try_for_each(|(column, value)| self.value(*value, column))?;
        self.end_row()
    }
}

impl RowSink for DataRows<'_> {
    fn columns(&mut self, columns: &[ResultColumn]) {
        append_description(&mut self.out, columns, &self.formats);
    }

    fn begin_row(&mut self, values: usize) {
        self.start = codec::begin(&mut self.out, b'D');
        self.column = 0;
        self.out.extend_from_slice(&(values as i16).to_be_bytes());
    }

    fn value(&mut self, value: ValueRef<'_>, column: &ResultColumn) -> Result<(), ServerError> {
        let binary = self.formats.is_binary(self.column);
        self.column += 1;
        let out = &mut self.out;
        if matches!(value, ValueRef::Null) {
            out.extend_from_slice(&(-1i32).to_be_bytes());
        } else {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            if binary {
                column.kind.append_binary(out, value, &column.name)?;
            } else {
                column.kind.append_text(out, value, &column.name)?;
            }
            let length = (out.len() - start - 4) as u32;
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
        check_row(out.len() - self.start)
    }

    fn end_row(&mut self) -> Result<(), ServerError> {
        codec::finish(&mut self.out, self.start);
        self.outlet.relieve(&mut self.out)
    }

    fn drop_row(&mut self) {
        // Half a message would make the client misread all that follows.
        self.out.truncate(self.start);
    }
}

/// CopyData messages in PostgreSQL's text format, a row each.
pub struct CopyRows<'c> {
    /// The output.
    pub out: Vec<u8>,
    outlet: Outlet<'c>,
    start: usize,
    is_first: bool,
    /// The value under way, before its special characters are marked.
    field: Vec<u8>,
}

impl<'c> CopyRows<'c> {
    /// Behind this output.
    pub fn new(out: Vec<u8>, outlet: Outlet<'c>) -> CopyRows<'c> {
        CopyRows { out, outlet, start: 0, is_first: true, field: Vec::new() }
    }
}

impl RowSink for CopyRows<'_> {
    /// CopyOutResponse has told how many there are.
    fn columns(&mut self, _: &[ResultColumn]) {}

    fn begin_row(&mut self, _: usize) {
        self.start = codec::begin(&mut self.out, b'd');
        self.is_first = true;
    }

    fn value(&mut self, value: ValueRef<'_>, column: &ResultColumn) -> Result<(), ServerError> {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b'\t');
        }
        if matches!(value, ValueRef::Null) {
            self.out.extend_from_slice(b"\\N");
        } else {
            self.field.clear();
            column.kind.append_text(&mut self.field, value, &column.name)?;
            escape(&mut self.out, &self.field);
        }
        check_row(self.out.len() - self.start)
    }

    fn end_row(&mut self) -> Result<(), ServerError> {
        self.out.push(b'\n');
        codec::finish(&mut self.out, self.start);
        self.outlet.relieve(&mut self.out)
    }

    fn drop_row(&mut self) {
        self.out.truncate(self.start);
    }
}

fn escape(out: &mut Vec<u8>, field: &[u8]) {
    for byte in field {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => out.push(*other),
        }
    }
}

/// Refuses a row of a result that is too long, while it is being made.
fn check_row(bytes: usize) -> Result<(), ServerError> {
    if bytes <= limits::message_bytes() {
        return Ok(());
    }
    let text = format!(
        "a row of a result may have {} MB; ask for fewer or shorter columns at once, or raise General.MaxStatementMemory",
        limits::message_bytes() >> 20
    );
    Err(ServerError::sql("54000", text))
}

/// Appends RowDescription with these formats, or NoData.
pub fn append_description(out: &mut Vec<u8>, columns: &[ResultColumn], formats: &Formats) {
    if columns.is_empty() {
        codec::empty_message(out, b'n');
        return;
    }
    let start = codec::begin(out, b'T');
    out.extend_from_slice(&(columns.len() as i16).to_be_bytes());
    for (index, column) in columns.iter().enumerate() {
        codec::text(out, &column.name);
        // No table and no column of one.
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&column.kind.oid.to_be_bytes());
        out.extend_from_slice(&column.kind.size.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.extend_from_slice(&i16::from(formats.is_binary(index)).to_be_bytes());
    }
    codec::finish(out, start);
}
