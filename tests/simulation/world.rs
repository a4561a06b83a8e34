//! The world: two nodes, their network, their disks, their clients and an operator, on one thread and in virtual time.
//!
//! One loop: let the actors of both nodes run until they wait, carry out what they want, then do what is due next. All
//! that is left to chance comes from one seed, in one order, so a seed is a run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::Pin;
use std::task::{Context, Poll};

use hotstandby::actors::catchup::CatchupStep;
use hotstandby::actors::threads::apply::ApplyStep;
use hotstandby::actors::threads::log::LogStep;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::event::Decision;
use hotstandby::hsb::state::State;
use tokio::time::Sleep;

use crate::clients::Client;
use crate::clock::Clock;
use crate::common::Random;
use crate::copies::Copy;
use crate::coverage::Coverage;
use crate::dials::Dials;
use crate::network::Network;
use crate::node::{Node, Wish};
use crate::operator::Operator;
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::trace::Trace;

/// What happens at a time. What belongs to a process that has ended since is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Log(usize, u32),
    SyncLog(usize, u32),
    Apply(usize, u32),
    Catchup(usize, u32),
    Conclude(usize, u32),
    Arrive(usize, u32, usize),
    DialTimeout(usize, u32, usize),
    Client(usize),
    Patience(usize, i64),
    Operator,
    Fault,
    Mend,
    Resume(usize, u32),
    Restart(usize),
    Read(usize),
    Copy,
    Heal,
    Deadline,
}

pub struct World {
    pub clock: Clock,
    pub random: Random,
    pub plan: Plan,
    pub network: Network,
    pub nodes: [Node; 2],
    pub clients: Vec<Client>,
    pub operator: Operator,
    pub oracle: Oracle,
    pub coverage: Coverage,
    pub trace: Trace,
    pub healing: bool,
    pub finished: bool,
    /// Longest delay of a disk.
    pub disk_ms: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    pub dials: Dials,
    pub copies: Vec<Copy>,
    decisions: [Option<Decision>; 2],
    /// The state in which the last decision was made.
    pub decided_in: [Option<State>; 2],
    /// Thread bodies that have an event of theirs under way.
    busy: [[bool; 4]; 2],
    sleep: Pin<Box<Sleep>>,
}

const LOG: usize = 0;
const APPLY: usize = 1;
const CATCHUP: usize = 2;
const SYNC: usize = 3;

impl World {
    pub fn new(clock: Clock, mut random: Random, plan: Plan, nodes: [Node; 2], trace: Trace) -> World {
        let network = Network::new(clock, random.fork());
        World {
            clock,
            plan,
            network,
            nodes,
            clients: Vec::new(),
            operator: Operator::default(),
            oracle: Oracle::default(),
            coverage: Coverage::default(),
            trace,
            healing: false,
            finished: false,
            disk_ms: 3,
            events: BinaryHeap::new(),
            scheduled: 0,
            dials: Dials::default(),
            copies: Vec::new(),
            decisions: [None, None],
            decided_in: [None, None],
            busy: [[false; 4]; 2],
            sleep: Box::pin(tokio::time::sleep_until(clock.at_ms(0))),
            random,
        }
    }

    pub fn now(&self) -> u64 {
        self.clock.now_ms()
    }

