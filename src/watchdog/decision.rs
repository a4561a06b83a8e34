//! What the answers of two nodes mean, and what is done about it.
//!
//! Not here: asking, waiting, time. Invariant: see the module above; `tests` checks it against a model of a pair.

use crate::hsb::advice::{Advice, Step, View, advise};
use crate::hsb::codes::Code;
use crate::hsb::event::Command;
use crate::hsb::state::State;

/// What is known of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sight {
    /// It answers nothing.
    Gone,
    /// It lives and refuses to say how it is: the log-in, too many connections.
    Refuses,
    /// It answers.
    Here(Report),
}

/// A node's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// `hsb state`, `hsb logpos` and the cause of the state.
    pub view: View,
    /// `hsb status connect` says CONNECTED.
    pub connected: bool,
}

impl Sight {
    /// What is known of its state.
    pub fn view(&self) -> Option<View> {
        match self {
            Sight::Here(report) => Some(report.view),
            Sight::Gone | Sight::Refuses => None,
        }
    }
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
        /// The other one answers: it is SECONDARY ALONE.
        answers: bool,
    },
    /// A primary in doubt, and a SECONDARY ALONE that has more: it has been the primary meanwhile, or the log of the one in
    /// doubt has not got there yet.
    Overtaken {
        /// SECONDARY ALONE.
        secondary: usize,
    },
    /// A primary in doubt, and a node that lives and does not say how it is.
    Unknown {
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
    /// A primary in doubt that knows that its peer was promoted, and no primary in sight.
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
        let counts = |(at, sight): &(u64, &Sight)| *at == round || sight.view().is_none();
        seen.filter(counts).map(|(_, sight)| sight.clone())
    };
    let [one, other] = seen;
    Some([of(one)?, of(other)?])
}

impl Finding {
    /// What these sights amount to.
    pub fn of(sights: &[Sight; 2]) -> Finding {
        // A node that waits for a copy is of no use to the pair.
        let of_use = |sight: &Sight| match sight {
            Sight::Here(report) if report.view.state != State::Offline => Some(*report),
            _ => None,
        };
        match [of_use(&sights[0]), of_use(&sights[1])] {
            [None, None] => Finding::Nobody,
            [Some(report), None] => Finding::of_one(0, &report.view, sights[1] == Sight::Refuses),
            [None, Some(report)] => Finding::of_one(1, &report.view, sights[0] == Sight::Refuses),
            [Some(one), Some(other)] => Finding::of_both([one, other]),
        }
    }

    fn of_one(node: usize, view: &View, other_lives: bool) -> Finding {
        match view.state {
            State::PrimaryActive | State::SecondaryActive => Finding::NoContact { missing: 1 - node },
            State::PrimaryUncertain if view.superseded => Finding::Superseded { primary: node },
            State::PrimaryUncertain if other_lives => Finding::Unknown { primary: node },
            State::PrimaryUncertain => Finding::SecondaryGone { primary: node, answers: false },
            State::SecondaryAlone if view.restarted => Finding::Restarted { node },
            // Also if the other one lives: this node asks it before it takes over.
            State::SecondaryAlone => Finding::PrimaryGone { secondary: node },
            State::PrimaryAlone | State::Standalone => Finding::Alone { primary: node },
            State::Plain | State::Offline => Finding::Unsettled,
        }
    }

