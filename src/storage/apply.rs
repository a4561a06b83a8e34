//! Executes the batches of another server: the secondary's side, and recovery from the log.
//!
//! The connection has foreign keys, triggers and CHECK constraints off: their effects and verdicts are part of the
//! changes. Every change checks what it finds (the before image); what does not fit is error 10080 with table and key,
//! and the caller must roll back. Several batches may share one SQLite transaction; the position row is written in the
//! same transaction, so database and position never disagree.
//!
//! Not here: when to commit, what to do after an error.

mod statements;
#[cfg(test)]
mod tests;
mod undo;

use std::collections::HashMap;

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, params};

use self::statements::TableStatements;
use super::batch::Batch;
use super::change::{Change, ColumnChange, RowKey, Value, changes};
use super::database::{USERS_TABLE, read_identity, write_position};
use super::write_behind;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;

/// Statements kept prepared: some per table, and one per set of updated columns.
const PREPARED_STATEMENTS: usize = 1024;

/// Owns the connection on which batches are executed.
///
/// Invariant: inside a transaction `position` is that of the changes made so far, else that of the database.
pub struct Applier {
    connection: Connection,
    position: Position,
    committed: Position,
    tables: HashMap<String, TableStatements>,
    schema_changed: bool,
}

/// Why a change was not made.
enum Failure {
    /// It does not fit what is there.
    Misfit(String),
    /// The disk is full or fails, or somebody has a lock: that says nothing about the change.
    NotOfTheChange(ServerError),
}

impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure::Misfit(what)
    }
}

impl From<&str> for Failure {
    fn from(what: &str) -> Failure {
        Failure::Misfit(what.to_owned())
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        let text = error.to_string();
        let error = ServerError::from(error);
        if error.is_of_the_medium() || error.passes() {
            Failure::NotOfTheChange(error)
        } else {
            Failure::Misfit(text)
        }
    }
}

impl Applier {
    /// Takes over a connection to a database that has its `_hsb_meta`.
    pub fn new(mut connection: Connection) -> Result<Applier, ServerError> {
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
            .map_err(ServerError::from)?;
        connection
            .execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;")
            .map_err(ServerError::from)?;
        connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
        write_behind::begin(&mut connection)?;
        let position = read_identity(&connection)?.position;
        let tables = HashMap::new();
        Ok(Applier { connection, position, committed: position, tables, schema_changed: false })
    }

    /// Reads anew where the database stands: this node may have been a primary since the last batch was applied. Waits
    /// for a transaction of its writer that is decided but not yet committed.
    pub fn reload(&mut self) -> Result<(), ServerError> {
        self.rollback();
        self.begin()?;
        let identity = read_identity(&self.connection);
        self.rollback();
        self.position = identity?.position;
        self.committed = self.position;
        Ok(())
    }

    /// Where the database stands, counting what is applied but not yet committed.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The connection, for reading and for checkpoints between transactions.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// True once after committed batches changed the schema.
    pub fn take_schema_changed(&mut self) -> bool {
        std::mem::take(&mut self.schema_changed)
    }

