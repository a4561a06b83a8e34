//! The actors of a node, wired: who holds whose address. Shared by the server, which puts threads and sockets around
//! them, and by the simulation, which puts neither.

use std::sync::Arc;

use actix::prelude::*;
use crossbeam_channel::Sender;

use crate::actors::catchup::CatchupThread;
use crate::actors::link::LinkRecipients;
use crate::actors::log_writer::LogWriter;
use crate::actors::ping_monitor::PingMonitor;
use crate::actors::replication_sender::ReplicationSender;
use crate::actors::secondary_applier::SecondaryApplier;
use crate::actors::supervisor::{Outside, Peers, Supervisor};
use crate::actors::threads::{apply::ApplyJob, log::LogJob};
use crate::config::Parameters;
use crate::counters::Counters;
use crate::hsb::heart::Heart;
use crate::hsb::position::Position;
use crate::hsb::settings::Settings;
use crate::hsb::state::State;
use crate::storage::batch::Batch;
use crate::storage::log::{LogConfiguration, LogMark};
use crate::storage::recovery::Recovered;

/// What the actors work with.
pub struct Parts {
    /// Decides.
    pub heart: Heart,
    /// The batch at the end of the log whose outcome is open.
    pub pending: Option<Batch>,
    /// How far the log is.
    pub mark: Arc<LogMark>,
    /// For `perfmon`.
    pub counters: Arc<Counters>,
    /// To the log thread.
    pub log_jobs: Sender<LogJob>,
    /// To the apply thread.
    pub apply_jobs: Sender<ApplyJob>,
    /// Where the log is; none before the first netcopy.
    pub log: Option<LogConfiguration>,
    /// Runs a catchup beside the actors.
    pub run_catchup: Box<dyn Fn(CatchupThread)>,
    /// solid.ini.
    pub parameters: Arc<Parameters>,
    /// What the supervisor does to the world.
    pub outside: Box<dyn Outside>,
}

/// Where the actors are.
#[derive(Clone)]
pub struct Addresses {
    /// Owns the heart.
    pub supervisor: Addr<Supervisor>,
    /// Hears of the log thread.
    pub log_writer: Addr<LogWriter>,
    /// Owns the connection.
    pub sender: Addr<ReplicationSender>,
    /// Hears of the apply thread.
    pub applier: Addr<SecondaryApplier>,
}

/// The heart of a node that starts in `state`, and the batch that is pending. `was`: what is known of how the server ended
/// last, if an operator should hear of it.
pub fn heart(
    state: State,
    settings: Settings,
    recovered: Option<&Recovered>,
    was: Option<&str>,
) -> (Heart, Option<Batch>) {
    let Some(recovered) = recovered else {
        let nowhere = Position::ORIGIN;
        log::info!("30585: waiting for a netcopy");
        return (Heart::new(state, settings, [0; 16], nowhere, nowhere), None);
    };
    let behind = recovered.pending.is_some() || recovered.rolled_forward > 0;
    match was.or(behind.then_some("not shut down in order")) {
        _ if state == State::Plain => log::info!("30500: started as a server without HotStandby"),
        Some(was) => log::warn!("30502: the server was {was}: started as secondary"),
        None => log::info!("30501: started as secondary"),
    }
    let log_end = recovered.pending.as_ref().map_or(recovered.decided, |batch| batch.after);
    log::info!(
        "the database is at {}; {} batches rolled forward",
        recovered.decided,
        recovered.rolled_forward
    );
    if recovered.pending.is_some() {
        log::warn!(
            "the batch up to {log_end} is pending: the other server's history or 'hsb set primary alone' decides it"
        );
    }
    let heart = Heart::new(state, settings, recovered.database_id, recovered.decided, log_end);
    (heart, recovered.pending.clone())
}

/// The mailboxes of the actors, before there are actors: each of those holds addresses of the others.
pub struct Mailboxes {
    /// Where to write to.
    pub addresses: Addresses,
    monitor: Addr<PingMonitor>,
    for_supervisor: Context<Supervisor>,
    for_log_writer: Context<LogWriter>,
    for_sender: Context<ReplicationSender>,
    for_applier: Context<SecondaryApplier>,
    for_monitor: Context<PingMonitor>,
}

impl Mailboxes {
    /// Empty ones.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Mailboxes {
        let (supervisor, for_supervisor) = mailbox();
        let (log_writer, for_log_writer) = mailbox();
        let (sender, for_sender) = mailbox();
        let (applier, for_applier) = mailbox();
        let (monitor, for_monitor) = mailbox();
        let addresses = Addresses { supervisor, log_writer, sender, applier };
        Mailboxes { addresses, monitor, for_supervisor, for_log_writer, for_sender, for_applier, for_monitor }
    }

    /// Starts the actors on the present arbiter.
    pub fn start(self, parts: Parts) {
        let Addresses { supervisor, log_writer, sender, applier } = &self.addresses;
        self.for_log_writer.run(LogWriter {
            jobs: parts.log_jobs,
            supervisor: supervisor.clone().recipient(),
            applier: applier.clone().recipient(),
        });
        let recipients = LinkRecipients {
            supervisor: supervisor.clone().recipient(),
            sender: sender.clone().recipient(),
            applier: applier.clone().recipient(),
            monitor: self.monitor.clone().recipient(),
        };
        self.for_sender.run(ReplicationSender::new(
            recipients,
            parts.mark,
            parts.log,
            parts.run_catchup,
            parts.counters,
            parts.parameters,
        ));
        self.for_applier.run(SecondaryApplier::new(
            parts.apply_jobs,
            log_writer.clone().recipient(),
            sender.clone().recipient(),
            supervisor.clone().recipient(),
            parts.pending,
        ));
        self.for_monitor.run(PingMonitor::new(sender.clone().recipient(), supervisor.clone().recipient()));
        let peers = Peers {
            log_writer: log_writer.clone().recipient(),
            sender: sender.clone().recipient(),
            applier: applier.clone().recipient(),
            monitor: self.monitor.clone().recipient(),
        };
        self.for_supervisor.run(Supervisor::new(parts.heart, peers, parts.outside));
    }
}

fn mailbox<A: Actor<Context = Context<A>>>() -> (Addr<A>, Context<A>) {
    let context = Context::new();
    (context.address(), context)
}
