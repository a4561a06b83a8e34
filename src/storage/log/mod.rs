//! The transaction log: what a database needs to be rolled forward, and what a peer needs to catch up.
//!
//! # Byte format
//!
//! One log is a run of *segment* files in one directory, named by a template such as `sol#####.log` in which the run
//! of digit characters stands for the segment's number (at least that many digits; the number only grows). Files with
//! other names are ignored.
//!
//! ```text
//! segment := head batch* zeros
//! head    := frame of kind Segment, body = SegmentHead in the product's encoding (see `codec`):
//!            database_id [u8; 16], number u64, start { epoch u64, sequence u64, chain [u8; 16] }
//! batch   := frame of kind Batch, as it was sealed (see `batch`) but for bits 1 to 15 of its flags:
//!            how many transactions before it were not known to be on disk when it was written; all ones: unknown
//! zeros   := zero bytes to the end of the preallocated file; a zero frame header is the end of the segment
//! ```
//!
//! * The first batch of a segment follows `start`; each later one follows the batch before it; the next segment's
//!   `start` is where this one ends. Every one of these transitions is checked whenever the log is read.
//! * A batch never spans segments. A batch larger than a segment gets a segment of its own, as large as it needs.
//! * A file never shrinks and, once it has its name, never grows: readers map it.
//!
//! # Order of writes
//!
//! A segment is written under a temporary name, synced, renamed, and its directory synced; before that the segment
//! before it is synced. So every segment has a whole head and only the last one can have a torn tail. Dropping
//! batches ([`LogWriter::truncate_after`]) goes from the newest to the oldest with a sync after each, so a crash in
//! between leaves a whole, merely longer, log.
//!
//! # Recovery
//!
//! The log ends at the first thing in the last segment that is not a whole batch. With relaxed durability, whole
//! batches may stand behind it: a power failure can keep a later write and lose an earlier one. Each batch tells, by
//! its flags, up to which sequence the log was on disk when it was written. If none claims more than what stands
//! before the bad place, all behind it is *tail*: never promised to be on disk, and overwritten with zeros. If one
//! does, something that was on disk has gone bad. That, a bad frame in an older segment, a missing segment and a batch
//! that does not chain are damage in the *middle*: error 30787 with file and offset, never a skip.
//!
//! # No room
//!
//! Segments are preallocated, so a full disk is met when one is made. It may also be met within one, where the file
//! system cannot preallocate. Then what was half written is made zeros again, nothing was appended, and it can be
//! tried again ([`WriteError::NoRoom`]). Any other failure, and that of a sync above all, is for good.
//!
//! # Assumptions about the medium
//!
//! * After fdatasync has returned, the bytes are there and stay as they are; rename within a directory is atomic and
//!   durable once the directory is synced. A failed sync may have lost anything: the writer refuses to go on.
//! * Bytes that were not synced may after a crash be there wholly, partly or not at all, in any order.
//! * Bit rot is found by the frame's CRC32C and the chain (XXH3, 128 bit). Neither protects against forgery.
//! * Reads go through a shared mapping, which sees what `write` wrote. A read error of the medium ends the process.
//!
//! Not here: when to sync, what is decided, what may be deleted. The owner of [`LogWriter`] knows.

mod history;
mod mark;
mod medium;
mod reader;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

use crate::codec::FLAG_NEEDS_ACKNOWLEDGEMENT;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::storage::batch::Batch;

pub use history::{newest_on_history, turning_points};
pub use mark::LogMark;
pub use medium::{Fault, Medium, Operation, WriteError};
pub use reader::LogReader;
pub use writer::{LogWriter, Recovered};

/// All ones in the bits of the flags that count transactions not known to be on disk.
const UNSYNCED_UNKNOWN: u64 = 0x7fff;

/// The flags of a batch in the log, `unsynced` transactions after what is known to be on disk.
fn unsynced_flags(batch: &Batch, unsynced: u64) -> u16 {
    let count = unsynced.min(UNSYNCED_UNKNOWN) as u16;
    let acknowledgement = u16::from(batch.header.needs_acknowledgement) * FLAG_NEEDS_ACKNOWLEDGEMENT;
    count << 1 | acknowledgement
}

