//! Events: what happened to the node, for SQL sessions (LISTEN), consoles (`watch`) and programs that embed it.
//!
//! The last [`KEPT_EVENTS`] are kept; each subscription reads them at its own pace. Not here: what is posted and when.
//! Invariants: posting never waits; everybody hears events in the order in which they were posted; a subscription that
//! falls behind what is kept is told so and goes on with what comes next.

use std::collections::VecDeque;
use std::io::{PipeReader, PipeWriter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::hsb::{CONNECT_FAILED, DISK_FULL, DISK_ROOM, LOG_SIZE, SWITCH_FAILED};

/// A reader that falls this far behind has missed something.
pub const KEPT_EVENTS: usize = 1024;

/// The state of the server has changed; the text is the new one.
pub const STATE_SWITCH: &str = "SYS_EVENT_HSBSTATESWITCH";
/// The connection to the other server has changed; the text is CONNECTED, CONNECTING, CATCHUP, DISCONNECTING or BROKEN.
pub const CONNECT_STATUS: &str = "SYS_EVENT_HSBCONNECTSTATUS";
/// A netcopy has ended.
pub const NETCOPY_END: &str = "SYS_EVENT_NETCOPYEND";
/// A netcopy to this server is asked for.
pub const NETCOPY_REQUEST: &str = "SYS_EVENT_NETCOPYREQ";

/// A session that reads from an old snapshot keeps SQLite's log from starting over: it is warned of, or was ended.
pub const SNAPSHOT: &str = "SYS_EVENT_SNAPSHOT";

/// The database cannot be written for a reason that passes, or it can be written again.
pub const HINDERED: &str = "SYS_EVENT_HINDERED";

/// All events and when they are posted.
pub const EVENTS: [(&str, &str); 11] = [
    (STATE_SWITCH, "the state has changed; the text is the new state"),
    (CONNECT_STATUS, "the connection has changed; CONNECTED, CONNECTING, CATCHUP, DISCONNECTING or BROKEN"),
    (CONNECT_FAILED, "an attempt to connect the servers has failed; the text is code and reason"),
    (SWITCH_FAILED, "a switch that had begun has failed; the text is code and reason"),
    (NETCOPY_END, "a netcopy has ended"),
    (NETCOPY_REQUEST, "a netcopy to this server is asked for"),
    (DISK_FULL, "the disk is full; the text says which"),
    (DISK_ROOM, "there is room on the disk again"),
    (LOG_SIZE, "the log kept for the other server has reached 80 % of HotStandby.MaxLogSize, or all of it"),
    (
        HINDERED,
        "the secondary cannot write its database for a reason that passes (a lock, no memory), or it can again",
    ),
    (
        SNAPSHOT,
        "a session's old snapshot makes SQLite's log grow (General.SnapshotMaxSize), or it was ended for that",
    ),
];

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// One of [`EVENTS`].
    pub name: String,
    /// When it was posted.
    pub posted: SystemTime,
    /// Its number, from 1, since the node started.
    pub number: u64,
    /// The particulars; may be empty.
    pub text: String,
}

impl Event {
    /// How many data items it carries: the text, or nothing.
    pub fn data_items(&self) -> u32 {
        u32::from(!self.text.is_empty())
    }

    /// As a JSON object with the names of the source: ENAME, POSTSRVTIME, UID, NUMDATAINFO, TEXTDATA.
    pub fn json(&self) -> String {
        let shown = Shown {
            ename: &self.name,
            postsrvtime: crate::calendar::log_text(self.posted),
            uid: self.number,
            numdatainfo: self.data_items(),
            textdata: &self.text,
        };
        // Texts and numbers can always be shown.
        serde_json::to_string(&shown).unwrap_or_default()
    }

    /// As a line of text.
    pub fn line(&self) -> String {
        format!("{} {}", self.name, self.text.replace(['\n', '\r'], " ")).trim_end().to_owned()
    }
}

/// An event as its listeners see it: the names and their order are the source's.
#[derive(Serialize)]
#[serde(rename_all = "UPPERCASE")]
struct Shown<'a> {
    ename: &'a str,
    postsrvtime: String,
    uid: u64,
    numdatainfo: u32,
    textdata: &'a str,
}

/// See the module.
pub struct EventHub {
    inner: Mutex<Inner>,
    posted: Condvar,
    /// Number of the last event, for a look without the lock.
    last: AtomicU64,
}

struct Inner {
    kept: VecDeque<Arc<Event>>,
    /// Closed by the next event, which wakes everybody who polls the other end.
    pulse: Option<(Arc<PipeReader>, PipeWriter)>,
}

/// Ends a poll when the next event is posted: nothing is ever written, but then it is at its end.
pub type Pulse = Arc<PipeReader>;

impl Default for EventHub {
    fn default() -> EventHub {
        let inner = Inner { kept: VecDeque::new(), pulse: new_pulse() };
        EventHub { inner: Mutex::new(inner), posted: Condvar::new(), last: AtomicU64::new(0) }
    }
}

fn new_pulse() -> Option<(Arc<PipeReader>, PipeWriter)> {
    std::io::pipe().ok().map(|(reader, writer)| (Arc::new(reader), writer))
}

