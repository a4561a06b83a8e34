//! The heart alone: two nodes that meet (connect, both at once, two primaries), and what operators see of it.

use super::codes::Code;
use super::effect::{AnswerEffect, ApplierEffect, Effect, NodeEffect, SenderEffect};
use super::event::{Command, Event, Hello, PeerMessage, Purpose};
use super::heart::Heart;
use super::phase::{Activity, state_number};
use super::position::{Chain, Position};
use super::refusal::Refusal;
use super::state::State::{self, *};
use super::state::{StartTime, start_time_set_by};
use super::tests::{
    SETTINGS, STATES, UNREACHABLE, answer, command, heart, position, welcomes, with_batch_in_flight,
};

fn hello(state: State, position: Position) -> Hello {
    Hello { database_id: [1; 16], state, position, log_end: position, pair: SETTINGS.pair }
}

/// Another transaction in the place of `position(sequence)`.
fn elsewhere(sequence: u64) -> Position {
    Position { chain: Chain([99; 16]), ..position(sequence) }
}

fn dials(effects: &[Effect]) -> bool {
    let is_it = |effect: &Effect| {
        matches!(effect, Effect::Node(NodeEffect::Dial { request: 1, purpose: Purpose::Connect, .. }))
    };
    effects.iter().any(is_it)
}

fn failure(heart: &Heart) -> Option<Code> {
    heart.connect_failure().map(|refusal| refusal.code)
}

fn drain(heart: &mut Heart, effects: &[Effect]) -> Vec<Effect> {
    let ticket = effects.iter().find_map(|effect| match effect {
        Effect::Applier(ApplierEffect::Drain { ticket, .. }) => Some(*ticket),
        _ => None,
    });
    let (ticket, position) = (ticket.expect("it drains first"), heart.decided());
    heart.handle(Event::Drained { ticket, position })
}

fn last_word(effects: &[Effect]) -> Option<u32> {
    effects.iter().find_map(|effect| match effect {
        Effect::Sender(SenderEffect::Close { farewell: Some(PeerMessage::Refused(why)) }) => {
            Some(why.code.number())
        }
        _ => None,
    })
}

#[test]
fn when_both_dial_at_once_the_primarys_connection_wins() {
    let (mut primary, mut secondary) = (heart(PrimaryAlone), heart(SecondaryAlone));
    let (from_primary, from_secondary) = (primary.hello(), secondary.hello());
    assert!(dials(&command(&mut primary, Command::Connect)));
    let effects = command(&mut secondary, Command::Connect);
    assert!(dials(&drain(&mut secondary, &effects)));
    // Each hears the other's dial before its own is answered.
    assert_eq!(primary.handle(Event::PeerArrived { link: 21, hello: from_secondary }), []);
    let effects = secondary.handle(Event::PeerArrived { link: 12, hello: from_primary });
    assert!(welcomes(&effects, 12), "{effects:?}");
    let effects = primary.handle(Event::Dialled { request: 1, link: Some(12), hello: secondary.hello() });
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Answer(AnswerEffect::TurnAway { link: 21, .. }))),
        "{effects:?}"
    );
    // The secondary's own dial ends in a refusal that concerns nobody any more.
    let code = Code::PEER_COMMAND_CONFLICT;
    assert_eq!(secondary.handle(Event::DialFailed { request: 1, refusal: code.into() }), []);
    primary.handle(Event::HistoryChecked { link: 12, result: Ok(()) });
    secondary.handle(Event::PeerSays { link: 12, message: PeerMessage::Accept { pair: SETTINGS.pair } });
    for heart in [primary, secondary] {
        assert_eq!((heart.activity(), heart.connect_failure()), (Activity::CatchingUp, None));
    }
}

#[test]
fn a_dial_that_arrived_first_is_taken_when_our_own_fails() {
    let mut primary = heart(PrimaryAlone);
    command(&mut primary, Command::Connect);
    primary.handle(Event::PeerArrived { link: 21, hello: hello(SecondaryAlone, position(5)) });
    let effects = primary.handle(UNREACHABLE);
    assert!(welcomes(&effects, 21), "{effects:?}");
    primary.handle(Event::HistoryChecked { link: 21, result: Ok(()) });
    assert_eq!(primary.activity(), Activity::CatchingUp);
}

