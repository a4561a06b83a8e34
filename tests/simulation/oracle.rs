//! What must hold: which transactions were acknowledged, failed or are unknown, and what readers may see.
//!
//! Every transaction adds one row to `journal`, whose key is counted by SQLite, so the key is the transaction's sequence
//! in the history and the rows are the history.

use std::collections::BTreeMap;

use hotstandby::hsb::position::Chain;
use hotstandby::hsb::settings::Durability;
use rusqlite::Connection;

/// What its client knows of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its client waits.
    Open,
    /// Committed, at this (epoch, sequence).
    Acknowledged(u64, u64),
    /// Certainly not committed.
    Failed,
    /// Its client will never know.
    Unknown,
}

/// One transaction.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub two_safe: bool,
    pub durability: Durability,
    pub outcome: Outcome,
}

/// What is known about all of them.
#[derive(Default)]
pub struct Oracle {
    pub transactions: BTreeMap<i64, Transaction>,
    /// What readers have seen at each node: `seen[n][i]` is the transaction with sequence i + 1.
    pub seen: [Vec<i64>; 2],
    /// The furthest (epoch, sequence) that any node ever called decided.
    pub decided: (u64, u64),
    /// The history up to there.
    pub decided_chain: Chain,
    /// The most that was ever visible at each node.
    pub shown: [usize; 2],
    /// The last (epoch, sequence) that each node answered in PRIMARY ACTIVE.
    pub answered_active: [(u64, u64); 2],
    /// The furthest (epoch, sequence) that was ever on each node's disk.
    pub on_disk: [(u64, u64); 2],
    /// A decided history was given up by an operator: what only it held is excused.
    pub excused: bool,
    /// Who promotes knows what the nodes answer, and no more: what nobody was answered, one node may have shown and the
    /// other, promoted after two failures, may lack.
    pub watched: bool,
}

impl Oracle {
    pub fn begin(&mut self, transaction: Transaction) -> i64 {
        let number = self.transactions.len() as i64 + 1;
        self.transactions.insert(number, transaction);
        number
    }

    pub fn end(&mut self, number: i64, outcome: Outcome) {
        if let Some(transaction) = self.transactions.get_mut(&number) {
            transaction.outcome = outcome;
        }
    }

    /// The furthest acknowledged (epoch, sequence).
    pub fn acknowledged_up_to(&self) -> (u64, u64) {
        let positions = self.transactions.values().filter_map(|transaction| match transaction.outcome {
            Outcome::Acknowledged(epoch, sequence) => Some((epoch, sequence)),
            _ => None,
        });
        positions.max().unwrap_or_default()
    }

    /// Reads what is new at a node and checks it.
    pub fn read(&mut self, node: usize, reader: &Connection) -> Result<(), String> {
        let known = self.seen[node].len() as i64;
        let sqlite = |error: rusqlite::Error| format!("node {node} cannot be read: {error}");
        let mut statement = reader
            .prepare_cached("SELECT sequence, id FROM journal WHERE sequence > ? ORDER BY sequence")
            .map_err(sqlite)?;
        let mut rows = statement.query([known]).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let (sequence, id): (i64, i64) = (row.get(0).map_err(sqlite)?, row.get(1).map_err(sqlite)?);
            let expected = self.seen[node].len() as i64 + 1;
            if sequence != expected {
                return Err(format!("node {node} shows transaction {id} at {sequence}, not at {expected}"));
            }
            self.seen[node].push(id);
            self.shown[node] = self.shown[node].max(sequence as usize);
            self.check_visible(node, id, sequence as usize)?;
        }
        Ok(())
    }

    fn check_visible(&self, node: usize, id: i64, sequence: usize) -> Result<(), String> {
        let Some(transaction) = self.transactions.get(&id) else {
            return Err(format!("node {node} shows transaction {id}, which nobody has made"));
        };
        if transaction.outcome == Outcome::Failed {
            return Err(format!("node {node} shows transaction {id}, which has failed"));
        }
        match self.seen[1 - node].get(sequence - 1) {
            Some(other) if *other != id && !self.may_part(id, *other) => Err(format!(
                "the histories part: at {sequence} node {node} has transaction {id}, the other {other}"
            )),
            _ => Ok(()),
        }
    }

    /// Whether two nodes may show different transactions in one place for a while.
    fn may_part(&self, one: i64, other: i64) -> bool {
        let is_acknowledged = |id: i64| {
            let known = self.transactions.get(&id).map(|known| known.outcome);
            matches!(known, Some(Outcome::Acknowledged(..)))
        };
        self.excused || self.watched && !(is_acknowledged(one) && is_acknowledged(other))
    }

    /// After a start everything is read anew; what had been seen may be gone, but only from the end.
    pub fn reread(&mut self, node: usize, reader: &Connection) -> Result<(), String> {
        let before = std::mem::take(&mut self.seen[node]);
        self.read(node, reader)?;
        let differs = self.seen[node].iter().zip(&before).position(|(now, then)| now != then);
        match differs {
            Some(at) if !self.excused => Err(format!("node {node} shows another transaction at {}", at + 1)),
            _ => Ok(()),
        }
    }

    /// Everything acknowledged is there.
    pub fn check_nothing_lost(&self, node: usize) -> Result<(), String> {
        for (id, transaction) in &self.transactions {
            if let Outcome::Acknowledged(epoch, sequence) = transaction.outcome
                && self.seen[node].get(sequence as usize - 1) != Some(id)
                && !self.excused
            {
                return Err(format!(
                    "transaction {id} was acknowledged at {epoch}.{sequence} and is missing at node {node}"
                ));
            }
        }
        Ok(())
    }
}
