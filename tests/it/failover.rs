//! Crashes of the primary under load: what was acknowledged is at the new primary, what was rolled back is not.
//!
//! HSB_FAILOVER_ROUNDS sets the number of crashes for each acknowledge policy, HSB_SEED repeats a run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{
    Random, assert_identical, connected_pair, from_environment, messages, program, server_error, sql, state,
    try_sql,
};
use hotstandby::demo::pair::{ADMINISTRATOR, Pair, Server};
use postgres::Client;

const CLIENTS: u64 = 8;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Outcome {
    Acknowledged,
    RolledBack,
    Unknown,
}

/// One transaction as its client saw it: the rows it inserted and how it ended.
struct Record {
    client: u64,
    ids: Vec<i64>,
    counted: bool,
    outcome: Outcome,
}

struct Load {
    acknowledged: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Record>>>,
}

impl Load {
    /// Clients that write until the server is gone.
    fn start(server: &Server, random: &mut Random, next_id: &Arc<AtomicI64>) -> Load {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let client = |number| {
            let mut session = sql(server);
            let (mut random, next_id, acknowledged) =
                (random.fork(), Arc::clone(next_id), Arc::clone(&acknowledged));
            std::thread::spawn(move || {
                let mut records = Vec::new();
                while !session.is_closed() {
                    let record = transact(&mut session, number, &mut random, &next_id);
                    if record.outcome == Outcome::Acknowledged {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    records.push(record);
                }
                records
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load { acknowledged, clients }
    }

    fn records(self) -> Vec<Record> {
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

fn transact(session: &mut Client, client: u64, random: &mut Random, next_id: &AtomicI64) -> Record {
    let id = || next_id.fetch_add(1, Ordering::Relaxed);
    let insert = |id: i64| format!("INSERT INTO t VALUES ({id}, {client}, 'row {id}')");
    if random.below(2) == 0 {
        let id = id();
        let outcome = session.batch_execute(&insert(id));
        return Record { client, ids: vec![id], counted: false, outcome: outcome_of(&outcome) };
    }
    let ids = vec![id(), id()];
    let give_up = random.below(4) == 0;
    let begun = [
        "BEGIN".into(),
        insert(ids[0]),
        insert(ids[1]),
        format!("UPDATE counter SET n = n + 2 WHERE client = {client}"),
    ]
    .iter()
    .try_for_each(|statement: &String| session.batch_execute(statement));
    let outcome = match begun {
        // Without a COMMIT nothing may be there, whatever became of the connection.
        Err(_) => Outcome::RolledBack,
        Ok(()) if give_up => {
            let _ = session.batch_execute("ROLLBACK");
            Outcome::RolledBack
        }
        Ok(()) => outcome_of(&session.batch_execute("COMMIT")),
    };
    if outcome == Outcome::RolledBack {
        // Ends the transaction if an error has left it open.
        let _ = session.batch_execute("ROLLBACK");
    }
    Record { client, ids, counted: true, outcome }
}

fn outcome_of(result: &Result<(), postgres::Error>) -> Outcome {
    match result {
        Ok(()) => Outcome::Acknowledged,
        Err(error) => match server_error(error) {
            Some((state, _)) if !state.starts_with("08") => Outcome::RolledBack,
            _ => Outcome::Unknown,
        },
    }
}

/// What must be true of the database after all that the clients were told.
fn compare(server: &Server, records: &[Record], round: u64) {
    let mut session = sql(server);
    let rows = session.query("SELECT id, client FROM t", &[]).unwrap();
    let present: HashMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut counted: HashMap<u64, i64> = HashMap::new();
    for record in records {
        let there = record.ids.iter().filter(|id| present.contains_key(id)).count();
        assert!(
            there == 0 || there == record.ids.len(),
            "round {round}: half of a transaction is there: {:?}",
            record.ids
        );
        match record.outcome {
            Outcome::Acknowledged => {
                assert!(there > 0, "round {round}: acknowledged and lost: {:?}", record.ids)
            }
            Outcome::RolledBack => {
                assert!(there == 0, "round {round}: rolled back and there: {:?}", record.ids)
            }
            Outcome::Unknown => {}
        }
        if record.counted {
            *counted.entry(record.client).or_default() += there as i64;
        }
    }
    for row in session.query("SELECT client, n FROM counter", &[]).unwrap() {
        let (client, n): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(
            counted.get(&(client as u64)).copied().unwrap_or_default(),
            n,
            "round {round}: client {client}'s counter"
        );
    }
    let known: usize = records.iter().map(|record| record.ids.len()).sum();
    assert!(present.len() <= known, "round {round}: rows that nobody inserted");
}

fn create_tables(server: &Server) {
    let mut session = sql(server);
    session.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, client BIGINT, text TEXT)").unwrap();
    session.batch_execute("CREATE TABLE counter (client BIGINT PRIMARY KEY, n BIGINT)").unwrap();
    for client in 0..CLIENTS {
        session.batch_execute(&format!("INSERT INTO counter VALUES ({client}, 0)")).unwrap();
    }
}

fn crash_rounds(policy: u32) {
    let rounds = from_environment("HSB_FAILOVER_ROUNDS", 6);
    let mut random = Random::seeded(&format!("policy {policy}"));
    let (_root, mut pair) = connected_pair(&format!("2SafeAckPolicy={policy}"));
    create_tables(&pair.first);
    let next_id = Arc::new(AtomicI64::new(1));
    let mut records = Vec::new();
    let (mut acknowledged, mut unknown) = (0, 0);
    for round in 1..=rounds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            one_round(&mut pair, &mut random, &next_id, &mut records, round);
        }));
        if let Err(problem) = outcome {
            println!(
                "---- {}\n{}\n---- {}\n{}",
                pair.first.name,
                messages(&pair.first),
                pair.second.name,
                messages(&pair.second)
            );
            std::panic::resume_unwind(problem);
        }
        let count = |wanted| records.iter().filter(|record| record.outcome == wanted).count();
        (acknowledged, unknown) = (count(Outcome::Acknowledged), count(Outcome::Unknown));
    }
    println!(
        "policy {policy}: {rounds} crashes, {acknowledged} transactions acknowledged, {unknown} with unknown outcome, none lost"
    );
}

fn one_round(
    pair: &mut Pair,
    random: &mut Random,
    next_id: &Arc<AtomicI64>,
    records: &mut Vec<Record>,
    round: u64,
) {
    let load = Load::start(&pair.first, random, next_id);
    let acknowledged = Arc::clone(&load.acknowledged);
    crate::common::wait_until("clients are at work", || acknowledged.load(Ordering::Relaxed) > CLIENTS);
    // The load is what the crash has to hit, so time and not an event decides when.
    let crash = Instant::now() + Duration::from_micros(random.below(300_000));
    std::thread::sleep(crash.saturating_duration_since(Instant::now()));
    pair.first.kill();
    pair.second.expect("hsb set primary alone").unwrap();
    records.extend(load.records());
    compare(&pair.second, records, round);
    pair.first.start(&[]).unwrap();
    assert_eq!(state(&pair.first), "SECONDARY ALONE", "after a crash");
    let dialler = if round.is_multiple_of(2) { &pair.first } else { &pair.second };
    dialler.expect("hsb connect").unwrap();
    assert_identical(pair);
    pair.swap();
}

/// Before, only a database that was behind its log gave it away.
#[test]
fn a_start_says_what_the_server_was_last() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Pair::prepare(program(), root.path(), "").unwrap().first;
    let said = |server: &mut Server| {
        server.start(&[]).unwrap();
        let all = crate::common::settled_messages(server);
        all.lines().rfind(|line| line.contains("started as secondary")).unwrap().to_owned()
    };
    assert!(said(&mut server).contains("30501"));
    server.expect("hsb set primary alone").unwrap();
    server.stop().unwrap();
    let was_primary = said(&mut server);
    assert!(was_primary.contains("30502: the server was PRIMARY ALONE: started"), "{was_primary}");
    server.stop().unwrap();
    assert!(said(&mut server).contains("30501"));
    server.kill();
    let killed = said(&mut server);
    assert!(killed.contains("30502: the server was not shut down in order: started"), "{killed}");
    server.expect("hsb set standalone").unwrap();
    server.kill();
    let killed = said(&mut server);
    assert!(killed.contains("30502: the server was STANDALONE, and not shut down in order"), "{killed}");
}

