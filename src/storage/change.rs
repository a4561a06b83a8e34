//! The changes of a batch, in execution order: what capture writes and apply reads.
//!
//! The bytes are the product's encoding (see `codec`) of [`Change`] after [`Change`]. Capture writes them with the
//! `put_…` functions, straight from the database's memory; a test keeps both in step. A transaction ends with
//! [`Change::Commit`]. Values stand for stored columns only, in order; generated columns are computed anew.
//! Text is bytes: SQLite does not promise that it is UTF-8.

use serde::{Deserialize, Serialize};

use crate::codec::{self, FrameError};

/// A value with its storage class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// BLOB.
    Blob(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
}

impl Value<'_> {
    /// Equal to the bit and in storage class; unlike `==`, 0.0 is not -0.0.
    pub fn is_same(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Real(one), Value::Real(two)) => one.to_bits() == two.to_bits(),
            (one, two) => one == two,
        }
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::ValueRef;
        Ok(rusqlite::types::ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(value) => ValueRef::Integer(*value),
            Value::Real(value) => ValueRef::Real(*value),
            Value::Text(value) => ValueRef::Text(value),
            Value::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

/// What tells an updated row apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RowKey<'a> {
    /// A rowid table.
    Rowid {
        /// Before the update.
        old: i64,
        /// After it.
        new: i64,
    },
    /// A WITHOUT ROWID table: the primary key before the update.
    Primary(#[serde(borrow)] Vec<Value<'a>>),
}

/// One changed column of an update.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnChange<'a> {
    /// Position among the table's stored columns.
    pub column: u16,
    /// Before.
    #[serde(borrow)]
    pub old: Value<'a>,
    /// After.
    #[serde(borrow)]
    pub new: Value<'a>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change<'a> {
    /// A row was added.
    Insert {
        /// Its table.
        table: &'a str,
        /// None for a WITHOUT ROWID table, whose key is among the values.
        rowid: Option<i64>,
        /// All stored columns.
        #[serde(borrow)]
        values: Vec<Value<'a>>,
    },
    /// A row was changed; one that was written but stays the same is not mentioned.
    Update {
        /// Its table.
        table: &'a str,
        /// Which row.
        #[serde(borrow)]
        key: RowKey<'a>,
        /// The columns that differ.
        #[serde(borrow)]
        columns: Vec<ColumnChange<'a>>,
    },
    /// A row was removed.
    Delete {
        /// Its table.
        table: &'a str,
        /// None for a WITHOUT ROWID table.
        rowid: Option<i64>,
        /// All stored columns before.
        #[serde(borrow)]
        values: Vec<Value<'a>>,
    },
    /// The schema was changed by this statement.
    Statement {
        /// SQL text.
        sql: &'a str,
    },
    /// The counter of an AUTOINCREMENT table now stands here; none: it is not there.
    Sequence {
        /// The counter's table.
        table: &'a str,
        /// Its value before the transaction.
        before: Option<i64>,
        /// Its last value.
        value: Option<i64>,
    },
    /// The end of a transaction.
    Commit,
    /// A table as it was before the statement that follows changes or removes it: what was done to its rows until then
    /// can be told in SQL afterwards.
    Was {
        /// Its name.
        table: &'a str,
        /// Its CREATE TABLE.
        sql: &'a str,
    },
}

/// The changes in encoded bytes, one after the other.
pub fn changes(bytes: &[u8]) -> impl Iterator<Item = Result<Change<'_>, FrameError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match codec::borrow_value::<Change<'_>>(rest) {
            Ok((change, used)) => {
                rest = &rest[used..];
                Some(Ok(change))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        }
    })
}

pub(super) const TAG_INSERT: u32 = 0;
pub(super) const TAG_UPDATE: u32 = 1;
pub(super) const TAG_DELETE: u32 = 2;

