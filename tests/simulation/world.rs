//! The world: two nodes, their network, their disks, their clients and an operator, on one thread and in virtual time.
//!
//! One loop: let the actors of both nodes run until they wait, carry out what they want, then do what is due next. All
//! that is left to chance comes from one seed, in one order, so a seed is a run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::Pin;
use std::task::{Context, Poll};

use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::Decision;
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::state::State;
use tokio::time::Sleep;

use crate::causes::GoingDown;
use crate::clients::Client;
use crate::clock::Clock;
use crate::common::Random;
use crate::copies::Copy;
use crate::coverage::{Coverage, Fault};
use crate::crashes::{Damage, End};
use crate::dials::Dials;
use crate::network::Network;
use crate::node::{Node, Wish};
use crate::operator::Operator;
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::watchdog::Guard;

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
    Interfere,
    GoDown(usize, u32),
    Operator,
    Fault,
    Mend,
    Resume(usize, u32),
    Restart(usize),
    Read(usize),
    LogRoom(usize, u32),
    Room(usize),
    HalfOpen(usize),
    Reset,
    Checkpoint,
    Look,
    Sight(usize),
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
    pub decisions: [Option<Decision>; 2],
    /// The state in which the last decision was made.
    pub decided_in: [Option<State>; 2],
    /// Batches that were decided since the node became PRIMARY UNCERTAIN.
    decided_uncertain: [u32; 2],
    pub going_down: [Option<GoingDown>; 2],
    /// Thread bodies that have an event of theirs under way.
    pub busy: [[bool; 5]; 2],
    pub watchdog: Guard,
    /// What no crash does and no netcopy has made good.
    pub damage: [Option<Damage>; 2],
    sleep: Pin<Box<Sleep>>,
}

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
            decided_uncertain: [0, 0],
            going_down: [None, None],
            busy: [[false; 5]; 2],
            watchdog: Guard::default(),
            damage: [None, None],
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
                self.kill(node, End::Kill)?;
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
        let position = if alone { self.nodes[node].log_end() } else { view.hello.position };
        if position.progress() > self.oracle.decided {
            (self.oracle.decided, self.oracle.decided_chain) = (position.progress(), position.chain);
        }
    }

    /// `state`: the node's when it wished.
    fn grant(&mut self, node: usize, state: Option<State>, wish: Wish) -> Result<(), String> {
        self.note(format_args!("node {node} wants {wish:?}"));
        match wish {
            Wish::Entered(change) => {
                self.coverage.edge(change);
                self.decided_uncertain[node] = 0;
                self.check_states()?;
            }
            Wish::Decide(decision) => {
                self.decisions[node] = Some(decision);
                self.decided_in[node] = state;
                self.check_uncertain(node, state, decision)?;
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

    /// Never two nodes that are PRIMARY ACTIVE, and under the watchdog never two that accept writes.
    fn check_states(&self) -> Result<(), String> {
        let active = |node: &Node| node.state() == Some(State::PrimaryActive);
        if active(&self.nodes[0]) && active(&self.nodes[1]) {
            return Err("both nodes are PRIMARY ACTIVE".into());
        }
        // What they write alone, they answer.
        let alone = |node: &Node| matches!(node.state(), Some(State::PrimaryAlone | State::Standalone));
        if self.plan.watchdog && alone(&self.nodes[0]) && alone(&self.nodes[1]) {
            return Err("both nodes answer what they write alone".into());
        }
        Ok(())
    }

    /// In PRIMARY UNCERTAIN the batch that was under way is decided at most, and if nobody has to acknowledge it.
    fn check_uncertain(
        &mut self,
        node: usize,
        state: Option<State>,
        decision: Decision,
    ) -> Result<(), String> {
        if state == Some(State::PrimaryUncertain)
            && matches!(decision, Decision::Commit | Decision::CommitAlone)
        {
            self.decided_uncertain[node] += 1;
            self.coverage.decided_uncertain += 1;
            if self.decided_uncertain[node] > 1 {
                return Err(format!("node {node} has decided a second batch in PRIMARY UNCERTAIN"));
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Log(node, incarnation)
            | Event::SyncLog(node, incarnation)
            | Event::LogRoom(node, incarnation)
            | Event::Apply(node, incarnation)
            | Event::Catchup(node, incarnation)
            | Event::Conclude(node, incarnation)
                if incarnation == self.incarnation(node) && self.nodes[node].running.is_some() =>
            {
                if !self.nodes[node].is_responsive() {
                    self.after(5, event);
                    return Ok(());
                }
                self.work(event, node)?;
            }
            Event::Arrive(node, incarnation, number) if incarnation == self.incarnation(node) => {
                self.arrive(number);
            }
            Event::DialTimeout(_, _, number) => {
                self.end_dial(number, Err(Refusal::new(Code::COMMUNICATION_ERROR, "(time-out)")));
            }
            Event::Client(client) => self.client_acts(client)?,
            Event::Patience(client, transaction) => self.patience_ends(client, transaction),
            Event::Interfere => self.interfere(),
            Event::GoDown(node, incarnation) if incarnation == self.incarnation(node) => {
                self.go_down(node)?;
            }
            Event::Operator => self.operate()?,
            Event::Fault => self.inject()?,
            Event::Mend => self.mend(),
            Event::Resume(node, incarnation) if incarnation == self.incarnation(node) => {
                if let Some(running) = &mut self.nodes[node].running {
                    running.paused = false;
                    self.note(format_args!("node {node} goes on"));
                }
            }
            Event::Restart(node) => self.restart(node)?,
            Event::Read(node) => {
                self.read(node)?;
                self.between(5, 60, Event::Read(node));
            }
            Event::Room(node) => self.room(node),
            Event::Reset if !self.healing => {
                self.network.reset();
                self.coverage.fault(Fault::Reset);
                self.note(format_args!("fault: Reset"));
            }
            Event::HalfOpen(node) => self.half_open(node),
            Event::Checkpoint => {
                self.between(200, 1500, Event::Checkpoint);
                let node = self.random.below(2) as usize;
                self.checkpoint(node)?;
            }
            Event::Look => self.look(),
            Event::Sight(node) => self.sight(node),
            Event::Copy => self.copy()?,
            Event::Heal => self.heal(),
            Event::Deadline => return Err(self.not_healed()),
            _ => {}
        }
        Ok(())
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
        self.decided_uncertain[node] = 0;
        self.going_down[node] = None;
        self.busy[node] = [false; 5];
        self.dials.forget(node);
    }

    pub fn is_quiet(&self, node: usize) -> bool {
        self.nodes[node].running.as_ref().is_some_and(|running| {
            running.undecided.is_none() && running.log_jobs.is_empty() && running.apply_jobs.is_empty()
        })
    }
}
