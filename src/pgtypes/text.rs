//! Texts, and what is sent as text for want of a better type.

use rusqlite::types::{Value, ValueRef};

use super::bytes::append_hex;
use super::floating::append_f64;
use super::whole::append_i64;
use super::{Cast, Category, Misfit, PgType, Storage, oid};

pub static TEXT: PgType = PgType {
    oid: oid::TEXT,
    array_oid: 1009,
    // Behind `text` those of PostgreSQL's types whose values are kept as they were written, and announced as text.
    names: &[
        "text",
        "citext",
        "name",
        "string",
        "bit",
        "bit varying",
        "cidr",
        "hstore",
        "inet",
        "jsonpath",
        "ltree",
        "macaddr",
        "macaddr8",
        "time with time zone",
        "timetz",
        "varbit",
        "xml",
    ],
    size: -1,
    storage: Storage::Text,
    category: Category::Text,
    computed: oid::TEXT,
    cast: Cast::As("text", oid::TEXT),
    text_out: plain,
    binary_out: plain,
    text_in: as_it_is,
    binary_in: utf8,
};

pub static VARCHAR: PgType = PgType {
    oid: oid::VARCHAR,
    array_oid: 1015,
    names: &["character varying", "varchar"],
    computed: oid::VARCHAR,
    cast: Cast::As("text", oid::VARCHAR),
    ..TEXT
};

pub static BPCHAR: PgType = PgType {
    oid: oid::BPCHAR,
    array_oid: 1014,
    names: &["character", "char", "bpchar"],
    cast: Cast::As("text", oid::BPCHAR),
    ..TEXT
};

/// A literal, or a parameter whose type the client leaves open.
pub static UNKNOWN: PgType =
    PgType { oid: oid::UNKNOWN, array_oid: 0, names: &[], cast: Cast::Dropped, ..TEXT };

/// A type that is not in the table: its texts are taken as they are.
pub static UNLISTED: PgType = PgType { oid: 0, binary_in: |_| Err(Misfit::UnknownType), ..UNKNOWN };

/// A value of any kind, as SQLite's shell would show it.
pub fn plain(out: &mut Vec<u8>, value: ValueRef<'_>) -> Result<(), Misfit> {
    match value {
        ValueRef::Null => {}
        ValueRef::Integer(number) => append_i64(out, number),
        ValueRef::Real(number) => append_f64(out, number),
        ValueRef::Text(text) => {
            make_room(out, text.len());
            out.extend_from_slice(text);
        }
        ValueRef::Blob(bytes) => append_hex(out, bytes),
    }
    Ok(())
}

/// For a large value exactly what it takes: doubling would cost as much again.
pub fn make_room(out: &mut Vec<u8>, bytes: usize) {
    const LARGE_BYTES: usize = 1 << 20;
    if bytes > LARGE_BYTES { out.reserve_exact(bytes + LARGE_BYTES) } else { out.reserve(bytes) }
}

/// The text of a value that is one.
pub fn text_of(value: ValueRef<'_>) -> Result<&str, Misfit> {
    match value {
        ValueRef::Text(text) => std::str::from_utf8(text).map_err(|_| Misfit::NotUtf8),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => Err(Misfit::Invalid),
    }
}

pub fn as_it_is(text: &str) -> Result<Value, Misfit> {
    Ok(Value::Text(text.to_owned()))
}

pub fn utf8(bytes: &[u8]) -> Result<Value, Misfit> {
    std::str::from_utf8(bytes).map_err(|_| Misfit::NotUtf8).and_then(as_it_is)
}
