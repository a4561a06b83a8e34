//! The program `watchdog`: settings, threads, the loop. Not here: decisions.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::decision::{Finding, Mode, Policy, Reply, Sight, Watchdog, known};
use super::journal::Journal;
use super::observer::{NoAnswer, Note, Target, listen, observe};
use super::pace::Pace;
use super::signals;
use crate::client::credentials::Credentials;
use crate::config::{ConnectString, Id, Parameters};
use crate::error::{ServerError, invalid};
use crate::hsb::advice::{Advice, Step};
use crate::threads;

/// Watches a HotStandby pair and acts on the first failure. Reads [Watchdog] of solid.ini; asks for user names and
/// passwords that are neither there nor in SOLID_USER and SOLID_PASSWORD.
#[derive(Parser, Debug)]
#[command(name = "watchdog", version)]
struct Options {
    /// Directory of solid.ini and of the log
    #[arg(short = 'c', value_name = "DIR", env = "SOLIDDIR", default_value = ".")]
    directory: PathBuf,

    /// Look every PingInterval only, do not listen to the servers' events
    #[arg(long)]
    poll_only: bool,
}

/// Runs the program until a signal ends it.
pub fn run() -> ExitCode {
    match watch(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watchdog: {error}");
            ExitCode::FAILURE
        }
    }
}

fn watch(options: &Options) -> Result<(), ServerError> {
    let (parameters, warnings) = Parameters::load(&options.directory)?;
    let targets = targets(&parameters)?;
    let journal = Journal::open(&parameters.path(Id::WatchdogLog))?;
    signals::answer(&journal)?;
    for warning in warnings.iter().filter(|warning| warning.contains("Watchdog")) {
        journal.say(warning);
    }
    let policy = Policy {
        auto_switch: parameters.flag(Id::WatchdogAutoSwitch),
        dual_secondary_auto_switch: parameters.flag(Id::WatchdogDualSecAutoSwitch),
    };
    let interval = parameters.milliseconds(Id::WatchdogPingInterval);
    let (notes, arrived) = unbounded();
    let retries = parameters.number(Id::WatchdogNumRetry);
    let mut rounds = Vec::new();
    for target in &targets {
        let (sender, receiver) = unbounded();
        rounds.push(sender);
        let (observed, notes_of_it) = (target.clone(), notes.clone());
        threads::spawn("observer", move || observe(&observed, retries, &receiver, &notes_of_it))?;
        if !options.poll_only {
            let (observed, notes_of_it) = (target.clone(), notes.clone());
            threads::spawn("listener", move || listen(&observed, &notes_of_it))?;
        }
    }
    journal.say(&format!(
        "watching {} and {}; AutoSwitch={} DualSecAutoSwitch={} PingInterval={} ms{}",
        targets[0].server,
        targets[1].server,
        yes_or_no(policy.auto_switch),
        yes_or_no(policy.dual_secondary_auto_switch),
        interval.as_millis(),
        if options.poll_only { ", without events" } else { "" },
    ));
    let program = Program {
        targets,
        journal,
        watchdog: Watchdog::new(policy),
        rounds,
        round: 0,
        seen: [None, None],
        refused: [false, false],
        started: Instant::now(),
        pace: Pace::default(),
        said: String::new(),
    };
    program.run(interval, &arrived)
}

fn targets(parameters: &Parameters) -> Result<[Target; 2], ServerError> {
    let target = |node, connect: Id, user: Id, password: Id| -> Result<Target, ServerError> {
        let name = connect.definition().name;
        let text = parameters.text(connect);
        let server = ConnectString::parse(&text).map_err(|error| {
            if text.is_empty() {
                invalid(format!(
                    "solid.ini in {} has no [Watchdog] {name}; both Connect1 and Connect2 are needed.",
                    parameters.directory().display()
                ))
            } else {
                error
            }
        })?;
        let given = |id| Some(parameters.text(id));
        let credentials = Credentials::complete(given(user), given(password), &server.to_string())?;
        Ok(Target { node, server, credentials, open: Arc::default() })
    };
    Ok([
        target(0, Id::WatchdogConnect1, Id::WatchdogUsername1, Id::WatchdogPassword1)?,
        target(1, Id::WatchdogConnect2, Id::WatchdogUsername2, Id::WatchdogPassword2)?,
    ])
}

