//! The ping monitor, in virtual time.

use std::time::Duration;

use actix::prelude::*;
use hotstandby::actors::ping_monitor::{PingMessage, PingMonitor};
use hotstandby::hsb::effect::PingEffect;
use hotstandby::hsb::event::{Event, PeerMessage};
use hotstandby::hsb::settings::PairSettings;

use crate::probes::{Record, Told, tell};
use crate::stage::PAIR;

/// The supervisor hears that connection 7 is silent.
fn is_lost(told: &Told) -> bool {
    matches!(told, Told::Event(Event::LinkLost { link: 7, why }) if why.starts_with("30555: ping timeout"))
}

fn monitor(record: &Record) -> Addr<PingMonitor> {
    let probe = record.probe();
    PingMonitor::new(probe.clone().recipient(), probe.recipient()).start()
}

#[actix::test]
async fn silence_is_told_to_the_supervisor_after_the_ping_timeout() {
    tokio::time::pause();
    let record = Record::default();
    let monitor = monitor(&record);
    monitor.send(PingMessage::Do(PingEffect::Start { link: 7, pair: PAIR })).await.unwrap();
    assert_eq!(record.take().await, [tell(PeerMessage::Ping)]);

    tokio::time::sleep(Duration::from_millis(3900)).await;
    let told = record.take().await;
    assert!(told.iter().all(|told| *told == tell(PeerMessage::Ping)) && told.len() >= 3, "{told:?}");

    tokio::time::sleep(Duration::from_millis(200)).await;
    let told = record.take().await;
    assert!(is_lost(told.last().unwrap()), "{told:?}");
}

/// A failover waits for it.
#[actix::test]
async fn silence_is_noticed_when_it_has_lasted_long_enough_and_not_with_the_next_ping() {
    tokio::time::pause();
    let record = Record::default();
    let monitor = monitor(&record);
    monitor.send(PingMessage::Do(PingEffect::Start { link: 7, pair: PAIR })).await.unwrap();
    tokio::time::sleep(Duration::from_millis(130)).await;
    monitor.send(PingMessage::Heard { link: 7 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3990)).await;
    assert!(record.take().await.iter().all(|told| *told == tell(PeerMessage::Ping)));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let told = record.take().await;
    assert!(told.iter().any(is_lost), "{told:?}");
}

#[actix::test]
async fn any_message_counts_as_a_sign_of_life() {
    tokio::time::pause();
    let record = Record::default();
    let monitor = monitor(&record);
    monitor.send(PingMessage::Do(PingEffect::Start { link: 7, pair: PAIR })).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(3000)).await;
        monitor.send(PingMessage::Heard { link: 7 }).await.unwrap();
    }
    assert!(record.take().await.iter().all(|told| *told == tell(PeerMessage::Ping)));

    // Signs of life on another, older connection do not count.
    for _ in 0..3 {
        monitor.send(PingMessage::Heard { link: 6 }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2000)).await;
    }
    assert!(record.take().await.iter().any(is_lost));
}

#[actix::test]
async fn a_connection_that_is_not_watched_is_not_missed() {
    tokio::time::pause();
    let record = Record::default();
    let monitor = monitor(&record);
    monitor.send(PingMessage::Do(PingEffect::Start { link: 7, pair: PAIR })).await.unwrap();
    monitor.send(PingMessage::Do(PingEffect::Stop)).await.unwrap();
    record.take().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(record.take().await, []);

    monitor
        .send(PingMessage::Do(PingEffect::Start {
            link: 8,
            pair: PairSettings { ping_timeout_ms: 0, ..PAIR },
        }))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(record.take().await, [], "PingTimeout=0 means no pinging");
}
