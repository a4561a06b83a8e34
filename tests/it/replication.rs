//! Two real server processes: what the primary acknowledges is at the secondary, to the bit, whatever happens.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use crate::common::{assert_identical, connected_pair, wait_until};
use hotstandby::demo::pair::{Pair, Server, sql_configuration};

struct Running {
    pair: Pair,
    _directory: tempfile::TempDir,
}

fn running(extra: &str) -> Running {
    let (directory, pair) = connected_pair(extra);
    Running { pair, _directory: directory }
}

fn ids(server: &Server) -> BTreeSet<i64> {
    let rows = server.sql().unwrap().query("SELECT id FROM t", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Statements, each a transaction of its own.
const EVERYTHING: &[&str] = &[
    // Every storage class, and values that are easily changed on the way.
    "CREATE TABLE classes(id INTEGER PRIMARY KEY, a, b REAL, c TEXT, d BLOB, e NUMERIC)",
    "INSERT INTO classes VALUES (1, NULL, 0.0, '', x'', 1)",
    "INSERT INTO classes VALUES (2, -0.0, -0.0, 'a' || char(0) || 'b', x'00ff0000', '1.50')",
    "INSERT INTO classes VALUES (3, 9e999, -9e999, 'ä€𝄞', zeroblob(5000), 'text')",
    "INSERT INTO classes VALUES (4, 9223372036854775807, 1.7976931348623157e308, '1', 'text in a blob column', 1e20)",
    "INSERT INTO classes VALUES (-9223372036854775808, 5e-324, 0.1, x'ff00', 7, 9e999 - 9e999)",
    "UPDATE classes SET a = 0.0 WHERE id = 2",
    "UPDATE classes SET a = 0 WHERE id = 2",
    "UPDATE classes SET id = 40, c = NULL WHERE id = 4",
    // Tables without a key of their own.
    "CREATE TABLE no_key(a, b)",
    "INSERT INTO no_key VALUES (1, 'one'), (1, 'one'), (2, 'two')",
    "UPDATE no_key SET b = 'three' WHERE rowid = 2",
    "DELETE FROM no_key WHERE rowid = 1",
    "INSERT INTO no_key(rowid, a) VALUES (-5, 'negative rowid')",
    "CREATE TABLE without_rowid(a TEXT, b INTEGER, c, PRIMARY KEY (b, a)) WITHOUT ROWID",
    "INSERT INTO without_rowid VALUES ('x', 1, 1.5), ('y', 1, NULL), ('x', 2, x'00')",
    "UPDATE without_rowid SET b = 3 WHERE a = 'x' AND b = 2",
    // UPSERT and REPLACE.
    "INSERT INTO without_rowid VALUES ('x', 1, 'new') ON CONFLICT DO UPDATE SET c = excluded.c || '!'",
    "INSERT INTO classes(id) VALUES (1) ON CONFLICT DO NOTHING",
    "CREATE TABLE replaced(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER)",
    "INSERT INTO replaced VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
    "REPLACE INTO replaced VALUES (1, 'b', 10)",
    "UPDATE OR REPLACE replaced SET name = 'c' WHERE id = 1",
    // Triggers and cascades: their effects are row changes.
    "CREATE TABLE journal(id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, at TEXT)",
    "CREATE TRIGGER watch AFTER UPDATE ON replaced BEGIN INSERT INTO journal(what, at) VALUES (old.name, random()); END",
    "UPDATE replaced SET n = n + 1",
    "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE)",
    "INSERT INTO parent VALUES (1), (2), (3)",
    "INSERT INTO child VALUES (10, 1), (11, 1), (20, 2), (30, 3)",
    "DELETE FROM parent WHERE id = 1",
    "UPDATE parent SET id = 200 WHERE id = 2",
    // What cannot be computed twice.
    "INSERT INTO no_key SELECT random(), randomblob(20)",
    "INSERT INTO no_key VALUES (current_timestamp, julianday('now'))",
    // The schema changes under rows.
    "CREATE TABLE shape(id INTEGER PRIMARY KEY, old_name TEXT, useless)",
    "INSERT INTO shape VALUES (1, 'x', 1), (2, 'y', 2)",
    "ALTER TABLE shape ADD COLUMN added TEXT DEFAULT 'default'",
    "INSERT INTO shape(id, added) VALUES (3, 'set')",
    "ALTER TABLE shape RENAME COLUMN old_name TO new_name",
    "ALTER TABLE shape DROP COLUMN useless",
    "UPDATE shape SET new_name = 'z', added = added || '!' WHERE id < 3",
    "CREATE INDEX shape_name ON shape(new_name, added DESC) WHERE added IS NOT NULL",
    "ALTER TABLE shape RENAME TO shaped",
    "INSERT INTO shaped(new_name) VALUES ('after')",
    "CREATE TABLE gone(a)",
    "INSERT INTO gone VALUES (1), (2)",
    "DROP TABLE gone",
    "CREATE TABLE gone(b, c)",
    "INSERT INTO gone VALUES (3, 4)",
    "DELETE FROM journal WHERE id = (SELECT max(id) FROM journal)",
    "INSERT INTO journal(what) VALUES ('does not take the number of the row that was deleted')",
    "CREATE TABLE computed(a INTEGER, b INTEGER GENERATED ALWAYS AS (a * 2) STORED, c AS (a + 1) VIRTUAL)",
    "INSERT INTO computed(a) VALUES (1), (NULL)",
    "UPDATE computed SET a = 5 WHERE a = 1",
    "CREATE TABLE copied AS SELECT id, a, typeof(a) AS type FROM classes",
    "CREATE VIEW seen AS SELECT c.id, p.id AS parent FROM child c JOIN parent p ON c.parent = p.id",
    // Functions of the server's in the schema, which is executed where there is no session.
    "CREATE TABLE stamped(id INTEGER PRIMARY KEY, at TEXT DEFAULT (now()) CHECK (at <= now() AND version() <> ''), \
     who TEXT DEFAULT (current_user) CHECK (who = current_user AND pg_backend_pid() > 0))",
    "CREATE VIEW stamps AS SELECT at, hotstandby_state() AS state, current_schema() AS schema FROM stamped",
    "CREATE TRIGGER stamping AFTER INSERT ON stamped BEGIN INSERT INTO journal(what, at) VALUES (now(), new.at); END",
    "INSERT INTO stamped(id) VALUES (1), (2)",
    "ALTER TABLE stamped RENAME COLUMN who TO whom",
    "UPDATE stamped SET at = now() WHERE id = 2",
    // Several statements, one of them taken back.
    "BEGIN; INSERT INTO parent VALUES (50); SAVEPOINT s; INSERT INTO parent VALUES (51); DELETE FROM child; \
     CREATE TABLE never(a); ROLLBACK TO s; INSERT INTO parent VALUES (52); RELEASE s; COMMIT",
    "BEGIN; INSERT INTO parent VALUES (60); ROLLBACK",
];

fn write_everything(server: &Server) {
    let mut sql = server.sql().unwrap();
    for statement in EVERYTHING {
        if let Err(error) = sql.batch_execute(statement) {
            panic!("{statement}: {error:?}");
        }
    }
    // A statement that fails in the middle, by itself and inside a transaction.
    sql.batch_execute("INSERT INTO parent VALUES (70), (71), (3)").unwrap_err();
    let mut transaction = sql.transaction().unwrap();
    transaction.batch_execute("INSERT INTO parent VALUES (80)").unwrap();
    transaction.batch_execute("INSERT INTO parent VALUES (81), (3)").unwrap_err();
    transaction.rollback().unwrap();
    let parents = sql.query("SELECT id FROM parent ORDER BY id", &[]).unwrap();
    let parents: Vec<i32> = parents.iter().map(|row| row.get(0)).collect();
    assert_eq!(parents, [3, 50, 52, 200]);
}

#[test]
fn the_secondary_is_the_same_to_the_bit() {
    let mut running = running("2SafeAckPolicy=2");
    let pair = &mut running.pair;
    write_everything(&pair.first);
    let mut sql = pair.first.sql().unwrap();
    sql.batch_execute("CREATE TABLE large(id INTEGER PRIMARY KEY, data BLOB)").unwrap();
    let twenty_megabytes = "INSERT INTO large SELECT value, randomblob(100000) FROM \
        (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 200) SELECT value FROM n)";
    sql.batch_execute(twenty_megabytes).unwrap();
    assert_identical(pair);
    pair.first.kill();
    pair.second.expect("hsb set primary alone").unwrap();
    let mut sql = pair.second.sql().unwrap();
    sql.batch_execute("DELETE FROM large WHERE id % 2 = 0; UPDATE classes SET a = 'alone' WHERE id = 3")
        .unwrap();
    sql.batch_execute("CREATE TABLE made_alone(a); INSERT INTO made_alone VALUES (1)").unwrap();
    pair.swap();
    pair.second.start(&[]).unwrap();
    pair.connect().unwrap();
    assert_identical(pair);
    pair.switch().unwrap();
    pair.swap();
    let mut sql = pair.first.sql().unwrap();
    sql.batch_execute("INSERT INTO journal(what) VALUES ('switched'); UPDATE replaced SET n = -n").unwrap();
    sql.batch_execute("ALTER TABLE made_alone ADD COLUMN b; DROP VIEW seen").unwrap();
    assert_identical(pair);
}

#[test]
fn visible_means_visible_and_a_secondary_takes_no_writes() {
    let running = running("2SafeAckPolicy=2");
    let mut primary = running.pair.first.sql().unwrap();
    primary.batch_execute("CREATE TABLE t(id BIGINT PRIMARY KEY)").unwrap();
    let mut secondary = running.pair.second.sql().unwrap();
    for id in 1..=200i64 {
        primary.execute("INSERT INTO t VALUES ($1)", &[&id]).unwrap();
        let seen: i64 = secondary.query_one("SELECT max(id) FROM t", &[]).unwrap().get(0);
        assert_eq!(seen, id);
    }
    for write in ["INSERT INTO t VALUES (0)", "CREATE TABLE other(a)", "DELETE FROM t"] {
        let error = secondary.batch_execute(write).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "25006", "{write}");
        assert!(error.message().contains("10045"), "{write}: {}", error.message());
    }
    assert_identical(&running.pair);
}

/// Rows acknowledged to clients that write until the server is gone.
fn write_until_killed(pair: &mut Pair) -> BTreeSet<i64> {
    const CLIENTS: i64 = 4;
    pair.first.sql().unwrap().batch_execute("CREATE TABLE t(id BIGINT PRIMARY KEY, note TEXT)").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = crossbeam_channel::unbounded();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (mut sql, stop, sender) = (pair.first.sql().unwrap(), Arc::clone(&stop), sender.clone());
            std::thread::spawn(move || {
                for number in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let id: i64 = number * CLIENTS + client;
                    if sql.execute("INSERT INTO t VALUES ($1, 'some text')", &[&id]).is_err() {
                        return;
                    }
                    sender.send(id).unwrap();
                }
            })
        })
        .collect();
    drop(sender);
    wait_until("the load has got going", || receiver.len() > 500);
    // As close together as can be: nobody is told of the other's death.
    pair.first.kill();
    pair.second.kill();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    receiver.iter().collect()
}

