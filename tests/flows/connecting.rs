//! The supervisor: how a connection begins, and how it ends.

use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::{Admission, ApplierEffect, ConnectStatus, PingEffect, SenderEffect};
use hotstandby::hsb::event::{Command, Event, PeerMessage, Purpose};
use hotstandby::hsb::position::Position;
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::state::State;
use hotstandby::net::peer::handshake;

use crate::probes::{Told, applier, pings, tell};
use crate::stage::{
    PAIR, SETTINGS, Stage, admit, begin_history, dial, drain, flush, follow, hello, refuse_writers,
    start_pings, status, streams,
};

const ORIGIN: Position = Position::ORIGIN;

#[actix::test]
async fn connect_with_catchup_at_the_primary() {
    let mut stage = Stage::primary_alone(SETTINGS).await;
    let answer = stage.operator(Command::Connect).await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0, "it goes on in the background");
    stage.expect(&[status(ConnectStatus::Connecting), dial(2, Purpose::Connect, State::PrimaryAlone)]).await;
    stage.dial_succeeds(Purpose::Connect, State::SecondaryAlone).await;
    let check = Told::Sender(SenderEffect::CheckHistory(ORIGIN));
    stage.expect(&[Told::SenderAttach(3), start_pings(3), check]).await;
    stage.hears(Event::HistoryChecked { link: 3, result: Ok(()) }).await;
    stage
        .expect(&[
            tell(PeerMessage::Accept { pair: PAIR }),
            tell(PeerMessage::Settings { settings: SETTINGS }),
            Told::Sender(SenderEffect::StartCatchup),
            status(ConnectStatus::Catchup),
        ])
        .await;
    stage.hears(Event::CatchupNearEnd { link: 3 }).await;
    stage.expect(&[tell(PeerMessage::GoActive { position: ORIGIN })]).await;
    stage.peer_says(PeerMessage::Active).await;
    stage
        .expect(&[
            Told::Sender(SenderEffect::StopCatchup),
            Told::Entered(State::PrimaryAlone, State::PrimaryActive),
            admit(Admission::Open),
            status(ConnectStatus::Connected),
        ])
        .await;
}

#[actix::test]
async fn connect_with_catchup_at_the_secondary() {
    let mut stage = Stage::new(State::SecondaryAlone, SETTINGS).await;
    stage.operator(Command::Connect).await;
    stage.expect(&[status(ConnectStatus::Connecting), drain(1, false)]).await;
    stage.drained(ORIGIN).await;
    stage.expect(&[dial(1, Purpose::Connect, State::SecondaryAlone)]).await;
    stage.dial_succeeds(Purpose::Connect, State::PrimaryAlone).await;
    stage.expect(&[Told::SenderAttach(2), start_pings(2)]).await;
    stage.peer_says(PeerMessage::Accept { pair: PAIR }).await;
    stage
        .expect(&[
            tell(PeerMessage::Settings { settings: SETTINGS }),
            follow(2, ORIGIN),
            start_pings(2),
            status(ConnectStatus::Catchup),
        ])
        .await;
    stage.peer_says(PeerMessage::GoActive { position: ORIGIN }).await;
    stage.expect(&[drain(2, false)]).await;
    stage.drained(ORIGIN).await;
    stage
        .expect(&[
            Told::Entered(State::SecondaryAlone, State::SecondaryActive),
            refuse_writers(),
            status(ConnectStatus::Connected),
            tell(PeerMessage::Active),
        ])
        .await;
}

#[actix::test]
async fn a_peer_that_arrives_is_welcomed_or_turned_away() {
    let stage = Stage::primary_alone(SETTINGS).await;
    let (stream, mut peer) = streams();
    let arrived =
        |stream, state| SupervisorMessage::PeerArrived { stream: Box::new(stream), hello: hello(state) };
    stage.tells(arrived(stream, State::SecondaryAlone)).await;
    stage
        .expect(&[
            Told::SenderAttach(2),
            start_pings(2),
            status(ConnectStatus::Connecting),
            Told::Sender(SenderEffect::CheckHistory(ORIGIN)),
        ])
        .await;
    assert_eq!(handshake::read_answer(&mut peer).unwrap(), hello(State::PrimaryAlone));

    // A second primary with the same history.
    let stage = Stage::primary_alone(SETTINGS).await;
    let (stream, mut peer) = streams();
    stage.tells(arrived(stream, State::PrimaryAlone)).await;
    stage.expect(&[]).await;
    assert_eq!(handshake::read_answer(&mut peer).unwrap_err().code, Code::BOTH_PRIMARY);

    // A secondary first drains: its position is what its hello says.
    let stage = Stage::new(State::SecondaryAlone, SETTINGS).await;
    let (stream, mut peer) = streams();
    stage.tells(arrived(stream, State::PrimaryAlone)).await;
    stage.expect(&[drain(1, false)]).await;
    stage.drained(ORIGIN).await;
    stage.expect(&[Told::SenderAttach(1), start_pings(1), status(ConnectStatus::Connecting)]).await;
    assert_eq!(handshake::read_answer(&mut peer).unwrap(), hello(State::SecondaryAlone));
}

/// What the primary does when it leaves the secondary in order.
fn left_by_primary(to: State) -> Vec<Told> {
    vec![
        status(ConnectStatus::Disconnecting),
        pings(PingEffect::Stop),
        Told::Sender(SenderEffect::Close { farewell: Some(PeerMessage::Disconnected) }),
        status(ConnectStatus::Broken),
        Told::Entered(State::PrimaryActive, to),
        admit(Admission::Open),
        flush(),
    ]
}

