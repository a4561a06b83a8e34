//! The SQLite database file: creating, opening, connections, the position inside it.
//!
//! The database is in WAL mode; its own log is not what makes commits durable (our log is), so commits do not sync.
//! Checkpoints are ours too ([`crate::storage::checkpoint`]). Invariant: the position in `_hsb_meta` changes only in
//! the SQLite transaction that carries the batch leading there.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::hold::{self, Hold};
use super::sqlite_error::sqlite_error;
use super::{files, functions, memory, outcomes};
use crate::descriptors::{self, open_surely};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::{Chain, DatabasePosition, Position};
use crate::random;

/// How long a connection waits for SQLite's own write lock; only role changes ever contend for it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
const READER_CACHE_KIB: i64 = 4096;
const POSITION_BYTES: usize = 32;
const KEEPER_CACHE_KIB: i64 = 16;

/// Users and what they may do; replicated like any other table.
pub const USERS_TABLE: &str = "_hsb_users";

/// Where a database is and what all its connections share.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    writer_cache_kib: i64,
    schema_generation: AtomicU64,
    hold: Mutex<Option<Hold>>,
    /// Why it is not held, although it should be.
    not_held: Mutex<Option<String>>,
    /// For [`Database::ask`].
    kept: Mutex<Option<Connection>>,
    /// The server's own long reads hold a clone each.
    long_reads: Arc<()>,
}

/// See [`Database::begin_long_read`].
pub struct LongRead {
    _counted: Arc<()>,
}

impl Database {
    /// The database in this file, which need not be there yet.
    pub fn at(path: PathBuf, cache_bytes: u64) -> Database {
        memory::install();
        let writer_cache_kib = i64::try_from(cache_bytes / 1024).unwrap_or(65536).max(1024);
        Database {
            path,
            writer_cache_kib,
            schema_generation: AtomicU64::new(0),
            hold: Mutex::default(),
            not_held: Mutex::default(),
            kept: Mutex::default(),
            long_reads: Arc::default(),
        }
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is there.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Creates an empty database with an identity of its own; `set_up` adds the first user. Appears complete or not at all.
    /// Refused where the rest of another one is: SQLite would take its log for that of the new one, and mix them.
    pub fn create(
        &self,
        page_size: u32,
        set_up: impl FnOnce(&Connection) -> Result<(), ServerError>,
    ) -> Result<(), ServerError> {
        let rest = self.write_ahead_log();
        if rest.exists() {
            let detail = format!(
                "({} is there and {} is not: put that back, or start with -x backupserver for a netcopy; to begin with an empty \
                 database, move the rest away)",
                rest.display(),
                self.path.display()
            );
            return Err(ServerError::with(Code::DATABASE_CORRUPT, detail));
        }
        let building = self.beside("creating");
        let failed = |error: std::io::Error| {
            let full = error.kind() == std::io::ErrorKind::StorageFull;
            let code = if full { Code::DISK_FULL } else { Code::OPERATION_FAILED };
            ServerError::with(code, format!("({}: {error})", self.path.display()))
        };
        files::create_private(&building).map_err(failed)?;
        let connection = Connection::open(&building)?;
        connection.pragma_update(None, "page_size", page_size)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(
            "CREATE TABLE _hsb_meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
             CREATE TABLE _hsb_users (name TEXT PRIMARY KEY, role TEXT NOT NULL, salt BLOB NOT NULL,
               iterations INTEGER NOT NULL, stored_key BLOB NOT NULL, server_key BLOB NOT NULL);",
        )?;
        connection.execute_batch(outcomes::CREATE)?;
        let identity = random::bytes::<16>()?;
        connection.execute("INSERT INTO _hsb_meta VALUES ('database_id', ?)", params![&identity[..]])?;
        let secret = random::bytes::<32>()?;
        connection.execute("INSERT INTO _hsb_meta VALUES ('secret', ?)", params![&secret[..]])?;
        connection.execute(
            "INSERT INTO _hsb_meta VALUES ('position', ?)",
            params![&encode(Position::ORIGIN)[..]],
        )?;
        set_up(&connection)?;
        connection.close().map_err(|(_, error)| ServerError::from(error))?;
        files::rename_durably(&building, &self.path).map_err(failed)
    }

    /// The path of a companion file, `solid.db.<suffix>`.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        files::beside(&self.path, &format!(".{suffix}"))
    }

    /// Page size of the file.
    pub fn page_size_bytes(&self) -> Result<u32, ServerError> {
        Ok(self.open_reader()?.pragma_query_value(None, "page_size", |row| row.get(0))?)
    }

