//! What the answers of two nodes mean, and what is done about it.
//!
//! Not here: asking, waiting, time. Invariant: see the module above; `tests` checks it against a model of a pair.

use crate::hsb::codes::Code;
use crate::hsb::state::State;

/// What is known of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sight {
    /// It answers nothing, or is of no use to the pair (OFFLINE).
    Gone,
    /// It answers.
    Here(Report),
}

/// A node's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// `hsb state`.
    pub state: State,
    /// `hsb status connect` says CONNECTED.
    pub connected: bool,
    /// `hsb logpos`; string order is progress.
    pub position: String,
    /// Its state is for an operator to end: it is in doubt because its peer was promoted by force, or a secondary because
    /// both wrote as primaries and one of the two databases has to be chosen.
    pub awaits_operator: bool,
    /// SECONDARY ALONE since it was started: what it had in memory, or not synced, may be gone.
    pub restarted: bool,
}

/// [Watchdog] AutoSwitch and DualSecAutoSwitch.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Acts on the first failure.
    pub auto_switch: bool,
    /// Promotes one of two secondaries.
    pub dual_secondary_auto_switch: bool,
}

/// Whether the next failure is acted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The pair was whole at the last look: the next failure is acted on.
    Normal,
    /// There was a failure, or the pair has not been seen whole yet.
    Failure,
}

/// What two sights amount to. Numbers are those of nodes, 0 and 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The pair is whole.
    Whole {
        /// PRIMARY ACTIVE.
        primary: usize,
    },
    /// Under way from one thing to another: look again.
    Unsettled,
    /// One node cannot be reached from here, and the other says that the pair is whole.
    NoContact {
        /// The one that does not answer.
        missing: usize,
    },
    /// A primary in doubt, whose secondary is gone or has lost it too.
    SecondaryGone {
        /// In doubt.
        primary: usize,
    },
    /// A secondary that has lost its primary, and a node that cannot be reached.
    PrimaryGone {
        /// SECONDARY ALONE.
        secondary: usize,
    },
    /// Both are SECONDARY ALONE; `ahead` has the longer log, if they differ.
    BothSecondary {
        /// Has the longer log.
        ahead: Option<usize>,
    },
    /// One goes on without the other.
    Alone {
        /// The one that goes on.
        primary: usize,
    },
    /// Two nodes that accept writes, or two that wait in doubt.
    BothPrimary,
    /// A primary in doubt that knows that its peer was promoted, and a peer that does not answer.
    Superseded {
        /// In doubt.
        primary: usize,
    },
    /// A node that has been started, and one that cannot be reached: if it had lost power, only the other one may have what
    /// was acknowledged last, whichever of them was the primary.
    Restarted {
        /// The one that answers.
        node: usize,
    },
    /// Two secondaries that wrote as primaries.
    Diverged,
    /// Nobody answers.
    Nobody,
}

/// What is known of both nodes in this round of questions, if it is enough: an answer counts for the round in which it was
/// asked for, a failed try until the next answer.
pub fn known(seen: [Option<(u64, &Sight)>; 2], round: u64) -> Option<[Sight; 2]> {
    let of = |seen: Option<(u64, &Sight)>| {
        let counts = |(at, sight): &(u64, &Sight)| *at == round || **sight == Sight::Gone;
        seen.filter(counts).map(|(_, sight)| sight.clone())
    };
    let [one, other] = seen;
    Some([of(one)?, of(other)?])
}

impl Finding {
    /// What these sights amount to.
    pub fn of(sights: &[Sight; 2]) -> Finding {
        match sights {
            [Sight::Gone, Sight::Gone] => Finding::Nobody,
            [Sight::Here(report), Sight::Gone] => Finding::of_one(0, report),
            [Sight::Gone, Sight::Here(report)] => Finding::of_one(1, report),
            [Sight::Here(one), Sight::Here(other)] => Finding::of_both([one, other]),
        }
    }

    fn of_one(node: usize, report: &Report) -> Finding {
        match report.state {
            State::PrimaryActive | State::SecondaryActive => Finding::NoContact { missing: 1 - node },
            State::PrimaryUncertain if report.awaits_operator => Finding::Superseded { primary: node },
            State::PrimaryUncertain => Finding::SecondaryGone { primary: node },
            State::SecondaryAlone if report.restarted => Finding::Restarted { node },
            State::SecondaryAlone => Finding::PrimaryGone { secondary: node },
            State::PrimaryAlone | State::Standalone => Finding::Alone { primary: node },
            State::Plain | State::Offline => Finding::Unsettled,
        }
    }

    fn of_both(reports: [&Report; 2]) -> Finding {
        let states = reports.map(|report| report.state);
        let at = |wanted: State| states.iter().position(|state| *state == wanted);
        let writes = |state: &State| state.is_primary() && *state != State::PrimaryUncertain;
        match states {
            [State::PrimaryActive, State::SecondaryActive]
            | [State::SecondaryActive, State::PrimaryActive]
                if reports.iter().all(|report| report.connected) =>
            {
                Finding::Whole { primary: at(State::PrimaryActive).unwrap_or_default() }
            }
            [State::SecondaryAlone, State::SecondaryAlone]
                if reports.iter().any(|report| report.awaits_operator) =>
            {
                Finding::Diverged
            }
            [State::SecondaryAlone, State::SecondaryAlone] => {
                let [one, other] = reports.map(|report| &report.position);
                let ahead = (one != other).then(|| usize::from(other > one));
                Finding::BothSecondary { ahead }
            }
            _ if states.iter().all(|state| state.is_primary()) => {
                match states.iter().filter(|state| writes(state)).count() {
                    1 => Finding::Alone { primary: states.iter().position(writes).unwrap_or_default() },
                    _ => Finding::BothPrimary,
                }
            }
            _ => match (at(State::PrimaryUncertain), at(State::SecondaryAlone)) {
                (Some(primary), Some(_)) if !reports[primary].awaits_operator => {
                    Finding::SecondaryGone { primary }
                }
                // SECONDARY ACTIVE beside a primary in doubt: it has not noticed yet, or is being promoted by force.
                _ => match states
                    .iter()
                    .position(|state| matches!(state, State::PrimaryAlone | State::Standalone))
                {
                    Some(primary) => Finding::Alone { primary },
                    None => Finding::Unsettled,
                },
            },
        }
    }
}

