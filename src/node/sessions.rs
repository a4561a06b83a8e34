//! What arrives on the port, handed to where it belongs: SQL sessions, consoles, the peer.

use std::cell::RefCell;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use actix::Recipient;
use crossbeam_channel::bounded;

use super::NetcopyRequested;
use crate::actors::supervisor::{CopyArrives, CopyReceived, PeerArrived};
use crate::admin::{self, AdminServices, refusal};
use crate::counters::Counters;
use crate::error::{ServerError, invalid};
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, Purpose};
use crate::hsb::phase::Activity;
use crate::hsb::state::State;
use crate::logging;
use crate::net::console::{self, ConsoleHandlers, Unanswered, Watch};
use crate::net::listener::places::{Full, Kind};
use crate::net::listener::{Guest, Handlers};
use crate::net::peer::handshake::{self, LinkOptions};
use crate::net::peer::verify;
use crate::net::pg;
use crate::operations::outside::SESSION_PATIENCE;
use crate::operations::storage::Storage;
use crate::operations::{copy, history, outside};
use crate::services::context::NodeContext;
use crate::services::events::{EVENTS, Event, NETCOPY_REQUEST};
use crate::sql::users::{self, Role};

/// Where the peer's connections go.
#[derive(Clone)]
pub(super) struct PeerPort {
    pub(super) services: Arc<AdminServices>,
    pub(super) storage: Arc<Storage>,
    pub(super) arrived: Recipient<PeerArrived>,
    pub(super) copy_arrives: Recipient<CopyArrives>,
    pub(super) copy_received: Recipient<CopyReceived>,
    pub(super) netcopy_requested: Arc<Option<NetcopyRequested>>,
}

pub(super) fn handlers(context: &Arc<NodeContext>, counters: Arc<Counters>, peers: PeerPort) -> Handlers {
    let for_sql = Arc::clone(context);
    let for_console = Arc::clone(context);
    let for_peer = Arc::clone(context);
    Handlers {
        sql: Box::new(move |guest| serve_sql(guest, &for_sql)),
        console: Box::new(move |guest| serve_console(guest, &for_console)),
        peer: Box::new(move |guest| serve_peer(guest, &for_peer, &peers)),
        left: Box::new(move || counters.connections_without_a_word.add(1)),
    }
}

fn serve_sql(guest: Guest, context: &Arc<NodeContext>) {
    let now = context.status.snapshot();
    let is_being_replaced = now.activity == Activity::Copying && !now.state.is_primary();
    if now.state == State::Offline || is_being_replaced {
        let offline = now.state == State::Offline;
        let code = if offline { Code::BACKUPSERVER_NO_CONNECTIONS } else { Code::SERVER_CLOSED };
        let error = ServerError::new(code);
        pg::refuse(&guest, context, &error);
    } else if context.status.is_shutting_down() {
        pg::refuse(&guest, context, &ServerError::new(Code::SHUTTING_DOWN));
    } else {
        pg::serve(guest, Arc::clone(context));
    }
}

/// A console's user, with the rights of this moment.
struct Login {
    user: String,
    /// Of the schema and the users, when the role was read; none: there is no such user any more.
    role: Mutex<(u64, Option<Role>)>,
}

impl Login {
    /// Whether it may administrate; an error if it may not even be here (any more).
    fn rights(&self, context: &NodeContext) -> Result<bool, ServerError> {
        let generation = context.database.schema_generation();
        let mut role = self.role.lock().unwrap_or_else(PoisonError::into_inner);
        if role.0 != generation {
            // While the database is being replaced it cannot be asked: what was known holds.
            if let Ok(found) = context.database.ask(|connection| users::find(connection, &self.user)) {
                *role = (generation, found.map(|(role, _)| role));
            }
        }
        match role.1.filter(|role| role.may_command()) {
            Some(role) => Ok(role.may_administrate()),
            None => {
                let text = format!(
                    "The console needs SYS_ADMIN_ROLE or SYS_CONSOLE_ROLE, and '{}' has neither; an administrator can GRANT one.",
                    self.user
                );
                Err(ServerError::sql("42501", text))
            }
        }
    }
}

