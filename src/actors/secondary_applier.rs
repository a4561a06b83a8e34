//! The secondary applier: receives the primary's batches in order, has them logged and applied, acknowledges.
//!
//! It also holds the pending batch of a node that was a primary (R3, R7), which stays in the log until the new
//! primary's history says whether it exists.

use actix::prelude::*;
use bytes::Bytes;
use crossbeam_channel::Sender;

use super::log_writer::{Append, Flush, Flushed, LogProgress, TruncateAfter};
use super::replication_sender::Tell;
use super::supervisor::ApplierSays;
use super::threads::apply::{ApplyJob, ApplyReport};
use crate::hsb::event::{LinkId, PeerMessage};
use crate::hsb::position::Position;
use crate::hsb::settings::AcknowledgePolicy;
use crate::storage::batch::Batch;

/// With this much received and not yet applied, "received" is not acknowledged until apply has come along: the
/// primary slows down instead of this node's memory filling up.
const BACKLOG_BYTES: usize = 32 << 20;

/// From the supervisor: follow the primary on this connection; start at the database's own position.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct Follow {
    /// Batches of other connections are ignored.
    pub link: LinkId,
    /// When to acknowledge; the primary's rule.
    pub policy: AcknowledgePolicy,
    /// The decided position.
    pub position: Position,
    /// Strict durability: what is applied is in the log on disk. Otherwise a power cut may leave the database ahead of the
    /// log, which begins anew then and is of no use to the other server for catching up.
    pub strict: bool,
}

/// From the supervisor: the primary has changed its rule; it counts for what comes, and for what is not acknowledged.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct AcknowledgeBy {
    /// When to acknowledge.
    pub policy: AcknowledgePolicy,
    /// As in [`Follow`].
    pub strict: bool,
}

/// From the connection: one frame that says it is a batch.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct BatchArrived {
    /// On which connection.
    pub link: LinkId,
    /// The frame, unchecked.
    pub bytes: Bytes,
}

/// From the supervisor: report when all that was received is applied and on disk. Answered by [`ApplierSays::Drained`].
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct Drain {
    /// Comes back.
    pub ticket: u64,
    /// The pending batch counts as decided: apply it too.
    pub with_pending: bool,
}

/// From the supervisor: this batch was abandoned (set secondary alone, a failed switch); keep it. None: the database
/// was replaced, forget what was pending in the old one.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct KeepPending(pub Option<Batch>);

/// From the supervisor: the pending batch does not exist in the primary's history.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct DropPending {
    /// The last decided position.
    pub position: Position,
}

/// A report of the apply thread.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct FromApplyThread(pub ApplyReport);

struct Draining {
    ticket: u64,
    flushed: bool,
    reached: Option<Position>,
}

/// See the module.
pub struct SecondaryApplier {
    /// The apply thread's jobs.
    pub jobs: Sender<ApplyJob>,
    /// The log writer.
    pub append: Recipient<Append>,
    /// The log writer.
    pub flush: Recipient<Flush>,
    /// The log writer.
    pub truncate: Recipient<TruncateAfter>,
    /// The replication sender, for acknowledgements.
    pub tell: Recipient<Tell>,
    /// The supervisor.
    pub supervisor: Recipient<ApplierSays>,
    /// The batch whose outcome is open.
    pub pending: Option<Batch>,
    following: Option<LinkId>,
    policy: AcknowledgePolicy,
    strict: bool,
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
        log_writer: (Recipient<Append>, Recipient<Flush>, Recipient<TruncateAfter>),
        tell: Recipient<Tell>,
        supervisor: Recipient<ApplierSays>,
        pending: Option<Batch>,
    ) -> SecondaryApplier {
        let (append, flush, truncate) = log_writer;
        SecondaryApplier {
            jobs,
            append,
            flush,
            truncate,
            tell,
            supervisor,
            pending,
            following: None,
            policy: AcknowledgePolicy::Received,
            strict: false,
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
                self.truncate.do_send(TruncateAfter(self.received));
            }
            same
        });
        if in_log {
            self.flush.do_send(Flush { ticket: None });
        } else {
            // The apply thread waits for what the log thread publishes, which is what is synced then.
            let sync = self.strict || self.policy == AcknowledgePolicy::Durable;
            self.append.do_send(Append { batch: batch.clone(), sync, only_here: false });
        }
        self.received = batch.after;
        self.backlog_bytes += batch.bytes.len();
        self.job(ApplyJob::Apply(batch));
        self.acknowledge();
        Ok(())
    }

    /// Tells the primary how far this node is, by the policy in force.
    fn acknowledge(&mut self) {
        let position = match self.policy {
            AcknowledgePolicy::Received if self.backlog_bytes <= BACKLOG_BYTES => self.received,
            AcknowledgePolicy::Received | AcknowledgePolicy::Visible => self.applied,
            AcknowledgePolicy::Durable if self.durable.sequence >= self.applied.sequence => self.applied,
            AcknowledgePolicy::Durable => self.durable,
        };
        if self.following.is_some() && position.sequence > self.acknowledged.sequence {
            self.acknowledged = position;
            self.tell.do_send(Tell(PeerMessage::Acknowledge { position }));
        }
    }

    fn end_drain(&mut self) {
        if let Some(Draining { ticket, flushed: true, reached: Some(position) }) = self.draining {
            self.draining = None;
            self.supervisor.do_send(ApplierSays::Drained { ticket, position });
        }
    }
}

