//! Netcopy as the node does it: sending, receiving, and swapping the database under a running server.
//!
//! The swap: an image that is complete, checked and on disk is renamed to `<database>.arrived`. From there on it is
//! the database, whatever happens: the swap is finished at once or at the next start. Before, it is nothing. What a
//! broken copy leaves is `<database>.netcopy`: never opened, only looked through for blocks by the next one.

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::bounded;

use super::checkpointer::Checkpointer;
use super::storage::Storage;
use super::{history, outside, rewind};
use crate::actors::replication_sender::SenderMessage;
use crate::actors::threads::{apply::ApplyJob, log::LogJob};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, Purpose};
use crate::hsb::position::{DatabasePosition, Position};
use crate::hsb::refusal::Refusal;
use crate::net::peer::copy::{self, CopyOptions};
use crate::net::peer::handshake;
use crate::stop::stop_process;
use crate::storage::apply::Applier;
use crate::storage::database::Database;
use crate::storage::files;
use crate::storage::image::Image;
use crate::storage::log::LogConfiguration;
use crate::storage::rewind::open_log;
use crate::stream::Stream;

pub(crate) fn send(storage: &Storage, checkpointer: &Checkpointer, hello: Hello) -> Result<(), Refusal> {
    let parameters = &storage.node.parameters;
    let (mut stream, target) = outside::dial(parameters, Purpose::Netcopy, hello)?;
    history::compare_before_copy(&mut stream, storage, &target)?;
    handshake::read_answer(&mut stream)?;
    log::info!("30570: netcopy begins");
    checkpointer.make()?;
    let block_bytes = parameters.backup_block_size_bytes().min(copy::MAX_BLOCK_BYTES);
    let image = Image::take(&storage.node.database, block_bytes)?;
    let options = CopyOptions {
        compress: parameters.netcopy_compress(),
        maximum_rate: parameters.netcopy_max_rate_bytes_per_second(),
        timeout: parameters.netcopy_timeout(),
        abort: &storage.abort_copies,
    };
    let sent = copy::send(&mut stream, &image, options, &storage.node.copy_progress);
    storage.node.copy_progress.end();
    sent.map(|bytes| log::info!("netcopy: {bytes} bytes were sent for an image of {} bytes", image.bytes()))
}

/// Receives a copy whose handshake is done, swaps it in and opens it. An error: the old database is as it was. `common`
/// is the newest position that both histories are known to have: what the old database has beyond it is saved first.
pub(crate) fn receive(
    storage: &Storage,
    stream: &mut Stream,
    common: Option<Position>,
) -> Result<DatabasePosition, Refusal> {
    let incoming = incoming(&storage.node.database);
    let (base, progress) = (storage.node.database.path(), &storage.node.copy_progress);
    let (timeout, abort) = (storage.node.parameters.netcopy_timeout(), &storage.abort_copies);
    let received = copy::receive(stream, &incoming, base, timeout, progress, abort);
    progress.end();
    // The receiver has read, and closed, the old database file.
    if let Err(error) = storage.node.database.renew_hold() {
        log::warn!("{error}");
    }
    let outcome = received.and_then(|received| {
        let reused = received.reused_bytes;
        log::info!("netcopy: the image is complete; {reused} bytes of it were here already");
        let swapped = copy::while_working(stream, || -> Result<(), Refusal> {
            received.sync()?;
            // The last moment: from here on the copy stands, and an end of the server leaves it to the next start.
            copy::go_on_unless(abort)?;
            rewind::save_before_copy(storage, common)?;
            Ok(swap(storage, &incoming)?)
        });
        swapped.unwrap_or_else(|| Err(Code::FAILED_UNEXPECTEDLY.into()))?;
        Ok(DatabasePosition { database_id: received.database_id, position: received.position })
    });
    if let Err(refusal) = &outcome {
        log::error!("the netcopy has failed: {refusal}");
        // Else it is kept for a repeat.
        if matches!(refusal.code, Code::DATABASE_CORRUPT | Code::DISK_FULL) {
            forget_incoming(&storage.node.database);
        }
    }
    outcome
}

