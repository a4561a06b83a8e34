//! Heart, part connect: meeting the peer, catchup, going active, losing each other.

use super::codes::Code;
use super::event::{ConnectStatus, Effect, Hello, LinkId, PeerMessage, RequestId};
use super::heart::{AfterDrain, DialPurpose, Heart, Phase, SwitchStatus};
use super::position::Position;
use super::settings::PairSettings;
use super::state::State;
use super::table::Trigger;

impl Heart {
    pub(super) fn dialled(&mut self, link: Option<LinkId>, hello: Hello) {
        let Phase::Dialling { request, purpose } = self.phase else { return };
        match (purpose, link) {
            (DialPurpose::Connect, Some(link)) => {
                self.link = Some(link);
                self.effects.push(Effect::StartPings(self.settings.pair));
                match self.may_connect(&hello) {
                    Ok(()) => self.meet(Some(request), hello),
                    Err((code, detail)) => self.end_meeting(Some(request), code, detail),
                }
            }
            (DialPurpose::Connect, None) => self.dial_failed(Code::COMMUNICATION_ERROR, String::new()),
            (DialPurpose::SwitchPrimary | DialPurpose::SwitchSecondary, _) => {
                self.probed(request, purpose, hello)
            }
        }
    }

    pub(super) fn dial_failed(&mut self, code: Code, detail: String) {
        let Phase::Dialling { request, purpose } = self.phase else { return };
        self.phase = Phase::Idle;
        if purpose == DialPurpose::Connect {
            self.connect_status(ConnectStatus::Broken);
            self.reply(request, code, format!("{} {detail}", code.text()));
        } else {
            self.probe_failed(request, purpose, code, detail);
        }
    }

    pub(super) fn peer_arrived(&mut self, link: LinkId, hello: Hello) {
        let refusal = match (self.busy(), self.state) {
            (Some(code), _) => Err((code, "The other server is busy.".to_string())),
            _ if self.shutting_down => Err((Code::SHUTTING_DOWN, String::new())),
            (_, State::PrimaryActive | State::SecondaryActive) => {
                Err((Code::REFUSED_IN_STATE, format!("The other server is {} already.", self.state)))
            }
            _ => self.may_connect(&hello),
        };
        if let Err((code, detail)) = refusal {
            self.effects.push(Effect::TurnAway { link, code, detail });
        } else if self.state == State::SecondaryAlone {
            self.drain(AfterDrain::Answer { link, hello });
        } else {
            self.welcome(link, hello);
        }
    }

    /// What can be said without looking at histories. Both sides come to the same answer.
    fn may_connect(&self, hello: &Hello) -> Result<(), (Code, String)> {
        let refusal = |code| Err((code, String::new()));
        if hello.state == State::Plain || self.state == State::Plain {
            return Err((Code::NOT_HOTSTANDBY, String::new()));
        }
        if hello.state == State::Offline || self.state == State::Offline {
            return refusal(Code::BACKUPSERVER_MODE);
        }
        if hello.database_id != self.database_id {
            return refusal(Code::DIFFERENT_DATABASE);
        }
        match (self.state.is_primary(), hello.state.is_primary()) {
            (true, true) => refusal(Code::BOTH_PRIMARY),
            (false, false) => refusal(Code::BOTH_SECONDARY),
            _ if self.state == State::Standalone || hello.state == State::Standalone => {
                refusal(Code::NOT_IN_STANDALONE)
            }
            _ => Ok(()),
        }
    }

    fn welcome(&mut self, link: LinkId, hello: Hello) {
        self.link = Some(link);
        self.effects.push(Effect::Welcome(link));
        self.effects.push(Effect::StartPings(self.settings.pair));
        self.connect_status(ConnectStatus::Connecting);
        self.meet(None, hello);
    }

    fn meet(&mut self, request: Option<RequestId>, hello: Hello) {
        self.phase = Phase::Meeting { request, peer: hello };
        if self.state.is_primary() {
            self.effects.push(Effect::CheckHistory(hello.position));
        }
    }

    /// At the primary: does the secondary's position lie on our history?
    pub(super) fn history_checked(&mut self, result: Result<(), (Code, String)>) {
        let Phase::Meeting { request, peer } = self.phase else { return };
        match result {
            Ok(()) => {
                self.acknowledged = peer.position;
                self.tell(PeerMessage::Accept { pair: self.settings.pair });
                self.effects.push(Effect::StartCatchup);
                self.catchup_begins(request);
            }
            Err((code, detail)) => self.end_meeting(request, code, detail),
        }
    }

