//! The SQL texts with which changes of one table are executed.

use std::collections::HashMap;

use rusqlite::Connection;

use crate::storage::change::{ColumnChange, RowKey};
use crate::storage::table::{Table, conjunction, quoted};

/// Texts for one table. Parameters stand in the order in which the parts are named here.
pub(super) struct TableStatements {
    pub table: Table,
    /// Rowid (if [`TableStatements::writes_rowid`]), all values.
    pub insert: String,
    /// Key, all values before.
    pub delete: String,
    /// For each set of columns: values after, new rowid (if it changes and is no column), key, values before.
    updates: HashMap<(Vec<u16>, bool), String>,
}

impl TableStatements {
    pub fn load(connection: &Connection, name: &str) -> rusqlite::Result<Option<TableStatements>> {
        let Some(table) = Table::load(connection, name)?.filter(Table::can_be_replicated) else {
            return Ok(None);
        };
        let mut statements =
            TableStatements { table, insert: String::new(), delete: String::new(), updates: HashMap::new() };
        let table = &statements.table;
        let mut columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
        if let Some(rowid) = table.rowid_name.as_deref().filter(|_| statements.writes_rowid()) {
            columns.insert(0, quoted(rowid));
        }
        let marks = vec!["?"; columns.len()].join(", ");
        let target = quoted(name);
        let insert = format!("INSERT INTO main.{target}({}) VALUES ({marks})", columns.join(", "));
        let all: Vec<usize> = (0..table.columns.len()).collect();
        let delete = format!("DELETE FROM main.{target} WHERE {}", statements.condition(&all));
        (statements.insert, statements.delete) = (insert, delete);
        Ok(Some(statements))
    }

    /// The rowid must be written beside the columns: no column stands for it.
    pub fn writes_rowid(&self) -> bool {
        self.table.has_rowid() && self.table.integer_key.is_none()
    }

    /// The change was made for a table of this shape.
    pub fn check_shape(&self, has_rowid: bool, values: usize) -> Result<(), String> {
        if has_rowid == self.table.has_rowid() && values == self.table.columns.len() {
            return Ok(());
        }
        Err("the table has another shape than where the change was made".into())
    }

    /// The text for an update of these columns.
    pub fn update(
        &mut self,
        key: &RowKey<'_>,
        columns: &[ColumnChange<'_>],
        sets_rowid: bool,
    ) -> Result<&str, String> {
        let key_fits = match key {
            RowKey::Rowid { .. } => self.table.has_rowid(),
            RowKey::Primary(values) => values.len() == self.table.key.len() && !self.table.has_rowid(),
        };
        let known = |change: &ColumnChange<'_>| usize::from(change.column) < self.table.columns.len();
        if !key_fits || !columns.iter().all(known) || (columns.is_empty() && !sets_rowid) {
            return Err("the table has another shape than where the change was made".into());
        }
        let set: Vec<u16> = columns.iter().map(|change| change.column).collect();
        if !self.updates.contains_key(&(set.clone(), sets_rowid)) {
            let places: Vec<usize> = set.iter().map(|place| usize::from(*place)).collect();
            let assign = |name: &str| format!("{} = ?", quoted(name));
            let mut assignments: Vec<String> =
                places.iter().map(|place| assign(&self.table.columns[*place].name)).collect();
            if let Some(rowid) = self.table.rowid_name.as_deref().filter(|_| sets_rowid) {
                assignments.push(assign(rowid));
            }
            let condition = self.condition(&places);
            let sql = format!(
                "UPDATE main.{} SET {} WHERE {condition}",
                quoted(&self.table.name),
                assignments.join(", ")
            );
            self.updates.insert((set.clone(), sets_rowid), sql);
        }
        self.updates.get(&(set, sets_rowid)).map(String::as_str).ok_or_else(|| "no statement".into())
    }

    /// The row has this key, and these columns are as they were before.
    fn condition(&self, columns: &[usize]) -> String {
        let mut terms = match &self.table.rowid_name {
            Some(rowid) => vec![format!("{} = ?", quoted(rowid))],
            None => Vec::new(),
        };
        for key in &self.table.key {
            let name = quoted(&self.table.columns[key.column].name);
            terms.push(format!("{name} COLLATE {} = ?", quoted(&key.collation)));
        }
        let before =
            |column: &usize| format!("{} COLLATE BINARY IS ?", quoted(&self.table.columns[*column].name));
        terms.extend(columns.iter().map(before));
        conjunction(&terms)
    }
}
