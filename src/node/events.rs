//! Events as they happen, for whoever subscribed. One line each: name, then what happened.

use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

/// A subscriber that falls this far behind is let go.
const BACKLOG_EVENTS: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct EventHub(Mutex<Vec<Sender<String>>>);

impl EventHub {
    /// Events from now on.
    pub fn subscribe(&self) -> Receiver<String> {
        let (sender, receiver) = bounded(BACKLOG_EVENTS);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Tells all subscribers, without waiting for any.
    pub fn post(&self, name: &str, text: &str) {
        let line = format!("{name} {text}");
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.try_send(line.clone()).is_ok());
    }
}
