//! Power cuts, of one machine and of both at once: what was promised to be on a disk is there, and `hsb status` has counted
//! the rest.

use crate::common::fixture::{Fixture, NO_PINGS, fixture, has_row, insert, reconnect, rows};
use crate::common::proxy::From;
use crate::common::{assert_identical, connected_pair, sql};
use hotstandby::demo::pair::{Pair, Server};
use hotstandby::hsb::position::DatabasePosition;
use hotstandby::storage::database::{Database, read_identity};
use hotstandby::storage::log::{LogConfiguration, LogWriter, Medium};

/// Nothing comes to disk by itself in so many milliseconds.
const NEVER: &str = "[Logging]\nRelaxedMaxDelay=600000\n";
const ROWS: i64 = 20;

/// Transactions that the server's log has on its disk.
fn on_disk(server: &Server) -> u64 {
    let (_, json) = server.ask("hsb status json").unwrap();
    serde_json::from_str::<serde_json::Value>(&json).unwrap()["this"]["on_disk"].as_u64().unwrap()
}

/// What `hsb status` counts as acknowledged and on no disk yet.
fn counted(server: &Server) -> i64 {
    let lines = server.console().unwrap().command("hsb status").unwrap();
    let count = lines.iter().find_map(|(_, line)| line.strip_prefix("on no disk"));
    count.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Ends the process and takes what was not synced: the end of the log, and all of SQLite's.
fn cut_power(server: &mut Server) {
    let on_disk = on_disk(server);
    server.kill();
    let file = server.database_file();
    std::fs::remove_file(file.with_extension("db-wal")).unwrap();
    let DatabasePosition { database_id, position } =
        read_identity(&Database::at(file, 1 << 20).open_for_apply().unwrap()).unwrap();
    let configuration = LogConfiguration {
        directory: server.directory.clone(),
        template: "sol#####.log".into(),
        digit: '#',
        segment_size_bytes: 10 << 20,
        database_id,
        maximum_bytes: None,
        medium: Medium::default(),
    };
    let (mut log, mut found) = LogWriter::open(configuration, position).unwrap();
    while found.reader.next(on_disk).unwrap().is_some() {}
    log.truncate_after(found.reader.position()).unwrap();
}

/// A pair with row 0 on the primary's disk, and then with ROWS more that were acknowledged under these settings.
fn pair_with_rows(policy: u8, durability: u8, session: &str) -> (tempfile::TempDir, Pair) {
    let (root, pair) =
        connected_pair(&format!("2SafeAckPolicy={policy}\n{NEVER}DurabilityLevel={durability}\n"));
    let mut sql = sql(&pair.first);
    for statement in ["CREATE TABLE t (id BIGINT PRIMARY KEY)", "SET TRANSACTION DURABILITY STRICT"] {
        sql.batch_execute(statement).unwrap();
    }
    sql.batch_execute("INSERT INTO t VALUES (0)").unwrap();
    sql.batch_execute(session).unwrap();
    for id in 1..=ROWS {
        sql.batch_execute(&format!("INSERT INTO t VALUES ({id})")).unwrap();
    }
    (root, pair)
}

/// Both servers fail, each in its way, and start again; the one with the greater `hsb logpos` goes on. Rows lost by it.
fn lost_after(mut pair: Pair, failures: [fn(&mut Server); 2]) -> i64 {
    failures[0](&mut pair.first);
    failures[1](&mut pair.second);
    for server in [&mut pair.first, &mut pair.second] {
        server.start(&[]).unwrap();
    }
    let reached = |server: &Server| server.expect("hsb logpos").unwrap();
    if reached(&pair.second) > reached(&pair.first) {
        pair.swap();
    }
    pair.first.expect("hsb set primary alone").unwrap();
    let lost = ROWS + 1 - rows(&pair.first);
    insert(&pair.first, 100).join().unwrap().unwrap();
    pair.connect().unwrap();
    assert_identical(&pair);
    lost
}

const ONE_SAFE: &str = "SET SAFENESS 1SAFE";

#[test]
fn both_machines_without_power_lose_what_hsb_status_counts_and_no_more() {
    for (policy, durability, session, lost) in [
        (1, 1, "", ROWS),
        (1, 2, "", ROWS),
        (2, 2, "", ROWS),
        (1, 3, "", 0),
        (2, 3, "", 0),
        (3, 1, "", 0),
        (3, 3, "", 0),
        (1, 1, ONE_SAFE, ROWS),
        (1, 2, ONE_SAFE, 0),
        (1, 1, "SET DURABILITY STRICT", 0),
    ] {
        let (_root, pair) = pair_with_rows(policy, durability, session);
        let settings = format!("2SafeAckPolicy={policy}, DurabilityLevel={durability}, {session}");
        assert_eq!(counted(&pair.first), lost, "{settings}");
        assert_eq!(lost_after(pair, [cut_power, cut_power]), lost, "{settings}");
    }
}

#[test]
fn both_processes_killed_at_once_lose_nothing_under_any_setting() {
    for (policy, durability, session) in [(1, 1, ""), (1, 1, ONE_SAFE), (3, 3, "")] {
        let (_root, pair) = pair_with_rows(policy, durability, session);
        assert_eq!(lost_after(pair, [Server::kill, Server::kill]), 0, "{policy} {durability} {session}");
    }
}

/// What a secondary shows is in its log file, which the end of its process leaves alone.
#[test]
fn a_killed_secondary_has_what_it_had_shown_when_the_primary_loses_power() {
    let (_root, pair) = pair_with_rows(2, 1, "");
    assert_eq!(lost_after(pair, [cut_power, Server::kill]), 0);
}

/// Both machines lose power, and one of the disks with it.
#[test]
fn one_disk_is_enough_if_the_answer_waited_for_it() {
    for (policy, durability, first_is_left, lost) in [
        // The secondary syncs as well, but is not waited for.
        (1, 3, true, 0),
        (3, 2, true, ROWS),
        (3, 2, false, 0),
        (3, 3, true, 0),
        (3, 3, false, 0),
    ] {
        let (_root, mut pair) = pair_with_rows(policy, durability, "");
        for server in [&mut pair.first, &mut pair.second] {
            cut_power(server);
        }
        let left = if first_is_left { &mut pair.first } else { &mut pair.second };
        left.start(&[]).unwrap();
        left.expect("hsb set primary alone").unwrap();
        // The secondary's disk need not have the table.
        let there = sql(left).query_one("SELECT count(*) FROM t", &[]).map_or(0, |row| row.get(0));
        assert_eq!((ROWS + 1 - there).min(ROWS), lost, "{policy} {durability} {first_is_left}");
    }
}

/// Factory settings: each acknowledged transaction is in the other server's memory.
#[test]
fn one_machine_without_power_loses_nothing() {
    let (_root, mut pair) = pair_with_rows(1, 2, "");
    cut_power(&mut pair.first);
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
    assert_eq!(rows(&pair.second), ROWS + 1);
    insert(&pair.second, 100).join().unwrap().unwrap();
    pair.swap();
    pair.second.start(&[]).unwrap();
    pair.connect().unwrap();
    insert(&pair.first, 101).join().unwrap().unwrap();
    cut_power(&mut pair.second);
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    assert!(has_row(&pair.first, 101));
    pair.second.start(&[]).unwrap();
    pair.connect().unwrap();
    assert_identical(&pair);
}

/// What 1-safe risks: answered, not sent, and the secondary promoted. It is neither visible there nor thrown away.
#[test]
fn what_was_not_sent_is_refused_at_connect_and_saved_by_a_rewind() {
    let mut fixture = fixture(NO_PINGS);
    let Fixture { network, pair, .. } = &mut fixture;
    network.hold(From::First);
    sql(&pair.first).batch_execute(&format!("{ONE_SAFE}; INSERT INTO t VALUES (2)")).unwrap();
    pair.first.kill();
    network.cut();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
    network.resume();
    assert_eq!(rows(&pair.second), 1);
    pair.first.start(&[]).unwrap();
    assert!(has_row(&pair.first, 2));
    assert_eq!(pair.first.connect().unwrap().0, 14525);
    let answer = pair.first.expect("hsb rewind").unwrap();
    let file = answer.split_whitespace().find(|word| word.ends_with(".sql")).unwrap();
    assert!(std::fs::read_to_string(file).unwrap().contains("2);\nCOMMIT;"));
    reconnect(pair);
    assert_eq!(rows(&pair.first), 1);
}

/// SQLite's own checksums end its log at the bad place, so that the database falls back; ours makes it good again.
#[test]
fn damage_in_the_log_of_sqlite_is_made_good_from_the_transaction_log() {
    let (_root, mut pair) = pair_with_rows(1, 2, "");
    pair.first.kill();
    let file = pair.first.database_file().with_extension("db-wal");
    let mut bytes = std::fs::read(&file).unwrap();
    // The first of its pages.
    bytes[32 + 24 + 100] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    assert_eq!(rows(&pair.first), ROWS + 1);
    pair.connect().unwrap();
    assert_identical(&pair);
}
