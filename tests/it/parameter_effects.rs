//! What parameters do once they are set: each test changes one on a running node and sees the difference.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::embedded::{Server, server, server_with};
use crate::common::fixture::{fixture, insert, rows};
use crate::common::proxy::{From, Verdict};
use crate::common::{assert_identical, messages, program, server_error, sql, wait_until};
use hotstandby::codec::{self, FrameKind};
use hotstandby::demo::pair::{self, Pair};
use hotstandby::services::context::Rights;

/// The SQLSTATE of what must not work.
fn refused<T>(result: Result<T, postgres::Error>) -> String {
    server_error(&result.err().expect("this should have been refused")).expect("an answer of the server").0
}

fn answer(server: &Server, command: &str) -> (u32, String) {
    server.context.admin.execute("dba", Rights::Administrator, command).remove(0)
}

#[test]
fn listen_moves_the_port_and_keeps_connections() {
    let mut server = server();
    let mut before = server.connect();
    let other = pair::reserve_port().unwrap();
    server.admin(&format!("parameter Com.Listen=tcp {}", other.number));
    before.batch_execute("create table t (a integer)").unwrap();
    let old = std::mem::replace(&mut server.port, other.number);
    assert!(TcpStream::connect(("127.0.0.1", old)).is_err());
    server.connect().batch_execute("insert into t values (1)").unwrap();

    // A port that somebody else has is refused: the present one stays, and the file too.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    let file = std::fs::read_to_string(server.context.parameters.directory().join("solid.ini")).unwrap();
    let (code, text) = answer(&server, &format!("parameter Com.Listen=tcp {number}"));
    assert!(code == 21306 && text.contains(&number.to_string()), "{code} {text}");
    let shown = answer(&server, "parameter Com.Listen").1;
    assert!(shown.starts_with(&format!("Com Listen \"tcp {}\"", other.number)), "{shown}");
    assert_eq!(
        std::fs::read_to_string(server.context.parameters.directory().join("solid.ini")).unwrap(),
        file
    );
    server.connect().batch_execute("insert into t values (2)").unwrap();
}

#[test]
fn a_value_that_cannot_be_written_changes_nothing() {
    let server = server();
    // Where solid.ini should be there is a directory: it can neither be read nor replaced.
    std::fs::create_dir(server.context.parameters.directory().join("solid.ini")).unwrap();
    assert_ne!(answer(&server, "parameter Com.MaxConnections=7").0, 0);
    assert_eq!(answer(&server, "parameter Com.MaxConnections").1, "Com MaxConnections 1000 1000 1000");
    server.admin("parameter Com.MaxConnections=7 temporary");
    assert_eq!(answer(&server, "parameter Com.MaxConnections").1, "Com MaxConnections 7 1000 1000");
}

#[test]
fn max_connections_counts_sql_clients() {
    let server = server();
    server.admin("parameter Com.MaxConnections=1");
    let _first = server.connect();
    assert_eq!(refused(server.connect_as("dba", "dba")), "53300");
    server.admin("parameter Com.MaxConnections=2");
    let _second = server.connect();
}

/// Clients do not show an error that comes instead of the answer to their wish for encryption; and who cancels is no client.
#[test]
fn a_client_without_a_place_is_declined_encryption_and_told_before_its_password() {
    let server = server();
    server.admin("parameter Com.MaxConnections=1");
    let _first = server.connect();
    let answer = |packet: &[u8]| {
        let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        client.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").unwrap();
        let mut declined = [0; 1];
        client.read_exact(&mut declined).unwrap();
        assert_eq!(&declined, b"N");
        client.write_all(packet).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        answer
    };
    let told = answer(b"\0\0\0\x12\0\x03\0\0user\0dba\0\0");
    let text = String::from_utf8_lossy(&told);
    assert!(
        told[0] == b'E' && text.contains("C53300\0") && text.contains("too many clients: 1 are"),
        "{text}"
    );
    assert_eq!(u32::from_be_bytes([told[1], told[2], told[3], told[4]]) as usize + 1, told.len());
    assert!(answer(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02").is_empty());
}

#[test]
fn read_timeout_ends_who_stops_in_the_middle() {
    let server = server();
    server.admin("parameter Com.ReadTimeout=40");
    let mut console = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    console.write_all(b"login dba dba\nhsb sta").unwrap();
    let mut text = String::new();
    console.read_to_string(&mut text).unwrap();
    assert!(text.contains("(Com.ReadTimeout)"), "{text}");
    // -r of Com.Listen goes before it; 0 is for ever.
    server.admin(&format!("parameter Com.Listen=tcp -r0 {}", server.port));
    assert_eq!(server.context.parameters.listen().read_timeout, None);
    server.connect().batch_execute("select 1").unwrap();
}

#[test]
fn lock_wait_timeout_ends_the_wait_for_the_writer() {
    let server = server();
    let (mut holder, mut waiter) = (server.connect(), server.connect());
    holder.batch_execute("create table t (a integer); begin; insert into t values (1)").unwrap();
    server.admin("parameter General.LockWaitTimeOut=0");
    assert_eq!(refused(waiter.batch_execute("insert into t values (2)")), "55P03");
    holder.batch_execute("commit").unwrap();
    waiter.batch_execute("insert into t values (2)").unwrap();
}

#[test]
fn readonly_refuses_every_write() {
    let server = server_with("[General]\nReadonly=yes\n");
    let mut client = server.connect();
    for sql in [
        "create table t (a integer)",
        "create user u identified by 'p'",
        "begin; insert into t values (1)",
        "copy t from stdin",
    ] {
        let error = client.batch_execute(sql).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.detail()), ("25006", Some("10041")), "{sql}: {error:?}");
        client.batch_execute("rollback").unwrap();
    }
    let shown = client.query_one("show transaction_read_only", &[]).unwrap();
    assert_eq!(shown.get::<_, &str>(0), "on");
    client.batch_execute("select 1").unwrap();
}

