//! Transactions of the log as SQL that can be read, and run at a database that is as this one was before them.
//!
//! A change of a row names its columns. Which they were then is known from the schema as it is now and from what the log
//! says of each table before its shape was changed ([`Change::Was`]). Invariant: run without triggers and foreign keys, the
//! text leads to the rows and counters that this database had, but for users and tokens, which stand in comments.

use std::collections::HashMap;
use std::io::{Error, Result, Write};

use rusqlite::Connection;

use super::Rewind;
use crate::storage::change::{Change, ColumnChange, RowKey, Value, changes};
use crate::storage::functions;
use crate::storage::table::{Table, conjunction, quoted};

/// Writes all of them, after a comment that says what they are. `connection` reads the database as it is after them.
pub(super) fn write(
    out: &mut impl Write,
    rewind: &Rewind,
    connection: &Connection,
    server: &str,
) -> Result<()> {
    head(out, rewind, connection, server)?;
    let bodies = || rewind.batches.iter().flat_map(|batch| changes(batch.changes()));
    let mut shapes = Shapes { connection, before: HashMap::new(), known: HashMap::new() };
    for (place, change) in bodies().enumerate() {
        if let Change::Was { table, sql } = change.map_err(Error::other)? {
            shapes.before.entry(table).or_default().push((place, sql));
        }
    }
    let (mut sequence, mut is_inside) = (rewind.to.sequence, false);
    for (place, change) in bodies().enumerate() {
        let change = change.map_err(Error::other)?;
        if !is_inside {
            write!(out, "\n-- transaction {}\nBEGIN;\n", sequence + 1)?;
            is_inside = true;
        }
        match change {
            Change::Commit => {
                out.write_all(b"COMMIT;\n")?;
                (sequence, is_inside) = (sequence + 1, false);
            }
            Change::Was { .. } => {}
            change => {
                let text = shapes.statement(&change, place)?;
                let is_internal = table_of(&change).is_some_and(|table| table.starts_with("_hsb_"));
                let text = if is_internal { format!("-- {}", text.replace('\n', "\n-- ")) } else { text };
                writeln!(out, "{text}")?;
            }
        }
    }
    Ok(())
}

fn head(out: &mut impl Write, rewind: &Rewind, connection: &Connection, server: &str) -> Result<()> {
    let now = "SELECT strftime('%Y-%m-%d %H:%M:%SZ', 'now')";
    let now: String = connection.query_row(now, [], |row| row.get(0)).map_err(Error::other)?;
    let id = hexadecimal(&rewind.database_id);
    let server = server.replace(char::is_control, "?");
    let (count, from, to) = (rewind.transactions(), rewind.to, rewind.from);
    write!(
        out,
        "-- What only one of the two servers of a pair had, saved by it before that was given up there.\n\
         -- Server: {server}\n\
         -- Saved: {now}. Database: {id}. Transactions: {count}, after {from} up to {to}.\n\
         --\n\
         -- The changes stand in the order in which they were made. An UPDATE or DELETE concerns a row only if it is still\n\
         -- as it was then. What triggers and foreign keys did is among the changes, so switch them off to run this: in\n\
         -- sqlite3 with '.dbconfig enable_trigger off' and 'PRAGMA foreign_keys = off'. Users and transaction tokens\n\
         -- (tables _hsb_...) stand in comments.\n"
    )
}

fn table_of<'a>(change: &Change<'a>) -> Option<&'a str> {
    match change {
        Change::Insert { table, .. }
        | Change::Update { table, .. }
        | Change::Delete { table, .. }
        | Change::Sequence { table, .. } => Some(table),
        Change::Statement { .. } | Change::Commit | Change::Was { .. } => None,
    }
}

/// The shapes that tables had.
struct Shapes<'a> {
    connection: &'a Connection,
    /// For each table: up to which change it was made by which CREATE TABLE.
    before: HashMap<&'a str, Vec<(usize, &'a str)>>,
    /// By name, and the change up to which it is valid; none: until now.
    known: HashMap<(String, Option<usize>), Table>,
}