#[test]
fn a_secondary_that_is_dialled_while_it_drains_for_its_own_dial_does_not_dial() {
    let mut secondary = heart(SecondaryAlone);
    let effects = command(&mut secondary, Command::Connect);
    secondary.handle(Event::PeerArrived { link: 12, hello: hello(PrimaryAlone, position(5)) });
    let effects = drain(&mut secondary, &effects);
    assert!(welcomes(&effects, 12) && !dials(&effects), "{effects:?}");
}

#[test]
fn an_operator_who_asks_to_connect_while_the_peer_is_being_met_has_what_is_wanted() {
    for early in [true, false] {
        let mut secondary = heart(SecondaryAlone);
        let effects =
            secondary.handle(Event::PeerArrived { link: 12, hello: hello(PrimaryAlone, position(5)) });
        if !early {
            drain(&mut secondary, &effects);
        }
        let told = command(&mut secondary, Command::Connect);
        assert_eq!((answer(&told), told.len()), (Some(Code::SUCCESS), 1));
        if early {
            drain(&mut secondary, &effects);
        }
        let message = PeerMessage::Accept { pair: SETTINGS.pair };
        secondary.handle(Event::PeerSays { link: 12, message });
        assert_eq!(answer(&command(&mut secondary, Command::Connect)), Some(Code::CATCHUP_ACTIVE));
    }
}

/// For each pair of primary states, dialled or dialling.
#[test]
fn r5_primaries_whose_histories_have_parted_both_stop() {
    for (mine, state, dialling) in [PrimaryAlone, PrimaryUncertain, Standalone]
        .into_iter()
        .flat_map(|mine| [PrimaryAlone, PrimaryUncertain, Standalone].map(|theirs| (mine, theirs)))
        .flat_map(|(mine, theirs)| [true, false].map(|dialling| (mine, theirs, dialling)))
    {
        let peer = hello(state, elsewhere(4));
        let meet = || {
            let mut heart = heart(mine);
            let effects = if dialling {
                command(&mut heart, Command::Connect);
                heart.handle(Event::Dialled { request: 1, link: Some(3), hello: peer })
            } else {
                heart.handle(Event::PeerArrived { link: 3, hello: peer })
            };
            // It is further, so it is the one who can look.
            assert!(
                effects.contains(&Effect::Sender(SenderEffect::CheckHistory(peer.position))),
                "{effects:?}"
            );
            heart
        };
        let mut heart = meet();
        let parted = Err(Refusal::new(Code::NOT_SYNCHRONIZED, "parted at 3"));
        let effects = heart.handle(Event::HistoryChecked { link: 3, result: parted });
        assert_eq!((heart.state(), last_word(&effects)), (SecondaryAlone, Some(14528)), "{mine} {state}");
        assert_eq!(answer(&effects), None);
        assert_eq!(failure(&heart), Some(Code::BOTH_DIVERGED));

        let too_short = Err(Code::LOG_TOO_SHORT.into());
        for (result, words) in [(Ok(()), "is part of"), (too_short, "cannot be told")] {
            let mut heart = meet();
            let effects = heart.handle(Event::HistoryChecked { link: 3, result });
            assert_eq!((heart.state(), last_word(&effects)), (mine, Some(14700)), "{mine} {state}");
            assert!(format!("{effects:?}").contains(words), "{effects:?}");
        }
    }
}

/// Seen on a loaded machine: the secondary had the batch in doubt in its log before the primary had, and connecting
/// right after the link had broken was refused with 14525.
#[test]
fn the_log_is_searched_once_the_last_batch_is_in_it() {
    let mut heart = with_batch_in_flight(PrimaryUncertain);
    if let Some(batch) = &mut heart.in_flight {
        batch.logged = false;
    }
    let peer = hello(SecondaryAlone, position(6));
    let searches =
        |effects: &[Effect]| effects.contains(&Effect::Sender(SenderEffect::CheckHistory(peer.position)));
    assert!(!searches(&heart.handle(Event::PeerArrived { link: 3, hello: peer })));
    let logged = |durable| Event::Logged { position: position(6), durable };
    assert!(searches(&heart.handle(logged(false))));
    assert!(!searches(&heart.handle(logged(true))), "once is enough");
}

