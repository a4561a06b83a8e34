//! `hsb rewind` as the node does it: finding the way back, saving, and taking back under a running server.
//!
//! The steps and what a crash between them leaves are described in [`crate::storage::rewind`].

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::bounded;

use super::copy::{send_job, wait};
use super::history;
use super::storage::Storage;
use crate::actors::threads::{apply::ApplyJob, log::LogJob};
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::RewindEnd;
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::hsb::state::State;
use crate::hsb::transactions;
use crate::stop::stop_process;
use crate::storage::apply::Applier;
use crate::storage::database;
use crate::storage::recovery;
use crate::storage::rewind::{Rewind, open_log};

/// Takes back what the primary's history lacks, or saves it and gives it up.
pub(crate) fn rewind(storage: &Storage) -> Result<RewindEnd, Refusal> {
    let parameters = &storage.node.parameters;
    let comparison = history::compare(storage)?;
    match comparison.peer.state {
        State::Standalone => {
            return Err(Refusal::new(Code::NOT_IN_STANDALONE, "The other server is STANDALONE."));
        }
        state if !state.is_primary() => {
            let detail = "A rewind needs to know whose history to keep.";
            return Err(Refusal::new(Code::BOTH_SECONDARY, detail));
        }
        _ => {}
    }
    let connection = storage.node.database.open_reader()?;
    let from = database::read_identity(&connection)?.position;
    drop(connection);
    let Some(common) = comparison.common else {
        return give_up_unsaved(parameters, Code::LOG_TOO_SHORT, &comparison.describe());
    };
    if common.sequence >= from.sequence {
        let text = "There is nothing to take back: the primary has all transactions of this server. 'hsb connect' connects them.";
        return Ok(RewindEnd::TakenBack { position: from, text: text.into() });
    }
    let log = storage.log_configuration()?;
    let rewind = Rewind::plan(&log, from, common)?;
    let path = rewind.save(&storage.node.database, &name(parameters))?;
    let saved = format!("{} saved to {}", were(rewind.transactions()), path.display());
    if let Some(statement) = rewind.schema_change() {
        let text = format!(
            "{saved}. Among them is a change of the schema, which cannot be undone: {statement}. This server still has them. {CONSENT}"
        );
        log::warn!("{text}");
        let refusal = Refusal::new(Code::NOT_SYNCHRONIZED, text);
        return Ok(RewindEnd::GivenUp { common: Some(common), refusal });
    }
    take_back(storage, rewind)?;
    let text = format!("{saved} and taken back; this server is at {common} now. 'hsb connect' connects it.");
    log::warn!("{text}");
    Ok(RewindEnd::TakenBack { position: common, text })
}

/// What follows where nothing could be taken back.
const CONSENT: &str = "'hsb netcopy' at the primary may replace its database now, once, until this server is restarted, set to another state, or asked to connect.";

/// So many transactions, as the subject of a sentence.
fn were(count: u64) -> String {
    format!("{} {}", transactions(count), if count == 1 { "was" } else { "were" })
}

/// This server, for the head of a file.
fn name(parameters: &Parameters) -> String {
    let listen = parameters.listen();
    format!("{} {}, {}", listen.host, listen.port, parameters.database_file().display())
}

/// Nobody can say what only this server has.
fn give_up_unsaved(parameters: &Parameters, code: Code, found: &str) -> Result<RewindEnd, Refusal> {
    let kept = if parameters.diskless() {
        "Its database, which is in memory, is then lost: 'backup' keeps it before."
    } else {
        "Its database is then kept whole, under a name that solmsg.out tells."
    };
    let text = format!("{found} Nothing was changed. {CONSENT} {kept}");
    log::warn!("{text}");
    Ok(RewindEnd::GivenUp { common: None, refusal: Refusal::new(code, text) })
}

/// Before a netcopy replaces this server's database: what that has beyond `common` goes to a file or, where it cannot be
/// told apart, the database is kept whole under another name.
pub(crate) fn save_before_copy(storage: &Storage, common: Option<Position>) -> Result<(), ServerError> {
    if !storage.node.database.exists() {
        return Ok(());
    }
    match save(storage, common) {
        Ok(None) => Ok(()),
        Ok(Some(path)) => {
            log::warn!("what only the database here had is saved to {}", path.display());
            Ok(())
        }
        Err(error) if error.code == Some(Code::DISK_FULL) => Err(error),
        // One in memory would fill it up, and be gone at the end all the same.
        Err(error) if storage.node.parameters.diskless() => {
            log::warn!("what only the database here had is lost: {error}");
            Ok(())
        }
        Err(error) => {
            let kept = storage.node.database.keep_beside().map_err(|why| {
                let text = format!("The database here cannot be kept before it is replaced: {why}.");
                ServerError::with(Code::OPERATION_FAILED, text)
            })?;
            log::warn!(
                "what only the database here had cannot be saved as SQL ({error}); it is kept whole as {}, to be deleted when it is not needed",
                kept.display()
            );
            Ok(())
        }
    }
}

/// Where it was saved; none: nothing is only here.
fn save(storage: &Storage, common: Option<Position>) -> Result<Option<PathBuf>, ServerError> {
    let (from, log) = if storage.node.status.state() == State::Offline {
        // Nobody has opened it yet.
        let recovered = recovery::open(&storage.node.database, storage.log.clone())?;
        (recovered.decided, recovered.log_configuration)
    } else {
        let position = database::read_identity(&storage.node.database.open_reader()?)?.position;
        (position, storage.log_configuration()?)
    };
    if from.sequence == 0 || common.is_some_and(|common| common.sequence >= from.sequence) {
        return Ok(None);
    }
    let unknown = "(the logs do not reach back to a position that both servers have)";
    let common = common.ok_or_else(|| ServerError::with(Code::LOG_TOO_SHORT, unknown))?;
    let rewind = Rewind::plan(&log, from, common)?;
    rewind.save(&storage.node.database, &name(&storage.node.parameters)).map(Some)
}

/// Has the two threads that own database and log do their parts.
fn take_back(storage: &Storage, rewind: Rewind) -> Result<(), ServerError> {
    let (undone, outcome) = bounded(1);
    let (ready, when_ready) = bounded(1);
    let database = Arc::clone(&storage.node.database);
    let applier_part = move || {
        // The asker waits for it.
        let _ = undone.send(rewind.undo(&database));
        match database.open_for_apply().and_then(Applier::new) {
            Ok(applier) => Some(applier),
            Err(error) => stop_process(&error),
        }
    };
    send_job(&storage.apply_jobs, ApplyJob::Replace(Box::new(applier_part), ready))?;
    wait(&when_ready)?;
    outcome.recv().map_err(|_| ServerError::new(Code::SHUTTING_DOWN))??;

    let (ready, when_ready) = bounded(1);
    let (database, log) = (Arc::clone(&storage.node.database), storage.log_configuration()?);
    let log_part = move || match open_log(&database, &log) {
        Ok((writer, _)) => Some(writer),
        // The database is rewound: the next start completes it.
        Err(error) => stop_process(&error),
    };
    send_job(&storage.log_jobs, LogJob::Replace(Box::new(log_part), ready))?;
    wait(&when_ready)
}
