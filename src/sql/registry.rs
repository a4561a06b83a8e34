//! Who is connected: for CancelRequest, `userlist`, `throwout` and for closing all before a copy.
//!
//! Closing a session never writes to its socket from outside: it is told the code, its statement is interrupted and
//! the reading side of its socket is shut, so that its own thread says goodbye.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::InterruptHandle;

use super::users;
use crate::hsb::codes::Code;

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

struct Entry {
    info: SessionInfo,
    secret: i32,
    interrupt: InterruptHandle,
    stream: TcpStream,
    closing: Arc<AtomicU32>,
}

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
    closing: Arc<AtomicU32>,
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
        stream: TcpStream,
    ) -> Result<Ticket, crate::error::ServerError> {
        let secret = i32::from_be_bytes(users::random_bytes::<4>()?);
        let closing = Arc::new(AtomicU32::new(0));
        let address = stream.peer_addr().map(|address| address.to_string()).unwrap_or_default();
        let info = SessionInfo { id, user: user.to_string(), address, since: SystemTime::now() };
        self.lock().insert(id, Entry { info, secret, interrupt, stream, closing: closing.clone() });
        Ok(Ticket { registry: self.clone(), id, secret, closing })
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
            let _ = entry.stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends the sessions that `chosen` picks; tells how many.
    pub fn close_where(&self, code: Code, chosen: impl Fn(&SessionInfo) -> bool) -> usize {
        let mut ids = Vec::new();
        for entry in self.lock().values().filter(|entry| chosen(&entry.info)) {
            let _ = entry.closing.compare_exchange(0, code.number(), Ordering::Release, Ordering::Relaxed);
            entry.interrupt.interrupt();
            let _ = entry.stream.shutdown(Shutdown::Read);
            ids.push(entry.info.id);
        }
        ids.iter().for_each(|id| (self.interrupt_writer)(*id));
        ids.len()
    }
}

impl Ticket {
    /// The code with which this session shall end, if it shall.
    pub fn closing(&self) -> Option<Code> {
        match self.closing.load(Ordering::Acquire) {
            0 => None,
            number => Code::find(number),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.id);
        self.registry.changed.notify_all();
    }
}
