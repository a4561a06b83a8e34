//! The operator, or watchdog: repairs what broke, changes things now and then, and never promotes a node that lacks what
//! was acknowledged.

use crossbeam_channel::{Receiver, bounded};
use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::ConnectStatus;
use hotstandby::hsb::event::Command;
use hotstandby::hsb::state::State;
use hotstandby::services::context::Answer;

use crate::crashes::{Damage, End};
use crate::node::View;
use crate::world::{Event, World};

/// Longest wait for an answer.
const ANSWER_MS: u64 = 30_000;

#[derive(Default)]
pub struct Operator {
    /// Refused to connect: only a copy helps.
    copy_needed: bool,
    /// To be started as a backup server: what it has is given up.
    pub replace: Option<usize>,
    /// Its log goes on behind a database that does not fit it (10080): it is not to be promoted.
    pub misfit: Option<usize>,
    /// The last end of each node since they were connected was a power cut.
    pub was_cut: [bool; 2],
    asked: Vec<(usize, u32, u64, Command, Receiver<Answer>)>,
}

impl World {
    pub fn operate(&mut self) -> Result<(), String> {
        self.between(if self.healing { 100 } else { 200 }, 700, Event::Operator);
        self.hear_answers()?;
        if self.is_watched() && !self.watchdog.is_idle() {
            return Ok(());
        }
        match [0, 1].map(|node| self.nodes[node].view().filter(|_| self.nodes[node].is_responsive())) {
            [Some(first), Some(second)] => self.look_after([first, second])?,
            [Some(alone), None] => self.look_after_one(0, alone),
            [None, Some(alone)] => self.look_after_one(1, alone),
            [None, None] => {}
        }
        Ok(())
    }

    /// The watchdog promotes, and nobody else.
    fn is_watched(&self) -> bool {
        self.plan.watchdog && !self.healing
    }

    fn hear_answers(&mut self) -> Result<(), String> {
        for node in 0..2 {
            let running = self.nodes[node].running.as_ref();
            let codes = running.map(|running| std::mem::take(&mut running.desk.borrow_mut().not_connected));
            for code in codes.unwrap_or_default() {
                self.note(format_args!("node {node} has not connected: {code}"));
                self.look_at_refusal(code);
            }
        }
        let asked = std::mem::take(&mut self.operator.asked);
        for (node, incarnation, at, command, answer) in asked {
            if let Ok(rows) = answer.try_recv() {
                self.note(format_args!("node {node} answers {command:?}: {rows:?}"));
                let code = rows.first().map_or(0, |row| row.0);
                let promotes = !matches!(command, Command::Connect | Command::Netcopy);
                if code == Code::APPLY_FAILED.number() && promotes {
                    self.operator.misfit = Some(node);
                }
                self.look_at_refusal(code);
            } else if incarnation == self.incarnation(node) && self.nodes[node].running.is_some() {
                if self.now() > at + ANSWER_MS {
                    return Err(format!("node {node} has not answered {command:?} for {ANSWER_MS} ms"));
                }
                self.operator.asked.push((node, incarnation, at, command, answer));
            }
        }
        Ok(())
    }

    /// Whether only a copy joins the two.
    fn look_at_refusal(&mut self, code: u32) {
        if code == Code::LOG_TOO_SHORT.number() && std::mem::take(&mut self.operator.was_cut) == [true, true]
        {
            self.coverage.parted_by_power_cuts += 1;
        }
        let parted = [Code::NOT_SYNCHRONIZED, Code::LOG_TOO_SHORT, Code::APPLY_FAILED, Code::LOG_BAD_RECORD];
        self.operator.copy_needed |= parted.iter().any(|parted| parted.number() == code);
    }

    fn order(&mut self, node: usize, command: Command) {
        let (reply, answer) = bounded(1);
        let Some(running) = &self.nodes[node].running else { return };
        running.addresses.supervisor.do_send(SupervisorMessage::Operator { command, reply });
        self.note(format_args!("node {node} is told to {command:?}"));
        let (incarnation, now) = (self.incarnation(node), self.now());
        self.operator.asked.push((node, incarnation, now, command, answer));
    }

    fn any(&mut self, commands: &[Command]) -> Command {
        commands[self.random.below(commands.len() as u64) as usize]
    }

