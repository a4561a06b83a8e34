//! Turns the PostgreSQL-isms that drivers and pgbench send into SQLite's SQL.
//!
//! Each rewriting is local: it looks at a few tokens and edits them in place. What is not listed here passes
//! unchanged and SQLite judges it.

use super::function_types::is_called_as_a_word;
use super::lexer::{Reader, Token, TokenKind, quoted, unquoted};
use super::statement::{Kind, syntax};
use crate::error::ServerError;
use crate::pgtypes::{self, Cast};

/// Replacement of a stretch of the text.
pub struct Edit {
    /// First byte.
    pub start: usize,
    /// Byte after the last; the first one's again where something is only inserted.
    pub end: usize,
    /// What stands there instead.
    pub text: String,
}

/// Cuts a trailing `FOR UPDATE …` or `FOR SHARE …`; true if there was one.
pub fn without_lock_clause<'a>(sql: &str, part: &'a [Token]) -> (&'a [Token], bool) {
    for index in (1..part.len().saturating_sub(1)).rev().take(8) {
        let locks = ["UPDATE", "SHARE", "NO"].iter().any(|word| part[index + 1].is(sql, word));
        if part[index].is(sql, "FOR") && locks {
            return (&part[..index], true);
        }
    }
    (part, false)
}

/// Rewrites names, strings and casts inside a statement.
pub fn expressions(sql: &str, part: &[Token]) -> String {
    let mut edits = Vec::new();
    // Where the operand of the cast that ended just before starts, for chains of casts.
    let mut cast: Option<(usize, usize)> = None;
    let mut opened = Vec::new();
    for (index, token) in part.iter().enumerate() {
        let text = token.text(sql);
        match token.kind {
            TokenKind::EscapeText | TokenKind::DollarText => {
                edits.push(Edit { start: token.start, end: token.end, text: plain_string(text) });
            }
            TokenKind::Word => {
                if opened.is_empty() && token.is(sql, "CAST") {
                    opened = opening_places(sql, part);
                }
                word_edit(sql, part, index, &mut edits);
            }
            TokenKind::Symbol if text == ")" && !opened.is_empty() => {
                edits.extend(cast_to_text(sql, part, index, opened[index]));
            }
            TokenKind::Symbol if text == "::" => {
                let operand = match cast {
                    Some((end, operand)) if end == index => operand,
                    _ => {
                        if opened.is_empty() {
                            opened = opening_places(sql, part);
                        }
                        operand_start(sql, part, index, &opened)
                    }
                };
                let end = cast_edit(sql, part, index, operand, &mut edits);
                cast = Some((end, operand));
            }
            _ => {}
        }
    }
    apply(sql, part, edits)
}

fn apply(sql: &str, part: &[Token], mut edits: Vec<Edit>) -> String {
    let (Some(first), Some(last)) = (part.first(), part.last()) else { return String::new() };
    let whole = sql.get(first.start..last.end).unwrap_or("");
    if edits.is_empty() {
        return whole.to_string();
    }
    // What is inserted before a token comes before what replaces it.
    edits.sort_by_key(|edit| (edit.start, edit.end));
    let mut out = String::with_capacity(whole.len() + 64);
    let mut at = first.start;
    for edit in edits {
        if edit.start < at {
            continue;
        }
        out.push_str(sql.get(at..edit.start).unwrap_or(""));
        out.push_str(&edit.text);
        at = edit.end;
    }
    out.push_str(sql.get(at..last.end).unwrap_or(""));
    out
}

fn word_edit(sql: &str, part: &[Token], index: usize, edits: &mut Vec<Edit>) {
    let token = part[index];
    let next_is = |symbol: &str| part.get(index + 1).is_some_and(|next| next.is_symbol(sql, symbol));
    let after_dot = index > 0 && part[index - 1].is_symbol(sql, ".");
    let text = token.text(sql);
    if after_dot {
        return;
    }
    if is_called_as_a_word(text) && !next_is("(") && !next_is(".") {
        edits.push(Edit { start: token.end, end: token.end, text: "()".into() });
    } else if text.eq_ignore_ascii_case("pg_catalog") && next_is(".") {
        let calls = part.get(index + 3).is_some_and(|token| token.is_symbol(sql, "("));
        if calls {
            edits.push(Edit { start: token.start, end: part[index + 1].end, text: String::new() });
        }
    }
}

/// For each closing parenthesis the place of the one that opened it, found once for all of them.
fn opening_places(sql: &str, part: &[Token]) -> Vec<usize> {
    let (mut places, mut open) = (vec![0; part.len()], Vec::new());
    for (index, token) in part.iter().enumerate() {
        if token.is_symbol(sql, "(") {
            open.push(index);
        } else if token.is_symbol(sql, ")") {
            places[index] = open.pop().unwrap_or(0);
        }
    }
    places
}

