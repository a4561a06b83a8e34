//! Reaching the other node: dials, their answers, copies, the ends of connections.

use hotstandby::hsb::codes::Code;
use hotstandby::hsb::event::{Event, Hello, LinkId, PeerMessage, Purpose};
use hotstandby::hsb::position::DatabasePosition;
use hotstandby::hsb::refusal::Refusal;

use crate::network::{Link, Network, Wire};

#[derive(Clone, Debug, Hash)]
pub enum Stage {
    Calling,
    /// The peer has it and has not answered.
    Waiting(LinkId),
    Answered(Result<(Option<LinkId>, Hello), Code>),
}

/// A node reaches the other: to connect, to ask for its state, or to copy its database there.
#[derive(Clone, Debug, Hash)]
pub struct Dial {
    pub from: usize,
    pub request: u64,
    pub purpose: Purpose,
    pub hello: Hello,
    pub stage: Stage,
}

impl Network {
    /// The node has let go of its connection: it is the one whose end is open and that its heart knows no more.
    pub fn close(&mut self, at: usize, farewell: Option<PeerMessage>) {
        self.nodes[at].catchup = None;
        self.nodes[at].checking = None;
        let current = self.nodes[at].heart.link();
        let Some(place) = self.links.iter().position(|link| link.ends[at] && Some(link.id) != current) else {
            return;
        };
        let id = self.links[place].id;
        if let Some(message) = farewell {
            self.send(at, id, Wire::Message(message));
        }
        self.send(at, id, Wire::End);
        self.links[place].ends[at] = false;
        self.links[place].to[at].clear();
    }

    /// The answer to whoever dialled; 0 in the place of a connection stands for a copy.
    pub fn answer_dial(&mut self, link: LinkId, answer: Result<(Option<LinkId>, Hello), Code>) {
        let to = self.arrivals.iter().position(|(_, arrived)| *arrived == link);
        let to = to.map(|place| self.arrivals.remove(place).0);
        let waiting = |dial: &&mut Dial| matches!(dial.stage, Stage::Waiting(other) if other == link);
        let dial = self.dials.iter_mut().find(waiting);
        if let (Some(to), Ok((Some(id), _))) = (to, &answer) {
            let mut link = Link { id: *id, to: Default::default(), ends: [true, true], cut: false };
            if dial.is_none() {
                link.ends[1 - to] = false;
                link.to[to].push_back(Wire::End);
            }
            self.links.push(link);
        }
        if let Some(dial) = dial {
            dial.stage = Stage::Answered(answer);
        }
    }

    pub fn advance_dial(&mut self, place: usize) {
        let Dial { from, request, purpose, hello, stage } = self.dials[place].clone();
        let to = 1 - from;
        match (stage, purpose) {
            (Stage::Calling, Purpose::Probe) => {
                let answer = Ok((None, self.nodes[to].heart.hello()));
                self.dials[place].stage = Stage::Answered(answer);
            }
            (Stage::Calling, Purpose::Connect) => {
                let link = self.unused_link();
                self.dials[place].stage = Stage::Waiting(link);
                self.arrivals.push((to, link));
                self.hear(to, Event::PeerArrived { link, hello });
            }
            (Stage::Calling, Purpose::Netcopy) => {
                self.dials[place].stage = Stage::Waiting(0);
                let common = self.nodes[from].in_common(&self.nodes[to]);
                self.hear(to, Event::CopyArrives { hello, common });
            }
            (Stage::Answered(Ok(_)), Purpose::Netcopy) => {
                self.dials.remove(place);
                let (database_id, position) = (hello.database_id, self.nodes[from].database);
                self.nodes[to].replace_database(position);
                self.hear(to, Event::CopyReceived { opened: Ok(DatabasePosition { database_id, position }) });
                self.hear(from, Event::CopyEnded { result: Ok(()) });
            }
            (Stage::Answered(Ok((link, hello))), _) => {
                self.dials.remove(place);
                if self.nodes[from].heart.is_dialling(request) {
                    self.hear(from, Event::Dialled { request, link, hello });
                } else if let Some(id) = link {
                    self.send(from, id, Wire::End);
                    let link = self.links.iter_mut().find(|link| link.id == id);
                    link.into_iter().for_each(|link| link.ends[from] = false);
                }
            }
            (Stage::Answered(Err(code)), _) => self.fail_dial(place, code),
            (Stage::Waiting(_), _) => {}
            (Stage::Calling, Purpose::History | Purpose::Report | Purpose::Verify) => {
                panic!("the heart dials for none of these")
            }
        }
    }

    pub fn fail_dial(&mut self, place: usize, code: Code) {
        let Dial { from, request, purpose, stage, .. } = self.dials.remove(place);
        let refusal = Refusal::from(code);
        if purpose == Purpose::Netcopy {
            if matches!(stage, Stage::Answered(Ok(_))) {
                self.hear(1 - from, Event::CopyReceived { opened: Err(refusal.clone()) });
            }
            self.hear(from, Event::CopyEnded { result: Err(refusal) });
        } else {
            if purpose == Purpose::Probe {
                self.record.probe_failed(&self.nodes, from);
            }
            self.hear(from, Event::DialFailed { request, refusal });
        }
    }

    /// A small number that no connection has; numbers are used again, so that there are few.
    fn unused_link(&self) -> LinkId {
        let used = |id: LinkId| {
            self.links.iter().any(|link| link.id == id)
                || self.arrivals.iter().any(|(_, arrived)| *arrived == id)
                || self.nodes.iter().any(|node| node.heart.link() == Some(id))
        };
        (1..).find(|id| !used(*id)).unwrap()
    }
}
