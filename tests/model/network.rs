//! The pair: two nodes, the connections between them, dials and copies under way; and every step that can happen.
//!
//! A connection keeps the order of what is sent on it. It can be cut: then what is under way is lost and each end
//! notices at a time of its own, as with a network that swallows everything.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};

use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::{Effect, NodeEffect};
use hotstandby::hsb::event::{BatchInfo, Command, Event, LinkId, PeerMessage, Purpose};
use hotstandby::hsb::phase::Activity;
use hotstandby::hsb::settings::{Durability, Safeness, Settings};
use hotstandby::hsb::state::State;
use hotstandby::hsb::table::Transition;

use crate::dials::{Dial, Stage};
use crate::node::{Entry, InHand, Node, Ticket, after};
use crate::record::Record;

/// What travels on a connection.
#[derive(Clone, Debug, Hash)]
pub enum Wire {
    Message(PeerMessage),
    Batch(Entry),
    /// The other end was closed.
    End,
}

#[derive(Clone, Debug, Hash)]
pub struct Link {
    pub id: LinkId,
    /// On its way to each node.
    pub to: [VecDeque<Wire>; 2],
    /// Whether each node still has its end.
    pub ends: [bool; 2],
    pub cut: bool,
}

/// Everything that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Command(usize, Command),
    /// A client's transaction is submitted.
    Write(usize),
    /// The writer's patience is over.
    Withdraw(usize),
    /// What was written reaches the disk; what was received is applied.
    Disk(usize),
    /// The applier answers a drain.
    Drained(usize),
    /// The log was searched.
    Checked(usize),
    /// The sender of old batches gets near the end of the log.
    CatchUp(usize),
    TimeOut(usize),
    /// The next thing on its way to the node on the connection at this place arrives.
    Deliver(usize, usize),
    /// The node notices that this connection was cut.
    Notice(usize, usize),
    /// The dial at this place gets one stage further.
    Dial(usize),
    FailDial(usize),
    Cut(usize),
    Crash {
        node: usize,
        power: bool,
    },
    Restart(usize),
}

#[allow(clippy::derived_hash_with_manual_eq)]
#[derive(Clone, Debug, Hash)]
pub struct Network {
    pub nodes: [Node; 2],
    pub links: Vec<Link>,
    pub dials: Vec<Dial>,
    /// Who was dialled on which connection and has not answered.
    pub arrivals: Vec<(usize, LinkId)>,
    /// What an onlooker has seen.
    pub record: Record,
    pub trace: Trace,
}

/// The changes of the state so far, where somebody wants to know them. Does not count when situations are compared.
#[derive(Clone, Debug, Default)]
pub struct Trace(pub Option<Vec<(State, State, &'static str)>>);

impl Hash for Trace {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Trace {
    fn note(&mut self, effects: &[Effect]) {
        let Some(changes) = &mut self.0 else { return };
        changes.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Node(NodeEffect::Entered(change)) => Some((change.from, change.to, change.reason)),
            _ => None,
        }));
    }
}

/// What counts is what is hashed: see [`Ticket`] and the heart's own numbers.
impl PartialEq for Network {
    fn eq(&self, other: &Network) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default();
        hash.hash_one(self) == hash.hash_one(other)
    }
}

impl Network {
    /// Two nodes with equal databases, in these states.
    pub fn new(states: [State; 2], settings: Settings, table: &'static [Transition]) -> Network {
        let nodes = states.map(|state| Node::new(state, settings, table));
        let mut network = Network {
            nodes,
            links: Vec::new(),
            dials: Vec::new(),
            arrivals: Vec::new(),
            record: Record::default(),
            trace: Trace::default(),
        };
        for at in 0..2 {
            network.start(at);
        }
        network
    }

    /// The node lets writers in or not; it has not changed its state yet.
    fn start(&mut self, at: usize) {
        let effects = self.nodes[at].heart.start();
        self.carry_out(at, effects);
    }

