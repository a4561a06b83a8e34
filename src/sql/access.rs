//! What a client's statement may touch: the authorizer of every connection that runs client statements.
//!
//! SQLite asks it while it prepares a statement. Whether the statement is a client's or the server's own is told by
//! the thread: code that runs client statements holds a [`ClientScope`]; without one everything is allowed.
//! Statements cached by their text are asked about only once, so a client's statement is always prepared afresh in
//! a scope before a cached one is run.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::error::ServerError;
use crate::sql::errors;
use crate::storage::{limits, memory};

/// Who runs a statement, for the functions that tell it.
#[derive(Debug)]
pub struct Identity {
    /// Number of the session.
    pub session: u64,
    /// Name of the user.
    pub user: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Internal,
    Client,
    ClientSchema,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Internal) };
    static REFUSAL: RefCell<Option<String>> = const { RefCell::new(None) };
    static IDENTITY: RefCell<Option<Arc<Identity>>> = const { RefCell::new(None) };
}

/// While it lives, statements on this thread are a client's.
pub struct ClientScope {
    before: Mode,
    identity_before: Option<Arc<Identity>>,
    _memory: Option<memory::Scope>,
}

impl ClientScope {
    /// For queries and changes of rows.
    pub fn enter(identity: &Arc<Identity>) -> ClientScope {
        ClientScope::with(identity, Mode::Client)
    }

    /// For CREATE, DROP and ALTER, which SQLite carries out by writing its own tables.
    pub fn enter_schema(identity: &Arc<Identity>) -> ClientScope {
        ClientScope::with(identity, Mode::ClientSchema)
    }

    /// For what runs on the session's own connection: with the limit of its memory.
    pub fn enter_reading(identity: &Arc<Identity>) -> ClientScope {
        ClientScope::with(identity, Mode::Client).limited()
    }

    fn limited(mut self) -> ClientScope {
        self._memory = Some(memory::reading());
        self
    }

    fn with(identity: &Arc<Identity>, mode: Mode) -> ClientScope {
        let before = MODE.replace(mode);
        let identity_before = IDENTITY.replace(Some(identity.clone()));
        ClientScope { before, identity_before, _memory: None }
    }
}

impl Drop for ClientScope {
    fn drop(&mut self) {
        MODE.set(self.before);
        IDENTITY.replace(self.identity_before.take());
    }
}

/// Who runs the statement that is running on this thread.
pub fn identity() -> Option<Arc<Identity>> {
    IDENTITY.with_borrow(Clone::clone)
}

/// Why the authorizer refused last on this thread.
pub fn take_refusal() -> Option<String> {
    REFUSAL.take()
}

/// Makes a connection one for clients' statements: the access rules, and the limits of what a statement may be.
pub fn install(connection: &mut Connection) -> Result<(), ServerError> {
    limits::set(connection).map_err(|error| errors::from_sqlite(&error))?;
    connection.authorizer(Some(decide)).map_err(|error| errors::from_sqlite(&error))
}

fn decide(context: AuthContext<'_>) -> Authorization {
    let mode = MODE.get();
    if mode == Mode::Internal {
        return Authorization::Allow;
    }
    match refusal(&context.action, mode) {
        None => Authorization::Allow,
        Some(reason) => {
            REFUSAL.replace(Some(reason));
            Authorization::Deny
        }
    }
}

fn refusal(action: &AuthAction<'_>, mode: Mode) -> Option<String> {
    match action {
        AuthAction::Read { table_name, .. } => table(table_name),
        AuthAction::Insert { table_name } | AuthAction::Delete { table_name } => {
            table(table_name).or_else(|| own_table(table_name, mode))
        }
        AuthAction::Update { table_name, .. } => table(table_name).or_else(|| own_table(table_name, mode)),
        AuthAction::CreateTable { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::CreateTrigger { table_name, .. }
        | AuthAction::CreateIndex { table_name, .. }
        | AuthAction::CreateView { view_name: table_name } => table(table_name),
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => Some(
            "temporary objects are refused: they would live on one shared connection of one server".into(),
        ),
        AuthAction::CreateVtable { module_name, .. } => Some(format!(
            "CREATE VIRTUAL TABLE … USING {module_name} is refused: its content would not be replicated"
        )),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Some("ATTACH and DETACH are refused: only the replicated database can be used".into())
        }
        AuthAction::Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value.is_some()),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            Some("transaction statements of SQLite are refused inside other statements".into())
        }
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            Some("load_extension is refused: it runs foreign code in the server".into())
        }
        _ => None,
    }
}

fn table(name: &str) -> Option<String> {
    let lower_start = name.get(..5).map(str::to_ascii_lowercase);
    if lower_start.as_deref() == Some("_hsb_") {
        return Some(format!("table {name} belongs to the server and cannot be used by clients"));
    }
    let raw = name.eq_ignore_ascii_case("sqlite_dbpage") || name.eq_ignore_ascii_case("dbstat");
    raw.then(|| format!("table {name} is refused: it gives access to raw pages of the database"))
}

fn own_table(name: &str, mode: Mode) -> Option<String> {
    let own = name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"));
    (own && mode != Mode::ClientSchema)
        .then(|| format!("writing to {name} is refused: SQLite keeps this table itself"))
}

fn pragma(name: &str, has_value: bool) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let about_an_object = [
        "table_info",
        "table_xinfo",
        "table_list",
        "index_list",
        "index_info",
        "index_xinfo",
        "foreign_key_list",
        "foreign_key_check",
        "integrity_check",
        "quick_check",
    ];
    let plain = [
        "database_list",
        "compile_options",
        "user_version",
        "schema_version",
        "application_id",
        "encoding",
        "page_count",
        "page_size",
        "freelist_count",
        "collation_list",
        "function_list",
        "module_list",
        "pragma_list",
        "foreign_keys",
        "journal_mode",
        "data_version",
    ];
    if about_an_object.contains(&lower.as_str()) || (!has_value && plain.contains(&lower.as_str())) {
        return None;
    }
    Some(format!(
        "PRAGMA {name} is refused: it would change this server alone; only PRAGMAs that inform are allowed"
    ))
}
