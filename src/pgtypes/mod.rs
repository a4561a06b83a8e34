//! The types that PostgreSQL's clients know: one row a type, in the file of its kind, with all that is known of it. Who adds
//! one writes its row and its conversions, and names the row in [`TABLE`].
//!
//! Not here: which type a column of a result or a parameter has (`sql`), and messages (`net::pg`). SQLite stores any value in
//! any column, so a value that goes out may not be of the type that was announced: then it is a [`Misfit`] and never wrong bytes.

mod boolean;
mod bytes;
mod dates;
mod floating;
mod json;
mod misfit;
mod numeric;
pub mod oid;
mod text;
mod uuid;
mod whole;

#[cfg(test)]
mod tests;

use rusqlite::types::{Type, Value, ValueRef};

pub use boolean::truth;
pub use misfit::Misfit;
pub use numeric::as_number;
pub use whole::append_i64;

/// A type.
pub struct PgType {
    /// What clients know it by.
    pub oid: u32,
    /// That of arrays of it.
    pub array_oid: u32,
    /// How it is spelled in declarations and casts, in small letters; the first is what errors call it.
    pub names: &'static [&'static str],
    /// Bytes of a value in binary, -1 if they vary.
    pub size: i16,
    /// What SQLite holds in a column that is declared so.
    pub storage: Storage,
    /// What may be done with it.
    pub category: Category,
    /// The type of an expression on such columns, which SQLite calculates.
    pub computed: u32,
    /// What becomes of a cast to it.
    pub cast: Cast,
    /// A value, which is not NULL, as text.
    pub text_out: fn(&mut Vec<u8>, ValueRef<'_>) -> Result<(), Misfit>,
    /// A value, which is not NULL, in binary.
    pub binary_out: fn(&mut Vec<u8>, ValueRef<'_>) -> Result<(), Misfit>,
    /// What is bound of a parameter that was sent as text.
    pub text_in: fn(&str) -> Result<Value, Misfit>,
    /// What is bound of a parameter that was sent in binary.
    pub binary_in: fn(&[u8]) -> Result<Value, Misfit>,
}

/// What SQLite converts the values of a column to, if it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Whole numbers of 64 bits.
    Integer,
    /// Floating point numbers.
    Real,
    /// Whole numbers, else floating point numbers.
    Numeric,
    /// Texts.
    Text,
    /// Bytes.
    Blob,
}

/// Which operators a type has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Texts.
    Text,
    /// Whole numbers.
    Whole,
    /// Decimal numbers.
    Decimal,
    /// Floating point numbers.
    Floating,
    /// Neither a text nor a number.
    Other,
}

/// What becomes of `operand::name`.
#[derive(Debug, Clone, Copy)]
pub enum Cast {
    /// SQLite's CAST to this name, which gives a value of this type.
    As(&'static str, u32),
    /// A text in the statement becomes this literal, if it can; other operands stay as they are, and are told to be of this
    /// type.
    Literal(fn(&str) -> Option<String>, u32),
    /// Nothing: the operand stays as it is, of the type that it has.
    Dropped,
}

/// All of them.
pub const TABLE: [&PgType; 20] = [
    &boolean::BOOL,
    &bytes::BYTEA,
    &whole::INT8,
    &whole::INT2,
    &whole::INT4,
    &text::TEXT,
    &whole::OID,
    &json::JSON,
    &floating::FLOAT4,
    &floating::FLOAT8,
    &text::UNKNOWN,
    &text::BPCHAR,
    &text::VARCHAR,
    &dates::DATE,
    &dates::TIME,
    &dates::TIMESTAMP,
    &dates::TIMESTAMPTZ,
    &numeric::NUMERIC,
    &uuid::UUID,
    &json::JSONB,
];

impl PartialEq for PgType {
    fn eq(&self, other: &PgType) -> bool {
        self.oid == other.oid
    }
}

impl Eq for PgType {}

impl std::fmt::Debug for PgType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.oid)
    }
}

