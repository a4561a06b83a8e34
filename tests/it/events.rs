//! Events as SQL clients, consoles and embedding programs hear them: each once, in order, at once, and never inside an
//! answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::embedded::server_with;
use crate::common::{connected_pair, wait_until};
use hotstandby::demo::pair::{PATIENCE, Server};
use hotstandby::services::context::Rights;
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;

const STATES: &str = "sys_event_hsbstateswitch";

/// A server without a peer, SECONDARY ALONE.
fn alone() -> crate::common::embedded::Server {
    server_with("[HotStandby]\nHSBEnabled=yes\nConnect=tcp 9\n")
}

/// Channel and payload of the next notification.
fn next(client: &mut Client) -> (String, String) {
    let next = client.notifications().timeout_iter(PATIENCE).next().unwrap().expect("a notification");
    (next.channel().to_owned(), next.payload().to_owned())
}

fn states(payload: &str) -> &str {
    let (_, text) = payload.split_once("\"TEXTDATA\":\"").unwrap();
    text.trim_end_matches("\"}")
}

#[test]
fn an_idle_session_is_told_at_once() {
    let server = alone();
    let mut listener = server.connect();
    let mut quoted = server.connect();
    let mut other = server.connect();
    listener.batch_execute("LISTEN SYS_EVENT_HSBSTATESWITCH; LISTEN sys_event_hsbstateswitch").unwrap();
    quoted.batch_execute("LISTEN \"SYS_EVENT_HSBSTATESWITCH\"").unwrap();
    other.batch_execute("LISTEN sys_event_netcopyend").unwrap();
    let mut embedded = server.context.events.subscribe();
    server.admin("hsb set primary alone");
    let (channel, payload) = next(&mut listener);
    assert_eq!(channel, STATES);
    let start = "{\"ENAME\":\"SYS_EVENT_HSBSTATESWITCH\",\"POSTSRVTIME\":\"20";
    let end = ",\"NUMDATAINFO\":1,\"TEXTDATA\":\"PRIMARY ALONE\"}";
    assert!(
        payload.starts_with(start) && payload.ends_with(end) && payload.contains("\"UID\":"),
        "{payload}"
    );
    assert_eq!(next(&mut quoted).0, "SYS_EVENT_HSBSTATESWITCH");
    let event = embedded.wait(PATIENCE).unwrap().unwrap();
    assert_eq!((event.name.as_str(), event.text.as_str()), ("SYS_EVENT_HSBSTATESWITCH", "PRIMARY ALONE"));

    listener.batch_execute("UNLISTEN *").unwrap();
    quoted.batch_execute("UNLISTEN \"SYS_EVENT_HSBSTATESWITCH\"").unwrap();
    server.admin("hsb set standalone");
    assert_eq!(embedded.wait(PATIENCE).unwrap().unwrap().text, "STANDALONE");
    for client in [&mut listener, &mut quoted, &mut other] {
        // What there were would stand before this answer.
        client.batch_execute("select 1").unwrap();
        assert!(client.notifications().is_empty());
    }
    let listed = server.context.admin.execute("dba", Rights::Administrator, "events");
    assert!(
        listed.iter().any(|row| row.1.contains("HSBSTATESWITCH") && row.1.contains("STANDALONE")),
        "{listed:?}"
    );
}

#[test]
fn nothing_is_told_inside_a_transaction() {
    let server = alone();
    let mut listener = server.connect();
    let mut probe = server.connect();
    listener.batch_execute(&format!("LISTEN {STATES}; BEGIN")).unwrap();
    probe.batch_execute(&format!("LISTEN {STATES}")).unwrap();
    server.admin("hsb set primary alone");
    // The event is there: another session has it.
    next(&mut probe);
    listener.batch_execute("select 1").unwrap();
    assert!(listener.notifications().is_empty());
    assert!(listener.notifications().timeout_iter(Duration::from_millis(1)).next().unwrap().is_none());
    listener.batch_execute("COMMIT").unwrap();
    assert_eq!(states(&next(&mut listener).1), "PRIMARY ALONE");
}

