//! One node: the product's actors, storage and thread bodies, without threads.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix::Recipient;
use crossbeam_channel::{Receiver, Sender, unbounded};
use hotstandby::actors::catchup::CatchupThread;
use hotstandby::actors::log_writer::LogWriterMessage;
use hotstandby::actors::secondary_applier::ApplierMessage;
use hotstandby::actors::supervisor::{Outside, SupervisorMessage};
use hotstandby::actors::threads::apply::{ApplyJob, ApplyThread};
use hotstandby::actors::threads::log::{LogJob, LogReport, LogThread};
use hotstandby::config::Parameters;
use hotstandby::error::ServerError;
use hotstandby::hsb::CONNECT_FAILED;
use hotstandby::hsb::cause::Cause;
use hotstandby::hsb::effect::{ConnectStatus, CopyKind, Decision, NodeEffect, WriterEffect};
use hotstandby::hsb::event::{Hello, Purpose, RequestId};
use hotstandby::hsb::heart::Heart;
use hotstandby::hsb::position::Position;
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::settings::Settings;
use hotstandby::hsb::state::State;
use hotstandby::hsb::table::Transition;
use hotstandby::node::assembly::{self, Addresses, Mailboxes, Parts};
use hotstandby::storage::apply::Applier;
use hotstandby::storage::database::Database;
use hotstandby::storage::kinship;
use hotstandby::storage::log::{LogConfiguration, LogMark, LogWriter};
use hotstandby::storage::recovery::{self, Recovered};
use hotstandby::storage::writer::{Undecided, Writer, WriterRequest};
use rusqlite::Connection;
use tokio::task::LocalSet;

use crate::disk::{self, Durable, Trouble};
use crate::network::Life;
use crate::plan::Plan;

/// What the supervisor wants done in the world.
#[derive(Debug)]
pub enum Wish {
    Entered(Transition),
    Decide(Decision),
    Dial(RequestId, Purpose, Hello),
    SendCopy(Hello),
    CloseSessions,
}

/// The heart as it was published last.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub state: State,
    pub hello: Hello,
    pub connect: ConnectStatus,
    pub acknowledged: Position,
}

pub struct Desk {
    /// With the state in which each was made.
    pub wishes: Vec<(Option<State>, Wish)>,
    state: Option<State>,
    /// Why it is in its state.
    pub cause: Cause,
    pub view: Option<View>,
    /// Codes of attempts to connect that have failed and that the operator has not looked at.
    pub not_connected: Vec<u32>,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk { wishes: Vec::new(), state: None, cause: Cause::Started, view: None, not_connected: Vec::new() }
    }
}

struct SimulatedOutside {
    desk: Rc<RefCell<Desk>>,
    writer: Arc<Writer>,
    life: Arc<Life>,
}

impl SimulatedOutside {
    fn wish(&self, wish: Wish) {
        if self.life.spend() {
            let mut desk = self.desk.borrow_mut();
            if let Wish::Entered(change) = wish {
                (desk.state, desk.cause) = (Some(change.to), Cause::Change(change.trigger));
            }
            let state = desk.state;
            desk.wishes.push((state, wish));
        }
    }
}

impl Outside for SimulatedOutside {
    fn write_copy(&mut self, _: CopyKind, _: PathBuf) {}
    fn netcopy_ended(&mut self, _: &Result<(), Refusal>) {}
    fn tell_writer(&mut self, effect: WriterEffect) {
        match effect {
            WriterEffect::Decide(decision) => self.wish(Wish::Decide(decision)),
            WriterEffect::Admit(admission) => self.writer.admit(admission),
            WriterEffect::BeginHistory { position, epoch } => self.writer.begin_history(position, epoch),
        }
    }
    fn carry_out(&mut self, effect: NodeEffect) {
        match effect {
            NodeEffect::Entered(change) => self.wish(Wish::Entered(change)),
            NodeEffect::Dial { request, purpose, hello } => self.wish(Wish::Dial(request, purpose, hello)),
            NodeEffect::SendCopy { hello } => self.wish(Wish::SendCopy(hello)),
            NodeEffect::Stop { why } => panic!("{why}"),
            NodeEffect::CloseSessions(_) => self.wish(Wish::CloseSessions),
            NodeEffect::Alert { name, text, .. } if name == CONNECT_FAILED => {
                let code = text.split(':').next().and_then(|code| code.parse::<u32>().ok());
                self.desk.borrow_mut().not_connected.extend(code);
            }
            NodeEffect::Alert { .. }
            | NodeEffect::Note { .. }
            | NodeEffect::ConnectStatus(_)
            | NodeEffect::Rewind => {}
        }
    }
    fn publish(&mut self, heart: &Heart) {
        let view = View {
            state: heart.state(),
            hello: heart.hello(),
            connect: heart.connect_status_now(),
            acknowledged: heart.acknowledged(),
        };
        self.desk.borrow_mut().view = Some(view);
    }
}

