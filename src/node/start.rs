//! Starting a node: what [`opening`](super::opening) has opened is put together, threads and actors begin, and the port
//! listens last.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use actix::prelude::*;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::assembly::{self, Addresses, Mailboxes, Parts};
use super::opening::{self, Opened};
use super::{Node, budget};
use crate::actors::admin_handler::{self, AdminHandler, console};
use crate::actors::log_writer::LogWriterMessage;
use crate::actors::secondary_applier::ApplierMessage;
use crate::actors::supervisor::SupervisorMessage;
use crate::actors::threads::apply::{ApplyJob, ApplyReport, ApplyThread};
use crate::actors::threads::log::{LogJob, LogThread};
use crate::admin::{self, AdminServices};
use crate::config::Parameters;
use crate::counters::Counters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::Event;
use crate::hsb::heart::Heart;
use crate::hsb::settings::Settings;
use crate::net::listener::{self, Handlers};
use crate::net::pg;
use crate::operations::checkpointer::{self, Checkpointer};
use crate::operations::directory_copy::EndedCopies;
use crate::operations::history;
use crate::operations::lock::DatabaseLock;
use crate::operations::outside::NodeOutside;
use crate::operations::parameters::{self, ParameterChanges};
use crate::operations::peer_port::{self, NetcopyRequested, PeerPort};
use crate::operations::storage::Storage;
use crate::services::context::NodeContext;
use crate::services::status::NodeStatus;
use crate::storage::apply::Applier;
use crate::storage::batch::Batch;
use crate::storage::database::Database;
use crate::storage::log::{LogConfiguration, LogMark, LogWriter};
use crate::storage::writer::Writer;
use crate::threads::spawn;

/// Name and password of a new database's administrator, asked for only when one is created.
pub type AskAdministrator = Box<dyn FnOnce() -> Result<(String, String), ServerError>>;

/// What a node needs to start.
pub struct StartOptions {
    /// solid.ini as it was read.
    pub parameters: Parameters,
    /// Wait for a netcopy instead of opening a database.
    pub backup_server: bool,
    /// For a new database.
    pub administrator: AskAdministrator,
    /// Asked when a primary wants to copy its database here; an error is the reason to refuse it. None: never refused.
    pub netcopy_requested: Option<NetcopyRequested>,
}

pub(super) fn start(options: StartOptions) -> Result<Node, ServerError> {
    let StartOptions { parameters, backup_server, administrator, netcopy_requested } = options;
    let Opened { parameters, database, log, state, recovered, port, budget, held } =
        opening::open(parameters, backup_server, administrator)?;
    let was = held.lock.what_it_was();
    let (heart, pending) = assembly::heart(state, parameters.settings(), recovered.as_ref(), was.as_deref());
    let heart = heart.with_last_switch(held.lock.past().switch);
    let status = NodeStatus::new(state, parameters.settings(), held.lock.past());

    let control = Control::start()?;
    let node = Arc::new(context(parameters, database, status, &control));
    let (log_jobs, for_log) = unbounded();
    let (apply_jobs, for_apply) = unbounded();
    let storage = Arc::new(Storage {
        node: Arc::clone(&node),
        log,
        log_jobs,
        apply_jobs,
        sender: control.addresses.sender.clone().recipient(),
        supervisor: control.addresses.supervisor.clone().recipient(),
        ended_copies: EndedCopies::default(),
        abort_copies: AtomicBool::new(false),
    });
    let checkpointer = Arc::new(Checkpointer::new(&storage, heart.decided()));
    let changes = Arc::new(ParameterChanges::new(&node, storage.supervisor.clone()));
    let (request_shutdown, shutdown) = bounded(1);
    let services = Arc::new(AdminServices {
        node: Arc::clone(&node),
        storage: Arc::clone(&storage),
        checkpointer: Arc::clone(&checkpointer),
        changes: Arc::clone(&changes),
        shutdown: request_shutdown.clone(),
        budget,
    });

    let addresses = control.addresses.clone();
    let mark: Arc<LogMark> = Arc::default();
    let log = recovered.as_ref().map(|recovered| recovered.log_configuration.clone());
    let (system, control) = begin_actors(control, (heart, pending), &services, &held.lock, &mark, log)?;
    let is_open = recovered.is_some();
    let (log, applier) = recovered.map(|recovered| (recovered.log, recovered.applier)).unzip();
    let threads = vec![
        control,
        log_thread(log, &node, &mark, &addresses, for_log)?,
        apply_thread(applier, &node, mark, &addresses, for_apply)?,
    ];
    if is_open {
        storage.attach_writer()?;
    }
    checkpointer::start(&checkpointer)?;
    // What it was last is known until the start has succeeded.
    held.lock.note(&node.status.snapshot());
    let handlers = handlers(&services, netcopy_requested);
    let (limits, time_to_log_in) = budget::rules(&node.parameters, budget);
    let listener = listener::start(port, limits, time_to_log_in, handlers)
        .map_err(|error| parameters::port_refused(&node.parameters.listen(), &error))?;
    let listener = Arc::new(listener);
    changes.serve_at(&listener);
    Ok(Node { storage, checkpointer, listener, shutdown, request_shutdown, threads, system, held })
}

