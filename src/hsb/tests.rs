//! The heart alone: rulings (docs/rulings.md) and rules that no other test shows as directly.

use super::codes::Code;
use super::effect::{
    AnswerEffect, ApplierEffect, BatchEffect, CopyKind, Decision, Effect, LogWriterEffect, WriterEffect,
};
use super::event::{BatchInfo, Command, Event, Hello, LinkId, PeerMessage};
use super::heart::{Heart, InFlight};
use super::phase::CopyStatus;
use super::position::{Chain, DatabasePosition, Position};
use super::refusal::Refusal;
use super::settings::{
    AcknowledgePolicy, DurabilityLevel, PairSettings, SafenessLevel, SameSettings, Settings,
};
use super::state::State::{self, *};
use super::table::TABLE;

pub(super) const PAIR: PairSettings = PairSettings {
    acknowledge_policy: AcknowledgePolicy::Received,
    ping_interval_ms: 1000,
    ping_timeout_ms: 4000,
};
pub(super) const SETTINGS: Settings = Settings {
    safeness: SafenessLevel::TwoSafe,
    durability: DurabilityLevel::Adaptive,
    auto_primary_alone: false,
    has_connect_string: true,
    pair: PAIR,
    maximum_log_bytes: None,
    same: SameSettings { connect_timeout_ms: 0, page_bytes: 4096, backup_block_bytes: 65536 },
};
pub(super) const STATES: [State; 7] =
    [Offline, Standalone, PrimaryAlone, PrimaryActive, PrimaryUncertain, SecondaryActive, SecondaryAlone];

pub(super) const UNREACHABLE: Event = Event::DialFailed {
    request: 1,
    refusal: Refusal { code: Code::COMMUNICATION_ERROR, detail: String::new() },
};

pub(super) fn position(sequence: u64) -> Position {
    Position { epoch: 1, sequence, chain: Chain([sequence as u8; 16]) }
}

pub(super) fn heart(state: State) -> Heart {
    let mut heart = Heart::new(state, SETTINGS, [1; 16], position(5), position(5));
    heart.link = state.is_active().then_some(9);
    heart
}

pub(super) fn answer(effects: &[Effect]) -> Option<Code> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer(AnswerEffect::Reply { code, .. }) => Some(*code),
        _ => None,
    })
}

pub(super) fn welcomes(effects: &[Effect], who: LinkId) -> bool {
    let is_it = |effect: &Effect| matches!(effect, Effect::Answer(AnswerEffect::Welcome { link, .. }) if *link == who);
    effects.iter().any(is_it)
}

pub(super) fn command(heart: &mut Heart, command: Command) -> Vec<Effect> {
    heart.handle(Event::Command { request: 1, command })
}

pub(super) fn with_batch_in_flight(state: State) -> Heart {
    let mut heart = heart(state);
    let info = BatchInfo {
        before: position(5),
        after: position(6),
        needs_acknowledgement: true,
        strict: false,
        bytes: 100,
    };
    heart.log_end = position(6);
    heart.in_flight =
        Some(InFlight { info, logged: true, durable: true, acknowledged: false, sent: true, marked: true });
    heart
}

#[test]
fn the_table_has_the_edges_of_the_specification() {
    assert_eq!(TABLE.len(), 34);
    for (at, row) in TABLE.iter().enumerate() {
        let twice =
            TABLE[at + 1..].iter().any(|other| (other.from, other.trigger) == (row.from, row.trigger));
        assert!(!twice, "two rows for {} and {:?}", row.from, row.trigger);
    }
    for state in STATES {
        assert!(TABLE.iter().any(|row| row.from == state), "no way out of {state}");
        assert!(TABLE.iter().any(|row| row.to == state) || state == Offline, "no way into {state}");
    }
}

