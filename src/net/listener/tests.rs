//! Tests of the listener.

use super::protocol::classify;
use super::*;
use crossbeam_channel::{Receiver, unbounded};
use std::io::{Read, Write};
use std::net::TcpStream;

const STARTUP: &[u8] = &[0, 0, 0, 9, 0, 3, 0, 0, 0];
const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const CANCEL: &[u8] = &[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2];

const LONG: Duration = Duration::from_secs(60);

fn limits(sql: usize, waiting: usize) -> Limits {
    Limits { sql, consoles: 100, peers: 100, waiting }
}

/// A listener whose handlers tell what they got and keep the connection until the client closes. Those that begin with
/// `login` or `HSBF` log in at once, SQL clients when they send an `x`.
fn listener(limits: Limits, time_to_log_in: Duration) -> (ListenerHandle, Receiver<(&'static str, Vec<u8>)>) {
    let (sender, received) = unbounded();
    let handler = |name: &'static str, kind: Kind| -> Handler {
        let sender = sender.clone();
        Box::new(move |mut guest: Guest| {
            let stream = Arc::clone(guest.stream());
            let mut bytes = [0; 8];
            let length = (&*stream).read(&mut bytes).unwrap();
            (&*stream).write_all(name.as_bytes()).unwrap();
            let full = guest.full(kind).is_some();
            sender.send((if full { "full" } else { name }, bytes[..length].to_vec())).unwrap();
            let mut said = std::io::BufReader::new(&*stream).bytes();
            let logs_in = kind != Kind::Sql || said.any(|byte| byte.is_ok_and(|byte| byte == b'x'));
            if logs_in {
                let _ = guest.let_in(kind);
            }
            let _ = (&*stream).read_to_end(&mut Vec::new());
        })
    };
    let for_left = sender.clone();
    let left = Box::new(move || drop(for_left.send(("left", Vec::new()))));
    let handlers = Handlers {
        left,
        sql: handler("sql", Kind::Sql),
        peer: handler("peer", Kind::Peer),
        console: handler("console", Kind::Console),
    };
    let socket = bind((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
    (start(socket, move || limits, move || time_to_log_in, handlers).unwrap(), received)
}

fn connect(handle: &ListenerHandle, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(handle.address().unwrap()).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "condition not met in time");
        std::thread::yield_now();
    }
}

