//! The apply thread: executes at the secondary what the primary sends, in groups, in order.
//!
//! Invariant: a batch is committed here only after this node's log has it, so the database is never ahead of the log.
//! A step never waits, for jobs as for the log, so that a simulation can take the steps one by one.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::counters::Counters;
use crate::error::ServerError;
use crate::hsb::event::{Room, Store};
use crate::hsb::position::Position;
use crate::stop::stop_process;
use crate::storage::apply::Applier;
use crate::storage::batch::Batch;
use crate::storage::checkpoint;
use crate::storage::database::Database;
use crate::storage::log::LogMark;

/// How long a lock of somebody else's is waited for before that is said.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried to apply what could not be written.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);
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
    /// There is no room for a batch, which is tried again until there is; or there is room.
    Room(Room),
    /// The database cannot be written for a reason that passes (a lock, no memory, no descriptors): a batch is tried again
    /// until it can; or it can.
    Hindered {
        /// The reason; none: it goes on.
        by: Option<String>,
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
    /// The disk is full, or the database cannot be written for another reason that passes; it is tried again in the next
    /// step.
    WaitsForRoom,
    /// The end was asked for.
    Ended,
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
    /// Executed and not committed.
    executed: Option<Vec<Batch>>,
    /// These could not be written.
    set_back: Option<Vec<Batch>>,
    lacks_room: bool,
    is_hindered: bool,
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
        let (failed, executed, set_back, lacks_room, is_hindered, next) =
            (None, None, None, false, false, None);
        ApplyThread {
            applier,
            database,
            mark,
            counters,
            report,
            failed,
            executed,
            set_back,
            lacks_room,
            is_hindered,
            next,
        }
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
                ApplyStep::WaitsForRoom => std::thread::sleep(ROOM_INTERVAL),
                ApplyStep::Ended => return,
            }
        }
    }

    /// Does one job, or commits the group that was executed.
    pub fn step(&mut self, jobs: &Receiver<ApplyJob>) -> ApplyStep {
        if let Some(group) = self.set_back.take() {
            return self.execute(group);
        }
        if let Some(executed) = self.executed.take() {
            return self.end_group(executed);
        }
        let Some(job) = self.next.take().or_else(|| jobs.try_recv().ok()) else { return ApplyStep::NoJob };
        match job {
            ApplyJob::Apply(first) => {
                let (group, after) = gather(first, jobs);
                self.next = after;
                if self.failed.is_none() {
                    return self.execute(group);
                }
            }
            ApplyJob::Follow => match self.follow() {
                Err(error) if error.passes() => return self.wait(ApplyJob::Follow, &error),
                outcome => self.failed = outcome.err(),
            },
            ApplyJob::Barrier { ticket } => {
                if let Some(error) = &self.failed {
                    // The log goes on behind the database: neither to be promoted nor to be sent more.
                    (self.report)(ApplyReport::Failed(error.clone()));
                    return ApplyStep::Worked;
                }
                match self.follow() {
                    Err(error) if error.passes() => return self.wait(ApplyJob::Barrier { ticket }, &error),
                    Err(_) => {}
                    Ok(()) => {
                        // Read anew without having followed anybody: the node may have been a primary until now.
                        let position = self.applier.as_ref().map(Applier::position).unwrap_or_default();
                        (self.report)(ApplyReport::Reached { ticket, position });
                    }
                }
            }
            ApplyJob::Sync => self.database.sync(),
            ApplyJob::MovePages => {
                let moved =
                    self.applier.as_ref().map(|applier| checkpoint::start_log_over(applier.connection()));
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

    fn execute(&mut self, group: Vec<Batch>) -> ApplyStep {
        let Some(applier) = &mut self.applier else { return ApplyStep::Worked };
        let outcome = applier.begin().and_then(|()| group.iter().try_for_each(|batch| applier.apply(batch)));
        match outcome {
            Ok(()) => {
                self.executed = Some(group);
                ApplyStep::Worked
            }
            Err(error) => self.not_applied(group, error),
        }
    }

    /// A job that could not be done for a reason that passes.
    fn wait(&mut self, job: ApplyJob, error: &ServerError) -> ApplyStep {
        if self.mark.has_ended() {
            // The server goes down.
            self.applier = None;
            return ApplyStep::Worked;
        }
        self.hindered(Some(error));
        self.next = Some(job);
        ApplyStep::WaitsForRoom
    }

    /// For want of room, or of a lock, a group is tried again: this node has it and may have said so.
    fn not_applied(&mut self, group: Vec<Batch>, error: ServerError) -> ApplyStep {
        if let Some(applier) = &mut self.applier {
            applier.rollback();
        }
        if !error.is_tried_again() {
            if error.is_of_the_medium() {
                // The log has everything; recovery takes it from there.
                stop_process(&error);
            }
            self.room(None);
            self.hindered(None);
            self.fail(error);
            return ApplyStep::Worked;
        }
        if self.mark.has_ended() {
            // The server goes down; recovery takes it from the log.
            self.applier = None;
            return ApplyStep::Worked;
        }
        if error.passes() {
            self.hindered(Some(&error));
        } else {
            self.room(Some(error.detail().to_owned()));
        }
        self.set_back = Some(group);
        ApplyStep::WaitsForRoom
    }

    fn room(&mut self, lacks: Option<String>) {
        if std::mem::replace(&mut self.lacks_room, lacks.is_some()) != lacks.is_some() {
            (self.report)(ApplyReport::Room(Room { store: Store::Database, lacks }));
        }
    }

    fn hindered(&mut self, by: Option<&ServerError>) {
        if std::mem::replace(&mut self.is_hindered, by.is_some()) != by.is_some() {
            (self.report)(ApplyReport::Hindered { by: by.map(|error| error.detail().to_owned()) });
        }
    }

    fn end_group(&mut self, group: Vec<Batch>) -> ApplyStep {
        let Some(after) = group.last().map(|last| last.after) else { return ApplyStep::Worked };
        if !self.mark.wait_for(after, Duration::ZERO) {
            if self.mark.has_ended() {
                // The server goes down; what the log has not got was never here.
                self.applier = None;
                return ApplyStep::Worked;
            }
            self.executed = Some(group);
            return ApplyStep::WaitsForLog(after);
        }
        let Some(applier) = &mut self.applier else { return ApplyStep::Worked };
        match applier.commit() {
            Ok(()) => {
                if applier.take_schema_changed() {
                    self.database.schema_changed();
                }
                let bytes = group.iter().map(|batch| batch.bytes.len()).sum();
                let transactions = group.iter().map(|batch| u64::from(batch.header.count)).sum();
                self.counters.transactions_applied.add(transactions);
                self.counters.bytes_applied.add(bytes as u64);
                (self.report)(ApplyReport::Applied { position: after, bytes });
                self.room(None);
                self.hindered(None);
                ApplyStep::Worked
            }
            Err(error) => self.not_applied(group, error),
        }
    }

    fn fail(&mut self, error: ServerError) {
        self.failed = Some(error.clone());
        (self.report)(ApplyReport::Failed(error));
    }

    fn follow(&mut self) -> Result<(), ServerError> {
        let reload = |applier: &mut Applier| {
            applier.connection().busy_timeout(LOCK_PATIENCE)?;
            applier.reload()
        };
        let outcome = self.applier.as_mut().map_or(Ok(()), reload);
        match &outcome {
            Err(error) if error.passes() => {}
            Err(error) => (self.report)(ApplyReport::Failed(error.clone())),
            Ok(()) => self.hindered(None),
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
