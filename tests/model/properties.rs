//! The check itself, and that it finds what it is meant to find.

use std::sync::atomic::{AtomicUsize, Ordering};

use hotstandby::hsb::event::Command;
use hotstandby::hsb::phase::Activity;
use hotstandby::hsb::settings::Settings;
use hotstandby::hsb::state::State::{
    self, PrimaryActive, PrimaryAlone, PrimaryUncertain, SecondaryActive, SecondaryAlone,
};
use hotstandby::hsb::table::{TABLE, Transition, Trigger};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::advice::follow_all;
use crate::healing::heal;
use crate::network::{Action, Network};
use crate::node::SETTINGS;
use crate::steps::COMMANDS;

/// How much may happen in one run.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    commands: u8,
    batches: u8,
    disturbances: u8,
}

struct Pair {
    table: &'static [Transition],
    auto_primary_alone: bool,
    bounds: Bounds,
    /// Situations from which the way back was tried.
    healed: AtomicUsize,
    /// Commands that were given because they were advised.
    advised: AtomicUsize,
}

impl Pair {
    /// A pair that works.
    fn connected(&self) -> Network {
        let settings = Settings { auto_primary_alone: self.auto_primary_alone, ..SETTINGS };
        let mut network = Network::new([PrimaryAlone, SecondaryAlone], settings, self.table);
        assert_eq!(network.ask(0, Command::Connect, self.table), 0);
        network.record = Default::default();
        network
    }
}

impl Model for Pair {
    type State = Network;
    type Action = Action;

    fn init_states(&self) -> Vec<Network> {
        vec![self.connected()]
    }

    fn actions(&self, network: &Network, actions: &mut Vec<Action>) {
        actions.extend(network.internal());
        actions.extend(network.impatience());
        if network.record.disturbances < self.bounds.disturbances {
            actions.extend(network.disturbances());
        }
        for at in [0, 1] {
            if !network.nodes[at].up {
                actions.push(Action::Restart(at));
            }
            if network.record.commands < self.bounds.commands && network.may_command(at) {
                actions.extend(COMMANDS.map(|command| Action::Command(at, command)));
            }
            if network.record.written < self.bounds.batches && network.may_write(at) {
                actions.push(Action::Write(at));
            }
        }
    }

    fn next_state(&self, network: &Network, action: Action) -> Option<Network> {
        let mut next = network.clone();
        if let Action::Cut(_) | Action::FailDial(_) | Action::Crash { .. } = action {
            next.record.disturbances += u8::from(network.disturbances().contains(&action));
        }
        next.take(action, self.table);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Pair>> {
        vec![
            Property::always("the invariants hold", |_, network: &Network| network.record.fault.is_none()),
            Property::always("nothing hangs", |_, network: &Network| !network.is_stuck()),
            Property::always("6: there is a way back", |pair: &Pair, network: &Network| {
                pair.has_a_way_back(network)
            }),
            Property::always("7: what is advised is good", |pair: &Pair, network: &Network| {
                pair.may_be_followed(network)
            }),
        ]
    }
}

impl Pair {
    /// Looked at where nothing is under way: from anywhere else it gets there by itself.
    fn has_a_way_back(&self, network: &Network) -> bool {
        let quiet = network.is_at_rest() && network.impatience().is_empty();
        if !quiet || network.record.commands < self.bounds.commands {
            return true;
        }
        self.healed.fetch_add(1, Ordering::Relaxed);
        heal(network.clone(), self.table).is_ok()
    }