#[test]
fn who_listens_to_nothing_known_is_warned_and_who_is_slow_is_dropped() {
    let server = alone();
    let mut slow = server.connect();
    assert!(slow.batch_execute("LISTEN").is_err());
    slow.batch_execute(&format!("LISTEN no_such_event; LISTEN {STATES}; BEGIN")).unwrap();
    for _ in 0..2000 {
        server.context.events.post("SYS_EVENT_HSBSTATESWITCH", "x");
    }
    slow.batch_execute("COMMIT").unwrap();
    server.context.events.post("SYS_EVENT_HSBSTATESWITCH", "y");
    slow.batch_execute("select 1").unwrap();
    assert!(slow.notifications().is_empty());
    slow.batch_execute(&format!("LISTEN {STATES}")).unwrap();
    server.context.events.post("SYS_EVENT_HSBSTATESWITCH", "z");
    assert_eq!(states(&next(&mut slow).1), "z");
}

#[test]
fn the_console_watches_all_events_or_one() {
    let server = alone();
    let watch = |command: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("login dba dba\n{command}\n").as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "OK");
        move || lines.next().unwrap().unwrap()
    };
    let mut wrong = watch("watch nothing");
    assert!(wrong().contains("No event is called 'nothing'"));
    assert_eq!(wrong(), "ERROR 14526");
    let (mut all, mut one) = (watch("watch"), watch("watch SYS_EVENT_NETCOPYEND"));
    // A console says nothing when it begins to watch: it is told again until it has heard.
    let events = server.context.events.clone();
    let heard = std::thread::scope(|scope| {
        let lines = scope.spawn(move || [all(), one()]);
        wait_until("both consoles have heard", || {
            events.post("SYS_EVENT_NETCOPYREQ", "");
            events.post("SYS_EVENT_NETCOPYEND", "SUCCESS");
            lines.is_finished()
        });
        lines.join().unwrap()
    });
    assert!(heard[0].starts_with("SYS_EVENT_NETCOPY"), "{heard:?}");
    assert_eq!(heard[1], "SYS_EVENT_NETCOPYEND SUCCESS");
}

/// Listens on a thread; the result is all that was heard up to and with the last state.
fn listen(server: &Server, last: &'static str) -> std::thread::JoinHandle<Vec<String>> {
    let mut client = server.sql().unwrap();
    client.batch_execute(&format!("LISTEN {STATES}")).unwrap();
    std::thread::spawn(move || {
        let mut heard: Vec<String> = Vec::new();
        while heard.last().map(String::as_str) != Some(last) {
            heard.push(states(&next(&mut client).1).to_owned());
        }
        heard
    })
}

#[test]
fn every_change_of_the_state_is_told_once_and_in_order() {
    let (_root, pair) = connected_pair("");
    let first = listen(&pair.first, "STANDALONE");
    let second = listen(&pair.second, "PRIMARY ALONE");
    pair.switch().unwrap();
    pair.first.expect("hsb switch primary").unwrap();
    pair.first.wait_for("hsb state", "PRIMARY ACTIVE").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ACTIVE").unwrap();
    pair.first.expect("hsb disconnect").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    pair.first.expect("hsb set standalone").unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
    for (server, heard) in [(&pair.first, first.join().unwrap()), (&pair.second, second.join().unwrap())] {
        // The message log has a line for each change: `FROM -> TO: reason`.
        let log = crate::common::settled_messages(server);
        let logged: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split_once(" -> ").and_then(|(_, rest)| rest.split_once(": ")))
            .map(|(to, _)| to)
            .collect();
        let tail = &logged[logged.len().saturating_sub(heard.len())..];
        assert_eq!(heard, tail, "{}\n{log}", server.name);
        assert!(heard.windows(2).all(|two| two[0] != two[1]), "{heard:?}");
    }
}

#[test]
fn an_idle_client_is_told_of_the_new_role() {
    let server = alone();
    // What the server sends on one connection passes through here.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&sent);
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), target.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let (mut input, mut output, mut buffer) = (target, client, [0; 4096]);
        while let Ok(length @ 1..) = input.read(&mut buffer) {
            kept.lock().unwrap().extend_from_slice(&buffer[..length]);
            let _ = output.write_all(&buffer[..length]);
        }
    });
    let has = |wanted: &[u8]| sent.lock().unwrap().windows(wanted.len()).any(|bytes| bytes == wanted);
    let login = format!("host=127.0.0.1 port={port} user=dba password=dba");
    let _idle = Client::connect(&login, postgres::NoTls).unwrap();
    assert!(has(b"in_hot_standby\0on\0") && !has(b"in_hot_standby\0off\0"));
    server.admin("hsb set primary alone");
    wait_until("the idle client was told", || has(b"in_hot_standby\0off\0"));
    assert!(has(b"default_transaction_read_only\0off\0"));
}
