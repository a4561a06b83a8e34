//! What an onlooker sees of both nodes: the invariants of the specification, checked after every step.

use hotstandby::hsb::effect::{Decision, Effect, NodeEffect};
use hotstandby::hsb::event::Command;
use hotstandby::hsb::phase::Activity;
use hotstandby::hsb::position::Position;
use hotstandby::hsb::state::State;
use hotstandby::hsb::table::Transition;

use crate::network::Link;
use crate::node::{InHand, Node, batches};

/// Sets of batches are bit sets: there are few batches.
#[derive(Clone, Debug, Default, Hash)]
pub struct Record {
    pub written: u8,
    /// The secondary has said that it has them.
    acknowledged: u16,
    /// Answered as committed while the pair was 2-safe.
    promised: u16,
    /// Faults so far.
    pub disturbances: u8,
    /// Commands so far.
    pub commands: u8,
    /// An operator has made a second primary, knowingly or not.
    pub forced: bool,
    /// An operator has promoted a node although the other one, alive, has what it lacks.
    pub careless: bool,
    /// The first violation.
    pub fault: Option<&'static str>,
}

fn bit(batch: u8) -> u16 {
    1 << batch
}

fn set(position: &Position) -> u16 {
    batches(position).iter().fold(0, |set, batch| set | bit(*batch))
}

fn is_primary(node: &Node) -> bool {
    node.up && node.heart.state().is_primary()
}

/// It is a primary, or is becoming one.
fn is_promoted(node: &Node) -> bool {
    is_primary(node) || node.up && node.heart.activity() == Activity::SwitchingToPrimary
}

impl Record {
    pub fn next_batch(&mut self) -> u8 {
        self.written += 1;
        self.written
    }

    pub fn violated(&mut self, what: &'static str) {
        self.fault.get_or_insert(what);
    }

    pub fn asked(&mut self, nodes: &[Node; 2], at: usize, command: Command) {
        self.commands += 1;
        let (me, peer) = (&nodes[at], &nodes[1 - at]);
        let promotes = match command {
            Command::SetPrimaryAlone | Command::SetStandalone => is_promoted(peer),
            // It asks the peer first.
            Command::SwitchPrimary => is_promoted(peer) && !is_primary(peer),
            _ => return,
        };
        if me.heart.state() != State::PrimaryActive {
            self.forced |= promotes;
        }
        let lacks = set(&peer.log_end()) & !set(&me.log_end()) != 0;
        self.careless |= peer.up && lacks && !me.heart.state().is_primary();
    }

    /// R4: whoever cannot reach the other one counts it as dead.
    pub fn probe_failed(&mut self, nodes: &[Node; 2], from: usize) {
        self.forced |= is_promoted(&nodes[1 - from]);
        let lacks = set(&nodes[1 - from].log_end()) & !set(&nodes[from].log_end()) != 0;
        self.careless |= nodes[1 - from].up && lacks;
    }

    pub fn acknowledged(&mut self, position: Position) {
        self.acknowledged |= set(&position);
    }

    /// Invariant 4, at the moment when a batch becomes visible.
    pub fn committed(&mut self, node: &Node, batch: &InHand, decision: Decision) {
        let number = *batches(&batch.after).last().unwrap();
        let on_disk = node.log[..node.durable].iter().any(|entry| entry.after == batch.after);
        let acknowledged = self.acknowledged & bit(number) != 0;
        match decision {
            Decision::Commit if batch.marked && acknowledged => self.promised |= bit(number),
            Decision::Commit if batch.marked => self.violated("4: visible before it was acknowledged"),
            _ if !on_disk => self.violated("4: answered alone before it was on disk"),
            _ if node.heart.state() == State::PrimaryUncertain && batch.marked => {
                self.violated("4: decided by an uncertain primary");
            }
            _ => {}
        }
    }

    /// Invariant 5.
    pub fn changes(&mut self, before: State, effects: &[Effect], after: State) {
        let mut state = before;
        for effect in effects {
            if let Effect::Node(NodeEffect::Entered(Transition { from, to, .. })) = effect {
                if *from != state {
                    self.violated("5: a change of the state was not reported, or out of order");
                }
                state = *to;
            }
        }
        if state != after {
            self.violated("5: a change of the state was not reported");
        }
    }

    /// What a connection may leave behind when it ends by itself.
    pub fn link_lost(&mut self, before: (State, Activity), node: &Node) {
        let auto = node.heart.settings().auto_primary_alone;
        match before {
            (_, Activity::SwitchingToPrimary | Activity::SwitchingToSecondary) if is_primary(node) => {
                self.violated("2: a switch that broke off has left a primary");
            }
            (_, Activity::Disconnecting) => {}
            (State::PrimaryActive, _) if node.is_writable() && !auto => {
                self.violated("2: a primary goes on alone by itself, though AutoPrimaryAlone=no");
            }
            _ => {}
        }
    }

    /// Invariants 1, 2 and 3.
    pub fn look(&mut self, nodes: &[Node; 2], links: &[Link]) {
        let state = |at: usize| nodes[at].heart.state();
        let active = |at: usize| nodes[at].up && state(at) == State::PrimaryActive;
        if active(0) && active(1) {
            self.violated("1: two nodes in PRIMARY ACTIVE");
        }
        for (at, node) in nodes.iter().enumerate() {
            let peer = &nodes[1 - at];
            let link = links.iter().find(|link| Some(link.id) == node.heart.link());
            let whole = link.is_some_and(|link| !link.cut && link.ends[1 - at]);
            let follows = peer.up
                && peer.heart.state() == State::SecondaryActive
                && peer.heart.link() == node.heart.link();
            if active(at) && whole && !follows {
                self.violated("1: PRIMARY ACTIVE without a secondary");
            }
            if active(at) && node.heart.link().is_none() {
                self.violated("1: PRIMARY ACTIVE without a connection");
            }
            let lost = self.promised & !set(&node.heart.decided()) != 0;
            if is_primary(node) && lost && self.disturbances <= 1 && !self.careless {
                self.violated("3: a primary lacks what was acknowledged under 2-safe");
            }
        }
        if !(is_promoted(&nodes[0]) && is_promoted(&nodes[1])) {
            self.forced = false;
        }
        if nodes[0].is_writable() && nodes[1].is_writable() && !self.forced {
            self.violated("2: two nodes accept writes and nobody has forced it");
        }
    }
}
