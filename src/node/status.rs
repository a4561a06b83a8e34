//! What everybody may know of the node at any time without asking an actor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use crate::hsb::event::ConnectStatus;
use crate::hsb::heart::{CopyStatus, Heart, SwitchStatus};
use crate::hsb::position::Position;
use crate::hsb::state::State;

/// A picture of the heart.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The state.
    pub state: State,
    /// The connection.
    pub connect: ConnectStatus,
    /// Decided up to here.
    pub decided: Position,
    /// The end of the log.
    pub log_end: Position,
    /// How far the secondary is known to be, at a primary.
    pub acknowledged: Position,
    /// The last switch.
    pub switch: SwitchStatus,
    /// The last copy.
    pub copy: CopyStatus,
    /// Whether catchup runs.
    pub catching_up: bool,
    /// The last change of the state.
    pub last_change: Change,
    /// Since when `connect` is what it is.
    pub connect_since: SystemTime,
    /// Bytes sent to the secondary and not acknowledged.
    pub unacknowledged_bytes: usize,
    /// A change of the primary's does not fit this database.
    pub needs_netcopy: bool,
    /// The number that `perfmon` shows for state and activity.
    pub state_number: u8,
    /// What is under way; empty if nothing.
    pub activity: &'static str,
    /// Since when.
    pub activity_since: SystemTime,
    /// Transactions that the secondary lacked when it began.
    pub behind_at_begin: u64,
    /// Since when this node is a primary or a secondary; none for a plain server and before the first netcopy.
    pub role_since: Option<SystemTime>,
    /// How often the state has changed since the start.
    pub state_changes: u64,
    /// The role before the present one; the present one if there was no other since the start.
    pub previous_role: &'static str,
}

/// A change of the state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why.
    pub reason: &'static str,
    /// When.
    pub at: SystemTime,
}

/// Shared by all; written by the supervisor alone.
#[derive(Debug)]
pub struct NodeStatus {
    snapshot: RwLock<Snapshot>,
    shutting_down: AtomicBool,
}

impl NodeStatus {
    /// The picture of a node that starts.
    pub fn new(state: State) -> NodeStatus {
        let now = SystemTime::now();
        let has_role = state.is_primary() || state.is_secondary();
        let snapshot = RwLock::new(Snapshot {
            state,
            connect: ConnectStatus::Broken,
            decided: Position::ORIGIN,
            log_end: Position::ORIGIN,
            acknowledged: Position::ORIGIN,
            switch: SwitchStatus::Never,
            copy: CopyStatus::Never,
            catching_up: false,
            last_change: Change { from: state, to: state, reason: "started", at: now },
            connect_since: now,
            unacknowledged_bytes: 0,
            needs_netcopy: false,
            state_number: 0,
            activity: "",
            activity_since: now,
            behind_at_begin: 0,
            role_since: has_role.then_some(now),
            state_changes: 0,
            previous_role: state.role(),
        });
        NodeStatus { snapshot, shutting_down: AtomicBool::new(false) }
    }

    /// The picture now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server is going down: new clients are refused.
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }

    pub(super) fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    /// As HOTSTANDBY_STATE() answers.
    pub fn state_name(&self) -> String {
        self.state().name().to_string()
    }

    /// The state.
    pub fn state(&self) -> State {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).state
    }

    /// As HOTSTANDBY_CONNECTSTATUS() answers; empty for a plain server.
    pub fn connect_status(&self) -> String {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        if snapshot.state == State::Plain { String::new() } else { snapshot.connect.name().to_string() }
    }

    /// Whether clients that want to write should look for the other server.
    pub fn is_read_only(&self) -> bool {
        matches!(self.state(), State::SecondaryActive | State::SecondaryAlone | State::Offline)
    }

    pub(super) fn publish(&self, heart: &Heart) {
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        snapshot.state = heart.state();
        if snapshot.connect != heart.connect_status_now() {
            snapshot.connect = heart.connect_status_now();
            snapshot.connect_since = SystemTime::now();
        }
        snapshot.decided = heart.decided();
        snapshot.log_end = heart.log_end();
        snapshot.acknowledged = heart.acknowledged();
        snapshot.switch = heart.switch_status();
        if snapshot.copy != *heart.copy_status() {
            snapshot.copy = heart.copy_status().clone();
        }
        snapshot.catching_up = heart.is_catching_up();
        snapshot.unacknowledged_bytes = heart.unacknowledged_bytes();
        snapshot.needs_netcopy = heart.needs_netcopy();
        snapshot.state_number = state_number(heart);
        let activity = activity(heart);
        if snapshot.activity != activity {
            snapshot.activity = activity;
            snapshot.activity_since = SystemTime::now();
            snapshot.behind_at_begin =
                snapshot.log_end.sequence.saturating_sub(snapshot.acknowledged.sequence);
        }
    }

    /// Called for each change before those are answered whose transactions it decides.
    pub(super) fn changed(&self, from: State, to: State, reason: &'static str) {
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let at = SystemTime::now();
        snapshot.state = to;
        snapshot.last_change = Change { from, to, reason, at };
        snapshot.state_changes += 1;
        if from.role() != to.role() {
            snapshot.previous_role = from.role();
        }
        // STANDALONE counts as a primary.
        if from.is_primary() != to.is_primary() || from == State::Offline {
            snapshot.role_since = Some(at);
        }
    }
}

fn activity(heart: &Heart) -> &'static str {
    match heart.connect_status_now() {
        _ if *heart.copy_status() == CopyStatus::Active => "COPYING",
        _ if heart.switch_status() == SwitchStatus::Active => "SWITCHING",
        ConnectStatus::Connecting => "CONNECTING",
        ConnectStatus::Catchup => "CATCHING UP",
        ConnectStatus::Disconnecting => "DISCONNECTING",
        ConnectStatus::Connected | ConnectStatus::Broken => "",
    }
}

fn state_number(heart: &Heart) -> u8 {
    let primary = heart.state().is_primary();
    let of = |at_primary, at_secondary| if primary { at_primary } else { at_secondary };
    match (activity(heart), heart.state()) {
        (_, State::Plain) => 0,
        ("COPYING", _) => of(6, 13),
        ("SWITCHING", _) => of(4, 3),
        ("CONNECTING", _) => of(7, 14),
        ("CATCHING UP", _) => of(8, 15),
        ("DISCONNECTING", _) => of(9, 16),
        (_, State::Standalone) => 1,
        (_, State::Offline) => 2,
        (_, State::PrimaryAlone) => 5,
        (_, State::PrimaryActive) => 10,
        (_, State::PrimaryUncertain) => 11,
        (_, State::SecondaryAlone) => 12,
        (_, State::SecondaryActive) => 17,
    }
}
