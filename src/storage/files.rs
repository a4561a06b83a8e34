//! Files that must survive: write, fsync, rename, fsync of the directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::descriptors::open_surely;
use crate::stop::stop_process;

/// The file beside this one whose name is this one's and a suffix.
pub fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes creations, renames and deletions in `directory` survive a power cut.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    open_surely(|| File::open(directory))?.sync_all()
}

/// A sync has failed: what is on disk is unknown, and a second one would hide that.
pub fn stop_after_failed_sync(what: &Path, error: &dyn std::fmt::Display) -> ! {
    stop_process(&format_args!("{} cannot be synced: {error}", what.display()))
}

/// Renames a complete, synced file into place.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    open_surely(|| File::open(from))?.sync_all()?;
    fs::rename(from, to)?;
    sync_directory(to.parent().unwrap_or(Path::new(".")))
}

/// Creates a file that only its owner may read: databases and logs hold what users wrote and password verifiers. SQLite
/// gives its companion files the database's own mode. A file of this name makes way; what is under another name too stays
/// there as it is, and a link or anything else that is no file is refused.
pub fn create_private(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => fs::remove_file(path)?,
        Ok(_) => return Err(no_file()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    open_surely(|| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path))
}

/// Opens such a file as it is, or creates it; never through a link, and never one that has another name as well.
pub fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW);
    let file = open_surely(|| options.open(path)).map_err(name_the_link)?;
    let found = file.metadata()?;
    if found.is_file() && found.nlink() == 1 { Ok(file) } else { Err(no_file()) }
}

/// Opens such a file for writing at its end, or creates it; never through a link.
pub fn open_appending(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path).map_err(name_the_link)
}

/// Opens a file that is there for writing, not through a link.
pub fn open_present(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
    open_surely(|| options.open(path)).map_err(name_the_link)
}

fn name_the_link(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::ELOOP) { no_file() } else { error }
}

fn no_file() -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        "a link or something else that is no file of this server's own is there; remove it",
    )
}

/// Deletes a file that may be absent.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_written_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (victim, name) = (directory.path().join("victim"), directory.path().join("solid.db.copying"));
        fs::write(&victim, "precious").unwrap();
        let whole = || assert_eq!(fs::read(&victim).unwrap(), b"precious");
        for target in [victim.clone(), directory.path().join("not there")] {
            std::os::unix::fs::symlink(&target, &name).unwrap();
            for open in [create_private, open_private, open_present, open_appending] {
                let error = open(&name).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
                assert!(error.to_string().contains("a link"), "{error}");
            }
            whole();
            fs::remove_file(&name).unwrap();
        }
        assert!(!directory.path().join("not there").exists());
        fs::hard_link(&victim, &name).unwrap();
        assert!(open_private(&name).is_err());
        create_private(&name).unwrap();
        whole();
        assert_eq!(open_private(&name).unwrap().metadata().unwrap().len(), 0, "its own it opens");
    }
}
