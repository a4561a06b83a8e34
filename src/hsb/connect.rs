//! Heart, part connect: meeting the peer, catchup, going active, losing each other.
//!
//! Who dials and who is dialled makes no difference once they have met. When both dial at the same moment, one of the
//! two connections wins ([`Heart::my_dial_wins`]): its dialler keeps the other's waiting until it knows how its own
//! ended, and the other accepts what arrives and forgets its own.
//!
//! `hsb connect` is answered here before anybody is reached (the admin handler waits a moment for a failure). What becomes of it, [`Heart::connect_failed`] tells.

use super::advice::Remedy;
use super::codes::Code;
use super::effect::{AnswerEffect, ApplierEffect, ConnectStatus, NodeEffect, SenderEffect};
use super::event::{Command, Hello, LinkId, PeerMessage, Purpose, RequestId};
use super::heart::Heart;
use super::phase::{AfterDrain, DialPurpose, Phase};
use super::position::Position;
use super::refusal::Refusal;
use super::settings::PairSettings;
use super::severity::{Severity, of_refusal};
use super::state::State;
use super::table::Trigger;

/// Event: an attempt to connect the servers has failed; the text begins with the code.
pub const CONNECT_FAILED: &str = "SYS_EVENT_HSBCONNECTFAILED";

impl Heart {
    // ---- reaching each other ----

    pub(super) fn dial_to_connect(&mut self, request: RequestId) {
        let purpose = DialPurpose::Connect { mine: self.decided, arrived: None };
        self.phase = Phase::Dialling { request, purpose };
        self.want(NodeEffect::Dial { request, purpose: Purpose::Connect, hello: self.hello() });
    }

    pub(super) fn dialled(&mut self, dial: RequestId, link: Option<LinkId>, hello: Hello) {
        let Phase::Dialling { request, purpose } = self.phase else { return };
        if request != dial {
            return;
        }
        self.phase = Phase::Idle;
        match (purpose, link) {
            (DialPurpose::Connect { mine, arrived }, Some(link)) => {
                if let Some((other, _)) = arrived {
                    let detail = "The two servers connected from the other side.";
                    let refusal = Refusal::new(Code::PEER_COMMAND_CONFLICT, detail);
                    self.want(AnswerEffect::TurnAway { link: other, refusal });
                }
                self.link = Some(link);
                self.watch_peer();
                match self.may_connect(mine, &hello) {
                    Ok(()) => self.meet(mine, hello),
                    Err(refusal) => self.end_meeting(refusal),
                }
            }
            (DialPurpose::Connect { .. }, None) => {
                self.phase = Phase::Dialling { request, purpose };
                self.dial_failed(request, Code::COMMUNICATION_ERROR.into());
            }
            _ => self.probed(request, purpose, hello),
        }
    }

    pub(super) fn dial_failed(&mut self, dial: RequestId, refusal: Refusal) {
        let Phase::Dialling { request, purpose } = self.phase else { return };
        if request != dial {
            return;
        }
        self.phase = Phase::Idle;
        match purpose {
            DialPurpose::Connect { arrived: Some((link, hello)), .. } => {
                self.welcome(link, hello);
            }
            DialPurpose::Connect { arrived: None, .. } => {
                let standalone = self.state == State::Standalone && refusal.code == Code::COMMUNICATION_ERROR;
                let code = if standalone { Code::NOT_IN_STANDALONE } else { refusal.code };
                self.connect_failed(Refusal { code, ..refusal });
                self.connect_status(ConnectStatus::Broken);
            }
            _ => self.probe_failed(request, purpose, refusal),
        }
    }

    pub(super) fn peer_arrived(&mut self, link: LinkId, hello: Hello) {
        if self.state == State::PrimaryActive && self.is_other_primary(&hello) {
            // It was made a primary; the connection that this node still believes in is gone.
            self.peer_promoted();
        }
        let wanted = match self.phase {
            Phase::Dialling { request, purpose: DialPurpose::Connect { mine, arrived } } => {
                Some((request, Some((mine, arrived))))
            }
            Phase::Draining(AfterDrain::Dial { request }) => Some((request, None)),
            _ => None,
        };
        if let Err(refusal) = self.may_be_dialled(wanted.is_some(), &hello) {
            return self.want(AnswerEffect::TurnAway { link, refusal });
        }
        match wanted {
            Some((request, Some((mine, before)))) if self.my_dial_wins(mine, &hello) => {
                if let Some((older, _)) = before {
                    let refusal = Code::PEER_COMMAND_CONFLICT.into();
                    self.want(AnswerEffect::TurnAway { link: older, refusal });
                }
                let purpose = DialPurpose::Connect { mine, arrived: Some((link, hello)) };
                self.phase = Phase::Dialling { request, purpose };
            }
            Some((_, Some(_))) => self.welcome(link, hello),
            Some((_, None)) => {
                // The drain that is under way serves the peer's dial as well as ours.
                self.phase = Phase::Draining(AfterDrain::Answer { link, hello });
            }
            None if self.state == State::SecondaryAlone => {
                self.drain(AfterDrain::Answer { link, hello });
            }
            None => self.welcome(link, hello),
        }
    }

