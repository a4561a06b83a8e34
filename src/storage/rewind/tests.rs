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
        source.execute_batch(&format!("BEGIN; {sql}")).unwrap();
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
    rewind.save(&example.database).unwrap();
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

#[test]
fn what_is_taken_back_is_in_the_file() {
    let example = example();
    let rewind = Rewind::plan(&example.log, example.history[4].0, example.history[0].0).unwrap();
    let path = rewind.save(&example.database).unwrap();
    let lines: Vec<Json> = std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["transactions"], 4);
    let expected = [
        json!({"transaction": 1, "insert": "t", "rowid": 1, "after": {"id": 1, "a": "one"}}),
        json!({"transaction": 1, "insert": "t", "rowid": 2, "after": {"id": 2, "a": {"blob": "00ff"}}}),
        json!({"transaction": 1, "insert": "t", "rowid": 3, "after": {"id": 3, "a": 3.5}}),
        json!({"transaction": 1, "counter": "t", "before": null, "after": 3}),
        json!({"transaction": 2, "update": "t", "rowid": 2, "before": {"a": {"blob": "00ff"}}, "after": {"a": "two"}}),
        json!({"transaction": 2, "delete": "t", "rowid": 1, "before": {"id": 1, "a": "one"}}),
    ];
    for (line, expected) in lines[1..].iter().zip(&expected) {
        assert_eq!(line, expected);
    }
}

#[test]
fn a_schema_change_cannot_be_taken_back() {
    let example = example();
    let (_, mut recovered) = open(example.directory.path());
    let mut change = Vec::new();
    crate::codec::append_value(&mut change, &Change::Statement { sql: "CREATE TABLE u (a)" }).unwrap();
    crate::codec::append_value(&mut change, &Change::Commit).unwrap();
    let before = recovered.decided;
    let header = BatchHeader { before, epoch: 1, count: 1, needs_acknowledgement: false };
    let batch = Batch::seal(header, &change).unwrap();
    execute(&mut recovered, std::slice::from_ref(&batch));
    let refused = Rewind::plan(&example.log, batch.after, example.history[0].0);
    let error = refused.err().unwrap();
    assert_eq!(error.code, Some(Code::NOT_SYNCHRONIZED));
    assert!(error.message.contains("CREATE TABLE u") && error.message.contains("hsb netcopy"), "{error}");
    assert!(Rewind::plan(&example.log, before, example.history[0].0).is_ok());
}
