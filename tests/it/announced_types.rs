//! The types that columns are announced as, and their values in both directions, in text and in binary. What a column holds
//! that is not of its type ends in an error with its name.

use std::error::Error;

use crate::common::embedded::{connected_pair, server};
use crate::common::{server_error, wait_until};
use postgres::types::private::BytesMut;
use postgres::types::{Format, FromSql, IsNull, ToSql, Type};
use postgres::{Client, SimpleQueryMessage};

/// The bytes of a value in this format, of whatever type.
#[derive(Debug, Clone, PartialEq)]
struct Bytes {
    bytes: Vec<u8>,
    are_text: bool,
}

impl ToSql for Bytes {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        if self.are_text { Format::Text } else { Format::Binary }
    }

    postgres::types::to_sql_checked!();
}

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Bytes, Box<dyn Error + Sync + Send>> {
        Ok(binary(bytes))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn binary(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes { bytes: bytes.as_ref().to_vec(), are_text: false }
}

fn text(text: &str) -> Bytes {
    Bytes { bytes: text.as_bytes().to_vec(), are_text: true }
}

/// What a client sees that asks for texts.
fn shown(client: &mut Client, sql: &str) -> Result<String, (String, String)> {
    let messages = client.simple_query(sql).map_err(|error| server_error(&error).unwrap())?;
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(value.unwrap())
}

#[test]
fn columns_are_announced_as_they_are_declared() {
    const UUID: [u8; 16] =
        [0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11];
    let server = server();
    let mut client = server.connect();
    for (declared, oid, value, bytes) in [
        ("smallint", Type::INT2, "-7", binary((-7i16).to_be_bytes())),
        ("integer", Type::INT4, "2147483647", binary(i32::MAX.to_be_bytes())),
        ("int", Type::INT4, "-1", binary((-1i32).to_be_bytes())),
        ("bigint", Type::INT8, "1099511627776", binary((1i64 << 40).to_be_bytes())),
        ("float4", Type::FLOAT4, "1.1", binary(1.1f32.to_be_bytes())),
        ("real", Type::FLOAT8, "1.1", binary(1.1f64.to_be_bytes())),
        ("double precision", Type::FLOAT8, "1.1", binary(1.1f64.to_be_bytes())),
        ("char(3)", Type::BPCHAR, "abc", binary("abc")),
        ("varchar(3)", Type::VARCHAR, "abc", binary("abc")),
        ("date", Type::DATE, "2000-01-31", binary(30i32.to_be_bytes())),
        ("date", Type::DATE, "infinity", binary(i32::MAX.to_be_bytes())),
        ("time", Type::TIME, "00:00:01.5", binary(1_500_000i64.to_be_bytes())),
        ("timestamp", Type::TIMESTAMP, "1999-12-31 23:59:59", binary((-1_000_000i64).to_be_bytes())),
        ("timestamptz", Type::TIMESTAMPTZ, "2000-01-01 00:00:00.25+00", binary(250_000i64.to_be_bytes())),
        ("timestamp(3) with time zone", Type::TIMESTAMPTZ, "-infinity", binary(i64::MIN.to_be_bytes())),
        ("uuid", Type::UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", binary(UUID)),
        ("json", Type::JSON, "{\"a\": [1.10]}", binary("{\"a\": [1.10]}")),
        ("jsonb", Type::JSONB, "[1.0]", binary("\u{1}[1.0]")),
    ] {
        client
            .batch_execute(&format!("DROP TABLE IF EXISTS k; CREATE TABLE k (n text, v {declared})"))
            .unwrap();
        client.batch_execute(&format!("INSERT INTO k VALUES ('literal', '{value}')")).unwrap();
        let insert = client.prepare("INSERT INTO k VALUES ($1, $2)").unwrap();
        assert_eq!(insert.params()[1], oid, "{declared}");
        client.execute(&insert, &[&"binary", &bytes]).unwrap();
        client.execute(&insert, &[&"text", &text(value)]).unwrap();
        for way in ["literal", "binary", "text"] {
            let select = format!("SELECT v FROM k WHERE n = '{way}'");
            assert_eq!(shown(&mut client, &select).unwrap(), value, "{declared}, {way}");
            let row = client.query_one(&select, &[]).unwrap();
            assert_eq!(row.columns()[0].type_(), &oid, "{declared}");
            assert_eq!(row.get::<_, Bytes>(0), bytes, "{declared}, {way}");
        }
        for same in [bytes, text(value)] {
            let query = "SELECT count(*) FROM k WHERE v = $1 AND n <> 'literal'";
            assert_eq!(client.query_one(query, &[&same]).unwrap().get::<_, i64>(0), 2, "{declared}");
        }
    }
}

#[test]
fn drivers_may_write_dates_and_uuids_as_postgresql_takes_them() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("CREATE TABLE k (d date, t timestamp, z timestamptz, u uuid)").unwrap();
    client.batch_execute("INSERT INTO k VALUES ('2024-02-29 10:00:00', now(), '2024-02-29 12:00:00+02', X'00000000000000000000000000000012')").unwrap();
    client
        .execute(
            "INSERT INTO k VALUES ($1, $2, $3, $4)",
            &[
                &text("2024-02-29"),
                &text("2024-02-29T12:00:00.000+02:00"),
                &text("2024-02-29T12:00:00.000+02:00"),
                &text("{A0EEBC999C0B4EF8BB6D6BB9BD380A11}"),
            ],
        )
        .unwrap();
    for (column, row, wanted) in [
        ("d", 1, "2024-02-29"),
        ("z", 1, "2024-02-29 10:00:00+00"),
        ("u", 1, "00000000-0000-0000-0000-000000000012"),
        ("d", 2, "2024-02-29"),
        ("t", 2, "2024-02-29 12:00:00"),
        ("z", 2, "2024-02-29 10:00:00+00"),
        ("u", 2, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ] {
        assert_eq!(
            shown(&mut client, &format!("SELECT {column} FROM k WHERE rowid = {row}")).unwrap(),
            wanted
        );
    }
    let now = client.query_one("SELECT t FROM k WHERE rowid = 1", &[]).unwrap().get::<_, Bytes>(0);
    assert!(i64::from_be_bytes(now.bytes.try_into().unwrap()) > 0);
}

#[test]
fn what_does_not_fit_is_refused_with_the_name_of_the_column() {
    let server = server();
    let mut client = server.connect();
    for (declared, value, sqlstate) in [
        ("smallint", "40000", "22003"),
        ("integer", "1099511627776", "22003"),
        ("integer", "1.5", "22P02"),
        ("int", "'abc'", "22P02"),
        ("float4", "1e300", "22003"),
        ("date", "'2024-02-30'", "22007"),
        ("date", "'0020-1'", "22007"),
        ("time", "'25:00:00'", "22007"),
        ("timestamp", "'x'", "22007"),
        ("timestamptz", "X'00'", "22P02"),
        ("uuid", "'12'", "22P02"),
        ("json", "'{'", "22P02"),
        ("jsonb", "'abc'", "22P02"),
    ] {
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS k; CREATE TABLE k (v {declared}); INSERT INTO k VALUES ({value})"
            ))
            .unwrap();
        let in_text = shown(&mut client, "SELECT v FROM k").unwrap_err();
        let in_binary = server_error(&client.query("SELECT v FROM k", &[]).unwrap_err()).unwrap();
        for error in [in_text, in_binary] {
            assert_eq!(error.0, sqlstate, "{declared}: {error:?}");
            assert!(error.1.contains("column \"v\""), "{declared}: {error:?}");
        }
        // As the error advises.
        assert!(!shown(&mut client, "SELECT CAST(v AS text) FROM k").unwrap().is_empty());
        let plain = text(value.trim_matches('\''));
        let written = client.execute("INSERT INTO k VALUES ($1)", &[&plain]).unwrap_err();
        let written = server_error(&written).unwrap();
        let expected = if value.starts_with('X') { "22007" } else { sqlstate };
        assert_eq!(written.0, expected, "{declared}: {written:?}");
    }
}

