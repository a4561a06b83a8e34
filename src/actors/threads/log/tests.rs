use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::storage::batch::BatchHeader;
use crate::storage::log::{Fault, LogConfiguration, Medium, Operation};

const PATIENCE: Duration = Duration::from_secs(60);

fn batch(before: Position, text: &str) -> Batch {
    let header = BatchHeader { before, epoch: 1, count: 1, needs_acknowledgement: false };
    Batch::seal(header, text.as_bytes()).unwrap()
}

fn configuration(directory: &tempfile::TempDir) -> LogConfiguration {
    LogConfiguration {
        directory: directory.path().to_owned(),
        template: "sol#####.log".into(),
        digit: '#',
        segment_size_bytes: 1 << 16,
        database_id: [7; 16],
        maximum_bytes: None,
        medium: Medium::default(),
    }
}

/// A log thread at work on a disk that fails as it is told.
struct Stage {
    jobs: Sender<LogJob>,
    reports: Receiver<LogReport>,
    thread: Option<JoinHandle<()>>,
    configuration: LogConfiguration,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn new(fault: Fault) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let configuration = configuration(&directory);
        let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
        writer.set_fault(fault);
        let (report, reports) = unbounded();
        let report = Box::new(move |told| report.send(told).unwrap_or_default());
        let body = LogThread::new(Some(writer), Arc::default(), PATIENCE, Arc::default(), report);
        let (jobs, to_do) = unbounded();
        let thread = Some(std::thread::spawn(move || body.run(&to_do)));
        Stage { jobs, reports, thread, configuration, _directory: directory }
    }

    fn append(&self, batch: &Batch) {
        self.jobs.send(LogJob::Append { batch: batch.clone(), sync: true, only_here: false }).unwrap();
    }

    fn append_only_here(&self, batch: &Batch) {
        self.jobs.send(LogJob::Append { batch: batch.clone(), sync: true, only_here: true }).unwrap();
    }

    fn wait_for(&self, wanted: impl Fn(&LogReport) -> bool) -> Vec<LogReport> {
        let mut told = Vec::new();
        loop {
            told.push(self.reports.recv_timeout(PATIENCE).expect("the thread says no more"));
            if wanted(&told[told.len() - 1]) {
                return told;
            }
        }
    }

    fn positions(mut self) -> Vec<Position> {
        self.jobs.send(LogJob::Stop).unwrap();
        self.thread.take().unwrap().join().unwrap();
        let (_, mut found) = LogWriter::open(self.configuration, Position::ORIGIN).unwrap();
        std::iter::from_fn(|| found.reader.next(u64::MAX).unwrap().map(|batch| batch.after)).collect()
    }
}

/// A disk that is full for as long as the switch is on.
fn full_disk() -> (Arc<AtomicBool>, Fault) {
    let full = Arc::new(AtomicBool::new(true));
    let is_full = Arc::clone(&full);
    let fault = move |operation| {
        let fails = operation != Operation::Sync && is_full.load(Ordering::Relaxed);
        fails.then(|| (9, io::Error::from_raw_os_error(libc::ENOSPC)))
    };
    (full, Arc::new(fault))
}

fn durable(position: Position) -> impl Fn(&LogReport) -> bool {
    move |told| *told == LogReport::Progress { position, durable: true }
}

#[test]
fn what_a_full_disk_cannot_take_is_written_in_order_when_there_is_room() {
    let (full, fault) = full_disk();
    let stage = Stage::new(fault);
    let first = batch(Position::ORIGIN, "first");
    let second = batch(first.after, "second");
    stage.append(&first);
    stage.wait_for(|told| matches!(told, LogReport::Room(Room { lacks: Some(_), .. })));
    stage.append(&second);
    stage.jobs.send(LogJob::Flush { ticket: Some(4) }).unwrap();
    // Something that is done meanwhile, to see that the thread has looked at the others.
    stage.jobs.send(LogJob::RetainFrom(Position::ORIGIN)).unwrap();
    full.store(false, Ordering::Relaxed);
    let told = stage.wait_for(|told| *told == LogReport::Flushed { ticket: 4 });
    let room = told.iter().position(|told| *told == LogReport::Room(Room::there(Store::Log))).unwrap();
    let has =
        |told: &LogReport| matches!(told, LogReport::Progress { position, .. } if *position == first.after);
    assert!(told.iter().position(has).unwrap() < room, "room before what was held: {told:?}");
    assert_eq!(stage.positions(), [first.after, second.after]);
}

