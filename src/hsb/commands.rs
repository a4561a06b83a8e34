//! Heart, part commands: what operators and watchdogs ask (guide, chapter 4 and appendix C). R1 to R9: docs/rulings.md.

use super::codes::Code;
use super::effect::{AnswerEffect, ConnectStatus, CopyKind, Effect, NodeEffect};
use super::event::{Command, PeerMessage, Purpose, RequestId};
use super::heart::Heart;
use super::phase::{Activity, AfterDrain, CopyStatus, DialPurpose, Phase};
use super::refusal::Refusal;
use super::state::State;
use super::table::Trigger;

/// `hsb connect` goes on behind its answer.
const CONNECTS: &str = "Started the process of connecting the servers.";
const ATTEMPT_ENDED: &str = "The attempt to connect or to switch was ended.";

impl Command {
    /// As an operator gives it.
    pub fn text(self) -> &'static str {
        match self {
            Command::Connect => "hsb connect",
            Command::Disconnect => "hsb disconnect",
            Command::SetPrimaryAlone => "hsb set primary alone",
            Command::SetSecondaryAlone => "hsb set secondary alone",
            Command::SetStandalone => "hsb set standalone",
            Command::SwitchPrimary => "hsb switch primary",
            Command::SwitchSecondary => "hsb switch secondary",
            Command::Netcopy => "hsb netcopy",
            Command::Rewind => "hsb rewind",
            Command::Copy => "hsb copy",
            Command::Backup => "backup",
        }
    }
}

impl Heart {
    pub(super) fn command(&mut self, request: RequestId, command: Command) {
        use Command::{SetPrimaryAlone, SetStandalone, SwitchPrimary};
        let refusal = match (self.state, command) {
            (State::Offline, _) => Some(Code::BACKUPSERVER_MODE),
            _ if self.shutting_down => Some(Code::SHUTTING_DOWN),
            // A backup reads a snapshot: it concerns no state, and no state concerns it.
            (_, Command::Backup) => None,
            (State::Plain, _) => Some(Code::NOT_HOTSTANDBY),
            // It lacks what the primary has committed; a netcopy makes it whole.
            (_, SetPrimaryAlone | SetStandalone | SwitchPrimary) if self.damaged => Some(Code::APPLY_FAILED),
            // R8: it changes nothing, so it is not refused whatever is under way.
            (State::PrimaryAlone, SetPrimaryAlone) => {
                if self.ends_connecting(command) {
                    self.end_connecting(command);
                }
                return self.reply(request, Code::SUCCESS, "The server is already PRIMARY ALONE.");
            }
            _ if self.is_refused_for_room(command) => Some(Code::DISK_FULL),
            // The peer has dialled just now.
            (_, Command::Connect) if self.is_meeting() => {
                return self.reply(request, Code::SUCCESS, CONNECTS);
            }
            (_, SetPrimaryAlone) if self.activity() == Activity::Disconnecting => {
                Some(Code::ALONE_ONLY_WHEN_BROKEN)
            }
            _ if self.ends_connecting(command) => {
                self.end_connecting(command);
                // What is there already is refused at rest; here there was something to end.
                let is_there = match command {
                    Command::Disconnect => true,
                    Command::SetSecondaryAlone => self.state == State::SecondaryAlone,
                    Command::SetStandalone => self.state == State::Standalone,
                    _ => false,
                };
                if is_there {
                    return self.reply(request, Code::SUCCESS, ATTEMPT_ENDED);
                }
                None
            }
            // R9
            _ => self.activity().refusal(),
        };
        if let Some(code) = refusal {
            let because_of_activity = self.activity().refusal() == Some(code);
            let detail = if because_of_activity { self.what_is_under_way() } else { String::new() };
            return self.refuse_with(request, &Refusal::new(code, detail));
        }
        match command {
            Command::Connect => self.command_connect(request),
            Command::Disconnect => self.command_disconnect(request),
            Command::SetPrimaryAlone => self.command_set_primary_alone(request),
            Command::SetSecondaryAlone => self.command_set_secondary_alone(request),
            Command::SetStandalone => self.command_set_standalone(request),
            Command::SwitchPrimary => self.command_switch_primary(request),
            Command::SwitchSecondary => self.command_switch_secondary(request),
            Command::Rewind => self.command_rewind(request),
            Command::Netcopy | Command::Copy => self.command_copy(request, command),
            Command::Backup => self.command_backup(request),
        }
    }

