//! The secondary applier: what it has logged, applied and acknowledged, under each acknowledge policy.

use actix::prelude::*;
use bytes::Bytes;
use crossbeam_channel::{Receiver, unbounded};
use hotstandby::actors::log_writer::LogWriterMessage;
use hotstandby::actors::secondary_applier::{ApplierMessage, SecondaryApplier};
use hotstandby::actors::threads::apply::{ApplyJob, ApplyReport};
use hotstandby::hsb::effect::ApplierEffect;
use hotstandby::hsb::event::{Event, PeerMessage};
use hotstandby::hsb::position::Position;
use hotstandby::hsb::settings::{AcknowledgePolicy, AcknowledgeRule};
use hotstandby::storage::batch::{Batch, BatchHeader};

use crate::probes::{Record, Told, tell};
use crate::stage::flush;

struct Stage {
    record: Record,
    applier: Addr<SecondaryApplier>,
    jobs: Receiver<ApplyJob>,
}

impl Stage {
    fn new(pending: Option<Batch>) -> Stage {
        let record = Record::default();
        let (sender, jobs) = unbounded();
        let probe = record.probe();
        let (log_writer, to_peer) = (probe.clone().recipient(), probe.clone().recipient());
        let applier = SecondaryApplier::new(sender, log_writer, to_peer, probe.recipient(), pending).start();
        Stage { record, applier, jobs }
    }

    async fn follow(&self, policy: AcknowledgePolicy) {
        self.follow_as(policy, false).await;
    }

    async fn follow_as(&self, policy: AcknowledgePolicy, strict: bool) {
        let rule = AcknowledgeRule { policy, strict };
        self.does(ApplierEffect::Follow { link: 1, position: Position::ORIGIN, rule }).await;
        assert!(matches!(self.jobs.try_recv(), Ok(ApplyJob::Follow)));
    }

    async fn does(&self, effect: ApplierEffect) {
        self.applier.send(ApplierMessage::Do(effect)).await.unwrap();
    }

    async fn arrives(&self, batch: &Batch) {
        self.applier
            .send(ApplierMessage::BatchArrived { link: 1, bytes: batch.bytes.clone() })
            .await
            .unwrap();
    }

    async fn applied(&self, batch: &Batch) {
        let report = ApplyReport::Applied { position: batch.after, bytes: batch.bytes.len() };
        self.applier.send(ApplierMessage::Thread(report)).await.unwrap();
    }

    async fn durable(&self, batch: &Batch) {
        self.applier
            .send(ApplierMessage::LogProgress { position: batch.after, durable: true })
            .await
            .unwrap();
    }
}

fn batch(before: Position, changes: &[u8]) -> Batch {
    Batch::seal(BatchHeader { before, epoch: 1, count: 1, needs_acknowledgement: true }, changes).unwrap()
}

fn append(batch: &Batch, sync: bool) -> Told {
    Told::LogWriter(LogWriterMessage::Append { batch: batch.clone(), sync, only_here: false })
}

fn truncate() -> Told {
    Told::LogWriter(LogWriterMessage::TruncateAfter(Position::ORIGIN))
}

fn acknowledge(batch: &Batch) -> Told {
    tell(PeerMessage::Acknowledge { position: batch.after })
}

/// The supervisor hears that the connection brings what is no batch, or not the next one.
fn is_unusable(told: &Told) -> bool {
    matches!(told, Told::Event(Event::LinkLost { link: 1, .. }))
}

/// At the end of a catchup the last batch may come from the log and, right behind it, as the first one live.
#[actix::test]
async fn a_batch_that_comes_twice_is_taken_once() {
    let stage = Stage::new(None);
    stage.follow(AcknowledgePolicy::Received).await;
    let first = batch(Position::ORIGIN, b"1");
    let second = batch(first.after, b"2");
    for batch in [&first, &first, &second] {
        stage.arrives(batch).await;
    }
    let told = stage.record.take().await;
    let appended: Vec<_> = told.iter().filter(|told| matches!(told, Told::LogWriter(_))).collect();
    assert_eq!(appended, [&append(&first, false), &append(&second, false)]);
    assert!(!told.iter().any(is_unusable), "{told:?}");
}

#[actix::test]
async fn received_is_acknowledged_before_the_batch_is_applied() {
    let stage = Stage::new(None);
    stage.follow(AcknowledgePolicy::Received).await;
    let one = batch(Position::ORIGIN, b"one");
    stage.arrives(&one).await;
    assert_eq!(stage.record.take().await, [append(&one, false), acknowledge(&one)]);
    stage.applied(&one).await;
    assert_eq!(stage.record.take().await, [Told::Event(Event::Applied { position: one.after })]);
}

/// After a power cut its database would be ahead of its log otherwise, and nobody could catch up from it.
#[actix::test]
async fn a_strict_secondary_has_on_disk_what_it_applies() {
    let stage = Stage::new(None);
    stage.follow_as(AcknowledgePolicy::Received, true).await;
    let one = batch(Position::ORIGIN, b"one");
    stage.arrives(&one).await;
    assert_eq!(stage.record.take().await, [append(&one, true), acknowledge(&one)]);
}

#[actix::test]
async fn visible_is_acknowledged_when_the_batch_is_applied() {
    let stage = Stage::new(None);
    stage.follow(AcknowledgePolicy::Visible).await;
    let one = batch(Position::ORIGIN, b"one");
    stage.arrives(&one).await;
    assert_eq!(stage.record.take().await, [append(&one, false)]);
    stage.applied(&one).await;
    assert_eq!(
        stage.record.take().await,
        [Told::Event(Event::Applied { position: one.after }), acknowledge(&one)]
    );
}