#[test]
fn what_is_not_in_the_table_is_refused_and_changes_nothing() {
    let refusals = [
        (Standalone, Command::SwitchSecondary, Code::SWITCH_FROM_STANDALONE),
        (Standalone, Command::SetStandalone, Code::ALREADY_STANDALONE),
        (Standalone, Command::Netcopy, Code::COPY_ONLY_ALONE),
        (SecondaryActive, Command::SetStandalone, Code::STANDALONE_NOT_ALLOWED),
        (SecondaryActive, Command::SetSecondaryAlone, Code::REFUSED_IN_STATE),
        (SecondaryAlone, Command::SwitchSecondary, Code::ALREADY_SECONDARY),
        (SecondaryAlone, Command::Disconnect, Code::LINK_BROKEN),
        (SecondaryAlone, Command::Netcopy, Code::NOT_PRIMARY),
        (PrimaryAlone, Command::SwitchPrimary, Code::ALREADY_PRIMARY),
        (PrimaryActive, Command::SetSecondaryAlone, Code::REFUSED_IN_STATE),
        (PrimaryActive, Command::Netcopy, Code::COPY_ONLY_ALONE),
        (PrimaryActive, Command::Connect, Code::REFUSED_IN_STATE),
        (PrimaryUncertain, Command::Netcopy, Code::COPY_ONLY_ALONE),
        (Offline, Command::SetPrimaryAlone, Code::BACKUPSERVER_MODE),
        (Plain, Command::SetPrimaryAlone, Code::NOT_HOTSTANDBY),
    ];
    for (state, what, code) in refusals {
        let mut heart = heart(state);
        let effects = command(&mut heart, what);
        assert_eq!(
            (answer(&effects), effects.len(), heart.state()),
            (Some(code), 1, state),
            "{state} {what:?}"
        );
    }
}

#[test]
fn r8_set_primary_alone_in_primary_alone_says_already() {
    let mut heart = heart(PrimaryAlone);
    assert_eq!(answer(&command(&mut heart, Command::SetPrimaryAlone)), Some(Code::SUCCESS));
    assert_eq!(heart.state(), PrimaryAlone);
}

#[test]
fn r9_nothing_changes_the_state_while_a_copy_runs() {
    for what in
        [Command::SetStandalone, Command::SetSecondaryAlone, Command::Connect, Command::SwitchSecondary]
    {
        let mut heart = heart(PrimaryAlone);
        assert_eq!(answer(&command(&mut heart, Command::Netcopy)), Some(Code::SUCCESS));
        assert_eq!(answer(&command(&mut heart, what)), Some(Code::COPY_ACTIVE), "{what:?}");
    }
}

fn arrival(heart: &mut Heart, state: State) -> Vec<Effect> {
    let hello =
        Hello { database_id: [1; 16], state, position: position(5), log_end: position(5), pair: PAIR };
    heart.handle(Event::PeerArrived { link: 3, hello })
}

#[test]
fn a_backup_is_made_in_any_state_that_has_a_database() {
    for state in STATES {
        let mut heart = heart(state);
        let effects = command(&mut heart, Command::Backup);
        let wanted = if state == Offline { Code::BACKUPSERVER_MODE } else { Code::SUCCESS };
        assert_eq!(answer(&effects), Some(wanted), "{state}");
        if state != Offline {
            assert!(effects.contains(&Effect::WriteCopy(CopyKind::Backup)));
            assert_eq!(answer(&command(&mut heart, Command::Backup)), Some(Code::COPY_ALREADY_ACTIVE));
        }
    }
}

#[test]
fn a_backup_holds_up_copies_and_nothing_else() {
    let mut heart = heart(PrimaryAlone);
    command(&mut heart, Command::Backup);
    for what in [Command::Netcopy, Command::Copy] {
        assert_eq!(answer(&command(&mut heart, what)), Some(Code::COPY_ALREADY_ACTIVE));
    }
    assert_eq!(answer(&command(&mut heart, Command::SetStandalone)), Some(Code::SUCCESS));
    heart.handle(Event::CopyEnded { result: Err(Code::DISK_FULL.into()) });
    assert_eq!(*heart.copy_status(), CopyStatus::Failed(Code::DISK_FULL.into()));
    command(&mut heart, Command::SetPrimaryAlone);
    assert_eq!(answer(&command(&mut heart, Command::Copy)), Some(Code::SUCCESS));
    assert_eq!(answer(&command(&mut heart, Command::Connect)), Some(Code::COPY_ACTIVE));
}

