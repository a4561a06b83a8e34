//! Tokens of transactions: what became of one can be asked, after any failure, and a transaction is never done twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::embedded::server;
use crate::common::fixture::{NO_PINGS, fixture, has_row};
use crate::common::proxy::From;
use crate::common::{
    Random, assert_identical, connected_pair, from_environment, number, server_error, sql, wait_until,
};
use hotstandby::demo::pair::{Pair, Server, sql_configuration};
use postgres::Client;

fn outcome(client: &mut Client, token: &str) -> String {
    client.query_one("SELECT HOTSTANDBY_OUTCOME($1::text)", &[&token]).unwrap().get(0)
}

fn outcome_at(server: &Server, token: &str) -> String {
    let in_sql = outcome(&mut sql(server), token);
    let by_command = server.expect(&format!("hsb outcome {token}")).unwrap();
    assert_eq!(in_sql, by_command, "{token} at {}", server.name);
    in_sql
}

fn refusal(client: &mut Client, statements: &str) -> (String, String) {
    server_error(&client.batch_execute(statements).unwrap_err()).unwrap()
}

#[test]
fn a_token_commits_once() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    for (token, statements) in [
        ("autocommit", "INSERT INTO t VALUES (1)"),
        ("A block's, with 'quotes' and blanks ", "BEGIN; INSERT INTO t VALUES (2); COMMIT"),
        ("nothing changed", "UPDATE t SET id = 9 WHERE id = 8"),
    ] {
        let set = format!("SET TRANSACTION TOKEN '{}'", token.replace('\'', "''"));
        assert_eq!(outcome(&mut client, token), "ROLLED BACK");
        client.batch_execute(&set).unwrap();
        let shown: String = client.query_one("SHOW TRANSACTION TOKEN", &[]).unwrap().get(0);
        assert_eq!(shown, token);
        client.batch_execute(statements).unwrap();
        assert_eq!(outcome(&mut client, token), "COMMITTED");
        let shown: String = client.query_one("SHOW TRANSACTION TOKEN", &[]).unwrap().get(0);
        assert_eq!(shown, "", "it is one transaction's");
        client.batch_execute(&set).unwrap();
        let again = statements.replace('1', "11").replace("(2)", "(12)");
        let (state, message) = refusal(&mut client, &again);
        assert_eq!(state, "2D000", "{message}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM t"), 2);
}

#[test]
fn a_token_is_that_of_the_transaction_that_it_is_set_in() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    client
        .batch_execute("BEGIN; INSERT INTO t VALUES (1); SET TRANSACTION TOKEN 'late'; SAVEPOINT s")
        .unwrap();
    assert_eq!(outcome(&mut client, "late"), "UNKNOWN");
    assert_eq!(outcome(&mut server.connect(), "late"), "UNKNOWN");
    client.batch_execute("ROLLBACK TO s; COMMIT").unwrap();
    assert_eq!(outcome(&mut server.connect(), "late"), "COMMITTED");
    client
        .batch_execute("BEGIN; SET TRANSACTION TOKEN 'undone'; INSERT INTO t VALUES (2); ROLLBACK")
        .unwrap();
    assert_eq!(outcome(&mut client, "undone"), "ROLLED BACK");
    client.batch_execute("SET TRANSACTION TOKEN 'taken back'; SET TRANSACTION TOKEN ''").unwrap();
    client.batch_execute("INSERT INTO t VALUES (3)").unwrap();
    assert_eq!(outcome(&mut client, "taken back"), "ROLLED BACK");
    // A session that is gone without a word has given its token up.
    let mut gone = server.connect();
    gone.batch_execute("BEGIN; SET TRANSACTION TOKEN 'gone'; INSERT INTO t VALUES (4)").unwrap();
    assert_eq!(outcome(&mut client, "gone"), "UNKNOWN");
    drop(gone);
    wait_until("its session has ended", || outcome(&mut client, "gone") == "ROLLED BACK");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t"), 2);
}

#[test]
fn tokens_have_a_length_and_the_table_is_not_the_clients() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute(&format!("SET TRANSACTION TOKEN '{}'", "x".repeat(255))).unwrap();
    assert_eq!(refusal(&mut client, &format!("SET TRANSACTION TOKEN '{}'", "x".repeat(256))).0, "22023");
    assert_eq!(refusal(&mut client, "SET TRANSACTION TOKEN x").0, "42601");
    for statement in ["SELECT * FROM _hsb_outcomes", "DELETE FROM _hsb_outcomes"] {
        assert_eq!(refusal(&mut client, statement).0, "0A000");
    }
}

