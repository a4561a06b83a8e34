//! The writer: all write transactions of all sessions, one after another, committed in groups.
//!
//! The transactions that are ready share one SQLite transaction, the *batch*. A session that wants to write and finds
//! the writer free becomes its *leader*: it runs its own transaction and, on behalf of the sessions queued behind it,
//! theirs; then it seals the batch, hands it over to be logged and sent, waits for the decision, commits and answers
//! all. So an uncontended write costs no hand-over between threads, and a crowd costs one decision.
//!
//! Invariants:
//! * Nothing of a batch is visible at this server before it is decided: its SQLite transaction is open until then.
//! * One batch at a time: the next begins after the last is decided.
//! * A transaction of several statements begins in an empty batch, so nobody's commit waits for a client's next word.
//!
//! Not here: what a decision needs. The writer is told by [`Writer::decide`].

mod core;
mod queue;
mod steps;
mod transaction;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rusqlite::Connection;

use self::core::{Core, Sealed};
use self::queue::{Entered, Queue, Waiter};
pub use self::steps::{Offered, Undecided};
pub use self::transaction::{OpenTransaction, WriteTransaction};
use super::apply::Applier;
use super::batch::Batch;
use super::database::Database;
use crate::config::Parameters;
use crate::counters::Counters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::effect::{Admission, Decision};
use crate::hsb::event::{Room, Store};
use crate::hsb::position::Position;
use crate::hsb::settings::{Durability, Safeness};
use crate::threads;

/// Transactions that one batch takes at most.
const BATCH_TRANSACTIONS: usize = 256;
/// A batch of so many bytes takes no further transactions.
const BATCH_BYTES: usize = 1 << 20;

/// How often it is tried to commit a decided batch for which there was no room.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);
/// How often [`Writer::while_still`] looks whether the writer is free.
const STILL_POLL: Duration = Duration::from_micros(100);

/// Who wants to write and how.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// The session's number.
    pub session: u64,
    /// How long to wait for the writer.
    pub lock_timeout: Duration,
    /// 1-safe or 2-safe.
    pub safeness: Safeness,
    /// Relaxed or strict.
    pub durability: Durability,
    /// The token of an autocommit transaction; that of an open one comes with its commit.
    pub token: Option<String>,
    /// The snapshot that the transaction read before (REPEATABLE READ, SERIALIZABLE): it fails with 40001 if the
    /// database has moved on since.
    pub snapshot: Option<Position>,
}

/// A sealed batch on its way to log and peer.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The bytes.
    pub batch: Batch,
    /// The strongest safeness asked for in it.
    pub safeness: Safeness,
    /// The strongest durability asked for in it.
    pub durability: Durability,
}

/// What the writer tells whoever decides.
#[derive(Debug)]
pub enum WriterRequest {
    /// Log it, send it, decide it.
    Submit(Submission),
    /// Take it back if nobody has it yet.
    Withdraw,
    /// The database has no room for a decided batch, or has it again.
    Room(Room),
}

/// The transactions of a batch that is being made.
#[derive(Default)]
struct Group {
    /// They become part of it.
    members: Vec<Arc<Waiter>>,
    /// They failed, perhaps because of what an undecided member did; answered when that is decided.
    failed: Vec<(Arc<Waiter>, ServerError)>,
}

impl Group {
    fn finish(self, outcome: &Result<(), ServerError>) {
        for waiter in self.members {
            waiter.finish(outcome.clone());
        }
        for (waiter, error) in self.failed {
            waiter.finish(Err(error));
        }
    }
}

/// See the module.
pub struct Writer {
    queue: Queue,
    core: Mutex<Option<Core>>,
    database: Arc<Database>,
    counters: Arc<Counters>,
    submit: Box<dyn Fn(WriterRequest) + Send + Sync>,
    decisions: (Sender<Decision>, Receiver<Decision>),
    /// See [`Writer::move_pages_soon`].
    move_pages: AtomicBool,
}

impl Writer {
    /// A writer without a database yet; `submit` must not block.
    pub fn new(
        database: Arc<Database>,
        parameters: Arc<Parameters>,
        counters: Arc<Counters>,
        submit: Box<dyn Fn(WriterRequest) + Send + Sync>,
    ) -> Writer {
        Writer {
            queue: Queue::new(parameters),
            core: Mutex::new(None),
            database,
            counters,
            submit,
            decisions: bounded(1),
            move_pages: AtomicBool::new(false),
        }
    }

