//! Ends of processes, what they leave, and starts.

use hotstandby::hsb::codes::Code;

use crate::causes::Cause;
use crate::coverage::Fault;
use crate::disk::{self, Loss};
use crate::world::{Event, World};

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Kill,
    /// In order.
    Shutdown,
    PowerCut,
    /// The log could not be written or synced, and the process has stopped itself. What was not synced may be lost.
    DiskFailed {
        lost: bool,
    },
    /// It is killed, and a bit of its log flips.
    LogDamaged,
    /// It is killed, and rows of its database are changed.
    DatabaseChanged,
}

/// What has happened to a node's files that no crash does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Log,
    Database,
}

impl World {
    /// Ends a process. Where that could lose what was promised to survive it, it is merely killed.
    pub fn kill(&mut self, node: usize, end: End) -> Result<(), String> {
        if self.nodes[node].running.is_none() {
            return Ok(());
        }
        self.read(node)?;
        self.note_decided(node);
        let end = self.permitted(node, end);
        let mut loss = Loss::Nothing;
        let mut damage = None;
        let (written, durable) = (self.nodes[node].written(), self.nodes[node].durable().log);
        let decided = self.nodes[node].decided();
        let claimed = self.nodes[node].running.as_ref().map_or((0, 0), |running| running.claimed);
        let mut random = self.random.fork();
        match end {
            End::Kill | End::Shutdown | End::DiskFailed { lost: false } => self.nodes[node].crash(|_, _| {}),
            End::PowerCut => {
                self.network.silence(node);
                self.nodes[node].crash(|files, durable| loss = disk::cut_power(files, durable, &mut random));
            }
            End::DiskFailed { lost: true } => {
                self.nodes[node]
                    .crash(|files, durable| loss = disk::cut_log(files, durable.log, &mut random));
            }
            End::LogDamaged => self.nodes[node].crash(|files, durable| {
                // With what was not synced lost as well, or not: of SQLite's log, so that ours is needed, and of ours.
                if random.below(3) > 0 {
                    disk::cut_wal(files, durable, &mut random);
                }
                if random.below(3) == 0 {
                    loss = disk::cut_log(files, durable.log, &mut random);
                }
                damage = disk::flip_log(files, &mut random).then_some(Damage::Log);
            }),
            End::DatabaseChanged => {
                self.nodes[node].crash(|files, _| disk::change_database(files, &mut random));
                damage = Some(Damage::Database);
            }
        }
        self.nodes[node].kept = match (damage, loss) {
            (Some(Damage::Log), Loss::Nothing) => claimed.min(written),
            // What said that it was on disk may be gone as well.
            (Some(Damage::Log), _) => (0, 0),
            (_, Loss::Nothing) => written,
            _ => durable.min(written),
        };
        if matches!(end, End::DiskFailed { .. }) {
            // What was being cut off may be half gone.
            self.nodes[node].kept = self.nodes[node].kept.min(decided);
        }
        self.damage[node] = damage.or(self.damage[node]);
        self.operator.was_cut[node] = end == End::PowerCut;
        self.note(format_args!("node {node} is down, {end:?}, {loss:?}, {damage:?}"));
        self.count_end(end, loss, damage);
        self.forget_process(node);
        self.oracle.answered_active[node] = (0, 0);
        self.lose_clients(node, Cause::of_end(end));
        self.between(20, 1500, Event::Restart(node));
        Ok(())
    }

    fn permitted(&self, node: usize, end: End) -> End {
        let needed = self.oracle.acknowledged_up_to();
        let is_whole = self.damage == [None, None];
        let other = self.nodes[1 - node].written();
        let survives =
            is_whole && other >= needed || self.is_sound(node) && self.nodes[node].durable().log >= needed;
        match end {
            End::PowerCut if self.plan.rough || survives => end,
            End::PowerCut => End::Kill,
            End::DiskFailed { lost: true } if !(self.plan.rough || survives) => {
                End::DiskFailed { lost: false }
            }
            End::LogDamaged | End::DatabaseChanged => {
                let other_has_all = is_whole && other >= needed.max(self.oracle.decided);
                if other_has_all && !self.plan.watchdog && !self.healing { end } else { End::Kill }
            }
            _ => end,
        }
    }

    fn is_sound(&self, node: usize) -> bool {
        self.damage[node].is_none()
    }

    fn count_end(&mut self, end: End, loss: Loss, damage: Option<Damage>) {
        match (end, damage) {
            (End::PowerCut, _) => self.coverage.fault(Fault::PowerCut),
            (_, Some(Damage::Log)) => self.coverage.fault(Fault::LogDamaged),
            (_, Some(Damage::Database)) => self.coverage.fault(Fault::DatabaseChanged),
            (End::DiskFailed { .. } | End::Shutdown, _) => {}
            _ => self.coverage.fault(Fault::Kill),
        }
        match loss {
            Loss::Nothing => {}
            Loss::LogDropped => self.coverage.fault(Fault::LogDropped),
            Loss::LogTorn => self.coverage.fault(Fault::LogTorn),
            Loss::LogFlipped => self.coverage.fault(Fault::LogFlipped),
        }
    }

    pub fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].running.is_some() {
            return Ok(());
        }
        let replace = self.operator.replace.take_if(|replace| *replace == node).is_some();
        let offline = replace && self.has_all(1 - node);
        if let Err(error) = self.nodes[node].start(offline) {
            // Without its words: a path of this run is among them, and a seed replays the identical run.
            let code = error.code.map_or(0, Code::number);
            self.note(format_args!("node {node} does not start: {code}"));
            let unusable = matches!(error.code, Some(Code::DISK_FULL | Code::LOG_OPEN_FAILED));
            if unusable && self.nodes[node].replace_bad_disk() {
                self.operator.replace = self.operator.replace.or(Some(node).filter(|_| offline));
                self.between(100, 500, Event::Restart(node));
                return Ok(());
            }
            let expected = match error.code {
                Some(Code::LOG_BAD_RECORD) => self.damage[node] == Some(Damage::Log),
                // Either database may be the one that was changed.
                Some(Code::APPLY_FAILED) => self.damage.contains(&Some(Damage::Database)),
                _ => false,
            };
            if !expected && !self.plan.rough {
                return Err(format!("node {node} does not start: {error}"));
            }
            // A copy is needed.
            self.coverage.refused_to_start += 1;
            self.operator.replace = Some(node);
            self.between(100, 500, Event::Restart(node));
            return Ok(());
        }
        self.started(node, offline)
    }

    fn started(&mut self, node: usize, offline: bool) -> Result<(), String> {
        let written = self.nodes[node].written();
        self.network.held_at[node] = (0, 0);
        self.note(format_args!("node {node} starts at {written:?}"));
        let kept = self.nodes[node].kept;
        if !offline && written < kept {
            return Err(format!(
                "node {node} starts at {written:?} and has lost what was on disk, up to {kept:?}"
            ));
        }
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
}
