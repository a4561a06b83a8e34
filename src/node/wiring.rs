//! The actors of a node: made, told of each other, placed on their thread.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Instant;

use actix::prelude::*;
use crossbeam_channel::bounded;

use super::checkpointer::Checkpointer;
use super::directory_copy::DirectoryCopies;
use super::outside::NodeOutside;
use super::start::{Building, spawn};
use super::storage::Storage;
use crate::actors::admin_handler::AdminHandler;
use crate::actors::link::LinkRecipients;
use crate::actors::log_writer::LogWriter;
use crate::actors::ping_monitor::PingMonitor;
use crate::actors::replication_sender::ReplicationSender;
use crate::actors::secondary_applier::SecondaryApplier;
use crate::actors::supervisor::{NewSettings, Peers, Supervisor};
use crate::admin::AdminServices;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::heart::Heart;
use crate::storage::batch::Batch;

/// What the arbiter's thread gives back once the actors run.
pub(super) struct Wiring {
    pub(super) system: System,
    pub(super) storage: Arc<Storage>,
    pub(super) checkpointer: Arc<Checkpointer>,
    pub(super) targets: Addresses,
}

#[derive(Clone)]
pub(super) struct Addresses {
    pub(super) supervisor: Addr<Supervisor>,
    pub(super) log_writer: Addr<LogWriter>,
    pub(super) applier: Addr<SecondaryApplier>,
    pub(super) admin: Addr<AdminHandler>,
}

impl Building {
    fn start_admin_handler(
        &self,
        supervisor: &Addr<Supervisor>,
        storage: &Arc<Storage>,
        checkpointer: &Arc<Checkpointer>,
    ) -> Addr<AdminHandler> {
        let settings = supervisor.clone();
        let services = AdminServices {
            status: Arc::clone(&self.status),
            parameters: Arc::clone(&self.parameters),
            sessions: Arc::clone(&self.sessions),
            copy_progress: Arc::clone(&self.copy_progress),
            checkpointer: Arc::clone(checkpointer),
            directory_copies: DirectoryCopies {
                parameters: Arc::clone(&self.parameters),
                storage: Arc::clone(storage),
                supervisor: supervisor.clone().recipient(),
            },
            database: Arc::clone(&self.database),
            writer: Arc::clone(&self.writer),
            new_settings: Box::new(move |changed| settings.do_send(NewSettings(changed))),
            shutdown: self.shutdown.0.clone(),
            started: Instant::now(),
        };
        AdminHandler { services: Arc::new(services), operator: supervisor.clone().recipient() }.start()
    }