/// In doubt is UNKNOWN at both until it is decided, then it is the same at both, for good.
#[test]
fn a_token_in_doubt_is_unknown_until_it_is_decided() {
    let mut fixture = fixture(NO_PINGS);
    let pair = &fixture.pair;
    fixture.network.hold(From::Second);
    let mut session = sql(&pair.first);
    session.batch_execute("SET TRANSACTION TOKEN 'doubtful'").unwrap();
    let waiting = std::thread::spawn(move || session.batch_execute("INSERT INTO t VALUES (2)"));
    wait_until("the secondary has the row", || has_row(&pair.second, 2));
    assert_eq!(outcome_at(&pair.first, "doubtful"), "UNKNOWN");
    assert_eq!(outcome_at(&pair.second, "doubtful"), "COMMITTED");
    assert_eq!(outcome_at(&pair.second, "never seen"), "UNKNOWN");
    fixture.network.cut();
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    assert_eq!(outcome_at(&pair.first, "doubtful"), "UNKNOWN");
    assert_eq!(outcome_at(&pair.first, "never seen"), "UNKNOWN");
    fixture.pair.first.kill();
    assert!(waiting.join().unwrap().is_err());
    fixture.pair.first.start(&[]).unwrap();
    let answer = fixture.pair.first.console().unwrap().command("hsb outcome doubtful").unwrap();
    assert_eq!(answer[0].1, "UNKNOWN");
    assert!(answer[1].1.starts_with("In doubt"), "{answer:?}");
    fixture.pair.second.expect("hsb set primary alone").unwrap();
    assert_eq!(outcome_at(&fixture.pair.second, "never seen"), "ROLLED BACK");
    fixture.network.resume();
    crate::common::fixture::reconnect(&fixture.pair);
    for server in [&fixture.pair.first, &fixture.pair.second] {
        assert_eq!(outcome_at(server, "doubtful"), "COMMITTED", "at {}", server.name);
    }
    // After a switch, a restart and a netcopy.
    fixture.pair.first.expect("hsb switch primary").unwrap();
    fixture.pair.first.wait_for("hsb state", "PRIMARY ACTIVE").unwrap();
    assert_eq!(outcome_at(&fixture.pair.first, "doubtful"), "COMMITTED");
    fixture.pair.first.expect("hsb disconnect").unwrap();
    fixture.pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    fixture.pair.second.kill();
    std::fs::remove_file(fixture.pair.second.database_file()).unwrap();
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    fixture.pair.copy().unwrap();
    assert_eq!(outcome_at(&fixture.pair.second, "doubtful"), "COMMITTED");
}

/// Where the clients of the driver find their server; it changes when the primary crashes.
type Address = Arc<Mutex<u16>>;

/// One transaction: a row, and a counter that would show a second execution. Repeated, with its token, until its
/// outcome is known to be COMMITTED.
fn do_once(session: &mut Option<Client>, primary: &Address, token: &str, row: u64, client: u64) {
    loop {
        let connect = || sql_configuration(*primary.lock().unwrap()).connect(postgres::NoTls).ok();
        let Some(connection) = session.take().or_else(connect) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let connection = session.insert(connection);
        let statements = [
            format!("SET TRANSACTION TOKEN '{token}'"),
            "BEGIN".into(),
            format!("INSERT INTO done (row) VALUES ({row})"),
            format!("UPDATE counter SET n = n + 1 WHERE client = {client}"),
            "COMMIT".into(),
        ];
        let outcome = statements.iter().try_for_each(|statement| connection.batch_execute(statement));
        let Err(error) = outcome else { return };
        match server_error(&error) {
            Some((state, _)) if state == "2D000" => {
                let _ = connection.batch_execute("ROLLBACK");
                return;
            }
            // Not on this server, or not now.
            _ => *session = None,
        }
    }
}

