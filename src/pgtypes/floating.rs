//! Floating point numbers.

use std::fmt::{Display, LowerExp};
use std::io::Write;

use rusqlite::types::{Value, ValueRef};

use super::text::plain;
use super::whole::exactly;
use super::{Cast, Category, Misfit, PgType, Storage, oid};

pub static FLOAT8: PgType = PgType {
    oid: oid::FLOAT8,
    array_oid: 1022,
    names: &["real", "double precision", "double", "float8", "float"],
    size: 8,
    storage: Storage::Real,
    category: Category::Floating,
    computed: oid::FLOAT8,
    cast: Cast::As("float8", oid::FLOAT8),
    text_out: plain,
    binary_out: |out, value| {
        out.extend_from_slice(&real(value)?.to_be_bytes());
        Ok(())
    },
    text_in: |text| text.trim().parse().map(Value::Real).map_err(|_| Misfit::Invalid),
    binary_in: |bytes| exactly(bytes).map(|bytes| Value::Real(f64::from_be_bytes(bytes))),
};

/// SQLite calculates with 64 bits, so a cast gives float8. REAL is SQLite's own word for a number of 64 bits, which it also writes
/// into tables that are made from queries: as a float4 it would lose digits without a word.
pub static FLOAT4: PgType = PgType {
    oid: oid::FLOAT4,
    array_oid: 1021,
    names: &["float4"],
    size: 4,
    text_out: |out, value| {
        let number = single(real(value)?)?;
        append_shortest(out, number, number.into(), 1e6);
        Ok(())
    },
    binary_out: |out, value| {
        out.extend_from_slice(&single(real(value)?)?.to_be_bytes());
        Ok(())
    },
    text_in: |text| {
        let number = text.trim().parse().map_err(|_| Misfit::Invalid)?;
        single(number).map(|_| Value::Real(number))
    },
    // The number that is written so, as in a statement: 1.1 and not 1.10000002384185791.
    binary_in: |bytes| {
        let number = f32::from_be_bytes(exactly(bytes)?);
        Ok(Value::Real(number.to_string().parse().unwrap_or(number.into())))
    },
    ..FLOAT8
};

/// A value that is a number.
fn real(value: ValueRef<'_>) -> Result<f64, Misfit> {
    let number = match value {
        ValueRef::Integer(number) => Some(number as f64),
        ValueRef::Real(number) => Some(number),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()),
        ValueRef::Null | ValueRef::Blob(_) => None,
    };
    number.ok_or(Misfit::Invalid)
}

/// A number of 32 bits; one that is too large is none.
fn single(number: f64) -> Result<f32, Misfit> {
    let single = number as f32;
    if single.is_infinite() && number.is_finite() { Err(Misfit::OutOfRange) } else { Ok(single) }
}

/// Appends a floating point number as PostgreSQL writes it: shortest digits that read back to the same number.
pub fn append_f64(out: &mut Vec<u8>, number: f64) {
    append_shortest(out, number, number, 1e15);
}

/// `number`: the same, for its size; from `exponent_from` on it is written with an exponent.
fn append_shortest(out: &mut Vec<u8>, digits: impl Display + LowerExp, number: f64, exponent_from: f64) {
    let size = number.abs();
    if number.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if number.is_infinite() {
        out.extend_from_slice(if number > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else if size != 0.0 && !(1e-4..exponent_from).contains(&size) {
        let start = out.len();
        let _ = write!(out, "{digits:e}");
        // PostgreSQL writes the exponent with its sign and at least two digits.
        if let Some(at) = out[start..].iter().position(|byte| *byte == b'e').map(|at| start + at + 1) {
            if out[at] != b'-' {
                out.insert(at, b'+');
            }
            if out.len() - at == 2 {
                out.insert(at + 1, b'0');
            }
        }
    } else {
        let _ = write!(out, "{digits}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::append_i64;
    use super::*;

    fn float(number: f64) -> String {
        let mut out = Vec::new();
        append_f64(&mut out, number);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_postgresql_does() {
        assert_eq!(float(1.5), "1.5");
        assert_eq!(float(1e300), "1e+300");
        assert_eq!(float(1e-7), "1e-07");
        assert_eq!(float(-0.001), "-0.001");
        let mut out = Vec::new();
        append_i64(&mut out, i64::MIN);
        assert_eq!(out, i64::MIN.to_string().into_bytes());
    }
}
