//! Whether the databases hold what the clients were told.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::load::Account;
use super::pair::{PATIENCE, Pair, Server};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::storage::checksum::logical_checksum;

/// The table that the clients write to.
pub const TABLE: &str =
    "CREATE TABLE demo(id BIGINT PRIMARY KEY, client BIGINT NOT NULL, note TEXT NOT NULL) WITHOUT ROWID";

/// How many rows a message names.
const ROWS_NAMED: usize = 10;

/// The difference between an account and a database.
pub struct Finding {
    /// Acknowledged, and not there.
    pub lost: Vec<i64>,
    /// Reported as rolled back, and there.
    pub risen: Vec<i64>,
    /// There, and never written by a client.
    pub strange: Vec<i64>,
    /// Of the inserts whose connection broke: how many are there.
    pub unknown_there: usize,
}

impl Finding {
    /// Compares the rows at a server with what the clients were told.
    pub fn at(server: &Server, account: &Account) -> Result<Finding, ServerError> {
        let rows = server.sql().and_then(|mut sql| sql.query("SELECT id FROM demo", &[]));
        let there: HashSet<i64> = rows
            .map_err(|error| failed(format!("(reading at server '{}': {error})", server.name)))?
            .iter()
            .map(|row| row.get(0))
            .collect();
        Ok(Finding::compare(&there, account))
    }

    fn compare(there: &HashSet<i64>, account: &Account) -> Finding {
        let only = |rows: &[i64], wanted: bool| -> Vec<i64> {
            rows.iter().copied().filter(|id| there.contains(id) == wanted).collect()
        };
        let told: HashSet<i64> = [&account.acknowledged, &account.rolled_back, &account.unknown]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        Finding {
            lost: only(&account.acknowledged, false),
            risen: only(&account.rolled_back, true),
            strange: there.difference(&told).copied().collect(),
            unknown_there: only(&account.unknown, true).len(),
        }
    }

    /// An error that names the rows, unless all is as it has to be.
    pub fn verdict(&self, server: &Server) -> Result<(), ServerError> {
        let complaints: Vec<String> = [
            (&self.lost, "acknowledged rows are missing"),
            (&self.risen, "rows are there that were reported as rolled back"),
            (&self.strange, "rows are there that nobody wrote"),
        ]
        .into_iter()
        .filter(|(rows, _)| !rows.is_empty())
        .map(|(rows, what)| {
            let named: Vec<String> = rows.iter().take(ROWS_NAMED).map(i64::to_string).collect();
            let more = if rows.len() > ROWS_NAMED { ", …" } else { "" };
            format!("{} {what} (id {}{more})", rows.len(), named.join(", "))
        })
        .collect();
        if complaints.is_empty() {
            return Ok(());
        }
        let text = format!("At server '{}': {}.", server.name, complaints.join("; "));
        Err(failed(text))
    }
}

/// Waits until both servers are at one position and compares every table; nobody may write meanwhile.
pub fn same_content(pair: &Pair) -> Result<(), ServerError> {
    let deadline = Instant::now() + PATIENCE;
    let position = |server: &Server| server.expect("info position");
    loop {
        let (one, other) = (position(&pair.first)?, position(&pair.second)?);
        if one == other {
            break;
        }
        if Instant::now() > deadline {
            return Err(failed(format!("(The servers do not reach one position: {one}, {other}.)")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let checksum = |server: &Server| logical_checksum(&server.copy_database()?.1);
    let (one, other) = (checksum(&pair.first)?, checksum(&pair.second)?);
    let of_one_only = one.iter().find(|entry| !other.contains(entry));
    match of_one_only.or(other.iter().find(|entry| !one.contains(entry))) {
        None => Ok(()),
        Some((table, ..)) => Err(failed(format!("(The two databases differ in '{table}'.)"))),
    }
}

fn failed(error: impl std::fmt::Display) -> ServerError {
    ServerError::with(Code::OPERATION_FAILED, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_found() {
        let mut account = Account::default();
        account.acknowledged = vec![1, 2, 3];
        account.rolled_back = vec![4, 5];
        account.unknown = vec![6, 7];
        let right = Finding::compare(&HashSet::from([1, 2, 3, 7]), &account);
        assert!(right.lost.is_empty() && right.risen.is_empty() && right.strange.is_empty());
        assert_eq!(right.unknown_there, 1);
        let wrong = Finding::compare(&HashSet::from([1, 3, 5, 8]), &account);
        assert_eq!((wrong.lost, wrong.risen, wrong.strange), (vec![2], vec![5], vec![8]));
    }
}