impl Shapes<'_> {
    fn at(&mut self, name: &str, place: usize) -> Result<&Table> {
        let later = self.before.get(name).and_then(|shapes| shapes.iter().find(|(until, _)| *until > place));
        let key = (name.to_owned(), later.map(|(until, _)| *until));
        if !self.known.contains_key(&key) {
            let table = match later {
                None => Table::load(self.connection, name).map_err(Error::other)?,
                Some((_, sql)) => {
                    let made = Connection::open_in_memory().map_err(Error::other)?;
                    functions::declare(&made).map_err(Error::other)?;
                    made.execute_batch(sql).map_err(Error::other)?;
                    Table::load(&made, name).map_err(Error::other)?
                }
            };
            self.known.insert(key.clone(), table.ok_or_else(|| unknown(name))?);
        }
        self.known.get(&key).ok_or_else(|| unknown(name))
    }

    fn of_row(
        &mut self,
        name: &str,
        place: usize,
        rowid: Option<i64>,
        values: &[Value<'_>],
    ) -> Result<&Table> {
        let table = self.at(name, place)?;
        let fits = table.has_rowid() == rowid.is_some() && table.columns.len() == values.len();
        if fits { Ok(table) } else { Err(unknown(name)) }
    }

    fn statement(&mut self, change: &Change<'_>, place: usize) -> Result<String> {
        Ok(match change {
            Change::Insert { table: name, rowid, values } => {
                let table = self.of_row(name, place, *rowid, values)?;
                let mut columns: Vec<String> =
                    table.columns.iter().map(|column| quoted(&column.name)).collect();
                let mut values: Vec<String> = values.iter().map(literal).collect();
                if let (None, Some(name), Some(rowid)) = (table.integer_key, &table.rowid_name, rowid) {
                    columns.insert(0, quoted(name));
                    values.insert(0, rowid.to_string());
                }
                let (columns, values) = (columns.join(", "), values.join(", "));
                format!("INSERT INTO {} ({columns}) VALUES ({values});", quoted(name))
            }
            Change::Delete { table: name, rowid, values } => {
                let table = self.of_row(name, place, *rowid, values)?;
                let mut terms = match rowid {
                    Some(rowid) => vec![rowid_is(table, *rowid)?],
                    None => Vec::new(),
                };
                for (column, value) in table.columns.iter().zip(values) {
                    terms.push(is_still(&column.name, value));
                }
                format!("DELETE FROM {} WHERE {};", quoted(name), conjunction(&terms))
            }
            Change::Update { table: name, key, columns } => {
                let table = self.at(name, place)?;
                update(table, key, columns)?
            }
            Change::Sequence { table, value, .. } => {
                let name = literal(&Value::Text(table.as_bytes()));
                let gone = format!("DELETE FROM sqlite_sequence WHERE name = {name};");
                match value {
                    None => gone,
                    Some(value) => {
                        format!("{gone}\nINSERT INTO sqlite_sequence (name, seq) VALUES ({name}, {value});")
                    }
                }
            }
            Change::Statement { sql } => {
                // It may end with a comment.
                let sql = sql.trim_end().trim_end_matches(';');
                if sql.contains("--") { format!("{sql}\n;") } else { format!("{sql};") }
            }
            Change::Commit | Change::Was { .. } => String::new(),
        })
    }
}

fn update(table: &Table, key: &RowKey<'_>, columns: &[ColumnChange<'_>]) -> Result<String> {
    let unknown = || unknown(&table.name);
    let mut set = Vec::new();
    let mut terms = match key {
        RowKey::Rowid { old, new } => {
            if let (None, Some(name), true) = (table.integer_key, &table.rowid_name, old != new) {
                set.push(format!("{} = {new}", quoted(name)));
            }
            vec![rowid_is(table, *old)?]
        }
        RowKey::Primary(values) if values.len() == table.key.len() => {
            let name = |key: usize| table.columns.get(key).map(|column| column.name.as_str());
            let term = |(key, value)| Some(is_still(name(key)?, value));
            let keys = table.key.iter().map(|key| key.column);
            keys.zip(values).map(term).collect::<Option<Vec<_>>>().ok_or_else(unknown)?
        }
        RowKey::Primary(_) => return Err(unknown()),
    };
    for change in columns {
        let column = table.columns.get(usize::from(change.column)).ok_or_else(unknown)?;
        set.push(format!("{} = {}", quoted(&column.name), literal(&change.new)));
        terms.push(is_still(&column.name, &change.old));
    }
    Ok(format!("UPDATE {} SET {} WHERE {};", quoted(&table.name), set.join(", "), conjunction(&terms)))
}

fn rowid_is(table: &Table, rowid: i64) -> Result<String> {
    let name = table.rowid_name.as_deref().ok_or_else(|| unknown(&table.name))?;
    Ok(format!("{} = {rowid}", quoted(name)))
}

/// To the bit, whatever the column's collation.
fn is_still(column: &str, value: &Value<'_>) -> String {
    format!("{} COLLATE BINARY IS {}", quoted(column), literal(value))
}

fn unknown(table: &str) -> Error {
    Error::other(format!("which columns table {table} had when the change was made is not known"))
}

/// Exact.
fn literal(value: &Value<'_>) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(value) => value.to_string(),
        // SQLite keeps no NaN; an overflow reads as infinity.
        Value::Real(value) if value.is_infinite() => if *value > 0.0 { "9e999" } else { "-9e999" }.into(),
        Value::Real(value) => format!("{value:?}"),
        Value::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => format!("'{}'", text.replace('\'', "''")),
            _ => format!("CAST(x'{}' AS TEXT)", hexadecimal(bytes)),
        },
        Value::Blob(bytes) => format!("x'{}'", hexadecimal(bytes)),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_the_value_to_the_bit() {
        let connection = Connection::open_in_memory().unwrap();
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed ^ seed >> 31
        };
        let reals = [0.0, -0.0, 0.1, 1e300, 5e-324, f64::MAX, f64::INFINITY, f64::NEG_INFINITY];
        let random_reals = (0..20_000).map(|_| f64::from_bits(random())).filter(|real| !real.is_nan());
        let mut values: Vec<Value<'_>> = reals.into_iter().chain(random_reals).map(Value::Real).collect();
        values.extend([i64::MIN, -1, 0, i64::MAX].map(Value::Integer));
        values.extend([&b"it's"[..], b"", b"a\0b", b"\xff", "two\nlines \u{e4}".as_bytes()].map(Value::Text));
        values.extend([&b""[..], b"\0\xff"].map(Value::Blob));
        values.push(Value::Null);
        for value in values {
            let text = format!("SELECT {} IS ?1, typeof({}) = typeof(?1)", literal(&value), literal(&value));
            let same: (bool, bool) =
                connection.query_row(&text, [&value], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert_eq!(same, (true, true), "{value:?}: {text}");
        }
    }
}
