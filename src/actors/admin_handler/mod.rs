//! The admin handler: answers admin commands, and passes on those that the heart answers. [`console`] is its way in by
//! text lines: who may log in there, with what rights, and which events may be heard.
//!
//! Not here: what commands there are and what they do; whoever has them implements [`Commands`]. Invariant: the actor never
//! waits; what takes time runs on a thread of its own.

pub mod console;

use actix::prelude::*;
use crossbeam_channel::{Sender, bounded};

use super::supervisor::SupervisorMessage;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::Command;
use crate::services::context::{AdminPort, Answer, Rights};
use crate::threads;

/// From sessions and consoles: one command. Answered in the channel.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct AdminCommand {
    /// Who asks.
    pub user: String,
    /// What that user may do.
    pub rights: Rights,
    /// The command, without `ADMIN COMMAND` and quotes.
    pub text: String,
    /// For the answer.
    pub reply: Sender<Answer>,
}

/// What can be asked. The table of commands implements it.
pub trait Commands {
    /// What is wanted, or why it is refused to somebody with these rights. Takes no time.
    fn understand(&self, text: &str, rights: Rights) -> Result<Task, ServerError>;
}

/// What carries out a command that was understood.
pub struct Task {
    /// It may change something: the message log tells who has given it.
    pub is_logged: bool,
    /// Who answers.
    pub by: Answering,
}

/// Who answers a command.
pub enum Answering {
    /// Whoever is asked, at once; waits for nothing.
    AtOnce(Box<dyn FnOnce() -> Answer>),
    /// A thread of its own: it waits, computes, or touches files.
    Thread(Box<dyn FnOnce() -> Answer + Send>),
    /// The heart decides and answers.
    Heart(Command),
    /// The heart, and then a thread of its own makes the answer of the heart's.
    HeartThenThread(Command, Box<dyn FnOnce(Answer) -> Answer + Send>),
}

/// See the module.
pub struct AdminHandler {
    /// What can be asked.
    pub commands: Box<dyn Commands>,
    /// The supervisor.
    pub supervisor: Recipient<SupervisorMessage>,
}

/// The way to the handler from any thread that may block.
pub fn port(handler: Recipient<AdminCommand>) -> AdminPort {
    AdminPort::new(move |user, rights, text| {
        let (reply, answer) = bounded(1);
        handler.do_send(AdminCommand { user: user.to_owned(), rights, text: text.to_owned(), reply });
        answer.recv().unwrap_or_else(|_| cut_off())
    })
}

/// Whoever was to answer has ended with the server.
fn cut_off() -> Answer {
    let detail = "If the command was carried out in spite of it, solmsg.out says so.";
    refusal(ServerError::with(Code::SHUTTING_DOWN, detail))
}

/// An error as the rows of an answer.
pub fn refusal(error: ServerError) -> Answer {
    vec![error.row()]
}

impl Actor for AdminHandler {
    type Context = Context<Self>;
}

impl Handler<AdminCommand> for AdminHandler {
    type Result = ();
    fn handle(&mut self, command: AdminCommand, _: &mut Context<Self>) {
        let AdminCommand { user, rights, text, reply } = command;
        // Whoever asked may have gone away when the answer comes; it is lost then, its effect is not.
        let task = match self.commands.understand(&text, rights) {
            Ok(task) => task,
            Err(error) => return drop(reply.send(refusal(error))),
        };
        if task.is_logged {
            log::info!("{user}: {}", without_secrets(text.trim()));
        }
        match task.by {
            Answering::AtOnce(answer) => drop(reply.send(answer())),
            Answering::Thread(work) => threads::run("admin", move || drop(reply.send(work()))),
            Answering::Heart(command) => {
                self.supervisor.do_send(SupervisorMessage::Operator { command, reply });
            }
            Answering::HeartThenThread(command, conclude) => {
                let supervisor = self.supervisor.clone();
                threads::run("admin", move || {
                    let (begun, when_begun) = bounded(1);
                    supervisor.do_send(SupervisorMessage::Operator { command, reply: begun });
                    let _ = reply.send(when_begun.recv().map_or_else(|_| cut_off(), conclude));
                });
            }
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
