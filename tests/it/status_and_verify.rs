//! `hsb status`, `hsb verify`, `perfmon`: what is said about both servers of a pair.

use hotstandby::services::context::Rights;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::embedded::{Server, connected_pair};
use crate::common::wait_until;
use serde_json::Value;

fn status(server: &Server) -> Value {
    serde_json::from_str(&server.ask("hsb status json").1).unwrap()
}

fn screen(server: &Server) -> String {
    let rows = server.context.admin.execute("dba", Rights::Administrator, "hsb status");
    let lines: Vec<String> = rows.into_iter().map(|row| row.1).collect();
    lines.join("\n")
}

fn level(first: &Server, second: &Server) {
    let position = |server: &Server| server.ask("info position").1;
    wait_until("both are level", || position(first) == position(second));
}

#[test]
fn one_screen_shows_both_servers() {
    let (first, second) = connected_pair("");
    first.connect().batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    level(&first, &second);
    for (server, this, other) in
        [(&first, "PRIMARY ACTIVE", "SECONDARY ACTIVE"), (&second, "SECONDARY ACTIVE", "PRIMARY ACTIVE")]
    {
        let report = status(server);
        assert_eq!((&report["this"]["state"], &report["other"]["state"]), (&this.into(), &other.into()));
        assert_eq!(report["this"]["position"], report["other"]["position"]);
        assert_eq!(report["next"], Value::Array(Vec::new()), "{report}");
        let screen = screen(server);
        for part in [this, other, "lag           0 transactions", "2safe", "adaptive", "caught up"] {
            assert!(screen.contains(part), "'{part}' is missing in\n{screen}");
        }
    }
    let report = status(&first);
    assert_eq!(report["this"]["lag"]["transactions"], 0);

    first.admin("hsb disconnect");
    first.wait_for("hsb state", "PRIMARY ALONE");
    second.wait_for("hsb state", "SECONDARY ALONE");
    let report = status(&first);
    assert_eq!(report["this"]["lag"]["transactions"], Value::Null);
    assert!(report["this"]["lag"]["unknown_since"].is_string(), "{report}");
    assert!(report["next"][0].as_str().unwrap().contains("hsb connect"), "{report}");
    assert!(screen(&second).contains("lag           unknown since"));
    assert_eq!(report["this"]["last_change"]["from"], "PRIMARY ACTIVE");

    drop(second);
    let screen = screen(&first);
    assert!(screen.contains("other server  not reached: 14503"), "{screen}");
    assert!(screen.contains("next          "), "{screen}");
}

#[test]
fn verify_finds_both_the_same_under_load_and_names_a_table_that_differs() {
    let (first, second) = connected_pair("");
    let mut sql = first.connect();
    sql.batch_execute(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER); CREATE TABLE b (id INTEGER PRIMARY KEY)",
    )
    .unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = first.connect();
                while !stop.load(Ordering::Relaxed) {
                    client.batch_execute("INSERT INTO a (n) VALUES (1)").unwrap();
                }
            });
        }
        let before = first.context.status.snapshot().decided.sequence;
        for _ in 0..3 {
            let (code, text) = first.ask("hsb verify");
            assert!(code == 0 && text.starts_with("SAME at "), "{code} {text}");
        }
        wait_until("writers go on", || first.context.status.snapshot().decided.sequence > before);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(second.ask("hsb verify").0, 14712);

    level(&first, &second);
    let file = rusqlite::Connection::open(second.directory.path().join("solid.db")).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    file.execute_batch("INSERT INTO b VALUES (7)").unwrap();
    let rows = first.context.admin.execute("dba", Rights::Administrator, "hsb verify");
    assert!(rows[0].0 == 14525 && rows[0].1.contains("table 'b'"), "{rows:?}");
    assert!(rows[1].1.contains("here: 0 rows") && rows[1].1.contains("there: 1 rows"), "{rows:?}");
    assert!(rows[2].1.starts_with("1 tables differ"), "{rows:?}");
    file.execute_batch("DELETE FROM b").unwrap();
    assert_eq!(first.ask("hsb verify").0, 0);
}

