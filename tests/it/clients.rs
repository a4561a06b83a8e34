//! The SQL port as a stock client sees it: the `postgres` crate against sessions on a database of their own.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::embedded::{server, server_with};
use hotstandby::hsb::codes::Code;
use postgres::{Client, NoTls};

fn state_of<T>(result: Result<T, postgres::Error>) -> String {
    let error = result.err().expect("an error was expected");
    error.code().map(|code| code.code().to_string()).unwrap_or_else(|| format!("{error:?}"))
}

#[test]
fn typed_parameters_and_results() {
    let server = server();
    let mut client = server.connect();
    client
        .batch_execute(
            "create table t (id integer primary key, name text, f double precision, b blob, ok boolean)",
        )
        .unwrap();
    let insert = client.prepare("insert into t (id, name, f, b, ok) values ($1, $2, $3, $4, $5)").unwrap();
    let bytes: &[u8] = &[0, 255];
    assert_eq!(client.execute(&insert, &[&1i32, &"one", &1.5f64, &bytes, &true]).unwrap(), 1);
    assert_eq!(client.execute(&insert, &[&2i32, &None::<&str>, &2f64, &None::<&[u8]>, &false]).unwrap(), 1);
    let row = client.query_one("select id, name, f, b, ok from t where id = $1", &[&1i32]).unwrap();
    assert_eq!(row.get::<_, i32>(0), 1);
    assert_eq!(row.get::<_, &str>(1), "one");
    assert_eq!(row.get::<_, f64>(2), 1.5);
    assert_eq!(row.get::<_, &[u8]>(3), bytes);
    assert!(row.get::<_, bool>(4));
    assert_eq!(
        client.query_one("select count(*) from t where name is null", &[]).unwrap().get::<_, i64>(0),
        1
    );
    // SQLite numbers parameters by their first occurrence, the client by their digits.
    let row = client.query_one("select $2::int8 - $1::int8", &[&1i64, &10i64]).unwrap();
    assert_eq!(row.get::<_, i64>(0), 9);
    let returned = client.query_one("insert into t (id) values ($1) returning id", &[&7i32]).unwrap();
    assert_eq!(returned.get::<_, i32>(0), 7);
}

#[test]
fn transactions_savepoints_and_failed_ones() {
    let server = server();
    let mut client = server.connect();
    let mut other = server.connect();
    client.batch_execute("create table t (id integer primary key)").unwrap();
    client.batch_execute("begin; insert into t values (1); savepoint a; insert into t values (2)").unwrap();
    assert_eq!(state_of(client.batch_execute("insert into t values (1)")), "23505");
    assert_eq!(state_of(client.batch_execute("select 1")), "25P02");
    client.batch_execute("rollback to a; insert into t values (3)").unwrap();
    let count =
        |client: &mut Client| client.query_one("select count(*) from t", &[]).unwrap().get::<_, i64>(0);
    assert_eq!((count(&mut client), count(&mut other)), (2, 0));
    client.batch_execute("commit").unwrap();
    assert_eq!(count(&mut other), 2);
    // Statements sent together are one transaction.
    assert_eq!(
        state_of(client.batch_execute("insert into t values (10); insert into t values (1)")),
        "23505"
    );
    assert_eq!(count(&mut other), 2);
    client.batch_execute("begin; select 1").unwrap();
    assert_eq!(state_of(client.batch_execute("select * from nowhere")), "42P01");
    client.batch_execute("commit").unwrap();
    assert_eq!(state_of(client.batch_execute("begin read only; insert into t values (20)")), "25006");
    client.batch_execute("rollback").unwrap();
}

#[test]
fn repeatable_read_keeps_its_snapshot_and_cannot_write_over_it() {
    let server = server();
    let (mut one, mut two) = (server.connect(), server.connect());
    one.batch_execute("create table t (id integer primary key)").unwrap();
    let count =
        |client: &mut Client| client.query_one("select count(*) from t", &[]).unwrap().get::<_, i64>(0);
    one.batch_execute("begin isolation level repeatable read").unwrap();
    assert_eq!(count(&mut one), 0);
    two.batch_execute("insert into t values (1)").unwrap();
    assert_eq!(count(&mut one), 0);
    assert_eq!(state_of(one.batch_execute("insert into t values (2)")), "40001");
    one.batch_execute("rollback").unwrap();
    one.batch_execute("begin isolation level repeatable read").unwrap();
    assert_eq!(count(&mut one), 1);
    one.batch_execute("insert into t values (2); commit").unwrap();
    assert_eq!(count(&mut two), 2);
}

