use super::*;
use crate::storage::change::{RowKey, changes};

fn open(schema: &str) -> (Connection, Capture) {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "PRAGMA foreign_keys = ON; CREATE TABLE _hsb_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        )
        .unwrap();
    connection.execute_batch(schema).unwrap();
    let capture = Capture::install(&connection).unwrap();
    (connection, capture)
}

/// What a statement is captured as, in short.
fn captured(schema: &str, sql: &str) -> Vec<String> {
    let (connection, capture) = open(schema);
    connection.execute_batch(sql).unwrap();
    assert_eq!(capture.problem(), None);
    shown(&capture.take())
}

fn shown(bytes: &[u8]) -> Vec<String> {
    let value = |value: &Value<'_>| match value {
        Value::Null => "null".to_owned(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) => format!("{value:?}"),
        Value::Text(text) => format!("'{}'", text.escape_ascii()),
        Value::Blob(bytes) => format!("x'{}'", bytes.escape_ascii()),
    };
    let list = |values: &[Value<'_>]| values.iter().map(value).collect::<Vec<_>>().join(",");
    let id = |rowid: &Option<i64>| rowid.map_or(String::new(), |rowid| format!("#{rowid}"));
    changes(bytes)
        .map(|change| match change.unwrap() {
            Change::Insert { table, rowid, values } => format!("+{table}{} {}", id(&rowid), list(&values)),
            Change::Delete { table, rowid, values } => format!("-{table}{} {}", id(&rowid), list(&values)),
            Change::Update { table, key, columns } => {
                let key = match key {
                    RowKey::Rowid { old, new } if old == new => format!("#{old}"),
                    RowKey::Rowid { old, new } => format!("#{old}>{new}"),
                    RowKey::Primary(values) => format!("({})", list(&values)),
                };
                let columns: Vec<_> = columns
                    .iter()
                    .map(|c| format!("{}:{}>{}", c.column, value(&c.old), value(&c.new)))
                    .collect();
                format!("~{table}{key} {}", columns.join(","))
            }
            Change::Statement { sql } => format!("!{sql}"),
            Change::Sequence { table, value, .. } => format!("={table} {value:?}"),
            Change::Commit => "commit".into(),
            Change::Was { table, .. } => format!("?{table}"),
        })
        .collect()
}

#[test]
fn inserts_updates_deletes_of_both_kinds_of_tables() {
    assert_eq!(
        captured(
            "CREATE TABLE t(a, b)",
            "INSERT INTO t VALUES (1,'x'),(2,'y'); UPDATE t SET b='z' WHERE a=2; UPDATE t SET b=b; DELETE FROM t"
        ),
        ["+t#1 1,'x'", "+t#2 2,'y'", "~t#2 1:'y'>'z'", "-t#1 1,'x'", "-t#2 2,'z'"]
    );
    assert_eq!(
        captured(
            "CREATE TABLE w(a, b, c, PRIMARY KEY(c, a)) WITHOUT ROWID",
            "INSERT INTO w VALUES (1,2,3); UPDATE w SET b=5; UPDATE w SET a=9; UPDATE w SET b=b; DELETE FROM w"
        ),
        ["+w 1,2,3", "~w(3,1) 1:2>5", "~w(3,1) 0:1>9", "-w 9,5,3"]
    );
}

#[test]
fn changed_rowids_and_primary_keys() {
    assert_eq!(
        captured(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE u(a); INSERT INTO t VALUES (1,2),(5,6); INSERT INTO u VALUES (7)",
            "UPDATE t SET id = id + 10; UPDATE u SET rowid = 99"
        ),
        ["~t#1>11 0:1>11", "~t#5>15 0:5>15", "~u#1>99 "]
    );
}

#[test]
fn conflict_resolution_and_upsert() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b); INSERT INTO t VALUES (1,'a',1),(2,'b',2),(3,'c',3)";
    assert_eq!(
        captured(schema, "REPLACE INTO t VALUES (1,'b',9); INSERT OR IGNORE INTO t VALUES (7,'c',0)"),
        ["-t#1 1,'a',1", "-t#2 2,'b',2", "+t#1 1,'b',9"]
    );
    assert_eq!(
        captured(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1,2)",
            "REPLACE INTO t VALUES (1,3)"
        ),
        ["-t#1 1,2", "+t#1 1,3"]
    );
    assert_eq!(
        captured(
            schema,
            "INSERT INTO t VALUES (2,'x',0),(9,'n',0) ON CONFLICT(id) DO UPDATE SET b = b + 40; UPDATE OR REPLACE t SET a='a' WHERE id=3"
        ),
        ["~t#2 2:2>42", "+t#9 9,'n',0", "-t#1 1,'a',1", "~t#3 1:'c'>'a'"]
    );
    let without = "CREATE TABLE w(k TEXT PRIMARY KEY COLLATE NOCASE, v UNIQUE) WITHOUT ROWID; INSERT INTO w VALUES ('a',1),('b',2)";
    assert_eq!(
        captured(without, "REPLACE INTO w VALUES ('A',2); UPDATE w SET k='x'"),
        ["-w 'b',2", "-w 'a',1", "+w 'A',2", "~w('A') 0:'A'>'x'"]
    );
}

