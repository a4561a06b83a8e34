//! The server states (guide, chapter 2 and appendix D).

use serde::{Deserialize, Serialize};

/// What a node is to its pair. Internal phases (copying, connecting, …) are not states.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum State {
    /// HSBEnabled=no: an ordinary server.
    Plain,
    /// Waits for a netcopy and answers nothing else.
    Offline,
    /// A primary that keeps no log for a peer.
    Standalone,
    /// A primary without its secondary; keeps the log for it.
    PrimaryAlone,
    /// A primary with its secondary.
    PrimaryActive,
    /// A primary that lost its secondary and waits to be told what to do; writes are blocked.
    PrimaryUncertain,
    /// A secondary that follows its primary.
    SecondaryActive,
    /// A secondary without a primary.
    SecondaryAlone,
}

impl State {
    /// The state that `hsb state` prints like this.
    pub fn named(name: &str) -> Option<State> {
        use State::*;
        let states = [
            Offline,
            Standalone,
            PrimaryAlone,
            PrimaryActive,
            PrimaryUncertain,
            SecondaryActive,
            SecondaryAlone,
        ];
        states.into_iter().find(|state| state.name() == name)
    }

    /// As `hsb state` prints it; empty for a plain server.
    pub fn name(self) -> &'static str {
        match self {
            State::Plain => "",
            State::Offline => "OFFLINE",
            State::Standalone => "STANDALONE",
            State::PrimaryAlone => "PRIMARY ALONE",
            State::PrimaryActive => "PRIMARY ACTIVE",
            State::PrimaryUncertain => "PRIMARY UNCERTAIN",
            State::SecondaryActive => "SECONDARY ACTIVE",
            State::SecondaryAlone => "SECONDARY ALONE",
        }
    }

    /// As `hsb role` prints it.
    pub fn role(self) -> &'static str {
        match self {
            State::Plain | State::Offline => "",
            State::Standalone => "STANDALONE",
            State::PrimaryAlone | State::PrimaryActive | State::PrimaryUncertain => "PRIMARY",
            State::SecondaryActive | State::SecondaryAlone => "SECONDARY",
        }
    }

    /// Any of the primary states; STANDALONE counts as one.
    pub fn is_primary(self) -> bool {
        matches!(
            self,
            State::Standalone | State::PrimaryAlone | State::PrimaryActive | State::PrimaryUncertain
        )
    }

    /// Either of the secondary states.
    pub fn is_secondary(self) -> bool {
        matches!(self, State::SecondaryActive | State::SecondaryAlone)
    }

    /// Connected to the peer and in step with it.
    pub fn is_active(self) -> bool {
        matches!(self, State::PrimaryActive | State::SecondaryActive)
    }
}

/// Which of the two start times of `info` a change of the state sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartTime {
    /// `primarystarttime`
    Primary,
    /// `secondarystarttime`
    Secondary,
}

/// A role begins when a node enters it, not with every state within it.
pub fn start_time_set_by(from: State, to: State) -> Option<StartTime> {
    match (from.is_primary(), to.is_primary()) {
        (false, true) => Some(StartTime::Primary),
        (true, false) => Some(StartTime::Secondary),
        (false, false) if from == State::Offline => Some(StartTime::Secondary),
        _ => None,
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
