//! COPY FROM STDIN and TO STDOUT in PostgreSQL's text format.
//!
//! Rows of FROM STDIN are inserted as they arrive, about a megabyte at a time, in one transaction.

use rusqlite::types::Value;

use super::codec::{self, Formats, MessageReader};
use super::connection::{Client, GONE, flush_large};
use super::simple::Completion;
use super::values;
use crate::error::ServerError;
use crate::sql::access::ClientScope;
use crate::sql::describe::no_parameter;
use crate::sql::errors::from_sqlite;
use crate::sql::lexer::quoted;
use crate::sql::statement::{CopyCommand, Kind, Statement};
use crate::storage::memory;

/// Input gathered before rows are inserted.
const CHUNK_BYTES: usize = 1 << 20;

impl Client<'_> {
    pub(super) fn copy(
        &mut self,
        reader: &mut MessageReader,
        command: &CopyCommand,
    ) -> Result<Completion, ServerError> {
        let count =
            if command.from_client { self.copy_in(reader, command)? } else { self.copy_out(command)? };
        Ok(Completion { tag: "COPY", count: Some(count) })
    }

    /// Column types of the table or query, found by describing a query on it.
    fn copy_columns(&mut self, command: &CopyCommand) -> Result<(String, Vec<u32>), ServerError> {
        let names: Vec<String> = command.columns.iter().map(|name| quoted(name)).collect();
        let list = if names.is_empty() { "*".to_string() } else { names.join(", ") };
        let sql = format!("SELECT {list} FROM {}", command.source);
        let statement = Statement { kind: Kind::Query, sql: sql.clone(), tag: "SELECT", locks: false };
        let metadata = self.session.describe(&statement, &[])?;
        if let Some(place) = metadata.parameter_places.first() {
            return Err(no_parameter(*place));
        }
        Ok((sql, metadata.columns.iter().map(|column| column.oid).collect()))
    }

    fn copy_response(&mut self, kind: u8, columns: usize) {
        let start = codec::begin(&mut self.out, kind);
        self.out.push(0);
        self.out.extend_from_slice(&(columns as i16).to_be_bytes());
        self.out.resize(self.out.len() + columns * 2, 0);
        codec::finish(&mut self.out, start);
    }

    fn copy_in(&mut self, reader: &mut MessageReader, command: &CopyCommand) -> Result<u64, ServerError> {
        self.session.check_may_write("COPY FROM")?;
        let (_, oids) = self.copy_columns(command)?;
        let names: Vec<String> = command.columns.iter().map(|name| quoted(name)).collect();
        let list = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        let places: Vec<String> = (1..=oids.len()).map(|number| format!("${number}")).collect();
        let insert = format!("INSERT INTO {}{list} VALUES ({})", command.source, places.join(", "));
        // Asks the access rules before the statement may come from a cache.
        let probe = Statement { kind: Kind::Change, sql: insert.clone(), tag: "INSERT", locks: false };
        self.session.describe(&probe, &[])?;
        self.copy_response(b'G', oids.len());
        let gone = || ServerError::sql(GONE, "the client is gone");
        self.flush().map_err(|_| gone())?;
        let mut pending = Vec::with_capacity(CHUNK_BYTES + 65536);
        let mut count = 0;
        loop {
            let (kind, range) = reader.next_message().map_err(|_| gone())?;
            match kind {
                b'd' => pending.extend_from_slice(reader.body(range)),
                b'c' => break,
                b'f' => return Err(ServerError::sql("57014", "COPY from stdin failed: the client gave up")),
                b'H' | b'S' => {}
                _ => return Err(ServerError::sql("08P01", "unexpected message during COPY from stdin")),
            }
            if pending.len() >= CHUNK_BYTES {
                let whole = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                count += self.insert_lines(&insert, &oids, &pending[..whole], count)?;
                pending.drain(..whole);
            }
        }
        count += self.insert_lines(&insert, &oids, &pending, count)?;
        Ok(count)
    }

    fn insert_lines(
        &mut self,
        insert: &str,
        oids: &[u32],
        lines: &[u8],
        before: u64,
    ) -> Result<u64, ServerError> {
        let identity = self.session.identity.clone();
        self.session.run_at_writer(|transaction| {
            let _scope = ClientScope::enter(&identity);
            let connection = transaction.connection();
            let mut statement = connection.prepare_cached(insert).map_err(|error| from_sqlite(&error))?;
            let mut count = 0;
            for line in lines.split(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let is_last = line.as_ptr_range().end == lines.as_ptr_range().end;
                if line == b"\\." || (line.is_empty() && is_last) {
                    break;
                }
                insert_line(&mut statement, oids, line).map_err(|error| {
                    let text = format!("{} (COPY, line {})", error.message(), before + count + 1);
                    error.saying(text)
                })?;
                count += 1;
            }
            Ok(count)
        })
    }

    fn copy_out(&mut self, command: &CopyCommand) -> Result<u64, ServerError> {
        let (sql, oids) = self.copy_columns(command)?;
        self.copy_response(b'H', oids.len());
        let identity = self.session.identity.clone();
        let count = if self.session.is_writing() {
            let (rows, count) = self.session.run_at_writer(|transaction| {
                let _scope = ClientScope::enter(&identity);
                let mut rows = Vec::new();
                let mut flush = crate::sql::execute::keep_buffered;
                let count = copy_rows(transaction.connection(), &sql, &oids, &mut rows, &mut flush)?;
                Ok((rows, count))
            })?;
            self.out.extend_from_slice(&rows);
            count
        } else {
            self.session.before_read()?;
            let _scope = ClientScope::enter_reading(&identity);
            let stream = self.stream;
            let mut flush = |out: &mut Vec<u8>| flush_large(stream, out);
            copy_rows(self.session.reader, &sql, &oids, &mut self.out, &mut flush)?
        };
        codec::empty_message(&mut self.out, b'c');
        Ok(count)
    }
}