/// The sequence that was on disk when a batch of the log was written, if it tells.
fn synced_before(batch: &Batch) -> Option<u64> {
    let unsynced = u64::from(u16::from_le_bytes([batch.bytes[6], batch.bytes[7]]) >> 1);
    let known = unsynced != UNSYNCED_UNKNOWN;
    known.then(|| batch.header.before.sequence.saturating_sub(unsynced))
}

/// Where a log is and how its files look.
#[derive(Clone, Debug)]
pub struct LogConfiguration {
    /// Directory of the segment files; made if absent.
    pub directory: PathBuf,
    /// File name with one run of the digit character, as in `sol#####.log`.
    pub template: String,
    /// The character that stands for a digit in the template.
    pub digit: char,
    /// A segment that would grow beyond this is closed and the next one begun.
    pub segment_size_bytes: u64,
    /// A segment of another database is refused.
    pub database_id: [u8; 16],
    /// A log in memory: beyond so many bytes of files the oldest are deleted, whoever needs them. None: as told.
    pub maximum_bytes: Option<u64>,
    /// The disk underneath.
    pub medium: Medium,
}

/// Why a batch cannot be read from the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogReadError {
    /// The log does not reach back that far (or no longer does).
    #[error("the log does not reach back to the position")]
    NotThere,
    /// The position is not on this log's history: another batch is there, or the log is shorter.
    #[error("the position is not on this log's history, which it left at {parted_at} or before")]
    Diverged {
        /// The last position of this log that can be common to both histories.
        parted_at: Position,
    },
    /// Damage in the middle, or a file that cannot be read.
    #[error("{0}")]
    Failed(ServerError),
}

impl From<LogReadError> for ServerError {
    fn from(error: LogReadError) -> ServerError {
        match error {
            LogReadError::NotThere => ServerError::new(Code::LOG_TOO_SHORT),
            LogReadError::Diverged { .. } => ServerError::with(Code::NOT_SYNCHRONIZED, error),
            LogReadError::Failed(error) => error,
        }
    }
}

/// Deletes all segments: the database that they belong to is being replaced.
pub fn remove_all(configuration: &LogConfiguration) -> Result<(), ServerError> {
    let names = segment::SegmentNames::new(configuration)?;
    if !names.directory().is_dir() {
        return Ok(());
    }
    let failed = |error: std::io::Error| unusable(names.directory(), &error);
    for number in names.list()? {
        std::fs::remove_file(names.path(number)).map_err(failed)?;
    }
    super::files::sync_directory(names.directory()).map_err(failed)
}

/// A file that [`remove_all`] would delete although it is no log of this database, if there is one.
pub fn foreign_file(configuration: &LogConfiguration) -> Result<Option<PathBuf>, ServerError> {
    let names = segment::SegmentNames::new(configuration)?;
    let is_foreign = |number: &u64| segment::Segment::open(configuration, &names, *number).is_err();
    Ok(names.list()?.into_iter().find(is_foreign).map(|number| names.path(number)))
}

/// Whether there is a log.
pub fn exists(configuration: &LogConfiguration) -> Result<bool, ServerError> {
    let names = segment::SegmentNames::new(configuration)?;
    Ok(names.directory().is_dir() && !names.list()?.is_empty())
}

/// Damage: error 30787 with the place.
fn damaged(path: &Path, offset: usize, what: impl std::fmt::Display) -> ServerError {
    let advice = "Copy the database from the other server with 'hsb netcopy'";
    ServerError::with(
        Code::LOG_BAD_RECORD,
        format!("File {}, offset {offset}: {what}. {advice}.", path.display()),
    )
}

/// A file or directory that cannot be opened or changed.
fn unusable(path: &Path, error: &std::io::Error) -> ServerError {
    let code =
        if error.kind() == std::io::ErrorKind::StorageFull { Code::DISK_FULL } else { Code::LOG_OPEN_FAILED };
    ServerError::with(code, format!("{}: {error}.", path.display()))
}