    /// Begins the SQLite transaction of a group of batches.
    pub fn begin(&mut self) -> Result<(), ServerError> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(ServerError::from)
    }

    /// Executes a batch that follows [`Applier::position`]. After an error the caller must roll back.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), ServerError> {
        if batch.header.before != self.position {
            let detail =
                format!("The batch follows {}, the database is at {}.", batch.header.before, self.position);
            return Err(ServerError::with(Code::APPLY_FAILED, detail));
        }
        let mut transactions = 0;
        for change in changes(batch.changes()) {
            let change = change.map_err(|error| ServerError::with(Code::APPLY_FAILED, error))?;
            transactions += u32::from(matches!(change, Change::Commit));
            let executed = self.execute(&change);
            expect_fits(&change, executed)?;
        }
        if transactions != batch.header.count {
            let detail = format!("The batch holds {transactions} transactions, not {}.", batch.header.count);
            return Err(ServerError::with(Code::APPLY_FAILED, detail));
        }
        self.position = batch.after;
        Ok(())
    }

    /// Makes what was applied visible, and the position with it.
    pub fn commit(&mut self) -> Result<(), ServerError> {
        write_position(&self.connection, self.committed, self.position)?;
        let mut statement = self.connection.prepare_cached("COMMIT").map_err(ServerError::from)?;
        statement.raw_execute().map_err(ServerError::from)?;
        self.committed = self.position;
        Ok(())
    }

    /// Takes back everything since [`Applier::begin`].
    pub fn rollback(&mut self) {
        if !self.connection.is_autocommit() {
            // Can fail only if SQLite has already rolled back by itself.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.position = self.committed;
        self.forget_tables();
    }

    fn forget_tables(&mut self) {
        self.tables.clear();
        self.connection.flush_prepared_statement_cache();
    }

    fn execute(&mut self, change: &Change<'_>) -> Result<(), Failure> {
        match change {
            Change::Insert { table, rowid, values } => self.insert(table, *rowid, values),
            Change::Update { table, key, columns } => self.update(table, key, columns),
            Change::Delete { table, rowid, values } => self.delete(table, *rowid, values),
            Change::Sequence { table, value, .. } => self.set_sequence(table, *value).map_err(Failure::from),
            Change::Commit | Change::Was { .. } => Ok(()),
            Change::Statement { sql } => {
                self.forget_tables();
                self.schema_changed = true;
                self.connection.execute_batch(sql).map_err(Failure::from)
            }
        }
    }

    /// The table's statements, written when it is met first.
    fn table(&mut self, name: &str) -> Result<(&Connection, &mut TableStatements), Failure> {
        // Sessions look their rights up again, as they look at the schema again.
        self.schema_changed |= name == USERS_TABLE;
        if !self.tables.contains_key(name) {
            let loaded = TableStatements::load(&self.connection, name)?;
            let statements = loaded.ok_or("there is no such table, or its rows cannot be told apart")?;
            self.tables.insert(name.to_owned(), statements);
        }
        let statements = self.tables.get_mut(name).ok_or("there is no such table")?;
        Ok((&self.connection, statements))
    }

    fn insert(&mut self, table: &str, rowid: Option<i64>, values: &[Value<'_>]) -> Result<(), Failure> {
        let (connection, table) = self.table(table)?;
        table.check_shape(rowid.is_some(), values.len())?;
        let rowid = rowid.filter(|_| table.writes_rowid());
        run(connection, &table.insert, |statement| {
            let mut bind = Binder::new(statement);
            bind.optional(rowid)?;
            bind.all(values)
        })
        .map(|_| ())
    }

    fn delete(&mut self, table: &str, rowid: Option<i64>, values: &[Value<'_>]) -> Result<(), Failure> {
        let (connection, table) = self.table(table)?;
        table.check_shape(rowid.is_some(), values.len())?;
        let found = run(connection, &table.delete, |statement| {
            let mut bind = Binder::new(statement);
            bind.optional(rowid)?;
            for key in &table.table.key {
                bind.one(&values[key.column])?;
            }
            bind.all(values)
        })?;
        expect_one(found)
    }

    fn update(&mut self, table: &str, key: &RowKey<'_>, columns: &[ColumnChange<'_>]) -> Result<(), Failure> {
        let (connection, table) = self.table(table)?;
        let (old_rowid, new_rowid) = match key {
            RowKey::Rowid { old, new } => {
                (Some(*old), Some(*new).filter(|new| table.writes_rowid() && new != old))
            }
            RowKey::Primary(_) => (None, None),
        };
        let sql = table.update(key, columns, new_rowid.is_some())?;
        let found = run(connection, sql, |statement| {
            let mut bind = Binder::new(statement);
            columns.iter().try_for_each(|column| bind.one(&column.new))?;
            bind.optional(new_rowid)?;
            bind.optional(old_rowid)?;
            if let RowKey::Primary(values) = key {
                bind.all(values)?;
            }
            columns.iter().try_for_each(|column| bind.one(&column.old))
        })?;
        expect_one(found)
    }

    fn set_sequence(&self, table: &str, value: Option<i64>) -> rusqlite::Result<()> {
        let prepare = |sql: &str| self.connection.prepare_cached(sql);
        let Some(value) = value else {
            // DROP TABLE may have taken the counter along.
            return prepare("DELETE FROM main.sqlite_sequence WHERE name = ?1")?.execute([table]).map(|_| ());
        };
        let update = "UPDATE main.sqlite_sequence SET seq = ?2 WHERE name = ?1";
        if prepare(update)?.execute(params![table, value])? == 0 {
            let insert = "INSERT INTO main.sqlite_sequence(name, seq) VALUES (?1, ?2)";
            prepare(insert)?.execute(params![table, value])?;
        }
        Ok(())
    }
}

fn run(
    connection: &Connection,
    sql: &str,
    bind: impl FnOnce(&mut CachedStatement<'_>) -> rusqlite::Result<()>,
) -> Result<usize, Failure> {
    let execute = || {
        let mut statement = connection.prepare_cached(sql)?;
        bind(&mut statement)?;
        statement.raw_execute()
    };
    execute().map_err(Failure::from)
}

/// Binds parameters one after the other.
struct Binder<'a, 'c> {
    statement: &'a mut CachedStatement<'c>,
    next: usize,
}

impl<'a, 'c> Binder<'a, 'c> {
    fn new(statement: &'a mut CachedStatement<'c>) -> Self {
        Binder { statement, next: 1 }
    }

    fn one(&mut self, value: &Value<'_>) -> rusqlite::Result<()> {
        self.statement.raw_bind_parameter(self.next, value)?;
        self.next += 1;
        Ok(())
    }

    fn all(&mut self, values: &[Value<'_>]) -> rusqlite::Result<()> {
        values.iter().try_for_each(|value| self.one(value))
    }

    fn optional(&mut self, value: Option<i64>) -> rusqlite::Result<()> {
        value.map_or(Ok(()), |value| self.one(&Value::Integer(value)))
    }
}

/// 10080 with table and key for a change that does not fit.
fn expect_fits(change: &Change<'_>, outcome: Result<(), Failure>) -> Result<(), ServerError> {
    outcome.map_err(|failure| match failure {
        Failure::NotOfTheChange(error) => error,
        Failure::Misfit(what) => {
            ServerError::with(Code::APPLY_FAILED, format!("{}: {what}.", subject(change)))
        }
    })
}

fn expect_one(found: usize) -> Result<(), Failure> {
    match found {
        1 => Ok(()),
        0 => Err("the row is missing or differs from what it should be before the change".into()),
        more => Err(format!("{more} rows have this key").into()),
    }
}

/// Table and key of a change, for messages.
fn subject(change: &Change<'_>) -> String {
    match change {
        Change::Insert { table, rowid: Some(rowid), .. } => format!("Insert into {table}, rowid {rowid}"),
        Change::Insert { table, values, .. } => format!("Insert into {table}, values {}", shown(values)),
        Change::Delete { table, rowid: Some(rowid), .. } => format!("Delete from {table}, rowid {rowid}"),
        Change::Delete { table, values, .. } => format!("Delete from {table}, values {}", shown(values)),
        Change::Update { table, key: RowKey::Rowid { old, .. }, .. } => {
            format!("Update of {table}, rowid {old}")
        }
        Change::Update { table, key: RowKey::Primary(values), .. } => {
            format!("Update of {table}, primary key {}", shown(values))
        }
        Change::Statement { sql } => format!("Statement '{sql}'"),
        Change::Sequence { table, .. } => format!("Sequence of {table}"),
        Change::Commit => "Commit".into(),
        Change::Was { table, .. } => format!("Shape of {table}"),
    }
}

fn shown(values: &[Value<'_>]) -> String {
    let parts: Vec<String> = values
        .iter()
        .take(8)
        .map(|value| match value {
            Value::Null => "NULL".into(),
            Value::Integer(value) => value.to_string(),
            Value::Real(value) => value.to_string(),
            Value::Text(text) => format!("'{}'", String::from_utf8_lossy(&text[..text.len().min(40)])),
            Value::Blob(bytes) => format!("blob of {} bytes", bytes.len()),
        })
        .collect();
    format!("({})", parts.join(", "))
}
