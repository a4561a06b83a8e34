//! The apply thread: executes at the secondary what the primary sends, in groups, in order.
//!
//! Invariant: a batch is committed here only after this node's log has it, so the database is never ahead of the log.

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
    Checkpoint,
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

/// The thread's body.
pub struct ApplyThread {
    /// The database; none before the first netcopy.
    pub applier: Option<Applier>,
    /// For telling that the schema changed.
    pub database: Arc<Database>,
    /// How far this node's log is.
    pub mark: Arc<LogMark>,
    /// For `perfmon`.
    pub counters: Arc<Counters>,
    /// Where reports go.
    pub report: Box<dyn Fn(ApplyReport) + Send>,
}

impl ApplyThread {
    /// Works until [`ApplyJob::Stop`] or until nobody can send jobs any more.
    pub fn run(mut self, jobs: &Receiver<ApplyJob>) {
        let mut failed: Option<ServerError> = None;
        let mut next = jobs.recv().ok();
        while let Some(job) = next.take() {
            match job {
                ApplyJob::Apply(first) => {
                    let (group, after) = gather(first, jobs);
                    if failed.is_none()
                        && let Err(error) = self.apply(&group)
                    {
                        failed = Some(error.clone());
                        (self.report)(ApplyReport::Failed(error));
                    }
                    next = after;
                }
                ApplyJob::Follow => failed = self.follow().err(),
                ApplyJob::Barrier { ticket } => {
                    if let Some(error) = &failed {
                        // The log goes on behind the database: neither to be promoted nor to be sent more.
                        (self.report)(ApplyReport::Failed(error.clone()));
                    } else if self.follow().is_ok() {
                        // Read anew without having followed anybody: the node may have been a primary until now.
                        let position = self.applier.as_ref().map(Applier::position).unwrap_or_default();
                        (self.report)(ApplyReport::Reached { ticket, position });
                    }
                }
                ApplyJob::Sync => self.database.sync(),
                ApplyJob::Checkpoint => {
                    let moved =
                        self.applier.as_ref().map(|applier| checkpoint::move_pages(applier.connection()));
                    if let Some(Err(error)) = moved {
                        ::log::warn!("checkpoint: {error}");
                    }
                }
                ApplyJob::Replace(open, done) => {
                    self.applier = None;
                    self.applier = open();
                    failed = None;
                    // The asker may have given up waiting; nothing depends on it.
                    let _ = done.send(());
                }
                ApplyJob::Stop => return,
            }
            if next.is_none() {
                next = jobs.recv().ok();
            }
        }
    }

    fn apply(&mut self, group: &[Batch]) -> Result<(), ServerError> {
        let Some(applier) = &mut self.applier else { return Ok(()) };
        let outcome = applier.begin().and_then(|()| group.iter().try_for_each(|batch| applier.apply(batch)));
        if let Err(error) = outcome {
            applier.rollback();
            return Err(error);
        }
        let Some(last) = group.last() else { return Ok(()) };
        while !self.mark.wait_for(last.after, Duration::from_secs(1)) {
            if self.mark.has_ended() {
                // The server goes down; what the log has not got was never here.
                self.applier = None;
                return Ok(());
            }
            ::log::debug!("apply waits for the log to have {}", last.after);
        }
        applier.commit()?;
        if applier.take_schema_changed() {
            self.database.schema_changed();
        }
        let bytes: usize = group.iter().map(|batch| batch.bytes.len()).sum();
        self.counters.transactions_applied.add(group.iter().map(|batch| u64::from(batch.header.count)).sum());
        self.counters.bytes_applied.add(bytes as u64);
        (self.report)(ApplyReport::Applied { position: last.after, bytes });
        Ok(())
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