/// A node that was started as a secondary may be the one that the other server has to catch up from.
#[test]
fn the_log_is_kept_for_the_other_server_unless_it_is_connected_or_given_up() {
    for (state, wanted) in [
        (PrimaryAlone, 0),
        (PrimaryUncertain, 0),
        (SecondaryAlone, 0),
        (SecondaryActive, 5),
        (Standalone, 5),
        (Plain, 5),
    ] {
        let event = Event::Checkpointed { position: position(5), delete_log: true };
        let effects = heart(state).handle(event);
        let from = |effect: &Effect| matches!(effect, Effect::LogWriter(LogWriterEffect::RetainFrom(from)) if from.sequence == wanted);
        assert!(effects.iter().any(from), "{state}: {effects:?}");
    }
}

#[test]
fn r3_set_secondary_alone_keeps_what_is_pending() {
    let mut heart = with_batch_in_flight(PrimaryUncertain);
    let effects = command(&mut heart, Command::SetSecondaryAlone);
    assert!(
        effects.contains(&Effect::Batch(BatchEffect::KeepPending))
            && effects.contains(&Effect::Writer(WriterEffect::Decide(Decision::Abandon)))
    );
    assert_eq!((heart.state(), heart.decided(), heart.log_end()), (SecondaryAlone, position(5), position(6)));
}

#[test]
fn a_promotion_counts_what_is_pending_as_decided() {
    let mut heart = Heart::new(SecondaryAlone, SETTINGS, [1; 16], position(5), position(6));
    let effects = command(&mut heart, Command::SetPrimaryAlone);
    let Some(Effect::Applier(ApplierEffect::Drain { ticket, with_pending: true })) = effects.first().cloned()
    else {
        panic!("{effects:?}")
    };
    let effects = heart.handle(Event::Drained { ticket, position: position(6) });
    assert!(
        effects.contains(&Effect::Writer(WriterEffect::BeginHistory { position: position(6), epoch: 2 })),
        "{effects:?}"
    );
    assert_eq!(heart.state(), PrimaryAlone);
}

#[test]
fn a_promotion_that_cannot_be_completed_is_answered() {
    let mut heart = heart(SecondaryAlone);
    command(&mut heart, Command::SetPrimaryAlone);
    let effects = heart.handle(Event::ApplyFailed { detail: "disk".into() });
    assert_eq!((answer(&effects), heart.state()), (Some(Code::APPLY_FAILED), SecondaryAlone));
}

#[test]
fn a_secondary_that_could_not_apply_a_change_cannot_be_promoted_before_a_netcopy() {
    let mut heart = heart(SecondaryActive);
    heart.handle(Event::ApplyFailed { detail: "table t, key 1".into() });
    assert_eq!(heart.state(), SecondaryAlone);
    for what in [Command::SetPrimaryAlone, Command::SetStandalone, Command::SwitchPrimary] {
        assert_eq!(answer(&command(&mut heart, what)), Some(Code::APPLY_FAILED), "{what:?}");
    }
    let hello = Hello {
        database_id: [1; 16],
        state: PrimaryAlone,
        position: position(9),
        log_end: position(9),
        pair: PAIR,
    };
    heart.handle(Event::CopyArrives { hello, common: Some(position(5)) });
    heart.handle(Event::CopyReceived {
        opened: Ok(DatabasePosition { database_id: [1; 16], position: position(9) }),
    });
    assert_eq!(answer(&command(&mut heart, Command::SetPrimaryAlone)), None, "it drains first");
}

#[test]
fn a_primary_that_hears_of_a_change_that_does_not_fit_stays_connected_and_whole() {
    for state in STATES.into_iter().filter(|state| !state.is_secondary()) {
        let mut heart = heart(state);
        let link = heart.link();
        heart.handle(Event::ApplyFailed { detail: "late".into() });
        assert_eq!((heart.state(), heart.link(), heart.damaged), (state, link, false));
    }
}

