//! What statements may take in memory: a bound for each session and for all of them, an error beyond it, and nobody else
//! notices.

use crate::back_pressure::peak_mb;
use crate::common::fixture::{Fixture, NO_PINGS, fixture};
use crate::common::{assert_identical, number, server_error, sql, state, wait_until};
use hotstandby::demo::pair::{PATIENCE, Server};
use postgres::{Client, IsolationLevel, NoTls};

/// A session may take 64 MB, a value 16 MB, a message 33 MB.
const SMALL: &str = "[General]\nMaxStatementMemory=256M\n";
/// A server with its caches, the sessions of the test and what they may take, generously.
const BOUND_MB: u64 = 512;

fn pair_with_reader() -> Fixture {
    let fixture = fixture(&format!("{NO_PINGS}{SMALL}"));
    sql(&fixture.pair.first)
        .batch_execute("CREATE USER reader IDENTIFIED BY 'reader'; REVOKE READ_WRITE_ROLE FROM reader")
        .unwrap();
    assert_identical(&fixture.pair);
    fixture
}

fn reader(server: &Server) -> Client {
    let mut configuration = postgres::Config::new();
    configuration.hostaddr(server.host).port(server.port).user("reader").password("reader").dbname("x");
    configuration.connect_timeout(PATIENCE).connect(NoTls).unwrap()
}

fn state_of<T>(result: Result<T, postgres::Error>) -> String {
    server_error(&result.err().expect("this should have been refused")).expect("an answer of the server").0
}

fn repeated(count: usize, what: &str) -> String {
    vec![what; count].join(", ")
}

/// SQL that wants more than there is, each in another way.
fn greedy() -> Vec<String> {
    let doubling: String = (1..40)
        .map(|number| format!(", c{number} AS (SELECT * FROM c{0} UNION ALL SELECT * FROM c{0})", number - 1))
        .collect();
    vec![
        "SELECT hex(zeroblob(1000000000))".into(),
        "SELECT hex(zeroblob(10000000))".into(),
        format!("SELECT {}", repeated(100, "hex(zeroblob(7000000))")),
        format!("SELECT {}", repeated(400, "zeroblob(16000000)")),
        format!("SELECT {}", repeated(400, "printf('%.*c', 16000000, 'x')")),
        format!("SELECT max({}) FROM t", repeated(400, "randomblob(16000000)")),
        format!("SELECT id{} FROM t", " BETWEEN 1 AND 2".repeat(990)),
        format!("WITH c0 AS (SELECT 1 AS a){doubling} SELECT count(*) FROM c39"),
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) SELECT group_concat(hex(zeroblob(100000))) FROM c".into(),
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) SELECT json_group_array(hex(zeroblob(100000))) FROM c".into(),
        format!("SELECT {}", "1,".repeat(8_000_000)),
    ]
}

#[test]
fn a_reader_that_wants_too_much_memory_gets_an_error_and_nobody_else_notices() {
    let fixture = pair_with_reader();
    let pair = &fixture.pair;
    for server in [&pair.first, &pair.second] {
        let mut session = reader(server);
        for text in greedy() {
            let shown: String = text.chars().take(80).collect();
            for outcome in [session.simple_query(&text).map(drop), session.query(&*text, &[]).map(drop)] {
                let Err(error) = outcome else { panic!("{shown} was answered") };
                let (code, message) = server_error(&error).unwrap_or_else(|| panic!("{shown}: {error}"));
                assert!(["53200", "54000", "42601"].contains(&&*code), "{shown}: {code} {message}");
            }
            assert_eq!(number(&mut session, "SELECT count(*) FROM t"), 1);
        }
        println!("{}: {} MB at most", server.name, peak_mb(server));
        assert!(peak_mb(server) <= BOUND_MB, "{} has taken {} MB", server.name, peak_mb(server));
    }
    assert_eq!(state(&pair.first), "PRIMARY ACTIVE");
    sql(&pair.first).batch_execute("INSERT INTO t VALUES (2)").unwrap();
    assert_identical(pair);
}