fn log_thread(
    log: Option<LogWriter>,
    mark: &Arc<LogMark>,
    synced: &Arc<Mutex<Position>>,
    addresses: &Addresses,
) -> LogThread {
    let (note, reports) = (Arc::clone(synced), addresses.log_writer.clone());
    let report = move |report| {
        if let LogReport::Progress { position, durable: true } = report {
            *note.lock().unwrap() = position;
        }
        reports.do_send(LogWriterMessage::Thread(report));
    };
    let log_thread = LogThread::new(log, Arc::clone(mark), Duration::ZERO, Arc::default(), Box::new(report));
    log_thread.publish();
    log_thread
}

fn apply_thread(
    applier: Option<Applier>,
    database: &Arc<Database>,
    mark: Arc<LogMark>,
    addresses: &Addresses,
) -> ApplyThread {
    let reports = addresses.applier.clone();
    let report = Box::new(move |report| reports.do_send(ApplierMessage::Thread(report)));
    ApplyThread::new(applier, Arc::clone(database), mark, Arc::default(), report)
}

/// What is read beside the heart's settings.
fn parameters() -> Arc<Parameters> {
    let ini = "[HotStandby]\n1SafeMaxDelay=20\n";
    Arc::new(Parameters::from_text(std::path::Path::new("."), ini).unwrap().0)
}

fn writer(database: &Arc<Database>) -> (Arc<Writer>, Arc<OnceLock<Recipient<SupervisorMessage>>>) {
    let supervisor: Arc<OnceLock<Recipient<SupervisorMessage>>> = Arc::default();
    let target = Arc::clone(&supervisor);
    let submit = move |request: WriterRequest| {
        if let Some(supervisor) = target.get() {
            supervisor.do_send(SupervisorMessage::Writer(request));
        }
    };
    (Arc::new(Writer::new(Arc::clone(database), parameters(), Arc::default(), Box::new(submit))), supervisor)
}

/// A node whose process runs.
pub struct Running {
    pub local: LocalSet,
    pub life: Arc<Life>,
    pub addresses: Addresses,
    pub desk: Rc<RefCell<Desk>>,
    pub database: Arc<Database>,
    pub writer: Arc<Writer>,
    pub log_thread: LogThread,
    pub log_jobs: Receiver<LogJob>,
    pub apply_thread: ApplyThread,
    pub apply_jobs: Receiver<ApplyJob>,
    pub to_apply: Sender<ApplyJob>,
    pub catchups: Rc<RefCell<Vec<CatchupThread>>>,
    pub undecided: Option<Undecided>,
    /// Executed changes wait for the log: SQLite's write lock is taken.
    pub apply_holds_lock: bool,
    /// None before the first netcopy.
    pub reader: Option<Connection>,
    pub log_synced: Arc<Mutex<Position>>,
    pub wal_synced: (u64, usize),
    /// What was on disk when the last batch was written: the batch says so in its head.
    pub claimed: (u64, u64),
    pub paused: bool,
}

/// A place for a node; the process may be down.
pub struct Node {
    pub index: usize,
    root: PathBuf,
    pub incarnation: u32,
    pub settings: Settings,
    segment_bytes: u64,
    pub trouble: Arc<Mutex<Trouble>>,
    /// What its log must still hold, whatever has happened to its files: a later batch says that it was on disk.
    pub kept: (u64, u64),
    pub running: Option<Running>,
}

impl Node {
    pub fn new(index: usize, root: &Path, template: &[u8], plan: &Plan) -> Node {
        let node = Node {
            index,
            root: root.into(),
            incarnation: 0,
            settings: plan.settings(),
            segment_bytes: plan.segment_bytes,
            trouble: Arc::default(),
            kept: (0, 0),
            running: None,
        };
        std::fs::create_dir_all(node.directory()).unwrap();
        std::fs::write(disk::database(&node.directory()), template).unwrap();
        node
    }

    pub fn directory(&self) -> PathBuf {
        self.root.join(format!("{}-{}", self.index, self.incarnation))
    }

    pub fn log_configuration(&self, database_id: [u8; 16]) -> LogConfiguration {
        LogConfiguration {
            directory: self.directory(),
            template: "sol#####.log".into(),
            digit: '#',
            segment_size_bytes: self.segment_bytes,
            maximum_bytes: None,
            medium: disk::medium(&self.trouble),
            database_id,
        }
    }

    fn open(&self, database: &Arc<Database>) -> Result<Recovered, ServerError> {
        kinship::check(database)?;
        recovery::open(database, self.log_configuration([0; 16]))
    }

