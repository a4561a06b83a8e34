//! A supervisor with its heart, everybody else a probe: the stage of most flows.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use actix::prelude::*;
use crossbeam_channel::{Receiver, bounded};
use hotstandby::actors::log_writer::LogWriterMessage;
use hotstandby::actors::supervisor::{Peers, Supervisor, SupervisorMessage};
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::{
    Admission, ApplierEffect, ConnectStatus, LogWriterEffect, NodeEffect, PingEffect, WriterEffect,
};
use hotstandby::hsb::event::{Command, Event, Hello, LinkId, PeerMessage, Purpose, RequestId};
use hotstandby::hsb::heart::Heart;
use hotstandby::hsb::position::Position;
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::settings::{
    AcknowledgePolicy, AcknowledgeRule, DurabilityLevel, PairSettings, SafenessLevel, SameSettings, Settings,
};
use hotstandby::hsb::state::State;
use hotstandby::services::context::Answer;
use hotstandby::storage::batch::{Batch, BatchHeader};
use hotstandby::stream::Stream;

use crate::probes::{Probe, Record, Told, World, applier, pings};

pub const PAIR: PairSettings = PairSettings {
    acknowledge_policy: AcknowledgePolicy::Received,
    ping_interval_ms: 1000,
    ping_timeout_ms: 4000,
};
pub const SETTINGS: Settings = Settings {
    safeness: SafenessLevel::TwoSafe,
    durability: DurabilityLevel::Adaptive,
    auto_primary_alone: false,
    has_connect_string: true,
    pair: PAIR,
    maximum_log_bytes: None,
    same: SameSettings { connect_timeout_ms: 0, page_bytes: 4096, backup_block_bytes: 65536 },
};
pub const RULE: AcknowledgeRule = AcknowledgeRule { policy: AcknowledgePolicy::Received, strict: false };
pub const DATABASE: [u8; 16] = [7; 16];

pub struct Stage {
    pub record: Record,
    pub supervisor: Addr<Supervisor>,
    pub link: LinkId,
    /// Requests and links share one count.
    last_number: u64,
}

impl Stage {
    pub async fn new(state: State, settings: Settings) -> Stage {
        let record = Record::default();
        let heart = Heart::new(state, settings, DATABASE, Position::ORIGIN, Position::ORIGIN);
        let probe = record.probe();
        let supervisor = Supervisor::new(heart, peers(&probe), Box::new(World(probe))).start();
        record.take().await;
        Stage { record, supervisor, link: 0, last_number: 0 }
    }

    pub async fn primary_alone(settings: Settings) -> Stage {
        let mut stage = Stage::new(State::SecondaryAlone, settings).await;
        stage.operator(Command::SetPrimaryAlone).await;
        stage.drained(Position::ORIGIN).await;
        assert!(
            stage.record.take().await.contains(&Told::Entered(State::SecondaryAlone, State::PrimaryAlone))
        );
        stage
    }

    /// Up to PRIMARY ACTIVE, or SECONDARY ACTIVE.
    pub async fn active(role: State, settings: Settings) -> Stage {
        let stage = if role == State::PrimaryActive {
            let mut stage = Stage::primary_alone(settings).await;
            stage.operator(Command::Connect).await;
            stage.dial_succeeds(Purpose::Connect, State::SecondaryAlone).await;
            stage.hears(Event::HistoryChecked { link: stage.link, result: Ok(()) }).await;
            stage.hears(Event::CatchupNearEnd { link: stage.link }).await;
            stage.peer_says(PeerMessage::Active).await;
            stage
        } else {
            let mut stage = Stage::new(State::SecondaryAlone, settings).await;
            stage.operator(Command::Connect).await;
            stage.drained(Position::ORIGIN).await;
            stage.dial_succeeds(Purpose::Connect, State::PrimaryAlone).await;
            stage.peer_says(PeerMessage::Accept { pair: PAIR }).await;
            stage.peer_says(PeerMessage::GoActive { position: Position::ORIGIN }).await;
            stage.drained(Position::ORIGIN).await;
            stage
        };
        let told = stage.record.take().await;
        assert!(told.iter().any(|told| matches!(told, Told::Entered(_, to) if *to == role)), "{told:#?}");
        stage
    }