    /// Takes one step. Steps that are not possible now change nothing.
    pub fn take(&mut self, action: Action, table: &'static [Transition]) {
        match action {
            Action::Command(at, command) => self.command(at, command),
            Action::Write(at) => self.write(at),
            Action::Withdraw(at) => self.hear(at, Event::Withdraw),
            Action::Disk(at) => self.disk(at),
            Action::Drained(at) => self.drained(at),
            Action::Checked(at) => {
                if let Some((link, position)) = self.nodes[at].checking.take() {
                    let result = self.nodes[at].find_in_log(position);
                    self.hear(at, Event::HistoryChecked { link, result });
                }
            }
            Action::CatchUp(at) => {
                self.send_old_batches(at);
                if let Some(catchup) = &mut self.nodes[at].catchup {
                    catchup.end_reported = true;
                    let link = catchup.link;
                    self.hear(at, Event::CatchupNearEnd { link });
                }
            }
            Action::TimeOut(at) => {
                if let Some(Ticket(timer)) = self.nodes[at].timer.take() {
                    self.hear(at, Event::TimedOut { timer });
                }
            }
            Action::Deliver(at, link) => self.deliver(at, link),
            Action::Notice(at, link) => {
                let id = self.links[link].id;
                self.links[link].ends[at] = false;
                self.hear(at, Event::LinkLost { link: id, why: String::new() });
            }
            Action::Dial(dial) => self.advance_dial(dial),
            Action::FailDial(dial) => self.fail_dial(dial, Code::COMMUNICATION_ERROR),
            Action::Cut(link) => {
                self.links[link].cut = true;
                self.links[link].to = Default::default();
            }
            Action::Crash { node, power } => self.crash(node, power, table),
            Action::Restart(at) => {
                self.nodes[at].up = true;
                self.start(at);
            }
        }
        self.links.retain(|link| link.ends != [false, false]);
        let Network { nodes, links, record, .. } = self;
        record.look(nodes, links);
    }

    pub fn hear(&mut self, at: usize, event: Event) {
        if !self.nodes[at].up {
            return;
        }
        let heart = &mut self.nodes[at].heart;
        let before = (heart.state(), heart.activity());
        let current = matches!(event, Event::LinkLost { link, .. } if heart.link() == Some(link));
        let effects = heart.handle(event);
        self.trace.note(&effects);
        self.record.changes(before.0, &effects, self.nodes[at].heart.state());
        if current {
            self.record.link_lost(before, &self.nodes[at]);
        }
        self.carry_out(at, effects);
        if self.nodes[at].heart.activity() == Activity::Idle {
            self.nodes[at].timer = None;
        }
    }

    fn command(&mut self, at: usize, command: Command) {
        // Numbers are used again when nobody waits for them, so that there are few.
        let used = |number: u64| self.dials.iter().any(|dial| dial.from == at && dial.request == number);
        let request = (1..).find(|number| !used(*number)).unwrap();
        self.record.asked(&self.nodes, at, command);
        self.nodes[at].asked = Some(request);
        self.nodes[at].answered = None;
        self.hear(at, Event::Command { request, command });
    }

    fn write(&mut self, at: usize) {
        let batch = self.record.next_batch();
        let node = &mut self.nodes[at];
        let before = node.database;
        let after = after(before, node.epoch.max(before.epoch), batch);
        node.in_hand = Some(InHand { before, after, marked: false, held: false });
        self.submit(at);
    }

    pub(super) fn submit(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(in_hand) = &mut node.in_hand else { return };
        in_hand.marked = node.heart.needs_acknowledgement(Safeness::Default, Durability::Default);
        in_hand.held = false;
        let info = BatchInfo {
            before: in_hand.before,
            after: in_hand.after,
            needs_acknowledgement: in_hand.marked,
            strict: node.heart.settings().is_strict(Durability::Default, in_hand.marked),
            bytes: 1,
        };
        self.hear(at, Event::BatchReady(info));
    }

    fn disk(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.durable = node.log.len();
        let position = node.log_end();
        if node.unapplied {
            node.unapplied = false;
            node.database = node.received;
            let position = node.received;
            self.hear(at, Event::Applied { position });
        }
        self.hear(at, Event::Logged { position, durable: true });
    }

