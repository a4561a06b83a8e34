//! Types of arithmetic on columns, literals and parameters whose types are known, for result columns.
//!
//! A wrong type is worse than none: whatever is not surely a number of one kind stays unknown (0).

use super::infer::Inference;
use crate::pgtypes::Category::{self, Decimal, Floating, Other, Text, Whole};
use crate::pgtypes::{self, oid};

impl Inference<'_> {
    /// The type that all arguments of the call opened at `open` agree on.
    pub(super) fn common(&self, open: usize, parameters: &[u32]) -> u32 {
        let close = self.closes(open);
        let (mut depth, mut start, mut common) = (0usize, open + 1, None);
        for index in open + 1..=close {
            let Some(token) = self.tokens.get(index) else { return 0 };
            match token.text(self.sql) {
                "(" => depth += 1,
                ")" if index < close => depth = depth.saturating_sub(1),
                "," | ")" if depth == 0 => {
                    let oid = self.argument(start, index, parameters);
                    common = Some(match common {
                        None => oid,
                        Some(before) if before == oid => oid,
                        Some(before) => number_of(before, oid),
                    });
                    start = index + 1;
                }
                _ => {}
            }
        }
        common.unwrap_or(0)
    }

    fn argument(&self, start: usize, end: usize, parameters: &[u32]) -> u32 {
        let start = if self.word(Some(start), "DISTINCT") { start + 1 } else { start };
        Expression { inference: self, parameters, at: start, end }.arithmetic()
    }
}

/// What SQLite's arithmetic makes of numbers of these types; 0 if one of them may be no number.
pub fn number_of(one: u32, other: u32) -> u32 {
    match (category(one), category(other)) {
        (Text | Other, _) | (_, Text | Other) => 0,
        (Floating, _) | (_, Floating) => oid::FLOAT8,
        (Whole, Whole) => oid::INT8,
        (Decimal, _) | (_, Decimal) => oid::NUMERIC,
    }
}

fn category(oid: u32) -> Category {
    if oid == 0 { Other } else { pgtypes::of_oid(oid).category }
}

/// True for the types of numbers.
pub fn is_number(oid: u32) -> bool {
    match category(oid) {
        Whole | Decimal | Floating => true,
        Text | Other => false,
    }
}

/// True for the types of texts.
pub fn is_text(oid: u32) -> bool {
    category(oid) == Text
}

/// A stretch of tokens read as operands with `+ - * / %`, or the operators of bits, between them.
pub(super) struct Expression<'i, 'a> {
    pub(super) inference: &'i Inference<'a>,
    pub(super) parameters: &'i [u32],
    pub(super) at: usize,
    pub(super) end: usize,
}

impl Expression<'_, '_> {
    /// The type of all of it; 0 if it is anything else, or an operand's type is unknown.
    pub(super) fn arithmetic(&mut self) -> u32 {
        let mut oid = self.operand();
        while self.at < self.end && oid != 0 {
            let is_one_of =
                |all: &[&str]| all.iter().any(|operator| self.inference.symbol(Some(self.at), operator));
            let bits = is_one_of(&["&", "|", "<<", ">>"]);
            if !bits && !is_one_of(&["+", "-", "*", "/", "%"]) {
                return 0;
            }
            self.at += 1;
            let result = number_of(oid, self.operand());
            oid = if bits && result != 0 { oid::INT8 } else { result };
        }
        oid
    }

    fn operand(&mut self) -> u32 {
        let inference = self.inference;
        let sign = |at: usize| ["-", "+", "~"].iter().any(|sign| inference.symbol(Some(at), sign));
        let signed = sign(self.at);
        while sign(self.at) {
            self.at += 1;
        }
        let oid = self.unsigned();
        if signed { number_of(oid, oid::INT8) } else { oid }
    }

    fn unsigned(&mut self) -> u32 {
        let (inference, start) = (self.inference, self.at);
        if start >= self.end {
            return 0;
        }
        if inference.symbol(Some(start), "(") {
            let close = inference.closes(start);
            self.at = close + 1;
            if inference.word(Some(start + 1), "SELECT") {
                return if inference.layout.is_some() { inference.subselect(start + 2) } else { 0 };
            }
            return Expression { at: start + 1, end: close, ..*self }.arithmetic();
        }
        if inference.word(Some(start), "CASE") {
            let (oid, after) = inference.case_at(start).unwrap_or((0, self.end));
            self.at = after;
            return oid;
        }
        if inference.symbol(Some(start + 1), "(") {
            let end = inference.closes(start + 1) + 1;
            self.at = end;
            while ["FILTER", "OVER"].iter().any(|word| inference.word(Some(self.at), word)) {
                self.at = inference.closes(self.at + 1) + 1;
            }
            return inference.item(start, end, self.parameters);
        }
        let last = if inference.symbol(Some(start + 1), ".") { start + 2 } else { start };
        self.at = last + 1;
        if self.at > self.end { 0 } else { inference.operand(last, self.parameters) }
    }
}
