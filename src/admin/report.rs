//! What a node says of itself in `hsb status`: one value for the screen, for `hsb status json`, and for the other
//! server, which gets it as JSON so that servers of different versions understand each other.
//!
//! The names of the fields are a promise to programs; they are explained in docs/status.md.

use serde::{Deserialize, Serialize};

use super::AdminServices;
use crate::calendar::log_text;
use crate::hsb::advice::Remedy;
use crate::hsb::phase::{Activity, CopyStatus};
use crate::hsb::position::Position;
use crate::hsb::state::State;
use crate::progress::Unit;
use crate::services::status::Snapshot;
use crate::storage::checkpoint;

/// A point in the history.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct PositionReport {
    /// Grows with every change of the primary that is followed by a write.
    pub epoch: u64,
    /// Transactions since the database was created.
    pub sequence: u64,
    /// Beginning of the hash over the history.
    pub hash: u32,
}

/// The last change of state.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct ChangeReport {
    /// State before; empty at the start.
    pub from: String,
    /// State after.
    pub to: String,
    /// Why, as a word that programs decide by.
    pub cause: String,
    /// Why, as people read it.
    pub reason: String,
    /// When, UTC.
    pub at: String,
}

/// How far the secondary is behind; only a connected primary knows.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct LagReport {
    /// Transactions that the secondary has not acknowledged; none: not known.
    pub transactions: Option<u64>,
    /// Their bytes; none: not known.
    pub bytes: Option<u64>,
    /// If it is not known: since when.
    pub unknown_since: Option<String>,
}

/// Something that takes time and is under way.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct OperationReport {
    /// COPYING, CONNECTING, CATCHING UP, …
    pub name: String,
    /// Done, of a hundred; none: not known.
    pub percent: Option<u64>,
    /// What is counted: bytes or transactions.
    pub unit: String,
    /// Done so far.
    pub done: Option<u64>,
    /// In all.
    pub total: Option<u64>,
    /// Units a second.
    pub rate: Option<u64>,
    /// Seconds that remain at this rate.
    pub seconds_left: Option<u64>,
}

/// A snapshot that a session reads from.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct SnapshotReport {
    /// Number of the session, as `userlist` and `throwout` have it.
    pub session: u64,
    /// Its user.
    pub user: String,
    /// Where it comes from.
    pub address: String,
    /// For how long.
    pub seconds: u64,
}

/// One node.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct NodeReport {
    /// As `hsb state`.
    pub state: String,
    /// As `hsb role`.
    pub role: String,
    /// As `hsb status connect`.
    pub connection: String,
    /// Code and text of the failure of the last attempt to connect, until there is another attempt.
    pub connect_failure: Option<String>,
    /// What this server needs before it can follow the other one, as far as is known: connect, rewind or netcopy.
    pub remedy: Remedy,
    /// Decided up to here.
    pub position: PositionReport,
    /// The end of the log; beyond `position` while the outcome of a batch is open.
    pub log_end: PositionReport,
    /// The log has so many transactions on this server's disk; none: it is in memory.
    pub on_disk: Option<u64>,
    /// A batch at the end of the log waits for its outcome.
    pub pending: bool,
    /// The secondary has this, as far as this primary knows.
    pub acknowledged: PositionReport,
    /// How far the secondary is behind, as this primary knows.
    pub lag: LagReport,
    /// The last change of state.
    pub last_change: ChangeReport,
    /// 1safe, 2safe or auto.
    pub safeness: String,
    /// received, visible or durable.
    pub acknowledge_policy: String,
    /// relaxed, adaptive or strict.
    pub durability: String,
    /// A primary goes on alone when it loses its secondary.
    pub auto_primary_alone: bool,
    /// Connect string of the other server.
    pub connect: Option<String>,
    /// What is under way.
    pub operation: Option<OperationReport>,
    /// Code and text of the last copy's failure, until another copy or backup begins.
    pub copy_failure: Option<String>,
    /// When it failed, UTC.
    pub copy_failed_at: Option<String>,
    /// The disk is full, in the system's words: no writes until there is room.
    pub disk_full: Option<String>,
    /// What was received fits, and cannot be executed for now: why, in a sentence.
    pub hindered: Option<String>,
    /// Other programs are not kept off the database file: why, in a sentence; tried again all the time.
    pub not_held: Option<String>,
    /// A change of the primary's did not fit; only a netcopy helps.
    pub netcopy_needed: bool,
    /// Bytes of SQLite's own log.
    pub wal_bytes: u64,
    /// The oldest snapshot that a session reads from.
    pub oldest_snapshot: Option<SnapshotReport>,
    /// SQL sessions.
    pub sessions: u64,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Of the server program.
    pub version: String,
}