fn serve_console(guest: Guest, context: &Arc<NodeContext>) {
    let (stream, deadline) = (Arc::clone(guest.stream()), guest.deadline());
    let guest = RefCell::new(guest);
    let authenticate = |user: &str, password: &str| {
        let login = log_in(context, user, password)?;
        guest.borrow_mut().let_in(Kind::Console).map_err(|full| no_place("consoles", full))?;
        Ok(login)
    };
    let execute = |login: &Arc<Login>, text: &str| match login.rights(context) {
        Ok(may_administrate) => context.admin.execute(&login.user, may_administrate, text),
        Err(error) => refusal(error),
    };
    let subscribe = |login: &Arc<Login>, name: &str| watch(context, login, name);
    let pause_limit = || context.parameters.listen().read_timeout;
    let (authenticate, execute, subscribe) = (&authenticate, &execute, &subscribe);
    let (pause_limit, unanswered) = (&pause_limit, &context.unanswered);
    let handlers = ConsoleHandlers { authenticate, execute, subscribe, pause_limit, unanswered };
    console::serve(&stream, deadline, &handlers);
}

fn no_place(of_whom: &str, Full(taken): Full) -> ServerError {
    let why = match taken {
        Some(taken) => format!("Too many {of_whom}: {taken} are connected."),
        None => "This connection had to make way for newer ones before it had logged in.".to_owned(),
    };
    ServerError::with(Code::OPERATION_FAILED, why)
}

/// Events for a console, as long as its user may be there.
fn watch(context: &Arc<NodeContext>, login: &Arc<Login>, name: &str) -> Result<Watch, ServerError> {
    if !name.is_empty() && !EVENTS.iter().any(|event| event.0.eq_ignore_ascii_case(name)) {
        return Err(invalid(format!("No event is called '{name}'; 'events' lists them.")));
    }
    let (context, login, name) = (Arc::clone(context), Arc::clone(login), name.to_owned());
    let mut subscription = context.events.subscribe();
    Ok(Box::new(move |patience| {
        login.rights(&context)?;
        let event = subscription.wait(patience).map_err(|missed| {
            ServerError::with(Code::OPERATION_FAILED, format!("({missed}; watch again)"))
        })?;
        let wanted = |event: &Arc<Event>| name.is_empty() || event.name.eq_ignore_ascii_case(&name);
        Ok(event.filter(wanted).map(|event| event.line()))
    }))
}

fn log_in(context: &NodeContext, user: &str, password: &str) -> Result<Arc<Login>, ServerError> {
    if context.status.state() == State::Offline {
        return Err(ServerError::new(Code::BACKUPSERVER_NO_CONNECTIONS));
    }
    let generation = context.database.schema_generation();
    let role = users::check_password(&context.database, user, password)
        .inspect_err(|_| log::warn!("a console login as '{}' was refused", logging::name(user)))?;
    let login = Login { user: user.to_string(), role: Mutex::new((generation, Some(role))) };
    login.rights(context)?;
    Ok(Arc::new(login))
}

