//! Histories that have parted: what `hsb connect` says of them, and the way back with `hsb rewind`.

use std::path::PathBuf;
use std::time::Duration;

use crate::common::fixture::{Fixture, fixture, has_row, insert, reconnect, rows};
use crate::common::{
    Random, assert_identical, checksum, from_environment, messages, number, position, settled_messages, sql,
    state, wait_until,
};
use hotstandby::demo::pair::{Pair, Server};

/// Both write alone: `first` rows 20 to 22 and more, then it steps down; `second`, the primary, row 10.
fn parted(statements: &str) -> Fixture {
    let fixture = fixture("");
    let pair = &fixture.pair;
    sql(&pair.first)
        .batch_execute("CREATE TABLE u (a TEXT, b REAL); INSERT INTO u VALUES ('x', 1.5)")
        .unwrap();
    assert_identical(pair);
    pair.first.expect("hsb disconnect").unwrap();
    pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    let mut session = sql(&pair.first);
    for statement in statements.split(';') {
        session.batch_execute(statement).unwrap();
    }
    pair.second.expect("hsb set primary alone").unwrap();
    insert(&pair.second, 10).join().unwrap().unwrap();
    pair.first.expect("hsb set secondary alone").unwrap();
    fixture
}

const WRITTEN_ALONE: &str = "INSERT INTO t VALUES (20), (21); UPDATE u SET a = 'y'; DELETE FROM t WHERE id = 1; \
     SET TRANSACTION TOKEN 'alone'; INSERT INTO t VALUES (22)";

fn saved_files(server: &Server) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&server.directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "sql")).collect()
}

#[test]
fn what_was_written_alone_is_saved_and_taken_back() {
    let fixture = parted(WRITTEN_ALONE);
    let pair = &fixture.pair;
    for server in [&pair.first, &pair.second] {
        let (code, text) = server.connect().unwrap();
        assert_eq!(code, 14525, "{text}");
        for part in [" has made 1 transaction, ", " 4 transactions. ", "hsb rewind", &position(&pair.first)] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
    }
    let mut session = sql(&pair.first);
    session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    assert_eq!(number(&mut session, "SELECT count(*) FROM t"), 3);
    let answer = pair.first.expect("hsb rewind").unwrap();
    assert!(answer.starts_with("4 transactions were saved"), "{answer}");
    assert_eq!(number(&mut session, "SELECT count(*) FROM t"), 3, "a snapshot stays");
    session.batch_execute("COMMIT").unwrap();
    assert_eq!(number(&mut session, "SELECT count(*) FROM t"), 1);
    let files = saved_files(&pair.first);
    assert!(files.len() == 1 && answer.contains(files[0].to_str().unwrap()), "{files:?} {answer}");
    let saved = std::fs::read_to_string(&files[0]).unwrap();
    for part in [
        "21);\n",
        r#"UPDATE "u" SET "a" = 'y' WHERE "rowid" = 1 AND "a" COLLATE BINARY IS 'x';"#,
        r#"DELETE FROM "t" WHERE "#,
        "'alone'",
        "Transactions: 4, after ",
    ] {
        assert!(saved.contains(part), "'{part}' is not in: {saved}");
    }
    reconnect(pair);
    assert!(has_row(&pair.first, 10) && has_row(&pair.first, 1) && rows(&pair.first) == 2);
    assert_eq!(pair.second.expect("hsb outcome alone").unwrap(), "ROLLED BACK");
    // The pair is as any other: a failover, a catchup, another rewind.
    let mut fixture = fixture;
    fixture.pair.second.kill();
    fixture.pair.first.expect("hsb set primary alone").unwrap();
    insert(&fixture.pair.first, 30).join().unwrap().unwrap();
    fixture.pair.second.start(&[]).unwrap();
    reconnect(&fixture.pair);
}

const WITH_A_SCHEMA_CHANGE: &str =
    "INSERT INTO t VALUES (20); CREATE TABLE made_alone (a); INSERT INTO t VALUES (21)";

