//! A database with its log is rewound, and "crashes" at every step: what is on disk then is copied and recovered.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::*;
use crate::storage::batch::BatchHeader;
use crate::storage::capture::Capture;
use crate::storage::checksum::logical_checksum;
use crate::storage::log::Medium;
use crate::storage::recovery::{self, Recovered};

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a)";
const TRANSACTIONS: [&str; 4] = [
    "INSERT INTO t (a) VALUES ('one'), (x'00ff'), (3.5)",
    "UPDATE t SET a = 'two' WHERE id = 2; DELETE FROM t WHERE id = 1",
    "UPDATE t SET id = 20 WHERE id = 3",
    "INSERT INTO t (a) VALUES (NULL)",
];

fn open(directory: &Path) -> (Arc<Database>, Recovered) {
    let log = LogConfiguration {
        directory: directory.to_path_buf(),
        template: "sol#####.log".into(),
        digit: '#',
        segment_size_bytes: 4096,
        database_id: [0; 16],
        maximum_bytes: None,
        medium: Medium::default(),
    };
    let database = Arc::new(Database::at(directory.join("solid.db"), 1 << 20));
    if !database.exists() {
        database.create(4096, |connection| Ok(connection.execute_batch(SCHEMA)?)).unwrap();
    }
    let recovered = recovery::open(&database, log).unwrap();
    (database, recovered)
}

/// The batches that these transactions make, one each, after `from`.
fn batches(source: &Connection, mut from: Position, epoch: u64, transactions: &[&str]) -> Vec<Batch> {
    let capture = Capture::install(source).unwrap();
    let mut made = Vec::new();
    for sql in transactions {
        source.execute_batch("BEGIN").unwrap();
        for statement in sql.split("; ") {
            match statement.split(' ').next() {
                Some("CREATE" | "ALTER" | "DROP") => capture.execute_schema(source, statement).unwrap(),
                _ => source.execute_batch(statement).unwrap(),
            }
        }
        capture.end_transaction(source).unwrap();
        source.execute_batch("COMMIT").unwrap();
        capture.committed();
        let header = BatchHeader { before: from, epoch, count: 1, needs_acknowledgement: true };
        let batch = Batch::seal(header, &capture.take()).unwrap();
        from = batch.after;
        made.push(batch);
    }
    made
}

fn execute(recovered: &mut Recovered, batches: &[Batch]) {
    for batch in batches {
        recovered.log.append(batch).unwrap();
        recovered.log.sync().unwrap();
        recovered.applier.begin().unwrap();
        recovered.applier.apply(batch).unwrap();
        recovered.applier.commit().unwrap();
    }
}

