//! The secondary applier: receives the primary's batches in order, has them logged and applied, acknowledges.
//!
//! It also holds the pending batch of a node that was a primary (R3, R7), which stays in the log until the new
//! primary's history says whether it exists.

use actix::prelude::*;
use bytes::Bytes;
use crossbeam_channel::Sender;

use super::log_writer::LogWriterMessage;
use super::replication_sender::SenderMessage;
use super::supervisor::SupervisorMessage;
use super::threads::apply::{ApplyJob, ApplyReport};
use crate::hsb::effect::{ApplierEffect, LogWriterEffect, SenderEffect};
use crate::hsb::event::{Event, LinkId, PeerMessage};
use crate::hsb::position::Position;
use crate::hsb::settings::{AcknowledgePolicy, AcknowledgeRule};
use crate::storage::batch::Batch;

/// With this much received and not yet applied, "received" is not acknowledged until apply has come along: the
/// primary slows down instead of this node's memory filling up.
const BACKLOG_BYTES: usize = 32 << 20;

/// All that the secondary applier can be told.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub enum ApplierMessage {
    /// From the supervisor: what the heart wants.
    Do(ApplierEffect),
    /// From the supervisor: this batch was abandoned (set secondary alone, a failed switch); keep it.
    KeepPending(Batch),
    /// From the connection: one frame that says it is a batch.
    BatchArrived {
        /// On which connection.
        link: LinkId,
        /// The frame, unchecked.
        bytes: Bytes,
    },
    /// From the log writer: how far the log is.
    LogProgress {
        /// In the file up to here.
        position: Position,
        /// And on disk.
        durable: bool,
    },
    /// From the log writer: the flush with this ticket is done.
    Flushed {
        /// The flush's.
        ticket: u64,
    },
    /// From the apply thread.
    Thread(ApplyReport),
}

struct Draining {
    ticket: u64,
    flushed: bool,
    reached: Option<Position>,
}

/// See the module.
pub struct SecondaryApplier {
    /// The apply thread's jobs.
    pub jobs: Sender<ApplyJob>,
    /// Logs what was received.
    pub log_writer: Recipient<LogWriterMessage>,
    /// Sends acknowledgements.
    pub sender: Recipient<SenderMessage>,
    /// Hears how far this node is.
    pub supervisor: Recipient<SupervisorMessage>,
    /// The batch whose outcome is open.
    pub pending: Option<Batch>,
    following: Option<LinkId>,
    rule: AcknowledgeRule,
    received: Position,
    applied: Position,
    durable: Position,
    acknowledged: Position,
    backlog_bytes: usize,
    draining: Option<Draining>,
}

impl SecondaryApplier {
    /// An applier that follows nobody yet.
    pub fn new(
        jobs: Sender<ApplyJob>,
        log_writer: Recipient<LogWriterMessage>,
        sender: Recipient<SenderMessage>,
        supervisor: Recipient<SupervisorMessage>,
        pending: Option<Batch>,
    ) -> SecondaryApplier {
        SecondaryApplier {
            jobs,
            log_writer,
            sender,
            supervisor,
            pending,
            following: None,
            rule: AcknowledgeRule::default(),
            received: Position::ORIGIN,
            applied: Position::ORIGIN,
            durable: Position::ORIGIN,
            acknowledged: Position::ORIGIN,
            backlog_bytes: 0,
            draining: None,
        }
    }

    fn job(&self, job: ApplyJob) {
        if self.jobs.send(job).is_err() {
            log::error!("the apply thread has ended");
        }
    }

    fn receive(&mut self, bytes: Bytes) -> Result<(), String> {
        let batch = Batch::parse(bytes).map_err(|error| error.to_string())?;
        if batch.after == self.received {
            // The end of a catchup and the beginning of what comes after it may meet in one batch.
            return Ok(());
        }
        if batch.header.before != self.received || batch.header.epoch < self.received.epoch {
            return Err(format!(
                "a batch that follows {} in epoch {} arrived; this node is at {}",
                batch.header.before, batch.header.epoch, self.received
            ));
        }
        let in_log = self.pending.take().is_some_and(|pending| {
            let same = pending.after == batch.after;
            if !same {
                self.log_writer.do_send(LogWriterMessage::TruncateAfter(self.received));
            }
            same
        });
        if in_log {
            self.log_writer.do_send(LogWriterMessage::Do(LogWriterEffect::Flush));
        } else {
            // The apply thread waits for what the log thread publishes, which is what is synced then.
            let sync = self.rule.strict || self.rule.policy == AcknowledgePolicy::Durable;
            let batch = batch.clone();
            self.log_writer.do_send(LogWriterMessage::Append { batch, sync, only_here: false });
        }
        self.received = batch.after;
        self.backlog_bytes += batch.bytes.len();
        self.job(ApplyJob::Apply(batch));
        self.acknowledge();
        Ok(())
    }