impl EventHub {
    /// Tells all subscribers, without waiting for any.
    pub fn post(&self, name: &str, text: &str) {
        let mut inner = self.lock();
        let number = self.last.load(Ordering::Relaxed) + 1;
        let (name, text, posted) = (name.to_owned(), text.to_owned(), SystemTime::now());
        inner.kept.push_back(Arc::new(Event { name, posted, number, text }));
        if inner.kept.len() > KEPT_EVENTS {
            inner.kept.pop_front();
        }
        self.last.store(number, Ordering::Release);
        // Without a new pipe (no descriptors left) the old one stays: who polls hears of it a little later.
        if let Some(pulse) = new_pulse() {
            inner.pulse = Some(pulse);
        }
        drop(inner);
        self.posted.notify_all();
    }

    /// Events from now on.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription { next: self.last() + 1, hub: Arc::clone(self) }
    }

    /// Number of the last event.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Wakes polls at the next event. Ask for it first, then look for events, then poll.
    pub fn pulse(&self) -> Option<Pulse> {
        self.lock().pulse.as_ref().map(|(reader, _)| Arc::clone(reader))
    }

    /// The last event of this name that is still kept.
    pub fn latest(&self, name: &str) -> Option<Arc<Event>> {
        self.lock().kept.iter().rfind(|event| event.name == name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many events were not kept long enough for a slow reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} events were missed: they came faster than they were taken")]
pub struct Missed(pub u64);

/// Events in order, from the subscription on.
pub struct Subscription {
    hub: Arc<EventHub>,
    next: u64,
}

impl Subscription {
    /// The next event; none if there is none within `patience`. After [`Missed`] it goes on with what comes next.
    pub fn wait(&mut self, patience: Duration) -> Result<Option<Arc<Event>>, Missed> {
        let deadline = Instant::now() + patience;
        let mut inner = self.hub.lock();
        loop {
            let last = self.hub.last();
            if self.next <= last {
                let behind = last - self.next;
                let at = inner.kept.len().checked_sub(1 + usize::try_from(behind).unwrap_or(usize::MAX));
                let event = at.and_then(|at| inner.kept.get(at).cloned());
                self.next = if event.is_some() { self.next + 1 } else { last + 1 };
                return event.map(Some).ok_or(Missed(behind + 1));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let waited = self.hub.posted.wait_timeout(inner, left);
            inner = waited.map_or_else(|error| error.into_inner().0, |waited| waited.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_hears_everything_in_order() {
        let hub = Arc::new(EventHub::default());
        hub.post(STATE_SWITCH, "before");
        let mut subscriptions = [hub.subscribe(), hub.subscribe()];
        hub.post(STATE_SWITCH, "PRIMARY ALONE");
        hub.post(NETCOPY_END, "");
        for subscription in &mut subscriptions {
            let mut next = || subscription.wait(Duration::ZERO).unwrap();
            let first = next().unwrap();
            assert_eq!((first.line(), first.number), (format!("{STATE_SWITCH} PRIMARY ALONE"), 2));
            let second = next().unwrap();
            assert_eq!((second.line(), second.data_items()), (NETCOPY_END.to_owned(), 0));
            assert_eq!(next(), None);
        }
        assert_eq!(hub.latest(STATE_SWITCH).unwrap().number, 2);
    }

    #[test]
    fn who_waits_is_woken() {
        let hub = Arc::new(EventHub::default());
        let mut subscription = hub.subscribe();
        let pulse = hub.pulse().unwrap();
        let poster = Arc::clone(&hub);
        let thread = std::thread::spawn(move || poster.post(DISK_FULL, "x"));
        let event = subscription.wait(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(event.name, DISK_FULL);
        // At its end: the read does not wait.
        assert_eq!(std::io::Read::read(&mut &*pulse, &mut [0]).unwrap(), 0);
        thread.join().unwrap();
    }

    #[test]
    fn who_is_too_slow_is_told() {
        let hub = Arc::new(EventHub::default());
        let mut slow = hub.subscribe();
        let posted = KEPT_EVENTS as u64 + 5;
        (0..posted).for_each(|_| hub.post(STATE_SWITCH, "x"));
        assert_eq!(slow.wait(Duration::ZERO), Err(Missed(posted)));
        assert_eq!(slow.wait(Duration::ZERO), Ok(None));
        hub.post(STATE_SWITCH, "y");
        assert_eq!(slow.wait(Duration::ZERO).unwrap().unwrap().text, "y");
    }

    #[test]
    fn json_is_json() {
        let posted = SystemTime::UNIX_EPOCH;
        let event = Event { name: DISK_FULL.into(), posted, number: 7, text: "a \"b\\c\"\n".into() };
        let time = crate::calendar::log_text(posted);
        let expected = format!(
            r#"{{"ENAME":"SYS_EVENT_DISKFULL","POSTSRVTIME":"{time}","UID":7,"NUMDATAINFO":1,"TEXTDATA":"a \"b\\c\"\n"}}"#
        );
        assert_eq!(event.json(), expected);
    }
}
