//! What comes between a client and its transaction: its session is thrown out, its statement is cancelled, it leaves, its
//! server is shut down; and how often each of them, and of those that faults bring, has met a transaction in which fate.
//!
//! Sessions are not simulated. What one that is ended tells its client is the product's own rule (`registry::last_word`).

use crossbeam_channel::{Receiver, bounded};
use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::error::ServerError;
use hotstandby::hsb::codes::Code;
use hotstandby::services::context::Answer;

use crate::coverage::Fault;
use crate::crashes::End;
use crate::world::{Event, World};

/// Longest wait of a server that goes down for its peer's leave.
const LEAVE_MS: u64 = 12_000;
/// And then for the batch in hand: nothing may hold it up for long.
const LAST_BATCH_MS: u64 = 20_000;

/// Why a transaction was answered, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    ThrownOut,
    Cancelled,
    ClientLeft,
    TimeOut,
    Shutdown,
    /// A switch, or an operator's order, has made another server the primary.
    NotPrimary,
    /// The server has lost the right to decide.
    LostState,
    DiskFull,
    DiskFailed,
    Killed,
    PowerCut,
}

/// What a client knows of its transaction then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Committed,
    Failed,
    Unknown,
}

/// What has to be met.
pub const CAUSES: &[(Cause, &[Told])] = {
    use {Cause::*, Told::*};
    &[
        (ThrownOut, &[Committed, Failed, Unknown]),
        (Cancelled, &[Committed, Failed, Unknown]),
        (ClientLeft, &[Committed, Failed, Unknown]),
        (TimeOut, &[Failed]),
        (Shutdown, &[Failed, Unknown]),
        (NotPrimary, &[Failed]),
        (LostState, &[Unknown]),
        (DiskFull, &[Failed]),
        (DiskFailed, &[Unknown]),
        (Killed, &[Unknown]),
        (PowerCut, &[Unknown]),
    ]
};

impl Cause {
    /// What an error says of it.
    pub fn of(error: &ServerError) -> Option<Cause> {
        match error.code {
            _ if error.is_in_doubt() => Some(Cause::LostState),
            Some(Code::SHUTDOWN) => Some(Cause::Shutdown),
            Some(Code::DISK_FULL) => Some(Cause::DiskFull),
            Some(Code::UNCERTAIN | Code::TIMED_OUT) => Some(Cause::TimeOut),
            Some(Code::REPLICATED_ABORTED | Code::TRANSACTION_READ_ONLY | Code::NOT_ON_SECONDARY) => {
                Some(Cause::NotPrimary)
            }
            None if error.sqlstate == "55P03" => Some(Cause::TimeOut),
            _ => None,
        }
    }

    /// Of a process that ends so.
    pub fn of_end(end: End) -> Cause {
        match end {
            End::Shutdown => Cause::Shutdown,
            End::PowerCut => Cause::PowerCut,
            End::DiskFailed { .. } => Cause::DiskFailed,
            End::Kill | End::LogDamaged | End::DatabaseChanged => Cause::Killed,
        }
    }
}

/// A server that goes down in order.
pub struct GoingDown {
    since: u64,
    peer_has_left: Receiver<Answer>,
    sessions_are_told: bool,
}

impl World {
    /// Somebody interferes with a client that waits.
    pub fn interfere(&mut self) {
        if self.healing {
            return;
        }
        self.between(20, 250, Event::Interfere);
        let (client, what) = (self.random.below(self.clients.len() as u64) as usize, self.random.below(3));
        let Some(waiting) = &self.clients[client].waits else { return };
        let (node, transaction) = (waiting.node, waiting.transaction);
        if !self.nodes[node].is_responsive()
            || waiting.incarnation != self.incarnation(node)
            || waiting.cause.is_some()
        {
            return;
        }
        let cause = [Cause::ThrownOut, Cause::Cancelled, Cause::ClientLeft][what as usize];
        self.note(format_args!("{transaction} at node {node}: {cause:?}"));
        self.stop_statement(client, cause);
    }

    fn stop_statement(&mut self, client: usize, cause: Cause) {
        let Some(waiting) = &mut self.clients[client].waits else { return };
        waiting.cause = Some(cause);
        waiting.closing = match cause {
            Cause::ThrownOut => Some(Code::THROWN_OUT),
            Cause::Shutdown => Some(Code::SHUTDOWN),
            _ => None,
        };
        if cause != Cause::ClientLeft
            && let Some(running) = &self.nodes[waiting.node].running
        {
            running.writer.interrupt(client as u64 + 1);
        }
    }

    /// The server is asked to go down in order.
    pub fn shut_down(&mut self, node: usize) -> Fault {
        if let Some(running) = &self.nodes[node].running
            && self.going_down[node].is_none()
        {
            let (reply, peer_has_left) = bounded(1);
            running.addresses.supervisor.do_send(SupervisorMessage::ShutDown { reply });
            let (since, incarnation) = (self.now(), self.incarnation(node));
            self.going_down[node] = Some(GoingDown { since, peer_has_left, sessions_are_told: false });
            self.after(1, Event::GoDown(node, incarnation));
        }
        Fault::Shutdown
    }

    /// Takes leave of the peer, then of the sessions, then of the batch in hand; see `Node::shut_down`.
    pub fn go_down(&mut self, node: usize) -> Result<(), String> {
        let (now, incarnation) = (self.now(), self.incarnation(node));
        let (Some(going), Some(running)) = (&mut self.going_down[node], &self.nodes[node].running) else {
            return Ok(());
        };
        if !self.nodes[node].is_responsive() {
            going.since = now;
        } else if !going.sessions_are_told {
            if going.peer_has_left.try_recv().is_ok() || now > going.since + LEAVE_MS {
                (going.since, going.sessions_are_told) = (now, true);
                for client in 0..self.clients.len() {
                    if self.clients[client].waits.as_ref().is_some_and(|waiting| waiting.node == node) {
                        self.stop_statement(client, Cause::Shutdown);
                    }
                }
            }
        } else if running.undecided.is_none() && now > going.since {
            return self.kill(node, End::Shutdown);
        } else if now > going.since + LAST_BATCH_MS {
            return Err(format!("node {node} does not go down: its last batch is undecided"));
        }
        self.after(2, Event::GoDown(node, incarnation));
        Ok(())
    }
}
