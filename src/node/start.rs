//! Starting a node: directory, database, recovery, threads, actors, port.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use actix::prelude::*;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use socket2::Socket;

use super::assembly::{self, Addresses, Mailboxes, Parts};
use super::memory::{self, MemoryDirectory};
use super::sessions::{self, PeerPort};
use super::{Node, budget, opening};
use crate::actors::admin_handler::{self, AdminHandler};
use crate::actors::log_writer::LogWriterMessage;
use crate::actors::secondary_applier::ApplierMessage;
use crate::actors::supervisor::{Supervisor, SupervisorMessage};
use crate::actors::threads::apply::{ApplyJob, ApplyReport, ApplyThread};
use crate::actors::threads::log::{LogJob, LogThread};
use crate::admin::AdminServices;
use crate::config::Parameters;
use crate::counters::Counters;
use crate::descriptors::{self, Budget};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::heart::Heart;
use crate::hsb::state::State;
use crate::net::listener;
use crate::operations::checkpointer::{self, Checkpointer};
use crate::operations::directory_copy::DirectoryCopies;
use crate::operations::lock::{DatabaseLock, LogLock};
use crate::operations::outside::{self, NodeOutside};
use crate::operations::parameters::{self, ParameterChanges};
use crate::operations::storage::{self, Storage};
use crate::operations::{copy, history};
use crate::progress::Progress;
use crate::services::context::NodeContext;
use crate::services::events::EventHub;
use crate::services::outcomes::Outcomes;
use crate::services::registry::SessionRegistry;
use crate::services::status::NodeStatus;
use crate::storage::apply::Applier;
use crate::storage::batch::Batch;
use crate::storage::database::Database;
use crate::storage::kinship;
use crate::storage::log::{LogConfiguration, LogMark};
use crate::storage::recovery::{self, Recovered};
use crate::storage::writer::{Writer, WriterRequest};
use crate::threads::{self, spawn};

/// What a node holds on to for as long as it lives.
pub(super) type Held = (Arc<DatabaseLock>, Option<MemoryDirectory>, Option<LogLock>);

/// Name and password of a new database's administrator, asked for only when one is created.
pub type AskAdministrator = Box<dyn FnOnce() -> Result<(String, String), ServerError>>;

/// What an embedding program says to a netcopy that is about to replace the node's database.
pub type NetcopyRequested = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

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
    let parameters = Arc::new(options.parameters);
    opening::refuse_link(&parameters.database_file())?;
    let lock = Arc::new(DatabaseLock::take(&parameters.database_file())?);
    let memory = memory::place(&parameters, lock.file())?;
    let database_file = match &memory {
        Some(memory) if parameters.diskless() => memory.path().join("solid.db"),
        _ => parameters.database_file(),
    };
    crate::storage::memory::set_total(parameters.statement_memory_bytes());
    let database = Arc::new(Database::at(database_file, parameters.cache_size_bytes()));
    let log_on_disk = storage::log_configuration(&parameters);
    let log = match &memory {
        Some(memory) => memory::log(&log_on_disk, &parameters, memory),
        None => log_on_disk.clone(),
    };
    let log_lock = match &memory {
        Some(_) => None,
        None => Some(LogLock::take(&log_on_disk, database.path())?),
    };
    let port = parameters::take_port(&parameters.listen())?;
    threads::keep_some();
    descriptors::fill_reserve();
    let budget = budget::of_this_process(&parameters)?;
    copy::finish_swap(&database, &log)?;
    let offline = options.backup_server;
    let is_alone = !offline && log_lock.is_some() && opening::is_alone(&database, &log)?;
    if offline && database.exists() {
        log::warn!("-x backupserver: the database that is here is left alone until a netcopy replaces it");
    }
    if !offline && !database.exists() {
        opening::create(&database, &parameters, options.administrator)?;
        lock.forget();
    }
    if !offline {
        kinship::check(&database)?;
        database.hold()?;
        parameters.adopt_page_size(database.page_size_bytes()?);
    }
    if memory.is_some() && !offline && !parameters.diskless() {
        memory::leave_log(&database, log_on_disk)?;
    }
    let state = starting_state(&parameters, offline)?;
    let recovered = if offline { None } else { Some(recovery::open(&database, log.clone())?) };
    if let Some(recovered) = recovered.as_ref().filter(|_| is_alone) {
        log::warn!("{}", opening::found_alone(&database, recovered.decided));
    }
    if state == State::Plain && recovered.as_ref().is_some_and(|recovered| recovered.decided.epoch > 0) {
        opening::leave_pair(&parameters)?;
    }
    Building::new(parameters, database, log, state, &lock, budget).build(
        recovered,
        port,
        (lock, memory, log_lock),
        options.netcopy_requested,
    )
}

