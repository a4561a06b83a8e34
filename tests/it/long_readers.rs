//! Readers that keep an old snapshot: SQLite's log is bounded all the same, who holds it is named, warned of and ended, and
//! the file gives its room back.

use crate::common::embedded::{Server, connected_pair, server_with};
use crate::common::wait_until;
use crate::common::wire::Wire;
use hotstandby::services::context::Rights;

const LIMIT_BYTES: u64 = 4 << 20;

fn figure(server: &Server, option: &str) -> String {
    server.ask(&format!("info {option}")).1
}

fn wal_bytes(server: &Server) -> u64 {
    figure(server, "walsize").parse().unwrap()
}

fn ended(server: &Server) -> u64 {
    let rows = server.context.admin.execute("dba", Rights::Administrator, "perfmon");
    let row = rows.iter().find(|row| row.1.starts_with("Snapshots ended")).unwrap();
    row.1.split_whitespace().nth(2).unwrap().parse().unwrap()
}

fn fill(server: &Server) -> postgres::Client {
    let mut writer = server.connect();
    writer.batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)").unwrap();
    writer
        .batch_execute(
            "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 200)
             SELECT n, printf('%.*c', 1000, 'x') FROM c",
        )
        .unwrap();
    writer
}

/// Writes until `done`; the largest that SQLite's log of `server` was.
fn write_until(writer: &mut postgres::Client, server: &Server, mut done: impl FnMut() -> bool) -> u64 {
    let mut largest = 0;
    let mut round = 0;
    wait_until("enough is written", || {
        round += 1;
        writer.batch_execute(&format!("UPDATE t SET v = printf('%.*c', 1000, 'y') || {round}")).unwrap();
        largest = largest.max(wal_bytes(server));
        done()
    });
    largest
}

fn assert_shrinks(writer: &mut postgres::Client, server: &Server) {
    let mut round = 0;
    wait_until("the room comes back", || {
        round += 1;
        writer.batch_execute(&format!("UPDATE t SET v = 'z{round}' WHERE id = 1")).unwrap();
        server.admin("makecp");
        wal_bytes(server) < 1 << 20
    });
}

fn check_idle_transaction(at: &Server, writer: &mut postgres::Client) {
    let mut reader = Wire::connect(at.port, "dba", "dba");
    reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t");
    assert_eq!(reader.answer().last().unwrap(), "Z T");
    let mut named = String::new();
    write_until(writer, at, || {
        named = figure(at, "oldestsnapshot");
        ended(at) > 0
    });
    assert!(named.contains("(dba, 127.0.0.1:") || named.is_empty(), "{named}");
    let (state, text) = reader.error();
    assert!(state == "25P04" && text.contains("General.SnapshotMaxSize"), "{state} {text}");
    wait_until("it is gone", || figure(at, "oldestsnapshot").is_empty());
    let event = at.context.events.latest("SYS_EVENT_SNAPSHOT").unwrap();
    assert!(event.text.contains("(dba, 127.0.0.1:") && event.text.contains("General.SnapshotMaxSize"));
    assert_shrinks(writer, at);
}

#[test]
fn an_idle_transaction_is_ended_when_the_log_of_sqlite_grows_because_of_it() {
    let server = server_with("[General]\nSnapshotMaxSize=4M\n");
    let mut writer = fill(&server);
    check_idle_transaction(&server, &mut writer);
}

#[test]
fn the_same_at_the_secondary() {
    let (first, second) = connected_pair("[General]\nSnapshotMaxSize=4M\n");
    let mut writer = fill(&first);
    let position = figure(&first, "position");
    wait_until("the secondary has the table", || figure(&second, "position") == position);
    check_idle_transaction(&second, &mut writer);
    assert_eq!(first.ask("hsb state").1, "PRIMARY ACTIVE");
}

#[test]
fn a_query_that_runs_for_long_is_ended_with_the_reason() {
    let server = server_with("[General]\nSnapshotMaxSize=4M\n");
    let mut writer = fill(&server);
    let mut reader = Wire::connect(server.port, "dba", "dba");
    reader.query("SELECT count(*) FROM t a, t b, t c, t d, t e, t f");
    wait_until("it runs", || !figure(&server, "oldestsnapshot").is_empty());
    let largest = write_until(&mut writer, &server, || ended(&server) > 0);
    assert!(largest > LIMIT_BYTES / 2, "{largest}");
    let (state, text) = reader.error();
    assert!(state == "25P04" && text.contains("General.SnapshotMaxSize"), "{state} {text}");
    assert_shrinks(&mut writer, &server);
}

#[test]
fn makecp_says_who_holds_the_log_of_sqlite() {
    let server = server_with("[General]\nSnapshotMaxSize=0\n");
    let mut writer = fill(&server);
    let mut reader = server.connect();
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t").unwrap();
    write_until(&mut writer, &server, || wal_bytes(&server) > LIMIT_BYTES);
    let (code, text) = server.ask("makecp");
    let session = figure(&server, "oldestsnapshot");
    let session = session.split(" (").next().unwrap();
    assert!(code == 0 && text.contains(session) && text.contains("keeps its"), "{code} {text}");
    assert!(wal_bytes(&server) > LIMIT_BYTES);
    // It was never ended: no limit was set.
    reader.batch_execute("COMMIT").unwrap();
    let (code, text) = server.ask("makecp");
    assert!(code == 0 && !text.contains("keeps its"), "{code} {text}");
    assert_shrinks(&mut writer, &server);
}

#[test]
fn a_short_read_notes_no_snapshot_and_an_old_one_is_ended_if_that_is_wanted() {
    let server = server_with("[General]\nSnapshotMaxAge=1\n");
    fill(&server);
    let mut reader = server.connect();
    assert_eq!(reader.query_one("SELECT count(*) FROM t", &[]).unwrap().get::<_, i64>(0), 200);
    assert_eq!(figure(&server, "oldestsnapshot"), "");
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t").unwrap();
    wait_until("it is ended", || ended(&server) == 1);
    let event = server.context.events.latest("SYS_EVENT_SNAPSHOT").unwrap();
    assert!(event.text.contains("General.SnapshotMaxAge"), "{}", event.text);
}
