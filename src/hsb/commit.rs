//! Heart, part commit: when a batch may be logged, sent, decided.
//!
//! The rules (replication.md, "Commit at the primary"): nothing is decided before the log has it, before the
//! secondary has acknowledged it where that was promised, and before it is on disk where that was promised. Batch
//! n+1 is not logged before batch n is decided; the writer keeps to that by sealing one batch at a time.

use super::codes::Code;
use super::effect::{BatchEffect, Decision, LogWriterEffect, WriterEffect};
use super::event::BatchInfo;
use super::heart::{Heart, InFlight};
use super::phase::Phase;
use super::position::Position;
use super::severity::Severity;
use super::state::State;

/// Bytes that may be under way to the secondary unacknowledged (1-safe) before writers are slowed down.
const ONE_SAFE_BACKLOG_BYTES: usize = 32 << 20;

impl Heart {
    pub(super) fn batch_ready(&mut self, info: BatchInfo) {
        if !self.takes_batches() {
            self.want(WriterEffect::Decide(Decision::Reject(self.rejection())));
        } else if info.before != self.decided || self.decided != self.log_end {
            // Cannot happen while there is one writer; if it did, histories would part unnoticed.
            self.say(
                Severity::Error,
                format!("a batch that follows {} was refused at {}", info.before, self.decided),
            );
            self.want(WriterEffect::Decide(Decision::Reject(Code::FAILED_UNEXPECTEDLY)));
        } else if self.holds_batches() {
            self.held = true;
            self.want(BatchEffect::Hold);
        } else {
            self.log_end = info.after;
            let (marked, sent) = (info.needs_acknowledgement, self.state == State::PrimaryActive);
            let (logged, durable, acknowledged) = (false, false, false);
            self.in_flight = Some(InFlight { info, logged, durable, acknowledged, sent, marked });
            self.want(BatchEffect::Log { sync: info.strict, only_here: !sent });
            if sent {
                self.want(BatchEffect::Send);
                self.backlog.push_back((info.after.sequence, info.bytes));
                self.backlog_bytes += info.bytes;
            }
        }
    }

    fn takes_batches(&self) -> bool {
        let primary = self.state == State::Plain || self.state.is_primary();
        let primary = primary && !matches!(self.phase, Phase::HandingOver { .. });
        primary && !self.shutting_down && self.lacks_room().is_none()
    }

    fn rejection(&self) -> Code {
        match self.lacks_room() {
            _ if self.shutting_down => Code::SHUTDOWN,
            Some(_) if self.state == State::Plain || self.state.is_primary() => Code::DISK_FULL,
            _ => Code::REPLICATED_ABORTED,
        }
    }

    fn holds_batches(&self) -> bool {
        self.state == State::PrimaryUncertain
            || matches!(
                self.phase,
                Phase::CatchingUp { closing: true, .. } | Phase::Leaving { .. } | Phase::Demoting { .. }
            )
            || (self.state == State::PrimaryActive && self.backlog_bytes > ONE_SAFE_BACKLOG_BYTES)
    }

    /// The writer's patience is over. Only a batch that nobody else has can be taken back (10083 otherwise).
    pub(super) fn withdraw(&mut self) {
        if self.held {
            self.held = false;
            let code = if self.state == State::PrimaryUncertain { Code::UNCERTAIN } else { Code::TIMED_OUT };
            self.want(WriterEffect::Decide(Decision::Reject(code)));
        }
    }

    pub(super) fn logged(&mut self, position: Position, durable: bool) {
        if let Some(batch) = &mut self.in_flight
            && position.sequence >= batch.info.after.sequence
        {
            batch.logged = true;
            batch.durable |= durable;
            self.check_history();
            self.try_to_decide();
        }
    }

    pub(super) fn acknowledged_up_to(&mut self, position: Position) {
        if position.sequence < self.acknowledged.sequence {
            return;
        }
        self.acknowledged = position;
        while let Some((_, bytes)) = self.backlog.pop_front_if(|(sequence, _)| *sequence <= position.sequence)
        {
            self.backlog_bytes -= bytes;
        }
        if let Some(batch) = &mut self.in_flight
            && batch.info.after == position
        {
            batch.acknowledged = true;
            self.try_to_decide();
        }
        self.try_to_go_active();
        self.release();
    }

    pub(super) fn try_to_decide(&mut self) {
        let Some(batch) = self.in_flight else { return };
        let safe = batch.acknowledged || !batch.info.needs_acknowledgement;
        // During catchup the pending batch of an uncertain primary is acknowledged before both are level; it is
        // decided when the nodes are connected, not before. A 1-safe one has promised nothing about the secondary and is
        // part of the history as soon as the log has it, as a restart would find it: there is nothing to wait for.
        let settled = self.state != State::PrimaryUncertain || !batch.info.needs_acknowledgement;
        if batch.logged && safe && settled && (batch.durable || !batch.info.strict) {
            self.in_flight = None;
            self.decided = batch.info.after;
            let alone = batch.marked && !batch.acknowledged;
            let decision = if alone { Decision::CommitAlone } else { Decision::Commit };
            self.want(WriterEffect::Decide(decision));
            self.nothing_in_flight();
        }
    }

