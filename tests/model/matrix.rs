//! Every state, every command that changes the state, every kind of peer; every event; every ruling: what comes of it.
//!
//! The heart alone, on the network of the model check. The outcome is compared with tests/golden/matrix.md, which is
//! written anew by: UPDATE_GOLDEN=1 cargo test --test model. Read the difference before you commit it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::network::{Action, Network, Trace};
use crate::node::{Node, SETTINGS};
use crate::steps::COMMANDS;
use hotstandby::hsb::event::{Command, Event, Room, Store};
use hotstandby::hsb::phase::Activity;
use hotstandby::hsb::settings::Settings;
use hotstandby::hsb::state::State::{self, *};
use hotstandby::hsb::table::TABLE;

pub const STATES: [State; 7] =
    [Offline, Standalone, PrimaryAlone, PrimaryActive, PrimaryUncertain, SecondaryActive, SecondaryAlone];

type Changes = BTreeSet<(&'static str, &'static str, &'static str)>;

/// What is tried, and what was seen.
#[derive(Default)]
struct Matrix {
    text: String,
    cells: usize,
    taken: Changes,
    rulings: BTreeSet<&'static str>,
}

/// The other node, seen from this one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Peer {
    Unreachable,
    /// In that state, with the batches that it has beyond or instead of this node's.
    There(State, &'static [u8]),
    OtherDatabase(State),
}

/// This node has batches 1 and 2.
pub const MINE: &[u8] = &[1, 2];
const BEHIND: &[u8] = &[1];
pub const AHEAD: &[u8] = &[1, 2, 3];
pub const DIVERGED: &[u8] = &[1, 4];

pub fn peers() -> Vec<Peer> {
    let mut peers = vec![Peer::Unreachable];
    for state in [SecondaryAlone, PrimaryAlone, PrimaryUncertain, Standalone] {
        peers.extend([MINE, BEHIND, AHEAD, DIVERGED].map(|history| Peer::There(state, history)));
        peers.push(Peer::OtherDatabase(state));
    }
    peers.push(Peer::There(Offline, &[]));
    peers
}

fn describe(peer: Peer) -> String {
    let history = |history| match history {
        MINE => "level",
        BEHIND => "behind",
        AHEAD => "ahead",
        DIVERGED => "diverged",
        _ => "empty",
    };
    match peer {
        Peer::Unreachable => "unreachable".into(),
        Peer::There(state, batches) => format!("{state}, {}", history(batches)),
        Peer::OtherDatabase(state) => format!("{state}, other database"),
    }
}

fn settings(auto_primary_alone: bool) -> Settings {
    Settings { auto_primary_alone, ..SETTINGS }
}

/// Node 0 in `state`, the other as wanted.
pub fn arrange(state: State, peer: Peer) -> Network {
    let (there, history, stranger) = match peer {
        Peer::Unreachable => (SecondaryAlone, MINE, false),
        Peer::There(state, history) => (state, history, false),
        Peer::OtherDatabase(state) => (state, MINE, true),
    };
    let mut network = Network::new([state, there], SETTINGS, TABLE);
    network.nodes[0] =
        Node::new(state, SETTINGS, TABLE).with_history(if state == Offline { &[] } else { MINE });
    network.nodes[1] = Node::new(there, SETTINGS, TABLE).with_history(history);
    if stranger {
        network.nodes[1].make_stranger();
    }
    network.nodes[1].up = peer != Peer::Unreachable;
    network.trace = Trace(Some(Vec::new()));
    network
}

/// A working pair; node 0 is the one in `state`.
pub fn connected(state: State, auto_primary_alone: bool) -> Network {
    let mut network = arrange(PrimaryAlone, Peer::There(SecondaryAlone, MINE));
    for node in &mut network.nodes {
        node.heart.handle(Event::SettingsChanged { settings: settings(auto_primary_alone) });
    }
    assert_eq!(network.ask(0, Command::Connect, TABLE), 0);
    if state == SecondaryActive {
        network.nodes.swap(0, 1);
        network.links.iter_mut().for_each(|link| link.to.swap(0, 1));
    }
    assert_eq!(network.nodes[0].heart.state(), state);
    network
}

/// They end an attempt to reach the other node.
const FORCES: [Command; 4] =
    [Command::Disconnect, Command::SetPrimaryAlone, Command::SetSecondaryAlone, Command::SetStandalone];

/// The model check leaves them out: what they write touches neither node.
const DIRECTORY_COPIES: [Command; 2] = [Command::Copy, Command::Backup];

fn words(command: Command) -> &'static str {
    command.text().trim_start_matches("hsb ")
}

