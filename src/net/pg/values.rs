//! Values on the wire: rows straight from SQLite into the output, parameters from the client.

use std::io::Write;

use rusqlite::types::{Value, ValueRef};

use super::codec::Formats;
use super::numeric;
use crate::error::ServerError;
use crate::sql::calendar;
use crate::sql::describe::Column;
use crate::sql::types;
use crate::storage::{limits, memory};

/// Appends a DataRow of SQLite's current row.
pub fn append_row(
    out: &mut Vec<u8>,
    row: &rusqlite::Row<'_>,
    columns: &[Column],
    formats: &Formats,
) -> Result<(), ServerError> {
    let start = super::codec::begin(out, b'D');
    out.extend_from_slice(&(columns.len() as i16).to_be_bytes());
    let _fetching = memory::fetching();
    for (index, column) in columns.iter().enumerate() {
        let value = row.get_ref(index).map_err(|error| crate::sql::errors::from_sqlite(&error));
        let appended = value.and_then(|value| append_value(out, value, column, formats.is_binary(index)));
        if let Err(error) = appended.and_then(|()| check_row(out.len() - start)) {
            // Half a message would make the client misread all that follows.
            out.truncate(start);
            return Err(error);
        }
    }
    super::codec::finish(out, start);
    Ok(())
}

/// Refuses a row of a result that is too long, while it is being made.
pub fn check_row(bytes: usize) -> Result<(), ServerError> {
    if bytes <= limits::message_bytes() {
        return Ok(());
    }
    let text = format!(
        "a row of a result may have {} MB; ask for fewer or shorter columns at once, or raise General.MaxStatementMemory",
        limits::message_bytes() >> 20
    );
    Err(ServerError::sql("54000", text))
}

