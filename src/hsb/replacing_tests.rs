//! The heart alone: what a netcopy may replace, and what a rewind takes back or gives up.

use super::advice::Remedy;
use super::codes::Code;
use super::effect::{AnswerEffect, ApplierEffect, Effect, NodeEffect};
use super::event::{Command, Event, Hello, PeerMessage, RewindEnd};
use super::heart::Heart;
use super::phase::Activity;
use super::position::{DatabasePosition, Position};
use super::refusal::Refusal;
use super::state::State::*;
use super::tests::{PAIR, STATES, answer, command, heart, position};

fn admits(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Answer(AnswerEffect::AdmitCopy { .. })))
}

#[test]
fn trap_23_a_netcopy_in_the_wrong_direction_is_refused() {
    let source =
        |state, position| Hello { database_id: [1; 16], state, position, log_end: position, pair: PAIR };
    let newer_epoch = Position { epoch: 2, ..position(3) };
    let (all, some) = (Some(position(5)), Some(position(4)));
    let rows = [
        (Offline, source(PrimaryAlone, position(9)), None, None),
        (SecondaryAlone, source(PrimaryAlone, position(9)), all, None),
        (SecondaryAlone, source(PrimaryAlone, newer_epoch), all, None),
        // It is further, and has another history.
        (SecondaryAlone, source(PrimaryAlone, position(9)), some, Some(Code::NOT_SYNCHRONIZED)),
        (SecondaryAlone, source(PrimaryAlone, newer_epoch), some, Some(Code::NOT_SYNCHRONIZED)),
        // What is not known is not taken for good.
        (SecondaryAlone, source(PrimaryAlone, position(9)), None, Some(Code::NOT_SYNCHRONIZED)),
        (SecondaryAlone, source(PrimaryAlone, position(4)), some, Some(Code::NOT_SYNCHRONIZED)),
        (SecondaryAlone, source(PrimaryActive, position(9)), all, Some(Code::COPY_ONLY_ALONE)),
        (SecondaryActive, source(PrimaryAlone, position(9)), all, Some(Code::REMOTE_NOT_SECONDARY)),
        (PrimaryActive, source(PrimaryAlone, position(9)), all, Some(Code::REMOTE_NOT_SECONDARY)),
        (PrimaryAlone, source(PrimaryAlone, position(9)), all, Some(Code::REMOTE_NOT_SECONDARY)),
        (PrimaryUncertain, source(PrimaryAlone, position(9)), all, Some(Code::REMOTE_NOT_SECONDARY)),
        (Standalone, source(PrimaryAlone, position(9)), all, Some(Code::REMOTE_NOT_SECONDARY)),
    ];
    for (state, hello, common, wanted) in rows {
        let effects = heart(state).handle(Event::CopyArrives { hello, common });
        assert_eq!(refusal_of_copy(&effects).map(|refusal| refusal.code), wanted, "{state} {hello:?}");
        assert_eq!(admits(&effects), wanted.is_none());
    }
    let stranger = Hello { database_id: [2; 16], ..source(PrimaryAlone, position(9)) };
    let effects = heart(Offline).handle(Event::CopyArrives { hello: stranger, common: None });
    assert!(admits(&effects), "-x backupserver says that it may be replaced");
    let effects = heart(SecondaryAlone).handle(Event::CopyArrives { hello: stranger, common: None });
    assert_eq!(refusal_of_copy(&effects).map(|refusal| refusal.code), Some(Code::DIFFERENT_DATABASE));
}

fn refusal_of_copy(effects: &[Effect]) -> Option<Refusal> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer(AnswerEffect::RefuseCopy(refusal)) => Some(refusal.clone()),
        _ => None,
    })
}

/// A secondary whose operator has given up what came after `common`.
fn given_up(common: Option<Position>) -> Heart {
    let mut heart = heart(SecondaryAlone);
    command(&mut heart, Command::Rewind);
    let ticket = heart.ticket;
    heart.handle(Event::Drained { ticket, position: position(5) });
    let end = RewindEnd::GivenUp { common, refusal: Refusal::new(Code::NOT_SYNCHRONIZED, "saved") };
    let effects = heart.handle(Event::Rewound { result: Ok(end) });
    assert_eq!((answer(&effects), heart.decided()), (Some(Code::NOT_SYNCHRONIZED), position(5)));
    heart
}

