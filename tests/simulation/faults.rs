//! Faults, and what ends them.

use hotstandby::actors::supervisor::Checkpointed;
use hotstandby::storage::checkpoint;

use crate::coverage::Fault;
use crate::disk::{self, Loss};
use crate::world::{Event, World};

/// After the faults, so much time to become whole.
const HEALING_MS: u64 = 120_000;

impl World {
    pub fn begin(&mut self) {
        self.oracle.excused = self.plan.rough;
        for node in 0..2 {
            self.after(0, Event::Restart(node));
            self.between(5, 60, Event::Read(node));
        }
        for client in 0..self.plan.clients {
            self.clients.push(Default::default());
            self.between(50, 500, Event::Client(client));
        }
        self.after(20, Event::Operator);
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
        let fault = match self.random.below(13) {
            0 | 1 => return self.kill(node, false),
            2 | 3 => return self.kill(node, true),
            4 => {
                let effects = 1 + self.random.below(40) as u32;
                if let Some(running) = &self.nodes[node].running {
                    running.life.light_fuse(effects);
                }
                Fault::KillAtAnEffect
            }
            5 => {
                self.network.reset();
                Fault::Reset
            }
            6 => {
                self.network.cut = [true, true];
                self.between(50, 2500, Event::Mend);
                Fault::Partition
            }
            7 => {
                self.network.cut[node] = true;
                self.between(50, 2500, Event::Mend);
                Fault::OneWayCut
            }
            8 => {
                let latency = 20 + self.random.below(300);
                self.network.set_latency(latency);
                self.between(50, 2500, Event::Mend);
                Fault::Slow
            }
            9 | 10 => {
                if let Some(running) = &mut self.nodes[node].running {
                    running.paused = true;
                    self.between(50, 2500, Event::Resume(node, incarnation));
                }
                Fault::Pause
            }
            11 => {
                self.disk_ms = 20 + self.random.below(200);
                self.between(50, 1500, Event::Mend);
                Fault::SlowDisk
            }
            _ => {
                self.checkpoint(node)?;
                Fault::Checkpoint
            }
        };
        self.coverage.fault(fault);
        self.note(format_args!("fault: {fault:?}, node {node}"));
        Ok(())
    }

    pub fn mend(&mut self) {
        self.network.cut = [false, false];
        self.network.set_latency(3);
        self.disk_ms = 3;
        self.note(format_args!("mended"));
    }

    fn checkpoint(&mut self, node: usize) -> Result<(), String> {
        let failed = |error| format!("node {node}: checkpoint: {error}");
        let directory = self.nodes[node].directory();
        let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
        if running.undecided.is_some() || running.apply_holds_lock || running.reader.is_none() {
            return Ok(());
        }
        let position = checkpoint::make(&running.database).map_err(failed)?;
        running.writer.move_pages_soon();
        running.addresses.supervisor.do_send(Checkpointed { position, delete_log: true });
        running.wal_synced = disk::wal_state(&directory);
        Ok(())
    }

    /// Ends a process, by a power cut if that alone cannot lose what was promised to survive it.
    pub fn kill(&mut self, node: usize, power: bool) -> Result<(), String> {
        if self.nodes[node].running.is_none() {
            return Ok(());
        }
        self.read(node)?;
        self.note_decided(node);
        let needed = self.oracle.acknowledged_up_to();
        let elsewhere = self.nodes[1 - node].written() >= needed;
        let power = power && (self.plan.rough || elsewhere || self.nodes[node].durable().log >= needed);
        let mut loss = Loss::Nothing;
        if power {
            self.network.silence(node);
            let mut random = self.random.fork();
            self.nodes[node].crash(|files, durable| loss = disk::cut_power(files, durable, &mut random));
        } else {
            self.nodes[node].crash(|_, _| {});
        }
        self.note(format_args!("node {node} is down, power cut: {power}, {loss:?}"));
        self.coverage.fault(if power { Fault::PowerCut } else { Fault::Kill });
        match loss {
            Loss::Nothing => {}
            Loss::LogDropped => self.coverage.fault(Fault::LogDropped),
            Loss::LogTorn => self.coverage.fault(Fault::LogTorn),
            Loss::LogFlipped => self.coverage.fault(Fault::LogFlipped),
        }
        self.forget_process(node);
        self.oracle.answered_active[node] = (0, 0);
        self.lose_clients(node);
        self.between(20, 1500, Event::Restart(node));
        Ok(())
    }

    pub fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].running.is_some() {
            return Ok(());
        }
        let offline = self.operator.replace == Some(node);
        self.operator.replace = self.operator.replace.filter(|_| !offline);
        match self.nodes[node].start(offline) {
            Ok(()) => {}
            Err(error) if self.plan.rough => {
                // Its log or database is damaged: a copy is needed.
                self.note(format_args!("node {node} does not start: {error}"));
                self.operator.replace = Some(node);
                self.between(100, 500, Event::Restart(node));
                return Ok(());
            }
            Err(error) => return Err(format!("node {node} does not start: {error}")),
        }
        let written = self.nodes[node].written();
        self.note(format_args!("node {node} starts at {written:?}"));
        let running = self.nodes[node].running.as_ref();
        match running.and_then(|running| running.reader.as_ref()) {
            Some(reader) => self.oracle.reread(node, reader)?,
            None => self.oracle.seen[node].clear(),
        }
        let directory = self.nodes[node].directory();
        if let Some(running) = &mut self.nodes[node].running {
            running.wal_synced = disk::wal_state(&directory);
        }
        Ok(())
    }

    /// From here on nothing breaks, and everything must become whole.
    pub fn heal(&mut self) {
        if !self.healing {
            self.healing = true;
            self.note(format_args!("healing"));
            self.mend();
            for node in 0..2 {
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
