//! Netcopy as the node does it: sending, receiving, and swapping the database under a running server.
//!
//! The swap: an image that is complete, checked and on disk is renamed to `<database>.arrived`. From there on it is
//! the database, whatever happens: the swap is finished at once or at the next start. Before, it is nothing.

use std::net::TcpStream;
use std::sync::Arc;

use crossbeam_channel::bounded;

use super::outside;
use super::storage::Storage;
use crate::actors::replication_sender::UseLog;
use crate::actors::threads::{apply::ApplyJob, log::LogJob, stop_process};
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, Purpose};
use crate::hsb::position::Position;
use crate::net::peer::copy::{self, CopyOptions};
use crate::net::peer::handshake::{Failure, failure};
use crate::storage::database::Database;
use crate::storage::files;
use crate::storage::log::LogConfiguration;
use crate::storage::rewind::open_log;
use crate::storage::{apply::Applier, checkpoint};

pub(super) fn send(parameters: &Parameters, storage: &Storage, hello: Hello) -> Result<(), Failure> {
    let (mut stream, _) = outside::dial(parameters, Purpose::Netcopy, hello)?;
    log::info!("30570: netcopy begins");
    let reader = storage.database.open_reader().map_err(failure)?;
    checkpoint::move_pages(&reader).map_err(failure)?;
    drop(reader);
    let options = CopyOptions {
        block_bytes: parameters.backup_block_size_bytes(),
        compress: parameters.netcopy_compress(),
        maximum_rate: parameters.netcopy_max_rate_bytes_per_second(),
        timeout: parameters.netcopy_timeout(),
    };
    copy::send(&mut stream, &storage.database, options, &storage.copy_progress)
}

/// Receives a copy whose handshake is done, swaps it in and opens it. `None`: the old database is as it was.
pub(super) fn receive(
    parameters: &Parameters,
    storage: &Storage,
    stream: &mut TcpStream,
) -> Option<([u8; 16], Position)> {
    let incoming = storage.database.beside("netcopy");
    let received = copy::receive(stream, &incoming, parameters.netcopy_timeout(), &storage.copy_progress);
    let outcome = received.and_then(|identity| {
        swap(storage, &incoming).map_err(failure)?;
        Ok(identity)
    });
    match outcome {
        Ok(identity) => Some(identity),
        Err((code, detail)) => {
            log::error!("{}: the netcopy has failed: {} {detail}", code.number(), code.text());
            copy::answer(stream, &Err((code, detail)));
            if let Err(error) = files::remove_if_there(&incoming) {
                log::warn!("{}: {error}", incoming.display());
            }
            None
        }
    }
}

/// Closes the database everywhere, puts the new one in its place and opens it.
fn swap(storage: &Storage, incoming: &std::path::Path) -> Result<(), ServerError> {
    let io = |error: std::io::Error| ServerError::with(Code::OPERATION_FAILED, error);
    let arrived = storage.database.beside("arrived");
    files::rename_durably(incoming, &arrived).map_err(io)?;
    storage.writer.detach();

    let (database, log) = (Arc::clone(&storage.database), storage.log.clone());
    let (closed, when_closed) = bounded(1);
    let (opened, when_opened) = bounded(1);
    let applier_part = move || -> Option<Applier> {
        // The log thread opens the new log meanwhile; it needs the database in place first.
        let outcome = finish_swap(&database, &log).and_then(|()| Applier::new(database.open_for_apply()?));
        let _ = closed.send(());
        outcome.map_err(|error| log::error!("the copied database cannot be opened: {error}")).ok()
    };
    send_job(&storage.apply_jobs, ApplyJob::Replace(Box::new(applier_part), opened))?;
    wait(&when_closed)?;
    wait(&when_opened)?;

    let (database, log) = (Arc::clone(&storage.database), storage.log_configuration()?);
    let use_log = UseLog(log.clone());
    let (ready, when_ready) = bounded(1);
    let log_part = move || match open_log(&database, &log) {
        Ok((writer, _)) => Some(writer),
        // The old database is gone and the new one has no log: the next start begins one.
        Err(error) => stop_process(&error),
    };
    send_job(&storage.log_jobs, LogJob::Replace(Box::new(log_part), ready))?;
    wait(&when_ready)?;

    storage.use_log.do_send(use_log);
    storage.attach_writer()?;
    storage.database.schema_changed();
    Ok(())
}

/// Completes a swap that was begun: at once, or at the start after a crash. Does nothing if none was.
pub(super) fn finish_swap(database: &Database, log: &LogConfiguration) -> Result<(), ServerError> {
    let arrived = database.beside("arrived");
    if !arrived.exists() {
        return Ok(());
    }
    let io = |error: std::io::Error| ServerError::with(Code::OPERATION_FAILED, error);
    for suffix in ["-wal", "-shm"] {
        let mut companion = database.path().as_os_str().to_owned();
        companion.push(suffix);
        files::remove_if_there(companion.as_ref()).map_err(io)?;
    }
    crate::storage::log::remove_all(log)?;
    files::rename_durably(&arrived, database.path()).map_err(io)
}

pub(super) fn send_job<T>(jobs: &crossbeam_channel::Sender<T>, job: T) -> Result<(), ServerError> {
    jobs.send(job).map_err(|_| ServerError::new(Code::SHUTTING_DOWN))
}

pub(super) fn wait(done: &crossbeam_channel::Receiver<()>) -> Result<(), ServerError> {
    done.recv().map_err(|_| ServerError::new(Code::SHUTTING_DOWN))
}
