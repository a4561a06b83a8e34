//! The supervisor with its heart: a 2-safe commit, a switchover at either side, a ping timeout.

use std::net::TcpListener;

use actix::prelude::*;
use crossbeam_channel::{Receiver, bounded};
use hotstandby::actors::supervisor::{Outside, Peers, Supervisor, SupervisorMessage};
use hotstandby::hsb::effect::{CopyKind, NodeEffect, WriterEffect};
use hotstandby::hsb::event::{Command, Event, Hello, PeerMessage, Purpose};
use hotstandby::hsb::heart::Heart;
use hotstandby::hsb::position::Position;
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::settings::{
    AcknowledgePolicy, Durability, DurabilityLevel, PairSettings, Safeness, SafenessLevel, SameSettings,
    Settings,
};
use hotstandby::hsb::state::State;
use hotstandby::services::context::Answer;
use hotstandby::storage::batch::{Batch, BatchHeader};
use hotstandby::storage::writer::{Submission, WriterRequest};
use hotstandby::stream::Stream;

use crate::probes::{Line, Probe, Record};

const PAIR: PairSettings = PairSettings {
    acknowledge_policy: AcknowledgePolicy::Received,
    ping_interval_ms: 1000,
    ping_timeout_ms: 4000,
};
const SETTINGS: Settings = Settings {
    safeness: SafenessLevel::TwoSafe,
    durability: DurabilityLevel::Adaptive,
    auto_primary_alone: false,
    has_connect_string: true,
    pair: PAIR,
    maximum_log_bytes: None,
    same: SameSettings { connect_timeout_ms: 0, page_bytes: 4096, backup_block_bytes: 65536 },
};

/// The supervisor's world, written down.
struct World(Addr<Probe>);

impl World {
    fn add(&self, line: String) {
        self.0.do_send(Line(line));
    }
}

impl Outside for World {
    fn tell_writer(&mut self, effect: WriterEffect) {
        self.add(match effect {
            WriterEffect::Decide(decision) => format!("writer <- {decision:?}"),
            WriterEffect::Admit(admission) => format!("writer <- admit {admission:?}"),
            WriterEffect::BeginHistory { position, epoch } => {
                format!("writer <- history from {} in epoch {epoch}", position.sequence)
            }
        });
    }
    fn carry_out(&mut self, effect: NodeEffect) {
        self.add(match effect {
            NodeEffect::Entered(change) => format!("everybody <- {} -> {}", change.from, change.to),
            NodeEffect::Alert { name, .. } => format!("everybody <- {name}"),
            NodeEffect::Dial { purpose, .. } => format!("network <- dial to {purpose:?}"),
            NodeEffect::Rewind => "storage <- rewind".into(),
            NodeEffect::SendCopy { .. } => "storage <- send copy".into(),
            NodeEffect::CloseSessions(_) => "sessions <- close".into(),
            NodeEffect::Stop { why } => format!("process <- stop: {why}"),
            NodeEffect::ConnectStatus(_) | NodeEffect::Note { .. } => return,
        });
    }
    fn write_copy(&mut self, _: CopyKind, _: std::path::PathBuf) {}
    fn publish(&mut self, _: &Heart) {}
    fn netcopy_ended(&mut self, _: &Result<(), Refusal>) {}
}

fn peers(probe: &Addr<Probe>) -> Peers {
    Peers {
        log_writer: probe.clone().recipient(),
        sender: probe.clone().recipient(),
        applier: probe.clone().recipient(),
        monitor: probe.clone().recipient(),
    }
}

struct Stage {
    record: Record,
    supervisor: Addr<Supervisor>,
    link: u64,
}

impl Stage {
    async fn new(settings: Settings) -> Stage {
        let record = Record::default();
        let heart = Heart::new(State::SecondaryAlone, settings, [7; 16], Position::ORIGIN, Position::ORIGIN);
        let probe = record.probe();
        let world = Box::new(World(probe.clone()));
        let supervisor = Supervisor::new(heart, peers(&probe), world).start();
        assert_eq!(record.take().await, ["writer <- admit Refuse(Code(10045))"]);
        Stage { record, supervisor, link: 0 }
    }

    async fn operator(&self, command: Command) -> Receiver<Answer> {
        let (reply, answer) = bounded(1);
        self.supervisor.send(SupervisorMessage::Operator { command, reply }).await.unwrap();
        answer
    }

    async fn hears(&self, event: Event) {
        self.supervisor.send(SupervisorMessage::Event(event)).await.unwrap();
    }