    /// At the secondary: the primary's verdict.
    pub(super) fn accepted(&mut self, pair: PairSettings) {
        let Phase::Meeting { request, .. } = self.phase else { return };
        self.effects.push(Effect::Follow { pair });
        self.effects.push(Effect::StartPings(pair));
        self.catchup_begins(request);
    }

    fn catchup_begins(&mut self, request: Option<RequestId>) {
        self.phase = Phase::CatchingUp { closing: false, told: false };
        self.connect_status(ConnectStatus::Catchup);
        self.note("30530: catchup begins");
        if let Some(request) = request {
            self.reply(request, Code::SUCCESS, "Started the process of connecting the servers.");
        }
    }

    fn end_meeting(&mut self, request: Option<RequestId>, code: Code, detail: String) {
        self.phase = Phase::Idle;
        self.note(format!("{}: not connected: {} {detail}", code.number(), code.text()));
        if let Some(request) = request {
            self.reply(request, code, format!("{} {detail}", code.text()));
        }
        self.close(Some(PeerMessage::Refused { code: code.number(), detail }));
    }

    pub(super) fn refused_by_peer(&mut self, code: u32, detail: String) {
        let code = Code::find(code).unwrap_or(Code::OPERATION_FAILED);
        let Some(link) = self.link else { return };
        if let Phase::Meeting { request, .. } = self.phase {
            self.phase = Phase::Idle;
            self.note(format!("{}: the other server refuses: {} {detail}", code.number(), code.text()));
            if let Some(request) = request {
                self.reply(request, code, format!("{} {detail}", code.text()));
            }
            self.close(None);
        } else {
            self.link_lost(
                link,
                &format!("the other server refuses: {}: {} {detail}", code.number(), code.text()),
            );
        }
    }

    pub(super) fn catchup_near_end(&mut self) {
        if let Phase::CatchingUp { closing, .. } = &mut self.phase {
            *closing = true;
            self.try_to_go_active();
        }
    }

    /// At the primary: new batches are held; once the secondary has all there is, both are level.
    pub(super) fn try_to_go_active(&mut self) {
        let Phase::CatchingUp { closing: true, told: false } = self.phase else { return };
        let local_batch = self.in_flight.is_some_and(|batch| !batch.info.needs_acknowledgement);
        if self.state.is_primary() && !local_batch && self.acknowledged == self.log_end {
            self.phase = Phase::CatchingUp { closing: true, told: true };
            self.tell(PeerMessage::GoActive { position: self.log_end });
        }
    }

    pub(super) fn told_to_go_active(&mut self, position: Position) {
        if matches!(self.phase, Phase::CatchingUp { .. }) && self.state == State::SecondaryAlone {
            self.drain(AfterDrain::GoActive { position });
        }
    }

    pub(super) fn peer_is_active(&mut self) {
        if !matches!(self.phase, Phase::CatchingUp { told: true, .. }) {
            return;
        }
        self.effects.push(Effect::StopCatchup);
        self.phase = Phase::Idle;
        if let Some(batch) = &mut self.in_flight {
            batch.acknowledged = true;
        }
        self.connected();
        self.try_to_decide();
        self.release();
    }

    fn connected(&mut self) {
        self.note("30531: catchup has ended");
        self.go(Trigger::Connected);
        self.connect_status(ConnectStatus::Connected);
    }

    pub(super) fn drained(&mut self, position: Position) {
        let Phase::Draining(after) = self.phase else { return };
        self.phase = Phase::Idle;
        self.applied(position);
        match after {
            AfterDrain::Promote { request, trigger } => self.promote(request, trigger, position),
            AfterDrain::Dial { request } => {
                self.phase = Phase::Dialling { request, purpose: DialPurpose::Connect };
                self.effects.push(Effect::Dial(super::event::Purpose::Connect));
            }
            AfterDrain::Answer { link, hello } => self.welcome(link, hello),
            AfterDrain::GoActive { position: wanted } if wanted == position => {
                if self.pending {
                    self.effects.push(Effect::DropPending);
                }
                self.pending = false;
                self.log_end = position;
                self.connected();
                self.tell(PeerMessage::Active);
            }
            AfterDrain::GoActive { position: wanted } => {
                let detail = format!("The secondary is at {position}, the primary at {wanted}.");
                self.end_meeting(None, Code::NOT_SYNCHRONIZED, detail);
            }
            AfterDrain::TakeOver { position: wanted } => self.ready_to_take_over(wanted == position),
        }
    }

