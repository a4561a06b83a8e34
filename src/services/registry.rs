//! Who is connected: for CancelRequest, `userlist`, `throwout` and for closing all before a copy.
//!
//! Closing a session never writes to its socket from outside: it is told the reason, its statement is interrupted and
//! the reading side of its socket is shut, so that its own thread says goodbye.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::InterruptHandle;

use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::stream::Stream;

/// A session as `userlist` shows it.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Its number.
    pub id: u64,
    /// Its user.
    pub user: String,
    /// Where it comes from.
    pub address: String,
    /// When it came.
    pub since: SystemTime,
}

/// How long a session may take to say goodbye before it is cut off, because its client takes nothing.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(10);

/// Since when a session reads from one snapshot of the database. Noted by its own thread, looked at by others.
#[derive(Debug)]
pub struct Reading {
    start: Instant,
    /// Milliseconds after `start`, and one; 0: it has no snapshot.
    since_ms: AtomicU64,
}

impl Reading {
    fn new() -> Arc<Reading> {
        Arc::new(Reading { start: Instant::now(), since_ms: AtomicU64::new(0) })
    }

    /// It has one from now on.
    pub fn begin(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.since_ms.store(now + 1, Ordering::Relaxed);
    }

    /// Whether it has one, as far as is noted.
    pub fn is_noted(&self) -> bool {
        self.since_ms.load(Ordering::Relaxed) != 0
    }

    /// It has none any more.
    pub fn end(&self) {
        self.since_ms.store(0, Ordering::Relaxed);
    }

    fn since(&self) -> Option<Duration> {
        self.since_ms.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }
}

/// A snapshot that a session has open. SQLite's log can neither be moved beyond it nor start over meanwhile.
#[derive(Debug, Clone)]
pub struct OpenSnapshot {
    /// Whose.
    pub session: SessionInfo,
    /// For how long.
    pub age: Duration,
    /// Tells it from another one of the same session.
    since: Duration,
}

impl OpenSnapshot {
    /// Whether both are the same.
    pub fn is(&self, other: &OpenSnapshot) -> bool {
        self.session.id == other.session.id && self.since == other.since
    }

    #[cfg(test)]
    pub(crate) fn of_session(id: u64, age: Duration) -> OpenSnapshot {
        let (user, address) = ("u".to_owned(), "127.0.0.1:9".to_owned());
        let session = SessionInfo { id, user, address, since: SystemTime::now() };
        OpenSnapshot { session, age, since: Duration::ZERO }
    }
}

impl std::fmt::Display for OpenSnapshot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SessionInfo { id, user, address, .. } = &self.session;
        write!(formatter, "session {id} ({user}, {address}), for {} s", self.age.as_secs())
    }
}

struct Entry {
    info: SessionInfo,
    secret: i32,
    interrupt: InterruptHandle,
    stream: Arc<Stream>,
    reading: Arc<Reading>,
    closing: Closing,
}

/// Since when and why a session shall end.
type Closing = Arc<OnceLock<(Instant, ServerError)>>;

/// All sessions.
pub struct SessionRegistry {
    sessions: Mutex<HashMap<u64, Entry>>,
    changed: Condvar,
    next_id: AtomicU64,
    interrupt_writer: Box<dyn Fn(u64) + Send + Sync>,
}

/// A session's place in the registry; dropping it leaves.
pub struct Ticket {
    registry: Arc<SessionRegistry>,
    /// Number of the session.
    pub id: u64,
    /// What a CancelRequest must know.
    pub secret: i32,
    /// Where its snapshot is noted.
    pub reading: Arc<Reading>,
    closing: Closing,
}

/// What a session that shall end for this reason says last, in place of an error that its statement has ended with. Its client
/// takes the end for the outcome, so a transaction that may yet come to be is not told to have failed.
pub fn last_word(error: ServerError, reason: &ServerError) -> ServerError {
    if error.is_in_doubt() { error } else { reason.clone() }
}

/// The process id that a client is told.
pub fn process_id(session: u64) -> i32 {
    (session & 0x7fff_ffff) as i32
}

