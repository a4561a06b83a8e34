//! The ping monitor: signs of life in both directions. Any message of the peer counts as one.

use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use super::replication_sender::SenderMessage;
use super::supervisor::SupervisorMessage;
use crate::hsb::effect::{PingEffect, SenderEffect};
use crate::hsb::event::{Event, LinkId, PeerMessage};
use crate::hsb::settings::PairSettings;

/// All that the ping monitor can be told.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub enum PingMessage {
    /// From the supervisor: what the heart wants.
    Do(PingEffect),
    /// From the connection: something came in.
    Heard {
        /// On which connection.
        link: LinkId,
    },
}

struct Watch {
    link: LinkId,
    pair: PairSettings,
    heard: Instant,
    pings: SpawnHandle,
    look: SpawnHandle,
}

/// See the module.
pub struct PingMonitor {
    /// Sends the pings.
    pub sender: Recipient<SenderMessage>,
    /// Hears of silence.
    pub supervisor: Recipient<SupervisorMessage>,
    watch: Option<Watch>,
}

impl PingMonitor {
    /// A monitor that watches nothing yet.
    pub fn new(sender: Recipient<SenderMessage>, supervisor: Recipient<SupervisorMessage>) -> PingMonitor {
        PingMonitor { sender, supervisor, watch: None }
    }

    /// Tells of a silence that has lasted long enough; looks again when one could have.
    fn look(&mut self, context: &mut Context<Self>) {
        let Some(watch) = &mut self.watch else { return };
        let (silence, timeout) = (watch.heard.elapsed(), Duration::from_millis(watch.pair.ping_timeout_ms));
        if silence < timeout {
            watch.look = context.run_later(timeout - silence, Self::look);
        } else {
            let why = format!("30555: ping timeout, nothing heard for {} ms", silence.as_millis());
            self.supervisor.do_send(SupervisorMessage::Event(Event::LinkLost { link: watch.link, why }));
        }
    }

    fn stop(&mut self, context: &mut Context<Self>) -> Option<Watch> {
        let watch = self.watch.take()?;
        context.cancel_future(watch.pings);
        context.cancel_future(watch.look);
        Some(watch)
    }

    fn start(&mut self, link: LinkId, pair: PairSettings, context: &mut Context<Self>) {
        let before = self.stop(context);
        if pair.ping_timeout_ms == 0 {
            return;
        }
        let heard = before.filter(|watch| watch.link == link).map_or_else(Instant::now, |watch| watch.heard);
        // At least twice within the time-out, so that one late ping is no silence.
        let tick_ms = pair.ping_interval_ms.min(pair.ping_timeout_ms.div_ceil(2)).max(5);
        let pings = context.run_interval(Duration::from_millis(tick_ms), |monitor, _| monitor.ping());
        // At its end and not with the next ping, because failover waits for it.
        let look = context.run_later(Duration::ZERO, Self::look);
        self.watch = Some(Watch { link, pair, heard, pings, look });
        self.ping();
    }

    fn ping(&self) {
        self.sender.do_send(SenderMessage::Do(SenderEffect::Tell(PeerMessage::Ping)));
    }
}

impl Actor for PingMonitor {
    type Context = Context<Self>;
}

impl Handler<PingMessage> for PingMonitor {
    type Result = ();
    fn handle(&mut self, message: PingMessage, context: &mut Context<Self>) {
        match message {
            PingMessage::Do(PingEffect::Start { link, pair }) => self.start(link, pair, context),
            PingMessage::Do(PingEffect::Stop) => drop(self.stop(context)),
            PingMessage::Heard { link } => {
                if let Some(watch) = self.watch.as_mut().filter(|watch| watch.link == link) {
                    watch.heard = Instant::now();
                }
            }
        }
    }
}
