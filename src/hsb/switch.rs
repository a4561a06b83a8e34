//! Heart, part switch: switchover, orderly disconnect, promotion, demotion, copies, shutdown.

use super::advice::Remedy;
use super::codes::Code;
use super::effect::{
    Admission, AnswerEffect, ApplierEffect, ConnectStatus, Decision, NodeEffect, WriterEffect,
};
use super::event::{Command, Hello, PeerMessage, RequestId};
use super::heart::Heart;
use super::phase::{AfterDrain, CopyStatus, DialPurpose, Phase, SwitchStatus};
use super::position::{DatabasePosition, Position};
use super::refusal::Refusal;
use super::severity::Severity;
use super::state::State;
use super::table::Trigger;

/// Event: a switch that had begun has failed; the text begins with the code.
pub const SWITCH_FAILED: &str = "SYS_EVENT_HSBSWITCHFAILED";

impl Heart {
    // ---- switchover: HandOver, TakeOver, HandedOver. Broken off anywhere: both SECONDARY ALONE. ----

    pub(super) fn begin_switch(&mut self, phase: Phase) {
        self.phase = phase;
        self.switch_status = SwitchStatus::Active;
        self.start_timer();
    }

    pub(super) fn begin_hand_over(&mut self) {
        self.begin_switch(Phase::HandingOver { told: false });
        self.want(WriterEffect::Admit(Admission::Refuse(Code::TRANSACTION_READ_ONLY)));
        if self.held {
            self.held = false;
            self.want(WriterEffect::Decide(Decision::Reject(Code::REPLICATED_ABORTED)));
        }
        self.try_to_hand_over();
    }

    pub(super) fn peer_asks_to_switch(&mut self) {
        if self.is_refused_for_room(Command::SwitchSecondary) {
            self.warn("the other server asks for the primary role: not while there is no room on the disk");
        } else if self.state == State::PrimaryActive && self.phase == Phase::Idle {
            self.begin_hand_over();
        }
    }

    /// Whoever asked has been answered when it began.
    pub(super) fn switch_failed(&mut self, refusal: &Refusal) {
        self.switch_status = SwitchStatus::Failed(refusal.code);
        let text = format!("{}: the switch has failed: {}", refusal.code.number(), refusal.text());
        self.alert(SWITCH_FAILED, Severity::Error, text);
    }

    pub(super) fn try_to_hand_over(&mut self) {
        if self.phase == (Phase::HandingOver { told: false }) && self.in_flight.is_none() {
            self.phase = Phase::HandingOver { told: true };
            self.tell(PeerMessage::HandOver { position: self.log_end });
        }
    }

    /// At the secondary.
    pub(super) fn peer_hands_over(&mut self, position: Position) {
        if self.state != State::SecondaryActive || !matches!(self.phase, Phase::Idle | Phase::TakingOver) {
            return;
        }
        self.begin_switch(Phase::TakingOver);
        self.drain(AfterDrain::TakeOver { position });
    }

    pub(super) fn ready_to_take_over(&mut self, level: bool) {
        if level {
            self.phase = Phase::TakingOver;
            self.tell(PeerMessage::TakeOver);
        } else if let Some(link) = self.link {
            self.phase = Phase::TakingOver;
            self.link_lost(link, "the positions differ in the middle of a switch");
        }
    }

    /// At the old primary: it stops being one before it says so.
    pub(super) fn peer_takes_over(&mut self) {
        if self.phase != (Phase::HandingOver { told: true }) {
            return;
        }
        self.phase = Phase::Idle;
        self.switch_status = SwitchStatus::Success;
        self.go(Trigger::Switch);
        self.follow();
        self.tell(PeerMessage::HandedOver);
    }

    /// At the new primary.
    pub(super) fn peer_has_handed_over(&mut self) {
        if self.phase != Phase::TakingOver {
            return;
        }
        self.phase = Phase::Idle;
        self.switch_status = SwitchStatus::Success;
        self.acknowledged = self.decided;
        self.go(Trigger::Switch);
    }

