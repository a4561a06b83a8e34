//! What the parts of a node that touch storage share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::prelude::*;
use crossbeam_channel::Sender;

use super::NodeStatus;
use super::directory_copy::EndedCopies;
use crate::actors::replication_sender::UseLog;
use crate::actors::threads::{apply::ApplyJob, log::LogJob};
use crate::config::Parameters;
use crate::counters::Counters;
use crate::error::ServerError;
use crate::hsb::event::Hello;
use crate::progress::Progress;
use crate::sql::outcome::Outcomes;
use crate::sql::{access, functions};
use crate::storage::database::{self, Database};
use crate::storage::log::LogConfiguration;
use crate::storage::writer::Writer;

/// What the parts of a node that touch storage share.
pub(super) struct Storage {
    pub(super) database: Arc<Database>,
    pub(super) writer: Arc<Writer>,
    pub(super) log: LogConfiguration,
    pub(super) log_jobs: Sender<LogJob>,
    pub(super) apply_jobs: Sender<ApplyJob>,
    pub(super) use_log: Recipient<UseLog>,
    pub(super) copy_progress: Arc<Progress>,
    /// The last backups and copies, for `backup list`.
    pub(super) ended_copies: Arc<EndedCopies>,
    /// Set when the server goes down: a copy that is being made is given up.
    pub(super) abort_copies: AtomicBool,
    pub(super) status: Arc<NodeStatus>,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) counters: Arc<Counters>,
}

impl Storage {
    /// Opens the connection for writing, with functions and access rules.
    pub(super) fn attach_writer(&self) -> Result<(), ServerError> {
        let mut connection = self.database.open_writer()?;
        access::install(&mut connection)?;
        functions::register(&connection, &self.status, &self.outcomes)?;
        self.writer.attach(connection)
    }

    /// What this node says of itself to a peer that asks without connecting.
    pub(super) fn hello(&self, parameters: &Parameters) -> Hello {
        let now = self.status.snapshot();
        Hello {
            database_id: self.database_id().unwrap_or_default(),
            state: now.state,
            position: now.decided,
            log_end: now.log_end,
            pair: super::settings_of(parameters).pair,
        }
    }

    pub(super) fn database_id(&self) -> Result<[u8; 16], ServerError> {
        self.database.ask(|connection| database::read_identity(connection).map(|(id, _)| id))
    }

    /// The log of the database that is there now.
    pub(super) fn log_configuration(&self) -> Result<LogConfiguration, ServerError> {
        Ok(LogConfiguration { database_id: self.database_id()?, ..self.log.clone() })
    }
}
