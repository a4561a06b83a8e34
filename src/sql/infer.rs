//! Guesses types that SQLite does not know: of parameters, and of result columns without a declared type.
//!
//! A look at neighbouring tokens, no analysis. What is not recognised stays unknown (0), which clients see as text.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::arithmetic::{Expression, number_of};
use super::lexer::{Token, TokenKind, unquoted};
use super::types;
use crate::storage::memory;

const MAX_DEPTH: usize = 32;

/// A statement's text with its tokens and the types of the columns of the tables it names.
pub struct Inference<'a> {
    pub(super) sql: &'a str,
    pub(super) tokens: &'a [Token],
    columns: HashMap<String, u32>,
    /// Names that may stand for columns of other types: of two tables, or renamed by a subquery.
    ambiguous: HashSet<String>,
    /// Columns of the table after INTO, in order.
    target_columns: Vec<u32>,
    /// It has UNION and the like.
    is_compound: bool,
    /// The parameter that was looked at last as one of a list, and its type.
    list: Cell<(usize, u32)>,
}

impl<'a> Inference<'a> {
    /// Looks up the tables that the statement names.
    pub fn new(connection: &Connection, sql: &'a str, tokens: &'a [Token]) -> Inference<'a> {
        let compound =
            |token: &Token| ["UNION", "INTERSECT", "EXCEPT"].iter().any(|word| token.is(sql, word));
        let mut known = HashSet::new();
        let mut inference = Inference {
            is_compound: tokens.iter().any(compound),
            list: Cell::new((0, 0)),
            sql,
            tokens,
            columns: HashMap::new(),
            ambiguous: HashSet::new(),
            target_columns: Vec::new(),
        };
        for index in 0..tokens.len() {
            let introduces =
                ["FROM", "JOIN", "UPDATE", "INTO"].iter().any(|word| tokens[index].is(sql, word));
            if !introduces {
                continue;
            }
            let mut at = index + 1;
            while let Some(token) = tokens.get(at) {
                if !matches!(token.kind, TokenKind::Word | TokenKind::Quoted) {
                    break;
                }
                let into = tokens[index].is(sql, "INTO");
                if known.insert((token.text(sql), into)) {
                    inference.add_table(connection, &unquoted(token.text(sql)), into);
                }
                let alias = tokens.get(at + 1).is_some_and(|token| token.kind == TokenKind::Word);
                at += if alias { 2 } else { 1 };
                if !tokens.get(at).is_some_and(|token| token.is_symbol(sql, ",")) {
                    break;
                }
                at += 1;
            }
        }
        inference.add_renamed();
        inference
    }

    /// Where the rows come from a subquery, a name counts only if nothing in the text can be giving it anew.
    fn add_renamed(&mut self) {
        let derived = (1..self.tokens.len()).any(|at| {
            self.word(Some(at), "SELECT")
                && self.symbol(Some(at - 1), "(")
                && (["FROM", "JOIN"].iter().any(|word| self.word(at.checked_sub(2), word))
                    || self.symbol(at.checked_sub(2), ","))
        });
        if !derived {
            return;
        }
        let before =
            ["SELECT", "DISTINCT", "WHERE", "AND", "OR", "NOT", "BY", "ON", "HAVING", "WHEN", "THEN"];
        for (index, token) in self.tokens.iter().enumerate().skip(1) {
            let previous = &self.tokens[index - 1];
            let used = match previous.kind {
                TokenKind::Symbol => previous.text(self.sql) != ")",
                _ => before.iter().any(|word| previous.is(self.sql, word)),
            };
            if !used && matches!(token.kind, TokenKind::Word | TokenKind::Quoted | TokenKind::Text) {
                self.ambiguous.insert(unquoted(token.text(self.sql)).to_ascii_lowercase());
            }
        }
    }

    fn add_table(&mut self, connection: &Connection, table: &str, into: bool) {
        let _fetching = memory::fetching();
        let Ok(mut statement) = connection.prepare("SELECT name, type FROM pragma_table_info(?1)") else {
            return;
        };
        let rows =
            statement.query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
        let Ok(rows) = rows else { return };
        for (name, declaration) in rows.flatten() {
            let oid = types::oid_of_declaration(&declaration);
            if into {
                self.target_columns.push(oid);
            }
            let name = name.to_ascii_lowercase();
            if *self.columns.entry(name.clone()).or_insert(oid) != oid {
                self.ambiguous.insert(name);
            }
        }
    }

    fn column(&self, index: usize) -> u32 {
        let Some(token) = self.tokens.get(index) else { return 0 };
        if !matches!(token.kind, TokenKind::Word | TokenKind::Quoted) {
            return 0;
        }
        self.columns.get(&unquoted(token.text(self.sql)).to_ascii_lowercase()).copied().unwrap_or(0)
    }

    fn is_operator(&self, index: usize) -> bool {
        let Some(token) = self.tokens.get(index) else { return false };
        let text = token.text(self.sql);
        let symbol = ["=", "==", "<", ">", "<=", ">=", "<>", "!=", "+", "-", "*", "/", "%"].contains(&text);
        (token.kind == TokenKind::Symbol && symbol) || token.is(self.sql, "LIKE")
    }

    pub(super) fn symbol(&self, index: Option<usize>, text: &str) -> bool {
        index.and_then(|index| self.tokens.get(index)).is_some_and(|token| token.is_symbol(self.sql, text))
    }

    pub(super) fn word(&self, index: Option<usize>, text: &str) -> bool {
        index.and_then(|index| self.tokens.get(index)).is_some_and(|token| token.is(self.sql, text))
    }

    /// Fills in the unknown (0) ones of the parameters `$1`, `$2`, ….
    pub fn parameters(&self, known: &mut [u32]) {
        let inserted = self.inserted();
        for (index, token) in self.tokens.iter().enumerate() {
            let number = token.text(self.sql).get(1..).and_then(|digits| digits.parse::<usize>().ok());
            let Some(place) =
                number.filter(|_| token.kind == TokenKind::Parameter).and_then(|n| n.checked_sub(1))
            else {
                continue;
            };
            let Some(slot) = known.get_mut(place).filter(|slot| **slot == 0) else { continue };
            *slot = match inserted.get(&index) {
                Some(oid) => *oid,
                None => self.parameter_at(index),
            };
        }
    }

    fn parameter_at(&self, index: usize) -> u32 {
        let before = |count: usize| index.checked_sub(count);
        if self.word(before(1), "LIMIT") || self.word(before(1), "OFFSET") {
            return types::INT8;
        }
        if self.word(before(1), "AS") || self.word(Some(index + 1), "AS") {
            let cast = self.symbol(before(1), "(") && self.word(before(2), "CAST");
            return match self.tokens.get(index + 2) {
                Some(token) if cast => types::oid_of_name(token.text(self.sql)),
                _ => 0,
            };
        }
        if let (Some(operator), Some(operand)) = (before(1), before(2))
            && self.is_operator(operator)
            && self.column(operand) != 0
        {
            return self.column(operand);
        }
        if self.is_operator(index + 1) {
            return self.column(index + 2);
        }
        if self.word(before(1), "BETWEEN") {
            return before(2).map_or(0, |at| self.column(at));
        }
        if self.word(before(1), "AND") && self.word(before(3), "BETWEEN") {
            return before(4).map_or(0, |at| self.column(at));
        }
        self.in_list(index)
    }

    /// `column [NOT] IN ($1, $2)`.
    fn in_list(&self, index: usize) -> u32 {
        let oid = self.in_list_after(index, self.list.get());
        self.list.set((index, oid));
        oid
    }

    /// With what was found for a parameter before, so that a long list is not gone through again for each of them.
    fn in_list_after(&self, index: usize, known: (usize, u32)) -> u32 {
        let mut at = index;
        while let Some(before) = at.checked_sub(1) {
            at = before;
            if at == known.0 && at > 0 {
                return known.1;
            }
            if self.symbol(Some(at), "(") {
                break;
            }
            if !self.symbol(Some(at), ",") && self.tokens[at].kind != TokenKind::Parameter {
                return 0;
            }
        }
        if !self.word(at.checked_sub(1), "IN") {
            return 0;
        }
        let column = if self.word(at.checked_sub(2), "NOT") { at.checked_sub(3) } else { at.checked_sub(2) };
        column.map_or(0, |column| self.column(column))
    }

    /// Types of the values in `INSERT INTO t (a, b) VALUES (…), (…)`, by token.
    fn inserted(&self) -> HashMap<usize, u32> {
        let mut found = HashMap::new();
        let Some(into) = self.tokens.iter().position(|token| token.is(self.sql, "INTO")) else {
            return found;
        };
        let Some(values) = self.tokens.iter().position(|token| token.is(self.sql, "VALUES")) else {
            return found;
        };
        let mut named = Vec::new();
        if let Some(open) = (into..values).find(|at| self.symbol(Some(*at), "(")) {
            let names = (open + 1..values).take_while(|at| !self.symbol(Some(*at), ")"));
            named.extend(names.filter(|at| !self.symbol(Some(*at), ",")).map(|at| self.column(at)));
        }
        let columns = if named.is_empty() { &self.target_columns } else { &named };
        let (mut depth, mut place) = (0usize, 0usize);
        for (index, token) in self.tokens.iter().enumerate().skip(values + 1) {
            match token.text(self.sql) {
                "(" => {
                    depth += 1;
                    if depth == 1 {
                        place = 0;
                    }
                }
                ")" => depth = depth.saturating_sub(1),
                "," if depth == 1 => place += 1,
                _ if depth == 1 && token.kind == TokenKind::Parameter => {
                    let alone = self.symbol(Some(index + 1), ",") || self.symbol(Some(index + 1), ")");
                    if let Some(oid) = columns.get(place).filter(|_| alone) {
                        found.insert(index, *oid);
                    }
                }
                _ if depth == 0 => break,
                _ => {}
            }
        }
        found
    }

    /// Types of the items of the select or returning list, for a statement of `count` columns: 0 unknown.
    pub fn results(&self, count: usize, parameters: &[u32]) -> Vec<u32> {
        let mut types = vec![0; count];
        if self.is_deep() {
            return types;
        }
        let items = self.items();
        let star = items.iter().position(|(start, end)| {
            (*start..*end).any(|at| {
                let calls = self.symbol(at.checked_sub(1), "(");
                self.symbol(Some(at), "*") && !calls && at + 1 == *end
            })
        });
        if star.is_none() && items.len() != count {
            return types;
        }
        for (place, (start, end)) in items.iter().enumerate() {
            let target = match star {
                Some(star) if place == star => continue,
                Some(star) if place > star => (count + place).checked_sub(items.len()),
                _ => Some(place),
            };
            if let Some(slot) = target.and_then(|target| types.get_mut(target)) {
                *slot = self.item(*start, *end, parameters);
            }
        }
        types
    }

    /// Parentheses nested deeper than is worth following; what follows them calls itself.
    fn is_deep(&self) -> bool {
        let mut depth = 0usize;
        self.tokens.iter().any(|token| {
            match token.text(self.sql) {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth > MAX_DEPTH
        })
    }

    fn items(&self) -> Vec<(usize, usize)> {
        let (mut depth, mut items, mut start) = (0usize, Vec::new(), None);
        let ends =
            ["FROM", "WHERE", "GROUP", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT", "HAVING", "WINDOW"];
        for (index, token) in self.tokens.iter().enumerate() {
            match token.text(self.sql) {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                "," => {
                    if let Some(begin) = start {
                        items.push((begin, index));
                        start = Some(index + 1);
                    }
                }
                _ if start.is_none() && (token.is(self.sql, "SELECT") || token.is(self.sql, "RETURNING")) => {
                    start = Some(index + 1);
                }
                _ if ends.iter().any(|word| token.is(self.sql, word)) => {
                    if let Some(begin) = start {
                        items.push((begin, index));
                        return items;
                    }
                }
                _ => {}
            }
        }
        if let Some(begin) = start {
            items.push((begin, self.tokens.len()));
        }
        items
    }

    pub(super) fn item(&self, start: usize, end: usize, parameters: &[u32]) -> u32 {
        let mut end = end;
        if end >= start + 3 && self.word(Some(end - 2), "AS") {
            end -= 2;
        } else if end >= start + 2
            && self.symbol(Some(end - 2), ")")
            && self.tokens.get(end - 1).is_some_and(|last| last.kind != TokenKind::Symbol)
        {
            end -= 1;
        }
        let Some(first) = self.tokens.get(start) else { return 0 };
        let text = first.text(self.sql);
        if start + 1 == end {
            return match first.kind {
                TokenKind::Number if text.parse::<i32>().is_ok() => types::INT4,
                TokenKind::Number if text.parse::<i64>().is_ok() => types::INT8,
                TokenKind::Number if text.parse::<f64>().is_ok() => types::FLOAT8,
                TokenKind::Text => types::TEXT,
                TokenKind::Parameter => {
                    let number = text.get(1..).and_then(|digits| digits.parse::<usize>().ok()).unwrap_or(0);
                    number.checked_sub(1).and_then(|place| parameters.get(place)).copied().unwrap_or(0)
                }
                TokenKind::Word if types::truth(text).is_some_and(|_| text.len() > 3) => types::BOOL,
                _ => 0,
            };
        }
        let whole_call = self.symbol(Some(start + 1), "(") && self.closes(start + 1) == end.saturating_sub(1);
        if whole_call {
            return self.call(&text.to_ascii_lowercase(), start, end, parameters);
        }
        // The other SELECTs of a compound may give anything in this place.
        if self.is_compound {
            return 0;
        }
        Expression { inference: self, parameters, at: start, end }.arithmetic()
    }

    /// Type of a single token that is an operand; 0 unknown.
    pub(super) fn operand(&self, index: usize, parameters: &[u32]) -> u32 {
        match self.item(index, index + 1, parameters) {
            0 => {
                let name = self.tokens.get(index).map(|token| unquoted(token.text(self.sql)));
                let ambiguous = name.is_some_and(|name| self.ambiguous.contains(&name.to_ascii_lowercase()));
                if ambiguous || self.word(Some(0), "WITH") { 0 } else { self.column(index) }
            }
            known => known,
        }
    }

    pub(super) fn closes(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for index in open..self.tokens.len() {
            match self.tokens[index].text(self.sql) {
                "(" => depth += 1,
                ")" if depth == 1 => return index,
                ")" => depth -= 1,
                _ => {}
            }
        }
        self.tokens.len()
    }

    fn call(&self, name: &str, start: usize, end: usize, parameters: &[u32]) -> u32 {
        match name {
            "count" | "length" | "instr" | "row_number" | "rank" | "dense_rank" | "pg_backend_pid" => {
                types::INT8
            }
            "avg" | "total" => types::FLOAT8,
            "exists" | "pg_is_in_recovery" => types::BOOL,
            "sum" | "abs" => number_of(self.common(start + 1, parameters), types::INT8),
            "max" | "min" | "coalesce" | "ifnull" => self.common(start + 1, parameters),
            "cast" => self
                .tokens
                .get(end.saturating_sub(2))
                .map_or(0, |token| types::oid_of_name(token.text(self.sql))),
            "upper"
            | "lower"
            | "substr"
            | "trim"
            | "replace"
            | "printf"
            | "format"
            | "group_concat"
            | "date"
            | "time"
            | "datetime"
            | "strftime"
            | "version"
            | "current_schema"
            | "current_database"
            | "current_user"
            | "now"
            | "session_user"
            | "typeof"
            | "hotstandby_state"
            | "hotstandby_connectstatus"
            | "hotstandby_role"
            | "hotstandby_outcome"
            | "login_server"
            | "quote"
            | "hex" => types::TEXT,
            _ => 0,
        }
    }
}
