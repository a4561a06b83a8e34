//! The supervisor: commits, switchover, a peer that falls silent while a commit is under way.

use hotstandby::actors::log_writer::LogWriterMessage;
use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::{Admission, ConnectStatus, Decision, PingEffect, SenderEffect, WriterEffect};
use hotstandby::hsb::event::{Command, Event, PeerMessage};
use hotstandby::hsb::position::Position;
use hotstandby::hsb::settings::{Durability, DurabilityLevel, Safeness, Settings};
use hotstandby::hsb::state::State;
use hotstandby::storage::batch::Batch;
use hotstandby::storage::writer::{Submission, WriterRequest};

use crate::probes::{Told, pings, tell};
use crate::stage::{
    SETTINGS, Stage, admit, batch, begin_history, drain, flush, follow, refuse_writers, status,
};

async fn submit(stage: &Stage, batch: &Batch) {
    let (batch, safeness, durability) = (batch.clone(), Safeness::Default, Durability::Default);
    let submission = Submission { batch, safeness, durability };
    stage.tells(SupervisorMessage::Writer(WriterRequest::Submit(submission))).await;
}

fn append(batch: &Batch, sync: bool) -> Told {
    Told::LogWriter(LogWriterMessage::Append { batch: batch.clone(), sync, only_here: false })
}

fn decide(decision: Decision) -> Told {
    Told::Writer(WriterEffect::Decide(decision))
}

#[actix::test]
async fn two_safe_commit() {
    let stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    let batch = batch(Position::ORIGIN, true);
    let after = batch.after;
    submit(&stage, &batch).await;
    stage.expect(&[append(&batch, false), Told::SenderSend(batch.clone())]).await;

    stage.hears(Event::Logged { position: after, durable: false }).await;
    stage.expect(&[]).await;
    // Nobody can take it back any more: it was sent (10083).
    stage.tells(SupervisorMessage::Writer(WriterRequest::Withdraw)).await;
    stage.expect(&[]).await;
    stage.hears(Event::Acknowledged { position: after }).await;
    stage.expect(&[decide(Decision::Commit)]).await;
}

#[actix::test]
async fn two_safe_commit_with_strict_durability_waits_for_both() {
    let settings = Settings { durability: DurabilityLevel::Strict, ..SETTINGS };
    for acknowledged_first in [true, false] {
        let stage = Stage::active(State::PrimaryActive, settings).await;
        let batch = batch(Position::ORIGIN, true);
        let after = batch.after;
        submit(&stage, &batch).await;
        stage.expect(&[append(&batch, true), Told::SenderSend(batch.clone())]).await;
        if acknowledged_first {
            stage.hears(Event::Acknowledged { position: after }).await;
            stage.hears(Event::Logged { position: after, durable: false }).await;
            stage.expect(&[]).await;
            stage.hears(Event::Logged { position: after, durable: true }).await;
        } else {
            stage.hears(Event::Logged { position: after, durable: true }).await;
            stage.expect(&[]).await;
            stage.hears(Event::Acknowledged { position: after }).await;
        }
        stage.expect(&[decide(Decision::Commit)]).await;
    }
}

#[actix::test]
async fn switchover_at_the_old_primary() {
    let mut stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    let batch = batch(Position::ORIGIN, true);
    let after = batch.after;
    submit(&stage, &batch).await;
    stage.record.take().await;
    let answer = stage.operator(Command::SwitchSecondary).await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0);
    // Writers are out at once, but the batch under way comes first.
    stage.expect(&[admit(Admission::Refuse(Code::TRANSACTION_READ_ONLY))]).await;
    stage.hears(Event::Logged { position: after, durable: false }).await;
    stage.hears(Event::Acknowledged { position: after }).await;
    stage.expect(&[decide(Decision::Commit), tell(PeerMessage::HandOver { position: after })]).await;
    stage.peer_says(PeerMessage::TakeOver).await;
    stage
        .expect(&[
            Told::Entered(State::PrimaryActive, State::SecondaryActive),
            refuse_writers(),
            follow(stage.link, after),
            tell(PeerMessage::HandedOver),
        ])
        .await;
}

