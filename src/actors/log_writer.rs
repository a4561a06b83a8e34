//! The log writer: takes batches for the log and tells those concerned how far the log is.

use actix::prelude::*;
use crossbeam_channel::Sender;

use super::threads::log::{LogJob, LogReport};
use crate::hsb::event::Store;
use crate::hsb::position::Position;
use crate::storage::batch::Batch;

/// From the supervisor (primary) and the applier (secondary): the next batch. Answered by [`LogProgress`].
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct Append {
    /// Follows the last one.
    pub batch: Batch,
    /// Must be on disk before it counts.
    pub sync: bool,
    /// Nobody else can have it: dropped if there is no room for it.
    pub only_here: bool,
}

/// Put everything on disk. From the supervisor without a ticket, from the applier with one: answered by [`Flushed`].
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct Flush {
    /// Comes back.
    pub ticket: Option<u64>,
}

/// From the applier: a pending batch turned out not to exist; cut it off.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct TruncateAfter(pub Position);

/// From the supervisor after a checkpoint: nobody needs what lies before.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct RetainFrom(pub Position);

/// From the log thread by way of the log writer to supervisor and applier: how far the log is.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct LogProgress {
    /// In the file up to here.
    pub position: Position,
    /// And on disk.
    pub durable: bool,
}

/// To the applier: the flush with this ticket is done.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct Flushed {
    /// The flush's.
    pub ticket: u64,
}

/// From the log thread by way of the log writer, and from whoever writes the database, to the supervisor: whether there
/// is room on the disk.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct Room {
    /// Whose room.
    pub store: Store,
    /// None: there is room again.
    pub lacks: Option<String>,
}

/// From the log thread by way of the log writer to the supervisor: the log has become longer by a file, or shorter.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct LogSize {
    /// Its bytes.
    pub bytes: u64,
    /// What nobody needs was deleted just before.
    pub retained: bool,
}

/// A report of the log thread.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct FromLogThread(pub LogReport);

/// See the module.
pub struct LogWriter {
    /// The log thread's jobs.
    pub jobs: Sender<LogJob>,
    /// Who hears of progress: the supervisor and the applier.
    pub progress: Vec<Recipient<LogProgress>>,
    /// Who hears of flushes: the applier.
    pub flushed: Recipient<Flushed>,
    /// Who hears of a full disk: the supervisor.
    pub room: Recipient<Room>,
    /// Who hears of the log's size: the supervisor.
    pub size: Recipient<LogSize>,
}

impl LogWriter {
    fn job(&self, job: LogJob) {
        // Only an orderly end closes it; a log that cannot be written ends the process.
        if self.jobs.send(job).is_err() {
            log::debug!("the log is closed: the server is going down");
        }
    }
}

impl Actor for LogWriter {
    type Context = Context<Self>;
}

impl Handler<Append> for LogWriter {
    type Result = ();
    fn handle(&mut self, Append { batch, sync, only_here }: Append, _: &mut Context<Self>) {
        self.job(LogJob::Append { batch, sync, only_here });
    }
}

impl Handler<Flush> for LogWriter {
    type Result = ();
    fn handle(&mut self, Flush { ticket }: Flush, _: &mut Context<Self>) {
        self.job(LogJob::Flush { ticket });
    }
}

impl Handler<TruncateAfter> for LogWriter {
    type Result = ();
    fn handle(&mut self, TruncateAfter(position): TruncateAfter, _: &mut Context<Self>) {
        self.job(LogJob::TruncateAfter(position));
    }
}

impl Handler<RetainFrom> for LogWriter {
    type Result = ();
    fn handle(&mut self, RetainFrom(position): RetainFrom, _: &mut Context<Self>) {
        self.job(LogJob::RetainFrom(position));
    }
}

impl Handler<FromLogThread> for LogWriter {
    type Result = ();
    fn handle(&mut self, FromLogThread(report): FromLogThread, _: &mut Context<Self>) {
        match report {
            LogReport::Progress { position, durable } => {
                for recipient in &self.progress {
                    recipient.do_send(LogProgress { position, durable });
                }
            }
            LogReport::Flushed { ticket } => self.flushed.do_send(Flushed { ticket }),
            LogReport::Size { bytes, retained } => self.size.do_send(LogSize { bytes, retained }),
            LogReport::NoRoom { detail } => {
                self.room.do_send(Room { store: Store::Log, lacks: Some(detail) });
            }
            LogReport::Room => self.room.do_send(Room { store: Store::Log, lacks: None }),
        }
    }
}