#[test]
fn what_clients_may_not_touch() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("create table t (a integer primary key autoincrement)").unwrap();
    for sql in [
        "select * from _hsb_users",
        "update _hsb_meta set value = 1",
        "create view v as select * from _hsb_users",
        "alter table t rename to \"_HSB_x\"",
        "attach 'x' as y",
        "create temp table x (a)",
        "create virtual table x using dbstat",
        "select data from sqlite_dbpage",
        "update sqlite_sequence set seq = 1",
        "pragma writable_schema = 1",
        "vacuum into 'x'",
    ] {
        let state = state_of(client.batch_execute(sql));
        assert!(["0A000", "42501"].contains(&state.as_str()), "{sql}: {state}");
        // The same by way of the extended protocol.
        let state = state_of(client.execute(sql, &[]));
        assert!(["0A000", "42501"].contains(&state.as_str()), "{sql}: {state}");
    }
    client.batch_execute("drop table t").unwrap();
}

#[test]
fn users_and_roles() {
    let server = server();
    let mut admin = server.connect();
    admin.batch_execute("create user Reader identified by 'secret'; create table t (a)").unwrap();
    admin.batch_execute("grant READ_ONLY_ROLE to reader").unwrap();
    assert_eq!(state_of(server.connect_as("reader", "wrong")), "28P01");
    assert_eq!(state_of(server.connect_as("nobody", "wrong")), "28P01");
    let mut reader = server.connect_as("READER", "secret").unwrap();
    reader.query("select * from t", &[]).unwrap();
    assert_eq!(state_of(reader.batch_execute("insert into t values (1)")), "42501");
    assert_eq!(state_of(reader.batch_execute("admin command 'hsb state'")), "42501");
    assert_eq!(state_of(reader.batch_execute("create user x identified by 'x'")), "42501");
    assert_eq!(state_of(admin.batch_execute("drop user dba")), "2BP01");
    let rows = admin.query("admin command 'version'", &[]).unwrap();
    assert_eq!(rows[0].get::<_, i32>("RC"), 0);
    admin.batch_execute("begin; select 1").unwrap();
    admin.query("admin command 'version'", &[]).unwrap();
    admin.batch_execute("commit").unwrap();
}

#[test]
fn a_read_only_node_says_so() {
    let server = server_with("[HotStandby]\nHSBEnabled=yes\n");
    server.admin("hsb set primary alone");
    let mut client = server.connect();
    client.batch_execute("create table t (a)").unwrap();
    server.admin("hsb set secondary alone");
    let row = client.query_one("show transaction_read_only", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "on");
    assert!(client.query_one("select pg_is_in_recovery()", &[]).unwrap().get::<_, bool>(0));
    let error = client.batch_execute("insert into t values (1)").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.code().code(), error.detail()), ("25006", Some("10045")));
    assert!(error.message().starts_with("10045"));
}

#[test]
fn cancel_and_close_all() {
    let server = server();
    let mut client = server.connect();
    let cancel = client.cancel_token();
    let endless = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c";
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let canceller = std::thread::spawn(move || {
        // The statement may not have begun yet at the first try.
        while finished.recv_timeout(Duration::from_millis(20)).is_err() {
            let _ = cancel.cancel_query(NoTls);
        }
    });
    assert_eq!(state_of(client.batch_execute(endless)), "57014");
    let _ = done.send(());
    canceller.join().unwrap();
    let mut copying = server.connect();
    assert!(server.context.sessions.count() >= 2);
    server.context.sessions.close_all(Code::SERVER_CLOSED, Duration::from_secs(5));
    assert_eq!(server.context.sessions.count(), 0);
    assert!(copying.batch_execute("select 1").is_err());
}

#[test]
fn copy_streams_and_portals_in_pieces() {
    use std::io::{Read, Write};
    let server = server();
    let mut client = server.connect();
    client.batch_execute("create table t (id integer primary key, name text)").unwrap();
    let mut writer = client.copy_in("copy t from stdin").unwrap();
    for number in 0..5000 {
        writeln!(writer, "{number}\tname\\t{number}").unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 5000);
    let mut text = String::new();
    client.copy_out("copy t to stdout").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().nth(7), Some("7\tname\\t7"));
    for isolation in ["read committed", "repeatable read"] {
        for write_first in [false, true] {
            let mut transaction = client.transaction().unwrap();
            transaction.batch_execute(&format!("set transaction isolation level {isolation}")).unwrap();
            if write_first {
                transaction.execute("update t set name = name where id = 1", &[]).unwrap();
            }
            let portal = transaction.bind("select id from t order by id", &[]).unwrap();
            let mut seen = Vec::new();
            loop {
                let rows = transaction.query_portal(&portal, 999).unwrap();
                if rows.is_empty() {
                    break;
                }
                seen.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
            }
            assert_eq!(seen, (0..5000).collect::<Vec<i32>>());
            transaction.commit().unwrap();
        }
    }
}

