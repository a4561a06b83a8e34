//! What the other server asks for on this server's port: to connect, to be told what this one is, its status or where
//! histories part, to compare the databases, to copy its database here.
//!
//! Runs on the connection's thread. Not here: whether to connect or to take a copy (the heart decides).

use std::sync::Arc;

use crossbeam_channel::bounded;

use super::outside::SESSION_PATIENCE;
use super::parameters::ParameterChanges;
use super::storage::Storage;
use super::{copy, history, outside};
use crate::actors::supervisor::SupervisorMessage;
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, Purpose};
use crate::hsb::phase::Activity;
use crate::hsb::refusal::Refusal;
use crate::hsb::state::State;
use crate::net::listener::Guest;
use crate::net::listener::places::Kind;
use crate::net::peer::handshake::{self, LinkOptions};
use crate::net::peer::{copy as transfer, verify};
use crate::services::events::NETCOPY_REQUEST;
use crate::stream::Stream;

/// What an embedding program says to a netcopy that is about to replace the node's database.
pub type NetcopyRequested = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Tells the other server the status of this one.
type Report = Box<dyn Fn(&mut Stream) -> Result<(), Refusal> + Send + Sync>;

/// See the module.
pub(crate) struct PeerPort {
    pub(crate) storage: Arc<Storage>,
    pub(crate) changes: Arc<ParameterChanges>,
    pub(crate) report: Report,
    pub(crate) netcopy_requested: Option<NetcopyRequested>,
}

/// The handshake, then the connection goes to the supervisor (connect), is answered (probe), or stays here (netcopy).
pub(crate) fn serve(mut guest: Guest, port: &PeerPort) {
    let context = &port.storage.node;
    let stream = Arc::clone(guest.stream());
    let from = stream.peer_address();
    let secret = match outside::secret(&context.parameters) {
        Ok(secret) => secret,
        Err(refusal) => {
            log::error!("{refusal}");
            let detail = "The other server cannot read its peer secret; its solmsg.out says why.";
            return handshake::turn_away(&stream, Refusal::new(refusal.code, detail));
        }
    };
    let options = LinkOptions {
        secret: secret.as_bytes(),
        node: context.parameters.node_id(),
        user_timeout: context.parameters.ping_timeout(),
        step_timeout: handshake::STEP_TIMEOUT,
    };
    let (purpose, hello) = match handshake::listen(&stream, options) {
        Ok(introduction) => introduction,
        Err(refusal) => return log::warn!("a peer connection from {from} was refused: {}", refusal.detail),
    };
    if let Err(full) = guest.let_in(Kind::Peer) {
        let error = full.refusal("connections of the other server");
        log::warn!("a peer connection from {from} was refused: {}", error.detail());
        return handshake::refuse(&mut &*stream, Refusal::new(Code::OPERATION_FAILED, error.detail()));
    }
    drop(stream);
    // A link lives on when its place is given back.
    if let Some((stream, _place)) = guest.into_parts() {
        serve_introduced(stream, (purpose, hello), &from, port);
    }
}