fn starting_state(parameters: &Parameters, offline: bool) -> Result<State, ServerError> {
    match (parameters.hsb_enabled(), offline) {
        (true, true) => Ok(State::Offline),
        (true, false) => Ok(State::SecondaryAlone),
        (false, false) => Ok(State::Plain),
        (false, true) => Err(ServerError::with(Code::NOT_HOTSTANDBY, "(-x backupserver)")),
    }
}

/// Everything that exists before the actors do.
struct Building {
    budget: Budget,
    lock: Arc<DatabaseLock>,
    parameters: Arc<Parameters>,
    database: Arc<Database>,
    log: LogConfiguration,
    state: State,
    status: Arc<NodeStatus>,
    outcomes: Arc<Outcomes>,
    events: Arc<EventHub>,
    mark: Arc<LogMark>,
    log_channel: (Sender<LogJob>, Receiver<LogJob>),
    apply_channel: (Sender<ApplyJob>, Receiver<ApplyJob>),
    writer: Arc<Writer>,
    /// The writer is made before the supervisor that it talks to.
    supervisor: Arc<OnceLock<Recipient<SupervisorMessage>>>,
    sessions: Arc<SessionRegistry>,
    copy_progress: Arc<Progress>,
    catchup_progress: Arc<Progress>,
    counters: Arc<Counters>,
    shutdown: (Sender<()>, Receiver<()>),
}

/// What the arbiter's thread gives back once the actors run.
struct Wiring {
    system: System,
    storage: Arc<Storage>,
    services: Arc<AdminServices>,
    checkpointer: Arc<Checkpointer>,
    targets: Targets,
}

struct Targets {
    actors: Addresses,
    admin: Addr<AdminHandler>,
    changes: Arc<ParameterChanges>,
}

impl Building {
    fn new(
        parameters: Arc<Parameters>,
        database: Arc<Database>,
        log: LogConfiguration,
        state: State,
        lock: &Arc<DatabaseLock>,
        budget: Budget,
    ) -> Building {
        let supervisor: Arc<OnceLock<Recipient<SupervisorMessage>>> = Arc::default();
        let target = Arc::clone(&supervisor);
        let submit = move |request: WriterRequest| {
            if let Some(supervisor) = target.get() {
                supervisor.do_send(SupervisorMessage::Writer(request));
            }
        };
        let counters: Arc<Counters> = Arc::default();
        let writer = Arc::new(Writer::new(
            Arc::clone(&database),
            Arc::clone(&parameters),
            Arc::clone(&counters),
            Box::new(submit),
        ));
        let interrupted = Arc::clone(&writer);
        let status = Arc::new(NodeStatus::new(state, parameters.settings(), lock.past()));
        Building {
            budget,
            lock: Arc::clone(lock),
            parameters,
            log,
            state,
            outcomes: Arc::new(Outcomes::new(Arc::clone(&database), Arc::clone(&status))),
            status,
            database,
            events: Arc::default(),
            mark: Arc::default(),
            log_channel: unbounded(),
            apply_channel: unbounded(),
            writer,
            supervisor,
            sessions: Arc::new(SessionRegistry::new(move |session| interrupted.interrupt(session))),
            copy_progress: Arc::default(),
            counters,
            catchup_progress: Arc::default(),
            shutdown: bounded(1),
        }
    }