/// Begins a change of a row.
pub(super) fn put_head(buffer: &mut Vec<u8>, tag: u32, table: &str) {
    buffer.extend_from_slice(&tag.to_le_bytes());
    put_bytes(buffer, table.as_bytes());
}

pub(super) fn put_optional_rowid(buffer: &mut Vec<u8>, rowid: Option<i64>) {
    match rowid {
        None => buffer.push(0),
        Some(rowid) => {
            buffer.push(1);
            buffer.extend_from_slice(&rowid.to_le_bytes());
        }
    }
}

pub(super) fn put_rowid_key(buffer: &mut Vec<u8>, old: i64, new: i64) {
    buffer.extend_from_slice(&0_u32.to_le_bytes());
    buffer.extend_from_slice(&old.to_le_bytes());
    buffer.extend_from_slice(&new.to_le_bytes());
}

/// Begins a key of values; so many follow.
pub(super) fn put_primary_key(buffer: &mut Vec<u8>, count: usize) {
    buffer.extend_from_slice(&1_u32.to_le_bytes());
    put_count(buffer, count);
}

pub(super) fn put_count(buffer: &mut Vec<u8>, count: usize) {
    buffer.extend_from_slice(&(count as u64).to_le_bytes());
}

pub(super) fn put_value(buffer: &mut Vec<u8>, value: Value<'_>) {
    let mut put = |tag: u32, bytes: &[u8]| {
        buffer.extend_from_slice(&tag.to_le_bytes());
        buffer.extend_from_slice(bytes);
    };
    match value {
        Value::Null => put(0, &[]),
        Value::Integer(value) => put(1, &value.to_le_bytes()),
        Value::Real(value) => put(2, &value.to_le_bytes()),
        Value::Text(value) => {
            put(3, &[]);
            put_bytes(buffer, value);
        }
        Value::Blob(value) => {
            put(4, &[]);
            put_bytes(buffer, value);
        }
    }
}

fn put_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    put_count(buffer, bytes.len());
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_written_encoding_is_the_codec_s() {
        let values = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(-0.0),
            Value::Text(b"a\0\xff"),
            Value::Blob(b""),
        ];
        let mut by_hand = Vec::new();
        let mut by_codec = Vec::new();
        for (tag, rowid) in [(TAG_INSERT, Some(-3)), (TAG_INSERT, None), (TAG_DELETE, Some(9))] {
            put_head(&mut by_hand, tag, "tä");
            put_optional_rowid(&mut by_hand, rowid);
            put_count(&mut by_hand, values.len());
            values.iter().for_each(|value| put_value(&mut by_hand, *value));
            let (table, values) = ("tä", values.to_vec());
            let change = if tag == TAG_INSERT {
                Change::Insert { table, rowid, values }
            } else {
                Change::Delete { table, rowid, values }
            };
            codec::append_value(&mut by_codec, &change).unwrap();
        }
        for primary in [false, true] {
            put_head(&mut by_hand, TAG_UPDATE, "t");
            let key = if primary {
                put_primary_key(&mut by_hand, 1);
                put_value(&mut by_hand, values[1]);
                RowKey::Primary(vec![values[1]])
            } else {
                put_rowid_key(&mut by_hand, 1, 2);
                RowKey::Rowid { old: 1, new: 2 }
            };
            put_count(&mut by_hand, 1);
            by_hand.extend_from_slice(&7_u16.to_le_bytes());
            put_value(&mut by_hand, values[3]);
            put_value(&mut by_hand, values[4]);
            let columns = vec![ColumnChange { column: 7, old: values[3], new: values[4] }];
            codec::append_value(&mut by_codec, &Change::Update { table: "t", key, columns }).unwrap();
        }
        assert_eq!(by_hand, by_codec);
        let decoded: Vec<_> = changes(&by_hand).map(Result::unwrap).collect();
        assert_eq!(decoded.len(), 5);
        assert!(changes(&by_hand[..by_hand.len() - 1]).last().unwrap().is_err());
    }
}
