//! The heart of a node: it hears events, decides, and answers with effects.
//!
//! Pure: no I/O, no clock, no runtime. One event in, a list of effects out, to be carried out in order. The files
//! beside this one continue the `impl`: `commit` (batches), `commands` (operators), `connect` (meeting the peer,
//! catchup), `switch` (switchover, leaving, promotion, copies).
//!
//! Invariants:
//! * The state changes in `Heart::go` alone, along a row of the transition table.
//! * At most one batch is in flight, and at most one more is held (nobody else has it).
//! * `decided` never passes `log_end`; they differ while a batch is in flight or pending.
//! * The last two are looked at after every event, with others: `invariants`.

use std::collections::VecDeque;

use super::advice::Remedy;
use super::codes::Code;
use super::effect::{
    Admission, AnswerEffect, ApplierEffect, BatchEffect, ConnectStatus, Decision, Effect, NodeEffect,
    PingEffect, SenderEffect, WriterEffect,
};
use super::event::{BatchInfo, Event, Hello, LinkId, PeerMessage, RequestId};
use super::phase::{Activity, AfterDrain, CopyStatus, Phase, SwitchStatus};
use super::position::Position;
use super::refusal::Refusal;
use super::retention::Retention;
use super::rewind::GivenUp;
use super::room::Lacking;
use super::settings::{Durability, Safeness, Settings};
use super::severity::Severity;
use super::state::State;
use super::table::{TABLE, Transition, Trigger};

/// Longest wait for the peer's part of an orderly disconnect or a switch.
pub(super) const PEER_ANSWER_TIMEOUT_MS: u64 = 10_000;

/// A batch that the log and perhaps the peer have, and that is not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InFlight {
    pub(super) info: BatchInfo,
    pub(super) logged: bool,
    pub(super) durable: bool,
    pub(super) acknowledged: bool,
    /// The peer may have it.
    pub(super) sent: bool,
    /// Logged with the mark that it needs an acknowledgement.
    pub(super) marked: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Heart {
    pub(super) state: State,
    pub(super) phase: Phase,
    pub(super) link: Option<LinkId>,
    /// In force.
    pub(super) settings: Settings,
    /// This server's own; see `pair`.
    pub(super) configured: Settings,
    pub(super) database_id: [u8; 16],
    pub(super) decided: Position,
    pub(super) log_end: Position,
    pub(super) in_flight: Option<InFlight>,
    /// A batch waits in the supervisor; neither log nor peer has it.
    pub(super) held: bool,
    /// The log ends with a batch whose outcome is open, kept since it was abandoned or since a restart (R3, R7).
    pub(super) pending: bool,
    /// How far the secondary is, as far as this primary knows.
    pub(super) acknowledged: Position,
    /// Sequence and bytes of what was sent and is not acknowledged yet.
    pub(super) backlog: VecDeque<(u64, usize)>,
    /// The sum of its bytes.
    pub(super) backlog_bytes: usize,
    pub(super) connect_status: ConnectStatus,
    /// Why the last attempt to connect has failed; none while there is one, or a connection.
    pub(super) connect_failure: Option<Refusal>,
    /// What has to be done at this server, as a secondary, before the two can connect.
    pub(super) remedy: Remedy,
    pub(super) switch_status: SwitchStatus,
    pub(super) copy_status: CopyStatus,
    pub(super) shutting_down: bool,
    /// A shutdown that waits for a switch or a disconnect to end.
    pub(super) shutdown: Option<RequestId>,
    /// A change that the primary made does not fit this database: it must not become a primary without it.
    pub(super) damaged: bool,
    /// What a netcopy may cost this node; see `rewind`.
    pub(super) given_up: Option<GivenUp>,
    /// The disk is full.
    pub(super) lacking: Lacking,
    /// How much log there is and who needs it.
    pub(super) retention: Retention,
    pub(super) next_number: u64,
    /// The timer and the drain ticket in force; older ones are ignored.
    pub(super) timer: u64,
    pub(super) ticket: u64,
    /// The transition table; tests show with broken ones that the model check catches them.
    pub(super) table: &'static [Transition],
    pub(super) effects: Vec<Effect>,
}