impl From<Position> for PositionReport {
    fn from(position: Position) -> PositionReport {
        let [a, b, c, d, ..] = position.chain.0;
        let hash = u32::from_be_bytes([a, b, c, d]);
        PositionReport { epoch: position.epoch, sequence: position.sequence, hash }
    }
}

impl std::fmt::Display for PositionReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}/{:08x}", self.epoch, self.sequence, self.hash)
    }
}

/// This node, now.
pub(crate) fn of_this_node(services: &AdminServices) -> NodeReport {
    // Before the position, so that what is counted as not on disk is rather too much.
    let on_disk = on_disk(services);
    let now = services.node.status.snapshot();
    let settings = now.settings;
    NodeReport {
        state: now.state.name().into(),
        role: now.state.role().into(),
        connection: now.connect.name().into(),
        connect_failure: now.connect_failure.as_ref().map(ToString::to_string),
        remedy: now.remedy,
        position: now.decided.into(),
        log_end: now.log_end.into(),
        on_disk,
        pending: now.decided != now.log_end && now.state != State::PrimaryActive,
        acknowledged: now.acknowledged.into(),
        lag: lag(&now),
        last_change: ChangeReport {
            from: now.last_change.from.name().into(),
            to: now.last_change.to.name().into(),
            cause: now.last_change.cause.name().into(),
            reason: now.last_change.reason.into(),
            at: log_text(now.last_change.at),
        },
        safeness: settings.safeness.to_string(),
        acknowledge_policy: settings.pair.acknowledge_policy.to_string(),
        durability: settings.durability.to_string(),
        auto_primary_alone: settings.auto_primary_alone,
        connect: services.node.parameters.connect().map(|peer| peer.to_string()),
        operation: operation(services, &now),
        disk_full: now.lacks_room.clone(),
        hindered: now.hindered.clone(),
        not_held: services.node.database.not_held(),
        copy_failure: match &now.copy {
            CopyStatus::Failed(refusal) => Some(refusal.to_string()),
            _ => None,
        },
        copy_failed_at: matches!(now.copy, CopyStatus::Failed(..)).then(|| log_text(now.copy_since)),
        netcopy_needed: now.needs_netcopy,
        wal_bytes: checkpoint::wal_file_bytes(&services.node.database),
        oldest_snapshot: services.node.sessions.snapshots().into_iter().next().map(|open| SnapshotReport {
            session: open.session.id,
            user: open.session.user,
            address: open.session.address,
            seconds: open.age.as_secs(),
        }),
        sessions: services.node.sessions.count() as u64,
        uptime_seconds: services.node.started.elapsed().as_secs(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// See [`NodeReport::on_disk`].
pub(super) fn on_disk(services: &AdminServices) -> Option<u64> {
    let in_memory = services.node.parameters.diskless() || !services.node.parameters.log_enabled();
    (!in_memory).then(|| services.node.counters.log_durable.get())
}

fn behind(now: &Snapshot) -> u64 {
    now.log_end.sequence.saturating_sub(now.acknowledged.sequence)
}

fn lag(now: &Snapshot) -> LagReport {
    if now.state == State::PrimaryActive {
        let bytes = Some(now.unacknowledged_bytes as u64);
        return LagReport { transactions: Some(behind(now)), bytes, unknown_since: None };
    }
    if now.state.is_primary() && now.activity == Activity::CatchingUp {
        return LagReport { transactions: Some(behind(now)), ..LagReport::default() };
    }
    let unknown_since = now.state.is_primary().then(|| log_text(now.connect_since));
    LagReport { unknown_since, ..LagReport::default() }
}

fn operation(services: &AdminServices, now: &Snapshot) -> Option<OperationReport> {
    let copying = now.copy == CopyStatus::Active || now.activity == Activity::Copying;
    let (name, gauge) = match now.activity {
        _ if copying => (Activity::Copying.name(), services.node.copy_progress.gauge()),
        Activity::Idle => return None,
        Activity::CatchingUp => (now.activity.name(), services.node.catchup_progress.gauge()),
        other => (other.name(), None),
    };
    let operation = OperationReport { name: name.into(), ..OperationReport::default() };
    let Some(gauge) = gauge else { return Some(operation) };
    let rate = gauge.rate_per_second().map(|rate| rate as u64);
    Some(OperationReport {
        percent: Some(gauge.percent()),
        unit: if gauge.unit == Unit::Bytes { "bytes" } else { "transactions" }.into(),
        done: Some(gauge.done),
        total: Some(gauge.total),
        rate,
        seconds_left: gauge.time_left().map(|left| left.as_secs()),
        ..operation
    })
}
