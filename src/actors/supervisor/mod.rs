//! The supervisor: owns the heart, enforces the state transitions, turns its effects into messages.
//!
//! Nothing here decides. Every handler makes one event of one message; [`Supervisor::carry_out`] is the reverse.

mod messages;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use actix::prelude::*;
use crossbeam_channel::Sender;

pub use self::messages::*;
use super::link::PeerStream;
use super::log_writer::{Append, Flush, LogProgress, LogSize, RetainFrom, Room};
use super::ping_monitor::{StartPings, StopPings};
use super::replication_sender::{
    AttachLink, CheckHistory, CloseLink, SendBatch, StartCatchup, StopCatchup, Tell,
};
use super::secondary_applier::{AcknowledgeBy, Drain, DropPending, Follow, KeepPending};
use crate::hsb::codes::Code;
use crate::hsb::event::{
    Admission, BatchInfo, ConnectStatus, Decision, Effect, Event, Hello, LinkId, Purpose, RequestId, Store,
};
use crate::hsb::heart::Heart;
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::hsb::settings::{DurabilityLevel, Safeness, Settings};
use crate::hsb::severity::Severity;
use crate::hsb::state::State;
use crate::logging;
use crate::net::peer::handshake;
use crate::storage::batch::Batch;
use crate::storage::writer::{Submission, WriterRequest};

/// The actors that the supervisor tells what to do.
pub struct Peers {
    /// The log writer.
    pub append: Recipient<Append>,
    /// The log writer.
    pub flush: Recipient<Flush>,
    /// The log writer.
    pub retain: Recipient<RetainFrom>,
    /// The replication sender.
    pub attach: Recipient<AttachLink>,
    /// The replication sender.
    pub send: Recipient<SendBatch>,
    /// The replication sender.
    pub tell: Recipient<Tell>,
    /// The replication sender.
    pub close: Recipient<CloseLink>,
    /// The replication sender.
    pub check_history: Recipient<CheckHistory>,
    /// The replication sender.
    pub start_catchup: Recipient<StartCatchup>,
    /// The replication sender.
    pub stop_catchup: Recipient<StopCatchup>,
    /// The applier.
    pub follow: Recipient<Follow>,
    /// The applier.
    pub drain: Recipient<Drain>,
    /// The applier.
    pub keep_pending: Recipient<KeepPending>,
    /// The applier.
    pub drop_pending: Recipient<DropPending>,
    /// The applier.
    pub acknowledge_by: Recipient<AcknowledgeBy>,
    /// The ping monitor.
    pub start_pings: Recipient<StartPings>,
    /// The ping monitor.
    pub stop_pings: Recipient<StopPings>,
}

