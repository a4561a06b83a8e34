//! The replication sender, with a real connection and a real log: what leaves, what comes back, catchup.

use std::cell::RefCell;
use std::net::TcpStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hotstandby::actors::catchup::{CatchupReport, CatchupStep, CatchupThread};
use hotstandby::actors::link::LinkRecipients;
use hotstandby::actors::ping_monitor::PingMessage;
use hotstandby::actors::replication_sender::{ReplicationSender, SenderMessage};
use hotstandby::actors::secondary_applier::ApplierMessage;
use hotstandby::codec::{self, FRAME_HEADER_BYTES, FrameKind};
use hotstandby::config::Parameters;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::SenderEffect;
use hotstandby::hsb::event::{Event, PeerMessage};
use hotstandby::hsb::position::Position;
use hotstandby::hsb::refusal::Refusal;
use hotstandby::storage::log::{LogConfiguration, Medium};

use crate::probes::{Record, Told};
use crate::stage::{DATABASE, batch, read, streams};

struct Stage {
    record: Record,
    sender: Addr<ReplicationSender>,
    peer: TcpStream,
    catchups: Rc<RefCell<Vec<CatchupThread>>>,
}

impl Stage {
    /// Attached as connection 1; 1-safe batches are gathered for this long.
    async fn new(one_safe_max_delay: Duration) -> Stage {
        let record = Record::default();
        let probe = record.probe();
        let catchups: Rc<RefCell<Vec<CatchupThread>>> = Rc::default();
        let run = Rc::clone(&catchups);
        let log = LogConfiguration {
            directory: "/nowhere".into(),
            template: "sol#####.log".into(),
            digit: '#',
            segment_size_bytes: 1 << 20,
            database_id: DATABASE,
            maximum_bytes: None,
            medium: Medium::default(),
        };
        let ini = format!("[HotStandby]\n1SafeMaxDelay={}\n", one_safe_max_delay.as_millis());
        let (parameters, _) = Parameters::from_text(Path::new("/nowhere"), &ini).unwrap();
        // What the connection hears goes to the probe, as what the sender reports.
        let recipients = LinkRecipients {
            supervisor: probe.clone().recipient(),
            sender: probe.clone().recipient(),
            applier: probe.clone().recipient(),
            monitor: probe.recipient(),
        };
        let sender = ReplicationSender::new(
            recipients,
            Arc::default(),
            Some(log),
            Box::new(move |thread| run.borrow_mut().push(thread)),
            Arc::default(),
            Arc::new(parameters),
        )
        .start();
        let (stream, peer) = streams();
        sender.send(SenderMessage::Attach { link: 1, stream: Box::new(stream) }).await.unwrap();
        Stage { record, sender, peer, catchups }
    }

    async fn does(&self, effect: SenderEffect) {
        self.sender.send(SenderMessage::Do(effect)).await.unwrap();
    }

    /// The next frame that the peer gets.
    async fn frame(&mut self) -> Vec<u8> {
        let mut peer = self.peer.try_clone().unwrap();
        let next = tokio::task::spawn_blocking(move || {
            let mut frame = vec![0; FRAME_HEADER_BYTES];
            read(&mut peer, &mut frame);
            let (_, length) = codec::frame_length(&frame).unwrap();
            frame.resize(length, 0);
            read(&mut peer, &mut frame[FRAME_HEADER_BYTES..]);
            frame
        });
        next.await.unwrap()
    }

    async fn message(&mut self) -> PeerMessage {
        codec::decode_message(&self.frame().await[FRAME_HEADER_BYTES..]).unwrap()
    }

    /// So much that was told, but for signs of life; the tasks of the connection take their time.
    async fn told(&self, count: usize) -> Vec<Told> {
        let mut told = Vec::new();
        while told.len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let more = self.record.take().await.into_iter();
            told.extend(
                more.filter(|told| !matches!(told, Told::PingMonitor(PingMessage::Heard { link: 1 }))),
            );
        }
        told
    }
}

#[actix::test]
async fn a_batch_leaves_as_it_is_and_its_acknowledgement_is_told_to_the_supervisor() {
    let mut stage = Stage::new(Duration::ZERO).await;
    let one = batch(Position::ORIGIN, true);
    stage.sender.send(SenderMessage::Send(one.clone())).await.unwrap();
    assert_eq!(stage.frame().await, one.bytes);
    stage.sender.send(SenderMessage::Acknowledged { link: 1, position: one.after }).await.unwrap();
    assert_eq!(stage.record.take().await, [Told::Event(Event::Acknowledged { position: one.after })]);
    // Of a connection that is none any more.
    stage.sender.send(SenderMessage::Acknowledged { link: 2, position: one.after }).await.unwrap();
    assert_eq!(stage.record.take().await, []);
}

