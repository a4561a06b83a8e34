//! What stands beside a parameter that has no declared type, and the type that this gives it.
//!
//! Drivers send strings as text of unknown type, some of them numbers too. Bound as text it is right beside a column,
//! whose affinity SQLite applies, and in arithmetic, which converts; beside a number without affinity, such as
//! `count(*)` or `id + 1`, it would be greater than every number without a word. So such places are looked for, and
//! whatever is not surely a number leaves the parameter text. Not a parser: the neighbouring tokens, at most
//! `MAX_STEPS` of them.

use std::cell::RefCell;
use std::collections::HashMap;

use super::arithmetic::{Expression, is_number, is_text, number_of};
use super::function_types::{Takes, takes};
use super::infer::{Inference, computed};
use super::lexer::{Token, TokenKind};
use crate::pgtypes::{self, oid};

/// A longer operand is not looked through: the look at each of many parameters stays short.
const MAX_STEPS: usize = 64;
const COMPARISONS: [&str; 8] = ["=", "==", "<>", "!=", "<", ">", "<=", ">="];
const CALCULATIONS: [&str; 9] = ["+", "-", "*", "/", "%", "&", "|", "<<", ">>"];

/// Words that no operand of a comparison goes beyond, and that are no names of functions, tables or columns.
const BOUNDARIES: &str = "ALL AND AS ASC BETWEEN BY CASE COLLATE CONFLICT CROSS DEFAULT DELETE DESC DISTINCT DO ELSE END \
    ESCAPE EXCEPT EXISTS FROM FULL GLOB GROUP HAVING IN INDEXED INNER INSERT INTERSECT INTO IS ISNULL \
    JOIN LEFT LIKE LIMIT MATCH NATURAL NOT NOTHING NOTNULL OFFSET ON OR ORDER OUTER RECURSIVE REGEXP \
    RETURNING RIGHT SELECT SET THEN UNION UPDATE USING VALUES WHEN WHERE WINDOW WITH";

/// What surrounds a parameter.
#[derive(Clone, Copy, Default)]
pub struct Place {
    /// The type that it has there; 0 unknown.
    pub oid: u32,
    /// It is compared or calculated with, so how a number is written does not matter.
    pub operand: bool,
}

impl Place {
    fn beside(oid: u32) -> Place {
        Place { oid, operand: !is_text(computed(oid)) }
    }

    /// What a parameter is that stands in two places. Text suits columns of every type, a number only some.
    pub fn and(self, other: Place) -> Place {
        let oid = match (self.oid, other.oid) {
            (0, oid) => oid,
            (_, oid) if is_text(oid) => oid,
            (oid, _) => oid,
        };
        Place { oid, operand: self.operand || other.operand }
    }
}

/// How parentheses and CASE … END enclose the tokens.
pub struct Layout {
    /// For `(`, `)`, CASE and END the token that belongs to it; for others themselves.
    partner: Vec<usize>,
    /// The parenthesis around each token.
    open: Vec<Option<usize>>,
    /// The CASE around each token, in the same parentheses.
    case: Vec<Option<usize>>,
    /// Types that were found, by CASE and IN: what many parameters ask for is looked for once.
    found: RefCell<HashMap<usize, u32>>,
}

impl Layout {
    /// Of these tokens.
    pub fn of(sql: &str, tokens: &[Token]) -> Layout {
        let mut partner: Vec<usize> = (0..tokens.len()).collect();
        let (mut open, mut case) = (Vec::with_capacity(tokens.len()), Vec::with_capacity(tokens.len()));
        let mut stack: Vec<usize> = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            let opening = stack.last().copied();
            let in_case = opening.filter(|at| tokens[*at].is(sql, "CASE"));
            let ends = (token.is_symbol(sql, ")") && in_case.is_none())
                || (token.is(sql, "END") && in_case.is_some());
            if let Some(at) = stack.pop_if(|_| ends) {
                partner[at] = index;
                partner[index] = at;
            }
            case.push(in_case);
            open.push(stack.iter().rev().copied().find(|at| tokens[*at].is_symbol(sql, "(")));
            if token.is_symbol(sql, "(") || token.is(sql, "CASE") {
                stack.push(index);
            }
        }
        Layout { partner, open, case, found: RefCell::default() }
    }

    pub(super) fn partner(&self, index: usize) -> usize {
        self.partner.get(index).copied().unwrap_or(index)
    }
}

