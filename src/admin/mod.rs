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
use std::time::Duration;

use crossbeam_channel::Sender;

pub use self::help::document;
pub(crate) use self::status::tell_peer;
use self::table::Action;
use crate::actors::admin_handler::{Answering, Commands, Task, refusal};
use crate::descriptors::Budget;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, Purpose};
use crate::hsb::refusal::Refusal;
use crate::hsb::state::State;
use crate::operations::checkpointer::Checkpointer;
use crate::operations::outside;
use crate::operations::parameters::ParameterChanges;
use crate::operations::storage::Storage;
use crate::services::context::{Answer, NodeContext, Rights};
use crate::stream::Stream;

/// Rows of RC and TEXT, or why there are none.
pub type Rows = Result<Answer, ServerError>;

/// What commands may look at and act on.
pub struct AdminServices {
    /// State, parameters, sessions, counters.
    pub node: Arc<NodeContext>,
    /// For what takes several steps.
    pub storage: Arc<Storage>,
    /// For `makecp`.
    pub checkpointer: Arc<Checkpointer>,
    /// Puts changed parameters in force.
    pub changes: Arc<ParameterChanges>,
    /// Ends the server.
    pub shutdown: Sender<()>,
    /// What the limit of open files allows.
    pub budget: Budget,
}

impl AdminServices {
    /// Reaches the other server within a time and does the handshake. Blocks.
    fn dial(&self, purpose: Purpose, limit: Duration) -> Result<(Stream, Hello), Refusal> {
        outside::dial_within(&self.node.parameters, purpose, self.storage.hello(), Some(limit))
    }
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
        if row.syntax.starts_with("hsb ") && self.node.status.state() == State::Plain {
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
