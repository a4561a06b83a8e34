//! Two databases: one that is written with SQL and captured, one that the captured batches are applied to.

use super::*;
use crate::storage::batch::BatchHeader;
use crate::storage::capture::Capture;
use crate::storage::checksum::logical_checksum;

const META: &str = "CREATE TABLE _hsb_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
                    INSERT INTO _hsb_meta VALUES ('position', zeroblob(32)), ('database_id', zeroblob(16));";

struct Pair {
    source: Connection,
    capture: Capture,
    applier: Applier,
    position: Position,
    transactions: u32,
    succeeded: u32,
    failed: u32,
}

impl Pair {
    fn new() -> Pair {
        let source = Connection::open_in_memory().unwrap();
        let copy = Connection::open_in_memory().unwrap();
        source.execute_batch(META).unwrap();
        copy.execute_batch(META).unwrap();
        source.execute_batch("PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON").unwrap();
        let capture = Capture::install(&source).unwrap();
        let applier = Applier::new(copy).unwrap();
        source.execute_batch("BEGIN").unwrap();
        Pair {
            source,
            capture,
            applier,
            position: Position::ORIGIN,
            transactions: 0,
            succeeded: 0,
            failed: 0,
        }
    }

    /// One transaction of the batch; a failing statement is rolled back alone.
    fn transaction(&mut self, statements: &[&str]) {
        self.source.execute_batch("SAVEPOINT tx").unwrap();
        for sql in statements {
            self.statement(sql);
        }
        assert_eq!(self.capture.problem(), None);
        self.capture.end_transaction(&self.source).unwrap();
        self.source.execute_batch("RELEASE tx").unwrap();
        self.transactions += 1;
    }

    fn statement(&mut self, sql: &str) -> bool {
        let mark = self.capture.mark();
        let word = sql.split_whitespace().next().unwrap_or_default();
        let done = if matches!(word, "CREATE" | "ALTER" | "DROP" | "ANALYZE" | "REINDEX") {
            self.capture.execute_schema(&self.source, sql).is_ok()
        } else {
            self.source.execute_batch("SAVEPOINT statement").unwrap();
            let done = self.source.execute_batch(sql).is_ok();
            if !done {
                self.source.execute_batch("ROLLBACK TO statement").unwrap();
                self.capture.truncate(mark);
            }
            self.source.execute_batch("RELEASE statement").unwrap();
            done
        };
        if done {
            self.succeeded += 1
        } else {
            self.failed += 1
        }
        done
    }

    fn seal(&mut self) -> Batch {
        let count = std::mem::take(&mut self.transactions);
        let header = BatchHeader { before: self.position, epoch: 1, count, needs_acknowledgement: false };
        let batch = Batch::seal(header, &self.capture.take()).unwrap();
        self.position = batch.after;
        self.source.execute_batch("COMMIT; BEGIN").unwrap();
        self.capture.committed();
        batch
    }

    fn replicate(&mut self) {
        let batch = self.seal();
        self.applier.begin().unwrap();
        let before = logical_checksum(self.applier.connection()).unwrap();
        self.apply(&batch);
        let has_statement = |change| matches!(change, Ok(Change::Statement { .. }));
        if !changes(batch.changes()).any(has_statement) {
            self.applier.undo(&batch).unwrap();
            assert_eq!(logical_checksum(self.applier.connection()).unwrap(), before, "undone");
            self.apply(&batch);
        }
        self.applier.commit().unwrap();
        assert_eq!(read_identity(self.applier.connection()).unwrap().position, self.position);
    }

    fn apply(&mut self, batch: &Batch) {
        if let Err(error) = self.applier.apply(batch) {
            panic!("{error}\n{:#?}", changes(batch.changes()).collect::<Vec<_>>());
        }
    }

    fn assert_equal(&self) {
        let (one, two) =
            (logical_checksum(&self.source).unwrap(), logical_checksum(self.applier.connection()).unwrap());
        assert_eq!(one, two);
    }

