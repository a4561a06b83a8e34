//! The log thread: appends, syncs in groups, reports how far it is. Each step does what is queued and never waits for
//! more, so that a simulation can take the steps one by one.
//!
//! A batch for which the disk has no room stays first in the queue and is tried again, with all that comes after it,
//! until there is room: others may have it already. One that nobody else can have is dropped before its owner hears of
//! it, so that it can be refused: nothing brings it back. Everything else that goes wrong ends the process, a failed sync
//! above all: what it was to save may be gone from memory as well.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::counters::Counters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::{Room, Store};
use crate::hsb::position::Position;
use crate::stop::stop_process;
use crate::storage::batch::Batch;
use crate::storage::log::{LogMark, LogWriter, WriteError};

/// How often a full disk is looked at.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);
/// There is room again when the log could take a batch of so many bytes.
const ROOM_BYTES: u64 = 1 << 20;

/// What the log thread can be asked to do; done in order.
pub enum LogJob {
    /// Append; `sync`: at once.
    Append {
        /// What.
        batch: Batch,
        /// Whether it has to be on disk soon as possible.
        sync: bool,
        /// Nobody else can have it: dropped if there is no room.
        only_here: bool,
    },
    /// Sync, then report [`LogReport::Flushed`] if there is a ticket.
    Flush {
        /// Comes back.
        ticket: Option<u64>,
    },
    /// Sync, then tell who waits; what a full disk keeps from being written is not waited for.
    Sync(Sender<()>),
    /// Drop what comes after the position: a pending batch that turned out not to exist.
    TruncateAfter(Position),
    /// Delete segments that nobody needs before the position.
    RetainFrom(Position),
    /// Another log, after the database was replaced; closes the old one first.
    Replace(Box<dyn FnOnce() -> Option<LogWriter> + Send>, Sender<()>),
    /// Sync and end.
    Stop,
}

/// What the log thread reports.
#[derive(Clone, Debug, PartialEq)]
pub enum LogReport {
    /// In the file up to here; synced too if `durable`.
    Progress {
        /// The position.
        position: Position,
        /// Synced.
        durable: bool,
    },
    /// A flush with a ticket is done.
    Flushed {
        /// Whose.
        ticket: u64,
    },
    /// The disk is full: what comes after the last progress is held, or dropped if nobody else can have it. Or there is
    /// room again; what was held has been reported as progress.
    Room(Room),
    /// The log has become longer by a file, or shorter.
    Size {
        /// Its bytes.
        bytes: u64,
        /// What nobody needs was deleted just before.
        retained: bool,
    },
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStep {
    /// Everything is on disk.
    Synced,
    /// Something was appended: to be synced within the longest delay.
    Unsynced,
    /// The disk is full: to be tried again now and then, see [`LogThread::try_again`].
    Full,
    /// The end was asked for.
    Ended,
}

/// The thread's body. An error of a step is final: the process has to stop.
pub struct LogThread {
    /// The log; none before the first netcopy.
    writer: Option<LogWriter>,
    /// How far it is, for other threads.
    mark: Arc<LogMark>,
    /// Longest time that an appended batch stays unsynced.
    relaxed_max_delay: Duration,
    /// For `perfmon`.
    counters: Arc<Counters>,
    /// Where reports go.
    report: Box<dyn Fn(LogReport) + Send>,
    /// Taken in and not done yet. While the disk is full, the first is what it is needed for, unless that was dropped.
    queue: VecDeque<LogJob>,
    full: bool,
    /// Files of the log when its size was reported last.
    reported_files: usize,
}

impl LogThread {
    /// A thread that has done nothing yet.
    pub fn new(
        writer: Option<LogWriter>,
        mark: Arc<LogMark>,
        relaxed_max_delay: Duration,
        counters: Arc<Counters>,
        report: Box<dyn Fn(LogReport) + Send>,
    ) -> LogThread {
        let (queue, full, reported_files) = (VecDeque::new(), false, 0);
        LogThread { writer, mark, relaxed_max_delay, counters, report, queue, full, reported_files }
    }