fn serve_introduced(mut stream: Stream, (purpose, hello): (Purpose, Hello), from: &str, port: &PeerPort) {
    let (storage, context) = (&port.storage, &port.storage.node);
    if !context.parameters.hsb_enabled() {
        return handshake::refuse(&mut stream, Code::NOT_HOTSTANDBY);
    }
    match purpose {
        Purpose::Connect => {
            storage.supervisor.do_send(SupervisorMessage::PeerArrived { stream: Box::new(stream), hello });
        }
        // Of two secondaries that would become the primary by asking each other, at most one may be told 'secondary'.
        Purpose::Probe if context.status.snapshot().activity == Activity::SwitchingToPrimary => {
            let detail = "The other server is becoming a primary.";
            handshake::refuse(&mut stream, Refusal::new(Code::SWITCH_ACTIVE, detail));
        }
        // It may still commit what was begun. Once it is gone it cannot be reached, and whoever asks may take over.
        Purpose::Probe if context.status.is_shutting_down() => {
            let detail = "It is the other server that ends; ask again.";
            handshake::refuse(&mut stream, Refusal::new(Code::SHUTTING_DOWN, detail));
        }
        Purpose::Probe => {
            if handshake::welcome(&mut stream, storage.hello()).is_err() {
                log::info!("{from} asked for this node's state and left");
            }
        }
        Purpose::Report => {
            let mine = storage.hello();
            let told = handshake::welcome(&mut stream, mine).and_then(|()| (port.report)(&mut stream));
            if let Err(why) = told {
                log::debug!("{from} asked for this node's status and left: {}", why.detail);
            }
        }
        Purpose::History => {
            if let Err(why) = history::answer(&mut stream, storage) {
                log::warn!("{from} could not be told where the histories part: {}", why.detail);
            }
        }
        Purpose::Verify => compare(&mut stream, hello, storage),
        Purpose::Netcopy => receive_copy(&mut stream, hello, port),
    }
}

/// The secondary's part of `hsb verify`.
fn compare(stream: &mut Stream, hello: Hello, storage: &Storage) {
    let context = &storage.node;
    let mine = storage.hello();
    if !mine.state.is_secondary() {
        let detail = format!("It is {}.", mine.state);
        return handshake::refuse(stream, Refusal::new(Code::REMOTE_NOT_SECONDARY, detail));
    }
    if mine.database_id != hello.database_id {
        return handshake::refuse(stream, Code::DIFFERENT_DATABASE);
    }
    let follows = || context.status.state() == State::SecondaryActive;
    let outcome =
        handshake::welcome(stream, mine).and_then(|()| verify::answer(stream, &context.database, follows));
    if let Err(why) = outcome {
        log::warn!("the comparison with the primary ended early: {}", why.detail);
    }
}

fn receive_copy(stream: &mut Stream, hello: Hello, port: &PeerPort) {
    let (storage, context) = (&port.storage, &port.storage.node);
    context.events.post(NETCOPY_REQUEST, "");
    if let Some(Err(reason)) = port.netcopy_requested.as_ref().map(|ask| ask()) {
        log::warn!("a netcopy was refused by the program that embeds this server: {reason}");
        let detail = format!("The other server refuses: {reason}");
        return handshake::refuse(stream, Refusal::new(Code::OPERATION_FAILED, detail));
    }
    let compared = handshake::welcome(stream, storage.hello())
        .and_then(|()| history::compare_before_arrival(stream, storage));
    let common = match compared {
        Ok(common) => common,
        Err(why) => return log::warn!("a netcopy ended before it began: {}", why.detail),
    };
    let (reply, answer) = bounded(1);
    storage.supervisor.do_send(SupervisorMessage::CopyArrives { hello, common, reply });
    match answer.recv() {
        Ok(Ok(mine)) => {
            let opened =
                handshake::welcome(stream, mine).and_then(|()| copy::receive(storage, stream, common));
            if opened.is_ok() {
                port.changes.database_replaced();
                // Whoever came in just before new sessions were refused still reads the old database.
                context.sessions.close_all(Code::SERVER_CLOSED, SESSION_PATIENCE);
            }
            let outcome = opened.as_ref().map(drop).map_err(Clone::clone);
            // The end of this server waits until the sender knows what became of the copy.
            let _unanswered = context.will_be_answered();
            // First this node: whoever acts on the answer finds it ready.
            let (known, when_known) = bounded(1);
            storage.supervisor.do_send(SupervisorMessage::CopyReceived { opened, known });
            let _ = when_known.recv();
            transfer::answer(stream, &outcome);
        }
        Ok(Err(refusal)) => handshake::refuse(stream, refusal),
        Err(_) => handshake::refuse(stream, Code::SHUTTING_DOWN),
    }
}
