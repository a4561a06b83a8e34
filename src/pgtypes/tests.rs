use std::collections::HashSet;

use super::*;

#[test]
fn rows_have_numbers_and_names_of_their_own() {
    let mut numbers = HashSet::new();
    let mut names = HashSet::new();
    for row in TABLE {
        assert!(numbers.insert(row.oid) && (row.array_oid == 0 || numbers.insert(row.array_oid)), "{row:?}");
        assert!(row.names.iter().all(|name| names.insert(*name) && *name == name.to_lowercase()), "{row:?}");
        assert_eq!(of_oid(row.oid), row);
        assert!(TABLE.contains(&of_oid(row.computed)), "{row:?}");
    }
}

/// What goes out as a text or in binary comes in again, and what is bound is the same either way.
#[test]
fn values_there_and_back() {
    for (name, value) in [
        ("boolean", Value::Integer(1)),
        ("bytea", Value::Blob(vec![0, 255])),
        ("bigint", Value::Integer(i64::MIN)),
        ("integer", Value::Integer(i32::MAX.into())),
        ("smallint", Value::Integer(-7)),
        ("text", Value::Text("ä".into())),
        ("varchar", Value::Text("b".into())),
        ("char", Value::Text("c".into())),
        ("json", Value::Text("{\"a\": [1]}".into())),
        ("jsonb", Value::Text("[1, null]".into())),
        ("real", Value::Real(1.5)),
        ("double precision", Value::Real(-0.1)),
        ("date", Value::Text("2024-02-29".into())),
        ("date", Value::Text("infinity".into())),
        ("time", Value::Text("23:59:59.000001".into())),
        ("timestamp", Value::Text("2024-02-29 01:02:03.5".into())),
        ("timestamptz", Value::Text("1969-12-31 23:59:59".into())),
        ("timestamptz", Value::Text("-infinity".into())),
        ("numeric", Value::Text("12345678901234567890.50".into())),
        ("uuid", Value::Text("00000000-0000-0000-0000-0000000000ff".into())),
    ] {
        let row = of_name(name).unwrap();
        let (mut text, mut binary) = (Vec::new(), Vec::new());
        row.append_text(&mut text, ValueRef::from(&value), "c").unwrap();
        row.append_binary(&mut binary, ValueRef::from(&value), "c").unwrap();
        assert!(row.size == -1 || binary.len() == row.size as usize, "{name}");
        assert_eq!(row.from_text(&text).unwrap(), value, "{name}");
        assert_eq!(row.from_binary(&binary).unwrap(), value, "{name}");
    }
}

#[test]
fn what_is_not_of_the_type_is_told_with_the_column() {
    for (name, value, sqlstate) in [
        ("smallint", Value::Integer(40_000), "22003"),
        ("integer", Value::Integer(1 << 40), "22003"),
        ("integer", Value::Text("abc".into()), "22P02"),
        ("bigint", Value::Real(1.5), "22P02"),
        ("date", Value::Integer(20_240_101), "22P02"),
        ("date", Value::Text("2024-02-30".into()), "22007"),
        ("uuid", Value::Text("12".into()), "22P02"),
        ("json", Value::Text("abc".into()), "22P02"),
    ] {
        let mut out = Vec::new();
        let error = of_name(name).unwrap().append_binary(&mut out, ValueRef::from(&value), "c").unwrap_err();
        assert_eq!(error.sqlstate, sqlstate, "{name}: {error}");
        assert!(error.message().contains("\"c\""), "{error}");
    }
    for (name, text, sqlstate) in
        [("uuid", "12", "22P02"), ("date", "x", "22007"), ("jsonb", "{", "22P02"), ("boolean", "2", "22P02")]
    {
        assert_eq!(of_name(name).unwrap().from_text(text.as_bytes()).unwrap_err().sqlstate, sqlstate);
    }
    for (oid, bytes) in [(oid::INT4, 3), (oid::UUID, 15), (oid::DATE, 8), (oid::NUMERIC, 7)] {
        assert_eq!(of_oid(oid).from_binary(&vec![0; bytes]).unwrap_err().sqlstate, "22P03");
    }
    assert_eq!(of_oid(1186).from_binary(&[]).unwrap_err().sqlstate, "0A000");
    assert_eq!(of_oid(0).from_binary(b"x").unwrap(), Value::Text("x".into()));
}

#[test]
fn declarations_by_their_names() {
    for (declaration, oid) in [
        ("bigint", oid::INT8),
        ("INTEGER", oid::INT4),
        ("smallint", oid::INT2),
        ("real", oid::FLOAT8),
        ("char(3)", oid::BPCHAR),
        ("date text", oid::DATE),
        ("timestamp with time zone text(3)", oid::TIMESTAMPTZ),
        ("timestamp(3) without time zone", oid::TIMESTAMP),
        ("time with time zone", oid::TEXT),
        ("uuid text", oid::UUID),
        ("jsonb text", oid::JSONB),
        ("UNSIGNED BIG INT", oid::INT8),
        ("tinyint(1)", oid::INT8),
        ("VARCHAR(20)", oid::VARCHAR),
        ("character varying(9)", oid::VARCHAR),
        ("nvarchar(9)", oid::VARCHAR),
        ("text", oid::TEXT),
        ("bit varying text(8)", oid::TEXT),
        ("citext", oid::TEXT),
        ("double precision", oid::FLOAT8),
        ("numeric(10, 2)", oid::NUMERIC),
        ("money", oid::NUMERIC),
        ("bool", oid::BOOL),
        ("blob", oid::BYTEA),
        ("int[]", oid::TEXT),
        ("interval", oid::TEXT),
        ("my_enum", oid::TEXT),
        ("", oid::TEXT),
    ] {
        assert_eq!(of_declaration(declaration).oid, oid, "{declaration}");
    }
}
