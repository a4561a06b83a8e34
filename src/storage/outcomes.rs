//! Which transactions have committed, by the tokens that their clients gave them.
//!
//! The table `_hsb_outcomes` is hidden from clients and replicated like any other: the token of a transaction is one
//! more row of it, so it is there exactly where and when the transaction is – after a failover, a switch, a netcopy,
//! a restart. The same change that adds a token deletes the one that is [`TOKENS_KEPT`] older, so both nodes remember
//! the same tokens.
//!
//! Not here: whether a token that is absent can still come; that is for whoever knows the sessions and the state.

use rusqlite::{Connection, OptionalExtension};

use crate::error::ServerError;

/// So many tokens are remembered, the newest.
pub const TOKENS_KEPT: i64 = 100_000;
/// Most bytes of a token.
pub const MAX_TOKEN_BYTES: usize = 255;

/// Makes the table.
pub(super) const CREATE: &str =
    "CREATE TABLE _hsb_outcomes (number INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE);";

/// Records in the open transaction that it has this token; an error if another one has committed with it.
pub fn record(connection: &Connection, token: &str) -> Result<(), ServerError> {
    if is_recorded(connection, token)? {
        let text = format!(
            "a transaction with the token '{token}' has committed already; nothing was done now (HOTSTANDBY_OUTCOME tells the outcome of a token)"
        );
        return Err(ServerError::sql("2D000", text));
    }
    connection.prepare_cached("INSERT INTO _hsb_outcomes (token) VALUES (?1)")?.execute([token])?;
    let oldest = connection.last_insert_rowid() - TOKENS_KEPT;
    connection.prepare_cached("DELETE FROM _hsb_outcomes WHERE number <= ?1")?.execute([oldest])?;
    Ok(())
}

/// Whether a transaction with this token is among those that the connection sees as committed.
pub fn is_recorded(connection: &Connection, token: &str) -> Result<bool, ServerError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM _hsb_outcomes WHERE token = ?1")?;
    Ok(statement.query_row([token], |_| Ok(())).optional()?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_tokens_are_remembered_and_refused_a_second_time() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(CREATE).unwrap();
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                    INSERT INTO _hsb_outcomes (token) SELECT 'token ' || i FROM n";
        connection.execute(fill, [TOKENS_KEPT]).unwrap();
        assert_eq!(record(&connection, "token 1").unwrap_err().sqlstate, "2D000");
        record(&connection, "one more").unwrap();
        assert!(!is_recorded(&connection, "token 1").unwrap());
        for token in ["token 2", "token 100000", "one more"] {
            assert!(is_recorded(&connection, token).unwrap(), "{token}");
        }
        record(&connection, "token 1").unwrap();
        let count: i64 =
            connection.query_row("SELECT count(*) FROM _hsb_outcomes", [], |row| row.get(0)).unwrap();
        assert_eq!(count, TOKENS_KEPT);
    }
}