    async fn drained(&self, position: Position) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let ticket = self.record.ticket();
        self.hears(Event::Drained { ticket, position }).await;
    }

    async fn peer_says(&self, message: PeerMessage) {
        self.hears(Event::PeerSays { link: self.link, message }).await;
    }

    async fn expect(&self, lines: &[&str]) {
        assert_eq!(self.record.take().await, lines);
    }

    /// Up to PRIMARY ACTIVE, or SECONDARY ACTIVE.
    async fn active(role: State, settings: Settings) -> Stage {
        let mut stage = Stage::new(settings).await;
        if role == State::PrimaryActive {
            stage.operator(Command::SetPrimaryAlone).await;
            stage.drained(Position::ORIGIN).await;
        }
        stage.operator(Command::Connect).await;
        if role == State::SecondaryActive {
            stage.drained(Position::ORIGIN).await;
        }
        // Requests and links share one count: so many commands were given before the link came.
        stage.link = if role == State::PrimaryActive { 3 } else { 2 };
        let state = if role == State::PrimaryActive { State::SecondaryAlone } else { State::PrimaryAlone };
        let hello = Hello {
            database_id: [7; 16],
            state,
            position: Position::ORIGIN,
            log_end: Position::ORIGIN,
            pair: PAIR,
        };
        stage
            .supervisor
            .send(SupervisorMessage::DialEnded {
                request: stage.link - 1,
                purpose: Purpose::Connect,
                outcome: Ok((Box::new(a_stream()), hello)),
            })
            .await
            .unwrap();
        if role == State::PrimaryActive {
            stage.hears(Event::HistoryChecked { link: stage.link, result: Ok(()) }).await;
            stage.hears(Event::CatchupNearEnd { link: stage.link }).await;
            stage.peer_says(PeerMessage::Active).await;
        } else {
            stage.peer_says(PeerMessage::Accept { pair: PAIR }).await;
            stage.peer_says(PeerMessage::GoActive { position: Position::ORIGIN }).await;
            stage.drained(Position::ORIGIN).await;
        }
        let told = stage.record.take().await;
        assert!(told.iter().any(|line| line.ends_with(&format!("-> {role}"))), "{told:#?}");
        stage
    }
}

fn a_stream() -> Stream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Stream::connect(listener.local_addr().unwrap(), None).unwrap()
}

fn submission(before: Position) -> (Submission, Position) {
    let header = BatchHeader { before, epoch: 1, count: 1, needs_acknowledgement: true };
    let batch = Batch::seal(header, b"changes").unwrap();
    let after = batch.after;
    (Submission { batch, safeness: Safeness::Default, durability: Durability::Default }, after)
}

#[actix::test]
async fn two_safe_commit() {
    let stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    let (submission, after) = submission(Position::ORIGIN);
    stage.supervisor.send(SupervisorMessage::Writer(WriterRequest::Submit(submission))).await.unwrap();
    stage.expect(&["log writer <- append 1, to be acknowledged", "sender <- batch 1"]).await;

    stage.hears(Event::Logged { position: after, durable: false }).await;
    stage.expect(&[]).await;
    // Nobody can take it back any more: it was sent (10083).
    stage.supervisor.send(SupervisorMessage::Writer(WriterRequest::Withdraw)).await.unwrap();
    stage.expect(&[]).await;
    stage.hears(Event::Acknowledged { position: after }).await;
    stage.expect(&["writer <- Commit"]).await;
}

#[actix::test]
async fn two_safe_commit_with_strict_durability_waits_for_both() {
    let settings = Settings { durability: DurabilityLevel::Strict, ..SETTINGS };
    for acknowledged_first in [true, false] {
        let stage = Stage::active(State::PrimaryActive, settings).await;
        let (submission, after) = submission(Position::ORIGIN);
        stage.supervisor.send(SupervisorMessage::Writer(WriterRequest::Submit(submission))).await.unwrap();
        stage.expect(&["log writer <- append 1, sync, to be acknowledged", "sender <- batch 1"]).await;
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
        stage.expect(&["writer <- Commit"]).await;
    }
}