fn begin_actors(
    control: Control,
    (heart, pending): (Heart, Option<Batch>),
    services: &Arc<AdminServices>,
    lock: &Arc<DatabaseLock>,
    mark: &Arc<LogMark>,
    log: Option<LogConfiguration>,
) -> Result<(System, JoinHandle<()>), ServerError> {
    let (services, lock, mark) = (Arc::clone(services), Arc::clone(lock), Arc::clone(mark));
    let settings = services.node.parameters.settings();
    control.begin(settings, move |mailboxes, admin| {
        let (storage, node) = (Arc::clone(&services.storage), Arc::clone(&services.node));
        let checkpointer = Arc::clone(&services.checkpointer);
        mailboxes.start(Parts {
            heart,
            pending,
            mark,
            counters: Arc::clone(&node.counters),
            log_jobs: storage.log_jobs.clone(),
            apply_jobs: storage.apply_jobs.clone(),
            log,
            run_catchup: history::run_catchup(&storage),
            parameters: Arc::clone(&node.parameters),
            outside: Box::new(NodeOutside { storage: Arc::clone(&storage), checkpointer, lock }),
        });
        admin.run(AdminHandler { commands: Box::new(services), supervisor: storage.supervisor.clone() });
    })
}

fn context(
    parameters: Arc<Parameters>,
    database: Arc<Database>,
    status: NodeStatus,
    control: &Control,
) -> NodeContext {
    let supervisor = control.addresses.supervisor.clone();
    let submit = move |request| supervisor.do_send(SupervisorMessage::Writer(request));
    let counters: Arc<Counters> = Arc::default();
    let writer =
        Writer::new(Arc::clone(&database), Arc::clone(&parameters), Arc::clone(&counters), Box::new(submit));
    let admin = admin_handler::port(control.admin.clone().recipient());
    NodeContext::new(parameters, status, writer, database, counters, admin)
}

/// What comes in at the port, handed to where it belongs.
fn handlers(services: &Arc<AdminServices>, netcopy_requested: Option<NetcopyRequested>) -> Handlers {
    let node = &services.node;
    let (for_sql, for_console, counters) = (Arc::clone(node), Arc::clone(node), Arc::clone(&node.counters));
    let reports = Arc::clone(services);
    let peers = PeerPort {
        storage: Arc::clone(&services.storage),
        changes: Arc::clone(&services.changes),
        report: Box::new(move |stream| admin::tell_peer(&reports, stream)),
        netcopy_requested,
    };
    Handlers {
        sql: Box::new(move |guest| pg::serve(guest, Arc::clone(&for_sql))),
        console: Box::new(move |guest| console::serve(guest, &for_console)),
        peer: Box::new(move |guest| peer_port::serve(guest, &peers)),
        left: Box::new(move || counters.connections_without_a_word.add(1)),
    }
}

