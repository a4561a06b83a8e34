//! The message log: solmsg.out in the server's directory, and stderr if wanted.
//!
//! One line per message: `2025-01-31 12:00:00.123Z LEVEL text`. Two threads write, one to the file and one to stderr, each
//! from a queue of its own; messages that repeat themselves are folded. Levels: ERROR, somebody has to do something; WARN,
//! what protects the data is weaker than it should be, or something was refused that somebody may have wanted; INFO, the
//! ordinary course of things. Not here: message numbers (the callers put them into the text).
//!
//! Invariants: saying something never waits for a disk, a terminal or whoever reads stderr; what they do not take in time
//! is dropped, counted and said; a message is exactly one line, whatever its text holds.

mod file;
mod fold;
mod line;
mod queue;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};

pub use self::file::{Limits, RotatingFile};
pub use self::fold::Folder;
pub use self::line::{line, name, printable};
use self::queue::Queue;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::severity::Severity;
use crate::threads;

/// Name of the message log.
pub const FILE_NAME: &str = "solmsg.out";
/// What may wait for the file, and for stderr.
const QUEUE_BYTES: usize = 1 << 20;
/// How often the counts of folded messages are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long the last messages of a process wait for the file, and then for stderr: a peer may be waiting for the end.
const FILE_PATIENCE: Duration = Duration::from_millis(500);
const STDERR_PATIENCE: Duration = Duration::from_millis(200);
/// Until the parameters are known.
const FIRST_LIMITS: Limits = Limits { bytes: None, files: 0 };

static LOG: OnceLock<MessageLog> = OnceLock::new();

struct MessageLog {
    folder: Arc<Mutex<Folder>>,
    sinks: Arc<Sinks>,
}

/// Where lines go, and what the thread of the file is to do besides writing.
struct Sinks {
    file: Queue,
    stderr: Option<Queue>,
    limits: Mutex<Limits>,
    reopen: AtomicBool,
}

/// Sends all messages of the `log` crate to solmsg.out in this directory. Once per process.
pub fn start(directory: &Path, also_stderr: bool) -> Result<(), ServerError> {
    let failed = |error: &dyn std::fmt::Display| {
        ServerError::with(Code::OPERATION_FAILED, format!("The message log: {error}."))
    };
    let log = MessageLog::open(directory, also_stderr)?;
    let log = LOG.get_or_init(|| log);
    log::set_logger(log).map_err(|error| failed(&error))?;
    log::set_max_level(log::LevelFilter::Info);
    Ok(())
}

/// From now on solmsg.out is kept within these. Without effect in a program that has its own message log.
pub fn set_limits(limits: Limits) {
    if let Some(log) = LOG.get() {
        *lock(&log.sinks.limits) = limits;
    }
}

/// Goes on in whatever file is called solmsg.out now, beginning with the next message.
pub fn reopen() {
    if let Some(log) = LOG.get() {
        log.sinks.reopen.store(true, Ordering::Release);
    }
}

impl MessageLog {
    fn open(directory: &Path, also_stderr: bool) -> Result<MessageLog, ServerError> {
        let path = directory.join(FILE_NAME);
        let failed = |error: io::Error| {
            let detail = format!("{} cannot be opened: {error}.", path.display());
            ServerError::with(Code::OPERATION_FAILED, detail)
        };
        let file = RotatingFile::open(&path, FIRST_LIMITS).map_err(failed)?;
        let sinks = Arc::new(Sinks {
            file: Queue::new(QUEUE_BYTES),
            stderr: also_stderr.then(|| Queue::new(QUEUE_BYTES)),
            limits: Mutex::new(FIRST_LIMITS),
            reopen: AtomicBool::new(false),
        });
        let folder: Arc<Mutex<Folder>> = Arc::default();
        let (to_file, folded, to_stderr) = (Arc::clone(&sinks), Arc::clone(&folder), Arc::clone(&sinks));
        threads::spawn("messages", move || write_file(file, &to_file, &folded))?;
        if also_stderr {
            threads::spawn("stderr", move || write_stderr(&to_stderr))?;
        }
        Ok(MessageLog { folder, sinks })
    }

    /// Waits for the threads, for a short while at most.
    fn finish(&self) -> bool {
        let mut folder = lock(&self.folder);
        let counts = folder.finish(Instant::now());
        self.sinks.add(counts);
        drop(folder);
        let in_file = self.sinks.file.flush(FILE_PATIENCE);
        if let Some(stderr) = &self.sinks.stderr {
            stderr.flush(STDERR_PATIENCE);
        }
        in_file
    }
}

