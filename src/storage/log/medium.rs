//! What the log writer does to its files, and how that can fail: for want of room, or for good.
//!
//! Not here: what to do then. Invariant: nothing here is ever tried a second time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::descriptors::is_exhausted;

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no room. Nothing was appended; it may be tried again when there is.
    #[error("{0}")]
    NoRoom(io::Error),
    /// The medium has failed, or what is on it is unknown: the log must not be written any more.
    #[error("{0}")]
    Failed(io::Error),
}

impl WriteError {
    pub(super) fn cause(&self) -> &io::Error {
        let (WriteError::NoRoom(error) | WriteError::Failed(error)) = self;
        error
    }
}

impl From<io::Error> for WriteError {
    /// Not for syncs: after a failed one the reason does not matter.
    fn from(error: io::Error) -> WriteError {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WriteZero};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge | WriteZero => WriteError::NoRoom(error),
            // What cannot be opened for the moment: files or memory are missing, and nothing was written.
            _ if is_exhausted(&error) || error.raw_os_error() == Some(libc::ENOMEM) => {
                WriteError::NoRoom(error)
            }
            _ => WriteError::Failed(error),
        }
    }
}

/// An operation that a simulated disk can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Room for a file.
    Allocate,
    /// Bytes, zeros that take them back among them.
    Write,
    /// What was written, to the disk.
    Sync,
}

/// Asked before each operation. `Some`: it fails with this error, a write after so many bytes.
pub type Fault = Arc<dyn Fn(Operation) -> Option<(usize, io::Error)> + Send + Sync>;

/// The disk that a log lies on: the system's, or one that fails as tests and the simulation want it.
#[derive(Clone, Default)]
pub struct Medium {
    fault: Option<Fault>,
}

impl std::fmt::Debug for Medium {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.fault.is_some() { "a disk that fails as told" } else { "the disk" })
    }
}

impl Medium {
    /// The system's disk, with failures.
    pub fn failing(fault: Fault) -> Medium {
        Medium { fault: Some(fault) }
    }

    fn fails(&self, operation: Operation) -> Option<(usize, io::Error)> {
        self.fault.as_ref().and_then(|fault| fault(operation))
    }

    /// Writes everything or fails, perhaps after a part.
    pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some((written, error)) = self.fails(Operation::Write) {
            file.write_all_at(&bytes[..written.min(bytes.len())], offset)?;
            return Err(error);
        }
        file.write_all_at(bytes, offset)
    }

    /// Zeros.
    pub(super) fn wipe(&self, file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while length > 0 {
            let part = length.min(ZEROS.len() as u64);
            self.write(file, &ZEROS[..part as usize], offset)?;
            (offset, length) = (offset + part, length - part);
        }
        Ok(())
    }

    /// Returns when it is on disk.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        if let Some((_, error)) = self.fails(Operation::Sync) {
            return Err(error);
        }
        file.sync_data()
    }

    /// Makes the file so long, with real room behind it where the file system can do that.
    pub(super) fn allocate(&self, file: &File, length_bytes: u64) -> io::Result<()> {
        if let Some((_, error)) = self.fails(Operation::Allocate) {
            return Err(error);
        }
        match fs4::FileExt::allocate(file, length_bytes) {
            Err(error) if !is_unsupported(&error) => return Err(error),
            _ => {}
        }
        // Allocating may leave the length as it was.
        if file.metadata()?.len() < length_bytes { file.set_len(length_bytes) } else { Ok(()) }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}