    /// Works until [`LogJob::Stop`] or until nobody can send jobs any more.
    pub fn run(mut self, jobs: &Receiver<LogJob>) {
        if let Err(error) = self.work(jobs) {
            stop_process(&error);
        }
        self.mark.end();
    }

    fn work(&mut self, jobs: &Receiver<LogJob>) -> Result<(), ServerError> {
        self.publish();
        let mut sync_by: Option<Instant> = None;
        loop {
            let received = match sync_by {
                _ if self.full => jobs.recv_timeout(ROOM_INTERVAL),
                Some(at) => jobs.recv_deadline(at),
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let step = match received {
                Ok(first) => self.step(first, jobs)?,
                Err(RecvTimeoutError::Timeout) if self.full => self.try_again(jobs)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.sync()?;
                    LogStep::Synced
                }
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            };
            sync_by = match step {
                LogStep::Synced | LogStep::Full => None,
                LogStep::Unsynced => sync_by.or(Some(Instant::now() + self.relaxed_max_delay)),
                LogStep::Ended => return Ok(()),
            };
            // While there are always more jobs, no waiting for them ends at the deadline.
            if sync_by.is_some_and(|at| at <= Instant::now()) {
                self.sync()?;
                sync_by = None;
            }
        }
    }

    /// Does the first job and those that are queued behind it.
    pub fn step(&mut self, first: LogJob, jobs: &Receiver<LogJob>) -> Result<LogStep, ServerError> {
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            self.take_in(job)?;
        }
        self.try_again(jobs)
    }

    /// While the disk is full, what may change that is done at once.
    fn take_in(&mut self, job: LogJob) -> Result<(), ServerError> {
        match job {
            LogJob::RetainFrom(_) | LogJob::Sync(_) if self.full => return self.other(job),
            LogJob::Stop | LogJob::Replace(..) if self.full => {
                // What was held is in no log of this node, as if it had stopped a moment earlier.
                self.queue.clear();
                self.full = false;
                (self.report)(LogReport::Room(Room::there(Store::Log)));
            }
            _ => {}
        }
        self.queue.push_back(job);
        Ok(())
    }

    /// Does what is queued, if there is room for it.
    pub fn try_again(&mut self, jobs: &Receiver<LogJob>) -> Result<LogStep, ServerError> {
        if self.full && !self.has_room_again()? {
            return Ok(LogStep::Full);
        }
        let mut appended = false;
        let mut sync = false;
        while let Some(job) = self.queue.pop_front().or_else(|| jobs.try_recv().ok()) {
            match job {
                LogJob::Append { batch, sync: at_once, only_here } => {
                    if !self.append(&batch)? {
                        if !only_here {
                            self.queue.push_front(LogJob::Append { batch, sync: at_once, only_here });
                        }
                        self.do_what_needs_no_room()?;
                        return Ok(LogStep::Full);
                    }
                    appended = true;
                    sync |= at_once;
                }
                LogJob::Stop => return self.sync().map(|()| LogStep::Ended),
                other => {
                    self.sync()?;
                    (appended, sync) = (false, false);
                    self.other(other)?;
                }
            }
        }
        self.report_size(false);
        if sync {
            self.sync()?;
        } else if appended {
            self.publish();
            self.progress(false);
            return Ok(LogStep::Unsynced);
        }
        Ok(LogStep::Synced)
    }

    /// Checkpoints wait for a sync, and files that are deleted make room: neither waits behind a batch that has none.
    fn do_what_needs_no_room(&mut self) -> Result<(), ServerError> {
        for job in std::mem::take(&mut self.queue) {
            match job {
                LogJob::RetainFrom(_) | LogJob::Sync(_) => self.other(job)?,
                job => self.queue.push_back(job),
            }
        }
        Ok(())
    }

