//! bytea.

use rusqlite::types::{Value, ValueRef};

use super::text::{make_room, plain};
use super::{Cast, Category, Misfit, PgType, Storage, oid};

pub static BYTEA: PgType = PgType {
    oid: oid::BYTEA,
    array_oid: 1001,
    names: &["bytea"],
    size: -1,
    storage: Storage::Blob,
    category: Category::Other,
    computed: oid::BYTEA,
    cast: Cast::Literal(literal, oid::BYTEA),
    text_out: plain,
    binary_out,
    text_in: |text| parse(text).map(Value::Blob).ok_or(Misfit::Invalid),
    binary_in: |bytes| Ok(Value::Blob(bytes.to_vec())),
};

fn literal(text: &str) -> Option<String> {
    let hex = text.strip_prefix("\\x")?;
    hex.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| format!("X'{hex}'"))
}

fn binary_out(out: &mut Vec<u8>, value: ValueRef<'_>) -> Result<(), Misfit> {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => out.extend_from_slice(bytes),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => plain(out, value)?,
    }
    Ok(())
}

pub fn append_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    make_room(out, bytes.len() * 2 + 2);
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn parse(text: &str) -> Option<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(hex) => from_hex(hex),
        None => Some(unescaped(text)),
    }
}

/// The bytes of pairs of hexadecimal digits.
pub fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    hex.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn unescaped(text: &str) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytea_in_both_notations() {
        assert_eq!(parse("\\x00fF"), Some(vec![0, 255]));
        assert_eq!(parse("a\\000\\\\b"), Some(b"a\0\\b".to_vec()));
        assert_eq!(parse("\\x0"), None);
    }
}
