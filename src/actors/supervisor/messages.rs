//! What the supervisor is told, by whom, and what it answers.

use std::path::PathBuf;

use actix::prelude::*;
use crossbeam_channel::Sender;

use crate::actors::link::PeerStream;
use crate::hsb::event::{Command, Hello, LinkId, PeerMessage, Purpose, RequestId, RewindEnd};
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::hsb::settings::Settings;
use crate::services::context::Answer;
use crate::storage::writer::WriterRequest;

/// From the writer: a batch to log, send and decide, or to take back. Answered through [`Outside::writer`].
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct FromWriter(pub WriterRequest);

/// From the admin handler: an operator's command; the answer goes into the channel, when there is one.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Operator {
    /// What is asked; `None`: leave the peer in order, the server goes down.
    pub command: Option<Command>,
    /// Where the answer goes.
    pub reply: Sender<Answer>,
}

/// From replication sender and ping monitor: a connection has ended or fallen silent.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct LinkEnded {
    /// Which.
    pub link: LinkId,
    /// For the log.
    pub why: String,
}

/// From the replication sender: the secondary has everything up to here.
#[derive(Message, Clone, Copy, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct Acknowledged {
    /// The position.
    pub position: Position,
}

/// From the connection: a control message of the peer.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub struct PeerSays {
    /// On which connection.
    pub link: LinkId,
    /// What.
    pub message: PeerMessage,
}

/// From the replication sender: how catchup comes along.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub enum CatchupSays {
    /// The secondary's position is on our history, or why it is not.
    Checked {
        /// On which connection's behalf.
        link: LinkId,
        /// The finding.
        result: Result<(), Refusal>,
    },
    /// Little is left to send.
    NearEnd {
        /// On which connection.
        link: LinkId,
    },
}

/// From the applier.
#[derive(Message, Clone, Debug, PartialEq)]
#[rtype(result = "()")]
pub enum ApplierSays {
    /// Committed up to here.
    Applied {
        /// The position.
        position: Position,
    },
    /// Everything received is applied and on disk.
    Drained {
        /// The drain's.
        ticket: u64,
        /// The position.
        position: Position,
    },
    /// A change does not fit this database.
    Failed {
        /// What and where.
        detail: String,
    },
    /// The database has no room for what was received, or has it again.
    Room {
        /// The system's words; none: there is room.
        lacks: Option<String>,
    },
    /// What came over the connection is no batch, or not the next one.
    Unusable {
        /// Which connection.
        link: LinkId,
        /// What is wrong with it.
        detail: String,
    },
}

/// From the dialling thread.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct DialEnded {
    /// Whose command needed it.
    pub request: RequestId,
    /// What it was for.
    pub purpose: Purpose,
    /// The connection and the peer's hello.
    pub outcome: Result<(Box<dyn PeerStream>, Hello), Refusal>,
}

/// From the listener: a peer that has proved itself wants to connect.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct PeerArrived {
    /// The connection, handshake done up to the introduction.
    pub stream: Box<dyn PeerStream>,
    /// What it says of itself.
    pub hello: Hello,
}

/// From the listener: a primary wants to copy its database here; the answer goes into the channel.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct CopyArrives {
    /// What it says of itself.
    pub hello: Hello,
    /// The newest position that is known to lie on both histories.
    pub common: Option<Position>,
    /// Our hello, or the refusal.
    pub reply: Sender<Result<Hello, Refusal>>,
}

/// From the thread that receives a copy.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct CopyReceived {
    /// The new database's id and position, or why the old one is as it was.
    pub opened: Result<([u8; 16], Position), Refusal>,
    /// Told when everybody at this node knows of it, so that the other server does not hear of it before.
    pub known: Sender<()>,
}

/// From the thread that rewinds.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Rewound {
    /// How it ended, or why nothing came of it.
    pub result: Result<RewindEnd, Refusal>,
}

/// From an administrator's thread: `hsb copy` or `backup` to a directory that was looked at; the answer goes into the
/// channel.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct CopyToDirectory {
    /// Which of the two.
    pub command: Command,
    /// Where to.
    pub directory: PathBuf,
    /// Where the answer goes.
    pub reply: Sender<Answer>,
}

/// From the thread that makes a netcopy, copy or backup.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct CopyEnded {
    /// It was a netcopy.
    pub netcopy: bool,
    /// How it ended.
    pub result: Result<(), Refusal>,
}

/// From the checkpointer: the database itself is durable up to here.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Checkpointed {
    /// The position.
    pub position: Position,
    /// Whether log that nobody needs any more is to be deleted (General.CheckpointDeleteLog, General.BackupDeleteLog).
    pub delete_log: bool,
}

/// From the admin handler when a parameter has changed.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct NewSettings(pub Settings);