fn operand_start(sql: &str, part: &[Token], index: usize, opened: &[usize]) -> usize {
    let Some(mut at) = index.checked_sub(1) else { return index };
    if part[at].is_symbol(sql, ")") {
        at = opened[at];
        let called = at > 0 && part[at - 1].kind == TokenKind::Word && part[at - 1].end == part[at].start;
        return if called { at - 1 } else { at };
    }
    while at >= 2 && part[at - 1].is_symbol(sql, ".") {
        at -= 2;
    }
    at
}

/// Rewrites `operand::type`; tells the token after the type.
/// SQLite would make a number of the operand of `CAST(… AS date)`, because it does not know the name.
fn cast_to_text(sql: &str, part: &[Token], closing: usize, opening: usize) -> Option<Edit> {
    if opening == 0 || !part[opening - 1].is(sql, "CAST") {
        return None;
    }
    // The longest is `timestamp(3) without time zone`.
    let from = closing.saturating_sub(8).max(opening);
    let keyword = (from..closing).rev().find(|at| part[*at].is(sql, "AS"))?;
    let (name, end) = type_name(sql, part, keyword + 1);
    let is_text = end == closing && pgtypes::is_text_unknown_to_sqlite(&name);
    is_text.then(|| Edit { start: part[keyword + 1].start, end: part[end - 1].end, text: "TEXT".into() })
}

fn cast_edit(sql: &str, part: &[Token], index: usize, operand: usize, edits: &mut Vec<Edit>) -> usize {
    let (name, end) = type_name(sql, part, index + 1);
    let colon = part[index].start;
    let type_end = part.get(end.saturating_sub(1)).map_or(part[index].end, |token| token.end);
    let texts = [TokenKind::Text, TokenKind::EscapeText, TokenKind::DollarText];
    let literal = part.get(operand).filter(|token| operand + 1 == index && texts.contains(&token.kind));
    // The names keep PostgreSQL's sizes for whoever reads the type later; SQLite takes its affinity from them.
    match pgtypes::cast_to(&name) {
        Some(Cast::As(target, _)) => {
            let start = part[operand].start;
            edits.push(Edit { start, end: start, text: "CAST(".into() });
            edits.push(Edit { start: colon, end: type_end, text: format!(" AS {target})") });
        }
        Some(Cast::Literal(made, _)) => {
            let value = literal.map(|token| (token.start, literal_value(sql, token)));
            let replaced = value.and_then(|(start, value)| made(&value).map(|text| (start, text)));
            match replaced {
                Some((start, text)) => {
                    edits.retain(|edit| edit.start != start);
                    edits.push(Edit { start, end: type_end, text });
                }
                None => edits.push(Edit { start: colon, end: type_end, text: String::new() }),
            }
        }
        Some(Cast::Dropped) | None => edits.push(Edit { start: colon, end: type_end, text: String::new() }),
    }
    end
}

fn literal_value(sql: &str, token: &Token) -> String {
    let text = token.text(sql);
    unquoted(&if token.kind == TokenKind::Text { text.to_string() } else { plain_string(text) })
}

/// The type name at `at`, and the token after it.
pub fn type_name(sql: &str, part: &[Token], at: usize) -> (String, usize) {
    let mut end = at + 1;
    let mut name = part.get(at).map(|token| unquoted(token.text(sql))).unwrap_or_default();
    if part.get(end).is_some_and(|token| token.is_symbol(sql, ".")) {
        name = part.get(end + 1).map(|token| unquoted(token.text(sql))).unwrap_or_default();
        end += 2;
    }
    for follow in [["double", "precision"], ["character", "varying"], ["bit", "varying"]] {
        if name.eq_ignore_ascii_case(follow[0]) && part.get(end).is_some_and(|token| token.is(sql, follow[1]))
        {
            end += 1;
        }
    }
    if part.get(end).is_some_and(|token| token.is_symbol(sql, "(")) {
        while end < part.len() && !part[end].is_symbol(sql, ")") {
            end += 1;
        }
        end = (end + 1).min(part.len());
    }
    let zone = |word: &str| part.get(end).is_some_and(|token| token.is(sql, word));
    if zone("with") || zone("without") {
        end = (end + 3).min(part.len());
    }
    (name, end.min(part.len()))
}

/// A plain literal for `E'…'` or `$tag$…$tag$`.
fn plain_string(text: &str) -> String {
    let value = if text.starts_with('$') {
        dollar_quoted(text).to_string()
    } else {
        unescaped(text.get(2..text.len().saturating_sub(1)).unwrap_or(""))
    };
    format!("'{}'", value.replace('\'', "''"))
}

