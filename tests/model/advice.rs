//! Invariant 7: what is advised is accepted, leads where it should, and makes no second server that takes writes.
//!
//! In every situation at rest the commands that `hsb status` and the watchdog print are given as printed: with both
//! servers in sight, and with each of them out of sight, whatever the watchdog remembers. So are those that the code
//! table names.

use hotstandby::hsb::advice::{Advice, Premise, Remedy, Step, View, advise};
use hotstandby::hsb::cause::Cause;
use hotstandby::hsb::codes::{self, Code};
use hotstandby::hsb::event::Command::{self, *};
use hotstandby::hsb::state::State::{self, *};
use hotstandby::hsb::table::{TABLE, Transition, Trigger};
use hotstandby::watchdog::decision::{Finding, Policy, Report, Sight, Watchdog};

use crate::matrix::{AHEAD, DIVERGED as DIVERGED_PEER, MINE, Peer, STATES, arrange, connected, peers};
use crate::network::{Action, Network};

/// What the node may be known by: it does not remember how it came into its state, so every way counts.
fn views(network: &Network, at: usize) -> Vec<View> {
    let heart = &network.nodes[at].heart;
    let mut causes = match heart.state() {
        PrimaryUncertain => vec![None, Some(Cause::Change(Trigger::PeerPromoted))],
        SecondaryAlone => vec![None, Some(Cause::Started)],
        _ => vec![None],
    };
    let knows = |at: usize| network.nodes[at].find_in_log(network.nodes[1 - at].heart.decided()).is_ok();
    if heart.state() == SecondaryAlone && !knows(0) && !knows(1) {
        causes.push(Some(Cause::Change(Trigger::Diverged)));
    }
    let view = |cause| View::new(heart.state(), heart.log_end().progress(), cause);
    causes.into_iter().map(|cause| View { remedy: heart.remedy(), ..view(cause) }).collect()
}

/// All that may be advised in this situation.
fn advices(network: &Network) -> Vec<Advice> {
    let known = [0, 1].map(|at| if network.nodes[at].up { views(network, at) } else { Vec::new() });
    let mut advices: Vec<Advice> = Vec::new();
    let with_none = |views: &[View]| views.iter().copied().map(Some).chain([None]).collect::<Vec<_>>();
    for first in with_none(&known[0]) {
        for second in with_none(&known[1]) {
            let servers = [first, second];
            advices.push(advise(servers, None));
            for writer in [None, Some(0), Some(1)] {
                let policy = Policy { auto_switch: false, dual_secondary_auto_switch: false };
                let mut watchdog = Watchdog::new(policy);
                if let Some(primary) = writer {
                    watchdog.look(Finding::Alone { primary });
                }
                let sight = |view: Option<View>| {
                    view.map_or(Sight::Gone, |view| {
                        Sight::Here(Report { view, connected: view.state.is_active() })
                    })
                };
                advices.push(watchdog.advice(&servers.map(sight)));
            }
        }
    }
    advices.sort_by_key(|advice| format!("{advice:?}"));
    advices.dedup();
    advices
}

fn writers(network: &Network) -> usize {
    network.nodes.iter().filter(|node| node.is_writable()).count()
}

/// Follows every advice that there is here, each from this situation on; how many commands were given.
pub fn follow_all(network: &Network, table: &'static [Transition]) -> Result<usize, String> {
    let mut given = 0;
    for advice in advices(network) {
        let Some(first) = advice.steps.first() else { continue };
        if advice.premise == Premise::OtherIsDown && network.nodes[1 - first.node].up {
            continue;
        }
        let mut ways = vec![advice.steps.clone()];
        if advice.premise == Premise::Choice {
            ways.push(advice.exchanged());
        }
        for steps in ways {
            given += steps.len();
            follow(network.clone(), &steps, table).map_err(|problem| {
                let states = [0, 1].map(|at| network.nodes[at].heart.state());
                format!("{states:?}: {advice:#?}\n{problem}")
            })?;
        }
    }
    Ok(given)
}

fn follow(mut network: Network, steps: &[Step], table: &'static [Transition]) -> Result<(), String> {
    let before = writers(&network);
    for Step { node, command } in steps {
        if *command == Rewind {
            // The other way that the sentence names; a rewind has tests of its own.
            restart_for_copy(&mut network, *node, table);
            network.ask(1 - node, Netcopy, table);
            continue;
        }
        let mut code = network.ask(*node, *command, table);
        if *command == Connect && [14525, 14708].contains(&code) {
            restart_for_copy(&mut network, 1 - node, table);
            let commands = [SetPrimaryAlone, Netcopy, Connect];
            code =
                commands.map(|command| network.ask(*node, command, table)).into_iter().max().unwrap_or(code);
        }
        if !Code::find(code).is_some_and(Code::is_success) {
            return Err(format!("{command:?} at {node} is refused: {code}"));
        }
        if writers(&network) > before.max(1) {
            return Err(format!("{command:?} at {node} makes a second primary"));
        }
    }
    let states = [0, 1].map(|at| network.nodes[at].heart.state());
    let connects = steps.iter().any(|step| step.command == Connect);
    if connects && !matches!(states, [PrimaryActive, SecondaryActive] | [SecondaryActive, PrimaryActive]) {
        return Err(format!("the pair is not whole in the end: {states:?}"));
    }
    Ok(())
}

