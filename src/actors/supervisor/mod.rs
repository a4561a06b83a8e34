//! The supervisor: owns the heart, enforces the state transitions, turns its effects into messages.
//!
//! Nothing here decides. Every message becomes one event of the heart; `Supervisor::carry_out` is the reverse. Invariant:
//! what a message or an effect is about is matched exhaustively here, group by group; nothing falls through.

mod messages;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use actix::prelude::*;
use crossbeam_channel::Sender;

pub use self::messages::*;
use super::link::PeerStream;
use super::log_writer::LogWriterMessage;
use super::ping_monitor::PingMessage;
use super::replication_sender::SenderMessage;
use super::secondary_applier::ApplierMessage;
use crate::hsb::codes::Code;
use crate::hsb::effect::{
    AnswerEffect, ApplierEffect, BatchEffect, CopyKind, Decision, Effect, NodeEffect, WriterEffect,
};
use crate::hsb::event::{BatchInfo, Event, Hello, LinkId, Purpose, RequestId};
use crate::hsb::heart::Heart;
use crate::hsb::refusal::Refusal;
use crate::net::peer::handshake;
use crate::services::context::Answer;
use crate::storage::batch::Batch;
use crate::storage::writer::{Submission, WriterRequest};

/// The actors that the supervisor tells what to do.
pub struct Peers {
    /// Writes the log.
    pub log_writer: Recipient<LogWriterMessage>,
    /// Owns the connection.
    pub sender: Recipient<SenderMessage>,
    /// Follows a primary.
    pub applier: Recipient<ApplierMessage>,
    /// Watches the connection.
    pub monitor: Recipient<PingMessage>,
}

/// What the supervisor does to the world besides sending messages. The node implements it; tests write it down.
pub trait Outside {
    /// What the heart wants of the writer of the database.
    fn tell_writer(&mut self, effect: WriterEffect);
    /// What the heart wants of the node. What takes time is done on a thread of its own, which reports.
    fn carry_out(&mut self, effect: NodeEffect);
    /// Copy the database to this directory on a thread of its own and report [`Event::CopyEnded`].
    fn write_copy(&mut self, kind: CopyKind, directory: PathBuf);
    /// After every event: what `hsb status` and the like show.
    fn publish(&mut self, heart: &Heart);
    /// A netcopy from or to this node is over.
    fn netcopy_ended(&mut self, result: &Result<(), Refusal>);
}

/// See the module.
pub struct Supervisor {
    heart: Heart,
    peers: Peers,
    outside: Box<dyn Outside>,
    /// The batch that was submitted last, for log, peer and "pending".
    batch: Option<Batch>,
    /// The batch that the heart holds back.
    held: Option<Submission>,
    replies: HashMap<RequestId, Sender<Answer>>,
    arrivals: HashMap<LinkId, Box<dyn PeerStream>>,
    copy_reply: Option<Sender<Result<Hello, Refusal>>>,
    copy_directory: PathBuf,
    last_number: u64,
}

