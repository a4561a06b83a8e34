//! What operations work with: the node, and the ways to those who own its log, its database and its state.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::prelude::*;
use crossbeam_channel::Sender;

use super::directory_copy::EndedCopies;
use crate::actors::replication_sender::SenderMessage;
use crate::actors::supervisor::SupervisorMessage;
use crate::actors::threads::{apply::ApplyJob, log::LogJob};
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::event::Hello;
use crate::services::context::NodeContext;
use crate::sql::{access, functions};
use crate::storage::database;
use crate::storage::log::{LogConfiguration, Medium};

/// See the module.
pub struct Storage {
    pub(crate) node: Arc<NodeContext>,
    /// The log on disk, or in memory, of no database yet.
    pub(crate) log: LogConfiguration,
    pub(crate) log_jobs: Sender<LogJob>,
    pub(crate) apply_jobs: Sender<ApplyJob>,
    pub(crate) sender: Recipient<SenderMessage>,
    pub(crate) supervisor: Recipient<SupervisorMessage>,
    /// The last backups and copies, for `backup list`.
    pub(crate) ended_copies: EndedCopies,
    /// Set when the server goes down: a copy that is being made is given up.
    pub(crate) abort_copies: AtomicBool,
}

impl Storage {
    /// Opens the connection for writing, with functions and access rules.
    pub(crate) fn attach_writer(&self) -> Result<(), ServerError> {
        let mut connection = self.node.database.open_writer()?;
        access::install(&mut connection)?;
        functions::register(&connection, &self.node.status, &self.node.outcomes)?;
        self.node.writer.attach(connection)
    }

    /// What this node says of itself to a peer that asks without connecting.
    pub(crate) fn hello(&self) -> Hello {
        let now = self.node.status.snapshot();
        Hello {
            database_id: self.database_id().unwrap_or_default(),
            state: now.state,
            position: now.decided,
            log_end: now.log_end,
            pair: self.node.parameters.settings().pair,
        }
    }

    pub(crate) fn database_id(&self) -> Result<[u8; 16], ServerError> {
        self.node
            .database
            .ask(|connection| database::read_identity(connection).map(|found| found.database_id))
    }

    /// The log of the database that is there now.
    pub(crate) fn log_configuration(&self) -> Result<LogConfiguration, ServerError> {
        Ok(LogConfiguration { database_id: self.database_id()?, ..self.log.clone() })
    }
}

/// The log on disk that solid.ini describes, of no database yet.
pub(crate) fn log_configuration(parameters: &Parameters) -> LogConfiguration {
    LogConfiguration {
        directory: parameters.log_directory(),
        template: parameters.log_file_template(),
        digit: parameters.log_digit_character(),
        segment_size_bytes: parameters.log_split_size_bytes(),
        database_id: [0; 16],
        maximum_bytes: None,
        medium: Medium::default(),
    }
}
