//! Rewinding: decided transactions that the other server's history lacks are written to a file and taken back.
//!
//! The steps, each on disk before the next: the file ([`Rewind::save`]); one SQLite transaction that undoes the batches,
//! sets the position back and marks the database as rewound ([`Rewind::undo`]); a new log that begins at that position,
//! then the mark goes ([`open_log`]). A crash before the transaction is on disk leaves everything as it was; after that
//! the next start finds the mark and completes the rest. The mark is gone before anything is logged anew, so nothing
//! new can be cut off by it.
//!
//! Not here: how far back, which is for whoever has compared the histories.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use serde_json::{Map, Value as Json, json};

use super::apply::Applier;
use super::batch::Batch;
use super::change::{Change, ColumnChange, RowKey, Value, changes};
use super::database::{self, Database};
use super::files;
use super::log::{self, LogConfiguration, LogReader, LogWriter};
use super::table::Table;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;

/// What is to be taken back.
pub struct Rewind {
    /// From where the database is to where it will be, in the order in which they were made.
    batches: Vec<Batch>,
    database_id: [u8; 16],
    from: Position,
    to: Position,
}

impl Rewind {
    /// Reads the batches between the two positions; an error if they cannot be undone.
    pub fn plan(log: &LogConfiguration, from: Position, to: Position) -> Result<Rewind, ServerError> {
        let mut reader = LogReader::open(log, to)?;
        let mut batches = Vec::new();
        while let Some(batch) = reader.next(from.sequence)? {
            for change in changes(batch.changes()) {
                let change = change.map_err(|error| ServerError::with(Code::LOG_BAD_RECORD, error))?;
                if let Change::Statement { sql } = change {
                    let statement: String = sql.chars().take(200).collect();
                    let detail = format!(
                        "Among the transactions to take back is a change of the schema, which cannot be undone: {statement}. Netcopy needed: start this server with 'solid -x backupserver' and give 'hsb netcopy' at the primary. Nothing was changed."
                    );
                    return Err(ServerError::with(Code::NOT_SYNCHRONIZED, detail));
                }
            }
            batches.push(batch);
        }
        if reader.position() != from {
            let detail = format!("The database is at {from}, which the log does not lead to.");
            return Err(ServerError::with(Code::LOG_BAD_RECORD, detail));
        }
        Ok(Rewind { batches, database_id: log.database_id, from, to })
    }

    /// How many transactions are taken back.
    pub fn transactions(&self) -> u64 {
        self.from.sequence - self.to.sequence
    }

    /// Writes what will be taken back to a file beside the database, one JSON object a line, and puts it on disk.
    pub fn save(&self, database: &Database) -> Result<PathBuf, ServerError> {
        let Position { epoch, sequence, chain } = self.from;
        let path = database.beside(&format!("rewound-{epoch}-{sequence}-{chain:?}.jsonl"));
        let unfinished = database.beside("rewound.unfinished");
        let connection = database.open_reader()?;
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(files::create_private(&unfinished)?);
            let id = hexadecimal(&self.database_id);
            let (from, to) = (self.from.to_string(), self.to.to_string());
            let head = json!({ "database": id, "from": from, "to": to, "transactions": self.transactions() });
            writeln!(out, "{head}")?;
            let mut lines =
                Lines { connection: &connection, tables: HashMap::new(), sequence: self.to.sequence };
            for change in self.batches.iter().flat_map(|batch| changes(batch.changes())) {
                let change = change.map_err(std::io::Error::other)?;
                if let Some(line) = lines.line(&change).map_err(std::io::Error::other)? {
                    writeln!(out, "{line}")?;
                }
            }
            out.flush()?;
            files::rename_durably(&unfinished, &path)
        };
        write().map_err(|error| {
            let detail = format!(
                "What was to be taken back cannot be saved to {}: {error}. Nothing was changed.",
                path.display()
            );
            ServerError::with(Code::OPERATION_FAILED, detail)
        })?;
        Ok(path)
    }

    /// Undoes the batches in one transaction and puts that on disk. The log still has them: see [`open_log`].
    pub fn undo(&self, database: &Database) -> Result<(), ServerError> {
        let mut applier = Applier::new(database.open_for_apply()?)?;
        applier.begin()?;
        let undone = self.batches.iter().rev().try_for_each(|batch| applier.undo(batch));
        let outcome = undone.and_then(|()| {
            database::set_rewound(applier.connection(), true)?;
            applier.commit()
        });
        match outcome {
            Ok(()) => database.sync(),
            Err(_) => applier.rollback(),
        }
        outcome
    }
}

