//! The product's watchdog in the operator's place: its decisions (`hotstandby::watchdog::decision`) are its own; asking,
//! waiting and time are simulated as `src/watchdog/program.rs` and `observer.rs` do them.
//!
//! Answers come from the nodes as they are at that moment, late ones count as none, and the watchdog can be cut off from a
//! node that lives. While it does nothing, a person connects the pair again and copies, and promotes nobody.

use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::hsb::advice::{Step, View};
use hotstandby::hsb::effect::ConnectStatus;
use hotstandby::services::context::Answer;
use hotstandby::watchdog::decision::{Finding, Mode, Policy, Reply, Report, Sight, Watchdog, known};
use hotstandby::watchdog::pace::Pace;

use crate::world::{Event, World};

/// Its patience with an answer.
const ANSWER_MS: u64 = 1000;

/// An order that was given.
struct Given {
    finding: Finding,
    step: Step,
    incarnation: u32,
    answer: Receiver<Answer>,
}

/// The watchdog's program.
pub struct Guard {
    decider: Watchdog,
    pace: Pace,
    round: u64,
    seen: [Option<(u64, Sight)>; 2],
    /// The round and the time in which each node was asked, while it has not answered.
    asked: [Option<(u64, u64)>; 2],
    given: Option<Given>,
    /// Until then it cannot reach the node.
    pub blind_until: [u64; 2],
}

impl Default for Guard {
    fn default() -> Guard {
        let policy = Policy { auto_switch: true, dual_secondary_auto_switch: true };
        Guard {
            decider: Watchdog::new(policy),
            pace: Pace::default(),
            round: 0,
            seen: [None, None],
            asked: [None, None],
            given: None,
            blind_until: [0, 0],
        }
    }
}

impl Guard {
    /// Whether a person may do something.
    pub fn is_idle(&self) -> bool {
        self.given.is_none() && self.decider.mode() == Mode::Failure
    }
}

impl World {
    /// A round begins, unless an order is under way.
    pub fn look(&mut self) {
        if self.healing {
            return;
        }
        self.between(60, 250, Event::Look);
        if self.watchdog.given.is_some() {
            return self.hear_of_order();
        }
        self.watchdog.round += 1;
        for node in 0..2 {
            if self.watchdog.asked[node].is_none() {
                let (round, now) = (self.watchdog.round, self.now());
                self.watchdog.asked[node] = Some((round, now));
                self.between(1, 10, Event::Sight(node));
            }
        }
    }

    fn is_blind(&self, node: usize) -> bool {
        self.now() < self.watchdog.blind_until[node]
    }

    /// A node answers, or does not.
    pub fn sight(&mut self, node: usize) {
        let Some((round, asked_at)) = self.watchdog.asked[node] else { return };
        let is_up = self.nodes[node].running.is_some();
        let sight = match self.report(node).filter(|_| !self.is_blind(node)) {
            Some(report) => Sight::Here(report),
            // A dead process refuses at once; anybody else may still answer.
            None if (is_up || self.is_blind(node)) && self.now() < asked_at + ANSWER_MS => {
                return self.after(50, Event::Sight(node));
            }
            _ => Sight::Gone,
        };
        self.watchdog.asked[node] = None;
        self.watchdog.seen[node] = Some((round, sight));
        if !self.healing && self.watchdog.given.is_none() {
            self.decide();
        }
    }

    fn report(&self, node: usize) -> Option<Report> {
        let view = self.nodes[node].view().filter(|_| self.nodes[node].is_responsive())?;
        let running = self.nodes[node].running.as_ref()?;
        let cause = running.desk.borrow().cause;
        Some(Report {
            view: View::new(view.state, view.hello.log_end.progress(), Some(cause)),
            connected: view.connect == ConnectStatus::Connected,
        })
    }

    /// As `Program::decide`.
    fn decide(&mut self) {
        let seen =
            self.watchdog.seen.each_ref().map(|seen| seen.as_ref().map(|(round, sight)| (*round, sight)));
        let Some(sights) = known(seen, self.watchdog.round) else { return };
        let finding = Finding::of(&sights);
        if let Finding::Whole { .. } = finding {
            self.watchdog.pace.begin_anew();
        }
        let now = Duration::from_millis(self.now());
        let wanted = self.watchdog.decider.look(finding);
        if let Some(step) = wanted.filter(|step| self.watchdog.pace.allows(step.node, now)) {
            self.give(finding, step);
        }
    }

    fn give(&mut self, finding: Finding, step: Step) {
        let node = step.node;
        self.note(format_args!("watchdog: {finding:?}, {step:?}"));
        *self.coverage.watchdog.entry(step.command.text()).or_default() += 1;
        let (reply, answer) = bounded(1);
        if let Some(running) = self.nodes[node].running.as_ref().filter(|_| !self.is_blind(node)) {
            running
                .addresses
                .supervisor
                .do_send(SupervisorMessage::Operator { command: step.command, reply });
        }
        let incarnation = self.incarnation(node);
        self.watchdog.given = Some(Given { finding, step, incarnation, answer });
    }

    fn hear_of_order(&mut self) {
        let Some(given) = self.watchdog.given.take() else { return };
        let node = given.step.node;
        let reply = match given.answer.try_recv() {
            _ if given.incarnation != self.incarnation(node) || self.is_blind(node) => Reply::None,
            Ok(rows) => Reply::Code(rows.first().map_or(0, |row| row.0)),
            Err(TryRecvError::Disconnected) => Reply::None,
            Err(TryRecvError::Empty) => {
                self.watchdog.given = Some(given);
                return;
            }
        };
        self.note(format_args!("watchdog: {reply:?}"));
        let now = Duration::from_millis(self.now());
        self.watchdog.pace.answered(node, reply, now);
        if let Some(next) = self.watchdog.decider.done(given.finding, given.step, reply) {
            self.give(given.finding, next);
        }
    }
}
