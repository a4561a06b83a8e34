//! Keeps other programs off the database file while the server has it open.
//!
//! Every program that uses SQLite takes a shared lock on the database file when it opens it, and for a moment needs a read
//! lock on one byte of it (the *pending* byte) to get there. A server holds a write lock on that byte, so to everybody
//! else the database is locked, for reading as well: a foreign reader would keep SQLite's log from starting over, a
//! foreign writer would change rows behind the log, and neither could be told by the server to stop.
//!
//! These locks belong to processes, so the server's own connections do not meet this one. Invariants that this rests on:
//!
//! * SQLite touches the pending byte only for the first connection of a process to a file. So one connection, the *keeper*,
//!   is opened before the byte is locked and closed after everything else.
//! * The system drops all locks of a process on a file when the process closes any descriptor of it. SQLite knows and closes
//!   none while it has locks; our own code opens the database file nowhere but here, and where it must (a netcopy looks for
//!   blocks in the old database) [`Hold::renew`] follows.
//!
//! Whoever had the file open before is found by its shared lock, and the start is refused with its process id. Not here: a
//! second server on the same files, which the lock file keeps out (`node::lock`).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rusqlite::Connection;

use crate::error::ServerError;
use crate::hsb::codes::Code;

/// Where SQLite's locks are in every database file.
const PENDING_BYTE: i64 = 0x4000_0000;
const SHARED_FIRST: i64 = PENDING_BYTE + 2;
const SHARED_BYTES: i64 = 510;
/// What every database file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How long a program that is about to leave is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// See the module. Ends with the value.
#[derive(Debug)]
pub(super) struct Hold {
    // Closed first: it is the last connection, and has SQLite's log emptied.
    _keeper: Connection,
    file: File,
    path: PathBuf,
}

/// Why the file is not held.
enum Unheld {
    /// By this process; none: not known.
    Busy(Option<i32>),
    /// The file system has no such locks.
    Failed(Errno),
}

impl Hold {
    /// `keeper` must have read in the database. Waits so long for programs that have it open.
    pub(super) fn take(path: &Path, keeper: Connection, patience: Duration) -> Result<Hold, ServerError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|error| {
            ServerError::with(Code::OPERATION_FAILED, format!("({}: {error})", path.display()))
        })?;
        let deadline = Instant::now() + patience;
        loop {
            match lock_out(&file) {
                Ok(()) => return Ok(Hold { _keeper: keeper, file, path: path.to_path_buf() }),
                Err(Unheld::Failed(error)) => {
                    log::warn!(
                        "{} cannot be locked ({error}): no other program may open it while the server runs",
                        path.display()
                    );
                    return Ok(Hold { _keeper: keeper, file, path: path.to_path_buf() });
                }
                Err(Unheld::Busy(_)) if Instant::now() < deadline => std::thread::sleep(LOOK_INTERVAL),
                Err(Unheld::Busy(process)) => return Err(in_use(path, process)),
            }
        }
    }

    /// Whether the file is still there under its name, and a database: an error says what is wrong.
    pub(super) fn check_in_place(&self) -> Result<(), ServerError> {
        let problem = |what: &str| {
            ServerError::with(
                Code::DATABASE_CORRUPT,
                format!("({} {what} while the server had it open)", self.path.display()),
            )
        };
        let held = self.file.metadata().map_err(|error| problem(&error.to_string()))?;
        match std::fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {}
            Ok(_) => return Err(problem("was replaced by another file")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(problem("was removed")),
            // Nothing is known of the file then.
            Err(_) => return Ok(()),
        }
        let mut head = [0; MAGIC.len()];
        match self.file.read_at(&mut head, 0) {
            Ok(length) if length < MAGIC.len() || head != *MAGIC => Err(problem("was overwritten")),
            _ => Ok(()),
        }
    }

    /// Takes it again, in case this process has closed another descriptor of the file. Tells who came in between.
    pub(super) fn renew(&self) -> Result<(), ServerError> {
        // A shared lock as SQLite believes to have it.
        let shared = fcntl(&self.file, FcntlArg::F_SETLK(&lock(libc::F_RDLCK, SHARED_FIRST, SHARED_BYTES)));
        match lock_out(&self.file) {
            Err(Unheld::Busy(process)) => Err(in_use(&self.path, process)),
            Ok(()) | Err(Unheld::Failed(_)) => {
                if let Err(error) = shared {
                    log::debug!("{}: {error}", self.path.display());
                }
                Ok(())
            }
        }
    }
}

fn lock(kind: libc::c_int, start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// First nobody else can come in, then a look whether somebody is in.
fn lock_out(file: &File) -> Result<(), Unheld> {
    match fcntl(file, FcntlArg::F_SETLK(&lock(libc::F_WRLCK, PENDING_BYTE, 1))) {
        Ok(_) => {}
        Err(Errno::EACCES | Errno::EAGAIN) => return Err(Unheld::Busy(holder(file, PENDING_BYTE, 1)?)),
        Err(error) => return Err(Unheld::Failed(error)),
    }
    match holder(file, SHARED_FIRST, SHARED_BYTES)? {
        None => Ok(()),
        process => Err(Unheld::Busy(process)),
    }
}

/// The process that has a lock there, other than this one.
fn holder(file: &File, start: i64, length: i64) -> Result<Option<i32>, Unheld> {
    let mut found = lock(libc::F_WRLCK, start, length);
    fcntl(file, FcntlArg::F_GETLK(&mut found)).map_err(Unheld::Failed)?;
    Ok((libc::c_int::from(found.l_type) != libc::F_UNLCK).then_some(found.l_pid))
}

fn in_use(path: &Path, process: Option<i32>) -> ServerError {
    let who =
        process.map_or_else(|| "another program".to_owned(), |id| format!("another program (process {id})"));
    let detail = format!(
        "{} has been opened by {who}: end that. While a server runs, its database is for the server alone; 'backup' makes a copy for other programs.",
        path.display()
    );
    ServerError::with(Code::OPERATION_FAILED, detail)
}
