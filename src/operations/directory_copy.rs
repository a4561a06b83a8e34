//! `hsb copy` and `backup`: the database as a file in a directory, from which a server can be started.
//!
//! The image is written beside its final name, synced, and then swapped in exactly as a netcopy is (`copy`): files of an
//! older copy in that directory are replaced, and a crash in between is completed by whoever starts there. The
//! directory is locked meanwhile, as a running server does it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crossbeam_channel::bounded;

use super::lock::DatabaseLock;
use super::storage::Storage;
use super::{copy, storage};
use crate::actors::supervisor::SupervisorMessage;
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::Command;
use crate::hsb::phase::CopyStatus;
use crate::hsb::position::Position;
use crate::hsb::state::State;
use crate::net::peer::copy::MAX_BLOCK_BYTES;
use crate::progress::Unit;
use crate::services::context::Answer;
use crate::storage::database::{self, Database};
use crate::storage::files;
use crate::storage::image::Image;
use crate::storage::log::{self as storage_log, LogConfiguration};

/// A backup or copy that has ended.
#[derive(Clone)]
pub struct EndedCopy {
    /// When it ended.
    pub when: SystemTime,
    /// `backup` or `hsb copy`.
    pub what: &'static str,
    /// Where to.
    pub directory: PathBuf,
    /// The code and text of the reason, if it failed.
    pub result: Result<(), String>,
}

/// The last of them since the start of the server, the oldest first.
#[derive(Default)]
pub struct EndedCopies(Mutex<VecDeque<EndedCopy>>);

/// So many are remembered.
const ENDED_COPIES: usize = 50;

impl EndedCopies {
    /// The oldest first.
    pub fn list(&self) -> Vec<EndedCopy> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn add(&self, what: &'static str, directory: PathBuf, result: Result<(), String>) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() == ENDED_COPIES {
            ended.pop_front();
        }
        ended.push_back(EndedCopy { when: SystemTime::now(), what, directory, result });
    }
}

/// Begins a copy ([`Command::Copy`] or [`Command::Backup`]) to `directory`, which is relative to solid.ini, or else
/// to the configured one, and answers when it has begun. A refusal because of the state comes first.
pub fn begin(storage: &Storage, command: Command, directory: Option<&str>) -> Result<Answer, ServerError> {
    let parameters = &storage.node.parameters;
    let configured = match command {
        Command::Backup => Some(parameters.backup_directory()),
        _ => parameters.copy_directory(),
    };
    let directory = directory.map(|directory| parameters.directory().join(directory)).or(configured);
    let now = storage.node.status.snapshot();
    let state_allows = match command {
        Command::Backup => now.state != State::Offline,
        _ => now.state == State::PrimaryAlone,
    };
    if state_allows && command == Command::Copy && parameters.diskless() {
        return Err(ServerError::new(Code::DISKLESS));
    }
    if state_allows && now.copy != CopyStatus::Active {
        let Some(directory) = &directory else {
            return Err(ServerError::new(Code::COPY_DIRECTORY_MISSING));
        };
        check(parameters, directory, storage.database_id()?)?;
    }
    let (reply, answer) = bounded(1);
    let directory = directory.unwrap_or_default();
    storage.supervisor.do_send(SupervisorMessage::CopyToDirectory { command, directory, reply });
    answer.recv().map_err(|_| ServerError::new(Code::SHUTTING_DOWN))
}

