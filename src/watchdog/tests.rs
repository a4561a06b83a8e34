//! The decider against a table of cases.

use super::decision::{Finding, Mode, Policy, Reply, Report, Sight, Watchdog, known};
use crate::hsb::advice::{Premise, Step, View};
use crate::hsb::cause::Cause;
use crate::hsb::codes::Code;
use crate::hsb::event::Command::{self, *};
use crate::hsb::state::State::{self, *};
use crate::hsb::table::Trigger;

pub(super) const ACT: Policy = Policy { auto_switch: true, dual_secondary_auto_switch: true };

pub(super) fn here(state: State, sequence: u64) -> Sight {
    seen(View::new(state, (1, sequence), None))
}

pub(super) fn seen(view: View) -> Sight {
    Sight::Here(Report { view, connected: view.state.is_active() })
}

pub(super) fn whole() -> [Sight; 2] {
    [here(PrimaryActive, 1), here(SecondaryActive, 1)]
}

fn after_whole(policy: Policy) -> Watchdog {
    let mut watchdog = Watchdog::new(policy);
    assert_eq!(watchdog.mode(), Mode::Failure, "at the start");
    assert_eq!(watchdog.look(Finding::of(&whole())), None);
    assert_eq!(watchdog.mode(), Mode::Normal);
    watchdog
}

fn step(node: usize, command: Command) -> Option<Step> {
    Some(Step { node, command })
}

/// Found by simulation: the primary had lost power, and with it what it had acknowledged and not yet synced; before the
/// secondary had noticed, that was gone as well, and the old primary was promoted when it came back. A secondary that has
/// lost what it had acknowledged from its memory is no better.
#[test]
fn a_node_that_was_restarted_is_not_promoted_while_the_other_is_gone() {
    let restarted = |sequence| seen(View::new(SecondaryAlone, (1, sequence), Some(Cause::Started)));
    for back in [0, 1] {
        let mut watchdog = after_whole(ACT);
        let other = [here(PrimaryActive, 5), here(SecondaryActive, 5)][1 - back].clone();
        let sights =
            |at_back: Sight, other: Sight| if back == 0 { [at_back, other] } else { [other, at_back] };
        assert_eq!(watchdog.look(Finding::of(&sights(Sight::Gone, other))), None);
        assert_eq!(watchdog.look(Finding::of(&[Sight::Gone, Sight::Gone])), None);
        assert_eq!(watchdog.look(Finding::of(&sights(restarted(4), Sight::Gone))), None);
        // Both are back: the log positions tell.
        let both = Finding::of(&sights(restarted(4), restarted(5)));
        assert_eq!(watchdog.look(both), step(1 - back, SwitchPrimary));
    }
}

#[test]
fn each_failure_has_its_answer() {
    let gone = || Sight::Gone;
    for (sights, wanted, mode) in [
        ([gone(), here(SecondaryAlone, 1)], step(1, SwitchPrimary), Mode::Normal),
        ([gone(), here(SecondaryActive, 1)], None, Mode::Normal),
        ([here(PrimaryUncertain, 1), gone()], step(0, SetPrimaryAlone), Mode::Normal),
        ([here(PrimaryUncertain, 1), here(SecondaryAlone, 1)], step(0, SetPrimaryAlone), Mode::Normal),
        ([here(PrimaryUncertain, 1), here(SecondaryActive, 1)], None, Mode::Normal),
        ([here(PrimaryActive, 1), gone()], None, Mode::Normal),
        ([here(PrimaryActive, 1), here(SecondaryAlone, 1)], None, Mode::Normal),
        ([here(SecondaryActive, 1), here(SecondaryActive, 1)], None, Mode::Normal),
        ([here(SecondaryActive, 1), here(SecondaryAlone, 2)], None, Mode::Normal),
        ([here(PrimaryAlone, 1), here(SecondaryAlone, 1)], None, Mode::Failure),
        ([here(PrimaryAlone, 1), gone()], None, Mode::Failure),
        ([gone(), here(Standalone, 1)], None, Mode::Failure),
        ([here(PrimaryUncertain, 1), here(PrimaryAlone, 1)], None, Mode::Failure),
        ([here(PrimaryAlone, 1), here(PrimaryAlone, 1)], None, Mode::Failure),
        ([here(PrimaryUncertain, 1), here(PrimaryUncertain, 1)], None, Mode::Failure),
        ([gone(), gone()], None, Mode::Normal),
        ([here(SecondaryAlone, 2), here(SecondaryAlone, 10)], step(1, SwitchPrimary), Mode::Failure),
        ([here(SecondaryAlone, 2), here(SecondaryAlone, 1)], step(0, SwitchPrimary), Mode::Failure),
        ([here(SecondaryAlone, 2), here(SecondaryAlone, 2)], step(0, SwitchPrimary), Mode::Failure),
    ] {
        let mut watchdog = after_whole(ACT);
        assert_eq!(watchdog.look(Finding::of(&sights)), wanted, "{sights:?}");
        assert_eq!(watchdog.mode(), mode, "{sights:?}");
    }
}

