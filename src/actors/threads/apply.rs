//! The apply thread: executes at the secondary what the primary sends, in groups, in order.
//!
//! Invariant: a batch is committed here only after this node's log has it, so the database is never ahead of the log.
//! A step never waits, for jobs as for the log, so that a simulation can take the steps one by one.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::counters::Counters;
use crate::error::ServerError;
use crate::hsb::position::Position;
use crate::storage::apply::Applier;
use crate::storage::batch::Batch;
use crate::storage::checkpoint;
use crate::storage::database::Database;
use crate::storage::log::LogMark;

/// Batches that share one SQLite transaction at most.
const GROUP_BATCHES: usize = 64;

/// What the apply thread can be asked to do; done in order.
pub enum ApplyJob {
    /// Apply it; it follows the one before.
    Apply(Batch),
    /// A primary is followed from here on: read the position anew, forget an earlier failure.
    Follow,
    /// Read the position anew and report [`ApplyReport::Reached`] when all before is done.
    Barrier {
        /// Comes back.
        ticket: u64,
    },
    /// Put what was committed on disk.
    Sync,
    /// Move SQLite's own log into the database file.
    MovePages,
    /// Close the database, do this, and open what is there then.
    Replace(Box<dyn FnOnce() -> Option<Applier> + Send>, Sender<()>),
    /// End.
    Stop,
}

/// What the apply thread reports.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyReport {
    /// Committed and visible up to here; so many bytes of batches were done.
    Applied {
        /// The position.
        position: Position,
        /// Of the batches.
        bytes: usize,
    },
    /// A barrier was reached.
    Reached {
        /// Whose.
        ticket: u64,
        /// The position here.
        position: Position,
    },
    /// A batch did not fit; nothing more is applied until the next [`ApplyJob::Follow`]. A barrier reports it again:
    /// what this node has received is not all there.
    Failed(ServerError),
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ApplyStep {
    /// There may be more to do.
    Worked,
    /// Nothing is queued.
    NoJob,
    /// A group is executed; it is committed once the log is here.
    WaitsForLog(Position),
    /// The end was asked for.
    Ended,
}

/// A group of batches that is executed and not committed.
struct Executed {
    after: Position,
    transactions: u64,
    bytes: usize,
}

/// The thread's body.
pub struct ApplyThread {
    /// The database; none before the first netcopy.
    applier: Option<Applier>,
    /// For telling that the schema changed.
    database: Arc<Database>,
    /// How far this node's log is.
    mark: Arc<LogMark>,
    /// For `perfmon`.
    counters: Arc<Counters>,
    /// Where reports go.
    report: Box<dyn Fn(ApplyReport) + Send>,
    failed: Option<ServerError>,
    executed: Option<Executed>,
    /// Comes before what is queued.
    next: Option<ApplyJob>,
}

impl ApplyThread {
    /// A thread that has done nothing yet.
    pub fn new(
        applier: Option<Applier>,
        database: Arc<Database>,
        mark: Arc<LogMark>,
        counters: Arc<Counters>,
        report: Box<dyn Fn(ApplyReport) + Send>,
    ) -> ApplyThread {
        ApplyThread { applier, database, mark, counters, report, failed: None, executed: None, next: None }
    }

    /// Works until [`ApplyJob::Stop`] or until nobody can send jobs any more.
    pub fn run(mut self, jobs: &Receiver<ApplyJob>) {
        loop {
            match self.step(jobs) {
                ApplyStep::Worked => {}
                ApplyStep::NoJob => match jobs.recv() {
                    Ok(job) => self.next = Some(job),
                    Err(_) => return,
                },
                ApplyStep::WaitsForLog(position) => {
                    if !self.mark.wait_for(position, Duration::from_secs(1)) {
                        ::log::debug!("apply waits for the log to have {position}");
                    }
                }
                ApplyStep::Ended => return,
            }
        }
    }

