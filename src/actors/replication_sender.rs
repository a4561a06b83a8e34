//! The replication sender: owns the connection to the peer; batches and messages leave through it, acknowledgements
//! come back through it.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use super::catchup::{self, Catchup, CatchupReport, CatchupThread};
use super::gathering::Gathering;
use super::link::{self, Link, LinkRecipients, PeerStream};
use super::supervisor::{Acknowledged, CatchupSays, LinkEnded};
use crate::counters::Counters;
use crate::hsb::event::{LinkId, PeerMessage};
use crate::hsb::position::Position;
use crate::storage::batch::Batch;
use crate::storage::log::{LogConfiguration, LogMark};

/// From the supervisor: this connection to the peer is the one, its handshake is done.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AttachLink {
    /// Its number.
    pub link: LinkId,
    /// The connection itself.
    pub stream: Box<dyn PeerStream>,
}

/// From the supervisor: a batch for the secondary. Answered, some time, by [`Acknowledged`].
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct SendBatch(pub Batch);

/// From supervisor, applier and ping monitor: a message for the peer.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct Tell(pub PeerMessage);

/// From the supervisor: end the connection after a last word.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct CloseLink {
    /// The last word.
    pub farewell: Option<PeerMessage>,
}

/// From the supervisor: look for the secondary's position in the log. Answered by [`CatchupSays`].
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct CheckHistory(pub Position);

/// From the supervisor: send what the log has after the position that was checked.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct StartCatchup;

/// From the supervisor: no more of that.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct StopCatchup;

/// From the connection: the secondary has everything up to here.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct PeerAcknowledges {
    /// On which connection.
    pub link: LinkId,
    /// Up to here.
    pub position: Position,
}

/// From the connection: it has ended.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct LinkClosed {
    /// Which.
    pub link: LinkId,
    /// For the log.
    pub why: String,
}

/// From the node when a database is there or was replaced: where the log is.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct UseLog(pub LogConfiguration);

/// A report of the catchup thread.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub(super) struct FromCatchup {
    pub(super) link: LinkId,
    pub(super) report: CatchupReport,
}

/// See the module.
pub struct ReplicationSender {
    /// Hears of acknowledgements: the supervisor.
    pub acknowledged: Recipient<Acknowledged>,
    /// Hears of the end of a connection: the supervisor.
    pub ended: Recipient<LinkEnded>,
    /// Hears of catchup: the supervisor.
    pub catchup_says: Recipient<CatchupSays>,
    /// Who hears what arrives on a connection.
    pub recipients: LinkRecipients,
    /// How far the log is.
    pub mark: Arc<LogMark>,
    /// Where the log is.
    pub log: Option<LogConfiguration>,
    /// The connection.
    pub link: Option<Link>,
    /// Runs a catchup beside the actors.
    pub run_catchup: Box<dyn Fn(CatchupThread)>,
    /// Old batches on their way.
    pub catchup: Option<Catchup>,
    /// For `perfmon`.
    pub counters: Arc<Counters>,
    /// HotStandby.1SafeMaxDelay now.
    pub one_safe_max_delay: Box<dyn Fn() -> Duration>,
    /// 1-safe batches that wait a little.
    pub(crate) gathering: Gathering,
    /// When their wait ends.
    pub(crate) timer: Option<(Instant, SpawnHandle)>,
}

impl ReplicationSender {
    /// Sends what waits.
    fn send_gathered(&mut self, context: &mut Context<Self>) {
        if let Some((_, timer)) = self.timer.take() {
            context.cancel_future(timer);
        }
        let batches = self.gathering.take();
        if let Some(link) = &self.link {
            for bytes in batches {
                self.counters.batches_sent.add(1);
                self.counters.bytes_sent.add(bytes.len() as u64);
                link.outgoing.send(bytes);
            }
        }
    }
}

impl Actor for ReplicationSender {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(1024);
    }
}

