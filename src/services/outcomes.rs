//! The answer to "did my last COMMIT happen?": COMMITTED, ROLLED BACK or UNKNOWN, by the transaction's token.
//!
//! What is said stays true. COMMITTED: the token is in the replicated table. ROLLED BACK: this server is the primary
//! and was it all the time it took to look, the token is not in the table, and no session holds it any more, so nobody
//! is left who could commit it. UNKNOWN: all else – the transaction is in doubt, may yet commit, or may have committed
//! where this server cannot see it.
//!
//! Invariant: a session holds a token from SET TRANSACTION TOKEN until its transaction is decided and visible here, or
//! given up. So whoever finds it unheld first and not in the table then, knows. What has left a client and not yet
//! arrived is seen by nobody: a client that waited for the answer to SET TRANSACTION TOKEN is safe from that, and one
//! that repeats a transaction with the same token in any case, because a token commits once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::status::NodeStatus;
use crate::error::ServerError;
use crate::hsb::state::State;
use crate::storage::database::Database;
use crate::storage::outcomes::{MAX_TOKEN_BYTES, is_recorded};

/// What became of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It happened.
    Committed,
    /// It did not and will not.
    RolledBack,
    /// It cannot be told here and now; the sentence says why.
    Unknown(&'static str),
}

impl Outcome {
    /// As HOTSTANDBY_OUTCOME() answers.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Committed => "COMMITTED",
            Outcome::RolledBack => "ROLLED BACK",
            Outcome::Unknown(_) => "UNKNOWN",
        }
    }

    /// What the answer means.
    pub fn explanation(self) -> &'static str {
        match self {
            Outcome::Committed => "The transaction is part of the database.",
            Outcome::RolledBack => {
                "No transaction with this token is among the last 100,000 that committed with one, and no session holds it: it can be repeated, with the same token."
            }
            Outcome::Unknown(why) => why,
        }
    }
}

/// What the node knows of outcomes.
pub struct Outcomes {
    database: Arc<Database>,
    status: Arc<NodeStatus>,
    held: Mutex<HashMap<String, u32>>,
}

/// A session's hold on its transaction's token. Dropping it gives the token up.
pub struct HeldToken {
    outcomes: Arc<Outcomes>,
    token: String,
}

impl Outcomes {
    /// For a node that starts.
    pub fn new(database: Arc<Database>, status: Arc<NodeStatus>) -> Outcomes {
        Outcomes { database, status, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes hold of a token for a transaction to come.
    pub fn hold(self: &Arc<Self>, token: &str) -> Result<HeldToken, ServerError> {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            let text = format!("a transaction's token has 1 to {MAX_TOKEN_BYTES} bytes");
            return Err(ServerError::sql("22023", text));
        }
        *self.held().entry(token.to_string()).or_default() += 1;
        Ok(HeldToken { outcomes: Arc::clone(self), token: token.to_string() })
    }

    /// What became of the transaction with this token. Reads the database; blocks no longer than that.
    pub fn outcome(&self, token: &str) -> Result<Outcome, ServerError> {
        // The order matters: the state, then who holds the token, then the table, then the state again.
        let before = self.status.snapshot();
        let is_held = self.held().contains_key(token);
        if self.database.ask(|connection| is_recorded(connection, token))? {
            return Ok(Outcome::Committed);
        }
        let after = self.status.snapshot();
        let answers = matches!(
            before.state,
            State::Plain | State::Standalone | State::PrimaryAlone | State::PrimaryActive
        );
        Ok(match after.state {
            _ if is_held => Outcome::Unknown(
                "In doubt: a session of this server still holds the token; its transaction is committing or may yet commit. Ask again.",
            ),
            _ if before.state_changes != after.state_changes => {
                Outcome::Unknown("This server's state was just changing. Ask again.")
            }
            _ if answers => Outcome::RolledBack,
            _ if after.decided != after.log_end => Outcome::Unknown(
                "In doubt: it is not committed here, but the last batch of this server's log is undecided and may hold it. Ask the primary, or again when this server is connected or promoted.",
            ),
            State::PrimaryUncertain => Outcome::Unknown(
                "It is not committed here, but this server is not sure to be the primary. Ask again when it is decided, or ask the other server.",
            ),
            _ => {
                Outcome::Unknown("It is not committed here, but this server is a secondary. Ask the primary.")
            }
        })
    }
}

impl HeldToken {
    /// The token.
    pub fn text(&self) -> &str {
        &self.token
    }
}

impl std::fmt::Debug for HeldToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeldToken({:?})", self.token)
    }
}

impl Drop for HeldToken {
    fn drop(&mut self) {
        let mut held = self.outcomes.held();
        if let Some(count) = held.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.token);
            }
        }
    }
}
