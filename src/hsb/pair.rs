//! Heart, part pair: settings of which the primary's are in force at both servers while they are connected.
//!
//! Both tell each other theirs when they connect; the primary also whenever an operator changes one. Invariants: a switch
//! changes nothing of what is in force; when the connection ends, each server is back at its own.

use super::effect::ApplierEffect;
use super::event::PeerMessage;
use super::heart::Heart;
use super::settings::Settings;

impl Heart {
    /// New settings from the operator. What the primary rules is changed at the primary.
    pub(super) fn settings_changed(&mut self, configured: Settings) {
        let before = std::mem::replace(&mut self.configured, configured);
        if self.link.is_none() {
            self.settings = configured;
            return;
        }
        let mut in_force = configured.with_rule_of(&self.settings);
        if self.state.is_primary() {
            in_force = in_force.with_changes(&before, &configured);
            if in_force.with_rule_of(&self.settings) != in_force {
                self.settings = in_force;
                self.tell_settings();
                self.watch_peer();
            }
        }
        self.settings = in_force;
    }

    pub(super) fn tell_settings(&mut self) {
        self.tell(PeerMessage::Settings { settings: self.settings });
    }

    /// The peer's settings, at connect or because one of them was changed there.
    pub(super) fn peer_settings(&mut self, theirs: Settings) {
        for difference in self.configured.differences(&theirs) {
            self.warn(format!("{difference}; it should be the same at both servers"));
        }
        if self.state.is_primary() {
            return;
        }
        let ruled = self.settings.with_rule_of(&theirs);
        let before = std::mem::replace(&mut self.settings, ruled);
        if ruled.pair != before.pair {
            self.watch_peer();
        }
        if ruled.acknowledge_rule() != before.acknowledge_rule() {
            self.want(ApplierEffect::AcknowledgeBy(ruled.acknowledge_rule()));
        }
    }

    /// The connection has ended.
    pub(super) fn own_settings(&mut self) {
        self.settings = self.configured;
    }
}

#[cfg(test)]
mod tests {
    use super::super::effect::{Effect, NodeEffect, PingEffect, SenderEffect};
    use super::super::event::Event;
    use super::super::position::Position;
    use super::super::settings::{
        AcknowledgePolicy, AcknowledgeRule, DurabilityLevel, PairSettings, SafenessLevel,
    };
    use super::super::severity::Severity;
    use super::super::state::State;
    use super::super::table::Trigger;
    use super::super::tests::SETTINGS;
    use super::*;

    fn connected(state: State) -> Heart {
        let mut heart = Heart::new(state, SETTINGS, [1; 16], Position::ORIGIN, Position::ORIGIN);
        heart.link = Some(7);
        heart
    }

    fn hears(heart: &mut Heart, settings: Settings) -> Vec<Effect> {
        heart.handle(Event::PeerSays { link: 7, message: PeerMessage::Settings { settings } })
    }

    fn set(heart: &mut Heart, settings: Settings) -> Vec<Effect> {
        heart.handle(Event::SettingsChanged { settings })
    }

    /// Other values of everything that the primary rules.
    fn other() -> Settings {
        let acknowledge_policy = AcknowledgePolicy::Durable;
        let pair = PairSettings { acknowledge_policy, ping_interval_ms: 77, ping_timeout_ms: 777 };
        Settings { safeness: SafenessLevel::OneSafe, durability: DurabilityLevel::Strict, pair, ..SETTINGS }
    }

    #[test]
    fn the_primary_rules_until_the_connection_ends() {
        let mut secondary = connected(State::SecondaryActive);
        let done = hears(&mut secondary, other());
        assert!(
            done.contains(&Effect::PingMonitor(PingEffect::Start { link: 7, pair: other().pair })),
            "{done:?}"
        );
        let obeys = |effects: &[Effect]| {
            effects.iter().find_map(|effect| match effect {
                Effect::Applier(ApplierEffect::AcknowledgeBy(rule)) => Some(*rule),
                _ => None,
            })
        };
        let rule = AcknowledgeRule { policy: AcknowledgePolicy::Durable, strict: true };
        assert_eq!(obeys(&done), Some(rule));
        // A change of the durability alone is passed on, too.
        let adaptive = Settings { durability: DurabilityLevel::Adaptive, ..other() };
        let mut changed = connected(State::SecondaryActive);
        hears(&mut changed, other());
        assert_eq!(obeys(&hears(&mut changed, adaptive)), Some(AcknowledgeRule { strict: false, ..rule }));
        assert_eq!(secondary.settings(), other());
        // A change here waits for the end of the connection, but for what is this server's own.
        let mine = Settings { auto_primary_alone: true, safeness: SafenessLevel::Auto, ..SETTINGS };
        assert!(set(&mut secondary, mine).is_empty());
        assert_eq!(secondary.settings(), Settings { auto_primary_alone: true, ..other() });
        // The switch changes nothing, and then this one rules, with what its operator changes.
        secondary.go(Trigger::Switch);
        assert_eq!((secondary.state(), secondary.settings().pair), (State::PrimaryActive, other().pair));
        let changed = Settings { durability: DurabilityLevel::Relaxed, ..mine };
        let told = set(&mut secondary, changed);
        let in_force = Settings { auto_primary_alone: true, durability: DurabilityLevel::Relaxed, ..other() };
        assert!(
            told.contains(&Effect::Sender(SenderEffect::Tell(PeerMessage::Settings { settings: in_force }))),
            "{told:?}"
        );
        assert_eq!(secondary.settings(), in_force);
        secondary.handle(Event::LinkLost { link: 7, why: String::new() });
        assert_eq!(secondary.settings(), changed);
    }

    #[test]
    fn the_primary_listens_to_nobody_and_tells_what_is_new() {
        let mut primary = connected(State::PrimaryActive);
        let warned = hears(&mut primary, other());
        assert_eq!(primary.settings(), SETTINGS);
        let warning = "Logging.DurabilityLevel is 2 here and 3 at the other server; it should be the same at both servers";
        assert_eq!(
            (warned.len(), warned.last()),
            (
                2,
                Some(&Effect::Node(NodeEffect::Note {
                    severity: Severity::Warning,
                    text: warning.to_owned()
                }))
            )
        );
        assert_eq!(set(&mut primary, SETTINGS), []);
        let told = set(&mut primary, other());
        assert_eq!(
            told,
            [
                Effect::Sender(SenderEffect::Tell(PeerMessage::Settings { settings: other() })),
                Effect::PingMonitor(PingEffect::Start { link: 7, pair: other().pair })
            ]
        );
    }
}