#[test]
fn a_moment_without_any_answer_is_not_a_failure_a_longer_one_is() {
    let failed = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    for (looks, acts) in [(5, true), (6, false)] {
        let mut watchdog = after_whole(ACT);
        for _ in 0..looks {
            assert_eq!(watchdog.look(Finding::Nobody), None);
        }
        assert_eq!(watchdog.look(failed).is_some(), acts, "after {looks}");
    }
}

#[test]
fn what_an_operator_has_to_decide_is_left_to_one() {
    let superseded = seen(View { superseded: true, ..View::new(PrimaryUncertain, (1, 1), None) });
    for other in [Sight::Gone, Sight::Refuses, here(SecondaryAlone, 1), here(SecondaryActive, 1)] {
        assert_eq!(after_whole(ACT).look(Finding::of(&[superseded.clone(), other])), None);
    }
    let diverged = seen(View::new(SecondaryAlone, (1, 9), Some(Cause::Change(Trigger::Diverged))));
    assert_eq!(after_whole(ACT).look(Finding::of(&[diverged, here(SecondaryAlone, 1)])), None);
}

/// The old primary is cut off from all, the secondary is promoted; then that one is out of sight and the old one back: the
/// new one takes writes, and so would the old one if it were set alone, by the watchdog or on its advice.
#[test]
fn the_old_primary_is_not_set_alone_while_the_promoted_server_is_out_of_sight() {
    let promotions: [&dyn Fn(&mut Watchdog); 4] = [
        // The order was carried out,
        &|watchdog| promote(watchdog, Reply::Code(0)),
        // or perhaps was,
        &|watchdog| promote(watchdog, Reply::None),
        // or somebody else gave it,
        &|watchdog| assert_eq!(watchdog.look(Finding::of(&[Sight::Gone, here(PrimaryAlone, 1)])), None),
        // or it is seen by what it wrote.
        &|watchdog| {
            assert_eq!(
                watchdog.look(Finding::of(&[here(PrimaryUncertain, 1), here(SecondaryAlone, 2)])),
                None
            )
        },
    ];
    for auto_switch in [true, false] {
        for promoted in promotions {
            let mut watchdog = after_whole(Policy { auto_switch, ..ACT });
            promoted(&mut watchdog);
            let sights = [here(PrimaryUncertain, 1), Sight::Gone];
            for _ in 0..20 {
                assert_eq!(watchdog.look(Finding::of(&sights)), None);
                let advice = watchdog.advice(&sights);
                assert_eq!(advice.premise, Premise::None);
                assert_eq!(advice.steps, [Step { node: 0, command: SetSecondaryAlone }]);
                watchdog.look(Finding::Nobody);
            }
            // Seen both, the promoted one is the primary.
            let both = [here(PrimaryUncertain, 1), here(PrimaryAlone, 1)];
            assert_eq!(watchdog.look(Finding::of(&both)), None);
            let steps = [Step { node: 0, command: SetSecondaryAlone }, Step { node: 1, command: Connect }];
            assert_eq!(watchdog.advice(&both).steps, steps);
            // Whole again: the next failure is acted on.
            watchdog.look(Finding::of(&whole()));
            assert_eq!(watchdog.look(Finding::of(&sights)).is_some(), auto_switch);
        }
    }
}

