//! The decider against a table of cases and against a model of a pair in which everything happens at any time.

use super::decision::{Action, Finding, Mode, Order, Policy, Reply, Report, Sight, Watchdog};
use crate::hsb::codes::Code;
use crate::hsb::state::State::{self, *};

const ACT: Policy = Policy { auto_switch: true, dual_secondary_auto_switch: true };

fn here(state: State, position: u64) -> Sight {
    let position = format!("{position:030}");
    Sight::Here(Report {
        state,
        connected: state.is_active(),
        position,
        awaits_operator: false,
        restarted: false,
    })
}

fn whole() -> [Sight; 2] {
    [here(PrimaryActive, 1), here(SecondaryActive, 1)]
}

fn after_whole(policy: Policy) -> Watchdog {
    let mut watchdog = Watchdog::new(policy);
    assert_eq!(watchdog.mode(), Mode::Failure, "at the start");
    assert_eq!(watchdog.look(Finding::of(&whole())), None);
    assert_eq!(watchdog.mode(), Mode::Normal);
    watchdog
}

fn action(node: usize, order: Order) -> Option<Action> {
    Some(Action { node, order })
}

/// Found by simulation: the primary had lost power, and with it what it had acknowledged and not yet synced; before the
/// secondary had noticed, that was gone as well, and the old primary was promoted when it came back. A secondary that has
/// lost what it had acknowledged from its memory is no better.
#[test]
fn a_node_that_was_restarted_is_not_promoted_while_the_other_is_gone() {
    let restarted = |position| match here(SecondaryAlone, position) {
        Sight::Here(report) => Sight::Here(Report { restarted: true, ..report }),
        Sight::Gone => Sight::Gone,
    };
    for back in [0, 1] {
        let mut watchdog = after_whole(ACT);
        let other = [here(PrimaryActive, 5), here(SecondaryActive, 5)][1 - back].clone();
        let sights =
            |at_back: Sight, other: Sight| if back == 0 { [at_back, other] } else { [other, at_back] };
        assert_eq!(watchdog.look(Finding::of(&sights(Sight::Gone, other))), None);
        assert_eq!(watchdog.look(Finding::of(&[Sight::Gone, Sight::Gone])), None);
        assert_eq!(watchdog.look(Finding::of(&sights(restarted(4), Sight::Gone))), None);
        // Both are back: the log positions tell.
        let both = Finding::of(&sights(restarted(4), restarted(5)));
        assert_eq!(watchdog.look(both), action(1 - back, Order::SwitchPrimary));
    }
}

#[test]
fn each_failure_has_its_answer() {
    use Order::{SetPrimaryAlone, SwitchPrimary};
    let gone = || Sight::Gone;
    for (sights, wanted, mode) in [
        ([gone(), here(SecondaryAlone, 1)], action(1, SwitchPrimary), Mode::Normal),
        ([gone(), here(SecondaryActive, 1)], None, Mode::Normal),
        ([here(PrimaryUncertain, 1), gone()], action(0, SetPrimaryAlone), Mode::Normal),
        ([here(PrimaryUncertain, 1), here(SecondaryAlone, 1)], action(0, SetPrimaryAlone), Mode::Normal),
        ([here(PrimaryUncertain, 1), here(SecondaryActive, 1)], None, Mode::Normal),
        ([here(PrimaryActive, 1), gone()], None, Mode::Normal),
        ([here(PrimaryActive, 1), here(SecondaryAlone, 1)], None, Mode::Normal),
        ([here(SecondaryActive, 1), here(SecondaryActive, 1)], None, Mode::Normal),
        ([here(SecondaryActive, 1), here(SecondaryAlone, 2)], None, Mode::Normal),
        ([here(PrimaryAlone, 1), here(SecondaryAlone, 1)], None, Mode::Failure),
        ([here(PrimaryAlone, 1), gone()], None, Mode::Failure),
        ([gone(), here(Standalone, 1)], None, Mode::Failure),
        ([here(PrimaryUncertain, 1), here(PrimaryAlone, 1)], None, Mode::Failure),
        ([here(PrimaryAlone, 1), here(PrimaryAlone, 1)], None, Mode::Failure),
        ([here(PrimaryUncertain, 1), here(PrimaryUncertain, 1)], None, Mode::Failure),
        ([gone(), gone()], None, Mode::Normal),
        ([here(SecondaryAlone, 2), here(SecondaryAlone, 10)], action(1, SwitchPrimary), Mode::Failure),
        ([here(SecondaryAlone, 2), here(SecondaryAlone, 1)], action(0, SwitchPrimary), Mode::Failure),
        ([here(SecondaryAlone, 2), here(SecondaryAlone, 2)], action(0, SwitchPrimary), Mode::Failure),
    ] {
        let mut watchdog = after_whole(ACT);
        assert_eq!(watchdog.look(Finding::of(&sights)), wanted, "{sights:?}");
        assert_eq!(watchdog.mode(), mode, "{sights:?}");
    }
}

