//! json and jsonb: the text as it was written, if it is JSON.

use rusqlite::types::{Value, ValueRef};
use serde::de::IgnoredAny;

use super::text::{as_it_is, plain, text_of};
use super::{Cast, Category, Misfit, PgType, Storage, oid};

/// What stands before the text of a jsonb in binary.
const VERSION: u8 = 1;

pub static JSON: PgType = PgType {
    oid: oid::JSON,
    array_oid: 199,
    names: &["json"],
    size: -1,
    storage: Storage::Text,
    category: Category::Other,
    computed: oid::TEXT,
    cast: Cast::Dropped,
    text_out,
    binary_out: text_out,
    text_in: parse,
    binary_in: |bytes| std::str::from_utf8(bytes).map_err(|_| Misfit::NotUtf8).and_then(parse),
};

pub static JSONB: PgType = PgType {
    oid: oid::JSONB,
    array_oid: 3807,
    names: &["jsonb"],
    binary_out: |out, value| {
        out.push(VERSION);
        text_out(out, value)
    },
    binary_in: |bytes| match bytes {
        [VERSION, text @ ..] => (JSON.binary_in)(text),
        _ => Err(Misfit::Invalid),
    },
    ..JSON
};

fn check(text: &str) -> Result<(), Misfit> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        // Deeper than is looked into here; PostgreSQL takes it.
        Err(error) if error.to_string().starts_with("recursion limit") => Ok(()),
        Err(_) => Err(Misfit::Invalid),
    }
}

fn parse(text: &str) -> Result<Value, Misfit> {
    check(text).and_then(|()| as_it_is(text))
}

fn text_out(out: &mut Vec<u8>, value: ValueRef<'_>) -> Result<(), Misfit> {
    match value {
        // A table of an old version has made a number of it.
        ValueRef::Integer(_) | ValueRef::Real(_) => {}
        ValueRef::Null | ValueRef::Text(_) | ValueRef::Blob(_) => check(text_of(value)?)?,
    }
    plain(out, value)
}