impl log::Log for MessageLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // Libraries report their own troubles only.
        let ours = metadata.target().split("::").next() == Some(env!("CARGO_PKG_NAME"));
        ours || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = format!("{:<5} {}", record.level(), record.args());
        // Held until the lines are queued, so that both sinks have the same order. Nobody does anything slow under it.
        let mut folder = lock(&self.folder);
        let lines = folder.add(Instant::now(), &message);
        self.sinks.add(lines);
    }

    /// The last words of a process: it may end at once when this returns.
    fn flush(&self) {
        self.finish();
    }
}

impl Sinks {
    fn add(&self, messages: Vec<String>) {
        for message in messages {
            let line: Arc<str> = line::line(SystemTime::now(), &message).into();
            self.file.add(&line);
            if let Some(stderr) = &self.stderr {
                stderr.add(&line);
            }
        }
    }
}

fn write_file(mut file: RotatingFile, sinks: &Sinks, folder: &Mutex<Folder>) {
    let mut lost = 0;
    loop {
        let taken = sinks.file.take(TICK);
        file.set_limits(*lock(&sinks.limits));
        if sinks.reopen.swap(false, Ordering::AcqRel)
            && let Err(error) = file.reopen()
        {
            log::error!("{FILE_NAME} cannot be opened anew: {error}; the old file is written on");
        }
        lost += taken.dropped;
        if lost > 0 && file.write(&notice(lost, "the disk did not take them")).is_ok() {
            lost = 0;
        }
        for line in &taken.lines {
            if file.write(line).is_err() {
                lost += 1;
            }
        }
        sinks.file.wrote(taken.lines.len());
        let mut folder = lock(folder);
        let counts = folder.due(Instant::now());
        sinks.add(counts);
    }
}

/// On a thread of its own, with nothing that anybody else could wait for: not even the standard library's lock of stderr.
fn write_stderr(sinks: &Sinks) {
    let Some(queue) = &sinks.stderr else { return };
    loop {
        let taken = queue.take(TICK);
        let lost =
            (taken.dropped > 0).then(|| notice(taken.dropped, "whoever reads stderr did not take them"));
        let mut lines = lost.as_deref().into_iter().chain(taken.lines.iter().map(|line| &**line));
        if let Err(error) = lines.try_for_each(write_to_stderr) {
            queue.close();
            log::warn!("stderr cannot be written: {error}; from here on messages are in {FILE_NAME} only");
            return;
        }
        queue.wrote(taken.lines.len());
    }
}

fn write_to_stderr(line: &str) -> io::Result<()> {
    let stderr = io::stderr();
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(stderr.as_fd(), rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            // Somebody who shares the descriptor has made it so that it does not wait.
            Err(rustix::io::Errno::AGAIN) => {
                poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn notice(lost: u64, why: &str) -> String {
    let noun = if lost == 1 { "message was" } else { "messages were" };
    line::line(SystemTime::now(), &format!("WARN  {lost} {noun} dropped here: {why} in time"))
}

/// A sentence of the heart.
pub fn say(severity: Severity, text: &str) {
    let level = match severity {
        Severity::Info => log::Level::Info,
        Severity::Warning => log::Level::Warn,
        Severity::Error => log::Level::Error,
    };
    log::log!(level, "{text}");
}

/// The end of a program: a sentence for whoever started it, on stderr, without waiting for a reader that has stopped.
pub fn last_words(text: &str) {
    match LOG.get() {
        Some(log) => {
            log::error!("{text}");
            log.finish();
        }
        // Before the message log there is nothing to be held up.
        None => drop(writeln!(io::stderr(), "{text}")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Log;

    #[test]
    fn messages_are_appended_and_libraries_are_quiet() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["first\nforged line\x1b[31m", "second"] {
            let log = MessageLog::open(directory.path(), false).unwrap();
            let target = concat!(env!("CARGO_PKG_NAME"), "::node");
            let (level, text) = (log::Level::Info, format_args!("{text}"));
            log.log(&log::Record::builder().target(target).level(level).args(text).build());
            log.log(
                &log::Record::builder().target("library").level(level).args(format_args!("chatter")).build(),
            );
            while !log.finish() {}
        }
        let content = std::fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
        let texts: Vec<&str> = content.lines().map(|line| &line[24..]).collect();
        assert_eq!(texts, [" INFO  first\\nforged line\\u{1b}[31m", " INFO  second"]);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let error = start(Path::new("/nonexistent/directory"), false).unwrap_err();
        assert!(error.message().contains("solmsg.out cannot be opened"), "{}", error.message());
    }
}