impl Inference<'_> {
    /// What surrounds the tokens from `first` to `last`: a parameter, or what only passes its value on.
    pub(super) fn place_of(&self, layout: &Layout, first: usize, last: usize) -> Place {
        let (mut first, mut last) = (first, last);
        while self.symbol(first.checked_sub(1), "(")
            && self.symbol(Some(last + 1), ")")
            && self.groups(first - 1)
        {
            first -= 1;
            last += 1;
        }
        let before = first.checked_sub(1);
        if self.any_word(before, &["LIMIT", "OFFSET"]) {
            return Place::beside(oid::INT8);
        }
        if self.word(Some(last + 1), "AS") {
            let cast = self.symbol(before, "(") && self.word(first.checked_sub(2), "CAST");
            let name = self.tokens.get(last + 2).filter(|_| cast);
            let oid = name.map_or(0, |token| pgtypes::oid_of_cast(token.text(self.sql)));
            return Place { oid, operand: false };
        }
        let texts = ["||", "->"];
        if texts.iter().any(|text| self.symbol(before, text) || self.symbol(Some(last + 1), text))
            || (self.symbol(before, ">") && self.symbol(first.checked_sub(2), "->"))
        {
            return Place::default();
        }
        if self.any_word(before, &["LIKE", "GLOB", "ESCAPE"])
            || self.any_word(Some(last + 1), &["LIKE", "GLOB"])
        {
            return Place { oid: oid::TEXT, operand: false };
        }
        self.calculated(layout, first, last)
            .or_else(|| self.compared(layout, first, last))
            .or_else(|| self.listed(layout, first, last))
            .or_else(|| self.chosen(layout, first, last))
            .or_else(|| self.passed(layout, first, last))
            .unwrap_or_default()
    }

    /// True if this parenthesis only groups: it opens no call and no list.
    fn groups(&self, open: usize) -> bool {
        let Some(before) = open.checked_sub(1) else { return true };
        let list =
            self.any_word(Some(before), &["IN", "VALUES", "EXISTS", "CONFLICT", "INTO", "USING", "AS"]);
        let token = self.tokens[before];
        let symbol = token.kind == TokenKind::Symbol && !self.symbol(Some(before), ")");
        symbol || (self.is_boundary(before) && !list)
    }

    pub(super) fn any_word(&self, index: Option<usize>, words: &[&str]) -> bool {
        words.iter().any(|word| self.word(index, word))
    }

    pub(super) fn any_symbol(&self, index: usize, symbols: &[&str]) -> bool {
        symbols.iter().any(|symbol| self.symbol(Some(index), symbol))
    }

    pub(super) fn is_boundary(&self, index: usize) -> bool {
        self.tokens.get(index).is_some_and(|token| token.kind == TokenKind::Word)
            && BOUNDARIES.split(' ').any(|word| self.word(Some(index), word))
    }

    fn is_comparison(&self, index: usize) -> bool {
        self.any_symbol(index, &COMPARISONS)
            && !(self.symbol(Some(index), ">") && self.symbol(index.checked_sub(1), "->"))
    }

    /// Where the operand begins that ends before `end`; none if it is too long.
    pub(super) fn operand_before(&self, layout: &Layout, end: usize) -> Option<usize> {
        let mut at = end;
        for _ in 0..MAX_STEPS {
            let Some(previous) = at.checked_sub(1) else { return Some(at) };
            if self.symbol(Some(previous), ")") || self.word(Some(previous), "END") {
                if layout.partner(previous) == previous {
                    return Some(at);
                }
                at = layout.partner(previous);
            } else if self.any_symbol(previous, &["(", ",", ";"])
                || self.is_comparison(previous)
                || self.is_boundary(previous)
            {
                return Some(at);
            } else {
                at = previous;
            }
        }
        None
    }

    /// Where the operand ends that begins at `start`.
    fn operand_after(&self, layout: &Layout, start: usize) -> Option<usize> {
        let mut at = start;
        for _ in 0..MAX_STEPS {
            if at >= self.tokens.len() {
                return Some(self.tokens.len());
            }
            if self.symbol(Some(at), "(") || self.word(Some(at), "CASE") {
                at = layout.partner(at).max(at) + 1;
            } else if self.any_symbol(at, &[")", ",", ";"]) || self.is_comparison(at) || self.is_boundary(at)
            {
                return Some(at);
            } else {
                at += 1;
            }
        }
        None
    }

    pub(super) fn span(&self, start: Option<usize>, end: Option<usize>) -> u32 {
        match (start, end) {
            (Some(at), Some(end)) if at < end => match self.lone_column(at, end) {
                0 => computed(Expression { inference: self, parameters: &[], at, end }.arithmetic()),
                declared => declared,
            },
            _ => 0,
        }
    }

    /// The type of a column that is all there is from `at` to `end`, as it is declared; 0 if it is anything else.
    fn lone_column(&self, at: usize, end: usize) -> u32 {
        let is_name = at + 1 == end || (at + 3 == end && self.symbol(Some(at + 1), "."));
        if is_name && self.item(end - 1, end, &[]) == 0 { self.declared(end - 1) } else { 0 }
    }

    fn before(&self, layout: &Layout, end: usize) -> u32 {
        self.span(self.operand_before(layout, end), Some(end))
    }

    fn after(&self, layout: &Layout, start: usize) -> u32 {
        self.span(Some(start), self.operand_after(layout, start))
    }

    /// `… + $1`, `$1 * …`. SQLite makes a number of it; a number beside it tells the client of which type.
    fn calculated(&self, layout: &Layout, first: usize, last: usize) -> Option<Place> {
        let left = first.checked_sub(1).filter(|at| self.any_symbol(*at, &CALCULATIONS));
        let right = Some(last + 1).filter(|at| self.any_symbol(*at, &CALCULATIONS));
        let oid = match (left, right) {
            (None, None) => return None,
            (Some(operator), _) if is_number(self.before(layout, operator)) => self.before(layout, operator),
            (_, Some(operator)) => self.after(layout, operator + 1),
            _ => 0,
        };
        Some(Place { operand: true, ..Place::beside(if is_number(oid) { computed(oid) } else { 0 }) })
    }

    /// `… = $1`, `$1 IS NOT …`, `… BETWEEN $1 AND $2`, `$1 BETWEEN …`.
    fn compared(&self, layout: &Layout, first: usize, last: usize) -> Option<Place> {
        let not_before = |at: usize| if self.word(at.checked_sub(1), "NOT") { at - 1 } else { at };
        if let Some(before) = first.checked_sub(1) {
            let mut operator = before;
            if self.word(Some(operator), "FROM") && self.word(operator.checked_sub(1), "DISTINCT") {
                operator = operator.saturating_sub(2);
            }
            if self.word(Some(operator), "NOT") && self.word(operator.checked_sub(1), "IS") {
                operator -= 1;
            }
            if self.is_comparison(operator) || self.word(Some(operator), "IS") {
                return Some(Place::beside(self.before(layout, operator)));
            }
            let mut between = before;
            if self.word(Some(before), "AND") {
                between = self
                    .operand_before(layout, before)
                    .and_then(|start| start.checked_sub(1))
                    .unwrap_or(before);
            }
            if self.word(Some(between), "BETWEEN") {
                return Some(Place::beside(self.before(layout, not_before(between))));
            }
        }
        let mut operator = last + 1;
        if self.is_comparison(operator) {
            return Some(Place::beside(self.after(layout, operator + 1)));
        }
        if self.word(Some(operator), "IS") {
            operator += usize::from(self.word(Some(operator + 1), "NOT"));
            operator += if self.word(Some(operator + 1), "DISTINCT") { 2 } else { 0 };
            return Some(Place::beside(self.after(layout, operator + 1)));
        }
        operator += usize::from(self.word(Some(operator), "NOT"));
        self.word(Some(operator), "BETWEEN").then(|| Place::beside(self.after(layout, operator + 1)))
    }

    /// `… IN ($1, $2)` and `$1 IN (…)`.
    fn listed(&self, layout: &Layout, first: usize, last: usize) -> Option<Place> {
        let whole = |at: Option<usize>, bracket: &str| self.symbol(at, bracket) || self.symbol(at, ",");
        let open = layout.open.get(first).copied().flatten();
        if let Some(word) = open.and_then(|open| open.checked_sub(1)).filter(|at| self.word(Some(*at), "IN"))
            && whole(first.checked_sub(1), "(")
            && whole(Some(last + 1), ")")
        {
            let end = if self.word(word.checked_sub(1), "NOT") { word - 1 } else { word };
            let found = layout.found.borrow().get(&word).copied();
            let oid = found.unwrap_or_else(|| self.before(layout, end));
            layout.found.borrow_mut().insert(word, oid);
            return Some(Place::beside(oid));
        }
        let word = last + 1 + usize::from(self.word(Some(last + 1), "NOT"));
        if !self.word(Some(word), "IN") || !self.symbol(Some(word + 1), "(") {
            return None;
        }
        if self.word(Some(word + 2), "SELECT") {
            return Some(Place::beside(self.subselect(word + 3)));
        }
        let items = self.split(word + 2);
        Some(Place::beside(agreed(
            items.iter().take(MAX_STEPS).map(|(at, end)| self.span(Some(*at), Some(*end))),
        )))
    }

    /// What a CASE chooses, and what it compares.
    fn chosen(&self, layout: &Layout, first: usize, last: usize) -> Option<Place> {
        let before = first.checked_sub(1)?;
        let case = layout.case.get(first).copied().flatten()?;
        if self.word(Some(before), "WHEN") {
            return Some(Place::beside(self.after(layout, case + 1)));
        }
        let ends = self.any_word(Some(last + 1), &["WHEN", "ELSE", "END"]);
        if !ends || !self.any_word(Some(before), &["THEN", "ELSE"]) {
            return None;
        }
        match self.case(layout, case) {
            0 => Some(self.place_of(layout, case, layout.partner(case).max(last))),
            oid => Some(Place::beside(oid)),
        }
    }

    /// The type that the branches of the CASE at `start` have, those that are known.
    fn case(&self, layout: &Layout, start: usize) -> u32 {
        if let Some(known) = layout.found.borrow().get(&start) {
            return *known;
        }
        let end = layout.partner(start);
        let (mut at, mut begin, mut branches) = (start + 1, None, Vec::new());
        while at <= end {
            if self.any_word(Some(at), &["WHEN", "ELSE"]) || at == end {
                branches.extend(begin.take().map(|begin| (begin, at)));
            }
            if self.any_word(Some(at), &["THEN", "ELSE"]) {
                begin = Some(at + 1);
            }
            let opens = self.symbol(Some(at), "(") || self.word(Some(at), "CASE");
            at = if opens { layout.partner(at).max(at) } else { at } + 1;
        }
        let oid = agreed(branches.iter().map(|(at, end)| self.span(Some(*at), Some(*end))));
        layout.found.borrow_mut().insert(start, oid);
        oid
    }

    /// Arguments of functions that want a number, or that give one of their arguments back.
    fn passed(&self, layout: &Layout, first: usize, last: usize) -> Option<Place> {
        let whole = |at: Option<usize>, bracket: &str| self.symbol(at, bracket) || self.symbol(at, ",");
        let open = layout.open.get(first).copied().flatten()?;
        let name = self.tokens.get(open.checked_sub(1)?).filter(|token| token.kind == TokenKind::Word)?;
        if !whole(first.checked_sub(1), "(") || !whole(Some(last + 1), ")") {
            return None;
        }
        let is_first = first == open + 1;
        let skipped = match takes(name.text(self.sql)) {
            Takes::Number => return Some(Place::beside(oid::NUMERIC)),
            Takes::NumberThenWhole if is_first => return Some(Place::beside(oid::NUMERIC)),
            Takes::NumberThenWhole | Takes::Whole => return Some(Place::beside(oid::INT8)),
            Takes::AnythingThenWhole if !is_first => return Some(Place::beside(oid::INT8)),
            Takes::Anything | Takes::AnythingThenWhole => return None,
            Takes::ConditionThenOthers if is_first => return None,
            Takes::ConditionThenOthers => 1,
            Takes::WhatOthersAre => 0,
        };
        let others = self.split(open + 1).into_iter().skip(skipped).filter(|(at, _)| *at != first);
        match agreed(others.map(|(at, end)| self.span(Some(at), Some(end)))) {
            0 => Some(self.place_of(layout, open - 1, layout.partner(open).max(last))),
            oid => Some(Place::beside(oid)),
        }
    }

    /// The first item of a select list; the word SELECT is before `start`.
    pub(super) fn subselect(&self, start: usize) -> u32 {
        let start = if self.word(Some(start), "DISTINCT") { start + 1 } else { start };
        self.split(start).first().map_or(0, |(at, end)| self.span(Some(*at), Some(*end)))
    }

    /// The items of a list that begins at `start`, up to the parenthesis or the word that ends it.
    pub(super) fn split(&self, start: usize) -> Vec<(usize, usize)> {
        let ends =
            ["FROM", "WHERE", "GROUP", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT", "HAVING", "WINDOW"];
        let (mut depth, mut begin, mut items) = (0usize, start, Vec::new());
        for at in start..self.tokens.len() {
            match self.tokens[at].text(self.sql) {
                "(" => depth += 1,
                ")" if depth > 0 => depth -= 1,
                "," if depth == 0 => {
                    items.push((begin, at));
                    begin = at + 1;
                }
                text if depth == 0 && (text == ")" || self.any_word(Some(at), &ends)) => {
                    items.push((begin, at));
                    return items;
                }
                _ => {}
            }
        }
        items.push((begin, self.tokens.len()));
        items
    }

    /// Type of the CASE at `start`, and the token after its END.
    pub(super) fn case_at(&self, start: usize) -> Option<(u32, usize)> {
        let layout = self.layout.as_ref()?;
        let end = layout.partner(start);
        (end > start).then(|| (self.case(layout, start), end + 1))
    }
}

/// The type that those agree on that are known; 0 if they do not, or none is.
pub(super) fn agreed(types: impl Iterator<Item = u32>) -> u32 {
    let known = types.filter(|oid| *oid != 0);
    known.reduce(|one, other| if one == other { one } else { number_of(one, other) }).unwrap_or(0)
}
