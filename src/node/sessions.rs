//! What arrives on the port, handed to where it belongs: SQL sessions, consoles, the peer.

use std::sync::Arc;

use actix::Recipient;
use crossbeam_channel::bounded;

use super::NetcopyRequested;
use crate::actors::admin_handler::console;
use crate::actors::supervisor::SupervisorMessage;
use crate::admin::{self, AdminServices};
use crate::counters::Counters;
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, Purpose};
use crate::hsb::phase::Activity;
use crate::hsb::refusal::Refusal;
use crate::hsb::state::State;
use crate::net::listener::places::Kind;
use crate::net::listener::{Guest, Handlers};
use crate::net::peer::handshake::{self, LinkOptions};
use crate::net::peer::verify;
use crate::net::pg;
use crate::operations::outside::SESSION_PATIENCE;
use crate::operations::storage::Storage;
use crate::operations::{copy, history, outside};
use crate::services::context::NodeContext;
use crate::services::events::NETCOPY_REQUEST;
use crate::stream::Stream;

/// Where the peer's connections go.
#[derive(Clone)]
pub(super) struct PeerPort {
    pub(super) services: Arc<AdminServices>,
    pub(super) storage: Arc<Storage>,
    pub(super) supervisor: Recipient<SupervisorMessage>,
    pub(super) netcopy_requested: Arc<Option<NetcopyRequested>>,
}

pub(super) fn handlers(context: &Arc<NodeContext>, counters: Arc<Counters>, peers: PeerPort) -> Handlers {
    let for_sql = Arc::clone(context);
    let for_console = Arc::clone(context);
    let for_peer = Arc::clone(context);
    Handlers {
        sql: Box::new(move |guest| pg::serve(guest, Arc::clone(&for_sql))),
        console: Box::new(move |guest| console::serve(guest, &for_console)),
        peer: Box::new(move |guest| serve_peer(guest, &for_peer, &peers)),
        left: Box::new(move || counters.connections_without_a_word.add(1)),
    }
}

/// The handshake, then the connection goes to the supervisor (connect), is answered (probe), or stays here (netcopy).
fn serve_peer(mut guest: Guest, context: &NodeContext, peers: &PeerPort) {
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
        serve_introduced(stream, (purpose, hello), &from, context, peers);
    }
}

fn serve_introduced(
    mut stream: Stream,
    (purpose, hello): (Purpose, Hello),
    from: &str,
    context: &NodeContext,
    peers: &PeerPort,
) {
    if !context.parameters.hsb_enabled() {
        return handshake::refuse(&mut stream, Code::NOT_HOTSTANDBY);
    }
    match purpose {
        Purpose::Connect => {
            peers.supervisor.do_send(SupervisorMessage::PeerArrived { stream: Box::new(stream), hello });
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
            if handshake::welcome(&mut stream, peers.storage.hello(&context.parameters)).is_err() {
                log::info!("{from} asked for this node's state and left");
            }
        }
        Purpose::Report => {
            let mine = peers.storage.hello(&context.parameters);
            let told = handshake::welcome(&mut stream, mine)
                .and_then(|()| admin::tell_peer(&peers.services, &mut stream));
            if let Err(why) = told {
                log::debug!("{from} asked for this node's status and left: {}", why.detail);
            }
        }
        Purpose::History => {
            if let Err(why) = history::answer(&mut stream, &context.parameters, &peers.storage) {
                log::warn!("{from} could not be told where the histories part: {}", why.detail);
            }
        }
        Purpose::Verify => compare(&mut stream, hello, context, peers),
        Purpose::Netcopy => receive_copy(&mut stream, hello, context, peers),
    }
}

/// The secondary's part of `hsb verify`.
fn compare(stream: &mut Stream, hello: Hello, context: &NodeContext, peers: &PeerPort) {
    let mine = peers.storage.hello(&context.parameters);
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

fn receive_copy(stream: &mut Stream, hello: Hello, context: &NodeContext, peers: &PeerPort) {
    context.events.post(NETCOPY_REQUEST, "");
    if let Some(Err(reason)) = peers.netcopy_requested.as_ref().as_ref().map(|ask| ask()) {
        log::warn!("a netcopy was refused by the program that embeds this server: {reason}");
        let detail = format!("The other server refuses: {reason}");
        return handshake::refuse(stream, Refusal::new(Code::OPERATION_FAILED, detail));
    }
    let compared = handshake::welcome(stream, peers.storage.hello(&context.parameters))
        .and_then(|()| history::compare_before_arrival(stream, &peers.storage));
    let common = match compared {
        Ok(common) => common,
        Err(why) => return log::warn!("a netcopy ended before it began: {}", why.detail),
    };
    let (reply, answer) = bounded(1);
    peers.supervisor.do_send(SupervisorMessage::CopyArrives { hello, common, reply });
    match answer.recv() {
        Ok(Ok(mine)) => {
            let opened = handshake::welcome(stream, mine)
                .and_then(|()| copy::receive(&context.parameters, &peers.storage, stream, common));
            if opened.is_ok() {
                peers.services.changes.database_replaced(&peers.storage.database);
                // Whoever came in just before new sessions were refused still reads the old database.
                context.sessions.close_all(Code::SERVER_CLOSED, SESSION_PATIENCE);
            }
            let outcome = opened.as_ref().map(drop).map_err(Clone::clone);
            // The end of this server waits until the sender knows what became of the copy.
            let _unanswered = context.will_be_answered();
            // First this node: whoever acts on the answer finds it ready.
            let (known, when_known) = bounded(1);
            peers.supervisor.do_send(SupervisorMessage::CopyReceived { opened, known });
            let _ = when_known.recv();
            crate::net::peer::copy::answer(stream, &outcome);
        }
        Ok(Err(refusal)) => handshake::refuse(stream, refusal),
        Err(_) => handshake::refuse(stream, Code::SHUTTING_DOWN),
    }
}
