//! Faults, and what ends them.

use hotstandby::actors::supervisor::SupervisorMessage;
use hotstandby::actors::threads::log::LogStep;
use hotstandby::error::ServerError;
use hotstandby::storage::checkpoint;
use hotstandby::storage::log::Operation;

use crate::coverage::Fault;
use crate::crashes::End;
use crate::disk::{self, Full, Trouble};
use crate::world::{Event, World};

/// After the faults, so much time to become whole.
const HEALING_MS: u64 = 120_000;

impl World {
    pub fn begin(&mut self) {
        self.oracle.excused = self.plan.rough;
        self.oracle.watched = self.plan.watchdog;
        for node in 0..2 {
            self.after(0, Event::Restart(node));
            self.between(5, 60, Event::Read(node));
        }
        for client in 0..self.plan.clients {
            self.clients.push(Default::default());
            self.between(50, 500, Event::Client(client));
        }
        self.between(50, 500, Event::Interfere);
        self.after(20, Event::Operator);
        if self.plan.watchdog {
            self.after(30, Event::Look);
        }
        if self.plan.maximum_log_bytes.is_some() {
            self.between(100, 1500, Event::Checkpoint);
        }
        self.between(200, 1000, Event::Fault);
        let chaos = self.plan.chaos_ms;
        self.after(chaos, Event::Heal);
    }

    pub fn inject(&mut self) -> Result<(), String> {
        if self.healing {
            return Ok(());
        }
        let interval = self.plan.fault_interval_ms;
        self.between(20, interval, Event::Fault);
        let node = self.random.below(2) as usize;
        let incarnation = self.incarnation(node);
        let fault = match self.random.below(24) {
            0 | 1 => return self.kill(node, End::Kill),
            2 | 3 => return self.kill(node, End::PowerCut),
            4 => return self.kill(node, End::LogDamaged),
            5 => return self.kill(node, End::DatabaseChanged),
            6..12 => self.trouble_network(node),
            12..16 => self.trouble_disk(node),
            16 => {
                let effects = 1 + self.random.below(40) as u32;
                if let Some(running) = &self.nodes[node].running {
                    running.life.light_fuse(effects);
                }
                Fault::KillAtAnEffect
            }
            17 | 18 => {
                if let Some(running) = &mut self.nodes[node].running {
                    running.paused = true;
                    self.between(50, 2500, Event::Resume(node, incarnation));
                }
                Fault::Pause
            }
            19 => {
                let longest = 20 + self.random.below(200);
                self.disk_ms = longest;
                self.between(50, 1500, Event::Mend);
                Fault::SlowDisk
            }
            20 => {
                let until = self.now() + 100 + self.random.below(3000);
                self.watchdog.blind_until[node] = until;
                Fault::WatchdogBlind
            }
            // What a watchdog makes of that is a chapter of its own.
            21 if !self.plan.watchdog => self.shut_down(node),
            _ => {
                self.checkpoint(node)?;
                Fault::Checkpoint
            }
        };
        self.coverage.fault(fault);
        self.note(format_args!("fault: {fault:?}, node {node}"));
        Ok(())
    }

    fn trouble_network(&mut self, node: usize) -> Fault {
        match self.random.below(5) {
            0 => {
                self.network.reset();
                return Fault::Reset;
            }
            1 => {
                // Mostly with something under way.
                if self.random.below(3) > 0 {
                    self.network.set_latency(300);
                    self.between(300, 1500, Event::Mend);
                }
                self.between(20, 250, Event::HalfOpen(node));
                return Fault::HalfOpen;
            }
            _ => {}
        }
        self.between(50, 2500, Event::Mend);
        match self.random.below(3) {
            0 => {
                self.network.cut = [true, true];
                Fault::Partition
            }
            1 => {
                self.network.cut[node] = true;
                Fault::OneWayCut
            }
            _ => {
                let latency = 20 + self.random.below(300);
                self.network.set_latency(latency);
                Fault::Slow
            }
        }
    }