    /// Transactions of one statement each, all in a batch of their own, checked after each.
    fn all(&mut self, statements: &[&str]) {
        for sql in statements {
            self.source.execute_batch("SAVEPOINT all_of_them").unwrap();
            assert!(self.statement(sql), "{sql}");
            self.capture.end_transaction(&self.source).unwrap();
            self.source.execute_batch("RELEASE all_of_them").unwrap();
            self.transactions += 1;
            self.replicate();
            self.assert_equal();
        }
    }
}

#[test]
fn special_cases_arrive() {
    let mut pair = Pair::new();
    pair.all(&[
        "CREATE TABLE p(id INTEGER PRIMARY KEY, n TEXT UNIQUE COLLATE NOCASE, CHECK (length(n) > 0))",
        "CREATE TABLE c(a REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE, b DEFAULT (random()))",
        "CREATE TABLE w(x TEXT, y, z REAL, PRIMARY KEY (y DESC, x COLLATE NOCASE)) WITHOUT ROWID",
        "CREATE TABLE g(a, v AS (a + 1), s AS (a * 2) STORED, b)",
        "CREATE TABLE d(id INTEGER PRIMARY KEY DESC, a)",
        "CREATE TABLE o(\"rowid\", \"od \"\"d\", _rowid_)",
        "CREATE TABLE seq(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
        "CREATE TABLE strict_one(id INT PRIMARY KEY, a ANY, b BLOB) STRICT",
        "CREATE TRIGGER ti AFTER INSERT ON p BEGIN INSERT INTO c(a) VALUES (new.id); UPDATE p SET n = n || '!' WHERE id = new.id; END",
        "CREATE TRIGGER td AFTER DELETE ON p BEGIN INSERT INTO seq(a) VALUES (old.n); END",
        "INSERT INTO p VALUES (1,'a'),(2,'b'),(3,'c'),(10,'d')",
        "INSERT INTO w VALUES ('a',1,2),('B',1,-0.0),('a',2,'x'),('', x'', NULL)",
        "UPDATE w SET x = 'A' WHERE x = 'a' AND y = 1",
        "UPDATE w SET y = y + 100, z = 1 WHERE x <> ''",
        "REPLACE INTO w VALUES ('b', 101, 7)",
        "INSERT INTO g(a, b) VALUES (1, 2), (3, 4)",
        "UPDATE g SET a = a + 1 WHERE b = 2",
        "INSERT INTO d VALUES (5, 'x'), (NULL, 'y')",
        "UPDATE d SET id = 6 WHERE a = 'x'",
        "INSERT INTO o VALUES (1, 2, 3), (1, 2, 3), (1, 2, 3)",
        "DELETE FROM o WHERE oid = 2",
        "UPDATE o SET oid = 77, \"rowid\" = 5 WHERE oid = 3",
        "INSERT INTO strict_one VALUES (1, '5', x''), (2, 5, x'00'), (3, 5.0, zeroblob(10))",
        "UPDATE p SET id = id + 1 WHERE id = 10",
        "UPDATE p SET id = -id",
        "INSERT INTO p VALUES (-2, 'q') ON CONFLICT(id) DO UPDATE SET n = 'upserted'",
        "INSERT OR IGNORE INTO p VALUES (-2, 'q')",
        "REPLACE INTO p VALUES (50, 'A!')",
        "INSERT INTO seq(id, a) VALUES (100, 'x')",
        "UPDATE sqlite_sequence SET seq = 40",
        "INSERT INTO seq(a) VALUES ('y')",
        "DELETE FROM seq",
        "CREATE TABLE copied AS SELECT random() AS r, n FROM p",
        "ALTER TABLE g DROP COLUMN v",
        "ALTER TABLE g ADD COLUMN late TEXT DEFAULT 'z'",
        "UPDATE g SET late = 'y' WHERE b = 2",
        "DELETE FROM g",
        "ALTER TABLE seq RENAME TO counted",
        "INSERT INTO counted(a) VALUES ('y')",
        "CREATE INDEX i ON counted(a)",
        "ANALYZE",
        "REINDEX",
        "DELETE FROM p WHERE id = -3",
        "INSERT INTO counted VALUES (9223372036854775807, NULL), (-9223372036854775808, 1e308)",
        "INSERT INTO o VALUES (-0.0, 0.0, CAST(x'fffe0041' AS TEXT))",
        "UPDATE o SET \"od \"\"d\" = -0.0 WHERE \"od \"\"d\" = 0",
        "DROP TRIGGER ti",
        "DROP TABLE p",
        "DROP TABLE counted",
        "DROP TABLE c",
    ]);
}

