//! Invariant 6: from every situation there is a way back to a connected pair. The way is the one that docs/states.md
//! tells an operator to go.

use hotstandby::hsb::event::Command;
use hotstandby::hsb::state::State;
use hotstandby::hsb::table::Transition;

use crate::network::{Action, Network};

/// More commands than any procedure of the document has.
const PATIENCE: usize = 12;

/// Ok when the pair is connected at the end.
pub fn heal(mut network: Network, table: &'static [Transition]) -> Result<(), String> {
    let before = network.clone();
    let mut tried = Vec::new();
    for _ in 0..PATIENCE {
        for at in [0, 1] {
            if !network.nodes[at].up {
                network.take(Action::Restart(at), table);
            }
        }
        network.settle(table);
        let [first, second] = [0, 1].map(|at| network.nodes[at].heart.state());
        let Some((at, command)) = next_command(&network, first, second) else { return Ok(()) };
        let code = network.ask(at, command, table);
        tried.push(format!("{first} | {second}: {command:?} at {at}: {code}"));
        if [14525, 14708].contains(&code) {
            // The copy goes to the secondary.
            let secondary = usize::from(first.is_primary());
            network.take(Action::Crash { node: secondary, power: false }, table);
            network.nodes[secondary].wait_for_copy(table);
            network.take(Action::Restart(secondary), table);
            network.settle(table);
        }
    }
    Err(format!("no way back: {tried:#?}\nfrom {before:#?}"))
}

fn next_command(network: &Network, first: State, second: State) -> Option<(usize, Command)> {
    use State::{Offline, PrimaryActive, SecondaryActive, SecondaryAlone, Standalone};
    let progress = |at: usize| network.nodes[at].heart.log_end().progress();
    let further = usize::from(progress(1) > progress(0));
    match [first, second] {
        [PrimaryActive, SecondaryActive] | [SecondaryActive, PrimaryActive] => None,
        [Standalone, _] => Some((0, Command::SetPrimaryAlone)),
        [_, Standalone] => Some((1, Command::SetPrimaryAlone)),
        [SecondaryAlone, SecondaryAlone] => Some((further, Command::SetPrimaryAlone)),
        [Offline, SecondaryAlone | State::PrimaryUncertain] => Some((1, Command::SetPrimaryAlone)),
        [SecondaryAlone | State::PrimaryUncertain, Offline] => Some((0, Command::SetPrimaryAlone)),
        [Offline, _] => Some((1, Command::Netcopy)),
        [_, Offline] => Some((0, Command::Netcopy)),
        [first, second] if first.is_primary() && second.is_primary() => {
            // The first time this tells whether they have parted.
            let asked = network.nodes[0].answered.map(|code| code.number());
            if asked == Some(14700) {
                Some((1 - further, Command::SetSecondaryAlone))
            } else {
                Some((0, Command::Connect))
            }
        }
        [first, _] => Some((usize::from(!first.is_primary()), Command::Connect)),
    }
}