#[test]
fn r5_the_primary_that_is_not_further_waits_for_the_verdict() {
    for (code, state) in [(14528, SecondaryAlone), (14700, PrimaryUncertain)] {
        let mut heart = heart(PrimaryUncertain);
        command(&mut heart, Command::Connect);
        let peer = hello(PrimaryAlone, elsewhere(7));
        let effects = heart.handle(Event::Dialled { request: 1, link: Some(3), hello: peer });
        assert!(
            !effects.iter().any(|effect| matches!(effect, Effect::Sender(SenderEffect::CheckHistory(_)))),
            "{effects:?}"
        );
        let message = PeerMessage::Refused(Code::from(code).into());
        let effects = heart.handle(Event::PeerSays { link: 3, message });
        assert_eq!(answer(&effects), None);
        assert_eq!((failure(&heart), heart.state()), (Code::find(code), state));
    }
}

#[test]
fn r5_primaries_at_one_position_are_refused_at_once() {
    let mut heart = heart(PrimaryAlone);
    let effects = heart.handle(Event::PeerArrived { link: 3, hello: hello(Standalone, position(5)) });
    assert!(
        matches!(
            effects[..],
            [Effect::Answer(AnswerEffect::TurnAway {
                refusal: Refusal { code: Code::BOTH_PRIMARY, .. },
                ..
            })]
        ),
        "{effects:?}"
    );
}

#[test]
fn a_primary_hears_from_a_dialling_primary_that_it_was_replaced() {
    let mut heart = heart(PrimaryActive);
    let effects = heart.handle(Event::PeerArrived { link: 3, hello: hello(PrimaryAlone, position(7)) });
    assert!(welcomes(&effects, 3), "{effects:?}");
    assert_eq!(heart.state(), PrimaryUncertain);
}

#[test]
fn connect_in_standalone_is_refused_whatever_the_peer_unless_it_is_a_primary_too() {
    let secondary = Event::Dialled { request: 1, link: Some(3), hello: hello(SecondaryAlone, position(5)) };
    for event in [UNREACHABLE, secondary] {
        let mut heart = heart(Standalone);
        assert!(dials(&command(&mut heart, Command::Connect)));
        heart.handle(event);
        assert_eq!((failure(&heart), heart.state()), (Some(Code::NOT_IN_STANDALONE), Standalone));
    }
}

#[test]
fn a_primary_whose_secondary_asks_to_leave_during_a_switch_goes_on_alone() {
    let mut heart = heart(PrimaryActive);
    command(&mut heart, Command::SwitchSecondary);
    heart.handle(Event::PeerSays { link: 9, message: PeerMessage::AskDisconnect });
    assert_eq!(heart.state(), PrimaryAlone);
}

#[test]
fn r4_switch_primary_is_refused_by_a_peer_that_is_primary_or_further() {
    let parted = Hello { database_id: [2; 16], ..hello(SecondaryAlone, position(5)) };
    for (peer, code) in [
        (hello(PrimaryAlone, position(5)), Code::BOTH_PRIMARY),
        (hello(PrimaryUncertain, position(6)), Code::NOT_SYNCHRONIZED),
        (hello(Standalone, position(6)), Code::NOT_SYNCHRONIZED),
        (hello(SecondaryAlone, position(6)), Code::NOT_SYNCHRONIZED),
        (parted, Code::DIFFERENT_DATABASE),
    ] {
        let mut heart = heart(SecondaryAlone);
        command(&mut heart, Command::SwitchPrimary);
        let effects = heart.handle(Event::Dialled { request: 1, link: None, hello: peer });
        assert_eq!((answer(&effects), heart.state()), (Some(code), SecondaryAlone), "{peer:?}");
    }
    for event in
        [UNREACHABLE, Event::Dialled { request: 1, link: None, hello: hello(SecondaryAlone, position(5)) }]
    {
        let mut heart = heart(SecondaryAlone);
        command(&mut heart, Command::SwitchPrimary);
        let effects = heart.handle(event);
        assert_eq!(answer(&drain(&mut heart, &effects)), Some(Code::SUCCESS));
        assert_eq!(heart.state(), PrimaryAlone);
    }
}

