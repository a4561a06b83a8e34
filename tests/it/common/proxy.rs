//! A network between two servers that can be disturbed: hold, lose, cut, and a spy who decides at each piece of data.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use hotstandby::codec::{self, FRAME_HEADER_BYTES, FrameKind};
use hotstandby::demo::pair::{Pair, Server};
use hotstandby::hsb::event::PeerMessage;

/// Which way data flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    First,
    Second,
}

/// What becomes of a piece of data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Pass,
    /// Cut the connection instead of passing it on.
    CutBefore,
    /// Pass it on, then cut the connection.
    CutAfter,
    /// From here on nothing passes this way until [`Network::resume`]; this piece neither.
    Hold,
}

type Spy = Box<dyn FnMut(From, &[u8]) -> Verdict + Send>;

#[derive(Default)]
struct Inner {
    held: [bool; 2],
    lost: bool,
    refused: bool,
    streams: Vec<TcpStream>,
    spy: Option<Spy>,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// Both directions in which the servers of a pair can reach each other.
pub struct Network(Arc<Shared>);

impl Network {
    /// Puts itself between the servers of a pair that is prepared and not yet started.
    pub fn between(pair: &Pair) -> Network {
        let network = Network(Arc::default());
        for (server, peer, from) in
            [(&pair.first, &pair.second, From::First), (&pair.second, &pair.first, From::Second)]
        {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let path = server.directory.join("solid.ini");
            let port = listener.local_addr().unwrap().port();
            let ini = std::fs::read_to_string(&path).unwrap();
            let direct = format!("Connect=tcp {}\n", peer.port);
            assert!(ini.contains(&direct));
            std::fs::write(&path, ini.replace(&direct, &format!("Connect=tcp {port}\n"))).unwrap();
            let (shared, target) = (Arc::clone(&network.0), peer.port);
            std::thread::spawn(move || accept(&listener, target, from, &shared));
        }
        network
    }

    /// Puts itself in front of a server, for clients that use the port that is returned.
    pub fn in_front_of(server: &Server) -> (Network, u16) {
        let network = Network(Arc::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (shared, target) = (Arc::clone(&network.0), server.port);
        std::thread::spawn(move || accept(&listener, target, From::First, &shared));
        (network, port)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.0.inner.lock().unwrap());
        self.0.changed.notify_all();
    }

    /// Data from there waits.
    pub fn hold(&self, from: From) {
        self.change(|inner| inner.held[from as usize] = true);
    }

    /// Everything vanishes, both ways, without a word to anybody; new connections are accepted and lead nowhere.
    pub fn lose(&self) {
        self.change(|inner| inner.lost = true);
    }

    /// Ends all connections with a reset; new ones are possible.
    pub fn cut(&self) {
        self.change(cut);
    }

    /// Ends all connections with a reset and resets new ones too.
    pub fn cut_for_good(&self) {
        self.change(|inner| {
            inner.refused = true;
            cut(inner);
        });
    }

    /// All is well again; data held is passed on, data lost is lost, and so are the connections it was lost from.
    pub fn resume(&self) {
        self.change(|inner| {
            if inner.lost {
                cut(inner);
            }
            inner.held = [false; 2];
            inner.lost = false;
            inner.refused = false;
            inner.spy = None;
        });
    }

    /// Has every piece of data looked at.
    pub fn spy(&self, spy: impl FnMut(From, &[u8]) -> Verdict + Send + 'static) {
        self.change(|inner| inner.spy = Some(Box::new(spy)));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.cut_for_good();
    }
}

fn cut(inner: &mut Inner) {
    for stream in inner.streams.drain(..) {
        // With this, closing sends a reset. A stream that is closed already does not mind.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, target: u16, from: From, shared: &Arc<Shared>) {
    let back = if from == From::First { From::Second } else { From::First };
    for stream in listener.incoming() {
        let Ok(client) = stream else { continue };
        let (lost, refused) = {
            let inner = shared.inner.lock().unwrap();
            (inner.lost, inner.refused)
        };
        if refused {
            let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
            continue;
        }
        if lost {
            shared.inner.lock().unwrap().streams.push(client);
            continue;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
        {
            let mut inner = shared.inner.lock().unwrap();
            let known = [&client, &server].map(|stream| stream.try_clone().unwrap());
            inner.streams.extend(known);
            // It was cut while this connection was made.
            if inner.refused {
                cut(&mut inner);
                continue;
            }
        }
        for (input, output, from) in [(&client, &server, from), (&server, &client, back)] {
            let _ = input.set_nodelay(true);
            let (input, output) = (input.try_clone().unwrap(), output.try_clone().unwrap());
            let shared = Arc::clone(shared);
            std::thread::spawn(move || pump(input, output, from, &shared));
        }
    }
}

fn pump(mut input: TcpStream, mut output: TcpStream, from: From, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = input.read(&mut buffer).unwrap_or_default();
        let mut inner = shared.inner.lock().unwrap();
        let mut verdict = Verdict::Pass;
        if length > 0
            && let Some(spy) = &mut inner.spy
        {
            verdict = spy(from, &buffer[..length]);
        }
        match verdict {
            Verdict::Hold => inner.held[from as usize] = true,
            Verdict::CutBefore => return cut(&mut inner),
            Verdict::Pass | Verdict::CutAfter => {}
        }
        // The end of a connection waits as data does.
        while inner.held[from as usize] {
            inner = shared.changed.wait(inner).unwrap();
        }
        if inner.lost {
            if length == 0 {
                return;
            }
            continue;
        }
        drop(inner);
        if length == 0 {
            let _ = output.shutdown(Shutdown::Write);
            return;
        }
        if output.write_all(&buffer[..length]).is_err() {
            let _ = input.shutdown(Shutdown::Both);
            return;
        }
        if verdict == Verdict::CutAfter {
            return cut(&mut shared.inner.lock().unwrap());
        }
    }
}

/// The messages (not the batches) in a piece of data that begins with a frame, as far as they are whole.
pub fn peer_messages(mut bytes: &[u8]) -> Vec<PeerMessage> {
    let mut found = Vec::new();
    while let Ok((kind, length)) = codec::frame_length(bytes) {
        if bytes.len() < length {
            break;
        }
        if kind == FrameKind::Peer {
            // The steps of the handshake are other messages in the same frames.
            found.extend(codec::decode_message::<PeerMessage>(&bytes[FRAME_HEADER_BYTES..length]));
        }
        bytes = &bytes[length..];
    }
    found
}

/// Whether a batch begins in this piece of data.
pub fn has_batch(mut bytes: &[u8]) -> bool {
    while let Ok((kind, length)) = codec::frame_length(bytes) {
        if kind == FrameKind::Batch {
            return true;
        }
        if bytes.len() < length {
            break;
        }
        bytes = &bytes[length..];
    }
    false
}