#[test]
fn a_netcopy_over_a_parted_history_needs_consent_which_ends_with_any_change() {
    let position_of_source = position(9);
    let hello = Hello {
        database_id: [1; 16],
        state: PrimaryAlone,
        position: position_of_source,
        log_end: position_of_source,
        pair: PAIR,
    };
    let arrives = |heart: &mut Heart, common| heart.handle(Event::CopyArrives { hello, common });
    let refused = refusal_of_copy(&arrives(&mut heart(SecondaryAlone), Some(position(3))));
    let Refusal { code, detail } = refused.unwrap();
    assert_eq!(code, Code::NOT_SYNCHRONIZED);
    for part in ["(2 transactions)", "'hsb rewind'", "-x backupserver", &position(3).to_string()] {
        assert!(detail.contains(part), "'{part}' is not in: {detail}");
    }
    // What was saved is what is lost, or more.
    for (saved, common, is_admitted) in [
        (Some(3), Some(3), true),
        (Some(3), Some(4), true),
        (Some(3), Some(2), false),
        (Some(3), None, false),
    ]
    .into_iter()
    .chain([(None, None, true), (None, Some(1), true)])
    {
        let effects = arrives(&mut given_up(saved.map(position)), common.map(position));
        assert_eq!(admits(&effects), is_admitted, "{saved:?} {common:?}");
    }
    // For one netcopy, however it ends.
    for opened in [
        Ok(DatabasePosition { database_id: [1; 16], position: position(5) }),
        Err(Code::COMMUNICATION_ERROR.into()),
    ] {
        let mut heart = given_up(Some(position(3)));
        assert_eq!(heart.remedy(), Remedy::Netcopy);
        arrives(&mut heart, Some(position(3)));
        heart.handle(Event::CopyReceived { opened });
        assert!(refusal_of_copy(&arrives(&mut heart, Some(position(3)))).is_some());
        assert_eq!(heart.remedy(), Remedy::Rewind);
    }
    // An attempt to connect from either side, though it is refused.
    let refused = Event::DialFailed { request: 1, refusal: Code::NOT_SYNCHRONIZED.into() };
    let mut heart = given_up(Some(position(3)));
    command(&mut heart, Command::Connect);
    let ticket = heart.ticket;
    heart.handle(Event::Drained { ticket, position: position(5) });
    heart.handle(refused);
    assert!(refusal_of_copy(&arrives(&mut heart, Some(position(3)))).is_some());
    let mut heart = given_up(Some(position(3)));
    heart.handle(Event::PeerArrived { link: 3, hello });
    let ticket = heart.ticket;
    heart.handle(Event::Drained { ticket, position: position(5) });
    let message = PeerMessage::Refused(Code::NOT_SYNCHRONIZED.into());
    heart.handle(Event::PeerSays { link: 3, message });
    assert_eq!((heart.activity(), heart.remedy()), (Activity::Idle, Remedy::Rewind));
    assert!(refusal_of_copy(&arrives(&mut heart, Some(position(3)))).is_some());
    // A promotion and its end, a rewind after all.
    let mut heart = given_up(None);
    command(&mut heart, Command::SetPrimaryAlone);
    let ticket = heart.ticket;
    heart.handle(Event::Drained { ticket, position: position(5) });
    command(&mut heart, Command::SetSecondaryAlone);
    assert_eq!(heart.state(), SecondaryAlone);
    assert!(refusal_of_copy(&arrives(&mut heart, None)).is_some());
}

#[test]
fn a_rewind_takes_the_secondary_back_and_nothing_else_begins_meanwhile() {
    for state in STATES {
        let begins = state == SecondaryAlone;
        assert_eq!(answer(&command(&mut heart(state), Command::Rewind)).is_none(), begins, "{state}");
    }
    let taken_back = |sequence| {
        let end = RewindEnd::TakenBack { position: position(sequence), text: "done".into() };
        Event::Rewound { result: Ok(end) }
    };
    let rewinding = || {
        let mut heart = heart(SecondaryAlone);
        heart.log_end = position(6);
        heart.pending = true;
        command(&mut heart, Command::Rewind);
        let ticket = heart.ticket;
        assert_eq!(
            heart.handle(Event::Drained { ticket, position: position(5) }),
            [Effect::Node(NodeEffect::Rewind)]
        );
        for what in [Command::SetPrimaryAlone, Command::Connect, Command::Rewind] {
            assert_eq!(answer(&command(&mut heart, what)), Some(Code::REFUSED_IN_STATE), "{what:?}");
        }
        heart
    };
    let mut heart = rewinding();
    let effects = heart.handle(taken_back(3));
    assert!(
        effects.contains(&Effect::Applier(ApplierEffect::ForgetPending))
            && answer(&effects) == Some(Code::SUCCESS)
    );
    assert_eq!((heart.decided(), heart.log_end(), heart.pending), (position(3), position(3), false));
    // Nothing to take back: what is pending stays for the primary's history to settle.
    let mut heart = rewinding();
    heart.handle(taken_back(5));
    assert_eq!((heart.decided(), heart.log_end(), heart.pending), (position(5), position(6), true));
    let mut heart = rewinding();
    let effects = heart.handle(Event::Rewound { result: Err(Code::LOG_TOO_SHORT.into()) });
    assert_eq!((answer(&effects), heart.state()), (Some(Code::LOG_TOO_SHORT), SecondaryAlone));
    assert_eq!((heart.decided(), heart.log_end(), heart.pending), (position(5), position(6), true));
}
