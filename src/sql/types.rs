//! The types that PostgreSQL clients know, and which of them a SQLite column is.

/// boolean
pub const BOOL: u32 = 16;
/// bytea
pub const BYTEA: u32 = 17;
/// int8
pub const INT8: u32 = 20;
/// int2
pub const INT2: u32 = 21;
/// int4
pub const INT4: u32 = 23;
/// text
pub const TEXT: u32 = 25;
/// oid
pub const OID: u32 = 26;
/// json
pub const JSON: u32 = 114;
/// float4
pub const FLOAT4: u32 = 700;
/// float8
pub const FLOAT8: u32 = 701;
/// a literal without a type
pub const UNKNOWN: u32 = 705;
/// char(n)
pub const BPCHAR: u32 = 1042;
/// varchar
pub const VARCHAR: u32 = 1043;
/// date
pub const DATE: u32 = 1082;
/// time
pub const TIME: u32 = 1083;
/// timestamp
pub const TIMESTAMP: u32 = 1114;
/// timestamptz
pub const TIMESTAMPTZ: u32 = 1184;
/// numeric
pub const NUMERIC: u32 = 1700;
/// uuid
pub const UUID: u32 = 2950;
/// jsonb
pub const JSONB: u32 = 3802;

/// Types of PostgreSQL whose values are texts that no number may be made of, by the first word of their names. To SQLite they
/// are unknown words, and to those it gives the affinity of numbers: a uuid of digits would lose its zeros.
const TEXTS: [&str; 20] = [
    "bit",
    "cidr",
    "date",
    "hstore",
    "inet",
    "json",
    "jsonb",
    "jsonpath",
    "ltree",
    "macaddr",
    "macaddr8",
    "name",
    "string",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "uuid",
    "varbit",
    "xml",
];

/// True if a column declared with this word holds texts, and SQLite would not know it.
pub fn is_text_unknown_to_sqlite(name: &str) -> bool {
    TEXTS.iter().any(|text| name.eq_ignore_ascii_case(text))
}

/// True for the types of texts.
pub fn is_text(oid: u32) -> bool {
    [TEXT, VARCHAR, BPCHAR].contains(&oid)
}

/// The type of a column declared so. Dates and times are text in SQLite and are announced as text.
pub fn oid_of_declaration(declaration: &str) -> u32 {
    let lower = declaration.to_ascii_lowercase();
    let has = |part: &str| lower.contains(part);
    if has("[") || ["interval", "point", "tinterval"].iter().any(|name| lower.starts_with(name)) {
        // No numbers, though SQLite finds an "int" in them.
        TEXT
    } else if has("bool") {
        BOOL
    } else if has("int") || has("serial") || lower == "oid" {
        INT8
    } else if has("varchar") || has("varying") {
        VARCHAR
    } else if has("char") || has("clob") || has("text") {
        TEXT
    } else if has("blob") || has("bytea") || has("binary") {
        BYTEA
    } else if has("real") || has("floa") || has("doub") {
        FLOAT8
    } else if (has("num") && !has("enum")) || has("dec") || has("money") {
        NUMERIC
    } else {
        TEXT
    }
}

/// The type of this name in a cast; 0 if unknown.
pub fn oid_of_name(name: &str) -> u32 {
    match name.to_ascii_lowercase().as_str() {
        "int4" => INT4,
        // SQLite's INTEGER has 64 bits.
        "int" | "integer" | "bigint" | "int8" => INT8,
        "smallint" | "int2" => INT2,
        "float8" | "double" | "real" | "float4" | "float" => FLOAT8,
        "numeric" | "decimal" => NUMERIC,
        "text" | "name" => TEXT,
        "varchar" | "character" => VARCHAR,
        "char" | "bpchar" => BPCHAR,
        "bool" | "boolean" => BOOL,
        "bytea" => BYTEA,
        _ => 0,
    }
}

/// Bytes of a value on the wire, -1 if they vary.
pub fn size_of(oid: u32) -> i16 {
    match oid {
        BOOL => 1,
        INT2 => 2,
        INT4 | OID => 4,
        INT8 | FLOAT8 => 8,
        _ => -1,
    }
}

/// PostgreSQL's spellings of true and false.
pub fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}
