//! The supervisor: netcopy at both sides, copies in directories, rewind, checkpoints.

use crossbeam_channel::bounded;
use hotstandby::actors::log_writer::LogWriterMessage;
use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::{ApplierEffect, CopyKind, LogWriterEffect, NodeEffect};
use hotstandby::hsb::event::{Command, Event, RewindEnd};
use hotstandby::hsb::position::{DatabasePosition, Position};
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::state::State;

use crate::probes::{Told, applier};
use crate::stage::{DATABASE, SETTINGS, Stage, batch, drain, hello, refuse_writers};

const ORIGIN: Position = Position::ORIGIN;

#[actix::test]
async fn netcopy_at_the_source() {
    let mut stage = Stage::primary_alone(SETTINGS).await;
    for result in [Ok(()), Err(Refusal::new(Code::DISK_FULL, "test"))] {
        let answer = stage.operator(Command::Netcopy).await;
        let send = NodeEffect::SendCopy { hello: hello(State::PrimaryAlone) };
        stage.expect(&[Told::Node(send)]).await;
        assert_eq!(answer.try_recv().unwrap()[0].0, 0);
        stage.tells(SupervisorMessage::NetcopyEnded { result: result.clone() }).await;
        stage.expect(&[Told::NetcopyEnded(result)]).await;
    }
}

#[actix::test]
async fn netcopy_at_the_target() {
    for state in [State::Offline, State::SecondaryAlone] {
        let stage = Stage::new(state, SETTINGS).await;
        let (reply, answer) = bounded(1);
        let arrives =
            SupervisorMessage::CopyArrives { hello: hello(State::PrimaryAlone), common: Some(ORIGIN), reply };
        stage.tells(arrives).await;
        // Before the receiver goes on: who is there reads from a database that will not be.
        stage.expect(&[Told::Node(NodeEffect::CloseSessions(Code::SERVER_CLOSED))]).await;
        assert_eq!(answer.try_recv().unwrap(), Ok(hello(state)));

        let (known, when_known) = bounded(1);
        let opened = Ok(DatabasePosition { database_id: DATABASE, position: ORIGIN });
        stage.tells(SupervisorMessage::CopyReceived { opened, known }).await;
        stage
            .expect(&[
                applier(ApplierEffect::ForgetPending),
                Told::Entered(state, State::SecondaryAlone),
                refuse_writers(),
                Told::NetcopyEnded(Ok(())),
            ])
            .await;
        assert_eq!(when_known.try_recv(), Ok(()));
    }
}

#[actix::test]
async fn a_copy_that_breaks_leaves_the_target_as_it_was() {
    let stage = Stage::new(State::SecondaryAlone, SETTINGS).await;
    let (reply, answer) = bounded(1);
    let arrives =
        SupervisorMessage::CopyArrives { hello: hello(State::PrimaryAlone), common: Some(ORIGIN), reply };
    stage.tells(arrives).await;
    assert!(answer.try_recv().unwrap().is_ok());
    stage.record.take().await;
    let why = Refusal::new(Code::COMMUNICATION_ERROR, "test");
    let (known, when_known) = bounded(1);
    stage.tells(SupervisorMessage::CopyReceived { opened: Err(why.clone()), known }).await;
    stage.expect(&[Told::NetcopyEnded(Err(why))]).await;
    assert_eq!(when_known.try_recv(), Ok(()));
}

#[actix::test]
async fn a_copy_is_refused_to_a_primary_that_is_one() {
    let stage = Stage::primary_alone(SETTINGS).await;
    let (reply, answer) = bounded(1);
    let arrives =
        SupervisorMessage::CopyArrives { hello: hello(State::PrimaryAlone), common: Some(ORIGIN), reply };
    stage.tells(arrives).await;
    stage.expect(&[]).await;
    assert!(answer.try_recv().unwrap().is_err());
}

#[actix::test]
async fn a_copy_in_a_directory() {
    let mut stage = Stage::primary_alone(SETTINGS).await;
    for (command, kind) in [(Command::Copy, CopyKind::Copy), (Command::Backup, CopyKind::Backup)] {
        stage.number();
        let (reply, answer) = bounded(1);
        stage.tells(SupervisorMessage::CopyToDirectory { command, directory: "/there".into(), reply }).await;
        stage.expect(&[Told::WriteCopy(kind, "/there".into())]).await;
        assert_eq!(answer.try_recv().unwrap()[0].0, 0);
        stage.hears(Event::CopyEnded { result: Ok(()) }).await;
        stage.expect(&[]).await;
    }
}

#[actix::test]
async fn rewind() {
    let mut stage = Stage::new(State::SecondaryAlone, SETTINGS).await;
    let answer = stage.operator(Command::Rewind).await;
    stage.expect(&[drain(1, false)]).await;
    stage.drained(ORIGIN).await;
    stage.expect(&[Told::Node(NodeEffect::Rewind)]).await;
    assert!(answer.is_empty());
    let end = RewindEnd::TakenBack { position: ORIGIN, text: "taken back".into() };
    stage.hears(Event::Rewound { result: Ok(end) }).await;
    assert_eq!(answer.try_recv().unwrap(), [(0, "taken back".to_owned())]);
}

#[actix::test]
async fn what_nobody_needs_after_a_checkpoint_leaves_the_log() {
    let later = batch(ORIGIN, true).after;
    let retain = |from| Told::LogWriter(LogWriterMessage::Do(LogWriterEffect::RetainFrom(from)));
    let stage = Stage::active(State::SecondaryActive, SETTINGS).await;
    for (delete_log, from) in [(false, ORIGIN), (true, later)] {
        stage.hears(Event::Checkpointed { position: later, delete_log }).await;
        stage.expect(&[retain(from)]).await;
    }
    // The secondary has not acknowledged so much.
    let stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    stage.hears(Event::Checkpointed { position: later, delete_log: true }).await;
    stage.expect(&[retain(ORIGIN)]).await;
}