    /// A connection for reading, one a session.
    pub fn open_reader(&self) -> Result<Connection, ServerError> {
        let connection = self.open(READER_CACHE_KIB)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    /// A short question of the server's own, asked on a connection that is kept open for them all: it costs no
    /// descriptors, whoever causes it, and is answered when there are none left.
    pub fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let mut kept = self.kept();
        // Not back in its place after an error: the next question gets a new one.
        let connection = kept.take().map_or_else(|| self.open_surely(READER_CACHE_KIB), Ok)?;
        let answer = question(&connection)?;
        *kept = Some(connection);
        Ok(answer)
    }

    /// Closes that connection, because the file is about to be replaced. Questions wait until the value is dropped.
    pub fn ask_nothing(&self) -> impl Drop + '_ {
        let mut kept = self.kept();
        *kept = None;
        kept
    }

    fn kept(&self) -> MutexGuard<'_, Option<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection for writing; there is one.
    pub fn open_writer(&self) -> Result<Connection, ServerError> {
        let connection = self.open_surely(self.writer_cache_kib)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    }

    /// The connection that applies what the primary sends; there is one.
    pub fn open_for_apply(&self) -> Result<Connection, ServerError> {
        let connection = self.open_surely(self.writer_cache_kib)?;
        functions::declare(&connection)?;
        Ok(connection)
    }

    /// Also when no descriptors are left: the server cannot go on without it.
    fn open_surely(&self, cache_kib: i64) -> Result<Connection, ServerError> {
        descriptors::open_surely_unless(|| self.open(cache_kib), |_| descriptors::are_exhausted())
    }

    fn open(&self, cache_kib: i64) -> Result<Connection, ServerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(|error| cannot_open(&self.path, error))?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(|error| cannot_open(&self.path, error))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "cache_size", -cache_kib)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.set_prepared_statement_cache_capacity(512);
        Ok(connection)
    }

    /// Keeps other programs off the file from now on: see `super::hold`. An error names the one that has it open;
    /// [`Database::renew_hold`] tries again then.
    pub fn hold(&self) -> Result<(), ServerError> {
        let hold = self.take_hold(hold::PATIENCE).inspect_err(|error| {
            *self.problem() = Some(error.to_string());
        })?;
        *self.held() = Some(hold);
        Ok(())
    }

    fn take_hold(&self, patience: Duration) -> Result<Hold, ServerError> {
        let keeper = self.open(KEEPER_CACHE_KIB)?;
        read_identity(&keeper)?;
        Hold::take(&self.path, keeper, patience)
    }

    /// Holds it anew: this process may have opened and closed the file by itself, or could not hold it before. An error is
    /// told once, and goes on to be told by [`Database::not_held`].
    pub fn renew_hold(&self) -> Result<(), ServerError> {
        // Locked meanwhile, so that the file is not replaced under it.
        let mut held = self.held();
        let before = self.not_held();
        let outcome = match &*held {
            Some(hold) => hold.renew(),
            None if before.is_none() => return Ok(()),
            None => self.take_hold(Duration::ZERO).map(|hold| *held = Some(hold)),
        };
        let problem = outcome.as_ref().err().map(ToString::to_string);
        if problem.is_none() && before.is_some() {
            log::info!("{} is held: no other program can open it any more", self.path.display());
        }
        let is_known = problem == before;
        *self.problem() = problem;
        if is_known { Ok(()) } else { outcome }
    }

    /// Why other programs are not kept off the file, although they should be.
    pub fn not_held(&self) -> Option<String> {
        self.problem().clone()
    }

    fn problem(&self) -> MutexGuard<'_, Option<String>> {
        self.not_held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the file that is held is still the database under its name; an error says what became of it.
    pub fn check_in_place(&self) -> Result<(), ServerError> {
        self.held().as_ref().map_or(Ok(()), Hold::check_in_place)
    }

    /// Lets go of the file: it is about to be replaced, or the server ends.
    pub fn release(&self) {
        let mut held = self.held();
        let hold = held.take();
        *self.problem() = None;
        drop(held);
        drop(hold);
    }

    fn held(&self) -> MutexGuard<'_, Option<Hold>> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held by the server's own reads that take their time, copies and comparisons: they keep SQLite's log from
    /// starting over as sessions do.
    pub fn begin_long_read(&self) -> LongRead {
        LongRead { _counted: Arc::clone(&self.long_reads) }
    }

    /// Whether there are any.
    pub fn has_long_reads(&self) -> bool {
        Arc::strong_count(&self.long_reads) > 1
    }

    /// Gives the database a second name, which it keeps when another takes its place. Nobody may write to it meanwhile.
    pub fn keep_beside(&self) -> std::io::Result<PathBuf> {
        let mut number = 1;
        let kept = loop {
            let kept = self.beside(&format!("kept-{number}"));
            match std::fs::hard_link(&self.path, &kept) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
                Ok(()) => break kept,
            }
        };
        match std::fs::hard_link(self.write_ahead_log(), files::beside(&kept, "-wal")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        files::sync_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        Ok(kept)
    }

    /// SQLite's own log.
    pub fn write_ahead_log(&self) -> PathBuf {
        files::beside(&self.path, "-wal")
    }

    /// Puts what was committed on disk. A failure ends the process, like that of any sync: what is on disk is unknown.
    pub fn sync(&self) {
        let wal = &self.write_ahead_log();
        match open_surely(|| std::fs::File::open(wal)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            file => {
                // The file may be new: its name has to survive as well.
                let directory = || files::sync_directory(self.path.parent().unwrap_or(Path::new(".")));
                if let Err(error) = file.and_then(|file| file.sync_all()).and_then(|()| directory()) {
                    files::stop_after_failed_sync(wal, &error);
                }
            }
        }
    }

    /// Grows whenever the schema or the users changed; prepared descriptions and rights known before are stale.
    pub fn schema_generation(&self) -> u64 {
        self.schema_generation.load(Ordering::Acquire)
    }

    /// To be called after a change of the schema or of users was committed or applied.
    pub fn schema_changed(&self) {
        self.schema_generation.fetch_add(1, Ordering::AcqRel);
    }
}

