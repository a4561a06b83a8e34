//! The replication sender: owns the connection to the peer; batches and messages leave through it, acknowledgements
//! come back through it.

use std::sync::Arc;

use actix::prelude::*;
use tokio::time::Instant;

use super::catchup::{self, Catchup, CatchupReport, CatchupThread};
use super::gathering::Gathering;
use super::link::{self, Link, LinkRecipients, PeerStream};
use super::supervisor::SupervisorMessage;
use crate::config::Parameters;
use crate::counters::Counters;
use crate::hsb::effect::SenderEffect;
use crate::hsb::event::{Event, LinkId, PeerMessage};
use crate::hsb::position::Position;
use crate::storage::batch::Batch;
use crate::storage::log::{LogConfiguration, LogMark};

/// All that the replication sender can be told.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub enum SenderMessage {
    /// From the supervisor: this connection to the peer is the one, its handshake is done.
    Attach {
        /// Its number.
        link: LinkId,
        /// The connection itself.
        stream: Box<dyn PeerStream>,
    },
    /// From the supervisor: a batch for the secondary. Answered, some time, by [`Event::Acknowledged`].
    Send(Batch),
    /// From the supervisor: what the heart wants. Applier and ping monitor have something told, too.
    Do(SenderEffect),
    /// From the connection: the secondary has everything up to here.
    Acknowledged {
        /// On which connection.
        link: LinkId,
        /// Up to here.
        position: Position,
    },
    /// From the connection: it has ended.
    Closed {
        /// Which.
        link: LinkId,
        /// For the log.
        why: String,
    },
    /// From the catchup thread.
    Catchup {
        /// On which connection's behalf.
        link: LinkId,
        /// How it comes along.
        report: CatchupReport,
    },
    /// From whoever replaces the database: where the log is now.
    UseLog(LogConfiguration),
}

/// See the module.
pub struct ReplicationSender {
    /// Who hears of acknowledgements, of catchup and of the end of a connection (the supervisor), and what arrives on a
    /// connection.
    recipients: LinkRecipients,
    /// How far the log is.
    mark: Arc<LogMark>,
    /// Where the log is.
    log: Option<LogConfiguration>,
    /// The connection.
    link: Option<Link>,
    /// Runs a catchup beside the actors.
    run_catchup: Box<dyn Fn(CatchupThread)>,
    /// Old batches on their way.
    catchup: Option<Catchup>,
    /// For `perfmon`.
    counters: Arc<Counters>,
    /// solid.ini.
    parameters: Arc<Parameters>,
    /// 1-safe batches that wait a little.
    gathering: Gathering,
    /// When their wait ends.
    timer: Option<(Instant, SpawnHandle)>,
}

impl ReplicationSender {
    /// One without a connection. `log`: where the log is; none before the first netcopy.
    pub fn new(
        recipients: LinkRecipients,
        mark: Arc<LogMark>,
        log: Option<LogConfiguration>,
        run_catchup: Box<dyn Fn(CatchupThread)>,
        counters: Arc<Counters>,
        parameters: Arc<Parameters>,
    ) -> ReplicationSender {
        let (link, catchup, gathering, timer) = (None, None, Gathering::default(), None);
        ReplicationSender {
            recipients,
            mark,
            log,
            link,
            run_catchup,
            catchup,
            counters,
            parameters,
            gathering,
            timer,
        }
    }

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

    fn report(&self, event: Event) {
        self.recipients.supervisor.do_send(SupervisorMessage::Event(event));
    }

    fn attach(&mut self, id: LinkId, stream: Box<dyn PeerStream>) {
        self.gathering = Gathering::default();
        match link::start(id, stream, self.recipients.clone()) {
            Ok(link) => self.link = Some(link),
            Err(error) => self.report(Event::LinkLost { link: id, why: error.to_string() }),
        }
    }

    fn send(&mut self, batch: &Batch, context: &mut Context<Self>) {
        let delay = self.parameters.one_safe_max_delay();
        if self.gathering.add(batch) || delay.is_zero() {
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

    fn carry_out(&mut self, effect: SenderEffect, context: &mut Context<Self>) {
        match effect {
            SenderEffect::Tell(message) => {
                if message != PeerMessage::Ping {
                    self.send_gathered(context);
                }
                if let Some(link) = &self.link {
                    link.outgoing.tell(&message);
                }
            }
            SenderEffect::Close { farewell } => {
                self.send_gathered(context);
                self.catchup = None;
                if let (Some(link), Some(message)) = (self.link.take(), farewell) {
                    link.outgoing.tell(&message);
                }
            }
            SenderEffect::CheckHistory(position) => self.check_history(position, context),
            SenderEffect::StartCatchup => {
                if let Some(catchup) = &self.catchup {
                    catchup.begin();
                }
            }
            SenderEffect::StopCatchup => self.catchup = None,
        }
    }

    fn check_history(&mut self, position: Position, context: &mut Context<Self>) {
        let (Some(link), Some(log)) = (&self.link, &self.log) else { return };
        let (link_id, me) = (link.id, context.address());
        let report = move |report| me.do_send(SenderMessage::Catchup { link: link_id, report });
        let outgoing = link.outgoing.clone();
        let (catchup, thread) =
            catchup::prepare(log.clone(), position, outgoing, Arc::clone(&self.mark), report);
        (self.run_catchup)(thread);
        self.catchup = Some(catchup);
    }

    fn acknowledged(&mut self, link: LinkId, position: Position, context: &mut Context<Self>) {
        if self.link.as_ref().is_some_and(|current| current.id == link) {
            if let Some(catchup) = &self.catchup {
                catchup.acknowledged(position.sequence);
            }
            self.counters.acknowledgements.add(1);
            if self.gathering.acknowledged(position.sequence) {
                self.send_gathered(context);
            }
            self.report(Event::Acknowledged { position });
        }
    }

    fn closed(&mut self, link: LinkId, why: String) {
        if self.link.as_ref().is_some_and(|current| current.id == link) {
            self.link = None;
            self.catchup = None;
        }
        self.report(Event::LinkLost { link, why });
    }

    fn catchup_reports(&self, link: LinkId, report: CatchupReport) {
        self.report(match report {
            CatchupReport::Failed(error) => {
                Event::LinkLost { link, why: format!("catchup cannot read the log: {error}") }
            }
            CatchupReport::Checked(result) => Event::HistoryChecked { link, result },
            CatchupReport::NearEnd => Event::CatchupNearEnd { link },
        });
    }
}

impl Actor for ReplicationSender {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(1024);
    }
}

impl Handler<SenderMessage> for ReplicationSender {
    type Result = ();
    fn handle(&mut self, message: SenderMessage, context: &mut Context<Self>) {
        match message {
            SenderMessage::Attach { link, stream } => self.attach(link, stream),
            SenderMessage::Send(batch) => self.send(&batch, context),
            SenderMessage::Do(effect) => self.carry_out(effect, context),
            SenderMessage::Acknowledged { link, position } => self.acknowledged(link, position, context),
            SenderMessage::Closed { link, why } => self.closed(link, why),
            SenderMessage::Catchup { link, report } => self.catchup_reports(link, report),
            SenderMessage::UseLog(configuration) => self.log = Some(configuration),
        }
    }
}