    /// Whoever asks to connect now has what is wanted under way.
    pub(super) fn is_meeting(&self) -> bool {
        matches!(self.phase, Phase::Draining(AfterDrain::Answer { .. }) | Phase::Meeting { .. })
    }

    fn is_other_primary(&self, hello: &Hello) -> bool {
        hello.state.is_primary() && hello.database_id == self.database_id
    }

    /// Both sides come to the same answer: the primary's dial wins, or that of the primary that is further.
    fn my_dial_wins(&self, mine: Position, peer: &Hello) -> bool {
        match (self.state.is_primary(), peer.state.is_primary()) {
            (true, true) => is_further(mine, peer.position),
            (mine, _) => mine,
        }
    }

    fn may_be_dialled(&self, dials_itself: bool, hello: &Hello) -> Result<(), Refusal> {
        match self.activity().refusal() {
            _ if self.shutting_down => Err(Code::SHUTTING_DOWN.into()),
            _ if self.is_refused_for_room(Command::Connect) => {
                let lacks = self.lacks_room().unwrap_or_default();
                Err(Refusal::new(Code::DISK_FULL, format!("The other server has no room: {lacks}.")))
            }
            Some(code) if !dials_itself => Err(Refusal::new(code, "The other server is busy.")),
            _ if self.state.is_active() => {
                let detail = format!("The other server is {} already.", self.state);
                Err(Refusal::new(Code::REFUSED_IN_STATE, detail))
            }
            _ => self.may_connect(self.decided, hello),
        }
    }

    /// What can be said without looking at histories. Both sides come to the same answer.
    fn may_connect(&self, mine: Position, hello: &Hello) -> Result<(), Refusal> {
        let either = |state| self.state == state || hello.state == state;
        match (self.state.is_primary(), hello.state.is_primary()) {
            _ if either(State::Plain) => Err(Code::NOT_HOTSTANDBY.into()),
            _ if either(State::Offline) => Err(Code::BACKUPSERVER_MODE.into()),
            _ if hello.database_id != self.database_id => {
                let shown = |id: [u8; 16]| format!("{:032x}", u128::from_be_bytes(id));
                let (mine, theirs) = (shown(self.database_id), shown(hello.database_id));
                Err(Refusal::new(Code::DIFFERENT_DATABASE, format!("The ids are {mine} and {theirs}.")))
            }
            // R5: one of them has to look whether their histories have parted.
            (true, true) if hello.position == mine => Err(Code::BOTH_PRIMARY.into()),
            (true, true) => Ok(()),
            (false, false) => Err(Code::BOTH_SECONDARY.into()),
            _ if either(State::Standalone) => Err(Code::NOT_IN_STANDALONE.into()),
            _ => Ok(()),
        }
    }

    fn welcome(&mut self, link: LinkId, hello: Hello) {
        self.link = Some(link);
        self.given_up = None;
        self.want(AnswerEffect::Welcome { link, hello: self.hello() });
        self.watch_peer();
        self.connect_status(ConnectStatus::Connecting);
        self.meet(self.decided, hello);
    }

    // ---- comparing histories ----

    fn meet(&mut self, mine: Position, peer: Hello) {
        self.note("30551: connection to the other server established");
        let further = !peer.state.is_primary() || is_further(mine, peer.position);
        self.phase = Phase::Meeting { mine, peer, looks: self.state.is_primary() && further };
        self.check_history();
    }

    /// The log is searched once it has all that was ever sent: the peer may hold the last batch already. A log that
    /// has no room for it is not waited for.
    pub(super) fn check_history(&mut self) {
        let Phase::Meeting { peer, looks: true, .. } = self.phase else { return };
        if self.in_flight.is_none_or(|batch| batch.logged) {
            if let Phase::Meeting { looks, .. } = &mut self.phase {
                *looks = false;
            }
            self.want(SenderEffect::CheckHistory(peer.position));
        } else if let Some(lacks) = self.log_lacks().map(str::to_owned) {
            self.end_meeting(Refusal::new(Code::DISK_FULL, lacks));
        }
    }