/// Which ruling (docs/rulings.md) decides.
fn ruling(state: State, command: Command, peer: State) -> &'static str {
    match (command, state) {
        (Command::SetStandalone, PrimaryActive | SecondaryActive) => "R1",
        (Command::SwitchSecondary, PrimaryAlone | Standalone) => "R2",
        (Command::SwitchPrimary, SecondaryAlone) => "R4",
        (Command::Connect, _) if state.is_primary() && peer.is_primary() => "R5",
        (Command::Connect, SecondaryAlone) if peer == SecondaryAlone => "R6",
        (Command::SetPrimaryAlone, state) if state != Offline => "R8",
        _ => "",
    }
}

impl Matrix {
    fn heading(&mut self, heading: &str, columns: &str) {
        let lines = columns.split('|').map(|_| "---").collect::<Vec<_>>().join("|");
        write!(self.text, "\n## {heading}\n\n|{columns}|\n|{lines}|\n").unwrap();
    }

    /// One line: what was done, what came of it at both nodes.
    fn line(&mut self, ruling: &'static str, what: &str, network: &Network) {
        let [mine, theirs] = &network.nodes;
        let code = mine.answered.map_or(String::new(), |code| code.number().to_string());
        let peer = if theirs.up { theirs.heart.state().name() } else { "–" };
        writeln!(self.text, "| {what} | {code} | {} | {peer} | {ruling} |", mine.heart.state()).unwrap();
        self.cells += 1;
        self.rulings.insert(ruling);
        for (from, to, reason) in network.trace.0.iter().flatten() {
            self.taken.insert((from.name(), to.name(), reason));
        }
    }

    fn commands(&mut self) {
        self.heading("Commands", " state | the peer | command | RC | state after | the peer after | ruling ");
        for state in STATES {
            for (peer, network) in situations(state) {
                for command in COMMANDS.into_iter().chain(DIRECTORY_COPIES) {
                    let mut network = network.clone();
                    let peer_state = network.nodes[1].heart.state();
                    network.ask(0, command, TABLE);
                    let what = format!("{state} | {peer} | {}", words(command));
                    self.line(ruling(state, command, peer_state), &what, &network);
                }
            }
        }
    }
}

fn situations(state: State) -> Vec<(String, Network)> {
    if state.is_active() {
        let whole = connected(state, false);
        let mut cut = whole.clone();
        cut.take(Action::Cut(0), TABLE);
        return vec![("connected".into(), whole), ("gone, not noticed yet".into(), cut)];
    }
    peers().into_iter().map(|peer| (describe(peer), arrange(state, peer))).collect()
}

