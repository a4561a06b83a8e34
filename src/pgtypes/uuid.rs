//! uuid: a text of 36 characters to SQLite.

use rusqlite::types::{Value, ValueRef};

use super::bytes::from_hex;
use super::text::text_of;
use super::whole::exactly;
use super::{Cast, Category, Misfit, PgType, Storage, oid};

pub static UUID: PgType = PgType {
    oid: oid::UUID,
    array_oid: 2951,
    names: &["uuid"],
    size: 16,
    storage: Storage::Text,
    category: Category::Other,
    computed: oid::TEXT,
    cast: Cast::Dropped,
    text_out: |out, value| {
        out.extend_from_slice(text_of_bytes(&bytes_of(value)?).as_bytes());
        Ok(())
    },
    binary_out: |out, value| {
        out.extend_from_slice(&bytes_of(value)?);
        Ok(())
    },
    text_in: |text| parse(text).map(|bytes| Value::Text(text_of_bytes(&bytes))),
    binary_in: |bytes| exactly(bytes).map(|bytes| Value::Text(text_of_bytes(&bytes))),
};

fn bytes_of(value: ValueRef<'_>) -> Result<[u8; 16], Misfit> {
    match value {
        ValueRef::Blob(bytes) => exactly(bytes),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => {
            parse(text_of(value)?)
        }
    }
}

/// Digits with or without hyphens, perhaps in braces.
fn parse(text: &str) -> Result<[u8; 16], Misfit> {
    let text = text.trim();
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let digits: String = inner.chars().filter(|character| *character != '-').collect();
    from_hex(&digits).ok_or(Misfit::Invalid).and_then(|bytes| exactly(&bytes))
}

fn text_of_bytes(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