    /// What the product does at its start, from recovery on; `offline`: as `-x backupserver`.
    pub fn start(&mut self, offline: bool) -> Result<(), ServerError> {
        let directory = self.directory();
        let database = Arc::new(Database::at(disk::database(&directory), 1 << 20));
        let recovered = (!offline).then(|| self.open(&database)).transpose()?;
        let state = if offline { State::Offline } else { State::SecondaryAlone };
        let (heart, pending) = assembly::heart(state, self.settings, recovered.as_ref(), None);
        let log_configuration = recovered.as_ref().map(|recovered| recovered.log_configuration.clone());
        let (log_sender, log_jobs) = unbounded();
        let (apply_sender, apply_jobs) = unbounded();
        let mark: Arc<LogMark> = Arc::default();
        let life: Arc<Life> = Arc::default();
        let desk: Rc<RefCell<Desk>> = Rc::default();
        let catchups: Rc<RefCell<Vec<CatchupThread>>> = Rc::default();

        let (writer, supervisor) = writer(&database);
        let local = LocalSet::new();
        let entered = local.enter();
        let mailboxes = Mailboxes::new();
        let addresses = mailboxes.addresses.clone();
        let to_run = Rc::clone(&catchups);
        mailboxes.start(Parts {
            heart,
            pending,
            mark: Arc::clone(&mark),
            counters: Arc::default(),
            log_jobs: log_sender,
            apply_jobs: apply_sender.clone(),
            log: log_configuration,
            run_catchup: Box::new(move |catchup| to_run.borrow_mut().push(catchup)),
            parameters: parameters(),
            outside: Box::new(SimulatedOutside {
                desk: Rc::clone(&desk),
                writer: Arc::clone(&writer),
                life: Arc::clone(&life),
            }),
        });
        drop(entered);
        assert!(supervisor.set(addresses.supervisor.clone().recipient()).is_ok());
        let (log, applier) = recovered.map(|recovered| (recovered.log, recovered.applier)).unzip();
        let log_synced = Arc::new(Mutex::new(log.as_ref().map_or(Position::ORIGIN, LogWriter::end)));
        let log_thread = log_thread(log, &mark, &log_synced, &addresses);
        let apply_thread = apply_thread(applier, &database, mark, &addresses);
        if !offline {
            writer.attach(database.open_writer()?)?;
        }
        let reader = (!offline).then(|| database.open_reader()).transpose()?;
        self.running = Some(Running {
            local,
            life,
            addresses,
            desk,
            reader,
            database,
            writer,
            log_thread,
            log_jobs,
            apply_thread,
            apply_jobs,
            to_apply: apply_sender,
            catchups,
            undecided: None,
            apply_holds_lock: false,
            log_synced,
            wal_synced: (0, 0),
            claimed: (0, 0),
            paused: false,
        });
        Ok(())
    }

    /// What is on disk for certain.
    pub fn durable(&self) -> Durable {
        self.running.as_ref().map_or_else(Durable::default, |running| Durable {
            log: running.log_synced.lock().unwrap().progress(),
            wal: running.wal_synced,
        })
    }

    pub fn view(&self) -> Option<View> {
        self.running.as_ref().and_then(|running| running.desk.borrow().view)
    }

    pub fn state(&self) -> Option<State> {
        self.view().map(|view| view.state)
    }

    /// Whether the process runs and is scheduled.
    pub fn is_responsive(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.paused && !running.life.is_over())
    }

    /// Whether its disk can be the reason why its log cannot be opened; one that fails is replaced.
    pub fn replace_bad_disk(&self) -> bool {
        let mut trouble = self.trouble.lock().unwrap();
        let has_failed = std::mem::take(&mut trouble.struck);
        trouble.failing = trouble.failing.filter(|_| !has_failed);
        has_failed || trouble.full.is_some()
    }

    /// Where its decided history ends, as (epoch, sequence): what comes after may be cut off.
    pub fn decided(&self) -> (u64, u64) {
        self.view().map_or((0, 0), |view| view.hello.position.progress())
    }

    /// Where the log file ends.
    pub fn log_end(&self) -> Position {
        self.running.as_ref().map_or(Position::ORIGIN, |running| running.log_thread.end())
    }

    /// The same as (epoch, sequence).
    pub fn written(&self) -> (u64, u64) {
        self.log_end().progress()
    }

    /// Ends the process at once; its files are as the crash leaves them.
    pub fn crash(&mut self, mangle: impl FnOnce(&Path, Durable)) {
        let Some(running) = self.running.take() else { return };
        running.life.end();
        let mut trouble = self.trouble.lock().unwrap();
        (trouble.failing, trouble.struck) = (None, false);
        drop(trouble);
        let durable = Durable { log: running.log_synced.lock().unwrap().progress(), wal: running.wal_synced };
        let before = self.directory();
        self.incarnation += 1;
        let after = self.directory();
        disk::copy(&before, &after);
        mangle(&after, durable);
        drop(running);
        std::fs::remove_dir_all(before).unwrap();
    }
}