/// What the secondary does when the connection has ended.
fn left_by_secondary() -> Vec<Told> {
    vec![
        pings(PingEffect::Stop),
        Told::Sender(SenderEffect::Close { farewell: None }),
        status(ConnectStatus::Broken),
        Told::Entered(State::SecondaryActive, State::SecondaryAlone),
        refuse_writers(),
    ]
}

#[actix::test]
async fn disconnect_at_the_primary() {
    let mut stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    let answer = stage.operator(Command::Disconnect).await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0);
    stage.expect(&left_by_primary(State::PrimaryAlone)).await;
}

#[actix::test]
async fn disconnect_that_the_secondary_asks_for() {
    let mut secondary = Stage::active(State::SecondaryActive, SETTINGS).await;
    let answer = secondary.operator(Command::Disconnect).await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0);
    secondary.expect(&[status(ConnectStatus::Disconnecting), tell(PeerMessage::AskDisconnect)]).await;

    let primary = Stage::active(State::PrimaryActive, SETTINGS).await;
    primary.peer_says(PeerMessage::AskDisconnect).await;
    primary.expect(&left_by_primary(State::PrimaryAlone)).await;

    secondary.peer_says(PeerMessage::Disconnected).await;
    secondary.expect(&left_by_secondary()).await;
}

#[actix::test]
async fn standalone_leaves_the_secondary_in_order() {
    let mut stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    let answer = stage.operator(Command::SetStandalone).await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0);
    stage.expect(&left_by_primary(State::Standalone)).await;
}

#[actix::test]
async fn a_secondary_that_loses_its_primary_is_alone() {
    let stage = Stage::active(State::SecondaryActive, SETTINGS).await;
    stage.hears(Event::LinkLost { link: stage.link, why: "test".into() }).await;
    stage.expect(&left_by_secondary()).await;
}

#[actix::test]
async fn fast_failover() {
    let mut stage = Stage::active(State::SecondaryActive, SETTINGS).await;
    let answer = stage.operator(Command::SetPrimaryAlone).await;
    stage
        .expect(&[
            pings(PingEffect::Stop),
            Told::Sender(SenderEffect::Close { farewell: Some(PeerMessage::Promoted) }),
            status(ConnectStatus::Broken),
            drain(3, true),
        ])
        .await;
    assert!(answer.is_empty(), "it is answered when this is the primary");
    stage.drained(ORIGIN).await;
    stage
        .expect(&[
            Told::Entered(State::SecondaryActive, State::PrimaryAlone),
            begin_history(ORIGIN, 1),
            admit(Admission::Open),
        ])
        .await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0);
}

/// R4: who asks first does not take over from a primary that is there.
#[actix::test]
async fn switch_primary_at_a_secondary_alone_asks_the_other_server_first() {
    let mut stage = Stage::new(State::SecondaryAlone, SETTINGS).await;
    stage.operator(Command::SwitchPrimary).await;
    stage.expect(&[dial(1, Purpose::Probe, State::SecondaryAlone)]).await;
    stage.dial_fails(Purpose::Probe, Code::COMMUNICATION_ERROR.into()).await;
    stage.expect(&[drain(1, true)]).await;
    stage.drained(ORIGIN).await;
    stage
        .expect(&[
            Told::Entered(State::SecondaryAlone, State::PrimaryAlone),
            begin_history(ORIGIN, 1),
            admit(Admission::Open),
        ])
        .await;

    for refused in [Code::SWITCH_ACTIVE, Code::SHUTTING_DOWN, Code::OPERATION_FAILED] {
        let mut stage = Stage::new(State::SecondaryAlone, SETTINGS).await;
        let answer = stage.operator(Command::SwitchPrimary).await;
        stage.record.take().await;
        stage.dial_fails(Purpose::Probe, Refusal::new(refused, "test")).await;
        let told = stage.record.take().await;
        assert!(!told.iter().any(|told| matches!(told, Told::Entered(..))), "{told:?}");
        assert!(!told.contains(&applier(ApplierEffect::Drain { ticket: 1, with_pending: true })), "{told:?}");
        assert_ne!(answer.try_recv().unwrap()[0].0, 0);
    }
    let mut stage = Stage::new(State::SecondaryAlone, SETTINGS).await;
    let answer = stage.operator(Command::SwitchPrimary).await;
    stage.record.take().await;
    stage.dial_succeeds(Purpose::Probe, State::PrimaryAlone).await;
    stage.expect(&[]).await;
    assert_ne!(answer.try_recv().unwrap()[0].0, 0);
}

/// The heart has given the dial up: what it brings is of no use.
#[actix::test]
async fn a_dial_that_was_given_up_brings_no_connection() {
    let mut stage = Stage::primary_alone(SETTINGS).await;
    stage.operator(Command::Connect).await;
    let request = 2;
    stage.operator(Command::Disconnect).await;
    stage.record.take().await;
    let outcome = Ok((Box::new(streams().0) as Box<_>, hello(State::SecondaryAlone)));
    stage.tells(SupervisorMessage::DialEnded { request, purpose: Purpose::Connect, outcome }).await;
    let told = stage.record.take().await;
    assert_eq!(told, []);
}