    fn other(&mut self, job: LogJob) -> Result<(), ServerError> {
        match job {
            LogJob::Flush { ticket } => {
                if let Some(ticket) = ticket {
                    (self.report)(LogReport::Flushed { ticket });
                }
            }
            // The asker may have given up waiting.
            LogJob::Sync(done) => drop(done.send(())),
            LogJob::TruncateAfter(position) => {
                self.writer.as_mut().map_or(Ok(()), |writer| writer.truncate_after(position))?;
                self.publish();
            }
            LogJob::RetainFrom(position) => {
                if let Some(Err(error)) = self.writer.as_mut().map(|writer| writer.retain_from(position)) {
                    ::log::warn!("old log files could not be deleted: {error}");
                }
                self.publish();
                self.report_size(true);
            }
            LogJob::Replace(open, done) => {
                self.writer = None;
                self.writer = open();
                self.publish();
                // The asker may have given up waiting; nothing depends on it.
                let _ = done.send(());
            }
            LogJob::Append { .. } | LogJob::Stop => {}
        }
        Ok(())
    }

    /// False if there is no room.
    fn append(&mut self, batch: &Batch) -> Result<bool, ServerError> {
        let Some(writer) = &mut self.writer else { return Ok(true) };
        match writer.append(batch) {
            Ok(()) => {
                self.count(batch.bytes.len());
                Ok(true)
            }
            Err(WriteError::NoRoom(error)) => {
                // What came before it counts.
                self.sync()?;
                self.full = true;
                (self.report)(LogReport::Room(Room::lacking(Store::Log, error.to_string())));
                Ok(false)
            }
            Err(error) => Err(failed(&error)),
        }
    }

    fn has_room_again(&mut self) -> Result<bool, ServerError> {
        let Some(writer) = &mut self.writer else { return Ok(true) };
        let tried = match self.queue.front() {
            Some(LogJob::Append { batch, .. }) => writer.append(batch).map(|()| true),
            _ => writer.reserve(ROOM_BYTES).map(|()| false),
        };
        match tried {
            Ok(appended) => {
                if appended && let Some(LogJob::Append { batch, .. }) = self.queue.pop_front() {
                    self.count(batch.bytes.len());
                    self.sync()?;
                }
                self.full = false;
                (self.report)(LogReport::Room(Room::there(Store::Log)));
                Ok(true)
            }
            Err(WriteError::NoRoom(_)) => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    /// A failed sync is never tried again: what it was to save may be gone from memory as well.
    pub fn sync(&mut self) -> Result<(), ServerError> {
        if let Some(writer) = &mut self.writer {
            writer.sync().map_err(|error| failed(&error))?;
            self.counters.log_syncs.add(1);
        }
        self.publish();
        self.progress(true);
        Ok(())
    }

    fn count(&self, bytes: usize) {
        self.counters.log_batches.add(1);
        self.counters.log_bytes.add(bytes as u64);
    }

    fn report_size(&mut self, retained: bool) {
        if let Some(writer) = &self.writer
            && (retained || writer.segment_count() != self.reported_files)
        {
            self.reported_files = writer.segment_count();
            (self.report)(LogReport::Size { bytes: writer.size_bytes(), retained });
        }
    }

    /// Where the log ends.
    pub fn end(&self) -> Position {
        self.writer.as_ref().map_or(Position::ORIGIN, LogWriter::end)
    }

    /// Tells other threads how far the log is. Once before the first step.
    pub fn publish(&self) {
        if let Some(writer) = &self.writer {
            self.counters.log_end.set(writer.end().sequence);
            self.counters.log_durable.set(writer.synced().sequence);
            self.counters.log_size.set(writer.size_bytes());
            self.mark.publish(writer.end());
        }
    }

    fn progress(&self, durable: bool) {
        if let Some(writer) = &self.writer {
            (self.report)(LogReport::Progress { position: writer.end(), durable });
        }
    }
}

fn failed(error: &WriteError) -> ServerError {
    ServerError::with(Code::LOG_WRITE_FAILED, format!("({error})"))
}
