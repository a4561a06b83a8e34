//! What is under way at a node: the procedures that take several steps.
//!
//! Not states: `hsb state` does not show them. [`Activity`] is what operators see of them, in `hsb status`, as the
//! number of `perfmon`, and as the reason for which a command is refused (R9).

use super::codes::Code;
use super::event::{Hello, LinkId, RequestId};
use super::position::Position;
use super::refusal::Refusal;
use super::state::State;
use super::table::Trigger;

/// What a drain of the applier is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum AfterDrain {
    /// Become a primary without asking the peer.
    Promote { request: RequestId, trigger: Trigger },
    /// Reach the peer.
    Dial { request: RequestId },
    /// Answer a peer that dialled.
    Answer { link: LinkId, hello: Hello },
    /// Confirm that catchup is complete.
    GoActive { position: Position },
    /// Take the primary role over in a switch.
    TakeOver { position: Position },
    /// Compare histories with the primary and take back what it lacks.
    Rewind { request: RequestId },
}

/// Why the peer is being dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum DialPurpose {
    /// `mine`: the position that the peer is told. `arrived`: the peer dialled meanwhile; of no use unless ours fails.
    Connect { mine: Position, arrived: Option<(LinkId, Hello)> },
    /// R4
    SwitchPrimary,
    /// R2
    SwitchSecondary,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Idle,
    Draining(AfterDrain),
    /// The request also names the dial: answers to older ones are ignored. That of a connect is answered already.
    Dialling {
        request: RequestId,
        purpose: DialPurpose,
    },
    /// Both know each other; the primary looks the secondary's position up. `mine`: what the peer was told of this node.
    /// `looks`: it is for this node to look, and it has not begun.
    Meeting {
        mine: Position,
        peer: Hello,
        looks: bool,
    },
    /// `closing`: new batches are held until both are level; `told`: GoActive is on its way.
    CatchingUp {
        closing: bool,
        told: bool,
    },
    /// Orderly end of the connection, then the transition for `trigger`.
    Leaving {
        trigger: Trigger,
        request: Option<RequestId>,
    },
    /// Switch, at the primary; `told`: the secondary has the last position.
    HandingOver {
        told: bool,
    },
    /// Switch, at the secondary, from asking or being asked until the role is there.
    TakingOver,
    /// Waits for the local batch before this node becomes SECONDARY ALONE.
    Demoting {
        trigger: Trigger,
        request: Option<RequestId>,
        /// For the answer, besides the state.
        then: &'static str,
    },
    CopyingOut,
    CopyingIn,
    /// Database and log are being taken back to where the primary's history parted from this one.
    Rewinding {
        request: RequestId,
    },
}

impl Phase {
    pub(super) fn activity(self) -> Activity {
        match self {
            Phase::Idle => Activity::Idle,
            Phase::CopyingOut | Phase::CopyingIn => Activity::Copying,
            Phase::Dialling { purpose: DialPurpose::Connect { .. }, .. }
            | Phase::Meeting { .. }
            | Phase::Draining(AfterDrain::Dial { .. } | AfterDrain::Answer { .. }) => Activity::Connecting,
            Phase::CatchingUp { .. } | Phase::Draining(AfterDrain::GoActive { .. }) => Activity::CatchingUp,
            Phase::Leaving { .. } => Activity::Disconnecting,
            Phase::Rewinding { .. } | Phase::Draining(AfterDrain::Rewind { .. }) => Activity::Rewinding,
            Phase::Dialling { purpose: DialPurpose::SwitchPrimary, .. }
            | Phase::TakingOver
            | Phase::Draining(AfterDrain::TakeOver { .. } | AfterDrain::Promote { .. }) => {
                Activity::SwitchingToPrimary
            }
            Phase::Dialling { purpose: DialPurpose::SwitchSecondary, .. }
            | Phase::HandingOver { .. }
            | Phase::Demoting { .. } => Activity::SwitchingToSecondary,
        }
    }

