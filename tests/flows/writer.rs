//! The writer when the node stops being a primary: whoever holds SQLite's write lock must let go of it, or nothing
//! that the new primary sends can be applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use hotstandby::config::Parameters;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::Admission;
use hotstandby::hsb::position::Position;
use hotstandby::hsb::settings::{Durability, Safeness};
use hotstandby::storage::database::Database;
use hotstandby::storage::writer::{WriteRequest, Writer};
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

fn request() -> WriteRequest {
    WriteRequest {
        token: None,
        session: 1,
        lock_timeout: Duration::from_secs(30),
        safeness: Safeness::Default,
        durability: Durability::Default,
        snapshot: None,
    }
}

fn writer(prepare: impl FnOnce(&mut Connection)) -> (tempfile::TempDir, Arc<Database>, Arc<Writer>) {
    let directory = tempfile::tempdir().unwrap();
    let database = Arc::new(Database::at(directory.path().join("solid.db"), 1 << 20));
    database.create(4096, |_| Ok(())).unwrap();
    let parameters = Arc::new(Parameters::factory(directory.path()).unwrap());
    let writer = Arc::new(Writer::new(Arc::clone(&database), parameters, Arc::default(), Box::new(|_| {})));
    let mut connection = database.open_writer().unwrap();
    prepare(&mut connection);
    writer.attach(connection).unwrap();
    writer.begin_history(Position::ORIGIN, 1);
    writer.admit(Admission::Open);
    (directory, database, writer)
}

static WAITS_FOR_LOCK: AtomicBool = AtomicBool::new(false);

#[test]
fn a_transaction_that_begins_while_writers_are_shut_out_does_not_begin() {
    let wait = |_| {
        WAITS_FOR_LOCK.store(true, Ordering::Release);
        std::thread::yield_now();
        true
    };
    let (_directory, database, writer) = writer(|connection| connection.busy_handler(Some(wait)).unwrap());
    let other = database.open_for_apply().unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begins = Arc::clone(&writer);
    let begun = std::thread::spawn(move || begins.begin(request()).map(drop));
    while !WAITS_FOR_LOCK.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    writer.admit(Admission::Refuse(Code::NOT_ON_SECONDARY));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(begun.join().unwrap().unwrap_err().code, Some(Code::NOT_ON_SECONDARY));
    // The write lock is free again.
    other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
}

#[test]
fn a_long_statement_is_interrupted_when_writers_are_shut_out() {
    let (runs, running) = bounded(1);
    let tick = move |_: &rusqlite::functions::Context<'_>| {
        let _ = runs.try_send(());
        Ok(1)
    };
    let (_directory, _database, writer) = writer(|connection| {
        connection.create_scalar_function("tick", 0, FunctionFlags::SQLITE_UTF8, tick).unwrap();
    });
    let leads = Arc::clone(&writer);
    let ended = std::thread::spawn(move || {
        leads.autocommit(request(), |transaction| {
            let endless =
                "WITH RECURSIVE s(x) AS (SELECT 1 UNION ALL SELECT x + tick() FROM s) SELECT max(x) FROM s";
            Ok(transaction.connection().query_row(endless, [], |row| row.get::<_, i64>(0))?)
        })
    });
    running.recv().unwrap();
    writer.admit(Admission::Refuse(Code::NOT_ON_SECONDARY));
    assert_eq!(ended.join().unwrap().unwrap_err().code, Some(Code::REPLICATED_ABORTED));
}
