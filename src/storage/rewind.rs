//! Rewinding: decided transactions that the other server's history lacks are written to a file and taken back.
//!
//! The steps, each on disk before the next: the file ([`Rewind::save`]); one SQLite transaction that undoes the batches,
//! sets the position back and marks the database as rewound ([`Rewind::undo`]); a new log that begins at that position,
//! then the mark goes ([`open_log`]). A crash before the transaction is on disk leaves everything as it was; after that
//! the next start finds the mark and completes the rest. The mark is gone before anything is logged anew, so nothing
//! new can be cut off by it.
//!
//! Not here: how far back, which is for whoever has compared the histories.

mod sql;
#[cfg(test)]
mod tests;

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use super::apply::Applier;
use super::batch::Batch;
use super::change::{Change, changes};
use super::database::{self, Database};
use super::files;
use super::log::{self, LogConfiguration, LogReader, LogWriter};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;

/// What is to be taken back.
pub struct Rewind {
    /// From where the database is to where it will be, in the order in which they were made.
    batches: Vec<Batch>,
    schema_change: Option<String>,
    database_id: [u8; 16],
    from: Position,
    to: Position,
}

impl Rewind {
    /// Reads the batches between the two positions.
    pub fn plan(log: &LogConfiguration, from: Position, to: Position) -> Result<Rewind, ServerError> {
        let mut reader = LogReader::open(log, to)?;
        let (mut batches, mut schema_change) = (Vec::new(), None);
        while let Some(batch) = reader.next(from.sequence)? {
            for change in changes(batch.changes()) {
                let change = change.map_err(|error| ServerError::with(Code::LOG_BAD_RECORD, error))?;
                if let Change::Statement { sql } = change {
                    schema_change.get_or_insert_with(|| sql.chars().take(200).collect());
                }
            }
            batches.push(batch);
        }
        if reader.position() != from {
            let detail = format!("The database is at {from}, which the log does not lead to.");
            return Err(ServerError::with(Code::LOG_BAD_RECORD, detail));
        }
        Ok(Rewind { batches, schema_change, database_id: log.database_id, from, to })
    }

    /// How many transactions are taken back.
    pub fn transactions(&self) -> u64 {
        self.from.sequence - self.to.sequence
    }

    /// The first change of the schema among them, if there is one: then they can be saved, and not undone.
    pub fn schema_change(&self) -> Option<&str> {
        self.schema_change.as_deref()
    }

    /// Writes the transactions as SQL to a file beside the database and puts it on disk. `server` names this server.
    pub fn save(&self, database: &Database, server: &str) -> Result<PathBuf, ServerError> {
        let Position { epoch, sequence, chain } = self.from;
        let path = database.beside(&format!("saved-{epoch}-{sequence}-{chain:?}.sql"));
        let unfinished = database.beside("saved.unfinished");
        let connection = database.open_reader()?;
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(files::create_private(&unfinished)?);
            sql::write(&mut out, self, &connection, server)?;
            out.flush()?;
            files::rename_durably(&unfinished, &path)
        };
        write().map_err(|error| {
            let detail = format!(
                "What only this server has cannot be saved to {}: {error}. Nothing was changed.",
                path.display()
            );
            let full = error.kind() == std::io::ErrorKind::StorageFull;
            ServerError::with(if full { Code::DISK_FULL } else { Code::OPERATION_FAILED }, detail)
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
    let position = database::read_identity(&connection)?.position;
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