#[test]
fn r2_switch_secondary_alone_needs_a_peer_that_is_level() {
    let hello = |state, sequence| Hello {
        database_id: [1; 16],
        state,
        position: position(sequence),
        log_end: position(sequence),
        pair: PAIR,
    };
    for (peer, code, state) in [
        (Some(hello(SecondaryAlone, 5)), Code::SUCCESS, SecondaryAlone),
        (Some(hello(SecondaryAlone, 4)), Code::CATCHUP_FIRST, PrimaryAlone),
        (None, Code::SUCCESS, SecondaryAlone),
    ] {
        let mut heart = heart(PrimaryAlone);
        command(&mut heart, Command::SwitchSecondary);
        let effects = heart.handle(match peer {
            Some(hello) => Event::Dialled { request: 1, link: None, hello },
            None => UNREACHABLE,
        });
        assert_eq!((answer(&effects), heart.state()), (Some(code), state), "{peer:?}");
    }
}

/// R2, R4: its proof of the secret fails, say. It may be the primary.
#[test]
fn a_peer_that_is_there_and_cannot_be_asked_is_not_passed_over() {
    for (state, switch) in
        [(SecondaryAlone, Command::SwitchPrimary), (PrimaryAlone, Command::SwitchSecondary)]
    {
        let mut heart = heart(state);
        command(&mut heart, switch);
        let refusal = Refusal::new(Code::OPERATION_FAILED, "The peer secrets differ.");
        let effects = heart.handle(Event::DialFailed { request: 1, refusal });
        assert_eq!((answer(&effects), heart.state()), (Some(Code::OPERATION_FAILED), state));
    }
}

/// A host that drops packets is dialled for minutes, unless HotStandby.ConnectTimeout says otherwise.
#[test]
fn a_command_that_is_refused_during_a_dial_is_told_what_ends_it() {
    let mut heart = heart(SecondaryAlone);
    command(&mut heart, Command::SwitchPrimary);
    let effects = command(&mut heart, Command::Connect);
    let Some(Effect::Answer(AnswerEffect::Reply { code: Code::SWITCH_ACTIVE, text, .. })) = effects.last()
    else {
        panic!("{effects:?}")
    };
    assert!(text.contains("SWITCHING TO PRIMARY") && text.contains("'hsb disconnect' ends it"), "{text}");
}

#[test]
fn a_peer_with_a_newer_epoch_makes_the_primary_uncertain_even_with_auto_primary_alone() {
    let mut heart = heart(PrimaryActive);
    heart.handle(Event::SettingsChanged { settings: Settings { auto_primary_alone: true, ..SETTINGS } });
    heart.handle(Event::PeerSays { link: 9, message: PeerMessage::Promoted });
    assert_eq!(heart.state(), PrimaryUncertain);
    heart.handle(Event::LinkLost { link: 9, why: String::new() });
    assert_eq!(heart.state(), PrimaryUncertain);
}

#[test]
fn events_of_an_old_connection_change_nothing() {
    let mut heart = heart(PrimaryActive);
    assert_eq!(heart.handle(Event::LinkLost { link: 8, why: String::new() }), []);
    assert_eq!(heart.handle(Event::PeerSays { link: 8, message: PeerMessage::Promoted }), []);
    assert_eq!(heart.state(), PrimaryActive);
}

#[test]
fn one_safe_backlog_slows_the_writer_down_instead_of_growing_without_bound() {
    let mut heart = heart(PrimaryActive);
    heart.acknowledged = position(5);
    let batch = |from| BatchInfo {
        before: position(from),
        after: position(from + 1),
        needs_acknowledgement: false,
        strict: false,
        bytes: 20 << 20,
    };
    for from in [5, 6] {
        assert!(heart.handle(Event::BatchReady(batch(from))).contains(&Effect::Batch(BatchEffect::Send)));
        let logged = Event::Logged { position: position(from + 1), durable: false };
        assert!(heart.handle(logged).contains(&Effect::Writer(WriterEffect::Decide(Decision::Commit))));
    }
    assert_eq!(heart.handle(Event::BatchReady(batch(7))), [Effect::Batch(BatchEffect::Hold)]);
    assert_eq!(
        heart.handle(Event::Acknowledged { position: position(6) }),
        [Effect::Batch(BatchEffect::Release)]
    );
}

