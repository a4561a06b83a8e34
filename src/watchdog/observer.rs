//! Asking a node how it is, and listening to its events. Not here: what the answers mean.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::decision::{Report, Sight};
use crate::client::console::ConsoleClient;
use crate::client::credentials::Credentials;
use crate::config::ConnectString;
use crate::error::ServerError;
use crate::hsb::advice::View;
use crate::hsb::cause::Cause;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::hsb::state::State;

/// For connecting and for an answer, unless Connect1 or Connect2 has its own -c or -r.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// For the answer to an order: `switch primary` first tries the other node, as long as its system lets it.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);
/// So often a new log-in is tried, so that one that is refused is known before it is needed.
const LOGIN_INTERVAL: Duration = Duration::from_secs(3);
/// Before the stream of events is opened anew.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);
/// The longest of the growing pauses after refused log-ins.
const LONGEST_LISTEN_PAUSE: Duration = Duration::from_secs(8);
/// Only these events say something about the pair.
const EVENTS: &str = "SYS_EVENT_HSB";

/// A node and how to reach it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) node: usize,
    pub(super) server: ConnectString,
    pub(super) credentials: Credentials,
    /// The connection that questions go over. It outlives a change of the password, so an order can go over it, too.
    pub(super) open: Arc<Mutex<Option<ConsoleClient>>>,
}

