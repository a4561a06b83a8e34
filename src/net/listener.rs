//! The one port of the server: accepts connections, tells the three protocols apart by their first bytes, and hands
//! each connection to its handler on a thread of its own.
//!
//! The bytes are looked at, not taken: the handler reads the connection from its beginning. The port can be exchanged
//! while connections go on. Not here: the protocols, and how many places there are ([`places`] has the rules).
//! Invariants: a silent or senseless client costs one descriptor and no thread, until the time to log in is over; whoever
//! is let in was asked for a password, or has proved to be the other server; peers and consoles get in when SQL clients
//! or strangers fill their places.

mod lobby;
pub mod places;
mod protocol;

use self::lobby::Lobby;
use self::places::{Full, Kind, Limits, Place, Places};
use crate::stream::Stream;
use crate::threads;
use log::warn;
use socket2::{Domain, SockRef, Socket, Type};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Serves a connection of one protocol, on a thread of its own.
pub type Handler = Box<dyn Fn(Guest) + Send + Sync>;

/// One handler per protocol.
pub struct Handlers {
    /// PostgreSQL clients.
    pub sql: Handler,
    /// The other server.
    pub peer: Handler,
    /// Text lines.
    pub console: Handler,
    /// Nobody: closed before anything came, as health checks do.
    pub left: Box<dyn Fn() + Send + Sync>,
}

/// A connection that has not logged in: it may be dropped for a newer one. Dropping the value gives its place back.
pub struct Guest {
    stream: Arc<Stream>,
    place: Place,
    deadline: Instant,
}

impl Guest {
    fn new(stream: Stream, from: SocketAddr, places: &Arc<Places>, time_to_log_in: Duration) -> Guest {
        let stream = Arc::new(stream);
        let now = Instant::now();
        let place = places.take(&stream, from.ip(), now);
        Guest { stream, place, deadline: now + time_to_log_in }
    }

    /// One that came in by no port: nobody is there for whom it could have to make way.
    pub fn alone(stream: impl Into<Stream>, time_to_log_in: Duration) -> Guest {
        let places = Places::new(|| Limits { sql: 1, consoles: 1, peers: 1, waiting: 1 });
        Guest::new(stream.into(), (Ipv4Addr::LOCALHOST, 0).into(), &places, time_to_log_in)
    }

    /// The connection.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// When it must have logged in.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How many of this kind are let in, if that leaves no place for one more.
    pub fn full(&self, kind: Kind) -> Option<usize> {
        self.place.full(kind)
    }

    /// It has logged in, and stays unless there is no place of its kind.
    pub fn let_in(&mut self, kind: Kind) -> Result<(), Full> {
        self.place.let_in(kind)
    }

    /// The connection, for itself alone, and its place; none if somebody else holds the connection still.
    pub fn into_parts(self) -> Option<(Stream, Place)> {
        Arc::into_inner(self.stream).map(|stream| (stream, self.place))
    }
}

/// A running listener. Dropping it does not stop it.
pub struct ListenerHandle {
    shared: Arc<Shared>,
    /// None once it is stopped.
    port: Mutex<Option<Port>>,
}

/// One listening socket and the thread that accepts there.
struct Port {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Shared {
    places: Arc<Places>,
    time_to_log_in: Box<dyn Fn() -> Duration + Send + Sync>,
    handlers: Handlers,
}

/// Takes an address; nobody can connect before [`start`].
pub fn bind(address: SocketAddr, share_port: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts connections from now on.
pub fn start(
    socket: Socket,
    limits: impl Fn() -> Limits + Send + Sync + 'static,
    time_to_log_in: impl Fn() -> Duration + Send + Sync + 'static,
    handlers: Handlers,
) -> std::io::Result<ListenerHandle> {
    let time_to_log_in = Box::new(time_to_log_in);
    let shared = Arc::new(Shared { places: Places::new(limits), time_to_log_in, handlers });
    let port = Port::open(socket, &shared)?;
    Ok(ListenerHandle { shared, port: Mutex::new(Some(port)) })
}

impl ListenerHandle {
    /// Where it listens; none once it is stopped.
    pub fn address(&self) -> Option<SocketAddr> {
        self.lock().as_ref().map(|port| port.address)
    }

    /// Who is connected.
    pub fn places(&self) -> &Arc<Places> {
        &self.shared.places
    }

    /// Accepts at this address from now on: the new socket first, then the old one is closed. Connections that have
    /// said a word go on. After an error everything is as it was.
    pub fn move_to(&self, wanted: SocketAddr) -> std::io::Result<()> {
        let mut place = self.lock();
        let current = place.as_ref().ok_or_else(|| std::io::Error::other("the server is shutting down"))?;
        if current.address == wanted {
            return Ok(());
        }
        // Two sockets of one port (127.0.0.1 and 0.0.0.0, say) stand beside each other only with this option. It is
        // taken away again, or another server could share the port unnoticed.
        let shares = current.address.port() == wanted.port();
        let opened = SockRef::from(&current.listener)
            .set_reuse_port(shares)
            .and_then(|()| bind(wanted, shares))
            .and_then(|socket| socket.listen(BACKLOG).map(|()| socket))
            .and_then(|socket| socket.set_reuse_port(false).and_then(|()| Port::open(socket, &self.shared)));
        if shares {
            SockRef::from(&current.listener).set_reuse_port(false)?;
        }
        let before = place.replace(opened?);
        drop(place);
        if let Some(before) = before {
            before.close();
        }
        Ok(())
    }

    /// Accepts no more and closes the port. Connections that are there go on.
    pub fn stop(&self) {
        let port = self.lock().take();
        if let Some(port) = port {
            port.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Port>> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    fn open(socket: Socket, shared: &Arc<Shared>) -> std::io::Result<Port> {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener: Arc<TcpListener> = Arc::new(socket.into());
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let lobby = Lobby::new(Arc::clone(&listener), Arc::clone(&stopping), Arc::clone(shared));
        let thread = threads::spawn("listener", move || lobby.run()).map_err(std::io::Error::other)?;
        Ok(Port { address, listener, stopping, thread })
    }

    fn close(self) {
        self.stopping.store(true, Ordering::SeqCst);
        // On Linux this wakes the thread; elsewhere a connection of our own does.
        if SockRef::from(&self.listener).shutdown(Shutdown::Both).is_err() {
            let _ = Stream::connect(self.address, Some(Duration::from_secs(1)));
        }
        if self.thread.join().is_err() {
            warn!("The listener's thread ended in a panic.");
        }
    }
}

/// What a PostgreSQL client hears that finds no place.
pub fn too_many_clients(taken: usize) -> String {
    format!(
        "too many clients: {taken} are connected already (Com.MaxConnections, or the limit of open files: 'status')"
    )
}

#[cfg(test)]
mod tests;
