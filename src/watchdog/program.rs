//! The program `watchdog`: settings, threads, the loop. Not here: decisions.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::decision::{Action, Finding, Mode, Policy, Reply, Sight, Watchdog, known};
use super::journal::Journal;
use super::observer::{Note, Target, listen, observe};
use crate::client::credentials::Credentials;
use crate::config::{ConnectString, Id, Parameters};
use crate::error::{ServerError, invalid};
use crate::hsb::codes::Code;

/// For the answer to an order: `switch primary` first tries the other node, as long as its system lets it.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);

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

/// Runs the program until it is ended by a signal.
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
    let mut journal = Journal::open(&parameters.path(Id::WatchdogLog))?;
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
        spawn("observer", move || observe(&observed, retries, &receiver, &notes_of_it))?;
        if !options.poll_only {
            let (observed, notes_of_it) = (target.clone(), notes.clone());
            spawn("listener", move || listen(&observed, &notes_of_it))?;
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
        Ok(Target { node, server, credentials })
    };
    Ok([
        target(0, Id::WatchdogConnect1, Id::WatchdogUsername1, Id::WatchdogPassword1)?,
        target(1, Id::WatchdogConnect2, Id::WatchdogUsername2, Id::WatchdogPassword2)?,
    ])
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ServerError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|error| invalid(format!("The {name} cannot be started: {error}.")))
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
    said: String,
}

impl Program {
    fn run(mut self, interval: Duration, notes: &Receiver<Note>) -> Result<(), ServerError> {
        loop {
            self.begin_round();
            let next = Instant::now() + interval;
            loop {
                match notes.recv_deadline(next) {
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return Err(invalid("The observers have ended.")),
                    Ok(Note::Event) => self.begin_round(),
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

    /// Decides if both nodes are known well enough; true if something was done, so that it is time to look again.
    fn decide(&mut self) -> bool {
        let seen = self.seen.each_ref().map(|seen| seen.as_ref().map(|(round, sight, _)| (*round, sight)));
        let Some(sights) = known(seen, self.round) else { return false };
        let finding = Finding::of(&sights);
        let mode = self.watchdog.mode();
        let action = self.watchdog.look(finding);
        self.tell(finding, &sights, mode);
        let mut next = action;
        while let Some(action) = next {
            let reply = self.order(action);
            next = self.watchdog.done(finding, action, reply);
        }
        action.is_some()
    }

    /// Gives an order and writes down what became of it.
    fn order(&mut self, action: Action) -> Reply {
        let Action { node, order } = action;
        let target = &self.targets[node];
        self.journal.say(&format!("'{}' at {}", order.command(), target.server));
        let answer = target.connect().and_then(|mut client| {
            client.set_patience(Some(ORDER_TIMEOUT))?;
            client.ask(order.command())
        });
        match answer {
            Ok((code, text)) => {
                self.journal.say(&format!("{} answers: {code} {text}", self.targets[node].server));
                Reply::Code(code)
            }
            Err(error) => {
                self.journal.say(&format!("{} does not answer: {error}", self.targets[node].server));
                Reply::None
            }
        }
    }

    /// Writes down what is new.
    fn tell(&mut self, finding: Finding, sights: &[Sight; 2], mode_before: Mode) {
        let text = format!("{}{}", self.describe(finding, sights), self.advise(finding));
        if text != self.said {
            self.journal.say(&text);
            self.said = text;
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

    fn describe(&self, finding: Finding, sights: &[Sight; 2]) -> String {
        let node = |node: usize| match &sights[node] {
            Sight::Here(report) => format!("{} is {}", self.targets[node].server, report.state),
            Sight::Gone => {
                let why = self.seen[node].as_ref().map_or("", |seen| seen.2.as_str());
                format!("{} does not answer ({why})", self.targets[node].server)
            }
        };
        let what = match finding {
            Finding::Whole { .. } => "the pair is whole",
            Finding::Unsettled => "the pair is changing",
            Finding::NoContact { .. } => "no contact to one node, which the other is connected to",
            Finding::SecondaryGone { .. } => "the primary has lost its secondary and waits",
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

    /// What an operator should do, where the watchdog does nothing.
    fn advise(&self, finding: Finding) -> String {
        let at = |node: usize| &self.targets[node].server;
        match finding {
            Finding::SecondaryGone { .. } | Finding::PrimaryGone { .. } | Finding::BothSecondary { .. } => {
                self.watchdog.advice(finding).map_or(String::new(), |action| {
                    format!(". To be done: '{}' at {}", action.order.command(), at(action.node))
                })
            }
            Finding::Restarted { .. } => {
                ". After a power cut it may lack what the other one has: bring that one back, too. If it cannot be: 'hsb set primary alone'"
                    .to_owned()
            }
            Finding::Alone { primary } => format!(
                ". When the other node is back: 'hsb connect' at {} (after 'hsb netcopy' if it says so)",
                at(primary)
            ),
            Finding::Superseded { primary } => format!(
                ". If the other node takes writes: 'hsb set secondary alone' at {}, then 'hsb connect'",
                at(primary)
            ),
            Finding::BothPrimary => {
                ". Stop the clients of one, 'hsb set secondary alone' there, then 'hsb connect'".to_owned()
            }
            Finding::Diverged => format!(". {}", Code::BOTH_DIVERGED.text()),
            Finding::Whole { .. } | Finding::Unsettled | Finding::NoContact { .. } | Finding::Nobody => {
                String::new()
            }
        }
    }
}
