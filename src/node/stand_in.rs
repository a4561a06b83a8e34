//! Temporary stand-in for Database, Writer and NodeContext, for trying the SQL session alone. Not replicated, not
//! grouped: every transaction is BEGIN IMMEDIATE … COMMIT on one connection behind a mutex.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::Connection;

use crate::error::ServerError;
use crate::hsb::position::Position;
use crate::sql::errors::from_sqlite;
use crate::sql::registry::SessionRegistry;
use crate::sql::users::{self, Role, Verifier};
use crate::sql::{access, functions};

pub struct Database {
    path: PathBuf,
    generation: AtomicU64,
}

impl Database {
    pub fn create(path: PathBuf) -> Result<Database, ServerError> {
        let database = Database { path, generation: AtomicU64::new(1) };
        let connection = database.open()?;
        connection
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS _hsb_meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS _hsb_users (name TEXT PRIMARY KEY, role TEXT, salt BLOB, iterations INTEGER,
                   stored_key BLOB, server_key BLOB);
                 INSERT OR IGNORE INTO _hsb_meta VALUES ('position', zeroblob(32));",
            )
            .map_err(|error| from_sqlite(&error))?;
        if users::find(&connection, "dba")?.is_none() {
            users::insert(&connection, "dba", Role::Admin, &Verifier::of_password("dba")?)?;
        }
        Ok(database)
    }

    fn open(&self) -> Result<Connection, ServerError> {
        let connection = Connection::open(&self.path).map_err(|error| from_sqlite(&error))?;
        connection
            .execute_batch("PRAGMA journal_mode=WAL; PRAGMA busy_timeout=30000; PRAGMA foreign_keys=on; PRAGMA trusted_schema=off")
            .map_err(|error| from_sqlite(&error))?;
        connection.set_prepared_statement_cache_capacity(512);
        Ok(connection)
    }

    pub fn open_reader(&self) -> Result<Connection, ServerError> {
        let connection = self.open()?;
        connection.execute_batch("PRAGMA query_only=on").map_err(|error| from_sqlite(&error))?;
        Ok(connection)
    }

    pub fn schema_generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Safeness {
    #[default]
    Default,
    OneSafe,
    TwoSafe,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    #[default]
    Default,
    Relaxed,
    Strict,
}

#[derive(Clone)]
pub struct WriteRequest {
    pub session: u64,
    pub lock_timeout: Duration,
    pub safeness: Safeness,
    pub durability: Durability,
    pub snapshot: Option<Position>,
}

pub struct Writer {
    connection: Mutex<Connection>,
    in_use: Mutex<bool>,
    free: std::sync::Condvar,
    database: Arc<Database>,
    pub refuse: AtomicBool,
}

pub struct WriteTransaction<'a> {
    connection: &'a Connection,
    schema_changed: &'a mut bool,
}

impl WriteTransaction<'_> {
    pub fn connection(&self) -> &Connection {
        self.connection
    }

    pub fn execute_schema(&mut self, sql: &str) -> Result<(), ServerError> {
        *self.schema_changed = true;
        self.connection.execute_batch(sql).map_err(|error| from_sqlite(&error))
    }
}

pub struct OpenTransaction {
    writer: Arc<Writer>,
    schema_changed: bool,
    ended: bool,
}

