//! The heart alone: commands that reach for the other server, and what is told of those that were answered before they
//! ended.

use super::codes::Code;
use super::effect::{AnswerEffect, ApplierEffect, Effect, NodeEffect, SenderEffect};
use super::event::{Command, Event, Hello, PeerMessage};
use super::phase::{Activity, SwitchStatus};
use super::position::Position;
use super::state::State::*;
use super::tests::{SETTINGS, UNREACHABLE, answer, command, heart, position};
use super::{CONNECT_FAILED, SWITCH_FAILED};

fn replies(effects: &[Effect]) -> Vec<(u64, Code)> {
    let reply = |effect: &Effect| match effect {
        Effect::Answer(AnswerEffect::Reply { request, code, .. }) => Some((*request, *code)),
        _ => None,
    };
    effects.iter().filter_map(reply).collect()
}

#[test]
fn what_forces_a_state_ends_a_dial_and_waits_for_nobody() {
    use Command::{Connect, Disconnect, SetPrimaryAlone, SetSecondaryAlone, SetStandalone};
    for (state, dials, forces, after) in [
        (PrimaryAlone, Connect, SetStandalone, Standalone),
        (PrimaryAlone, Connect, SetSecondaryAlone, SecondaryAlone),
        (PrimaryAlone, Command::SwitchSecondary, SetStandalone, Standalone),
        (PrimaryUncertain, Connect, SetPrimaryAlone, PrimaryAlone),
        (PrimaryUncertain, Command::SwitchSecondary, SetPrimaryAlone, PrimaryAlone),
        (Standalone, Connect, SetPrimaryAlone, PrimaryAlone),
        (Standalone, Connect, SetSecondaryAlone, SecondaryAlone),
        (SecondaryAlone, Connect, SetPrimaryAlone, PrimaryAlone),
        (SecondaryAlone, Connect, SetStandalone, Standalone),
        (SecondaryAlone, Command::SwitchPrimary, SetPrimaryAlone, PrimaryAlone),
        (SecondaryAlone, Command::SwitchPrimary, Disconnect, SecondaryAlone),
        // What is there already: the attempt ends all the same.
        (PrimaryAlone, Connect, SetPrimaryAlone, PrimaryAlone),
        (PrimaryAlone, Command::SwitchSecondary, SetPrimaryAlone, PrimaryAlone),
        (SecondaryAlone, Connect, SetSecondaryAlone, SecondaryAlone),
        (SecondaryAlone, Command::SwitchPrimary, SetSecondaryAlone, SecondaryAlone),
        (Standalone, Connect, SetStandalone, Standalone),
        (PrimaryUncertain, Connect, Disconnect, PrimaryUncertain),
    ] {
        let mut heart = heart(state);
        let mut effects = command(&mut heart, dials);
        assert_eq!(answer(&effects), (dials == Connect).then_some(Code::SUCCESS), "{state} {dials:?}");
        if let Some(Effect::Applier(ApplierEffect::Drain { ticket, .. })) = effects.last().cloned() {
            effects = heart.handle(Event::Drained { ticket, position: position(5) });
        }
        assert!(matches!(effects.last(), Some(Effect::Node(NodeEffect::Dial { .. }))), "{effects:?}");
        let mut told = heart.handle(Event::Command { request: 2, command: forces });
        if let Some(Effect::Applier(ApplierEffect::Drain { ticket, .. })) = told.last().cloned() {
            told.extend(heart.handle(Event::Drained { ticket, position: position(5) }));
        }
        assert_eq!(heart.state(), after, "{state} {dials:?} {forces:?}");
        let given_up = (1, Code::PEER_COMMAND_CONFLICT);
        let refused = if dials == Connect { None } else { Some(given_up) };
        let wanted: Vec<_> = refused.into_iter().chain([(2, Code::SUCCESS)]).collect();
        assert_eq!(replies(&told), wanted, "{state} {dials:?} {forces:?}");
        assert!(!heart.is_dialling(1));
        // What the dial brings is of no interest any more.
        assert_eq!(heart.handle(UNREACHABLE), []);
        assert_eq!((heart.state(), heart.activity()), (after, Activity::Idle));
    }
}

