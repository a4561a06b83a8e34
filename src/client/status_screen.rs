//! `solcon --status`: both servers of a pair on one screen, with one sentence on top that says how things stand.
//!
//! Not here: the lines below it, they are each server's `hsb status`. Invariant: a server that does not answer delays
//! the screen by no more than [`ANSWER_TIMEOUT`] and never the other server's part.

use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime};

use super::console::ConsoleClient;
use super::credentials::Credentials;
use super::solcon::Outcome;
use crate::calendar::log_text;
use crate::config::ConnectString;
use crate::error::{ServerError, invalid};
use crate::hsb::codes::Code;
use crate::hsb::state::State;
use crate::threads;

const REFRESH: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Back to the upper left corner, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Draws until Ctrl-C, or once.
pub(super) fn run(
    servers: &[ConnectString],
    credentials: &Credentials,
    once: bool,
) -> Result<Outcome, ServerError> {
    let mut nodes: Vec<Node> = servers.iter().map(Node::new).collect();
    let (redraw, colour) = terminal();
    loop {
        std::thread::scope(|scope| {
            let look = |node| threads::spawn_scoped(scope, "look", move || Node::look(node, credentials));
            nodes.iter_mut().try_for_each(|node| look(node).map(drop))
        })?;
        let verdict = Verdict::of(&nodes);
        let screen = screen(&nodes, &verdict, SystemTime::now(), colour);
        let clear = if redraw && !once { CLEAR } else { "" };
        let mut output = std::io::stdout();
        write!(output, "{clear}{screen}")
            .and_then(|()| output.flush())
            .map_err(|error| invalid(format!("Nobody reads: {error}.")))?;
        if once {
            return Ok(if verdict.good { Outcome::Good } else { Outcome::Refused });
        }
        std::thread::sleep(REFRESH);
    }
}

/// Whether the output can be redrawn, and coloured.
fn terminal() -> (bool, bool) {
    let terminal = std::io::stdout().is_terminal();
    (terminal, terminal && std::env::var_os("NO_COLOR").is_none())
}

/// One server and what it said last.
struct Node {
    server: ConnectString,
    client: Option<ConsoleClient>,
    answer: Result<Status, ServerError>,
    /// No sign of life since then; a refusal is one.
    silent_since: Option<SystemTime>,
}

struct Status {
    state: String,
    disk_full: bool,
    lines: Vec<String>,
}

impl Node {
    fn new(server: &ConnectString) -> Node {
        let answer = Ok(Status { state: String::new(), disk_full: false, lines: Vec::new() });
        Node { server: server.clone(), client: None, answer, silent_since: None }
    }

    fn look(&mut self, credentials: &Credentials) {
        self.answer = self.ask(credentials);
        match self.answer {
            Ok(_) => self.silent_since = None,
            Err(_) => {
                self.client = None;
                if self.refuses() {
                    self.silent_since = None;
                } else {
                    self.silent_since.get_or_insert_with(SystemTime::now);
                }
            }
        }
    }

    /// It answers, but not this user, or nobody at the moment.
    fn refuses(&self) -> bool {
        let silent = [Code::SERVER_NOT_FOUND, Code::TIMED_OUT, Code::CONNECTION_IS_BROKEN];
        self.answer.as_ref().is_err_and(|error| !error.code.is_some_and(|code| silent.contains(&code)))
    }

    fn ask(&mut self, credentials: &Credentials) -> Result<Status, ServerError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => ConsoleClient::open(&self.server, credentials, ANSWER_TIMEOUT)?,
        };
        let client = self.client.insert(client);
        let [(_, state), (unknown, lacks)] = client.ask_all(["hsb state", "info diskfull"])?;
        let lines = client.command("hsb status")?.into_iter().map(|(_, text)| text).collect();
        // An older server does not know the question.
        Ok(Status { state, disk_full: unknown == 0 && !lacks.is_empty(), lines })
    }

    fn lacks_room(&self) -> bool {
        self.answer.as_ref().is_ok_and(|status| status.disk_full)
    }

    fn state(&self) -> Option<State> {
        self.answer.as_ref().ok().and_then(|status| State::named(&status.state))
    }
}