    /// Runs on the arbiter. Every actor holds recipients only, so contexts come before actors.
    fn wire(&self, heart: Heart, pending: Option<Batch>) -> (Arc<Storage>, Arc<Checkpointer>, Addresses) {
        let (to_supervisor, for_supervisor) = mailbox::<Supervisor>();
        let (to_log_writer, for_log_writer) = mailbox::<LogWriter>();
        let (to_sender, for_sender) = mailbox::<ReplicationSender>();
        let (to_applier, for_applier) = mailbox::<SecondaryApplier>();
        let (to_monitor, for_monitor) = mailbox::<PingMonitor>();

        let storage = Arc::new(Storage {
            database: Arc::clone(&self.database),
            writer: Arc::clone(&self.writer),
            log: self.log.clone(),
            log_jobs: self.log_channel.0.clone(),
            apply_jobs: self.apply_channel.0.clone(),
            use_log: to_sender.clone().recipient(),
            copy_progress: Arc::clone(&self.copy_progress),
            abort_copies: AtomicBool::new(false),
            status: Arc::clone(&self.status),
        });
        for_log_writer.run(LogWriter {
            jobs: self.log_channel.0.clone(),
            progress: vec![to_supervisor.clone().recipient(), to_applier.clone().recipient()],
            flushed: to_applier.clone().recipient(),
        });
        for_sender.run(ReplicationSender {
            acknowledged: to_supervisor.clone().recipient(),
            ended: to_supervisor.clone().recipient(),
            catchup_says: to_supervisor.clone().recipient(),
            recipients: LinkRecipients {
                batches: to_applier.clone().recipient(),
                acknowledgements: to_sender.clone().recipient(),
                messages: to_supervisor.clone().recipient(),
                heard: to_monitor.clone().recipient(),
                closed: to_sender.clone().recipient(),
            },
            mark: Arc::clone(&self.mark),
            log: None,
            link: None,
            catchup: None,
        });
        for_applier.run(SecondaryApplier::new(
            self.apply_channel.0.clone(),
            (
                to_log_writer.clone().recipient(),
                to_log_writer.clone().recipient(),
                to_log_writer.clone().recipient(),
            ),
            to_sender.clone().recipient(),
            to_supervisor.clone().recipient(),
            pending,
        ));
        for_monitor.run(PingMonitor::new(to_sender.clone().recipient(), to_supervisor.clone().recipient()));
        let checkpointer = Arc::new(Checkpointer::new(
            Arc::clone(&storage),
            Arc::clone(&self.parameters),
            heart.decided(),
            to_supervisor.clone().recipient(),
        ));
        let admin = self.start_admin_handler(&to_supervisor, &storage, &checkpointer);
        let outside = NodeOutside {
            checkpointer: Arc::clone(&checkpointer),
            storage: Arc::clone(&storage),
            status: Arc::clone(&self.status),
            events: Arc::clone(&self.events),
            sessions: Arc::clone(&self.sessions),
            parameters: Arc::clone(&self.parameters),
            dialled: to_supervisor.clone().recipient(),
            copied: to_supervisor.clone().recipient(),
        };
        let peers = peers(&to_log_writer, &to_sender, &to_applier, &to_monitor);
        for_supervisor.run(Supervisor::new(heart, peers, Box::new(outside)));
        if self.supervisor.set(to_supervisor.clone().recipient()).is_err() {
            log::error!("a node was wired twice");
        }
        let addresses =
            Addresses { supervisor: to_supervisor, log_writer: to_log_writer, applier: to_applier, admin };
        (storage, checkpointer, addresses)
    }
}

fn peers(
    log_writer: &Addr<LogWriter>,
    sender: &Addr<ReplicationSender>,
    applier: &Addr<SecondaryApplier>,
    monitor: &Addr<PingMonitor>,
) -> Peers {
    Peers {
        append: log_writer.clone().recipient(),
        flush: log_writer.clone().recipient(),
        retain: log_writer.clone().recipient(),
        attach: sender.clone().recipient(),
        send: sender.clone().recipient(),
        tell: sender.clone().recipient(),
        close: sender.clone().recipient(),
        check_history: sender.clone().recipient(),
        start_catchup: sender.clone().recipient(),
        stop_catchup: sender.clone().recipient(),
        follow: applier.clone().recipient(),
        drain: applier.clone().recipient(),
        keep_pending: applier.clone().recipient(),
        drop_pending: applier.clone().recipient(),
        start_pings: monitor.clone().recipient(),
        stop_pings: monitor.clone().recipient(),
    }
}

fn mailbox<A: Actor<Context = Context<A>>>() -> (Addr<A>, Context<A>) {
    let context = Context::new();
    (context.address(), context)
}

/// One thread, one arbiter, all actors.
pub(super) fn start_actors(
    building: &Arc<Building>,
    heart: Heart,
    pending: Option<Batch>,
) -> Result<(Wiring, JoinHandle<()>), ServerError> {
    let (ready, when_ready) = bounded(1);
    let building = Arc::clone(building);
    let thread = spawn("control", move || {
        let runner = System::new();
        runner.block_on(async {
            let (storage, checkpointer, targets) = building.wire(heart, pending);
            let system = System::current();
            // The node waits for this; it cannot have gone away.
            let _ = ready.send(Wiring { system, storage, checkpointer, targets });
        });
        drop(building);
        if let Err(error) = runner.run() {
            log::error!("the actors ended with an error: {error}");
        }
    })?;
    let wiring = when_ready.recv().map_err(|_| ServerError::with(Code::FAILED_UNEXPECTEDLY, "(actors)"))?;
    Ok((wiring, thread))
}