    /// Whether everything acknowledged is in the node's log, and nothing waits for room at the other that is not.
    pub fn has_all(&self, node: usize) -> bool {
        let (written, other) = (self.nodes[node].written(), 1 - node);
        // Its disk is full, or was a moment ago.
        let is_held = self.nodes[other].running.is_some() && self.network.held_at[other] > written;
        self.plan.rough || written >= self.oracle.acknowledged_up_to() && !is_held && !self.is_elsewhere(node)
    }

    /// Both have promoted themselves from one position and written: `hsb logpos` is equal, and the histories are not.
    fn is_elsewhere(&self, node: usize) -> bool {
        let end = self.nodes[node].log_end();
        end.progress() == self.oracle.decided && end.chain != self.oracle.decided_chain
    }

    /// Whether everything that was ever decided is in the node's log, acknowledged or not: for promoting it while the
    /// other node cannot be asked.
    fn has_all_decided(&self, node: usize) -> bool {
        self.plan.rough || self.has_all(node) && self.nodes[node].written() >= self.oracle.decided
    }

    fn look_after(&mut self, views: [View; 2]) -> Result<(), String> {
        use Command::*;
        let states = views.map(|view| view.state);
        if states.contains(&State::PrimaryActive) && states.contains(&State::SecondaryActive) {
            self.operator.was_cut = [false, false];
        }
        let which = |wanted: fn(State) -> bool| states.iter().position(|state| wanted(*state));
        let outdated = self.operator.replace.filter(|node| states[*node] != State::Offline);
        if let Some(node) = outdated.filter(|node| self.has_all(1 - node)) {
            return self.kill(node, End::Kill);
        }
        if let Some(offline) = which(|state| state == State::Offline) {
            let command = match states[1 - offline] {
                State::PrimaryAlone => Netcopy,
                _ => SetPrimaryAlone,
            };
            self.order(1 - offline, command);
            return Ok(());
        }
        let primaries = states.iter().filter(|state| state.is_primary()).count();
        match primaries {
            2 => self.settle_two(views),
            0 if self.is_watched() => {}
            0 => {
                // The one that has more leads.
                let ahead = self.nodes[1].written() > self.nodes[0].written() || self.is_elsewhere(0);
                let ahead = usize::from(ahead);
                let ahead = self.operator.misfit.map_or(ahead, |misfit| 1 - misfit);
                if states.iter().all(|state| *state == State::SecondaryAlone) && self.has_all(ahead) {
                    let command = self.any(&[SetPrimaryAlone, SetPrimaryAlone, SwitchPrimary, SetStandalone]);
                    self.order(ahead, command);
                }
            }
            _ => {
                if let Some(primary) = which(State::is_primary) {
                    self.look_after_pair(primary, states);
                }
            }
        }
        Ok(())
    }

    /// One primary, one secondary.
    fn look_after_pair(&mut self, primary: usize, states: [State; 2]) {
        use Command::*;
        let rarely = !self.healing && !self.is_watched() && self.random.below(6) == 0;
        let either = self.random.below(2) as usize;
        match (states[primary], states[1 - primary]) {
            (State::PrimaryActive, State::SecondaryActive) if rarely => {
                let orders = [
                    (primary, SwitchSecondary),
                    (1 - primary, SwitchPrimary),
                    (either, Disconnect),
                    (primary, SetStandalone),
                    (primary, SetPrimaryAlone),
                    (1 - primary, SetPrimaryAlone),
                ];
                let (node, command) = orders[self.random.below(6) as usize];
                if node == primary || command != SetPrimaryAlone {
                    self.order(node, command);
                } else {
                    self.fail_over(primary);
                }
                if matches!(command, SwitchPrimary | SwitchSecondary) && self.random.below(2) == 0 {
                    // In the middle of it, with luck.
                    self.between(1, 25, Event::Reset);
                }
            }
            (State::PrimaryActive, State::SecondaryAlone) => self.fail_over(primary),
            (State::Standalone, _) => {
                self.order(primary, if rarely { SetSecondaryAlone } else { SetPrimaryAlone })
            }
            // The secondary lacks what is decided: a history that parts here is found out later.
            (State::PrimaryUncertain, State::SecondaryAlone)
                if self.plan.rough
                    && !self.healing
                    && self.nodes[primary].decided() > self.nodes[1 - primary].written() =>
            {
                self.fail_over(primary);
            }
            (State::PrimaryUncertain, State::SecondaryAlone)
                if !self.is_watched() && self.random.below(3) == 0 =>
            {
                if self.random.below(2) == 0 {
                    return self.fail_over(primary);
                }
                let all = [SetSecondaryAlone, SwitchSecondary, SetPrimaryAlone, SetStandalone];
                // The secondary may have been the primary since, and have gone down as one.
                let safe = if self.has_all_decided(primary) { &all[..] } else { &all[..2] };
                let command = self.any(safe);
                self.order(primary, command);
            }
            (State::PrimaryAlone, State::SecondaryAlone) if self.operator.copy_needed => {
                self.operator.copy_needed = false;
                self.order(primary, Netcopy);
            }
            (State::PrimaryUncertain, State::SecondaryAlone) if !self.has_all_decided(primary) => {
                self.order(primary, SetSecondaryAlone);
            }
            (State::PrimaryUncertain, State::SecondaryAlone) if self.operator.copy_needed => {
                self.order(primary, SetPrimaryAlone);
            }
            (State::PrimaryAlone | State::PrimaryUncertain, State::SecondaryAlone) => {
                if rarely && self.random.below(3) == 0 {
                    let command = self.any(&[SetStandalone, SetSecondaryAlone, SwitchSecondary]);
                    self.order(primary, command);
                } else {
                    self.order(either, Connect);
                }
            }
            _ => {}
        }
    }