    /// From handing over to having taken over: what the table calls a switch that can break off.
    pub(super) fn is_switch_with_peer(self) -> bool {
        matches!(
            self,
            Phase::HandingOver { .. } | Phase::TakingOver | Phase::Draining(AfterDrain::TakeOver { .. })
        )
    }
}

/// What operators see of what is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Activity {
    /// Nothing.
    Idle,
    /// A netcopy, at either end.
    Copying,
    /// Reaching the peer and comparing histories.
    Connecting,
    /// The secondary gets what it lacks.
    CatchingUp,
    /// An orderly end of the connection.
    Disconnecting,
    /// This node is becoming a primary.
    SwitchingToPrimary,
    /// This node is becoming a secondary.
    SwitchingToSecondary,
    /// This node takes transactions back.
    Rewinding,
}

impl Activity {
    /// All of them.
    pub const ALL: [Activity; 8] = [
        Activity::Idle,
        Activity::Copying,
        Activity::Connecting,
        Activity::CatchingUp,
        Activity::Disconnecting,
        Activity::SwitchingToPrimary,
        Activity::SwitchingToSecondary,
        Activity::Rewinding,
    ];

    /// As `hsb status` calls it; empty when nothing is under way.
    pub fn name(self) -> &'static str {
        match self {
            Activity::Idle => "",
            Activity::Copying => "COPYING",
            Activity::Connecting => "CONNECTING",
            Activity::CatchingUp => "CATCHING UP",
            Activity::Disconnecting => "DISCONNECTING",
            Activity::SwitchingToPrimary => "SWITCHING TO PRIMARY",
            Activity::SwitchingToSecondary => "SWITCHING TO SECONDARY",
            Activity::Rewinding => "REWINDING",
        }
    }

    /// R9: what answers a command that would change the state meanwhile.
    pub fn refusal(self) -> Option<Code> {
        match self {
            Activity::Idle => None,
            Activity::Copying => Some(Code::COPY_ACTIVE),
            Activity::Connecting | Activity::CatchingUp => Some(Code::CATCHUP_ACTIVE),
            Activity::Disconnecting => Some(Code::PEER_COMMAND_CONFLICT),
            Activity::SwitchingToPrimary | Activity::SwitchingToSecondary => Some(Code::SWITCH_ACTIVE),
            Activity::Rewinding => Some(Code::REFUSED_IN_STATE),
        }
    }
}

/// The number that `perfmon` shows as "HSB state".
pub fn state_number(state: State, activity: Activity) -> u8 {
    let is_primary = state.is_primary();
    match (activity, state) {
        (_, State::Plain) => 0,
        (Activity::SwitchingToPrimary, _) => 3,
        (Activity::SwitchingToSecondary, _) => 4,
        (Activity::Copying, _) => {
            if is_primary {
                6
            } else {
                13
            }
        }
        (Activity::Connecting, _) => {
            if is_primary {
                7
            } else {
                14
            }
        }
        (Activity::CatchingUp, _) => {
            if is_primary {
                8
            } else {
                15
            }
        }
        (Activity::Disconnecting, _) => {
            if is_primary {
                9
            } else {
                16
            }
        }
        (Activity::Idle | Activity::Rewinding, State::Standalone) => 1,
        (Activity::Idle | Activity::Rewinding, State::Offline) => 2,
        (Activity::Idle | Activity::Rewinding, State::PrimaryAlone) => 5,
        (Activity::Idle | Activity::Rewinding, State::PrimaryActive) => 10,
        (Activity::Idle | Activity::Rewinding, State::PrimaryUncertain) => 11,
        (Activity::Idle | Activity::Rewinding, State::SecondaryAlone) => 12,
        (Activity::Idle | Activity::Rewinding, State::SecondaryActive) => 17,
    }
}

/// The outcome of the last switch, for `hsb status switch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SwitchStatus {
    /// There was none.
    Never,
    /// Under way.
    Active,
    /// It went through.
    Success,
    /// It did not.
    Failed(Code),
}

/// The outcome of the last copy or netcopy, for `hsb status copy`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CopyStatus {
    /// There was none.
    Never,
    /// Under way.
    Active,
    /// It went through.
    Success,
    /// It did not.
    Failed(Refusal),
}