    fn trouble_disk(&mut self, node: usize) -> Fault {
        let left = self.random.below(5) as u32;
        let (kind, fault) = match self.random.below(4) {
            0 => (Operation::Sync, Fault::FailedSync),
            1 => (Operation::Write, Fault::FailedWrite),
            _ => {
                let full = if self.random.below(2) == 0 { Full::ForFiles } else { Full::ForBytes };
                self.nodes[node].trouble.lock().unwrap().full = Some(full);
                self.between(200, 4000, Event::Room(node));
                return Fault::FullDisk;
            }
        };
        // Less than the header, which comes last: what could not be written is no batch.
        let written = self.random.below(16) as usize;
        self.nodes[node].trouble.lock().unwrap().failing = Some((kind, left, written));
        fault
    }

    /// Its log cannot be written any more: the process has stopped itself.
    pub fn disk_failed(&mut self, node: usize, error: &ServerError) -> Result<(), String> {
        let (is_full, failing) = {
            let trouble = self.nodes[node].trouble.lock().unwrap();
            (trouble.full.is_some(), trouble.failing.filter(|_| trouble.struck))
        };
        self.note(format_args!("node {node} stops: {error}"));
        match failing {
            Some((Operation::Sync, ..)) => self.coverage.fault(Fault::StopAfterSync),
            Some(_) => self.coverage.fault(Fault::StopAfterWrite),
            // Bytes that were to be taken back found no room.
            _ if is_full => {}
            _ => return Err(format!("node {node}: the log cannot be written: {error}")),
        }
        self.kill(node, End::DiskFailed { lost: matches!(failing, Some((Operation::Sync, ..))) })
    }

    pub fn half_open(&mut self, node: usize) {
        let later_ms = self.random.below(1500);
        if !self.healing && self.network.half_open(node, later_ms) {
            self.coverage.fault(Fault::LateArrival);
        }
        self.note(format_args!("half open: lost at node {node}"));
    }

    pub fn mend(&mut self) {
        self.network.cut = [false, false];
        self.network.set_latency(3);
        self.disk_ms = 3;
        self.note(format_args!("mended"));
    }

    pub fn room(&mut self, node: usize) {
        self.nodes[node].trouble.lock().unwrap().full = None;
        self.note(format_args!("there is room at node {node}"));
    }

    pub fn checkpoint(&mut self, node: usize) -> Result<(), String> {
        let failed = |error| format!("node {node}: checkpoint: {error}");
        let directory = self.nodes[node].directory();
        let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
        if running.undecided.is_some() || running.apply_holds_lock || running.reader.is_none() {
            return Ok(());
        }
        let synced = running.log_thread.sync().map(|()| LogStep::Synced);
        self.log_stepped(node, synced)?;
        let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
        let position = checkpoint::make(&running.database, || Ok(())).map_err(failed)?;
        running.writer.move_pages_soon();
        let event = hotstandby::hsb::event::Event::Checkpointed { position, delete_log: true };
        running.addresses.supervisor.do_send(SupervisorMessage::Event(event));
        running.wal_synced = disk::wal_state(&directory);
        Ok(())
    }

    /// From here on nothing breaks, and everything must become whole.
    pub fn heal(&mut self) {
        if !self.healing {
            self.healing = true;
            self.note(format_args!("healing"));
            self.mend();
            for node in 0..2 {
                *self.nodes[node].trouble.lock().unwrap() = Trouble::default();
                if let Some(running) = &mut self.nodes[node].running {
                    running.paused = false;
                    running.life.light_fuse(0);
                }
            }
            self.after(HEALING_MS, Event::Deadline);
        }
        if self.is_healed() {
            self.finished = true;
        } else {
            self.after(50, Event::Heal);
        }
    }

    pub fn not_healed(&self) -> String {
        let state = |node: usize| {
            self.nodes[node].view().map_or("down".to_string(), |view| {
                format!(
                    "{} at {}, log end {}, {:?}",
                    view.state, view.hello.position, view.hello.log_end, view.connect
                )
            })
        };
        format!(
            "not whole again: node 0 {}; node 1 {}; {} clients wait",
            state(0),
            state(1),
            self.waiting_clients()
        )
    }
}