    /// What a refused operator has to wait for.
    fn what_is_under_way(&self) -> String {
        let ends = if self.ends_connecting(Command::Disconnect) { "'hsb disconnect' ends it." } else { "" };
        format!("Under way: {}. {ends}", self.activity().name())
    }

    /// Whether the command ends an attempt to reach the other server instead of waiting for it: nothing that is needed in
    /// an emergency waits for a server that does not answer. Once both are talking only a disconnect does (R9).
    fn ends_connecting(&self, command: Command) -> bool {
        let dials = matches!(self.phase, Phase::Dialling { .. } | Phase::Draining(AfterDrain::Dial { .. }));
        match command {
            Command::Disconnect => self.is_reaching(),
            Command::SetPrimaryAlone | Command::SetStandalone | Command::SetSecondaryAlone => dials,
            _ => false,
        }
    }

    /// Whether an attempt to reach the other server is under way, at any stage before both are active.
    pub(super) fn is_reaching(&self) -> bool {
        matches!(self.phase, Phase::Dialling { .. })
            || matches!(self.activity(), Activity::Connecting | Activity::CatchingUp)
    }

    fn end_connecting(&mut self, command: Command) {
        let word = match command {
            Command::SetPrimaryAlone => "set primary alone",
            Command::SetStandalone => "set standalone",
            Command::SetSecondaryAlone => "set secondary alone",
            _ => "disconnect",
        };
        self.end_attempt(Refusal::new(
            Code::PEER_COMMAND_CONFLICT,
            format!("'hsb {word}' ended the attempt."),
        ));
    }

    /// Ends what [`Heart::is_reaching`] tells of: no connection comes of it any more, and whoever is connected or has
    /// arrived meanwhile is told.
    pub(super) fn end_attempt(&mut self, refusal: Refusal) {
        match self.phase {
            Phase::Dialling { purpose: DialPurpose::Connect { arrived, .. }, .. } => {
                if let Some((link, _)) = arrived {
                    self.want(AnswerEffect::TurnAway { link, refusal: refusal.clone() });
                }
                self.phase = Phase::Idle;
                self.connect_failed(refusal.clone());
            }
            Phase::Dialling { request, .. } => {
                self.phase = Phase::Idle;
                return self.refuse_with(request, &refusal);
            }
            _ => self.break_off(&refusal),
        }
        self.close(Some(PeerMessage::Refused(refusal)));
    }

    fn command_connect(&mut self, request: RequestId) {
        match self.state {
            State::PrimaryActive | State::SecondaryActive => {
                return self.reply(request, Code::REFUSED_IN_STATE, "The connection is already active.");
            }
            State::Standalone if !self.settings.has_connect_string => {
                return self.refuse(request, Code::NOT_IN_STANDALONE);
            }
            _ if !self.settings.has_connect_string => return self.refuse(request, Code::NO_CONNECT_STRING),
            _ => {}
        }
        self.given_up = None;
        self.connect_status(ConnectStatus::Connecting);
        self.reply(request, Code::SUCCESS, CONNECTS);
        if self.state == State::SecondaryAlone {
            self.drain(AfterDrain::Dial { request });
        } else {
            self.dial_to_connect(request);
        }
    }

    fn command_disconnect(&mut self, request: RequestId) {
        if !self.state.is_active() {
            return self.refuse(request, Code::LINK_BROKEN);
        }
        self.reply(request, Code::SUCCESS, "Started the process of disconnecting the servers.");
        self.leave(Trigger::Disconnect, None);
    }

    fn command_set_primary_alone(&mut self, request: RequestId) {
        let trigger = Trigger::SetPrimaryAlone;
        match self.state {
            State::PrimaryActive => self.leave(trigger, Some(request)),
            State::SecondaryActive => {
                // Fast failover: the peer gets one last word and is not waited for.
                self.close(Some(PeerMessage::Promoted));
                self.drain(AfterDrain::Promote { request, trigger });
            }
            State::SecondaryAlone => self.drain(AfterDrain::Promote { request, trigger }),
            _ => self.go_and_reply(request, trigger),
        }
    }

