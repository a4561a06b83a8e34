//! Known traps of two-node replication that need real processes: paused, killed, half cut off. docs/traps.md lists all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::fixture::{Fixture, NO_PINGS, QUICK_PINGS, fixture, has_row, insert, reconnect, rows};
use crate::common::proxy::{From, Verdict, peer_messages};
use crate::common::{
    Random, assert_identical, from_environment, has_pending, lock_out_of_database, number, server_error,
    signal, signal_process, sql, state, wait_until,
};
use hotstandby::demo::pair::{Pair, Server};
use hotstandby::hsb::event::PeerMessage;

/// The secondary is promoted meanwhile; what a client has sent to the paused primary waits in its socket.
#[test]
fn trap_10_a_primary_that_was_paused_acknowledges_nothing_when_it_wakes() {
    let fixture = fixture(QUICK_PINGS);
    let pair = &fixture.pair;
    let mut session = sql(&pair.first);
    signal(&pair.first, "-STOP");
    let waiting = std::thread::spawn(move || session.batch_execute("INSERT INTO t VALUES (20)"));
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
    insert(&pair.second, 10).join().unwrap().unwrap();
    signal(&pair.first, "-CONT");
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    assert!(!has_row(&pair.first, 20), "committed by a stale primary");
    assert!(!waiting.is_finished(), "answered by a stale primary: {:?}", waiting.join());
    let (code, text) = pair.first.connect().unwrap();
    assert_eq!(code, 14700, "{text}");
    assert_eq!(state(&pair.first), "PRIMARY UNCERTAIN");
    assert!(!has_row(&pair.first, 20), "committed by a stale primary");
    assert!(!waiting.is_finished(), "answered by a stale primary: {:?}", waiting.join());
    pair.first.expect("hsb set secondary alone").unwrap();
    let (_, message) = server_error(&waiting.join().unwrap().unwrap_err()).unwrap();
    // The statement may have been under way before, or be read only now; 10083: its batch was made, its outcome is open.
    assert!(["10047", "10041", "10045", "10083"].iter().any(|code| message.contains(code)), "{message}");
    reconnect(pair);
    assert!(has_row(&pair.first, 10) && !has_row(&pair.first, 20));
}

#[test]
fn trap_10_a_secondary_that_was_paused_is_done_without_and_catches_up() {
    let fixture = fixture(&format!("{QUICK_PINGS}AutoPrimaryAlone=yes\n"));
    let pair = &fixture.pair;
    signal(&pair.second, "-STOP");
    let waiting = insert(&pair.first, 2);
    pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    waiting.join().unwrap().unwrap();
    insert(&pair.first, 3).join().unwrap().unwrap();
    signal(&pair.second, "-CONT");
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    reconnect(pair);
    assert_eq!(rows(&pair.second), 3);
}

/// Transactions go to two tables in turn; whenever one looks, the first is level or one ahead.
#[test]
fn trap_14_the_secondary_shows_transactions_in_the_order_of_the_primary() {
    let fixture = fixture("");
    let pair = &fixture.pair;
    let mut writer = sql(&pair.first);
    writer
        .batch_execute("CREATE TABLE a (id BIGINT PRIMARY KEY); CREATE TABLE b (id BIGINT PRIMARY KEY)")
        .unwrap();
    assert_identical(pair);
    let mut reader = sql(&pair.second);
    let writing = std::thread::spawn(move || {
        for id in 1..=200 {
            writer.batch_execute(&format!("SET SAFENESS {}SAFE", 1 + id / 5 % 2)).unwrap();
            writer.batch_execute(&format!("INSERT INTO a VALUES ({id})")).unwrap();
            writer.batch_execute(&format!("INSERT INTO b VALUES ({id})")).unwrap();
        }
    });
    let (mut before, mut looks) = ((0, 0), 0);
    while before != (200, 200) {
        let row = reader
            .query_one(
                "SELECT CAST((SELECT count(*) FROM a) AS BIGINT), CAST((SELECT count(*) FROM b) AS BIGINT),
                 CAST((SELECT coalesce(max(id), 0) FROM a) AS BIGINT)",
                &[],
            )
            .unwrap();
        let (a, b, last): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        assert!(a == b || a == b + 1, "{a} in the first table and {b} in the second");
        assert_eq!(a, last, "a transaction is missing among those that show");
        assert!((a, b) >= before, "went back from {before:?} to {a}, {b}");
        (before, looks) = ((a, b), looks + 1);
    }
    writing.join().unwrap();
    println!("looked {looks} times");
}

