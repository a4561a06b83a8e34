//! What the supervisor is told, by whom, and what it answers.

use std::path::PathBuf;

use actix::prelude::*;
use crossbeam_channel::Sender;

use crate::actors::link::PeerStream;
use crate::hsb::event::{Command, Event, Hello, Purpose, RequestId};
use crate::hsb::position::{DatabasePosition, Position};
use crate::hsb::refusal::Refusal;
use crate::services::context::Answer;
use crate::storage::writer::WriterRequest;

/// All that the supervisor can be told. What has a connection or a channel with it has a variant of its own; everything
/// else is an event of the heart as it is.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub enum SupervisorMessage {
    /// From actors, the checkpointer, the thread that rewinds and whoever changes parameters: an event.
    Event(Event),
    /// From the writer: a batch to log, send and decide, or to take back. Answered through
    /// [`Outside::tell_writer`](super::Outside::tell_writer).
    Writer(WriterRequest),
    /// From the admin handler: an operator's command; the answer goes into the channel.
    Operator {
        /// What is asked.
        command: Command,
        /// Where the answer goes.
        reply: Sender<Answer>,
    },
    /// From an administrator's thread: `hsb copy` or `backup` to a directory that was looked at; the answer goes into the
    /// channel.
    CopyToDirectory {
        /// Which of the two.
        command: Command,
        /// Where to.
        directory: PathBuf,
        /// Where the answer goes.
        reply: Sender<Answer>,
    },
    /// From the node: the server goes down, leave the peer in order; the answer says that it is done.
    ShutDown {
        /// Where the answer goes.
        reply: Sender<Answer>,
    },
    /// From the dialling thread.
    DialEnded {
        /// Whose command needed it.
        request: RequestId,
        /// What it was for.
        purpose: Purpose,
        /// The connection and the peer's hello.
        outcome: Result<(Box<dyn PeerStream>, Hello), Refusal>,
    },
    /// From the listener: a peer that has proved itself wants to connect.
    PeerArrived {
        /// The connection, handshake done up to the introduction.
        stream: Box<dyn PeerStream>,
        /// What it says of itself.
        hello: Hello,
    },
    /// From the listener: a primary wants to copy its database here; the answer goes into the channel.
    CopyArrives {
        /// What it says of itself.
        hello: Hello,
        /// The newest position that is known to lie on both histories.
        common: Option<Position>,
        /// Our hello, or the refusal.
        reply: Sender<Result<Hello, Refusal>>,
    },
    /// From the thread that receives a copy.
    CopyReceived {
        /// The new database's id and position, or why the old one is as it was.
        opened: Result<DatabasePosition, Refusal>,
        /// Told when everybody at this node knows of it, so that the other server does not hear of it before.
        known: Sender<()>,
    },
    /// From the thread that makes a netcopy.
    NetcopyEnded {
        /// How it ended.
        result: Result<(), Refusal>,
    },
}