    fn build(
        self,
        recovered: Option<Recovered>,
        port: Socket,
        held: Held,
        netcopy_requested: Option<NetcopyRequested>,
    ) -> Result<Node, ServerError> {
        let is_open = recovered.is_some();
        let settings = self.parameters.settings();
        let was = held.0.what_it_was();
        let (heart, pending) = assembly::heart(self.state, settings, recovered.as_ref(), was.as_deref());
        let heart = heart.with_last_switch(held.0.past().switch);
        let log = recovered.as_ref().map(|recovered| recovered.log_configuration.clone());
        let (log_writer, applier) = recovered.map(|recovered| (recovered.log, recovered.applier)).unzip();
        let this = Arc::new(self);
        let (wiring, system_thread) = start_actors(&this, heart, pending, log)?;
        let mut threads = vec![system_thread];
        threads.push(this.start_log_thread(log_writer, &wiring.targets.actors)?);
        threads.push(this.start_apply_thread(applier, &wiring.targets.actors)?);
        if is_open {
            wiring.storage.attach_writer()?;
        }
        checkpointer::start(&wiring.checkpointer)?;
        let context = Arc::new(NodeContext {
            database: Arc::clone(&this.database),
            writer: Arc::clone(&this.writer),
            status: Arc::clone(&this.status),
            outcomes: Arc::clone(&this.outcomes),
            admin: admin_handler::port(wiring.targets.admin.clone().recipient()),
            sessions: Arc::clone(&this.sessions),
            parameters: Arc::clone(&this.parameters),
            events: Arc::clone(&this.events),
            unanswered: AtomicUsize::new(0),
        });
        let peers = PeerPort {
            services: Arc::clone(&wiring.services),
            storage: Arc::clone(&wiring.storage),
            supervisor: wiring.targets.actors.supervisor.clone().recipient(),
            netcopy_requested: Arc::new(netcopy_requested),
        };
        let handlers = sessions::handlers(&context, Arc::clone(&this.counters), peers);
        // What it was last is known until the start has succeeded.
        held.0.note(&this.status.snapshot());
        let (limits, time_to_log_in) = budget::rules(&this.parameters, this.budget);
        let listener = listener::start(port, limits, time_to_log_in, handlers)
            .map_err(|error| parameters::port_refused(&this.parameters.listen(), &error))?;
        let listener = Arc::new(listener);
        wiring.targets.changes.serve_at(&listener);
        Ok(Node {
            context,
            listener,
            supervisor: wiring.targets.actors.supervisor.clone().recipient(),
            shutdown: this.shutdown.1.clone(),
            request_shutdown: this.shutdown.0.clone(),
            log_jobs: this.log_channel.0.clone(),
            apply_jobs: this.apply_channel.0.clone(),
            checkpointer: wiring.checkpointer,
            threads,
            system: wiring.system,
            held,
        })
    }

    fn start_log_thread(
        &self,
        writer: Option<crate::storage::log::LogWriter>,
        actors: &Addresses,
    ) -> Result<JoinHandle<()>, ServerError> {
        let reports = actors.log_writer.clone();
        let body = LogThread::new(
            writer,
            Arc::clone(&self.mark),
            self.parameters.relaxed_max_delay(),
            Arc::clone(&self.counters),
            Box::new(move |report| reports.do_send(LogWriterMessage::Thread(report))),
        );
        let jobs = self.log_channel.1.clone();
        spawn("log", move || body.run(&jobs))
    }

    fn start_apply_thread(
        &self,
        applier: Option<Applier>,
        actors: &Addresses,
    ) -> Result<JoinHandle<()>, ServerError> {
        let reports = actors.applier.clone();
        let (status, events) = (Arc::clone(&self.status), Arc::clone(&self.events));
        let report = Box::new(move |report: ApplyReport| {
            if let ApplyReport::Hindered { by } = &report {
                status.hindered(by.as_deref(), &events);
            }
            reports.do_send(ApplierMessage::Thread(report));
        });
        let body = ApplyThread::new(
            applier,
            Arc::clone(&self.database),
            Arc::clone(&self.mark),
            Arc::clone(&self.counters),
            report,
        );
        let jobs = self.apply_channel.1.clone();
        spawn("apply", move || body.run(&jobs))
    }