    /// PRIMARY ACTIVE is over. What was answered in it may be on no disk yet, and has to be before the first answer after
    /// it: that of the batch in flight, whatever its durability and whoever has to acknowledge it.
    pub(super) fn flush_before_the_next_answer(&mut self) {
        self.want(LogWriterEffect::Flush);
        if let Some(batch) = &mut self.in_flight {
            batch.info.strict = true;
        }
    }

    /// The node is alone now: what is in flight waits for no acknowledgement any more.
    pub(super) fn decide_alone(&mut self) {
        if let Some(batch) = &mut self.in_flight {
            batch.info.needs_acknowledgement = false;
        }
        self.try_to_decide();
        self.release();
    }

    /// Lets the held batch go on if nothing holds it any more.
    pub(super) fn release(&mut self) {
        if self.held && !self.holds_batches() && self.in_flight.is_none() {
            self.held = false;
            self.want(BatchEffect::Release);
        }
    }

    /// Procedures that wait until no batch is in flight go on here.
    pub(super) fn nothing_in_flight(&mut self) {
        match self.phase {
            Phase::Meeting { .. } => self.check_history(),
            Phase::CatchingUp { .. } => self.try_to_go_active(),
            Phase::Leaving { .. } => self.try_to_leave(),
            Phase::HandingOver { .. } => self.try_to_hand_over(),
            Phase::Demoting { .. } => self.try_to_demote(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::effect::{AnswerEffect, Effect};
    use super::super::event::Event;
    use super::super::position::Chain;
    use super::super::tests::heart;
    use super::*;

    fn position(sequence: u64) -> Position {
        Position { epoch: 1, sequence, chain: Chain([sequence as u8; 16]) }
    }

    fn one_safe(after: u64) -> Event {
        let (before, after) = (position(after - 1), position(after));
        let (needs_acknowledgement, strict) = (false, false);
        Event::BatchReady(BatchInfo { before, after, needs_acknowledgement, strict, bytes: 100 })
    }

    fn decisions(effects: &[Effect]) -> Vec<Decision> {
        let decision = |effect: &Effect| match effect {
            Effect::Writer(WriterEffect::Decide(decision)) => Some(*decision),
            _ => None,
        };
        effects.iter().filter_map(decision).collect()
    }

    /// What was answered in PRIMARY ACTIVE may be on no disk yet, and the secondary is gone.
    #[test]
    fn a_1_safe_batch_under_way_when_the_secondary_is_lost_is_answered_once_all_before_it_is_on_disk() {
        let mut heart = heart(State::PrimaryActive);
        heart.handle(one_safe(6));
        let effects = heart.handle(Event::LinkLost { link: 9, why: String::new() });
        assert_eq!(heart.state(), State::PrimaryUncertain);
        assert!(effects.contains(&Effect::LogWriter(LogWriterEffect::Flush)));
        let written = heart.handle(Event::Logged { position: position(6), durable: false });
        assert_eq!(decisions(&written), []);
        let synced = heart.handle(Event::Logged { position: position(6), durable: true });
        assert_eq!(decisions(&synced), [Decision::Commit]);
        // It is the only one: those who come later wait, 1-safe or not.
        let effects = heart.handle(one_safe(7));
        assert!(effects.contains(&Effect::Batch(BatchEffect::Hold)) && decisions(&effects).is_empty());
        assert_eq!(decisions(&heart.handle(Event::Withdraw)), [Decision::Reject(Code::UNCERTAIN)]);
    }

    /// Who takes over from a server that has gone down need not have it.
    #[test]
    fn a_server_that_goes_down_does_not_commit_alone_what_the_lost_secondary_has_not_acknowledged() {
        let mut heart = heart(State::PrimaryActive);
        let Event::BatchReady(mut batch) = one_safe(6) else { return };
        batch.needs_acknowledgement = true;
        heart.handle(Event::BatchReady(batch));
        heart.handle(Event::Logged { position: position(6), durable: true });
        assert_eq!(decisions(&heart.handle(Event::ShuttingDown { request: 1 })), []);
        let effects = heart.handle(Event::LinkLost { link: 9, why: String::new() });
        assert_eq!(heart.state(), State::PrimaryUncertain);
        assert_eq!(decisions(&effects), [Decision::Abandon]);
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Answer(AnswerEffect::Reply { request: 1, .. })))
        );
    }
}