fn restart_for_copy(network: &mut Network, at: usize, table: &'static [Transition]) {
    network.take(Action::Crash { node: at, power: false }, table);
    network.nodes[at].wait_for_copy(table);
    network.take(Action::Restart(at), table);
    network.settle(table);
}

/// Situations that no run of the model check begins with: STANDALONE, OFFLINE, databases that have parted before.
#[test]
fn what_is_advised_is_accepted_and_makes_no_second_primary_whatever_state_with_whatever_peer() {
    let mut given = 0;
    for state in STATES {
        for peer in peers().into_iter().filter(|peer| !matches!(peer, Peer::OtherDatabase(_))) {
            let mut network = arrange(state, peer);
            if peer == Peer::Unreachable {
                network.take(Action::Crash { node: 1, power: false }, TABLE);
            }
            network.settle(TABLE);
            given +=
                follow_all(&network, TABLE).unwrap_or_else(|problem| panic!("{state} | {peer:?}: {problem}"));
        }
    }
    assert!(given > 100, "hardly anything was advised: {given}");
}

/// A text that names a command: who is refused what, and the commands that the text names, which are given then. `Status`
/// instead of commands: the text points to `hsb status`, whose advice is followed.
enum Then {
    Give(&'static [(usize, Command)]),
    Status,
}

const REFUSALS: &[(Code, State, State, usize, Command, Then)] = {
    use Then::{Give, Status};
    &[
        (Code::BOTH_PRIMARY, PrimaryAlone, PrimaryAlone, 0, Connect, Status),
        (Code::BOTH_PRIMARY, PrimaryUncertain, PrimaryAlone, 1, Connect, Status),
        (Code::BOTH_PRIMARY, SecondaryAlone, PrimaryAlone, 0, SwitchPrimary, Status),
        (Code::BOTH_PRIMARY, SecondaryAlone, PrimaryUncertain, 0, SwitchPrimary, Status),
        (
            Code::BOTH_SECONDARY,
            SecondaryAlone,
            SecondaryAlone,
            0,
            Connect,
            Give(&[(0, SwitchPrimary), (0, Connect)]),
        ),
        (Code::NOT_PRIMARY, SecondaryAlone, PrimaryAlone, 0, Netcopy, Status),
        (Code::NOT_PRIMARY, SecondaryAlone, SecondaryAlone, 0, Netcopy, Status),
        (Code::LINK_BROKEN, PrimaryAlone, SecondaryAlone, 0, Disconnect, Status),
        (Code::LINK_BROKEN, SecondaryAlone, SecondaryAlone, 0, Disconnect, Status),
        (
            Code::ALREADY_STANDALONE,
            Standalone,
            SecondaryAlone,
            0,
            SetStandalone,
            Give(&[(0, SetPrimaryAlone)]),
        ),
        (
            Code::SWITCH_FROM_STANDALONE,
            Standalone,
            SecondaryAlone,
            0,
            SwitchSecondary,
            Give(&[(0, SetSecondaryAlone)]),
        ),
        (
            Code::SWITCH_FROM_STANDALONE,
            Standalone,
            SecondaryAlone,
            0,
            SwitchSecondary,
            Give(&[(0, SetPrimaryAlone)]),
        ),
        (
            Code::NOT_IN_STANDALONE,
            Standalone,
            SecondaryAlone,
            0,
            Connect,
            Give(&[(0, SetPrimaryAlone), (0, Connect)]),
        ),
        (
            Code::NOT_IN_STANDALONE,
            SecondaryAlone,
            Standalone,
            0,
            Connect,
            Give(&[(1, SetPrimaryAlone), (0, Connect)]),
        ),
        (
            Code::COPY_ONLY_ALONE,
            Standalone,
            SecondaryAlone,
            0,
            Netcopy,
            Give(&[(0, SetPrimaryAlone), (0, Netcopy)]),
        ),
        (
            Code::COPY_ONLY_ALONE,
            PrimaryActive,
            SecondaryActive,
            0,
            Netcopy,
            Give(&[(0, Disconnect), (0, Netcopy)]),
        ),
        (
            Code::STANDALONE_NOT_ALLOWED,
            SecondaryActive,
            PrimaryActive,
            0,
            SetStandalone,
            Give(&[(0, SwitchPrimary), (0, SetStandalone)]),
        ),
        (Code::BACKUPSERVER_MODE, Offline, PrimaryAlone, 0, Connect, Give(&[(1, Netcopy), (1, Connect)])),
    ]
};

fn meeting(state: State, other: State) -> Network {
    match (state, other) {
        (PrimaryActive | SecondaryActive, _) => connected(state, false),
        (_, Offline) => arrange(state, Peer::There(Offline, &[])),
        _ => arrange(state, Peer::There(other, MINE)),
    }
}

#[test]
fn a_refusal_that_names_commands_names_such_as_are_accepted() {
    for (code, state, other, at, command, then) in REFUSALS {
        let mut network = meeting(*state, *other);
        network.settle(TABLE);
        let what = format!("{command:?} at {at}, {state} | {other}: {code:?}");
        assert_eq!(network.ask(*at, *command, TABLE), code.number(), "{what}");
        let named: Vec<&str> = code.text().split('\'').filter(|part| part.starts_with("hsb ")).collect();
        match then {
            Then::Status => {
                assert!(named.contains(&"hsb status"), "{what}: {named:?}");
                let given = follow_all(&network, TABLE).unwrap_or_else(|problem| panic!("{what}: {problem}"));
                assert!(given > 0, "{what}: nothing is advised");
            }
            Then::Give(steps) => {
                let before = writers(&network);
                for (at, command) in *steps {
                    let repeated = named.contains(&command.text()) || steps.last() == Some(&(*at, *command));
                    assert!(repeated, "{what}: the text does not name {command:?}");
                    let answer = network.ask(*at, *command, TABLE);
                    assert_eq!(answer, 0, "{what}: then {command:?} at {at}");
                    assert!(writers(&network) <= before.max(1), "{what}: two primaries");
                }
            }
        }
    }
}

/// After a refusal because of the histories, connecting again is no advice.
#[test]
fn after_a_refused_connect_the_advice_is_what_helps() {
    for (peer, remedy, advised) in [
        (Peer::There(SecondaryAlone, DIVERGED_PEER), Remedy::Rewind, Rewind),
        (Peer::There(SecondaryAlone, AHEAD), Remedy::Rewind, Rewind),
    ] {
        let mut network = arrange(PrimaryAlone, peer);
        assert_eq!(network.ask(0, Connect, TABLE), 14525, "{peer:?}");
        assert_eq!(network.nodes[1].heart.remedy(), remedy, "{peer:?}");
        let advice = advices(&network);
        let with_both =
            advice.iter().filter(|advice| advice.steps.iter().any(|step| step.command == Connect));
        let mut found = 0;
        for advice in with_both {
            assert_eq!(advice.steps[0], Step { node: 1, command: advised }, "{advice:?}");
            found += 1;
        }
        assert!(found > 0);
        follow_all(&network, TABLE).unwrap();
    }
    // The model keeps all of its log, and no operator gives up anything in it.
    let view = |state, remedy| Some(View { remedy, ..View::new(state, (1, 1), None) });
    for (primary, steps) in
        [(PrimaryAlone, &[Netcopy, Connect][..]), (Standalone, &[SetPrimaryAlone, Netcopy, Connect][..])]
    {
        let advice = advise([view(SecondaryAlone, Remedy::Netcopy), view(primary, Remedy::Connect)], None);
        assert!(advice.steps.iter().all(|step| step.node == 1), "{advice:?}");
        assert_eq!(advice.steps.iter().map(|step| step.command).collect::<Vec<_>>(), steps);
    }
}

/// What used to be advised: the check finds it.
#[test]
fn bad_advice_is_caught() {
    for (state, other, steps, fault) in [
        (PrimaryUncertain, PrimaryAlone, [Step { node: 1, command: Connect }], "refused: 14700"),
        (PrimaryUncertain, PrimaryAlone, [Step { node: 0, command: SetPrimaryAlone }], "a second primary"),
        (PrimaryAlone, SecondaryAlone, [Step { node: 1, command: SetStandalone }], "a second primary"),
        (PrimaryUncertain, SecondaryAlone, [Step { node: 0, command: Netcopy }], "refused: 14704"),
    ] {
        let found = follow(meeting(state, other), &steps, TABLE).expect_err("bad advice passes");
        assert!(found.contains(fault), "{found}");
    }
}

/// What is left out above is shown elsewhere, or names no command that can be given.
#[test]
fn every_text_that_names_a_command_is_known() {
    let elsewhere = [
        // Conditions that the model does not have: the log too short, parted histories (docs/divergence.md, rewind tests).
        14524, 14525, 14528, 14708, 10080, 10081, 30787,
        // Not returned.
        14541, // Not about the state of the pair.
        10049, 14537, 14539, 14550, 14552, 14702, 14703, 14523, 14529, 14543, 14544, 14545, 14546, 14712,
        10019, 10089, 25218,
    ];
    for (number, name, _, text) in codes::TABLE {
        if text.contains("'hsb ") {
            let tried = REFUSALS.iter().any(|row| row.0.number() == *number);
            assert!(tried || elsewhere.contains(number), "{number} {name}: {text}");
        }
    }
}
