//! Whole numbers. SQLite holds 64 bits of each.

use rusqlite::types::{Value, ValueRef};

use super::text::plain;
use super::{Cast, Category, Misfit, PgType, Storage, oid};

pub static INT8: PgType = PgType {
    oid: oid::INT8,
    array_oid: 1016,
    names: &["bigint", "int8"],
    size: 8,
    storage: Storage::Integer,
    category: Category::Whole,
    computed: oid::INT8,
    cast: Cast::As("int8", oid::INT8),
    text_out: plain,
    binary_out: |out, value| {
        out.extend_from_slice(&whole(value)?.to_be_bytes());
        Ok(())
    },
    text_in: parse,
    binary_in: |bytes| exactly(bytes).map(|bytes| Value::Integer(i64::from_be_bytes(bytes))),
};

pub static INT4: PgType = PgType {
    oid: oid::INT4,
    array_oid: 1007,
    names: &["integer", "int", "int4", "serial", "serial4"],
    size: 4,
    cast: Cast::As("int4", oid::INT4),
    text_out: |out, value| {
        append_i64(out, short::<i32>(whole(value)?)?.into());
        Ok(())
    },
    binary_out: |out, value| {
        out.extend_from_slice(&short::<i32>(whole(value)?)?.to_be_bytes());
        Ok(())
    },
    text_in: |text| Ok(Value::Integer(short::<i32>(digits(text)?)?.into())),
    binary_in: |bytes| exactly(bytes).map(|bytes| Value::Integer(i32::from_be_bytes(bytes).into())),
    ..INT8
};

pub static INT2: PgType = PgType {
    oid: oid::INT2,
    array_oid: 1005,
    names: &["smallint", "int2", "smallserial", "serial2"],
    size: 2,
    cast: Cast::As("int2", oid::INT2),
    text_out: |out, value| {
        append_i64(out, short::<i16>(whole(value)?)?.into());
        Ok(())
    },
    binary_out: |out, value| {
        out.extend_from_slice(&short::<i16>(whole(value)?)?.to_be_bytes());
        Ok(())
    },
    text_in: |text| Ok(Value::Integer(short::<i16>(digits(text)?)?.into())),
    binary_in: |bytes| exactly(bytes).map(|bytes| Value::Integer(i16::from_be_bytes(bytes).into())),
    ..INT8
};

/// What clients send as parameters; no column is announced so.
pub static OID: PgType = PgType {
    oid: oid::OID,
    array_oid: 1028,
    names: &[],
    size: 4,
    category: Category::Other,
    cast: Cast::Dropped,
    binary_out: |out, value| {
        out.extend_from_slice(&short::<u32>(whole(value)?)?.to_be_bytes());
        Ok(())
    },
    binary_in: |bytes| exactly(bytes).map(|bytes| Value::Integer(u32::from_be_bytes(bytes).into())),
    ..INT8
};

/// The bytes of a value whose length is fixed.
pub fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Misfit> {
    bytes.try_into().map_err(|_| Misfit::Invalid)
}

/// A value that is a whole number.
pub fn whole(value: ValueRef<'_>) -> Result<i64, Misfit> {
    let number = match value {
        ValueRef::Integer(number) => Some(number),
        ValueRef::Real(number) => (number.fract() == 0.0 && number.abs() < 9e18).then_some(number as i64),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()),
        ValueRef::Null | ValueRef::Blob(_) => None,
    };
    number.ok_or(Misfit::Invalid)
}

/// A number that fits.
fn short<N: TryFrom<i64>>(number: i64) -> Result<N, Misfit> {
    N::try_from(number).map_err(|_| Misfit::OutOfRange)
}

/// The whole number that a text is.
fn digits(text: &str) -> Result<i64, Misfit> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.trim().parse::<i64>().map_err(|error| match error.kind() {
        PosOverflow | NegOverflow => Misfit::OutOfRange,
        _ => Misfit::Invalid,
    })
}

fn parse(text: &str) -> Result<Value, Misfit> {
    let text = text.trim();
    match text.parse() {
        Ok(number) => Ok(Value::Integer(number)),
        // A column of SQLite's INTEGER kind may hold other values, too.
        Err(_) => text.parse().map(Value::Real).map_err(|_| Misfit::Invalid),
    }
}

/// Appends a whole number in decimal digits.
pub fn append_i64(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}
