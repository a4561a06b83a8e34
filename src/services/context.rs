//! What everybody gets of the node: one value that owns what sessions, operations and commands work with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::events::EventHub;
use super::outcomes::Outcomes;
use super::registry::SessionRegistry;
use super::status::NodeStatus;
use crate::config::Parameters;
use crate::counters::Counters;
use crate::progress::Progress;
use crate::storage::database::Database;
use crate::storage::writer::Writer;

/// Rows of an answer to an admin command: RC and TEXT.
pub type Answer = Vec<(u32, String)>;

/// What somebody may do who may give admin commands at all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rights {
    /// SYS_CONSOLE_ROLE or SYS_ADMIN_ROLE.
    Console,
    /// SYS_ADMIN_ROLE.
    Administrator,
}

impl Rights {
    /// As help has it.
    pub fn name(self) -> &'static str {
        match self {
            Rights::Console => "SYS_CONSOLE_ROLE",
            Rights::Administrator => "SYS_ADMIN_ROLE",
        }
    }
}

/// The way to the admin handler, from any thread that may block.
pub struct AdminPort(Give);

type Give = Box<dyn Fn(&str, Rights, &str) -> Answer + Send + Sync>;

impl AdminPort {
    /// `give` takes the user, the user's rights, and the command, and waits for the answer.
    pub fn new(give: impl Fn(&str, Rights, &str) -> Answer + Send + Sync + 'static) -> AdminPort {
        AdminPort(Box::new(give))
    }

    /// Gives a command (without `ADMIN COMMAND` and quotes) and waits for its answer.
    pub fn execute(&self, user: &str, rights: Rights, text: &str) -> Answer {
        (self.0)(user, rights, text)
    }
}

/// See the module.
pub struct NodeContext {
    /// For readers.
    pub database: Arc<Database>,
    /// For writers.
    pub writer: Arc<Writer>,
    /// State and connection.
    pub status: Arc<NodeStatus>,
    /// What became of transactions with tokens.
    pub outcomes: Arc<Outcomes>,
    /// Admin commands.
    pub admin: AdminPort,
    /// Who is connected.
    pub sessions: Arc<SessionRegistry>,
    /// solid.ini.
    pub parameters: Arc<Parameters>,
    /// Events as they happen.
    pub events: Arc<EventHub>,
    /// For `perfmon`.
    pub counters: Arc<Counters>,
    /// How far a copy is.
    pub copy_progress: Arc<Progress>,
    /// How far a catchup is.
    pub catchup_progress: Arc<Progress>,
    /// When the node started.
    pub started: Instant,
    /// Commands of consoles, and copies from the other server, whose answers have not been sent yet.
    pub unanswered: AtomicUsize,
}

impl NodeContext {
    /// Of a node that starts; `admin` is the way to its admin handler.
    pub fn new(
        parameters: Arc<Parameters>,
        status: NodeStatus,
        writer: Writer,
        database: Arc<Database>,
        counters: Arc<Counters>,
        admin: AdminPort,
    ) -> NodeContext {
        let (status, writer) = (Arc::new(status), Arc::new(writer));
        let interrupted = Arc::clone(&writer);
        NodeContext {
            outcomes: Arc::new(Outcomes::new(Arc::clone(&database), Arc::clone(&status))),
            sessions: Arc::new(SessionRegistry::new(move |session| interrupted.interrupt(session))),
            database,
            writer,
            status,
            admin,
            parameters,
            events: Arc::default(),
            counters,
            copy_progress: Arc::default(),
            catchup_progress: Arc::default(),
            started: Instant::now(),
            unanswered: AtomicUsize::new(0),
        }
    }

    /// The end of the server waits for an answer that is about to be sent, for as long as the value lives.
    pub fn will_be_answered(&self) -> Unanswered<'_> {
        self.unanswered.fetch_add(1, Ordering::AcqRel);
        Unanswered(&self.unanswered)
    }
}

/// Somebody whose answer has not been sent yet: as long as it lives, it counts.
pub struct Unanswered<'a>(&'a AtomicUsize);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
