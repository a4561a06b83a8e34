//! Parameters that change while the server runs: the one place where a change is made and put in force.
//!
//! Not here: which values are possible (`config`), what the commands look like. Invariants: a change is in force and in
//! solid.ini, or refused and nowhere; changes come one after another. Blocking: never called on the actors' thread.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actix::Recipient;
use socket2::Socket;

use crate::actors::supervisor::SupervisorMessage;
use crate::config::{Id, ListenAddress, SetOutcome};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::Event;
use crate::hsb::phase::Activity;
use crate::logging;
use crate::net::listener::{self, ListenerHandle};
use crate::services::context::NodeContext;
use crate::services::status::Snapshot;

/// See the module.
pub struct ParameterChanges {
    node: Arc<NodeContext>,
    supervisor: Recipient<SupervisorMessage>,
    /// The port is opened last of all.
    listener: OnceLock<Arc<ListenerHandle>>,
    one_by_one: Mutex<()>,
}

impl ParameterChanges {
    pub(crate) fn new(node: &Arc<NodeContext>, supervisor: Recipient<SupervisorMessage>) -> ParameterChanges {
        let (listener, one_by_one) = (OnceLock::new(), Mutex::new(()));
        ParameterChanges { node: Arc::clone(node), supervisor, listener, one_by_one }
    }

    /// From now on Com.Listen moves this port.
    pub(crate) fn serve_at(&self, listener: &Arc<ListenerHandle>) {
        if self.listener.set(Arc::clone(listener)).is_err() {
            log::error!("a node has two ports");
        }
    }

    /// Changes a parameter as `Parameters::set` does, puts it in force and, unless `temporary`, into solid.ini.
    pub fn set(
        &self,
        section: &str,
        name: &str,
        value: &str,
        temporary: bool,
    ) -> Result<SetOutcome, ServerError> {
        let _guard = self.one_by_one.lock().unwrap_or_else(PoisonError::into_inner);
        let id = Id::find(section, name);
        if id == Some(Id::Connect)
            && let Some(what) = uses_connect(&self.node.status.snapshot())
        {
            return Err(ServerError::with(Code::CONNECT_WHILE_CONNECTED, what));
        }
        let set = || match temporary {
            true => self.node.parameters.set(section, name, value, true),
            false => self.node.parameters.set_and_write_back(section, name, value),
        };
        let outcome = if id == Some(Id::Listen) { self.move_port(value, set)? } else { set()? };
        self.put_in_force();
        Ok(outcome)
    }

    /// A copy has taken the database's place: its page size is the one in force.
    pub(crate) fn database_replaced(&self) {
        match self.node.database.page_size_bytes() {
            Ok(bytes) => self.node.parameters.adopt_page_size(bytes),
            Err(error) => log::warn!("the page size of the copied database is not known: {error}"),
        }
        self.put_in_force();
    }

    /// Whoever acts by a parameter reads it when it matters. Here are those who cannot: the message log, which stands below
    /// solid.ini, and the heart, which reads nothing; and the port ([`ParameterChanges::move_port`]), which is a thing.
    fn put_in_force(&self) {
        logging::set_limits(self.node.parameters.message_log_limits());
        let settings = self.node.parameters.settings();
        self.supervisor.do_send(SupervisorMessage::Event(Event::SettingsChanged { settings }));
    }

    /// `save parameters`: to solid.ini, or to another file in its directory.
    pub fn save(&self, file: Option<&Path>) -> Result<(), ServerError> {
        match file {
            None => self.node.parameters.write_back(),
            Some(file) => self.node.parameters.save_to(file),
        }
    }

    /// The new port first: if it cannot be had, nothing has changed.
    fn move_port(
        &self,
        value: &str,
        set: impl FnOnce() -> Result<SetOutcome, ServerError>,
    ) -> Result<SetOutcome, ServerError> {
        let wanted = self.node.parameters.listen_if(value)?;
        let refused = |error| port_refused(&wanted, &error);
        let address = resolve(&wanted).map_err(refused)?;
        let Some(listener) = self.listener.get() else { return set() };
        let before = listener.address();
        listener.move_to(address).map_err(refused)?;
        set().inspect(|_| log::info!("listening on {address}")).inspect_err(|_| {
            if let Some(Err(error)) = before.map(|before| listener.move_to(before)) {
                log::error!("the port cannot be moved back: {error}");
            }
        })
    }
}

/// What HotStandby.Connect is in use for, and what ends that; none: nothing.
fn uses_connect(now: &Snapshot) -> Option<String> {
    let ends = match now.activity {
        Activity::Idle if now.state.is_active() => return Some("'hsb disconnect' first.".into()),
        Activity::Idle => return None,
        Activity::Connecting | Activity::CatchingUp => "'hsb disconnect' ends it.",
        Activity::SwitchingToPrimary | Activity::SwitchingToSecondary if !now.state.is_active() => {
            "'hsb disconnect' ends it while the other server has not answered."
        }
        Activity::Copying => "Wait until 'hsb status copy' says that it has ended.",
        Activity::Disconnecting
        | Activity::SwitchingToPrimary
        | Activity::SwitchingToSecondary
        | Activity::Rewinding => "Wait until it has ended.",
    };
    Some(format!("Under way: {}. {ends}", now.activity.name()))
}

/// Takes the port before anything is created or changed. Nobody can connect before the node is ready: it listens last.
pub(crate) fn take_port(wanted: &ListenAddress) -> Result<Socket, ServerError> {
    let taken = resolve(wanted).and_then(|address| listener::bind(address, false));
    taken.map_err(|error| port_refused(wanted, &error))
}

fn resolve(wanted: &ListenAddress) -> std::io::Result<SocketAddr> {
    let mut candidates = (wanted.host.as_str(), wanted.port).to_socket_addrs()?;
    candidates.next().ok_or_else(|| std::io::Error::other("the name has no address"))
}

/// The code's own sentence speaks of other servers; this one is about the own port.
pub(crate) fn port_refused(wanted: &ListenAddress, error: &std::io::Error) -> ServerError {
    let ListenAddress { host, port, .. } = wanted;
    let why = match error.kind() {
        ErrorKind::AddrInUse => "another program has it: end that one, or give this server another port",
        ErrorKind::AddrNotAvailable => "this machine has no such address; 0.0.0.0 stands for all that it has",
        ErrorKind::PermissionDenied => "ports below 1024 are for privileged programs; take a higher one",
        _ => "check the host: it is a name or an address of this machine, 0.0.0.0 stands for all",
    };
    let message = format!("Cannot listen at {host} port {port} (Com.Listen): {why} ({error}).");
    ServerError::new(Code::SERVER_NOT_FOUND).saying(message)
}
