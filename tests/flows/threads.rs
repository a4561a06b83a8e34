//! The apply thread on a real database: what it says of itself after a change that did not fit.

use std::sync::Arc;

use crossbeam_channel::unbounded;
use hotstandby::actors::threads::apply::{ApplyJob, ApplyReport, ApplyStep, ApplyThread};
use hotstandby::codec;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::position::Position;
use hotstandby::storage::apply::Applier;
use hotstandby::storage::batch::{Batch, BatchHeader};
use hotstandby::storage::change::Change;
use hotstandby::storage::database::{Database, read_identity};
use hotstandby::storage::log::LogMark;

/// Else the node could be promoted at a position that its log has left behind.
#[test]
fn after_a_change_that_did_not_fit_no_barrier_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let database = Arc::new(Database::at(directory.path().join("solid.db"), 1 << 20));
    database.create(4096, |_| Ok(())).unwrap();
    let applier = Some(Applier::new(database.open_for_apply().unwrap()).unwrap());
    let (report, reports) = unbounded();
    let report = Box::new(move |told| report.send(told).unwrap());
    let thread = ApplyThread::new(applier, database, Arc::default(), Arc::default(), report);
    let header = BatchHeader { before: Position::ORIGIN, epoch: 1, count: 1, needs_acknowledgement: false };
    let (jobs, to_do) = unbounded();
    jobs.send(ApplyJob::Apply(Batch::seal(header, b"no change").unwrap())).unwrap();
    jobs.send(ApplyJob::Barrier { ticket: 1 }).unwrap();
    jobs.send(ApplyJob::Follow).unwrap();
    jobs.send(ApplyJob::Barrier { ticket: 2 }).unwrap();
    jobs.send(ApplyJob::Stop).unwrap();
    thread.run(&to_do);
    let told: Vec<ApplyReport> = reports.try_iter().collect();
    assert!(
        matches!(&told[..2], [ApplyReport::Failed(first), ApplyReport::Failed(again)]
            if first == again && first.code == Some(Code::APPLY_FAILED)),
        "{told:?}"
    );
    assert_eq!(told[2..], [ApplyReport::Reached { ticket: 2, position: Position::ORIGIN }]);
}

/// Else the server would wait for the thread for ever when it goes down.
#[test]
fn what_the_log_will_never_have_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let database = Arc::new(Database::at(directory.path().join("solid.db"), 1 << 20));
    database.create(4096, |_| Ok(())).unwrap();
    let applier = Some(Applier::new(database.open_for_apply().unwrap()).unwrap());
    let mut changes = Vec::new();
    codec::append_value(&mut changes, &Change::Commit).unwrap();
    let header = BatchHeader { before: Position::ORIGIN, epoch: 1, count: 1, needs_acknowledgement: false };
    let (jobs, to_do) = unbounded();
    jobs.send(ApplyJob::Apply(Batch::seal(header, &changes).unwrap())).unwrap();
    jobs.send(ApplyJob::Stop).unwrap();
    let mark = Arc::new(LogMark::default());
    mark.end();
    let report = Box::new(|told| panic!("{told:?}"));
    ApplyThread::new(applier, Arc::clone(&database), mark, Arc::default(), report).run(&to_do);
    let reader = database.open_reader().unwrap();
    assert_eq!(read_identity(&reader).unwrap().position, Position::ORIGIN);
}

/// Somebody else's lock says nothing about a change: it is waited for and said, and never counts as a misfit.
#[test]
fn a_database_that_is_locked_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let database = Arc::new(Database::at(directory.path().join("solid.db"), 1 << 20));
    database.create(4096, |_| Ok(())).unwrap();
    let applier = Some(Applier::new(database.open_for_apply().unwrap()).unwrap());
    let mut changes = Vec::new();
    codec::append_value(&mut changes, &Change::Commit).unwrap();
    let header = BatchHeader { before: Position::ORIGIN, epoch: 1, count: 1, needs_acknowledgement: false };
    let (report, reports) = unbounded();
    let report = Box::new(move |told| report.send(told).unwrap());
    let mut thread = ApplyThread::new(applier, Arc::clone(&database), Arc::default(), Arc::default(), report);
    let (jobs, to_do) = unbounded();
    let other = database.open_writer().unwrap();
    let batch = Batch::seal(header, &changes).unwrap();
    let after = batch.after;
    jobs.send(ApplyJob::Follow).unwrap();
    jobs.send(ApplyJob::Apply(batch)).unwrap();
    jobs.send(ApplyJob::Barrier { ticket: 3 }).unwrap();
    // The first job, then the second.
    for _ in 0..2 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(thread.step(&to_do), ApplyStep::WaitsForRoom);
        let told = reports.try_recv().unwrap();
        assert!(matches!(&told, ApplyReport::Hindered { by: Some(by) } if by.contains("locked")), "{told:?}");
        assert_eq!(thread.step(&to_do), ApplyStep::WaitsForRoom, "it is tried again");
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(thread.step(&to_do), ApplyStep::Worked);
        if let Ok(told) = reports.try_recv() {
            assert_eq!(told, ApplyReport::Hindered { by: None });
        }
    }
    assert_eq!(thread.step(&to_do), ApplyStep::WaitsForLog(after));
    assert!(reports.try_iter().all(|told| !matches!(told, ApplyReport::Failed(_))));
}