    fn may_be_followed(&self, network: &Network) -> bool {
        if !network.is_at_rest() || !network.impatience().is_empty() {
            return true;
        }
        let given = follow_all(network, self.table);
        self.advised.fetch_add(*given.as_ref().unwrap_or(&0), Ordering::Relaxed);
        given.is_ok()
    }
}

impl Network {
    /// Nothing will happen any more, and yet somebody waits or something is under way.
    fn is_stuck(&self) -> bool {
        let waits = |at: usize| {
            let node = &self.nodes[at];
            node.up && (node.asked.is_some() || node.heart.activity() != Activity::Idle)
        };
        (waits(0) || waits(1)) && self.is_at_rest() && self.impatience().is_empty()
    }
}

fn check(pair: Pair) -> Result<usize, String> {
    let (auto, bounds) = (pair.auto_primary_alone, pair.bounds);
    let checker = pair.checker().threads(2).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let covered = checker.unique_state_count();
    let healed = checker.model().healed.load(Ordering::Relaxed);
    let advised = checker.model().advised.load(Ordering::Relaxed);
    println!(
        "AutoPrimaryAlone={auto}, {bounds:?}: {covered} situations; from {healed} of them, at rest, the way back was tried; {advised} commands were given because they were advised"
    );
    match checker.discoveries().into_iter().next() {
        None => Ok(covered),
        Some((name, path)) => {
            let last = path.last_state();
            let states = [0, 1].map(|at| last.nodes[at].heart.state());
            let fault = last.record.fault.unwrap_or_default();
            let way_back = heal(last.clone(), checker.model().table).err().unwrap_or_default();
            let advised = follow_all(last, checker.model().table).err().unwrap_or_default();
            let actions = path.into_actions();
            Err(format!("{name}: {fault} in {states:?} after {actions:#?}\n{way_back}\n{advised}"))
        }
    }
}

fn pair(table: &'static [Transition], auto_primary_alone: bool, bounds: Bounds) -> Pair {
    Pair { table, auto_primary_alone, bounds, healed: AtomicUsize::new(0), advised: AtomicUsize::new(0) }
}

/// Deeper: HSB_MODEL_COMMANDS=3 cargo test --release --test model -- --nocapture (and _BATCHES, _DISTURBANCES).
fn bound(name: &str, default: u8) -> u8 {
    std::env::var(format!("HSB_MODEL_{name}")).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn trap_21_the_invariants_hold_and_a_way_leads_back_whatever_happened() {
    let bounds = Bounds {
        commands: bound("COMMANDS", 2),
        batches: bound("BATCHES", 1),
        disturbances: bound("DISTURBANCES", 1),
    };
    for auto in [false, true] {
        if let Err(found) = check(pair(TABLE, auto, bounds)) {
            panic!("{found}");
        }
    }
}

/// The table with one row that leads elsewhere, or nowhere.
fn broken(from: State, trigger: Trigger, to: Option<State>) -> &'static [Transition] {
    let mut table = TABLE.to_vec();
    let place = table.iter().position(|row| (row.from, row.trigger) == (from, trigger)).unwrap();
    match to {
        Some(to) => table[place].to = to,
        None => drop(table.remove(place)),
    }
    Vec::leak(table)
}

#[test]
fn a_broken_table_is_caught() {
    for (from, trigger, to) in [
        (PrimaryActive, Trigger::SwitchFailed, Some(PrimaryAlone)),
        (SecondaryActive, Trigger::SwitchFailed, Some(PrimaryAlone)),
        (PrimaryActive, Trigger::LinkLost, Some(PrimaryAlone)),
        (SecondaryActive, Trigger::LinkLost, Some(PrimaryAlone)),
        (PrimaryActive, Trigger::Disconnect, Some(PrimaryActive)),
        (SecondaryAlone, Trigger::Connected, Some(SecondaryAlone)),
        (SecondaryActive, Trigger::Switch, Some(SecondaryActive)),
        (PrimaryActive, Trigger::Switch, Some(PrimaryActive)),
        (SecondaryAlone, Trigger::SetPrimaryAlone, None),
        (PrimaryUncertain, Trigger::Connected, None),
    ] {
        let bounds = Bounds { commands: 1, batches: 1, disturbances: 1 };
        let found = check(pair(broken(from, trigger, to), false, bounds));
        let found = found.expect_err("a broken table passes");
        println!("{from} {trigger:?} -> {to:?}: {}", found.lines().next().unwrap_or_default());
    }
}