#[test]
fn both_killed_under_strict_durability_lose_nothing() {
    for first_is_promoted in [true, false] {
        // 2SafeAckPolicy=3: acknowledged is on disk at both, so either may be promoted.
        let mut running = running("2SafeAckPolicy=3\n[Logging]\nDurabilityLevel=3");
        let pair = &mut running.pair;
        let acknowledged = write_until_killed(pair);
        pair.first.start(&[]).unwrap();
        pair.second.start(&[]).unwrap();
        if !first_is_promoted {
            pair.swap();
        }
        let digits = |server: &Server| server.expect("hsb logpos").unwrap()[..30].to_string();
        let is_behind = digits(&pair.first) < digits(&pair.second);
        pair.first.expect("hsb set primary alone").unwrap();
        let lost: Vec<_> = acknowledged.difference(&ids(&pair.first)).copied().collect();
        assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
        pair.first.sql().unwrap().batch_execute("INSERT INTO t VALUES (-1, 'alone')").unwrap();
        match pair.first.connect().unwrap() {
            (0, _) => {}
            // The other one has applied a batch that this one had not logged yet and that nobody was told of; whoever
            // promotes by 'hsb logpos' does not get here. Nothing is thrown away silently.
            (14525, _) if is_behind => continue,
            refused => panic!("{refused:?}"),
        }
        pair.first.sql().unwrap().batch_execute("INSERT INTO t VALUES (-2, 'together')").unwrap();
        assert_identical(pair);
        assert!(acknowledged.is_subset(&ids(&pair.second)));
    }
}