    /// At the secondary: the applier has committed up to here.
    pub(super) fn applied(&mut self, position: Position) {
        if self.state.is_primary() || position.sequence < self.decided.sequence {
            return;
        }
        self.decided = position;
        if position.progress() >= self.log_end.progress() {
            self.log_end = position;
            self.pending = false;
        }
    }

    pub(super) fn apply_failed(&mut self, detail: String) {
        let code = Code::APPLY_FAILED;
        self.note(format!("{}: {} {detail}", code.number(), code.text()));
        self.damaged = true;
        self.break_off(code, &detail);
        self.close(Some(PeerMessage::Refused { code: code.number(), detail }));
        if self.state == State::SecondaryActive {
            self.go(Trigger::ApplyFailed);
        }
    }

    /// Ends what is under way on the connection or with the applier, and tells whoever waits for it.
    pub(super) fn break_off(&mut self, code: Code, why: &str) {
        match self.phase {
            // These do not depend on either.
            Phase::Dialling { .. } | Phase::Demoting { .. } | Phase::CopyingOut | Phase::CopyingIn => return,
            Phase::HandingOver { .. } | Phase::TakingOver | Phase::Draining(AfterDrain::TakeOver { .. }) => {
                self.switch_status = SwitchStatus::Failed(code);
            }
            Phase::Meeting { request: Some(request), .. }
            | Phase::Leaving { request: Some(request), .. }
            | Phase::Draining(AfterDrain::Promote { request, .. } | AfterDrain::Dial { request }) => {
                self.reply(request, code, format!("{} {why}", code.text()));
            }
            Phase::Draining(AfterDrain::Answer { link, .. }) => {
                self.effects.push(Effect::TurnAway { link, code, detail: why.to_owned() });
            }
            _ => {}
        }
        self.phase = Phase::Idle;
    }

    pub(super) fn link_lost(&mut self, link: LinkId, why: &str) {
        if let Phase::Draining(AfterDrain::Answer { link: arrived, .. }) = self.phase
            && arrived == link
        {
            self.phase = Phase::Idle;
            return;
        }
        if self.link != Some(link) {
            return;
        }
        self.link = None;
        self.effects.push(Effect::StopPings);
        self.effects.push(Effect::Close { farewell: None });
        self.note(format!("30550: connection to the other server broken: {why}"));
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        match phase {
            Phase::Meeting { request, .. } => {
                if let Some(request) = request {
                    let code = Code::COMMUNICATION_ERROR;
                    self.reply(request, code, format!("{} {why}", code.text()));
                }
            }
            Phase::CatchingUp { .. } | Phase::Draining(AfterDrain::GoActive { .. }) => {
                self.note("30532: catchup has failed");
                if self.state.is_primary() {
                    self.effects.push(Effect::StopCatchup);
                }
                self.release();
            }
            Phase::HandingOver { .. } | Phase::TakingOver | Phase::Draining(AfterDrain::TakeOver { .. }) => {
                self.switch_status = SwitchStatus::Failed(Code::COMMUNICATION_ERROR);
                self.go(Trigger::SwitchFailed);
            }
            Phase::Leaving { trigger, request } => self.left(trigger, request),
            _ if self.state.is_active() => {
                let auto = self.settings.auto_primary_alone;
                self.go(if auto { Trigger::LinkLostAutoAlone } else { Trigger::LinkLost });
            }
            other => self.phase = other,
        }
        self.connect_status(ConnectStatus::Broken);
    }

    pub(super) fn peer_promoted(&mut self) {
        self.close(None);
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        self.go(Trigger::PeerPromoted);
        if let Phase::Leaving { request: Some(request), .. } = phase {
            self.refuse(request, Code::PEER_COMMAND_CONFLICT);
        } else if matches!(phase, Phase::HandingOver { .. }) {
            self.switch_status = SwitchStatus::Failed(Code::PEER_COMMAND_CONFLICT);
        }
    }
}
