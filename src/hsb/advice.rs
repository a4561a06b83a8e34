//! What an operator should do about a pair, as commands: for `hsb status`, for the watchdog's log.
//!
//! Pure: from what is known of both servers to the commands, and from the commands to the sentence, so that the tests
//! give just the commands that are printed (`tests/model/advice.rs`, in every situation that two hearts can get into).
//! Not here: who knows what (`admin::status`, `watchdog`), and who may act without being asked (`watchdog::decision`).
//!
//! Invariants, as far as what is known is true: every command is accepted in its turn, and none makes a second server
//! that takes writes. What depends on something that cannot be seen from here is said as a condition.

use serde::{Deserialize, Serialize};

use super::cause::Cause;
use super::event::Command;
use super::state::State;
use super::table::Trigger;

/// What is known of one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// `hsb state`.
    pub state: State,
    /// How far its log is, see [`super::position::Position::progress`].
    pub progress: (u64, u64),
    /// It is in doubt because its peer was made the primary by force.
    pub superseded: bool,
    /// SECONDARY ALONE because both wrote as primaries: one of the two databases has to be chosen.
    pub diverged: bool,
    /// SECONDARY ALONE since it was started: what it had in memory, or not synced, may be gone.
    pub restarted: bool,
    /// A change of the primary's does not fit its database.
    pub damaged: bool,
    /// Its disk is full.
    pub lacks_room: bool,
    /// What it needs before it can follow the other one.
    pub remedy: Remedy,
}

/// What a secondary needs before it can follow the primary, as far as the last attempt to connect, or to rewind, has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Remedy {
    /// Nothing but to be connected.
    #[default]
    Connect,
    /// It has transactions that the primary lacks.
    Rewind,
    /// It lacks what is in no log, or an operator has given up what only it has.
    Netcopy,
}

impl View {
    /// Of a server in this state; `cause` is that of its last change of state, as far as it is known.
    pub fn new(state: State, progress: (u64, u64), cause: Option<Cause>) -> View {
        let alone = state == State::SecondaryAlone;
        let because = |trigger| cause == Some(Cause::Change(trigger));
        View {
            state,
            progress,
            superseded: state == State::PrimaryUncertain && because(Trigger::PeerPromoted),
            diverged: alone && because(Trigger::Diverged),
            restarted: alone && cause == Some(Cause::Started),
            damaged: alone && because(Trigger::ApplyFailed),
            lacks_room: false,
            remedy: Remedy::Connect,
        }
    }

    /// Takes writes, or would if its disk had room.
    pub fn writes(&self) -> bool {
        self.state.is_primary() && self.state != State::PrimaryUncertain
    }
}

/// A command and the server to give it at: 0 or 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where.
    pub node: usize,
    /// What.
    pub command: Command,
}

/// What has to be so, or to be decided, before the commands are given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Premise {
    /// Nothing that is not known.
    None,
    /// The server that cannot be seen from here is down. One that runs unseen may be the primary.
    OtherIsDown,
    /// A person chooses which server to keep. The commands keep one; with the servers exchanged they keep the other.
    Choice,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    /// How things stand and what to do about it where that is no command; it names none.
    pub words: &'static str,
    /// Before the steps.
    pub premise: Premise,
    /// In order, each when the one before it has come to its end.
    pub steps: Vec<Step>,
}

impl Advice {
    /// All is well or takes its course.
    pub const NOTHING: Advice = Advice::words("");

    /// No command helps.
    pub const fn words(words: &'static str) -> Advice {
        Advice { words, premise: Premise::None, steps: Vec::new() }
    }

    fn new(words: &'static str, premise: Premise, steps: Vec<Step>) -> Advice {
        Advice { words, premise, steps }
    }

    /// Nothing is to be done.
    pub fn is_nothing(&self) -> bool {
        self.words.is_empty() && self.steps.is_empty()
    }

    /// The same for the other server; see [`Premise::Choice`].
    pub fn exchanged(&self) -> Vec<Step> {
        self.steps.iter().map(|step| Step { node: 1 - step.node, ..*step }).collect()
    }