    /// The other server's answer to a probe before a switch without a connection (R2, R4).
    pub(super) fn probed(&mut self, request: RequestId, purpose: DialPurpose, hello: Hello) {
        let refusal = match purpose {
            _ if hello.state != State::Offline && hello.database_id != self.database_id => {
                Some(Code::DIFFERENT_DATABASE)
            }
            DialPurpose::SwitchPrimary => self.refusal_to_switch_to_primary(&hello),
            _ => self.refusal_to_switch_to_secondary(&hello),
        };
        match refusal {
            Some(code) => {
                let detail = format!(
                    "The other server is {} at {}, this one is at {}. Nothing was changed; 'hsb status' says what to do.",
                    hello.state, hello.log_end, self.log_end
                );
                self.refuse_with(request, &Refusal::new(code, detail));
            }
            None => self.switch_alone(request, purpose, no_primary_now(Some(hello.state))),
        }
    }

    /// R4: a peer that is a primary, or that has what this node lacks, is not passed over.
    fn refusal_to_switch_to_primary(&self, peer: &Hello) -> Option<Code> {
        if peer.log_end.progress() > self.log_end.progress() {
            Some(Code::NOT_SYNCHRONIZED)
        } else {
            peer.state.is_primary().then_some(Code::BOTH_PRIMARY)
        }
    }

    /// R2: a peer that could take over must have everything. What is pending here it need not have.
    fn refusal_to_switch_to_secondary(&self, peer: &Hello) -> Option<Code> {
        let pending = self.in_flight.is_some_and(|batch| batch.info.needs_acknowledgement);
        let needed = if pending { self.decided } else { self.log_end };
        let level = peer.position == needed || peer.position.progress() > needed.progress();
        (!peer.state.is_primary() && !level).then_some(Code::CATCHUP_FIRST)
    }

    pub(super) fn probe_failed(&mut self, request: RequestId, purpose: DialPurpose, refusal: Refusal) {
        let Refusal { code, detail } = refusal;
        if code == Code::COMMUNICATION_ERROR {
            self.switch_alone(request, purpose, no_primary_now(None));
        } else {
            // It may be the primary, whatever is wrong with it.
            let alone = if purpose == DialPurpose::SwitchPrimary { "primary" } else { "secondary" };
            let detail = format!(
                "{detail} Nothing was changed, because the other server may be there. If it is not: 'hsb set {alone} alone'."
            );
            self.refuse_with(request, &Refusal::new(code, detail.trim_start()));
        }
    }

    fn switch_alone(&mut self, request: RequestId, purpose: DialPurpose, then: &'static str) {
        self.switch_status = SwitchStatus::Success;
        if purpose == DialPurpose::SwitchPrimary {
            self.drain(AfterDrain::Promote { request, trigger: Trigger::Switch });
        } else {
            self.demote(Trigger::SetSecondaryAlone, Some(request), then);
        }
    }

    // ---- orderly disconnect ----

    /// Begins the orderly end of the connection; at the primary no batch may be in flight when it ends.
    pub(super) fn leave(&mut self, trigger: Trigger, request: Option<RequestId>) {
        self.phase = Phase::Leaving { trigger, request };
        self.connect_status(ConnectStatus::Disconnecting);
        self.start_timer();
        if self.state == State::PrimaryActive {
            self.try_to_leave();
        } else {
            self.tell(PeerMessage::AskDisconnect);
        }
    }

    pub(super) fn peer_asks_to_disconnect(&mut self) {
        if self.state != State::PrimaryActive {
            return;
        }
        if let Phase::HandingOver { .. } = self.phase {
            // Whoever asks to leave does not take over any more.
            self.break_off(&Code::PEER_COMMAND_CONFLICT.into());
            self.admit();
        }
        if self.phase == Phase::Idle {
            self.leave(Trigger::Disconnect, None);
        }
    }

    pub(super) fn try_to_leave(&mut self) {
        if let Phase::Leaving { trigger, request } = self.phase
            && self.state == State::PrimaryActive
            && self.in_flight.is_none()
        {
            self.close(Some(PeerMessage::Disconnected));
            self.left(trigger, request);
        }
    }