fn incoming(database: &Database) -> PathBuf {
    database.beside("netcopy")
}

/// What a broken copy left is of no use any more.
pub(crate) fn forget_incoming(database: &Database) {
    let incoming = incoming(database);
    if let Err(error) = files::remove_if_there(&incoming) {
        log::warn!("{}: {error}", incoming.display());
    }
}

/// Closes the database everywhere, puts the new one in its place and opens it.
fn swap(storage: &Storage, incoming: &std::path::Path) -> Result<(), ServerError> {
    let io = |error: std::io::Error| ServerError::with(Code::OPERATION_FAILED, error);
    let arrived = storage.node.database.beside("arrived");
    files::rename_durably(incoming, &arrived).map_err(io)?;
    match open_arrived(storage) {
        // The next start finds it in place.
        Err(error) if error.code == Some(Code::SHUTTING_DOWN) => Ok(()),
        outcome => outcome,
    }
}

fn open_arrived(storage: &Storage) -> Result<(), ServerError> {
    storage.node.writer.detach();

    let (database, log) = (Arc::clone(&storage.node.database), storage.log.clone());
    let (closed, when_closed) = bounded(1);
    let (opened, when_opened) = bounded(1);
    let applier_part = move || -> Option<Applier> {
        // The log thread opens the new log meanwhile; it needs the database in place first.
        // The connection that holds the file is the last.
        let _until_it_is_there = database.ask_nothing();
        database.release();
        let outcome = finish_swap(&database, &log).and_then(|()| {
            if let Err(error) = database.hold() {
                log::warn!("{error}");
            }
            Applier::new(database.open_for_apply()?)
        });
        let _ = closed.send(());
        outcome.map_err(|error| log::error!("the copied database cannot be opened: {error}")).ok()
    };
    send_job(&storage.apply_jobs, ApplyJob::Replace(Box::new(applier_part), opened))?;
    wait(&when_closed)?;
    wait(&when_opened)?;

    let (database, log) = (Arc::clone(&storage.node.database), storage.log_configuration()?);
    let use_log = SenderMessage::UseLog(log.clone());
    let (ready, when_ready) = bounded(1);
    let log_part = move || match open_log(&database, &log) {
        Ok((writer, _)) => Some(writer),
        // The old database is gone and the new one has no log: the next start begins one.
        Err(error) => stop_process(&error),
    };
    send_job(&storage.log_jobs, LogJob::Replace(Box::new(log_part), ready))?;
    wait(&when_ready)?;

    storage.sender.do_send(use_log);
    storage.attach_writer()?;
    storage.node.database.schema_changed();
    Ok(())
}

/// Completes a swap that was begun: at once, or at the start after a crash. Does nothing if none was.
pub(crate) fn finish_swap(database: &Database, log: &LogConfiguration) -> Result<(), ServerError> {
    let arrived = database.beside("arrived");
    if !arrived.exists() {
        return Ok(());
    }
    let io = |error: std::io::Error| ServerError::with(Code::OPERATION_FAILED, error);
    for suffix in ["-wal", "-shm"] {
        files::remove_if_there(&files::beside(database.path(), suffix)).map_err(io)?;
    }
    crate::storage::log::remove_all(log)?;
    files::rename_durably(&arrived, database.path()).map_err(io)
}

pub(crate) fn send_job<T>(jobs: &crossbeam_channel::Sender<T>, job: T) -> Result<(), ServerError> {
    jobs.send(job).map_err(|_| ServerError::new(Code::SHUTTING_DOWN))
}

pub(crate) fn wait(done: &crossbeam_channel::Receiver<()>) -> Result<(), ServerError> {
    done.recv().map_err(|_| ServerError::new(Code::SHUTTING_DOWN))
}