#[test]
fn schema_changes_reach_prepared_statements() {
    let server = server();
    let (mut one, mut two) = (server.connect(), server.connect());
    one.batch_execute("create table t (a integer); insert into t values (1)").unwrap();
    let all = one.prepare("select * from t").unwrap();
    assert_eq!(one.query(&all, &[]).unwrap().len(), 1);
    two.batch_execute("alter table t add column b integer").unwrap();
    assert_eq!(state_of(one.query(&all, &[])), "0A000");
    one.batch_execute("begin; create table u (x integer)").unwrap();
    one.execute("insert into u values ($1)", &[&5i32]).unwrap();
    assert_eq!(one.query_one("select x from u", &[]).unwrap().get::<_, i32>(0), 5);
    one.batch_execute("rollback").unwrap();
    assert_eq!(state_of(one.query("select x from u", &[])), "42P01");
}

#[test]
fn a_row_that_cannot_be_encoded_does_not_spoil_the_connection() {
    let server = server();
    let mut client = server.connect();
    client
        .batch_execute(
            "create table t (a text, n integer); insert into t values ('x', 1), ('y', 'no number')",
        )
        .unwrap();
    assert_eq!(state_of(client.query("select a, n from t", &[])), "22P02");
    assert_eq!(client.query("select a, n from t where n = 1", &[]).unwrap().len(), 1);
}

#[test]
fn a_refused_snapshot_cannot_be_left_by_a_savepoint() {
    let server = server();
    let (mut one, mut two) = (server.connect(), server.connect());
    one.batch_execute("create table t (a integer)").unwrap();
    one.batch_execute("begin isolation level serializable; savepoint s; select * from t").unwrap();
    two.batch_execute("insert into t values (1)").unwrap();
    assert_eq!(state_of(one.batch_execute("insert into t values (2)")), "40001");
    assert_eq!(state_of(one.batch_execute("rollback to s")), "3B001");
    one.batch_execute("rollback; insert into t values (2)").unwrap();
}

#[test]
fn schema_statements_carry_nothing_behind_them() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("create table t (a integer)").unwrap();
    let untouched = |client: &mut Client, sql: &str| {
        let version = client.query_one("pragma user_version", &[]).unwrap();
        assert_eq!(version.get::<_, &str>(0), "0", "{sql}");
    };
    for sql in [
        "alter table t add unique (a) E'\\'; pragma user_version = 7; --'",
        "alter table t add unique (a) where a = $a$;pragma user_version = 7;$a$",
        "create trigger x after insert on t begin select 1; end more; pragma user_version = 7",
        "create trigger y after insert on t begin select 1; end; pragma user_version = 7; end",
    ] {
        assert!(client.batch_execute(sql).is_err(), "{sql}");
        // What looks like the beginning of a trigger that the client has cut is refused up to its end.
        client.batch_execute("rollback").unwrap();
        untouched(&mut client, sql);
    }
    // Between dollar tags it is a string, so this is an index and nothing more.
    let sql = "create unique index i on t (a) where a = $a$;pragma user_version = 7;$a$";
    client.batch_execute(sql).unwrap();
    untouched(&mut client, sql);
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    assert!(connection.prepare("create table q (a); create table r (a)").is_err());
}

#[test]
fn nonsense_is_answered_and_ended() {
    use std::io::{Read, Write};
    let server = server();
    let started = Instant::now();
    let zero_length = [0u32.to_be_bytes().as_slice(), &(3u32 << 16).to_be_bytes()].concat();
    let long = [20_000u32.to_be_bytes().as_slice(), &(3u32 << 16).to_be_bytes()].concat();
    let no_user = [9u32.to_be_bytes().as_slice(), &(3u32 << 16).to_be_bytes(), &[0]].concat();
    for bytes in [zero_length, long, no_user, b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // A PostgreSQL error or a line of the console, whichever the bytes look like; or just the end.
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer[0] == b'E' || text.contains("ERROR"), "{text}");
    }
    assert!(started.elapsed() < Duration::from_secs(8));
    server.connect();
}