    pub fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let now = self.now();
        self.trace.add(now, what);
    }

    pub fn after(&mut self, milliseconds: u64, event: Event) {
        self.scheduled += 1;
        let at = self.now() + milliseconds;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    /// Between `from` and `to` milliseconds from now.
    pub fn between(&mut self, from: u64, to: u64, event: Event) {
        let delay = from + self.random.below(to - from + 1);
        self.after(delay, event);
    }

    pub fn incarnation(&self, node: usize) -> u32 {
        self.nodes[node].incarnation
    }

    /// Runs everything that is due; pending until the next thing is.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        loop {
            for node in 0..2 {
                if self.nodes[node].is_responsive()
                    && let Some(running) = &mut self.nodes[node].running
                {
                    // Ready only when no task is left, which is never.
                    let _ = Pin::new(&mut running.local).poll(context);
                }
            }
            if let Err(violation) = self.absorb() {
                return Poll::Ready(Err(violation));
            }
            if self.finished {
                return Poll::Ready(Ok(()));
            }
            let now = self.now();
            if self.network.deliver(now) {
                continue;
            }
            if self.events.peek().is_some_and(|Reverse((at, _, _))| *at <= now) {
                if let Some(Reverse((_, _, event))) = self.events.pop()
                    && let Err(violation) = self.happen(event)
                {
                    return Poll::Ready(Err(violation));
                }
                continue;
            }
            let event = self.events.peek().map(|Reverse((at, _, _))| *at);
            let Some(due) = event.into_iter().chain(self.network.next_due()).min() else {
                return Poll::Ready(Err("nothing will ever happen again".into()));
            };
            let due = self.clock.at_ms(due);
            self.sleep.as_mut().reset(due);
            if self.sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Carries out what the actors want, and sees to it that queued work is done some time.
    fn absorb(&mut self) -> Result<(), String> {
        for node in 0..2 {
            if self.nodes[node].running.as_ref().is_some_and(|running| running.life.is_over()) {
                self.note(format_args!("node {node} dies at an effect"));
                self.kill(node, false)?;
            }
            let Some(running) = &self.nodes[node].running else { continue };
            let wishes = std::mem::take(&mut running.desk.borrow_mut().wishes);
            for (state, wish) in wishes {
                self.grant(node, state, wish)?;
            }
            self.note_decided(node);
            self.employ(node);
        }
        self.answer_dials();
        self.serve_clients()
    }

    /// What a node calls decided, and what it will call so after a crash: alone, that is all its log.
    pub fn note_decided(&mut self, node: usize) {
        let Some(view) = self.nodes[node].view() else { return };
        let alone = matches!(view.state, State::PrimaryAlone | State::Standalone);
        let position = if alone { self.nodes[node].written() } else { view.hello.position.progress() };
        self.oracle.decided = self.oracle.decided.max(position);
    }

    /// Schedules a step for every thread body that has something to do.
    fn employ(&mut self, node: usize) {
        let Some(running) = &self.nodes[node].running else { return };
        let incarnation = self.nodes[node].incarnation;
        let wanted = [
            (!running.log_jobs.is_empty(), LOG, Event::Log(node, incarnation)),
            (!running.apply_jobs.is_empty(), APPLY, Event::Apply(node, incarnation)),
            (!running.catchups.borrow().is_empty(), CATCHUP, Event::Catchup(node, incarnation)),
        ];
        for (has_work, place, event) in wanted {
            if has_work && !std::mem::replace(&mut self.busy[node][place], true) {
                let longest = if place == CATCHUP { 1 } else { self.disk_ms };
                self.between(0, longest, event);
            }
        }
    }

    /// `state`: the node's when it wished.
    fn grant(&mut self, node: usize, state: Option<State>, wish: Wish) -> Result<(), String> {
        self.note(format_args!("node {node} wants {wish:?}"));
        match wish {
            Wish::Entered(from, to, reason) => {
                self.coverage.edge(from, to, reason);
                self.check_states()?;
            }
            Wish::Decide(decision) => {
                self.decisions[node] = Some(decision);
                self.decided_in[node] = state;
                let incarnation = self.incarnation(node);
                self.between(0, 2, Event::Conclude(node, incarnation));
            }
            Wish::Dial(request, purpose, hello) => {
                self.dial(node, request, purpose, hello);
            }
            Wish::SendCopy(hello) => self.begin_copy(node, hello),
            Wish::CloseSessions => {}
        }
        Ok(())
    }

    /// Never two nodes that are PRIMARY ACTIVE.
    fn check_states(&self) -> Result<(), String> {
        let active = |node: &Node| node.state() == Some(State::PrimaryActive);
        if active(&self.nodes[0]) && active(&self.nodes[1]) {
            return Err("both nodes are PRIMARY ACTIVE".into());
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Log(node, incarnation)
            | Event::SyncLog(node, incarnation)
            | Event::Apply(node, incarnation)
            | Event::Catchup(node, incarnation)
            | Event::Conclude(node, incarnation)
                if incarnation == self.incarnation(node) && self.nodes[node].running.is_some() =>
            {
                if !self.nodes[node].is_responsive() {
                    self.after(5, event);
                    return Ok(());
                }
                self.work(event, node)
            }
            Event::Arrive(node, incarnation, number) if incarnation == self.incarnation(node) => {
                self.arrive(number);
                Ok(())
            }
            Event::DialTimeout(_, _, number) => {
                self.end_dial(number, Err((Code::COMMUNICATION_ERROR, "(time-out)".into())));
                Ok(())
            }
            Event::Client(client) => self.client_acts(client),
            Event::Patience(client, transaction) => {
                self.patience_ends(client, transaction);
                Ok(())
            }
            Event::Operator => self.operate(),
            Event::Fault => self.inject(),
            Event::Mend => {
                self.mend();
                Ok(())
            }
            Event::Resume(node, incarnation) => {
                if incarnation == self.incarnation(node)
                    && let Some(running) = &mut self.nodes[node].running
                {
                    running.paused = false;
                    self.note(format_args!("node {node} goes on"));
                }
                Ok(())
            }
            Event::Restart(node) => self.restart(node),
            Event::Read(node) => {
                self.read(node)?;
                self.between(5, 60, Event::Read(node));
                Ok(())
            }
            Event::Copy => self.copy(),
            Event::Heal => {
                self.heal();
                Ok(())
            }
            Event::Deadline => Err(self.not_healed()),
            _ => Ok(()),
        }
    }

    fn work(&mut self, event: Event, node: usize) -> Result<(), String> {
        match event {
            Event::Log(..) => self.step_log(node),
            Event::SyncLog(..) => {
                self.busy[node][SYNC] = false;
                if let Some(running) = &mut self.nodes[node].running {
                    running
                        .log_thread
                        .sync()
                        .map_err(|error| format!("the log cannot be synced: {error}"))?;
                }
                Ok(())
            }
            Event::Apply(..) => {
                self.step_apply(node);
                Ok(())
            }
            Event::Catchup(..) => {
                self.step_catchup(node);
                Ok(())
            }
            _ => self.conclude(node),
        }
    }

    fn step_log(&mut self, node: usize) -> Result<(), String> {
        self.busy[node][LOG] = false;
        let incarnation = self.incarnation(node);
        let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
        let Ok(first) = running.log_jobs.try_recv() else { return Ok(()) };
        let step = running.log_thread.step(first, &running.log_jobs);
        let written = self.nodes[node].written();
        self.note(format_args!("node {node} logs up to {written:?}: {step:?}"));
        match step {
            Ok(LogStep::Unsynced) if !std::mem::replace(&mut self.busy[node][SYNC], true) => {
                let delay = self.plan.relaxed_max_delay_ms;
                self.after(delay, Event::SyncLog(node, incarnation));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the log cannot be written: {error}")),
        }
    }

    fn step_apply(&mut self, node: usize) {
        self.busy[node][APPLY] = false;
        let incarnation = self.incarnation(node);
        let Some(running) = &mut self.nodes[node].running else { return };
        if running.undecided.is_some() {
            // It would wait for SQLite's write lock, as its thread does.
            self.busy[node][APPLY] = true;
            return self.after(5, Event::Apply(node, incarnation));
        }
        let step = running.apply_thread.step(&running.apply_jobs);
        running.apply_holds_lock = matches!(step, ApplyStep::WaitsForLog(_) | ApplyStep::WaitsForRoom);
        self.note(format_args!("node {node} applies: {step:?}"));
        match step {
            ApplyStep::Worked => {
                self.busy[node][APPLY] = true;
                self.between(0, 1, Event::Apply(node, incarnation));
            }
            ApplyStep::WaitsForLog(_) | ApplyStep::WaitsForRoom => {
                self.busy[node][APPLY] = true;
                self.after(2, Event::Apply(node, incarnation));
            }
            ApplyStep::NoJob | ApplyStep::Ended => {}
        }
    }

    fn step_catchup(&mut self, node: usize) {
        self.busy[node][CATCHUP] = false;
        let Some(running) = &mut self.nodes[node].running else { return };
        let mut catchups = std::mem::take(&mut *running.catchups.borrow_mut());
        let mut worked = false;
        catchups.retain_mut(|catchup| {
            let step = catchup.step();
            worked |= step == CatchupStep::Worked;
            step != CatchupStep::Ended
        });
        let is_left = !catchups.is_empty();
        running.catchups.borrow_mut().append(&mut catchups);
        if is_left {
            self.busy[node][CATCHUP] = true;
            let incarnation = self.incarnation(node);
            self.after(if worked { 1 } else { 10 }, Event::Catchup(node, incarnation));
        }
    }

    fn conclude(&mut self, node: usize) -> Result<(), String> {
        let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
        let Some(undecided) = running.undecided.take() else {
            return Err(format!("node {node} has decided a batch that nobody has made"));
        };
        let Some(decision) = self.decisions[node].take() else {
            running.undecided = Some(undecided);
            return Ok(());
        };
        running.writer.conclude_undecided(undecided, decision);
        self.serve_clients()
    }

    /// Lets a reader look at a node.
    pub fn read(&mut self, node: usize) -> Result<(), String> {
        let Some(reader) = self.nodes[node].running.as_ref().and_then(|running| running.reader.as_ref())
        else {
            return Ok(());
        };
        let before = self.oracle.seen[node].len();
        self.oracle.read(node, reader)?;
        self.oracle.on_disk[node] = self.oracle.on_disk[node].max(self.nodes[node].durable().log);
        let now = self.oracle.seen[node].len();
        if now != before {
            self.note(format_args!("node {node} shows {now}"));
        }
        Ok(())
    }

    pub fn forget_process(&mut self, node: usize) {
        self.decisions[node] = None;
        self.busy[node] = [false; 4];
        self.dials.forget(node);
    }

    pub fn is_quiet(&self, node: usize) -> bool {
        self.nodes[node].running.as_ref().is_some_and(|running| {
            running.undecided.is_none() && running.log_jobs.is_empty() && running.apply_jobs.is_empty()
        })
    }
}