impl Supervisor {
    /// A supervisor for a heart that has not started yet.
    pub fn new(heart: Heart, peers: Peers, outside: Box<dyn Outside>) -> Supervisor {
        Supervisor {
            heart,
            peers,
            outside,
            batch: None,
            held: None,
            replies: HashMap::new(),
            arrivals: HashMap::new(),
            copy_reply: None,
            copy_directory: PathBuf::new(),
            last_number: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// A number for what is asked, and who hears the answer.
    fn request(&mut self, reply: Sender<Answer>) -> RequestId {
        let request = self.number();
        self.replies.insert(request, reply);
        request
    }

    fn hear(&mut self, event: Event, context: &mut Context<Self>) {
        let effects = self.heart.handle(event);
        self.carry_out_all(effects, context);
    }

    fn carry_out_all(&mut self, effects: Vec<Effect>, context: &mut Context<Self>) {
        for effect in effects {
            self.carry_out(effect, context);
        }
        self.outside.publish(&self.heart);
    }

    fn carry_out(&mut self, effect: Effect, context: &mut Context<Self>) {
        match effect {
            Effect::Batch(effect) => self.carry_out_on_batch(effect, context),
            Effect::Writer(effect) => {
                if let WriterEffect::Decide(_) = effect {
                    self.held = self.held.take().filter(|_| self.heart.is_holding());
                }
                self.outside.tell_writer(effect);
            }
            Effect::LogWriter(effect) => self.peers.log_writer.do_send(LogWriterMessage::Do(effect)),
            Effect::Sender(effect) => self.peers.sender.do_send(SenderMessage::Do(effect)),
            Effect::Applier(effect) => self.peers.applier.do_send(ApplierMessage::Do(effect)),
            Effect::PingMonitor(effect) => self.peers.monitor.do_send(PingMessage::Do(effect)),
            // Whoever is told of a change and looks at once has to see it; so has the peer that is asked and asks back.
            Effect::Answer(effect) => {
                self.outside.publish(&self.heart);
                self.answer(effect);
            }
            Effect::Node(effect) => {
                // What contradicts itself is told nobody.
                if !matches!(effect, NodeEffect::Stop { .. }) {
                    self.outside.publish(&self.heart);
                }
                self.outside.carry_out(effect);
            }
            Effect::WriteCopy(kind) => {
                self.outside.write_copy(kind, std::mem::take(&mut self.copy_directory));
            }
            Effect::StartTimer { timer, after_ms } => {
                context.run_later(Duration::from_millis(after_ms), move |me, context| {
                    me.hear(Event::TimedOut { timer }, context);
                });
            }
        }
    }

    fn carry_out_on_batch(&mut self, effect: BatchEffect, context: &mut Context<Self>) {
        match effect {
            BatchEffect::Log { sync, only_here } => {
                if let Some(batch) = self.batch.clone() {
                    self.peers.log_writer.do_send(LogWriterMessage::Append { batch, sync, only_here });
                }
            }
            BatchEffect::Send => {
                if let Some(batch) = self.batch.clone() {
                    self.peers.sender.do_send(SenderMessage::Send(batch));
                }
            }
            // It was put aside when it came.
            BatchEffect::Hold => {}
            BatchEffect::Release => {
                if let Some(submission) = self.held.take() {
                    self.submit(submission, context);
                }
            }
            BatchEffect::KeepPending => {
                let pending = self.batch.take();
                let message = pending
                    .map_or(ApplierMessage::Do(ApplierEffect::ForgetPending), ApplierMessage::KeepPending);
                self.peers.applier.do_send(message);
            }
        }
    }

    fn answer(&mut self, effect: AnswerEffect) {
        match effect {
            AnswerEffect::Reply { request, code, text } => {
                if let Some(reply) = self.replies.remove(&request) {
                    // An operator who has gone away misses the answer, not the effect.
                    let _ = reply.send(vec![(code.number(), text)]);
                }
            }
            AnswerEffect::Welcome { link, hello } => self.welcome(link, hello),
            AnswerEffect::TurnAway { link, refusal } => {
                if let Some(mut stream) = self.arrivals.remove(&link) {
                    handshake::refuse(&mut stream, refusal);
                }
            }
            AnswerEffect::AdmitCopy { hello } => self.answer_copy(Ok(hello)),
            AnswerEffect::RefuseCopy(refusal) => self.answer_copy(Err(refusal)),
        }
    }

    fn welcome(&mut self, link: LinkId, hello: Hello) {
        let Some(mut stream) = self.arrivals.remove(&link) else { return };
        if let Err(why) = handshake::welcome(&mut stream, hello) {
            // The heart hears of it when the link it now counts on reports its end.
            log::warn!("a peer left during the handshake: {}", why.detail);
        }
        self.peers.sender.do_send(SenderMessage::Attach { link, stream });
    }

    fn answer_copy(&mut self, answer: Result<Hello, Refusal>) {
        if let Some(reply) = self.copy_reply.take() {
            let _ = reply.send(answer);
        }
    }

    fn dial_ended(
        &mut self,
        request: RequestId,
        purpose: Purpose,
        outcome: Result<(Box<dyn PeerStream>, Hello), Refusal>,
        context: &mut Context<Self>,
    ) {
        let event = match outcome {
            // The heart has given it up, and may have another connection by now: this one must not take its place.
            Ok((mut stream, _)) if !self.heart.is_dialling(request) => return handshake::leave(&mut stream),
            Ok((stream, hello)) if purpose == Purpose::Connect => {
                let link = self.number();
                self.peers.sender.do_send(SenderMessage::Attach { link, stream });
                Event::Dialled { request, link: Some(link), hello }
            }
            Ok((_, hello)) => Event::Dialled { request, link: None, hello },
            Err(refusal) => Event::DialFailed { request, refusal },
        };
        self.hear(event, context);
    }

    fn submit(&mut self, submission: Submission, context: &mut Context<Self>) {
        let durability = submission.durability;
        let needs_acknowledgement = self.heart.needs_acknowledgement(submission.safeness, durability);
        let batch = match submission.batch.marked(needs_acknowledgement) {
            Ok(batch) => batch,
            Err(error) => {
                log::error!("a batch cannot be sealed anew: {error}");
                return self
                    .outside
                    .tell_writer(WriterEffect::Decide(Decision::Reject(Code::FAILED_UNEXPECTEDLY)));
            }
        };
        let strict = self.heart.settings().is_strict(durability, needs_acknowledgement);
        let info = BatchInfo {
            before: batch.header.before,
            after: batch.after,
            needs_acknowledgement,
            strict,
            bytes: batch.bytes.len(),
        };
        let effects = self.heart.handle(Event::BatchReady(info));
        if effects.contains(&BatchEffect::Hold.into()) {
            self.held = Some(submission);
        } else {
            self.batch = Some(batch);
        }
        self.carry_out_all(effects, context);
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let effects = self.heart.start();
        self.carry_out_all(effects, context);
    }
}

impl Handler<SupervisorMessage> for Supervisor {
    type Result = ();
    fn handle(&mut self, message: SupervisorMessage, context: &mut Context<Self>) {
        match message {
            SupervisorMessage::Event(event) => self.hear(event, context),
            SupervisorMessage::Writer(WriterRequest::Submit(submission)) => self.submit(submission, context),
            SupervisorMessage::Writer(WriterRequest::Withdraw) => self.hear(Event::Withdraw, context),
            SupervisorMessage::Writer(WriterRequest::Room(room)) => self.hear(Event::Room(room), context),
            SupervisorMessage::Operator { command, reply } => {
                let request = self.request(reply);
                self.hear(Event::Command { request, command }, context);
            }
            SupervisorMessage::CopyToDirectory { command, directory, reply } => {
                self.copy_directory = directory;
                let request = self.request(reply);
                self.hear(Event::Command { request, command }, context);
            }
            SupervisorMessage::ShutDown { reply } => {
                let request = self.request(reply);
                self.hear(Event::ShuttingDown { request }, context);
            }
            SupervisorMessage::DialEnded { request, purpose, outcome } => {
                self.dial_ended(request, purpose, outcome, context);
            }
            SupervisorMessage::PeerArrived { stream, hello } => {
                let link = self.number();
                self.arrivals.insert(link, stream);
                self.hear(Event::PeerArrived { link, hello }, context);
            }
            SupervisorMessage::CopyArrives { hello, common, reply } => {
                self.copy_reply = Some(reply);
                self.hear(Event::CopyArrives { hello, common }, context);
            }
            SupervisorMessage::CopyReceived { opened, known } => {
                let result = opened.as_ref().map(drop).map_err(Clone::clone);
                self.hear(Event::CopyReceived { opened }, context);
                // The thread that waits for it does so until this node ends.
                let _ = known.send(());
                self.outside.netcopy_ended(&result);
            }
            SupervisorMessage::NetcopyEnded { result } => {
                self.hear(Event::CopyEnded { result: result.clone() }, context);
                self.outside.netcopy_ended(&result);
            }
        }
    }
}