    /// The secondary takes over from a primary that is cut off and cannot acknowledge anything.
    fn fail_over(&mut self, primary: usize) {
        let secondary = 1 - primary;
        let stands_still = !self.is_watched() && !self.plan.auto_primary_alone || self.plan.rough;
        // One that has not answered its last order may yet go on alone.
        let obeys = self.operator.asked.iter().any(|asked| asked.0 == primary);
        if stands_still
            && (!obeys || self.plan.rough)
            && !self.healing
            && self.has_all_decided(secondary)
            && self.random.below(2) == 0
        {
            self.order(secondary, Command::SetPrimaryAlone);
        }
    }

    /// The older of two primaries has to follow.
    fn settle_two(&mut self, views: [View; 2]) {
        let progress = views.map(|view| view.hello.position.progress());
        let older = usize::from(progress[1] < progress[0]);
        let uncertain = views.iter().position(|view| view.state == State::PrimaryUncertain);
        let older = uncertain.unwrap_or(older);
        match views[older].state {
            State::PrimaryActive => {}
            // Have both written? Each of the three states is to be in when that is found out.
            _ if self.plan.rough && !self.healing && self.random.below(3) > 0 => {
                let node = self.random.below(2) as usize;
                let is_alone = views[node].state == State::PrimaryAlone;
                let standalone = is_alone && self.random.below(2) == 0;
                self.order(node, if standalone { Command::SetStandalone } else { Command::Connect });
            }
            _ => {
                let command = self.any(&[Command::SetSecondaryAlone, Command::Connect]);
                self.order(older, command);
            }
        }
    }

    fn look_after_one(&mut self, node: usize, view: View) {
        let other_is_down = self.nodes[1 - node].running.is_none() || self.plan.rough;
        if self.is_watched() || !other_is_down || self.random.below(3) > 0 {
            return;
        }
        match view.state {
            State::SecondaryAlone | State::SecondaryActive if self.has_all_decided(node) => {
                self.order(node, Command::SetPrimaryAlone);
            }
            State::PrimaryUncertain if self.has_all_decided(node) => {
                let command = self.any(&[Command::SetPrimaryAlone, Command::SetStandalone]);
                self.order(node, command);
            }
            _ => {}
        }
    }

    /// Connected, level, nobody waits.
    pub fn is_healed(&self) -> bool {
        let views = [self.nodes[0].view(), self.nodes[1].view()];
        let [Some(first), Some(second)] = views else { return false };
        let states = [first.state, second.state];
        states.contains(&State::PrimaryActive)
            && states.contains(&State::SecondaryActive)
            && first.connect == ConnectStatus::Connected
            && second.connect == ConnectStatus::Connected
            && first.hello.position == second.hello.position
            && first.hello.log_end == second.hello.log_end
            && self.waiting_clients() == 0
            && self.is_quiet(0)
            && self.is_quiet(1)
            && !self.damage.contains(&Some(Damage::Database))
    }
}
