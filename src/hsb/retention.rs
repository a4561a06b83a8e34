//! Heart, part retention: how much log is kept, and for whom.
//!
//! A log file is kept while the database file alone does not hold what is in it (the last checkpoint), while the peer
//! may need it (PRIMARY ACTIVE, ALONE and UNCERTAIN: since the peer was last connected), and, where the settings say
//! so, until a backup was made. With MaxLogSize the peer's claim ends: a PRIMARY ALONE becomes STANDALONE.

use super::event::Effect;
use super::heart::Heart;
use super::position::Position;
use super::state::State;

/// What is known of the log's size and needs.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Retention {
    /// The database file holds everything up to here.
    checkpoint: Position,
    /// The last backup does.
    backup: Position,
    /// Bytes in the log.
    log_bytes: u64,
    /// The operator has been told that the limit is near.
    warned: bool,
}

impl Heart {
    /// Bytes in the log, as last reported.
    pub fn log_bytes(&self) -> u64 {
        self.retention.log_bytes
    }

    pub(super) fn checkpointed(&mut self, position: Position) {
        self.retention.checkpoint = position;
        self.retain();
    }

    pub(super) fn backed_up(&mut self, position: Position) {
        self.retention.backup = position;
        self.retain();
    }

    fn retain(&mut self) {
        self.effects.push(Effect::Retain(self.needed_from()));
    }

    /// From where the log is needed.
    fn needed_from(&self) -> Position {
        let Retention { checkpoint, backup, .. } = self.retention;
        let mut needed = checkpoint;
        let for_peer =
            matches!(self.state, State::PrimaryActive | State::PrimaryAlone | State::PrimaryUncertain);
        if for_peer && self.acknowledged.sequence < needed.sequence {
            needed = self.acknowledged;
        }
        if !self.settings.log.delete_at_checkpoint {
            let kept = if self.settings.log.delete_at_backup { backup } else { Position::ORIGIN };
            if kept.sequence < needed.sequence {
                needed = kept;
            }
        }
        needed
    }

    /// The log's size has changed; `retained`: what nobody needs was deleted just before, after a checkpoint.
    pub(super) fn log_size(&mut self, bytes: u64, retained: bool) {
        self.retention.log_bytes = bytes;
        let keeps = matches!(self.state, State::PrimaryAlone | State::PrimaryUncertain);
        let limit = self.settings.log.maximum_bytes.filter(|limit| keeps && bytes >= limit / 5 * 4);
        let Some(limit) = limit else {
            self.retention.warned = false;
            return;
        };
        if !std::mem::replace(&mut self.retention.warned, true) {
            let text = format!(
                "The log for the other server has {bytes} bytes; at {limit} (HotStandby.MaxLogSize) this server goes on without it, STANDALONE. Connect the servers, or raise the limit."
            );
            self.alert("SYS_EVENT_HSBLOGSIZE", text);
        }
        if bytes >= limit && retained {
            self.log_full();
            self.retain();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Event;
    use super::super::phase::Phase;
    use super::super::position::Chain;
    use super::super::settings::LogSettings;
    use super::super::tests::{SETTINGS, heart};
    use super::*;

    fn position(sequence: u64) -> Position {
        Position { epoch: 1, sequence, chain: Chain([sequence as u8; 16]) }
    }

    fn retained(effects: &[Effect]) -> Option<u64> {
        effects.iter().rev().find_map(|effect| match effect {
            Effect::Retain(position) => Some(position.sequence),
            _ => None,
        })
    }

    fn limited(state: State, log: LogSettings) -> Heart {
        let mut heart = heart(state);
        heart.set_settings(super::super::settings::Settings { log, ..SETTINGS });
        heart.acknowledged = position(30);
        heart
    }

    const UNLIMITED: LogSettings =
        LogSettings { maximum_bytes: None, delete_at_checkpoint: true, delete_at_backup: true };

    #[test]
    fn the_log_is_kept_for_checkpoint_peer_and_backup() {
        let at = |state, log| {
            retained(&limited(state, log).handle(Event::Checkpointed { position: position(50) }))
        };
        for state in [State::PrimaryAlone, State::PrimaryActive, State::PrimaryUncertain] {
            assert_eq!(at(state, UNLIMITED), Some(30), "{state}");
        }
        for state in [State::Standalone, State::SecondaryActive, State::SecondaryAlone, State::Plain] {
            assert_eq!(at(state, UNLIMITED), Some(50), "{state}");
        }
        let until_backup = LogSettings { delete_at_checkpoint: false, ..UNLIMITED };
        let mut heart = limited(State::Standalone, until_backup);
        assert_eq!(retained(&heart.handle(Event::Checkpointed { position: position(50) })), Some(0));
        assert_eq!(retained(&heart.handle(Event::BackedUp { position: position(40) })), Some(40));
        assert_eq!(retained(&heart.handle(Event::BackedUp { position: position(60) })), Some(50));
        let for_ever = LogSettings { delete_at_backup: false, ..until_backup };
        let mut heart = limited(State::Standalone, for_ever);
        heart.handle(Event::BackedUp { position: position(40) });
        assert_eq!(retained(&heart.handle(Event::Checkpointed { position: position(50) })), Some(0));
        // What has been checkpointed is not needed, but what the peer lacks is.
        let mut heart = limited(State::PrimaryAlone, until_backup);
        heart.handle(Event::Checkpointed { position: position(50) });
        assert_eq!(retained(&heart.handle(Event::BackedUp { position: position(60) })), Some(30));
    }

    #[test]
    fn a_log_at_its_limit_is_told_of_and_given_up_at_a_checkpoint() {
        let log = LogSettings { maximum_bytes: Some(1000), ..UNLIMITED };
        let mut heart = limited(State::PrimaryAlone, log);
        heart.handle(Event::Checkpointed { position: position(50) });
        let alerts = |effects: &[Effect]| {
            effects.iter().filter(|effect| matches!(effect, Effect::Alert { .. })).count()
        };
        assert_eq!(alerts(&heart.handle(Event::LogSize { bytes: 799, retained: true })), 0);
        assert_eq!(alerts(&heart.handle(Event::LogSize { bytes: 800, retained: false })), 1);
        assert_eq!(alerts(&heart.handle(Event::LogSize { bytes: 900, retained: true })), 0, "told twice");
        heart.handle(Event::LogSize { bytes: 2000, retained: false });
        assert_eq!(heart.state(), State::PrimaryAlone, "before the checkpoint");
        let effects = heart.handle(Event::LogSize { bytes: 1000, retained: true });
        assert_eq!(heart.state(), State::Standalone);
        assert_eq!(retained(&effects), Some(50), "the log is not released");
    }

    #[test]
    fn connected_uncertain_or_busy_the_log_is_not_given_up() {
        let log = LogSettings { maximum_bytes: Some(1000), ..UNLIMITED };
        for state in [State::PrimaryActive, State::PrimaryUncertain, State::SecondaryAlone] {
            let mut heart = limited(state, log);
            heart.handle(Event::LogSize { bytes: 5000, retained: true });
            assert_eq!(heart.state(), state);
        }
        let mut heart = limited(State::PrimaryAlone, log);
        heart.phase = Phase::CopyingOut;
        heart.handle(Event::LogSize { bytes: 5000, retained: true });
        assert_eq!(heart.state(), State::PrimaryAlone);
    }
}