fn promote(watchdog: &mut Watchdog, reply: Reply) {
    let finding = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    watchdog.look(finding);
    let order = Step { node: 1, command: SwitchPrimary };
    assert_eq!(watchdog.done(finding, order, reply), None);
}

/// One that knows nothing of the time before cannot know whether the other one was promoted.
#[test]
fn a_watchdog_that_has_just_started_advises_to_look_at_the_server_that_is_out_of_sight() {
    for state in [PrimaryUncertain, SecondaryAlone] {
        let sights = [here(state, 1), Sight::Gone];
        let mut watchdog = Watchdog::new(ACT);
        assert_eq!(watchdog.look(Finding::of(&sights)), None);
        assert_eq!(watchdog.advice(&sights).premise, Premise::OtherIsDown);
    }
}

#[test]
fn a_server_that_refuses_to_answer_is_not_taken_for_dead() {
    for (sights, wanted, mode) in [
        // It may be being promoted.
        ([here(PrimaryUncertain, 1), Sight::Refuses], None, Mode::Normal),
        // The secondary asks it before it takes over.
        ([Sight::Refuses, here(SecondaryAlone, 1)], step(1, SwitchPrimary), Mode::Normal),
        ([here(PrimaryActive, 1), Sight::Refuses], None, Mode::Normal),
        ([Sight::Refuses, here(PrimaryAlone, 1)], None, Mode::Failure),
    ] {
        let mut watchdog = after_whole(ACT);
        assert_eq!(watchdog.look(Finding::of(&sights)), wanted, "{sights:?}");
        assert_eq!(watchdog.mode(), mode, "{sights:?}");
        assert!(watchdog.advice(&sights).steps.is_empty(), "{sights:?}");
    }
}

#[test]
fn an_order_that_did_not_get_there_is_no_order() {
    let mut watchdog = after_whole(ACT);
    let finding = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    for _ in 0..20 {
        let order = watchdog.look(finding).unwrap();
        assert_eq!(watchdog.done(finding, order, Reply::NotGiven), None);
        assert_eq!(watchdog.mode(), Mode::Normal);
    }
}

#[test]
fn of_two_secondaries_the_other_way_is_tried_where_it_is_safe() {
    let finding = Finding::of(&[here(SecondaryAlone, 1), here(SecondaryAlone, 2)]);
    for (code, follows) in [
        // It cannot ask its peer; the watchdog has.
        (Code::OPERATION_FAILED, step(1, SetPrimaryAlone)),
        // It cannot be a primary; the other one may have all it has.
        (Code::APPLY_FAILED, step(0, SwitchPrimary)),
        (Code::DISK_FULL, step(0, SwitchPrimary)),
        (Code::NOT_SYNCHRONIZED, None),
        (Code::BOTH_PRIMARY, None),
        (Code::DIFFERENT_DATABASE, None),
    ] {
        let mut watchdog = after_whole(ACT);
        let order = watchdog.look(finding).unwrap();
        assert_eq!(watchdog.done(finding, order, Reply::Code(code.number())), follows, "{code:?}");
        if let Some(next) = follows {
            let refused = Reply::Code(Code::NOT_SYNCHRONIZED.number());
            assert_eq!(watchdog.done(finding, next, refused), None);
            assert_eq!(watchdog.look(finding), None);
        }
    }
    // Perhaps the other one is being promoted at this moment.
    let mut watchdog = after_whole(ACT);
    promote(&mut watchdog, Reply::None);
    assert_eq!(watchdog.look(Finding::of(&[here(SecondaryAlone, 2), here(SecondaryAlone, 1)])), None);
}

