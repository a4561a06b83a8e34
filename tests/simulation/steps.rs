//! The bodies of a node's threads: the log, apply and catchup threads, and the session that leads a batch. Each step is an
//! event of its own.

use hotstandby::actors::catchup::CatchupStep;
use hotstandby::actors::threads::apply::ApplyStep;
use hotstandby::actors::threads::log::LogStep;
use hotstandby::error::ServerError;

use crate::coverage::Fault;
use crate::world::{Event, World};

const LOG: usize = 0;
const APPLY: usize = 1;
const CATCHUP: usize = 2;
const SYNC: usize = 3;
const ROOM: usize = 4;

impl World {
    /// Schedules a step for every thread body that has something to do.
    pub fn employ(&mut self, node: usize) {
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

    pub fn work(&mut self, event: Event, node: usize) -> Result<(), String> {
        match event {
            Event::Log(..) => self.step_log(node),
            Event::SyncLog(..) => {
                self.busy[node][SYNC] = false;
                let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
                let step = running.log_thread.sync().map(|()| LogStep::Synced);
                self.log_stepped(node, step)
            }
            Event::LogRoom(..) => {
                self.busy[node][ROOM] = false;
                let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
                let step = running.log_thread.try_again(&running.log_jobs);
                self.log_stepped(node, step)
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
        // What comes after that may be cut off in this step.
        let decided = self.nodes[node].decided();
        let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
        let Ok(first) = running.log_jobs.try_recv() else { return Ok(()) };
        let before = (running.log_thread.end().progress(), running.log_synced.lock().unwrap().progress());
        let step = running.log_thread.step(first, &running.log_jobs);
        let end = running.log_thread.end();
        if end.progress() > before.0 {
            running.claimed = before.1.min(decided);
        }
        // What was cut off is on disk no more.
        let mut synced = running.log_synced.lock().unwrap();
        if end.progress() < synced.progress() {
            *synced = end;
        }
        drop(synced);
        self.log_stepped(node, step)
    }

    pub fn log_stepped(&mut self, node: usize, step: Result<LogStep, ServerError>) -> Result<(), String> {
        let incarnation = self.incarnation(node);
        let written = self.nodes[node].written();
        self.note(format_args!("node {node} logs up to {written:?}: {step:?}"));
        if step.is_ok() && self.nodes[node].trouble.lock().unwrap().struck {
            return Err(format!("node {node} goes on although a write or a sync of its log has failed"));
        }
        match step {
            Ok(LogStep::Unsynced) if !std::mem::replace(&mut self.busy[node][SYNC], true) => {
                let delay = self.plan.relaxed_max_delay_ms;
                self.after(delay, Event::SyncLog(node, incarnation));
                Ok(())
            }
            Ok(LogStep::Full) if !std::mem::replace(&mut self.busy[node][ROOM], true) => {
                self.coverage.fault(Fault::NoRoom);
                self.after(200, Event::LogRoom(node, incarnation));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => self.disk_failed(node, &error),
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
}