#[test]
fn a_full_log_makes_a_primary_alone_standalone_and_no_other_state_anything() {
    let full = Event::LogSize { bytes: 100, retained: true };
    for state in STATES {
        let mut heart = heart(state);
        heart.settings.maximum_log_bytes = Some(100);
        heart.handle(full.clone());
        assert_eq!(heart.state(), if state == PrimaryAlone { Standalone } else { state });
    }
    let mut copying = heart(PrimaryAlone);
    command(&mut copying, Command::Netcopy);
    copying.settings.maximum_log_bytes = Some(100);
    copying.handle(full);
    assert_eq!(copying.state(), PrimaryAlone);
}

#[test]
fn set_primary_alone_while_the_connection_is_being_ended_waits_until_it_is_broken() {
    let mut heart = heart(SecondaryActive);
    command(&mut heart, Command::Disconnect);
    assert_eq!(heart.activity(), Activity::Disconnecting);
    assert_eq!(answer(&command(&mut heart, Command::SetPrimaryAlone)), Some(Code::ALONE_ONLY_WHEN_BROKEN));
    assert_eq!(answer(&command(&mut heart, Command::SwitchPrimary)), Some(Code::PEER_COMMAND_CONFLICT));
}

#[test]
fn each_number_of_perfmon_is_used() {
    let mut numbers: Vec<u8> = STATES
        .into_iter()
        .chain([Plain])
        .flat_map(|state| Activity::ALL.map(|activity| state_number(state, activity)))
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..=17).collect::<Vec<u8>>());
    assert_eq!(state_number(PrimaryAlone, Activity::Copying), 6);
    assert_eq!(state_number(SecondaryAlone, Activity::CatchingUp), 15);
}

#[test]
fn start_times_follow_the_role() {
    for (from, to, set) in [
        (SecondaryAlone, PrimaryAlone, Some(StartTime::Primary)),
        (SecondaryAlone, Standalone, Some(StartTime::Primary)),
        (SecondaryActive, PrimaryActive, Some(StartTime::Primary)),
        (SecondaryActive, PrimaryAlone, Some(StartTime::Primary)),
        (Offline, SecondaryAlone, Some(StartTime::Secondary)),
        (PrimaryAlone, SecondaryAlone, Some(StartTime::Secondary)),
        (Standalone, SecondaryAlone, Some(StartTime::Secondary)),
        (PrimaryUncertain, SecondaryAlone, Some(StartTime::Secondary)),
        (PrimaryActive, SecondaryActive, Some(StartTime::Secondary)),
        (PrimaryAlone, PrimaryActive, None),
        (Standalone, PrimaryAlone, None),
        (SecondaryAlone, SecondaryActive, None),
        (SecondaryAlone, SecondaryAlone, None),
    ] {
        assert_eq!(start_time_set_by(from, to), set, "{from} -> {to}");
    }
}

#[test]
fn a_shutdown_during_catchup_takes_leave_and_does_not_become_active() {
    let mut secondary = heart(SecondaryAlone);
    let effects = secondary.handle(Event::PeerArrived { link: 12, hello: hello(PrimaryAlone, position(9)) });
    drain(&mut secondary, &effects);
    let says = |message| Event::PeerSays { link: 12, message };
    secondary.handle(says(PeerMessage::Accept { pair: SETTINGS.pair }));
    assert_eq!(secondary.activity(), Activity::CatchingUp);
    let effects = secondary.handle(Event::ShuttingDown { request: 7 });
    assert_eq!((last_word(&effects), answer(&effects)), (Some(14711), Some(Code::SUCCESS)));
    assert_eq!(secondary.handle(says(PeerMessage::GoActive { position: position(9) })), []);
    assert_eq!(secondary.state(), SecondaryAlone);
}

#[test]
fn a_shutdown_during_a_switch_waits_for_its_end_and_then_takes_leave() {
    let mut old = heart(PrimaryActive);
    let link = old.link.expect("it is connected");
    command(&mut old, Command::SwitchSecondary);
    assert_eq!(answer(&old.handle(Event::ShuttingDown { request: 7 })), None);
    let says = |message| Event::PeerSays { link, message };
    let effects = old.handle(says(PeerMessage::TakeOver));
    assert_eq!((old.state(), answer(&effects)), (SecondaryActive, None));
    assert!(effects.contains(&Effect::Sender(SenderEffect::Tell(PeerMessage::AskDisconnect))), "{effects:?}");
    assert_eq!(answer(&old.handle(says(PeerMessage::Disconnected))), Some(Code::SUCCESS));
    assert_eq!(old.state(), SecondaryAlone);
}
