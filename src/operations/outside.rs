//! What the supervisor does to the world: writers, sessions, dialling, copies.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::checkpointer::Checkpointer;
use super::lock::DatabaseLock;
use super::storage::Storage;
use super::{copy, directory_copy, rewind};
use crate::actors::link::PeerStream;
use crate::actors::supervisor::{Outside, SupervisorMessage};
use crate::config::Parameters;
use crate::hsb::codes::Code;
use crate::hsb::effect::{ConnectStatus, CopyKind, NodeEffect, WriterEffect};
use crate::hsb::event::{Event, Hello, Purpose, RequestId};
use crate::hsb::heart::Heart;
use crate::hsb::refusal::Refusal;
use crate::hsb::severity::{self, Severity};
use crate::hsb::table::Transition;
use crate::logging;
use crate::net::peer::handshake::{self, LinkOptions};
use crate::services::events::{CONNECT_STATUS, NETCOPY_END, STATE_SWITCH};
use crate::stop::stop_process;
use crate::stream::Stream;
use crate::threads;

/// How long the sessions of a replaced database may take to leave before they are cut off.
pub(crate) const SESSION_PATIENCE: Duration = Duration::from_secs(3);

pub(crate) struct NodeOutside {
    pub(crate) storage: Arc<Storage>,
    pub(crate) checkpointer: Arc<Checkpointer>,
    pub(crate) lock: Arc<DatabaseLock>,
}

impl Outside for NodeOutside {
    fn tell_writer(&mut self, effect: WriterEffect) {
        let writer = &self.storage.node.writer;
        match effect {
            WriterEffect::Decide(decision) => writer.decide(decision),
            WriterEffect::Admit(admission) => writer.admit(admission),
            WriterEffect::BeginHistory { position, epoch } => writer.begin_history(position, epoch),
        }
    }

    fn carry_out(&mut self, effect: NodeEffect) {
        match effect {
            NodeEffect::Entered(change) => self.entered(change),
            NodeEffect::ConnectStatus(status) => self.connect_status(status),
            NodeEffect::Note { severity, text } => logging::say(severity, &text),
            NodeEffect::Alert { name, severity, text } => self.alert(name, severity, &text),
            NodeEffect::Dial { request, purpose, hello } => self.dial(request, purpose, hello),
            NodeEffect::SendCopy { hello } => self.send_copy(hello),
            NodeEffect::Rewind => self.rewind(),
            NodeEffect::CloseSessions(code) => self.close_sessions(code),
            NodeEffect::Stop { why } => stop_process(&why),
        }
    }

    fn write_copy(&mut self, kind: CopyKind, directory: PathBuf) {
        let (storage, checkpointer) = (Arc::clone(&self.storage), Arc::clone(&self.checkpointer));
        let what = match kind {
            CopyKind::Backup => "backup",
            CopyKind::Copy => "hsb copy",
        };
        threads::run("copy", move || {
            let written = checkpointer.make().and_then(|_| directory_copy::write(&storage, what, &directory));
            let outcome = written.as_ref().map(|_| ()).map_err(|error| error.to_string());
            storage.ended_copies.add(what, directory, outcome);
            let result = written.map_err(Refusal::from).map(|position| {
                if kind == CopyKind::Backup {
                    checkpointer.backed_up(position);
                }
            });
            storage.supervisor.do_send(SupervisorMessage::Event(Event::CopyEnded { result }));
        });
    }

    fn publish(&mut self, heart: &Heart) {
        self.storage.node.status.publish(heart);
    }

    fn netcopy_ended(&mut self, result: &Result<(), Refusal>) {
        let text = match result {
            Ok(()) => "SUCCESS".to_string(),
            Err(refusal) => format!("FAILED {refusal}"),
        };
        self.storage.node.events.post(NETCOPY_END, &text);
    }
}