impl Heart {
    /// A node as it starts: its state by the start-up rules, its positions from recovery.
    pub fn new(
        state: State,
        settings: Settings,
        database_id: [u8; 16],
        decided: Position,
        log_end: Position,
    ) -> Heart {
        Heart {
            state,
            phase: Phase::Idle,
            link: None,
            settings,
            configured: settings,
            database_id,
            decided,
            log_end,
            in_flight: None,
            held: false,
            pending: decided != log_end,
            acknowledged: Position::ORIGIN,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            connect_status: ConnectStatus::Broken,
            connect_failure: None,
            remedy: Remedy::Connect,
            switch_status: SwitchStatus::Never,
            copy_status: CopyStatus::Never,
            shutting_down: false,
            shutdown: None,
            damaged: false,
            given_up: None,
            lacking: Lacking::default(),
            retention: Retention::default(),
            next_number: 0,
            timer: 0,
            ticket: 0,
            table: TABLE,
            effects: Vec::new(),
        }
    }

    /// The same heart, that knows how the last switch before the start ended.
    pub fn with_last_switch(self, switch_status: SwitchStatus) -> Heart {
        Heart { switch_status, ..self }
    }

    /// The same heart with another transition table, for tests.
    pub fn with_table(self, table: &'static [Transition]) -> Heart {
        Heart { table, ..self }
    }

    /// What a node does first: lets writers in or not.
    pub fn start(&mut self) -> Vec<Effect> {
        if self.state == State::Plain {
            self.begin_history();
        }
        self.admit();
        std::mem::take(&mut self.effects)
    }

