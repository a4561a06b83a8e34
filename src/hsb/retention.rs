//! Heart, part retention: how much log is kept, and for whom.
//!
//! A log file is kept while the database file alone does not hold what is in it (the last checkpoint, if checkpoints may
//! delete log) and while the peer may need it: since it was last connected. With MaxLogSize the peer's claim ends: a
//! PRIMARY ALONE becomes STANDALONE.

use super::effect::LogWriterEffect;
use super::heart::Heart;
use super::position::Position;
use super::severity::Severity;
use super::state::State;

/// Event: the log that is kept for the other server is near its limit, or there.
pub const LOG_SIZE: &str = "SYS_EVENT_HSBLOGSIZE";

/// What is known of the log's size and needs.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Retention {
    /// This node itself needs the log from here.
    own: Position,
    /// The operator has been told that the limit is near.
    warned: bool,
}

impl Heart {
    pub(super) fn checkpointed(&mut self, position: Position, delete_log: bool) {
        if delete_log {
            self.retention.own = position;
        }
        self.retain();
    }

    fn retain(&mut self) {
        self.want(LogWriterEffect::RetainFrom(self.needed_from()));
    }

    /// A primary that keeps the log for its peer needs it from where the peer is known to be, and so does a node that
    /// may have been one before it was started, or may become one again.
    fn needed_from(&self) -> Position {
        let own = self.retention.own;
        let for_peer = matches!(
            self.state,
            State::PrimaryActive | State::PrimaryAlone | State::PrimaryUncertain | State::SecondaryAlone
        );
        if for_peer && self.acknowledged.sequence < own.sequence { self.acknowledged } else { own }
    }

    /// The log's size has changed; `retained`: what nobody needs was deleted just before, after a checkpoint.
    pub(super) fn log_size(&mut self, bytes: u64, retained: bool) {
        let keeps = matches!(self.state, State::PrimaryAlone | State::PrimaryUncertain);
        let limit = self.settings.maximum_log_bytes.filter(|limit| keeps && bytes >= limit / 5 * 4);
        let Some(limit) = limit else {
            self.retention.warned = false;
            return;
        };
        if !std::mem::replace(&mut self.retention.warned, true) {
            let text = format!(
                "The log for the other server has {bytes} bytes; at {limit} (HotStandby.MaxLogSize) this server goes on without it, STANDALONE. Connect the servers, or raise the limit."
            );
            self.alert(LOG_SIZE, Severity::Warning, text);
        }
        if bytes >= limit && retained {
            self.log_full();
            self.retain();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::effect::{Effect, NodeEffect};
    use super::super::event::Event;
    use super::super::phase::Phase;
    use super::super::position::Chain;
    use super::super::settings::Settings;
    use super::super::tests::{SETTINGS, heart};
    use super::*;

    fn position(sequence: u64) -> Position {
        Position { epoch: 1, sequence, chain: Chain([sequence as u8; 16]) }
    }

    fn retained(effects: &[Effect]) -> Option<u64> {
        effects.iter().rev().find_map(|effect| match effect {
            Effect::LogWriter(LogWriterEffect::RetainFrom(position)) => Some(position.sequence),
            _ => None,
        })
    }

    fn limited(state: State, maximum_log_bytes: Option<u64>) -> Heart {
        let mut heart = heart(state);
        heart.settings = Settings { maximum_log_bytes, ..SETTINGS };
        heart.acknowledged = position(30);
        heart
    }

    #[test]
    fn the_log_is_kept_for_checkpoint_and_peer() {
        let checkpoint =
            |sequence, delete_log| Event::Checkpointed { position: position(sequence), delete_log };
        for (state, needed) in [
            (State::PrimaryAlone, 30),
            (State::PrimaryActive, 30),
            (State::PrimaryUncertain, 30),
            (State::SecondaryAlone, 30),
            (State::Standalone, 50),
            (State::SecondaryActive, 50),
            (State::Plain, 50),
        ] {
            let mut heart = limited(state, None);
            assert_eq!(retained(&heart.handle(checkpoint(40, false))), Some(0), "{state}");
            assert_eq!(retained(&heart.handle(checkpoint(50, true))), Some(needed), "{state}");
        }
        // Where the checkpoint is behind the peer, recovery needs the log.
        let mut heart = limited(State::PrimaryActive, None);
        assert_eq!(retained(&heart.handle(checkpoint(20, true))), Some(20));
    }

    #[test]
    fn a_log_at_its_limit_is_told_of_and_given_up_at_a_checkpoint() {
        let mut heart = limited(State::PrimaryAlone, Some(1000));
        heart.handle(Event::Checkpointed { position: position(50), delete_log: true });
        let alerts = |effects: &[Effect]| {
            effects.iter().filter(|effect| matches!(effect, Effect::Node(NodeEffect::Alert { .. }))).count()
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
        for state in [State::PrimaryActive, State::PrimaryUncertain, State::SecondaryAlone] {
            let mut heart = limited(state, Some(1000));
            heart.handle(Event::LogSize { bytes: 5000, retained: true });
            assert_eq!(heart.state(), state);
        }
        let mut heart = limited(State::PrimaryAlone, Some(1000));
        heart.phase = Phase::CopyingOut;
        heart.handle(Event::LogSize { bytes: 5000, retained: true });
        assert_eq!(heart.state(), State::PrimaryAlone);
    }
}