impl Actor for SecondaryApplier {
    type Context = Context<Self>;
}

impl Handler<Follow> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, Follow { link, policy, position, strict }: Follow, _: &mut Context<Self>) {
        self.following = Some(link);
        self.policy = policy;
        self.strict = strict;
        self.received = position;
        self.applied = position;
        self.durable = position;
        self.acknowledged = position;
        self.backlog_bytes = 0;
        self.job(ApplyJob::Follow);
    }
}

impl Handler<AcknowledgeBy> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, AcknowledgeBy { policy, strict }: AcknowledgeBy, _: &mut Context<Self>) {
        self.policy = policy;
        self.strict = strict;
        self.acknowledge();
    }
}

impl Handler<BatchArrived> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, BatchArrived { link, bytes }: BatchArrived, _: &mut Context<Self>) {
        if self.following != Some(link) {
            return;
        }
        if let Err(detail) = self.receive(bytes) {
            self.following = None;
            self.supervisor.do_send(ApplierSays::Unusable { link, detail });
        }
    }
}

impl Handler<Drain> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, Drain { ticket, with_pending }: Drain, _: &mut Context<Self>) {
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
        self.flush.do_send(Flush { ticket: Some(ticket) });
    }
}

impl Handler<KeepPending> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, KeepPending(batch): KeepPending, _: &mut Context<Self>) {
        self.pending = batch;
    }
}

impl Handler<DropPending> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, DropPending { position }: DropPending, _: &mut Context<Self>) {
        if self.pending.take().is_some() {
            self.truncate.do_send(TruncateAfter(position));
        }
    }
}

impl Handler<LogProgress> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, LogProgress { position, durable }: LogProgress, _: &mut Context<Self>) {
        if durable && self.following.is_some() {
            self.durable = position;
            self.acknowledge();
        }
    }
}

impl Handler<Flushed> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, Flushed { ticket }: Flushed, _: &mut Context<Self>) {
        if let Some(draining) = self.draining.as_mut().filter(|draining| draining.ticket == ticket) {
            draining.flushed = true;
            self.end_drain();
        }
    }
}

impl Handler<FromApplyThread> for SecondaryApplier {
    type Result = ();
    fn handle(&mut self, FromApplyThread(report): FromApplyThread, _: &mut Context<Self>) {
        match report {
            ApplyReport::Applied { position, bytes } => {
                self.applied = position;
                self.backlog_bytes = self.backlog_bytes.saturating_sub(bytes);
                self.supervisor.do_send(ApplierSays::Applied { position });
                self.acknowledge();
            }
            ApplyReport::Reached { ticket, position } => {
                if let Some(draining) = self.draining.as_mut().filter(|draining| draining.ticket == ticket) {
                    draining.reached = Some(position);
                    self.end_drain();
                }
            }
            // Said where the thread was started; nothing follows from it.
            ApplyReport::Hindered { .. } => {}
            ApplyReport::Room { lacks } => self.supervisor.do_send(ApplierSays::Room { lacks }),
            ApplyReport::Failed(error) => {
                self.following = None;
                self.supervisor.do_send(ApplierSays::Failed { detail: error.detail().to_owned() });
            }
        }
    }
}