    /// Takes the connection for writing; `prepare` registers functions and access rules on it.
    pub fn attach(&self, connection: Connection) -> Result<(), ServerError> {
        let core = Core::new(connection)?;
        self.queue.set_interrupt(Some(core.interrupt_handle()));
        *self.lock_core() = Some(core);
        Ok(())
    }

    /// Gives the connection up, before the database is replaced.
    pub fn detach(&self) {
        self.queue.close();
        *self.lock_core() = None;
        self.queue.set_interrupt(None);
    }

    /// This node is the primary from here on.
    pub fn begin_history(&self, position: Position, epoch: u64) {
        self.queue.begin_history(position, epoch);
    }

    /// Who may write from now on. Never blocks: a transaction that is open is rolled back on a thread of its own.
    pub fn admit(self: &Arc<Self>, admission: Admission) {
        if let Some(session) = self.queue.admit(admission) {
            let writer = Arc::clone(self);
            let why = ServerError::new(self.queue.why_interrupted().unwrap_or(Code::REPLICATED_ABORTED));
            threads::run("abort", move || writer.abort_open(session, why));
        }
    }

    /// The outcome of the batch last submitted.
    pub fn decide(&self, decision: Decision) {
        if self.decisions.0.try_send(decision).is_err() {
            log::error!("a decision came without a batch to decide");
        }
    }

    /// Interrupts the session's statement if it is executing on the writer now, or waits for that; a sealed batch is
    /// past that (10083).
    pub fn interrupt(&self, session: u64) {
        self.queue.interrupt(session);
    }

