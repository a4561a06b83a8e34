//! The program `solcon`: commands to a server, from arguments, a file, a pipe or a terminal.
//!
//! Not here: what commands mean. Invariant: the exit status tells a script whether everything went well.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::console::ConsoleClient;
use super::credentials::Credentials;
use super::options::Options;
use super::{interactive, status_screen};
use crate::config::ConnectString;
use crate::error::{ServerError, invalid};
use crate::hsb::codes::Code;

/// For connecting and logging in, unless the connect string says otherwise.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How it went, in the order of severity; the number is the exit status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Outcome {
    /// Every RC was 0 or says that something is under way.
    Good = 0,
    /// A command was refused or failed.
    Refused = 1,
    /// A server could not be asked.
    Unreachable = 2,
}

/// Runs the program.
pub fn run() -> ExitCode {
    let options = Options::parse();
    let outcome = act(&options).unwrap_or_else(|error| {
        // Whoever read this program's output may have left.
        let _ = writeln!(std::io::stderr(), "solcon: {error}");
        Outcome::Unreachable
    });
    ExitCode::from(outcome as u8)
}

fn act(options: &Options) -> Result<Outcome, ServerError> {
    let servers = options.servers()?;
    let credentials = options.credentials(&servers)?;
    if options.status {
        return status_screen::run(&servers, &credentials, options.once);
    }
    let Some(server) = servers.into_iter().next() else {
        return Err(invalid("No server is named."));
    };
    let script = script(options)?;
    let mut session = Session::open(server, credentials, options.rc)?;
    if let Some(commands) = script {
        return session.run_all(commands.into_iter().map(Ok));
    }
    if std::io::stdin().is_terminal() {
        return interactive::run(&mut session);
    }
    session.run_all(std::io::stdin().lock().lines())
}

/// The commands of -e or -f.
fn script(options: &Options) -> Result<Option<Vec<String>>, ServerError> {
    let commands: Vec<String> = match &options.file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| invalid(format!("{} cannot be read: {error}.", path.display())))?
            .lines()
            .map(str::to_owned)
            .collect(),
        None if options.execute.is_empty() => return Ok(None),
        None => options.execute.clone(),
    };
    let watch = commands.iter().position(|command| is_watch(command)).map_or(commands.len(), |at| at + 1);
    if commands[watch..].iter().any(|command| !is_nothing(command)) {
        return Err(invalid("'watch' goes on until the server ends: it can only be the last command."));
    }
    Ok(Some(commands))
}

/// A server and, while it lasts, a connection to it.
pub(super) struct Session {
    pub(super) server: ConnectString,
    credentials: Credentials,
    client: Option<ConsoleClient>,
    with_codes: bool,
}

impl Session {
    fn open(
        server: ConnectString,
        credentials: Credentials,
        with_codes: bool,
    ) -> Result<Session, ServerError> {
        let mut session = Session { server, credentials, client: None, with_codes };
        session.client()?;
        Ok(session)
    }

    /// The connection; a new one if the last has ended.
    fn client(&mut self) -> Result<&mut ConsoleClient, ServerError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let client = ConsoleClient::open(&self.server, &self.credentials, LOGIN_TIMEOUT)?;
                // A backup may take hours; whoever wants a limit gives -r.
                client.set_patience(self.server.read_timeout_or(None))?;
                client
            }
        };
        Ok(self.client.insert(client))
    }

    /// The rows of an answer. After an error the next command gets a new connection.
    pub(super) fn ask(&mut self, command: &str) -> Result<Vec<(u32, String)>, ServerError> {
        let answer = self.client()?.command(command);
        if answer.is_err() {
            self.client = None;
        }
        answer
    }

    /// Runs one command and prints its answer; empty lines and comments do nothing.
    pub(super) fn run(&mut self, command: &str) -> Result<Outcome, ServerError> {
        let command = command.trim();
        if is_nothing(command) {
            return Ok(Outcome::Good);
        }
        if is_watch(command) {
            return self.watch(command);
        }
        let rows = self.ask(command)?;
        let mut outcome = Outcome::Good;
        for (code, text) in &rows {
            print(&shown(*code, text, self.with_codes))?;
            if !Code::find(*code).is_some_and(Code::is_success) {
                outcome = Outcome::Refused;
            }
        }
        Ok(outcome)
    }

    /// Prints events until the server ends the connection (or Ctrl-C ends this program).
    fn watch(&mut self, command: &str) -> Result<Outcome, ServerError> {
        self.client()?;
        let Some(client) = self.client.take() else { return Ok(Outcome::Unreachable) };
        for event in client.watch(command)? {
            print(&event)?;
        }
        eprintln!("solcon: the server has ended the connection");
        Ok(Outcome::Unreachable)
    }

    /// Runs commands until the end, `quit`, or the loss of the connection. A refusal does not end it.
    fn run_all(
        &mut self,
        commands: impl Iterator<Item = std::io::Result<String>>,
    ) -> Result<Outcome, ServerError> {
        let mut outcome = Outcome::Good;
        for command in commands {
            let command =
                command.map_err(|error| invalid(format!("The commands cannot be read: {error}.")))?;
            if is_quit(&command) {
                break;
            }
            outcome = outcome.max(self.run(&command)?);
        }
        Ok(outcome)
    }
}

pub(super) fn is_watch(command: &str) -> bool {
    command.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("watch"))
}

/// An empty line or a comment.
fn is_nothing(command: &str) -> bool {
    let command = command.trim();
    command.is_empty() || command.starts_with("--")
}

pub(super) fn is_quit(command: &str) -> bool {
    matches!(command.trim().to_ascii_lowercase().as_str(), "quit" | "exit")
}

/// One row. The code stands behind the text unless it is 0.
fn shown(code: u32, text: &str, with_codes: bool) -> String {
    if with_codes {
        format!("{code}\t{text}")
    } else if code == 0 {
        text.to_owned()
    } else {
        format!("{text} ({code})")
    }
}

/// A reader of the output that has gone away ends the program.
fn print(line: &str) -> Result<(), ServerError> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| invalid(format!("Nobody reads: {error}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_their_code_once() {
        assert_eq!(shown(0, "PRIMARY ACTIVE", false), "PRIMARY ACTIVE");
        assert_eq!(shown(14537, "BROKEN", false), "BROKEN (14537)");
        assert_eq!(shown(14700, "Rejected", false), "Rejected (14700)");
        assert_eq!(shown(14700, "Rejected", true), "14700\tRejected");
    }
}