#[test]
fn triggers_foreign_keys_and_transfers() {
    assert_eq!(
        captured(
            "CREATE TABLE t(a); CREATE TABLE log(x); CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a * 2); DELETE FROM log WHERE x > 5; END",
            "INSERT INTO t VALUES (1),(3)"
        ),
        ["+t#1 1", "+log#1 2", "+t#2 3", "+log#2 6", "-log#2 6"]
    );
    assert_eq!(
        captured(
            "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p ON DELETE CASCADE ON UPDATE SET NULL);
             INSERT INTO p VALUES (1),(2); INSERT INTO c VALUES (1),(2)",
            "DELETE FROM p WHERE id = 1; UPDATE p SET id = 5"
        ),
        ["-p#1 1", "-c#1 1", "~p#2>5 0:2>5", "~c#2 0:2>null"]
    );
    assert_eq!(
        captured(
            "CREATE TABLE a(x, y); CREATE TABLE b(x, y); INSERT INTO a VALUES (1,2),(3,4);
             CREATE TABLE v(k PRIMARY KEY, y) WITHOUT ROWID; CREATE TABLE w(k PRIMARY KEY, y) WITHOUT ROWID; INSERT INTO v VALUES (1,2)",
            "INSERT INTO b SELECT * FROM a; INSERT INTO w SELECT * FROM v"
        ),
        ["+b#1 1,2", "+b#2 3,4", "+w 1,2"]
    );
}

#[test]
fn values_of_every_class() {
    assert_eq!(
        captured(
            "CREATE TABLE t(a, r REAL, i INTEGER, s TEXT, g AS (a || 'v') VIRTUAL, h AS (i + 1) STORED, z DEFAULT 5)",
            "INSERT INTO t(a,r,i,s) VALUES (-0.0, 3, 9223372036854775807, CAST(x'41ff0042' AS TEXT)),
                (x'', 1e999, '12', 'a'), (zeroblob(3), -0.0, 'no', 5), (9e999 - 9e999, 0.5, 1.0, x'00');
             UPDATE t SET r = 7, i = '13', s = 8 WHERE rowid = 2;"
        ),
        [
            r"+t#1 -0.0,3.0,9223372036854775807,'A\xff\x00B',5",
            "+t#2 x'',inf,12,'a',5",
            r"+t#3 x'\x00\x00\x00',0.0,'no','5',5",
            r"+t#4 null,0.5,1,x'\x00',5",
            "~t#2 1:inf>7.0,2:12>13,3:'a'>'8'",
        ]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>()
    );
}

#[test]
fn schema_changes_are_exact() {
    let (connection, capture) = open(
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p ON DELETE CASCADE); INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)",
    );
    connection.execute_batch("BEGIN").unwrap();
    let execute = |sql: &str| {
        capture.execute_schema(&connection, sql).unwrap();
        shown(&capture.take())
    };
    assert_eq!(
        execute("CREATE TABLE if not exists main.s AS SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, x'01'"),
        ["!CREATE TABLE s(a,b)", "+s#1 1,'x'", r"+s#2 2,x'\x01'"]
    );
    assert_eq!(execute("CREATE TABLE e AS SELECT 1 AS a WHERE 0"), ["!CREATE TABLE e(a)"]);
    assert_eq!(execute("CREATE TABLE IF NOT EXISTS e(x)"), ["!CREATE TABLE IF NOT EXISTS e(x)"]);
    assert_eq!(execute("ALTER TABLE s RENAME TO \"s 2\""), ["?s", "!ALTER TABLE s RENAME TO \"s 2\""]);
    assert_eq!(
        execute("ALTER TABLE \"s 2\" ADD COLUMN d DEFAULT 3; -- end"),
        ["?s 2", "!ALTER TABLE \"s 2\" ADD COLUMN d DEFAULT 3; -- end"]
    );
    assert_eq!(execute("ALTER TABLE \"s 2\" DROP COLUMN a").len(), 2);
    connection.execute_batch("UPDATE \"s 2\" SET d = 4 WHERE rowid = 2").unwrap();
    assert_eq!(shown(&capture.take()), ["~s 2#2 1:3>4"]);
    assert_eq!(execute("CREATE INDEX i ON \"s 2\"(b)").len(), 1);
    assert_eq!(execute("ANALYZE").len(), 1);
    let dropped = execute("DROP TABLE p");
    assert!(dropped.contains(&"-c#1 1".to_owned()), "{dropped:?}");
    assert_eq!(dropped.last().unwrap(), "!DROP TABLE p");
}