#[test]
fn what_a_session_holds_between_its_statements_is_bounded() {
    let fixture = pair_with_reader();
    let server = &fixture.pair.second;
    let mut session = reader(server);
    // As prepared statements, kept by SQLite as well.
    let mut held = Vec::new();
    let outcome = (0..40).try_for_each(|number| {
        let text = format!("SELECT {number} WHERE '{}' <> $1", "x".repeat(2_000_000));
        held.push(session.prepare(&text)?);
        session.query(held.last().unwrap(), &[&"y"]).map(drop)
    });
    assert_eq!(state_of(outcome), "54000");
    drop(held);
    // As cursors with large parameters.
    let value = "x".repeat(4_000_000);
    let mut transaction = session.transaction().unwrap();
    let statement = transaction.prepare("SELECT length($1::text)").unwrap();
    let outcome = (0..40).try_for_each(|_| transaction.bind(&statement, &[&value]).map(std::mem::forget));
    assert_eq!(state_of(outcome), "54000");
    transaction.rollback().unwrap();
    assert!(peak_mb(server) <= BOUND_MB, "{} MB", peak_mb(server));
}

#[test]
fn a_long_text_costs_no_more_than_its_longest_statement() {
    let fixture = pair_with_reader();
    let server = &fixture.pair.second;
    let mut session = reader(server);
    session.simple_query(&";".repeat(15 << 20)).unwrap();
    session.simple_query(&"/**/;".repeat(3 << 20)).unwrap();
    let (code, message) = server_error(&session.simple_query(&";".repeat(20 << 20)).unwrap_err()).unwrap();
    assert_eq!(code, "54000", "{message}");
    assert!(message.contains("16 MB"), "{message}");
    session.simple_query("SELECT 1").unwrap();
    assert!(peak_mb(server) <= 256, "{} MB", peak_mb(server));
}

#[test]
fn the_largest_value_goes_through_and_a_larger_one_is_refused() {
    let fixture = pair_with_reader();
    let pair = &fixture.pair;
    let mut session = sql(&pair.first);
    session.batch_execute("CREATE TABLE big (id INTEGER PRIMARY KEY, data BLOB)").unwrap();
    let largest = vec![7_u8; 16_000_000];
    session.execute("INSERT INTO big VALUES (1, $1)", &[&largest]).unwrap();
    let larger = vec![7_u8; 17_000_000];
    assert_eq!(state_of(session.execute("INSERT INTO big VALUES (2, $1)", &[&larger])), "54000");
    assert_eq!(state_of(session.batch_execute("INSERT INTO big VALUES (2, zeroblob(17000000))")), "54000");
    assert_identical(pair);
    for server in [&pair.first, &pair.second] {
        let mut session = reader(server);
        let found: Vec<u8> = session.query_one("SELECT data FROM big", &[]).unwrap().get(0);
        assert_eq!(found, largest);
        assert!(session.simple_query("SELECT data FROM big").unwrap().len() >= 2);
    }
}

#[test]
fn a_snapshot_that_was_lost_for_want_of_memory_is_not_exchanged_for_another() {
    let fixture = pair_with_reader();
    let server = &fixture.pair.first;
    let mut session = reader(server);
    let mut transaction =
        session.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().unwrap();
    transaction.batch_execute("SELECT count(*) FROM t; SAVEPOINT a").unwrap();
    let text = format!("SELECT max({}) FROM t", repeated(100, "randomblob(16000000)"));
    assert_eq!(state_of(transaction.batch_execute(&text)), "53200");
    sql(server).batch_execute("INSERT INTO t VALUES (2)").unwrap();
    // Either the snapshot is still there, or the transaction can only end.
    match transaction.batch_execute("ROLLBACK TO a") {
        Ok(()) => {
            assert_eq!(transaction.query_one("SELECT count(*) FROM t", &[]).unwrap().get::<_, i64>(0), 1)
        }
        Err(error) => assert_eq!(server_error(&error).unwrap().0, "3B001"),
    }
    transaction.rollback().unwrap();
    wait_until("the session goes on", || number(&mut session, "SELECT count(*) FROM t") == 2);
}
