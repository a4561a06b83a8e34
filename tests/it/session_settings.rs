//! SET, SHOW and RESET: what is not known is refused, what is shown can be set, and what is set has its effect.

use std::path::Path;
use std::time::Duration;

use crate::common::embedded::{server, server_with};
use crate::common::server_error;
use hotstandby::sql::known_settings::{self, Allowed, TABLE};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, SimpleQueryMessage};

fn shown(session: &mut Client, what: &str) -> String {
    let rows = session.simple_query(&format!("SHOW {what}")).unwrap();
    let row = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    row.unwrap()
}

/// SQLSTATE and text of a refusal; panics if it is none.
fn refusal(session: &mut Client, statement: &str) -> (String, String) {
    let error = session.batch_execute(statement).expect_err(statement);
    server_error(&error).unwrap_or_else(|| panic!("{statement}: {error}"))
}

#[test]
fn a_set_that_is_not_understood_is_refused_by_name() {
    let server = server();
    let mut session = server.connect();
    for (statement, state, word) in [
        ("SET SAFENES 2SAFE", "42704", "did you mean safeness?"),
        ("SET DURABILTY STRICT", "42704", "did you mean durability?"),
        ("SET SYNC CONNECT 'tcp 1315'", "42704", "sync"),
        ("SET sync_mode = on", "42704", "sync_mode"),
        ("SET statement_timeot = 5", "42704", "did you mean statement_timeout?"),
        ("SET LOCK TIMEOT 5", "42704", "lock"),
        ("SET statement_timeout 5", "42601", "= or TO"),
        ("SET SAFENESS 3SAFE", "42601", "1SAFE, 2SAFE, DEFAULT"),
        ("SET SAFENESS = 2SAFE", "42601", "1SAFE, 2SAFE, DEFAULT"),
        ("SET TRANSACTION SAFENES 2SAFE", "42601", "SAFENES"),
        ("SET search_path = tenant_7", "0A000", "one schema"),
        ("SET SCHEMA 'tenant_7'", "0A000", "one schema"),
        ("SET DateStyle = German", "0A000", "dates are always ISO"),
        ("SET bytea_output = escape", "0A000", "hexadecimal"),
        ("SET client_encoding = 'LATIN1'", "0A000", "UTF-8"),
        ("SET synchronous_commit = remote_apply", "0A000", "SET SAFENESS"),
        ("SET session_replication_role = replica", "0A000", "triggers"),
        ("SET ROLE eve", "0A000", "what its user may do"),
        ("SET SESSION AUTHORIZATION eve", "55P02", "cannot be changed"),
        ("SET server_version = '9.0'", "55P02", "cannot be changed"),
        ("SET transaction_isolation = 'rough'", "22023", "rough"),
        ("SET idle_session_timeout = soon", "22023", "soon"),
        ("SET work_mem = lots", "22023", "lots"),
        ("SET LOCAL SAFENESS 1SAFE", "42601", "SET TRANSACTION safeness"),
        ("SHOW ALL", "42704", "\"all\""),
        ("RESET safenes", "42704", "did you mean safeness?"),
        ("SHOW safenes", "42704", "did you mean safeness?"),
        ("SELECT set_config('safenes', '2safe', false)", "42704", "safenes"),
        ("SELECT current_setting('safenes')", "42704", "safenes"),
    ] {
        let (actual, text) = refusal(&mut session, statement);
        assert_eq!(actual, state, "{statement}: {text}");
        assert!(text.contains(word), "{statement}: {text}");
    }
}

