//! The log writer: jobs for the log thread, and who hears what that reports.

use actix::prelude::*;
use crossbeam_channel::{Receiver, unbounded};
use hotstandby::actors::log_writer::{LogWriter, LogWriterMessage};
use hotstandby::actors::secondary_applier::ApplierMessage;
use hotstandby::actors::threads::log::{LogJob, LogReport};
use hotstandby::hsb::effect::LogWriterEffect;
use hotstandby::hsb::event::{Event, Room, Store};
use hotstandby::hsb::position::Position;

use crate::probes::{Record, Told};
use crate::stage::batch;

struct Stage {
    record: Record,
    writer: Addr<LogWriter>,
    jobs: Receiver<LogJob>,
}

impl Stage {
    fn new() -> Stage {
        let record = Record::default();
        let probe = record.probe();
        let (sender, jobs) = unbounded();
        let supervisor = probe.clone().recipient();
        let writer = LogWriter { jobs: sender, supervisor, applier: probe.recipient() }.start();
        Stage { record, writer, jobs }
    }

    async fn tells(&self, message: LogWriterMessage) -> LogJob {
        self.writer.send(message).await.unwrap();
        let job = self.jobs.try_recv().unwrap();
        assert!(self.jobs.is_empty());
        job
    }

    async fn reports(&self, report: LogReport) -> Vec<Told> {
        self.writer.send(LogWriterMessage::Thread(report)).await.unwrap();
        assert!(self.jobs.is_empty());
        self.record.take().await
    }
}

#[actix::test]
async fn what_is_to_be_done_becomes_one_job_of_the_log_thread() {
    let stage = Stage::new();
    let one = batch(Position::ORIGIN, true);
    for (sync, only_here) in [(true, false), (false, true)] {
        let append = LogWriterMessage::Append { batch: one.clone(), sync, only_here };
        let LogJob::Append { batch, sync: synced, only_here: here } = stage.tells(append).await else {
            panic!("no append")
        };
        assert_eq!((batch, synced, here), (one.clone(), sync, only_here));
    }
    let flush = stage.tells(LogWriterMessage::Do(LogWriterEffect::Flush)).await;
    assert!(matches!(flush, LogJob::Flush { ticket: None }));
    let flush = stage.tells(LogWriterMessage::FlushFor { ticket: 4 }).await;
    assert!(matches!(flush, LogJob::Flush { ticket: Some(4) }));
    let truncate = stage.tells(LogWriterMessage::TruncateAfter(one.after)).await;
    assert!(matches!(truncate, LogJob::TruncateAfter(after) if after == one.after));
    let retain = stage.tells(LogWriterMessage::Do(LogWriterEffect::RetainFrom(one.after))).await;
    assert!(matches!(retain, LogJob::RetainFrom(from) if from == one.after));
    assert_eq!(stage.record.take().await, []);
}

#[actix::test]
async fn progress_is_told_to_supervisor_and_applier_a_flush_to_the_applier() {
    let stage = Stage::new();
    let position = batch(Position::ORIGIN, true).after;
    for durable in [false, true] {
        assert_eq!(
            stage.reports(LogReport::Progress { position, durable }).await,
            [
                Told::Event(Event::Logged { position, durable }),
                Told::Applier(ApplierMessage::LogProgress { position, durable }),
            ]
        );
    }
    let flushed = Told::Applier(ApplierMessage::Flushed { ticket: 4 });
    assert_eq!(stage.reports(LogReport::Flushed { ticket: 4 }).await, [flushed]);
    let size = Told::Event(Event::LogSize { bytes: 9, retained: true });
    assert_eq!(stage.reports(LogReport::Size { bytes: 9, retained: true }).await, [size]);
}

#[actix::test]
async fn a_full_disk_and_room_again_are_told_to_the_supervisor() {
    let stage = Stage::new();
    for room in [Room::lacking(Store::Log, "No space left on device"), Room::there(Store::Log)] {
        assert_eq!(stage.reports(LogReport::Room(room.clone())).await, [Told::Event(Event::Room(room))]);
    }
}

/// A log that cannot be written ends the process. In an orderly end it is closed, and what comes then is of no use.
#[actix::test]
async fn after_the_end_of_the_log_thread_nothing_is_reported() {
    let Stage { record, writer, jobs } = Stage::new();
    drop(jobs);
    writer.send(LogWriterMessage::Do(LogWriterEffect::Flush)).await.unwrap();
    assert_eq!(record.take().await, []);
}
