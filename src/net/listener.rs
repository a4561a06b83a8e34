//! The one port of the server: accepts connections, tells the three protocols apart by their first bytes, and hands
//! each connection to its handler on a thread of its own.
//!
//! The bytes are looked at, not taken: the handler reads the connection from its beginning. The port can be exchanged
//! while connections go on. Not here: the protocols.
//! Invariants: a silent or senseless client costs one thread for [`FIRST_BYTES_TIMEOUT`] at most; peers and consoles
//! get in when SQL clients fill the server.

use super::console;
use crate::codec::MAGIC;
use crate::hsb::codes::Code;
use crate::storage::limits::STACK_BYTES;
use log::{info, warn};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Time for the first bytes of a connection.
pub const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections beyond Com.MaxConnections that are let in at all, for peers, consoles, cancel requests and refusals.
const RESERVED_CONNECTIONS: usize = 256;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// A PostgreSQL start-up message is no longer than this.
const MAX_STARTUP_BYTES: u32 = 10_000;
/// Codes of the PostgreSQL messages that stand in place of a version.
const CANCEL_REQUEST: u32 = 80_877_102;
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];

/// Takes over a connection of one protocol, on a thread of its own; the connection ends when it returns.
pub type Handler = Box<dyn Fn(TcpStream) + Send + Sync>;

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

/// A running listener. Dropping it does not stop it.
pub struct ListenerHandle {
    shared: Arc<Shared>,
    /// None once it is stopped.
    port: Mutex<Option<Port>>,
}

/// One listening socket and the thread that accepts there.
struct Port {
    address: SocketAddr,
    listener: TcpListener,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Shared {
    /// All connections.
    connections: AtomicUsize,
    /// Those of SQL clients.
    sql_connections: AtomicUsize,
    maximum_sql_connections: Box<dyn Fn() -> usize + Send + Sync>,
    handlers: Handlers,
    first_bytes_timeout: Duration,
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
    maximum_connections: impl Fn() -> usize + Send + Sync + 'static,
    handlers: Handlers,
) -> std::io::Result<ListenerHandle> {
    socket.listen(BACKLOG)?;
    start_within(socket.into(), Box::new(maximum_connections), handlers, FIRST_BYTES_TIMEOUT)
}

fn start_within(
    listener: TcpListener,
    maximum_sql_connections: Box<dyn Fn() -> usize + Send + Sync>,
    handlers: Handlers,
    first_bytes_timeout: Duration,
) -> std::io::Result<ListenerHandle> {
    let shared = Arc::new(Shared {
        connections: AtomicUsize::new(0),
        sql_connections: AtomicUsize::new(0),
        maximum_sql_connections,
        handlers,
        first_bytes_timeout,
    });
    let port = Port::open(listener, &shared)?;
    Ok(ListenerHandle { shared, port: Mutex::new(Some(port)) })
}

impl ListenerHandle {
    /// Where it listens; none once it is stopped.
    pub fn address(&self) -> Option<SocketAddr> {
        self.lock().as_ref().map(|port| port.address)
    }

    /// SQL connections at this moment.
    pub fn sql_connections(&self) -> usize {
        self.shared.sql_connections.load(Ordering::Relaxed)
    }

    /// Accepts at this address from now on: the new socket first, then the old one is closed. Connections that are
    /// there go on. After an error everything is as it was.
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
            .and_then(|socket| {
                socket.set_reuse_port(false).and_then(|()| Port::open(socket.into(), &self.shared))
            });
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
    fn open(listener: TcpListener, shared: &Arc<Shared>) -> std::io::Result<Port> {
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (accepting, is_stopping) = (listener.try_clone()?, Arc::clone(&stopping));
        let shared = Arc::clone(shared);
        let accept = move || accept_all(&accepting, &is_stopping, &shared);
        let thread = Builder::new().name("listener".to_owned()).spawn(accept)?;
        Ok(Port { address, listener, stopping, thread })
    }