#[test]
fn verify_of_servers_that_are_not_connected() {
    let (first, second) = connected_pair("");
    let mut sql = first.connect();
    sql.batch_execute("CREATE TABLE a (id INTEGER PRIMARY KEY)").unwrap();
    level(&first, &second);
    first.admin("hsb disconnect");
    first.wait_for("hsb state", "PRIMARY ALONE");
    second.wait_for("hsb state", "SECONDARY ALONE");
    assert_eq!(first.ask("hsb verify").0, 0);
    sql.batch_execute("INSERT INTO a VALUES (1)").unwrap();
    let (code, text) = first.ask("hsb verify");
    assert!(code == 14525 && text.contains("'hsb connect' first"), "{code} {text}");
    second.admin("hsb set primary alone");
    assert_eq!(first.ask("hsb verify").0, 10049);
    drop(second);
    assert_eq!(first.ask("hsb verify").0, 14503);
}

/// A figure of `perfmon`.
fn value(server: &Server, name: &str) -> u64 {
    let rows = server.context.admin.execute("dba", Rights::Administrator, "perfmon");
    let row = rows.iter().find(|row| row.1.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    row.1[28..].split_whitespace().next().unwrap().parse().unwrap()
}

/// Under relaxed durability nothing but a longer delay brings the logs to disk here.
#[test]
fn trap_09_what_is_acknowledged_and_on_no_disk_yet_is_counted() {
    let (first, second) = connected_pair("2SafeAckPolicy=1\n[Logging]\nRelaxedMaxDelay=600000\n");
    let on_no_disk = |server: &Server, count: u64| {
        let (screen, line) = (screen(server), format!("on no disk    {count} acknowledged commits"));
        assert!(screen.contains(&line), "'{line}' is missing in\n{screen}");
    };
    let before = status(&first)["this"]["on_disk"].clone();
    assert_eq!(before, status(&first)["this"]["position"]["sequence"]);
    let mut sql = first.connect();
    sql.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    for id in 1..=3 {
        sql.batch_execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
    }
    level(&first, &second);
    for server in [&first, &second] {
        on_no_disk(server, 4);
        assert_eq!(value(server, "Transactions not on disk"), 4);
        assert_eq!(status(server)["this"]["on_disk"], before);
    }
    sql.batch_execute("SET TRANSACTION DURABILITY STRICT; INSERT INTO t VALUES (4)").unwrap();
    level(&first, &second);
    assert_eq!(value(&first, "Transactions not on disk"), 0);
    assert_eq!(value(&second, "Transactions not on disk"), 5);
    for server in [&first, &second] {
        on_no_disk(server, 0);
    }
    // Alone, the other server's disk does not count.
    second.admin("hsb disconnect");
    first.wait_for("hsb state", "PRIMARY ALONE");
    sql.batch_execute("SET DURABILITY RELAXED; INSERT INTO t VALUES (5)").unwrap();
    on_no_disk(&first, 1);
}

#[test]
fn perfmon_counts() {
    let (first, second) = connected_pair("[Logging]\nRelaxedMaxDelay=100\n");
    let before = value(&first, "Transactions committed");
    let mut sql = first.connect();
    sql.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    sql.batch_execute("INSERT INTO t VALUES (1)").unwrap();
    level(&first, &second);
    assert_eq!(value(&first, "Transactions committed"), before + 2);
    assert!(value(&first, "Bytes sent") > 0 && value(&first, "Acknowledgements received") > 0);
    assert_eq!(value(&second, "Transactions applied"), 2);
    assert_eq!((value(&first, "HSB state"), value(&second, "HSB state")), (10, 17));
    wait_until("all is on disk", || value(&first, "Transactions not on disk") == 0);
    assert!(value(&first, "Log syncs") > 0 && value(&first, "Log bytes") > 0);
}

#[test]
fn start_times_belong_to_the_role() {
    let (first, second) = connected_pair("");
    let times = |server: &Server| {
        let rows = server.context.admin.execute(
            "dba",
            Rights::Administrator,
            "info primarystarttime secondarystarttime",
        );
        (rows[0].1.clone(), rows[1].1.clone())
    };
    let (primary, empty) = times(&first);
    assert!(primary.len() == 19 && empty.is_empty(), "{primary} {empty}");
    let (empty, secondary) = times(&second);
    assert!(secondary.len() == 19 && empty.is_empty(), "{secondary} {empty}");
    second.admin("hsb switch primary");
    second.wait_for("hsb state", "PRIMARY ACTIVE");
    first.wait_for("hsb state", "SECONDARY ACTIVE");
    assert!(times(&first).0.is_empty() && times(&second).1.is_empty());
}