#[test]
fn one_safe_transactions_arrive_by_themselves() {
    let running = running("");
    let mut primary = running.pair.first.sql().unwrap();
    primary.batch_execute("CREATE TABLE t(id BIGINT PRIMARY KEY); SET SAFENESS 1SAFE").unwrap();
    for id in 1..=500i64 {
        primary.execute("INSERT INTO t VALUES ($1)", &[&id]).unwrap();
    }
    primary.batch_execute("SET SAFENESS 2SAFE; INSERT INTO t VALUES (501); SET SAFENESS DEFAULT").unwrap();
    primary
        .batch_execute("BEGIN; SET TRANSACTION SAFENESS 1SAFE; INSERT INTO t VALUES (502); COMMIT")
        .unwrap();
    wait_until("all rows are at the secondary", || ids(&running.pair.second) == (1..=502).collect());
    assert_identical(&running.pair);
}

#[test]
fn roles_taken_back_and_forth_by_hand_keep_the_position() {
    let mut running = running("2SafeAckPolicy=2");
    let pair = &mut running.pair;
    pair.first.sql().unwrap().batch_execute("CREATE TABLE t(id BIGINT PRIMARY KEY)").unwrap();
    for round in 0..5i64 {
        pair.first.sql().unwrap().execute("INSERT INTO t VALUES ($1)", &[&round]).unwrap();
        // Alone, a secondary for a moment, and a primary again: it goes on where it was.
        pair.first.expect("hsb disconnect").unwrap();
        pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
        pair.first.expect("hsb set secondary alone").unwrap();
        pair.first.expect("hsb set primary alone").unwrap();
        pair.first.sql().unwrap().execute("INSERT INTO t VALUES ($1)", &[&(round + 100)]).unwrap();
        pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
        pair.connect().unwrap();
        pair.switch().unwrap();
        pair.swap();
    }
    assert_identical(pair);
    assert_eq!(ids(&pair.first).len(), 10);
}

