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

/// Bytes of the head of a page in SQLite's log.
pub(super) const WAL_FRAME_HEAD_BYTES: u64 = 24;

/// Whether there is enough to move; `limit_bytes`: what SQLite's log may hold for the sake of readers, 0: as much as it
/// takes.
pub fn has_much_to_move(database: &Database, limit_bytes: u64) -> bool {
    let much = if limit_bytes == 0 { WAL_BYTES } else { WAL_BYTES.min(limit_bytes / 2) };
    wal_file_bytes(database) > much
}

/// Length of the file that is SQLite's log.
pub fn wal_file_bytes(database: &Database) -> u64 {
    std::fs::metadata(database.write_ahead_log()).map_or(0, |wal| wal.len())
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
    let position = read_identity(&connection)?.position;
    sync_log()?;
    // SQLite syncs only what it can move; see the module.
    database.sync();
    move_pages(&connection)?;
    Ok(position)
}

/// Moves pages beside readers and writers. Returns how many bytes SQLite's log holds, moved or not: it can start over
/// only when all are moved and nobody reads in it.
pub fn move_pages(connection: &Connection) -> Result<u64, ServerError> {
    let frames = checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
    let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    Ok(frames * (page_bytes.unsigned_abs() + WAL_FRAME_HEAD_BYTES))
}

/// On the connection that writes, between its transactions: nothing can come in between, SQLite's log starts over and
/// its file gives its room back, if nobody reads in it. Waits for nobody.
pub fn start_log_over(connection: &Connection) -> Result<(), ServerError> {
    let patience_ms: i64 = connection.query_row("PRAGMA busy_timeout", [], |row| row.get(0))?;
    connection.busy_timeout(Duration::ZERO)?;
    let outcome = checkpoint(connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    connection.busy_timeout(Duration::from_millis(patience_ms.unsigned_abs()))?;
    outcome.map(drop)
}

/// Returns how many pages SQLite's log holds; 0 if another checkpoint is under way.
fn checkpoint(connection: &Connection, sql: &str) -> Result<u64, ServerError> {
    let frames = connection.query_row(sql, [], |row| row.get::<_, i64>(1));
    frames
        .map(|frames| u64::try_from(frames).unwrap_or(0))
        .map_err(|error| not_moved(connection.path().unwrap_or("the database"), error))
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