#[test]
fn what_cannot_be_replicated_is_refused() {
    let (connection, capture) = open("CREATE TABLE t(a); CREATE TABLE shadow(rowid, _rowid_, oid)");
    connection.execute_batch("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    let mark = capture.mark();
    for sql in [
        "CREATE TABLE s(RowId, _rowid_, oid)",
        "CREATE TEMP TABLE s(a)",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE VIRTUAL TABLE s USING sqlite_dbpage",
        "CREATE VIRTUAL TABLE s USING fts5(x)",
        "CREATE TABLE s(a); CREATE TABLE r(a)",
        "CREATE TABLE t(a)",
    ] {
        assert!(capture.execute_schema(&connection, sql).is_err(), "{sql}");
        assert_eq!(capture.mark(), mark);
        let count: i64 = connection
            .query_row(
                "SELECT (SELECT count(*) FROM sqlite_master) + (SELECT count(*) FROM sqlite_temp_master)",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(count, 3, "{sql}");
    }
    let error = capture.execute_schema(&connection, "CREATE TABLE s(rowid, _rowid_, oid)").unwrap_err();
    assert_eq!(error.sqlstate, "0A000");
    assert!(error.message().contains("Table s"), "{error}");
    capture
        .execute_schema(&connection, "CREATE TABLE fine(rowid, _rowid_, oid, id INTEGER PRIMARY KEY)")
        .unwrap();

    assert_eq!(capture.problem(), None);
    let mark = capture.mark();
    connection.execute_batch("SAVEPOINT x; INSERT INTO shadow VALUES (1,2,3)").unwrap();
    assert!(capture.problem().unwrap().message().contains("shadow"));
    let later = capture.mark();
    capture.truncate(later);
    assert!(capture.problem().is_some());
    connection.execute_batch("ROLLBACK TO x").unwrap();
    capture.truncate(mark);
    assert_eq!(capture.problem(), None);
}

#[test]
fn hidden_table_is_left_out_and_counters_are_kept() {
    let (connection, capture) =
        open("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a); CREATE TABLE u(a)");
    let transaction = |sql: &str| {
        connection.execute_batch(&format!("BEGIN; {sql}")).unwrap();
        capture.end_transaction(&connection).unwrap();
        connection.execute_batch("COMMIT").unwrap();
        let mut changes = shown(&capture.take());
        assert_eq!(changes.pop().unwrap(), "commit");
        changes
    };
    assert!(
        transaction("INSERT INTO _hsb_meta VALUES ('position', x'00'); UPDATE _hsb_meta SET value = 1")
            .is_empty()
    );
    assert_eq!(transaction("INSERT INTO t(a) VALUES (5)"), ["+t#1 1,5", "=t Some(1)"]);
    assert_eq!(transaction("INSERT INTO u VALUES (1)"), ["+u#1 1"]);
    assert_eq!(
        transaction("INSERT INTO t(a) VALUES (5); UPDATE sqlite_sequence SET seq = 1"),
        ["+t#2 2,5", "=t Some(1)"]
    );
    assert_eq!(transaction("UPDATE sqlite_sequence SET seq = 70"), ["=t Some(70)"]);
    assert_eq!(transaction("DELETE FROM sqlite_sequence"), ["=t None"]);

    // Rolled back, so the next one must say it again.
    connection.execute_batch("BEGIN; INSERT INTO t(a) VALUES (5)").unwrap();
    capture.end_transaction(&connection).unwrap();
    connection.execute_batch("ROLLBACK").unwrap();
    capture.truncate(0);
    assert_eq!(transaction("INSERT INTO t(a) VALUES (5)"), ["+t#3 3,5", "=t Some(3)"]);
    connection.execute_batch("BEGIN; INSERT INTO t(a) VALUES (5)").unwrap();
    capture.end_transaction(&connection).unwrap();
    capture.take();
    connection.execute_batch("ROLLBACK").unwrap();
    capture.truncate(0);
    assert_eq!(transaction("UPDATE sqlite_sequence SET seq = 4"), ["=t Some(4)"]);
}

#[test]
fn capture_may_go_before_its_connection() {
    let (connection, capture) = open("CREATE TABLE t(a)");
    drop(capture);
    connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    let capture = Capture::install(&connection).unwrap();
    connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    drop(connection);
    assert_eq!(shown(&capture.take()), ["+t#2 2"]);
}

/// The limit is lower in these tests.
#[test]
fn trap_17_what_no_frame_can_hold_is_refused_and_not_kept() {
    let (connection, capture) = open("CREATE TABLE t(a)");
    connection.execute_batch("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    let mark = capture.mark();
    connection.execute_batch("SAVEPOINT x; INSERT INTO t VALUES (zeroblob(10000000))").unwrap();
    assert_eq!(capture.problem(), None);
    for _ in 0..20 {
        connection.execute_batch("INSERT INTO t VALUES (zeroblob(10000000))").unwrap();
    }
    let problem = capture.problem().unwrap();
    assert_eq!(problem.sqlstate, "54000");
    assert!(capture.mark() < MAX_BYTES, "{}", capture.mark());
    connection.execute_batch("ROLLBACK TO x").unwrap();
    capture.truncate(mark);
    assert_eq!(capture.problem(), None);
    capture.truncate(0);
    assert!(capture.shared.lock().buffer.capacity() <= KEPT_BYTES);
}
