//! What the parts of a node that touch storage share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::prelude::*;
use crossbeam_channel::Sender;

use super::directory_copy::EndedCopies;
use crate::actors::replication_sender::SenderMessage;
use crate::actors::threads::{apply::ApplyJob, log::LogJob};
use crate::config::Parameters;
use crate::counters::Counters;
use crate::error::ServerError;
use crate::hsb::event::Hello;
use crate::progress::Progress;
use crate::services::outcomes::Outcomes;
use crate::services::status::NodeStatus;
use crate::sql::{access, functions};
use crate::storage::database::{self, Database};
use crate::storage::log::{LogConfiguration, Medium};
use crate::storage::writer::Writer;

/// What the parts of a node that touch storage share.
pub(crate) struct Storage {
    pub(crate) database: Arc<Database>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) log: LogConfiguration,
    pub(crate) log_jobs: Sender<LogJob>,
    pub(crate) apply_jobs: Sender<ApplyJob>,
    pub(crate) sender: Recipient<SenderMessage>,
    pub(crate) copy_progress: Arc<Progress>,
    /// The last backups and copies, for `backup list`.
    pub(crate) ended_copies: Arc<EndedCopies>,
    /// Set when the server goes down: a copy that is being made is given up.
    pub(crate) abort_copies: AtomicBool,
    pub(crate) status: Arc<NodeStatus>,
    pub(crate) outcomes: Arc<Outcomes>,
    pub(crate) counters: Arc<Counters>,
}

impl Storage {
    /// Opens the connection for writing, with functions and access rules.
    pub(crate) fn attach_writer(&self) -> Result<(), ServerError> {
        let mut connection = self.database.open_writer()?;
        access::install(&mut connection)?;
        functions::register(&connection, &self.status, &self.outcomes)?;
        self.writer.attach(connection)
    }

    /// What this node says of itself to a peer that asks without connecting.
    pub(crate) fn hello(&self, parameters: &Parameters) -> Hello {
        let now = self.status.snapshot();
        Hello {
            database_id: self.database_id().unwrap_or_default(),
            state: now.state,
            position: now.decided,
            log_end: now.log_end,
            pair: parameters.settings().pair,
        }
    }

    pub(crate) fn database_id(&self) -> Result<[u8; 16], ServerError> {
        self.database.ask(|connection| database::read_identity(connection).map(|found| found.database_id))
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