    /// As a sentence, with these names for the servers.
    pub fn text(&self, names: [&str; 2]) -> String {
        if self.steps.is_empty() {
            return self.words.to_owned();
        }
        let listed = |steps: &[Step]| -> String {
            let one = |step: &Step| {
                // A copy is answered when it begins.
                let when = if step.command == Command::Netcopy {
                    ", and when 'hsb status copy' says SUCCESS"
                } else {
                    ""
                };
                format!("'{}' at {}{when}", step.command.text(), names[step.node])
            };
            steps.iter().map(one).collect::<Vec<_>>().join(", then ")
        };
        let connects = self.steps.iter().any(|step| step.command == Command::Connect);
        let refused = if connects {
            " (if 'hsb status connect' or 'hsb status copy' then says 14708 or 14525, the other database needs a copy or a rewind first: it says how)"
        } else {
            ""
        };
        let words = self.words;
        match self.premise {
            Premise::None => format!("{words}: {}{refused}", listed(&self.steps)),
            Premise::OtherIsDown => {
                let (other, steps) = (names[1 - self.steps[0].node], listed(&self.steps));
                format!(
                    "{words}. Bring {other} back. Only if it is down, seen at the machine itself, and stays so: {steps}"
                )
            }
            Premise::Choice => {
                let kept = |steps: &[Step]| {
                    steps.iter().find(|step| step.command == Command::Connect).map_or(0, |step| step.node)
                };
                let exchanged = self.exchanged();
                format!(
                    "{words}. To keep the data of {}: {}. To keep that of {}: {}{refused}",
                    names[kept(&self.steps)],
                    listed(&self.steps),
                    names[kept(&exchanged)],
                    listed(&exchanged),
                )
            }
        }
    }
}

/// What to do. None: that server does not answer. `writer`: the server that was last seen to take writes alone, or was
/// told to, if whoever asks remembers; it counts where the other one is seen alone.
pub fn advise(servers: [Option<View>; 2], writer: Option<usize>) -> Advice {
    match servers {
        [Some(one), Some(other)] => of_both([one, other], writer),
        [Some(view), None] => of_one(0, view, writer == Some(1)),
        [None, Some(view)] => of_one(1, view, writer == Some(0)),
        [None, None] => Advice::NOTHING,
    }
}

const ROOM: &str = "a disk is full: make room on it; writes go on by themselves then";

fn of_one(node: usize, view: View, other_writes: bool) -> Advice {
    let step = |premise, words, command| Advice::new(words, premise, vec![Step { node, command }]);
    match view.state {
        _ if view.lacks_room => Advice::words(ROOM),
        State::PrimaryUncertain if view.superseded || other_writes => step(
            Premise::None,
            "the other server was made the primary, or may have been, and has to be brought within reach; here nothing is lost by",
            Command::SetSecondaryAlone,
        ),
        State::PrimaryUncertain => step(
            Premise::OtherIsDown,
            "writes wait, because the other server may have been made the primary",
            Command::SetPrimaryAlone,
        ),
        State::PrimaryAlone | State::Standalone => Advice::words(
            "what is committed now is on one server only: start the other one, or bring it within reach",
        ),
        State::SecondaryAlone if view.damaged => {
            Advice::words("this database lacks a change of the primary's: bring the primary back")
        }
        State::SecondaryAlone if other_writes => step(
            Premise::OtherIsDown,
            "the other server was made the primary, and what it has committed since is lacking here",
            Command::SwitchPrimary,
        ),
        State::SecondaryAlone if view.restarted => step(
            Premise::OtherIsDown,
            "this server was started again; after a power cut it may lack what the other one has",
            Command::SwitchPrimary,
        ),
        State::SecondaryAlone => {
            step(Premise::OtherIsDown, "there is no primary in sight", Command::SwitchPrimary)
        }
        State::Offline => Advice::words("this server waits for the database: start the other one"),
        State::Plain | State::PrimaryActive | State::SecondaryActive => Advice::NOTHING,
    }
}

fn of_both(views: [View; 2], writer: Option<usize>) -> Advice {
    let states = views.map(|view| view.state);
    if views.iter().any(|view| view.lacks_room) {
        return Advice::words(ROOM);
    }
    if states.iter().all(|state| state.is_active()) || states.contains(&State::Plain) {
        return Advice::NOTHING;
    }
    if states.iter().any(|state| state.is_active()) {
        return Advice::words(
            "one server has not noticed yet that the connection is gone: it will, within HotStandby.PingTimeout",
        );
    }
    let further =
        (views[0].progress != views[1].progress).then(|| usize::from(views[1].progress > views[0].progress));
    let target = views.iter().position(|view| view.damaged || view.state == State::Offline);
    if let Some(target) = target {
        return copy_to(target, views);
    }
    match states.map(State::is_primary) {
        [true, true] => two_primaries(views, further.unwrap_or(0)),
        [false, false] => two_secondaries(views, further.or(writer).unwrap_or(0)),
        [first, _] => primary_and_secondary(usize::from(!first), views),
    }
}

