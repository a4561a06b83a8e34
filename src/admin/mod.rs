//! Admin commands: what operators, watchdogs and programs ask of a node, and the answers.
//!
//! One table ([`table::COMMANDS`]) holds syntax, rights, meaning, help and function of every command; parsing, `help`,
//! `commands` and docs/commands.md come from it. To add a command, add a row. The admin handler asks here what it is to do
//! ([`Commands`]). Not here: who is asking (console and SQL port know), state changes (the heart decides those). Invariant:
//! what an [`Action::Answer`] does takes no time, because it runs on the thread of the actors; everything else is
//! [`Action::Work`].

mod copies;
mod general;
mod help;
mod hsb;
mod parameters;
mod parse;
mod perfmon;
pub mod report;
mod status;
pub mod table;
mod verify;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

pub use self::help::document;
pub(crate) use self::status::tell_peer;
use self::table::Action;
use crate::actors::admin_handler::{Answering, Commands, Task, refusal};
use crate::config::Parameters;
use crate::counters::Counters;
use crate::descriptors::Budget;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, Purpose};
use crate::hsb::refusal::Refusal;
use crate::hsb::state::State;
use crate::operations::checkpointer::Checkpointer;
use crate::operations::directory_copy::DirectoryCopies;
use crate::operations::parameters::ParameterChanges;
use crate::progress::Progress;
use crate::services::context::{Answer, Rights};
use crate::services::events::EventHub;
use crate::services::outcomes::Outcomes;
use crate::services::registry::SessionRegistry;
use crate::services::status::NodeStatus;
use crate::storage::database::Database;
use crate::storage::writer::Writer;
use crate::stream::Stream;

/// Rows of RC and TEXT, or why there are none.
pub type Rows = Result<Answer, ServerError>;

/// Reaches the other server within a time and does the handshake.
pub type Dial = Box<dyn Fn(Purpose, Option<Duration>) -> Result<(Stream, Hello), Refusal> + Send + Sync>;

/// What commands may look at and act on.
pub struct AdminServices {
    /// State, positions, connection.
    pub status: Arc<NodeStatus>,
    /// solid.ini.
    pub parameters: Arc<Parameters>,
    /// Who is connected.
    pub sessions: Arc<SessionRegistry>,
    /// What became of transactions with tokens.
    pub outcomes: Arc<Outcomes>,
    /// How far a copy is.
    pub copy_progress: Arc<Progress>,
    /// How far a catchup is.
    pub catchup_progress: Arc<Progress>,
    /// For `makecp`.
    pub checkpointer: Arc<Checkpointer>,
    /// For `hsb copy` and `backup`.
    pub directory_copies: DirectoryCopies,
    /// For its size.
    pub database: Arc<Database>,
    /// Comes to a stop for `hsb verify`.
    pub writer: Arc<Writer>,
    /// For `perfmon`.
    pub counters: Arc<Counters>,
    /// The way to the other server; blocks.
    pub dial: Dial,
    /// What happened.
    pub events: Arc<EventHub>,
    /// Puts changed parameters in force.
    pub changes: Arc<ParameterChanges>,
    /// Ends the server.
    pub shutdown: Sender<()>,
    /// What the limit of open files allows.
    pub budget: Budget,
    /// When the node started.
    pub started: Instant,
}

/// One command as it was given.
#[derive(Clone, Debug)]
pub struct Call {
    /// What follows the command's own words, as typed.
    pub rest: String,
}

impl Call {
    /// The words after the command's own.
    pub fn arguments(&self) -> Vec<&str> {
        self.rest.split_whitespace().collect()
    }
}

impl Commands for Arc<AdminServices> {
    fn understand(&self, text: &str, rights: Rights) -> Result<Task, ServerError> {
        let (row, rest) = parse::find(text)?;
        if row.rights > rights {
            let text = format!(
                "'{}' needs SYS_ADMIN_ROLE, and this user does not have it; an administrator can GRANT it.",
                row.syntax
            );
            return Err(ServerError::sql("42501", text));
        }
        if row.syntax.starts_with("hsb ") && self.status.state() == State::Plain {
            return Err(ServerError::new(Code::NOT_HOTSTANDBY));
        }
        let (services, call) = (Arc::clone(self), Call { rest });
        let by = match row.action {
            Action::Answer(answer) => {
                Answering::AtOnce(Box::new(move || answer(&services, &call).unwrap_or_else(refusal)))
            }
            Action::Work(work) => {
                Answering::Thread(Box::new(move || work(&services, &call).unwrap_or_else(refusal)))
            }
            Action::Heart(command) => Answering::Heart(command),
            Action::HeartThenWork(command, work) => Answering::HeartThenThread(
                command,
                Box::new(move |begun| work(&services, begun).unwrap_or_else(refusal)),
            ),
        };
        Ok(Task { is_logged: row.is_logged(), by })
    }
}

fn one(text: impl Into<String>) -> Rows {
    Ok(vec![(0, text.into())])
}