/// Opens the log of a database; if the database was rewound, the log begins anew where the database is now.
pub fn open_log(
    database: &Database,
    configuration: &LogConfiguration,
) -> Result<(LogWriter, log::Recovered), ServerError> {
    let connection = database.open_for_apply()?;
    let (_, position) = database::read_identity(&connection)?;
    let is_rewound = database::is_rewound(&connection)?;
    if is_rewound {
        log::remove_all(configuration)?;
    }
    let opened = LogWriter::open(configuration.clone(), position)?;
    if is_rewound {
        database::set_rewound(&connection, false)?;
        database.sync();
    }
    Ok(opened)
}

/// Makes the lines of the file.
struct Lines<'a> {
    connection: &'a rusqlite::Connection,
    tables: HashMap<String, Table>,
    /// Of the transaction before the present one.
    sequence: u64,
}

impl Lines<'_> {
    /// One change; the end of a transaction has no line.
    fn line(&mut self, change: &Change<'_>) -> Result<Option<Json>, ServerError> {
        let mut line = Map::new();
        line.insert("transaction".into(), json!(self.sequence + 1));
        match change {
            Change::Commit => {
                self.sequence += 1;
                return Ok(None);
            }
            Change::Insert { table, rowid, values } => {
                line.insert("insert".into(), json!(table));
                line.insert("rowid".into(), json!(rowid));
                line.insert("after".into(), self.row(table, values.iter().copied().enumerate())?);
            }
            Change::Delete { table, rowid, values } => {
                line.insert("delete".into(), json!(table));
                line.insert("rowid".into(), json!(rowid));
                line.insert("before".into(), self.row(table, values.iter().copied().enumerate())?);
            }
            Change::Update { table, key, columns } => {
                line.insert("update".into(), json!(table));
                match key {
                    RowKey::Rowid { old, new } if old == new => drop(line.insert("rowid".into(), json!(old))),
                    RowKey::Rowid { old, new } => {
                        line.insert("rowid".into(), json!({ "before": old, "after": new }));
                    }
                    RowKey::Primary(values) => {
                        let places: Vec<usize> =
                            self.table(table)?.key.iter().map(|key| key.column).collect();
                        let key = self.row(table, places.into_iter().zip(values.iter().copied()))?;
                        line.insert("key".into(), key);
                    }
                }
                let place = |change: &ColumnChange<'_>| usize::from(change.column);
                let before = columns.iter().map(|change| (place(change), change.old));
                line.insert("before".into(), self.row(table, before)?);
                let after = columns.iter().map(|change| (place(change), change.new));
                line.insert("after".into(), self.row(table, after)?);
            }
            Change::Sequence { table, before, value } => {
                line.insert("counter".into(), json!(table));
                line.insert("before".into(), json!(before));
                line.insert("after".into(), json!(value));
            }
            Change::Statement { sql } => drop(line.insert("statement".into(), json!(sql))),
        }
        Ok(Some(Json::Object(line)))
    }

    /// The table as it is now: without changes of the schema in between it was the same then.
    fn table(&mut self, name: &str) -> Result<&Table, ServerError> {
        if !self.tables.contains_key(name) {
            let loaded = Table::load(self.connection, name)?.ok_or_else(|| unknown_table(name))?;
            self.tables.insert(name.to_string(), loaded);
        }
        self.tables.get(name).ok_or_else(|| unknown_table(name))
    }

    fn row<'v>(
        &mut self,
        table: &str,
        values: impl Iterator<Item = (usize, Value<'v>)>,
    ) -> Result<Json, ServerError> {
        let columns = &self.table(table)?.columns;
        let named = values.map(|(place, value)| {
            let column = columns.get(place).ok_or_else(|| unknown_table(table))?;
            Ok((column.name.clone(), json_of(value)))
        });
        named.collect::<Result<Map<_, _>, ServerError>>().map(Json::Object)
    }
}

fn unknown_table(name: &str) -> ServerError {
    ServerError::with(Code::APPLY_FAILED, format!("Table {name} is not as it was when the change was made."))
}

/// Exact: what JSON has no notation for is an object that names its kind.
fn json_of(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(value) => json!(value),
        Value::Real(value) if value.is_finite() => json!(value),
        Value::Real(value) => json!({ "real": value.to_string() }),
        Value::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            Err(_) => json!({ "text": hexadecimal(bytes) }),
        },
        Value::Blob(bytes) => json!({ "blob": hexadecimal(bytes) }),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
