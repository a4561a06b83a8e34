//! Definitions of columns as PostgreSQL writes them: types that SQLite would take for numbers, keys that it has to number, and
//! defaults that it would not parse.

use std::collections::HashSet;

use rusqlite::{Connection, Row};

use super::function_types::{is_called_as_a_word, may_stand_in_default};
use super::lexer::{Token, TokenKind};
use super::rewrite::{Edit, type_name};
use crate::pgtypes::{self, PgType, oid};
use crate::storage::memory;

/// The default of what was declared as bigserial. SQLite numbers a key that is called INTEGER and nothing else, so the size
/// cannot be in its type. This default means none; SQLite keeps it with the column, comment and all, whatever is renamed.
const BIG_SERIAL_DEFAULT: &str = "NULL /*bigserial*/";

/// Words that end the expression of a DEFAULT.
const CONSTRAINTS: [&str; 12] = [
    "AS",
    "CHECK",
    "COLLATE",
    "CONSTRAINT",
    "DEFAULT",
    "DEFERRABLE",
    "GENERATED",
    "NOT",
    "NULL",
    "PRIMARY",
    "REFERENCES",
    "UNIQUE",
];

/// Edits of the columns that CREATE TABLE or ALTER TABLE … ADD defines; none for other statements.
pub fn edits(sql: &str, part: &[Token]) -> Vec<Edit> {
    let word = |at: usize, word: &str| part.get(at).is_some_and(|token| token.is(sql, word));
    let mut edits = Vec::new();
    if word(0, "ALTER") {
        let Some(add) = part.iter().position(|token| token.is(sql, "ADD")) else { return edits };
        let start = add + if word(add + 1, "COLUMN") { 2 } else { 1 };
        definition(sql, &part[start.min(part.len())..], &mut edits);
        return edits;
    }
    if !word(1, "TABLE") && !word(2, "TABLE") {
        return edits;
    }
    let Some(open) = part.iter().position(|token| token.is_symbol(sql, "(")) else { return edits };
    if part[..open].iter().any(|token| token.is(sql, "AS")) {
        return edits;
    }
    let (mut depth, mut start) = (0usize, open + 1);
    for (at, token) in part.iter().enumerate().skip(open) {
        match token.text(sql) {
            "(" => depth += 1,
            ")" if depth > 1 => depth -= 1,
            "," | ")" if depth == 1 => {
                definition(sql, &part[start.min(at)..at], &mut edits);
                if token.is_symbol(sql, ")") {
                    break;
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    edits
}

/// The type of a column that the schema declares so, with this default.
pub fn declared_type(declaration: &str, default: Option<&str>) -> &'static PgType {
    let bare = |default: &str| default.trim_matches(['(', ')', ' ']) == BIG_SERIAL_DEFAULT;
    if may_be_big_serial(declaration) && default.is_some_and(bare) {
        return pgtypes::of_oid(oid::INT8);
    }
    pgtypes::of_declaration(declaration)
}

/// False where SQLite need not be asked for the default to know the type.
pub fn may_be_big_serial(declaration: &str) -> bool {
    declaration == "INTEGER"
}

/// The columns of a table that are bigserial. SQLite answers from the schema that the connection sees now, in a transaction
/// that has changed it as well; it finds the table by its name and reads nothing.
pub fn big_serials(connection: &Connection, schema: &str, table: &str) -> HashSet<String> {
    let _fetching = memory::fetching();
    let query = "SELECT name, type, dflt_value FROM pragma_table_info(?1, ?2) WHERE dflt_value IS NOT NULL";
    let Ok(mut asked) = connection.prepare_cached(query) else { return HashSet::new() };
    let of = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
    let Ok(rows) = asked.query_map([table, schema], of) else { return HashSet::new() };
    let is_big = |declaration: &str, default: &str| {
        may_be_big_serial(declaration) && declared_type(declaration, Some(default)).oid == oid::INT8
    };
    rows.flatten().filter(|(_, kind, default)| is_big(kind, default)).map(|(name, ..)| name).collect()
}

/// A column with its type and constraints, or a constraint of the table, which has neither.
fn definition(sql: &str, part: &[Token], edits: &mut Vec<Edit>) {
    let constraint = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "LIKE", "EXCLUDE"];
    if part.first().is_none_or(|first| constraint.iter().any(|word| first.is(sql, word))) {
        return;
    }
    edits.extend(text_type(sql, part).or_else(|| numbered_type(sql, part)));
    let mut depth = 0usize;
    for (at, token) in part.iter().enumerate().skip(1) {
        match token.text(sql) {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ if depth == 0 && token.is(sql, "DEFAULT") => default(sql, &part[at + 1..], edits),
            _ => {}
        }
    }
}

/// `uuid` becomes `uuid text`: SQLite takes it for a text by its last word, and its name stays in the schema.
fn text_type(sql: &str, part: &[Token]) -> Option<Edit> {
    let first = part.get(1).filter(|token| token.kind == TokenKind::Word)?;
    if !pgtypes::is_text_unknown_to_sqlite(first.text(sql)) {
        return None;
    }
    let end = type_name(sql, part, 1).1;
    let open = (1..end).find(|at| part[*at].is_symbol(sql, "(")).unwrap_or(end);
    let close = (open..end).find(|at| part[*at].is_symbol(sql, ")")).map_or(open, |close| close + 1);
    let follows = part.get(end);
    // An array, or a declaration that has been here before.
    if follows.is_some_and(|token| token.kind == TokenKind::Quoted || token.is(sql, "TEXT")) {
        return None;
    }
    let text_of = |tokens: &[Token]| {
        let words: Vec<&str> = tokens.iter().map(|token| token.text(sql)).collect();
        words.join(" ")
    };
    let mut text = text_of(&part[1..open]);
    if close < end {
        text.push(' ');
        text.push_str(&text_of(&part[close..end]));
    }
    text.push_str(" text");
    text.push_str(&text_of(&part[open..close]).replace(' ', ""));
    Some(Edit { start: first.start, end: part[end - 1].end, text })
}

/// A serial is what SQLite numbers if it is the key.
fn numbered_type(sql: &str, part: &[Token]) -> Option<Edit> {
    let kind = part.get(1)?;
    let is = |names: &[&str]| names.iter().any(|name| kind.is(sql, name));
    let text = if is(&["serial", "serial4", "smallserial", "serial2"]) {
        "INTEGER".to_string()
    } else if is(&["bigserial", "serial8"]) {
        format!("INTEGER DEFAULT ({BIG_SERIAL_DEFAULT})")
    } else {
        return None;
    };
    Some(Edit { start: kind.start, end: kind.end, text })
}

/// SQLite wants parentheses around whatever is more than a literal.
fn default(sql: &str, part: &[Token], edits: &mut Vec<Edit>) {
    let mut depth = 0usize;
    let end = part.iter().enumerate().position(|(at, token)| {
        match token.text(sql) {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        at > 0 && depth == 0 && CONSTRAINTS.iter().any(|word| token.is(sql, word))
    });
    let expression = &part[..end.unwrap_or(part.len())];
    let (Some(first), Some(last)) = (expression.first(), expression.last()) else { return };
    let plain = match expression {
        [only] => !is_called_as_a_word(only.text(sql)),
        [sign, number] => number.kind == TokenKind::Number && sign.kind == TokenKind::Symbol,
        // As it is written everywhere; it becomes CURRENT_TIMESTAMP.
        [name, _, _] if name.is(sql, "now") => true,
        [open, ..] if open.is_symbol(sql, "(") && last.is_symbol(sql, ")") => false,
        _ => expression.windows(2).any(|pair| {
            let call = pair[0].kind == TokenKind::Word && pair[1].is_symbol(sql, "(");
            call && pair[0].end == pair[1].start
                && !may_stand_in_default(pair[0].text(sql))
                && !is_sized_type(sql, expression, pair[0])
        }),
    };
    if !plain {
        edits.push(Edit { start: first.start, end: first.start, text: "(".into() });
        edits.push(Edit { start: last.end, end: last.end, text: ")".into() });
    }
}

/// `varchar(20)` in a cast looks like a call.
fn is_sized_type(sql: &str, expression: &[Token], name: Token) -> bool {
    let at = expression.iter().position(|token| token.start == name.start).unwrap_or(0);
    let cast = |at: usize| expression.get(at).is_some_and(|token| token.is_symbol(sql, "::"));
    at.checked_sub(1).is_some_and(cast) || at.checked_sub(2).is_some_and(cast)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use crate::sql::statement::parse;

    fn sql_of(text: &str) -> String {
        parse(text).unwrap().remove(0).sql
    }

    #[test]
    fn what_is_announced_as_text_is_text_to_sqlite() {
        assert_eq!(
            sql_of(
                "create table t (id uuid primary key, name name, at timestamp(3) with time zone not null, d date)"
            ),
            "create table t (id uuid text primary key, name name text, at timestamp with time zone text(3) not null, d date text)"
        );
        for same in [
            "create table t (uuid, date integer, a uuid text, b uuid[], c numeric(10,2), primary key (uuid))",
            "create table t as select cast(1 as int8)",
            "create index i on t (date)",
            "alter table t rename column date to day",
        ] {
            assert_eq!(sql_of(same), same);
        }
        assert_eq!(sql_of("alter table t add column a json"), "alter table t add column a json text");
    }

    #[test]
    fn serials_are_what_sqlite_numbers() {
        assert_eq!(
            sql_of("create table t (a serial primary key, b BIGSERIAL not null, c serial8, d serial4)"),
            "create table t (a INTEGER primary key, b INTEGER DEFAULT (NULL /*bigserial*/) not null, \
             c INTEGER DEFAULT (NULL /*bigserial*/), d INTEGER)"
        );
        for same in [
            "create table t (serial text, bigserial int, constraint serial unique (serial))",
            "create table t (a text default 'bigserial', b bigint /* bigserial */)",
        ] {
            assert_eq!(sql_of(same), same);
        }
    }

    #[test]
    fn a_big_serial_is_told_from_other_integers() {
        let connection = Connection::open_in_memory().unwrap();
        let is_big =
            |table: &str, column: &str| super::big_serials(&connection, "main", table).contains(column);
        let run = |text: &str| connection.execute_batch(&sql_of(text)).unwrap();
        run("create table t (a bigserial primary key, b serial, c integer default 'NULL /*bigserial*/', \
             d integer /*bigserial*/, e integer default (1 /*bigserial*/), f serial8)");
        let big = |table: &str, names: [&str; 6]| names.map(|name| is_big(table, name));
        let wanted = [true, false, false, false, false, true];
        assert_eq!(big("t", ["a", "b", "c", "d", "e", "f"]), wanted);
        run("alter table t rename column a to z");
        run("alter table t rename to \"it's\"");
        run("alter table \"it's\" drop column b");
        run("alter table \"it's\" rename column d to a");
        run("alter table \"it's\" add column b bigserial");
        assert_eq!(big("it's", ["z", "a", "c", "e", "f", "b"]), [true, false, false, false, true, true]);
        assert!(!is_big("t", "z"));
        // The key is numbered, and what a dump holds means the same again.
        connection.execute_batch("insert into \"it's\" (c) values (1)").unwrap();
        let z: i64 = connection.query_row("select z from \"it's\"", [], |row| row.get(0)).unwrap();
        assert_eq!(z, 1);
        let dumped: String = connection
            .query_row("select sql from sqlite_schema where name = 'it''s'", [], |row| row.get(0))
            .unwrap();
        connection.execute_batch("drop table \"it's\"").unwrap();
        run(&dumped);
        assert_eq!(big("it's", ["z", "a", "c", "e", "f", "b"]), [true, false, false, false, true, true]);
    }

    #[test]
    fn defaults_are_what_sqlite_takes() {
        for (sent, made) in [
            ("'x'::text", "(CAST('x' AS text))"),
            ("'x'::character varying(3) not null", "(CAST('x' AS text)) not null"),
            ("current_user", "(current_user())"),
            ("current_user::text", "(CAST(current_user() AS text))"),
            ("NULL::text", "(CAST(NULL AS text))"),
            ("-1::int", "(-CAST(1 AS int4))"),
            ("('a'::text)", "((CAST('a' AS text)))"),
            ("'f'::boolean", "(0)"),
            (r"E'a\'b'::text", "(CAST('a''b' AS text))"),
            ("'a' || 'b'", "('a' || 'b')"),
            ("now()", "CURRENT_TIMESTAMP"),
            // SQLite refuses what it would otherwise find missing at each INSERT.
            ("nextval('s'::text)", "nextval(CAST('s' AS text))"),
            ("-1", "-1"),
            ("'x' check (a <> 'y'::text)", "'x' check (a <> CAST('y' AS text))"),
        ] {
            let text = format!("create table t (a text default {sent}, b int)");
            assert_eq!(sql_of(&text), format!("create table t (a text default {made}, b int)"));
        }
    }
}
