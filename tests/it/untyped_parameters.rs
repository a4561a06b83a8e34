//! Parameters as drivers send them that name no types: text of unknown type, numbers too. Declarations and defaults in
//! PostgreSQL's spelling.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::common::embedded::{Server, server};
use crate::common::server_error;
use postgres::Client;
use postgres::types::private::BytesMut;
use postgres::types::{Format, IsNull, ToSql, Type};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

/// A value in text format, whatever type the server has told.
#[derive(Debug)]
struct Untyped<'a>(&'a str);

impl ToSql for Untyped<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    postgres::types::to_sql_checked!();
}

/// Executes a query with such values; its one column and row.
fn ask<T>(client: &mut Client, sql: &str, values: &[&str]) -> T
where
    T: for<'r> postgres::types::FromSql<'r>,
{
    let untyped: Vec<Untyped> = values.iter().map(|value| Untyped(value)).collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = untyped.iter().map(|value| value as _).collect();
    let row = client.query_one(sql, &parameters).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    row.try_get(0).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

fn run(client: &mut Client, sql: &str, values: &[&str]) -> Result<u64, (String, String)> {
    let untyped: Vec<Untyped> = values.iter().map(|value| Untyped(value)).collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = untyped.iter().map(|value| value as _).collect();
    client.execute(sql, &parameters).map_err(|error| server_error(&error).unwrap())
}

fn shop() -> (Server, Client) {
    let server = server();
    let mut client = server.connect();
    client
        .batch_execute(
            "CREATE TABLE cust (id INTEGER PRIMARY KEY, code TEXT, plain VARCHAR(20), note TEXT, qty INTEGER,
                                price NUMERIC(10, 2), weight DOUBLE PRECISION, ok BOOLEAN);
             INSERT INTO cust VALUES (0, '12', '12', NULL, 5, 19.90, 1.5, 1), (1, '00123', '00123', NULL, 7, 5, 2.5, 0),
                                     (2, '4711', '4711', NULL, 10, 0.5, 3.5, 1), (3, '1e5', '1e5', 'x', 40, 1, 4.5, 0);
             CREATE TABLE other (id TEXT, cust INTEGER);
             INSERT INTO other VALUES ('0012', 0), ('4711', 2);
             CREATE VIEW upper_codes AS SELECT id, upper(code) AS code, count(*) AS n FROM cust GROUP BY id",
        )
        .unwrap();
    (server, client)
}

#[test]
fn strings_of_digits_stay_strings() {
    let (_server, mut client) = shop();
    for (condition, values, rows) in [
        ("code = $1", &["4711"][..], 1),
        ("upper(code) = $1", &["4711"], 1),
        ("$1 = upper(code)", &["4711"], 1),
        ("upper(code) <> $1", &["4711"], 3),
        ("trim(code) IN ($1, $2)", &["12", "4711"], 2),
        ("code || '' = $1", &["4711"], 1),
        ("code || id = $1", &["47112"], 1),
        ("coalesce(note, code) = $1", &["4711"], 1),
        ("substr(code, 1, 2) = $1", &["47"], 1),
        ("CASE WHEN id > 0 THEN code END = $1", &["4711"], 1),
        ("CAST(code AS text) = $1", &["4711"], 1),
        ("code = (SELECT $1)", &["4711"], 1),
        ("code IN (VALUES ($1))", &["4711"], 1),
        ("lower(code) BETWEEN $1 AND $2", &["4", "5"], 1),
        ("lower(code) IS NOT DISTINCT FROM $1", &["12"], 1),
        ("id IN (SELECT id FROM (SELECT id, lower(code) AS lc FROM cust) WHERE lc = $1)", &["4711"], 1),
        ("id IN (SELECT id FROM upper_codes WHERE code = $1)", &["4711"], 1),
        ("EXISTS (SELECT 1 FROM other o WHERE o.id = $1 AND o.cust = cust.id)", &["0012"], 1),
        ("id = $1 OR upper(code) = $1", &["0012"], 0),
        ("id LIKE $1", &["%2"], 1),
        ("json_extract('{\"z\":\"4711\"}', '$.z') = $1 AND id = 0", &["4711"], 1),
    ] {
        let sql = format!("SELECT count(*) FROM cust WHERE {condition}");
        assert_eq!(ask::<i64>(&mut client, &sql, values), rows, "{condition}");
    }
    for (expression, values, wanted) in [
        ("typeof($1)", &["4711"][..], "text"),
        ("$1", &["0.10"], "0.10"),
        ("$1 || 'x'", &["1.10"], "1.10x"),
        ("min('a', $1)", &["4711"], "4711"),
        ("(SELECT min(code, $1) FROM cust WHERE id = 3)", &["4711"], "1e5"),
    ] {
        let sql = format!("SELECT CAST({expression} AS text)");
        assert_eq!(ask::<String>(&mut client, &sql, values), wanted, "{expression}");
    }
    let length = ask::<i64>(&mut client, "SELECT length($1)", &["1.50"]);
    assert_eq!(length, 4);
    run(&mut client, "INSERT INTO cust (id, code) VALUES ($1, $2)", &["100", "77"]).unwrap();
    let change =
        "INSERT INTO cust (id, code) VALUES (100, '') ON CONFLICT (id) DO UPDATE SET code = cust.code || $1
                  RETURNING code";
    assert_eq!(ask::<String>(&mut client, change, &["5"]), "775");
    let update = "UPDATE cust SET note = coalesce($1, note) WHERE id = 0 RETURNING note";
    assert_eq!(ask::<String>(&mut client, update, &["012"]), "012");
}