/// A snapshot and a statement stopped in the middle stay open at the secondary; commits are answered when they show there.
#[test]
fn trap_15_a_long_reader_at_the_secondary_does_not_block_apply() {
    let fixture = fixture("2SafeAckPolicy=2\n");
    let pair = &fixture.pair;
    insert(&pair.first, 2).join().unwrap().unwrap();
    let mut reader = sql(&pair.second);
    let mut transaction =
        reader.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    let portal = transaction.bind("SELECT id FROM t ORDER BY id", &[]).unwrap();
    assert_eq!(transaction.query_portal(&portal, 1).unwrap().len(), 1);
    for id in 3..=40 {
        let commit = insert(&pair.first, id);
        wait_until("the commit is answered", || commit.is_finished());
        commit.join().unwrap().unwrap();
        assert!(has_row(&pair.second, id), "answered and not visible");
    }
    sql(&pair.first).batch_execute("ALTER TABLE t ADD COLUMN name TEXT; UPDATE t SET name = 'x'").unwrap();
    pair.second.expect("makecp").unwrap();
    assert_eq!(number(&mut sql(&pair.second), "SELECT count(*) FROM t WHERE name = 'x'"), 40);
    assert_eq!(transaction.query_portal(&portal, 0).unwrap().len(), 1, "the snapshot has moved");
    transaction.commit().unwrap();
    assert_identical(pair);
}

/// Apply is held up by a lock on the database file, so that everything acknowledged is in the queue at the promotion.
#[test]
fn trap_16_a_promotion_waits_until_what_was_received_is_applied() {
    let mut fixture = fixture("2SafeAckPolicy=1\n");
    let lock = lock_out_of_database(&fixture.pair.second);
    for id in 2..=20 {
        insert(&fixture.pair.first, id).join().unwrap().unwrap();
    }
    assert_eq!(rows(&fixture.pair.second), 1, "the example is another one");
    fixture.pair.first.kill();
    let second = &fixture.pair.second;
    second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    std::thread::scope(|scope| {
        let promoting = scope.spawn(|| second.expect("hsb set primary alone"));
        for id in 100..110 {
            assert!(insert(second, id).join().unwrap().is_err(), "accepted before what was received");
            assert_eq!(state(second), "SECONDARY ALONE");
        }
        assert!(!promoting.is_finished());
        drop(lock);
        promoting.join().unwrap().unwrap();
    });
    assert_eq!((state(second), rows(second)), ("PRIMARY ALONE".into(), 20));
    insert(second, 21).join().unwrap().unwrap();
    fixture.pair.second.kill();
    fixture.pair.second.start(&[]).unwrap();
    assert_eq!(rows(&fixture.pair.second), 21);
}

/// Half-open: one way nothing arrives any more, and nobody is told.
#[test]
fn trap_18_a_half_open_connection_is_noticed_whichever_way_it_is_open() {
    let fixture = fixture(&format!("{QUICK_PINGS}AutoPrimaryAlone=yes\n"));
    let Fixture { network, pair, .. } = &fixture;
    for (silent, id) in [(From::First, 2), (From::Second, 3)] {
        network.hold(silent);
        let waiting = insert(&pair.first, id);
        pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
        waiting.join().unwrap().unwrap();
        if silent == From::First {
            // Else it hears of the end when the network is whole again.
            pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
        }
        network.resume();
        pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
        reconnect(pair);
        assert!(has_row(&pair.second, id));
    }
}

/// One switch in which `blow` hits one of the servers at one of the messages; then both are brought together again.
fn struck_switch(pair: &mut Pair, network: &crate::common::proxy::Network, random: &mut Random) {
    let at_primary = random.below(2) == 0;
    let (message, blow) = (random.below(3), ["-STOP", "-KILL"][random.below(2) as usize]);
    println!("{blow} at message {message} to the {}", if at_primary { "primary" } else { "secondary" });
    let (victim, survivor, command) = match at_primary {
        true => (&pair.first, &pair.second, "hsb switch primary"),
        false => (&pair.second, &pair.first, "hsb switch secondary"),
    };
    let (struck, process) = (Arc::new(AtomicBool::new(false)), victim.process_id().unwrap());
    let (mut left, mark) = (message, Arc::clone(&struck));
    network.spy(move |_, data| {
        let part_of_switch = |message: &PeerMessage| {
            matches!(message, PeerMessage::HandOver { .. } | PeerMessage::TakeOver | PeerMessage::HandedOver)
        };
        if !mark.load(Ordering::Relaxed) && peer_messages(data).iter().any(part_of_switch) {
            if left == 0 {
                signal_process(process, blow);
                mark.store(true, Ordering::Relaxed);
            } else {
                left -= 1;
            }
        }
        Verdict::Pass
    });
    survivor.expect(command).unwrap();
    wait_until("the server is struck", || struck.load(Ordering::Relaxed));
    wait_until("the survivor knows where it stands", || is_settled(survivor));
    if blow == "-KILL" {
        let server = if at_primary { &mut pair.first } else { &mut pair.second };
        server.kill();
        server.start(&[]).unwrap();
    } else {
        signal(victim, "-CONT");
    }
    network.resume();
    for server in [&pair.first, &pair.second] {
        wait_until("the server knows where it stands", || is_settled(server));
    }
    let states = (state(&pair.first), state(&pair.second));
    println!("{states:?}");
    let uncertain = |state: &str| state == "PRIMARY UNCERTAIN";
    assert!(!(uncertain(&states.0) && uncertain(&states.1)), "two primaries");
    let further = |one: &Server, other: &Server| {
        one.expect("hsb logpos").unwrap() > other.expect("hsb logpos").unwrap()
    };
    if uncertain(&states.1) || !uncertain(&states.0) && further(&pair.second, &pair.first) {
        pair.swap();
    }
    pair.first.expect("hsb set primary alone").unwrap();
    reconnect(pair);
}

