//! A directory that is memory: for servers that keep their log, or everything, off the disk.
//!
//! It lies on the system's memory file system, so log and database work there as they do on a disk, readers beside
//! the writer, and nothing reaches a disk but by swapping. Its name follows from the server's own directory: what a
//! server that was killed has left is deleted when it starts again. At an orderly end it is deleted at once.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::storage::database::Database;
use crate::storage::log::{self as storage_log, LogConfiguration};
use crate::storage::recovery;

/// Where Linux has memory that is used as files.
const MEMORY: &str = "/dev/shm";
/// A log in memory is dropped by the file.
const MEMORY_LOG_FILES: u64 = 8;

/// See the module. Deleted with everything in it when this is dropped.
pub(super) struct MemoryDirectory(PathBuf);

impl MemoryDirectory {
    /// A new one for the server in `directory`; `lock` is its lock file, which says that no other server uses it.
    pub(super) fn create(directory: &Path, lock: &File) -> Result<MemoryDirectory, ServerError> {
        let failed = |error: std::io::Error| {
            let detail =
                format!("({MEMORY}: {error}; a server without a disk needs a memory file system there)");
            ServerError::with(Code::LOG_NO_MEMORY, detail)
        };
        let name = fs::canonicalize(directory).map_err(failed)?;
        let name = xxhash_rust::xxh3::xxh3_64(name.as_os_str().as_encoded_bytes());
        let path = Path::new(MEMORY).join(format!("hotstandby-{name:016x}"));
        match fs::symlink_metadata(&path) {
            Ok(found) => {
                // Everybody may write there: what another user has put under this name is left alone.
                let owner = lock.metadata().map_err(failed)?.uid();
                if !found.is_dir() || found.uid() != owner {
                    let detail = format!("({} belongs to somebody else)", path.display());
                    return Err(ServerError::with(Code::LOG_NO_MEMORY, detail));
                }
                fs::remove_dir_all(&path).map_err(failed)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // Fails if somebody else has made it meanwhile.
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(MemoryDirectory(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MemoryDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("{}: {error}", self.0.display());
        }
    }
}

/// The place of what is not to be on disk.
pub(super) fn place(parameters: &Parameters, lock: &File) -> Result<Option<MemoryDirectory>, ServerError> {
    if parameters.diskless() {
        log::warn!("diskless: database and log are in memory and end with this server");
    } else if !parameters.log_enabled() {
        log::warn!(
            "Logging.LogEnabled=no: the log is in memory; a power cut takes the database back to its last checkpoint or to a point after it"
        );
    } else {
        return Ok(None);
    }
    MemoryDirectory::create(parameters.directory(), lock).map(Some)
}

/// The log that is kept for the peer alone.
pub(super) fn log(
    on_disk: &LogConfiguration,
    parameters: &Parameters,
    memory: &MemoryDirectory,
) -> LogConfiguration {
    let maximum_bytes = parameters.max_memory_log_size_bytes() as u64;
    LogConfiguration {
        directory: memory.path().join("log"),
        segment_size_bytes: maximum_bytes / MEMORY_LOG_FILES,
        maximum_bytes: Some(maximum_bytes),
        ..on_disk.clone()
    }
}

/// From here on there is no log on disk: what the last one holds goes into the database.
pub(super) fn leave_log(database: &Arc<Database>, log: LogConfiguration) -> Result<(), ServerError> {
    if !storage_log::exists(&log)? {
        return Ok(());
    }
    let recovered = recovery::open(database, log)?;
    if recovered.pending.is_some() {
        let detail = "(Logging.LogEnabled=no: the log on disk ends with a transaction whose outcome is open; start with yes, connect the servers, and stop this one in order first)";
        return Err(ServerError::with(Code::OPERATION_FAILED, detail));
    }
    let log = recovered.log_configuration.clone();
    drop(recovered);
    database.sync();
    storage_log::remove_all(&log)
}
