//! Trap 17: what is too much for one server slows its clients down, and neither memory nor the link gives way.
//!
//! The bounds are those of docs/traps.md. HSB_TRANSACTION_MB (64), HSB_STOPPED_SECONDS (1) and HSB_UNREAD_MB (200) set
//! how much is too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::fixture::{Fixture, NO_PINGS, fixture, has_row};
use crate::common::proxy::{From, Network};
use crate::common::{
    assert_identical, from_environment, has_pending, lock_out_of_database, number, position, server_error,
    signal, sql, state, wait_until,
};
use hotstandby::demo::pair::{Pair, Server};
use postgres::Client;

/// What a server takes whatever its clients do: caches, and 32 MB under way to, or queued at, the other server.
const BASE_MB: u64 = 256;
/// A transaction that no frame can hold.
const FRAME_MB: u64 = 512;
/// Results made inside a write transaction.
const RESULTS_MB: u64 = 2 * 256;

/// The most memory that a server has had since its start.
pub fn peak_mb(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.process_id().unwrap());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn assert_within(pair: &Pair, first_mb: u64, second_mb: u64) {
    let (first, second) = (peak_mb(&pair.first), peak_mb(&pair.second));
    println!("peak memory: {first} MB of {first_mb}, {second} MB of {second_mb}");
    assert!(first <= first_mb && second <= second_mb);
}

/// A pair with a table for large rows.
fn pair_with_blobs(parameters: &str) -> Fixture {
    let fixture = fixture(&format!("{NO_PINGS}{parameters}"));
    sql(&fixture.pair.first)
        .batch_execute("CREATE TABLE big (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB)")
        .unwrap();
    fixture
}

fn insert_megabytes(count: u64) -> String {
    format!(
        "INSERT INTO big(data) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count})
         SELECT zeroblob(1048576) FROM c"
    )
}