#[test]
fn one_safe_max_delay_bounds_the_wait_for_company() {
    let fixture = fixture("SafenessLevel=1safe\nPingTimeout=0\n1SafeMaxDelay=86400000\n");
    let primary = &fixture.pair.first;
    let is_level = || {
        let counters = primary.console().unwrap().command("perfmon").unwrap();
        let line = counters.iter().find_map(|row| row.1.strip_prefix("Transactions unacknowledged"));
        line.is_some_and(|line| line.split_whitespace().next() == Some("0"))
    };
    wait_until("the secondary has acknowledged everything", is_level);
    fixture.network.hold(From::Second);
    let sent = Arc::new(AtomicUsize::new(0));
    let (counter, mut read) = (Arc::clone(&sent), Vec::new());
    fixture.network.spy(move |from, data| {
        if from == From::First {
            read.extend_from_slice(data);
            while let Ok((kind, length)) = codec::frame_length(&read)
                && length <= read.len()
            {
                counter.fetch_add(usize::from(kind == FrameKind::Batch), Ordering::SeqCst);
                read.drain(..length);
            }
        }
        Verdict::Pass
    });
    let reaches = |count: usize| {
        wait_until(&format!("{count} batches are sent"), || sent.load(Ordering::SeqCst) >= count);
        assert_eq!(sent.load(Ordering::SeqCst), count);
    };
    let commit = |id| insert(primary, id).join().unwrap().unwrap();
    commit(2);
    reaches(1);
    commit(3);
    commit(4);
    reaches(1);
    // A shorter delay counts from the next one on, and takes the others along.
    primary.expect("parameter HotStandby.1SafeMaxDelay=1").unwrap();
    commit(5);
    reaches(4);
    primary.expect("parameter HotStandby.1SafeMaxDelay=*").unwrap();
    primary.expect("parameter HotStandby.1SafeMaxDelay=86400000").unwrap();
    commit(6);
    reaches(4);
    // A 2-safe one does not wait, and does not overtake.
    let mut session = sql(primary);
    let two_safe = std::thread::spawn(move || {
        session
            .batch_execute("SET SAFENESS 2SAFE")
            .and_then(|()| session.batch_execute("INSERT INTO t VALUES (7)"))
    });
    reaches(6);
    fixture.network.resume();
    two_safe.join().unwrap().unwrap();
    assert_identical(&fixture.pair);
    assert_eq!(rows(&fixture.pair.second), 7);
}

/// What both servers should have the same and do not is said when they connect. That the primary's values are in force,
/// also after a switch, is tested in the heart; here, that a pair with different ones works.
#[test]
fn differences_are_told_and_a_readonly_secondary_follows() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "PingInterval=300\nPingTimeout=60000\n").unwrap();
    let path = pair.second.directory.join("solid.ini");
    let ini = std::fs::read_to_string(&path).unwrap();
    let other =
        "AutoPrimaryAlone=yes\nSafenessLevel=1safe\n[Logging]\nDurabilityLevel=3\n[General]\nReadonly=yes\n";
    std::fs::write(&path, ini.replace("PingInterval=300\nPingTimeout=60000\n", other)).unwrap();
    pair.start().unwrap();
    let says = |server: &pair::Server, text: &str| {
        wait_until(&format!("{} says '{text}'", server.name), || messages(server).contains(text));
    };
    for (server, here, there) in [(&pair.first, "no", "yes"), (&pair.second, "yes", "no")] {
        says(server, &format!("HotStandby.AutoPrimaryAlone is {here} here and {there} at the other server"));
    }
    says(&pair.first, "Logging.DurabilityLevel is 2 here and 3 at the other server");
    // A secondary that refuses the writes of clients applies those of its primary.
    sql(&pair.first).batch_execute("create table t (a integer); insert into t values (1)").unwrap();
    assert_identical(&pair);
    pair.switch().unwrap();
    let error = sql(&pair.second).batch_execute("insert into t values (2)").unwrap_err();
    assert_eq!(error.as_db_error().unwrap().detail(), Some("10041"));
    pair.first.expect("parameter HotStandby.PingTimeout=50000").unwrap();
    pair.second.expect("parameter HotStandby.PingTimeout=40000").unwrap();
    assert_identical(&pair);
}