/// SQLite calculates with 64 bits, and makes texts of dates.
#[test]
fn expressions_have_the_types_that_sqlite_calculates_with() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("CREATE TABLE k (s smallint, i integer, r real, d date, j json)").unwrap();
    for (expression, oid) in [
        ("s + i", Type::INT8),
        ("max(i)", Type::INT8),
        ("coalesce(i, 0)", Type::INT8),
        ("sum(s)", Type::INT8),
        ("i * r", Type::FLOAT8),
        ("max(r)", Type::FLOAT8),
        ("coalesce(d, '')", Type::TEXT),
        ("max(d)", Type::TEXT),
        ("coalesce(j, '')", Type::TEXT),
    ] {
        let statement = client.prepare(&format!("SELECT {expression} FROM k")).unwrap();
        assert_eq!(statement.columns()[0].type_(), &oid, "{expression}");
    }
}

/// SQLite calls both keys INTEGER.
#[test]
fn a_key_is_as_large_as_it_was_declared() {
    const LARGE: i64 = 3_000_000_000;
    let (first, second) = connected_pair("");
    let mut client = first.connect();
    client.batch_execute("CREATE TABLE k (id bigserial PRIMARY KEY, v text)").unwrap();
    client.batch_execute("CREATE TABLE s (id serial PRIMARY KEY, i integer)").unwrap();
    client.batch_execute("CREATE VIEW w AS SELECT id AS number FROM k").unwrap();
    let small = client.query_one("INSERT INTO s (i) VALUES (7) RETURNING id, i", &[]).unwrap();
    assert_eq!((small.get::<_, i32>(0), small.get::<_, i32>(1)), (1, 7));
    let numbered = client.query_one("INSERT INTO k (v) VALUES ('a') RETURNING id", &[]).unwrap();
    assert_eq!(numbered.get::<_, i64>(0), 1);
    client.execute("INSERT INTO k (id, v) VALUES ($1, 'b')", &[&LARGE]).unwrap();
    let get = |client: &mut Client, sql: &str| client.query_one(sql, &[&LARGE]).unwrap().get::<_, i64>(0);
    assert_eq!(get(&mut client, "SELECT id FROM k WHERE id = $1"), LARGE);
    assert_eq!(get(&mut client, "SELECT x.id AS y FROM k x JOIN s ON s.id < x.id WHERE x.id = $1"), LARGE);
    let seen = client.query_one("SELECT number FROM w WHERE number = 3000000000", &[]).unwrap();
    assert_eq!(seen.get::<_, i64>(0), LARGE);
    assert_eq!(shown(&mut client, "SELECT id FROM k WHERE v = 'b'").unwrap(), LARGE.to_string());

    let prepared = client.prepare("SELECT id FROM s").unwrap();
    assert_eq!(prepared.columns()[0].type_(), &Type::INT4);
    client.batch_execute("ALTER TABLE k RENAME COLUMN id TO number").unwrap();
    client.batch_execute("ALTER TABLE k RENAME TO l").unwrap();
    assert_eq!(get(&mut client, "SELECT number FROM l WHERE number = $1"), LARGE);
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute("CREATE TABLE own (id bigserial PRIMARY KEY)").unwrap();
    let own = transaction.query_one("INSERT INTO own VALUES ($1) RETURNING id", &[&LARGE]).unwrap();
    assert_eq!(own.get::<_, i64>(0), LARGE);
    transaction.commit().unwrap();

    let mut reader = second.connect();
    wait_until("the secondary has them", || {
        reader.query("SELECT id FROM own", &[]).is_ok_and(|rows| rows.len() == 1)
    });
    for sql in ["SELECT id FROM own WHERE id = $1", "SELECT number FROM l WHERE number = $1"] {
        assert_eq!(get(&mut reader, sql), LARGE, "{sql}");
    }
    assert_eq!(reader.query_one("SELECT id FROM s", &[]).unwrap().get::<_, i32>(0), 1);
}
