//! true and false, which are 1 and 0 to SQLite.

use rusqlite::types::{Value, ValueRef};

use super::text::{plain, text_of};
use super::whole::whole;
use super::{Cast, Category, Misfit, PgType, Storage, oid};

pub static BOOL: PgType = PgType {
    oid: oid::BOOL,
    array_oid: 1000,
    names: &["boolean", "bool"],
    size: 1,
    storage: Storage::Numeric,
    category: Category::Other,
    computed: oid::BOOL,
    cast: Cast::Literal(|text| truth(text).map(|truth| i32::from(truth).to_string()), oid::BOOL),
    text_out,
    binary_out,
    text_in: |text| truth(text).map(of_truth).ok_or(Misfit::Invalid),
    binary_in: |bytes| match bytes {
        [byte] => Ok(of_truth(*byte != 0)),
        _ => Err(Misfit::Invalid),
    },
};

fn of_truth(truth: bool) -> Value {
    Value::Integer(i64::from(truth))
}

/// PostgreSQL's spellings of true and false.
pub fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn text_out(out: &mut Vec<u8>, value: ValueRef<'_>) -> Result<(), Misfit> {
    match value {
        ValueRef::Integer(number) => out.push(if number == 0 { b'f' } else { b't' }),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => plain(out, value)?,
    }
    Ok(())
}

fn binary_out(out: &mut Vec<u8>, value: ValueRef<'_>) -> Result<(), Misfit> {
    let truth = match text_of(value) {
        Ok(text) => truth(text).ok_or(Misfit::Invalid)?,
        Err(_) => whole(value)? != 0,
    };
    out.push(u8::from(truth));
    Ok(())
}
