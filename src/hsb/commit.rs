//! Heart, part commit: when a batch may be logged, sent, decided.
//!
//! The rules (replication.md, "Commit at the primary"): nothing is decided before the log has it, before the
//! secondary has acknowledged it where that was promised, and before it is on disk where that was promised. Batch
//! n+1 is not logged before batch n is decided; the writer keeps to that by sealing one batch at a time.

use super::codes::Code;
use super::event::{BatchInfo, Decision, Effect};
use super::heart::{Heart, InFlight};
use super::phase::Phase;
use super::position::Position;
use super::settings::Durability;
use super::state::State;

/// Bytes that may be under way to the secondary unacknowledged (1-safe) before writers are slowed down.
const ONE_SAFE_BACKLOG_BYTES: usize = 32 << 20;

impl Heart {
    pub(super) fn batch_ready(&mut self, info: BatchInfo) {
        if !self.takes_batches() {
            self.effects.push(Effect::Decide(Decision::Reject(self.rejection())));
        } else if info.before != self.decided || self.decided != self.log_end {
            // Cannot happen while there is one writer; if it did, histories would part unnoticed.
            self.note(format!("a batch that follows {} was refused at {}", info.before, self.decided));
            self.effects.push(Effect::Decide(Decision::Reject(Code::FAILED_UNEXPECTEDLY)));
        } else if self.holds_batches() {
            self.held = true;
            self.effects.push(Effect::Hold);
        } else {
            self.log_end = info.after;
            let (marked, sent) = (info.needs_acknowledgement, self.state == State::PrimaryActive);
            let (logged, durable, acknowledged) = (false, false, false);
            self.in_flight = Some(InFlight { info, logged, durable, acknowledged, sent, marked });
            self.effects.push(Effect::Log { sync: info.strict });
            if sent {
                self.effects.push(Effect::Send);
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
            self.effects.push(Effect::Decide(Decision::Reject(code)));
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
        // decided when the nodes are connected, not before.
        let settled = self.state != State::PrimaryUncertain || !batch.info.needs_acknowledgement;
        if batch.logged && safe && settled && (batch.durable || !batch.info.strict) {
            self.in_flight = None;
            self.decided = batch.info.after;
            let alone = batch.marked && !batch.acknowledged;
            let decision = if alone { Decision::CommitAlone } else { Decision::Commit };
            self.effects.push(Effect::Decide(decision));
            self.nothing_in_flight();
        }
    }

    /// The node is alone now: what is in flight waits for no acknowledgement any more, but for the disk. Whatever the
    /// durability, if it was to be acknowledged: it is the first answer alone, and all before it must be on disk.
    pub(super) fn decide_alone(&mut self) {
        let strict = self.settings.is_strict(Durability::Default, false);
        if let Some(batch) = &mut self.in_flight {
            let strict = strict || batch.info.needs_acknowledgement;
            batch.info.needs_acknowledgement = false;
            if strict && !batch.info.strict {
                batch.info.strict = true;
                if !batch.durable {
                    self.effects.push(Effect::Flush);
                }
            }
        }
        self.try_to_decide();
        self.release();
    }

    /// Lets the held batch go on if nothing holds it any more.
    pub(super) fn release(&mut self) {
        if self.held && !self.holds_batches() && self.in_flight.is_none() {
            self.held = false;
            self.effects.push(Effect::Release);
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