    fn drained(&mut self, at: usize) {
        self.disk(at);
        let node = &mut self.nodes[at];
        let Some((Ticket(ticket), with_pending)) = node.draining.take() else { return };
        if with_pending {
            if let Some(pending) = node.pending.take() {
                node.database = pending.after;
            }
            node.synced = node.database;
        }
        let position = node.database;
        self.hear(at, Event::Drained { ticket, position });
    }

    pub(super) fn send_old_batches(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(catchup) = node.catchup.as_mut().filter(|catchup| catchup.begun) else { return };
        let sent = catchup.sent;
        catchup.sent = node.log.last().map_or(sent, |entry| entry.after);
        let link = catchup.link;
        let missing: Vec<Entry> =
            node.log.iter().filter(|entry| entry.before.sequence >= sent.sequence).copied().collect();
        for entry in missing {
            self.send(at, link, Wire::Batch(entry));
        }
    }

    pub fn send(&mut self, at: usize, link: LinkId, wire: Wire) {
        if let Some(link) = self.links.iter_mut().find(|other| other.id == link)
            && link.ends[1 - at]
            && !link.cut
        {
            link.to[1 - at].push_back(wire);
        }
    }

    fn deliver(&mut self, at: usize, link: usize) {
        let Some(wire) = self.links[link].to[at].pop_front() else { return };
        let id = self.links[link].id;
        match wire {
            Wire::Message(PeerMessage::Acknowledge { position }) => {
                if self.nodes[at].heart.link() == Some(id) {
                    self.hear(at, Event::Acknowledged { position });
                }
            }
            Wire::Message(message) => self.hear(at, Event::PeerSays { link: id, message }),
            Wire::Batch(entry) => self.receive(at, id, entry),
            Wire::End => {
                self.links[link].ends[at] = false;
                self.hear(at, Event::LinkLost { link: id, why: String::new() });
            }
        }
    }

    /// As the secondary applier does it, with acknowledge policy "received".
    fn receive(&mut self, at: usize, link: LinkId, entry: Entry) {
        let node = &mut self.nodes[at];
        if node.following != Some(link) {
            return;
        }
        if entry.before != node.received {
            node.following = None;
            return self.hear(at, Event::LinkLost { link, why: "not the next batch".into() });
        }
        let in_log = node.pending.take().is_some_and(|pending| {
            if pending.after != entry.after {
                node.truncate_after(node.received);
            }
            pending.after == entry.after
        });
        if !in_log {
            node.append(entry);
        }
        node.received = entry.after;
        node.unapplied = true;
        self.record.acknowledged(entry.after);
        self.send(at, link, Wire::Message(PeerMessage::Acknowledge { position: entry.after }));
    }

    fn crash(&mut self, at: usize, power: bool, table: &'static [Transition]) {
        self.nodes[at].crash(power, table);
        self.arrivals.retain(|(to, _)| *to != at);
        while let Some(place) = self.dials.iter().position(|dial| dial.from == at) {
            let dial = self.dials.remove(place);
            if dial.purpose == Purpose::Netcopy && matches!(dial.stage, Stage::Answered(Ok(_))) {
                self.hear(1 - at, Event::CopyReceived { opened: Err(Code::COMMUNICATION_ERROR.into()) });
            }
        }
        for link in &mut self.links {
            if link.ends[at] {
                link.ends[at] = false;
                link.to[at].clear();
                // A process that ends is missed at once; a machine without power is silent.
                if power {
                    link.cut = true;
                    link.to = Default::default();
                } else if link.ends[1 - at] && !link.cut {
                    link.to[1 - at].push_back(Wire::End);
                }
            }
        }
        // Whoever waits for its answer gets none.
        for dial in (0..self.dials.len()).rev() {
            let copy = self.dials[dial].purpose == Purpose::Netcopy;
            if matches!(self.dials[dial].stage, Stage::Waiting(_)) || copy {
                self.fail_dial(dial, Code::COMMUNICATION_ERROR);
            }
        }
    }
}
