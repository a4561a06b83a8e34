//! The probe: one actor in the place of all others. It has one mailbox, so its list shows the order of sending.

use std::sync::{Arc, Mutex};

use actix::prelude::*;
use hotstandby::actors::log_writer::LogWriterMessage;
use hotstandby::actors::ping_monitor::PingMessage;
use hotstandby::actors::replication_sender::SenderMessage;
use hotstandby::actors::secondary_applier::ApplierMessage;
use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::hsb::effect::{ApplierEffect, LogWriterEffect, PingEffect, SenderEffect};
use hotstandby::hsb::event::{Event, PeerMessage, Room, Store};

/// What was told, in order: `receiver <- message`.
#[derive(Clone, Default)]
pub struct Record {
    lines: Arc<Mutex<Vec<String>>>,
    ticket: Arc<Mutex<u64>>,
}

/// Something told to whoever is no actor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Line(pub String);

pub struct Probe(Record);

impl Record {
    /// Stands in for every receiver of messages.
    pub fn probe(&self) -> Addr<Probe> {
        Probe(self.clone()).start()
    }

    /// Lets all mailboxes run dry, then takes what was written down.
    pub async fn take(&self) -> Vec<String> {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    /// The ticket of the last drain.
    pub fn ticket(&self) -> u64 {
        *self.ticket.lock().unwrap()
    }
}

impl Actor for Probe {
    type Context = Context<Self>;
}

impl Probe {
    fn add(&self, receiver: &str, words: &str) {
        self.0.lines.lock().unwrap().push(format!("{receiver} <- {words}"));
    }
}

impl Handler<LogWriterMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: LogWriterMessage, _: &mut Context<Self>) {
        let words = match message {
            LogWriterMessage::Append { batch, sync, .. } => {
                let sync = if sync { ", sync" } else { "" };
                let marked = if batch.header.needs_acknowledgement { ", to be acknowledged" } else { "" };
                format!("append {}{sync}{marked}", batch.after.sequence)
            }
            LogWriterMessage::Do(LogWriterEffect::Flush) => "flush".into(),
            LogWriterMessage::Do(LogWriterEffect::RetainFrom(position)) => {
                format!("retain from {}", position.sequence)
            }
            LogWriterMessage::FlushFor { .. } => "flush and report".into(),
            LogWriterMessage::TruncateAfter(position) => format!("truncate after {}", position.sequence),
            LogWriterMessage::Thread(report) => format!("{report:?}"),
        };
        self.add("log writer", &words);
    }
}

impl Handler<SenderMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: SenderMessage, _: &mut Context<Self>) {
        let words = match message {
            SenderMessage::Attach { .. } => "attach".into(),
            SenderMessage::Send(batch) => format!("batch {}", batch.after.sequence),
            SenderMessage::Do(SenderEffect::Tell(message)) => match message {
                PeerMessage::Acknowledge { position } => format!("acknowledge {}", position.sequence),
                PeerMessage::HandOver { position } => format!("HandOver at {}", position.sequence),
                PeerMessage::GoActive { position } => format!("GoActive at {}", position.sequence),
                PeerMessage::Accept { .. } => "Accept".into(),
                other => format!("{other:?}"),
            },
            SenderMessage::Do(SenderEffect::Close { farewell }) => format!("close, farewell {farewell:?}"),
            SenderMessage::Do(SenderEffect::CheckHistory(position)) => {
                format!("check history for {}", position.sequence)
            }
            SenderMessage::Do(SenderEffect::StartCatchup) => "start catchup".into(),
            SenderMessage::Do(SenderEffect::StopCatchup) => "stop catchup".into(),
            other => format!("{other:?}"),
        };
        self.add("sender", &words);
    }
}

impl Handler<ApplierMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: ApplierMessage, _: &mut Context<Self>) {
        let words = match message {
            ApplierMessage::Do(ApplierEffect::Follow { position, .. }) => {
                format!("follow from {}", position.sequence)
            }
            ApplierMessage::Do(ApplierEffect::AcknowledgeBy(rule)) => {
                format!("acknowledge by {}", rule.policy)
            }
            ApplierMessage::Do(ApplierEffect::Drain { ticket, with_pending }) => {
                *self.0.ticket.lock().unwrap() = ticket;
                format!("drain, with pending: {with_pending}")
            }
            ApplierMessage::Do(ApplierEffect::DropPending { .. }) => "drop pending".into(),
            ApplierMessage::Do(ApplierEffect::ForgetPending) => "forget pending".into(),
            ApplierMessage::KeepPending(batch) => format!("keep pending {}", batch.after.sequence),
            other => format!("{other:?}"),
        };
        self.add("applier", &words);
    }
}

impl Handler<PingMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: PingMessage, _: &mut Context<Self>) {
        let words = match message {
            PingMessage::Do(PingEffect::Start { .. }) => "start".into(),
            PingMessage::Do(PingEffect::Stop) => "stop".into(),
            PingMessage::Heard { link } => format!("heard on {link}"),
        };
        self.add("ping monitor", &words);
    }
}

impl Handler<SupervisorMessage> for Probe {
    type Result = ();
    fn handle(&mut self, message: SupervisorMessage, _: &mut Context<Self>) {
        let words = match message {
            SupervisorMessage::Event(Event::LinkLost { link, why }) => format!("link {link} lost: {why}"),
            SupervisorMessage::Event(Event::Applied { position }) => format!("applied {}", position.sequence),
            SupervisorMessage::Event(Event::Drained { position, .. }) => {
                format!("drained {}", position.sequence)
            }
            SupervisorMessage::Event(Event::Room(Room { store: Store::Database, lacks })) => {
                format!("room, lacks {lacks:?}")
            }
            SupervisorMessage::Event(Event::ApplyFailed { detail }) => format!("failed: {detail}"),
            other => format!("{other:?}"),
        };
        self.add("supervisor", &words);
    }
}

impl Handler<Line> for Probe {
    type Result = ();
    fn handle(&mut self, Line(line): Line, _: &mut Context<Self>) {
        self.0.lines.lock().unwrap().push(line);
    }
}
