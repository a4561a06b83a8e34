//! WatchdogLog: one line per message, also on stderr. Not here: what is said when.
//!
//! Each of the two is written by a thread of its own, so that a disk that hangs, or a pipe that nobody reads, never keeps
//! the watchdog from its work; what does not fit into a thread's queue is counted. The file is bounded in size, and lines
//! that repeat themselves are folded.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::error::{ServerError, invalid};
use crate::logging::{Folder, Limits, RotatingFile, line};
use crate::storage::files;
use crate::threads;

const LIMITS: Limits = Limits { bytes: Some(1 << 20), files: 3 };
/// Lines that wait for a thread at most.
const QUEUE: usize = 1000;
/// Counts of folded lines that are due are written so often.
const FOLD_INTERVAL: Duration = Duration::from_secs(10);
/// For what is queued, at the end.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

enum Entry {
    Line(String),
    Reopen,
    Flush(Sender<()>),
}

/// The open log. Invariant: one watchdog writes it, so that two do not watch one pair from one directory.
#[derive(Clone)]
pub(super) struct Journal {
    sinks: [Sender<Entry>; 2],
    dropped: Arc<AtomicU64>,
    /// Its lock lasts as long as the program.
    _lock: Arc<File>,
}

impl Journal {
    pub(super) fn open(path: &Path) -> Result<Journal, ServerError> {
        let shown = path.display();
        let not_opened =
            |error: std::io::Error| invalid(format!("The watchdog's log {shown} cannot be opened: {error}."));
        let file = RotatingFile::open(path, LIMITS).map_err(not_opened)?;
        // Not the log itself, which is renamed.
        let lock = files::open_appending(&files::beside(path, ".lock")).map_err(not_opened)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(invalid(format!(
                    "A watchdog runs already with the log {shown}; one is enough, two are dangerous."
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(invalid(format!("The watchdog's log {shown} cannot be locked: {error}.")));
            }
        }
        let dropped = Arc::new(AtomicU64::new(0));
        let (to_file, lines) = bounded(QUEUE);
        let count = Arc::clone(&dropped);
        threads::spawn("journal", move || write_file(file, &lines, &count))?;
        let (to_stderr, lines) = bounded(QUEUE);
        threads::spawn("stderr", move || write_stderr(&lines))?;
        Ok(Journal { sinks: [to_file, to_stderr], dropped, _lock: Arc::new(lock) })
    }

    /// A log that cannot be written does not keep the watchdog from its work.
    pub(super) fn say(&self, text: &str) {
        let [file, stderr] = &self.sinks;
        if file.try_send(Entry::Line(text.to_owned())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        // Whoever reads stderr has the file for what is missing there.
        let _ = stderr.try_send(Entry::Line(line(SystemTime::now(), text)));
    }

    /// Goes on in whatever file has the name now.
    pub(super) fn reopen(&self) {
        let _ = self.sinks[0].try_send(Entry::Reopen);
    }

    /// Waits until what was said is written, for a while.
    pub(super) fn flush(&self) {
        let (done, written) = bounded(1);
        if self.sinks[0].try_send(Entry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

fn write_stderr(entries: &Receiver<Entry>) {
    for entry in entries {
        if let Entry::Line(line) = entry {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

fn write_file(mut file: RotatingFile, entries: &Receiver<Entry>, dropped: &AtomicU64) {
    let mut folder = Folder::default();
    loop {
        let entry = match entries.recv_timeout(FOLD_INTERVAL) {
            Ok(entry) => Some(entry),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // If it fails there is nobody to tell.
        let mut write = |text: &str| drop(file.write(&line(SystemTime::now(), text)));
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            write(&format!("{lost} lines could not be written in time"));
        }
        let now = Instant::now();
        match entry {
            None => folder.due(now).iter().for_each(|text| write(text)),
            Some(Entry::Line(text)) => folder.add(now, &text).iter().for_each(|text| write(text)),
            // If it fails the old file is written on.
            Some(Entry::Reopen) => drop(file.reopen()),
            Some(Entry::Flush(done)) => {
                folder.finish(now).iter().for_each(|text| write(text));
                let _ = done.send(());
            }
        }
    }
}
