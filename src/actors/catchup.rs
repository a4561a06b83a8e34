//! Catchup at the primary: a thread that finds the secondary's position in the log and sends what comes after it.
//!
//! The log is read in place; so many bytes are in flight at most (`WINDOW_BYTES`). The thread never decides
//! anything: it reports, and the heart closes the last gap. It works in steps that never wait, so that a simulation can
//! take them one by one.

mod pace;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::pace::Pace;
use super::link::Outgoing;
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::progress::{Progress, Unit};
use crate::storage::log::{LogConfiguration, LogMark, LogReadError, LogReader};
use crate::threads;

/// Bytes sent and not yet acknowledged, at most (one batch may exceed it).
const WINDOW_BYTES: usize = 8 << 20;
/// Sent in one piece.
const BLOCK_BYTES: usize = 256 << 10;
/// So many transactions before the end of the log, the end is near.
const NEAR_END_TRANSACTIONS: u64 = 512;
/// How often the thread looks whether it should end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

const CANNOT_KEEP_UP: &str =
    "cannot keep up with the writers at HotStandby.CatchupSpeedRate and takes 99 % of the time now";

/// What the thread reports.
#[derive(Clone, Debug)]
pub enum CatchupReport {
    /// Whether the position is on this node's history.
    Checked(Result<(), Refusal>),
    /// Little is left to send.
    NearEnd,
    /// The log cannot be read any more.
    Failed(ServerError),
}

#[derive(Default)]
struct Gauge {
    begun: bool,
    stopped: bool,
    acknowledged: u64,
}

#[derive(Default)]
struct Shared {
    gauge: Mutex<Gauge>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Gauge> {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Gauge)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits so long, unless the catchup is stopped.
    fn pause(&self, pause: Duration) {
        // Whichever it was, the next step finds out.
        let _ = self.changed.wait_timeout_while(self.lock(), pause, |gauge| !gauge.stopped);
    }

    /// Waits until `ready`; false when the catchup was stopped.
    fn wait(&self, ready: impl Fn(&Gauge) -> bool) -> bool {
        let mut gauge = self.lock();
        while !gauge.stopped && !ready(&gauge) {
            gauge = self.changed.wait(gauge).unwrap_or_else(PoisonError::into_inner);
        }
        !gauge.stopped
    }
}

/// A running catchup. Dropping it stops it.
pub struct Catchup {
    shared: Arc<Shared>,
}

impl Catchup {
    /// The secondary was told: go on.
    pub(super) fn begin(&self) {
        self.shared.change(|gauge| gauge.begun = true);
    }

    pub(super) fn acknowledged(&self, sequence: u64) {
        self.shared.change(|gauge| gauge.acknowledged = gauge.acknowledged.max(sequence));
    }
}

