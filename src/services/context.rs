//! What a session gets of its node.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::events::EventHub;
use super::outcomes::Outcomes;
use super::registry::SessionRegistry;
use super::status::NodeStatus;
use crate::config::Parameters;
use crate::storage::database::Database;
use crate::storage::writer::Writer;

/// Rows of an answer to an admin command: RC and TEXT.
pub type Answer = Vec<(u32, String)>;

/// The way to the admin handler, from any thread that may block.
pub struct AdminPort(Give);

type Give = Box<dyn Fn(&str, bool, &str) -> Answer + Send + Sync>;

impl AdminPort {
    /// `give` takes the user, whether the user may administrate, and the command, and waits for the answer.
    pub fn new(give: impl Fn(&str, bool, &str) -> Answer + Send + Sync + 'static) -> AdminPort {
        AdminPort(Box::new(give))
    }

    /// Gives a command (without `ADMIN COMMAND` and quotes) and waits for its answer.
    pub fn execute(&self, user: &str, may_administrate: bool, text: &str) -> Answer {
        (self.0)(user, may_administrate, text)
    }
}

/// What a session gets of its node.
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
    /// Commands of consoles, and copies from the other server, whose answers have not been sent yet.
    pub unanswered: AtomicUsize,
}
