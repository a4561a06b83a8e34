//! What a run has reached: rows of the transition table, kinds of faults.

use std::collections::{BTreeMap, BTreeSet};

use hotstandby::hsb::state::State;
use hotstandby::hsb::table::{TABLE, Transition, Trigger};

/// Every kind of fault that a run can inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    KillAtAnEffect,
    PowerCut,
    LogDropped,
    LogTorn,
    LogFlipped,
    Reset,
    Partition,
    OneWayCut,
    Slow,
    Pause,
    SlowDisk,
    Checkpoint,
}

pub const FAULTS: &[Fault] = {
    use Fault::*;
    &[
        Kill,
        KillAtAnEffect,
        PowerCut,
        LogDropped,
        LogTorn,
        LogFlipped,
        Reset,
        Partition,
        OneWayCut,
        Slow,
        Pause,
        SlowDisk,
        Checkpoint,
    ]
};

/// What was reached.
#[derive(Clone, Default)]
pub struct Coverage {
    pub edges: BTreeSet<usize>,
    pub faults: BTreeMap<Fault, u64>,
    pub transactions: u64,
    pub acknowledged: u64,
}

impl Coverage {
    pub fn edge(&mut self, from: State, to: State, reason: &str) {
        // Rows that differ in their trigger alone count together.
        let is_it = |row: &Transition| row.from == from && row.to == to && row.reason == reason;
        self.edges.extend((0..TABLE.len()).filter(|index| is_it(&TABLE[*index])));
    }

    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn add(&mut self, other: &Coverage) {
        self.edges.extend(&other.edges);
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        self.transactions += other.transactions;
        self.acknowledged += other.acknowledged;
    }

    /// What was not reached and could have been. Not simulated: damaged databases, full logs and full disks;
    /// not demanded, because rare: that histories which parted are found out in STANDALONE or PRIMARY UNCERTAIN.
    pub fn missing(&self) -> Vec<String> {
        let edges = TABLE.iter().enumerate().filter(|(index, row)| {
            !self.edges.contains(index)
                && !matches!(
                    row.trigger,
                    Trigger::ApplyFailed | Trigger::LogFull | Trigger::NoRoom | Trigger::Diverged
                )
        });
        let edges = edges.map(|(_, row)| format!("{} --{:?}--> {}", row.from, row.trigger, row.to));
        let faults = FAULTS.iter().filter(|fault| !self.faults.contains_key(fault));
        edges.chain(faults.map(|fault| format!("fault {fault:?}"))).collect()
    }
}
