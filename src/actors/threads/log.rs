//! The log thread: appends, syncs in groups, reports how far it is. Each step does what is queued and never waits for
//! more, so that a simulation can take the steps one by one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::stop_process;
use crate::counters::Counters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::storage::batch::Batch;
use crate::storage::log::{LogMark, LogWriter};

/// What the log thread can be asked to do; done in order.
pub enum LogJob {
    /// Append; `sync`: at once.
    Append {
        /// What.
        batch: Batch,
        /// Whether it has to be on disk soon as possible.
        sync: bool,
    },
    /// Sync, then report [`LogReport::Flushed`] if there is a ticket.
    Flush {
        /// Comes back.
        ticket: Option<u64>,
    },
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
#[derive(Clone, Copy, Debug, PartialEq)]
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
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStep {
    /// Everything is on disk.
    Synced,
    /// Something was appended: to be synced within the longest delay.
    Unsynced,
    /// The end was asked for.
    Ended,
}

/// The thread's body. An error of a step is final: the process has to stop.
pub struct LogThread {
    /// The log; none before the first netcopy.
    pub writer: Option<LogWriter>,
    /// How far it is, for other threads.
    pub mark: Arc<LogMark>,
    /// Longest time that an appended batch stays unsynced.
    pub relaxed_max_delay: Duration,
    /// For `perfmon`.
    pub counters: Arc<Counters>,
    /// Where reports go.
    pub report: Box<dyn Fn(LogReport) + Send>,
}

impl LogThread {
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
                Some(at) => jobs.recv_deadline(at),
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let step = match received {
                Ok(first) => self.step(first, jobs)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.sync()?;
                    LogStep::Synced
                }
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            };
            sync_by = match step {
                LogStep::Synced => None,
                LogStep::Unsynced => sync_by.or(Some(Instant::now() + self.relaxed_max_delay)),
                LogStep::Ended => return Ok(()),
            };
        }
    }

    /// Does the first job and those that are queued behind it.
    pub fn step(&mut self, first: LogJob, jobs: &Receiver<LogJob>) -> Result<LogStep, ServerError> {
        let mut appended = false;
        let mut sync = false;
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                LogJob::Append { batch, sync: at_once } => {
                    self.append(&batch)?;
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
        if sync {
            self.sync()?;
        } else if appended {
            self.publish();
            self.progress(false);
            return Ok(LogStep::Unsynced);
        }
        Ok(LogStep::Synced)
    }

    fn other(&mut self, job: LogJob) -> Result<(), ServerError> {
        match job {
            LogJob::Flush { ticket } => {
                if let Some(ticket) = ticket {
                    (self.report)(LogReport::Flushed { ticket });
                }
            }
            LogJob::TruncateAfter(position) => {
                self.writer.as_mut().map_or(Ok(()), |writer| writer.truncate_after(position))?;
                self.publish();
            }
            LogJob::RetainFrom(position) => {
                if let Some(Err(error)) = self.writer.as_mut().map(|writer| writer.retain_from(position)) {
                    ::log::warn!("old log files could not be deleted: {error}");
                }
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

    fn append(&mut self, batch: &Batch) -> Result<(), ServerError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.append(batch).map_err(|error| failed(&error))?;
        self.counters.log_batches.add(1);
        self.counters.log_bytes.add(batch.bytes.len() as u64);
        Ok(())
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

    /// Tells other threads how far the log is. Once before the first step.
    pub fn publish(&self) {
        if let Some(writer) = &self.writer {
            self.counters.log_end.set(writer.end().sequence);
            self.counters.log_size.set(writer.size_bytes());
            self.mark.publish(writer.end());
        }
    }

    fn progress(&self, durable: bool) {
        if let Some(writer) = &self.writer {
            if durable {
                self.counters.log_durable.set(writer.end().sequence);
            }
            (self.report)(LogReport::Progress { position: writer.end(), durable });
        }
    }
}

fn failed(error: &std::io::Error) -> ServerError {
    let code = if error.kind() == std::io::ErrorKind::StorageFull {
        Code::DISK_FULL
    } else {
        Code::LOG_WRITE_FAILED
    };
    ServerError::with(code, format!("({error})"))
}