/// The handshake, then the connection goes to the supervisor (connect), is answered (probe), or stays here (netcopy).
fn serve_peer(mut guest: Guest, context: &NodeContext, peers: &PeerPort) {
    let stream = Arc::clone(guest.stream());
    let from = stream.peer_addr().map_or_else(|_| "?".to_string(), |address| address.to_string());
    let secret = match outside::secret(&context.parameters) {
        Ok(secret) => secret,
        Err((code, detail)) => {
            log::error!("{}", ServerError::with(code, detail));
            let detail = "The other server cannot read its peer secret; its solmsg.out says why.";
            return handshake::turn_away(&stream, code, detail);
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
        Err((_, detail)) => return log::warn!("a peer connection from {from} was refused: {detail}"),
    };
    if let Err(full) = guest.let_in(Kind::Peer) {
        let error = no_place("connections of the other server", full);
        log::warn!("a peer connection from {from} was refused: {}", error.detail());
        return handshake::refuse(&mut &*stream, Code::OPERATION_FAILED, error.detail());
    }
    drop(stream);
    // A link lives on when its place is given back.
    if let Some((stream, _place)) = guest.into_parts() {
        serve_introduced(stream, (purpose, hello), &from, context, peers);
    }
}

fn serve_introduced(
    mut stream: TcpStream,
    (purpose, hello): (Purpose, Hello),
    from: &str,
    context: &NodeContext,
    peers: &PeerPort,
) {
    if !context.parameters.hsb_enabled() {
        return handshake::refuse(&mut stream, Code::NOT_HOTSTANDBY, "");
    }
    match purpose {
        Purpose::Connect => peers.arrived.do_send(PeerArrived { stream: Box::new(stream), hello }),
        // Of two secondaries that would become the primary by asking each other, at most one may be told 'secondary'.
        Purpose::Probe if context.status.snapshot().activity == Activity::SwitchingToPrimary => {
            handshake::refuse(&mut stream, Code::SWITCH_ACTIVE, "The other server is becoming a primary.");
        }
        // It may still commit what was begun. Once it is gone it cannot be reached, and whoever asks may take over.
        Purpose::Probe if context.status.is_shutting_down() => {
            handshake::refuse(
                &mut stream,
                Code::SHUTTING_DOWN,
                "It is the other server that ends; ask again.",
            );
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
            if let Err((_, detail)) = told {
                log::debug!("{from} asked for this node's status and left: {detail}");
            }
        }
        Purpose::History => {
            if let Err((_, why)) = history::answer(&mut stream, &context.parameters, &peers.storage) {
                log::warn!("{from} could not be told where the histories part: {why}");
            }
        }
        Purpose::Verify => compare(&mut stream, hello, context, peers),
        Purpose::Netcopy => receive_copy(&mut stream, hello, context, peers),
    }
}

/// The secondary's part of `hsb verify`.
fn compare(stream: &mut TcpStream, hello: Hello, context: &NodeContext, peers: &PeerPort) {
    let mine = peers.storage.hello(&context.parameters);
    if !mine.state.is_secondary() {
        return handshake::refuse(stream, Code::REMOTE_NOT_SECONDARY, &format!("It is {}.", mine.state));
    }
    if mine.database_id != hello.database_id {
        return handshake::refuse(stream, Code::DIFFERENT_DATABASE, "");
    }
    let follows = || context.status.state() == State::SecondaryActive;
    let outcome =
        handshake::welcome(stream, mine).and_then(|()| verify::answer(stream, &context.database, follows));
    if let Err((_, detail)) = outcome {
        log::warn!("the comparison with the primary ended early: {detail}");
    }
}

fn receive_copy(stream: &mut TcpStream, hello: Hello, context: &NodeContext, peers: &PeerPort) {
    context.events.post(NETCOPY_REQUEST, "");
    if let Some(Err(reason)) = peers.netcopy_requested.as_ref().as_ref().map(|ask| ask()) {
        log::warn!("a netcopy was refused by the program that embeds this server: {reason}");
        return handshake::refuse(
            stream,
            Code::OPERATION_FAILED,
            &format!("The other server refuses: {reason}"),
        );
    }
    let compared = handshake::welcome(stream, peers.storage.hello(&context.parameters))
        .and_then(|()| history::compare_before_arrival(stream, &peers.storage));
    let common = match compared {
        Ok(common) => common,
        Err((_, why)) => return log::warn!("a netcopy ended before it began: {why}"),
    };
    let (reply, answer) = bounded(1);
    peers.copy_arrives.do_send(CopyArrives { hello, common, reply });
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
            let _unanswered = Unanswered::count(&context.unanswered);
            // First this node: whoever acts on the answer finds it ready.
            let (known, when_known) = bounded(1);
            peers.copy_received.do_send(CopyReceived { opened, known });
            let _ = when_known.recv();
            crate::net::peer::copy::answer(stream, &outcome);
        }
        Ok(Err((code, detail))) => handshake::refuse(stream, code, &detail),
        Err(_) => handshake::refuse(stream, Code::SHUTTING_DOWN, ""),
    }
}
