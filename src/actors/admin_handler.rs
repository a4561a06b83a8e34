//! The admin handler: answers admin commands, and passes on those that the heart answers. Thin: what there is and what
//! it does is in `admin`. Invariant: it never waits; what takes time runs on a thread of its own.

use std::sync::Arc;

use actix::prelude::*;
use crossbeam_channel::{Sender, bounded};

use super::supervisor::Operator;
use crate::admin::{self, Action, AdminServices, refusal};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::Command;
use crate::services::context::Answer;
use crate::threads;

/// From sessions and consoles: one command. Answered in the channel.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct AdminCommand {
    /// Who asks.
    pub user: String,
    /// Has SYS_ADMIN_ROLE.
    pub may_administrate: bool,
    /// The command, without `ADMIN COMMAND` and quotes.
    pub text: String,
    /// For the answer.
    pub reply: Sender<Answer>,
}

/// See the module.
pub struct AdminHandler {
    /// What commands look at and act on.
    pub services: Arc<AdminServices>,
    /// The supervisor.
    pub operator: Recipient<Operator>,
}

impl Actor for AdminHandler {
    type Context = Context<Self>;
}

impl Handler<AdminCommand> for AdminHandler {
    type Result = ();
    fn handle(&mut self, command: AdminCommand, _: &mut Context<Self>) {
        let AdminCommand { user, may_administrate, text, reply } = command;
        // Whoever asked may have gone away when the answer comes; it is lost then, its effect is not.
        let (row, call) = match admin::understand(&self.services, &text, may_administrate) {
            Ok(found) => found,
            Err(error) => return drop(reply.send(refusal(error))),
        };
        if row.is_logged() {
            log::info!("{user}: {}", without_secrets(text.trim()));
        }
        match row.action {
            Action::Answer(answer) => {
                let rows = answer(&self.services, &call).unwrap_or_else(refusal);
                let _ = reply.send(rows);
            }
            Action::Work(work) => {
                let services = Arc::clone(&self.services);
                threads::run("admin", move || {
                    let rows = work(&services, &call).unwrap_or_else(refusal);
                    let _ = reply.send(rows);
                });
            }
            Action::Heart(Command::Connect) => {
                let (operator, services) = (self.operator.clone(), Arc::clone(&self.services));
                threads::run("admin", move || {
                    let (begun, when_begun) = bounded(1);
                    operator.do_send(Operator { command: Some(Command::Connect), reply: begun });
                    let answer = when_begun.recv().map_err(|_| ServerError::new(Code::SHUTTING_DOWN));
                    let answer = answer.and_then(|answer| admin::with_early_failure(&services, answer));
                    let _ = reply.send(answer.unwrap_or_else(refusal));
                });
            }
            Action::Heart(command) => self.operator.do_send(Operator { command: Some(command), reply }),
        }
    }
}

/// Passwords are parameters too (of the watchdog); they stay out of the message log.
fn without_secrets(text: &str) -> String {
    match text.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}=********"),
        _ => text.to_owned(),
    }
}