/// Appends one value with its length.
pub fn append_value(
    out: &mut Vec<u8>,
    value: ValueRef<'_>,
    column: &Column,
    binary: bool,
) -> Result<(), ServerError> {
    if matches!(value, ValueRef::Null) {
        out.extend_from_slice(&(-1i32).to_be_bytes());
        return Ok(());
    }
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    if binary {
        append_binary(out, value, column)?;
    } else {
        append_text(out, value, column.oid);
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn append_text(out: &mut Vec<u8>, value: ValueRef<'_>, oid: u32) {
    match value {
        ValueRef::Null => {}
        ValueRef::Integer(number) if oid == types::BOOL => out.push(if number == 0 { b'f' } else { b't' }),
        ValueRef::Integer(number) => append_i64(out, number),
        ValueRef::Real(number) => append_f64(out, number),
        ValueRef::Text(text) => {
            make_room(out, text.len());
            out.extend_from_slice(text);
        }
        ValueRef::Blob(bytes) => append_hex(out, bytes),
    }
}

/// For a large value exactly what it takes: doubling would cost as much again.
fn make_room(out: &mut Vec<u8>, bytes: usize) {
    const LARGE_BYTES: usize = 1 << 20;
    if bytes > LARGE_BYTES { out.reserve_exact(bytes + LARGE_BYTES) } else { out.reserve(bytes) }
}

fn append_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    make_room(out, bytes.len() * 2 + 2);
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn append_binary(out: &mut Vec<u8>, value: ValueRef<'_>, column: &Column) -> Result<(), ServerError> {
    let wrong = || {
        ServerError::sql(
            "22P02",
            format!(
                "column \"{}\" holds a value that is not of its type; use CAST in the query",
                column.name
            ),
        )
    };
    match column.oid {
        types::INT8 => out.extend_from_slice(&whole(value).ok_or_else(wrong)?.to_be_bytes()),
        types::INT4 => {
            let number = whole(value).and_then(|number| i32::try_from(number).ok()).ok_or_else(wrong)?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        types::INT2 => {
            let number = whole(value).and_then(|number| i16::try_from(number).ok()).ok_or_else(wrong)?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        types::FLOAT8 => out.extend_from_slice(&real(value).ok_or_else(wrong)?.to_be_bytes()),
        types::BOOL => {
            let truth = match value {
                ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(types::truth),
                other => whole(other).map(|number| number != 0),
            };
            out.push(u8::from(truth.ok_or_else(wrong)?));
        }
        types::BYTEA => match value {
            ValueRef::Blob(bytes) | ValueRef::Text(bytes) => out.extend_from_slice(bytes),
            other => append_text(out, other, types::TEXT),
        },
        types::NUMERIC => {
            let mut digits = Vec::with_capacity(24);
            match value {
                ValueRef::Real(number) => drop(write!(digits, "{number}")),
                other => append_text(&mut digits, other, types::TEXT),
            }
            let text = std::str::from_utf8(&digits).map_err(|_| wrong())?;
            numeric::append_binary(out, text).ok_or_else(wrong)?;
        }
        _ => append_text(out, value, types::TEXT),
    }
    Ok(())
}

fn whole(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(number) => Some(number),
        ValueRef::Real(number) if number.fract() == 0.0 && number.abs() < 9e18 => Some(number as i64),
        ValueRef::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        _ => None,
    }
}

fn real(value: ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::Integer(number) => Some(number as f64),
        ValueRef::Real(number) => Some(number),
        ValueRef::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        _ => None,
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

/// Appends a floating point number as PostgreSQL writes it: shortest digits that read back to the same number.
pub fn append_f64(out: &mut Vec<u8>, number: f64) {
    let size = number.abs();
    if number.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if number.is_infinite() {
        out.extend_from_slice(if number > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else if size != 0.0 && !(1e-4..1e15).contains(&size) {
        let start = out.len();
        let _ = write!(out, "{number:e}");
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
        let _ = write!(out, "{number}");
    }
}

/// A parameter of this type as SQLite shall bind it; type 0, which is text: the client named none, and nothing beside it is
/// surely of another type.
pub fn decode_parameter(oid: u32, binary: bool, bytes: Option<&[u8]>) -> Result<Value, ServerError> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    if binary {
        return decode_binary(oid, bytes);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ServerError::sql("22021", "a parameter is not valid UTF-8"))?;
    let invalid =
        |kind: &str| ServerError::sql("22P02", format!("invalid input for type {kind}: \"{text}\""));
    Ok(match oid {
        types::INT8 | types::INT4 | types::INT2 | types::OID => match text.trim().parse::<i64>() {
            Ok(number) => Value::Integer(number),
            // A column of SQLite's INTEGER kind may hold other values, too.
            Err(_) => match text.trim().parse::<f64>() {
                Ok(number) => Value::Real(number),
                Err(_) => return Err(invalid("integer")),
            },
        },
        types::FLOAT8 | types::FLOAT4 => {
            Value::Real(text.trim().parse().map_err(|_| invalid("double precision"))?)
        }
        types::BOOL => Value::Integer(i64::from(types::truth(text).ok_or_else(|| invalid("boolean"))?)),
        types::BYTEA => Value::Blob(bytea(text).ok_or_else(|| invalid("bytea"))?),
        types::NUMERIC => decimal(text.trim()),
        _ => Value::Text(text.to_string()),
    })
}

/// A number if the text is exactly what the number is written as, otherwise the text.
fn decimal(text: &str) -> Value {
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if text.is_empty() || !numeric {
        return Value::Text(text.to_string());
    }
    let mut written = Vec::with_capacity(24);
    if let Ok(number) = text.parse::<i64>() {
        append_i64(&mut written, number);
        if written == text.as_bytes() {
            return Value::Integer(number);
        }
    } else if let Ok(number) = text.parse::<f64>() {
        append_f64(&mut written, number);
        if written == text.as_bytes() {
            return Value::Real(number);
        }
    }
    Value::Text(text.to_string())
}

/// A numeric that is compared or calculated with: a number, however many zeros it was written with.
pub fn number(value: Value) -> Result<Value, ServerError> {
    let Value::Text(text) = value else { return Ok(value) };
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Value::Integer(number));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Value::Real(number)),
        // Not a number, or without end: SQLite has neither.
        Ok(_) => Ok(Value::Text(text)),
        Err(_) => Err(ServerError::sql("22P02", format!("invalid input for type numeric: \"{text}\""))),
    }
}

fn bytea(text: &str) -> Option<Vec<u8>> {
    let Some(hex) = text.strip_prefix("\\x") else { return Some(escaped_bytea(text)) };
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    if hex.len() % 2 != 0 {
        return None;
    }
    hex.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn escaped_bytea(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                if bytes[at] == b'\\' && bytes.get(at + 1) == Some(&b'\\') {
                    at += 1;
                }
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

fn decode_binary(oid: u32, bytes: &[u8]) -> Result<Value, ServerError> {
    let wrong =
        || ServerError::sql("22P03", format!("a binary parameter of type {oid} has {} bytes", bytes.len()));
    let i64_of = || bytes.try_into().map(i64::from_be_bytes).map_err(|_| wrong());
    let i32_of = || bytes.try_into().map(i32::from_be_bytes).map_err(|_| wrong());
    Ok(match oid {
        types::INT8 => Value::Integer(i64_of()?),
        types::INT4 => Value::Integer(i64::from(i32_of()?)),
        types::OID => Value::Integer(i64::from(i32_of()?.cast_unsigned())),
        types::INT2 => {
            Value::Integer(i64::from(bytes.try_into().map(i16::from_be_bytes).map_err(|_| wrong())?))
        }
        types::BOOL if bytes.len() == 1 => Value::Integer(i64::from(bytes[0] != 0)),
        types::BOOL => return Err(wrong()),
        types::FLOAT8 => Value::Real(bytes.try_into().map(f64::from_be_bytes).map_err(|_| wrong())?),
        types::FLOAT4 => {
            Value::Real(f64::from(bytes.try_into().map(f32::from_be_bytes).map_err(|_| wrong())?))
        }
        types::BYTEA => Value::Blob(bytes.to_vec()),
        types::NUMERIC => decimal(&numeric::from_binary(bytes).ok_or_else(wrong)?),
        types::DATE => Value::Text(calendar::date_text(i64::from(i32_of()?) + calendar::DAYS_TO_2000)),
        types::TIMESTAMP | types::TIMESTAMPTZ => {
            let microseconds = i64_of()?.checked_add(calendar::MICROSECONDS_TO_2000).ok_or_else(wrong)?;
            Value::Text(calendar::timestamp_text(microseconds))
        }
        types::TIME => Value::Text(calendar::time_text(i64_of()?)),
        types::UUID => Value::Text(uuid_text(bytes).ok_or_else(wrong)?),
        types::JSONB => Value::Text(utf8(bytes.get(1..).ok_or_else(wrong)?)?.to_string()),
        0 | types::UNKNOWN | types::TEXT | types::VARCHAR | types::BPCHAR | types::JSON => {
            Value::Text(utf8(bytes)?.to_string())
        }
        _ => {
            return Err(ServerError::sql(
                "0A000",
                format!("binary parameters of type {oid} are not supported; send it as text"),
            ));
        }
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, ServerError> {
    std::str::from_utf8(bytes).map_err(|_| ServerError::sql("22021", "a parameter is not valid UTF-8"))
}

fn uuid_text(bytes: &[u8]) -> Option<String> {
    let mut hex = Vec::with_capacity(38);
    append_hex(&mut hex, bytes);
    let text = String::from_utf8(hex).ok()?;
    let part = |from: usize, to: usize| text.get(from + 2..to + 2);
    (bytes.len() == 16).then_some(())?;
    Some(format!("{}-{}-{}-{}-{}", part(0, 8)?, part(8, 12)?, part(12, 16)?, part(16, 20)?, part(20, 32)?))
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn only_canonical_numbers_become_numbers() {
        assert_eq!(decimal("12"), Value::Integer(12));
        assert_eq!(decimal("1.5"), Value::Real(1.5));
        for text in ["012", "+1", "1.50", "", "-", "1e5", "abc", "99999999999999999999"] {
            assert_eq!(decimal(text), Value::Text(text.into()));
        }
    }

    #[test]
    fn bytea_in_both_notations() {
        assert_eq!(bytea("\\x00fF"), Some(vec![0, 255]));
        assert_eq!(bytea("a\\000\\\\b"), Some(b"a\0\\b".to_vec()));
        assert_eq!(bytea("\\x0"), None);
    }
}