#[test]
fn trap_17_a_large_transaction_goes_through_or_is_refused_before_anything_is_sent() {
    let megabytes = from_environment("HSB_TRANSACTION_MB", 64);
    let fixture = pair_with_blobs("");
    let pair = &fixture.pair;
    assert_identical(pair);
    let before = position(&pair.first);
    let mut session = sql(&pair.first);
    let outcome = session.batch_execute(&insert_megabytes(megabytes));
    if megabytes < FRAME_MB {
        outcome.unwrap();
    } else {
        let (code, message) = server_error(&outcome.unwrap_err()).unwrap();
        assert_eq!(code, "54000", "{message}");
        assert!(message.contains("512 MB"), "{message}");
        assert_eq!(position(&pair.first), before);
    }
    session.batch_execute("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(state(&pair.first), "PRIMARY ACTIVE");
    assert_identical(pair);
    let largest = megabytes.min(FRAME_MB);
    assert_within(pair, BASE_MB + 2 * largest, BASE_MB + largest);
}

/// What goes through at least before the clients of a secondary that takes nothing have to wait. A busy machine turns them away
/// earlier now and then, because the one before them takes long.
const LEAST_MB: i64 = 30;
/// Far more than may be under way: who has written so much was not slowed down, and stops.
const RUNAWAY_MB: i64 = 150;

/// Clients that write a megabyte at a time; those that cannot get at the writer try again.
struct Load {
    megabytes: Arc<AtomicI64>,
    /// How often since the last megabyte went through.
    turned_away: Arc<AtomicI64>,
    end: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(server: &Server, clients: usize, safeness: &str) -> Load {
        let mut load = Load {
            megabytes: Arc::default(),
            turned_away: Arc::default(),
            end: Arc::default(),
            clients: Vec::new(),
        };
        for _ in 0..clients {
            let mut session = sql(server);
            session.batch_execute(&format!("SET SAFENESS {safeness}; SET LOCK TIMEOUT 1")).unwrap();
            let (megabytes, turned_away, end) =
                (Arc::clone(&load.megabytes), Arc::clone(&load.turned_away), Arc::clone(&load.end));
            load.clients.push(std::thread::spawn(move || {
                while !end.load(Ordering::Relaxed) && megabytes.load(Ordering::Relaxed) < RUNAWAY_MB {
                    match session.batch_execute(&insert_megabytes(1)) {
                        Ok(()) => {
                            megabytes.fetch_add(1, Ordering::Relaxed);
                            turned_away.store(0, Ordering::Relaxed);
                        }
                        // That of a lock, whatever its words.
                        Err(error) => {
                            server_error(&error).unwrap();
                            turned_away.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }));
        }
        load
    }

    /// Whether so many megabytes went through and then nothing, while every client could have tried.
    fn stands_still_after(&self, least: i64) -> bool {
        let megabytes = self.megabytes.load(Ordering::Relaxed);
        assert!(megabytes < RUNAWAY_MB, "nothing slows it down");
        let all = i64::try_from(self.clients.len()).unwrap();
        megabytes >= least && self.turned_away.load(Ordering::Relaxed) >= all
    }

    /// Ends the clients; returns how much was acknowledged to them.
    fn finish(self) -> i64 {
        self.end.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        self.megabytes.load(Ordering::Relaxed)
    }
}

fn megabytes_at(server: &Server) -> i64 {
    number(&mut sql(server), "SELECT count(*) FROM big")
}

#[test]
fn trap_17_a_secondary_that_is_stopped_slows_writers_down() {
    let fixture = pair_with_blobs("");
    let pair = &fixture.pair;
    assert_identical(pair);
    signal(&pair.second, "-STOP");
    let one_safe = Load::start(&pair.first, 4, "1SAFE");
    wait_until("there is as much under way as may be", || one_safe.stands_still_after(LEAST_MB));
    let two_safe = Load::start(&pair.first, 4, "2SAFE");
    let stopped = Instant::now();
    let long = Duration::from_secs(from_environment("HSB_STOPPED_SECONDS", 1));
    wait_until("2-safe clients are turned away", || two_safe.stands_still_after(0));
    while stopped.elapsed() < long {
        std::thread::sleep(Duration::from_millis(100));
    }
    // The bytes under way, one batch on top, and what the connection itself holds.
    let under_way = one_safe.megabytes.load(Ordering::Relaxed);
    assert!(under_way <= 32 + 1 + 8, "{under_way} MB are not at the secondary");
    assert_eq!(two_safe.megabytes.load(Ordering::Relaxed), 0, "acknowledged by nobody");
    assert_eq!(state(&pair.first), "PRIMARY ACTIVE");
    assert_within(pair, BASE_MB, BASE_MB);
    signal(&pair.second, "-CONT");
    wait_until("all goes on", || two_safe.megabytes.load(Ordering::Relaxed) > 0);
    let acknowledged = one_safe.finish() + two_safe.finish();
    assert_identical(pair);
    assert_eq!(megabytes_at(&pair.second), acknowledged);
    assert_within(pair, BASE_MB, BASE_MB);
}

/// Apply stands still: its database file is locked. "Received" is acknowledged for 32 MB, and then no longer.
#[test]
fn trap_17_a_secondary_that_applies_slowly_slows_writers_down() {
    let fixture = pair_with_blobs("2SafeAckPolicy=1\n");
    let pair = &fixture.pair;
    assert_identical(pair);
    let lock = lock_out_of_database(&pair.second);
    let load = Load::start(&pair.first, 8, "2SAFE");
    wait_until("as much is received as may be", || {
        load.stands_still_after(LEAST_MB) && has_pending(&pair.first)
    });
    let received = load.megabytes.load(Ordering::Relaxed);
    assert!(received <= 32 + 8, "{received} MB");
    assert_eq!(
        (state(&pair.first), state(&pair.second)),
        ("PRIMARY ACTIVE".into(), "SECONDARY ACTIVE".into())
    );
    drop(lock);
    wait_until("all goes on", || load.megabytes.load(Ordering::Relaxed) > received);
    let acknowledged = load.finish();
    assert_identical(pair);
    assert_eq!(megabytes_at(&pair.second), acknowledged);
    assert_within(pair, BASE_MB, BASE_MB);
}

/// Rows of text of a megabyte each.
fn select_megabytes(count: u64) -> String {
    format!(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count})
         SELECT printf('%.*c', 1048576, 'x') FROM c"
    )
}

/// A client whose answers never get to it, at a statement.
fn deaf(server: &Server, statements: String) -> (Network, JoinHandle<()>) {
    let (network, port) = Network::in_front_of(server);
    let mut session: Client =
        hotstandby::demo::pair::sql_configuration(port).connect(postgres::NoTls).unwrap();
    network.hold(From::Second);
    // Ends in an error when the network does.
    let client = std::thread::spawn(move || drop(session.batch_execute(&statements)));
    (network, client)
}

#[test]
fn trap_17_clients_that_never_read_cost_little_and_hold_nobody_up() {
    let megabytes = from_environment("HSB_UNREAD_MB", 200);
    let fixture = pair_with_blobs("[General]\nTransactionIdleTimeOut=1\n");
    let pair = &fixture.pair;
    let readers: Vec<_> = [&pair.first, &pair.second]
        .into_iter()
        .flat_map(|server| (0..3).map(move |_| deaf(server, select_megabytes(megabytes))))
        .collect();
    let mut writer = sql(&pair.first);
    for id in 2..=20 {
        writer.batch_execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
    }
    assert_identical(pair);
    assert!(readers.iter().all(|(_, reader)| !reader.is_finished()), "somebody has read");
    assert_within(pair, BASE_MB, BASE_MB);

    // One that is the writer meanwhile, with more than is kept for it.
    let result = select_megabytes(100);
    let mut statements = "BEGIN; INSERT INTO t VALUES (21)".to_owned();
    (0..10).for_each(|_| statements = format!("{statements}; {result}"));
    let (network, client) = deaf(&pair.first, statements);
    let mut others = sql(&pair.first);
    others.batch_execute("INSERT INTO t VALUES (22)").unwrap();
    assert_within(pair, BASE_MB + RESULTS_MB, BASE_MB);
    for (network, client) in readers.into_iter().chain([(network, client)]) {
        drop(network);
        client.join().unwrap();
    }
    assert!(!has_row(&pair.first, 21) && has_row(&pair.first, 22));
    assert_identical(pair);
}
