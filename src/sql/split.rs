//! Cuts a text into statements: at semicolons, but not inside the body of a trigger.
//!
//! One statement after another, so that a text costs no more memory than its longest statement. A text that ends within a
//! quote or a comment is refused as a whole: what a client has cut is not what it meant.

use super::lexer::{self, Reader, Token, TokenKind};
use super::rewrite;
use super::statement::syntax;
use crate::error::ServerError;
use crate::storage::limits::MAX_TEXT_BYTES;

/// Words, numbers and signs of one statement.
const MAX_TOKENS: usize = 4_000_000;

/// The statements of a text, as tokens.
#[derive(Clone)]
pub struct Parts<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Parts<'a> {
    /// From the beginning; an error if the text is too long.
    pub fn of(sql: &'a str) -> Result<Parts<'a>, ServerError> {
        if sql.len() > MAX_TEXT_BYTES {
            let (length, limit) = (sql.len() >> 20, MAX_TEXT_BYTES >> 20);
            return Err(ServerError::sql(
                "54000",
                format!(
                    "a text of SQL may have {limit} MB and this one has {length}: send it in pieces, large values as parameters, many rows with COPY"
                ),
            ));
        }
        Ok(Parts { sql, at: 0 })
    }

    /// The tokens of the next statement; empty ones are passed over.
    pub fn take_next(&mut self) -> Result<Option<Vec<Token>>, ServerError> {
        let mut part = Vec::new();
        while let Some(token) = lexer::next_token(self.sql, &mut self.at) {
            if token.kind == TokenKind::Invalid {
                return Err(syntax(lexer::what_is_invalid(token.text(self.sql))));
            }
            if token.is_symbol(self.sql, ";") && !is_open_trigger(self.sql, &part) {
                if part.is_empty() {
                    continue;
                }
                return Ok(Some(part));
            }
            if part.len() == MAX_TOKENS {
                let text = format!("a statement may have {MAX_TOKENS} words and signs: send it in pieces");
                return Err(ServerError::sql("54000", text));
            }
            part.push(token);
        }
        Ok(Some(part).filter(|part| !part.is_empty()))
    }
}

/// True if this is a CREATE TRIGGER whose body has begun and has no end: the client has cut it at a semicolon.
pub fn is_cut(sql: &str, part: &[Token]) -> bool {
    is_open_trigger(sql, part) && !part.last().is_some_and(|last| last.is(sql, "END"))
}

/// True if it is CREATE TRIGGER.
pub fn is_trigger(sql: &str, part: &[Token]) -> bool {
    let mut reader = Reader::new(sql, part);
    if !reader.accept(&["CREATE"]) {
        return false;
    }
    let _ = reader.accept(&["TEMP"]) || reader.accept(&["TEMPORARY"]);
    reader.accept(&["TRIGGER"])
}

fn is_open_trigger(sql: &str, part: &[Token]) -> bool {
    let is_complete = match part {
        [.., before, last] => before.is_symbol(sql, ";") && last.is(sql, "END"),
        _ => false,
    };
    // The body begins before its first semicolon.
    let head = || part.iter().take_while(|token| !token.is_symbol(sql, ";"));
    !is_complete && is_trigger(sql, part) && head().any(|token| token.is(sql, "BEGIN"))
}

/// The text of a trigger whose body is in dollar quotes, which no client cuts, as SQLite takes it: `… AS $$ a; b; $$`
/// becomes `… BEGIN a; b; END`. None if it is written otherwise.
pub fn without_dollar_quotes(sql: &str, part: &[Token]) -> Result<Option<String>, ServerError> {
    let [first, .., before, body] = part else { return Ok(None) };
    if body.kind != TokenKind::DollarText || !before.is(sql, "AS") || !is_trigger(sql, part) {
        return Ok(None);
    }
    let body = rewrite::dollar_quoted(body.text(sql));
    let tokens = lexer::tokens(body);
    let mut inner = tokens.as_slice();
    if let [begin, rest @ ..] = inner
        && begin.is(body, "BEGIN")
    {
        inner = match rest {
            [rest @ .., end, last] if last.is_symbol(body, ";") && end.is(body, "END") => rest,
            [rest @ .., end] if end.is(body, "END") => rest,
            _ => return Err(syntax("the body of the trigger begins with BEGIN and does not end with END")),
        };
    }
    let (Some(start), Some(last)) = (inner.first(), inner.last()) else {
        return Err(syntax("the body of the trigger is empty"));
    };
    let head = sql.get(first.start..before.start).unwrap_or("");
    let statements = body.get(start.start..last.end).unwrap_or("");
    let semicolon = if last.is_symbol(body, ";") { "" } else { ";" };
    let text = format!("{head}BEGIN {statements}{semicolon} END");
    let mut parts = Parts::of(&text)?;
    let whole = parts.take_next()?.is_some_and(|part| !is_open_trigger(&text, &part));
    if !whole || parts.take_next()?.is_some() {
        return Err(syntax("the body of the trigger ends before its dollar quotes do"));
    }
    Ok(Some(text))
}