    fn admin_services(
        &self,
        supervisor: &Addr<Supervisor>,
        storage: &Arc<Storage>,
        checkpointer: &Arc<Checkpointer>,
        changes: &Arc<ParameterChanges>,
    ) -> AdminServices {
        let (parameters, dialling) = (Arc::clone(&self.parameters), Arc::clone(storage));
        let dial = move |purpose, limit| {
            outside::dial_within(&parameters, purpose, dialling.hello(&parameters), limit)
        };
        AdminServices {
            status: Arc::clone(&self.status),
            parameters: Arc::clone(&self.parameters),
            sessions: Arc::clone(&self.sessions),
            outcomes: Arc::clone(&self.outcomes),
            copy_progress: Arc::clone(&self.copy_progress),
            catchup_progress: Arc::clone(&self.catchup_progress),
            checkpointer: Arc::clone(checkpointer),
            directory_copies: DirectoryCopies {
                parameters: Arc::clone(&self.parameters),
                storage: Arc::clone(storage),
                supervisor: supervisor.clone().recipient(),
            },
            database: Arc::clone(&self.database),
            writer: Arc::clone(&self.writer),
            counters: Arc::clone(&self.counters),
            dial: Box::new(dial),
            events: Arc::clone(&self.events),
            changes: Arc::clone(changes),
            shutdown: self.shutdown.0.clone(),
            budget: self.budget,
            started: Instant::now(),
        }
    }

    /// Runs on the arbiter.
    fn wire(&self, heart: Heart, pending: Option<Batch>, log: Option<LogConfiguration>) -> Wiring {
        let mailboxes = Mailboxes::new();
        let actors = mailboxes.addresses.clone();
        let storage = Arc::new(Storage {
            database: Arc::clone(&self.database),
            writer: Arc::clone(&self.writer),
            log: self.log.clone(),
            log_jobs: self.log_channel.0.clone(),
            apply_jobs: self.apply_channel.0.clone(),
            sender: actors.sender.clone().recipient(),
            copy_progress: Arc::clone(&self.copy_progress),
            ended_copies: Arc::default(),
            abort_copies: AtomicBool::new(false),
            status: Arc::clone(&self.status),
            outcomes: Arc::clone(&self.outcomes),
            counters: Arc::clone(&self.counters),
        });
        let changes = Arc::new(ParameterChanges::new(
            Arc::clone(&self.parameters),
            Arc::clone(&self.status),
            actors.supervisor.clone().recipient(),
        ));
        let checkpointer = Arc::new(Checkpointer::new(
            Arc::clone(&storage),
            Arc::clone(&self.parameters),
            heart.decided(),
            actors.supervisor.clone().recipient(),
            Arc::clone(&self.sessions),
            Arc::clone(&self.events),
        ));
        let services = Arc::new(self.admin_services(&actors.supervisor, &storage, &checkpointer, &changes));
        let supervisor = actors.supervisor.clone().recipient();
        let admin = AdminHandler { commands: Box::new(Arc::clone(&services)), supervisor }.start();
        mailboxes.start(Parts {
            heart,
            pending,
            mark: Arc::clone(&self.mark),
            counters: Arc::clone(&self.counters),
            log_jobs: self.log_channel.0.clone(),
            apply_jobs: self.apply_channel.0.clone(),
            log,
            run_catchup: history::run_catchup(&self.parameters, &storage, &self.catchup_progress),
            parameters: Arc::clone(&self.parameters),
            outside: Box::new(NodeOutside {
                checkpointer: Arc::clone(&checkpointer),
                storage: Arc::clone(&storage),
                status: Arc::clone(&self.status),
                events: Arc::clone(&self.events),
                sessions: Arc::clone(&self.sessions),
                parameters: Arc::clone(&self.parameters),
                supervisor: actors.supervisor.clone().recipient(),
                lock: Arc::clone(&self.lock),
            }),
        });
        if self.supervisor.set(actors.supervisor.clone().recipient()).is_err() {
            log::error!("a node was wired twice");
        }
        let targets = Targets { actors, admin, changes };
        Wiring { system: System::current(), storage, services, checkpointer, targets }
    }
}

/// One thread, one arbiter, all actors.
fn start_actors(
    building: &Arc<Building>,
    heart: Heart,
    pending: Option<Batch>,
    log: Option<LogConfiguration>,
) -> Result<(Wiring, JoinHandle<()>), ServerError> {
    let (ready, when_ready) = bounded(1);
    let building = Arc::clone(building);
    let thread = spawn("control", move || {
        let runner = System::new();
        runner.block_on(async {
            // The node waits for this; it cannot have gone away.
            let _ = ready.send(building.wire(heart, pending, log));
        });
        drop(building);
        if let Err(error) = runner.run() {
            log::error!("the actors ended with an error: {error}");
        }
    })?;
    let wiring = when_ready.recv().map_err(|_| ServerError::with(Code::FAILED_UNEXPECTEDLY, "(actors)"))?;
    Ok((wiring, thread))
}
