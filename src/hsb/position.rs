//! Where a database stands in its own history.
//!
//! Two databases with equal [`Position`]s have executed the same batches in the same order: the chain hash covers
//! every batch since the database was created. A position orders only within one history; whether two positions
//! belong to one history is answered by looking the older one up in the log of the newer.

use serde::{Deserialize, Serialize};

/// Hash over all batches of a history, the newest included.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Chain(pub [u8; 16]);

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A point in a database's history: after `sequence` transactions, the last of them written in `epoch`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Grows when a node that took over as primary logs its first write.
    pub epoch: u64,
    /// Transactions since the database was created.
    pub sequence: u64,
    /// Hash of everything up to here.
    pub chain: Chain,
}

impl Position {
    /// The position of a database that was just created.
    pub const ORIGIN: Position = Position { epoch: 0, sequence: 0, chain: Chain([0; 16]) };

    /// The digits of `hsb logpos`: string order is progress order.
    pub fn digits(&self) -> String {
        format!("{:010}{:020}", self.epoch, self.sequence)
    }

    /// The progress that these digits say, if they are such.
    pub fn progress_of(digits: &str) -> Option<(u64, u64)> {
        let (epoch, sequence) = digits.split_at_checked(10).filter(|(_, rest)| rest.len() == 20)?;
        Some((epoch.parse().ok()?, sequence.parse().ok()?))
    }

    /// What to compare to see which of two nodes got further.
    pub fn progress(&self) -> (u64, u64) {
        (self.epoch, self.sequence)
    }
}

/// Which database it is, and where it stands in its history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatabasePosition {
    /// Both copies carry the same.
    pub database_id: [u8; 16],
    /// Where it stands.
    pub position: Position,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}/{:?}", self.epoch, self.sequence, self.chain)
    }
}
