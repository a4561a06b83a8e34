//! Checkpoints of a running node: when they are made, and what is done with them; and that SQLite's log stays bounded.
//!
//! Not here: what a checkpoint is (`storage::checkpoint`), how much of the log the other server needs (the heart).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::copy::{send_job, wait};
use super::snapshots::{self, Beginnings, Limits};
use super::storage::Storage;
use crate::actors::supervisor::SupervisorMessage;
use crate::actors::threads::{apply::ApplyJob, log::LogJob};
use crate::descriptors;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::Event;
use crate::hsb::phase::CopyStatus;
use crate::hsb::position::Position;
use crate::hsb::state::State;
use crate::services::events::SNAPSHOT;
use crate::services::registry::OpenSnapshot;
use crate::stop::stop_process;
use crate::storage::checkpoint::{self, Schedule};
use crate::threads;

/// SQLite's log is short if it has no more than this.
const SHORT_WAL_BYTES: u64 = 1 << 20;
/// How long the answer to `makecp` waits for it to become short.
const SHORTENING_PATIENCE: Duration = Duration::from_secs(1);
/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// See the module.
pub struct Checkpointer {
    storage: Arc<Storage>,
    /// The snapshot that was warned of last.
    warned: Mutex<Option<OpenSnapshot>>,
    snapshots: Mutex<Beginnings>,
    /// Held while a checkpoint is made.
    last: Mutex<Last>,
    count: AtomicU64,
}

struct Last {
    position: Position,
    at: Instant,
}

impl Checkpointer {
    /// One that has made none; the database is at `position`.
    pub(crate) fn new(storage: &Arc<Storage>, position: Position) -> Checkpointer {
        let last = Mutex::new(Last { position, at: Instant::now() });
        Checkpointer {
            storage: Arc::clone(storage),
            warned: Mutex::default(),
            snapshots: Mutex::default(),
            last,
            count: AtomicU64::new(0),
        }
    }

    /// How many were made since the node started.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Makes one now. Blocks for as long as the disk takes; not for the thread of the actors.
    pub fn make(&self) -> Result<Position, ServerError> {
        if self.storage.node.status.state() == State::Offline {
            return Err(ServerError::new(Code::BACKUPSERVER_MODE));
        }
        let mut last = self.lock();
        let position = checkpoint::make(&self.storage.node.database, || self.sync_log())?;
        *last = Last { position, at: Instant::now() };
        drop(last);
        self.move_pages();
        if let Err(error) = self.storage.node.parameters.write_back() {
            log::warn!("changed parameters could not be written: {error}");
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        log::info!("checkpoint at {position}");
        let delete_log = self.storage.node.parameters.checkpoint_delete_log();
        self.tell(position, delete_log);
        Ok(position)
    }

    /// Makes one now and says what it could not do: somebody may read from an older snapshot.
    pub fn make_and_tell(&self) -> Result<String, ServerError> {
        let begun = Instant::now();
        let made = format!("Checkpoint made at {}.", self.make()?);
        let database = &self.storage.node.database;
        let mut wal = checkpoint::wal_file_bytes(database);
        loop {
            let oldest =
                self.storage.node.sessions.snapshots().into_iter().find(|open| open.age > begun.elapsed());
            let holds = match oldest {
                Some(open) => open.to_string(),
                None if database.has_long_reads() => "a copy or a comparison that is under way".into(),
                // Whoever writes shortens it; that may take a moment, and more may be written in it.
                None if wal > SHORT_WAL_BYTES && begun.elapsed() < SHORTENING_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                    wal = checkpoint::wal_file_bytes(database);
                    continue;
                }
                None => return Ok(made),
            };
            if wal <= SHORT_WAL_BYTES {
                return Ok(made);
            }
            return Ok(format!(
                "{made} The database is durable at this position, but SQLite's log keeps its {wal} bytes and goes on growing, because an older snapshot is being read: {holds}. It becomes short when that has ended ('throwout' ends a session)."
            ));
        }
    }

