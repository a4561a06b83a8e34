//! The decider against a model of a pair in which everything happens at any time.

use super::decision::{Finding, Reply, Sight, Watchdog};
use super::tests::{ACT, seen, whole};
use crate::hsb::advice::{Premise, Step, View};
use crate::hsb::codes::Code;
use crate::hsb::event::Command::{SetPrimaryAlone, SetSecondaryAlone, SwitchPrimary};
use crate::hsb::state::State::{self, *};

/// One node of the model.
#[derive(Clone, Copy)]
struct Node {
    up: bool,
    /// Lives, answers nobody, notices nothing.
    frozen: bool,
    state: State,
    /// Transactions it has.
    sequence: u64,
    peer_promoted: bool,
    /// The watchdog can reach it.
    in_sight: bool,
}

/// Two nodes with 2-safe replication and AutoPrimaryAlone=no, and whatever may befall them.
struct Model {
    nodes: [Node; 2],
    /// The network between them works.
    network: bool,
    /// Their connection exists; false as soon as one side has closed it.
    connected: bool,
    acknowledged: u64,
    random: u64,
    trace: Vec<String>,
}

impl Model {
    fn new(seed: u64) -> Model {
        let node = |state| Node {
            up: true,
            frozen: false,
            state,
            sequence: 1,
            peer_promoted: false,
            in_sight: true,
        };
        let nodes = [node(PrimaryActive), node(SecondaryActive)];
        Model { nodes, network: true, connected: true, acknowledged: 1, random: seed, trace: Vec::new() }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    fn answers(&self, node: usize) -> bool {
        self.nodes[node].up && !self.nodes[node].frozen
    }

    /// One thing that happens by itself.
    fn happen(&mut self) {
        let node = self.below(2) as usize;
        let what = self.below(11);
        self.trace.push(format!("{what} at {node}"));
        match what {
            0 | 1 => self.write(node),
            2..=4 => self.notice(node),
            5 => self.nodes[node].up = false,
            6 => self.start(node),
            7 => self.nodes[node].frozen = !self.nodes[node].frozen,
            8 => self.network = !self.network,
            9 => self.nodes[node].in_sight = !self.nodes[node].in_sight,
            _ => self.connect(),
        }
        if what == 5 || what == 8 && !self.network {
            self.connected = false;
        }
    }

    fn write(&mut self, node: usize) {
        let peer = 1 - node;
        if !self.answers(node) {
            return;
        }
        match self.nodes[node].state {
            PrimaryActive
                if self.connected && self.answers(peer) && self.nodes[peer].state == SecondaryActive =>
            {
                self.nodes[node].sequence += 1;
                self.nodes[peer].sequence = self.nodes[node].sequence;
            }
            PrimaryAlone => self.nodes[node].sequence += 1,
            _ => return,
        }
        self.acknowledged = self.nodes[node].sequence;
    }

    /// The end of the connection, or a silent peer, is noticed.
    fn notice(&mut self, node: usize) {
        let lost = !self.connected || !self.answers(1 - node);
        if self.answers(node) && lost && self.nodes[node].state.is_active() {
            self.connected = false;
            self.nodes[node].state =
                if self.nodes[node].state == PrimaryActive { PrimaryUncertain } else { SecondaryAlone };
        }
    }

    fn start(&mut self, node: usize) {
        if !self.nodes[node].up {
            self.nodes[node] = Node {
                up: true,
                frozen: false,
                state: SecondaryAlone,
                peer_promoted: false,
                ..self.nodes[node]
            };
        }
    }

    /// What a careful operator does: connects a primary and a secondary that can be connected.
    fn connect(&mut self) {
        for (primary, secondary) in [(0, 1), (1, 0)] {
            let states = [self.nodes[primary].state, self.nodes[secondary].state];
            let reach = self.network && self.answers(0) && self.answers(1);
            let ready = matches!(states, [PrimaryAlone | PrimaryUncertain, SecondaryAlone]);
            if reach && ready && self.nodes[primary].sequence >= self.nodes[secondary].sequence {
                self.nodes[primary].state = PrimaryActive;
                self.nodes[primary].peer_promoted = false;
                self.nodes[secondary].state = SecondaryActive;
                self.nodes[secondary].sequence = self.nodes[primary].sequence;
                self.connected = true;
            }
            if reach && states == [PrimaryAlone, PrimaryUncertain] {
                self.nodes[secondary].state = SecondaryAlone;
            }
        }
    }

    fn sight(&self, node: usize) -> Sight {
        let Node { state, sequence, peer_promoted, in_sight, .. } = self.nodes[node];
        if !in_sight || !self.answers(node) {
            return Sight::Gone;
        }
        seen(View { superseded: peer_promoted, ..View::new(state, (1, sequence), None) })
    }

    fn order(&mut self, order: Step) -> Reply {
        let Step { node, command } = order;
        if !self.nodes[node].in_sight || !self.answers(node) {
            return Reply::None;
        }
        self.trace.push(format!("watchdog: {order:?}"));
        let peer = 1 - node;
        let code = match (command, self.nodes[node].state) {
            (SetPrimaryAlone, PrimaryUncertain | SecondaryAlone) => {
                self.nodes[node].state = PrimaryAlone;
                Code::SUCCESS
            }
            (SwitchPrimary, SecondaryAlone) => {
                let reached = self.network && self.answers(peer);
                if reached && self.nodes[peer].state.is_primary() {
                    Code::BOTH_PRIMARY
                } else if reached && self.nodes[peer].sequence > self.nodes[node].sequence {
                    Code::NOT_SYNCHRONIZED
                } else {
                    self.nodes[node].state = PrimaryAlone;
                    assert!(
                        self.nodes[node].sequence >= self.acknowledged,
                        "promoted without everything acknowledged: {:#?}",
                        self.trace
                    );
                    Code::SUCCESS
                }
            }
            (SetSecondaryAlone, PrimaryAlone | PrimaryUncertain) => {
                self.nodes[node].state = SecondaryAlone;
                Code::SUCCESS
            }
            (_, _) => Code::REFUSED_IN_STATE,
        };
        // The answer may get lost on its way.
        if self.below(8) == 0 { Reply::None } else { Reply::Code(code.number()) }
    }

    /// An operator reads what is to be done and does it in the situation for which it was written.
    fn follow(&mut self, watchdog: &Watchdog, sights: &[Sight; 2]) -> usize {
        let advice = watchdog.advice(sights);
        if *sights != [self.sight(0), self.sight(1)] || advice.premise != Premise::None {
            return 0;
        }
        for step in &advice.steps {
            if matches!(step.command, SetPrimaryAlone | SetSecondaryAlone | SwitchPrimary) {
                let refused = Reply::Code(Code::REFUSED_IN_STATE.number());
                assert_ne!(self.order(*step), refused, "{step:?}: {:#?}", self.trace);
            } else {
                self.connect();
            }
            self.check();
        }
        advice.steps.len()
    }

    fn check(&self) {
        let writes = |node: usize| match self.nodes[node].state {
            PrimaryAlone | Standalone => self.nodes[node].up,
            PrimaryActive => {
                self.answers(0)
                    && self.answers(1)
                    && self.connected
                    && self.nodes[1 - node].state == SecondaryActive
            }
            _ => false,
        };
        assert!(!(writes(0) && writes(1)), "two nodes accept writes: {:#?}", self.trace);
    }
}

/// The two nodes are looked at one after the other, with things happening in between and before the order arrives; an
/// old "gone" is kept now and then, as the program does.
#[test]
fn no_sequence_of_failures_makes_two_primaries_or_loses_what_was_acknowledged() {
    let (mut actions, mut followed) = (0, 0);
    for seed in 0..6_000_u64 {
        let mut model = Model::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut watchdog = Watchdog::new(ACT);
        watchdog.look(Finding::of(&whole()));
        let mut before = whole();
        for _ in 0..60 {
            for _ in 0..model.below(4) {
                model.happen();
                model.check();
            }
            let first = model.below(2) as usize;
            let mut sights = whole();
            for node in [first, 1 - first] {
                let keep = before[node] == Sight::Gone && model.below(3) == 0;
                sights[node] = if keep { Sight::Gone } else { model.sight(node) };
                if model.below(3) == 0 {
                    model.happen();
                }
            }
            before = sights.clone();
            let finding = Finding::of(&sights);
            let mut next = watchdog.look(finding);
            if next.is_none() && model.below(2) == 0 {
                followed += model.follow(&watchdog, &sights);
            }
            while let Some(order) = next {
                actions += 1;
                let reply = model.order(order);
                model.check();
                next = watchdog.done(finding, order, reply);
            }
        }
    }
    assert!(actions > 1_000, "the model hardly ever needed the watchdog: {actions}");
    assert!(followed > 1_000, "the model hardly ever needed advice: {followed}");
}
