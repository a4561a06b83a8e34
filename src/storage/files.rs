//! Files that must survive: write, fsync, rename, fsync of the directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file beside this one whose name is this one's and a suffix.
pub fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes creations, renames and deletions in `directory` survive a power cut.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

/// A sync has failed: what is on disk is unknown, and a second one would hide that. Recovery follows at the next start.
pub fn stop_after_failed_sync(what: &Path, error: &dyn std::fmt::Display) -> ! {
    log::error!(
        "{} cannot be synced: {error}; stopping at once, recovery follows at the next start",
        what.display()
    );
    log::logger().flush();
    std::process::abort();
}

/// Renames a complete, synced file into place.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)?;
    sync_directory(to.parent().unwrap_or(Path::new(".")))
}

/// Creates or empties a file that only its owner may read: databases and logs hold what users wrote and password
/// verifiers. SQLite gives its companion files the database's own mode.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Opens such a file as it is, or creates it.
pub fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Deletes a file that may be absent.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