/// With PingTimeout=0 nothing else would.
#[test]
fn a_disconnect_ends_connecting_at_every_stage() {
    let primary = |position: Position| Hello {
        database_id: [1; 16],
        state: PrimaryAlone,
        position,
        log_end: position,
        pair: SETTINGS.pair,
    };
    for stage in 0..4 {
        let mut heart = heart(SecondaryAlone);
        let effects = heart.handle(Event::PeerArrived { link: 3, hello: primary(position(9)) });
        let Some(Effect::Applier(ApplierEffect::Drain { ticket, .. })) = effects.last().cloned() else {
            panic!("{effects:?}")
        };
        let steps = [
            Event::Drained { ticket, position: position(5) },
            Event::PeerSays { link: 3, message: PeerMessage::Accept { pair: SETTINGS.pair } },
            Event::PeerSays { link: 3, message: PeerMessage::GoActive { position: position(9) } },
        ];
        for step in steps.into_iter().take(stage) {
            heart.handle(step);
        }
        let effects = command(&mut heart, Command::Disconnect);
        assert_eq!(answer(&effects), Some(Code::SUCCESS), "{stage}");
        let told = |effect: &Effect| {
            matches!(
                effect,
                Effect::Answer(AnswerEffect::TurnAway { .. })
                    | Effect::Sender(SenderEffect::Close { farewell: Some(_) })
            )
        };
        assert!(effects.iter().any(told), "{stage}: {effects:?}");
        assert_eq!((heart.state(), heart.activity()), (SecondaryAlone, Activity::Idle), "{stage}");
        assert_eq!(heart.connect_failure().map(|failure| failure.code), Some(Code::PEER_COMMAND_CONFLICT));
        assert_eq!(answer(&command(&mut heart, Command::SetPrimaryAlone)), None, "it drains");
    }
}

/// A connection that comes to be while a server ends leaves its peer in doubt a moment later.
#[test]
fn a_shutdown_ends_every_attempt_to_reach_the_other_server() {
    use Command::{Connect, SwitchPrimary, SwitchSecondary};
    let peer = |state| Hello {
        database_id: [1; 16],
        state,
        position: position(5),
        log_end: position(5),
        pair: SETTINGS.pair,
    };
    for (state, command_given, other) in [
        (SecondaryAlone, Connect, PrimaryAlone),
        (PrimaryAlone, Connect, SecondaryAlone),
        (PrimaryUncertain, Connect, SecondaryAlone),
        (SecondaryAlone, SwitchPrimary, SecondaryAlone),
        (PrimaryAlone, SwitchSecondary, SecondaryAlone),
    ] {
        for stage in 0..if command_given == Connect { 3 } else { 1 } {
            let mut heart = heart(state);
            let effects = command(&mut heart, command_given);
            let answer_of_dial = Event::Dialled {
                request: 1,
                link: (command_given == Connect).then_some(3),
                hello: peer(other),
            };
            let mut later = vec![
                answer_of_dial,
                Event::PeerSays { link: 3, message: PeerMessage::Accept { pair: SETTINGS.pair } },
                Event::HistoryChecked { link: 3, result: Ok(()) },
                Event::CatchupNearEnd { link: 3 },
                Event::PeerSays { link: 3, message: PeerMessage::GoActive { position: position(5) } },
                Event::PeerSays { link: 3, message: PeerMessage::Active },
            ];
            if let Some(Effect::Applier(ApplierEffect::Drain { ticket, .. })) = effects.last().cloned() {
                later.insert(0, Event::Drained { ticket, position: position(5) });
            }
            for event in later.drain(..stage) {
                heart.handle(event);
            }
            let what = format!("{state} {command_given:?} {stage}");
            let had_ended = heart.activity() == Activity::Idle;
            let after = heart.state();
            let had_link = heart.link().is_some();
            let effects = heart.handle(Event::ShuttingDown { request: 8 });
            let told = |effect: &Effect| matches!(effect, Effect::Sender(SenderEffect::Close { farewell: Some(PeerMessage::Refused(refusal)) }) if refusal.code == Code::SHUTTING_DOWN);
            assert_eq!(effects.iter().any(told), had_link, "{what}: {effects:?}");
            assert!(replies(&effects).contains(&(8, Code::SUCCESS)), "{what}: {effects:?}");
            if !had_ended && command_given != Connect {
                assert!(replies(&effects).contains(&(1, Code::SHUTTING_DOWN)), "{what}: {effects:?}");
            }
            for event in later {
                heart.handle(event);
            }
            assert_eq!(
                (heart.state(), heart.link(), heart.activity()),
                (after, None, Activity::Idle),
                "{what}"
            );
        }
    }
}

