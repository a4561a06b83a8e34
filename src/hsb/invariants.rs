//! Heart, part invariants: what must hold after every event, looked at in release builds, too.
//!
//! A few comparisons per event. When one does not hold, something is wrong with this program, and the heart decides
//! nothing any more: whatever the event would have brought about is dropped, and the one effect left is the end of the
//! process ([`NodeEffect::Stop`]), before a client or the other server is told anything that is wrong. What was decided
//! before is in the log: the next start recovers it, and the peer takes over as after any crash.

use super::effect::{Effect, NodeEffect};
use super::heart::{Heart, InFlight};
use super::position::Position;
use super::state::State;

/// The heart before an event, as far as what follows depends on it.
pub(super) struct Before {
    state: State,
    decided: Position,
    in_flight: Option<InFlight>,
}

impl Heart {
    pub(super) fn before_event(&self) -> Before {
        Before { state: self.state, decided: self.decided, in_flight: self.in_flight }
    }

    /// The effects of an event, or the end of the process.
    pub(super) fn checked(&mut self, before: &Before) -> Vec<Effect> {
        let effects = std::mem::take(&mut self.effects);
        match self.broken(before) {
            None => effects,
            Some(rule) => vec![NodeEffect::Stop { why: self.what_is_wrong(rule, before) }.into()],
        }
    }

    fn broken(&self, before: &Before) -> Option<&'static str> {
        let is_writable = |state: State| state == State::Plain || state.is_primary();
        let has_batch = self.in_flight.is_some();
        let lies_at_the_end =
            |batch: InFlight| batch.info.before == self.decided && batch.info.after == self.log_end;
        // A secondary's position comes from its database.
        let has_decided = before.decided != self.decided && is_writable(before.state);
        let decided = before.in_flight.filter(|_| has_decided);
        let is_active = before.state == State::PrimaryActive && self.state == State::PrimaryActive;
        let rules = [
            (self.decided.sequence <= self.log_end.sequence, "what is decided is in the log"),
            (
                self.decided == self.log_end || has_batch || self.pending || self.shutting_down,
                "what is in the log is decided, in flight or pending",
            ),
            (
                self.in_flight.is_none_or(lies_at_the_end),
                "the batch in flight is all that the log has after what is decided",
            ),
            (!has_batch || is_writable(self.state), "only who may write has a batch in flight"),
            (!has_batch || !self.held, "no batch is held while another is in flight"),
            (
                !has_decided || decided.is_some_and(|batch| batch.info.after == self.decided),
                "who may write decides the batch that was in flight and nothing else",
            ),
            (
                decided.is_none_or(|batch| {
                    !is_active
                        || !batch.info.needs_acknowledgement
                        || self.acknowledged.sequence >= self.decided.sequence
                }),
                "what is 2-safe is decided once the secondary has it",
            ),
        ];
        rules.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule))
    }

    fn what_is_wrong(&self, rule: &str, before: &Before) -> String {
        format!(
            "not true any more: {rule}. {} at {} before, {} at {} now, log up to {}, acknowledged {}, in flight: {:?}. Nothing more was decided; please report this with the message log.",
            before.state,
            before.decided,
            self.state,
            self.decided,
            self.log_end,
            self.acknowledged,
            self.in_flight.map(|batch| batch.info)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Event;
    use super::super::position::Chain;
    use super::super::tests::{heart, position, with_batch_in_flight};
    use super::*;

    fn stops(mut heart: Heart, event: Event) -> bool {
        let effects = heart.handle(event);
        let is_stop = |effect: &Effect| matches!(effect, Effect::Node(NodeEffect::Stop { .. }));
        assert!(effects.len() == 1 || !effects.iter().any(is_stop), "{effects:?}");
        effects.iter().any(is_stop)
    }

    fn nothing() -> Event {
        Event::TimedOut { timer: 99 }
    }

    #[test]
    fn a_heart_that_contradicts_itself_ends_the_process_and_decides_nothing() {
        for state in [State::PrimaryActive, State::PrimaryUncertain, State::PrimaryAlone] {
            assert!(!stops(heart(state), nothing()) && !stops(with_batch_in_flight(state), nothing()));
        }
        let mut broken = heart(State::PrimaryAlone);
        broken.log_end = position(4);
        assert!(stops(broken, nothing()), "decided beyond the log");
        let mut broken = heart(State::SecondaryAlone);
        broken.log_end = position(6);
        assert!(stops(broken, nothing()), "nobody answers for what is in the log");
        let mut broken = with_batch_in_flight(State::PrimaryActive);
        broken.held = true;
        assert!(stops(broken, nothing()), "two batches at a time");
        let mut broken = with_batch_in_flight(State::PrimaryActive);
        broken.state = State::SecondaryActive;
        assert!(stops(broken, nothing()), "a secondary with a batch of its own");
    }

    /// The acknowledgement is what would make it decide: neither commit nor anything else leaves the heart.
    #[test]
    fn a_batch_that_does_not_follow_what_is_decided_is_not_decided() {
        let acknowledged = Event::Acknowledged { position: position(6) };
        assert!(!stops(with_batch_in_flight(State::PrimaryActive), acknowledged.clone()));
        let mut broken = with_batch_in_flight(State::PrimaryActive);
        broken.log_end.chain = Chain([9; 16]);
        assert!(stops(broken, acknowledged));
    }
}
