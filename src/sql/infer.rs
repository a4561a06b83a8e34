//! Guesses types that SQLite does not know: of parameters, and of result columns without a declared type.
//!
//! A look at neighbouring tokens, no analysis. What is not recognised stays unknown (0), which clients see as text.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::Connection;

use super::arithmetic::{Expression, is_text, number_of};
use super::columns::declared_type;
use super::function_types::{Gives, gives};
use super::lexer::{Token, TokenKind, tokens, unquoted};
use super::operands::{Layout, Place};
use crate::pgtypes::{self, oid};
use crate::storage::memory;

const MAX_DEPTH: usize = 32;
/// In a longer statement nothing beside parameters is looked at: it would take memory by its length.
const MAX_TOKENS: usize = 500_000;
/// Views that are made of views are followed so far.
const MAX_VIEWS: usize = 4;

/// A statement's text with its tokens and the types of the columns of the tables it names.
pub struct Inference<'a> {
    pub(super) sql: &'a str,
    pub(super) tokens: &'a [Token],
    /// Columns by name: the table of each, by its place in `tables`, and its type.
    columns: HashMap<String, Vec<(usize, u32)>>,
    /// Tables by their names and aliases, as numbers.
    tables: HashMap<String, BTreeSet<usize>>,
    count: usize,
    /// Names that may stand for columns of other types: of two tables, or renamed by a subquery.
    ambiguous: HashSet<String>,
    /// Columns of the table after INTO, in order.
    target_columns: Vec<u32>,
    /// It has UNION and the like.
    is_compound: bool,
    /// There while parameters are looked at: what is probable counts then. Types of results have to be certain.
    pub(super) layout: Option<Layout>,
}

/// The type of an expression on columns of this type.
pub(super) fn computed(oid: u32) -> u32 {
    if oid == 0 { 0 } else { pgtypes::of_oid(oid).computed }
}

/// The place in `tables` of what the statement itself names.
const DERIVED: usize = usize::MAX;

/// Types of the columns of a view that are expressions; 0 unknown.
fn view_types(connection: &Connection, view: &str, count: usize, depth: usize) -> Vec<u32> {
    let query = "SELECT sql FROM sqlite_schema WHERE type = 'view' AND lower(name) = ?1";
    let definition = {
        let _fetching = memory::fetching();
        connection.query_row(query, [view], |row| row.get::<_, String>(0))
    };
    match definition {
        Ok(sql) if depth < MAX_VIEWS => {
            let parts = tokens(&sql);
            Inference::within(connection, &sql, &parts, depth + 1).results(count, &[])
        }
        _ => Vec::new(),
    }
}

