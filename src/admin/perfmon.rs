//! `perfmon`: counters and figures that are derived from positions.

use super::{AdminServices, Call, Rows, report};
use crate::hsb::phase::state_number;
use crate::hsb::state::State;
use crate::storage::checkpoint;

pub(super) fn perfmon(services: &AdminServices, _: &Call) -> Rows {
    let now = services.node.status.snapshot();
    let counters = &services.node.counters;
    let line = |name: &str, value: u64, meaning: &str| (0, format!("{name:<28}{value:>16}  {meaning}"));
    let mut rows = vec![
        line(
            "HSB state",
            u64::from(state_number(now.state, now.activity)),
            "1 to 17, 0 without HotStandby; see docs/commands.md",
        ),
        line("Sessions", services.node.sessions.count() as u64, "SQL sessions"),
    ];
    rows.extend(counters.list().into_iter().map(|(name, value, meaning)| line(name, value, meaning)));
    rows.push(line("Checkpoints", services.checkpointer.count(), "checkpoints made"));
    if let Some(on_disk) = report::on_disk(services) {
        let not_on_disk = counters.log_end.get().saturating_sub(on_disk);
        rows.push(line(
            "Transactions not on disk",
            not_on_disk,
            "in the log, and not on this server's disk yet",
        ));
    }
    rows.push(line(
        "SQLite log size",
        checkpoint::wal_file_bytes(&services.node.database),
        "bytes of SQLite's own log, which short checkpoints empty",
    ));
    let oldest = services.node.sessions.snapshots().first().map_or(0, |open| open.age.as_secs());
    rows.push(line("Oldest snapshot", oldest, "seconds for which a session has read from one snapshot"));
    let waiting = counters.log_end.get().saturating_sub(now.decided.sequence);
    let backlog = if now.state.is_secondary() { waiting } else { 0 };
    rows.push(line("Transactions to apply", backlog, "received from the primary and not executed yet"));
    if now.state == State::PrimaryActive {
        let behind = now.log_end.sequence.saturating_sub(now.acknowledged.sequence);
        rows.push(line("Transactions unacknowledged", behind, "sent and not confirmed by the secondary"));
        rows.push(line("Bytes unacknowledged", now.unacknowledged_bytes as u64, "the same in bytes"));
    }
    Ok(rows)
}
