//! While a client is idle: events for sessions that LISTEN, and settings that the node has changed.
//!
//! A session waits for its client and for the next event at the same time. Invariants: nothing is sent of its own accord
//! while an answer or a transaction is open; a session writes to its client on its own thread only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::codec::{self, MessageReader};
use super::connection::{Client, End};
use crate::error::ServerError;
use crate::services::events::{EVENTS, EventHub, Subscription};
use crate::sql::users;
use crate::stream::Woken;

/// More channels than there are events help nobody.
const MAX_CHANNELS: usize = 100;

/// What a session wants to hear.
pub(super) struct Listening {
    hub: Arc<EventHub>,
    /// As the client spelled them: it tells notifications apart by this.
    channels: Vec<String>,
    subscription: Option<Subscription>,
}

impl Listening {
    pub(super) fn new(hub: Arc<EventHub>) -> Listening {
        Listening { hub, channels: Vec::new(), subscription: None }
    }

    /// LISTEN; a warning if no event has this name.
    pub(super) fn listen(&mut self, channel: &str) -> Result<Option<String>, ServerError> {
        if self.channels.iter().any(|known| known == channel) {
            return Ok(None);
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(ServerError::sql(
                "54000",
                format!("a session listens to {MAX_CHANNELS} channels at most"),
            ));
        }
        if self.subscription.is_none() {
            self.subscription = Some(self.hub.subscribe());
        }
        self.channels.push(channel.to_owned());
        let is_known = EVENTS.iter().any(|event| event.0.eq_ignore_ascii_case(channel));
        let names = || EVENTS.map(|event| event.0).join(", ");
        Ok((!is_known).then(|| format!("no event is called \"{channel}\"; there are {}", names())))
    }

    /// UNLISTEN; none: all.
    pub(super) fn unlisten(&mut self, channel: Option<&str>) {
        self.channels.retain(|known| channel.is_some_and(|channel| channel != known));
        if self.channels.is_empty() {
            self.subscription = None;
        }
    }

    /// Appends what has happened since the last time.
    fn append_news(&mut self, out: &mut Vec<u8>) {
        while let Some(subscription) = &mut self.subscription {
            match subscription.wait(Duration::ZERO) {
                Ok(None) => return,
                Ok(Some(event)) => {
                    let wanted = |channel: &&String| channel.eq_ignore_ascii_case(&event.name);
                    for channel in self.channels.iter().filter(wanted) {
                        codec::notification(out, channel, &event.json());
                    }
                }
                Err(missed) => {
                    self.unlisten(None);
                    codec::notice(out, "01000", &format!("{missed}; LISTEN again"));
                }
            }
        }
    }
}

impl Client<'_> {
    /// Before ReadyForQuery and while idle: what the client should know and has not asked for.
    pub(super) fn append_news(&mut self) {
        let read_only = self.session.context.status.is_read_only();
        if self.settings_changed || read_only != self.told_read_only {
            self.told_read_only = read_only;
            self.settings_changed = false;
            self.report_settings();
        }
        if !self.session.in_transaction() {
            self.listening.append_news(&mut self.out);
        }
    }

    /// Waits until the client says something; tells it meanwhile what happens.
    pub(super) fn wait_at_rest(&mut self, reader: &MessageReader) -> Result<(), End> {
        let in_transaction = self.session.in_transaction();
        let settings = &self.session.settings;
        let idle = if in_transaction { settings.idle_in_transaction_timeout } else { settings.idle_timeout };
        let deadline = idle.map(|limit| Instant::now() + limit);
        while !reader.has_input() {
            let last = self.listening.hub.last();
            // One that is over costs a descriptor as long as anybody holds it.
            self.pulse.take_if(|pulse| pulse.0 != last);
            if !in_transaction && self.pulse.is_none() {
                // First the pulse, then a look, then the wait: nothing can slip through in between.
                self.pulse = self.listening.hub.pulse().map(|pulse| (last, pulse));
                self.append_news();
                self.flush()?;
            }
            let pulse = self.pulse.as_ref().filter(|_| !in_transaction).map(|pulse| &pulse.1);
            match reader.wait(pulse.map(AsRef::as_ref), deadline) {
                Woken::Input => return Ok(()),
                Woken::Pulse => {}
                Woken::TimedOut if in_transaction => {
                    let text = "terminating connection due to idle-in-transaction timeout";
                    return Err(End::Fatal(ServerError::sql("25P03", text)));
                }
                Woken::TimedOut => {
                    let text = "terminating connection due to idle-session timeout";
                    return Err(End::Fatal(ServerError::sql("57P05", text)));
                }
            }
        }
        Ok(())
    }

    /// Rights may have been changed, here or at the primary, since this session was asked for its password.
    pub(super) fn check_user(&mut self) -> Result<(), End> {
        let generation = self.session.context.database.schema_generation();
        // What still reads an old snapshot knows of nothing new.
        let reads_on = !self.session.reader.is_autocommit() || !self.portals.is_empty();
        if generation == self.checked_generation || reads_on {
            return Ok(());
        }
        let user = &self.session.identity.user;
        match users::find(self.session.reader, user) {
            Ok(Some((role, _))) => {
                self.settings_changed |= role != self.session.role;
                self.session.role = role;
                self.checked_generation = generation;
                Ok(())
            }
            Ok(None) => {
                Err(End::Fatal(ServerError::sql("57P01", format!("user \"{user}\" does not exist any more"))))
            }
            Err(error) => Err(End::Fatal(error)),
        }
    }
}
