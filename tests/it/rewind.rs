//! Histories that have parted: what `hsb connect` says of them, and the way back with `hsb rewind`.

use std::path::PathBuf;
use std::time::Duration;

use crate::common::fixture::{Fixture, fixture, has_row, insert, reconnect, rows};
use crate::common::{
    Random, assert_identical, checksum, from_environment, messages, number, position, sql, state,
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
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).collect()
}

#[test]
fn what_was_written_alone_is_saved_and_taken_back() {
    let fixture = parted(WRITTEN_ALONE);
    let pair = &fixture.pair;
    for server in [&pair.first, &pair.second] {
        let (code, text) = server.ask("hsb connect").unwrap();
        assert_eq!(code, 14525, "{text}");
        for part in [" has made 1 transaction, ", " 4 transactions. ", "hsb rewind", &position(&pair.first)] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
    }
    let mut session = sql(&pair.first);
    session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    assert_eq!(number(&mut session, "SELECT count(*) FROM t"), 3);
    let answer = pair.first.expect("hsb rewind").unwrap();
    assert!(answer.starts_with("4 transactions"), "{answer}");
    assert_eq!(number(&mut session, "SELECT count(*) FROM t"), 3, "a snapshot stays");
    session.batch_execute("COMMIT").unwrap();
    assert_eq!(number(&mut session, "SELECT count(*) FROM t"), 1);
    let files = saved_files(&pair.first);
    assert!(files.len() == 1 && answer.contains(files[0].to_str().unwrap()), "{files:?} {answer}");
    let saved = std::fs::read_to_string(&files[0]).unwrap();
    for part in [
        r#"{"after":{"id":21},"insert":"t""#,
        r#"{"after":{"a":"y"},"before":{"a":"x"}"#,
        r#"{"before":{"id":1},"delete":"t""#,
        r#""token":"alone""#,
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

#[test]
fn a_rewind_is_refused_where_it_cannot_be_or_need_not_be() {
    let fixture = parted("INSERT INTO t VALUES (20); CREATE TABLE made_alone (a); INSERT INTO t VALUES (21)");
    let pair = &fixture.pair;
    assert_eq!(pair.second.ask("hsb rewind").unwrap().0, 14539, "at a primary");
    let before = (checksum(&pair.first), position(&pair.first));
    let (code, text) = pair.first.ask("hsb rewind").unwrap();
    assert!(
        code == 14525 && text.contains("CREATE TABLE made_alone") && text.contains("etcopy needed"),
        "{text}"
    );
    assert_eq!((checksum(&pair.first), position(&pair.first)), before, "something was changed");
    assert!(saved_files(&pair.first).is_empty());
    pair.second.expect("hsb set secondary alone").unwrap();
    assert_eq!(pair.first.ask("hsb rewind").unwrap().0, 14701, "no primary to follow");
    // The other one has to go back instead, and then there is nothing to take back at the new secondary.
    pair.first.expect("hsb set primary alone").unwrap();
    assert!(pair.second.expect("hsb rewind").unwrap().starts_with("1 transactions"));
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

/// The primary's log was lost, so nothing says whether the secondary's position is on its history.
#[test]
fn a_log_that_does_not_reach_back_is_named_with_its_beginning() {
    let mut fixture = fixture("");
    let pair = &mut fixture.pair;
    pair.first.expect("hsb disconnect").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    insert(&pair.first, 20).join().unwrap().unwrap();
    let beginning = position(&pair.first);
    pair.first.stop().unwrap();
    for entry in std::fs::read_dir(&pair.first.directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::remove_file(path).unwrap();
        }
    }
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    insert(&pair.first, 21).join().unwrap().unwrap();
    let (code, text) = pair.second.ask("hsb connect").unwrap();
    assert_eq!(code, 14708, "{text}");
    assert!(text.contains(&format!("the log begins at {beginning}")), "{text}");
    assert!(text.contains(&position(&pair.second)), "{text}");
    let (code, text) = pair.second.ask("hsb rewind").unwrap();
    assert!(code == 14708 && text.contains("hsb netcopy") && text.contains(&beginning), "{code} {text}");
}