fn copy(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// What a database says.
type Checksum = Vec<(String, u64, u128)>;

struct Example {
    directory: tempfile::TempDir,
    database: Arc<Database>,
    log: LogConfiguration,
    /// After each transaction, the beginning included: the position and what the database says.
    history: Vec<(Position, Checksum)>,
}

fn example() -> Example {
    let directory = tempfile::tempdir().unwrap();
    let (database, mut recovered) = open(directory.path());
    let source = Connection::open_in_memory().unwrap();
    source.execute_batch(SCHEMA).unwrap();
    let checksum = |recovered: &Recovered| logical_checksum(recovered.applier.connection()).unwrap();
    let mut history = vec![(recovered.decided, checksum(&recovered))];
    for batch in batches(&source, recovered.decided, 1, &TRANSACTIONS) {
        execute(&mut recovered, std::slice::from_ref(&batch));
        history.push((batch.after, checksum(&recovered)));
    }
    Example { directory, database, log: recovered.log_configuration.clone(), history }
}

impl Example {
    /// A crash now leaves the history up to that transaction, in database and log, and one can write on.
    fn assert_crash_leaves(&self, transactions: usize) {
        let copy = copy(self.directory.path());
        let (position, checksum) = &self.history[transactions];
        let next = {
            let (_, mut recovered) = open(copy.path());
            assert_eq!((recovered.decided, recovered.log.end()), (*position, *position));
            assert!(recovered.pending.is_none());
            assert_eq!(logical_checksum(recovered.applier.connection()).unwrap(), *checksum);
            let header = BatchHeader { before: *position, epoch: 9, count: 1, needs_acknowledgement: false };
            let mut change = Vec::new();
            crate::codec::append_value(&mut change, &Change::Commit).unwrap();
            let batch = Batch::seal(header, &change).unwrap();
            execute(&mut recovered, std::slice::from_ref(&batch));
            batch.after
        };
        // What was logged after the rewind is not cut off by a late end of it.
        assert_eq!(open(copy.path()).1.decided, next);
    }
}

#[test]
fn a_crash_at_any_step_leaves_all_or_nothing() {
    let example = example();
    let (from, to) = (example.history[4].0, example.history[1].0);
    let rewind = Rewind::plan(&example.log, from, to).unwrap();
    assert_eq!(rewind.transactions(), 3);
    example.assert_crash_leaves(4);
    rewind.save(&example.database, "here").unwrap();
    example.assert_crash_leaves(4);
    {
        let mut applier = Applier::new(example.database.open_for_apply().unwrap()).unwrap();
        applier.begin().unwrap();
        rewind.batches.iter().rev().for_each(|batch| applier.undo(batch).unwrap());
        database::set_rewound(applier.connection(), true).unwrap();
        example.assert_crash_leaves(4);
    }
    rewind.undo(&example.database).unwrap();
    example.assert_crash_leaves(1);
    log::remove_all(&example.log).unwrap();
    example.assert_crash_leaves(1);
    let (writer, _) = LogWriter::open(example.log.clone(), to).unwrap();
    example.assert_crash_leaves(1);
    drop(writer);
    drop(open_log(&example.database, &example.log).unwrap());
    example.assert_crash_leaves(1);
}

/// Shapes of tables, each with a change before and after: a rowid that no column stands for, a key of values with a
/// collation, generated columns, counters, names and values that want quoting, a parent that is dropped with its rows.
const BEFORE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a);
    CREATE TABLE \"of \"\"names\" (\"a b\", \"it's\" TEXT);
    CREATE TABLE k (a TEXT COLLATE NOCASE, b, c, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE g (a INTEGER, b AS (a * 2) STORED, c REAL);
    CREATE TABLE dropped (a, b); CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE child (parent REFERENCES parent ON DELETE SET NULL)";
const FIRST: &[&str] = &[
    "INSERT INTO t (a) VALUES ('one'), (x'00ff'), (3.5), (NULL)",
    "INSERT INTO \"of \"\"names\" VALUES ('it''s', 'x'), (1, char(0) || 'n'), (CAST(x'ff' AS TEXT), '-- ;')",
    "INSERT INTO k VALUES ('A', 1, 0.1), ('b', 2, -0.0); INSERT INTO g VALUES (1, 1e300), (9223372036854775807, 2)",
    "INSERT INTO dropped VALUES (1, 2); INSERT INTO parent VALUES (7); INSERT INTO child VALUES (7)",
];
const PARTED: &[&str] = &[
    "UPDATE t SET a = 'two' WHERE id = 2; DELETE FROM t WHERE id = 1; UPDATE t SET id = 20 WHERE id = 3",
    "UPDATE \"of \"\"names\" SET \"it's\" = 'y;\n--' WHERE \"a b\" = 1; UPDATE \"of \"\"names\" SET rowid = 50 WHERE rowid = 3",
    "UPDATE dropped SET b = 3; INSERT INTO dropped VALUES (4, 5)",
    "ALTER TABLE t ADD COLUMN added DEFAULT 4",
    "INSERT INTO t (a, added) VALUES ('after', 5); UPDATE t SET added = 6 WHERE id = 20",
    "ALTER TABLE t RENAME COLUMN a TO renamed",
    "UPDATE k SET c = 1 WHERE a = 'a'; DELETE FROM k WHERE a = 'b'; INSERT INTO k VALUES ('c', x'', NULL)",
    "ALTER TABLE k RENAME TO l",
    "UPDATE l SET b = 9 WHERE a = 'c'",
    "DROP TABLE dropped",
    "DROP TABLE parent",
    "CREATE TABLE made AS SELECT a, c FROM g -- with a comment",
    "UPDATE g SET a = 3 WHERE a = 1; DELETE FROM made WHERE a = 1; CREATE INDEX i ON made (a)",
    "ALTER TABLE t DROP COLUMN renamed",
    "DELETE FROM t WHERE added = 4",
];

#[test]
fn what_was_saved_runs_and_leads_to_what_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (database, mut recovered) = open(directory.path());
    let source = Connection::open_in_memory().unwrap();
    for connection in [&source, recovered.applier.connection()] {
        connection
            .execute_batch(&BEFORE.replace("CREATE TABLE t ", "CREATE TABLE IF NOT EXISTS t "))
            .unwrap();
    }
    source.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let made = batches(&source, recovered.decided, 1, FIRST);
    execute(&mut recovered, &made);
    let fork = recovered.applier.position();
    let content = |connection: &Connection| -> Checksum {
        let is_open = |row: &(String, u64, u128)| !row.0.starts_with("_hsb_");
        logical_checksum(connection).unwrap().into_iter().filter(is_open).collect()
    };
    let old = copy(directory.path());
    for batch in batches(&source, fork, 1, PARTED) {
        execute(&mut recovered, &[batch]);
    }
    let from = recovered.applier.position();
    let rewind = Rewind::plan(&recovered.log_configuration, from, fork).unwrap();
    assert_eq!(rewind.schema_change(), Some("ALTER TABLE t ADD COLUMN added DEFAULT 4"));
    let path = rewind.save(&database, "here 1964").unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    println!("{text}");
    for part in ["-- Server: here 1964", "Transactions: 15, after ", &from.to_string(), "-- transaction 5"] {
        assert!(text.contains(part), "'{part}' is not in the file");
    }
    let (_, at_the_fork) = open(old.path());
    let at_the_fork = at_the_fork.applier.connection();
    at_the_fork.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    at_the_fork.execute_batch(&text).unwrap();
    assert_eq!(content(at_the_fork), content(recovered.applier.connection()));
    let schema = |connection: &Connection| -> Vec<String> {
        let mut all =
            connection.prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").unwrap();
        all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(schema(at_the_fork), schema(recovered.applier.connection()));
    let counters = |connection: &Connection| -> i64 {
        connection
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 't'", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(counters(at_the_fork), counters(recovered.applier.connection()));
}
