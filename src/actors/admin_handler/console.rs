//! The console: who may log in, what their rights are at this moment, what they are answered, and which events they may
//! hear (`watch`).
//!
//! Runs on the connection's thread until the client leaves. Not here: bytes and lines (`net::console`), what commands
//! mean. Invariants: nobody gives a command or hears an event with rights that were taken away meanwhile; whatever the
//! client sends, it gets a line that says what is wrong.

use std::sync::Arc;
use std::time::Duration;

use super::refusal;
use crate::error::{ServerError, invalid};
use crate::hsb::codes::Code;
use crate::hsb::state::State;
use crate::logging;
use crate::net::console::{Ended, Lines};
use crate::net::listener::Guest;
use crate::net::listener::places::Kind;
use crate::services::context::{Answer, NodeContext, Rights};
use crate::services::events::{EVENTS, Event};
use crate::sql::users::{self, Role};

/// How often a watching client is looked after.
const WATCH_TICK: Duration = Duration::from_millis(500);
const FIRST_LINE: &str = "The first line is: login <user> <password>.";

/// Talks to a client until it leaves or breaks the rules; it has to have logged in by the guest's deadline.
pub fn serve(mut guest: Guest, context: &NodeContext) {
    let stream = Arc::clone(guest.stream());
    let mut lines = Lines::new(&stream, guest.deadline(), &context.parameters);
    let problem = match converse(&mut lines, &mut guest, context) {
        Ok(()) | Err(Ended::Left) => None,
        Err(Ended::Late) => {
            Some("No login came in time; the first line is: login <user> <password>.".to_owned())
        }
        Err(Ended::Refused(problem)) => Some(problem),
    };
    if let Some(problem) = problem {
        let _ = lines.answer(&refusal(ServerError::with(Code::INVALID_ARGUMENT, problem)));
    }
    lines.close();
}

fn converse(lines: &mut Lines<'_>, guest: &mut Guest, context: &NodeContext) -> Result<(), Ended> {
    let (user, password) = loop {
        let line = lines.next_line()?;
        let (word, rest) = first_word(&line);
        match word.to_ascii_lowercase().as_str() {
            "" => {}
            "quit" | "exit" => return Ok(()),
            "login" if !rest.is_empty() => {
                let (user, password) = first_word(rest);
                break (user.to_owned(), password.to_owned());
            }
            _ => return Err(Ended::Refused(FIRST_LINE.to_owned())),
        }
    };
    let let_in = |login| {
        guest.let_in(Kind::Console).map_err(|full| full.refusal("consoles"))?;
        Ok(login)
    };
    let mut login = match Login::new(context, &user, &password).and_then(let_in) {
        Ok(login) => login,
        Err(error) => return lines.answer(&refusal(error)),
    };
    lines.end_deadline();
    lines.answer(&[])?;
    loop {
        let line = lines.next_line()?;
        let (word, rest) = first_word(&line);
        match word.to_ascii_lowercase().as_str() {
            "" => {}
            "quit" | "exit" if rest.is_empty() => return Ok(()),
            "watch" => match login.may_hear(rest.trim()) {
                Ok(()) => return login.watch(rest.trim(), lines),
                Err(error) => lines.answer(&refusal(error))?,
            },
            _ => {
                let _unanswered = context.will_be_answered();
                lines.answer(&login.command(line.trim()))?;
            }
        }
    }
}

/// A console's user, with the rights of this moment.
struct Login<'a> {
    context: &'a NodeContext,
    user: String,
    /// None: there is no such user any more.
    role: Option<Role>,
    /// Of the schema and the users, when the role was read.
    generation: u64,
}

impl<'a> Login<'a> {
    fn new(context: &'a NodeContext, user: &str, password: &str) -> Result<Login<'a>, ServerError> {
        if context.status.state() == State::Offline {
            return Err(ServerError::new(Code::BACKUPSERVER_NO_CONNECTIONS));
        }
        let generation = context.database.schema_generation();
        let role = users::check_password(&context.database, user, password)
            .inspect_err(|_| log::warn!("a console login as '{}' was refused", logging::name(user)))?;
        let mut login = Login { context, user: user.to_owned(), role: Some(role), generation };
        login.rights().map(|_| login)
    }

    /// What it may do; an error if it may not even be here (any more).
    fn rights(&mut self) -> Result<Rights, ServerError> {
        let generation = self.context.database.schema_generation();
        if self.generation != generation {
            // While the database is being replaced it cannot be asked: what was known holds.
            if let Ok(found) = self.context.database.ask(|connection| users::find(connection, &self.user)) {
                (self.generation, self.role) = (generation, found.map(|(role, _)| role));
            }
        }
        self.role.and_then(Role::rights).ok_or_else(|| {
            let text = format!(
                "The console needs SYS_ADMIN_ROLE or SYS_CONSOLE_ROLE, and '{}' has neither; an administrator can GRANT one.",
                self.user
            );
            ServerError::sql("42501", text)
        })
    }

    fn command(&mut self, text: &str) -> Answer {
        match self.rights() {
            Ok(rights) => self.context.admin.execute(&self.user, rights, text),
            Err(error) => refusal(error),
        }
    }

    /// Whether it may hear the events of this name; all, if that is empty.
    fn may_hear(&mut self, name: &str) -> Result<(), ServerError> {
        if !name.is_empty() && !EVENTS.iter().any(|event| event.0.eq_ignore_ascii_case(name)) {
            return Err(invalid(format!("No event is called '{name}'; 'events' lists them.")));
        }
        self.rights().map(drop)
    }

    /// Streams events until the client leaves, or may not hear them any more.
    fn watch(&mut self, name: &str, lines: &mut Lines<'_>) -> Result<(), Ended> {
        let mut subscription = self.context.events.subscribe();
        let wanted = |event: &Arc<Event>| name.is_empty() || event.name.eq_ignore_ascii_case(name);
        loop {
            let next = self.rights().and_then(|_| {
                subscription.wait(WATCH_TICK).map_err(|missed| {
                    ServerError::with(Code::OPERATION_FAILED, format!("({missed}; watch again)"))
                })
            });
            match next.map(|event| event.filter(wanted)) {
                Ok(Some(event)) => lines.send(&event.line())?,
                // What the client sends while watching means nothing; only its leaving does.
                Ok(None) => lines.skip()?,
                Err(error) => return lines.answer(&refusal(error)),
            }
        }
    }
}

/// The first word and what follows it, without the blanks between.
fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

#[cfg(test)]
mod tests;