/// The type of this number; for 0 and numbers that are not in the table one whose values are texts.
pub fn of_oid(oid: u32) -> &'static PgType {
    let other = if oid == 0 { &text::UNKNOWN } else { &text::UNLISTED };
    TABLE.iter().find(|row| row.oid == oid).copied().unwrap_or(other)
}

fn of_name(name: &str) -> Option<&'static PgType> {
    TABLE.iter().find(|row| row.names.iter().any(|known| known.eq_ignore_ascii_case(name))).copied()
}

/// What a column is whose type nobody knows, by a value of it.
pub fn of_value(value: Type) -> &'static PgType {
    match value {
        Type::Integer => &whole::INT8,
        Type::Real => &floating::FLOAT8,
        Type::Blob => &bytes::BYTEA,
        Type::Text | Type::Null => &text::TEXT,
    }
}

/// What becomes of a cast to this name; none: it names no type that is known.
pub fn cast_to(name: &str) -> Option<Cast> {
    of_name(name).map(|row| row.cast)
}

/// The type of what is written as CAST(… AS name); 0 if it is as it was before.
pub fn oid_of_cast(name: &str) -> u32 {
    if ["int", "integer"].iter().any(|word| name.eq_ignore_ascii_case(word)) {
        // SQLite's INTEGER has 64 bits.
        return oid::INT8;
    }
    match cast_to(name) {
        Some(Cast::As(_, oid) | Cast::Literal(_, oid)) => oid,
        Some(Cast::Dropped) | None => 0,
    }
}

/// True if values of a column declared with this word are texts that SQLite, which does not know the word, would make numbers of.
pub fn is_text_unknown_to_sqlite(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let known_to_sqlite = ["char", "clob", "text"].iter().any(|part| lower.contains(part));
    !known_to_sqlite && of_name(&lower).is_some_and(|row| row.storage == Storage::Text)
}

/// The type that a column declared so is announced as. Of the hot path where statements are not prepared.
pub fn of_declaration(declaration: &str) -> &'static PgType {
    if declaration.is_empty() {
        return &text::TEXT;
    }
    // Without a length, and without the word that CREATE TABLE puts behind what SQLite does not know.
    let (name, rest) = declaration.split_once('(').unwrap_or((declaration, ""));
    let behind = rest.split_once(')').map_or("", |(_, behind)| behind);
    let plain = if behind.is_empty() { of_name(name.trim_end()) } else { None };
    plain.unwrap_or_else(|| {
        let words: Vec<&str> = name.split_whitespace().chain(behind.split_whitespace()).collect();
        let known = match words.as_slice() {
            [name @ .., last] if !name.is_empty() && last.eq_ignore_ascii_case("text") => {
                of_name(&name.join(" "))
            }
            name => of_name(&name.join(" ")),
        };
        known.unwrap_or_else(|| of_unknown_name(&declaration.to_ascii_lowercase()))
    })
}

/// Of a name that is not in the table, in small letters: much as SQLite finds the affinity of such a column.
fn of_unknown_name(lower: &str) -> &'static PgType {
    let has = |part: &str| lower.contains(part);
    if has("[") || ["interval", "point", "tinterval"].iter().any(|name| lower.starts_with(name)) {
        // No numbers, though SQLite finds an "int" in them.
        &text::TEXT
    } else if has("bool") {
        &boolean::BOOL
    } else if has("int") || has("serial") || lower == "oid" {
        &whole::INT8
    } else if has("varchar") || has("varying") {
        &text::VARCHAR
    } else if has("char") || has("clob") || has("text") {
        &text::TEXT
    } else if has("blob") || has("bytea") || has("binary") {
        &bytes::BYTEA
    } else if has("real") || has("floa") || has("doub") {
        &floating::FLOAT8
    } else if (has("num") && !has("enum")) || has("dec") || has("money") {
        &numeric::NUMERIC
    } else {
        &text::TEXT
    }
}