#[test]
fn nothing_acknowledged_is_lost_with_policy_1() {
    crash_rounds(1);
}

#[test]
fn nothing_acknowledged_is_lost_with_policy_2() {
    crash_rounds(2);
}

#[test]
fn nothing_acknowledged_is_lost_with_policy_3() {
    crash_rounds(3);
}

/// The password is checked on every connection, also after a failover.
#[test]
fn users_survive_a_failover() {
    let (_root, mut pair) = connected_pair("");
    sql(&pair.first).batch_execute("CREATE USER anna IDENTIFIED BY 'anna-secret'").unwrap();
    pair.first.kill();
    pair.second.expect("hsb set primary alone").unwrap();
    assert!(try_sql(&pair.second, "wrong").is_err());
    let mut anna = postgres::Config::new();
    anna.host("127.0.0.1").port(pair.second.port).user("anna").password("anna-secret").dbname("solid");
    anna.connect(postgres::NoTls).unwrap();
    assert_ne!(ADMINISTRATOR.0, "anna");
}

/// A server that steps down and takes over again goes on from where it was, not from where it was last a secondary.
#[test]
fn stepping_down_and_taking_over_again_keeps_the_position() {
    let (_root, pair) = connected_pair("");
    create_tables(&pair.first);
    pair.first.expect("hsb disconnect").unwrap();
    pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    let before = crate::common::position(&pair.first);
    pair.first.expect("hsb set secondary alone").unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    assert_eq!(crate::common::position(&pair.first), before);
    sql(&pair.first).batch_execute("INSERT INTO t VALUES (1, 1, 'after')").unwrap();
    pair.second.expect("hsb connect").unwrap();
    assert_identical(&pair);
}