#[actix::test]
async fn a_1_safe_batch_waits_for_the_one_before_it_and_for_no_message() {
    let mut stage = Stage::new(Duration::from_secs(3600)).await;
    let one = batch(Position::ORIGIN, false);
    let two = batch(one.after, false);
    let three = batch(two.after, false);
    stage.sender.send(SenderMessage::Send(one.clone())).await.unwrap();
    assert_eq!(stage.frame().await, one.bytes, "the secondary is level");
    for batch in [&two, &three] {
        stage.sender.send(SenderMessage::Send(batch.clone())).await.unwrap();
    }
    // A ping takes nothing along.
    stage.does(SenderEffect::Tell(PeerMessage::Ping)).await;
    assert_eq!(stage.message().await, PeerMessage::Ping);
    stage.does(SenderEffect::Tell(PeerMessage::AskDisconnect)).await;
    assert_eq!(stage.frame().await, two.bytes);
    assert_eq!(stage.frame().await, three.bytes);
    assert_eq!(stage.message().await, PeerMessage::AskDisconnect);

    let four = batch(three.after, false);
    stage.sender.send(SenderMessage::Send(four.clone())).await.unwrap();
    stage.sender.send(SenderMessage::Acknowledged { link: 1, position: three.after }).await.unwrap();
    assert_eq!(stage.frame().await, four.bytes, "level again");
}

#[actix::test]
async fn what_is_gathered_leaves_before_the_last_word() {
    let mut stage = Stage::new(Duration::from_secs(3600)).await;
    let one = batch(Position::ORIGIN, false);
    let two = batch(one.after, false);
    for batch in [&one, &two] {
        stage.sender.send(SenderMessage::Send(batch.clone())).await.unwrap();
    }
    stage.does(SenderEffect::Close { farewell: Some(PeerMessage::Disconnected) }).await;
    assert_eq!(stage.frame().await, one.bytes);
    assert_eq!(stage.frame().await, two.bytes);
    assert_eq!(stage.message().await, PeerMessage::Disconnected);
    let mut peer = stage.peer.try_clone().unwrap();
    let end = tokio::task::spawn_blocking(move || std::io::Read::read(&mut peer, &mut [0; 1]).unwrap());
    assert_eq!(end.await.unwrap(), 0);
    // Nobody wants to hear of this connection any more.
    drop(stage.peer);
    assert_eq!(stage.record.take().await, []);
}

#[actix::test]
async fn what_comes_over_the_connection_is_told_to_whom_it_concerns() {
    let mut stage = Stage::new(Duration::ZERO).await;
    let one = batch(Position::ORIGIN, true);
    let say = |message: &PeerMessage| codec::encode_message(FrameKind::Peer, message).unwrap();
    let acknowledge = PeerMessage::Acknowledge { position: one.after };
    let bytes = [say(&acknowledge), say(&PeerMessage::Active), one.bytes.clone()].concat();
    std::io::Write::write_all(&mut stage.peer, &bytes).unwrap();
    let arrived = ApplierMessage::BatchArrived { link: 1, bytes: one.bytes.clone() };
    let active = Event::PeerSays { link: 1, message: PeerMessage::Active };
    assert_eq!(
        stage.told(3).await,
        [Told::SenderAcknowledged(1, 1), Told::Event(active), Told::Applier(arrived)]
    );
    stage.peer.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(stage.told(1).await, [Told::SenderClosed(1)]);
}

#[actix::test]
async fn a_connection_that_has_ended_is_told_to_the_supervisor() {
    let stage = Stage::new(Duration::ZERO).await;
    stage.sender.send(SenderMessage::Closed { link: 1, why: "test".into() }).await.unwrap();
    assert_eq!(stage.record.take().await, [Told::Event(Event::LinkLost { link: 1, why: "test".into() })]);
}

#[actix::test]
async fn catchup_is_prepared_begins_and_stops() {
    let stage = Stage::new(Duration::ZERO).await;
    stage.does(SenderEffect::CheckHistory(Position::ORIGIN)).await;
    assert_eq!(stage.catchups.borrow().len(), 1);
    let report = |report| SenderMessage::Catchup { link: 1, report };
    stage.sender.send(report(CatchupReport::Checked(Ok(())))).await.unwrap();
    stage.sender.send(report(CatchupReport::NearEnd)).await.unwrap();
    let refusal = Refusal::new(Code::LOG_TOO_SHORT, "test");
    stage.sender.send(report(CatchupReport::Checked(Err(refusal.clone())))).await.unwrap();
    assert_eq!(
        stage.record.take().await,
        [
            Told::Event(Event::HistoryChecked { link: 1, result: Ok(()) }),
            Told::Event(Event::CatchupNearEnd { link: 1 }),
            Told::Event(Event::HistoryChecked { link: 1, result: Err(refusal) }),
        ]
    );
    stage.does(SenderEffect::StartCatchup).await;
    stage.does(SenderEffect::StopCatchup).await;
    let mut catchup = stage.catchups.borrow_mut().pop().unwrap();
    assert_eq!(catchup.step(), CatchupStep::Ended);
}
