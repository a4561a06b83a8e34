//! A node's directory is locked and looked at, its port taken, its database opened and recovered. Nothing runs yet.

use std::path::Path;
use std::sync::Arc;

use socket2::Socket;

use super::budget;
use super::memory::{self, MemoryDirectory};
use super::start::AskAdministrator;
use crate::config::Parameters;
use crate::descriptors::{self, Budget};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::hsb::state::State;
use crate::operations::lock::{DatabaseLock, LogLock};
use crate::operations::{copy, parameters, storage};
use crate::sql::users;
use crate::storage::database::Database;
use crate::storage::kinship;
use crate::storage::log::{self as storage_log, LogConfiguration};
use crate::storage::recovery::{self, Recovered};
use crate::threads;

/// A directory that is ready for a node.
pub(super) struct Opened {
    pub(super) parameters: Arc<Parameters>,
    pub(super) database: Arc<Database>,
    /// Where the log is, of no database yet.
    pub(super) log: LogConfiguration,
    pub(super) state: State,
    /// None: there is no database before the first netcopy.
    pub(super) recovered: Option<Recovered>,
    pub(super) port: Socket,
    pub(super) budget: Budget,
    pub(super) held: Held,
}

/// What a node holds on to for as long as it lives.
pub(super) struct Held {
    /// Of its directory.
    pub(super) lock: Arc<DatabaseLock>,
    /// It stands for its disk.
    pub(super) _memory: Option<MemoryDirectory>,
    /// Of its log, where that is on disk.
    pub(super) _log_lock: Option<LogLock>,
}

/// Opens the directory that the parameters name; `offline`: for a server that waits for a netcopy.
pub(super) fn open(
    parameters: Parameters,
    offline: bool,
    administrator: AskAdministrator,
) -> Result<Opened, ServerError> {
    let parameters = Arc::new(parameters);
    refuse_link(&parameters.database_file())?;
    let lock = Arc::new(DatabaseLock::take(&parameters.database_file())?);
    let memory = memory::place(&parameters, lock.file())?;
    let database_file = match &memory {
        Some(memory) if parameters.diskless() => memory.path().join("solid.db"),
        _ => parameters.database_file(),
    };
    crate::storage::memory::set_total(parameters.statement_memory_bytes());
    let database = Arc::new(Database::at(database_file, parameters.cache_size_bytes()));
    let on_disk = storage::log_configuration(&parameters);
    let (log, log_lock) = match &memory {
        Some(memory) => (memory::log(&on_disk, &parameters, memory), None),
        None => (on_disk.clone(), Some(LogLock::take(&on_disk, database.path())?)),
    };
    let port = parameters::take_port(&parameters.listen())?;
    threads::keep_some();
    descriptors::fill_reserve();
    let budget = budget::of_this_process(&parameters)?;
    copy::finish_swap(&database, &log)?;
    let is_alone = !offline && log_lock.is_some() && is_alone(&database, &log)?;
    let state = starting_state(&parameters, offline)?;
    let recovered = if offline {
        if database.exists() {
            log::warn!(
                "-x backupserver: the database that is here is left alone until a netcopy replaces it"
            );
        }
        None
    } else {
        if !database.exists() {
            create(&database, &parameters, administrator)?;
            lock.forget();
        }
        kinship::check(&database)?;
        database.hold()?;
        parameters.adopt_page_size(database.page_size_bytes()?);
        if memory.is_some() && !parameters.diskless() {
            memory::leave_log(&database, on_disk)?;
        }
        Some(recovery::open(&database, log.clone())?)
    };
    if let Some(recovered) = recovered.as_ref().filter(|_| is_alone) {
        log::warn!("{}", found_alone(&database, recovered.decided));
    }
    if state == State::Plain && recovered.as_ref().is_some_and(|recovered| recovered.decided.epoch > 0) {
        leave_pair(&parameters)?;
    }
    let held = Held { lock, _memory: memory, _log_lock: log_lock };
    Ok(Opened { parameters, database, log, state, recovered, port, budget, held })
}

fn starting_state(parameters: &Parameters, offline: bool) -> Result<State, ServerError> {
    match (parameters.hsb_enabled(), offline) {
        (true, true) => Ok(State::Offline),
        (true, false) => Ok(State::SecondaryAlone),
        (false, false) => Ok(State::Plain),
        (false, true) => Err(ServerError::with(Code::NOT_HOTSTANDBY, "(-x backupserver)")),
    }
}

/// Whether there is a database file and nothing that belongs to one that was in use.
fn is_alone(database: &Database, log: &LogConfiguration) -> Result<bool, ServerError> {
    Ok(database.exists() && !database.write_ahead_log().exists() && !storage_log::exists(log)?)
}

fn found_alone(database: &Database, position: Position) -> String {
    let (path, wal) = (database.path().display(), database.write_ahead_log());
    format!(
        "{path} is here without {} and without its log files: it is at {position}. If 'backup' or 'hsb copy' made it, or if its server had been stopped in order, that is all of it; if it was copied while its server ran, what was committed after that server's last checkpoint is missing, and it may be damaged. docs/backup.md says how to copy a database",
        wal.display()
    )
}

/// A database with a primary's history is about to be used without HotStandby. That has to be said in solid.ini: a
/// section that is missing may as well be the wrong file.
fn leave_pair(parameters: &Parameters) -> Result<(), ServerError> {
    if !parameters.has_hotstandby_section() {
        return Err(ServerError::new(Code::NO_HOTSTANDBY_SECTION));
    }
    log::warn!(
        "HSBEnabled=no on the database of a pair: what is written now is not replicated, and no log is kept for the other server; coming back to the pair needs a netcopy once the log does not reach back (14708)"
    );
    Ok(())
}

/// SQLite would keep its log beside the file that the link names, and this server would look for it beside the link.
fn refuse_link(database: &Path) -> Result<(), ServerError> {
    match std::fs::symlink_metadata(database) {
        Ok(found) if found.is_symlink() => {
            let text = "is a symbolic link: let IndexFile.FileSpec_1 name the file itself";
            Err(ServerError::with(Code::OPERATION_FAILED, format!("{} {text}.", database.display())))
        }
        _ => Ok(()),
    }
}

fn create(
    database: &Database,
    parameters: &Parameters,
    administrator: AskAdministrator,
) -> Result<(), ServerError> {
    let (user, password) = administrator()?;
    let verifier = users::Verifier::of_password(&password)?;
    let page_size = u32::try_from(parameters.page_size_bytes()).unwrap_or(4096);
    database
        .create(page_size, |connection| users::insert(connection, &user, users::Role::Admin, &verifier))?;
    log::info!("created the database {} with the administrator {user}", database.path().display());
    Ok(())
}