#[actix::test]
async fn switchover_at_the_new_primary() {
    let stage = Stage::active(State::SecondaryActive, SETTINGS).await;
    stage.peer_says(PeerMessage::HandOver { position: Position::ORIGIN }).await;
    stage.expect(&[drain(stage.record.ticket(), false)]).await;
    stage.drained(Position::ORIGIN).await;
    stage.expect(&[tell(PeerMessage::TakeOver)]).await;
    stage.peer_says(PeerMessage::HandedOver).await;
    stage
        .expect(&[
            Told::Entered(State::SecondaryActive, State::PrimaryActive),
            begin_history(Position::ORIGIN, 1),
            admit(Admission::Open),
        ])
        .await;
}

#[actix::test]
async fn a_switchover_that_breaks_ends_in_secondary_alone_on_either_side() {
    let mut stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    stage.operator(Command::SwitchSecondary).await;
    stage.hears(Event::LinkLost { link: stage.link, why: "test".into() }).await;
    let told = stage.record.take().await;
    assert!(told.contains(&Told::Entered(State::PrimaryActive, State::SecondaryAlone)), "{told:#?}");

    let stage = Stage::active(State::SecondaryActive, SETTINGS).await;
    stage.peer_says(PeerMessage::HandOver { position: Position::ORIGIN }).await;
    stage.drained(Position::ORIGIN).await;
    stage.hears(Event::LinkLost { link: stage.link, why: "test".into() }).await;
    let told = stage.record.take().await;
    assert!(told.contains(&Told::Entered(State::SecondaryActive, State::SecondaryAlone)), "{told:#?}");
}

#[actix::test]
async fn ping_timeout_with_a_commit_under_way() {
    let mut stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    let batch = batch(Position::ORIGIN, true);
    let after = batch.after;
    submit(&stage, &batch).await;
    stage.hears(Event::Logged { position: after, durable: false }).await;
    stage.record.take().await;
    stage.hears(Event::LinkLost { link: stage.link, why: "30555: ping timeout".into() }).await;
    stage
        .expect(&[
            pings(PingEffect::Stop),
            Told::Sender(SenderEffect::Close { farewell: None }),
            status(ConnectStatus::Broken),
            Told::Entered(State::PrimaryActive, State::PrimaryUncertain),
            admit(Admission::Wait(Code::UNCERTAIN)),
            flush(),
        ])
        .await;
    // The log being on disk does not decide it; the operator does.
    stage.hears(Event::Logged { position: after, durable: true }).await;
    stage.expect(&[]).await;
    stage.operator(Command::SetPrimaryAlone).await;
    stage
        .expect(&[
            Told::Entered(State::PrimaryUncertain, State::PrimaryAlone),
            admit(Admission::Open),
            decide(Decision::CommitAlone),
        ])
        .await;
}

#[actix::test]
async fn trap_09_ping_timeout_with_auto_primary_alone_flushes_before_it_answers() {
    let stage = Stage::active(State::PrimaryActive, Settings { auto_primary_alone: true, ..SETTINGS }).await;
    let batch = batch(Position::ORIGIN, true);
    let after = batch.after;
    submit(&stage, &batch).await;
    stage.hears(Event::Logged { position: after, durable: false }).await;
    stage.record.take().await;
    stage.hears(Event::LinkLost { link: stage.link, why: "30555: ping timeout".into() }).await;
    let told = stage.record.take().await;
    assert!(told.contains(&Told::Entered(State::PrimaryActive, State::PrimaryAlone)), "{told:#?}");
    assert!(told.contains(&flush()) && !told.contains(&decide(Decision::CommitAlone)), "{told:#?}");
    stage.hears(Event::Logged { position: after, durable: true }).await;
    stage.expect(&[decide(Decision::CommitAlone)]).await;
}
