//! Catchup at the primary: a thread that finds the secondary's position in the log and sends what comes after it.
//!
//! The log is read in place; so many bytes are in flight at most ([`WINDOW_BYTES`]). The thread never decides
//! anything: it reports, and the heart closes the last gap.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::link::Outgoing;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::storage::log::{LogConfiguration, LogMark, LogReadError, LogReader};

/// Bytes sent and not yet acknowledged, at most (one batch may exceed it).
const WINDOW_BYTES: usize = 8 << 20;
/// So many transactions before the end of the log, the end is near.
const NEAR_END_TRANSACTIONS: u64 = 512;
/// How often the thread looks whether it should end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the thread reports.
#[derive(Clone, Debug)]
pub(super) enum CatchupReport {
    /// Whether the position is on this node's history.
    Checked(Result<(), (Code, String)>),
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

/// Starts the thread: it checks `from`, reports, and waits for [`Catchup::begin`].
pub(super) fn start(
    log: LogConfiguration,
    from: Position,
    outgoing: Outgoing,
    mark: Arc<LogMark>,
    report: impl Fn(CatchupReport) + Send + 'static,
) -> Catchup {
    let shared = Arc::new(Shared::default());
    let catchup = Catchup { shared: Arc::clone(&shared) };
    let body = move || {
        let reader = match LogReader::open(&log, from) {
            Ok(reader) => reader,
            Err(error) => return report(CatchupReport::Checked(Err(explain(from, &error)))),
        };
        report(CatchupReport::Checked(Ok(())));
        if shared.wait(|gauge| gauge.begun)
            && let Err(error) = send(reader, &outgoing, &mark, &shared, &report)
        {
            report(CatchupReport::Failed(error.into()));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("catchup".into()).spawn(body) {
        log::error!("cannot start the catchup thread: {error}");
    }
    catchup
}

fn send(
    mut reader: LogReader,
    outgoing: &Outgoing,
    mark: &LogMark,
    shared: &Shared,
    report: &impl Fn(CatchupReport),
) -> Result<(), LogReadError> {
    let mut in_flight: VecDeque<(u64, usize)> = VecDeque::new();
    let mut bytes = 0;
    let mut near = false;
    loop {
        let written = mark.written();
        if !near && written.saturating_sub(reader.position().sequence) <= NEAR_END_TRANSACTIONS {
            near = true;
            report(CatchupReport::NearEnd);
        }
        let Some(batch) = reader.next(written)? else {
            if shared.lock().stopped {
                return Ok(());
            }
            mark.wait_beyond(reader.position().sequence, LOOK_INTERVAL);
            continue;
        };
        while bytes > WINDOW_BYTES {
            let Some((oldest, length)) = in_flight.pop_front() else { break };
            if !shared.wait(|gauge| gauge.acknowledged >= oldest) {
                return Ok(());
            }
            bytes -= length;
        }
        bytes += batch.bytes.len();
        in_flight.push_back((batch.after.sequence, batch.bytes.len()));
        if shared.lock().stopped {
            return Ok(());
        }
        outgoing.send(batch.bytes);
    }
}

fn explain(from: Position, error: &LogReadError) -> (Code, String) {
    match error {
        LogReadError::NotThere => (Code::LOG_TOO_SHORT, format!("The secondary is at {from}.")),
        LogReadError::Diverged { parted_at } => {
            let detail = format!(
                "The secondary is at {from}; the histories parted at {parted_at} or before. Keep the database that is right, start the other server with 'solid -x backupserver' and copy with 'hsb netcopy'."
            );
            (Code::NOT_SYNCHRONIZED, detail)
        }
        LogReadError::Failed(error) => (error.code.unwrap_or(Code::LOG_BAD_RECORD), error.message.clone()),
    }
}
