//! File descriptors: what who costs how many, and what goes on when there are no more.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::common::{assert_identical, connected_pair, messages, program, server_error, wait_until};
use hotstandby::demo::pair::{ADMINISTRATOR, PATIENCE, Pair, Server};
use postgres::Client;

/// A PostgreSQL client that has said who it is and stops before the password.
fn half_logged_in(server: &Server, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = [&(3_i32 << 16).to_be_bytes()[..], b"user\0", user.as_bytes(), b"\0\0"].concat();
    stream.write_all(&(body.len() as u32 + 4).to_be_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let offer = message(&mut stream);
    assert_eq!(offer[..4], 10_i32.to_be_bytes(), "{offer:?}");
    stream
}

/// The body of an authentication request.
fn message(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], b'R');
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).unwrap();
    body
}

/// Salt and rounds that a server shows for a user.
fn salt_and_rounds(server: &Server, user: &str) -> String {
    let mut stream = half_logged_in(server, user);
    let first = b"n,,n=,r=nonce";
    let body = [&b"SCRAM-SHA-256\0"[..], &(first.len() as u32).to_be_bytes(), first].concat();
    stream.write_all(b"p").unwrap();
    stream.write_all(&(body.len() as u32 + 4).to_be_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let answer = message(&mut stream);
    let text = String::from_utf8(answer[4..].to_vec()).unwrap();
    text[text.find(",s=").unwrap()..].to_owned()
}

/// What a server holds open, by name.
fn open_files(server: &Server) -> BTreeMap<String, usize> {
    let mut open = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", server.process_id().unwrap())).unwrap() {
        // One may have been closed meanwhile.
        let Ok(target) = std::fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.to_string_lossy();
        let name = if target.starts_with("socket:") { "socket" } else { target.rsplit('/').next().unwrap() };
        *open.entry(name.to_owned()).or_default() += 1;
    }
    open
}

#[test]
fn nothing_is_opened_for_who_has_not_logged_in() {
    let (_root, pair) = connected_pair("");
    drop(half_logged_in(&pair.first, ADMINISTRATOR.0));
    let of_database = |open: &BTreeMap<String, usize>| {
        open.iter().filter(|(name, _)| name.starts_with("solid.db")).map(|(_, count)| count).sum::<usize>()
    };
    let before = of_database(&open_files(&pair.first));
    let waiting: Vec<_> = (0..40)
        .map(|number| half_logged_in(&pair.first, if number % 2 == 0 { ADMINISTRATOR.0 } else { "nobody" }))
        .collect();
    let open = open_files(&pair.first);
    assert_eq!(of_database(&open), before, "{open:?}");
    drop(waiting);
}

