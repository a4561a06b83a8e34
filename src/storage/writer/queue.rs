//! Who writes next: admission, order of arrival, leadership, the idle owner.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

use super::{WriteRequest, WriteTransaction, lock};
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::effect::Admission;
use crate::hsb::position::Position;

/// A transaction's statements.
pub(super) type Job = Box<dyn FnOnce(&mut WriteTransaction<'_>) -> Result<(), ServerError> + Send>;

/// One transaction that waits or is being run.
pub(super) struct Waiter {
    pub(super) request: WriteRequest,
    /// Taken by whoever runs it. A transaction of several statements has none and must lead.
    job: Mutex<Option<Job>>,
    has_job: bool,
    standing: Mutex<Standing>,
    changed: Condvar,
}

enum Standing {
    Waiting,
    Leader,
    Done(Result<(), ServerError>),
}

/// What becomes of a waiter.
pub(super) enum Entered {
    /// It leads.
    Leader,
    /// A leader ran it and its batch is decided.
    Done,
}

/// What a wait came to.
pub(super) enum Turn {
    Entered(Entered),
    /// The owner of an open transaction idles: end it and wait on.
    IdleOwner(u64),
}

struct Owner {
    session: u64,
    /// Set while the client is the one to move.
    idle_since: Option<Instant>,
}

struct Inner {
    admission: Admission,
    led: bool,
    /// The open transaction of several statements, while it is not committing.
    owner: Option<Owner>,
    /// It was open and commits now.
    committing: bool,
    /// Why open transactions were ended over the heads of their sessions, until those know.
    aborted: HashMap<u64, ServerError>,
    waiting: VecDeque<Arc<Waiter>>,
    executing: Option<u64>,
    interrupt: Option<InterruptHandle>,
    position: Position,
    epoch: u64,
    /// The last batch was not made by this writer.
    taken_over: bool,
    closing: bool,
}

pub(super) struct Queue {
    parameters: Arc<Parameters>,
    inner: Mutex<Inner>,
}

impl Waiter {
    pub(super) fn with_job(request: WriteRequest, job: Job) -> Waiter {
        Waiter { job: Mutex::new(Some(job)), has_job: true, ..Waiter::without_job(request) }
    }

    pub(super) fn without_job(request: WriteRequest) -> Waiter {
        Waiter {
            request,
            job: Mutex::new(None),
            has_job: false,
            standing: Mutex::new(Standing::Waiting),
            changed: Condvar::new(),
        }
    }

    pub(super) fn take_job(&self) -> Option<Job> {
        lock(&self.job).take()
    }

    pub(super) fn finish(&self, outcome: Result<(), ServerError>) {
        self.set(Standing::Done(outcome));
    }

    pub(super) fn take_outcome(&self) -> Result<(), ServerError> {
        match std::mem::replace(&mut *lock(&self.standing), Standing::Waiting) {
            Standing::Done(outcome) => outcome,
            _ => Ok(()),
        }
    }

    /// Whether it is to lead a batch now.
    pub(super) fn leads(&self) -> bool {
        matches!(*lock(&self.standing), Standing::Leader)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(*lock(&self.standing), Standing::Done(_))
    }

    pub(super) fn lead(&self) {
        self.set(Standing::Leader);
    }

    fn set(&self, standing: Standing) {
        *lock(&self.standing) = standing;
        self.changed.notify_one();
    }

    /// Waits until it leads or is done; `None` when `until` has passed.
    fn wait(&self, until: Instant) -> Option<Result<Entered, ServerError>> {
        let mut standing = lock(&self.standing);
        loop {
            match &*standing {
                Standing::Waiting => {}
                Standing::Leader => return Some(Ok(Entered::Leader)),
                Standing::Done(outcome) => return Some(outcome.clone().map(|()| Entered::Done)),
            }
            let now = Instant::now();
            if now >= until {
                return None;
            }
            standing = match self.changed.wait_timeout(standing, until - now) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl Queue {
    pub(super) fn new(parameters: Arc<Parameters>) -> Queue {
        Queue {
            parameters,
            inner: Mutex::new(Inner {
                admission: Admission::Refuse(Code::SERVER_CLOSED),
                led: false,
                owner: None,
                committing: false,
                aborted: HashMap::new(),
                waiting: VecDeque::new(),
                executing: None,
                interrupt: None,
                position: Position::ORIGIN,
                epoch: 0,
                taken_over: false,
                closing: false,
            }),
        }
    }

    pub(super) fn begin_history(&self, position: Position, epoch: u64) {
        let mut inner = lock(&self.inner);
        inner.position = position;
        inner.epoch = epoch;
        inner.taken_over = true;
    }

    /// True once after [`Queue::begin_history`].
    pub(super) fn taken_over(&self) -> bool {
        std::mem::take(&mut lock(&self.inner).taken_over)
    }

    pub(super) fn set_taken_over(&self, taken_over: bool) {
        lock(&self.inner).taken_over |= taken_over;
    }

    pub(super) fn history(&self) -> (Position, u64) {
        let inner = lock(&self.inner);
        (inner.position, inner.epoch)
    }

    pub(super) fn advance(&self, position: Position) {
        lock(&self.inner).position = position;
    }

    /// The handle of a database that was opened, or none.
    pub(super) fn set_interrupt(&self, handle: Option<InterruptHandle>) {
        let mut inner = lock(&self.inner);
        inner.closing = false;
        inner.interrupt = handle;
    }

    /// Sets the rule; tells the session whose open transaction has to end because of it.
    pub(super) fn admit(&self, admission: Admission) -> Option<u64> {
        let mut inner = lock(&self.inner);
        inner.admission = admission;
        match admission {
            Admission::Open => {
                if !inner.led {
                    Queue::promote_next(&mut inner);
                }
                None
            }
            Admission::Wait(_) => None,
            Admission::Refuse(code) => {
                for waiter in inner.waiting.drain(..) {
                    waiter.finish(Err(ServerError::new(code)));
                }
                // Whoever executes, an open transaction or the leader: SQLite's write lock is needed for applying.
                if inner.executing.is_some()
                    && let Some(handle) = &inner.interrupt
                {
                    handle.interrupt();
                }
                inner.owner.as_ref().map(|owner| owner.session)
            }
        }
    }

    /// Once for each waiter: true if it leads at once, else it is queued and has to [`Queue::wait_turn`].
    pub(super) fn arrive(&self, waiter: &Arc<Waiter>) -> Result<bool, ServerError> {
        let mut inner = lock(&self.inner);
        if let Admission::Refuse(code) = inner.admission {
            return Err(ServerError::new(code));
        }
        if !inner.led && inner.admission == Admission::Open && inner.waiting.is_empty() {
            inner.led = true;
            return Ok(true);
        }
        inner.waiting.push_back(Arc::clone(waiter));
        Ok(false)
    }

    /// Waits for the writer. After [`Turn::IdleOwner`] the waiter has to wait on.
    pub(super) fn wait_turn(&self, waiter: &Arc<Waiter>, deadline: Instant) -> Result<Turn, ServerError> {
        loop {
            let idle_end = self.idle_end();
            // Wake up now and then: the owner may have become idle meanwhile, or a leader may have taken us up.
            let now = Instant::now();
            let latest = now + Duration::from_millis(200);
            let until =
                [Some(deadline), idle_end.map(|(end, _)| end)].into_iter().flatten().filter(|end| *end > now);
            let until = until.min().map_or(latest, |end| end.min(latest));
            if let Some(outcome) = waiter.wait(until) {
                return outcome.map(Turn::Entered);
            }
            let now = Instant::now();
            if let Some((end, session)) = idle_end.filter(|(end, _)| *end <= now) {
                let idle_timeout = self.parameters.transaction_idle_timeout().unwrap_or_default();
                log::warn!(
                    "session {session} idles in a transaction for {:.1} s and others wait: rolled back",
                    (now - end + idle_timeout).as_secs_f64()
                );
                return Ok(Turn::IdleOwner(session));
            }
            if now >= deadline && self.withdraw(waiter) {
                return Err(self.lock_timeout_error());
            }
        }
    }

    /// If writers are refused now, what those are told who were at work.
    pub(super) fn why_interrupted(&self) -> Option<Code> {
        match lock(&self.inner).admission {
            Admission::Refuse(Code::DISK_FULL) => Some(Code::DISK_FULL),
            Admission::Refuse(_) => Some(Code::REPLICATED_ABORTED),
            _ => None,
        }
    }

    /// The database is about to be closed.
    pub(super) fn close(&self) {
        lock(&self.inner).closing = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        lock(&self.inner).closing
    }

    pub(super) fn lock_timeout_error(&self) -> ServerError {
        match lock(&self.inner).admission {
            Admission::Wait(code) | Admission::Refuse(code) => ServerError::new(code),
            Admission::Open => ServerError::sql(
                "55P03",
                "waited too long for other write transactions (General.LockWaitTimeOut, SET LOCK TIMEOUT); repeat the statement",
            ),
        }
    }

    fn idle_end(&self) -> Option<(Instant, u64)> {
        let inner = lock(&self.inner);
        let owner = inner.owner.as_ref()?;
        Some((owner.idle_since? + self.parameters.transaction_idle_timeout()?, owner.session))
    }

    /// Leaves the queue; false if a leader has taken it up already.
    pub(super) fn withdraw(&self, waiter: &Arc<Waiter>) -> bool {
        let mut inner = lock(&self.inner);
        let before = inner.waiting.len();
        inner.waiting.retain(|other| !Arc::ptr_eq(other, waiter));
        inner.waiting.len() < before
    }

    /// The next transaction that the leader can run in its batch. An open one ends the batch: order of arrival holds.
    pub(super) fn next_job(&self) -> Option<Arc<Waiter>> {
        let mut inner = lock(&self.inner);
        if inner.admission != Admission::Open || !inner.waiting.front()?.has_job {
            return None;
        }
        inner.waiting.pop_front()
    }

    /// The leader is through: the next in the queue leads.
    pub(super) fn pass_on(&self) {
        let mut inner = lock(&self.inner);
        inner.led = false;
        inner.owner = None;
        inner.committing = false;
        if inner.admission == Admission::Open {
            Queue::promote_next(&mut inner);
        }
    }

    fn promote_next(inner: &mut Inner) {
        if let Some(next) = inner.waiting.pop_front() {
            inner.led = true;
            next.set(Standing::Leader);
        }
    }

    // ---- the open transaction ----

    /// Refused if writers are, by now: whoever refused them ended only the transactions that were open then.
    pub(super) fn own(&self, session: u64) -> Result<(), ServerError> {
        let mut inner = lock(&self.inner);
        if let Admission::Refuse(code) = inner.admission {
            return Err(ServerError::new(code));
        }
        inner.owner = Some(Owner { session, idle_since: Some(Instant::now()) });
        inner.aborted.remove(&session);
        Ok(())
    }

    /// The owner moves (`false`) or its client is to move (`true`). An error if the transaction was ended meanwhile.
    pub(super) fn idle(&self, session: u64, idle: bool) -> Result<(), ServerError> {
        let mut inner = lock(&self.inner);
        match &mut inner.owner {
            Some(owner) if owner.session == session => {
                owner.idle_since = idle.then(Instant::now);
                inner.executing = (!idle).then_some(session);
                Ok(())
            }
            _ => Err(why_aborted(inner.aborted.get(&session).cloned())),
        }
    }

    /// The owner commits: nobody can end it from here on.
    pub(super) fn committing(&self, session: u64) -> Result<(), ServerError> {
        let mut inner = lock(&self.inner);
        match inner.owner.take_if(|owner| owner.session == session) {
            Some(_) => {
                inner.executing = None;
                inner.committing = true;
                Ok(())
            }
            None => Err(why_aborted(inner.aborted.remove(&session))),
        }
    }

    pub(super) fn abort_open(&self, session: u64, reason: ServerError) -> bool {
        let mut inner = lock(&self.inner);
        let gone = inner.owner.take_if(|owner| owner.session == session).is_some();
        if gone {
            inner.executing = None;
            inner.aborted.insert(session, reason);
        }
        gone
    }

    pub(super) fn has_open_transaction(&self) -> bool {
        let inner = lock(&self.inner);
        inner.owner.is_some() || inner.committing
    }

    // ---- interrupts ----

    pub(super) fn executing(&self, session: Option<u64>) {
        lock(&self.inner).executing = session;
    }

    pub(super) fn interrupt(&self, session: u64) {
        let mut inner = lock(&self.inner);
        if inner.executing == Some(session) {
            if let Some(handle) = &inner.interrupt {
                handle.interrupt();
            }
            return;
        }
        // Who still waits has been taken up by nobody.
        let place = inner.waiting.iter().position(|waiter| waiter.request.session == session);
        if let Some(waiter) = place.and_then(|place| inner.waiting.remove(place)) {
            let text = "the statement was cancelled while it waited for other write transactions";
            waiter.finish(Err(ServerError::sql("57014", text)));
        }
    }
}

fn why_aborted(reason: Option<ServerError>) -> ServerError {
    reason.unwrap_or_else(|| ServerError::new(Code::REPLICATED_ABORTED))
}