/// Identity and position as they stand in the database.
pub fn read_identity(connection: &Connection) -> Result<DatabasePosition, ServerError> {
    let incomplete =
        |what: &str| ServerError::with(Code::DATABASE_CORRUPT, format!("({what} is missing in it)"));
    let read = |key: &str| -> Result<Vec<u8>, ServerError> {
        connection
            .query_row("SELECT value FROM _hsb_meta WHERE key = ?", [key], |row| row.get(0))
            .map_err(|_| incomplete(key))
    };
    let database_id = read("database_id")?.try_into().map_err(|_| incomplete("database_id"))?;
    let place = Place::decode(&read("position")?).ok_or_else(|| incomplete("position"))?;
    Ok(DatabasePosition { database_id, position: place.at })
}

/// What only this database and its copies know, the same at both servers: its own secret, or the identity of a database
/// that was made without one.
pub fn read_secret(connection: &Connection) -> Result<Vec<u8>, ServerError> {
    let sql = "SELECT value FROM _hsb_meta WHERE key IN ('secret', 'database_id') ORDER BY key DESC LIMIT 1";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Writes the position inside the open transaction, and the one that the database is at before it.
pub fn write_position(connection: &Connection, before: Position, after: Position) -> rusqlite::Result<()> {
    let mut bytes = [0; 2 * POSITION_BYTES];
    bytes[..POSITION_BYTES].copy_from_slice(&encode(after));
    bytes[POSITION_BYTES..].copy_from_slice(&encode(before));
    connection
        .prepare_cached("UPDATE _hsb_meta SET value = ? WHERE key = 'position'")?
        .execute(params![&bytes[..]])
        .map(|_| ())
}

/// What the row of the position says: where the last transaction led, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) at: Position,
    /// None: nothing was written yet.
    pub(super) before: Option<Position>,
}

impl Place {
    pub(super) fn decode(bytes: &[u8]) -> Option<Place> {
        let (at, before) = bytes.split_at_checked(POSITION_BYTES)?;
        let before = if before.is_empty() { None } else { Some(decode(before)?) };
        Some(Place { at: decode(at)?, before })
    }
}

/// Whether the database was rewound and its log not yet: see [`super::rewind`].
pub fn is_rewound(connection: &Connection) -> Result<bool, ServerError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM _hsb_meta WHERE key = 'rewound')";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Notes it, or that it is done.
pub fn set_rewound(connection: &Connection, rewound: bool) -> Result<(), ServerError> {
    let sql = if rewound {
        "INSERT OR REPLACE INTO _hsb_meta VALUES ('rewound', 1)"
    } else {
        "DELETE FROM _hsb_meta WHERE key = 'rewound'"
    };
    connection.execute(sql, [])?;
    Ok(())
}

fn encode(position: Position) -> [u8; POSITION_BYTES] {
    let mut bytes = [0; POSITION_BYTES];
    bytes[..8].copy_from_slice(&position.epoch.to_le_bytes());
    bytes[8..16].copy_from_slice(&position.sequence.to_le_bytes());
    bytes[16..].copy_from_slice(&position.chain.0);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Position> {
    let (epoch, rest) = bytes.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let chain: [u8; 16] = rest.try_into().ok()?;
    Some(Position {
        epoch: u64::from_le_bytes(*epoch),
        sequence: u64::from_le_bytes(*sequence),
        chain: Chain(chain),
    })
}

/// Only what SQLite calls damage is: a database that may not be opened is not to be replaced.
fn cannot_open(path: &Path, error: rusqlite::Error) -> ServerError {
    let cause = sqlite_error(&error);
    let code = cause.code.unwrap_or(Code::OPERATION_FAILED);
    let shown = ServerError::with(code, format!("({} cannot be opened: {error})", path.display()));
    if cause.passes() { shown.under(cause.sqlstate) } else { shown }
}
