//! The log writer: takes batches for the log and tells those concerned how far the log is.

use actix::prelude::*;
use crossbeam_channel::Sender;

use super::secondary_applier::ApplierMessage;
use super::supervisor::SupervisorMessage;
use super::threads::log::{LogJob, LogReport};
use crate::hsb::effect::LogWriterEffect;
use crate::hsb::event::Event;
use crate::hsb::position::Position;
use crate::storage::batch::Batch;

/// All that the log writer can be told.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub enum LogWriterMessage {
    /// From the supervisor (primary) and the applier (secondary): the next batch. Answered by [`Event::Logged`] and
    /// [`ApplierMessage::LogProgress`].
    Append {
        /// Follows the last one.
        batch: Batch,
        /// Must be on disk before it counts.
        sync: bool,
        /// Nobody else can have it: dropped if there is no room for it.
        only_here: bool,
    },
    /// From the supervisor, and from the applier: what the heart wants.
    Do(LogWriterEffect),
    /// From the applier: put everything on disk, then say [`ApplierMessage::Flushed`].
    FlushFor {
        /// Comes back.
        ticket: u64,
    },
    /// From the applier: a pending batch turned out not to exist; cut it off.
    TruncateAfter(Position),
    /// From the log thread.
    Thread(LogReport),
}

/// See the module.
pub struct LogWriter {
    /// The log thread's jobs.
    pub jobs: Sender<LogJob>,
    /// Hears of progress, of the log's size and of a full disk.
    pub supervisor: Recipient<SupervisorMessage>,
    /// Hears of progress and of flushes.
    pub applier: Recipient<ApplierMessage>,
}

impl LogWriter {
    fn job(&self, job: LogJob) {
        // Only an orderly end closes it; a log that cannot be written ends the process.
        if self.jobs.send(job).is_err() {
            log::debug!("the log is closed: the server is going down");
        }
    }

    fn report(&self, report: LogReport) {
        match report {
            LogReport::Progress { position, durable } => {
                self.tell_supervisor(Event::Logged { position, durable });
                self.applier.do_send(ApplierMessage::LogProgress { position, durable });
            }
            LogReport::Flushed { ticket } => self.applier.do_send(ApplierMessage::Flushed { ticket }),
            LogReport::Size { bytes, retained } => self.tell_supervisor(Event::LogSize { bytes, retained }),
            LogReport::Room(room) => self.tell_supervisor(Event::Room(room)),
        }
    }

    fn tell_supervisor(&self, event: Event) {
        self.supervisor.do_send(SupervisorMessage::Event(event));
    }
}

impl Actor for LogWriter {
    type Context = Context<Self>;
}

impl Handler<LogWriterMessage> for LogWriter {
    type Result = ();
    fn handle(&mut self, message: LogWriterMessage, _: &mut Context<Self>) {
        match message {
            LogWriterMessage::Append { batch, sync, only_here } => {
                self.job(LogJob::Append { batch, sync, only_here });
            }
            LogWriterMessage::Do(LogWriterEffect::Flush) => self.job(LogJob::Flush { ticket: None }),
            LogWriterMessage::Do(LogWriterEffect::RetainFrom(position)) => {
                self.job(LogJob::RetainFrom(position));
            }
            LogWriterMessage::FlushFor { ticket } => self.job(LogJob::Flush { ticket: Some(ticket) }),
            LogWriterMessage::TruncateAfter(position) => self.job(LogJob::TruncateAfter(position)),
            LogWriterMessage::Thread(report) => self.report(report),
        }
    }
}