    /// The server goes down: a copy is given up. Waits until it is, at most so long; one that still dials, or makes its
    /// checkpoint, has no progress to look at, and its end is to be told to the peer and to the message log all the same.
    pub(crate) fn give_up_copies(&self, patience: Duration) {
        self.storage.abort_copies.store(true, Ordering::Relaxed);
        let is_active = || self.storage.node.status.snapshot().copy == CopyStatus::Active;
        if is_active() {
            log::info!("the copy under way is given up");
        }
        let deadline = Instant::now() + patience;
        while is_active() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A backup of this position is safe: with CheckpointDeleteLog=no, it is what decides how much log is kept.
    pub(crate) fn backed_up(&self, backup: Position) {
        if !self.storage.node.parameters.checkpoint_delete_log()
            && self.storage.node.parameters.backup_delete_log()
        {
            let last = self.lock().position;
            let position = if last.sequence < backup.sequence { last } else { backup };
            self.tell(position, true);
        }
    }

    fn tell(&self, position: Position, delete_log: bool) {
        let event = Event::Checkpointed { position, delete_log };
        self.storage.supervisor.do_send(SupervisorMessage::Event(event));
    }

    fn sync_log(&self) -> Result<(), ServerError> {
        let (done, when_done) = bounded(1);
        send_job(&self.storage.log_jobs, LogJob::Sync(done))?;
        wait(&when_done)
    }

    /// The part of the work that needs the connections that write; nobody waits for it.
    fn move_pages(&self) {
        self.storage.node.writer.move_pages_soon();
        if self.storage.apply_jobs.send(ApplyJob::MovePages).is_err() {
            log::debug!("the apply thread has ended");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Result<(), ServerError> {
        let snapshot = self.storage.node.status.snapshot();
        if snapshot.state == State::Offline {
            return Ok(());
        }
        // What it answers would be in a file that nobody finds again, and nobody could log in to say so. A checkpoint must
        // not be made either: it would release the log, which has everything.
        if let Err(error) = self.storage.node.database.check_in_place() {
            stop_process(&error);
        }
        let schedule = Schedule {
            interval_records: self.storage.node.parameters.checkpoint_interval_records(),
            minimum_time: self.storage.node.parameters.min_checkpoint_time(),
        };
        let (position, at) = {
            let last = self.lock();
            (last.position, last.at)
        };
        let records = snapshot.decided.sequence.saturating_sub(position.sequence);
        if schedule.is_due(records, at.elapsed()) {
            self.make()?;
        }
        let mut log_bytes = 0;
        if checkpoint::has_much_to_move(&self.storage.node.database, self.limits().bytes) {
            self.sync_log()?;
            log_bytes = checkpoint::move_pages(&self.storage.node.database.open_for_apply()?)?;
            self.move_pages();
        }
        self.look_after_snapshots(log_bytes);
        if let Err(error) = self.storage.node.database.renew_hold() {
            log::warn!("{error}");
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let (bytes, age) = (
            self.storage.node.parameters.snapshot_max_size_bytes(),
            self.storage.node.parameters.snapshot_max_age(),
        );
        Limits { bytes, age }
    }

    fn look_after_snapshots(&self, log_bytes: u64) {
        let (open, limits) = (self.storage.node.sessions.snapshots(), self.limits());
        let copying = self.storage.node.database.has_long_reads();
        let mut beginnings = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        beginnings.look(&open, log_bytes);
        let verdict = snapshots::judge(&open, log_bytes, &beginnings, limits, copying);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = verdict.warn
            && !warned.as_ref().is_some_and(|warned| warned.is(snapshot))
        {
            self.say(&snapshots::warning(snapshot, log_bytes, limits));
            *warned = Some(snapshot.clone());
        }
        for (snapshot, reason) in verdict.end {
            if self.storage.node.sessions.end_snapshot(snapshot, &reason) {
                self.storage.node.counters.snapshots_ended.add(1);
                self.say(&format!("{snapshot}: {}", reason.message()));
            }
        }
    }

    fn say(&self, text: &str) {
        log::warn!("{text}");
        self.storage.node.events.post(SNAPSHOT, text);
    }
}

/// Looks now and then whether a checkpoint is due.
pub(crate) fn start(checkpointer: &Arc<Checkpointer>) -> Result<(), ServerError> {
    let checkpointer = Arc::clone(checkpointer);
    // Not joined: it sleeps most of the time and touches nothing that a crash could not interrupt as well.
    threads::spawn("checkpoint", move || {
        while checkpointer.storage.supervisor.connected() {
            std::thread::sleep(INTERVAL);
            descriptors::fill_reserve();
            if let Err(error) = checkpointer.look() {
                log::error!("the checkpoint has failed and is tried again: {error}");
            }
        }
    })
    .map(|_| ())
}
