//! Heart, part room: what a node does whose disk is full.
//!
//! A primary refuses writers (11002) until there is room, and takes back the batch that its log could not take if
//! nobody else can have it. One that may have been sent waits, and its clients with it: its outcome is not this node's
//! to decide. A secondary leaves its primary, for it must not acknowledge what it cannot keep; what it has
//! acknowledged is held in memory and written when there is room. Connecting again works from then on.

use super::codes::Code;
use super::effect::{Decision, NodeEffect, WriterEffect};
use super::event::{Command, PeerMessage};
use super::heart::Heart;
use super::refusal::Refusal;
use super::severity::Severity;
use super::state::State;
use super::table::Trigger;

/// Event: the disk is full, writes wait or are refused; the text says which disk.
pub const DISK_FULL: &str = "SYS_EVENT_DISKFULL";
/// Event: there is room on the disk again.
pub const DISK_ROOM: &str = "SYS_EVENT_DISKROOM";

/// What needs room on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store {
    /// The transaction log.
    Log,
    /// The database.
    Database,
}

/// Whether there is room for it: the one shape of this fact, from who meets the full disk to the heart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Room {
    /// What needs it.
    pub store: Store,
    /// The system's words; none: there is room, again.
    pub lacks: Option<String>,
}

impl Room {
    /// There is none.
    pub fn lacking(store: Store, why: impl Into<String>) -> Room {
        Room { store, lacks: Some(why.into()) }
    }

    /// There is.
    pub fn there(store: Store) -> Room {
        Room { store, lacks: None }
    }
}

/// Why there is no room, by what needs it.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Lacking {
    log: Option<String>,
    database: Option<String>,
}

impl Lacking {
    fn of(&mut self, store: Store) -> &mut Option<String> {
        match store {
            Store::Log => &mut self.log,
            Store::Database => &mut self.database,
        }
    }
}

impl Heart {
    /// What cannot be written for want of room.
    pub fn lacks_room(&self) -> Option<&str> {
        self.lacking.log.as_deref().or(self.lacking.database.as_deref())
    }

    pub(super) fn room_changed(&mut self, Room { store, lacks }: Room) {
        let lacked = self.lacks_room().is_some();
        self.lacking.of(store).clone_from(&lacks);
        match lacks {
            Some(detail) => {
                let text = format!("No writes until there is room: {detail}");
                self.alert(DISK_FULL, Severity::Error, Refusal::new(Code::DISK_FULL, text).to_string());
                self.give_back_unsent(store);
                self.check_history();
                if self.state.is_secondary() {
                    self.leave_for_room(&detail);
                }
                self.try_to_demote();
            }
            None if lacked && self.lacks_room().is_none() => {
                self.alert(DISK_ROOM, Severity::Info, "There is room on the disk again.".to_owned());
            }
            None => {}
        }
        if lacked != self.lacks_room().is_some() {
            self.admit();
        }
    }

    pub(super) fn alert(&mut self, name: &'static str, severity: Severity, text: String) {
        self.want(NodeEffect::Alert { name, severity, text });
    }

    /// The batch that the log could not take: if nobody else can have it, the log has dropped it, and it never was.
    fn give_back_unsent(&mut self, store: Store) {
        if store == Store::Log && self.in_flight.take_if(|batch| !batch.logged && !batch.sent).is_some() {
            self.log_end = self.decided;
            self.want(WriterEffect::Decide(Decision::Reject(Code::DISK_FULL)));
            self.nothing_in_flight();
        }
    }

    fn leave_for_room(&mut self, detail: &str) {
        let refusal = Refusal::new(Code::DISK_FULL, detail);
        self.break_off(&refusal);
        self.close(Some(PeerMessage::Refused(refusal)));
        if self.state == State::SecondaryActive {
            self.go(Trigger::NoRoom);
        }
    }