/// Whether the database can be copied to this directory: an error says why not and what to do.
pub(crate) fn check(
    parameters: &Parameters,
    directory: &Path,
    database_id: [u8; 16],
) -> Result<(), ServerError> {
    let refuse = |code, why: &str| Err(ServerError::with(code, format!("{}: {why}", directory.display())));
    match std::fs::metadata(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return refuse(Code::COPY_DIRECTORY_ABSENT, "create it, or name another.");
        }
        Err(error) => return refuse(Code::COPY_DIRECTORY_ILLEGAL, &error.to_string()),
        Ok(found) if !found.is_dir() => {
            return refuse(Code::COPY_DIRECTORY_ILLEGAL, "it is not a directory.");
        }
        Ok(_) => {}
    }
    let own = parameters.database_file();
    let own = [own.parent().unwrap_or(parameters.directory()), &parameters.log_directory()];
    if own.iter().any(|own| is_same(own, directory)) {
        return refuse(Code::COPY_DIRECTORY_ILLEGAL, "this server's own files are there.");
    }
    let target = target(parameters, directory);
    // Where a server runs, nobody else can read; that it runs is found when the directory is locked.
    if target.exists() && !DatabaseLock::is_held(target.path()) {
        let found = target.open_reader().and_then(|connection| database::read_identity(&connection));
        if !found.is_ok_and(|found| found.database_id == database_id) {
            return refuse(
                Code::COPY_DIRECTORY_ILLEGAL,
                "there is another database; remove its files, or name another directory.",
            );
        }
    }
    // Log files of an older copy are replaced; others may be all that somebody has.
    if let Some(file) = storage_log::foreign_file(&log_there(parameters, directory, database_id))? {
        let why =
            format!("{} is no log of this database; remove it, or name another directory.", file.display());
        return refuse(Code::COPY_DIRECTORY_ILLEGAL, &why);
    }
    Ok(())
}

/// The log of a server that is started in this directory.
fn log_there(parameters: &Parameters, directory: &Path, database_id: [u8; 16]) -> LogConfiguration {
    let own = storage::log_configuration(parameters);
    LogConfiguration { directory: directory.to_path_buf(), database_id, ..own }
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// The copy gets the database's own file name: a server there finds it with the same solid.ini.
fn target(parameters: &Parameters, directory: &Path) -> Database {
    let file = parameters.database_file();
    let name = file.file_name().unwrap_or("solid.db".as_ref());
    Database::at(directory.join(name), 0)
}

/// Makes the copy; returns the position that it is from.
pub(crate) fn write(
    storage: &Storage,
    what: &'static str,
    directory: &Path,
) -> Result<Position, ServerError> {
    let (parameters, database_id) = (&storage.node.parameters, storage.database_id()?);
    check(parameters, directory, database_id)?;
    let target = target(parameters, directory);
    let lock = DatabaseLock::take(target.path())
        .map_err(|error| ServerError::with(Code::COPY_DIRECTORY_ILLEGAL, error.detail()))?;
    let unfinished = target.beside("copying");
    let written = write_image(storage, what, &unfinished);
    storage.node.copy_progress.end();
    let outcome = written.and_then(|position| {
        files::rename_durably(&unfinished, &target.beside("arrived"))
            .map_err(|error| failed(directory, &error))?;
        copy::finish_swap(&target, &log_there(parameters, directory, database_id))?;
        lock.forget();
        Ok(position)
    });
    match &outcome {
        Ok(position) => log::info!("{what}: {} holds the database at {position}", target.path().display()),
        Err(_) => {
            // Whether or not the rest can be removed, the first error is the one to report.
            // A link that was in the way stays.
            if std::fs::symlink_metadata(&unfinished).is_ok_and(|found| found.is_file()) {
                let _ = files::remove_if_there(&unfinished);
            }
        }
    }
    outcome
}

fn write_image(storage: &Storage, what: &'static str, path: &Path) -> Result<Position, ServerError> {
    let block_bytes = storage.node.parameters.backup_block_size_bytes().min(MAX_BLOCK_BYTES);
    let image = Image::take(&storage.node.database, block_bytes)?;
    storage.node.copy_progress.begin(what, Unit::Bytes, image.bytes());
    let mut file: File = files::create_private(path).map_err(|error| failed(path, &error))?;
    let mut block = Vec::new();
    for index in 0..image.blocks() {
        if storage.abort_copies.load(Ordering::Relaxed) {
            return Err(ServerError::with(Code::BACKUP_ABORTED, "The server is shutting down."));
        }
        image.read(index, &mut block)?;
        file.write_all(&block).map_err(|error| failed(path, &error))?;
        storage.node.copy_progress.advance(block.len() as u64);
    }
    file.sync_all().map_err(|error| failed(path, &error))?;
    Ok(image.position)
}

fn failed(path: &Path, error: &std::io::Error) -> ServerError {
    let full = error.kind() == std::io::ErrorKind::StorageFull;
    let code = if full { Code::DISK_FULL } else { Code::COPY_DIRECTORY_ILLEGAL };
    ServerError::with(code, format!("{}: {error}.", path.display()))
}