#[test]
fn what_clients_and_dumps_set_is_taken() {
    let server = server();
    let mut session = server.connect();
    for statement in [
        "SET client_encoding TO 'UTF8'",
        "SET NAMES 'utf8'",
        "SET DateStyle=ISO",
        "SET datestyle TO 'ISO, DMY'",
        "SET extra_float_digits = 3",
        "SET standard_conforming_strings = on",
        "SET check_function_bodies = false",
        "SET xmloption = content",
        "SET row_security = off",
        "SET default_tablespace = ''",
        "SET default_table_access_method = heap",
        "SET TIME ZONE 'Europe/Berlin'",
        "SET SESSION timezone TO 'UTC'",
        "SET search_path TO \"$user\", public",
        "SET SCHEMA 'public'",
        "SET jit = off",
        "SET enable_seqscan = off",
        "SET myapp.user = 'eve'",
        "SET ROLE NONE",
        "RESET SESSION AUTHORIZATION",
        "SELECT set_config('search_path', '', false)",
    ] {
        session.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    assert_eq!(shown(&mut session, "myapp.user"), "eve");
}

#[test]
fn every_setting_can_be_set_as_it_is_shown() {
    let server = server();
    let mut session = server.connect();
    for row in TABLE.iter().filter(|row| row.allowed != Allowed::Fixed) {
        let before = shown(&mut session, row.name);
        session.batch_execute(&format!("SET {} = '{before}'", row.name)).unwrap();
        assert_eq!(shown(&mut session, row.name), before, "{}", row.name);
    }
    for (what, values) in [
        ("SAFENESS", &["1safe", "2safe", "default"][..]),
        ("DURABILITY", &["relaxed", "strict", "default"]),
        ("LOCK TIMEOUT", &["30", "7", "500ms", "0"]),
        ("IDLE TIMEOUT", &["0", "60", "1500ms"]),
        ("STATEMENT MAXTIME", &["0", "60", "1500ms"]),
    ] {
        for value in values {
            session.batch_execute(&format!("SET {what} {value}")).unwrap();
            assert_eq!(shown(&mut session, what), *value, "{what}");
        }
        session.batch_execute(&format!("RESET {what}")).unwrap();
        let default = shown(&mut session, what);
        session.batch_execute(&format!("SET {what} {default}")).unwrap();
    }
    // The server's own value is shown where a session has none.
    session.batch_execute("SET lock_timeout = DEFAULT").unwrap();
    assert_eq!(shown(&mut session, "lock_timeout"), "30000");
    session.batch_execute("SET lock_timeout = 0").unwrap();
    assert_eq!(shown(&mut session, "lock_timeout"), "0");
    assert_eq!(shown(&mut session, "LOCK TIMEOUT"), u32::MAX.to_string());
}

#[test]
fn set_local_ends_with_its_transaction_and_a_rollback_takes_set_back() {
    let server = server();
    let mut session = server.connect();
    session.batch_execute("SET statement_timeout = 1000; SET application_name = 'before'").unwrap();
    for (end, statement_timeout, application_name) in
        [("COMMIT", "1000", "after"), ("ROLLBACK", "1000", "before")]
    {
        session.batch_execute("SET application_name = 'before'").unwrap();
        session
            .batch_execute("BEGIN; SET LOCAL statement_timeout = 5000; SET application_name = 'after'")
            .unwrap();
        assert_eq!(shown(&mut session, "statement_timeout"), "5000");
        session.batch_execute(end).unwrap();
        assert_eq!(shown(&mut session, "statement_timeout"), statement_timeout, "{end}");
        assert_eq!(shown(&mut session, "application_name"), application_name, "{end}");
    }
    // What SET says in the same transaction outlives it, before SET LOCAL or after.
    for statements in [
        "SET lock_timeout = 7000; SET LOCAL lock_timeout = 5",
        "SET LOCAL lock_timeout = 5; SET lock_timeout = 7000",
    ] {
        session.batch_execute(&format!("RESET lock_timeout; BEGIN; {statements}; COMMIT")).unwrap();
        assert_eq!(shown(&mut session, "lock_timeout"), "7000", "{statements}");
    }
    // Outside of a transaction it has none to hold for.
    session.batch_execute("SET LOCAL statement_timeout = 9000").unwrap();
    assert_eq!(shown(&mut session, "statement_timeout"), "1000");
}

#[test]
fn an_idle_time_limit_of_zero_is_none() {
    let server = server_with("[General]\nTransactionIdleTimeOut=0\n");
    let (mut idle, mut waiting) = (server.connect(), server.connect());
    idle.batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)").unwrap();
    waiting.batch_execute("SET LOCK TIMEOUT 300ms").unwrap();
    assert_eq!(refusal(&mut waiting, "INSERT INTO t VALUES (2)").0, "55P03");
    waiting.batch_execute("SET LOCK TIMEOUT 0").unwrap();
    assert_eq!(refusal(&mut waiting, "INSERT INTO t VALUES (2)").0, "55P03");
    idle.batch_execute("COMMIT").unwrap();
    waiting.batch_execute("INSERT INTO t VALUES (2)").unwrap();
}

