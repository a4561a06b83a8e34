//! The dialler and the listener, from the introduction on.

use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::event::{Hello, Purpose, RequestId};
use hotstandby::hsb::refusal::Refusal;
use hotstandby::net::peer::handshake;

use crate::network::End;
use crate::world::{Event, World};

/// Longest wait of a dialler for its answer.
const DIAL_TIMEOUT_MS: u64 = 2000;

/// A node that dials.
struct Dial {
    number: usize,
    node: usize,
    incarnation: u32,
    request: RequestId,
    purpose: Purpose,
    hello: Hello,
    /// Once the listener has it.
    end: Option<End>,
}

/// All that dial.
#[derive(Default)]
pub struct Dials {
    under_way: Vec<Dial>,
    last_number: usize,
}

impl Dials {
    /// The node is gone.
    pub fn forget(&mut self, node: usize) {
        self.under_way.retain(|dial| dial.node != node);
    }
}

impl World {
    pub fn dial(&mut self, node: usize, request: RequestId, purpose: Purpose, hello: Hello) {
        self.dials.last_number += 1;
        let (number, incarnation) = (self.dials.last_number, self.incarnation(node));
        self.dials.under_way.push(Dial { number, node, incarnation, request, purpose, hello, end: None });
        self.between(1, 5, Event::Arrive(node, incarnation, number));
        self.after(DIAL_TIMEOUT_MS, Event::DialTimeout(node, incarnation, number));
    }

    pub fn arrive(&mut self, number: usize) {
        let Some(at) = self.dials.under_way.iter().position(|dial| dial.number == number) else { return };
        let (node, incarnation) = (self.dials.under_way[at].node, self.dials.under_way[at].incarnation);
        let peer = 1 - node;
        if !self.network.is_passable()
            || self.nodes[peer].running.as_ref().is_some_and(|running| running.paused)
        {
            // Tried again by the system until the time is over.
            return self.after(50, Event::Arrive(node, incarnation, number));
        }
        let (Some(mine), Some(theirs)) = (&self.nodes[node].running, &self.nodes[peer].running) else {
            return self.end_dial(number, Err(Refusal::new(Code::COMMUNICATION_ERROR, "(refused)")));
        };
        let goes_down = self.going_down[peer].is_some();
        let lives = if node == 0 { [&mine.life, &theirs.life] } else { [&theirs.life, &mine.life] };
        let (dialler, listener) = self.network.connect(node, lives);
        let hello = self.dials.under_way[at].hello;
        match self.dials.under_way[at].purpose {
            Purpose::Connect => {
                let stream = Box::new(listener);
                theirs.addresses.supervisor.do_send(SupervisorMessage::PeerArrived { stream, hello });
            }
            _ => {
                // A probe; for other purposes nobody dials here.
                let mut listener = listener;
                // The asker may be gone.
                if goes_down {
                    handshake::refuse(&mut listener, Code::SHUTTING_DOWN);
                } else if let Some(view) = self.nodes[peer].view() {
                    let _ = handshake::welcome(&mut listener, view.hello);
                }
            }
        }
        self.dials.under_way[at].end = Some(dialler);
    }

    pub fn answer_dials(&mut self) {
        while let Some(at) =
            self.dials.under_way.iter().position(|dial| dial.end.as_ref().is_some_and(End::has_answer))
        {
            let number = self.dials.under_way[at].number;
            let Some(mut end) = self.dials.under_way[at].end.take() else { return };
            let outcome = handshake::read_answer(&mut end).map(|hello| (end, hello));
            self.end_dial(number, outcome);
        }
    }

    pub fn end_dial(&mut self, number: usize, outcome: Result<(End, Hello), Refusal>) {
        let Some(at) = self.dials.under_way.iter().position(|dial| dial.number == number) else { return };
        let dial = self.dials.under_way.swap_remove(at);
        self.note(format_args!("dial {number} of node {}: {:?}", dial.node, outcome.as_ref().map(|_| ())));
        if dial.incarnation == self.incarnation(dial.node)
            && let Some(running) = &self.nodes[dial.node].running
        {
            let outcome = outcome.map(|(end, hello)| (Box::new(end) as Box<_>, hello));
            running.addresses.supervisor.do_send(SupervisorMessage::DialEnded {
                request: dial.request,
                purpose: dial.purpose,
                outcome,
            });
        }
    }
}
