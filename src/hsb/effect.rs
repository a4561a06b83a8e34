//! What the heart wants done, grouped by who does it.
//!
//! The supervisor passes a group on whole to the actor, or to the part of the node, that carries it out. It adds to an
//! effect only what the heart cannot hold and the supervisor does: the batch in hand, connections that wait for an
//! answer, channels ([`BatchEffect`], [`AnswerEffect`]). Each group is matched in one place and exhaustively, so a new
//! effect does not compile until somebody carries it out. Invariant: effects are carried out in the order of the list.

use serde::{Deserialize, Serialize};

use super::codes::Code;
use super::event::{Hello, LinkId, PeerMessage, Purpose, RequestId};
use super::position::Position;
use super::refusal::Refusal;
use super::settings::{AcknowledgeRule, PairSettings};
use super::severity::Severity;
use super::table::Transition;

/// What is to be done, and by whom.
#[derive(Clone, PartialEq, Debug, Eq, Hash)]
pub enum Effect {
    /// With the batch that the supervisor has in hand.
    Batch(BatchEffect),
    /// By the writer of the database.
    Writer(WriterEffect),
    /// By the log writer.
    LogWriter(LogWriterEffect),
    /// By the replication sender.
    Sender(SenderEffect),
    /// By the secondary applier.
    Applier(ApplierEffect),
    /// By the ping monitor.
    PingMonitor(PingEffect),
    /// Said to somebody who waits for it and whom the supervisor knows.
    Answer(AnswerEffect),
    /// By the node: what everybody sees, and what takes a thread of its own.
    Node(NodeEffect),
    /// By the node: copy the database to the directory that came with the command and that the supervisor has kept, then
    /// report [`CopyEnded`](super::event::Event::CopyEnded).
    WriteCopy(CopyKind),
    /// By the supervisor: report [`TimedOut`](super::event::Event::TimedOut) after this time.
    StartTimer {
        /// Its number.
        timer: u64,
        /// Milliseconds.
        after_ms: u64,
    },
}

macro_rules! groups {
    ($($group:ident: $effects:ty,)*) => {
        $(impl From<$effects> for Effect {
            fn from(effect: $effects) -> Effect {
                Effect::$group(effect)
            }
        })*
    };
}

groups! {
    Batch: BatchEffect,
    Writer: WriterEffect,
    LogWriter: LogWriterEffect,
    Sender: SenderEffect,
    Applier: ApplierEffect,
    PingMonitor: PingEffect,
    Answer: AnswerEffect,
    Node: NodeEffect,
}

/// For the batch that was just reported, or that is held.
#[derive(Clone, PartialEq, Debug, Eq, Hash)]
pub enum BatchEffect {
    /// Give it to the log, synced or not.
    Log {
        /// Sync at once.
        sync: bool,
        /// Nobody else can have it: if there is no room for it, it never was.
        only_here: bool,
    },
    /// Give it to the peer.
    Send,
    /// Keep it; nobody has it yet.
    Hold,
    /// Report the held batch again, under the rules now in force.
    Release,
    /// The applier keeps the batch that was abandoned as pending.
    KeepPending,
}

/// For the writer of the database.
#[derive(Clone, PartialEq, Debug, Eq, Hash)]
pub enum WriterEffect {
    /// How its batch ended.
    Decide(Decision),
    /// Let writers in or keep them out.
    Admit(Admission),
    /// This node is the primary from here on: the history goes on at the position, in the epoch.
    BeginHistory {
        /// Where the history stands.
        position: Position,
        /// The epoch of what is written next.
        epoch: u64,
    },
}

/// For the log writer.
#[derive(Clone, PartialEq, Debug, Eq, Hash)]
pub enum LogWriterEffect {
    /// Put everything on disk.
    Flush,
    /// Nobody needs the log before this.
    RetainFrom(Position),
}

/// For the replication sender.
#[derive(Clone, PartialEq, Debug, Eq, Hash)]
pub enum SenderEffect {
    /// Say something to the peer.
    Tell(PeerMessage),
    /// End the connection, after a last word.
    Close {
        /// The last word.
        farewell: Option<PeerMessage>,
    },
    /// Look the secondary's position up in the log, then report
    /// [`HistoryChecked`](super::event::Event::HistoryChecked).
    CheckHistory(Position),
    /// Send what the log has after the position that was checked.
    StartCatchup,
    /// Stop sending old batches.
    StopCatchup,
}