/// The commands that make `primary` PRIMARY ALONE if it is not, and have the other one follow it.
fn connect(primary: usize, state: State, before: &[Step]) -> Vec<Step> {
    let mut steps = before.to_vec();
    if state == State::Standalone {
        steps.push(Step { node: primary, command: Command::SetPrimaryAlone });
    }
    steps.push(Step { node: primary, command: Command::Connect });
    steps
}

fn copy_to(target: usize, views: [View; 2]) -> Advice {
    let node = 1 - target;
    let source = views[node];
    if source.damaged || source.state == State::Offline {
        return Advice::words("neither server has a database that could be kept as it is: restore a backup");
    }
    let mut steps = Vec::new();
    if source.state != State::PrimaryAlone {
        steps.push(Step { node, command: Command::SetPrimaryAlone });
    }
    steps.extend([Command::Netcopy, Command::Connect].map(|command| Step { node, command }));
    let words = if views[target].damaged {
        "the database of one server lacks a change of the primary's and needs a copy"
    } else {
        "one server waits for a copy of the database"
    };
    Advice::new(words, Premise::None, steps)
}

fn two_primaries(views: [View; 2], further: usize) -> Advice {
    let keep = |kept: usize| {
        let demoted = Step { node: 1 - kept, command: Command::SetSecondaryAlone };
        connect(kept, views[kept].state, &[demoted])
    };
    match views.map(|view| view.writes()) {
        [true, true] => {
            let words = "BOTH SERVERS ARE PRIMARIES and take writes: stop the clients of one at once";
            // Exchanged, the commands must fit as well.
            let mut steps = keep(further);
            if views.iter().any(|view| view.state == State::Standalone)
                && !steps.iter().any(|step| step.command == Command::SetPrimaryAlone)
            {
                steps.insert(1, Step { node: further, command: Command::SetPrimaryAlone });
            }
            Advice::new(words, Premise::Choice, steps)
        }
        [false, false] => {
            Advice::new("both servers are primaries in doubt, writes wait", Premise::None, keep(further))
        }
        [first, _] => {
            let words = "one server takes the writes, the other one is a primary in doubt";
            Advice::new(words, Premise::None, keep(usize::from(!first)))
        }
    }
}

fn two_secondaries(views: [View; 2], node: usize) -> Advice {
    if views.iter().any(|view| view.diverged) {
        let words = "both servers wrote as primaries and their databases have parted: a person has to choose";
        let steps = vec![
            Step { node, command: Command::SetPrimaryAlone },
            Step { node: 1 - node, command: Command::Rewind },
            Step { node, command: Command::Connect },
        ];
        return Advice::new(words, Premise::Choice, steps);
    }
    let steps = [Command::SwitchPrimary, Command::Connect].map(|command| Step { node, command });
    Advice::new("there is no primary", Premise::None, steps.to_vec())
}

fn primary_and_secondary(primary: usize, views: [View; 2]) -> Advice {
    let secondary = 1 - primary;
    let overtaken = views[secondary].progress > views[primary].progress;
    if views[primary].state == State::PrimaryUncertain && overtaken {
        let steps = vec![
            Step { node: primary, command: Command::SetSecondaryAlone },
            Step { node: secondary, command: Command::SwitchPrimary },
            Step { node: secondary, command: Command::Connect },
        ];
        return Advice::new(
            "the secondary has been the primary meanwhile and is further",
            Premise::None,
            steps,
        );
    }
    let state = views[primary].state;
    let steps_of = |steps: &[Step]| connect(primary, state, steps);
    match views[secondary].remedy {
        Remedy::Connect => {
            Advice::new("both servers run and are not connected", Premise::None, steps_of(&[]))
        }
        Remedy::Rewind => {
            let words = "the secondary has transactions that the primary lacks, as the failure above says; if the primary is the server to keep";
            Advice::new(words, Premise::None, steps_of(&[Step { node: secondary, command: Command::Rewind }]))
        }
        Remedy::Netcopy => {
            Advice { words: "the secondary needs a copy of the database", ..copy_to(secondary, views) }
        }
    }
}