/// What a node is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// `hsb set primary alone`
    SetPrimaryAlone,
    /// `hsb switch primary`
    SwitchPrimary,
}

impl Order {
    /// As a client gives it.
    pub fn command(self) -> &'static str {
        match self {
            Order::SetPrimaryAlone => "hsb set primary alone",
            Order::SwitchPrimary => "hsb switch primary",
        }
    }
}

/// An order and to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action {
    /// To whom.
    pub node: usize,
    /// What.
    pub order: Order,
}

/// What became of an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// RC of the answer.
    Code(u32),
    /// The connection ended first.
    None,
}

/// So many looks at nobody in a row, two in each round, end normal mode: meanwhile anything may have been done to the
/// pair. Fewer do not, or a secondary that is slow to answer just when its primary dies would never be promoted.
const LOOKS_AT_NOBODY: u32 = 6;

/// The decider; see the module.
#[derive(Debug)]
pub struct Watchdog {
    policy: Policy,
    mode: Mode,
    /// The primary when the pair was last whole.
    last_primary: Option<usize>,
    /// Refused for good; not tried again while the finding stays.
    refused: Option<(Finding, Action)>,
    nobody: u32,
    /// Perhaps carried out: the answer did not come. Nothing else may be done any more, and the same only while the
    /// finding stays.
    unanswered: Option<Finding>,
}

impl Watchdog {
    /// One that has not looked yet: in failure mode.
    pub fn new(policy: Policy) -> Watchdog {
        Watchdog {
            policy,
            mode: Mode::Failure,
            last_primary: None,
            refused: None,
            nobody: 0,
            unanswered: None,
        }
    }

    /// The mode now.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Takes a finding in; what has to be done about it, if anything.
    pub fn look(&mut self, finding: Finding) -> Option<Action> {
        if self.refused.is_some_and(|(before, _)| before != finding) {
            self.refused = None;
        }
        if self.unanswered.is_some_and(|before| before != finding) {
            self.unanswered = None;
        }
        self.nobody = if finding == Finding::Nobody { self.nobody + 1 } else { 0 };
        match finding {
            Finding::Nobody if self.nobody < LOOKS_AT_NOBODY => None,
            Finding::Whole { primary } => {
                self.mode = Mode::Normal;
                self.last_primary = Some(primary);
                None
            }
            Finding::Unsettled | Finding::NoContact { .. } => None,
            Finding::SecondaryGone { .. } | Finding::PrimaryGone { .. }
                if self.mode == Mode::Normal || self.unanswered == Some(finding) =>
            {
                let wanted = self.advice(finding).filter(|_| self.policy.auto_switch);
                if wanted.is_none() {
                    self.mode = Mode::Failure;
                }
                wanted
            }
            Finding::BothSecondary { .. } => {
                self.mode = Mode::Failure;
                let wanted = self.advice(finding).filter(|_| self.policy.dual_secondary_auto_switch);
                wanted.filter(|action| self.refused != Some((finding, *action)))
            }
            _ => {
                self.mode = Mode::Failure;
                None
            }
        }
    }

    /// What should be done about a finding, whoever does it.
    pub fn advice(&self, finding: Finding) -> Option<Action> {
        match finding {
            Finding::SecondaryGone { primary } => {
                Some(Action { node: primary, order: Order::SetPrimaryAlone })
            }
            Finding::PrimaryGone { secondary } => {
                Some(Action { node: secondary, order: Order::SwitchPrimary })
            }
            Finding::BothSecondary { ahead } => {
                Some(Action { node: ahead.or(self.last_primary).unwrap_or(0), order: Order::SwitchPrimary })
            }
            _ => None,
        }
    }

    /// Takes in what became of an action; what has to follow at once, if anything.
    pub fn done(&mut self, finding: Finding, action: Action, reply: Reply) -> Option<Action> {
        let Reply::Code(code) = reply else {
            self.mode = Mode::Failure;
            self.unanswered = Some(finding);
            return None;
        };
        match Code::find(code) {
            // Something else is under way, at the node or at a peer that is shutting down; the next look shows whether the
            // action is still wanted.
            Some(
                Code::SWITCH_ACTIVE
                | Code::CATCHUP_ACTIVE
                | Code::COPY_ACTIVE
                | Code::PEER_COMMAND_CONFLICT
                | Code::SHUTTING_DOWN,
            ) => None,
            // The peer has said that it holds no database that could be served: it is no primary.
            Some(Code::BACKUPSERVER_MODE | Code::BACKUPSERVER_NO_CONNECTIONS)
                if action.order == Order::SwitchPrimary =>
            {
                Some(Action { order: Order::SetPrimaryAlone, ..action })
            }
            Some(code) if code.is_success() => {
                self.mode = Mode::Failure;
                None
            }
            _ => {
                self.mode = Mode::Failure;
                self.refused = Some((finding, action));
                None
            }
        }
    }
}
