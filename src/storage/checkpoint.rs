//! Checkpoints: moving SQLite's write-ahead log into the database file, so that both stay short.
//!
//! Most of the work runs beside readers and writers; only a small rest is done while the writer stands still. After
//! that the database file itself holds everything up to a position, and our log is needed only from there.

use std::path::Path;

use rusqlite::{Connection, ffi};

use crate::error::ServerError;
use crate::hsb::position::Position;

use super::database::{Database, read_identity};
use super::files;

/// SQLite's log grows to about this size between checkpoints.
const WAL_BYTES: u64 = 32 << 20;

/// Whether there is enough to do.
pub fn is_due(database: &Database) -> bool {
    let mut wal = database.path().as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(Path::new(&wal)).is_ok_and(|wal| wal.len() > WAL_BYTES)
}

/// Moves what can be moved without holding anybody up. Returns the position that is durable now.
pub fn passive(connection: &Connection) -> Result<Position, ServerError> {
    let (_, position) = read_identity(connection)?;
    move_pages(connection)?;
    Ok(position)
}

/// Moves pages; on the connection that writes, nothing can come in between and the log starts over.
pub fn move_pages(connection: &Connection) -> Result<(), ServerError> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(|error| {
        let failed = error.sqlite_error().map_or(0, |error| error.extended_code);
        // Else the next one, with nothing left to sync, would count as success and cost the log its segments.
        if matches!(failed, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) {
            files::stop_after_failed_sync(Path::new(connection.path().unwrap_or("the database")), &error);
        }
        error.into()
    })
}