/// Not connected, nothing under way, and a state with a way on.
fn is_settled(server: &Server) -> bool {
    let switching = server.ask("hsb status switch").unwrap().0 == 14003;
    !switching && ["SECONDARY ALONE", "PRIMARY UNCERTAIN"].contains(&state(server).as_str())
}

/// HSB_SWITCH_ROUNDS: how many; HSB_SEED repeats a run.
#[test]
fn trap_20_a_switch_that_breaks_half_way_ends_in_a_named_state() {
    let mut random = Random::seeded("struck switches");
    let mut fixture = fixture(QUICK_PINGS);
    for round in 1..=from_environment("HSB_SWITCH_ROUNDS", 3) {
        let Fixture { network, pair, .. } = &mut fixture;
        struck_switch(pair, network, &mut random);
        insert(&pair.first, 1000 + round as i64).join().unwrap().unwrap();
    }
}

/// What `hsb status` says.
fn status(server: &Server) -> String {
    let rows = server.console().unwrap().command("hsb status").unwrap();
    rows.into_iter().map(|(_, line)| line + "\n").collect()
}

#[test]
fn trap_22_the_lag_is_right_when_idle_when_behind_and_unknown_when_disconnected() {
    let fixture = fixture(&format!("{NO_PINGS}AutoPrimaryAlone=yes\n"));
    let Fixture { network, pair, .. } = &fixture;
    let lag_is = |count: i64| status(&pair.first).contains(&format!(" {count} transactions "));
    insert(&pair.first, 2).join().unwrap().unwrap();
    wait_until("the secondary is level", || lag_is(0));
    network.hold(From::Second);
    let mut writer = sql(&pair.first);
    writer.batch_execute("SET SAFENESS 1SAFE").unwrap();
    for id in 3..=5 {
        writer.batch_execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
    }
    wait_until("the lag shows", || lag_is(3));
    network.resume();
    wait_until("the secondary is level", || lag_is(0));
    for _ in 0..20 {
        assert!(lag_is(0), "it grows while nothing happens");
    }
    network.cut_for_good();
    pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    let text = status(&pair.first);
    assert!(!text.contains(" transactions ") && text.contains("unknown since"), "{text}");
    writer.batch_execute("INSERT INTO t VALUES (6)").unwrap();
    assert!(!status(&pair.first).contains(" transactions "));
}

/// The secondary dies with a commit under way: everybody who waits is told what for, or let go in time.
#[test]
fn trap_24_who_waits_for_a_dead_secondary_shows_and_nobody_waits_for_ever() {
    let mut fixture = fixture(NO_PINGS);
    fixture.network.hold(From::Second);
    let waiting = insert(&fixture.pair.first, 2);
    wait_until("the transaction is in doubt", || has_pending(&fixture.pair.first));
    fixture.pair.second.kill();
    fixture.network.cut();
    let first = &fixture.pair.first;
    first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    let text = status(first);
    // What can be done depends on what has become of the other server.
    for part in ["PRIMARY UNCERTAIN", "pending", "hsb set primary alone", "Bring the other server"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    // Both ways to wait for the writer.
    for statements in ["INSERT INTO t VALUES (3)", "BEGIN; INSERT INTO t VALUES (4); COMMIT"] {
        let mut writer = sql(first);
        writer.batch_execute("SET LOCK TIMEOUT 1").unwrap();
        let (_, message) = server_error(&writer.batch_execute(statements).unwrap_err()).unwrap();
        assert!(message.contains("10089") && message.contains("'hsb status' shows"), "{message}");
    }
    assert_eq!(rows(first), 1, "reads go on");
    assert!(!waiting.is_finished());
    first.expect("hsb set primary alone").unwrap();
    waiting.join().unwrap().unwrap();
    assert_eq!(rows(first), 2);
}
