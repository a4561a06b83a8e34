//! A user who may only read sends what is deep, long or large: an error or an answer, and never the end of a server.

use crate::common::{connected_pair, server_error, sql, state};
use hotstandby::demo::pair::{PATIENCE, Server};
use postgres::{Client, NoTls};

const USER: (&str, &str) = ("reader", "reader");

fn connect(server: &Server) -> Client {
    let mut configuration = postgres::Config::new();
    configuration.hostaddr(server.host).port(server.port).user(USER.0).password(USER.1).dbname("x");
    configuration.connect_timeout(PATIENCE).connect(NoTls).unwrap()
}

/// Sends a statement in the simple and in the extended protocol; the answer may be anything but the end.
fn attack(server: &Server, session: &mut Client, statement: &str) {
    let shown: String = statement.chars().take(200).collect();
    let simple = session.simple_query(statement).map(drop);
    let extended =
        session.prepare(statement).and_then(|prepared| session.query_raw(&prepared, [0_i32; 0]).map(drop));
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
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000) SELECT length(group_concat(hex(zeroblob(100000)))) FROM c",
        "WITH RECURSIVE c(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM c WHERE length(s) < 4000000000) SELECT max(length(s)) FROM c",
        "SELECT json_extract(json_array(zeroblob(10)), '$[0]')",
        "SELECT char(0, 1114112, -1), unicode(zeroblob(3)), quote(zeroblob(100000))",
        "SELECT instr(zeroblob(60000000), x'01')",
        "SELECT substr('abc', -9223372036854775807 - 1, 9223372036854775807)",
        "SELECT HOTSTANDBY_OUTCOME(hex(zeroblob(10000000))), HOTSTANDBY_OUTCOME(zeroblob(60000000))",
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

/// Everything that can be made deep or long, so deep and so long.
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
        repeated("SELECT 1", "+1", count),
        repeated("SELECT 1", "::text", count),
        repeated("SELECT 'a'", "||'a'", count),
        repeated("SELECT '{}'", "->'a'", count),
        repeated("SELECT id", " COLLATE NOCASE", count) + " FROM t",
        repeated("SELECT id", " BETWEEN 1 AND 2", count) + " FROM t",
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

#[test]
fn no_statement_of_a_user_who_may_only_read_ends_a_server() {
    let (_root, pair) = connected_pair("");
    sql(&pair.first)
        .batch_execute(
            "CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1);
             CREATE USER reader IDENTIFIED BY 'reader'; REVOKE READ_WRITE_ROLE FROM reader",
        )
        .unwrap();
    let user = |server: &Server| {
        crate::common::wait_until("the user is there", || {
            crate::common::number(&mut sql(server), "SELECT count(*) FROM sqlite_schema WHERE name = 't'")
                == 1
        });
        connect(server)
    };
    let statements: Vec<String> = patterns().into_iter().chain(large()).chain(deep(990)).collect();
    std::thread::scope(|scope| {
        for server in [&pair.first, &pair.second] {
            let mut session = user(server);
            session.batch_execute("SET statement_timeout = 300").unwrap();
            let statements = &statements;
            scope.spawn(move || statements.iter().for_each(|text| attack(server, &mut session, text)));
        }
    });
    assert_eq!(
        (state(&pair.first), state(&pair.second)),
        ("PRIMARY ACTIVE".into(), "SECONDARY ACTIVE".into())
    );
    crate::common::assert_identical(&pair);
}