    fn of_both(reports: [Report; 2]) -> Finding {
        let views = reports.map(|report| report.view);
        let at = |wanted: State| views.iter().position(|view| view.state == wanted);
        match views.map(|view| view.state) {
            [State::PrimaryActive, State::SecondaryActive]
            | [State::SecondaryActive, State::PrimaryActive]
                if reports.iter().all(|report| report.connected) =>
            {
                Finding::Whole { primary: at(State::PrimaryActive).unwrap_or_default() }
            }
            [State::SecondaryAlone, State::SecondaryAlone] if views.iter().any(|view| view.diverged) => {
                Finding::Diverged
            }
            [State::SecondaryAlone, State::SecondaryAlone] => {
                let [one, other] = views.map(|view| view.progress);
                Finding::BothSecondary { ahead: (one != other).then(|| usize::from(other > one)) }
            }
            states if states.iter().all(|state| state.is_primary()) => {
                match views.map(|view| view.writes()) {
                    [true, false] => Finding::Alone { primary: 0 },
                    [false, true] => Finding::Alone { primary: 1 },
                    _ => Finding::BothPrimary,
                }
            }
            _ => match (at(State::PrimaryUncertain), at(State::SecondaryAlone)) {
                (Some(primary), Some(secondary)) => Finding::in_doubt(primary, secondary, views),
                // SECONDARY ACTIVE beside a primary in doubt: it has not noticed yet, or is being promoted by force.
                _ => match at(State::PrimaryAlone).or(at(State::Standalone)) {
                    Some(primary) => Finding::Alone { primary },
                    None => Finding::Unsettled,
                },
            },
        }
    }

    fn in_doubt(primary: usize, secondary: usize, views: [View; 2]) -> Finding {
        if views[secondary].progress > views[primary].progress {
            Finding::Overtaken { secondary }
        } else if views[primary].superseded {
            Finding::Superseded { primary }
        } else {
            Finding::SecondaryGone { primary, answers: true }
        }
    }
}

