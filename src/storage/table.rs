//! What capture and apply know of a table: which columns are stored, and what tells its rows apart.

use rusqlite::{Connection, params};

/// A stored column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Position among all columns, generated ones included.
    pub index: u16,
    /// Its name.
    pub name: String,
}

/// A part of the primary key of a WITHOUT ROWID table.
#[derive(Clone, Debug)]
pub struct KeyColumn {
    /// Place in [`Table::columns`].
    pub column: usize,
    /// The collation in which it is unique.
    pub collation: String,
}

/// The shape of a table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Number of all columns, generated ones included.
    pub column_count: usize,
    /// The stored columns in order; generated ones are absent.
    pub columns: Vec<Column>,
    /// Primary key of a WITHOUT ROWID table; empty for a rowid table.
    pub key: Vec<KeyColumn>,
    /// The stored column that is the rowid (INTEGER PRIMARY KEY).
    pub integer_key: Option<usize>,
    /// The name by which the rowid can be reached; none if all are taken by columns, or there is no rowid.
    pub rowid_name: Option<String>,
}

impl Table {
    /// Reads the shape from the schema; none if there is no such table in the main database.
    pub fn load(connection: &Connection, name: &str) -> rusqlite::Result<Option<Table>> {
        let mut table = Table {
            name: name.to_owned(),
            column_count: 0,
            columns: Vec::new(),
            key: Vec::new(),
            integer_key: None,
            rowid_name: None,
        };
        let mut integer_key = None;
        let mut key_columns = 0;
        let mut taken = Vec::new();
        let mut statement =
            connection.prepare("SELECT cid, name, type, pk, hidden FROM pragma_table_xinfo(?1, 'main')")?;
        let mut rows = statement.query(params![name])?;
        while let Some(row) = rows.next()? {
            table.column_count += 1;
            let (index, column): (u16, String) = (row.get(0)?, row.get(1)?);
            taken.push(column.to_ascii_lowercase());
            if row.get::<_, i64>(3)? > 0 {
                key_columns += 1;
                if row.get::<_, String>(2)?.eq_ignore_ascii_case("INTEGER") {
                    integer_key = Some(table.columns.len());
                }
            }
            // 2 and 3: generated columns, virtual and stored.
            if row.get::<_, i64>(4)? == 0 {
                table.columns.push(Column { index, name: column });
            }
        }
        if table.column_count == 0 {
            return Ok(None);
        }
        // Documented: index_xinfo of the table's own name answers only for WITHOUT ROWID tables.
        let mut statement = connection
            .prepare("SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key = 1 ORDER BY seqno")?;
        let mut rows = statement.query(params![name])?;
        while let Some(row) = rows.next()? {
            let key: String = row.get(0)?;
            if let Some(column) = table.columns.iter().position(|column| column.name == key) {
                table.key.push(KeyColumn { column, collation: row.get(1)? });
            }
        }
        if table.key.is_empty() {
            // INTEGER PRIMARY KEY DESC is no rowid; it has an index of its own.
            let indexes = "SELECT count(*) FROM pragma_index_list(?1, 'main') WHERE origin = 'pk'";
            let has_index = connection.query_row(indexes, params![name], |row| row.get::<_, i64>(0))? > 0;
            table.integer_key = integer_key.filter(|_| key_columns == 1 && !has_index);
            table.rowid_name = match table.integer_key {
                Some(column) => Some(table.columns[column].name.clone()),
                None => ["rowid", "_rowid_", "oid"]
                    .into_iter()
                    .find(|name| !taken.iter().any(|t| t == name))
                    .map(Into::into),
            };
        }
        Ok(Some(table))
    }

    /// Rows are told apart by rowid, not by a primary key of values.
    pub fn has_rowid(&self) -> bool {
        self.key.is_empty()
    }

    /// Rows can be found again at the other node.
    pub fn can_be_replicated(&self) -> bool {
        !self.has_rowid() || self.rowid_name.is_some()
    }
}

/// A name as SQL text.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Joins with AND as a balanced tree: SQLite limits the depth of an expression, not its size.
pub fn conjunction(terms: &[String]) -> String {
    match terms {
        [term] => term.clone(),
        terms if terms.len() <= 16 => terms.join(" AND "),
        terms => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!("({}) AND ({})", conjunction(left), conjunction(right))
        }
    }
}