#[test]
fn very_wide_tables_and_long_values_arrive() {
    let mut pair = Pair::new();
    let columns: Vec<String> = (0..1900).map(|i| format!("c{i}")).collect();
    let create = format!("CREATE TABLE wide({})", columns.join(","));
    let set: Vec<String> = columns.iter().map(|c| format!("{c} = 7")).collect();
    let update = format!("UPDATE wide SET {}", set.join(","));
    pair.all(&[
        &create,
        "INSERT INTO wide(c0, c1) VALUES (zeroblob(3000000), 'x')",
        "UPDATE wide SET c5 = hex(zeroblob(1000000))",
        &update,
        "DELETE FROM wide",
    ]);
}

#[test]
fn what_does_not_fit_is_reported_and_rolled_back() {
    let mut pair = Pair::new();
    pair.all(&[
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
        "INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z')",
    ]);
    pair.applier
        .connection
        .execute_batch("UPDATE t SET a = 'other' WHERE id = 2; DELETE FROM t WHERE id = 3")
        .unwrap();
    let start = pair.applier.position();
    for (sql, key) in [
        ("UPDATE t SET a = 'n' WHERE id = 2", "Update of t, rowid 2"),
        ("DELETE FROM t WHERE id = 3", "Delete from t, rowid 3"),
        ("DELETE FROM t WHERE id = 2", "Delete from t, rowid 2"),
    ] {
        pair.position = start;
        pair.transaction(&["INSERT INTO t(a) VALUES ('fits')", sql]);
        let batch = pair.seal();
        pair.applier.begin().unwrap();
        let error = pair.applier.apply(&batch).unwrap_err();
        assert_eq!(error.code, Some(Code::APPLY_FAILED));
        assert!(error.message().contains(key), "{error}");
        pair.applier.rollback();
        assert_eq!(pair.applier.position(), start);
        let rows: i64 =
            pair.applier.connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 2);
    }
    // A batch that does not follow.
    pair.transaction(&["INSERT INTO t(a) VALUES (1)"]);
    let batch = pair.seal();
    pair.applier.begin().unwrap();
    assert_eq!(pair.applier.apply(&batch).unwrap_err().code, Some(Code::APPLY_FAILED));
    pair.applier.rollback();
}