/// What the supervisor does to the world besides sending messages. The node implements it; tests write it down.
pub trait Outside {
    /// The outcome of the batch in hand.
    fn decide(&mut self, decision: Decision);
    /// Who may write.
    fn admit(&mut self, admission: Admission);
    /// This node writes history from here on.
    fn begin_history(&mut self, position: Position, epoch: u64);
    /// The state changed; called once for each change, in order.
    fn entered(&mut self, from: State, to: State, reason: &'static str);
    /// The connect status changed.
    fn connect_status(&mut self, status: ConnectStatus);
    /// Something that an operator should know of at once.
    fn alert(&mut self, name: &'static str, severity: Severity, text: &str);
    /// After every event: what `hsb status` and the like show.
    fn publish(&mut self, heart: &Heart);
    /// Reach the peer on a thread of its own and report [`DialEnded`].
    fn dial(&mut self, request: RequestId, purpose: Purpose, hello: Hello);
    /// Copy the database to the peer on a thread of its own and report [`CopyEnded`].
    fn send_copy(&mut self, hello: Hello);
    /// Take back what the primary's history lacks on a thread of its own and report [`Rewound`].
    fn rewind(&mut self);
    /// Copy the database to this directory on a thread of its own and report [`CopyEnded`].
    fn write_copy(&mut self, directory: PathBuf, backup: bool);
    /// A netcopy from or to this node is over.
    fn netcopy_ended(&mut self, result: &Result<(), Refusal>);
    /// Close the sessions: the database is about to be replaced.
    fn close_sessions(&mut self, code: Code);
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
    replies: HashMap<RequestId, Sender<crate::services::context::Answer>>,
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
        // Whoever is told of a change and looks at once has to see it; so has the peer that is asked and asks back.
        let is_noticed = matches!(
            effect,
            Effect::Reply { .. } | Effect::Entered { .. } | Effect::ConnectStatus(_) | Effect::Dial { .. }
        );
        if is_noticed {
            self.outside.publish(&self.heart);
        }
        match effect {
            Effect::Reply { request, code, text } => self.answer(request, code, text),
            Effect::Entered { from, to, reason } => self.outside.entered(from, to, reason),
            Effect::ConnectStatus(status) => self.outside.connect_status(status),
            Effect::Note(severity, text) => logging::say(severity, &text),
            Effect::Alert { name, severity, text } => self.outside.alert(name, severity, &text),
            Effect::Retain(position) => self.peers.retain.do_send(RetainFrom(position)),
            Effect::BeginHistory { position, epoch } => self.outside.begin_history(position, epoch),
            Effect::Admit(admission) => self.outside.admit(admission),
            Effect::Decide(decision) => {
                self.held = self.held.take().filter(|_| self.heart.is_holding());
                self.outside.decide(decision);
            }
            Effect::Log { sync, only_here } => {
                if let Some(batch) = self.batch.clone() {
                    self.peers.append.do_send(Append { batch, sync, only_here });
                }
            }
            Effect::Send => {
                if let Some(batch) = self.batch.clone() {
                    self.peers.send.do_send(SendBatch(batch));
                }
            }
            Effect::Hold => {}
            Effect::Release => {
                if let Some(submission) = self.held.take() {
                    self.submit(submission, context);
                }
            }
            Effect::Flush => self.peers.flush.do_send(Flush { ticket: None }),
            Effect::KeepPending => self.peers.keep_pending.do_send(KeepPending(self.batch.take())),
            Effect::ForgetPending => self.peers.keep_pending.do_send(KeepPending(None)),
            Effect::DropPending => {
                self.peers.drop_pending.do_send(DropPending { position: self.heart.decided() })
            }
            Effect::Drain { ticket, with_pending } => {
                self.peers.drain.do_send(Drain { ticket, with_pending })
            }
            other => self.carry_out_on_link(other, context),
        }
    }

    fn carry_out_on_link(&mut self, effect: Effect, context: &mut Context<Self>) {
        let link = self.heart.link();
        match effect {
            Effect::Dial { request, purpose } => self.outside.dial(request, purpose, self.heart.hello()),
            Effect::Welcome(id) => self.welcome(id),
            Effect::TurnAway { link, refusal } => {
                if let Some(mut stream) = self.arrivals.remove(&link) {
                    handshake::refuse(&mut stream, refusal);
                }
            }
            Effect::Tell(message) => self.peers.tell.do_send(Tell(message)),
            Effect::Close { farewell } => self.peers.close.do_send(CloseLink { farewell }),
            Effect::CheckHistory(position) => self.peers.check_history.do_send(CheckHistory(position)),
            Effect::StartCatchup => self.peers.start_catchup.do_send(StartCatchup),
            Effect::StopCatchup => self.peers.stop_catchup.do_send(StopCatchup),
            Effect::Follow { pair } => {
                if let Some(link) = link {
                    let (policy, position) = (pair.acknowledge_policy, self.heart.decided());
                    let strict = self.heart.settings().durability == DurabilityLevel::Strict;
                    self.peers.follow.do_send(Follow { link, policy, position, strict });
                }
            }
            Effect::StartPings(pair) => {
                if let Some(link) = link {
                    self.peers.start_pings.do_send(StartPings { link, pair });
                }
            }
            Effect::AcknowledgeBy(Settings { pair, durability, .. }) => {
                let (policy, strict) = (pair.acknowledge_policy, durability == DurabilityLevel::Strict);
                self.peers.acknowledge_by.do_send(AcknowledgeBy { policy, strict });
            }
            Effect::StopPings => self.peers.stop_pings.do_send(StopPings),
            Effect::StartTimer { timer, after_ms } => {
                context.run_later(Duration::from_millis(after_ms), move |me, context| {
                    me.hear(Event::TimedOut { timer }, context);
                });
            }
            Effect::Rewind => self.outside.rewind(),
            Effect::SendCopy => self.outside.send_copy(self.heart.hello()),
            Effect::WriteCopy { backup } => self.outside.write_copy(self.copy_directory.clone(), backup),
            Effect::AdmitCopy => {
                self.outside.close_sessions(Code::SERVER_CLOSED);
                self.answer_copy(Ok(self.heart.hello()));
            }
            Effect::RefuseCopy(refusal) => self.answer_copy(Err(refusal)),
            other => log::error!("an effect that nobody carries out: {other:?}"),
        }
    }

    fn welcome(&mut self, link: LinkId) {
        let Some(mut stream) = self.arrivals.remove(&link) else { return };
        if let Err(why) = handshake::welcome(&mut stream, self.heart.hello()) {
            // The heart hears of it when the link it now counts on reports its end.
            log::warn!("a peer left during the handshake: {}", why.detail);
        }
        self.peers.attach.do_send(AttachLink { link, stream });
    }

    fn answer(&mut self, request: RequestId, code: Code, text: String) {
        if let Some(reply) = self.replies.remove(&request) {
            // An operator who has gone away misses the answer, not the effect.
            let _ = reply.send(vec![(code.number(), text)]);
        }
    }

    fn answer_copy(&mut self, answer: Result<Hello, Refusal>) {
        if let Some(reply) = self.copy_reply.take() {
            let _ = reply.send(answer);
        }
    }

    fn submit(&mut self, submission: Submission, context: &mut Context<Self>) {
        let two_safe = match submission.two_safe {
            Some(true) => Safeness::TwoSafe,
            Some(false) => Safeness::OneSafe,
            None => Safeness::Default,
        };
        let durability = submission.durability;
        let needs_acknowledgement = self.heart.needs_acknowledgement(two_safe, durability);
        let batch = match submission.batch.marked(needs_acknowledgement) {
            Ok(batch) => batch,
            Err(error) => {
                log::error!("a batch cannot be sealed anew: {error}");
                return self.outside.decide(Decision::Reject(Code::FAILED_UNEXPECTEDLY));
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
        if effects.contains(&Effect::Hold) {
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

impl Handler<FromWriter> for Supervisor {
    type Result = ();
    fn handle(&mut self, FromWriter(request): FromWriter, context: &mut Context<Self>) {
        match request {
            WriterRequest::Submit(submission) => self.submit(submission, context),
            WriterRequest::Withdraw => self.hear(Event::Withdraw, context),
            WriterRequest::Room { lacks } => {
                self.hear(Event::Room { store: Store::Database, lacks }, context)
            }
        }
    }
}

impl Handler<Operator> for Supervisor {
    type Result = ();
    fn handle(&mut self, Operator { command, reply }: Operator, context: &mut Context<Self>) {
        let request = self.number();
        self.replies.insert(request, reply);
        let event = match command {
            Some(command) => Event::Command { request, command },
            None => Event::ShuttingDown { request },
        };
        self.hear(event, context);
    }
}

impl Handler<LogProgress> for Supervisor {
    type Result = ();
    fn handle(&mut self, LogProgress { position, durable }: LogProgress, context: &mut Context<Self>) {
        self.hear(Event::Logged { position, durable }, context);
    }
}

impl Handler<Room> for Supervisor {
    type Result = ();
    fn handle(&mut self, Room { store, lacks }: Room, context: &mut Context<Self>) {
        self.hear(Event::Room { store, lacks }, context);
    }
}

impl Handler<LogSize> for Supervisor {
    type Result = ();
    fn handle(&mut self, LogSize { bytes, retained }: LogSize, context: &mut Context<Self>) {
        self.hear(Event::LogSize { bytes, retained }, context);
    }
}

impl Handler<Acknowledged> for Supervisor {
    type Result = ();
    fn handle(&mut self, Acknowledged { position }: Acknowledged, context: &mut Context<Self>) {
        self.hear(Event::Acknowledged { position }, context);
    }
}

impl Handler<LinkEnded> for Supervisor {
    type Result = ();
    fn handle(&mut self, LinkEnded { link, why }: LinkEnded, context: &mut Context<Self>) {
        self.hear(Event::LinkLost { link, why }, context);
    }
}

impl Handler<PeerSays> for Supervisor {
    type Result = ();
    fn handle(&mut self, PeerSays { link, message }: PeerSays, context: &mut Context<Self>) {
        self.hear(Event::PeerSays { link, message }, context);
    }
}

impl Handler<CatchupSays> for Supervisor {
    type Result = ();
    fn handle(&mut self, message: CatchupSays, context: &mut Context<Self>) {
        let event = match message {
            CatchupSays::Checked { link, result } => Event::HistoryChecked { link, result },
            CatchupSays::NearEnd { link } => Event::CatchupNearEnd { link },
        };
        self.hear(event, context);
    }
}

impl Handler<ApplierSays> for Supervisor {
    type Result = ();
    fn handle(&mut self, message: ApplierSays, context: &mut Context<Self>) {
        let event = match message {
            ApplierSays::Applied { position } => Event::Applied { position },
            ApplierSays::Drained { ticket, position } => Event::Drained { ticket, position },
            ApplierSays::Failed { detail } => Event::ApplyFailed { detail },
            ApplierSays::Room { lacks } => Event::Room { store: Store::Database, lacks },
            ApplierSays::Unusable { link, detail } => Event::LinkLost { link, why: detail },
        };
        self.hear(event, context);
    }
}

impl Handler<DialEnded> for Supervisor {
    type Result = ();
    fn handle(&mut self, DialEnded { request, purpose, outcome }: DialEnded, context: &mut Context<Self>) {
        let event = match outcome {
            // The heart has given it up, and may have another connection by now: this one must not take its place.
            Ok(_) if !self.heart.is_dialling(request) => return,
            Ok((stream, hello)) if purpose == Purpose::Connect => {
                let link = self.number();
                self.peers.attach.do_send(AttachLink { link, stream });
                Event::Dialled { request, link: Some(link), hello }
            }
            Ok((_, hello)) => Event::Dialled { request, link: None, hello },
            Err(refusal) => Event::DialFailed { request, refusal },
        };
        self.hear(event, context);
    }
}

impl Handler<PeerArrived> for Supervisor {
    type Result = ();
    fn handle(&mut self, PeerArrived { stream, hello }: PeerArrived, context: &mut Context<Self>) {
        let link = self.number();
        self.arrivals.insert(link, stream);
        self.hear(Event::PeerArrived { link, hello }, context);
    }
}

impl Handler<CopyArrives> for Supervisor {
    type Result = ();
    fn handle(&mut self, CopyArrives { hello, common, reply }: CopyArrives, context: &mut Context<Self>) {
        self.copy_reply = Some(reply);
        self.hear(Event::CopyArrives { hello, common }, context);
    }
}

impl Handler<CopyReceived> for Supervisor {
    type Result = ();
    fn handle(&mut self, CopyReceived { opened, known }: CopyReceived, context: &mut Context<Self>) {
        let result = opened.as_ref().map(drop).map_err(Clone::clone);
        self.hear(Event::CopyReceived { opened }, context);
        // The thread that waits for it does so until this node ends.
        let _ = known.send(());
        self.outside.netcopy_ended(&result);
    }
}

impl Handler<Rewound> for Supervisor {
    type Result = ();
    fn handle(&mut self, Rewound { result }: Rewound, context: &mut Context<Self>) {
        self.hear(Event::Rewound { result }, context);
    }
}

impl Handler<CopyToDirectory> for Supervisor {
    type Result = ();
    fn handle(&mut self, message: CopyToDirectory, context: &mut Context<Self>) {
        let CopyToDirectory { command, directory, reply } = message;
        self.copy_directory = directory;
        self.handle(Operator { command: Some(command), reply }, context);
    }
}

impl Handler<CopyEnded> for Supervisor {
    type Result = ();
    fn handle(&mut self, CopyEnded { netcopy, result }: CopyEnded, context: &mut Context<Self>) {
        self.hear(Event::CopyEnded { result: result.clone() }, context);
        if netcopy {
            self.outside.netcopy_ended(&result);
        }
    }
}

impl Handler<Checkpointed> for Supervisor {
    type Result = ();
    fn handle(&mut self, message: Checkpointed, context: &mut Context<Self>) {
        let Checkpointed { position, delete_log } = message;
        self.hear(Event::Checkpointed { position, delete_log }, context);
    }
}

impl Handler<NewSettings> for Supervisor {
    type Result = ();
    fn handle(&mut self, NewSettings(settings): NewSettings, context: &mut Context<Self>) {
        let effects = self.heart.set_settings(settings);
        self.carry_out_all(effects, context);
    }
}
