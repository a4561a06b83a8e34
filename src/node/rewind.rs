//! `hsb rewind` as the node does it: finding the way back, saving, and taking back under a running server.
//!
//! The steps and what a crash between them leaves are described in [`crate::storage::rewind`].

use std::sync::Arc;

use crossbeam_channel::bounded;

use super::copy::{send_job, wait};
use super::history;
use super::storage::Storage;
use crate::actors::threads::{apply::ApplyJob, log::LogJob, stop_process};
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::hsb::state::State;
use crate::net::peer::handshake::{Failure, failure};
use crate::storage::apply::Applier;
use crate::storage::database;
use crate::storage::rewind::{Rewind, open_log};

/// Takes back what the primary's history lacks. Where this database is then, and what to tell the operator.
pub(super) fn rewind(parameters: &Parameters, storage: &Storage) -> Result<(Position, String), Failure> {
    let comparison = history::compare(parameters, storage)?;
    match comparison.peer.state {
        State::Standalone => return Err((Code::NOT_IN_STANDALONE, "The other server is STANDALONE.".into())),
        state if !state.is_primary() => {
            return Err((Code::BOTH_SECONDARY, "A rewind needs to know whose history to keep.".into()));
        }
        _ => {}
    }
    let connection = storage.database.open_reader().map_err(failure)?;
    let (_, from) = database::read_identity(&connection).map_err(failure)?;
    drop(connection);
    let Some(common) = comparison.common else {
        return Err((Code::LOG_TOO_SHORT, comparison.describe()));
    };
    if common.sequence >= from.sequence {
        let text = "There is nothing to take back: the primary has all transactions of this server. 'hsb connect' connects them.";
        return Ok((from, text.into()));
    }
    let log = storage.log_configuration().map_err(failure)?;
    let rewind = Rewind::plan(&log, from, common).map_err(failure)?;
    let path = rewind.save(&storage.database).map_err(failure)?;
    let count = rewind.transactions();
    take_back(storage, rewind).map_err(failure)?;
    let text = format!(
        "{count} transactions were saved to {} and taken back; this server is at {common} now. 'hsb connect' connects it.",
        path.display()
    );
    log::warn!("{text}");
    Ok((common, text))
}

/// Has the two threads that own database and log do their parts.
fn take_back(storage: &Storage, rewind: Rewind) -> Result<(), ServerError> {
    let (undone, outcome) = bounded(1);
    let (ready, when_ready) = bounded(1);
    let database = Arc::clone(&storage.database);
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
    let (database, log) = (Arc::clone(&storage.database), storage.log_configuration()?);
    let log_part = move || match open_log(&database, &log) {
        Ok((writer, _)) => Some(writer),
        // The database is rewound: the next start completes it.
        Err(error) => stop_process(&error),
    };
    send_job(&storage.log_jobs, LogJob::Replace(Box::new(log_part), ready))?;
    wait(&when_ready)
}
