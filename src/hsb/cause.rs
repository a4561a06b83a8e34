//! Why a server is in its state, for programs: `info hsbcause`, and `last_change.cause` in `hsb status json`.
//!
//! The sentences of [`super::table`] say the same to people and may be worded anew; nothing is decided by them.
//! Invariant: a word of this table keeps its meaning, and a reader that does not know one takes it for none that matters to it.

use super::table::{SHUTTING_DOWN, STARTED, TABLE, Trigger};

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Cause {
    /// The server has started in it.
    Started,
    /// This has happened.
    Change(Trigger),
    /// Whatever the state is, the server is gone in a moment.
    ShuttingDown,
}

impl Cause {
    /// As it is told.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Started => "started",
            Cause::ShuttingDown => "shutting_down",
            Cause::Change(trigger) => match trigger {
                Trigger::SetPrimaryAlone => "set_primary_alone",
                Trigger::SetSecondaryAlone => "set_secondary_alone",
                Trigger::SetStandalone => "set_standalone",
                Trigger::Switch => "switch",
                Trigger::SwitchFailed => "switch_failed",
                Trigger::Disconnect => "disconnect",
                Trigger::Connected => "connected",
                Trigger::LinkLost => "link_lost",
                Trigger::LinkLostAutoAlone => "link_lost_auto_alone",
                Trigger::PeerPromoted => "peer_promoted",
                Trigger::CopyArrived => "copy_arrived",
                Trigger::ApplyFailed => "apply_failed",
                Trigger::NoRoom => "no_room",
                Trigger::Diverged => "diverged",
                Trigger::LogFull => "log_full",
            },
        }
    }

    /// What a server means that tells this word.
    pub fn named(name: &str) -> Option<Cause> {
        let changes = TABLE.iter().map(|row| Cause::Change(row.trigger));
        [Cause::Started, Cause::ShuttingDown].into_iter().chain(changes).find(|cause| cause.name() == name)
    }

    /// What a server means that tells its sentence alone, because it is older than these words.
    pub fn of_older_server(reason: &str) -> Option<Cause> {
        match reason {
            STARTED => Some(Cause::Started),
            SHUTTING_DOWN => Some(Cause::ShuttingDown),
            _ => TABLE.iter().find(|row| row.reason == reason).map(|row| Cause::Change(row.trigger)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_change_has_its_word_and_is_known_by_it() {
        for row in TABLE {
            let cause = Cause::Change(row.trigger);
            assert_eq!(Cause::named(cause.name()), Some(cause), "{row:?}");
            assert_eq!(Cause::of_older_server(row.reason), Some(cause), "{row:?}");
        }
        for (cause, sentence) in [(Cause::Started, STARTED), (Cause::ShuttingDown, SHUTTING_DOWN)] {
            assert_eq!(
                (Cause::named(cause.name()), Cause::of_older_server(sentence)),
                (Some(cause), Some(cause))
            );
        }
        let changes: HashSet<Trigger> = TABLE.iter().map(|row| row.trigger).collect();
        let words: HashSet<&str> = changes.iter().map(|change| Cause::Change(*change).name()).collect();
        assert_eq!((words.len(), Cause::named("what a newer server says")), (changes.len(), None));
    }
}