/// What an attempt shows must not tell whether the name is a user's.
#[test]
fn a_name_that_is_none_looks_the_same_at_both_servers_and_after_a_start() {
    let (_root, mut pair) = connected_pair("");
    let shown = |server: &Server, user: &str| salt_and_rounds(server, user);
    let (nobody, user) = (shown(&pair.first, "nobody"), shown(&pair.first, ADMINISTRATOR.0));
    assert_eq!(shown(&pair.first, "NoBody"), nobody);
    assert_ne!(shown(&pair.first, "somebody"), nobody);
    assert_eq!(shown(&pair.second, "nobody"), nobody, "at the other server");
    pair.second.stop().unwrap();
    pair.second.start(&[]).unwrap();
    assert_eq!(shown(&pair.second, "nobody"), nobody, "after a start");
    assert_eq!(shown(&pair.second, ADMINISTRATOR.0), user);
    let rounds = |shown: &str| (shown.len(), shown[shown.find(",i=").unwrap()..].to_owned());
    assert_eq!(rounds(&nobody), rounds(&user));
    // As most users have it.
    let mut admin = pair.first.sql().unwrap();
    let verifier = |salt: &str| format!("SCRAM-SHA-256$10000:{salt}${0}:{0}", "A".repeat(43) + "=");
    for (user, salt) in
        [("one", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ("two", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldY")]
    {
        admin.batch_execute(&format!("create user {user} identified by '{}'", verifier(salt))).unwrap();
    }
    let expected = rounds(&shown(&pair.first, "one"));
    assert!(expected.1.starts_with(",i=10000"));
    wait_until("the servers have the users", || rounds(&shown(&pair.first, "nobody")) == expected);
}

/// A program that is `solid` under limits: `ulimit` with these options first.
fn limited(directory: &Path, ulimits: &str) -> PathBuf {
    let path = directory.join("limited-solid");
    let text = format!("#!/bin/sh\n{ulimits}\nexec '{}' \"$@\"\n", program().display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn limited_pair(ulimits: &str, extra: &str) -> (tempfile::TempDir, Pair) {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(&limited(root.path(), ulimits), root.path(), extra).unwrap();
    pair.start().unwrap();
    (root, pair)
}

/// Sessions until one is refused, and its error; at most so many.
fn readers(server: &Server, most: usize) -> (Vec<Client>, Option<(String, String)>) {
    let mut sessions = Vec::new();
    while sessions.len() < most {
        match server.sql() {
            Ok(mut session) => {
                session.batch_execute("select count(*) from t").unwrap();
                sessions.push(session);
            }
            Err(error) => return (sessions, Some(server_error(&error).expect("an answer"))),
        }
    }
    (sessions, None)
}

/// Enough for several files of the log.
fn write_much(session: &mut Client) {
    for _ in 0..40 {
        session.batch_execute("insert into t values (hex(randomblob(5000)))").unwrap();
    }
}

fn status(server: &Server) -> String {
    let rows = server.console().unwrap().command("status").unwrap();
    rows.into_iter().map(|(_, text)| text + "\n").collect()
}

const SMALL_LOG_FILES: &str = "[Logging]\nMinSplitSize=64K";

#[test]
fn a_session_costs_three_descriptors_and_a_silent_connection_one() {
    let (_root, pair) = connected_pair("");
    pair.first.sql().unwrap().batch_execute("create table t (a)").unwrap();
    let total = || open_files(&pair.first).values().sum::<usize>();
    // SQLite gives the database's descriptor back when nobody holds a lock on the file.
    drop(readers(&pair.first, 1));
    let before = total();
    let sessions = readers(&pair.first, 20).0;
    let with = total();
    assert!(with <= before + 3 * sessions.len(), "{before} before, {with} with {} sessions", sessions.len());
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(pair.first.address()).unwrap()).collect();
    let half = half_logged_in(&pair.first, "nobody");
    assert!(total() <= with + silent.len() + 1, "{:?}", open_files(&pair.first));
    drop((sessions, half));
}

/// The usual limit of a service is a soft one.
#[test]
fn the_limit_of_open_files_is_raised() {
    let (_root, mut pair) = limited_pair("ulimit -Sn 256", "");
    pair.first.sql().unwrap().batch_execute("create table t (a)").unwrap();
    wait_until("the table is there", || pair.second.sql().unwrap().batch_execute("select * from t").is_ok());
    let (readers, refused) = readers(&pair.second, 200);
    assert_eq!((readers.len(), refused), (200, None));
    assert!(status(&pair.second).contains("200 SQL sessions of 1000"), "{}", status(&pair.second));
    pair.first.kill();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
}

#[test]
fn readers_are_refused_in_time_and_a_dead_primary_is_replaced() {
    let (_root, mut pair) = limited_pair("ulimit -n 256", SMALL_LOG_FILES);
    let mut writer = pair.first.sql().unwrap();
    writer.batch_execute("create table t (a)").unwrap();
    wait_until("the table is there", || pair.second.sql().unwrap().batch_execute("select * from t").is_ok());
    let (readers, refused) = readers(&pair.second, 200);
    let (state, message) = refused.expect("more readers than the limit allows");
    assert_eq!(state, "53300");
    assert!(message.starts_with("too many clients: "), "{message}");
    assert!(readers.len() >= 20, "{}", readers.len());
    let status = status(&pair.second);
    assert!(status.contains("Com.MaxConnections=1000; the limit of 256 open files"), "{status}");
    assert!(
        messages(&pair.second).contains("Com.MaxConnections=1000, but this process may have 256 files open")
    );
    write_much(&mut writer);
    assert_identical(&pair);
    pair.first.kill();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
    let mut readers = readers;
    write_much(&mut readers[0]);
    assert!(pair.second.expect("hsb verify").is_err(), "nobody is there to compare with");
}

/// Sockets that say nothing and log-ins that stop before the password cost nobody else a place.
#[test]
fn strangers_keep_nobody_out() {
    let (_root, pair) = limited_pair("ulimit -n 256", SMALL_LOG_FILES);
    let mut writer = pair.first.sql().unwrap();
    writer.batch_execute("create table t (a)").unwrap();
    let connect = || TcpStream::connect(pair.first.address()).unwrap();
    let silent: Vec<_> = (0..400).map(|_| connect()).collect();
    let start = [0, 0, 0, 18, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0, b'x', 0, 0, 0, 0];
    let half: Vec<_> = (0..250)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(&start).unwrap();
            stream
        })
        .collect();
    write_much(&mut writer);
    // A console, a client, and the other server, which has to find its way in anew.
    assert_eq!(pair.first.expect("hsb state").unwrap(), "PRIMARY ACTIVE");
    pair.first.sql().unwrap().batch_execute("select * from t").unwrap();
    pair.second.expect("hsb disconnect").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    pair.second.expect("hsb connect").unwrap();
    assert_identical(&pair);
    let log = messages(&pair.first);
    assert!(log.matches("have to make way for newer ones").count() <= 2, "{log}");
    drop((silent, half));
}

/// Nothing is left but what the server holds in reserve: the log goes on, file after file.
#[test]
fn the_log_goes_on_when_nothing_else_can_be_opened() {
    let (_root, pair) = limited_pair("", SMALL_LOG_FILES);
    let mut writer = pair.first.sql().unwrap();
    writer.batch_execute("create table t (a)").unwrap();
    let id = pair.first.process_id().unwrap().to_string();
    let limit_to = |limit: &str| {
        let status = std::process::Command::new("prlimit")
            .args(["--pid", &id, &format!("--nofile={limit}:")])
            .status();
        assert!(status.unwrap().success());
    };
    let highest = std::fs::read_dir(format!("/proc/{id}/fd"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .max();
    limit_to(&(highest.unwrap() + 1).to_string());
    let files = || std::fs::read_dir(&pair.first.directory).unwrap().count();
    let before = files();
    write_much(&mut writer);
    let mut console = TcpStream::connect(pair.first.address()).unwrap();
    console.write_all(format!("login {} {}\nquit\n", ADMINISTRATOR.0, ADMINISTRATOR.1).as_bytes()).unwrap();
    write_much(&mut writer);
    assert!(files() >= before + 4);
    limit_to("1024");
    let mut answer = String::new();
    console.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "OK\n");
    assert_identical(&pair);
}

#[test]
fn a_limit_that_leaves_room_for_nobody_is_refused_at_the_start() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(&limited(root.path(), "ulimit -n 100"), root.path(), "").unwrap();
    assert!(pair.first.start(&[]).is_err());
    let said = messages(&pair.first);
    assert!(said.contains("This process may have 100 files open, and needs at least"), "{said}");
}
