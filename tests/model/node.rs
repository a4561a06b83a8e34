//! One node of the model: the real heart, with log, database, writer and applier reduced to positions.
//!
//! A position carries its whole history: byte n of its chain is the number of the n-th batch. Whether one position lies
//! on the history of another can be seen by looking at the two.

use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::Admission;
use hotstandby::hsb::event::LinkId;
use hotstandby::hsb::heart::Heart;
use hotstandby::hsb::position::{Chain, Position};
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::settings::{
    AcknowledgePolicy, DurabilityLevel, PairSettings, SafenessLevel, SameSettings, Settings,
};
use hotstandby::hsb::state::State;
use hotstandby::hsb::table::Transition;

pub const PAIR: PairSettings = PairSettings {
    acknowledge_policy: AcknowledgePolicy::Received,
    ping_interval_ms: 1000,
    ping_timeout_ms: 4000,
};

pub const SETTINGS: Settings = Settings {
    safeness: SafenessLevel::TwoSafe,
    durability: DurabilityLevel::Adaptive,
    auto_primary_alone: false,
    has_connect_string: true,
    pair: PAIR,
    same: SameSettings { connect_timeout_ms: 0, page_bytes: 4096, backup_block_bytes: 65536 },
    maximum_log_bytes: Some(1 << 40),
};

/// The position after one more batch.
pub fn after(before: Position, epoch: u64, batch: u8) -> Position {
    let mut chain = before.chain.0;
    chain[usize::try_from(before.sequence).unwrap()] = batch;
    Position { epoch, sequence: before.sequence + 1, chain: Chain(chain) }
}

/// The batches that lead to a position.
pub fn batches(position: &Position) -> &[u8] {
    &position.chain.0[..usize::try_from(position.sequence).unwrap()]
}

/// A batch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub before: Position,
    pub after: Position,
    /// Its header says that it needs an acknowledgement.
    pub marked: bool,
}

/// The batch that the writer has submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InHand {
    pub before: Position,
    pub after: Position,
    pub marked: bool,
    /// Only the supervisor has it.
    pub held: bool,
}

/// Old batches on their way to the secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Catchup {
    pub link: LinkId,
    pub sent: Position,
    pub begun: bool,
    pub end_reported: bool,
}

#[derive(Clone, Debug, Hash)]
pub struct Node {
    pub up: bool,
    pub heart: Heart,
    /// What is logged, the oldest first.
    pub log: Vec<Entry>,
    /// Where the log begins.
    pub log_start: Position,
    /// So much of the log survives a power cut.
    pub durable: usize,
    /// What readers see.
    pub database: Position,
    /// What is in the database file after a power cut.
    pub synced: Position,
    pub epoch: u64,
    pub admission: Admission,
    pub in_hand: Option<InHand>,
    pub following: Option<LinkId>,
    pub received: Position,
    /// Received and not yet applied.
    pub unapplied: bool,
    pub pending: Option<Entry>,
    /// Ticket, and whether the pending batch counts as decided. The ticket is new each time: it does not count.
    pub draining: Option<(Ticket, bool)>,
    /// The position that the log is searched for.
    pub checking: Option<(LinkId, Position)>,
    pub catchup: Option<Catchup>,
    pub timer: Option<Ticket>,
    /// Commands that have no answer yet: one per node, and the shutdown.
    pub asked: Option<u64>,
    /// The last answer.
    pub answered: Option<Code>,
}

/// A number that is new each time; two situations that differ in it alone are the same.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(pub u64);

impl std::hash::Hash for Ticket {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

impl Node {
    pub fn new(state: State, settings: Settings, table: &'static [Transition]) -> Node {
        let origin = Position::ORIGIN;
        Node {
            up: true,
            heart: Heart::new(state, settings, [1; 16], origin, origin).with_table(table),
            log: Vec::new(),
            log_start: origin,
            durable: 0,
            database: origin,
            synced: origin,
            epoch: 0,
            admission: Admission::Refuse(Code::NOT_ON_SECONDARY),
            in_hand: None,
            following: None,
            received: origin,
            unapplied: false,
            pending: None,
            draining: None,
            checking: None,
            catchup: None,
            timer: None,
            asked: None,
            answered: None,
        }
    }