/// A login that has been let in by the server and goes on when it is told to.
fn half_logged_in(port: u16) -> (JoinHandle<postgres::Client>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own_port = listener.local_addr().unwrap().port();
    let session = std::thread::spawn(move || sql_configuration(own_port).connect(postgres::NoTls).unwrap());
    let (client, server) = (listener.accept().unwrap().0, TcpStream::connect(("127.0.0.1", port)).unwrap());
    let pass_on = |from: &TcpStream, to: &TcpStream| {
        let mut bytes = [0; 8192];
        let length = (&*from).read(&mut bytes).unwrap_or_default();
        length > 0 && (&*to).write_all(&bytes[..length]).is_ok()
    };
    // The first message, and what the server asks then.
    assert!(pass_on(&client, &server) && pass_on(&server, &client));
    let (proceed, may_proceed) = channel();
    let (back, there) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        while pass_on(&back, &there) {}
        // The client has to hear of the end too.
        let _ = there.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        if may_proceed.recv().is_ok() {
            while pass_on(&client, &server) {}
        }
    });
    (session, proceed)
}

/// The database file is replaced under a running server: a session that kept its connection would read the file that
/// is gone, for ever.
#[test]
fn sessions_that_come_during_a_netcopy_do_not_go_on_reading_the_old_database() {
    let running = running("NetcopyMaxRate=100000");
    let (first, second) = (&running.pair.first, &running.pair.second);
    let mut primary = first.sql().unwrap();
    primary.batch_execute("CREATE TABLE t(id BIGINT PRIMARY KEY, b)").unwrap();
    primary.batch_execute("INSERT INTO t VALUES (1, randomblob(300000))").unwrap();
    first.expect("hsb disconnect").unwrap();
    first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    let copy = || first.console().unwrap().command("hsb status copy").unwrap().remove(0).1;
    let (session, proceed) = half_logged_in(second.port);
    first.expect("hsb netcopy").unwrap();
    wait_until("the copy is under way", || copy().contains('%') && !copy().starts_with("ACTIVE 0 "));
    let refused = second.sql().err().unwrap();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "57P03", "no new ones are let in");
    proceed.send(()).unwrap();
    let mut session = session.join().unwrap();
    assert!(session.query("SELECT count(*) FROM t", &[]).is_ok());
    assert!(copy().starts_with("ACTIVE"), "the session came too late to show anything");
    first.wait_for("hsb status copy", "SUCCESS").unwrap();
    assert!(session.query("SELECT count(*) FROM t", &[]).is_err());
    assert_eq!(ids(second), BTreeSet::from([1]));
}

#[test]
fn a_damaged_database_is_replaced_by_netcopy() {
    let Running { mut pair, _directory } = running("");
    pair.first
        .sql()
        .unwrap()
        .batch_execute("CREATE TABLE t(id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1)")
        .unwrap();
    pair.second.kill();
    let file = pair.second.database_file();
    std::fs::write(&file, vec![0xa5; 8192]).unwrap();
    std::fs::remove_file(file.with_extension("db-wal")).unwrap();
    assert!(pair.second.start(&[]).is_err(), "nobody gets to see a damaged database");

    pair.second.start(&["-x", "backupserver"]).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), vec![0xa5; 8192], "it is left alone until the copy is there");
    pair.first.expect("hsb set primary alone").unwrap();
    pair.first.sql().unwrap().batch_execute("INSERT INTO t VALUES (2)").unwrap();
    pair.first.expect("hsb netcopy").unwrap();
    pair.first.wait_for("hsb status copy", "SUCCESS").unwrap();
    pair.connect().unwrap();
    assert_identical(&pair);
    assert_eq!(ids(&pair.second), BTreeSet::from([1, 2]));
}
