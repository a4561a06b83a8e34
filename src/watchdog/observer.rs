//! Asking a node how it is, and listening to its events. Not here: what the answers mean.

use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::decision::{Report, Sight};
use crate::client::console::ConsoleClient;
use crate::client::credentials::Credentials;
use crate::config::ConnectString;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::state::State;
use crate::hsb::table::{SHUTTING_DOWN, STARTED, TABLE, Trigger};

/// For connecting and for an answer, unless Connect1 or Connect2 has its own -c or -r.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Before the stream of events is opened anew.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);
/// Only these events say something about the pair.
const EVENTS: &str = "SYS_EVENT_HSB";

/// A node and how to reach it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) node: usize,
    pub(super) server: ConnectString,
    pub(super) credentials: Credentials,
}

impl Target {
    pub(super) fn connect(&self) -> Result<ConsoleClient, ServerError> {
        ConsoleClient::open(&self.server, &self.credentials, ANSWER_TIMEOUT)
    }
}

/// What observers tell.
pub(super) enum Note {
    /// The answer to a question of this round; `why` if there was none.
    Seen { node: usize, round: u64, sight: Sight, why: String },
    /// Something has happened: look.
    Event,
}

/// Asks the node once for every round that arrives; for the last one if several have.
pub(super) fn observe(target: &Target, retries: u64, rounds: &Receiver<u64>, notes: &Sender<Note>) {
    let mut client = None;
    for mut round in rounds {
        round = rounds.try_iter().last().unwrap_or(round);
        let mut answer = ask(target, &mut client);
        for _ in 0..retries {
            if answer.is_ok() {
                break;
            }
            answer = ask(target, &mut client);
        }
        let (sight, why) = match answer {
            Ok(report) => (Sight::Here(report), String::new()),
            Err(error) => (Sight::Gone, error.to_string()),
        };
        if notes.send(Note::Seen { node: target.node, round, sight, why }).is_err() {
            return;
        }
    }
}

/// One try. A connection that has broken since the last one does not count as a failure if a new one can be had.
fn ask(target: &Target, client: &mut Option<ConsoleClient>) -> Result<Report, ServerError> {
    if let Some(mut open) = client.take() {
        match report(&mut open) {
            Ok(report) => {
                *client = Some(open);
                return Ok(report);
            }
            Err(error) if error.code == Some(Code::TIMED_OUT) => return Err(error),
            Err(_) => {}
        }
    }
    let mut open = target.connect()?;
    let report = report(&mut open)?;
    *client = Some(open);
    Ok(report)
}

fn report(client: &mut ConsoleClient) -> Result<Report, ServerError> {
    // Not 'hsb status': that asks the other node, which may be the one that does not answer.
    let [connect, state, position, reason] =
        client.ask_all(["hsb status connect", "hsb state", "hsb logpos", "info hsbreason"])?;
    let Some(named) = State::named(&state.1).filter(|state| *state != State::Offline) else {
        return Err(ServerError {
            code: Code::find(state.0),
            sqlstate: "55000",
            message: format!("It says: {}", state.1),
        });
    };
    if reason.1 == SHUTTING_DOWN {
        // A primary takes leave of its secondary and is PRIMARY ALONE for an instant.
        return Err(ServerError::new(Code::SHUTTING_DOWN));
    }
    let trigger = match named {
        State::PrimaryUncertain => Some(Trigger::PeerPromoted),
        State::SecondaryAlone => Some(Trigger::Diverged),
        _ => None,
    };
    let row = trigger.and_then(|trigger| TABLE.iter().find(|row| row.trigger == trigger && row.to == named));
    let awaits_operator = row.is_some_and(|row| row.reason == reason.1);
    let restarted = named == State::SecondaryAlone && reason.1 == STARTED;
    // Behind the colon stands the role, which says nothing about progress.
    let position = position.1.split(':').next().unwrap_or_default().to_owned();
    Ok(Report { state: named, connected: connect.0 == 0, position, awaits_operator, restarted })
}

/// Passes on that events arrive, for as long as the program runs; also that the stream of events has ended, which is
/// how the death of a process is noticed first.
pub(super) fn listen(target: &Target, notes: &Sender<Note>) {
    // The receiver lives as long as the program.
    let event = || notes.send(Note::Event);
    // Whether it was told that there is no stream: a server may go before the first one is open.
    let mut told = false;
    loop {
        match target.connect().and_then(|client| client.watch("watch")) {
            Ok(events) => {
                // What happened before this stream began was not told.
                let _ = event();
                for _ in events.filter(|event| event.starts_with(EVENTS)) {
                    let _ = event();
                }
                let _ = event();
            }
            Err(_) if !told => drop(event()),
            Err(_) => {}
        }
        told = true;
        thread::sleep(LISTEN_PAUSE);
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
        let target = Target { node: 0, server, credentials };
        let (notes, arrived) = crossbeam_channel::unbounded();
        // It ends with the test program.
        thread::spawn(move || listen(&target, &notes));
        assert!(matches!(arrived.recv_timeout(Duration::from_secs(60)), Ok(Note::Event)));
    }
}