fn log_thread(
    writer: Option<LogWriter>,
    node: &NodeContext,
    mark: &Arc<LogMark>,
    addresses: &Addresses,
    jobs: Receiver<LogJob>,
) -> Result<JoinHandle<()>, ServerError> {
    let reports = addresses.log_writer.clone();
    let report = Box::new(move |report| reports.do_send(LogWriterMessage::Thread(report)));
    let (delay, counters) = (node.parameters.relaxed_max_delay(), Arc::clone(&node.counters));
    let body = LogThread::new(writer, Arc::clone(mark), delay, counters, report);
    spawn("log", move || body.run(&jobs))
}

fn apply_thread(
    applier: Option<Applier>,
    node: &NodeContext,
    mark: Arc<LogMark>,
    addresses: &Addresses,
    jobs: Receiver<ApplyJob>,
) -> Result<JoinHandle<()>, ServerError> {
    let reports = addresses.applier.clone();
    let (status, events) = (Arc::clone(&node.status), Arc::clone(&node.events));
    let report = Box::new(move |report: ApplyReport| {
        if let ApplyReport::Hindered { by } = &report {
            status.hindered(by.as_deref(), &events);
        }
        reports.do_send(ApplierMessage::Thread(report));
    });
    let body =
        ApplyThread::new(applier, Arc::clone(&node.database), mark, Arc::clone(&node.counters), report);
    spawn("apply", move || body.run(&jobs))
}

type Begin = Box<dyn FnOnce(Mailboxes, Context<AdminHandler>) + Send>;

/// The thread of all actors. Their addresses are known before they begin: what they work with holds them.
struct Control {
    system: System,
    addresses: Addresses,
    admin: Addr<AdminHandler>,
    begin: Sender<Begin>,
    thread: JoinHandle<()>,
}

impl Control {
    fn start() -> Result<Control, ServerError> {
        let (ready, when_ready) = bounded(1);
        let (begin, when_to_begin) = bounded::<Begin>(1);
        let thread = spawn("control", move || {
            let runner = System::new();
            runner.block_on(async {
                let (mailboxes, admin) = (Mailboxes::new(), Context::new());
                // The node waits for this; it cannot have gone away.
                let _ = ready.send((System::current(), mailboxes.addresses.clone(), admin.address()));
                match when_to_begin.recv() {
                    Ok(begin) => begin(mailboxes, admin),
                    // The start has failed meanwhile.
                    Err(_) => System::current().stop(),
                }
            });
            if let Err(error) = runner.run() {
                log::error!("the actors ended with an error: {error}");
            }
        })?;
        let ready = when_ready.recv();
        let (system, addresses, admin) =
            ready.map_err(|_| ServerError::with(Code::FAILED_UNEXPECTEDLY, "(actors)"))?;
        Ok(Control { system, addresses, admin, begin, thread })
    }

    /// The actors begin; returns when the supervisor has, for writers are admitted by it.
    fn begin(
        self,
        settings: Settings,
        begin: impl FnOnce(Mailboxes, Context<AdminHandler>) + Send + 'static,
    ) -> Result<(System, JoinHandle<()>), ServerError> {
        let (begun, when_begun) = bounded(1);
        let supervisor = self.addresses.supervisor.clone();
        let begin = move |mailboxes, admin| {
            begin(mailboxes, admin);
            actix::spawn(async move {
                // It hears this when it has done what it does first. It cannot have gone away, nor can the node.
                let first = SupervisorMessage::Event(Event::SettingsChanged { settings });
                let _ = supervisor.send(first).await;
                let _ = begun.send(());
            });
        };
        // The thread waits for this; it cannot have gone away.
        let _ = self.begin.send(Box::new(begin));
        when_begun.recv().map_err(|_| ServerError::with(Code::FAILED_UNEXPECTEDLY, "(actors)"))?;
        Ok((self.system, self.thread))
    }
}