/// R2: it is what was asked for, and it may leave nobody who takes writes.
#[test]
fn a_switch_without_a_connection_says_what_came_of_it() {
    let told = |event: Event| {
        let mut heart = heart(PrimaryAlone);
        command(&mut heart, Command::SwitchSecondary);
        let effects = heart.handle(event);
        assert_eq!((heart.state(), answer(&effects)), (SecondaryAlone, Some(Code::SUCCESS)));
        let text = effects.into_iter().find_map(|effect| match effect {
            Effect::Answer(AnswerEffect::Reply { text, .. }) => Some(text),
            _ => None,
        });
        text.unwrap()
    };
    let answers = |state| Event::Dialled {
        request: 1,
        link: None,
        hello: Hello {
            database_id: [1; 16],
            state,
            position: position(5),
            log_end: position(5),
            pair: SETTINGS.pair,
        },
    };
    let text = told(UNREACHABLE);
    assert!(text.contains("no primary now") && text.contains("'hsb switch primary'"), "{text}");
    let text = told(answers(SecondaryAlone));
    assert!(text.contains("no primary now") && text.contains("at the other server"), "{text}");
    let text = told(answers(PrimaryAlone));
    assert!(!text.contains("no primary") && text.contains("'hsb connect'"), "{text}");
}

/// Connecting is answered before anybody is reached.
#[test]
fn what_becomes_of_connecting_is_told_until_there_is_another_attempt() {
    let mut heart = heart(PrimaryAlone);
    assert_eq!(answer(&command(&mut heart, Command::Connect)), Some(Code::SUCCESS));
    let effects = heart.handle(UNREACHABLE);
    assert_eq!(answer(&effects), None);
    let alert = |effect: &Effect| matches!(effect, Effect::Node(NodeEffect::Alert { name, text, .. }) if *name == CONNECT_FAILED && text.starts_with("14503: "));
    assert!(effects.iter().any(alert), "{effects:?}");
    assert_eq!(heart.connect_failure().map(|failure| failure.code), Some(Code::COMMUNICATION_ERROR));
    command(&mut heart, Command::Connect);
    assert_eq!(heart.connect_failure(), None);
}

/// `hsb status switch` tells of the last one that was begun.
#[test]
fn a_switch_that_is_refused_at_its_probe_leaves_the_status_of_the_last_one() {
    let mut heart = heart(SecondaryAlone);
    heart.switch_status = SwitchStatus::Success;
    command(&mut heart, Command::SwitchPrimary);
    let refusal = Code::OPERATION_FAILED.into();
    let effects = heart.handle(Event::DialFailed { request: 1, refusal });
    assert_eq!(
        (answer(&effects), heart.switch_status()),
        (Some(Code::OPERATION_FAILED), SwitchStatus::Success)
    );
}

#[test]
fn a_switch_that_breaks_off_is_told_with_its_code() {
    let mut heart = heart(PrimaryActive);
    assert_eq!(answer(&command(&mut heart, Command::SwitchSecondary)), Some(Code::SUCCESS));
    let effects = heart.handle(Event::LinkLost { link: 9, why: "cable".into() });
    let alert = |effect: &Effect| matches!(effect, Effect::Node(NodeEffect::Alert { name, text, .. }) if *name == SWITCH_FAILED && text.starts_with("14503: "));
    assert!(effects.iter().any(alert), "{effects:?}");
    assert_eq!(heart.switch_status(), SwitchStatus::Failed(Code::COMMUNICATION_ERROR));
}

#[test]
fn a_command_that_a_state_does_not_allow_says_which_one_does() {
    for (state, what, needed) in [
        (PrimaryActive, Command::SetSecondaryAlone, "PRIMARY UNCERTAIN or STANDALONE"),
        (SecondaryAlone, Command::SetSecondaryAlone, "PRIMARY UNCERTAIN or STANDALONE"),
        (PrimaryAlone, Command::Rewind, "needs SECONDARY ALONE"),
    ] {
        let effects = command(&mut heart(state), what);
        let Some(Effect::Answer(AnswerEffect::Reply { code: Code::REFUSED_IN_STATE, text, .. })) =
            effects.last()
        else {
            panic!("{effects:?}")
        };
        assert!(text.contains(state.name()) && text.contains(needed), "{text}");
    }
}