#[test]
fn a_session_that_idles_in_a_transaction_is_ended_if_it_said_so() {
    let server = server();
    let mut session = server.connect();
    session.batch_execute("SET idle_in_transaction_session_timeout = 50; BEGIN").unwrap();
    // It says nothing more itself, and hears of the end.
    let ended = session.notifications().timeout_iter(Duration::from_secs(60)).next();
    assert!(ended.is_err() || session.is_closed(), "{ended:?}");
}

#[test]
fn settings_md_is_generated() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md"));
    let document = known_settings::document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == document,
        "docs/settings.md is out of date: UPDATE_DOCS=1 cargo test --test it settings_md"
    );
}

#[test]
fn show_tells_what_holds_for_the_transaction_at_hand() {
    let server = server_with("");
    let mut client = server.connect();
    client.batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    client.batch_execute("SET SAFENESS 1SAFE; BEGIN").unwrap();
    assert_eq!(shown(&mut client, "SAFENESS"), "1safe");
    client.batch_execute("SET TRANSACTION SAFENESS 2SAFE; SET TRANSACTION DURABILITY STRICT").unwrap();
    assert_eq!(
        (shown(&mut client, "SAFENESS"), shown(&mut client, "DURABILITY")),
        ("2safe".into(), "strict".into())
    );
    // What it commits by is fixed with its first write.
    client.batch_execute("INSERT INTO t VALUES (1); SET SAFENESS DEFAULT; SET DURABILITY RELAXED").unwrap();
    assert_eq!(
        (shown(&mut client, "SAFENESS"), shown(&mut client, "DURABILITY")),
        ("2safe".into(), "strict".into())
    );
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(
        (shown(&mut client, "SAFENESS"), shown(&mut client, "DURABILITY")),
        ("default".into(), "relaxed".into())
    );
}

#[test]
fn the_time_limit_of_a_statement_holds_while_it_is_prepared() {
    let server = server_with("");
    let mut client = server.connect();
    let chain: String = (1..300).map(|number| format!(", c{number} AS (c{} + 1)", number - 1)).collect();
    client.batch_execute(&format!("CREATE TABLE g (x, c0 AS (x + 1){chain})")).unwrap();
    client.batch_execute("SET statement_timeout = '1ms'").unwrap();
    let error = client.prepare("SELECT * FROM g").map(drop).unwrap_err();
    assert_eq!(server_error(&error).unwrap().0, "57014");
    client.batch_execute("SET statement_timeout = 0").unwrap();
    client.prepare("SELECT * FROM g").unwrap();
}

/// asyncpg says it with quotes.
#[test]
fn an_encoding_may_be_spelled_in_any_way_that_postgresql_takes() {
    let server = server_with("");
    let mut client = server.connect();
    for name in ["'utf-8'", "UTF_8", "Unicode", "SQL-ASCII"] {
        client.batch_execute(&format!("SET client_encoding = '{}'", name.replace('\'', "''"))).unwrap();
        assert_eq!(shown(&mut client, "client_encoding"), "UTF8");
    }
    let error = client.batch_execute("SET client_encoding = 'latin1'").unwrap_err();
    assert_eq!(server_error(&error).unwrap().0, "0A000");
}
