//! What runs have reached: rows of the transition table, kinds of faults, orders of the watchdog.

use std::collections::BTreeMap;

use hotstandby::hsb::event::Command;
use hotstandby::hsb::table::{TABLE, Transition};

use crate::causes::{CAUSES, Cause, Told};

/// Every kind of fault that a run can inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    KillAtAnEffect,
    Shutdown,
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
    /// There is no room for a while.
    FullDisk,
    /// The log has met that.
    NoRoom,
    /// Writes, or syncs, will fail for good.
    FailedWrite,
    FailedSync,
    /// One of them did, and the process has stopped itself.
    StopAfterWrite,
    StopAfterSync,
    /// A bit of the log flips, also of what was synced.
    LogDamaged,
    /// Rows change behind the product's back.
    DatabaseChanged,
    /// A connection is lost at one end only.
    HalfOpen,
    /// What a lost connection had under way arrives late, perhaps after there is another.
    LateArrival,
    /// The watchdog cannot reach a node.
    WatchdogBlind,
}

pub const FAULTS: &[Fault] = {
    use Fault::*;
    &[
        Kill,
        KillAtAnEffect,
        Shutdown,
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
        FullDisk,
        NoRoom,
        FailedWrite,
        FailedSync,
        StopAfterWrite,
        StopAfterSync,
        LogDamaged,
        DatabaseChanged,
        HalfOpen,
        LateArrival,
        WatchdogBlind,
    ]
};

/// What was reached.
#[derive(Clone, Default)]
pub struct Coverage {
    pub seeds: u64,
    /// Rows of the transition table, by their place in it.
    pub edges: BTreeMap<usize, u64>,
    pub faults: BTreeMap<Fault, u64>,
    pub transactions: u64,
    pub acknowledged: u64,
    /// By what came between: transactions whose clients were told that they have committed, that they have failed, or do
    /// not know.
    pub causes: BTreeMap<Cause, [u64; 3]>,
    /// Batches that were decided in PRIMARY UNCERTAIN.
    pub decided_uncertain: u64,
    /// Starts that were refused because of damage.
    pub refused_to_start: u64,
    /// Refusals to connect, after power cuts of both nodes, because the log does not reach back.
    pub parted_by_power_cuts: u64,
    /// What the watchdog has ordered, by command.
    pub watchdog: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub fn edge(&mut self, change: Transition) {
        let is_it = |row: &Transition| *row == change;
        for index in (0..TABLE.len()).filter(|index| is_it(&TABLE[*index])) {
            *self.edges.entry(index).or_default() += 1;
        }
    }

    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn told(&mut self, cause: Option<Cause>, told: Told) {
        if let Some(cause) = cause {
            self.causes.entry(cause).or_default()[told as usize] += 1;
        }
    }

    pub fn add(&mut self, other: &Coverage) {
        self.seeds += other.seeds;
        for (edge, count) in &other.edges {
            *self.edges.entry(*edge).or_default() += count;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (cause, counts) in &other.causes {
            let known = self.causes.entry(*cause).or_default();
            known.iter_mut().zip(counts).for_each(|(known, count)| *known += count);
        }
        self.decided_uncertain += other.decided_uncertain;
        self.transactions += other.transactions;
        self.acknowledged += other.acknowledged;
        self.refused_to_start += other.refused_to_start;
        self.parted_by_power_cuts += other.parted_by_power_cuts;
        for (order, count) in &other.watchdog {
            *self.watchdog.entry(order).or_default() += count;
        }
    }

    /// What was not reached. Nothing is excused.
    pub fn missing(&self) -> Vec<String> {
        let edges = (0..TABLE.len()).filter(|index| !self.edges.contains_key(index)).map(name);
        let faults = FAULTS.iter().filter(|fault| !self.faults.contains_key(fault));
        let orders = [Command::SetPrimaryAlone, Command::SwitchPrimary].map(Command::text).into_iter();
        let orders = orders.filter(|order| !self.watchdog.contains_key(order));
        let wanted = CAUSES.iter().flat_map(|(cause, told)| told.iter().map(move |told| (cause, *told)));
        let never = |(cause, told): &(&Cause, Told)| {
            self.causes.get(cause).is_none_or(|counts| counts[*told as usize] == 0)
        };
        let causes = wanted.filter(never).map(|(cause, told)| format!("{told:?} in spite of {cause:?}"));
        let uncertain =
            (self.decided_uncertain == 0).then(|| "a 1-safe batch in PRIMARY UNCERTAIN".to_owned());
        let refused = (self.refused_to_start == 0).then(|| "a start that damage forbids".to_owned());
        edges
            .chain(faults.map(|fault| format!("fault {fault:?}")))
            .chain(orders.map(|order| format!("watchdog: '{order}'")))
            .chain(causes)
            .chain(uncertain)
            .chain(refused)
            .collect()
    }

    /// Everything that was counted, for people.
    pub fn print(&self, elapsed_seconds: f64) {
        println!(
            "{} seeds in {elapsed_seconds:.1} s, {:.0} a minute; {} transactions, {} acknowledged",
            self.seeds,
            self.seeds as f64 * 60.0 / elapsed_seconds,
            self.transactions,
            self.acknowledged
        );
        let kinds = FAULTS.len();
        println!("{} of {kinds} kinds of faults: {:?}", self.faults.len(), self.faults);
        println!(
            "watchdog: {:?}; starts refused because of damage: {}; power cuts of both that only a copy mended: {}",
            self.watchdog, self.refused_to_start, self.parted_by_power_cuts
        );
        println!("told [committed, failed, unknown] in spite of: {:?}", self.causes);
        println!("batches decided in PRIMARY UNCERTAIN: {}", self.decided_uncertain);
        println!("{} of {} transitions; the rarest:", self.edges.len(), TABLE.len());
        let mut edges: Vec<(u64, usize)> = self.edges.iter().map(|(edge, count)| (*count, *edge)).collect();
        edges.sort_unstable();
        for (count, edge) in edges.into_iter().take(5) {
            println!("  {count:>6} {}", name(edge));
        }
        println!("not reached: {:?}", self.missing());
    }
}

fn name(edge: usize) -> String {
    let row = &TABLE[edge];
    format!("{} --{:?}--> {}", row.from, row.trigger, row.to)
}
