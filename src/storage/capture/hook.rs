//! The one place that talks to SQLite's C interface: the preupdate hook and the values it shows.
//!
//! Not here: what is done with a change. Invariant: a [`RowChange`] and what it lends live only inside the callback.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use rusqlite::{Connection, ffi};

use super::Shared;
use crate::storage::change::Value;

/// What happens to a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Insert,
    Update,
    Delete,
}

/// A row that is about to be changed.
pub(super) struct RowChange<'a> {
    handle: *mut ffi::sqlite3,
    pub operation: Operation,
    pub database: &'a [u8],
    pub table: &'a str,
    pub old_rowid: i64,
    pub new_rowid: i64,
}

impl RowChange<'_> {
    /// Columns of the table, generated ones included.
    pub fn column_count(&self) -> usize {
        // SAFETY: called inside the callback, where the handle is valid and a preupdate is in progress.
        let count = unsafe { ffi::sqlite3_preupdate_count(self.handle) };
        usize::try_from(count).unwrap_or(0)
    }

    /// The change is a write into an open blob, which is announced as a deletion.
    pub fn is_blob_write(&self) -> bool {
        // SAFETY: as in `column_count`.
        unsafe { ffi::sqlite3_preupdate_blobwrite(self.handle) >= 0 }
    }

    /// Value of a column before the change; for updates and deletions.
    pub fn before(&self, column: u16) -> Result<Value<'_>, c_int> {
        let mut value = std::ptr::null_mut();
        // SAFETY: as in `column_count`; SQLite checks operation and column and says so by its result.
        let result = unsafe { ffi::sqlite3_preupdate_old(self.handle, c_int::from(column), &raw mut value) };
        self.borrow(result, value)
    }

    /// Value of a column after the change; for updates and insertions.
    pub fn after(&self, column: u16) -> Result<Value<'_>, c_int> {
        let mut value = std::ptr::null_mut();
        // SAFETY: as in `before`.
        let result = unsafe { ffi::sqlite3_preupdate_new(self.handle, c_int::from(column), &raw mut value) };
        self.borrow(result, value)
    }

    fn borrow(&self, result: c_int, value: *mut ffi::sqlite3_value) -> Result<Value<'_>, c_int> {
        if result != ffi::SQLITE_OK {
            return Err(result);
        }
        if value.is_null() {
            return Err(ffi::SQLITE_NOMEM);
        }
        // SAFETY: SQLite keeps the value until the callback returns, which outlives `self`; old and new values are
        // separate objects, and each is converted here once, before anyone else asks for it. The length is asked for
        // after the pointer, as SQLite demands.
        unsafe {
            let slice = |pointer: *const u8| {
                let length = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
                if length == 0 {
                    Ok(&[][..])
                } else if pointer.is_null() {
                    Err(ffi::SQLITE_NOMEM)
                } else {
                    Ok(std::slice::from_raw_parts(pointer, length))
                }
            };
            // The database is UTF-8, so text can be read as it is stored, without the copy that a NUL would need.
            Ok(match ffi::sqlite3_value_type(value) {
                ffi::SQLITE_INTEGER => Value::Integer(ffi::sqlite3_value_int64(value)),
                ffi::SQLITE_FLOAT => Value::Real(ffi::sqlite3_value_double(value)),
                ffi::SQLITE_TEXT => Value::Text(slice(ffi::sqlite3_value_blob(value).cast())?),
                ffi::SQLITE_BLOB => Value::Blob(slice(ffi::sqlite3_value_blob(value).cast())?),
                _ => Value::Null,
            })
        }
    }

    /// Runs `work` with a borrowed connection: for reading the schema, as SQLite's own session extension does here.
    pub fn with_connection<R>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> rusqlite::Result<R> {
        // SAFETY: the handle is valid during the callback; the borrowed connection does not close it.
        let connection = unsafe { Connection::from_handle(self.handle)? };
        work(&connection)
    }
}

/// Whether deferred foreign keys are violated as things stand: what SQLite would refuse at COMMIT.
pub(super) fn has_deferred_violations(connection: &Connection) -> bool {
    let (mut current, mut highest) = (0, 0);
    // SAFETY: the handle is valid while `connection` is borrowed; both results are written before the call returns.
    let result = unsafe {
        let operation = ffi::SQLITE_DBSTATUS_DEFERRED_FKS;
        ffi::sqlite3_db_status(connection.handle(), operation, &raw mut current, &raw mut highest, 0)
    };
    result != ffi::SQLITE_OK || current != 0
}

/// Makes SQLite report every change of a row on this connection to `shared`.
///
/// The hook keeps a reference to `shared` for ever, so connection and capture may go in any order.
pub(super) fn install(connection: &Connection, shared: Arc<Shared>) {
    let context = Arc::into_raw(shared).cast_mut().cast::<c_void>();
    // SAFETY: the handle is valid while `connection` is borrowed. `context` is a counted reference that is never
    // given back, so it stays valid as long as SQLite can call; `Shared` may be used from any thread.
    unsafe {
        ffi::sqlite3_preupdate_hook(connection.handle(), Some(on_change), context);
    }
}

unsafe extern "C" fn on_change(
    context: *mut c_void,
    handle: *mut ffi::sqlite3,
    operation: c_int,
    database: *const c_char,
    table: *const c_char,
    old_rowid: i64,
    new_rowid: i64,
) {
    // SAFETY: `context` is the reference that `install` left; names are NUL-terminated and live through the call.
    let (shared, database, table) =
        unsafe { (&*context.cast::<Shared>(), CStr::from_ptr(database), CStr::from_ptr(table)) };
    let operation = match operation {
        ffi::SQLITE_INSERT => Operation::Insert,
        ffi::SQLITE_UPDATE => Operation::Update,
        _ => Operation::Delete,
    };
    let Ok(table) = table.to_str() else {
        shared.refuse("a table whose name is not UTF-8 cannot be replicated");
        return;
    };
    let database = database.to_bytes();
    shared.record(&RowChange { handle, operation, database, table, old_rowid, new_rowid });
}
