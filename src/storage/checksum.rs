//! A checksum of what a database says, not of how its pages lie: equal at primary and secondary at one position.

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use xxhash_rust::xxh3::Xxh3;

use super::table::{Table, quoted};
use crate::error::ServerError;

/// Name of the entry for the schema itself.
pub const SCHEMA_ENTRY: &str = "(schema)";

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
    let (rows, sum) = checksum_of(connection, &schema)?;
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
        let (rows, sum) =
            checksum_of(connection, "SELECT name, seq FROM main.sqlite_sequence ORDER BY 1, 2")?;
        entries.push(("sqlite_sequence".into(), rows, sum));
    }
    Ok(entries)
}

fn rows_in_order(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
    let listed = columns.join(", ");
    let key: Vec<&str> = table.key.iter().map(|key| columns[key.column].as_str()).collect();
    let (selected, order) = match &table.rowid_name {
        Some(rowid) => (format!("{}, {listed}", quoted(rowid)), quoted(rowid)),
        None if key.is_empty() => (listed.clone(), listed),
        None => (listed, key.join(", ")),
    };
    format!("SELECT {selected} FROM main.{} ORDER BY {order}", quoted(&table.name))
}

fn checksum_of(connection: &Connection, sql: &str) -> rusqlite::Result<(u64, u128)> {
    let mut hash = Xxh3::new();
    let mut count = 0;
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        count += 1;
        for column in 0..columns {
            let mut put = |tag: u8, bytes: &[u8]| {
                hash.update(&[tag]);
                hash.update(&(bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            };
            match row.get_ref(column)? {
                ValueRef::Null => put(0, &[]),
                ValueRef::Integer(value) => put(1, &value.to_le_bytes()),
                ValueRef::Real(value) => put(2, &value.to_bits().to_le_bytes()),
                ValueRef::Text(bytes) => put(3, bytes),
                ValueRef::Blob(bytes) => put(4, bytes),
            }
        }
    }
    Ok((count, hash.digest128()))
}