/// The sentence on top.
#[derive(PartialEq, Debug)]
struct Verdict {
    good: bool,
    text: String,
}

impl Verdict {
    fn of(nodes: &[Node]) -> Verdict {
        let seen: Vec<(String, Option<State>)> =
            nodes.iter().map(|node| (node.server.to_string(), node.state())).collect();
        let verdict = Verdict::from_states(&seen);
        match nodes.iter().find(|node| node.refuses()) {
            Some(node) if !verdict.good => {
                let name = &node.server;
                let rest = if node.state().is_none() && seen.iter().all(|(_, state)| state.is_none()) {
                    String::new()
                } else {
                    format!(" {}", verdict.text)
                };
                Verdict {
                    good: false,
                    text: format!("{name} ANSWERS, BUT REFUSES TO SAY how it is: see below.{rest}"),
                }
            }
            _ => match nodes.iter().find(|node| node.lacks_room()) {
                Some(node) => Verdict {
                    good: false,
                    text: format!(
                        "A DISK IS FULL, see {}: writes are refused. {}",
                        node.server, verdict.text
                    ),
                },
                None => verdict,
            },
        }
    }

    fn from_states(seen: &[(String, Option<State>)]) -> Verdict {
        let named = |wanted: &dyn Fn(State) -> bool| -> Vec<&str> {
            seen.iter()
                .filter(|(_, state)| state.is_some_and(wanted))
                .map(|(name, _)| name.as_str())
                .collect()
        };
        let bad = |text: String| Verdict { good: false, text };
        let writers = named(&|state| state.is_primary() && state != State::PrimaryUncertain);
        let uncertain = named(&|state| state == State::PrimaryUncertain);
        let active = named(&State::is_active);
        match (writers.as_slice(), uncertain.as_slice()) {
            ([_, _, ..], _) => bad("TWO PRIMARIES accept writes; 'next' below says what to do.".into()),
            (_, _) if active.len() == seen.len() => {
                let writer = writers.first().copied().unwrap_or("the other server");
                Verdict { good: true, text: format!("The pair is complete. {writer} takes the writes.") }
            }
            ([writer], _) if active.contains(writer) => bad(format!(
                "{writer} takes the writes and is connected; the other server does not answer here."
            )),
            ([writer], _) if seen.len() > 1 => bad(format!(
                "{writer} takes the writes ALONE; nothing protects them; 'next' below says what to do."
            )),
            ([writer], _) => bad(format!("{writer} takes the writes ALONE.")),
            ([], [waiting, ..]) => bad(format!("WRITES WAIT at {waiting}; 'next' below says what to do.")),
            ([], []) if named(&State::is_secondary).len() > 1 => {
                bad("NO PRIMARY: both are secondaries; 'next' below says what to do.".into())
            }
            ([], []) if named(&|_| true).is_empty() => bad("NO SERVER ANSWERS.".into()),
            ([], []) => bad("NO PRIMARY answers; 'next' below says what to do.".into()),
        }
    }
}

