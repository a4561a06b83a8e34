//! The transition table: every state change there is, and the sentence that is logged with it.
//!
//! What is not in here does not happen. Rulings R1–R9 (docs/rulings.md) are marked where they decide.

use super::state::State::{self, *};

/// What makes a state change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Trigger {
    /// `hsb set primary alone`.
    SetPrimaryAlone,
    /// `hsb set secondary alone`.
    SetSecondaryAlone,
    /// `hsb set standalone`.
    SetStandalone,
    /// `hsb switch primary` or `hsb switch secondary`, at either node, has gone through.
    Switch,
    /// A switch broke off half-way.
    SwitchFailed,
    /// `hsb disconnect` at either node, or the orderly shutdown of the peer.
    Disconnect,
    /// Catchup is complete and both nodes know it.
    Connected,
    /// Link lost or silent; HotStandby.AutoPrimaryAlone=no.
    LinkLost,
    /// Link lost or silent; HotStandby.AutoPrimaryAlone=yes.
    LinkLostAutoAlone,
    /// The peer was made the primary by force.
    PeerPromoted,
    /// A copy of the primary's database has arrived and was opened.
    CopyArrived,
    /// The secondary could not apply a change.
    ApplyFailed,
    /// The secondary's disk is full.
    NoRoom,
    /// Both nodes wrote as primaries since they last agreed (R5).
    Diverged,
    /// The log that is kept for the peer has reached HotStandby.MaxLogSize.
    LogFull,
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// What happens.
    pub trigger: Trigger,
    /// The state after.
    pub to: State,
    /// What is logged.
    pub reason: &'static str,
}

const fn row(from: State, trigger: Trigger, to: State, reason: &'static str) -> Transition {
    Transition { from, trigger, to, reason }
}

/// The reason of the state after 14528.
pub const DIVERGED: &str = "both servers wrote as primaries: an operator has to choose between them";

/// The reason of the state in which a server starts; those of all others are in the table.
pub const STARTED: &str = "started";

/// What is said instead of the reason while a server ends: whatever its state is, it is gone in a moment.
pub const SHUTTING_DOWN: &str = "the server is shutting down";

/// All transitions.
pub const TABLE: &[Transition] = {
    use Trigger::*;
    &[
        row(Offline, CopyArrived, SecondaryAlone, "the primary's database arrived by netcopy"),
        row(SecondaryAlone, CopyArrived, SecondaryAlone, "the database was replaced by netcopy"),
        row(
            PrimaryActive,
            LinkLostAutoAlone,
            PrimaryAlone,
            "the secondary is gone; AutoPrimaryAlone=yes: going on alone",
        ),
        row(
            PrimaryActive,
            LinkLost,
            PrimaryUncertain,
            "the secondary is gone; AutoPrimaryAlone=no: waiting for a decision",
        ),
        row(
            PrimaryActive,
            PeerPromoted,
            PrimaryUncertain,
            "the peer was set PRIMARY ALONE: this node is no longer sure to be the primary",
        ),
        // R1: allowed, after an orderly disconnect.
        row(PrimaryActive, SetStandalone, Standalone, "set standalone: disconnected first"),
        row(PrimaryActive, SetPrimaryAlone, PrimaryAlone, "set primary alone: disconnected first"),
        row(PrimaryActive, Switch, SecondaryActive, "switched roles with the peer"),
        row(PrimaryActive, SwitchFailed, SecondaryAlone, "the switch broke off half-way"),
        row(PrimaryActive, Disconnect, PrimaryAlone, "disconnected"),
        row(PrimaryAlone, Connected, PrimaryActive, "the secondary has caught up"),
        row(PrimaryAlone, SetStandalone, Standalone, "set standalone: keeping no log for the peer"),
        row(PrimaryAlone, LogFull, Standalone, "the log reached MaxLogSize: keeping no log for the peer"),
        row(PrimaryAlone, SetSecondaryAlone, SecondaryAlone, "set secondary alone"),
        // R5: no more may be lost than is lost already.
        row(PrimaryAlone, Diverged, SecondaryAlone, DIVERGED),
        row(
            PrimaryUncertain,
            SetPrimaryAlone,
            PrimaryAlone,
            "set primary alone: pending transactions commit",
        ),
        row(PrimaryUncertain, Connected, PrimaryActive, "the secondary is back and has caught up"),
        row(PrimaryUncertain, SetStandalone, Standalone, "set standalone: pending transactions commit"),
        // R3: pending transactions stay pending.
        row(
            PrimaryUncertain,
            SetSecondaryAlone,
            SecondaryAlone,
            "set secondary alone: pending transactions stay pending",
        ),
        row(PrimaryUncertain, Diverged, SecondaryAlone, DIVERGED),
        row(SecondaryActive, LinkLost, SecondaryAlone, "the primary is gone"),
        row(SecondaryActive, Switch, PrimaryActive, "switched roles with the peer"),
        row(SecondaryActive, SwitchFailed, SecondaryAlone, "the switch broke off half-way"),
        row(SecondaryActive, SetPrimaryAlone, PrimaryAlone, "set primary alone: took over"),
        row(SecondaryActive, Disconnect, SecondaryAlone, "disconnected"),
        row(SecondaryActive, ApplyFailed, SecondaryAlone, "a change of the primary could not be applied"),
        row(
            SecondaryActive,
            NoRoom,
            SecondaryAlone,
            "no room on the disk: what cannot be kept must not be acknowledged",
        ),
        row(SecondaryAlone, Connected, SecondaryActive, "caught up with the primary"),
        row(SecondaryAlone, SetStandalone, Standalone, "set standalone"),
        row(SecondaryAlone, SetPrimaryAlone, PrimaryAlone, "set primary alone"),
        // R4: only after the peer was found to be no primary, or could not be reached.
        row(
            SecondaryAlone,
            Switch,
            PrimaryAlone,
            "switch primary: the peer is not a primary or cannot be reached",
        ),
        row(
            Standalone,
            SetPrimaryAlone,
            PrimaryAlone,
            "set primary alone: keeping the log for the peer again",
        ),
        row(Standalone, SetSecondaryAlone, SecondaryAlone, "set secondary alone"),
        row(Standalone, Diverged, SecondaryAlone, DIVERGED),
    ]
};