    fn command_set_standalone(&mut self, request: RequestId) {
        let trigger = Trigger::SetStandalone;
        match self.state {
            State::Standalone => self.refuse(request, Code::ALREADY_STANDALONE),
            State::SecondaryActive => self.refuse(request, Code::STANDALONE_NOT_ALLOWED),
            State::PrimaryActive => self.leave(trigger, Some(request)),
            State::SecondaryAlone => self.drain(AfterDrain::Promote { request, trigger }),
            _ => self.go_and_reply(request, trigger),
        }
    }

    fn command_set_secondary_alone(&mut self, request: RequestId) {
        match self.state {
            State::PrimaryAlone | State::PrimaryUncertain | State::Standalone => {
                self.demote(Trigger::SetSecondaryAlone, Some(request), "");
            }
            state => {
                let needs = format!(
                    "It is {state}; this needs PRIMARY ALONE, PRIMARY UNCERTAIN or STANDALONE ('hsb disconnect' ends PRIMARY ACTIVE)."
                );
                self.refuse_with(request, &Refusal::new(Code::REFUSED_IN_STATE, needs));
            }
        }
    }

    fn command_switch_primary(&mut self, request: RequestId) {
        match self.state {
            State::SecondaryActive => {
                self.reply(request, Code::SUCCESS, "Started the process of switching the role to primary.");
                self.begin_switch(Phase::TakingOver);
                self.tell(PeerMessage::AskSwitch);
            }
            // R4: ask the peer first; that is what makes it safer and slower than 'set primary alone'.
            State::SecondaryAlone => self.probe_for_switch(request, DialPurpose::SwitchPrimary),
            _ => self.refuse(request, Code::ALREADY_PRIMARY),
        }
    }

    fn command_switch_secondary(&mut self, request: RequestId) {
        match self.state {
            State::PrimaryActive => {
                self.reply(request, Code::SUCCESS, "Started the process of switching the role to secondary.");
                self.begin_hand_over();
            }
            // R2
            State::PrimaryAlone | State::PrimaryUncertain => {
                self.probe_for_switch(request, DialPurpose::SwitchSecondary);
            }
            State::Standalone => self.refuse(request, Code::SWITCH_FROM_STANDALONE),
            _ => self.refuse(request, Code::ALREADY_SECONDARY),
        }
    }

    fn probe_for_switch(&mut self, request: RequestId, purpose: DialPurpose) {
        self.phase = Phase::Dialling { request, purpose };
        if self.settings.has_connect_string {
            self.want(NodeEffect::Dial { request, purpose: Purpose::Probe, hello: self.hello() });
        } else {
            self.dial_failed(request, Code::COMMUNICATION_ERROR.into());
        }
    }

    fn command_copy(&mut self, request: RequestId, command: Command) {
        let to_peer = command == Command::Netcopy;
        match self.state {
            State::PrimaryAlone if to_peer && !self.settings.has_connect_string => {
                self.refuse(request, Code::NO_CONNECT_STRING)
            }
            State::PrimaryAlone if self.copy_status == CopyStatus::Active => {
                self.refuse(request, Code::COPY_ALREADY_ACTIVE)
            }
            State::PrimaryAlone => {
                self.phase = Phase::CopyingOut;
                let effect = if to_peer {
                    NodeEffect::SendCopy { hello: self.hello() }.into()
                } else {
                    Effect::WriteCopy(CopyKind::Copy)
                };
                self.start_copy(request, effect, "Copy started.");
            }
            state if state.is_primary() => self.refuse(request, Code::COPY_ONLY_ALONE),
            _ => self.refuse(request, Code::NOT_PRIMARY),
        }
    }

    fn command_backup(&mut self, request: RequestId) {
        if self.copy_status == CopyStatus::Active {
            self.refuse(request, Code::COPY_ALREADY_ACTIVE);
        } else {
            self.start_copy(request, Effect::WriteCopy(CopyKind::Backup), "Backup started.");
        }
    }

    fn start_copy(&mut self, request: RequestId, effect: Effect, text: &str) {
        self.copy_status = CopyStatus::Active;
        self.want(effect);
        self.reply(request, Code::SUCCESS, text);
    }

    /// Follows the table at once and says so.
    pub(super) fn go_and_reply(&mut self, request: RequestId, trigger: Trigger) {
        self.go(trigger);
        self.reply_state(request);
    }

    pub(super) fn reply_state(&mut self, request: RequestId) {
        let text = format!("The server is set to {}.", self.state);
        self.reply(request, Code::SUCCESS, text);
    }
}