#[actix::test]
async fn durable_is_acknowledged_when_applied_and_on_disk_in_either_order() {
    for applied_first in [true, false] {
        let stage = Stage::new(None);
        stage.follow(AcknowledgePolicy::Durable).await;
        let one = batch(Position::ORIGIN, b"one");
        stage.arrives(&one).await;
        assert_eq!(stage.record.take().await, [append(&one, true)]);
        if applied_first {
            stage.applied(&one).await;
            assert_eq!(stage.record.take().await, [Told::Event(Event::Applied { position: one.after })]);
            stage.durable(&one).await;
        } else {
            stage.durable(&one).await;
            assert_eq!(stage.record.take().await, []);
            stage.applied(&one).await;
        }
        assert_eq!(stage.record.take().await.last(), Some(&acknowledge(&one)));
    }
}

#[actix::test]
async fn a_changed_policy_counts_for_what_comes_and_for_what_waits() {
    let stage = Stage::new(None);
    stage.follow(AcknowledgePolicy::Visible).await;
    let one = batch(Position::ORIGIN, b"one");
    stage.arrives(&one).await;
    stage.record.take().await;
    stage
        .does(ApplierEffect::AcknowledgeBy(AcknowledgeRule {
            policy: AcknowledgePolicy::Received,
            strict: false,
        }))
        .await;
    assert_eq!(stage.record.take().await, [acknowledge(&one)]);
    stage
        .does(ApplierEffect::AcknowledgeBy(AcknowledgeRule {
            policy: AcknowledgePolicy::Durable,
            strict: false,
        }))
        .await;
    let two = batch(one.after, b"two");
    stage.arrives(&two).await;
    assert_eq!(stage.record.take().await, [append(&two, true)]);
}

#[actix::test]
async fn a_batch_that_does_not_follow_is_refused_and_ends_following() {
    let stage = Stage::new(None);
    stage.follow(AcknowledgePolicy::Received).await;
    let one = batch(Position::ORIGIN, b"one");
    let other = batch(batch(Position::ORIGIN, b"other").after, b"two");
    stage.arrives(&one).await;
    stage.record.take().await;
    // Same sequence, other history: only the chain tells.
    stage.arrives(&other).await;
    let told = stage.record.take().await;
    assert!(told.len() == 1 && is_unusable(&told[0]), "{told:?}");
    stage.arrives(&batch(one.after, b"two")).await;
    assert_eq!(stage.record.take().await, [], "nothing is taken after that");
}

#[actix::test]
async fn damaged_bytes_are_refused() {
    let stage = Stage::new(None);
    stage.follow(AcknowledgePolicy::Received).await;
    let mut bytes = batch(Position::ORIGIN, b"one").bytes.to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    stage.applier.send(ApplierMessage::BatchArrived { link: 1, bytes: Bytes::from(bytes) }).await.unwrap();
    let told = stage.record.take().await;
    assert!(told.len() == 1 && is_unusable(&told[0]), "{told:?}");
}

#[actix::test]
async fn a_drain_is_over_when_everything_is_applied_and_on_disk() {
    let stage = Stage::new(None);
    stage.follow(AcknowledgePolicy::Received).await;
    let one = batch(Position::ORIGIN, b"one");
    stage.arrives(&one).await;
    stage.does(ApplierEffect::Drain { ticket: 5, with_pending: true }).await;
    let told = stage.record.take().await;
    assert_eq!(told.last(), Some(&Told::LogWriter(LogWriterMessage::FlushFor { ticket: 5 })));
    assert!(matches!(stage.jobs.try_recv(), Ok(ApplyJob::Apply(_))));
    assert!(matches!(stage.jobs.try_recv(), Ok(ApplyJob::Follow)));
    assert!(matches!(stage.jobs.try_recv(), Ok(ApplyJob::Sync)));
    assert!(matches!(stage.jobs.try_recv(), Ok(ApplyJob::Barrier { ticket: 5 })));
    stage.applier.send(ApplierMessage::Flushed { ticket: 5 }).await.unwrap();
    assert_eq!(stage.record.take().await, []);
    let reached = ApplyReport::Reached { ticket: 5, position: one.after };
    stage.applier.send(ApplierMessage::Thread(reached)).await.unwrap();
    assert_eq!(stage.record.take().await, [Told::Event(Event::Drained { ticket: 5, position: one.after })]);
    // Promoted: what the old primary still sends is nobody's.
    stage.arrives(&batch(one.after, b"two")).await;
    assert_eq!(stage.record.take().await, []);
}

#[actix::test]
async fn a_pending_batch_that_the_primary_has_is_applied_without_being_logged_twice() {
    let one = batch(Position::ORIGIN, b"one");
    let stage = Stage::new(Some(one.clone()));
    stage.follow(AcknowledgePolicy::Received).await;
    stage.arrives(&one.marked(false).unwrap()).await;
    assert_eq!(stage.record.take().await, [flush(), acknowledge(&one)]);
    assert!(matches!(stage.jobs.try_recv(), Ok(ApplyJob::Apply(_))));
}

#[actix::test]
async fn a_pending_batch_that_the_primary_lacks_is_cut_off() {
    let stage = Stage::new(Some(batch(Position::ORIGIN, b"mine")));
    stage.follow(AcknowledgePolicy::Received).await;
    let theirs = batch(Position::ORIGIN, b"theirs");
    stage.arrives(&theirs).await;
    let told = stage.record.take().await;
    assert_eq!(told, [truncate(), append(&theirs, false), acknowledge(&theirs)]);

    let stage = Stage::new(Some(batch(Position::ORIGIN, b"mine")));
    stage.follow(AcknowledgePolicy::Received).await;
    stage.does(ApplierEffect::DropPending { position: Position::ORIGIN }).await;
    assert_eq!(stage.record.take().await, [truncate()]);
}