/// For the secondary applier.
#[derive(Clone, PartialEq, Debug, Eq, Hash)]
pub enum ApplierEffect {
    /// Follow the primary on this connection: what arrives on it is applied.
    Follow {
        /// Batches of other connections are ignored.
        link: LinkId,
        /// Where the database is: the decided position.
        position: Position,
        /// When to acknowledge.
        rule: AcknowledgeRule,
    },
    /// Acknowledge by this rule from here on; it counts for what comes, and for what is not acknowledged.
    AcknowledgeBy(AcknowledgeRule),
    /// Apply all that was received and sync the log, then report [`Drained`](super::event::Event::Drained).
    Drain {
        /// Comes back with the report.
        ticket: u64,
        /// The pending batch, if any, counts as decided: apply it too.
        with_pending: bool,
    },
    /// The pending batch turned out not to exist in the primary's history: cut it off the log.
    DropPending {
        /// The last decided position.
        position: Position,
    },
    /// The database was replaced: what was pending in the old one is of no interest.
    ForgetPending,
}

/// For the ping monitor.
#[derive(Clone, Copy, PartialEq, Debug, Eq, Hash)]
pub enum PingEffect {
    /// Signs of life on this connection, with these settings.
    Start {
        /// Which connection.
        link: LinkId,
        /// Interval and time-out; the primary's rule.
        pair: PairSettings,
    },
    /// No more.
    Stop,
}

/// For somebody who waits.
#[derive(Clone, PartialEq, Debug, Eq, Hash)]
pub enum AnswerEffect {
    /// Answer a command.
    Reply {
        /// Whose.
        request: RequestId,
        /// The outcome.
        code: Code,
        /// The sentence.
        text: String,
    },
    /// Answer the arrived peer with our hello and keep the connection.
    Welcome {
        /// Which.
        link: LinkId,
        /// What this node says of itself.
        hello: Hello,
    },
    /// Answer the arrived peer with a refusal and end the connection.
    TurnAway {
        /// Which.
        link: LinkId,
        /// Why.
        refusal: Refusal,
    },
    /// A copy may come: let the receiver go on.
    AdmitCopy {
        /// What this node says of itself.
        hello: Hello,
    },
    /// It may not.
    RefuseCopy(Refusal),
}

/// For the node.
#[derive(Clone, PartialEq, Debug, Eq, Hash)]
pub enum NodeEffect {
    /// The state changed: log it, publish it, post the event.
    Entered(Transition),
    /// The connect status changed: publish it.
    ConnectStatus(ConnectStatus),
    /// Log a line.
    Note {
        /// How much it matters.
        severity: Severity,
        /// The line.
        text: String,
    },
    /// Log a line and post it as an event.
    Alert {
        /// The event's.
        name: &'static str,
        /// How much it matters.
        severity: Severity,
        /// What happened.
        text: String,
    },
    /// Reach the peer and say hello, then report [`Dialled`](super::event::Event::Dialled) or
    /// [`DialFailed`](super::event::Event::DialFailed).
    Dial {
        /// Whose command needs it; comes back with the answer.
        request: RequestId,
        /// What for.
        purpose: Purpose,
        /// What this node says of itself.
        hello: Hello,
    },
    /// Copy the database to the peer, then report [`CopyEnded`](super::event::Event::CopyEnded).
    SendCopy {
        /// What this node says of itself.
        hello: Hello,
    },
    /// Find out what the primary's history lacks and take it back, then report
    /// [`Rewound`](super::event::Event::Rewound).
    Rewind,
    /// Close the sessions: the database is about to be replaced.
    CloseSessions(Code),
    /// The heart contradicts itself (see `invariants`): end the process at once, without doing anything else.
    Stop {
        /// What does not hold.
        why: String,
    },
}

/// A copy in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CopyKind {
    /// `hsb copy`: what another server of the pair starts with.
    Copy,
    /// `backup`: log before it may go, where General.BackupDeleteLog says so.
    Backup,
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