impl Target {
    pub(super) fn connect(&self) -> Result<ConsoleClient, ServerError> {
        ConsoleClient::open(&self.server, &self.credentials, ANSWER_TIMEOUT)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Option<ConsoleClient>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an order: over a new connection, or over the open one if the server lives and refuses a new one.
    pub(super) fn order(&self, command: &str) -> Result<(u32, String), NoAnswer> {
        let ask = |client: &mut ConsoleClient| {
            client.set_patience(Some(ORDER_TIMEOUT))?;
            client.ask(command)
        };
        match self.connect() {
            Ok(mut client) => ask(&mut client).map_err(NoAnswer::Lost),
            Err(refusal) => match self.open().as_mut().filter(|_| is_refusal(&refusal)) {
                Some(client) => {
                    let answer = ask(client).map_err(NoAnswer::Lost);
                    // If it cannot be set, the connection is broken, and the next question finds out.
                    let _ = client.set_patience(self.server.read_timeout_or(Some(ANSWER_TIMEOUT)));
                    answer
                }
                None => Err(NoAnswer::NotGiven(refusal)),
            },
        }
    }
}

/// Why there is no answer to an order.
pub(super) enum NoAnswer {
    /// It may have arrived.
    Lost(ServerError),
    /// It did not get there.
    NotGiven(ServerError),
}

/// What observers tell.
pub(super) enum Note {
    /// The answer to a question of this round; `why` if there was none.
    Seen { node: usize, round: u64, sight: Sight, why: String },
    /// A new log-in was tried: what the server says if it refuses.
    LogIn { node: usize, refusal: Option<String> },
    /// Something has happened: look.
    Event,
}

/// The server lives: it has answered, but not what was asked.
fn is_refusal(error: &ServerError) -> bool {
    // One that goes away is as good as gone.
    let silent = [
        Code::SERVER_NOT_FOUND,
        Code::TIMED_OUT,
        Code::CONNECTION_IS_BROKEN,
        Code::SHUTTING_DOWN,
        Code::SHUTDOWN,
    ];
    !error.code.is_some_and(|code| silent.contains(&code))
}

/// Asks the node once for every round that arrives; for the last one if several have. Logs in anew now and then.
pub(super) fn observe(target: &Target, retries: u64, rounds: &Receiver<u64>, notes: &Sender<Note>) {
    let mut logged_in = Instant::now();
    loop {
        let round = match rounds.recv_timeout(LOGIN_INTERVAL) {
            Ok(round) => Some(rounds.try_iter().last().unwrap_or(round)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Some(round) = round {
            let (sight, why) = match ask_patiently(target, retries) {
                Ok(report) => (Sight::Here(report), String::new()),
                Err(error) if is_refusal(&error) => (Sight::Refuses, error.to_string()),
                Err(error) => (Sight::Gone, error.to_string()),
            };
            let node = target.node;
            if notes.send(Note::Seen { node, round, sight, why }).is_err() {
                return;
            }
        }
        if logged_in.elapsed() >= LOGIN_INTERVAL {
            log_in_anew(target, notes);
            logged_in = Instant::now();
        }
    }
}

fn ask_patiently(target: &Target, retries: u64) -> Result<Report, ServerError> {
    let mut answer = ask(target);
    for _ in 0..retries {
        if !answer.as_ref().is_err_and(|error| !is_refusal(error)) {
            break;
        }
        answer = ask(target);
    }
    answer
}

/// The new connection takes the place of the open one; if it is refused the open one stays.
fn log_in_anew(target: &Target, notes: &Sender<Note>) {
    let refusal = match target.connect() {
        Ok(client) => {
            *target.open() = Some(client);
            None
        }
        Err(error) if is_refusal(&error) => Some(error.to_string()),
        // The questions find that out.
        Err(_) => return,
    };
    // The receiver lives as long as the program.
    let _ = notes.send(Note::LogIn { node: target.node, refusal });
}

/// One try. A connection that has broken since the last one does not count as a failure if a new one can be had.
fn ask(target: &Target) -> Result<Report, ServerError> {
    let mut open = target.open();
    if let Some(mut client) = open.take() {
        match report(&mut client) {
            Ok(report) => {
                *open = Some(client);
                return Ok(report);
            }
            Err(error) if error.code == Some(Code::TIMED_OUT) => return Err(error),
            Err(_) => {}
        }
    }
    let mut client = target.connect()?;
    let report = report(&mut client)?;
    *open = Some(client);
    Ok(report)
}

fn report(client: &mut ConsoleClient) -> Result<Report, ServerError> {
    // Not 'hsb status': that asks the other node, which may be the one that does not answer.
    let [connect, state, position, cause, reason] = client.ask_all([
        "hsb status connect",
        "hsb state",
        "hsb logpos",
        "info hsbcause",
        "info hsbreason",
    ])?;
    let known = Cause::named(&cause.1).or_else(|| Cause::of_older_server(&reason.1));
    let ends = |row: &(u32, String)| row.0 == Code::SHUTTING_DOWN.number();
    if known == Some(Cause::ShuttingDown)
        || [&connect, &state, &position, &cause, &reason].into_iter().any(ends)
    {
        // A primary takes leave of its secondary and is PRIMARY ALONE for an instant, and answers a part of the questions
        // when its actors have ended in between.
        return Err(ServerError::new(Code::SHUTTING_DOWN));
    }
    // Behind the colon stands the role, which says nothing about progress.
    let digits = position.1.split(':').next().unwrap_or_default();
    let progress = Position::progress_of(digits);
    match (State::named(&state.1), progress) {
        (Some(State::Offline), _) => {
            Ok(Report { view: View::new(State::Offline, (0, 0), known), connected: false })
        }
        (Some(named), Some(progress)) => {
            Ok(Report { view: View::new(named, progress, known), connected: connect.0 == 0 })
        }
        _ => {
            let code = Code::find(state.0).filter(|code| !code.is_success());
            Err(ServerError::heard(code, "55000", format!("It says: {}", state.1)))
        }
    }
}

/// Passes on that events arrive, for as long as the program runs; also that the stream of events has ended, which is
/// how the death of a process is noticed first.
pub(super) fn listen(target: &Target, notes: &Sender<Note>) {
    // The receiver lives as long as the program.
    let event = || notes.send(Note::Event);
    // Whether it was told that there is no stream: a server may go before the first one is open.
    let mut told = false;
    let mut pause = LISTEN_PAUSE;
    loop {
        pause = (pause * 2).min(LONGEST_LISTEN_PAUSE);
        match target.connect().and_then(|client| client.watch("watch")) {
            Ok(events) => {
                // What happened before this stream began was not told.
                let _ = event();
                pause = LISTEN_PAUSE;
                for _ in events.filter(|event| event.starts_with(EVENTS)) {
                    let _ = event();
                }
                let _ = event();
            }
            Err(error) => {
                if !told {
                    let _ = event();
                }
                if !is_refusal(&error) {
                    pause = LISTEN_PAUSE;
                }
            }
        }
        told = true;
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a server that goes before its first stream is open is missed until the next interval.
    #[test]
    fn a_server_that_cannot_be_listened_to_is_looked_at() {
        let server = ConnectString::parse("tcp 127.0.0.1 1").unwrap();
        let credentials = Credentials { user: "guard".into(), password: "secret".into() };
        let target = Target { node: 0, server, credentials, open: Arc::default() };
        let (notes, arrived) = crossbeam_channel::unbounded();
        // It ends with the test program.
        thread::spawn(move || listen(&target, &notes));
        assert!(matches!(arrived.recv_timeout(Duration::from_secs(60)), Ok(Note::Event)));
    }
}
