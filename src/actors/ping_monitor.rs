//! The ping monitor: signs of life in both directions. Any message of the peer counts as one.

use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use super::replication_sender::Tell;
use super::supervisor::LinkEnded;
use crate::hsb::event::{LinkId, PeerMessage};
use crate::hsb::settings::PairSettings;

/// From the supervisor: watch this connection from now on.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct StartPings {
    /// Which connection.
    pub link: LinkId,
    /// Interval and time-out; the primary's rule.
    pub pair: PairSettings,
}

/// From the supervisor: the connection is gone.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct StopPings;

/// From the connection: something came in.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct Heard {
    /// On which connection.
    pub link: LinkId,
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
    pub sender: Recipient<Tell>,
    /// Hears of silence: the supervisor.
    pub silent: Recipient<LinkEnded>,
    watch: Option<Watch>,
}

impl PingMonitor {
    /// A monitor that watches nothing yet.
    pub fn new(sender: Recipient<Tell>, silent: Recipient<LinkEnded>) -> PingMonitor {
        PingMonitor { sender, silent, watch: None }
    }

    /// Tells of a silence that has lasted long enough; looks again when one could have.
    fn look(&mut self, context: &mut Context<Self>) {
        let Some(watch) = &mut self.watch else { return };
        let (silence, timeout) = (watch.heard.elapsed(), Duration::from_millis(watch.pair.ping_timeout_ms));
        if silence < timeout {
            watch.look = context.run_later(timeout - silence, Self::look);
        } else {
            let why = format!("30555: ping timeout, nothing heard for {} ms", silence.as_millis());
            self.silent.do_send(LinkEnded { link: watch.link, why });
        }
    }

    fn stop(&mut self, context: &mut Context<Self>) -> Option<Watch> {
        let watch = self.watch.take()?;
        context.cancel_future(watch.pings);
        context.cancel_future(watch.look);
        Some(watch)
    }
}

impl Actor for PingMonitor {
    type Context = Context<Self>;
}

impl Handler<StartPings> for PingMonitor {
    type Result = ();
    fn handle(&mut self, StartPings { link, pair }: StartPings, context: &mut Context<Self>) {
        let before = self.stop(context);
        if pair.ping_timeout_ms == 0 {
            return;
        }
        let heard = before.filter(|watch| watch.link == link).map_or_else(Instant::now, |watch| watch.heard);
        // At least twice within the time-out, so that one late ping is no silence.
        let tick_ms = pair.ping_interval_ms.min(pair.ping_timeout_ms.div_ceil(2)).max(5);
        let pings = context.run_interval(Duration::from_millis(tick_ms), |monitor, _| {
            monitor.sender.do_send(Tell(PeerMessage::Ping));
        });
        // At its end and not with the next ping, because failover waits for it.
        let look = context.run_later(Duration::ZERO, Self::look);
        self.watch = Some(Watch { link, pair, heard, pings, look });
        self.sender.do_send(Tell(PeerMessage::Ping));
    }
}

impl Handler<StopPings> for PingMonitor {
    type Result = ();
    fn handle(&mut self, _: StopPings, context: &mut Context<Self>) {
        self.stop(context);
    }
}

impl Handler<Heard> for PingMonitor {
    type Result = ();
    fn handle(&mut self, Heard { link }: Heard, _: &mut Context<Self>) {
        if let Some(watch) = &mut self.watch
            && watch.link == link
        {
            watch.heard = Instant::now();
        }
    }
}