impl Matrix {
    fn events(&mut self) {
        self.heading("Events", " state | event | RC | state after | the peer after | ruling ");
        for auto in [false, true] {
            let word = if auto { "yes" } else { "no" };
            for state in [PrimaryActive, SecondaryActive] {
                let mut network = connected(state, auto);
                network.take(Action::Cut(0), TABLE);
                network.settle(TABLE);
                self.event(state, &format!("connection lost, AutoPrimaryAlone={word}"), "", &network);
                let mut network = connected(state, auto);
                network.take(Action::Crash { node: 1, power: false }, TABLE);
                network.settle(TABLE);
                self.event(state, &format!("the peer dies, AutoPrimaryAlone={word}"), "", &network);
                let mut network = connected(state, auto);
                network.ask(1, Command::SetPrimaryAlone, TABLE);
                self.event(
                    state,
                    &format!("the peer: set primary alone, AutoPrimaryAlone={word}"),
                    "R8",
                    &network,
                );
                for half in 1..=4 {
                    let mut network = connected(state, auto);
                    network.take(Action::Command(0, switch_of(state)), TABLE);
                    (1..half).for_each(|_| network.step(TABLE));
                    network.take(Action::Cut(0), TABLE);
                    network.settle(TABLE);
                    let what = format!("switch, cut after step {half}, AutoPrimaryAlone={word}");
                    self.event(state, &what, "", &network);
                }
            }
        }
        for state in STATES {
            let peer = if state.is_active() { None } else { Some(Peer::There(SecondaryAlone, MINE)) };
            let new = || peer.map_or_else(|| connected(state, false), |peer| arrange(state, peer));
            for (what, event) in [
                ("MaxLogSize reached", Event::LogSize { bytes: u64::MAX, retained: true }),
                ("a change does not fit", Event::ApplyFailed { detail: String::new() }),
                ("disk full", Event::Room(Room::lacking(Store::Log, ""))),
                ("shutdown", Event::ShuttingDown { request: 77 }),
            ] {
                let mut network = new();
                network.hear(0, event);
                network.settle(TABLE);
                self.event(state, what, "", &network);
            }
        }
        for state in [Offline, SecondaryAlone, PrimaryAlone] {
            for fails in [false, true] {
                let mut network = arrange(state, Peer::There(PrimaryAlone, AHEAD));
                network.take(Action::Command(1, Command::Netcopy), TABLE);
                if fails {
                    network.step(TABLE);
                    network.take(Action::Crash { node: 1, power: false }, TABLE);
                }
                network.settle(TABLE);
                let what = if fails { "a netcopy arrives and breaks off" } else { "a netcopy arrives" };
                self.event(state, what, "", &network);
            }
        }
    }

    fn event(&mut self, state: State, what: &str, ruling: &'static str, network: &Network) {
        self.line(ruling, &format!("{state} | {what}"), network);
    }

    /// R3 and R7: a batch that was sent, and whose outcome nobody has told.
    fn pending(&mut self) {
        self.heading(
            "A batch whose outcome is open",
            " where | then | RC | state after, batch | the peer after, batch | ruling ",
        );
        for (has, where_it_is) in [(false, "only the primary has it"), (true, "the secondary has it too")] {
            for (restart, command) in [false, true].into_iter().flat_map(|restart| {
                [
                    Command::SetPrimaryAlone,
                    Command::SetStandalone,
                    Command::Connect,
                    Command::SetSecondaryAlone,
                ]
                .map(|command| (restart, command))
            }) {
                let mut network = connected(PrimaryActive, false);
                network.record.written = 6;
                network.take(Action::Write(0), TABLE);
                if has {
                    network.take(Action::Deliver(1, 0), TABLE);
                }
                network.take(Action::Cut(0), TABLE);
                network.settle(TABLE);
                if restart {
                    network.take(Action::Crash { node: 0, power: false }, TABLE);
                    network.take(Action::Restart(0), TABLE);
                    // Somebody has to be the primary for connect to lead anywhere.
                    if command == Command::Connect {
                        network.ask(1, Command::SetPrimaryAlone, TABLE);
                    }
                }
                network.ask(0, command, TABLE);
                let batch = |at: usize| {
                    let decided = network.nodes[at].heart.decided().sequence;
                    let logged = network.nodes[at].heart.log_end().sequence;
                    match (decided, logged) {
                        (3, _) => "decided",
                        (_, 3) => "pending",
                        _ => "not there",
                    }
                };
                let [mine, theirs] =
                    [0, 1].map(|at| format!("{}, {}", network.nodes[at].heart.state(), batch(at)));
                let code = network.nodes[0].answered.map_or(0, |code| code.number());
                let (then, ruling) = if restart { ("restart, then ", "R7") } else { ("", "R3") };
                writeln!(
                    self.text,
                    "| {where_it_is} | {then}{} | {code} | {mine} | {theirs} | {ruling} |",
                    words(command)
                )
                .unwrap();
                self.cells += 1;
                self.rulings.insert(ruling);
            }
        }
    }