#[test]
fn a_rewind_is_refused_where_it_cannot_be_or_need_not_be() {
    let fixture = parted(WITH_A_SCHEMA_CHANGE);
    let pair = &fixture.pair;
    assert_eq!(pair.second.ask("hsb rewind").unwrap().0, 14539, "at a primary");
    let before = (checksum(&pair.first), position(&pair.first));
    let (code, text) = pair.first.ask("hsb rewind").unwrap();
    assert!(
        code == 14525 && text.contains("CREATE TABLE made_alone") && text.contains("'hsb netcopy'"),
        "{text}"
    );
    assert_eq!((checksum(&pair.first), position(&pair.first)), before, "something was changed");
    let files = saved_files(&pair.first);
    assert!(files.len() == 1 && text.contains(files[0].to_str().unwrap()), "{files:?} {text}");
    let saved = std::fs::read_to_string(&files[0]).unwrap();
    assert!(saved.contains("\nCREATE TABLE made_alone (a);\n") && saved.contains("21);\n"), "{saved}");
    pair.second.expect("hsb set secondary alone").unwrap();
    assert_eq!(pair.first.ask("hsb rewind").unwrap().0, 14701, "no primary to follow");
    // The other one has to go back instead, and then there is nothing to take back at the new secondary.
    pair.first.expect("hsb set primary alone").unwrap();
    assert!(pair.second.expect("hsb rewind").unwrap().starts_with("1 transaction was saved"));
    assert!(pair.second.expect("hsb rewind").unwrap().contains("nothing to take back"));
    reconnect(pair);
    assert_eq!(rows(&pair.second), 3);
}

/// Killed at any moment of the rewind, the server comes back with all of its transactions or with none.
#[test]
fn a_crash_in_the_middle_of_a_rewind_leaves_all_or_nothing() {
    let rounds = from_environment("HSB_REWIND_ROUNDS", 4);
    let mut random = Random::seeded("rewind");
    let mut fixture = parted("INSERT INTO t VALUES (20)");
    let (mut common, mut done) = (1, 0);
    for round in 0..rounds {
        let pair = &mut fixture.pair;
        pair.first.expect("hsb set primary alone").unwrap();
        let mut session = sql(&pair.first);
        for batch in 0..20 {
            let row = 1000 + batch * 200;
            let insert = format!(
                "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT {row} UNION ALL SELECT i + 1 FROM n WHERE i < {row} + 199) SELECT i FROM n WHERE i NOT IN (SELECT id FROM t)"
            );
            session.batch_execute(&insert).unwrap();
        }
        drop(session);
        let whole_rows = rows(&pair.first);
        pair.first.expect("hsb set secondary alone").unwrap();
        let whole = position(&pair.first);
        let mut console = pair.first.console().unwrap();
        let rewinding = std::thread::spawn(move || console.ask("hsb rewind"));
        // The crash has to hit the work, not an event of it.
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        pair.first.kill();
        let answer = rewinding.join().unwrap();
        pair.first.start(&[]).unwrap();
        let count = rows(&pair.first);
        let rewound = count == common;
        assert!(
            rewound || count == whole_rows,
            "round {round}: {count} rows are left of {whole_rows}, {common} before\n{}",
            messages(&pair.first)
        );
        assert_eq!(rewound, position(&pair.first) != whole, "round {round}");
        assert!(rewound || answer.is_err(), "round {round}: {answer:?} and not rewound");
        done += u64::from(rewound);
        if rewound {
            reconnect(&fixture.pair);
            assert_identical(&fixture.pair);
            common = rows(&fixture.pair.first);
            part_again(&fixture.pair);
        }
    }
    println!("{rounds} crashes, {done} after the rewind was decided");
    fixture.pair.first.expect("hsb rewind").unwrap();
    reconnect(&fixture.pair);
}

/// From connected to parted: the second server stays the primary.
fn part_again(pair: &Pair) {
    pair.second.expect("hsb disconnect").unwrap();
    pair.second.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    assert_eq!(state(&pair.first), "SECONDARY ALONE");
    sql(&pair.second).batch_execute("DELETE FROM t WHERE id <> 10; INSERT INTO u VALUES ('z', 2)").unwrap();
    sql(&pair.second).batch_execute("DELETE FROM t; INSERT INTO t VALUES (10)").unwrap();
}

