//! What drivers and tools made for PostgreSQL send besides plain SQL, and what they are told.

use std::sync::{Mutex, PoisonError};

use crate::common::embedded::server;

/// Keeps what is logged.
struct Log(Mutex<Vec<String>>);

static LOG: Log = Log(Mutex::new(Vec::new()));

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!(
            "{} {}",
            record.level(),
            record.args()
        ));
    }

    fn flush(&self) {}
}

fn db_error<T>(result: Result<T, postgres::Error>) -> postgres::error::DbError {
    let error = result.err().expect("an error was expected");
    error.as_db_error().unwrap_or_else(|| panic!("{error:?}")).clone()
}

#[test]
fn only_numbered_parameters_with_values() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("create table t (a integer); insert into t values (1)").unwrap();
    for sql in [
        "select ?",
        "select a from t where a = ?1",
        "insert into t values (:a)",
        "update t set a = @a",
        "delete from t where a = $x",
        "select $0",
    ] {
        let prepared = db_error(client.prepare(sql).map(drop));
        let simple = db_error(client.batch_execute(sql));
        for error in [prepared, simple] {
            assert_eq!(error.code().code(), "42601", "{sql}: {error:?}");
            assert!(error.message().contains("parameters are written $1, $2, …"), "{error:?}");
        }
    }
    for sql in [
        "select $1",
        "insert into t values ($1)",
        "begin; delete from t where a = $1",
        "create table u as select $1 as x",
        "copy (select $1) to stdout",
    ] {
        let error = db_error(client.batch_execute(sql));
        assert_eq!((error.code().code(), error.message()), ("42P02", "there is no parameter $1"), "{sql}");
        client.batch_execute("rollback").unwrap();
    }
    assert_eq!(db_error(client.execute("create table u as select $1 as x", &[])).code().code(), "42P02");
    assert_eq!(client.query_one("select a from t where '?' <> $1", &[&":a"]).unwrap().get::<_, i32>(0), 1);
}

#[test]
fn what_connection_pools_send_between_users() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("set application_name = 'before'").unwrap();
    client.batch_execute("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;").unwrap();
    let shown = client.query_one("show application_name", &[]).unwrap();
    assert_eq!(shown.get::<_, &str>(0), "");
    let set = client.query_one("select pg_catalog.set_config('search_path', 'main', false)", &[]).unwrap();
    assert_eq!((set.columns()[0].name(), set.get::<_, &str>(0)), ("set_config", "main"));
    let read = client.query_one("select current_setting('search_path') as path", &[]).unwrap();
    assert_eq!((read.columns()[0].name(), read.get::<_, &str>(0)), ("path", "main"));
    let missing = client.query_one("select current_setting('no.such', true)", &[]).unwrap();
    assert_eq!(missing.get::<_, Option<&str>>(0), None);
    assert_eq!(db_error(client.batch_execute("select current_setting('no.such')")).code().code(), "42704");
    assert_eq!(
        db_error(client.batch_execute("select set_config('server_version', 'x', false)")).code().code(),
        "55P02"
    );
}

#[test]
fn the_catalog_is_named_as_what_is_missing() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("create table pg_mine (a integer)").unwrap();
    for sql in [
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c WHERE c.relname OPERATOR(pg_catalog.~) '^(t)$' COLLATE pg_catalog.default",
        "SELECT d.datname, pg_catalog.pg_get_userbyid(d.datdba) FROM pg_catalog.pg_database d ORDER BY 1",
        "select oid from pg_type where typname = 'hstore'",
        "select table_name from information_schema.tables",
        "select c.oid::regclass from pg_class c",
    ] {
        for error in [db_error(client.batch_execute(sql)), db_error(client.query(sql, &[]))] {
            assert_eq!(error.code().code(), "0A000", "{sql}: {error:?}");
            assert!(error.message().contains("SELECT name, sql FROM sqlite_schema"), "{error:?}");
        }
    }
    assert!(client.query("select a from pg_mine", &[]).unwrap().is_empty());
    let missing = db_error(client.batch_execute("select * from missing, pg_mine"));
    assert_eq!(missing.code().code(), "42P01");
    assert_eq!(db_error(client.batch_execute("select 'pg_class' frm x y")).code().code(), "42601");
    let tables = client.query("SELECT name, sql FROM sqlite_schema", &[]).unwrap();
    assert!(tables.iter().any(|row| row.get::<_, &str>(0) == "pg_mine"));
}

#[test]
fn types_of_expressions() {
    let server = server();
    let mut client = server.connect();
    client
        .batch_execute(
            "create table t (n integer, f real, d decimal(8, 2), s text);
             create table u (n text, m integer);
             insert into t values (3, 1.5, 2.25, 'x'); insert into u values ('y', 4)",
        )
        .unwrap();
    let row =
        client.query_one("select n + $1, -n * (n - 1), sum(n) + count(*), 7 / 2 from t", &[&4i64]).unwrap();
    assert_eq!((0..4).map(|at| row.get::<_, i64>(at)).collect::<Vec<_>>(), [7, -6, 4, 3]);
    let row = client
        .query_one("select sum(n) * 1.0, t.n * f, max(n * 0.5), coalesce(f, 0), sum(abs(f)) as x from t", &[])
        .unwrap();
    assert_eq!((0..5).map(|at| row.get::<_, f64>(at)).collect::<Vec<_>>(), [3.0, 4.5, 1.5, 1.5, 1.5]);
    let row =
        client.query_one("select coalesce(n, 0), max(n), min(2, n), coalesce(s, '') from t", &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (3, 3, 2));
    assert_eq!(row.get::<_, &str>(3), "x");
    let numeric = client.prepare("select d * 2, d * n from t").unwrap();
    assert!(numeric.columns().iter().all(|column| column.type_().oid() == 1700), "{numeric:?}");
    // What may be of another type stays text.
    for sql in [
        "select s + 1 from t",
        "select coalesce(n, s) from t",
        "select n = 1 from t",
        "select n + 1 from t union select s from t",
        "select u.n + 1 from t, u",
        "select n + 1 from (select s as n from t)",
        "select n + 1 from (select s n from t)",
        "with c(n) as (select s from t) select n + 1 from c",
    ] {
        let prepared = client.prepare(sql).unwrap();
        assert_eq!(prepared.columns()[0].type_().oid(), 25, "{sql}");
    }
    let inner = client.query_one("select sum(n) + 1 from (select n from t)", &[]).unwrap();
    assert_eq!(inner.get::<_, i64>(0), 4);
    let deep = format!("select {}n{} + 1 from t", "(".repeat(60), ")".repeat(60));
    assert_eq!(client.query_one(&deep, &[]).unwrap().get::<_, &str>(0), "4");
}

/// The logger is the whole program's: what others log meanwhile is there, too.
#[test]
fn failed_logins_are_logged_without_the_password() {
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let server = server();
    for user in ["nobody-of-that-name".to_string(), format!("stranger-{}", "x".repeat(100))] {
        let error = db_error(server.connect_as(&user, "guessed-password"));
        assert_eq!((error.severity(), error.code().code()), ("FATAL", "28P01"));
    }
    let lines = LOG.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let of = |user: &str| {
        let start = format!("WARN password authentication failed for user \"{user}");
        lines.iter().filter(|line| line.starts_with(&start) && line.contains("\" from 127.0.0.1:")).count()
    };
    let cut = format!("stranger-{}… (cut: 109 bytes)", "x".repeat(55));
    assert_eq!((of("nobody-of-that-name"), of(&cut)), (1, 1), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("guessed-password")), "{lines:?}");
}