    /// With a database that was made by these batches.
    pub fn with_history(mut self, batches: &[u8]) -> Node {
        for batch in batches {
            let before = self.log_end();
            let after = after(before, 1, *batch);
            self.append(Entry { before, after, marked: false });
        }
        let position = self.log_end();
        let (state, settings) = (self.heart.state(), self.heart.settings());
        let id = self.heart.hello().database_id;
        (self.database, self.synced, self.received, self.epoch) =
            (position, position, position, position.epoch);
        self.durable = self.log.len();
        self.heart = Heart::new(state, settings, id, position, position);
        self
    }

    /// It holds a database that was never this pair's.
    pub fn make_stranger(&mut self) {
        let (state, settings, position) = (self.heart.state(), self.heart.settings(), self.heart.decided());
        self.heart = Heart::new(state, settings, [2; 16], position, position);
    }

    pub fn log_end(&self) -> Position {
        self.log.last().map_or(self.log_start, |entry| entry.after)
    }

    pub fn append(&mut self, entry: Entry) {
        assert_eq!(entry.before, self.log_end(), "the log would have a gap");
        self.log.push(entry);
    }

    pub fn truncate_after(&mut self, position: Position) {
        self.log.retain(|entry| entry.after.sequence <= position.sequence);
        self.durable = self.durable.min(self.log.len());
    }

    /// As the log reader finds it.
    pub fn find_in_log(&self, wanted: Position) -> Result<(), Refusal> {
        let here = self.log_end();
        if wanted.sequence < self.log_start.sequence {
            return Err(Code::LOG_TOO_SHORT.into());
        }
        let is_prefix = batches(&here).starts_with(batches(&wanted));
        if is_prefix { Ok(()) } else { Err(Code::NOT_SYNCHRONIZED.into()) }
    }

    /// What the source of a copy finds out about the target.
    pub fn in_common(&self, target: &Node) -> Option<Position> {
        let theirs = target.heart.decided();
        let is_same = self.heart.hello().database_id == target.heart.hello().database_id;
        let is_here = self.find_in_log(theirs).is_ok() || self.heart.acknowledged() == theirs;
        Some(theirs).filter(|_| is_same && is_here)
    }

    /// Whether clients can write here.
    pub fn is_writable(&self) -> bool {
        let state = self.heart.state();
        self.up && matches!(state, State::PrimaryActive | State::PrimaryAlone | State::Standalone)
    }

    /// Ends the process; what it finds when it starts again is settled now. `power`: what is not on disk is lost.
    pub fn crash(&mut self, power: bool, table: &'static [Transition]) {
        let mut held_by_database = self.database;
        if power {
            self.log.truncate(self.durable);
            held_by_database = self.synced;
        }
        let end = self.log_end();
        let pending = self
            .log
            .last()
            .copied()
            .filter(|last| last.marked && held_by_database.sequence < last.after.sequence);
        let decided = pending.map_or(end, |entry| entry.before);
        let settings = self.heart.settings();
        let heart = Heart::new(State::SecondaryAlone, settings, self.heart.hello().database_id, decided, end);
        *self = Node {
            up: false,
            heart: heart.with_table(table),
            log: std::mem::take(&mut self.log),
            log_start: self.log_start,
            durable: self.durable,
            database: decided,
            synced: if decided.sequence < self.synced.sequence { decided } else { self.synced },
            received: decided,
            pending,
            ..Node::new(State::SecondaryAlone, settings, table)
        };
        self.durable = self.log.len();
    }

    /// The process starts with `-x backupserver`.
    pub fn wait_for_copy(&mut self, table: &'static [Transition]) {
        let settings = self.heart.settings();
        *self = Node::new(State::Offline, settings, table);
    }

    /// A copy of another node's database takes the place of this one's.
    pub fn replace_database(&mut self, position: Position) {
        self.log.clear();
        self.log_start = position;
        self.durable = 0;
        self.database = position;
        self.synced = position;
        self.received = position;
        self.unapplied = false;
        self.pending = None;
        self.following = None;
    }
}