impl Handler<AttachLink> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, AttachLink { link: id, stream }: AttachLink, _: &mut Context<Self>) {
        self.gathering = Gathering::default();
        match link::start(id, stream, self.recipients.clone()) {
            Ok(link) => self.link = Some(link),
            Err(error) => self.ended.do_send(LinkEnded { link: id, why: error.to_string() }),
        }
    }
}

impl Handler<SendBatch> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, SendBatch(batch): SendBatch, context: &mut Context<Self>) {
        let delay = (self.one_safe_max_delay)();
        if self.gathering.add(&batch) || delay.is_zero() {
            return self.send_gathered(context);
        }
        let due = Instant::now() + delay;
        if self.timer.is_none_or(|(earlier, _)| due < earlier) {
            let timer = context.run_later(delay, |me, context| me.send_gathered(context));
            if let Some((_, later)) = self.timer.replace((due, timer)) {
                context.cancel_future(later);
            }
        }
    }
}

impl Handler<Tell> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, Tell(message): Tell, context: &mut Context<Self>) {
        if message != PeerMessage::Ping {
            self.send_gathered(context);
        }
        if let Some(link) = &self.link {
            link.outgoing.tell(&message);
        }
    }
}

impl Handler<CloseLink> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, CloseLink { farewell }: CloseLink, context: &mut Context<Self>) {
        self.send_gathered(context);
        self.catchup = None;
        if let (Some(link), Some(message)) = (self.link.take(), farewell) {
            link.outgoing.tell(&message);
        }
    }
}

impl Handler<CheckHistory> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, CheckHistory(position): CheckHistory, context: &mut Context<Self>) {
        let (Some(link), Some(log)) = (&self.link, &self.log) else { return };
        let (id, me) = (link.id, context.address());
        let report = move |report| me.do_send(FromCatchup { link: id, report });
        let outgoing = link.outgoing.clone();
        let (catchup, thread) =
            catchup::prepare(log.clone(), position, outgoing, Arc::clone(&self.mark), report);
        (self.run_catchup)(thread);
        self.catchup = Some(catchup);
    }
}

impl Handler<FromCatchup> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, FromCatchup { link, report }: FromCatchup, _: &mut Context<Self>) {
        match report {
            CatchupReport::Failed(error) => {
                let why = format!("catchup cannot read the log: {error}");
                self.ended.do_send(LinkEnded { link, why });
            }
            CatchupReport::Checked(result) => {
                self.catchup_says.do_send(CatchupSays::Checked { link, result })
            }
            CatchupReport::NearEnd => self.catchup_says.do_send(CatchupSays::NearEnd { link }),
        }
    }
}

impl Handler<StartCatchup> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, _: StartCatchup, _: &mut Context<Self>) {
        if let Some(catchup) = &self.catchup {
            catchup.begin();
        }
    }
}

impl Handler<StopCatchup> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, _: StopCatchup, _: &mut Context<Self>) {
        self.catchup = None;
    }
}

impl Handler<PeerAcknowledges> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, message: PeerAcknowledges, context: &mut Context<Self>) {
        let PeerAcknowledges { link, position } = message;
        if self.link.as_ref().is_some_and(|current| current.id == link) {
            if let Some(catchup) = &self.catchup {
                catchup.acknowledged(position.sequence);
            }
            self.counters.acknowledgements.add(1);
            if self.gathering.acknowledged(position.sequence) {
                self.send_gathered(context);
            }
            self.acknowledged.do_send(Acknowledged { position });
        }
    }
}

impl Handler<LinkClosed> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, LinkClosed { link, why }: LinkClosed, _: &mut Context<Self>) {
        if self.link.as_ref().is_some_and(|current| current.id == link) {
            self.link = None;
            self.catchup = None;
        }
        self.ended.do_send(LinkEnded { link, why });
    }
}

impl Handler<UseLog> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, UseLog(configuration): UseLog, _: &mut Context<Self>) {
        self.log = Some(configuration);
    }
}
