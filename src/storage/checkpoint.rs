//! Checkpoints: points in the history that the database itself holds durably, and the moving of SQLite's write-ahead log
//! into the database file, so that it stays short.
//!
//! Most of the moving runs beside readers and writers; only a small rest is done while the writer stands still. A long
//! reader keeps pages from being moved, never a checkpoint from being durable: what stays in SQLite's log is synced.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ffi};

use super::database::{Database, read_identity};
use crate::error::ServerError;
use crate::hsb::position::Position;

use super::files;

/// SQLite's log grows to about this size before its pages are moved.
const WAL_BYTES: u64 = 32 << 20;

/// Whether there is enough to move.
pub fn has_much_to_move(database: &Database) -> bool {
    std::fs::metadata(database.write_ahead_log()).is_ok_and(|wal| wal.len() > WAL_BYTES)
}

/// What decides when the next automatic checkpoint is made.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// General.CheckpointInterval: transactions in between.
    pub interval_records: u64,
    /// General.MinCheckpointTime.
    pub minimum_time: Duration,
}

impl Schedule {
    /// Whether one is due so many transactions and so long after the last.
    pub fn is_due(&self, records: u64, elapsed: Duration) -> bool {
        records >= self.interval_records && elapsed >= self.minimum_time
    }
}

/// Makes the database durable and moves what can be moved without holding anybody up. Returns the position up to which
/// the database needs no log. `sync_log` puts what is logged on disk. It comes first: after a power cut the database would
/// be ahead of its log, which would begin anew, and the other server could not catch up from it.
pub fn make(
    database: &Database,
    sync_log: impl FnOnce() -> Result<(), ServerError>,
) -> Result<Position, ServerError> {
    let connection = database.open_for_apply()?;
    let (_, position) = read_identity(&connection)?;
    sync_log()?;
    // SQLite syncs only what it can move; see the module.
    database.sync();
    move_pages(&connection)?;
    Ok(position)
}

/// Moves pages; on the connection that writes, nothing can come in between and SQLite's log starts over.
pub fn move_pages(connection: &Connection) -> Result<(), ServerError> {
    let moved = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    moved.map_err(|error| not_moved(connection.path().unwrap_or("the database"), error))
}

/// A failed sync ends the process: the next one, with nothing left to sync, would count as success and cost the log its
/// segments.
fn not_moved(database: &str, error: rusqlite::Error) -> ServerError {
    let failed = error.sqlite_error().map_or(0, |error| error.extended_code);
    if matches!(failed, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) {
        files::stop_after_failed_sync(Path::new(database), &error);
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_when_both_limits_are_passed() {
        let schedule = Schedule { interval_records: 100, minimum_time: Duration::from_secs(10) };
        let (short, long) = (Duration::from_secs(9), Duration::from_secs(10));
        assert!(schedule.is_due(100, long));
        assert!(!schedule.is_due(99, long));
        assert!(!schedule.is_due(1_000_000, short));
    }

    const CHILD: &str = "HSB_TEST_FAILING_SYNC";

    /// In a process of its own: one sync fails, and it goes on if the process does.
    #[test]
    #[ignore = "ends its process; run by the test below"]
    fn child_with_a_failing_sync() {
        if std::env::var(CHILD).is_ok_and(|kind| kind == "SQLite's log") {
            // A device cannot be synced.
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("solid.db");
            std::os::unix::fs::symlink("/dev/null", directory.path().join("solid.db-wal")).unwrap();
            Database::at(path, 0).sync();
        } else {
            let error =
                ffi::Error { code: ffi::ErrorCode::SystemIoFailure, extended_code: ffi::SQLITE_IOERR_FSYNC };
            not_moved("solid.db", rusqlite::Error::SqliteFailure(error, None));
        }
    }

    #[test]
    fn trap_11_a_failed_sync_of_the_database_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;
        for kind in ["SQLite's log", "the database file"] {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "storage::checkpoint::tests::child_with_a_failing_sync"])
                .env(CHILD, kind)
                .output()
                .unwrap();
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{kind}: {output:?}");
        }
    }
}