    /// R9
    fn phases(&mut self) {
        let columns = " state | under way | command | RC | state after | ruling ";
        self.heading("While something is under way", columns);
        for (network, at) in under_way() {
            let node = &network.nodes[at];
            let (state, activity) = (node.heart.state(), node.heart.activity());
            for command in COMMANDS.into_iter().chain(DIRECTORY_COPIES) {
                let mut network = network.clone();
                network.nodes[at].asked = None;
                network.take(Action::Command(at, command), TABLE);
                let is_refused = network.nodes[at].answered.is_some_and(|code| !code.is_success());
                // A server that does not answer is not waited for.
                let forces = !is_refused && FORCES.contains(&command);
                if forces {
                    network.settle(TABLE);
                } else {
                    assert_eq!(network.nodes[at].heart.state(), state, "R9: {activity:?} {command:?}");
                }
                let after = network.nodes[at].heart.state();
                let code = network.nodes[at].answered.map_or(0, |code| code.number());
                let (words, ruling) = (words(command), if forces { "" } else { "R9" });
                writeln!(
                    self.text,
                    "| {state} | {} | {words} | {code} | {after} | {ruling} |",
                    activity.name()
                )
                .unwrap();
                self.cells += 1;
                self.rulings.insert("R9");
            }
        }
    }
}

fn switch_of(state: State) -> Command {
    if state == PrimaryActive { Command::SwitchSecondary } else { Command::SwitchPrimary }
}

/// Each pair of state and activity that a node is in while commands run, once.
fn under_way() -> Vec<(Network, usize)> {
    let mut seen: Vec<(State, Activity)> = Vec::new();
    let mut found = Vec::new();
    let level = Peer::There(SecondaryAlone, MINE);
    let begins = [
        (arrange(PrimaryAlone, Peer::There(SecondaryAlone, BEHIND)), Command::Connect),
        (arrange(PrimaryUncertain, level), Command::Connect),
        (arrange(PrimaryAlone, level), Command::Netcopy),
        (arrange(PrimaryAlone, level), Command::SwitchSecondary),
        (arrange(PrimaryUncertain, level), Command::SwitchSecondary),
        (arrange(SecondaryAlone, level), Command::SwitchPrimary),
        (arrange(SecondaryAlone, level), Command::SetPrimaryAlone),
        (connected(PrimaryActive, false), Command::SwitchSecondary),
        (connected(SecondaryActive, false), Command::SwitchPrimary),
        (connected(SecondaryActive, false), Command::SetPrimaryAlone),
        (connected(SecondaryActive, false), Command::Disconnect),
        (leaving_with_a_batch(), Command::Disconnect),
        (arrange(Standalone, level), Command::Connect),
        (arrange(PrimaryAlone, Peer::There(Offline, &[])), Command::Netcopy),
    ];
    for (mut network, command) in begins {
        network.take(Action::Command(0, command), TABLE);
        loop {
            for at in [0, 1] {
                let heart = &network.nodes[at].heart;
                let now = (heart.state(), heart.activity());
                if now.1 != Activity::Idle && !seen.contains(&now) {
                    seen.push(now);
                    found.push((network.clone(), at));
                }
            }
            if network.is_at_rest() {
                break;
            }
            network.step(TABLE);
        }
    }
    found
}

/// A primary waits for its batch before it leaves.
fn leaving_with_a_batch() -> Network {
    let mut network = connected(PrimaryActive, false);
    network.record.written = 6;
    network.take(Action::Write(0), TABLE);
    network
}

const INTRODUCTION: &str = "\
# What comes of every command and event

Written by `tests/model/matrix.rs` (`UPDATE_GOLDEN=1 cargo test --test model`). RC 0 is success; the codes are in
`errorcode <n>`. *level*, *behind*, *ahead*, *diverged*: the peer's database seen from this one. `hsb rewind` is left
out: it changes no state.
";

#[test]
fn every_command_and_event_has_the_outcome_that_is_written_down() {
    let mut matrix = Matrix { text: INTRODUCTION.into(), ..Matrix::default() };
    matrix.commands();
    matrix.events();
    matrix.pending();
    matrix.phases();
    println!("{} cells", matrix.cells);

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/matrix.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &matrix.text).unwrap();
    }
    let missing: Vec<_> = TABLE
        .iter()
        .filter(|row| !matrix.taken.contains(&(row.from.name(), row.to.name(), row.reason)))
        .collect();
    assert!(missing.is_empty(), "rows of the table that nothing takes: {missing:#?}");
    for number in 1..=9 {
        let name = format!("R{number}");
        assert!(matrix.rulings.contains(name.as_str()), "nothing shows {name}");
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    for (at, (now, before)) in matrix.text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(now, before, "line {} of tests/golden/matrix.md", at + 1);
    }
    assert_eq!(matrix.text.lines().count(), golden.lines().count());
}