impl Drop for Catchup {
    fn drop(&mut self) {
        self.shared.change(|gauge| gauge.stopped = true);
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchupStep {
    /// There may be more to do.
    Worked,
    /// Nothing can be sent before the secondary has answered.
    WaitsForPeer,
    /// All that the log has is sent, up to this sequence.
    WaitsForLog(u64),
    /// It is over.
    Ended,
}

enum Stage {
    Looking,
    Checked(LogReader),
    Sending(LogReader),
}

/// Why the position is not on this node's log, for the operator at either server.
pub type Explain = dyn Fn(Position, &LogReadError) -> Refusal + Send;

/// The thread's body. It finds `from` in the log, reports, and waits for `Catchup::begin`.
pub struct CatchupThread {
    log: LogConfiguration,
    from: Position,
    outgoing: Outgoing,
    mark: Arc<LogMark>,
    shared: Arc<Shared>,
    report: Box<dyn Fn(CatchupReport) + Send>,
    explain: Box<Explain>,
    stage: Stage,
    in_flight: VecDeque<(u64, usize)>,
    in_flight_bytes: usize,
    near_end: bool,
}

/// A catchup that has not begun to look: the handle, and what is to be run beside the actors.
pub(super) fn prepare(
    log: LogConfiguration,
    from: Position,
    outgoing: Outgoing,
    mark: Arc<LogMark>,
    report: impl Fn(CatchupReport) + Send + 'static,
) -> (Catchup, CatchupThread) {
    let shared = Arc::new(Shared::default());
    let catchup = Catchup { shared: Arc::clone(&shared) };
    let thread = CatchupThread {
        log,
        from,
        outgoing,
        mark,
        shared,
        report: Box::new(report),
        explain: Box::new(explain),
        stage: Stage::Looking,
        in_flight: VecDeque::new(),
        in_flight_bytes: 0,
        near_end: false,
    };
    (catchup, thread)
}

/// Runs a catchup on a thread of its own, within HotStandby.CatchupSpeedRate.
pub fn run_on_thread(thread: CatchupThread, parameters: Arc<Parameters>, progress: Arc<Progress>) {
    threads::run("catchup", move || thread.run(&parameters, &progress));
}

impl CatchupThread {
    /// With an explanation that knows more than the log does.
    pub fn explained_by(self, explain: Box<Explain>) -> CatchupThread {
        CatchupThread { explain, ..self }
    }

    fn run(mut self, parameters: &Parameters, progress: &Progress) {
        let mut pace = Pace::new(Instant::now());
        progress.begin("catchup", Unit::Transactions, 0);
        loop {
            let step = self.step();
            if matches!(self.stage, Stage::Sending(_)) {
                let (from, written) = (self.from.sequence, self.mark.written());
                let done = self.shared.lock().acknowledged.max(from);
                progress.reach(done - from, written.saturating_sub(from));
                if !self.near_end && pace.observe(Instant::now(), written.saturating_sub(done)) {
                    progress.remark(CANNOT_KEEP_UP);
                    log::warn!("catchup {CANNOT_KEEP_UP}");
                }
            }
            match step {
                CatchupStep::Worked => {
                    let rate = parameters.catchup_speed_rate_percent();
                    // The last stretch has writers waiting for it.
                    if !self.near_end
                        && let Some(pause) = pace.pause(Instant::now(), rate)
                    {
                        self.shared.pause(pause);
                    }
                }
                CatchupStep::WaitsForPeer => {
                    self.shared.wait(|gauge| self.may_send(gauge));
                }
                CatchupStep::WaitsForLog(sequence) => self.mark.wait_beyond(sequence, LOOK_INTERVAL),
                CatchupStep::Ended => return,
            }
        }
    }

    /// Does what can be done without waiting, at most one block.
    pub fn step(&mut self) -> CatchupStep {
        let (stopped, may_send) = {
            let gauge = self.shared.lock();
            (gauge.stopped, self.may_send(&gauge))
        };
        if stopped {
            return CatchupStep::Ended;
        }
        match std::mem::replace(&mut self.stage, Stage::Looking) {
            Stage::Looking => self.look(),
            stage if !may_send => {
                self.stage = stage;
                CatchupStep::WaitsForPeer
            }
            Stage::Checked(reader) | Stage::Sending(reader) => self.send(reader),
        }
    }

    fn may_send(&self, gauge: &Gauge) -> bool {
        let has_room = || {
            self.in_flight_bytes <= WINDOW_BYTES
                || self.in_flight.front().is_none_or(|(oldest, _)| gauge.acknowledged >= *oldest)
        };
        match self.stage {
            Stage::Looking => true,
            Stage::Checked(_) => gauge.begun,
            Stage::Sending(_) => has_room(),
        }
    }

    fn look(&mut self) -> CatchupStep {
        match LogReader::open(&self.log, self.from) {
            Ok(reader) => {
                self.stage = Stage::Checked(reader);
                (self.report)(CatchupReport::Checked(Ok(())));
                CatchupStep::Worked
            }
            Err(error) => {
                (self.report)(CatchupReport::Checked(Err((self.explain)(self.from, &error))));
                CatchupStep::Ended
            }
        }
    }

    fn send(&mut self, mut reader: LogReader) -> CatchupStep {
        let acknowledged = self.shared.lock().acknowledged;
        while let Some((_, length)) = self.in_flight.pop_front_if(|(sequence, _)| *sequence <= acknowledged) {
            self.in_flight_bytes -= length;
        }
        let written = self.mark.written();
        if !self.near_end && written.saturating_sub(reader.position().sequence) <= NEAR_END_TRANSACTIONS {
            self.near_end = true;
            (self.report)(CatchupReport::NearEnd);
        }
        let step = match reader.next_block(written, BLOCK_BYTES) {
            Ok(Some(block)) => {
                self.in_flight_bytes += block.len();
                self.in_flight.push_back((reader.position().sequence, block.len()));
                // Under the lock: once a catchup is stopped, nothing comes from it any more.
                let gauge = self.shared.lock();
                if gauge.stopped {
                    return CatchupStep::Ended;
                }
                self.outgoing.send(block);
                CatchupStep::Worked
            }
            Ok(None) => CatchupStep::WaitsForLog(reader.position().sequence),
            Err(error) => {
                (self.report)(CatchupReport::Failed(error.into()));
                CatchupStep::Ended
            }
        };
        self.stage = Stage::Sending(reader);
        step
    }
}

fn explain(from: Position, error: &LogReadError) -> Refusal {
    match error {
        LogReadError::NotThere => {
            Refusal::new(Code::LOG_TOO_SHORT, format!("The other server is at {from}."))
        }
        LogReadError::Diverged { parted_at } => {
            let detail =
                format!("The other server is at {from}; the histories parted at {parted_at} or before.");
            Refusal::new(Code::NOT_SYNCHRONIZED, detail)
        }
        LogReadError::Failed(error) => {
            Refusal::new(error.code.unwrap_or(Code::LOG_BAD_RECORD), error.detail())
        }
    }
}