#[test]
fn a_moment_without_any_answer_is_not_a_failure_a_longer_one_is() {
    let failed = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    for (looks, acts) in [(5, true), (6, false)] {
        let mut watchdog = after_whole(ACT);
        for _ in 0..looks {
            assert_eq!(watchdog.look(Finding::Nobody), None);
        }
        assert_eq!(watchdog.look(failed).is_some(), acts, "after {looks}");
    }
}

#[test]
fn what_an_operator_has_to_decide_is_left_to_one() {
    let Sight::Here(report) = here(PrimaryUncertain, 1) else { return };
    let superseded = Sight::Here(Report { awaits_operator: true, ..report });
    for other in [Sight::Gone, here(SecondaryAlone, 1), here(SecondaryActive, 1)] {
        assert_eq!(after_whole(ACT).look(Finding::of(&[superseded.clone(), other])), None);
    }
    let Sight::Here(report) = here(SecondaryAlone, 9) else { return };
    let diverged = Sight::Here(Report { awaits_operator: true, ..report });
    assert_eq!(after_whole(ACT).look(Finding::of(&[diverged, here(SecondaryAlone, 1)])), None);
}

#[test]
fn after_one_action_there_is_none_until_the_pair_is_whole() {
    let mut watchdog = after_whole(ACT);
    let failed = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    let action = watchdog.look(failed).unwrap();
    assert_eq!(watchdog.done(failed, action, Reply::Code(Code::SWITCH_ACTIVE.number())), None);
    assert_eq!(watchdog.look(failed), Some(action), "busy: tried again");
    assert_eq!(watchdog.done(failed, action, Reply::None), None);
    assert_eq!(watchdog.look(failed), Some(action), "no answer: the node still needs it");
    assert_eq!(watchdog.done(failed, action, Reply::Code(0)), None);
    for second in [[here(PrimaryUncertain, 1), Sight::Gone], [here(SecondaryAlone, 1), Sight::Gone]] {
        assert_eq!(watchdog.look(Finding::of(&second)), None);
    }
    assert_eq!(watchdog.look(Finding::of(&whole())), None);
    assert!(watchdog.look(failed).is_some());
}

#[test]
fn a_secondary_whose_peer_answers_it_is_not_forced() {
    let finding = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    for (code, follows) in [
        (Code::BOTH_PRIMARY, None),
        (Code::NOT_SYNCHRONIZED, None),
        (Code::APPLY_FAILED, None),
        (Code::DIFFERENT_DATABASE, None),
        (Code::BACKUPSERVER_MODE, action(1, Order::SetPrimaryAlone)),
    ] {
        let mut watchdog = after_whole(ACT);
        let action = watchdog.look(finding).unwrap();
        assert_eq!(watchdog.done(finding, action, Reply::Code(code.number())), follows, "{code:?}");
    }
}

#[test]
fn without_auto_switch_there_is_advice_only() {
    let policy = Policy { auto_switch: false, dual_secondary_auto_switch: false };
    let mut watchdog = after_whole(policy);
    let finding = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    assert_eq!(watchdog.look(finding), None);
    assert_eq!(watchdog.mode(), Mode::Failure);
    assert_eq!(watchdog.advice(finding), action(1, Order::SwitchPrimary));
    assert_eq!(watchdog.look(Finding::of(&[here(SecondaryAlone, 1), here(SecondaryAlone, 2)])), None);
}

#[test]
fn a_promotion_that_was_refused_for_good_is_not_repeated() {
    let mut watchdog = after_whole(ACT);
    let finding = Finding::of(&[here(SecondaryAlone, 1), here(SecondaryAlone, 2)]);
    let action = watchdog.look(finding).unwrap();
    assert_eq!(watchdog.done(finding, action, Reply::Code(Code::APPLY_FAILED.number())), None);
    assert_eq!(watchdog.look(finding), None);
    watchdog.look(Finding::Nobody);
    assert_eq!(watchdog.look(finding), Some(action), "the nodes were away: things may be different");
}

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
        let position = format!("{sequence:030}");
        Sight::Here(Report {
            state,
            connected: state.is_active(),
            position,
            awaits_operator: peer_promoted,
            restarted: false,
        })
    }

    fn order(&mut self, action: Action) -> Reply {
        let Action { node, order } = action;
        if !self.nodes[node].in_sight || !self.answers(node) {
            return Reply::None;
        }
        self.trace.push(format!("watchdog: {order:?} at {node}"));
        let peer = 1 - node;
        let code = match (order, self.nodes[node].state) {
            (Order::SetPrimaryAlone, PrimaryUncertain) | (Order::SetPrimaryAlone, SecondaryAlone) => {
                self.nodes[node].state = PrimaryAlone;
                Code::SUCCESS
            }
            (Order::SwitchPrimary, SecondaryAlone) => {
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
            (_, _) => Code::REFUSED_IN_STATE,
        };
        // The answer may get lost on its way.
        if self.below(8) == 0 { Reply::None } else { Reply::Code(code.number()) }
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
    let mut actions = 0;
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
            while let Some(action) = next {
                actions += 1;
                let reply = model.order(action);
                model.check();
                next = watchdog.done(finding, action, reply);
            }
        }
    }
    assert!(actions > 1_000, "the model hardly ever needed the watchdog: {actions}");
}
