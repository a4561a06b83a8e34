//! Heart, part rewind: a secondary that is alone takes back the transactions that the primary's history lacks.
//!
//! The work is done outside, on the database and the log of this node alone. Meanwhile nothing else may begin, and
//! whatever comes of it, the node stays SECONDARY ALONE.
//!
//! Where they cannot be taken back, the command is the operator's consent to their end: they are saved, and a netcopy may
//! replace the database ([`GivenUp`]). The consent is for the next netcopy: it ends when that begins, with the process, with
//! any change of the state or the position, and with an attempt to connect, whatever comes of it. Invariant: a SECONDARY ALONE has its database replaced only by one that is known to have everything
//! that was decided here, or with consent.

use super::advice::Remedy;
use super::codes::Code;
use super::effect::{ApplierEffect, NodeEffect};
use super::event::RequestId;
use super::heart::Heart;
use super::phase::{AfterDrain, Phase};
use super::position::Position;
use super::refusal::Refusal;
use super::state::State;

/// How a rewind has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RewindEnd {
    /// The database is at this position now.
    TakenBack {
        /// The position.
        position: Position,
        /// What to tell the operator.
        text: String,
    },
    /// Nothing was changed, and what only this node has is saved or will be kept: a netcopy may replace the database.
    GivenUp {
        /// Up to here the histories are known to be the same.
        common: Option<Position>,
        /// Why it could not be taken back, and what to tell the operator.
        refusal: Refusal,
    },
}

/// An operator gave up what only this node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct GivenUp {
    /// Where this node was then.
    decided: Position,
    /// What came after this; none: all of it.
    common: Option<Position>,
}

impl Heart {
    pub(super) fn command_rewind(&mut self, request: RequestId) {
        match self.state {
            _ if self.damaged => self.refuse(request, Code::APPLY_FAILED),
            State::SecondaryAlone if !self.settings.has_connect_string => {
                self.refuse(request, Code::NO_CONNECT_STRING);
            }
            State::SecondaryAlone => self.drain(AfterDrain::Rewind { request }),
            state => {
                let needs = format!("It is {state}; a rewind needs SECONDARY ALONE.");
                self.refuse_with(request, &Refusal::new(Code::REFUSED_IN_STATE, needs));
            }
        }
    }

    /// Everything that this node has received is applied: it can be compared with the primary's history.
    pub(super) fn begin_rewind(&mut self, request: RequestId) {
        self.phase = Phase::Rewinding { request };
        self.want(NodeEffect::Rewind);
    }

    /// Where the database is now and what to say, or why it is as it was.
    pub(super) fn rewound(&mut self, result: Result<RewindEnd, Refusal>) {
        let Phase::Rewinding { request } = self.phase else { return };
        self.phase = Phase::Idle;
        match result {
            Ok(RewindEnd::GivenUp { common, refusal }) => {
                self.given_up = Some(GivenUp { decided: self.decided, common });
                self.remedy = Remedy::Netcopy;
                self.refuse_with(request, &refusal);
            }
            Ok(RewindEnd::TakenBack { position, text }) => {
                self.remedy = Remedy::Connect;
                if position != self.decided {
                    // What the other server is known to have may be what was taken back.
                    self.acknowledged = Position::ORIGIN;
                    self.decided = position;
                    self.log_end = position;
                    self.pending = false;
                    self.want(ApplierEffect::ForgetPending);
                }
                self.reply(request, Code::SUCCESS, text);
            }
            Err(refusal) => self.refuse_with(request, &refusal),
        }
    }

    /// Whether a source may replace the database without the loss of anything that was decided, or with consent to it.
    pub(super) fn may_be_replaced(&self, common: Option<Position>) -> bool {
        let sequence = |position: Option<Position>| position.map(|position| position.sequence);
        self.decided.sequence == 0
            || sequence(common) >= Some(self.decided.sequence)
            || self.given_up.is_some_and(|given_up| {
                given_up.decided == self.decided && sequence(common) >= sequence(given_up.common)
            })
    }

    /// What the operator is told who wants to replace it all the same.
    pub(super) fn not_to_be_replaced(&self, source: Position, common: Option<Position>) -> String {
        let found = match common {
            Some(common) => format!(
                "The target is at {}, the source at {source}; their histories parted at {common}, and what came after that ({}) is at the target only.",
                self.decided,
                transactions(self.decided.sequence - common.sequence)
            ),
            None => format!(
                "The target is at {}, the source at {source}, and the logs do not reach back to a position that both have: the target may have transactions that the source lacks.",
                self.decided
            ),
        };
        let rewind = match self.damaged {
            true => "",
            false => {
                "'hsb rewind' at the target saves them and takes them back or, where that cannot be done, says what is kept and lets the next 'hsb netcopy' replace the database. Or "
            }
        };
        format!(
            "{found} Nothing was changed. {rewind}start the target with 'solid -x backupserver': a netcopy then replaces its database, of which what the source lacks is kept in a file."
        )
    }
}

/// So many transactions, in words.
pub fn transactions(count: u64) -> String {
    match count {
        0 => "no transaction".into(),
        1 => "1 transaction".into(),
        count => format!("{count} transactions"),
    }
}