    pub(super) fn peer_disconnected(&mut self) {
        self.close(None);
        if let Phase::Leaving { trigger, request } = self.phase {
            return self.left(trigger, request);
        }
        self.break_off(&Refusal::new(Code::LINK_BROKEN, "The other server has disconnected."));
        if self.state == State::SecondaryActive {
            self.go(Trigger::Disconnect);
        }
    }

    /// The connection is gone, in order or not: do what it was ended for.
    pub(super) fn left(&mut self, trigger: Trigger, request: Option<RequestId>) {
        self.phase = Phase::Idle;
        self.go(trigger);
        if let Some(request) = request {
            self.reply_state(request);
        }
        self.release();
    }

    // ---- one node alone ----

    pub(super) fn promote(&mut self, request: RequestId, trigger: Trigger, position: Position) {
        self.pending = false;
        self.decided = position;
        self.log_end = position;
        self.go(trigger);
        self.reply_state(request);
    }

    /// Ends being a primary; a batch that waits for this node's own disk only is waited for. `then`: what the answer says
    /// besides the state.
    pub(super) fn demote(&mut self, trigger: Trigger, request: Option<RequestId>, then: &'static str) {
        self.phase = Phase::Demoting { trigger, request, then };
        self.try_to_demote();
    }

    pub(super) fn try_to_demote(&mut self) {
        let Phase::Demoting { trigger, request, then } = self.phase else { return };
        let local_batch = self.in_flight.is_some_and(|batch| !batch.info.needs_acknowledgement);
        if !local_batch || self.log_lacks().is_some() {
            self.phase = Phase::Idle;
            self.go(trigger);
            if let Some(request) = request {
                let text = format!("The server is set to {}. {then}", self.state);
                self.reply(request, Code::SUCCESS, text.trim_end());
            }
        }
    }

    /// The log for the peer has grown too large. While something is under way the next checkpoint says so again.
    pub(super) fn log_full(&mut self) {
        if self.state == State::PrimaryAlone && self.phase == Phase::Idle {
            self.say(
                Severity::Error,
                "30538: the log is larger than HotStandby.MaxLogSize: going STANDALONE",
            );
            self.go(Trigger::LogFull);
        }
    }

    // ---- copies ----

    /// The copy that this node makes, of whatever kind.
    pub(super) fn copy_ended(&mut self, result: Result<(), Refusal>) {
        if self.phase == Phase::CopyingOut {
            self.phase = Phase::Idle;
        }
        match &result {
            Ok(()) => self.note("30571: the copy has ended"),
            Err(refusal) => self.say(Severity::Error, format!("30572: the copy has failed: {refusal}")),
        }
        self.end_copy(result);
    }

    fn end_copy(&mut self, result: Result<(), Refusal>) {
        self.copy_status = match result {
            Ok(()) => CopyStatus::Success,
            Err(refusal) => CopyStatus::Failed(refusal),
        };
    }

    pub(super) fn copy_arrives(&mut self, hello: Hello, common: Option<Position>) {
        let same_database = hello.database_id == self.database_id;
        let refusal = match self.state {
            _ if self.phase != Phase::Idle => self.activity().refusal(),
            _ if self.shutting_down => Some(Code::SHUTTING_DOWN),
            _ if self.copy_status == CopyStatus::Active => Some(Code::COPY_ALREADY_ACTIVE),
            _ if hello.state != State::PrimaryAlone => Some(Code::COPY_ONLY_ALONE),
            State::Offline => None,
            // An unrelated database is not overwritten by a slip in a connect string.
            State::SecondaryAlone if !same_database => Some(Code::DIFFERENT_DATABASE),
            // A copy in the wrong direction would destroy what only this node has.
            State::SecondaryAlone if !self.may_be_replaced(common) => Some(Code::NOT_SYNCHRONIZED),
            State::SecondaryAlone => None,
            _ => Some(Code::REMOTE_NOT_SECONDARY),
        };
        match refusal {
            Some(code) => {
                let detail = match code {
                    Code::NOT_SYNCHRONIZED => {
                        self.remedy = Remedy::Rewind;
                        self.not_to_be_replaced(hello.position, common)
                    }
                    _ => format!(
                        "The target is {} at {}, the source at {}.",
                        self.state, self.decided, hello.position
                    ),
                };
                self.want(AnswerEffect::RefuseCopy(Refusal::new(code, detail)));
            }
            None => {
                self.phase = Phase::CopyingIn;
                self.given_up = None;
                self.copy_status = CopyStatus::Active;
                self.note("30570: a netcopy arrives from the primary");
                self.want(NodeEffect::CloseSessions(Code::SERVER_CLOSED));
                self.want(AnswerEffect::AdmitCopy { hello: self.hello() });
            }
        }
    }