/// Restarts it with an empty log.
fn lose_the_log(server: &mut Server) {
    server.stop().unwrap();
    for entry in std::fs::read_dir(&server.directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::remove_file(path).unwrap();
        }
    }
    server.start(&[]).unwrap();
}

/// The primary's log was lost, so nothing says whether the secondary's position is on its history.
#[test]
fn a_log_that_does_not_reach_back_is_named_with_its_beginning() {
    let mut fixture = fixture("");
    let pair = &mut fixture.pair;
    pair.first.expect("hsb disconnect").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    insert(&pair.first, 20).join().unwrap().unwrap();
    let beginning = position(&pair.first);
    lose_the_log(&mut pair.first);
    pair.first.expect("hsb set primary alone").unwrap();
    insert(&pair.first, 21).join().unwrap().unwrap();
    let (code, text) = pair.second.connect().unwrap();
    assert_eq!(code, 14708, "{text}");
    assert!(text.contains(&format!("the log begins at {beginning}")), "{text}");
    assert!(text.contains(&position(&pair.second)), "{text}");
    let (code, text) = pair.second.ask("hsb rewind").unwrap();
    assert!(code == 14708 && text.contains("hsb netcopy") && text.contains(&beginning), "{code} {text}");
}

/// The end of the netcopy that is asked for here: its code and text.
fn netcopy(source: &Server) -> (u32, String) {
    source.expect("hsb netcopy").unwrap();
    wait_until("the netcopy has ended", || source.ask("hsb status copy").unwrap().0 != 14003);
    source.ask("hsb status copy").unwrap()
}

fn assert_netcopy_is_refused(source: &Server, target: &Server, parts: &[&str]) {
    let before = (checksum(target), position(target));
    let (code, text) = netcopy(source);
    assert_eq!(code, 14525, "{text}");
    for part in parts.iter().chain(&["'hsb rewind'", "-x backupserver", &*before.1]) {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert_eq!((checksum(target), position(target)), before);
}

#[test]
fn a_netcopy_destroys_no_parted_history_without_consent() {
    let fixture = parted("INSERT INTO t VALUES (20); INSERT INTO t VALUES (21)");
    let pair = &fixture.pair;
    // The target is further than the source, level with it, and behind it.
    for row in [11, 12, 13] {
        assert_netcopy_is_refused(&pair.second, &pair.first, &["(2 transactions)"]);
        insert(&pair.second, row).join().unwrap().unwrap();
    }
    assert!(saved_files(&pair.first).is_empty());
    pair.first.expect("hsb rewind").unwrap();
    assert_eq!(netcopy(&pair.second).0, 0);
    reconnect(pair);
}

#[test]
fn a_netcopy_over_a_parted_schema_needs_a_rewind_that_saves_and_consents() {
    let mut fixture = parted(WITH_A_SCHEMA_CHANGE);
    let pair = &mut fixture.pair;
    assert_netcopy_is_refused(&pair.second, &pair.first, &["(3 transactions)"]);
    assert_eq!(pair.first.ask("hsb rewind").unwrap().0, 14525);
    // The consent ends with the process that it was given to.
    pair.first.stop().unwrap();
    pair.first.start(&[]).unwrap();
    assert_netcopy_is_refused(&pair.second, &pair.first, &["(3 transactions)"]);
    assert_eq!(pair.first.ask("hsb rewind").unwrap().0, 14525);
    assert_eq!(netcopy(&pair.second).0, 0, "{}", messages(&pair.first));
    reconnect(pair);
    assert_eq!(saved_files(&pair.first).len(), 1);
}

#[test]
fn a_backup_server_saves_what_only_its_old_database_has() {
    let mut fixture = parted(WITH_A_SCHEMA_CHANGE);
    let pair = &mut fixture.pair;
    pair.first.stop().unwrap();
    pair.first.start(&["-x", "backupserver"]).unwrap();
    assert_eq!(netcopy(&pair.second).0, 0);
    let files = saved_files(&pair.first);
    assert_eq!(files.len(), 1, "{}", messages(&pair.first));
    let saved = std::fs::read_to_string(&files[0]).unwrap();
    assert!(saved.contains("\nCREATE TABLE made_alone (a);\n") && saved.contains("21);\n"), "{saved}");
    reconnect(pair);
    // Nothing is only here: nothing is saved.
    pair.first.stop().unwrap();
    pair.second.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    pair.first.start(&["-x", "backupserver"]).unwrap();
    assert_eq!(netcopy(&pair.second).0, 0);
    assert_eq!(saved_files(&pair.first), files);
    assert!(kept(&pair.first).is_empty());
}

/// Databases that were kept whole.
fn kept(server: &Server) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&server.directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("solid.db.kept-")).collect()
}