/// A text is greater than every number: where SQLite converts nothing, a parameter has to be a number.
#[test]
fn numbers_that_are_sent_as_text_are_numbers_beside_numbers() {
    let (_server, mut client) = shop();
    for (condition, values, rows) in [
        ("id = $1", &["2"][..], 1),
        ("id + 1 = $1", &["3"], 1),
        ("$1 = id + 1", &["3"], 1),
        ("id = $1 + 1", &["1"], 1),
        ("-id <= -$1", &["2"], 2),
        ("(id + 1) * 2 > ($1)", &["5"], 2),
        ("qty & 4 = $1", &["4"], 2),
        ("length(code) = $1", &["4"], 1),
        ("length(code) NOT IN ($1, $2)", &["4", "5"], 2),
        ("length(code) BETWEEN $1 AND $2", &["3", "4"], 2),
        ("$1 IN (id, 7)", &["2"], 1),
        ("$1 IN (SELECT count(*) FROM cust)", &["4"], 4),
        ("price * 2 = $1", &["39.80"], 1),
        ("price * qty < $1", &["50.00"], 3),
        ("round(price) > $1", &["4"], 2),
        ("weight * 2 >= $1", &["5"], 3),
        ("abs($1) = 5", &["-5"], 4),
        ("coalesce(qty, 0) > $1", &["7"], 2),
        ("coalesce(qty, $1) + 0 > $1", &["7"], 2),
        ("max(id, $1) = 2", &["2"], 3),
        ("CASE WHEN ok THEN qty ELSE 0 END > $1", &["5"], 1),
        ("CASE length(code) WHEN $1 THEN 1 ELSE 0 END", &["4"], 1),
        ("CASE WHEN ok THEN $1 ELSE 0 END > 3", &["10"], 2),
        ("(SELECT count(*) FROM other) = $1", &["2"], 4),
        ("(SELECT max(o.cust) FROM other o WHERE o.cust = cust.id) = $1", &["2"], 1),
        ("ok = $1", &["true"], 2),
        ("NOT ok = $1", &["t"], 2),
    ] {
        let sql = format!("SELECT count(*) FROM cust WHERE {condition}");
        assert_eq!(ask::<i64>(&mut client, &sql, values), rows, "{condition}");
    }
    for (sql, values, wanted) in [
        ("SELECT count(*) FROM (SELECT ok FROM cust GROUP BY ok HAVING count(*) > $1)", &["1"][..], 2),
        ("SELECT count(*) FROM (SELECT ok FROM cust GROUP BY ok HAVING sum(qty) > $1)", &["20"], 1),
        ("SELECT count(*) FROM (SELECT length(code) AS n FROM cust) WHERE n = $1", &["4"], 1),
        ("SELECT count(*) FROM (SELECT id, length(code) n FROM cust) s WHERE s.n = $1", &["4"], 1),
        ("SELECT count(*) FROM upper_codes WHERE n >= $1", &["1"], 4),
        ("WITH q AS (SELECT qty * 2 AS n FROM cust) SELECT count(*) FROM q WHERE n > $1", &["15"], 2),
        (
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < $1) SELECT count(*) FROM c",
            &["10"],
            10,
        ),
        ("SELECT count(*) FROM (SELECT id FROM cust ORDER BY id LIMIT $1 OFFSET $2)", &["2", "1"], 2),
        ("SELECT count(*) FROM cust JOIN other o ON o.cust = cust.id WHERE o.cust + 0 = $1", &["2"], 1),
        (
            "SELECT count(*) FROM cust JOIN other o ON o.cust = cust.id WHERE cust.id = $1 AND o.id = $2",
            &["0", "0012"],
            1,
        ),
        ("SELECT $1 + 1", &["41"], 42),
        ("SELECT abs($1)", &["-9007199254740993"], 9007199254740993i64),
    ] {
        let found: String = ask(&mut client, &format!("SELECT CAST(({sql}) AS text)"), values);
        assert_eq!(found, wanted.to_string(), "{sql}");
    }
    let sum: i32 =
        ask(&mut client, "UPDATE cust SET qty = qty + $1 WHERE id = $2 RETURNING qty", &["5", "0"]);
    assert_eq!(sum, 10);
    for (condition, value) in
        [("id + 1 = $1", "x"), ("id = $1", "x"), ("abs($1) = 1", "x"), ("price * 2 = $1", "")]
    {
        let error = run(&mut client, &format!("SELECT 1 FROM cust WHERE {condition}"), &[value]).unwrap_err();
        assert_eq!(error.0, "22P02", "{condition}: {error:?}");
    }
}