/// What stands between the tags of `$tag$…$tag$`.
pub fn dollar_quoted(text: &str) -> &str {
    let tag = text.get(1..).and_then(|rest| rest.find('$')).map_or(0, |end| end + 2);
    text.get(tag..text.len().saturating_sub(tag)).unwrap_or("")
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\'' => {
                let _ = rest.next_if_eq(&'\'');
                out.push('\'');
            }
            '\\' => match rest.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some(kind @ ('x' | 'u' | 'U' | '0'..='7')) => out.push(coded(kind, &mut rest)),
                Some(other) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    out
}

/// The character that `\x41`, `\101`, `\u0041` and `\U00000041` stand for; without digits the letter itself.
fn coded(kind: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> char {
    let (radix, most) = match kind {
        'x' => (16, 2),
        'u' => (16, 4),
        'U' => (16, 8),
        _ => (8, 2),
    };
    let mut code = kind.to_digit(8).filter(|_| radix == 8);
    for _ in 0..most {
        let Some(digit) = rest.peek().and_then(|next| next.to_digit(radix)) else { break };
        rest.next();
        code = Some(code.unwrap_or(0).wrapping_mul(radix) + digit);
    }
    code.map_or(kind, |code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// Rewrites CREATE, DROP and ALTER; may become several statements.
pub fn schema(sql: &str, part: &[Token]) -> Result<(Kind, String), ServerError> {
    let mut reader = Reader::new(sql, part);
    if reader.accept(&["DROP"]) {
        return drop_several(&mut reader, sql, part);
    }
    if reader.accept(&["ALTER", "TABLE"]) {
        let _ = reader.accept(&["IF", "EXISTS"]);
        let _ = reader.accept(&["ONLY"]);
        if let Some(text) = add_key(&mut reader)? {
            return Ok((Kind::Schema, text));
        }
        let text = apply(sql, part, super::columns::edits(sql, part));
        return Ok((Kind::Schema, expressions(&text, &super::lexer::tokens(&text))));
    }
    if reader.accept(&["CREATE", "DATABASE"]) || reader.accept(&["CREATE", "SCHEMA"]) {
        return Err(ServerError::sql("0A000", "there is one database with one schema; create tables in it"));
    }
    let text = apply(sql, part, create_edits(sql, part));
    let again = super::lexer::tokens(&text);
    Ok((Kind::Schema, expressions(&text, &again)))
}

fn drop_several(reader: &mut Reader<'_>, sql: &str, part: &[Token]) -> Result<(Kind, String), ServerError> {
    let Some(object) = ["TABLE", "VIEW", "INDEX", "TRIGGER"].into_iter().find(|word| reader.accept(&[word]))
    else {
        return Ok((Kind::Schema, expressions(sql, part)));
    };
    let if_exists = if reader.accept(&["IF", "EXISTS"]) { "IF EXISTS " } else { "" };
    let names = name_list(reader)?;
    let mut drops: Vec<String> =
        names.iter().map(|name| format!("DROP {object} {if_exists}{name}")).collect();
    if drops.len() == 1 {
        return Ok((Kind::Schema, drops.remove(0)));
    }
    Ok((Kind::Several(drops, true), String::new()))
}

/// `a, b, c [CASCADE|RESTRICT]` up to the end.
pub fn name_list(reader: &mut Reader<'_>) -> Result<Vec<String>, ServerError> {
    let mut names = vec![qualified_name(reader)?];
    while reader.accept_symbol(",") {
        names.push(qualified_name(reader)?);
    }
    let _ = reader.accept(&["RESTART", "IDENTITY"]) || reader.accept(&["CONTINUE", "IDENTITY"]);
    let _ = reader.accept(&["CASCADE"]) || reader.accept(&["RESTRICT"]);
    if !reader.at_end() {
        return Err(syntax(format!("syntax error at \"{}\"", reader.rest())));
    }
    Ok(names)
}

/// A name, quoted for SQLite; the schema `public` is ours and dropped.
pub fn qualified_name(reader: &mut Reader<'_>) -> Result<String, ServerError> {
    let missing = || syntax("a name is missing");
    let first = reader.name().ok_or_else(missing)?;
    if !reader.accept_symbol(".") {
        return Ok(quoted(&first));
    }
    let second = reader.name().ok_or_else(missing)?;
    if first.eq_ignore_ascii_case("public") {
        return Ok(quoted(&second));
    }
    Ok(format!("{}.{}", quoted(&first), quoted(&second)))
}

/// `ALTER TABLE t ADD PRIMARY KEY (c)`: SQLite cannot add one, a unique index does what it is for.
fn add_key(reader: &mut Reader<'_>) -> Result<Option<String>, ServerError> {
    let table = qualified_name(reader)?;
    if !reader.accept(&["ADD"]) {
        return Ok(None);
    }
    let named = if reader.accept(&["CONSTRAINT"]) { reader.name() } else { None };
    let suffix = if reader.accept(&["PRIMARY", "KEY"]) {
        "pkey"
    } else if reader.accept(&["UNIQUE"]) {
        "key"
    } else if reader.accept(&["FOREIGN", "KEY"]) {
        return Err(ServerError::sql(
            "0A000",
            "a foreign key cannot be added to a table; name it in CREATE TABLE",
        ));
    } else {
        return Ok(None);
    };
    let name = named.unwrap_or_else(|| format!("{}_{suffix}", table.trim_matches('"')));
    Ok(Some(format!("CREATE UNIQUE INDEX IF NOT EXISTS {} ON {table} {}", quoted(&name), reader.rest())))
}

fn create_edits(sql: &str, part: &[Token]) -> Vec<Edit> {
    let mut edits = super::columns::edits(sql, part);
    let mut cut = |start: usize, end: usize, text: &str| edits.push(Edit { start, end, text: text.into() });
    for (index, token) in part.iter().enumerate().skip(1) {
        let next = part.get(index + 1);
        let next_is = |symbol: &str| next.is_some_and(|next| next.is_symbol(sql, symbol));
        if token.kind != TokenKind::Word {
            continue;
        }
        match token.text(sql).to_ascii_lowercase().as_str() {
            "unlogged" if index == 1 => cut(token.start, token.end, ""),
            "concurrently" => cut(token.start, token.end, ""),
            "with" if next_is("(") && part[index - 1].is_symbol(sql, ")") => {
                let closing = part[index..].iter().find(|token| token.is_symbol(sql, ")"));
                cut(token.start, closing.map_or(token.end, |token| token.end), "");
            }
            "tablespace" => cut(token.start, next.map_or(token.end, |next| next.end), ""),
            "using" if next.is_some_and(|next| next.is(sql, "btree")) => {
                cut(token.start, next.map_or(token.end, |next| next.end), "");
            }
            "now" if part[index - 1].is(sql, "default") && next_is("(") => {
                let end = part.get(index + 2).map_or(token.end, |token| token.end);
                cut(token.start, end, "CURRENT_TIMESTAMP");
            }
            _ => {}
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use crate::sql::statement::{Kind, parse};

    fn sql_of(text: &str) -> String {
        parse(text).unwrap().remove(0).sql
    }

    #[test]
    fn casts_names_and_strings() {
        assert_eq!(
            sql_of(
                "select cast('2024-02-29' as date), CAST(f(x) AS timestamp(3) without time zone), cast(a as uuid) as date"
            ),
            "select cast('2024-02-29' as TEXT), CAST(f(x) AS TEXT), cast(a as TEXT) as date"
        );
        assert_eq!(
            sql_of("select cast(1 as int8), cast(b as bytea)"),
            "select cast(1 as int8), cast(b as bytea)"
        );
        assert_eq!(sql_of("select '12'::int8, a.b::text"), "select CAST('12' AS int8), CAST(a.b AS text)");
        assert_eq!(sql_of("select '\\x00ff'::bytea, $1::timestamp"), "select X'00ff', $1");
        assert_eq!(sql_of("select count(x)::float8 from t"), "select CAST(count(x) AS float8) from t");
        assert_eq!(sql_of("select pg_catalog.version(), current_user"), "select version(), current_user()");
        assert_eq!(sql_of(r"insert into t values (E'a\'b\n')"), "insert into t values ('a''b\n')");
        assert_eq!(sql_of("select 1::text::varchar(3)"), "select CAST(CAST(1 AS text) AS text)");
        assert_eq!(
            sql_of(r"select E'\\x00ff'::bytea, E'x\x41\101'::text, $$y$$::text, current_user::text"),
            "select X'00ff', CAST('xAA' AS text), CAST('y' AS text), CAST(current_user() AS text)"
        );
    }

    #[test]
    fn what_pgbench_sends() {
        let several = parse("drop table if exists a, b").unwrap().remove(0);
        assert!(matches!(several.kind, Kind::Several(list, true) if list.len() == 2));
        assert_eq!(sql_of("create table t(a int) with (fillfactor=100)"), "create table t(a int)");
        let index = sql_of("alter table t add primary key (a)");
        assert_eq!(index, "CREATE UNIQUE INDEX IF NOT EXISTS \"t_pkey\" ON \"t\" (a)");
        let locked = parse("select * from t where a = 1 for update").unwrap().remove(0);
        assert!(locked.locks && locked.sql == "select * from t where a = 1");
    }

    #[test]
    fn trigger_bodies_are_not_cut() {
        let text = "create trigger x after insert on t begin delete from u; select case when 1 then 2 end; end; select 1";
        assert_eq!(parse(text).unwrap().len(), 2);
    }
}