    /// Does one job, or commits the group that was executed.
    pub fn step(&mut self, jobs: &Receiver<ApplyJob>) -> ApplyStep {
        if let Some(executed) = self.executed.take() {
            return self.end_group(executed);
        }
        let Some(job) = self.next.take().or_else(|| jobs.try_recv().ok()) else { return ApplyStep::NoJob };
        match job {
            ApplyJob::Apply(first) => {
                let (group, after) = gather(first, jobs);
                self.next = after;
                if self.failed.is_none()
                    && let Err(error) = self.execute(&group)
                {
                    self.fail(error);
                }
            }
            ApplyJob::Follow => self.failed = self.follow().err(),
            ApplyJob::Barrier { ticket } => {
                if let Some(error) = &self.failed {
                    // The log goes on behind the database: neither to be promoted nor to be sent more.
                    (self.report)(ApplyReport::Failed(error.clone()));
                } else if self.follow().is_ok() {
                    // Read anew without having followed anybody: the node may have been a primary until now.
                    let position = self.applier.as_ref().map(Applier::position).unwrap_or_default();
                    (self.report)(ApplyReport::Reached { ticket, position });
                }
            }
            ApplyJob::Sync => self.database.sync(),
            ApplyJob::MovePages => {
                let moved = self.applier.as_ref().map(|applier| checkpoint::move_pages(applier.connection()));
                if let Some(Err(error)) = moved {
                    ::log::warn!("pages of SQLite's log could not be moved: {error}");
                }
            }
            ApplyJob::Replace(open, done) => {
                self.applier = None;
                self.applier = open();
                self.failed = None;
                // The asker may have given up waiting; nothing depends on it.
                let _ = done.send(());
            }
            ApplyJob::Stop => return ApplyStep::Ended,
        }
        ApplyStep::Worked
    }

    fn execute(&mut self, group: &[Batch]) -> Result<(), ServerError> {
        let Some(applier) = &mut self.applier else { return Ok(()) };
        let outcome = applier.begin().and_then(|()| group.iter().try_for_each(|batch| applier.apply(batch)));
        if let Err(error) = outcome {
            applier.rollback();
            return Err(error);
        }
        let bytes = group.iter().map(|batch| batch.bytes.len()).sum();
        let transactions = group.iter().map(|batch| u64::from(batch.header.count)).sum();
        self.executed = group.last().map(|last| Executed { after: last.after, transactions, bytes });
        Ok(())
    }

    fn end_group(&mut self, executed: Executed) -> ApplyStep {
        let Executed { after, transactions, bytes } = executed;
        if !self.mark.wait_for(after, Duration::ZERO) {
            if self.mark.has_ended() {
                // The server goes down; what the log has not got was never here.
                self.applier = None;
                return ApplyStep::Worked;
            }
            self.executed = Some(executed);
            return ApplyStep::WaitsForLog(after);
        }
        let Some(applier) = &mut self.applier else { return ApplyStep::Worked };
        match applier.commit() {
            Ok(()) => {
                if applier.take_schema_changed() {
                    self.database.schema_changed();
                }
                self.counters.transactions_applied.add(transactions);
                self.counters.bytes_applied.add(bytes as u64);
                (self.report)(ApplyReport::Applied { position: after, bytes });
            }
            Err(error) => self.fail(error),
        }
        ApplyStep::Worked
    }

    fn fail(&mut self, error: ServerError) {
        self.failed = Some(error.clone());
        (self.report)(ApplyReport::Failed(error));
    }

    fn follow(&mut self) -> Result<(), ServerError> {
        let outcome = self.applier.as_mut().map_or(Ok(()), Applier::reload);
        if let Err(error) = &outcome {
            (self.report)(ApplyReport::Failed(error.clone()));
        }
        outcome
    }
}

/// The batches that are there already, and the job that comes after them.
fn gather(first: Batch, jobs: &Receiver<ApplyJob>) -> (Vec<Batch>, Option<ApplyJob>) {
    let mut group = vec![first];
    while group.len() < GROUP_BATCHES {
        match jobs.try_recv() {
            Ok(ApplyJob::Apply(batch)) => group.push(batch),
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}
