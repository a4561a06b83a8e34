//! What the heart hears. What it wants done is in `effect`.

use serde::{Deserialize, Serialize};

pub use super::{
    rewind::RewindEnd,
    room::{Room, Store},
};

use super::position::{DatabasePosition, Position};
use super::refusal::Refusal;
use super::settings::{PairSettings, Settings};
use super::state::State;

/// Names one connection to the peer for as long as the process lives.
pub type LinkId = u64;
/// Names one operator's command that waits for its answer.
pub type RequestId = u64;

/// A command that may change the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Command {
    /// `hsb connect`
    Connect,
    /// `hsb disconnect`
    Disconnect,
    /// `hsb set primary alone`
    SetPrimaryAlone,
    /// `hsb set secondary alone`
    SetSecondaryAlone,
    /// `hsb set standalone`
    SetStandalone,
    /// `hsb switch primary`
    SwitchPrimary,
    /// `hsb switch secondary`
    SwitchSecondary,
    /// `hsb netcopy`
    Netcopy,
    /// `hsb rewind`
    Rewind,
    /// `hsb copy`
    Copy,
    /// `backup`
    Backup,
}

/// What a node says of itself when it meets the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, Hash)]
pub struct Hello {
    /// Identity of the database; both copies carry the same.
    pub database_id: [u8; 16],
    /// Its state.
    pub state: State,
    /// Its decided position.
    pub position: Position,
    /// The end of its log: beyond `position` while a batch is pending.
    pub log_end: Position,
    /// Its settings; the primary's rule.
    pub pair: PairSettings,
}

/// Messages between the two nodes, besides batches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Hash)]
pub enum PeerMessage {
    /// Sign of life.
    Ping,
    /// Secondary: everything up to here is acknowledged, by the policy in force.
    Acknowledge {
        /// Position after the last batch acknowledged.
        position: Position,
    },
    /// Primary: your position is on my history; what you lack follows.
    Accept {
        /// The primary's settings.
        pair: PairSettings,
    },
    /// Either: no, for this reason; the link ends.
    Refused(Refusal),
    /// Primary: you have everything; go active at this position.
    GoActive {
        /// Where both are.
        position: Position,
    },
    /// Secondary: I am active.
    Active,
    /// Secondary: please disconnect in order.
    AskDisconnect,
    /// Primary: nothing is under way any more; the link ends.
    Disconnected,
    /// Secondary: please hand me the primary role.
    AskSwitch,
    /// Primary: I take no more writes; this is my last position. Say when you are there.
    HandOver {
        /// The last position.
        position: Position,
    },
    /// Secondary: I am there.
    TakeOver,
    /// Old primary: I follow now; you are the primary.
    HandedOver,
    /// A node that was made primary by force tells its old primary, once, without waiting.
    Promoted,
    /// My settings: when connecting, and at the primary whenever one is changed. The primary's rule.
    Settings {
        /// Those in force at the sender.
        settings: Settings,
    },
}

/// A sealed batch as the heart sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct BatchInfo {
    /// Where the history stood before it.
    pub before: Position,
    /// Where the history stands after it.
    pub after: Position,
    /// It waits for the secondary's acknowledgement.
    pub needs_acknowledgement: bool,
    /// It must be on disk before it is answered.
    pub strict: bool,
    /// Its length.
    pub bytes: usize,
}

/// Why the heart meets the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, Hash)]
pub enum Purpose {
    /// To connect and stay.
    Connect,
    /// To learn its state, once.
    Probe,
    /// To copy the database there.
    Netcopy,
    /// To find out where the two histories part.
    History,
    /// To learn all that `hsb status` shows of it, once.
    Report,
    /// To compare the two databases (`hsb verify`).
    Verify,
}

/// What happens.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// An operator or watchdog asks.
    Command {
        /// Where the answer goes.
        request: RequestId,
        /// What is asked.
        command: Command,
    },
    /// A batch wants to be logged and sent.
    BatchReady(BatchInfo),
    /// A writer's patience is over: take the batch back if it was not sent.
    Withdraw,
    /// The log file has it (written, and if `durable` synced) up to here.
    Logged {
        /// The position.
        position: Position,
        /// Synced.
        durable: bool,
    },
    /// The secondary has it.
    Acknowledged {
        /// Up to here.
        position: Position,
    },
    /// The connection is gone or was silent too long.
    LinkLost {
        /// Which.
        link: LinkId,
        /// For the log.
        why: String,
    },
    /// The dialled peer answered.
    Dialled {
        /// Of [`NodeEffect::Dial`](super::effect::NodeEffect::Dial).
        request: RequestId,
        /// The new connection; none after a probe.
        link: Option<LinkId>,
        /// What it says of itself.
        hello: Hello,
    },
    /// The dialled peer refused or could not be reached.
    DialFailed {
        /// Of [`NodeEffect::Dial`](super::effect::NodeEffect::Dial).
        request: RequestId,
        /// The reason.
        refusal: Refusal,
    },
    /// A peer dialled us to connect.
    PeerArrived {
        /// The connection.
        link: LinkId,
        /// What it says of itself.
        hello: Hello,
    },
    /// The peer says something.
    PeerSays {
        /// On which connection.
        link: LinkId,
        /// What.
        message: PeerMessage,
    },
    /// The log was searched for the secondary's position.
    HistoryChecked {
        /// On which connection's behalf.
        link: LinkId,
        /// Found, or why not.
        result: Result<(), Refusal>,
    },
    /// The sender of old batches is about to reach the end of the log.
    CatchupNearEnd {
        /// On which connection.
        link: LinkId,
    },
    /// Everything received is applied and on disk.
    Drained {
        /// Which [`ApplierEffect::Drain`](super::effect::ApplierEffect::Drain) this answers.
        ticket: u64,
        /// The applied position.
        position: Position,
    },
    /// The secondary applied up to here.
    Applied {
        /// The position.
        position: Position,
    },
    /// A change did not fit.
    ApplyFailed {
        /// Table, key and what differs.
        detail: String,
    },
    /// The netcopy, copy or backup that this node makes has ended.
    CopyEnded {
        /// How.
        result: Result<(), Refusal>,
    },
    /// A primary wants to copy its database here.
    CopyArrives {
        /// What it says of itself.
        hello: Hello,
        /// The newest position that is known to lie on both histories.
        common: Option<Position>,
    },
    /// A copy to this node has ended.
    CopyReceived {
        /// Database id and position of the new database, or why the old one is as before.
        opened: Result<DatabasePosition, Refusal>,
    },
    /// A rewind has ended.
    Rewound {
        /// How, or why nothing came of it.
        result: Result<RewindEnd, Refusal>,
    },
    /// The database file itself is durable up to here.
    Checkpointed {
        /// The position.
        position: Position,
        /// The log before it may go, as far as this node is concerned.
        delete_log: bool,
    },
    /// The log has become longer by a file, or shorter.
    LogSize {
        /// Its bytes.
        bytes: u64,
        /// What nobody needs was deleted just before.
        retained: bool,
    },
    /// The disk is full, or no longer.
    Room(Room),
    /// A time-out that the heart asked for.
    TimedOut {
        /// Its number.
        timer: u64,
    },
    /// An operator has changed a parameter.
    SettingsChanged {
        /// This server's own settings now.
        settings: Settings,
    },
    /// The server goes down in order: leave the peer in order.
    ShuttingDown {
        /// Answered when the peer was told.
        request: RequestId,
    },
}