fn yes_or_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

struct Program {
    targets: [Target; 2],
    journal: Journal,
    watchdog: Watchdog,
    rounds: Vec<Sender<u64>>,
    round: u64,
    /// The last sight of each node and the round it was asked for in.
    seen: [Option<(u64, Sight, String)>; 2],
    /// Whether each node refuses a new log-in.
    refused: [bool; 2],
    started: Instant,
    pace: Pace,
    /// What was written down last, without the wording of errors.
    said: String,
}

impl Program {
    fn run(mut self, interval: Duration, notes: &Receiver<Note>) -> Result<(), ServerError> {
        loop {
            self.begin_round();
            let mut next = Instant::now() + interval;
            loop {
                let pause = self.pace.next_end(self.started.elapsed()).map(|end| self.started + end);
                match notes.recv_deadline(pause.map_or(next, |end| end.min(next))) {
                    Err(RecvTimeoutError::Timeout) if known(self.seen_by_round(), self.round).is_some() => {
                        break;
                    }
                    // Where an answer takes longer than the interval, no round would ever be complete.
                    Err(RecvTimeoutError::Timeout) => next = Instant::now() + interval,
                    Err(RecvTimeoutError::Disconnected) => return Err(invalid("The observers have ended.")),
                    Ok(Note::Event) => self.begin_round(),
                    Ok(Note::LogIn { node, refusal }) => self.tell_of_log_in(node, refusal),
                    Ok(Note::Seen { node, round, sight, why }) => {
                        self.seen[node] = Some((round, sight, why));
                        if self.decide() {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// From here on only answers that are asked for now count.
    fn begin_round(&mut self) {
        self.round += 1;
        for observer in &self.rounds {
            // An observer ends only with the program.
            let _ = observer.send(self.round);
        }
    }

    fn seen_by_round(&self) -> [Option<(u64, &Sight)>; 2] {
        self.seen.each_ref().map(|seen| seen.as_ref().map(|(round, sight, _)| (*round, sight)))
    }

    /// Decides if both nodes are known well enough; true if something was done, so that it is time to look again.
    fn decide(&mut self) -> bool {
        let Some(sights) = known(self.seen_by_round(), self.round) else { return false };
        let finding = Finding::of(&sights);
        let mode = self.watchdog.mode();
        let wanted = self.watchdog.look(finding);
        let advice = if wanted.is_some() { Advice::NOTHING } else { self.watchdog.advice(&sights) };
        self.tell(finding, &sights, &advice, mode);
        if let Finding::Whole { .. } = finding {
            self.pace.begin_anew();
        }
        let now = self.started.elapsed();
        let Some(first) = wanted.filter(|step| self.pace.allows(step.node, now)) else { return false };
        let mut next = Some(first);
        while let Some(step) = next {
            let reply = self.order(step);
            self.pace.answered(step.node, reply, self.started.elapsed());
            next = self.watchdog.done(finding, step, reply);
        }
        true
    }

    /// Gives an order and writes down what became of it.
    fn order(&mut self, step: Step) -> Reply {
        let Target { server, node, .. } = &self.targets[step.node];
        let command = step.command.text();
        self.journal.say(&format!("'{command}' at {server}"));
        match self.targets[step.node].order(command) {
            Ok((code, text)) => {
                self.journal.say(&format!("{server} answers: {code} {text}"));
                Reply::Code(code)
            }
            Err(NoAnswer::Lost(error)) => {
                self.journal.say(&format!("{server} does not answer: {error}"));
                Reply::None
            }
            Err(NoAnswer::NotGiven(error)) => {
                let number = node + 1;
                self.journal.say(&format!(
                    "'{command}' cannot be given at {server}: {error}. It is tried again. Mend that (Username{number} and Password{number} in solid.ini, if it is the log-in, then start the watchdog again), or give the command yourself"
                ));
                Reply::NotGiven
            }
        }
    }

    /// Writes down that new log-ins are refused, or are not any more.
    fn tell_of_log_in(&mut self, node: usize, refusal: Option<String>) {
        let refused = refusal.is_some();
        if std::mem::replace(&mut self.refused[node], refused) == refused {
            return;
        }
        let Target { server, credentials, .. } = &self.targets[node];
        let (user, number) = (&credentials.user, node + 1);
        self.journal.say(&match refusal {
            Some(why) => format!(
                "WARNING: {server} refuses a new log-in of {user}: {}. The watchdog goes on over the connection that is open, if there is one, and is blind when it ends. Mend that; if the password was changed: Password{number} in solid.ini, then start the watchdog again",
                why.trim_end_matches('.')
            ),
            None => format!("{server} takes new log-ins of {user} again"),
        });
    }

    /// Writes down what is new. Errors that are worded differently from one look to the next are not.
    fn tell(&mut self, finding: Finding, sights: &[Sight; 2], advice: &Advice, mode_before: Mode) {
        let advised = match (advice.is_nothing(), advice.steps.is_empty()) {
            (true, _) => String::new(),
            (_, true) => format!(". {}", advice.text(self.names().each_ref().map(String::as_str))),
            _ => format!(". To be done: {}", advice.text(self.names().each_ref().map(String::as_str))),
        };
        let key = format!("{}{advised}", self.describe(finding, sights, false));
        if key != self.said {
            self.journal.say(&format!("{}{advised}", self.describe(finding, sights, true)));
            self.said = key;
        }
        match (mode_before, self.watchdog.mode()) {
            (Mode::Failure, Mode::Normal) => {
                self.journal.say("normal mode: the next failure is acted on");
                self.warn_of_auto_primary_alone();
            }
            (Mode::Normal, Mode::Failure) => {
                self.journal
                    .say("failure mode: until the pair is whole again no further failure is acted on");
            }
            _ => {}
        }
    }

    fn names(&self) -> [String; 2] {
        self.targets.each_ref().map(|target| target.server.to_string())
    }

    /// With AutoPrimaryAlone=yes nothing keeps a primary that lives unseen from accepting writes.
    fn warn_of_auto_primary_alone(&mut self) {
        for target in &self.targets {
            let row =
                target.connect().and_then(|mut client| client.ask("parameter HotStandby.AutoPrimaryAlone"));
            // Section, name, current value, …
            if row.is_ok_and(|(_, text)| text.split_whitespace().nth(2) == Some("yes")) {
                let server = &target.server;
                self.journal.say(&format!(
                    "WARNING: {server} has AutoPrimaryAlone=yes: when the nodes lose each other, there may be two primaries"
                ));
            }
        }
    }

    fn describe(&self, finding: Finding, sights: &[Sight; 2], with_reasons: bool) -> String {
        let node = |node: usize| {
            let server = &self.targets[node].server;
            let why = self.seen[node].as_ref().filter(|_| with_reasons);
            let why = why.map_or(String::new(), |seen| format!(" ({})", seen.2));
            match &sights[node] {
                Sight::Here(report) => format!("{server} is {}", report.view.state),
                Sight::Gone => format!("{server} does not answer{why}"),
                Sight::Refuses => format!("{server} lives, but refuses to say how it is{why}"),
            }
        };
        let what = match finding {
            Finding::Whole { .. } => "the pair is whole",
            Finding::Unsettled => "the pair is changing",
            Finding::NoContact { .. } => "no contact to one node, which the other is connected to",
            Finding::SecondaryGone { .. } => "the primary has lost its secondary and waits",
            Finding::Overtaken { .. } => {
                "a primary in doubt has lost its secondary, which has been the primary meanwhile"
            }
            Finding::Unknown { .. } => "the primary has lost its secondary, which lives and may be anything",
            Finding::PrimaryGone { .. } => "the secondary has lost its primary",
            Finding::BothSecondary { .. } => "there is no primary",
            Finding::Alone { .. } => "one node goes on alone",
            Finding::BothPrimary => "BOTH NODES ARE PRIMARIES",
            Finding::Superseded { .. } => "a primary in doubt knows that its peer was promoted",
            Finding::Diverged => "there is no primary and both databases hold what the other lacks",
            Finding::Restarted { .. } => "one node has been started again, the other is gone",
            Finding::Nobody => "no node answers",
        };
        format!("{what}: {}; {}", node(0), node(1))
    }
}
