//! What the heart hears and what it wants done.

use serde::{Deserialize, Serialize};

pub use super::{rewind::RewindEnd, room::Store};

use super::codes::Code;
use super::position::Position;
use super::refusal::Refusal;
use super::settings::{PairSettings, Settings};
use super::severity::Severity;
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

/// How a batch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Decision {
    /// It is part of the history.
    Commit,
    /// It is, by this node's word alone, though the mark in the log says that the secondary's is needed: the database
    /// has to be on disk before the answer, or a power cut would leave it in doubt again.
    CommitAlone,
    /// It was never sent: rolled back, and this is why.
    Reject(Code),
    /// Its outcome stays open; this node stops being the primary and keeps it in the log.
    Abandon,
}

/// Who may write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Admission {
    /// Writers are let in.
    Open,
    /// Writers wait as for a lock; those whose time is over get the code.
    Wait(Code),
    /// Writers get the code at once.
    Refuse(Code),
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
        /// Of [`Effect::Dial`].
        request: RequestId,
        /// The new connection; none after a probe.
        link: Option<LinkId>,
        /// What it says of itself.
        hello: Hello,
    },
    /// The dialled peer refused or could not be reached.
    DialFailed {
        /// Of [`Effect::Dial`].
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
        /// Which [`Effect::Drain`] this answers.
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
        opened: Result<([u8; 16], Position), Refusal>,
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
    Room {
        /// What needs it.
        store: Store,
        /// The system's words; none: there is room again.
        lacks: Option<String>,
    },
    /// A time-out that the heart asked for.
    TimedOut {
        /// Its number.
        timer: u64,
    },
    /// The server goes down in order: leave the peer in order.
    ShuttingDown {
        /// Answered when the peer was told.
        request: RequestId,
    },
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Debug, Eq, Hash)]
pub enum Effect {
    /// Answer a command.
    Reply {
        /// Whose.
        request: RequestId,
        /// The outcome.
        code: Code,
        /// The sentence.
        text: String,
    },
    /// The state changed: log it, publish it, post the event.
    Entered {
        /// Before.
        from: State,
        /// After.
        to: State,
        /// Why.
        reason: &'static str,
    },
    /// The connect status changed: publish it.
    ConnectStatus(ConnectStatus),
    /// Log a line.
    Note(Severity, String),
    /// Log a line and post it as an event.
    Alert {
        /// The event's.
        name: &'static str,
        /// How much it matters.
        severity: Severity,
        /// What happened.
        text: String,
    },
    /// Nobody needs the log before this.
    Retain(Position),
    /// This node is the primary from here on: the history goes on at the position, in the epoch.
    BeginHistory {
        /// Where the history stands.
        position: Position,
        /// The epoch of what is written next.
        epoch: u64,
    },
    /// Let writers in or keep them out.
    Admit(Admission),
    /// Give the batch just reported to the log, synced or not.
    Log {
        /// Sync at once.
        sync: bool,
        /// Nobody else can have it: if there is no room for it, it never was.
        only_here: bool,
    },
    /// Give the batch just reported to the peer.
    Send,
    /// Keep the batch just reported; nobody has it yet.
    Hold,
    /// Report the held batch again, under the rules now in force.
    Release,
    /// Tell the writer how its batch ended.
    Decide(Decision),
    /// Sync the log.
    Flush,
    /// Reach the peer and say hello.
    Dial {
        /// Whose command needs it; comes back with the answer.
        request: RequestId,
        /// What for.
        purpose: Purpose,
    },
    /// Answer the arrived peer with our hello and keep the connection.
    Welcome(LinkId),
    /// Answer the arrived peer with a refusal and end the connection.
    TurnAway {
        /// Which.
        link: LinkId,
        /// Why.
        refusal: Refusal,
    },
    /// Say something to the peer.
    Tell(PeerMessage),
    /// End the connection, after a last word.
    Close {
        /// The last word.
        farewell: Option<PeerMessage>,
    },
    /// Look the secondary's position up in the log.
    CheckHistory(Position),
    /// Send what the log has after the position that was checked.
    StartCatchup,
    /// Stop sending old batches.
    StopCatchup,
    /// Follow a primary from here: what arrives on the connection is applied.
    Follow {
        /// The primary's settings.
        pair: PairSettings,
    },
    /// Apply all that was received and sync the log, then report [`Event::Drained`].
    Drain {
        /// Comes back with the report.
        ticket: u64,
        /// The pending batch, if any, counts as decided: apply it too.
        with_pending: bool,
    },
    /// The pending batch turned out not to exist: cut it off the log.
    DropPending,
    /// Keep the batch that was abandoned as pending.
    KeepPending,
    /// The database was replaced: what was pending in the old one is of no interest.
    ForgetPending,
    /// Acknowledge by the policy and the durability of these from here on.
    AcknowledgeBy(Settings),
    /// Signs of life, with these settings.
    StartPings(PairSettings),
    /// No more.
    StopPings,
    /// Report [`Event::TimedOut`] after this time.
    StartTimer {
        /// Its number.
        timer: u64,
        /// Milliseconds.
        after_ms: u64,
    },
    /// Copy the database to the peer.
    SendCopy,
    /// Copy the database to the directory that came with the command.
    WriteCopy {
        /// It is a backup.
        backup: bool,
    },
    /// A copy may come: close the sessions and let the receiver go on.
    AdmitCopy,
    /// Find out what the primary's history lacks and take it back, then report [`Event::Rewound`].
    Rewind,
    /// It may not.
    RefuseCopy(Refusal),
}

/// What `hsb status connect` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum ConnectStatus {
    /// Both nodes are active.
    Connected,
    /// Under way.
    Connecting,
    /// The secondary is catching up.
    Catchup,
    /// An orderly end is under way.
    Disconnecting,
    /// Not connected.
    Broken,
}

impl ConnectStatus {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            ConnectStatus::Connected => "CONNECTED",
            ConnectStatus::Connecting => "CONNECTING",
            ConnectStatus::Catchup => "CATCHUP",
            ConnectStatus::Disconnecting => "DISCONNECTING",
            ConnectStatus::Broken => "BROKEN",
        }
    }

    /// The RC that goes with it.
    pub fn code(self) -> Code {
        match self {
            ConnectStatus::Connected => Code::SUCCESS,
            ConnectStatus::Connecting => Code::CONNECTING,
            ConnectStatus::Catchup => Code::CATCHUP,
            ConnectStatus::Disconnecting => Code::DISCONNECTING,
            ConnectStatus::Broken => Code::LINK_BROKEN,
        }
    }
}