impl Writer {
    pub fn new(database: Arc<Database>, status: &Arc<NodeStatus>) -> Result<Writer, ServerError> {
        let mut connection = database.open()?;
        access::install(&mut connection)?;
        functions::register(&connection, status)?;
        let (in_use, free) = (Mutex::new(false), std::sync::Condvar::new());
        Ok(Writer {
            connection: Mutex::new(connection),
            in_use,
            free,
            database,
            refuse: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn interrupt(&self, _session: u64) {}

    pub fn autocommit<R: Send + 'static>(
        self: &Arc<Self>,
        request: WriteRequest,
        job: impl FnOnce(&mut WriteTransaction<'_>) -> Result<R, ServerError> + Send + 'static,
    ) -> Result<R, ServerError> {
        let mut transaction = self.begin(request)?;
        let result = transaction.run(job)?;
        transaction.commit()?;
        Ok(result)
    }

    pub fn begin(self: &Arc<Self>, request: WriteRequest) -> Result<OpenTransaction, ServerError> {
        if self.refuse.load(Ordering::Acquire) {
            return Err(ServerError::new(crate::hsb::codes::Code::NOT_ON_SECONDARY));
        }
        let in_use = self.in_use.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waited = self.free.wait_timeout_while(in_use, request.lock_timeout, |in_use| *in_use);
        let (mut in_use, late) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        if late.timed_out() {
            return Err(ServerError::sql("55P03", "the wait for the writer timed out"));
        }
        let connection = self.lock();
        connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| from_sqlite(&error))?;
        let now = connection.query_row("SELECT value FROM _hsb_meta WHERE key='position'", [], |row| {
            row.get::<_, Vec<u8>>(0)
        });
        let now = now.map_err(|error| from_sqlite(&error))?;
        let sequence = now.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        if request.snapshot.is_some_and(|snapshot| snapshot.sequence != sequence) {
            let _ = connection.execute_batch("ROLLBACK");
            return Err(ServerError::sql("40001", "could not serialize access due to concurrent update"));
        }
        *in_use = true;
        drop(connection);
        Ok(OpenTransaction { writer: self.clone(), schema_changed: false, ended: false })
    }
}

impl OpenTransaction {
    pub fn run<R>(
        &mut self,
        job: impl FnOnce(&mut WriteTransaction<'_>) -> Result<R, ServerError>,
    ) -> Result<R, ServerError> {
        let connection = self.writer.lock();
        job(&mut WriteTransaction { connection: &connection, schema_changed: &mut self.schema_changed })
    }

    fn batch(&mut self, sql: &str) -> Result<(), ServerError> {
        self.writer.lock().execute_batch(sql).map_err(|error| from_sqlite(&error))
    }

    pub fn savepoint(&mut self, name: &str) -> Result<(), ServerError> {
        self.batch(&format!("SAVEPOINT {}", crate::sql::lexer::quoted(name)))
    }

    pub fn rollback_to(&mut self, name: &str) -> Result<(), ServerError> {
        self.batch(&format!("ROLLBACK TO {}", crate::sql::lexer::quoted(name)))
    }

    pub fn release(&mut self, name: &str) -> Result<(), ServerError> {
        self.batch(&format!("RELEASE {}", crate::sql::lexer::quoted(name)))
    }

    pub fn commit(mut self) -> Result<(), ServerError> {
        let bump = "UPDATE _hsb_meta SET value = CAST(substr(value,1,8) || ?1 || zeroblob(16) AS BLOB) WHERE key='position'";
        {
            let connection = self.writer.lock();
            let before: Vec<u8> = connection
                .query_row("SELECT value FROM _hsb_meta WHERE key='position'", [], |row| row.get(0))
                .map_err(|error| from_sqlite(&error))?;
            let sequence =
                before.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
            let next = (sequence + 1).to_le_bytes().to_vec();
            connection
                .prepare_cached(bump)
                .and_then(|mut statement| statement.execute([next]))
                .map_err(|error| from_sqlite(&error))?;
        }
        self.batch("COMMIT")?;
        self.ended = true;
        if self.schema_changed {
            self.writer.database.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    pub fn rollback(self) {}
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.batch("ROLLBACK");
        }
        *self.writer.in_use.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = false;
        self.writer.free.notify_one();
    }
}

#[derive(Default)]
pub struct NodeStatus {
    pub read_only: AtomicBool,
}

impl NodeStatus {
    pub fn state_name(&self) -> String {
        if self.is_read_only() { "SECONDARY ACTIVE".into() } else { "PRIMARY ACTIVE".into() }
    }

    pub fn connect_status(&self) -> String {
        "CONNECTED".into()
    }

    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }
}

pub struct AdminCommand {
    pub user: String,
    pub role: Role,
    pub text: String,
}

pub struct AdminPort;

impl AdminPort {
    pub fn execute(&self, command: AdminCommand) -> Vec<(u32, String)> {
        vec![(0, format!("{} as {}", command.text, command.user))]
    }
}

pub struct Parameters {
    pub lock_wait_timeout: Duration,
}

pub struct NodeContext {
    pub database: Arc<Database>,
    pub writer: Arc<Writer>,
    pub status: Arc<NodeStatus>,
    pub admin: AdminPort,
    pub sessions: Arc<SessionRegistry>,
    pub parameters: Arc<Parameters>,
}

impl NodeContext {
    pub fn stand_in(path: PathBuf) -> Result<Arc<NodeContext>, ServerError> {
        let database = Arc::new(Database::create(path)?);
        let status = Arc::new(NodeStatus::default());
        let writer = Arc::new(Writer::new(database.clone(), &status)?);
        let at_writer = writer.clone();
        let sessions = Arc::new(SessionRegistry::new(move |session| at_writer.interrupt(session)));
        let parameters = Arc::new(Parameters { lock_wait_timeout: Duration::from_secs(30) });
        Ok(Arc::new(NodeContext { database, writer, status, admin: AdminPort, sessions, parameters }))
    }
}
