//! Which steps are possible in a situation, and running to rest.

use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::Admission;
use hotstandby::hsb::event::Command;
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::table::Transition;

use crate::dials::Stage;
use crate::network::{Action, Network};

pub const COMMANDS: [Command; 8] = [
    Command::Connect,
    Command::Disconnect,
    Command::SetPrimaryAlone,
    Command::SetSecondaryAlone,
    Command::SetStandalone,
    Command::SwitchPrimary,
    Command::SwitchSecondary,
    Command::Netcopy,
];

impl Network {
    /// What happens by itself, sooner or later.
    pub fn internal(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            if node.durable < node.log.len() || node.unapplied {
                actions.push(Action::Disk(at));
            }
            if node.draining.is_some() {
                actions.push(Action::Drained(at));
            }
            if node.checking.is_some() {
                actions.push(Action::Checked(at));
            }
            if node.catchup.is_some_and(|catchup| catchup.begun && !catchup.end_reported) {
                actions.push(Action::CatchUp(at));
            }
            for (place, link) in self.links.iter().enumerate() {
                if link.ends[at] && node.heart.link() == Some(link.id) {
                    if link.cut {
                        actions.push(Action::Notice(at, place));
                    } else if !link.to[at].is_empty() {
                        actions.push(Action::Deliver(at, place));
                    }
                }
            }
        }
        for (place, dial) in self.dials.iter().enumerate() {
            match &dial.stage {
                Stage::Calling if self.nodes[1 - dial.from].up => actions.push(Action::Dial(place)),
                Stage::Calling => actions.push(Action::FailDial(place)),
                Stage::Answered(_) => actions.push(Action::Dial(place)),
                Stage::Waiting(_) => {}
            }
        }
        actions
    }

    /// Time-outs, and the impatience of writers.
    pub fn impatience(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            if node.timer.is_some() {
                actions.push(Action::TimeOut(at));
            }
            if node.in_hand.is_some_and(|batch| batch.held) {
                actions.push(Action::Withdraw(at));
            }
        }
        actions
    }

    /// Faults.
    pub fn disturbances(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (place, link) in self.links.iter().enumerate() {
            if !link.cut && link.ends == [true, true] {
                actions.push(Action::Cut(place));
            }
        }
        for (place, dial) in self.dials.iter().enumerate() {
            if !matches!(dial.stage, Stage::Answered(_)) && self.nodes[1 - dial.from].up {
                actions.push(Action::FailDial(place));
            }
        }
        for node in [0, 1] {
            if self.nodes[node].up {
                actions.push(Action::Crash { node, power: false });
                actions.push(Action::Crash { node, power: true });
            }
        }
        actions
    }

    pub fn may_command(&self, at: usize) -> bool {
        self.nodes[at].up && self.nodes[at].asked.is_none()
    }

    pub fn may_write(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let lets_in = matches!(node.admission, Admission::Open | Admission::Wait(_));
        node.up && node.in_hand.is_none() && lets_in
    }

    /// Nothing happens any more unless somebody does something or runs out of patience.
    pub fn is_at_rest(&self) -> bool {
        self.internal().is_empty()
    }

    /// Lets everything that is under way come to its end.
    pub fn settle(&mut self, table: &'static [Transition]) {
        for _ in 0..1000 {
            let next = self.internal().first().copied().or_else(|| self.impatience().first().copied());
            let Some(action) = next else { return };
            self.take(action, table);
        }
        panic!("it does not come to rest: {self:#?}");
    }

    /// One step of those that happen by themselves.
    pub fn step(&mut self, table: &'static [Transition]) {
        if let Some(action) = self.internal().first() {
            self.take(*action, table);
        }
    }

    /// Gives a command and waits for its end; the code of what came of it. Connecting is answered when it begins.
    pub fn ask(&mut self, at: usize, command: Command, table: &'static [Transition]) -> u32 {
        self.take(Action::Command(at, command), table);
        self.settle(table);
        let node = &mut self.nodes[at];
        if command == Command::Connect
            && node.answered == Some(Code::SUCCESS)
            && let Some(Refusal { code, .. }) = node.heart.connect_failure()
        {
            node.answered = Some(*code);
        }
        node.answered.map_or(u32::MAX, |code| code.number())
    }
}
