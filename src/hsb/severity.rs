//! How much a sentence matters to whoever runs the pair: the one place that decides it.
//!
//! The measure is what an operator has to do. Not here: the sentences, and where they are logged.

use super::codes::Code;
use super::state::State;
use super::table::{Transition, Trigger};

/// How much a sentence matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Severity {
    /// The ordinary course of things.
    Info,
    /// Something protects the data less than it should, or did not happen; it may mend itself.
    Warning,
    /// It does not mend itself: somebody has to do something.
    Error,
}

/// Of a state change.
pub fn of_transition(change: Transition) -> Severity {
    match change.trigger {
        // Nobody writes until somebody decides.
        Trigger::SwitchFailed | Trigger::Diverged | Trigger::PeerPromoted => Severity::Error,
        Trigger::LinkLost if change.to == State::PrimaryUncertain => Severity::Error,
        // A copy, room, or a decision is needed before the pair protects anything again.
        Trigger::ApplyFailed | Trigger::NoRoom | Trigger::LogFull => Severity::Error,
        _ if change.to.is_active() => Severity::Info,
        _ => Severity::Warning,
    }
}

/// Of a connection that does not come about, or ends, for this reason.
pub fn of_refusal(code: Code) -> Severity {
    match code {
        Code::DIFFERENT_DATABASE
        | Code::NOT_SYNCHRONIZED
        | Code::BOTH_DIVERGED
        | Code::BOTH_PRIMARY
        | Code::BOTH_SECONDARY
        | Code::LOG_TOO_SHORT
        | Code::NOT_HOTSTANDBY
        | Code::BACKUPSERVER_MODE
        | Code::NOT_IN_STANDALONE
        | Code::APPLY_FAILED
        | Code::DATABASE_CORRUPT
        | Code::DISK_FULL => Severity::Error,
        _ => Severity::Warning,
    }
}

#[cfg(test)]
mod tests {
    use super::super::effect::{Effect, NodeEffect};
    use super::super::event::{Event, PeerMessage};
    use super::super::heart::Heart;
    use super::super::phase::Phase;
    use super::super::table::TABLE;
    use super::super::tests::{SETTINGS, heart};
    use super::*;
    use Severity::{Error, Info, Warning};

    /// Every number of the message log, as it stands in the sentences of the heart.
    const NUMBERS: &[(&str, Severity)] = &[
        ("30504", Info),
        ("30505", Info),
        ("30530", Info),
        ("30531", Info),
        ("30532", Warning),
        ("30533", Error),
        ("30538", Error),
        ("30550", Warning),
        ("30551", Info),
        ("30570", Info),
        ("30571", Info),
        ("30572", Error),
        ("30573", Error),
    ];

    /// The severities with which the sources of the heart say the sentence with this number.
    fn said(number: &str) -> Vec<Severity> {
        let sources = [
            include_str!("connect.rs"),
            include_str!("switch.rs"),
            include_str!("heart.rs"),
            include_str!("commands.rs"),
            include_str!("rewind.rs"),
        ];
        let mut found = Vec::new();
        for source in sources {
            for (at, _) in source.match_indices(&format!("\"{number}: ")) {
                let before = &source[..at];
                let call = ["self.note(", "self.warn(", "self.say("].map(|call| before.rfind(call));
                let last = call.iter().flatten().max().expect("a sentence that nobody says");
                found.push(match call.iter().position(|place| place.as_ref() == Some(last)) {
                    Some(0) => Info,
                    Some(1) => Warning,
                    _ if before[*last..].contains("Severity::Error") => Error,
                    _ => panic!("{number}: {}", &before[*last..]),
                });
            }
        }
        found
    }

    #[test]
    fn every_number_of_the_message_log_has_the_level_of_what_is_to_be_done() {
        for (number, severity) in NUMBERS {
            let said = said(number);
            assert!(!said.is_empty() && said.iter().all(|it| it == severity), "{number}: {said:?}");
        }
        // None is missing in the table.
        for number in 30_500..30_600 {
            let known = NUMBERS.iter().any(|row| row.0 == number.to_string());
            assert_eq!(!said(&number.to_string()).is_empty(), known, "{number}");
        }
    }

    #[test]
    fn every_state_change_has_the_level_of_what_is_to_be_done() {
        for row in TABLE {
            let severity = of_transition(*row);
            let needs_somebody = row.to == State::PrimaryUncertain
                || matches!(
                    row.trigger,
                    Trigger::SwitchFailed
                        | Trigger::Diverged
                        | Trigger::ApplyFailed
                        | Trigger::NoRoom
                        | Trigger::LogFull
                );
            let expected = match (needs_somebody, row.to.is_active()) {
                (true, _) => Error,
                (false, true) => Info,
                (false, false) => Warning,
            };
            assert_eq!(severity, expected, "{row:?}");
        }
    }

    fn notes(effects: &[Effect]) -> Vec<(Severity, String)> {
        let note = |effect: &Effect| match effect {
            Effect::Node(NodeEffect::Note { severity, text }) => Some((*severity, text.clone())),
            _ => None,
        };
        effects.iter().filter_map(note).collect()
    }

    fn connected(state: State) -> Heart {
        let mut heart = heart(state);
        heart.link = Some(7);
        heart
    }

    #[test]
    fn what_needs_an_operator_is_no_ordinary_message() {
        let failed = connected(State::SecondaryActive).handle(Event::ApplyFailed { detail: "row 1".into() });
        assert!(notes(&failed).iter().any(|(level, text)| *level == Error && text.starts_with("10080: ")));
        let lost = Event::LinkLost { link: 7, why: "reset".into() };
        let mut catching_up = connected(State::SecondaryAlone);
        catching_up.phase = Phase::CatchingUp { closing: false, told: false };
        let said = notes(&catching_up.handle(lost));
        for number in ["30550: ", "30532: "] {
            assert!(
                said.iter().any(|(level, text)| *level == Warning && text.starts_with(number)),
                "{said:?}"
            );
        }
        for (code, expected) in [
            (Code::NOT_SYNCHRONIZED, Error),
            (Code::BOTH_DIVERGED, Error),
            (Code::LOG_TOO_SHORT, Error),
            (Code::COMMUNICATION_ERROR, Warning),
            (Code::CATCHUP_ACTIVE, Warning),
        ] {
            assert_eq!(of_refusal(code), expected, "{code:?}");
        }
        let settings =
            super::super::settings::Settings { auto_primary_alone: !SETTINGS.auto_primary_alone, ..SETTINGS };
        let told = Event::PeerSays { link: 7, message: PeerMessage::Settings { settings } };
        let said = notes(&connected(State::PrimaryActive).handle(told));
        assert!(
            said.iter().any(|(level, text)| *level == Warning && text.contains("AutoPrimaryAlone")),
            "{said:?}"
        );
    }
}
