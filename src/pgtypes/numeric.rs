//! Decimal numbers, and PostgreSQL's binary form of them: groups of four decimal digits.

use std::io::Write;

use rusqlite::types::{Value, ValueRef};

use super::floating::append_f64;
use super::text::plain;
use super::whole::append_i64;
use super::{Cast, Category, Misfit, PgType, Storage, oid};
use crate::error::ServerError;

pub static NUMERIC: PgType = PgType {
    oid: oid::NUMERIC,
    array_oid: 1231,
    names: &["numeric", "decimal"],
    size: -1,
    storage: Storage::Numeric,
    category: Category::Decimal,
    computed: oid::NUMERIC,
    cast: Cast::As("numeric", oid::NUMERIC),
    text_out: plain,
    binary_out,
    text_in: |text| Ok(decimal(text.trim())),
    binary_in: |bytes| from_binary(bytes).map(|text| decimal(&text)).ok_or(Misfit::Invalid),
};

fn binary_out(out: &mut Vec<u8>, value: ValueRef<'_>) -> Result<(), Misfit> {
    let mut digits = Vec::with_capacity(24);
    match value {
        ValueRef::Real(number) => drop(write!(digits, "{number}")),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Text(_) | ValueRef::Blob(_) => {
            plain(&mut digits, value)?
        }
    }
    let text = std::str::from_utf8(&digits).map_err(|_| Misfit::Invalid)?;
    append_binary(out, text).ok_or(Misfit::Invalid)
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
pub fn as_number(value: Value) -> Result<Value, ServerError> {
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

/// Appends the binary form of a decimal number; none if the text is no number.
fn append_binary(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.eq_ignore_ascii_case("nan") {
        out.extend_from_slice(&[0, 0, 0, 0, 0xC0, 0, 0, 0]);
        return Some(());
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0
        || !all_digits(whole)
        || !all_digits(fraction)
        || fraction.len() > 16383
    {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let padding = (4 - whole.len() % 4) % 4;
    let mut padded = "0".repeat(padding) + whole;
    let whole_groups = padded.len() / 4;
    padded.push_str(fraction);
    padded.push_str(&"0".repeat((4 - fraction.len() % 4) % 4));
    let group = |chunk: &[u8]| chunk.iter().fold(0u16, |sum, byte| sum * 10 + u16::from(byte - b'0'));
    let groups: Vec<u16> = padded.as_bytes().chunks(4).map(group).collect();
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let end = groups.iter().rposition(|group| *group != 0).map_or(leading, |last| last + 1);
    let kept = groups.get(leading..end).unwrap_or(&[]);
    let weight = whole_groups as i64 - 1 - leading as i64;
    out.extend_from_slice(&u16::try_from(kept.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&i16::try_from(if kept.is_empty() { 0 } else { weight }).ok()?.to_be_bytes());
    out.extend_from_slice(&(if negative && !kept.is_empty() { 0x4000u16 } else { 0 }).to_be_bytes());
    out.extend_from_slice(&(fraction.len() as u16).to_be_bytes());
    kept.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
    Some(())
}

/// The decimal text of a binary numeric.
fn from_binary(bytes: &[u8]) -> Option<String> {
    let word = |at: usize| bytes.get(at * 2..at * 2 + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, scale) = (word(0)?, word(1)?.cast_signed(), word(2)?, usize::from(word(3)?));
    if bytes.len() != 8 + usize::from(count) * 2 {
        return None;
    }
    if sign == 0xC000 {
        return Some("NaN".into());
    }
    let digit =
        |place: i64| if place < 0 { Some(0) } else { word(4 + usize::try_from(place).ok()?).or(Some(0)) };
    let mut text = String::new();
    for place in 0..=i64::from(weight).max(0) {
        let shift = if weight < 0 { i64::from(weight) } else { 0 };
        text.push_str(&format!("{:04}", digit(place + shift)?));
    }
    let whole = text.trim_start_matches('0');
    let mut out =
        format!("{}{}", if sign == 0x4000 { "-" } else { "" }, if whole.is_empty() { "0" } else { whole });
    if scale > 0 {
        let mut fraction = String::new();
        let mut place = i64::from(weight) + 1;
        if weight < 0 {
            fraction.push_str(&"0000".repeat(usize::from((-1 - weight).unsigned_abs())));
            place = 0;
        }
        while fraction.len() < scale {
            fraction.push_str(&format!("{:04}", digit(place)?));
            place += 1;
        }
        out.push('.');
        out.push_str(fraction.get(..scale)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_numbers_become_numbers() {
        assert_eq!(decimal("12"), Value::Integer(12));
        assert_eq!(decimal("1.5"), Value::Real(1.5));
        for text in ["012", "+1", "1.50", "", "-", "1e5", "abc", "99999999999999999999"] {
            assert_eq!(decimal(text), Value::Text(text.into()));
        }
    }

    #[test]
    fn there_and_back() {
        for text in [
            "0",
            "1",
            "-1",
            "12345",
            "10000",
            "0.5",
            "0.00001",
            "123456789.0123",
            "-99999999.99",
            "100000000",
        ] {
            let mut bytes = Vec::new();
            append_binary(&mut bytes, text).unwrap();
            assert_eq!(from_binary(&bytes).as_deref(), Some(text));
        }
        assert_eq!(append_binary(&mut Vec::new(), "1x"), None);
    }
}