    /// At the primary: does the peer's position lie on our history?
    pub(super) fn history_checked(&mut self, result: Result<(), Refusal>) {
        let Phase::Meeting { peer, .. } = self.phase else { return };
        match result {
            Ok(()) if peer.state.is_primary() => {
                let detail =
                    "The other server's database is part of this one's: set the other server secondary.";
                self.end_meeting(Refusal::new(Code::BOTH_PRIMARY, detail));
            }
            Err(Refusal { code: Code::NOT_SYNCHRONIZED, detail }) if peer.state.is_primary() => {
                self.end_meeting(Refusal::new(Code::BOTH_DIVERGED, detail));
                self.demote(Trigger::Diverged, None, "");
            }
            Err(Refusal { code: Code::LOG_TOO_SHORT, detail }) if peer.state.is_primary() => {
                let detail = format!("Whether both have written cannot be told from the log. {detail}");
                self.end_meeting(Refusal::new(Code::BOTH_PRIMARY, detail));
            }
            Ok(()) => {
                self.acknowledged = peer.position;
                self.tell(PeerMessage::Accept { pair: self.settings.pair });
                self.tell_settings();
                self.want(SenderEffect::StartCatchup);
                self.catchup_begins();
            }
            Err(refusal) => self.end_meeting(refusal),
        }
    }

    fn end_meeting(&mut self, refusal: Refusal) {
        self.not_connected(refusal.clone());
        self.close(Some(PeerMessage::Refused(refusal)));
    }

    fn not_connected(&mut self, refusal: Refusal) {
        let code = refusal.code;
        self.phase = Phase::Idle;
        self.connect_failed(refusal);
        if matches!(code, Code::LOG_TOO_SHORT | Code::NOT_SYNCHRONIZED | Code::BOTH_DIVERGED) {
            self.say(Severity::Error, "30533: a full copy of the database is needed ('hsb netcopy'), where 'hsb rewind' is of no use");
        }
    }

    /// Whoever asked has been answered long ago: it is told in the message log, as an event and by `hsb status connect`,
    /// until there is another attempt.
    pub(super) fn connect_failed(&mut self, refusal: Refusal) {
        let text = format!("{}: not connected: {}", refusal.code.number(), refusal.text());
        self.alert(CONNECT_FAILED, of_refusal(refusal.code), text);
        match refusal.code {
            Code::LOG_TOO_SHORT => self.remedy = Remedy::Netcopy,
            Code::NOT_SYNCHRONIZED | Code::BOTH_DIVERGED => self.remedy = Remedy::Rewind,
            // It says nothing of the histories.
            _ => {}
        }
        self.connect_failure = Some(refusal);
    }

    /// At the secondary: the primary's verdict.
    pub(super) fn peer_accepts(&mut self, pair: PairSettings) {
        let Phase::Meeting { .. } = self.phase else { return };
        self.tell_settings();
        self.settings.pair = pair;
        self.follow();
        self.watch_peer();
        self.catchup_begins();
    }

    pub(super) fn peer_refuses(&mut self, refusal: Refusal) {
        let code = refusal.code;
        if let Phase::Meeting { .. } = self.phase {
            self.not_connected(refusal);
            self.close(None);
            if code == Code::BOTH_DIVERGED && self.state.is_primary() {
                self.demote(Trigger::Diverged, None, "");
            }
        } else if let Some(link) = self.link {
            self.link_lost(link, &format!("the other server refuses: {refusal}"));
        }
    }

    // ---- catchup ----