#[test]
fn a_link_that_breaks_before_the_histories_are_compared_leaves_nothing_under_way() {
    let mut heart = heart(PrimaryAlone);
    assert!(welcomes(&arrival(&mut heart, SecondaryAlone), 3));
    heart.handle(Event::LinkLost { link: 3, why: "reset".into() });
    assert_eq!(answer(&command(&mut heart, Command::SetStandalone)), Some(Code::SUCCESS));
}

#[test]
fn an_operator_whose_command_is_overtaken_by_the_peers_promotion_is_answered() {
    let mut heart = with_batch_in_flight(PrimaryActive);
    assert_eq!(answer(&command(&mut heart, Command::SetStandalone)), None);
    let effects = heart.handle(Event::PeerSays { link: 9, message: PeerMessage::Promoted });
    assert_eq!((answer(&effects), heart.state()), (Some(Code::PEER_COMMAND_CONFLICT), PrimaryUncertain));
}

#[test]
fn a_peer_that_waits_for_a_drain_that_fails_is_turned_away() {
    let mut heart = heart(SecondaryAlone);
    arrival(&mut heart, PrimaryAlone);
    let effects = heart.handle(Event::ApplyFailed { detail: "row".into() });
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Answer(AnswerEffect::TurnAway { link: 3, .. }))),
        "{effects:?}"
    );
}

/// Its mark in the log says "in doubt"; only the database on disk will say otherwise after a power cut.
#[test]
fn what_was_in_doubt_is_committed_durably() {
    for decision in [Command::SetPrimaryAlone, Command::SetStandalone] {
        let effects = command(&mut with_batch_in_flight(PrimaryUncertain), decision);
        assert!(
            effects.contains(&Effect::Writer(WriterEffect::Decide(Decision::CommitAlone))),
            "{effects:?}"
        );
    }
    let effects = with_batch_in_flight(PrimaryActive).handle(Event::Acknowledged { position: position(6) });
    assert!(effects.contains(&Effect::Writer(WriterEffect::Decide(Decision::Commit))), "{effects:?}");
}

/// Found by simulation: a primary that was restarted and made a checkpoint before its peer was back had deleted what the
/// peer needed, and only a netcopy helped.
#[test]
fn a_restarted_primary_keeps_the_log_for_its_peer() {
    let checkpoint = Event::Checkpointed { position: position(5), delete_log: true };
    for (state, kept_from) in
        [(SecondaryAlone, Position::ORIGIN), (SecondaryActive, position(5)), (Standalone, position(5))]
    {
        let effects = heart(state).handle(checkpoint.clone());
        assert!(
            effects.contains(&Effect::LogWriter(LogWriterEffect::RetainFrom(kept_from))),
            "{state}: {effects:?}"
        );
    }
}

/// Found by simulation: with relaxed durability the first answer alone did not wait for the disk.
#[test]
fn the_first_answer_alone_waits_for_the_disk_whatever_the_durability() {
    let mut heart = with_batch_in_flight(PrimaryActive);
    let relaxed = DurabilityLevel::Relaxed;
    heart.handle(Event::SettingsChanged {
        settings: Settings { auto_primary_alone: true, durability: relaxed, ..SETTINGS },
    });
    assert_eq!(heart.settings().durability, relaxed);
    if let Some(batch) = &mut heart.in_flight {
        batch.durable = false;
    }
    let effects = heart.handle(Event::LinkLost { link: 9, why: String::new() });
    assert_eq!(heart.state, PrimaryAlone);
    let decides =
        |effects: &[Effect]| effects.contains(&Effect::Writer(WriterEffect::Decide(Decision::CommitAlone)));
    assert!(
        effects.contains(&Effect::LogWriter(LogWriterEffect::Flush)) && !decides(&effects),
        "{effects:?}"
    );
    assert!(decides(&heart.handle(Event::Logged { position: position(6), durable: true })));
}
