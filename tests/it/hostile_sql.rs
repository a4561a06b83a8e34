//! A user who may only read sends what is deep, long or large: an error or an answer, and never the end of a server.
//!
//! HSB_HOSTILE_STATEMENTS (40) sets how many statements are made up on top of the table; HSB_SEED repeats a run.

use crate::common::{
    Random, assert_identical, connected_pair, from_environment, number, server_error, sql, state,
};
use bytes::BytesMut;
use hotstandby::demo::pair::{PATIENCE, Pair, Server};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, NoTls};

const USER: (&str, &str) = ("reader", "reader");

fn connect(server: &Server) -> Client {
    let mut configuration = postgres::Config::new();
    configuration.hostaddr(server.host).port(server.port).user(USER.0).password(USER.1).dbname("x");
    configuration.connect_timeout(PATIENCE).connect(NoTls).unwrap()
}

/// NULL, whatever is asked for.
#[derive(Debug)]
struct Nothing;

impl ToSql for Nothing {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// As a client that reads all rows does in the extended protocol.
fn ask_prepared(session: &mut Client, statement: &str) -> Result<(), postgres::Error> {
    let prepared = session.prepare(statement)?;
    let values = prepared.params().iter().map(|_| Nothing);
    let mut rows = session.query_raw(&prepared, values.collect::<Vec<_>>())?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Sends a statement in the simple and in the extended protocol; the answer may be anything but the end.
fn attack(server: &Server, session: &mut Client, statement: &str) {
    let shown: String = statement.chars().take(200).collect();
    let simple = session.simple_query(statement).map(drop);
    let extended = ask_prepared(session, statement);
    for outcome in [simple, extended] {
        let Err(error) = outcome else { continue };
        assert!(server_error(&error).is_some(), "{}: {shown}: {error}", server.name);
    }
    let alive = session.simple_query("SELECT 1");
    assert!(alive.is_ok(), "{}: {shown}: {:?}", server.name, alive.err());
}

fn nested(before: &str, count: usize, middle: &str, after: &str) -> String {
    format!("SELECT {}{middle}{}", before.repeat(count), after.repeat(count))
}

fn repeated(start: &str, again: &str, count: usize) -> String {
    format!("{start}{}", again.repeat(count))
}

/// Each of so many refers to the one before.
fn chain(first: &str, next: impl Fn(usize) -> String, count: usize, last: &str) -> String {
    let all: String = (1..=count).map(next).collect();
    format!("{first}{all}{last}")
}

fn patterns() -> Vec<String> {
    let many = |length: usize, what: &str| format!("replace(hex(zeroblob({length})), '00', '{what}')");
    let mut found = Vec::new();
    for length in [100, 4_900, 24_900, 100_000] {
        found.push(format!("SELECT {} || 'c' LIKE {}", many(length, "ab"), many(length, "%b")));
        found.push(format!("SELECT {} || 'c' GLOB {}", many(length, "ab"), many(length, "*b")));
        found.push(format!("SELECT {} LIKE {} ESCAPE '!'", many(length, "ab"), many(length, "_%")));
    }
    found
}

fn large() -> Vec<String> {
    [
        "SELECT hex(zeroblob(2000000000))",
        "SELECT zeroblob(2147483647)",
        "SELECT printf('%.*c', 2000000000, 'x')",
        "SELECT printf('%2000000000d', 1)",
        "SELECT format('%.2000000000f', 1.0)",
        "SELECT randomblob(2000000000)",
        "SELECT length(replace(hex(zeroblob(1000000)), '0', hex(zeroblob(1000000))))",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000) SELECT length(group_concat(hex(zeroblob(8000000)))) FROM c",
        "SELECT length(hex(zeroblob(20000000)) || hex(zeroblob(20000000)))",
        "WITH RECURSIVE c(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM c WHERE length(s) < 2000000) SELECT max(length(s)) FROM c",
        "SELECT json_extract(json_array(zeroblob(10)), '$[0]')",
        "SELECT char(0, 1114112, -1), unicode(zeroblob(3)), quote(zeroblob(100000))",
        "SELECT instr(zeroblob(6000000), x'01')",
        "SELECT substr('abc', -9223372036854775807 - 1, 9223372036854775807)",
        "SELECT HOTSTANDBY_OUTCOME(hex(zeroblob(10000000))), HOTSTANDBY_OUTCOME(zeroblob(1000000))",
        "SELECT strftime(hex(zeroblob(1000000)), 'now'), date('now', hex(zeroblob(1000000)))",
        "SELECT * FROM json_tree(json_array(1)), json_each('[1,2]'), pragma_table_list, pragma_function_list",
        "SELECT * FROM sqlite_dbpage",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('x'), snippet(1), rtreenode(2, x'0000')",
        "SELECT rtreecheck('t'), rtreedepth(zeroblob(5)), rtreenode(2, zeroblob(1000))",
        "SELECT abs(-9223372036854775808), sum(9223372036854775807) FROM t",
        "PRAGMA integrity_check(1000000000)",
        "PRAGMA hard_heap_limit = 1",
        "PRAGMA soft_heap_limit = 1",
        "SELECT * FROM pragma_hard_heap_limit(1)",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What the administrator has nested.
fn of_definitions() -> Vec<String> {
    [
        "SELECT * FROM v300",
        "SELECT * FROM v150 a, v150 b",
        "SELECT c1899 FROM g",
        "SELECT * FROM g a, g b",
        "SELECT max(c1899, c1898) FROM g GROUP BY c1897 ORDER BY c1896",
        "SELECT * FROM h",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// One in the other, so deep.
fn deep(count: usize) -> Vec<String> {
    vec![
        nested("(", count, "1", ")"),
        nested("-", count, " 1", ""),
        nested("NOT ", count, "1", ""),
        nested("abs(", count, "1", ")"),
        nested("coalesce(1, ", count, "1", ")"),
        nested("CASE WHEN 1 THEN ", count, "1", " END"),
        nested("CAST(", count, "1", " AS TEXT)"),
        nested("(", count, "1", ")::int8"),
        nested("(SELECT ", count, "1", ")"),
        nested("EXISTS (SELECT 1 FROM t WHERE ", count, "1", ")"),
        nested("1 IN (", count, "1", ")"),
        nested("(1, ", count, "1", ")"),
        nested("sum(", count, "1", ") OVER ()"),
        nested("* FROM (SELECT ", count, "1", ")"),
        nested("* FROM (SELECT ", count, "1", " LIMIT 5)"),
        nested("1 FROM (t JOIN ", count, "t", ")"),
        nested("json_array(", count, "1", ")"),
        format!("SELECT json('{}1{}')", "[".repeat(count), "]".repeat(count)),
        format!("SELECT json_patch('{}1{}', '{{}}')", "{\"a\":".repeat(count), "}".repeat(count)),
        format!("SELECT count(*) FROM json_tree('{}1{}')", "[".repeat(count), "]".repeat(count)),
        format!("SELECT json_set('{{}}', '${}', 1)", ".a".repeat(count)),
    ]
}

/// One after the other, so many.
fn many(count: usize) -> Vec<String> {
    vec![
        repeated("SELECT 1", "+1", count),
        repeated("SELECT 1", "::text", count),
        repeated("SELECT 'a'", "||'a'", count),
        repeated("SELECT '{}'", "->'a'", count),
        repeated("SELECT id", " COLLATE NOCASE", count) + " FROM t",
        repeated("SELECT id", " BETWEEN 1 AND 2", count / 9) + " FROM t",
        repeated("SELECT * FROM t WHERE id = 1", " OR id = 2", count),
        repeated("SELECT * FROM t WHERE id = 1", " AND id = 2", count),
        repeated("SELECT 1", " UNION ALL SELECT 1", count),
        repeated("SELECT 1", " UNION SELECT 1", count),
        repeated("SELECT 1", " EXCEPT SELECT 1", count),
        repeated("VALUES (1)", ", (1)", count),
        repeated("SELECT 1", ", 1", count),
        repeated("SELECT max(1", ", 1", count) + ")",
        repeated("SELECT 1 IN (1", ", 1", count) + ")",
        repeated("SELECT 1 FROM t", ", t", count),
        repeated("SELECT 1 FROM t", " LEFT JOIN t USING (id)", count),
        repeated("SELECT 1 FROM t GROUP BY id", ", id + 1", count),
        repeated("SELECT 1 FROM t ORDER BY id", ", id + 1", count),
    ]
}

/// Texts so long that nothing else is needed, parameters, and what refers to one another.
fn long(count: usize) -> Vec<String> {
    let cte = |next: &str| {
        let link =
            |number: usize| format!(", c{number} AS ({})", next.replace("{}", &format!("c{}", number - 1)));
        chain("WITH c0 AS (SELECT 1 a)", link, count / 6, &format!(" SELECT * FROM c{}", count / 6))
    };
    vec![
        repeated("SELECT $1", ", $1", count),
        (1..=count).fold("SELECT 1".to_owned(), |text, number| format!("{text}, ${number}")),
        format!("SELECT {}", "x".repeat(count * 100)),
        format!("SELECT 1 AS \"{}\"", "x".repeat(count * 100)),
        format!("SELECT '{}'", "x".repeat(count * 100)),
        format!("SELECT 1{}", "0".repeat(count * 100)),
        format!("SELECT ${}", "9".repeat(count)),
        format!("SELECT {}", "$a$".repeat(count)),
        ";".repeat(count * 100),
        "/*".repeat(count * 100),
        "(".repeat(count * 100),
        "'".repeat(count * 100 + 1),
        "SELECT 1;".repeat(count),
        cte("SELECT * FROM {}"),
        cte("SELECT a FROM {} LIMIT 10"),
        cte("SELECT a + 1 AS a FROM {}"),
        cte("SELECT 1 AS a WHERE 1 IN {}"),
        cte("SELECT a FROM {} UNION ALL SELECT 2"),
        cte("SELECT (SELECT a FROM {}) AS a"),
    ]
}

/// Parts of all of those.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "SELECT", "FROM", "t", "(", ")", "(SELECT", "1", "'a'", "LIKE", "'%a%'", "::text", "::int8", "||", ",", "*", "+",
    "UNION ALL SELECT", "WITH c AS (", "c", "hex(", "zeroblob(100000)", "printf('%*d', 1000,", "group_concat(", "json(",
    "'[[1]]'", "CASE WHEN", "THEN", "END", "$1", "$$x$$", "E'\\n'", "\"id\"", "[id]", "/* x */", "-- y\n", "OVER ()", "IN",
    "BETWEEN", "AND", "NOT", "ORDER BY", "LIMIT", "x'00ff'", "1e308", "EXPLAIN", "VALUES", "CAST(", "AS text)", ";",
];

/// Put together without understanding.
fn made_up(random: &mut Random) -> String {
    let mut text = "SELECT ".to_owned();
    for _ in 0..random.below(30) {
        let word = WORDS[random.below(WORDS.len() as u64) as usize];
        let times = if random.below(12) == 0 { random.below(3000) as usize + 1 } else { 1 };
        text += &format!("{word} ").repeat(times);
    }
    text
}

/// A pair with a user who may only read, and with definitions each deeper than the last: what SQLite may nest, and more.
fn pair_with_definitions() -> (tempfile::TempDir, Pair) {
    let (root, pair) = connected_pair("");
    let views: String = (1..=300)
        .map(|number| format!("CREATE VIEW v{number} AS SELECT a FROM v{} UNION SELECT 2;", number - 1))
        .collect();
    let generated = |count: usize| -> String {
        (1..count).map(|number| format!(", c{number} AS (c{} + 1)", number - 1)).collect()
    };
    sql(&pair.first)
        .batch_execute(&format!(
            "CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1);
             CREATE USER reader IDENTIFIED BY 'reader'; REVOKE READ_WRITE_ROLE FROM reader;
             CREATE VIEW v0 AS SELECT 1 AS a; {views}
             CREATE TABLE g (x, c0 AS (x + 1){}); INSERT INTO g VALUES (1);
             CREATE TABLE h (x, c0 AS (x + 1){}); INSERT INTO h VALUES (1)",
            generated(1900),
            generated(200)
        ))
        .unwrap();
    assert_identical(&pair);
    (root, pair)
}

fn assert_whole(pair: &Pair) {
    let states = (state(&pair.first), state(&pair.second));
    assert_eq!(states, ("PRIMARY ACTIVE".into(), "SECONDARY ACTIVE".into()));
    assert_identical(pair);
}

#[test]
fn no_statement_of_a_user_who_may_only_read_ends_a_server() {
    let (_root, pair) = pair_with_definitions();
    let mut random = Random::seeded("hostile statements");
    let statements: Vec<String> = [patterns(), large(), of_definitions()]
        .into_iter()
        .chain([990, 2_400].into_iter().flat_map(|count| [deep(count), many(count), long(count)]))
        .flatten()
        .chain((0..from_environment("HSB_HOSTILE_STATEMENTS", 40)).map(|_| made_up(&mut random)))
        .collect();
    std::thread::scope(|scope| {
        for server in [&pair.first, &pair.second] {
            let mut session = connect(server);
            // Some would run for ever.
            session.batch_execute("SET statement_timeout = '300ms'").unwrap();
            let statements = &statements;
            scope.spawn(move || statements.iter().for_each(|text| attack(server, &mut session, text)));
        }
    });
    assert_whole(&pair);
}

#[test]
fn no_chain_of_triggers_or_cascades_ends_a_server() {
    let (_root, pair) = connected_pair("");
    let mut session = sql(&pair.first);
    let triggers: String = (1..=300)
        .map(|number| {
            format!(
                "CREATE TABLE a{number} (id BIGINT PRIMARY KEY);
                 CREATE TRIGGER r{number} AFTER INSERT ON a{0} BEGIN INSERT INTO a{number} VALUES (new.id); END;",
                number - 1
            )
        })
        .collect();
    session
        .batch_execute(&format!(
            "CREATE TABLE a0 (id BIGINT PRIMARY KEY); {triggers}
             CREATE TABLE n (id INTEGER PRIMARY KEY, above REFERENCES n ON DELETE CASCADE);
             INSERT INTO n WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 5000)
             SELECT i, nullif(i - 1, 0) FROM c"
        ))
        .unwrap();
    session.batch_execute("INSERT INTO a0 VALUES (1)").unwrap();
    // As deep as may be, and deeper.
    session.batch_execute("DELETE FROM n WHERE id = 4100").unwrap();
    let error = session.batch_execute("DELETE FROM n WHERE id = 1").unwrap_err();
    let (code, message) = server_error(&error).unwrap();
    assert!(code == "54000" && message.contains("nested too deep"), "{code} {message}");
    assert_eq!(number(&mut session, "SELECT count(*) FROM n"), 4099);
    assert_whole(&pair);
    assert_eq!(number(&mut sql(&pair.second), "SELECT count(*) FROM a300"), 1);
}
