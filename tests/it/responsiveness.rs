//! Long statements and silent clients hold nobody up.

use std::time::{Duration, Instant};

use crate::common::{
    assert_identical, connected_pair, from_environment, number, server_error, sql, state, wait_until,
};
use hotstandby::demo::pair::Server;

const BOUND: Duration = Duration::from_secs(1);

/// Runs for about so long; the server's speed is measured first.
fn long_query(server: &Server, seconds: u64) -> String {
    let query = |steps: u64| {
        format!(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {steps}) SELECT count(*) FROM c"
        )
    };
    let begun = Instant::now();
    let probe = 200_000;
    number(&mut sql(server), &query(probe));
    query(probe * seconds * 1000 / (begun.elapsed().as_millis() as u64).max(1))
}

fn timed(worst: &mut Duration, work: impl FnOnce()) {
    let begun = Instant::now();
    work();
    *worst = begun.elapsed().max(*worst);
}

#[test]
fn a_long_query_delays_nobody() {
    let seconds = from_environment("HSB_LONG_QUERY_SECONDS", 4);
    let (_root, pair) = connected_pair("PingInterval=200\nPingTimeout=1000");
    sql(&pair.first).batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    let mut id = 0;
    for busy in [&pair.first, &pair.second] {
        let query = long_query(busy, seconds);
        let mut session = sql(busy);
        let begun = Instant::now();
        let long = std::thread::spawn(move || number(&mut session, &query));
        let (mut writer, mut reader, mut other) = (sql(&pair.first), sql(&pair.first), sql(&pair.second));
        let [mut commit, mut read, mut command] = [Duration::ZERO; 3];
        while !long.is_finished() {
            id += 1;
            timed(&mut commit, || writer.batch_execute(&format!("INSERT INTO t VALUES ({id})")).unwrap());
            timed(&mut read, || assert_eq!(number(&mut reader, "SELECT max(id) FROM t"), id));
            timed(&mut read, || assert!(number(&mut other, "SELECT count(*) FROM t") <= id));
            timed(&mut command, || assert_eq!(state(&pair.first), "PRIMARY ACTIVE"));
            timed(&mut command, || assert_eq!(state(&pair.second), "SECONDARY ACTIVE"));
        }
        long.join().unwrap();
        println!(
            "{}: query of {:?}; worst commit {commit:?}, read {read:?}, command {command:?}",
            busy.name,
            begun.elapsed()
        );
        assert!(
            begun.elapsed() > Duration::from_secs(seconds / 4),
            "the query was too short to tell anything"
        );
        assert!(commit < BOUND && read < BOUND && command < BOUND);
    }
    assert_identical(&pair);
}

#[test]
fn a_silent_transaction_ends_when_others_wait_and_not_before() {
    let (_root, pair) = connected_pair("[General]\nTransactionIdleTimeOut=1");
    sql(&pair.first).batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    let mut silent = sql(&pair.first);
    silent.batch_execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    let idle_since = Instant::now();
    wait_until("the time-out has long passed", || idle_since.elapsed() > Duration::from_millis(2500));
    silent.batch_execute("INSERT INTO t VALUES (2)").unwrap();
    let begun = Instant::now();
    // One that leads alone, one that shares a batch: both ways to wait.
    let waiting = ["BEGIN; INSERT INTO t VALUES (3); COMMIT", "INSERT INTO t VALUES (4)"].map(|statements| {
        let mut session = sql(&pair.first);
        std::thread::spawn(move || session.batch_execute(statements).unwrap())
    });
    for waiting in waiting {
        waiting.join().unwrap();
    }
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(700) && waited < Duration::from_secs(5), "{waited:?}");
    let (sqlstate, message) =
        server_error(&silent.batch_execute("INSERT INTO t VALUES (5)").unwrap_err()).unwrap();
    assert_eq!(sqlstate, "25P03", "{message}");
    silent.batch_execute("ROLLBACK").unwrap();
    // The writer is free for everybody.
    silent.batch_execute("SET LOCK TIMEOUT 10; INSERT INTO t VALUES (6)").unwrap();
    let rows: Vec<i64> = sql(&pair.first)
        .query("SELECT id FROM t ORDER BY id", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(rows, [3, 4, 6]);
}

#[test]
fn a_client_that_leaves_in_a_transaction_frees_the_writer() {
    let (_root, pair) = connected_pair("");
    sql(&pair.first).batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    for id in 0..20 {
        let mut leaving = sql(&pair.first);
        leaving.batch_execute("BEGIN; INSERT INTO t VALUES (100)").unwrap();
        let mut waiting = sql(&pair.first);
        let begun = Instant::now();
        drop(leaving);
        waiting.batch_execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    }
    assert_eq!(number(&mut sql(&pair.first), "SELECT count(*) FROM t"), 20);
}