    /// Runs `job` as a transaction of its own, possibly on another session's thread, and waits for the decision.
    pub fn autocommit<R: Send + 'static>(
        self: &Arc<Self>,
        request: WriteRequest,
        job: impl FnOnce(&mut WriteTransaction<'_>) -> Result<R, ServerError> + Send + 'static,
    ) -> Result<R, ServerError> {
        let slot = Arc::new(Mutex::new(None));
        let result = Arc::clone(&slot);
        let run = move |transaction: &mut WriteTransaction<'_>| {
            let answer = job(transaction)?;
            *lock(&result) = Some(answer);
            Ok(())
        };
        let waiter = Arc::new(Waiter::with_job(request, Box::new(run)));
        match self.enter(&waiter)? {
            Entered::Done => {}
            Entered::Leader => self.lead(vec![waiter.clone()], true, waiter)?,
        }
        lock(&slot)
            .take()
            .ok_or_else(|| ServerError::with(Code::FAILED_UNEXPECTEDLY, "(a transaction without an answer)"))
    }

    /// Becomes the writer for a transaction of several statements.
    pub fn begin(self: &Arc<Self>, request: WriteRequest) -> Result<OpenTransaction, ServerError> {
        let waiter = Arc::new(Waiter::without_job(request));
        self.enter(&waiter)?;
        let begun = self.with_core(|core| {
            self.begin_batch(core)?;
            core.check_snapshot(waiter.request.snapshot, self.queue.history().0)?;
            core.begin_member()
        });
        if let Err(error) = begun.and_then(|()| self.queue.own(waiter.request.session)) {
            self.end_batch();
            return Err(error);
        }
        Ok(OpenTransaction::new(Arc::clone(self), waiter))
    }

    fn enter(self: &Arc<Self>, waiter: &Arc<Waiter>) -> Result<Entered, ServerError> {
        let deadline = Instant::now() + waiter.request.lock_timeout;
        if self.queue.arrive(waiter)? {
            return Ok(Entered::Leader);
        }
        loop {
            match self.queue.wait_turn(waiter, deadline)? {
                queue::Turn::Entered(entered) => return Ok(entered),
                queue::Turn::IdleOwner(session) => {
                    let text = "an open transaction was rolled back because it idled while others waited (General.TransactionIdleTimeOut)";
                    self.abort_open(session, ServerError::sql("25P03", text));
                }
            }
        }
    }

    /// Rolls back the open transaction of `session`, unless it is committing or gone.
    fn abort_open(&self, session: u64, reason: ServerError) {
        let mut core = self.lock_core();
        if self.queue.abort_open(session, reason) {
            if let Some(core) = core.as_mut() {
                core.roll_back();
            }
            drop(core);
            self.queue.pass_on();
        }
    }

    /// Completes a batch as its leader: runs `members`' jobs (`run`) and those queued behind, seals, waits, commits.
    fn lead(&self, members: Vec<Arc<Waiter>>, run: bool, own: Arc<Waiter>) -> Result<(), ServerError> {
        let mut guard = self.lock_core();
        let outcome = match guard.as_mut() {
            None => Err(ServerError::new(Code::SERVER_CLOSED)),
            Some(core) => self.lead_with(core, members, run),
        };
        self.move_pages_if_wanted(guard.as_ref());
        drop(guard);
        self.queue.pass_on();
        outcome.and_then(|()| own.take_outcome())
    }

    fn lead_with(&self, core: &mut Core, first: Vec<Arc<Waiter>>, run: bool) -> Result<(), ServerError> {
        let group = self.gather(core, first, run)?;
        let outcome = self.seal_and_submit(core, &group).and_then(|submitted| match submitted {
            true => self.conclude(core, self.wait_for_decision(&group)),
            false => Ok(()),
        });
        group.finish(&outcome);
        Ok(())
    }

    /// Runs the transactions that become a batch together.
    fn gather(&self, core: &mut Core, first: Vec<Arc<Waiter>>, run: bool) -> Result<Group, ServerError> {
        let mut group = Group::default();
        if run {
            self.begin_batch(core)?;
            for waiter in first {
                self.run_job(core, waiter, &mut group);
            }
        } else {
            group.members = first;
        }
        while group.members.len() < BATCH_TRANSACTIONS && core.captured_bytes() < BATCH_BYTES {
            let Some(next) = self.queue.next_job() else { break };
            self.run_job(core, next, &mut group);
        }
        Ok(group)
    }

    fn begin_batch(&self, core: &mut Core) -> Result<(), ServerError> {
        let taken_over = self.queue.taken_over();
        core.begin_batch(taken_over).inspect_err(|_| self.queue.set_taken_over(taken_over))
    }

    fn run_job(&self, core: &mut Core, waiter: Arc<Waiter>, group: &mut Group) {
        let Some(job) = waiter.take_job() else { return };
        self.queue.executing(Some(waiter.request.session));
        let outcome = core
            .check_snapshot(waiter.request.snapshot, self.queue.history().0)
            .and_then(|()| core.run_member(job, waiter.request.token.as_deref()));
        self.queue.executing(None);
        match outcome {
            Ok(()) => group.members.push(waiter),
            Err(error) => {
                // Interrupted for a switch, most likely: what matters to its client is where to repeat it.
                let refused = self.queue.why_interrupted().filter(|_| error.sqlstate == "57014");
                let error = refused.map_or(error, ServerError::new);
                if core.lost_batch() {
                    // SQLite rolled everything back (disk full, ON CONFLICT ROLLBACK, an interrupt): nothing was
                    // sent yet, so the others can be told to repeat.
                    let text = "rolled back together with another transaction of the same group; repeat it";
                    for member in group.members.drain(..) {
                        member.finish(Err(ServerError::sql("40001", text)));
                    }
                    core.roll_back();
                    if let Err(error) = self.begin_batch(core) {
                        log::error!("cannot begin a transaction: {error}");
                    }
                }
                if group.members.is_empty() {
                    waiter.finish(Err(error));
                } else {
                    group.failed.push((waiter, error));
                }
            }
        }
    }

    /// Seals the batch and hands it over; false if there is nothing to decide.
    fn seal_and_submit(&self, core: &mut Core, group: &Group) -> Result<bool, ServerError> {
        let (position, epoch) = self.queue.history();
        match core.seal(position, epoch, &group.members) {
            Ok(Some(Sealed { batch, safeness, durability })) => {
                (self.submit)(WriterRequest::Submit(Submission { batch, safeness, durability }));
                Ok(true)
            }
            nothing => {
                core.roll_back();
                nothing.map(|_| false)
            }
        }
    }

    fn wait_for_decision(&self, group: &Group) -> Decision {
        let patience =
            group.members.iter().map(|waiter| waiter.request.lock_timeout).min().unwrap_or_default();
        if let Ok(decision) = self.decisions.1.recv_timeout(patience) {
            return decision;
        }
        (self.submit)(WriterRequest::Withdraw);
        // The sender lives in this very struct, so the channel cannot be disconnected.
        self.decisions.1.recv().unwrap_or(Decision::Abandon)
    }

    /// Makes the decision true in the database.
    fn conclude(&self, core: &mut Core, decision: Decision) -> Result<(), ServerError> {
        match decision {
            Decision::Commit | Decision::CommitAlone => {
                let again = |batch: &Batch, full| self.apply_when_there_is_room(batch, full);
                let committed = core.commit(again);
                if decision == Decision::CommitAlone {
                    self.database.sync();
                }
                self.counters.batches_committed.add(1);
                if let Some((after, schema_changed)) = committed {
                    let before = self.queue.history().0.sequence;
                    self.counters.transactions_committed.add(after.sequence.saturating_sub(before));
                    self.queue.advance(after);
                    if schema_changed {
                        self.database.schema_changed();
                    }
                }
                Ok(())
            }
            Decision::Reject(code) => {
                core.roll_back();
                Err(ServerError::new(code))
            }
            Decision::Abandon => {
                core.roll_back();
                Err(ServerError::in_doubt())
            }
        }
    }

    /// Makes a decided batch true that SQLite had no room for, or could not commit for another reason that passes: as
    /// often as it takes, or until the server goes down.
    fn apply_when_there_is_room(&self, batch: &Batch, why: ServerError) -> Result<(), ServerError> {
        if why.passes() {
            log::warn!(
                "a decided transaction cannot be committed yet: {why}; it is tried again until it can"
            );
        } else {
            (self.submit)(WriterRequest::Room(Room::lacking(Store::Database, why.detail())));
        }
        // What the writer's capture knows of the database comes from what was rolled back.
        self.queue.set_taken_over(true);
        loop {
            match self.apply_again(batch) {
                Ok(()) => break,
                Err(error) if !error.is_tried_again() || self.queue.is_closing() => return Err(error),
                Err(_) => {}
            }
        }
        (self.submit)(WriterRequest::Room(Room::there(Store::Database)));
        Ok(())
    }

    fn apply_again(&self, batch: &Batch) -> Result<(), ServerError> {
        let opened = self.database.open_for_apply().and_then(Applier::new);
        let applied = opened.and_then(|mut applier| {
            let applied = applier.begin().and_then(|()| applier.apply(batch));
            applied.map(|()| applier)
        });
        // The wait is between the changes and the commit: whoever needs the database as it will be waits, too.
        std::thread::sleep(ROOM_INTERVAL);
        applied?.commit()
    }

    /// Has SQLite's log moved into the database file while the writer stands still, so that it starts over: at once if
    /// the writer is free, or else by whoever leads now, after answering. Never waits: a batch may stay undecided for
    /// long.
    pub fn move_pages_soon(&self) {
        self.move_pages.store(true, Ordering::Release);
        if let Ok(core) = self.core.try_lock() {
            self.move_pages_if_wanted(core.as_ref());
        }
    }

    fn move_pages_if_wanted(&self, core: Option<&Core>) {
        if let Some(core) = core
            && self.move_pages.swap(false, Ordering::AcqRel)
            && let Err(error) = core.move_pages()
        {
            log::warn!("pages of SQLite's log could not be moved: {error}");
        }
    }

    /// Runs `look` while no batch is under way, so that nothing is committed meanwhile. `None` if the writer did not
    /// come to a stop in time: a batch waits for its decision, or the database is closed.
    pub fn while_still<R>(&self, patience: Duration, look: impl FnOnce() -> R) -> Option<R> {
        let deadline = Instant::now() + patience;
        loop {
            match self.core.try_lock() {
                Ok(core) => return core.is_some().then(look),
                // A lock that is waited for could be had by the next leader for as long as PRIMARY UNCERTAIN lasts.
                Err(_) if Instant::now() < deadline => std::thread::sleep(STILL_POLL),
                Err(_) => return None,
            }
        }
    }

    /// Whether a transaction of several statements is open, or was and is committing.
    pub fn has_open_transaction(&self) -> bool {
        self.queue.has_open_transaction()
    }

    /// Gives the writer up with nothing to commit.
    fn end_batch(&self) {
        if let Some(core) = self.lock_core().as_mut() {
            core.roll_back();
        }
        self.queue.pass_on();
    }

    fn with_core<R>(&self, job: impl FnOnce(&mut Core) -> Result<R, ServerError>) -> Result<R, ServerError> {
        match self.lock_core().as_mut() {
            Some(core) => job(core),
            None => Err(ServerError::new(Code::SERVER_CLOSED)),
        }
    }

    fn lock_core(&self) -> MutexGuard<'_, Option<Core>> {
        lock(&self.core)
    }
}

/// A panic aborts the process, so a poisoned lock cannot be seen.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
