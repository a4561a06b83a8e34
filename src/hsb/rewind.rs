//! Heart, part rewind: a secondary that is alone takes back the transactions that the primary's history lacks.
//!
//! The work is done outside, on the database and the log of this node alone. Meanwhile nothing else may begin, and
//! whatever comes of it, the node stays SECONDARY ALONE.

use super::codes::Code;
use super::event::{Effect, RequestId};
use super::heart::Heart;
use super::phase::{AfterDrain, Phase};
use super::position::Position;
use super::state::State;

impl Heart {
    pub(super) fn command_rewind(&mut self, request: RequestId) {
        match self.state {
            _ if self.damaged => self.refuse(request, Code::APPLY_FAILED),
            State::SecondaryAlone if !self.settings.has_connect_string => {
                self.refuse(request, Code::NO_CONNECT_STRING);
            }
            State::SecondaryAlone => self.drain(AfterDrain::Rewind { request }),
            _ => self.refuse(request, Code::REFUSED_IN_STATE),
        }
    }

    /// Everything that this node has received is applied: it can be compared with the primary's history.
    pub(super) fn begin_rewind(&mut self, request: RequestId) {
        self.phase = Phase::Rewinding { request };
        self.effects.push(Effect::Rewind);
    }

    /// Where the database is now and what to say, or why it is as it was.
    pub(super) fn rewound(&mut self, result: Result<(Position, String), (Code, String)>) {
        let Phase::Rewinding { request } = self.phase else { return };
        self.phase = Phase::Idle;
        match result {
            Ok((position, text)) => {
                if position != self.decided {
                    self.decided = position;
                    self.log_end = position;
                    self.pending = false;
                    self.effects.push(Effect::ForgetPending);
                }
                self.reply(request, Code::SUCCESS, text);
            }
            Err((code, detail)) => self.refuse_with(request, code, &detail),
        }
    }
}