impl NodeOutside {
    fn entered(&mut self, change: Transition) {
        self.storage.node.status.changed(change);
        self.lock.note(&self.storage.node.status.snapshot());
        let Transition { from, to, reason, .. } = change;
        logging::say(severity::of_transition(change), &format!("{from} -> {to}: {reason}"));
        self.storage.node.events.post(STATE_SWITCH, to.name());
        if to.is_active() || to.is_primary() {
            // A database that works needs no rest of a broken netcopy. Deleting a large file can take its time.
            let storage = Arc::clone(&self.storage);
            threads::run("forget-netcopy", move || copy::forget_incoming(&storage.node.database));
        }
    }

    fn connect_status(&mut self, status: ConnectStatus) {
        log::info!("connection to the other server: {}", status.name());
        self.storage.node.events.post(CONNECT_STATUS, status.name());
    }

    fn alert(&mut self, name: &'static str, severity: Severity, text: &str) {
        logging::say(severity, text);
        self.storage.node.events.post(name, text);
    }

    fn dial(&mut self, request: RequestId, purpose: Purpose, hello: Hello) {
        let storage = Arc::clone(&self.storage);
        threads::run("dial", move || {
            let outcome = dial(&storage.node.parameters, purpose, hello)
                .map(|(stream, hello)| (Box::new(stream) as Box<dyn PeerStream>, hello));
            storage.supervisor.do_send(SupervisorMessage::DialEnded { request, purpose, outcome });
        });
    }

    fn send_copy(&mut self, hello: Hello) {
        let (storage, checkpointer) = (Arc::clone(&self.storage), Arc::clone(&self.checkpointer));
        threads::run("netcopy", move || {
            let result = copy::send(&storage, &checkpointer, hello);
            storage.supervisor.do_send(SupervisorMessage::NetcopyEnded { result });
        });
    }

    fn rewind(&mut self) {
        let storage = Arc::clone(&self.storage);
        threads::run("rewind", move || {
            let result = rewind::rewind(&storage);
            storage.supervisor.do_send(SupervisorMessage::Event(Event::Rewound { result }));
        });
    }

    fn close_sessions(&mut self, code: Code) {
        let sessions = Arc::clone(&self.storage.node.sessions);
        threads::run("close-sessions", move || {
            sessions.close_all(code, SESSION_PATIENCE);
        });
    }
}

/// Reaches the peer that HotStandby.Connect names.
pub(crate) fn dial(
    parameters: &Parameters,
    purpose: Purpose,
    hello: Hello,
) -> Result<(Stream, Hello), Refusal> {
    dial_within(parameters, purpose, hello, None)
}

/// The same with a time limit of the caller's instead of the configured one.
pub(crate) fn dial_within(
    parameters: &Parameters,
    purpose: Purpose,
    hello: Hello,
    limit: Option<Duration>,
) -> Result<(Stream, Hello), Refusal> {
    let peer = parameters.connect().ok_or(Code::NO_CONNECT_STRING)?;
    let secret = secret(parameters)?;
    let configured = peer.connect_timeout_or(parameters.connect_timeout());
    let timeout = limit.or(configured).or(patience(parameters, purpose));
    let read_timeout = limit.or(peer.read_timeout_or(configured));
    // Others may have to ask somebody before they answer.
    let step_timeout = read_timeout.or(timeout.filter(|_| purpose == Purpose::Probe));
    let options = LinkOptions {
        secret: secret.as_bytes(),
        node: parameters.node_id(),
        user_timeout: parameters.ping_timeout(),
        step_timeout: step_timeout.unwrap_or(handshake::STEP_TIMEOUT),
    };
    handshake::dial((&peer.host, peer.port), timeout, options, purpose, hello)
}

/// How long a dial takes at most where HotStandby.ConnectTimeout does not say. Only connecting may take as long as the
/// system lets it: nobody waits for it, and many a command ends it. All else holds up a command, or a failover.
fn patience(parameters: &Parameters, purpose: Purpose) -> Option<Duration> {
    match purpose {
        Purpose::Connect => None,
        _ => parameters.ping_timeout().or(Some(handshake::STEP_TIMEOUT)),
    }
}

pub(crate) fn secret(parameters: &Parameters) -> Result<String, Refusal> {
    let secret = parameters.peer_secret();
    secret
        .map(Option::unwrap_or_default)
        .map_err(|error| Refusal::new(Code::OPERATION_FAILED, error.message()))
}
