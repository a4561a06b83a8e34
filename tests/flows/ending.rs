//! The supervisor: a full disk, and the end of the server.

use crossbeam_channel::{Receiver, bounded};
use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::{Admission, ConnectStatus, PingEffect, SenderEffect};
use hotstandby::hsb::event::{Event, PeerMessage, Room, Store};
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::state::State;
use hotstandby::hsb::{DISK_FULL, DISK_ROOM};
use hotstandby::services::context::Answer;

use crate::probes::{Told, pings, tell};
use crate::stage::{SETTINGS, Stage, admit, flush, refuse_writers, status};

fn room(lacks: Option<&str>) -> Event {
    Event::Room(Room { store: Store::Log, lacks: lacks.map(str::to_owned) })
}

#[actix::test]
async fn a_full_log_at_the_primary_shuts_writers_out_until_there_is_room() {
    let stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    stage.hears(room(Some("full"))).await;
    stage.expect(&[Told::Alert(DISK_FULL), admit(Admission::Refuse(Code::DISK_FULL))]).await;
    stage.hears(room(None)).await;
    stage.expect(&[Told::Alert(DISK_ROOM), admit(Admission::Open)]).await;
}

#[actix::test]
async fn a_secondary_whose_log_is_full_leaves_its_primary() {
    let stage = Stage::active(State::SecondaryActive, SETTINGS).await;
    stage.hears(room(Some("full"))).await;
    let told = stage.record.take().await;
    let farewell = PeerMessage::Refused(Refusal::new(Code::DISK_FULL, "full"));
    assert_eq!(
        told[..5],
        [
            Told::Alert(DISK_FULL),
            pings(PingEffect::Stop),
            Told::Sender(SenderEffect::Close { farewell: Some(farewell) }),
            status(ConnectStatus::Broken),
            Told::Entered(State::SecondaryActive, State::SecondaryAlone),
        ]
    );
    assert!(told[5..].iter().all(|told| *told == refuse_writers()), "{told:?}");
    stage.hears(room(None)).await;
    stage.expect(&[Told::Alert(DISK_ROOM), refuse_writers()]).await;
}

async fn shut_down(stage: &mut Stage) -> Receiver<Answer> {
    stage.number();
    let (reply, answer) = bounded(1);
    stage.tells(SupervisorMessage::ShutDown { reply }).await;
    answer
}

fn no_writers() -> Told {
    admit(Admission::Refuse(Code::SHUTDOWN))
}

#[actix::test]
async fn shutdown_of_the_primary_leaves_the_secondary_in_order() {
    let mut stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    let answer = shut_down(&mut stage).await;
    stage
        .expect(&[
            no_writers(),
            status(ConnectStatus::Disconnecting),
            pings(PingEffect::Stop),
            Told::Sender(SenderEffect::Close { farewell: Some(PeerMessage::Disconnected) }),
            status(ConnectStatus::Broken),
            Told::Entered(State::PrimaryActive, State::PrimaryAlone),
            no_writers(),
            flush(),
        ])
        .await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0);
}

#[actix::test]
async fn shutdown_of_the_secondary_waits_for_the_primary_to_let_it_go() {
    let mut stage = Stage::active(State::SecondaryActive, SETTINGS).await;
    let answer = shut_down(&mut stage).await;
    stage
        .expect(&[no_writers(), status(ConnectStatus::Disconnecting), tell(PeerMessage::AskDisconnect)])
        .await;
    assert!(answer.is_empty());
    stage.peer_says(PeerMessage::Disconnected).await;
    stage
        .expect(&[
            pings(PingEffect::Stop),
            Told::Sender(SenderEffect::Close { farewell: None }),
            status(ConnectStatus::Broken),
            Told::Entered(State::SecondaryActive, State::SecondaryAlone),
            no_writers(),
        ])
        .await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0);
}

#[actix::test]
async fn shutdown_of_a_server_that_is_alone_is_done_at_once() {
    let mut stage = Stage::primary_alone(SETTINGS).await;
    let answer = shut_down(&mut stage).await;
    stage.expect(&[no_writers()]).await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0);
}
