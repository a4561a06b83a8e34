//! Types of what a statement itself names: `count(*) AS n`, `WITH c(n) AS (SELECT 1 …`.
//!
//! Only for parameters beside such a name: the type may be wrong where a name stands for several things.

use super::infer::Inference;
use super::operands::Layout;

impl Inference<'_> {
    /// Names that the statement itself gives to expressions, with their types: `count(*) AS n`, `c(n) AS (SELECT 1 …`.
    pub(super) fn derived(&self, layout: &Layout) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        for index in 1..self.tokens.len() {
            let before_list = self.any_symbol(index + 1, &[","]) || self.word(Some(index + 1), "FROM");
            if self.word(Some(index), "AS") {
                let open = (index + 1..index + 4).find(|at| self.symbol(Some(*at), "("));
                match open.filter(|open| self.any_word(Some(open + 1), &["SELECT", "VALUES"])) {
                    Some(open) => self.named_columns(layout, index, open, &mut found),
                    None => found.extend(self.renamed(layout, index, index + 1)),
                }
            } else if self.symbol(Some(index - 1), ")") && before_list && !self.is_boundary(index) {
                found.extend(self.renamed(layout, index, index));
            }
        }
        found
    }

    /// The item of a select list that ends before `end` and is named at `name`.
    fn renamed(&self, layout: &Layout, end: usize, name: usize) -> Option<(String, u32)> {
        let name = self.name_at(name)?;
        let start = self.operand_before(layout, end)?;
        let before = start.checked_sub(1)?;
        let begins = self.any_symbol(before, &[",", "("])
            || self.any_word(Some(before), &["SELECT", "DISTINCT", "ALL"]);
        let oid = if begins { self.span(Some(start), Some(end)) } else { 0 };
        let table = (oid == 0 && start + 1 == end)
            || self.any_word(Some(before), &["FROM", "JOIN", "UPDATE", "INTO"]);
        let cast = self.symbol(Some(before), "(") && self.word(before.checked_sub(1), "CAST");
        (!table && !cast).then_some((name, oid))
    }

    /// `name(a, b) AS (SELECT 1, 2 …)`.
    fn named_columns(&self, layout: &Layout, word: usize, open: usize, found: &mut Vec<(String, u32)>) {
        if !self.symbol(Some(word - 1), ")") {
            return;
        }
        let values = self.word(Some(open + 1), "VALUES");
        let items = self.split(if values { open + 3 } else { open + 2 });
        let names = self.split(layout.partner(word - 1) + 1);
        for ((name, _), (at, end)) in names.into_iter().zip(items) {
            found.extend(self.name_at(name).map(|name| (name, self.span(Some(at), Some(end)))));
        }
    }
}