#[test]
fn who_leaves_without_a_word_is_counted_and_nothing_else() {
    let (handle, received) = listener(limits(10, 100), LONG);
    for reset in [false, true] {
        let client = connect(&handle, b"");
        wait_until(|| handle.places().waiting() == 1);
        if reset {
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        assert_eq!(received.recv_timeout(Duration::from_secs(10)).unwrap().0, "left", "reset: {reset}");
        wait_until(|| handle.places().waiting() == 0);
    }
    handle.stop();
}

#[test]
fn the_three_protocols_are_told_apart() {
    let (handle, received) = listener(limits(10, 100), LONG);
    for (bytes, name) in [
        (STARTUP, "sql"),
        (SSL_REQUEST, "sql"),
        (CANCEL, "sql"),
        (b"HSBF\x01\x02\0\0", "peer"),
        (b"login a b\n", "console"),
        (b"HSB\n", "console"),
        ("ä\n".as_bytes(), "console"),
    ] {
        let _client = connect(&handle, bytes);
        let (who, seen) = received.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!((who, &seen[..]), (name, &bytes[..bytes.len().min(8)]));
    }
    handle.stop();
}

#[test]
fn bytes_may_come_one_by_one() {
    let (handle, received) = listener(limits(10, 100), LONG);
    let mut client = TcpStream::connect(handle.address().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    for byte in STARTUP {
        client.write_all(&[*byte]).unwrap();
        std::thread::yield_now();
    }
    assert_eq!(received.recv_timeout(Duration::from_secs(10)).unwrap().0, "sql");
    handle.stop();
}

#[test]
fn garbage_and_silence_get_one_line_and_the_end() {
    let (handle, received) = listener(limits(10, 100), Duration::from_millis(50));
    for bytes in [
        &b"\x16\x03\x01\x02\0\x01\0\x01\xfc"[..],
        &[0xff; 20],
        &[0; 8],
        &[0, 0, 0, 8, 9, 9, 9, 9],
        b"",
        b"HS",
    ] {
        let mut answer = String::new();
        connect(&handle, bytes).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("ERROR 14526 ") && answer.ends_with(".\n"), "{bytes:?}: {answer}");
    }
    assert!(received.is_empty());
    wait_until(|| handle.places().waiting() == 0);
    handle.stop();
}

#[test]
fn above_the_maximum_sql_finds_no_place_and_the_others_get_in() {
    let (handle, received) = listener(limits(1, 100), LONG);
    let mut first = connect(&handle, STARTUP);
    assert_eq!(received.recv_timeout(Duration::from_secs(10)).unwrap().0, "sql");
    // Who has not logged in takes nobody's place.
    let half = connect(&handle, STARTUP);
    assert_eq!(received.recv_timeout(Duration::from_secs(10)).unwrap().0, "sql");
    first.write_all(b"x").unwrap();
    wait_until(|| handle.places().taken(Kind::Sql) == 1);
    let others = [(STARTUP, "full"), (&b"HSBF"[..], "peer"), (b"login", "console")];
    let _open: Vec<TcpStream> = others
        .iter()
        .map(|(bytes, name)| {
            let stream = connect(&handle, bytes);
            assert_eq!(received.recv_timeout(Duration::from_secs(10)).unwrap().0, *name);
            stream
        })
        .collect();
    assert_eq!(handle.places().taken(Kind::Sql), 1);
    drop((first, half));
    wait_until(|| handle.places().taken(Kind::Sql) == 0);
    let _next = connect(&handle, STARTUP);
    assert_eq!(received.recv_timeout(Duration::from_secs(10)).unwrap().0, "sql");
    handle.stop();
}

#[test]
fn after_stop_the_port_is_free() {
    let (handle, _received) = listener(limits(1, 100), LONG);
    let address = handle.address().unwrap();
    handle.stop();
    TcpListener::bind(address).unwrap();
}

#[test]
fn the_port_moves_and_connections_stay() {
    let (handle, received) = listener(limits(10, 100), LONG);
    let mut old = connect(&handle, b"login a b\n");
    let who = || received.recv_timeout(Duration::from_secs(10)).unwrap().0;
    assert_eq!(who(), "console");
    let first = handle.address().unwrap();
    // The same port at another address, then another port.
    let beside = SocketAddr::from(([127, 0, 0, 2], first.port()));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for wanted in [beside, free] {
        let before = handle.address().unwrap();
        handle.move_to(wanted).unwrap();
        assert_eq!(handle.address(), Some(wanted));
        let _new = connect(&handle, b"login a b\n");
        assert_eq!(who(), "console");
        assert!(TcpStream::connect(before).is_err(), "{before} is still open");
    }
    // What is taken is refused and changes nothing.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(handle.move_to(taken.local_addr().unwrap()).is_err());
    assert_eq!(handle.address(), Some(free));
    let _new = connect(&handle, b"login a b\n");
    assert_eq!(who(), "console");
    // The connection from before all this is served to its end.
    let mut answer = [0; 7];
    old.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"console");
    handle.stop();
}

#[test]
fn every_beginning_is_decided_within_eight_bytes() {
    let mut state = 7_u64;
    for _ in 0..100_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut bytes = state.to_be_bytes();
        if state & 3 == 0 {
            bytes[..3].fill(0);
        }
        assert!(classify(&bytes).is_some(), "{bytes:?}");
    }
    assert_eq!(classify(b""), None);
}

/// The other server may be among those who have to make way.
#[test]
fn silent_connections_make_way_and_hear_why() {
    let (handle, received) = listener(limits(10, 16), LONG);
    let silent: Vec<_> = (0..200).map(|_| connect(&handle, b"")).collect();
    for (bytes, name) in [(&b"HSBF"[..], "peer"), (b"login", "console"), (STARTUP, "sql")] {
        let _new = connect(&handle, bytes);
        assert_eq!(received.recv_timeout(Duration::from_secs(60)).unwrap().0, name);
        assert!(handle.places().waiting() <= 20);
    }
    let mut answer = String::new();
    (&silent[0]).read_to_string(&mut answer).unwrap_or_default();
    assert!(answer.starts_with("ERROR 14501 Too many connections that have not logged in"), "{answer}");
    handle.stop();
}

#[test]
fn half_log_ins_make_way_and_hear_why() {
    let (handle, received) = listener(limits(10, 16), LONG);
    let half: Vec<_> = (0..60).map(|_| connect(&handle, STARTUP)).collect();
    let mut who = Vec::new();
    let _others = [&b"HSBF"[..], b"login"].map(|bytes| connect(&handle, bytes));
    while who.iter().filter(|name| **name != "sql").count() < 2 {
        who.push(received.recv_timeout(Duration::from_secs(60)).unwrap().0);
    }
    wait_until(|| handle.places().taken(Kind::Peer) + handle.places().taken(Kind::Console) == 2);
    let mut answer = Vec::new();
    (&half[0]).read_to_end(&mut answer).unwrap_or_default();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("sql") && text.contains("C53300\0"), "{text}");
    handle.stop();
}
