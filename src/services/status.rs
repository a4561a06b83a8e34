//! What everybody may know of the node at any time without asking an actor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use super::events::{EventHub, HINDERED};
use crate::hsb::advice::Remedy;
use crate::hsb::cause::Cause;
use crate::hsb::codes::Code;
use crate::hsb::effect::ConnectStatus;
use crate::hsb::heart::Heart;
use crate::hsb::phase::{Activity, CopyStatus, SwitchStatus};
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::hsb::settings::Settings;
use crate::hsb::state::{StartTime, State, start_time_set_by};
use crate::hsb::table::{STARTED, Transition};

/// What is remembered of the server that ran here last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    /// None: there was none, or a plain server.
    pub(crate) state: Option<State>,
    /// The role before that state's; may be empty.
    pub(crate) previous_role: &'static str,
    /// The last switch.
    pub(crate) switch: SwitchStatus,
}

/// A picture of the heart.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The state.
    pub state: State,
    /// The connection.
    pub connect: ConnectStatus,
    /// What it decides by: while connected, the primary's where that rules.
    pub settings: Settings,
    /// Decided up to here.
    pub decided: Position,
    /// The end of the log.
    pub log_end: Position,
    /// How far the secondary is known to be, at a primary.
    pub acknowledged: Position,
    /// Why the last attempt to connect has failed, until there is another attempt.
    pub connect_failure: Option<Refusal>,
    /// What a secondary needs before it can follow.
    pub remedy: Remedy,
    /// The last switch.
    pub switch: SwitchStatus,
    /// The last copy.
    pub copy: CopyStatus,
    /// Since when `copy` is what it is.
    pub copy_since: SystemTime,
    /// Why there are no writes although the state would allow them: the disk is full.
    pub lacks_room: Option<String>,
    /// Why what was received cannot be executed for now although it fits, in a sentence.
    pub hindered: Option<String>,
    /// What is under way.
    pub activity: Activity,
    /// Since when the node is a primary; the last time it became one, if it is none now.
    pub primary_since: Option<SystemTime>,
    /// The same for a secondary.
    pub secondary_since: Option<SystemTime>,
    /// The last change of the state.
    pub last_change: Change,
    /// Since when `connect` is what it is.
    pub connect_since: SystemTime,
    /// Bytes sent to the secondary and not acknowledged.
    pub unacknowledged_bytes: usize,
    /// A change of the primary's does not fit this database.
    pub needs_netcopy: bool,
    /// How often the state has changed since the start.
    pub state_changes: u64,
    /// The role before the present one; the present one if there was no other since the database was created here.
    pub previous_role: &'static str,
}

/// A change of the state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why, as programs read it.
    pub cause: Cause,
    /// Why, as people read it.
    pub reason: &'static str,
    /// When.
    pub at: SystemTime,
}

/// Shared by all; written by the supervisor, but for `hindered`.
#[derive(Debug)]
pub struct NodeStatus {
    snapshot: RwLock<Snapshot>,
    shutting_down: AtomicBool,
}

impl NodeStatus {
    /// The picture of a server without HotStandby that starts.
    #[cfg(test)]
    pub(crate) fn plain(settings: Settings) -> NodeStatus {
        let past = Past { state: None, previous_role: "", switch: SwitchStatus::Never };
        NodeStatus::new(State::Plain, settings, past)
    }

    /// The picture of a node that starts.
    pub(crate) fn new(state: State, settings: Settings, past: Past) -> NodeStatus {
        let now = SystemTime::now();
        // A start is a change of the role like any other.
        let was = past.state.map_or("", State::role);
        let other = Some(was).filter(|was| !was.is_empty() && *was != state.role());
        let previous = other.or(Some(past.previous_role).filter(|role| !role.is_empty()));
        let snapshot = RwLock::new(Snapshot {
            state,
            connect: ConnectStatus::Broken,
            connect_failure: None,
            remedy: Remedy::Connect,
            settings,
            decided: Position::ORIGIN,
            log_end: Position::ORIGIN,
            acknowledged: Position::ORIGIN,
            switch: past.switch,
            copy: CopyStatus::Never,
            copy_since: now,
            lacks_room: None,
            hindered: None,
            activity: Activity::Idle,
            primary_since: None,
            secondary_since: state.is_secondary().then_some(now),
            last_change: Change { from: state, to: state, cause: Cause::Started, reason: STARTED, at: now },
            connect_since: now,
            unacknowledged_bytes: 0,
            needs_netcopy: false,
            state_changes: 0,
            previous_role: previous.unwrap_or(state.role()),
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

    /// Why nobody may have an SQL session now; none: everybody who may log in.
    pub fn why_no_sessions(&self) -> Option<Code> {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        match (snapshot.state, snapshot.activity) {
            (State::Offline, _) => Some(Code::BACKUPSERVER_NO_CONNECTIONS),
            // It is being replaced.
            (state, Activity::Copying) if !state.is_primary() => Some(Code::SERVER_CLOSED),
            _ => self.is_shutting_down().then_some(Code::SHUTTING_DOWN),
        }
    }

    pub(crate) fn begin_shutdown(&self) {
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

    /// Said by the apply thread: what the heart decides does not depend on it.
    pub(crate) fn hindered(&self, by: Option<&str>, events: &EventHub) {
        let text = by.map_or_else(
            || "The database can be written again: what was received is executed.".to_owned(),
            |by| {
                format!(
                    "The database cannot be written now ({by}): what is received is kept in the log and executed when it can; end the program that has the database open, or give the system what it lacks. No netcopy is needed."
                )
            },
        );
        log::warn!("{text}");
        events.post(HINDERED, &text);
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        snapshot.hindered = by.map(|_| text);
    }

    pub(crate) fn publish(&self, heart: &Heart) {
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        snapshot.state = heart.state();
        if snapshot.connect != heart.connect_status_now() {
            snapshot.connect = heart.connect_status_now();
            snapshot.connect_since = SystemTime::now();
        }
        snapshot.remedy = heart.remedy();
        if snapshot.connect_failure.as_ref() != heart.connect_failure() {
            snapshot.connect_failure = heart.connect_failure().cloned();
        }
        snapshot.decided = heart.decided();
        snapshot.log_end = heart.log_end();
        snapshot.acknowledged = heart.acknowledged();
        snapshot.settings = heart.settings();
        snapshot.switch = heart.switch_status();
        if snapshot.copy != *heart.copy_status() {
            snapshot.copy = heart.copy_status().clone();
            snapshot.copy_since = SystemTime::now();
        }
        snapshot.lacks_room = heart.lacks_room().map(str::to_owned);
        snapshot.unacknowledged_bytes = heart.unacknowledged_bytes();
        snapshot.needs_netcopy = heart.needs_netcopy();
        snapshot.activity = heart.activity();
    }

    /// Called for each change before those are answered whose transactions it decides.
    pub(crate) fn changed(&self, Transition { from, trigger, to, reason }: Transition) {
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let at = SystemTime::now();
        snapshot.state = to;
        snapshot.last_change = Change { from, to, cause: Cause::Change(trigger), reason, at };
        snapshot.state_changes += 1;
        match start_time_set_by(from, to) {
            Some(StartTime::Primary) => snapshot.primary_since = Some(at),
            Some(StartTime::Secondary) => snapshot.secondary_since = Some(at),
            None => {}
        }
        match from.role() {
            // A server that waits for a netcopy has none.
            "" if snapshot.previous_role.is_empty() => snapshot.previous_role = to.role(),
            "" => {}
            role if role != to.role() => snapshot.previous_role = role,
            _ => {}
        }
    }
}
