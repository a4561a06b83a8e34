//! Clients that insert numbered rows and keep account of what they were told about each.
//!
//! Invariant: every number is used once, and is in exactly one of the three lists as soon as its insert has ended. The
//! clients know both ports and nothing else: they find the primary by themselves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres::config::TargetSessionAttrs;

use super::pair::sql_configuration;
use crate::error::ServerError;
use crate::threads;

/// How long a client waits before it tries the other server.
const HOP_PAUSE: Duration = Duration::from_millis(2);
/// Numbers of one client; the next client's begin after them.
const NUMBERS_PER_CLIENT: i64 = 1_000_000_000;

/// What the clients were told.
#[derive(Default, Clone)]
pub struct Account {
    /// Answered with success.
    pub acknowledged: Vec<i64>,
    /// Answered with an error: rolled back for sure.
    pub rolled_back: Vec<i64>,
    /// The connection broke first: either outcome is right.
    pub unknown: Vec<i64>,
    /// One of the errors behind `rolled_back`, for messages.
    pub last_error: String,
    last_success: Option<Instant>,
    longest_gap: Duration,
    first_at: Option<(u16, Option<Instant>)>,
}

/// See the module.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    ports: [u16; 2],
    stop: AtomicBool,
    /// Held for reading around each insert.
    gate: RwLock<()>,
    account: Mutex<Account>,
    acknowledged: AtomicU64,
}

impl Load {
    /// Starts the clients; the table of [`super::check`] has to be there.
    pub fn start(clients: u32, ports: [u16; 2]) -> Result<Load, ServerError> {
        let shared = Arc::new(Shared {
            ports,
            stop: AtomicBool::new(false),
            gate: RwLock::default(),
            account: Mutex::default(),
            acknowledged: AtomicU64::new(0),
        });
        let mut load = Load { shared, clients: Vec::new() };
        for client in 0..clients {
            let shared = Arc::clone(&load.shared);
            let work = move || Client::new(client, &shared).run();
            load.clients.push(threads::spawn(&format!("client-{client}"), work)?);
        }
        Ok(load)
    }

    /// Inserts acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// No insert runs while the guard lives.
    pub fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measure from now on: the longest time without an acknowledged insert, and the first one at this port.
    pub fn measure(&self, port: u16) {
        let mut account = self.shared.account();
        account.longest_gap = Duration::ZERO;
        account.first_at = Some((port, None));
    }

    /// When the first insert since [`Load::measure`] was acknowledged at its port.
    pub fn first_success(&self) -> Option<Instant> {
        self.shared.account().first_at.and_then(|(_, first)| first)
    }

    /// The longest time without an acknowledged insert since [`Load::measure`].
    pub fn longest_gap(&self) -> Duration {
        let account = self.shared.account();
        let running = account.last_success.map_or(Duration::ZERO, |last| last.elapsed());
        account.longest_gap.max(running)
    }

    /// The account as it is now; complete while paused.
    pub fn account(&self) -> Account {
        self.shared.account().clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            // A client that panicked has said so on stderr.
            let _ = client.join();
        }
    }
}

impl Shared {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self, number: i64, port: u16) {
        let now = Instant::now();
        let mut account = self.account();
        account.acknowledged.push(number);
        if let Some(last) = account.last_success {
            account.longest_gap = account.longest_gap.max(now - last);
        }
        account.last_success = Some(now);
        if let Some((awaited, first @ None)) = &mut account.first_at
            && *awaited == port
        {
            *first = Some(now);
        }
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// True if the client should look for the primary anew.
    fn failed(&self, number: i64, error: &postgres::Error) -> bool {
        let mut account = self.account();
        match error.as_db_error() {
            // Class 08: the server says that it cannot tell.
            Some(error) if !error.code().code().starts_with("08") => {
                account.rolled_back.push(number);
                account.last_error = error.to_string();
                ["25006", "40001", "57P01", "57P03"].contains(&error.code().code())
            }
            _ => {
                account.unknown.push(number);
                true
            }
        }
    }
}

struct Client<'a> {
    shared: &'a Shared,
    client: i64,
    number: i64,
    /// Which of the two ports.
    server: usize,
}

impl Client<'_> {
    fn new(client: u32, shared: &Shared) -> Client<'_> {
        let client = i64::from(client);
        Client { shared, client, number: client * NUMBERS_PER_CLIENT, server: 0 }
    }

    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            if self.connect_and_write().is_err() {
                self.server = 1 - self.server;
                std::thread::sleep(HOP_PAUSE);
            }
        }
    }

    /// Writes until told to stop, or until this server is not the one to write to.
    fn connect_and_write(&mut self) -> Result<(), postgres::Error> {
        let port = self.shared.ports[self.server];
        let mut configuration = sql_configuration(port);
        let mut connection =
            configuration.target_session_attrs(TargetSessionAttrs::ReadWrite).connect(postgres::NoTls)?;
        let insert = connection.prepare("INSERT INTO demo(id, client, note) VALUES ($1, $2, $3)")?;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let _insert_runs = self.shared.gate.read().unwrap_or_else(PoisonError::into_inner);
            self.number += 1;
            let note = format!("row {} of client {}", self.number, self.client);
            match connection.execute(&insert, &[&self.number, &self.client, &note]) {
                Ok(_) => self.shared.succeeded(self.number, port),
                Err(error) => {
                    if self.shared.failed(self.number, &error) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}
