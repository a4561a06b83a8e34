//! The probe: one actor in the place of all others. It has one mailbox, so its list shows the order of sending.

use std::sync::{Arc, Mutex};

use actix::prelude::*;
use hotstandby::actors::log_writer::{Append, Flush, RetainFrom, TruncateAfter};
use hotstandby::actors::ping_monitor::{StartPings, StopPings};
use hotstandby::actors::replication_sender::{
    AttachLink, CheckHistory, CloseLink, SendBatch, StartCatchup, StopCatchup, Tell,
};
use hotstandby::actors::secondary_applier::{AcknowledgeBy, Drain, DropPending, Follow, KeepPending};
use hotstandby::actors::supervisor::{ApplierSays, LinkEnded};
use hotstandby::hsb::event::PeerMessage;

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

macro_rules! words {
    ($($receiver:literal: $message:ty => $words:expr;)*) => {
        $(impl Handler<$message> for Probe {
            type Result = ();
            fn handle(&mut self, message: $message, _: &mut Context<Self>) {
                let words: fn(&$message) -> String = $words;
                self.0.lines.lock().unwrap().push(format!("{} <- {}", $receiver, words(&message)));
            }
        })*
    };
}

words! {
    "log writer": Append => |Append { batch, sync, .. }| {
        let sync = if *sync { ", sync" } else { "" };
        let marked = if batch.header.needs_acknowledgement { ", to be acknowledged" } else { "" };
        format!("append {}{sync}{marked}", batch.after.sequence)
    };
    "log writer": Flush => |Flush { ticket }| if ticket.is_some() { "flush and report".into() } else { "flush".into() };
    "log writer": TruncateAfter => |TruncateAfter(position)| format!("truncate after {}", position.sequence);
    "log writer": RetainFrom => |RetainFrom(position)| format!("retain from {}", position.sequence);
    "sender": AttachLink => |_| "attach".into();
    "sender": SendBatch => |SendBatch(batch)| format!("batch {}", batch.after.sequence);
    "sender": Tell => |Tell(message)| match message {
        PeerMessage::Acknowledge { position } => format!("acknowledge {}", position.sequence),
        PeerMessage::HandOver { position } => format!("HandOver at {}", position.sequence),
        PeerMessage::GoActive { position } => format!("GoActive at {}", position.sequence),
        PeerMessage::Accept { .. } => "Accept".into(),
        other => format!("{other:?}"),
    };
    "sender": CloseLink => |CloseLink { farewell }| format!("close, farewell {farewell:?}");
    "sender": CheckHistory => |CheckHistory(position)| format!("check history for {}", position.sequence);
    "sender": StartCatchup => |_| "start catchup".into();
    "sender": StopCatchup => |_| "stop catchup".into();
    "applier": Follow => |Follow { position, .. }| format!("follow from {}", position.sequence);
    "applier": KeepPending => |KeepPending(batch)| format!("keep pending {:?}", batch.as_ref().map(|batch| batch.after.sequence));
    "applier": AcknowledgeBy => |told| format!("acknowledge by {}", told.policy);
    "applier": DropPending => |_| "drop pending".into();
    "ping monitor": StartPings => |_| "start".into();
    "ping monitor": StopPings => |_| "stop".into();
    "supervisor": LinkEnded => |LinkEnded { link, why }| format!("link {link} lost: {why}");
    "supervisor": ApplierSays => |says| match says {
        ApplierSays::Applied { position } => format!("applied {}", position.sequence),
        ApplierSays::Drained { position, .. } => format!("drained {}", position.sequence),
        ApplierSays::Room { lacks } => format!("room, lacks {lacks:?}"),
        ApplierSays::Failed { detail } => format!("failed: {detail}"),
        ApplierSays::Unusable { detail, .. } => format!("unusable: {detail}"),
    };
}

impl Handler<Line> for Probe {
    type Result = ();
    fn handle(&mut self, Line(line): Line, _: &mut Context<Self>) {
        self.0.lines.lock().unwrap().push(line);
    }
}

impl Handler<Drain> for Probe {
    type Result = ();
    fn handle(&mut self, Drain { ticket, with_pending }: Drain, _: &mut Context<Self>) {
        *self.0.ticket.lock().unwrap() = ticket;
        self.0.lines.lock().unwrap().push(format!("applier <- drain, with pending: {with_pending}"));
    }
}
