//! COPY FROM STDIN and TO STDOUT in PostgreSQL's text format.
//!
//! Rows of FROM STDIN are inserted as they arrive, about a megabyte at a time, in one transaction.

use rusqlite::types::Value;

use super::codec::{self, MessageReader};
use super::connection::{Client, GONE};
use super::rows::{CopyRows, Outlet};
use super::simple::Completion;
use crate::error::ServerError;
use crate::sql::access::ClientScope;
use crate::sql::describe::{ResultColumn, no_parameter};
use crate::sql::errors::from_sqlite;
use crate::sql::execute;
use crate::sql::lexer::quoted;
use crate::sql::statement::{CopyCommand, Kind, Statement};

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

    /// A query on the table, or the query, and its columns.
    fn copy_columns(&mut self, command: &CopyCommand) -> Result<(String, Vec<ResultColumn>), ServerError> {
        let names: Vec<String> = command.columns.iter().map(|name| quoted(name)).collect();
        let list = if names.is_empty() { "*".to_string() } else { names.join(", ") };
        let sql = format!("SELECT {list} FROM {}", command.source);
        let statement = Statement { kind: Kind::Query, sql: sql.clone(), tag: "SELECT", locks: false };
        let metadata = self.session.describe(&statement, &[])?;
        if let Some(place) = metadata.parameter_places.first() {
            return Err(no_parameter(*place));
        }
        Ok((sql, metadata.columns))
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
        let (_, columns) = self.copy_columns(command)?;
        let names: Vec<String> = command.columns.iter().map(|name| quoted(name)).collect();
        let list = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        let places: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
        let insert = format!("INSERT INTO {}{list} VALUES ({})", command.source, places.join(", "));
        // Asks the access rules before the statement may come from a cache.
        let probe = Statement { kind: Kind::Change, sql: insert.clone(), tag: "INSERT", locks: false };
        self.session.describe(&probe, &[])?;
        self.copy_response(b'G', columns.len());
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
                count += self.insert_lines(&insert, &columns, &pending[..whole], count)?;
                pending.drain(..whole);
            }
        }
        count += self.insert_lines(&insert, &columns, &pending, count)?;
        Ok(count)
    }

    fn insert_lines(
        &mut self,
        insert: &str,
        columns: &[ResultColumn],
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
                insert_line(&mut statement, columns, line).map_err(|error| {
                    let text = format!("{} (COPY, line {})", error.message(), before + count + 1);
                    error.saying(text)
                })?;
                count += 1;
            }
            Ok(count)
        })
    }

    fn copy_out(&mut self, command: &CopyCommand) -> Result<u64, ServerError> {
        let (sql, columns) = self.copy_columns(command)?;
        self.copy_response(b'H', columns.len());
        let identity = self.session.identity.clone();
        let count = if self.session.is_writing() {
            let mut rows = CopyRows::new(Vec::new(), Outlet::Kept);
            let count = self.session.run_at_writer(|transaction| {
                let _scope = ClientScope::enter(&identity);
                execute::run_query(transaction.connection(), &sql, &columns, &mut rows)
            })?;
            self.out.extend_from_slice(&rows.out);
            count
        } else {
            self.session.before_read()?;
            let _scope = ClientScope::enter_reading(&identity);
            let mut rows = CopyRows::new(std::mem::take(&mut self.out), Outlet::Client(self.stream));
            let copied = execute::run_query(self.session.reader, &sql, &columns, &mut rows);
            self.out = rows.out;
            copied?
        };
        codec::empty_message(&mut self.out, b'c');
        Ok(count)
    }
}

fn insert_line(
    statement: &mut rusqlite::Statement<'_>,
    columns: &[ResultColumn],
    line: &[u8],
) -> Result<(), ServerError> {
    let mut place = 0;
    for field in line.split(|byte| *byte == b'\t') {
        let column = columns
            .get(place)
            .ok_or_else(|| ServerError::sql("22P04", "extra data after last expected column"))?;
        place += 1;
        let value = if field == b"\\N" {
            Value::Null
        } else if field.contains(&b'\\') {
            column.kind.from_text(&unescape(field))?
        } else {
            column.kind.from_text(field)?
        };
        statement.raw_bind_parameter(place, value).map_err(|error| from_sqlite(&error))?;
    }
    if place < columns.len() {
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