/// The source was restored from an old backup, promoted, and has written as much as the target since.
#[test]
fn a_netcopy_from_a_promoted_old_backup_is_refused() {
    let mut fixture = fixture("");
    let pair = &mut fixture.pair;
    let backup = pair.second.directory.parent().unwrap().join("backup");
    std::fs::create_dir(&backup).unwrap();
    pair.second.expect(&format!("backup {}", backup.display())).unwrap();
    pair.second.wait_for("hsb status copy", "SUCCESS").unwrap();
    insert(&pair.first, 20).join().unwrap().unwrap();
    assert_identical(pair);
    pair.second.kill();
    for entry in std::fs::read_dir(&pair.second.directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".log") || name.starts_with("solid.db") {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::copy(backup.join("solid.db"), pair.second.database_file()).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    pair.first.expect("hsb set secondary alone").unwrap();
    pair.second.start(&[]).unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
    for row in [10, 11] {
        assert_netcopy_is_refused(&pair.second, &pair.first, &["(1 transaction)"]);
        insert(&pair.second, row).join().unwrap().unwrap();
    }
    assert_netcopy_is_refused(&pair.second, &pair.first, &["(1 transaction)"]);
}

/// The source has no log that tells whether it has what the target has. Consent is given blindly, so all is kept.
#[test]
fn where_the_logs_do_not_tell_a_netcopy_needs_consent_and_the_database_is_kept() {
    let mut fixture = fixture("");
    let pair = &mut fixture.pair;
    pair.first.expect("hsb disconnect").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    insert(&pair.first, 20).join().unwrap().unwrap();
    lose_the_log(&mut pair.first);
    pair.first.expect("hsb set primary alone").unwrap();
    assert_netcopy_is_refused(&pair.first, &pair.second, &["may have transactions"]);
    let (code, text) = pair.second.ask("hsb rewind").unwrap();
    assert!(code == 14708 && text.contains("kept whole"), "{code} {text}");
    let lost = checksum(&pair.second);
    assert_eq!(netcopy(&pair.first).0, 0, "{}", messages(&pair.second));
    reconnect(pair);
    let found = kept(&pair.second);
    let whole: Vec<_> = found.iter().filter(|path| !path.to_string_lossy().ends_with("-wal")).collect();
    assert!(
        whole.len() == 1 && settled_messages(&pair.second).contains(whole[0].to_str().unwrap()),
        "{found:?}"
    );
    let connection = rusqlite::Connection::open(whole[0]).unwrap();
    assert_eq!(hotstandby::storage::checksum::logical_checksum(&connection).unwrap().len(), lost.len());
    let count = connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    assert_eq!(count.unwrap(), 1);
}

/// While the process lives that heard the secondary's last acknowledgement, no log is needed to know it again.
#[test]
fn a_target_that_stands_where_it_acknowledged_last_is_known_without_a_log() {
    let fixture = fixture("");
    let pair = &fixture.pair;
    pair.first.expect("hsb set standalone").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    insert(&pair.first, 20).join().unwrap().unwrap();
    pair.first.expect("makecp").unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    assert_eq!(netcopy(&pair.first).0, 0);
    reconnect(pair);
    assert!(kept(&pair.second).is_empty());
}
