//! What the parts of a node that touch storage share, and the checkpointer.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use crossbeam_channel::Sender;

use super::{NodeStatus, settings_of, start};
use crate::actors::replication_sender::UseLog;
use crate::actors::supervisor::Checkpointed;
use crate::actors::threads::{apply::ApplyJob, log::LogJob};
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::event::Hello;
use crate::hsb::position::Position;
use crate::hsb::state::State;
use crate::net::peer::copy::CopyProgress;
use crate::sql::outcome::Outcomes;
use crate::sql::{access, functions};
use crate::storage::checkpoint;
use crate::storage::database::{self, Database};
use crate::storage::log::LogConfiguration;
use crate::storage::writer::Writer;

/// How often the checkpointer looks.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(500);

/// What the parts of a node that touch storage share.
pub(super) struct Storage {
    pub(super) database: Arc<Database>,
    pub(super) writer: Arc<Writer>,
    pub(super) log: LogConfiguration,
    pub(super) log_jobs: Sender<LogJob>,
    pub(super) apply_jobs: Sender<ApplyJob>,
    pub(super) use_log: Recipient<UseLog>,
    pub(super) copy_progress: Arc<CopyProgress>,
    pub(super) status: Arc<NodeStatus>,
    pub(super) outcomes: Arc<Outcomes>,
}

impl Storage {
    /// Opens the connection for writing, with functions and access rules.
    pub(super) fn attach_writer(&self) -> Result<(), ServerError> {
        let mut connection = self.database.open_writer()?;
        access::install(&mut connection)?;
        functions::register(&connection, &self.status, &self.outcomes)?;
        self.writer.attach(connection)
    }

    /// The log of the database that is there now.
    pub(super) fn log_configuration(&self) -> Result<LogConfiguration, ServerError> {
        let (database_id, _) = database::read_identity(&self.database.open_reader()?)?;
        Ok(LogConfiguration { database_id, ..self.log.clone() })
    }

    /// What this node says of itself outside the heart's own connections.
    pub(super) fn hello(&self, parameters: &Parameters) -> Hello {
        let now = self.status.snapshot();
        Hello {
            // None yet: the node waits for its first netcopy.
            database_id: self.log_configuration().map(|log| log.database_id).unwrap_or_default(),
            state: now.state,
            position: now.decided,
            log_end: now.log_end,
            pair: settings_of(parameters).pair,
        }
    }
}

/// Looks now and then whether a checkpoint is due, and tells the supervisor when one was made.
pub(super) fn start_checkpointer(
    storage: &Arc<Storage>,
    checkpointed: Recipient<Checkpointed>,
) -> Result<(), ServerError> {
    let storage = Arc::clone(storage);
    // Not joined: it sleeps most of the time and touches nothing that a crash could not interrupt as well.
    start::spawn("checkpoint", move || {
        while checkpointed.connected() {
            std::thread::sleep(CHECKPOINT_INTERVAL);
            let is_open = storage.status.state() != State::Offline;
            if is_open && checkpoint::is_due(&storage.database) {
                match checkpoint_now(&storage) {
                    Ok(position) => checkpointed.do_send(Checkpointed(position)),
                    Err(error) => log::warn!("checkpoint: {error}"),
                }
            }
        }
    })
    .map(|_| ())
}

fn checkpoint_now(storage: &Storage) -> Result<Position, ServerError> {
    let position = checkpoint::passive(&storage.database.open_for_apply()?)?;
    storage.writer.checkpoint()?;
    if storage.apply_jobs.send(ApplyJob::Checkpoint).is_err() {
        log::debug!("the apply thread has ended");
    }
    Ok(position)
}