    fn catchup_begins(&mut self) {
        self.phase = Phase::CatchingUp { closing: false, told: false };
        self.connect_status(ConnectStatus::Catchup);
        self.note("30530: catchup begins");
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

    pub(super) fn peer_says_go_active(&mut self, position: Position) {
        if matches!(self.phase, Phase::CatchingUp { .. }) && self.state == State::SecondaryAlone {
            self.drain(AfterDrain::GoActive { position });
        }
    }

    pub(super) fn peer_is_active(&mut self) {
        if !matches!(self.phase, Phase::CatchingUp { told: true, .. }) {
            return;
        }
        self.want(SenderEffect::StopCatchup);
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
            AfterDrain::Dial { request } => self.dial_to_connect(request),
            AfterDrain::Answer { link, hello } => self.welcome(link, hello),
            AfterDrain::GoActive { position: wanted } if wanted == position => {
                if self.pending {
                    self.want(ApplierEffect::DropPending { position });
                }
                self.pending = false;
                self.log_end = position;
                self.connected();
                self.tell(PeerMessage::Active);
            }
            AfterDrain::GoActive { position: wanted } => {
                let detail = format!("The secondary is at {position}, the primary at {wanted}.");
                self.end_meeting(Refusal::new(Code::NOT_SYNCHRONIZED, detail));
            }
            AfterDrain::Rewind { request } => self.begin_rewind(request),
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
        if !self.state.is_secondary() {
            return self.warn(format!("a change that concerns this node no more does not fit: {detail}"));
        }
        let refusal = Refusal::new(Code::APPLY_FAILED, detail);
        self.say(of_refusal(refusal.code), refusal.to_string());
        self.damaged = true;
        self.break_off(&refusal);
        self.close(Some(PeerMessage::Refused(refusal)));
        if self.state == State::SecondaryActive {
            self.go(Trigger::ApplyFailed);
        }
    }

    // ---- losing each other ----

    /// Ends what is under way with the peer or with the applier, and tells whoever waits for it. The only place that
    /// knows what each procedure leaves behind when it does not get to its end.
    pub(super) fn break_off(&mut self, refusal: &Refusal) {
        match self.phase {
            // These depend on neither.
            Phase::Idle
            | Phase::Dialling { .. }
            | Phase::Demoting { .. }
            | Phase::CopyingOut
            | Phase::CopyingIn
            | Phase::Rewinding { .. } => return,
            phase if phase.is_switch_with_peer() => self.switch_failed(refusal),
            Phase::CatchingUp { .. } | Phase::Draining(AfterDrain::GoActive { .. }) => {
                self.warn(format!("30532: catchup has failed: {}", refusal.detail));
                self.connect_failed(refusal.clone());
                if self.state.is_primary() {
                    self.want(SenderEffect::StopCatchup);
                }
            }
            Phase::Meeting { .. } | Phase::Draining(AfterDrain::Dial { .. }) => {
                self.connect_failed(refusal.clone());
            }
            Phase::Leaving { request, .. } => {
                if let Some(request) = request {
                    self.refuse_with(request, refusal);
                }
            }
            Phase::Draining(AfterDrain::Promote { request, .. } | AfterDrain::Rewind { request }) => {
                self.refuse_with(request, refusal);
            }
            Phase::Draining(AfterDrain::Answer { link, .. }) => {
                self.want(AnswerEffect::TurnAway { link, refusal: refusal.clone() });
                self.connect_failed(refusal.clone());
            }
            // A switch with the peer: above.
            Phase::Draining(AfterDrain::TakeOver { .. }) | Phase::HandingOver { .. } | Phase::TakingOver => {}
        }
        self.phase = Phase::Idle;
        self.release();
    }

    pub(super) fn link_lost(&mut self, link: LinkId, why: &str) {
        if self.link != Some(link) {
            return;
        }
        self.warn(format!("30550: connection to the other server broken: {why}"));
        self.close(None);
        let phase = self.phase;
        if let Phase::Leaving { trigger, request } = phase {
            let auto = self.settings.auto_primary_alone;
            let in_doubt = self.in_flight.is_some_and(|batch| batch.info.needs_acknowledgement);
            // Nobody has asked a server that goes down to decide alone, and the other one may take over.
            let waits = self.shutting_down && self.state == State::PrimaryActive && in_doubt && !auto;
            return self.left(if waits { Trigger::LinkLost } else { trigger }, request);
        }
        self.break_off(&Refusal::new(Code::COMMUNICATION_ERROR, why));
        if phase.is_switch_with_peer() {
            self.go(Trigger::SwitchFailed);
        } else if self.state.is_active() {
            let auto = self.state == State::PrimaryActive && self.settings.auto_primary_alone;
            self.go(if auto { Trigger::LinkLostAutoAlone } else { Trigger::LinkLost });
        }
    }

    pub(super) fn peer_promoted(&mut self) {
        self.close(None);
        let detail = "The other server was set PRIMARY ALONE.";
        self.break_off(&Refusal::new(Code::PEER_COMMAND_CONFLICT, detail));
        self.go(Trigger::PeerPromoted);
    }
}

/// A total order for two primaries that compare histories: the one that is further looks for the other's position.
fn is_further(one: Position, other: Position) -> bool {
    (one.sequence, one.epoch, one.chain.0) > (other.sequence, other.epoch, other.chain.0)
}