#[actix::test]
async fn switchover_at_the_old_primary() {
    let stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    let (submission, after) = submission(Position::ORIGIN);
    stage.supervisor.send(SupervisorMessage::Writer(WriterRequest::Submit(submission))).await.unwrap();
    stage.record.take().await;
    let answer = stage.operator(Command::SwitchSecondary).await;
    assert_eq!(answer.try_recv().unwrap()[0].0, 0);
    // Writers are out at once, but the batch under way comes first.
    stage.expect(&["writer <- admit Refuse(Code(10013))"]).await;
    stage.hears(Event::Logged { position: after, durable: false }).await;
    stage.hears(Event::Acknowledged { position: after }).await;
    stage.expect(&["writer <- Commit", "sender <- HandOver at 1"]).await;
    stage.peer_says(PeerMessage::TakeOver).await;
    stage
        .expect(&[
            "everybody <- PRIMARY ACTIVE -> SECONDARY ACTIVE",
            "writer <- admit Refuse(Code(10045))",
            "applier <- follow from 1",
            "sender <- HandedOver",
        ])
        .await;
}

#[actix::test]
async fn switchover_at_the_new_primary() {
    let stage = Stage::active(State::SecondaryActive, SETTINGS).await;
    stage.peer_says(PeerMessage::HandOver { position: Position::ORIGIN }).await;
    stage.expect(&["applier <- drain, with pending: false"]).await;
    stage.drained(Position::ORIGIN).await;
    stage.expect(&["sender <- TakeOver"]).await;
    stage.peer_says(PeerMessage::HandedOver).await;
    stage
        .expect(&[
            "everybody <- SECONDARY ACTIVE -> PRIMARY ACTIVE",
            "writer <- history from 0 in epoch 1",
            "writer <- admit Open",
        ])
        .await;
}

#[actix::test]
async fn a_switchover_that_breaks_ends_in_secondary_alone_on_either_side() {
    let stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    stage.operator(Command::SwitchSecondary).await;
    stage.hears(Event::LinkLost { link: stage.link, why: "test".into() }).await;
    let told = stage.record.take().await;
    assert!(told.contains(&"everybody <- PRIMARY ACTIVE -> SECONDARY ALONE".into()), "{told:#?}");

    let stage = Stage::active(State::SecondaryActive, SETTINGS).await;
    stage.peer_says(PeerMessage::HandOver { position: Position::ORIGIN }).await;
    stage.drained(Position::ORIGIN).await;
    stage.hears(Event::LinkLost { link: stage.link, why: "test".into() }).await;
    let told = stage.record.take().await;
    assert!(told.contains(&"everybody <- SECONDARY ACTIVE -> SECONDARY ALONE".into()), "{told:#?}");
}

#[actix::test]
async fn ping_timeout_with_a_commit_under_way() {
    let stage = Stage::active(State::PrimaryActive, SETTINGS).await;
    let (submission, after) = submission(Position::ORIGIN);
    stage.supervisor.send(SupervisorMessage::Writer(WriterRequest::Submit(submission))).await.unwrap();
    stage.hears(Event::Logged { position: after, durable: false }).await;
    stage.record.take().await;
    stage.hears(Event::LinkLost { link: stage.link, why: "30555: ping timeout".into() }).await;
    stage
        .expect(&[
            "ping monitor <- stop",
            "sender <- close, farewell None",
            "everybody <- PRIMARY ACTIVE -> PRIMARY UNCERTAIN",
            "writer <- admit Wait(Code(10089))",
            "log writer <- flush",
        ])
        .await;
    // The log being on disk does not decide it; the operator does.
    stage.hears(Event::Logged { position: after, durable: true }).await;
    stage.expect(&[]).await;
    stage.operator(Command::SetPrimaryAlone).await;
    stage
        .expect(&[
            "everybody <- PRIMARY UNCERTAIN -> PRIMARY ALONE",
            "writer <- admit Open",
            "writer <- CommitAlone",
        ])
        .await;
}

#[actix::test]
async fn trap_09_ping_timeout_with_auto_primary_alone_flushes_before_it_answers() {
    let stage = Stage::active(State::PrimaryActive, Settings { auto_primary_alone: true, ..SETTINGS }).await;
    let (submission, after) = submission(Position::ORIGIN);
    stage.supervisor.send(SupervisorMessage::Writer(WriterRequest::Submit(submission))).await.unwrap();
    stage.hears(Event::Logged { position: after, durable: false }).await;
    stage.record.take().await;
    stage.hears(Event::LinkLost { link: stage.link, why: "30555: ping timeout".into() }).await;
    let told = stage.record.take().await;
    assert!(told.contains(&"everybody <- PRIMARY ACTIVE -> PRIMARY ALONE".into()), "{told:#?}");
    assert!(
        told.contains(&"log writer <- flush".into()) && !told.contains(&"writer <- CommitAlone".into()),
        "{told:#?}"
    );
    stage.hears(Event::Logged { position: after, durable: true }).await;
    stage.expect(&["writer <- CommitAlone"]).await;
}