#[test]
fn after_one_action_there_is_none_until_the_pair_is_whole() {
    let mut watchdog = after_whole(ACT);
    let failed = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    let order = watchdog.look(failed).unwrap();
    assert_eq!(watchdog.done(failed, order, Reply::Code(Code::SWITCH_ACTIVE.number())), None);
    assert_eq!(watchdog.look(failed), Some(order), "busy: tried again");
    assert_eq!(watchdog.done(failed, order, Reply::None), None);
    assert_eq!(watchdog.look(failed), Some(order), "no answer: the node still needs it");
    assert_eq!(watchdog.done(failed, order, Reply::Code(0)), None);
    for second in [[here(PrimaryUncertain, 1), Sight::Gone], [here(SecondaryAlone, 1), Sight::Gone]] {
        assert_eq!(watchdog.look(Finding::of(&second)), None);
    }
    assert_eq!(watchdog.look(Finding::of(&whole())), None);
    assert!(watchdog.look(failed).is_some());
}

#[test]
fn a_secondary_whose_peer_answers_it_is_not_forced() {
    let finding = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    for (code, follows) in [
        (Code::BOTH_PRIMARY, None),
        (Code::NOT_SYNCHRONIZED, None),
        (Code::APPLY_FAILED, None),
        (Code::DIFFERENT_DATABASE, None),
        (Code::BACKUPSERVER_MODE, step(1, SetPrimaryAlone)),
    ] {
        let mut watchdog = after_whole(ACT);
        let order = watchdog.look(finding).unwrap();
        assert_eq!(watchdog.done(finding, order, Reply::Code(code.number())), follows, "{code:?}");
    }
}

#[test]
fn without_auto_switch_there_is_advice_only() {
    let policy = Policy { auto_switch: false, dual_secondary_auto_switch: false };
    let mut watchdog = after_whole(policy);
    let finding = Finding::of(&[Sight::Gone, here(SecondaryAlone, 1)]);
    assert_eq!(watchdog.look(finding), None);
    assert_eq!(watchdog.mode(), Mode::Failure);
    let advice = watchdog.advice(&[Sight::Gone, here(SecondaryAlone, 1)]);
    assert_eq!(
        (advice.premise, advice.steps.first().copied()),
        (Premise::OtherIsDown, step(1, SwitchPrimary))
    );
    assert_eq!(watchdog.look(Finding::of(&[here(SecondaryAlone, 1), here(SecondaryAlone, 2)])), None);
}

#[test]
fn a_promotion_that_was_refused_for_good_is_not_repeated() {
    let mut watchdog = after_whole(ACT);
    let finding = Finding::of(&[here(SecondaryAlone, 1), here(SecondaryAlone, 2)]);
    let order = watchdog.look(finding).unwrap();
    assert_eq!(watchdog.done(finding, order, Reply::Code(Code::NOT_SYNCHRONIZED.number())), None);
    assert_eq!(watchdog.look(finding), None);
    watchdog.look(Finding::Nobody);
    assert_eq!(watchdog.look(finding), Some(order), "the nodes were away: things may be different");
}

/// In virtual time: each node answers so long after it was asked, and then what was asked last.
#[test]
fn a_round_is_complete_however_short_the_interval_is() {
    let complete_by = |answer_ms: [u64; 2], interval_ms: u64| {
        let gone = Sight::Gone;
        let here =
            Sight::Here(Report { view: View::new(State::PrimaryActive, (1, 1), None), connected: true });
        let (mut round, mut next) = (0, 0);
        let mut seen: [Option<(u64, &Sight)>; 2] = [Some((0, &gone)), Some((0, &here))];
        let mut busy: [Option<(u64, u64)>; 2] = [None, None];
        for now in 0..10_000 {
            if now >= next {
                if known(seen, round).is_some() {
                    round += 1;
                }
                next = now + interval_ms;
            }
            for node in 0..2 {
                if let Some((_, asked)) = busy[node].take_if(|(at, _)| *at <= now) {
                    seen[node] = Some((asked, &here));
                }
                if busy[node].is_none() && seen[node].is_none_or(|(at, _)| at < round) {
                    busy[node] = Some((now + answer_ms[node], round));
                }
            }
            if round > 1 && known(seen, round).is_some() {
                return now;
            }
        }
        panic!("no round is complete: {answer_ms:?}, {interval_ms}");
    };
    assert!(complete_by([25, 40], 10) < 200);
    assert!(complete_by([1, 40], 10) < 200);
    assert!(complete_by([1, 1], 1000) < 2100);
}