fn screen(nodes: &[Node], verdict: &Verdict, now: SystemTime, colour: bool) -> String {
    let (paint, plain) = match (colour, verdict.good) {
        (false, _) => ("", ""),
        (true, true) => ("\x1b[1;32m", "\x1b[0m"),
        (true, false) => ("\x1b[1;31m", "\x1b[0m"),
    };
    let mut text = format!("{}  {paint}{}{plain}\n", log_text(now), verdict.text);
    for node in nodes {
        let name = &node.server;
        match &node.answer {
            Ok(status) => {
                text.push_str(&format!("\n{name}  {}\n", status.state));
                for line in &status.lines {
                    text.push_str(&format!("  {line}\n"));
                }
            }
            Err(error) if node.refuses() => text.push_str(&format!("\n{name}  REFUSES\n  {error}\n")),
            Err(error) => {
                let since = node.silent_since.map(log_text).unwrap_or_default();
                text.push_str(&format!("\n{name}  NO ANSWER since {since}\n  {error}\n"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(states: &[Option<State>]) -> (bool, String) {
        let seen: Vec<_> =
            ["a", "b"].iter().map(|name| name.to_string()).zip(states.iter().copied()).collect();
        let Verdict { good, text } = Verdict::from_states(&seen);
        (good, text)
    }

    #[test]
    fn the_first_line_says_how_things_stand() {
        use State::*;
        let (good, text) = verdict(&[Some(SecondaryActive), Some(PrimaryActive)]);
        assert!(good && text.contains("b takes the writes"), "{text}");
        assert!(verdict(&[Some(SecondaryActive)]).0);
        for (states, words) in [
            ([Some(PrimaryAlone), Some(SecondaryAlone)], "a takes the writes ALONE"),
            ([None, Some(PrimaryAlone)], "b takes the writes ALONE"),
            ([Some(PrimaryActive), None], "does not answer here"),
            ([Some(Standalone), Some(PrimaryAlone)], "TWO PRIMARIES"),
            ([Some(PrimaryUncertain), None], "WRITES WAIT at a"),
            ([Some(SecondaryAlone), Some(SecondaryAlone)], "both are secondaries"),
            ([Some(SecondaryAlone), None], "NO PRIMARY answers"),
            ([None, None], "NO SERVER ANSWERS"),
        ] {
            let (good, text) = verdict(&states);
            assert!(!good && text.contains(words), "{states:?}: {text}");
        }
    }

    #[test]
    fn a_server_that_is_down_is_shown_as_such() {
        let mut node = Node::new(&ConnectString::parse("tcp 1").unwrap());
        node.answer = Err(ServerError::new(crate::hsb::codes::Code::SERVER_NOT_FOUND));
        node.silent_since = Some(SystemTime::UNIX_EPOCH);
        let verdict = Verdict { good: false, text: "BAD".into() };
        let text = screen(&[node], &verdict, SystemTime::UNIX_EPOCH, false);
        assert_eq!(
            text.lines().take(3).collect::<Vec<_>>(),
            [
                "1970-01-01 00:00:00.000Z  BAD",
                "",
                "tcp 127.0.0.1 1  NO ANSWER since 1970-01-01 00:00:00.000Z"
            ]
        );
        assert!(text.contains("21306"));
    }

    /// Whoever may not ask must not be told that the server is down.
    #[test]
    fn a_server_that_refuses_the_user_is_not_shown_as_down() {
        let node = |error: Option<ServerError>| {
            let mut node = Node::new(&ConnectString::parse("tcp 1").unwrap());
            let status = Status { state: "PRIMARY ALONE".into(), disk_full: false, lines: Vec::new() };
            node.answer = error.map_or(Ok(status), Err);
            node
        };
        let refusal = || ServerError::new(Code::OPERATION_FAILED).saying("needs a role").under("28P01");
        let refused = || node(Some(refusal()));
        let silent = || node(Some(ServerError::new(Code::SERVER_NOT_FOUND)));
        for (nodes, alone) in [
            (vec![refused(), refused()], false),
            (vec![silent(), refused()], false),
            (vec![node(None), refused()], true),
        ] {
            let verdict = Verdict::of(&nodes);
            assert!(!verdict.good && verdict.text.contains("REFUSES TO SAY"), "{}", verdict.text);
            assert!(!verdict.text.contains("NO SERVER ANSWERS"), "{}", verdict.text);
            assert_eq!(verdict.text.contains("takes the writes ALONE"), alone, "{}", verdict.text);
            let text = screen(&nodes, &verdict, SystemTime::UNIX_EPOCH, false);
            assert!(text.contains("REFUSES\n  14501: needs a role"), "{text}");
        }
        assert_eq!(Verdict::of(&[silent()]).text, "NO SERVER ANSWERS.");
    }
}