    fn close(self) {
        self.stopping.store(true, Ordering::SeqCst);
        // On Linux this wakes the thread; elsewhere a connection of our own does.
        if SockRef::from(&self.listener).shutdown(Shutdown::Both).is_err() {
            let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        }
        if self.thread.join().is_err() {
            warn!("The listener's thread ended in a panic.");
        }
    }
}

fn accept_all(listener: &TcpListener, stopping: &AtomicBool, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            Ok((stream, from)) => admit(stream, from, shared),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                warn!("A connection cannot be accepted: {error}.");
                // Usually no file descriptors are left: trying again at once would only burn time.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn admit(stream: TcpStream, from: SocketAddr, shared: &Arc<Shared>) {
    let limit = (shared.maximum_sql_connections)().saturating_add(RESERVED_CONNECTIONS);
    let Some(place) = Place::take(shared, |shared| &shared.connections, limit) else {
        warn!("A connection from {from} was closed: {limit} connections are open.");
        turn_away(&stream, limit);
        return;
    };
    let shared = Arc::clone(shared);
    let run = move || {
        let _place = place;
        serve(stream, from, &shared);
    };
    if let Err(error) = Builder::new().name(format!("client {from}")).stack_size(STACK_BYTES).spawn(run) {
        warn!("A connection from {from} was closed: no thread can be started ({error}).");
    }
}

/// A word without waiting for anybody: the other server would take a connection that is just closed for the end of this one,
/// and could become a second primary.
fn turn_away(mut stream: &TcpStream, limit: usize) {
    let code = Code::OPERATION_FAILED.number();
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(
        format!("ERROR {code} Too many connections: {limit} are open (Com.MaxConnections).\n").as_bytes(),
    );
    let _ = stream.shutdown(Shutdown::Write);
}

/// One of a limited number of places, given back when dropped.
struct Place {
    shared: Arc<Shared>,
    counter: fn(&Shared) -> &AtomicUsize,
}

impl Place {
    fn take(shared: &Arc<Shared>, counter: fn(&Shared) -> &AtomicUsize, limit: usize) -> Option<Place> {
        let more = |taken: usize| (taken < limit).then_some(taken + 1);
        counter(shared).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place { shared: Arc::clone(shared), counter })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.counter)(&self.shared).fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(stream: TcpStream, from: SocketAddr, shared: &Arc<Shared>) {
    set_options(&stream);
    let protocol = match recognise(&stream, shared.first_bytes_timeout) {
        Ok(protocol) => protocol,
        Err(None) => return (shared.handlers.left)(),
        Err(Some(problem)) => {
            info!("A connection from {from} was closed: {problem}");
            let _ = (&stream)
                .write_all(format!("ERROR {} {problem}\n", Code::INVALID_ARGUMENT.number()).as_bytes());
            console::close(&stream);
            return;
        }
    };
    match protocol {
        Protocol::Peer => (shared.handlers.peer)(stream),
        Protocol::Console => (shared.handlers.console)(stream),
        Protocol::Sql { cancel: true } => (shared.handlers.sql)(stream),
        Protocol::Sql { cancel: false } => {
            let maximum = (shared.maximum_sql_connections)();
            match Place::take(shared, |shared| &shared.sql_connections, maximum) {
                Some(_place) => (shared.handlers.sql)(stream),
                None => {
                    warn!(
                        "A connection from {from} was refused: {maximum} clients are connected (Com.MaxConnections)."
                    );
                    refuse_sql(&stream, maximum);
                    console::close(&stream);
                }
            }
        }
    }
}

fn set_options(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    // A connection without these options is slower, not wrong.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Sql { cancel: bool },
    Peer,
    Console,
}

/// Looks at the first bytes without taking them; the error is a sentence for the client, if there is one yet.
fn recognise(stream: &TcpStream, timeout: Duration) -> Result<Protocol, Option<&'static str>> {
    const SILENT: Option<&str> = Some("Nothing that this server understands came in time.");
    let deadline = Instant::now() + timeout;
    let mut bytes = [0; 8];
    let mut known = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return Err(SILENT);
        }
        match stream.peek(&mut bytes) {
            Ok(0) => return Err(None),
            Ok(length) if length == known => {
                // Peeking does not wait for more than is there, so it has to be asked again; and if the client has
                // closed meanwhile, no more will come and the time runs out.
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(length) => {
                known = length;
                if let Some(verdict) = classify(&bytes[..length]) {
                    stream.set_read_timeout(None).map_err(|_| SILENT)?;
                    return verdict.map_err(Some);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(SILENT);
            }
            // Reset: many a health check ends so.
            Err(_) => return Err(None),
        }
    }
}

/// The protocol that begins with these bytes; none while more of them are needed.
fn classify(bytes: &[u8]) -> Option<Result<Protocol, &'static str>> {
    const SENSELESS: &str =
        "This server speaks the PostgreSQL protocol and takes text lines; this is neither.";
    let first = *bytes.first()?;
    if bytes.starts_with(&MAGIC) {
        return Some(Ok(Protocol::Peer));
    }
    if MAGIC.starts_with(bytes) {
        return None;
    }
    if first != 0 {
        // Bytes that begin a character of UTF-8 text.
        let text = matches!(first, b' '..=b'~' | 0xc2..=0xf4 | b'\t' | b'\r' | b'\n');
        return Some(if text { Ok(Protocol::Console) } else { Err(SENSELESS) });
    }
    let [a, b, c, d, rest @ ..] = bytes else { return None };
    if !(8..=MAX_STARTUP_BYTES).contains(&u32::from_be_bytes([*a, *b, *c, *d])) {
        return Some(Err(SENSELESS));
    }
    let [a, b, c, d] = *rest else { return None };
    let code = u32::from_be_bytes([a, b, c, d]);
    // Any 3.x counts: the server may answer with a lower version.
    if code >> 16 == 3 || code == CANCEL_REQUEST || ENCRYPTION_REQUESTS.contains(&code) {
        return Some(Ok(Protocol::Sql { cancel: code == CANCEL_REQUEST }));
    }
    Some(Err(SENSELESS))
}

/// Tells a PostgreSQL client that the server is full. A request for encryption is declined first, because clients do
/// not show an error that comes instead of that answer.
fn refuse_sql(mut stream: &TcpStream, maximum: usize) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    for _ in 0..=ENCRYPTION_REQUESTS.len() {
        let mut head = [0; 8];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        let [.., a, b, c, d] = head;
        if !ENCRYPTION_REQUESTS.contains(&u32::from_be_bytes([a, b, c, d])) {
            break;
        }
        if stream.write_all(b"N").is_err() {
            return;
        }
    }
    let text = format!("too many clients: {maximum} are connected already (Com.MaxConnections)");
    let mut body = Vec::new();
    for (field, value) in [('S', "FATAL"), ('V', "FATAL"), ('C', "53300"), ('M', &text)] {
        body.extend_from_slice(format!("{field}{value}\0").as_bytes());
    }
    body.push(0);
    let mut message = vec![b'E'];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(&body);
    let _ = stream.write_all(&message);
}

#[cfg(test)]
mod tests;
