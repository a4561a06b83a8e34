//! A log file of bounded size: at a limit it is renamed to `name.1`, the one before to `name.2`, and so on.
//!
//! It can be opened anew, for programs that rotate logs from outside. Blocking. Not here: what is written, and by which
//! thread. Invariants: whatever fails when files are exchanged, the open file stays and is written on; a file that is no
//! regular one (a terminal, a pipe) is never renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::line::line;

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Size at which a file is set aside; none: never.
    pub bytes: Option<u64>,
    /// Files that are kept beside the one that is written.
    pub files: u64,
}

/// An open log file.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    file: File,
    limits: Limits,
    /// Written to the file since it was begun; after a rotation that failed, since then.
    bytes: u64,
    /// The last write ended in the middle of a line.
    torn: bool,
}

impl RotatingFile {
    /// Opens the file, or creates it for its owner alone; what is there stays.
    pub fn open(path: &Path, limits: Limits) -> io::Result<RotatingFile> {
        let (file, bytes) = open(path)?;
        Ok(RotatingFile { path: path.to_owned(), file, limits, bytes, torn: false })
    }

    /// Another size or number of files from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The open file, for locks.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Goes on in whatever file has the name now; after an error, in the one that was open.
    pub fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.bytes) = open(&self.path)?;
        self.torn = false;
        Ok(())
    }

    /// Appends a line, in a new file if it is time.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        if self.is_full(text.len() as u64)
            && let Err(error) = self.rotate()
        {
            // Once per limit: the next try is when as much has been written again.
            self.bytes = 0;
            let text =
                format!("ERROR {} cannot be set aside: {error}; it is written on", self.path.display());
            self.append(&line(SystemTime::now(), &text))?;
        }
        self.append(text)
    }

    fn is_full(&self, more: u64) -> bool {
        let is_over = |limit| self.bytes > 0 && self.bytes.saturating_add(more) > limit;
        let is_over = self.limits.bytes.is_some_and(is_over);
        is_over && self.file.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        // The rest of a line for which the disk had no room must not run into this one.
        let whole = if self.torn { format!("\n{text}") } else { String::new() };
        let mut rest = if self.torn { whole.as_bytes() } else { text.as_bytes() };
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.bytes += written as u64;
                    rest = &rest[written..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let aside = |number: u64| PathBuf::from(format!("{}.{number}", self.path.display()));
        let last = self.limits.files;
        if last == 0 {
            fs::remove_file(&self.path)?;
        }
        for number in (1..=last).rev() {
            let from = if number == 1 { self.path.clone() } else { aside(number - 1) };
            match fs::rename(from, aside(number)) {
                Err(error) if number == 1 || error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.reopen()
    }
}

/// Never a file through a link: the directory may belong to others, and the file that it leads to, too. What is no file
/// (`/dev/stderr` is a link) may be named in any way.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let file = OpenOptions::new().append(true).open(path)?;
            if file.metadata()?.is_file() {
                let text = "it is a link to a file; remove it, or name the file itself";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            file
        }
        opened => opened?,
    };
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_set_aside_at_the_limit_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        let mut log = RotatingFile::open(&path, Limits { bytes: Some(20), files: 2 }).unwrap();
        for number in 0..9 {
            log.write(&format!("line {number} .\n")).unwrap();
        }
        assert_eq!(names(directory.path()), ["log", "log.1", "log.2"]);
        assert_eq!((read("log"), read("log.1")), ("line 8 .\n".into(), "line 6 .\nline 7 .\n".into()));
        // What is there counts after a start; fewer files and no limit take effect at once.
        let mut log = RotatingFile::open(&path, Limits { bytes: Some(20), files: 0 }).unwrap();
        log.write("a longer line\n").unwrap();
        assert_eq!(read("log"), "a longer line\n");
        log.set_limits(Limits { bytes: None, files: 2 });
        (0..9).for_each(|_| log.write("and so on\n").unwrap());
        assert_eq!(read("log").lines().count(), 10);
    }

    #[test]
    fn it_is_opened_anew_where_the_name_is() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("log"), directory.path().join("aside"));
        let mut log = RotatingFile::open(&path, Limits { bytes: None, files: 0 }).unwrap();
        log.write("before\n").unwrap();
        fs::rename(&path, &aside).unwrap();
        log.write("between\n").unwrap();
        log.reopen().unwrap();
        log.write("after\n").unwrap();
        assert_eq!(fs::read_to_string(&aside).unwrap(), "before\nbetween\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");
    }

    #[test]
    fn no_log_is_written_through_a_link_to_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("log"), directory.path().join("victim"));
        let limits = Limits { bytes: None, files: 0 };
        let link = |to: &Path| std::os::unix::fs::symlink(to, &path).unwrap();
        fs::write(&victim, "precious").unwrap();
        link(&victim);
        let error = RotatingFile::open(&path, limits).unwrap_err();
        assert!(error.to_string().contains("a link"), "{error}");
        fs::remove_file(&path).unwrap();
        let mut log = RotatingFile::open(&path, limits).unwrap();
        // Put there before it is opened anew: the old file is written on.
        let aside = directory.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        link(&directory.path().join("not there"));
        assert!(log.reopen().is_err());
        fs::remove_file(&path).unwrap();
        link(&victim);
        assert!(log.reopen().is_err());
        log.write("a line\n").unwrap();
        assert_eq!(fs::read_to_string(&aside).unwrap(), "a line\n");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!directory.path().join("not there").exists());
        fs::remove_file(&path).unwrap();
        link(Path::new("/dev/null"));
        log.reopen().unwrap();
        log.write("nowhere\n").unwrap();
    }

    #[test]
    fn what_cannot_be_exchanged_is_written_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = RotatingFile::open(&path, Limits { bytes: Some(10), files: 1 }).unwrap();
        // The name of the file to be set aside is taken by a directory that is not empty.
        fs::create_dir_all(directory.path().join("log.1/x")).unwrap();
        log.write("0123456\n").unwrap();
        log.write("89\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("cannot be set aside") && text.ends_with("89\n"), "{text}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(log.reopen().is_err());
        log.write("89\n").unwrap();
    }
}