/// Random numbers for the test: xorshift, so that a seed gives the same run for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn value(&mut self) -> String {
        match self.below(12) {
            0 => "NULL".into(),
            1 => self
                .pick(&["-0.0", "0.0", "1e999", "9223372036854775807", "-9223372036854775808", "9e18"])
                .into(),
            2 => self.pick(&["x''", "x'00ff'", "zeroblob(40)", "''", "CAST(x'ff0041' AS TEXT)"]).into(),
            3 => format!("{}.5", self.below(20)),
            4..6 => format!("'{}'", self.below(12)),
            6..8 => format!("'{}'", self.pick(&["a", "A", "b", "text", "Text"])),
            _ => format!("{}", self.below(25)),
        }
    }

    fn table(&mut self) -> &'static str {
        self.pick(&["t", "w", "u", "s", "child", "x0", "x1"])
    }

    fn condition(&mut self) -> String {
        match self.below(5) {
            0 => String::new(),
            1 => format!("WHERE b > {}", self.value()),
            2 => format!("WHERE a IN ({}, {}, {})", self.value(), self.value(), self.value()),
            _ => format!("WHERE a = {}", self.value()),
        }
    }

    fn statement(&mut self) -> String {
        let table = self.table();
        match self.below(40) {
            0..12 => {
                let how = self.pick(&["INSERT", "INSERT", "INSERT OR IGNORE", "REPLACE", "INSERT OR FAIL"]);
                let rows: Vec<String> =
                    (0..=self.below(4)).map(|_| format!("({}, {})", self.value(), self.value())).collect();
                format!("{how} INTO {table}(a, b) VALUES {}", rows.join(", "))
            }
            12..15 => {
                let (a, b, c) = (self.value(), self.value(), self.value());
                format!("INSERT INTO {table}(a, b) VALUES ({a}, {b}) ON CONFLICT DO UPDATE SET b = {c}")
            }
            15..22 => {
                let how = self.pick(&["UPDATE", "UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE"]);
                let set = match self.below(4) {
                    0 => format!("a = {}", self.value()),
                    1 => format!("a = {}, b = {}", self.value(), self.value()),
                    2 => "b = a".to_owned(),
                    _ => format!("b = {}", self.value()),
                };
                format!("{how} {table} SET {set} {}", self.condition())
            }
            22..24 => format!("UPDATE OR REPLACE t SET a = a + {}", self.below(5)),
            24..26 => {
                format!("UPDATE OR REPLACE u SET rowid = rowid + {} {}", self.below(9), self.condition())
            }
            26..32 => format!("DELETE FROM {table} {}", self.condition()),
            32 => format!("INSERT INTO {table}(a, b) SELECT a, b FROM {} LIMIT 20", self.table()),
            33 => format!(
                "CREATE TABLE {} AS SELECT a, b, random() AS r FROM {} LIMIT 10",
                self.pick(&["x0", "x1"]),
                self.table()
            ),
            34 => format!("CREATE TABLE {}(a PRIMARY KEY, b UNIQUE, c DEFAULT 3)", self.pick(&["x0", "x1"])),
            35 => format!("DROP TABLE {}", self.pick(&["x0", "x1"])),
            36 => format!("ALTER TABLE {table} ADD COLUMN n{} DEFAULT 'd'", self.below(6)),
            37 => format!("ALTER TABLE {table} DROP COLUMN n{}", self.below(6)),
            38 => format!("CREATE INDEX i{} ON {table}(b)", self.below(4)),
            _ => format!("DROP INDEX i{}", self.below(4)),
        }
    }
}

fn random_round_trip(seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut pair = Pair::new();
    pair.transaction(&[
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, d AS (b || 'x'))",
        "CREATE TABLE w(a, b REAL, PRIMARY KEY (a)) WITHOUT ROWID",
        "CREATE TABLE u(a, b NUMERIC)",
        "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b INT)",
        "CREATE TABLE child(a REFERENCES t ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED, b)",
        "CREATE TABLE audit(what, a, b)",
        "CREATE TRIGGER tu AFTER UPDATE ON w BEGIN INSERT INTO audit VALUES ('u', old.a, new.b); END",
        "CREATE TRIGGER td BEFORE DELETE ON u BEGIN INSERT INTO audit VALUES ('d', old.a, random()); END",
        "CREATE TRIGGER ti AFTER INSERT ON s BEGIN UPDATE u SET b = new.id WHERE a = new.a; END",
    ]);
    for _ in 0..60 {
        for _ in 0..=random.below(4) {
            let statements: Vec<String> = (0..=random.below(5)).map(|_| random.statement()).collect();
            let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
            let mark = pair.capture.mark();
            pair.source.execute_batch("SAVEPOINT outer_one").unwrap();
            let transactions = pair.transactions;
            pair.transaction(&statements);
            if random.below(5) == 0 {
                pair.source.execute_batch("ROLLBACK TO outer_one").unwrap();
                pair.capture.truncate(mark);
                pair.transactions = transactions;
            }
            pair.source
                .execute_batch("RELEASE outer_one; DELETE FROM child WHERE a NOT IN (SELECT a FROM t)")
                .unwrap();
        }
        pair.transaction(&["DELETE FROM child WHERE a NOT IN (SELECT a FROM t)"]);
        pair.replicate();
        pair.assert_equal();
    }
    println!("{} statements succeeded, {} failed", pair.succeeded, pair.failed);
    assert!(pair.succeeded > pair.failed, "the test does not try much");
}

#[test]
fn random_statements_arrive() {
    let fixed = [1, 2, 3, 4, 5, 6, 7, 8];
    let fresh = u64::from(std::process::id()) << 20 | 77;
    for seed in fixed.into_iter().chain([fresh]) {
        random_round_trip(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    }
}
