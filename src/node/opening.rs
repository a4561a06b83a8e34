//! What is looked at and made before a node's database is opened.

use std::path::Path;

use super::start::AskAdministrator;
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::sql::users;
use crate::storage::database::Database;
use crate::storage::log::{self as storage_log, LogConfiguration};

/// Whether there is a database file and nothing that belongs to one that was in use.
pub(super) fn is_alone(database: &Database, log: &LogConfiguration) -> Result<bool, ServerError> {
    Ok(database.exists() && !database.write_ahead_log().exists() && !storage_log::exists(log)?)
}

pub(super) fn found_alone(database: &Database, position: Position) -> String {
    let (path, wal) = (database.path().display(), database.write_ahead_log());
    format!(
        "{path} is here without {} and without its log files: it is at {position}. If 'backup' or 'hsb copy' made it, or if its server had been stopped in order, that is all of it; if it was copied while its server ran, what was committed after that server's last checkpoint is missing, and it may be damaged. docs/backup.md says how to copy a database",
        wal.display()
    )
}

/// A database with a primary's history is about to be used without HotStandby. That has to be said in solid.ini: a
/// section that is missing may as well be the wrong file.
pub(super) fn leave_pair(parameters: &Parameters) -> Result<(), ServerError> {
    if !parameters.has_hotstandby_section() {
        return Err(ServerError::new(Code::NO_HOTSTANDBY_SECTION));
    }
    log::warn!(
        "HSBEnabled=no on the database of a pair: what is written now is not replicated, and no log is kept for the other server; coming back to the pair needs a netcopy once the log does not reach back (14708)"
    );
    Ok(())
}

/// SQLite would keep its log beside the file that the link names, and this server would look for it beside the link.
pub(super) fn refuse_link(database: &Path) -> Result<(), ServerError> {
    match std::fs::symlink_metadata(database) {
        Ok(found) if found.is_symlink() => {
            let text = "is a symbolic link: let IndexFile.FileSpec_1 name the file itself";
            Err(ServerError::with(Code::OPERATION_FAILED, format!("{} {text}.", database.display())))
        }
        _ => Ok(()),
    }
}

pub(super) fn create(
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