#[test]
fn the_client_is_told_the_types_of_parameters_beside_numbers() {
    let (_server, mut client) = shop();
    for (sql, wanted) in [
        ("SELECT 1 FROM cust WHERE id + 1 = $1", Type::INT8),
        ("SELECT 1 FROM cust WHERE weight * 2 = $1", Type::FLOAT8),
        ("SELECT 1 FROM cust GROUP BY ok HAVING count(*) > $1", Type::INT8),
        ("SELECT 1 FROM cust WHERE upper(code) = $1", Type::TEXT),
        ("SELECT 1 FROM cust, other o WHERE o.id = $1", Type::TEXT),
        ("SELECT 1 FROM other AS o, cust AS c WHERE c.id = $1", Type::INT4),
        ("SELECT 1 FROM cust WHERE id BETWEEN 1 AND $1", Type::INT4),
        ("INSERT INTO cust (id) VALUES ($1)", Type::INT4),
        ("SELECT 1 FROM cust, other WHERE other.id || cust.id = $1", Type::TEXT),
        ("SELECT $1", Type::TEXT),
    ] {
        assert_eq!(client.prepare(sql).unwrap().params(), [wanted], "{sql}");
    }
}

/// Drivers send decimals with their type, and all the zeros that they were written with.
#[test]
fn decimals_are_numbers_in_comparisons_and_keep_their_zeros_in_texts() {
    let (_server, mut client) = shop();
    for (condition, value, rows) in [
        ("price * 2 = $1", "39.80", 1),
        ("price * qty < $1", "50.00", 3),
        ("price = $1", "19.90", 1),
        ("price + $1 > 20", "0.20", 1),
    ] {
        let sql = format!("SELECT count(*) FROM cust WHERE {condition}");
        let prepared = client.prepare_typed(&sql, &[Type::NUMERIC]).unwrap();
        let found: i64 = client.query_one(&prepared, &[&Untyped(value)]).unwrap().get(0);
        assert_eq!(found, rows, "{condition}");
    }
    let prepared = client.prepare_typed("UPDATE cust SET code = $1 WHERE id = 0", &[Type::NUMERIC]).unwrap();
    client.execute(&prepared, &[&Untyped("1.50")]).unwrap();
    assert_eq!(ask::<String>(&mut client, "SELECT code FROM cust WHERE id = $1", &["0"]), "1.50");
}

#[test]
fn every_row_of_values_has_the_types_of_the_columns() {
    let (_server, mut client) = shop();
    run(
        &mut client,
        "INSERT INTO cust (id, ok) VALUES ($1, $2), ($3, $4), ($5, $6)",
        &["10", "true", "11", "false", "12", "t"],
    )
    .unwrap();
    assert_eq!(ask::<i64>(&mut client, "SELECT count(*) FROM cust WHERE id >= $1 AND ok", &["10"]), 2);
}

#[test]
fn what_is_declared_with_a_type_of_postgresql_and_announced_as_text_keeps_its_text() {
    let server = server();
    let mut client = server.connect();
    for (declared, value) in [
        ("inet", "10.10"),
        ("name", "007"),
        ("xml", "1.0"),
        ("bit(4)", "0011"),
        ("bit varying(8)", "0011"),
        ("string", "007"),
        ("citext", "007"),
        ("macaddr", "080020304050"),
    ] {
        client
            .batch_execute(&format!("DROP TABLE IF EXISTS k; CREATE TABLE k (id int, v {declared} NOT NULL)"))
            .unwrap();
        run(&mut client, "INSERT INTO k SELECT 1, $1", &[value]).unwrap();
        client.batch_execute(&format!("INSERT INTO k VALUES (2, '{value}')")).unwrap();
        let row = client.query_one("SELECT v FROM k WHERE id = 1", &[]).unwrap();
        assert_eq!(row.get::<_, &str>(0), value, "{declared}");
        assert_eq!(ask::<i64>(&mut client, "SELECT count(*) FROM k WHERE v = $1", &[value]), 2, "{declared}");
        let schema = ask::<String>(&mut client, "SELECT sql FROM sqlite_schema WHERE name = $1", &["k"]);
        let name = declared.split(['(', ' ']).next().unwrap();
        assert!(schema.contains(&format!("v {name}")), "{schema}");
    }
    client.batch_execute("ALTER TABLE k ADD COLUMN added xml").unwrap();
    client.batch_execute("UPDATE k SET added = '0012'").unwrap();
    assert_eq!(ask::<i64>(&mut client, "SELECT count(*) FROM k WHERE added = $1", &["0012"]), 2);
    // The schema as it is told makes the same schema again.
    let schema = ask::<String>(&mut client, "SELECT sql FROM sqlite_schema WHERE name = $1", &["k"]);
    client.batch_execute(&format!("DROP TABLE k; {schema}")).unwrap();
    assert_eq!(ask::<String>(&mut client, "SELECT sql FROM sqlite_schema WHERE name = $1", &["k"]), schema);
    // No numbers, though SQLite finds an "int" in the names.
    client.batch_execute("CREATE TABLE i (a interval, b point, c int[], m money)").unwrap();
    run(&mut client, "INSERT INTO i VALUES ($1, $2, $3, $4)", &["1 day", "(1,2)", "{1,2}", "12.50"]).unwrap();
    assert_eq!(ask::<String>(&mut client, "SELECT a FROM i WHERE m > $1", &["9.00"]), "1 day");
}