    /// Hears one event. What must hold afterwards is looked at before anything is done (`invariants`).
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        let before = self.before_event();
        self.hear(event);
        self.try_to_shut_down();
        self.checked(&before)
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Command { request, command } => self.command(request, command),
            Event::BatchReady(info) => self.batch_ready(info),
            Event::Withdraw => self.withdraw(),
            Event::Logged { position, durable } => self.logged(position, durable),
            Event::Acknowledged { position } => self.acknowledged_up_to(position),
            Event::LinkLost { link, why } => self.link_lost(link, &why),
            Event::Dialled { request, link, hello } => self.dialled(request, link, hello),
            Event::DialFailed { request, refusal } => self.dial_failed(request, refusal),
            Event::PeerArrived { link, hello } => self.peer_arrived(link, hello),
            Event::PeerSays { link, message } => {
                if self.link == Some(link) {
                    self.peer_says(message);
                }
            }
            Event::HistoryChecked { link, result } => {
                if self.link == Some(link) {
                    self.history_checked(result);
                }
            }
            Event::CatchupNearEnd { link } => {
                if self.link == Some(link) {
                    self.catchup_near_end();
                }
            }
            Event::Drained { ticket, position } => {
                if ticket == self.ticket {
                    self.drained(position);
                }
            }
            Event::Applied { position } => self.applied(position),
            Event::ApplyFailed { detail } => self.apply_failed(detail),
            Event::CopyEnded { result } => self.copy_ended(result),
            Event::CopyArrives { hello, common } => self.copy_arrives(hello, common),
            Event::CopyReceived { opened } => self.copy_received(opened),
            Event::Rewound { result } => self.rewound(result),
            Event::TimedOut { timer } => {
                if timer == self.timer {
                    self.timed_out();
                }
            }
            Event::Checkpointed { position, delete_log } => self.checkpointed(position, delete_log),
            Event::LogSize { bytes, retained } => self.log_size(bytes, retained),
            Event::Room(room) => self.room_changed(room),
            Event::SettingsChanged { settings } => self.settings_changed(settings),
            Event::ShuttingDown { request } => self.shut_down(request),
        }
    }

    fn peer_says(&mut self, message: PeerMessage) {
        match message {
            PeerMessage::Ping | PeerMessage::Acknowledge { .. } => {}
            PeerMessage::Accept { pair } => self.peer_accepts(pair),
            PeerMessage::Refused(refusal) => self.peer_refuses(refusal),
            PeerMessage::GoActive { position } => self.peer_says_go_active(position),
            PeerMessage::Active => self.peer_is_active(),
            PeerMessage::AskDisconnect => self.peer_asks_to_disconnect(),
            PeerMessage::Disconnected => self.peer_disconnected(),
            PeerMessage::AskSwitch => self.peer_asks_to_switch(),
            PeerMessage::HandOver { position } => self.peer_hands_over(position),
            PeerMessage::TakeOver => self.peer_takes_over(),
            PeerMessage::HandedOver => self.peer_has_handed_over(),
            PeerMessage::Promoted => self.peer_promoted(),
            PeerMessage::Settings { settings } => self.peer_settings(settings),
        }
    }

    /// Follows the transition table. The only place where the state changes.
    pub(super) fn go(&mut self, trigger: Trigger) {
        let Some(row) = self.table.iter().find(|row| row.from == self.state && row.trigger == trigger) else {
            self.warn(format!("{trigger:?} has no place in {}: ignored", self.state));
            return;
        };
        self.state = row.to;
        self.given_up = None;
        self.remedy = if trigger == Trigger::Diverged { Remedy::Rewind } else { Remedy::Connect };
        self.want(NodeEffect::Entered(*row));
        match (row.from.is_primary(), row.to.is_primary()) {
            (true, false) => {
                self.note("30505: this node's role is now secondary");
                self.stop_being_primary();
            }
            (false, true) => {
                self.note("30504: this node's role is now primary");
                self.begin_history();
            }
            _ => {}
        }
        self.admit();
        self.backlog.clear();
        self.backlog_bytes = 0;
        if row.from == State::PrimaryActive && row.to.is_primary() {
            self.flush_before_the_next_answer();
        }
        if matches!(row.to, State::PrimaryAlone | State::Standalone) {
            self.decide_alone();
        }
        self.abandon_at_shutdown();
    }

    /// A server that loses its peer while it goes down must not wait for a decision: what is in doubt stays pending
    /// in the log (R7).
    fn abandon_at_shutdown(&mut self) {
        let in_doubt = self.in_flight.is_none_or(|batch| batch.info.needs_acknowledgement);
        if self.shutting_down && self.state == State::PrimaryUncertain && in_doubt {
            self.stop_being_primary();
        }
    }

    /// Writers as the state has it.
    pub(super) fn admit(&mut self) {
        let admission = match self.state {
            _ if self.shutting_down => Admission::Refuse(Code::SHUTDOWN),
            State::Plain | State::Standalone | State::PrimaryAlone | State::PrimaryActive
                if self.lacks_room().is_some() =>
            {
                Admission::Refuse(Code::DISK_FULL)
            }
            State::Offline => Admission::Refuse(Code::BACKUPSERVER_NO_CONNECTIONS),
            State::SecondaryActive | State::SecondaryAlone => Admission::Refuse(Code::NOT_ON_SECONDARY),
            State::PrimaryUncertain => Admission::Wait(Code::UNCERTAIN),
            State::Plain | State::Standalone | State::PrimaryAlone | State::PrimaryActive => Admission::Open,
        };
        self.want(WriterEffect::Admit(admission));
    }

    /// A node that takes over writes in an epoch of its own, so that histories that part can be told apart.
    fn begin_history(&mut self) {
        let epoch = if self.state == State::Plain { self.decided.epoch } else { self.decided.epoch + 1 };
        self.want(WriterEffect::BeginHistory { position: self.decided, epoch });
    }

    fn stop_being_primary(&mut self) {
        if self.held {
            self.held = false;
            self.want(WriterEffect::Decide(Decision::Reject(Code::REPLICATED_ABORTED)));
        }
        if self.in_flight.take().is_some() {
            self.pending = true;
            self.want(BatchEffect::KeepPending);
            self.want(WriterEffect::Decide(Decision::Abandon));
        }
    }

    /// Adds an effect. They are carried out in this order.
    pub(super) fn want(&mut self, effect: impl Into<Effect>) {
        self.effects.push(effect.into());
    }

    /// Applies what arrives on the connection.
    pub(super) fn follow(&mut self) {
        if let Some(link) = self.link {
            let (position, rule) = (self.decided, self.settings.acknowledge_rule());
            self.want(ApplierEffect::Follow { link, position, rule });
        }
    }

    /// Signs of life on the connection, by the settings in force.
    pub(super) fn watch_peer(&mut self) {
        if let Some(link) = self.link {
            self.want(PingEffect::Start { link, pair: self.settings.pair });
        }
    }

    /// Ends the connection and everything that lives on it.
    pub(super) fn close(&mut self, farewell: Option<PeerMessage>) {
        if self.link.take().is_some() {
            self.want(PingEffect::Stop);
            self.want(SenderEffect::Close { farewell });
        }
        self.connect_status(ConnectStatus::Broken);
    }

    pub(super) fn connect_status(&mut self, status: ConnectStatus) {
        match status {
            ConnectStatus::Broken => self.own_settings(),
            ConnectStatus::Connecting | ConnectStatus::Connected => self.connect_failure = None,
            ConnectStatus::Catchup | ConnectStatus::Disconnecting => {}
        }
        if self.connect_status != status {
            self.connect_status = status;
            self.want(NodeEffect::ConnectStatus(status));
        }
    }

    pub(super) fn reply(&mut self, request: RequestId, code: Code, text: impl Into<String>) {
        self.want(AnswerEffect::Reply { request, code, text: text.into() });
    }

    /// Refuses with the code's own sentence.
    pub(super) fn refuse(&mut self, request: RequestId, code: Code) {
        self.refuse_with(request, &code.into());
    }

    /// Refuses with the code's own sentence and the particulars.
    pub(super) fn refuse_with(&mut self, request: RequestId, refusal: &Refusal) {
        self.reply(request, refusal.code, refusal.text());
    }

    /// Logs what belongs to the ordinary course of things.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.say(Severity::Info, text);
    }

    /// Logs what an operator should look at.
    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.say(Severity::Warning, text);
    }

    pub(super) fn say(&mut self, severity: Severity, text: impl Into<String>) {
        self.want(NodeEffect::Note { severity, text: text.into() });
    }

    pub(super) fn tell(&mut self, message: PeerMessage) {
        self.want(SenderEffect::Tell(message));
    }

    pub(super) fn start_timer(&mut self) {
        self.next_number += 1;
        self.timer = self.next_number;
        self.want(Effect::StartTimer { timer: self.timer, after_ms: PEER_ANSWER_TIMEOUT_MS });
    }

    pub(super) fn drain(&mut self, after: AfterDrain) {
        self.next_number += 1;
        self.ticket = self.next_number;
        let with_pending = matches!(after, AfterDrain::Promote { .. });
        self.phase = Phase::Draining(after);
        self.want(ApplierEffect::Drain { ticket: self.ticket, with_pending });
    }

    /// The present state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The decided position.
    pub fn decided(&self) -> Position {
        self.decided
    }

    /// The end of the log, a pending batch included.
    pub fn log_end(&self) -> Position {
        self.log_end
    }

    /// How far the secondary is known to be.
    pub fn acknowledged(&self) -> Position {
        self.acknowledged
    }

    /// Bytes sent to the secondary and not acknowledged yet.
    pub fn unacknowledged_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// A change of the primary's does not fit this database: only a netcopy makes it whole.
    pub fn needs_netcopy(&self) -> bool {
        self.damaged
    }

    /// For `hsb status connect`.
    pub fn connect_status_now(&self) -> ConnectStatus {
        self.connect_status
    }

    /// For `hsb status connect`: why the last attempt failed.
    pub fn connect_failure(&self) -> Option<&Refusal> {
        self.connect_failure.as_ref()
    }

    /// For `hsb status`: what the last attempt to connect, or a rewind, has shown to be needed here.
    pub fn remedy(&self) -> Remedy {
        self.remedy
    }

    /// For `hsb status switch`.
    pub fn switch_status(&self) -> SwitchStatus {
        self.switch_status
    }

    /// For `hsb status copy`.
    pub fn copy_status(&self) -> &CopyStatus {
        &self.copy_status
    }

    /// What is under way.
    pub fn activity(&self) -> Activity {
        self.phase.activity()
    }

    /// Whether this dial's answer is still waited for.
    pub fn is_dialling(&self, dial: RequestId) -> bool {
        matches!(self.phase, Phase::Dialling { request, .. } if request == dial)
    }

    /// What this node says of itself to the peer.
    pub fn hello(&self) -> Hello {
        Hello {
            database_id: self.database_id,
            state: self.state,
            position: self.decided,
            log_end: self.log_end,
            pair: self.settings.pair,
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The connection to the peer, if there is one.
    pub fn link(&self) -> Option<LinkId> {
        self.link
    }

    /// Whether a batch is held back that neither log nor peer has.
    pub fn is_holding(&self) -> bool {
        self.held
    }

    /// Whether a batch of such transactions has to wait for the secondary as things stand.
    pub fn needs_acknowledgement(&self, safeness: Safeness, durability: Durability) -> bool {
        self.state == State::PrimaryActive && self.settings.is_two_safe(safeness, durability)
    }
}