    pub(super) fn copy_received(&mut self, opened: Result<DatabasePosition, Refusal>) {
        if self.phase != Phase::CopyingIn {
            return;
        }
        self.phase = Phase::Idle;
        match &opened {
            Ok(DatabasePosition { database_id, position }) => {
                self.database_id = *database_id;
                self.decided = *position;
                self.log_end = *position;
                self.pending = false;
                self.damaged = false;
                // What the other server was known to have belongs to the old database.
                self.acknowledged = Position::ORIGIN;
                self.want(ApplierEffect::ForgetPending);
                self.go(Trigger::CopyArrived);
            }
            Err(refusal) => self.say(
                Severity::Error,
                format!("30573: the netcopy has failed; this node is as it was before: {refusal}"),
            ),
        }
        self.end_copy(opened.map(|_| ()));
    }

    // ---- time and end ----

    pub(super) fn timed_out(&mut self) {
        if let (Phase::Leaving { .. } | Phase::HandingOver { .. } | Phase::TakingOver, Some(link)) =
            (self.phase, self.link)
        {
            self.link_lost(link, "no answer in time");
        }
    }

    pub(super) fn shut_down(&mut self, request: RequestId) {
        self.shutting_down = true;
        self.admit();
        let waits = self.state == State::PrimaryUncertain || self.log_lacks().is_some();
        if waits && self.in_flight.take().is_some() {
            // It stays at the end of the log and is pending again at the next start (R7).
            self.want(WriterEffect::Decide(Decision::Abandon));
        }
        self.withdraw();
        match self.phase {
            // Ends by itself, within PEER_ANSWER_TIMEOUT_MS; leaving it half-way would leave the peer in doubt.
            phase if phase.is_switch_with_peer() => {}
            Phase::Leaving { .. } => {}
            // A connection that came to be now would end with the process, and leave the other server in doubt.
            _ if self.is_reaching() => self.end_attempt(Refusal::from(Code::SHUTTING_DOWN)),
            _ => {}
        }
        self.shutdown = Some(request);
        self.try_to_shut_down();
    }

    /// Takes leave of the peer once a switch or a disconnect that was under way has ended.
    pub(super) fn try_to_shut_down(&mut self) {
        let waits = self.phase.is_switch_with_peer() || matches!(self.phase, Phase::Leaving { .. });
        if let Some(request) = self.shutdown.take_if(|_| !waits) {
            if self.state.is_active() && self.phase == Phase::Idle {
                self.leave(Trigger::Disconnect, Some(request));
            } else {
                self.reply_state(request);
            }
        }
    }
}

/// What a switch to secondary without a connection leaves behind (R2): `peer` is the other server's state, if it answered.
fn no_primary_now(peer: Option<State>) -> &'static str {
    match peer {
        Some(state) if state.is_primary() => {
            "The other server is a primary: 'hsb connect' has this one follow it."
        }
        Some(_) => {
            "There is no primary now, and nobody can write: 'hsb switch primary' at the other server makes it one, then 'hsb connect'."
        }
        None => {
            "The other server cannot be reached: there is no primary now, and nobody can write. 'hsb switch primary' makes this server one again; or, once the other one is back, that one."
        }
    }
}