    pub async fn tells(&self, message: SupervisorMessage) {
        self.supervisor.send(message).await.unwrap();
    }

    pub fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// What the operator is answered, when there is an answer.
    pub async fn operator(&mut self, command: Command) -> Receiver<Answer> {
        self.number();
        let (reply, answer) = bounded(1);
        self.tells(SupervisorMessage::Operator { command, reply }).await;
        answer
    }

    /// The last command's dial has reached a peer in this state.
    pub async fn dial_succeeds(&mut self, purpose: Purpose, state: State) {
        let request: RequestId = self.last_number;
        if purpose == Purpose::Connect {
            self.link = self.number();
        }
        let outcome = Ok((Box::new(streams().0) as Box<_>, hello(state)));
        self.tells(SupervisorMessage::DialEnded { request, purpose, outcome }).await;
    }

    pub async fn dial_fails(&self, purpose: Purpose, why: Refusal) {
        let request: RequestId = self.last_number;
        self.tells(SupervisorMessage::DialEnded { request, purpose, outcome: Err(why) }).await;
    }

    pub async fn hears(&self, event: Event) {
        self.tells(SupervisorMessage::Event(event)).await;
    }

    /// The applier has drained.
    pub async fn drained(&self, position: Position) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let ticket = self.record.ticket();
        self.hears(Event::Drained { ticket, position }).await;
    }

    pub async fn peer_says(&self, message: PeerMessage) {
        self.hears(Event::PeerSays { link: self.link, message }).await;
    }

    pub async fn expect(&self, told: &[Told]) {
        assert_eq!(self.record.take().await, told);
    }
}

fn peers(probe: &Addr<Probe>) -> Peers {
    Peers {
        log_writer: probe.clone().recipient(),
        sender: probe.clone().recipient(),
        applier: probe.clone().recipient(),
        monitor: probe.clone().recipient(),
    }
}

/// What the other server says of itself.
pub fn hello(state: State) -> Hello {
    Hello { database_id: DATABASE, state, position: Position::ORIGIN, log_end: Position::ORIGIN, pair: PAIR }
}

/// The two ends of a connection: this node's and the peer's.
pub fn streams() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Stream::connect(listener.local_addr().unwrap(), None).unwrap();
    (one, listener.accept().unwrap().0)
}

/// Waits for as many bytes as `bytes` has.
pub fn read(stream: &mut TcpStream, bytes: &mut [u8]) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.read_exact(bytes).unwrap();
}

pub fn batch(before: Position, needs_acknowledgement: bool) -> Batch {
    Batch::seal(BatchHeader { before, epoch: 1, count: 1, needs_acknowledgement }, b"changes").unwrap()
}

pub fn admit(admission: Admission) -> Told {
    Told::Writer(WriterEffect::Admit(admission))
}

pub fn refuse_writers() -> Told {
    admit(Admission::Refuse(Code::NOT_ON_SECONDARY))
}

pub fn status(status: ConnectStatus) -> Told {
    Told::Node(NodeEffect::ConnectStatus(status))
}

pub fn follow(link: LinkId, position: Position) -> Told {
    applier(ApplierEffect::Follow { link, position, rule: RULE })
}

pub fn start_pings(link: LinkId) -> Told {
    pings(PingEffect::Start { link, pair: PAIR })
}

pub fn drain(ticket: u64, with_pending: bool) -> Told {
    applier(ApplierEffect::Drain { ticket, with_pending })
}

pub fn flush() -> Told {
    Told::LogWriter(LogWriterMessage::Do(LogWriterEffect::Flush))
}

/// By a node in this state.
pub fn dial(request: RequestId, purpose: Purpose, state: State) -> Told {
    Told::Node(NodeEffect::Dial { request, purpose, hello: hello(state) })
}

pub fn begin_history(position: Position, epoch: u64) -> Told {
    Told::Writer(WriterEffect::BeginHistory { position, epoch })
}