    /// Tells the primary how far this node is, by the policy in force.
    fn acknowledge(&mut self) {
        let position = match self.rule.policy {
            AcknowledgePolicy::Received if self.backlog_bytes <= BACKLOG_BYTES => self.received,
            AcknowledgePolicy::Received | AcknowledgePolicy::Visible => self.applied,
            AcknowledgePolicy::Durable if self.durable.sequence >= self.applied.sequence => self.applied,
            AcknowledgePolicy::Durable => self.durable,
        };
        if self.following.is_some() && position.sequence > self.acknowledged.sequence {
            self.acknowledged = position;
            let acknowledge = SenderEffect::Tell(PeerMessage::Acknowledge { position });
            self.sender.do_send(SenderMessage::Do(acknowledge));
        }
    }

    fn end_drain(&mut self) {
        if let Some(Draining { ticket, flushed: true, reached: Some(position) }) = self.draining {
            self.draining = None;
            self.report(Event::Drained { ticket, position });
        }
    }

    fn report(&self, event: Event) {
        self.supervisor.do_send(SupervisorMessage::Event(event));
    }

    fn carry_out(&mut self, effect: ApplierEffect) {
        match effect {
            ApplierEffect::Follow { link, position, rule } => self.follow(link, position, rule),
            ApplierEffect::AcknowledgeBy(rule) => {
                self.rule = rule;
                self.acknowledge();
            }
            ApplierEffect::Drain { ticket, with_pending } => self.drain(ticket, with_pending),
            ApplierEffect::DropPending { position } => {
                if self.pending.take().is_some() {
                    self.log_writer.do_send(LogWriterMessage::TruncateAfter(position));
                }
            }
            ApplierEffect::ForgetPending => self.pending = None,
        }
    }

    fn follow(&mut self, link: LinkId, position: Position, rule: AcknowledgeRule) {
        self.following = Some(link);
        self.rule = rule;
        self.received = position;
        self.applied = position;
        self.durable = position;
        self.acknowledged = position;
        self.backlog_bytes = 0;
        self.job(ApplyJob::Follow);
    }

    fn drain(&mut self, ticket: u64, with_pending: bool) {
        if with_pending {
            // The node takes over: what still arrives belongs to nobody.
            self.following = None;
            // It may have been a primary since a batch was last applied: the position to go on from is in the database.
            self.job(ApplyJob::Follow);
            if let Some(batch) = self.pending.take() {
                self.job(ApplyJob::Apply(batch));
            }
            // The last batch's mark in the log says that its outcome is open; from here on the database says otherwise.
            self.job(ApplyJob::Sync);
        }
        self.draining = Some(Draining { ticket, flushed: false, reached: None });
        self.job(ApplyJob::Barrier { ticket });
        self.log_writer.do_send(LogWriterMessage::FlushFor { ticket });
    }

    fn batch_arrived(&mut self, link: LinkId, bytes: Bytes) {
        if self.following != Some(link) {
            return;
        }
        if let Err(why) = self.receive(bytes) {
            self.following = None;
            self.report(Event::LinkLost { link, why });
        }
    }

    fn log_progressed(&mut self, position: Position, durable: bool) {
        if durable && self.following.is_some() {
            self.durable = position;
            self.acknowledge();
        }
    }

    fn thread_reports(&mut self, report: ApplyReport) {
        match report {
            ApplyReport::Applied { position, bytes } => {
                self.applied = position;
                self.backlog_bytes = self.backlog_bytes.saturating_sub(bytes);
                self.report(Event::Applied { position });
                self.acknowledge();
            }
            ApplyReport::Reached { ticket, position } => {
                if let Some(draining) = self.draining(ticket) {
                    draining.reached = Some(position);
                    self.end_drain();
                }
            }
            // Said where the thread was started; nothing follows from it.
            ApplyReport::Hindered { .. } => {}
            ApplyReport::Room(room) => self.report(Event::Room(room)),
            ApplyReport::Failed(error) => {
                self.following = None;
                self.report(Event::ApplyFailed { detail: error.detail().to_owned() });
            }
        }
    }

    fn draining(&mut self, ticket: u64) -> Option<&mut Draining> {
        self.draining.as_mut().filter(|draining| draining.ticket == ticket)
    }
}

impl Actor for SecondaryApplier {
    type Context = Context<Self>;
}

impl Handler<ApplierMessage> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, message: ApplierMessage, _: &mut Context<Self>) {
        match message {
            ApplierMessage::Do(effect) => self.carry_out(effect),
            ApplierMessage::KeepPending(batch) => self.pending = Some(batch),
            ApplierMessage::BatchArrived { link, bytes } => self.batch_arrived(link, bytes),
            ApplierMessage::LogProgress { position, durable } => self.log_progressed(position, durable),
            ApplierMessage::Flushed { ticket } => {
                if let Some(draining) = self.draining(ticket) {
                    draining.flushed = true;
                    self.end_drain();
                }
            }
            ApplierMessage::Thread(report) => self.thread_reports(report),
        }
    }
}