/// The rows carry no key, so that only the token stands between a repeated transaction and a second execution.
#[test]
fn trap_19_a_commit_in_doubt_is_repeated_with_its_token_and_never_done_twice() {
    const CLIENTS: u64 = 4;
    let rounds = from_environment("HSB_FAILOVER_ROUNDS", 4);
    let mut random = Random::seeded("tokens");
    let (_root, mut pair) = connected_pair("");
    let mut session = sql(&pair.first);
    session
        .batch_execute("CREATE TABLE done (row BIGINT); CREATE TABLE counter (client BIGINT, n BIGINT)")
        .unwrap();
    for client in 0..CLIENTS {
        session.batch_execute(&format!("INSERT INTO counter VALUES ({client}, 0)")).unwrap();
    }
    let primary: Address = Arc::new(Mutex::new(pair.first.port));
    let (done, limit) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
    let work = |client: u64| {
        let (primary, done, limit) = (Arc::clone(&primary), Arc::clone(&done), Arc::clone(&limit));
        std::thread::spawn(move || {
            let (mut session, mut count) = (None, 0);
            while done.load(Ordering::Relaxed) < limit.load(Ordering::Relaxed) {
                let row = client * 1_000_000 + count;
                do_once(&mut session, &primary, &format!("row {row}"), row, client);
                count += 1;
                done.fetch_add(1, Ordering::Relaxed);
            }
            count
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(work).collect();
    for _ in 0..rounds {
        crash_under_load(&mut pair, &primary, &done, &mut random);
    }
    limit.store(0, Ordering::Relaxed);
    let counts: Vec<u64> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let mut session = sql(&pair.first);
    for (client, count) in counts.iter().enumerate() {
        let rows = format!("SELECT count(*) FROM done WHERE row / 1000000 = {client}");
        assert_eq!(number(&mut session, &rows) as u64, *count, "client {client}: rows");
        let n = format!("SELECT n FROM counter WHERE client = {client}");
        assert_eq!(number(&mut session, &n) as u64, *count, "client {client}: counter");
    }
    println!("{rounds} crashes, {counts:?} transactions, each done once");
}

/// Kills the primary at a moment of its work; the other server takes over, the clients follow, the pair is whole again.
fn crash_under_load(pair: &mut Pair, primary: &Address, done: &AtomicU64, random: &mut Random) {
    let enough = done.load(Ordering::Relaxed) + 20 + random.below(60);
    wait_until("clients are at work", || done.load(Ordering::Relaxed) > enough);
    pair.first.kill();
    pair.second.expect("hsb set primary alone").unwrap();
    *primary.lock().unwrap() = pair.second.port;
    let enough = done.load(Ordering::Relaxed) + 5;
    wait_until("clients are at work again", || done.load(Ordering::Relaxed) > enough);
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb connect").unwrap();
    for server in [&pair.first, &pair.second] {
        server.wait_for("hsb status connect", "CONNECTED").unwrap();
    }
    pair.swap();
}

/// What the client was told, what HOTSTANDBY_OUTCOME says and what is in the table must agree for every token.
#[test]
fn outcomes_after_a_crash_are_those_of_the_rows() {
    let rounds = from_environment("HSB_FAILOVER_ROUNDS", 3);
    let mut random = Random::seeded("outcomes");
    let (_root, mut pair) = connected_pair("");
    sql(&pair.first).batch_execute("CREATE TABLE t (token TEXT)").unwrap();
    let mut committed = 0;
    for round in 0..rounds {
        let count = Arc::new(AtomicU64::new(0));
        let work = |client| {
            let (mut session, count) = (sql(&pair.first), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut told = Vec::new();
                for number in 0.. {
                    let token = format!("{round}/{client}/{number}");
                    let statements =
                        format!("SET TRANSACTION TOKEN '{token}'; INSERT INTO t VALUES ('{token}')");
                    let outcome = session.batch_execute(&statements);
                    told.push((token, outcome.is_ok()));
                    count.fetch_add(1, Ordering::Relaxed);
                    if outcome.is_err() {
                        return told;
                    }
                }
                told
            })
        };
        let clients: Vec<_> = (0..4).map(work).collect();
        let enough = 40 + random.below(100);
        wait_until("clients are at work", || count.load(Ordering::Relaxed) > enough);
        pair.first.kill();
        pair.second.expect("hsb set primary alone").unwrap();
        let told: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let mut session = sql(&pair.second);
        let rows = session.query("SELECT token, count(*) FROM t GROUP BY 1", &[]).unwrap();
        let present: BTreeMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for (token, acknowledged) in &told {
            let there = present.contains_key(token);
            let expected = if there { "COMMITTED" } else { "ROLLED BACK" };
            assert_eq!(outcome(&mut session, token), expected, "{token}");
            assert!(there || !acknowledged, "{token} was acknowledged and is lost");
            committed += u64::from(there);
        }
        pair.first.start(&[]).unwrap();
        pair.first.expect("hsb connect").unwrap();
        assert_identical(&pair);
        pair.swap();
    }
    println!("{rounds} crashes, {committed} transactions committed");
}