#[test]
fn defaults_and_casts_in_the_spelling_of_postgresql() {
    let server = server();
    let mut client = server.connect();
    client
        .batch_execute(
            r"CREATE TABLE d (id int, a text DEFAULT 'x'::text NOT NULL, b text DEFAULT current_user,
                             c varchar(9) DEFAULT E'it\'s'::character varying(9), n integer DEFAULT -1::int,
                             e text DEFAULT NULL::text, f boolean DEFAULT 'true'::boolean, at timestamp DEFAULT now());
              INSERT INTO d (id) VALUES (1);
              ALTER TABLE d ADD COLUMN g text DEFAULT 'y'::character varying;
              ALTER TABLE d ADD COLUMN h integer DEFAULT '7'::int CHECK (h < 9)",
        )
        .unwrap();
    let query = "SELECT a || ',' || b || ',' || c || ',' || n || ',' || (e IS NULL) || ',' || f || ',' || g || ',' || h FROM d";
    assert_eq!(ask::<String>(&mut client, query, &[]), "x,dba,it's,-1,1,1,y,7");
    let query = r"SELECT E'x\ty'::text || E'\x41\u00e4\101'::varchar || $$q$$::text || current_user::text";
    assert_eq!(ask::<String>(&mut client, query, &[]), "x\tyA\u{e4}Aqdba");
    let query = r"SELECT hex(E'\\x00ff'::bytea)";
    assert_eq!(ask::<String>(&mut client, query, &[]), "00FF");
}

/// A session that speaks the protocol itself.
struct Raw(TcpStream);

impl Raw {
    fn connect(server: &Server) -> Raw {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut raw = Raw(stream);
        raw.send(|out| frontend::startup_message([("user", "dba"), ("database", "x")], out).unwrap());
        raw.receive(b'R');
        let mut scram = ScramSha256::new(b"dba", ChannelBinding::unsupported());
        let first = scram.message().to_vec();
        raw.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, &first, out).unwrap());
        scram.update(&raw.receive(b'R')[4..]).unwrap();
        let last = scram.message().to_vec();
        raw.send(|out| frontend::sasl_response(&last, out).unwrap());
        scram.finish(&raw.receive(b'R')[4..]).unwrap();
        raw.receive(b'Z');
        raw
    }

    fn send(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        write(&mut out);
        self.0.write_all(&out).unwrap();
    }

    /// The next message of this kind; others before it are passed over.
    fn receive(&mut self, wanted: u8) -> Vec<u8> {
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            let mut body = vec![0; length as usize - 4];
            self.0.read_exact(&mut body).unwrap();
            if head[0] == wanted {
                return body;
            }
        }
    }
}

#[test]
fn an_error_comes_without_waiting_for_sync() {
    let server = server();
    let mut raw = Raw::connect(&server);
    for sql in ["SELECT nosuch FROM sqlite_schema WHERE name = $1", "SELECT * FROM nosuch_table", "SELEC 1"] {
        raw.send(|out| {
            frontend::parse("", sql, [], out).unwrap();
            frontend::describe(b'S', "", out).unwrap();
            frontend::flush(out);
        });
        let error = raw.receive(b'E');
        assert!(error.windows(3).any(|part| part == b"C42"), "{:?}", String::from_utf8_lossy(&error));
        raw.send(frontend::sync);
        assert_eq!(raw.receive(b'Z'), b"I");
    }
    raw.send(|out| {
        frontend::parse("", "SELECT 1", [], out).unwrap();
        frontend::flush(out);
    });
    raw.receive(b'1');
}