fn insert_line(
    statement: &mut rusqlite::Statement<'_>,
    oids: &[u32],
    line: &[u8],
) -> Result<(), ServerError> {
    let mut place = 0;
    for field in line.split(|byte| *byte == b'\t') {
        let oid = *oids
            .get(place)
            .ok_or_else(|| ServerError::sql("22P04", "extra data after last expected column"))?;
        place += 1;
        let value = if field == b"\\N" {
            Value::Null
        } else if field.contains(&b'\\') {
            values::decode_parameter(oid, false, Some(&unescape(field)))?
        } else {
            values::decode_parameter(oid, false, Some(field))?
        };
        statement.raw_bind_parameter(place, value).map_err(|error| from_sqlite(&error))?;
    }
    if place < oids.len() {
        return Err(ServerError::sql("22P04", format!("missing data for column {}", place + 1)));
    }
    statement.raw_execute().map(drop).map_err(|error| from_sqlite(&error))
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'v') => out.push(11),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

fn copy_rows(
    connection: &rusqlite::Connection,
    sql: &str,
    oids: &[u32],
    out: &mut Vec<u8>,
    flush: crate::sql::execute::Flush<'_>,
) -> Result<u64, ServerError> {
    let mut statement = connection.prepare(sql).map_err(|error| from_sqlite(&error))?;
    let mut rows = statement.raw_query();
    let mut count = 0;
    let mut field = Vec::new();
    let column = |oid: u32| crate::sql::describe::Column { name: String::new(), oid, certain: true };
    let columns: Vec<_> = oids.iter().map(|oid| column(*oid)).collect();
    while let Some(row) = rows.next().map_err(|error| from_sqlite(&error))? {
        let start = codec::begin(out, b'd');
        let fetching = memory::fetching();
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b'\t');
            }
            let value = row.get_ref(index).map_err(|error| from_sqlite(&error))?;
            if value == rusqlite::types::ValueRef::Null {
                out.extend_from_slice(b"\\N");
                continue;
            }
            field.clear();
            values::append_value(&mut field, value, column, Formats::Text.is_binary(index))?;
            escape(out, field.get(4..).unwrap_or(&[]));
            values::check_row(out.len() - start)?;
        }
        drop(fetching);
        out.push(b'\n');
        codec::finish(out, start);
        count += 1;
        flush(out)?;
    }
    Ok(count)
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