impl<'a> Inference<'a> {
    /// Looks up the tables that the statement names.
    pub fn new(connection: &Connection, sql: &'a str, tokens: &'a [Token]) -> Inference<'a> {
        Inference::within(connection, sql, tokens, 0)
    }

    /// Of the definition of a view, within so many other ones.
    fn within(connection: &Connection, sql: &'a str, tokens: &'a [Token], depth: usize) -> Inference<'a> {
        let compound =
            |token: &Token| ["UNION", "INTERSECT", "EXCEPT"].iter().any(|word| token.is(sql, word));
        let mut inference = Inference {
            is_compound: tokens.iter().any(compound),
            sql,
            tokens,
            columns: HashMap::new(),
            tables: HashMap::new(),
            count: 0,
            ambiguous: HashSet::new(),
            target_columns: Vec::new(),
            layout: None,
        };
        for (index, first) in tokens.iter().enumerate() {
            let introduces = ["FROM", "JOIN", "UPDATE", "INTO"].iter().any(|word| first.is(sql, word));
            if !introduces {
                continue;
            }
            let mut at = index + 1;
            while let Some(mut table) = inference.name_at(at) {
                if inference.symbol(Some(at + 1), ".") {
                    table = inference.name_at(at + 2).unwrap_or(table);
                    at += 2;
                }
                at += if inference.word(Some(at + 1), "AS") { 2 } else { 1 };
                let alias = inference.name_at(at).filter(|_| !inference.is_boundary(at));
                at += usize::from(alias.is_some());
                inference.add_table(connection, table, alias, first.is(sql, "INTO"), depth);
                if !inference.symbol(Some(at), ",") {
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

    fn add_table(
        &mut self,
        connection: &Connection,
        table: String,
        alias: Option<String>,
        into: bool,
        depth: usize,
    ) {
        let place = match self.tables.get(&table).and_then(|places| places.first()) {
            Some(place) if !into => *place,
            _ => self.look_up(connection, &table, into, depth),
        };
        for name in [Some(table), alias].into_iter().flatten() {
            self.tables.entry(name).or_default().insert(place);
        }
    }

    fn look_up(&mut self, connection: &Connection, table: &str, into: bool, depth: usize) -> usize {
        let place = self.count;
        self.count += 1;
        let mut declared: Vec<(String, u32)> = {
            let _fetching = memory::fetching();
            let of = |row: &rusqlite::Row<'_>| {
                let (declaration, default) = (row.get::<_, String>(1)?, row.get::<_, Option<String>>(2)?);
                let kind = declared_type(&declaration, default.as_deref());
                Ok((row.get::<_, String>(0)?, if declaration.is_empty() { 0 } else { kind.oid }))
            };
            let statement = connection.prepare("SELECT name, type, dflt_value FROM pragma_table_info(?1)");
            let Ok(mut statement) = statement else { return place };
            let Ok(rows) = statement.query_map([table], of) else { return place };
            rows.flatten().collect()
        };
        if declared.iter().any(|(_, oid)| *oid == 0) {
            let types = view_types(connection, table, declared.len(), depth);
            declared
                .iter_mut()
                .zip(types)
                .filter(|((_, oid), _)| *oid == 0)
                .for_each(|(known, oid)| known.1 = oid);
        }
        for (name, oid) in declared {
            if into {
                self.target_columns.push(oid);
            }
            let name = name.to_ascii_lowercase();
            let known = self.columns.entry(name.clone()).or_default();
            if known.iter().any(|(_, other)| computed(*other) != computed(oid)) {
                self.ambiguous.insert(name);
            }
            known.push((place, oid));
        }
        place
    }

    /// The name at `index`, in small letters and without quotes.
    pub(super) fn name_at(&self, index: usize) -> Option<String> {
        let token = self.tokens.get(index)?;
        let name = matches!(token.kind, TokenKind::Word | TokenKind::Quoted);
        name.then(|| unquoted(token.text(self.sql)).to_ascii_lowercase())
    }

    /// Type that an expression has of the column that is named at `index`; 0 if it is none, or may be several of different
    /// types.
    fn column(&self, index: usize) -> u32 {
        computed(self.declared(index))
    }

    /// Type that the column is declared with that is named at `index`; 0 as above.
    pub(super) fn declared(&self, index: usize) -> u32 {
        let Some(known) = self.name_at(index).and_then(|name| self.columns.get(&name)) else { return 0 };
        let dot = index.checked_sub(1).filter(|dot| self.symbol(Some(*dot), "."));
        let qualifier = dot.and_then(|dot| dot.checked_sub(1)).and_then(|at| self.name_at(at));
        let places = qualifier.and_then(|qualifier| self.tables.get(&qualifier));
        let is_of = |table: &usize| places.is_some_and(|places| places.contains(table));
        let qualified = known.iter().any(|(table, _)| is_of(table));
        let mut types = known.iter().filter(|(table, _)| match qualified {
            true => is_of(table),
            false => *table != DERIVED || self.layout.is_some(),
        });
        let Some((_, first)) = types.next() else { return 0 };
        types.fold(*first, |one, (_, other)| match (computed(one), computed(*other)) {
            _ if one == *other => one,
            (one, other) if one == other => one,
            (one, other) => number_of(one, other),
        })
    }

    pub(super) fn symbol(&self, index: Option<usize>, text: &str) -> bool {
        index.and_then(|index| self.tokens.get(index)).is_some_and(|token| token.is_symbol(self.sql, text))
    }

    pub(super) fn word(&self, index: Option<usize>, text: &str) -> bool {
        index.and_then(|index| self.tokens.get(index)).is_some_and(|token| token.is(self.sql, text))
    }

    /// Fills in the unknown (0) ones of the parameters `$1`, `$2`, …; tells for each whether it is an operand, for which a
    /// number counts and not how it is written.
    pub fn parameters(&mut self, known: &mut [u32]) -> Vec<bool> {
        let mut found = vec![Place::default(); known.len()];
        if !self.is_deep() && self.tokens.len() <= MAX_TOKENS {
            self.layout = Some(Layout::of(self.sql, self.tokens));
            // Twice: a name may be given further behind than where another is made of it.
            self.add_derived();
            self.add_derived();
        }
        let inserted = self.inserted();
        for (index, token) in self.tokens.iter().enumerate() {
            let number = token.text(self.sql).get(1..).and_then(|digits| digits.parse::<usize>().ok());
            let place = number.filter(|_| token.kind == TokenKind::Parameter).and_then(|n| n.checked_sub(1));
            let Some(slot) = place.and_then(|place| found.get_mut(place)) else { continue };
            let here = match (inserted.get(&index), &self.layout) {
                (Some(oid), _) => Place { oid: *oid, operand: false },
                (None, Some(layout)) => self.place_of(layout, index, index),
                (None, None) => Place::default(),
            };
            *slot = slot.and(here);
        }
        self.layout = None;
        for (oid, place) in known.iter_mut().zip(&found).filter(|(oid, _)| **oid == 0) {
            *oid = place.oid;
        }
        found.iter().map(|place| place.operand && !is_text(place.oid)).collect()
    }

    fn add_derived(&mut self) {
        let Some(layout) = &self.layout else { return };
        let derived = self.derived(layout);
        for known in self.columns.values_mut() {
            known.retain(|(table, _)| *table != DERIVED);
        }
        for (name, oid) in derived {
            self.columns.entry(name).or_default().push((DERIVED, oid));
        }
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
            named.extend(names.filter(|at| !self.symbol(Some(*at), ",")).map(|at| self.declared(at)));
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
                // The next row of several.
                "," if depth == 0 => {}
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

    /// Nested deeper than is worth following; what follows it calls itself.
    fn is_deep(&self) -> bool {
        let mut depth = 0usize;
        self.tokens.iter().any(|token| {
            if token.is_symbol(self.sql, "(") || token.is(self.sql, "CASE") {
                depth += 1;
            } else if token.is_symbol(self.sql, ")") || token.is(self.sql, "END") {
                depth = depth.saturating_sub(1);
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
                TokenKind::Number if text.parse::<i32>().is_ok() => oid::INT4,
                TokenKind::Number if text.parse::<i64>().is_ok() => oid::INT8,
                TokenKind::Number if text.parse::<f64>().is_ok() => oid::FLOAT8,
                TokenKind::Text => oid::TEXT,
                TokenKind::Parameter => {
                    let number = text.get(1..).and_then(|digits| digits.parse::<usize>().ok()).unwrap_or(0);
                    number.checked_sub(1).and_then(|place| parameters.get(place)).copied().unwrap_or(0)
                }
                TokenKind::Word if pgtypes::truth(text).is_some_and(|_| text.len() > 3) => oid::BOOL,
                _ => 0,
            };
        }
        let whole_call = self.symbol(Some(start + 1), "(") && self.closes(start + 1) == end.saturating_sub(1);
        if whole_call {
            return self.call(text, start, end, parameters);
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
            0 if self.layout.is_some() => self.column(index),
            0 => {
                let ambiguous = self.name_at(index).is_some_and(|name| self.ambiguous.contains(&name));
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
        match gives(name) {
            Gives::Type(oid) => oid,
            Gives::Number => number_of(self.common(start + 1, parameters), oid::INT8),
            Gives::WhatArgumentsAre => self.common(start + 1, parameters),
            Gives::Cast => self
                .tokens
                .get(end.saturating_sub(2))
                .map_or(0, |token| pgtypes::oid_of_cast(token.text(self.sql))),
            Gives::Unknown => 0,
        }
    }
}
