//! The probe: one actor in the place of all others. It has one mailbox, so its list shows the order of sending. It keeps
//! what it is told as values; what cannot be compared (connections, channels, sentences) is left out of them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use actix::prelude::*;
use hotstandby::actors::catchup::CatchupReport;
use hotstandby::actors::log_writer::LogWriterMessage;
use hotstandby::actors::ping_monitor::PingMessage;
use hotstandby::actors::replication_sender::SenderMessage;
use hotstandby::actors::secondary_applier::ApplierMessage;
use hotstandby::actors::supervisor::{Outside, SupervisorMessage};
use hotstandby::hsb::effect::{ApplierEffect, CopyKind, NodeEffect, PingEffect, SenderEffect, WriterEffect};
use hotstandby::hsb::event::{Command, Event, LinkId, PeerMessage};
use hotstandby::hsb::heart::Heart;
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::state::State;
use hotstandby::storage::batch::Batch;

/// What somebody was told.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub enum Told {
    LogWriter(LogWriterMessage),
    Sender(SenderEffect),
    SenderAttach(LinkId),
    SenderSend(Batch),
    SenderAcknowledged(LinkId, u64),
    SenderClosed(LinkId),
    SenderCatchup(LinkId, &'static str),
    SenderUseLog,
    Applier(ApplierMessage),
    PingMonitor(PingMessage),
    /// The supervisor, by an actor.
    Event(Event),
    /// The supervisor, by the admin handler.
    Operator(Command),
    /// The supervisor, by whoever has a connection or a channel with it.
    Supervisor(&'static str),
    Writer(WriterEffect),
    Entered(State, State),
    Alert(&'static str),
    Node(NodeEffect),
    WriteCopy(CopyKind, PathBuf),
    NetcopyEnded(Result<(), Refusal>),
}

/// What was told, in order.
#[derive(Clone, Default)]
pub struct Record {
    told: Arc<Mutex<Vec<Told>>>,
    /// That of the last drain.
    ticket: Arc<Mutex<Option<u64>>>,
}

pub struct Probe(Record);

impl Record {
    /// Stands in for every receiver of messages.
    pub fn probe(&self) -> Addr<Probe> {
        Probe(self.clone()).start()
    }

    fn add(&self, told: Told) {
        if let Told::Applier(ApplierMessage::Do(ApplierEffect::Drain { ticket, .. })) = &told {
            *self.ticket.lock().unwrap() = Some(*ticket);
        }
        self.told.lock().unwrap().push(told);
    }

    /// Lets all mailboxes run dry, then takes what was written down.
    pub async fn take(&self) -> Vec<Told> {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    /// The ticket of the last drain that the applier was told of.
    pub fn ticket(&self) -> u64 {
        self.ticket.lock().unwrap().expect("nobody was told to drain")
    }
}

/// The sender is to say this to the peer.
pub fn tell(message: PeerMessage) -> Told {
    Told::Sender(SenderEffect::Tell(message))
}

pub fn applier(effect: ApplierEffect) -> Told {
    Told::Applier(ApplierMessage::Do(effect))
}

pub fn pings(effect: PingEffect) -> Told {
    Told::PingMonitor(PingMessage::Do(effect))
}

impl Actor for Probe {
    type Context = Context<Self>;
}

impl Handler<LogWriterMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: LogWriterMessage, _: &mut Context<Self>) {
        self.0.add(Told::LogWriter(message));
    }
}

impl Handler<SenderMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: SenderMessage, _: &mut Context<Self>) {
        self.0.add(match message {
            SenderMessage::Do(effect) => Told::Sender(effect),
            SenderMessage::Attach { link, .. } => Told::SenderAttach(link),
            SenderMessage::Send(batch) => Told::SenderSend(batch),
            SenderMessage::Acknowledged { link, position } => {
                Told::SenderAcknowledged(link, position.sequence)
            }
            SenderMessage::Closed { link, .. } => Told::SenderClosed(link),
            SenderMessage::Catchup { link, report } => Told::SenderCatchup(
                link,
                match report {
                    CatchupReport::Checked(_) => "checked",
                    CatchupReport::NearEnd => "near the end",
                    CatchupReport::Failed(_) => "failed",
                },
            ),
            SenderMessage::UseLog(_) => Told::SenderUseLog,
        });
    }
}

impl Handler<ApplierMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: ApplierMessage, _: &mut Context<Self>) {
        self.0.add(Told::Applier(message));
    }
}

impl Handler<PingMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: PingMessage, _: &mut Context<Self>) {
        self.0.add(Told::PingMonitor(message));
    }
}

impl Handler<SupervisorMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: SupervisorMessage, _: &mut Context<Self>) {
        self.0.add(match message {
            SupervisorMessage::Event(event) => Told::Event(event),
            SupervisorMessage::Operator { command, reply } => {
                // Who waits for it gets the command's name as the answer.
                let _ = reply.send(vec![(0, format!("{command:?}"))]);
                Told::Operator(command)
            }
            SupervisorMessage::Writer(_) => Told::Supervisor("writer"),
            SupervisorMessage::CopyToDirectory { .. } => Told::Supervisor("copy to a directory"),
            SupervisorMessage::ShutDown { .. } => Told::Supervisor("shut down"),
            SupervisorMessage::DialEnded { .. } => Told::Supervisor("dial ended"),
            SupervisorMessage::PeerArrived { .. } => Told::Supervisor("peer arrived"),
            SupervisorMessage::CopyArrives { .. } => Told::Supervisor("copy arrives"),
            SupervisorMessage::CopyReceived { .. } => Told::Supervisor("copy received"),
            SupervisorMessage::NetcopyEnded { .. } => Told::Supervisor("netcopy ended"),
        });
    }
}

impl Handler<Told> for Probe {
    type Result = ();
    fn handle(&mut self, told: Told, _: &mut Context<Self>) {
        self.0.add(told);
    }
}

/// The world of a supervisor: a probe hears of it as well.
pub struct World(pub Addr<Probe>);

impl Outside for World {
    fn tell_writer(&mut self, effect: WriterEffect) {
        self.0.do_send(Told::Writer(effect));
    }
    fn carry_out(&mut self, effect: NodeEffect) {
        self.0.do_send(match effect {
            NodeEffect::Entered(change) => Told::Entered(change.from, change.to),
            NodeEffect::Alert { name, .. } => Told::Alert(name),
            NodeEffect::Note { .. } => return,
            effect => Told::Node(effect),
        });
    }
    fn write_copy(&mut self, kind: CopyKind, directory: PathBuf) {
        self.0.do_send(Told::WriteCopy(kind, directory));
    }
    fn publish(&mut self, _: &Heart) {}
    fn netcopy_ended(&mut self, result: &Result<(), Refusal>) {
        self.0.do_send(Told::NetcopyEnded(result.clone()));
    }
}