    /// What cannot be done without room: a secondary can neither follow nor be sure that all it has received is on
    /// disk. A primary must have committed what is decided before it follows another, and a switch would only make it
    /// a secondary that leaves at once.
    pub(super) fn is_refused_for_room(&self, command: Command) -> bool {
        use Command::{
            Connect, SetPrimaryAlone, SetSecondaryAlone, SetStandalone, SwitchPrimary, SwitchSecondary,
        };
        if self.lacks_room().is_none() {
            return false;
        }
        match command {
            Connect | SetPrimaryAlone | SetStandalone => self.state.is_secondary(),
            SwitchPrimary | SwitchSecondary => true,
            SetSecondaryAlone => self.lacking.database.is_some(),
            _ => false,
        }
    }

    /// What the log lacks. A batch that waits for room cannot be waited for: not by those who end being a primary, nor by
    /// those who meet another server.
    pub(super) fn log_lacks(&self) -> Option<&str> {
        self.lacking.log.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::effect::{Admission, AnswerEffect, ApplierEffect, BatchEffect, Effect, SenderEffect};
    use super::super::event::{BatchInfo, Event, Hello};
    use super::super::position::{Chain, Position};
    use super::super::tests::{SETTINGS, heart};
    use super::*;

    fn position(sequence: u64) -> Position {
        Position { epoch: 1, sequence, chain: Chain([sequence as u8; 16]) }
    }

    fn ready(heart: &mut Heart) -> Vec<Effect> {
        let active = heart.state() == State::PrimaryActive;
        heart.handle(Event::BatchReady(BatchInfo {
            before: position(5),
            after: position(6),
            needs_acknowledgement: active,
            strict: true,
            bytes: 100,
        }))
    }

    fn full(store: Store) -> Event {
        Event::Room(Room::lacking(store, "No space left on device"))
    }

    fn room(store: Store) -> Event {
        Event::Room(Room::there(store))
    }

    fn has(effects: &[Effect], wanted: &Effect) -> bool {
        effects.contains(wanted)
    }

    const REFUSED: Effect = Effect::Writer(WriterEffect::Admit(Admission::Refuse(Code::DISK_FULL)));
    const ADMITTED: Effect = Effect::Writer(WriterEffect::Admit(Admission::Open));
    const REJECTED: Effect = Effect::Writer(WriterEffect::Decide(Decision::Reject(Code::DISK_FULL)));

    #[test]
    fn alone_the_batch_is_refused_and_taken_back() {
        for state in [State::Plain, State::Standalone, State::PrimaryAlone] {
            let mut heart = heart(state);
            ready(&mut heart);
            let effects = heart.handle(full(Store::Log));
            assert!(has(&effects, &REJECTED) && has(&effects, &REFUSED));
            assert_eq!(heart.log_end(), position(5));
            assert!(has(&ready(&mut heart), &REJECTED), "{state} takes a batch without room");
            assert!(has(&heart.handle(room(Store::Log)), &ADMITTED));
            assert!(has(
                &ready(&mut heart),
                &Effect::Batch(BatchEffect::Log { sync: true, only_here: true })
            ));
        }
    }

    #[test]
    fn a_batch_that_was_sent_waits_for_room_and_for_nobody_s_patience() {
        let mut heart = heart(State::PrimaryActive);
        ready(&mut heart);
        heart.handle(Event::Acknowledged { position: position(6) });
        let effects = heart.handle(full(Store::Log));
        assert!(has(&effects, &REFUSED));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Writer(WriterEffect::Decide(_)))));
        assert!(heart.handle(Event::Withdraw).is_empty());
        let effects = heart.handle(Event::Logged { position: position(6), durable: true });
        assert!(has(&effects, &Effect::Writer(WriterEffect::Decide(Decision::Commit))));
        assert!(has(&heart.handle(room(Store::Log)), &ADMITTED));
    }

    /// Else the meeting would last until there is room, and R9 would refuse every way out at both servers.
    #[test]
    fn a_meeting_does_not_wait_for_a_log_without_room() {
        let hello = Hello {
            database_id: [1; 16],
            state: State::SecondaryAlone,
            position: position(6),
            log_end: position(6),
            pair: SETTINGS.pair,
        };
        let ended = |effects: &[Effect]| {
            effects.iter().any(|effect| {
                matches!(effect, Effect::Sender(SenderEffect::Close { farewell: Some(PeerMessage::Refused(why)) }) if why.code == Code::DISK_FULL)
            })
        };
        for before in [true, false] {
            let mut heart = heart(State::PrimaryActive);
            ready(&mut heart);
            heart.handle(Event::LinkLost { link: 9, why: String::new() });
            if before {
                heart.handle(full(Store::Log));
            }
            let mut effects = heart.handle(Event::PeerArrived { link: 3, hello });
            if !before {
                assert!(!ended(&effects));
                effects = heart.handle(full(Store::Log));
            }
            assert!(ended(&effects), "{effects:?}");
            assert_eq!(heart.state(), State::PrimaryUncertain);
            let effects = heart.handle(Event::Command { request: 1, command: Command::SetSecondaryAlone });
            assert!(effects.iter().any(|effect| matches!(
                effect,
                Effect::Answer(AnswerEffect::Reply { code: Code::SUCCESS, .. })
            )));
        }
    }

    #[test]
    fn both_stores_need_room() {
        let mut heart = heart(State::PrimaryAlone);
        heart.handle(full(Store::Database));
        heart.handle(full(Store::Log));
        assert!(!has(&heart.handle(room(Store::Database)), &ADMITTED));
        assert!(has(&heart.handle(room(Store::Log)), &ADMITTED));
    }

    #[test]
    fn a_secondary_leaves_and_comes_back_when_there_is_room() {
        for store in [Store::Log, Store::Database] {
            let mut heart = heart(State::SecondaryActive);
            let effects = heart.handle(full(store));
            let told = |effect: &Effect| matches!(effect, Effect::Sender(SenderEffect::Close { farewell: Some(PeerMessage::Refused(why)) }) if why.code == Code::DISK_FULL);
            assert!(effects.iter().any(told), "{effects:?}");
            assert_eq!(heart.state(), State::SecondaryAlone);
            let refused = |effects: &[Effect]| {
                effects.iter().any(|effect| {
                    matches!(effect, Effect::Answer(AnswerEffect::Reply { code: Code::DISK_FULL, .. }))
                })
            };
            for command in
                [Command::Connect, Command::SetPrimaryAlone, Command::SetStandalone, Command::SwitchPrimary]
            {
                assert!(refused(&heart.handle(Event::Command { request: 1, command })), "{command:?}");
            }
            heart.handle(room(store));
            let effects = heart.handle(Event::Command { request: 1, command: Command::Connect });
            assert!(
                effects.iter().any(|effect| matches!(effect, Effect::Applier(ApplierEffect::Drain { .. })))
            );
        }
    }

    /// Else the command would never be answered.
    #[test]
    fn what_waits_for_the_disk_is_broken_off() {
        let mut heart = heart(State::SecondaryAlone);
        heart.handle(Event::Command { request: 7, command: Command::SetPrimaryAlone });
        let effects = heart.handle(full(Store::Database));
        let answered = |effect: &Effect| {
            matches!(effect, Effect::Answer(AnswerEffect::Reply { request: 7, code: Code::DISK_FULL, .. }))
        };
        assert!(effects.iter().any(answered), "{effects:?}");
        assert_eq!(heart.state(), State::SecondaryAlone);
    }

    #[test]
    fn a_server_without_room_shuts_down() {
        let mut heart = heart(State::PrimaryActive);
        ready(&mut heart);
        heart.handle(full(Store::Log));
        let effects = heart.handle(Event::ShuttingDown { request: 1 });
        assert!(has(&effects, &Effect::Writer(WriterEffect::Decide(Decision::Abandon))));
    }
}
