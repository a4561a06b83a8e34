//! A checksum of what a database says, not of how its pages lie: equal at primary and secondary at one position.

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use xxhash_rust::xxh3::Xxh3;

use super::table::{Table, quoted};
use crate::error::ServerError;

/// Name of the entry for the schema itself.
pub const SCHEMA_ENTRY: &str = "(schema)";

/// SQLite's limit for the columns of a result; a table may have as many besides its rowid.
const MAX_RESULT_COLUMNS: usize = 2000;

/// One entry for the schema and one per table, in the order of names: name, rows, checksum.
///
/// Covers the SQL of every object, every stored column of every row to the bit and with its storage class, rowids, and
/// `sqlite_sequence`. Leaves out `_hsb_meta`, statistics of ANALYZE and generated columns.
pub fn logical_checksum(connection: &Connection) -> Result<Vec<(String, u64, u128)>, ServerError> {
    compute(connection).map_err(ServerError::from)
}

fn compute(connection: &Connection) -> rusqlite::Result<Vec<(String, u64, u128)>> {
    let user_objects =
        "FROM main.sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> '_hsb_meta'";
    let schema = format!("SELECT type, name, tbl_name, sql {user_objects} ORDER BY name, type");
    let (rows, sum) = checksum_of(connection, &[schema])?;
    let mut entries = vec![(SCHEMA_ENTRY.to_owned(), rows, sum)];
    // A table without pages of its own is a virtual one.
    let sql = format!("SELECT name {user_objects} AND type = 'table' AND rootpage > 0 ORDER BY name");
    let mut statement = connection.prepare(&sql)?;
    let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for name in names {
        if let Some(table) = Table::load(connection, &name)? {
            let (rows, sum) = checksum_of(connection, &rows_in_order(&table))?;
            entries.push((name, rows, sum));
        }
    }
    let sql = "SELECT count(*) FROM main.sqlite_master WHERE name = 'sqlite_sequence'";
    if connection.query_row(sql, [], |row| row.get::<_, i64>(0))? > 0 {
        let (rows, sum) = checksum_of(
            connection,
            &["SELECT name, seq FROM main.sqlite_sequence ORDER BY 1, 2".to_owned()],
        )?;
        entries.push(("sqlite_sequence".into(), rows, sum));
    }
    Ok(entries)
}

/// All stored columns of all rows, in so many queries that none has too many columns.
fn rows_in_order(table: &Table) -> Vec<String> {
    let columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let key: Vec<&str> = table.key.iter().map(|key| columns[key.column].as_str()).collect();
    let rowid = table.rowid_name.as_deref().map(quoted);
    let order = match &rowid {
        Some(rowid) => rowid.clone(),
        None if key.is_empty() => columns.join(", "),
        None => key.join(", "),
    };
    let selected: Vec<String> = rowid.into_iter().chain(columns).collect();
    let from = quoted(&table.name);
    let query = |part: &[String]| format!("SELECT {} FROM main.{from} ORDER BY {order}", part.join(", "));
    selected.chunks(MAX_RESULT_COLUMNS).map(query).collect()
}

/// Over the rows of queries that have the same rows in the same order, side by side.
fn checksum_of(connection: &Connection, queries: &[String]) -> rusqlite::Result<(u64, u128)> {
    let mut hash = Xxh3::new();
    let mut count = 0;
    let mut statements: Vec<_> =
        queries.iter().map(|sql| connection.prepare(sql)).collect::<rusqlite::Result<_>>()?;
    let widths: Vec<usize> = statements.iter().map(|statement| statement.column_count()).collect();
    let mut parts: Vec<_> =
        statements.iter_mut().map(|statement| statement.query([])).collect::<rusqlite::Result<_>>()?;
    loop {
        for (part, width) in parts.iter_mut().zip(&widths) {
            let Some(row) = part.next()? else { return Ok((count, hash.digest128())) };
            for column in 0..*width {
                put(&mut hash, row.get_ref(column)?);
            }
        }
        count += 1;
    }
}

fn put(hash: &mut Xxh3, value: ValueRef<'_>) {
    let mut put = |tag: u8, bytes: &[u8]| {
        hash.update(&[tag]);
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    match value {
        ValueRef::Null => put(0, &[]),
        ValueRef::Integer(value) => put(1, &value.to_le_bytes()),
        ValueRef::Real(value) => put(2, &value.to_bits().to_le_bytes()),
        ValueRef::Text(bytes) => put(3, bytes),
        ValueRef::Blob(bytes) => put(4, bytes),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_as_many_columns_as_there_may_be_is_covered_to_the_last() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (c0)").unwrap();
        for column in 1..2000 {
            connection.execute_batch(&format!("ALTER TABLE t ADD COLUMN c{column}")).unwrap();
        }
        connection.execute_batch("INSERT INTO t (c0, c1999) VALUES (1, 2), (3, 4)").unwrap();
        let sum = || logical_checksum(&connection).unwrap().into_iter().find(|entry| entry.0 == "t").unwrap();
        let before = sum();
        assert_eq!(before.1, 2);
        connection.execute_batch("UPDATE t SET c1999 = 5 WHERE c0 = 3").unwrap();
        assert_ne!(sum().2, before.2);
    }
}