impl SessionRegistry {
    /// `interrupt_writer` interrupts the writer if the statement of this session is what it executes now.
    pub fn new(interrupt_writer: impl Fn(u64) + Send + Sync + 'static) -> SessionRegistry {
        SessionRegistry {
            sessions: Mutex::default(),
            changed: Condvar::new(),
            next_id: AtomicU64::new(1),
            interrupt_writer: Box::new(interrupt_writer),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A number for a new session.
    pub fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a session that has logged in.
    pub fn register(
        self: &Arc<Self>,
        id: u64,
        user: &str,
        interrupt: InterruptHandle,
        stream: Arc<Stream>,
    ) -> Result<Ticket, ServerError> {
        let secret = i32::from_be_bytes(crate::random::bytes::<4>()?);
        let (closing, reading) = (Closing::default(), Reading::new());
        let address = stream.peer_address();
        let info = SessionInfo { id, user: user.to_string(), address, since: SystemTime::now() };
        let (shared, noted) = (Arc::clone(&closing), Arc::clone(&reading));
        let entry = Entry { info, secret, interrupt, stream, reading: noted, closing: shared };
        self.lock().insert(id, entry);
        Ok(Ticket { registry: self.clone(), id, secret, reading, closing })
    }

    /// Sessions now.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// All sessions, oldest first.
    pub fn list(&self) -> Vec<SessionInfo> {
        let mut all: Vec<SessionInfo> = self.lock().values().map(|entry| entry.info.clone()).collect();
        all.sort_by_key(|info| info.id);
        all
    }

    /// A CancelRequest: interrupts the session's statement if the secret fits.
    pub fn cancel(&self, process: i32, secret: i32) {
        let sessions = self.lock();
        let found =
            sessions.values().find(|entry| process_id(entry.info.id) == process && entry.secret == secret);
        let Some(entry) = found else { return };
        entry.interrupt.interrupt();
        let id = entry.info.id;
        drop(sessions);
        (self.interrupt_writer)(id);
    }

    /// Ends one session with 14519; false if there is none of this number.
    pub fn throw_out(&self, id: u64) -> bool {
        self.close_where(Code::THROWN_OUT, |info| info.id == id) > 0
    }

    /// The snapshots that sessions read from, oldest first.
    pub fn snapshots(&self) -> Vec<OpenSnapshot> {
        let mut all: Vec<OpenSnapshot> = self.lock().values().filter_map(Entry::snapshot).collect();
        all.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.age));
        all
    }

    /// Ends a session for this reason if it still reads from this snapshot. One that has been told before and does not
    /// leave, because its client takes nothing, is cut off.
    pub fn end_snapshot(&self, snapshot: &OpenSnapshot, reason: &ServerError) -> bool {
        let sessions = self.lock();
        let entry = sessions.get(&snapshot.session.id);
        let still = |entry: &&Entry| entry.snapshot().is_some_and(|now| now.is(snapshot));
        let Some(entry) = entry.filter(still) else { return false };
        if let Some((told, _)) = entry.closing.get() {
            if told.elapsed() > GOODBYE_PATIENCE {
                entry.stream.end();
            }
            return false;
        }
        entry.close(reason);
        true
    }

    /// Ends all sessions with this code and waits until they are gone; those that do not leave in time are cut off.
    pub fn close_all(&self, code: Code, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.close_where(code, |_| true);
        let mut sessions = self.lock();
        while !sessions.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(sessions, left);
            sessions = waited.map_or_else(|error| error.into_inner().0, |waited| waited.0);
        }
        for entry in sessions.values() {
            entry.stream.end();
        }
    }

    /// Ends the sessions that `chosen` picks; tells how many.
    pub fn close_where(&self, code: Code, chosen: impl Fn(&SessionInfo) -> bool) -> usize {
        let mut ids = Vec::new();
        for entry in self.lock().values().filter(|entry| chosen(&entry.info)) {
            entry.close(&closing_error(code));
            ids.push(entry.info.id);
        }
        ids.iter().for_each(|id| (self.interrupt_writer)(*id));
        ids.len()
    }
}

impl Entry {
    fn snapshot(&self) -> Option<OpenSnapshot> {
        let since = self.reading.since()?;
        let age = self.reading.start.elapsed().saturating_sub(since);
        Some(OpenSnapshot { session: self.info.clone(), age, since })
    }

    fn close(&self, reason: &ServerError) {
        // The first reason stays.
        let _ = self.closing.set((Instant::now(), reason.clone()));
        self.interrupt.interrupt();
        self.stream.end_reading();
    }
}

impl Ticket {
    /// Why this session shall end, if it shall.
    pub fn closing(&self) -> Option<&ServerError> {
        self.closing.get().map(|(_, reason)| reason)
    }
}

fn closing_error(code: Code) -> ServerError {
    // Whatever the code is elsewhere: the connection ends because an administrator or the server wants it.
    let sqlstate = if code.sqlstate().starts_with("57") { code.sqlstate() } else { "57P01" };
    ServerError::new(code).under(sqlstate)
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.id);
        self.registry.changed.notify_all();
    }
}