/// What became of an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// RC of the answer.
    Code(u32),
    /// The connection ended first: perhaps it is carried out.
    None,
    /// The order did not get there: no connection, or the log-in was refused.
    NotGiven,
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
    /// Takes writes alone, as far as is known: seen as that since the pair was whole, or made that.
    writer: Option<usize>,
    /// Was given an order whose answer did not come: it may become a primary at any moment.
    ordered: Option<usize>,
    /// Refused for good; not tried again while the finding stays.
    refused: Option<(Finding, Step)>,
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
            writer: None,
            ordered: None,
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
    pub fn look(&mut self, finding: Finding) -> Option<Step> {
        if self.refused.is_some_and(|(before, _)| before != finding) {
            self.refused = None;
        }
        if self.unanswered.is_some_and(|before| before != finding) {
            self.unanswered = None;
        }
        self.nobody = if finding == Finding::Nobody { self.nobody + 1 } else { 0 };
        self.remember(finding);
        match finding {
            Finding::Nobody if self.nobody < LOOKS_AT_NOBODY => None,
            Finding::Whole { .. } => {
                self.mode = Mode::Normal;
                None
            }
            Finding::Unsettled
            | Finding::NoContact { .. }
            | Finding::Unknown { .. }
            | Finding::Overtaken { .. } => None,
            Finding::SecondaryGone { .. } | Finding::PrimaryGone { .. }
                if self.mode == Mode::Normal || self.unanswered == Some(finding) =>
            {
                let wanted = self.wanted(finding).filter(|_| self.policy.auto_switch);
                if wanted.is_none() {
                    self.mode = Mode::Failure;
                }
                wanted
            }
            Finding::BothSecondary { .. } => {
                self.mode = Mode::Failure;
                let wanted = self.wanted(finding).filter(|_| self.policy.dual_secondary_auto_switch);
                wanted.filter(|action| self.refused != Some((finding, *action)))
            }
            _ => {
                self.mode = Mode::Failure;
                None
            }
        }
    }

    fn remember(&mut self, finding: Finding) {
        match finding {
            Finding::Whole { primary } => {
                self.last_primary = Some(primary);
                (self.writer, self.ordered) = (None, None);
            }
            Finding::Alone { primary } => (self.writer, self.ordered) = (Some(primary), None),
            Finding::Overtaken { secondary } => self.writer = Some(secondary),
            _ => {}
        }
    }

    /// Whether this node, which is not seen to be a primary, may be or become one all the same.
    fn may_be_primary(&self, node: usize, answers: bool) -> bool {
        self.ordered == Some(node) || self.writer == Some(node) && !answers
    }

    /// What the watchdog does about a finding if it may.
    fn wanted(&self, finding: Finding) -> Option<Step> {
        let (action, other_answers) = match finding {
            Finding::SecondaryGone { primary, answers } => {
                (Step { node: primary, command: Command::SetPrimaryAlone }, answers)
            }
            Finding::PrimaryGone { secondary } => {
                (Step { node: secondary, command: Command::SwitchPrimary }, false)
            }
            Finding::BothSecondary { ahead } => {
                let node = ahead.or(self.writer).or(self.last_primary).unwrap_or(0);
                (Step { node, command: Command::SwitchPrimary }, true)
            }
            _ => return None,
        };
        (!self.may_be_primary(1 - action.node, other_answers)).then_some(action)
    }

    /// What an operator should do about what is seen, with what the watchdog remembers.
    pub fn advice(&self, sights: &[Sight; 2]) -> Advice {
        if Finding::of(sights) == Finding::Nobody {
            return Advice::NOTHING;
        }
        if sights.contains(&Sight::Refuses) && !matches!(Finding::of(sights), Finding::NoContact { .. }) {
            return Advice::words(
                "one server lives and refuses to say how it is, so that nothing can be advised: mend what it complains of",
            );
        }
        let views = sights.each_ref().map(Sight::view);
        let both = views.iter().all(Option::is_some);
        advise(views, if both { self.writer.or(self.last_primary) } else { self.ordered.or(self.writer) })
    }

    /// Takes in what became of an action; what has to follow at once, if anything.
    pub fn done(&mut self, finding: Finding, action: Step, reply: Reply) -> Option<Step> {
        let code = match reply {
            Reply::Code(code) => code,
            Reply::NotGiven => return None,
            Reply::None => {
                self.mode = Mode::Failure;
                self.unanswered = Some(finding);
                self.ordered = Some(action.node);
                return None;
            }
        };
        match Code::find(code) {
            Some(code) if is_busy(code) => None,
            Some(code) if code.is_success() => {
                self.mode = Mode::Failure;
                self.writer = Some(action.node);
                None
            }
            refusal => {
                self.mode = Mode::Failure;
                let next = refusal.and_then(|code| self.other_way(finding, action, code));
                if next.is_none() {
                    self.refused = self.wanted(finding).map(|wanted| (finding, wanted));
                }
                next
            }
        }
    }

    /// What leads to the same end when an order was refused for good, where that is sure to make no second primary.
    fn other_way(&self, finding: Finding, action: Step, code: Code) -> Option<Step> {
        if action.command != Command::SwitchPrimary || self.wanted(finding) != Some(action) {
            return None;
        }
        let alone = Step { command: Command::SetPrimaryAlone, ..action };
        match (finding, code) {
            // The peer has said that it holds no database that could be served: it is no primary.
            (_, Code::BACKUPSERVER_MODE | Code::BACKUPSERVER_NO_CONNECTIONS) => Some(alone),
            // It could not ask its peer, which has told the watchdog that it is no primary and not further.
            (Finding::BothSecondary { .. }, Code::OPERATION_FAILED) => Some(alone),
            // The other one refuses if it lacks anything.
            (Finding::BothSecondary { .. }, Code::APPLY_FAILED | Code::DISK_FULL) => {
                Some(Step { node: 1 - action.node, ..action })
            }
            _ => None,
        }
    }
}

/// Something else is under way, at the node or at a peer that is shutting down; the next look shows whether the action is
/// still wanted.
fn is_busy(code: Code) -> bool {
    matches!(
        code,
        Code::SWITCH_ACTIVE
            | Code::CATCHUP_ACTIVE
            | Code::COPY_ACTIVE
            | Code::PEER_COMMAND_CONFLICT
            | Code::SHUTTING_DOWN
    )
}
