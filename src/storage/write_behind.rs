//! Has the system begin to write SQLite's log while it grows, so that a sync of it has little left to wait for.
//!
//! A node that is promoted puts what it has applied on disk before it is the primary; with up to 32 MB that nobody had
//! asked the system to write, that was most of a failover. Nothing depends on it: whether and when the system follows is
//! its own business, and only a sync says that something is on disk.

use std::fs::File;
use std::path::PathBuf;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rusqlite::Connection;

use super::checkpoint::WAL_FRAME_HEAD_BYTES;
use crate::error::ServerError;

/// So much is written by nobody's order at most.
const STEP_BYTES: u64 = 1 << 20;

/// From now on, for what this connection commits.
pub fn begin(connection: &mut Connection) -> Result<(), ServerError> {
    let Some(database) = connection.path().map(PathBuf::from) else { return Ok(()) };
    let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let frame_bytes = page_bytes.unsigned_abs() + WAL_FRAME_HEAD_BYTES;
    let wal = super::files::beside(&database, "-wal");
    // Opened when there is something to write: SQLite makes the file at its first commit.
    let (mut file, mut told_bytes) = (None, 0);
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames| {
        let bytes = u64::from(u32::try_from(frames).unwrap_or(0)) * frame_bytes;
        if bytes < told_bytes {
            // It has started over.
            told_bytes = 0;
        }
        if bytes - told_bytes >= STEP_BYTES {
            if file.is_none() {
                file = File::open(&wal).ok();
            }
            if let Some(file) = &file {
                write_begun(file, told_bytes, bytes - told_bytes);
            }
            told_bytes = bytes;
        }
        Ok(())
    }))?;
    Ok(())
}

/// Pages that are still to be written are not dropped by this advice: the system begins to write them.
fn write_begun(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    if let Err(error) = posix_fadvise(file, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        log::debug!("no early writing of SQLite's log: {error}");
    }
}