#[test]
fn a_batch_that_nobody_else_can_have_is_not_written_and_room_is_found_without_it() {
    let (full, fault) = full_disk();
    let stage = Stage::new(fault);
    let refused = batch(Position::ORIGIN, "refused");
    stage.append_only_here(&refused);
    // Behind it, before its owner has heard of it.
    stage.jobs.send(LogJob::Flush { ticket: None }).unwrap();
    stage.wait_for(|told| matches!(told, LogReport::Room(Room { lacks: Some(_), .. })));
    full.store(false, Ordering::Relaxed);
    let told = stage.wait_for(|told| *told == LogReport::Room(Room::there(Store::Log)));
    assert!(!told.iter().any(durable(refused.after)), "it was refused, and a crash now would commit it");
    let other = batch(Position::ORIGIN, "another");
    stage.append(&other);
    stage.wait_for(durable(other.after));
    assert_eq!(stage.positions(), [other.after]);
}

#[test]
fn what_needs_no_room_is_done_although_it_stands_behind_what_does() {
    let (_full, fault) = full_disk();
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, _) = LogWriter::open(configuration(&directory), Position::ORIGIN).unwrap();
    writer.set_fault(fault);
    let mut thread = LogThread::new(Some(writer), Arc::default(), PATIENCE, Arc::default(), Box::new(|_| ()));
    let (jobs, to_do) = unbounded();
    let (synced, when_synced) = crossbeam_channel::bounded(1);
    jobs.send(LogJob::Sync(synced)).unwrap();
    let first = LogJob::Append { batch: batch(Position::ORIGIN, "held"), sync: true, only_here: false };
    assert!(matches!(thread.step(first, &to_do), Ok(LogStep::Full)));
    assert!(when_synced.try_recv().is_ok(), "a checkpoint waits behind a batch that has no room");
}

#[test]
fn the_thread_ends_with_the_disk_full() {
    let (_full, fault) = full_disk();
    let stage = Stage::new(fault);
    stage.append(&batch(Position::ORIGIN, "held"));
    stage.wait_for(|told| matches!(told, LogReport::Room(Room { lacks: Some(_), .. })));
    assert!(stage.positions().is_empty());
}

/// Whenever the thread has appended, the next batch is there already.
#[test]
fn what_is_relaxed_comes_to_disk_in_time_however_much_follows() {
    const BATCHES: u64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let (writer, _) = LogWriter::open(configuration(&directory), Position::ORIGIN).unwrap();
    let (jobs, to_do) = unbounded();
    let (batches, more) = unbounded();
    let mut before = Position::ORIGIN;
    for _ in 0..BATCHES {
        let next = batch(before, "relaxed");
        before = next.after;
        batches.send(next).unwrap();
    }
    let next_job = move || {
        more.try_recv().map_or(LogJob::Stop, |batch| LogJob::Append { batch, sync: false, only_here: false })
    };
    jobs.send(next_job()).unwrap();
    let counters = Arc::<Counters>::default();
    let report = Box::new(move |told| match told {
        LogReport::Progress { durable: false, .. } => jobs.send(next_job()).unwrap_or_default(),
        LogReport::Progress { durable: true, .. } => jobs.send(LogJob::Stop).unwrap_or_default(),
        _ => {}
    });
    LogThread::new(Some(writer), Arc::default(), Duration::ZERO, Arc::clone(&counters), report).run(&to_do);
    assert!(counters.log_durable.get() < BATCHES, "no batch came to disk before the last");
}

/// What an earlier run has written is on disk; else it would count as at risk for as long as nothing is written.
#[test]
fn trap_09_what_is_on_disk_is_known_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, _) = LogWriter::open(configuration(&directory), Position::ORIGIN).unwrap();
    writer.append(&batch(Position::ORIGIN, "of an earlier run")).unwrap();
    drop(writer);
    let (writer, _) = LogWriter::open(configuration(&directory), Position::ORIGIN).unwrap();
    let counters = Arc::<Counters>::default();
    let thread =
        LogThread::new(Some(writer), Arc::default(), PATIENCE, Arc::clone(&counters), Box::new(|_| {}));
    thread.publish();
    assert_eq!((counters.log_end.get(), counters.log_durable.get()), (1, 1));
}

const CHILD: &str = "HSB_TEST_FAILING_DISK";

/// In a process of its own: fails one operation, once, and goes on if the process does.
#[test]
#[ignore = "ends its process; run by the test below"]
fn child_with_a_failing_disk() {
    let kind = if std::env::var(CHILD).is_ok_and(|kind| kind == "sync") {
        Operation::Sync
    } else {
        Operation::Write
    };
    let failed = AtomicBool::new(false);
    let fault = move |operation| {
        let fails = operation == kind && !failed.swap(true, Ordering::Relaxed);
        fails.then(|| (0, io::Error::from_raw_os_error(libc::EIO)))
    };
    let stage = Stage::new(Arc::new(fault));
    let only = batch(Position::ORIGIN, "only");
    stage.append(&only);
    stage.wait_for(durable(only.after));
}

#[test]
fn trap_11_a_failed_sync_and_a_failed_write_end_the_process() {
    use std::os::unix::process::ExitStatusExt;
    for kind in ["sync", "write"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "actors::threads::log::tests::child_with_a_failing_disk"])
            .env(CHILD, kind)
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{kind}: {output:?}");
    }
}
