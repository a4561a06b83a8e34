//! Opening a database with its log: rolling forward to the last decided batch.
//!
//! All batches in the log but the last are decided. The last is decided if the database already holds it, or if it
//! is whole and did not have to wait for the other server; otherwise it is pending (R7, docs/rulings.md).

use std::sync::Arc;

use super::apply::Applier;
use super::batch::Batch;
use super::database::{self, Database};
use super::log::{LogConfiguration, LogWriter};
use super::rewind;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::threads;

/// Batches between commits while rolling forward.
const GROUP_BATCHES: usize = 256;

/// A database that is open and level with its log.
pub struct Recovered {
    /// Its identity.
    pub database_id: [u8; 16],
    /// Decided up to here.
    pub decided: Position,
    /// The batch at the end of the log whose outcome is open.
    pub pending: Option<Batch>,
    /// For appending.
    pub log: LogWriter,
    /// Where the log is.
    pub log_configuration: LogConfiguration,
    /// For applying.
    pub applier: Applier,
    /// Batches that were rolled forward.
    pub rolled_forward: u64,
}

/// Opens and rolls forward. `log` needs no database id yet: the database's own is filled in. Works on a thread of its own:
/// nobody knows the stack of the caller's.
pub fn open(database: &Arc<Database>, log: LogConfiguration) -> Result<Recovered, ServerError> {
    std::thread::scope(|scope| {
        let thread = threads::spawn_scoped(scope, "recovery", || roll_forward(database, log))?;
        let panicked = |_| Err(ServerError::with(Code::FAILED_UNEXPECTEDLY, "(thread recovery)"));
        thread.join().unwrap_or_else(panicked)
    })
}

fn roll_forward(database: &Arc<Database>, log: LogConfiguration) -> Result<Recovered, ServerError> {
    let connection = database.open_for_apply()?;
    let database_id = database::read_identity(&connection)?.database_id;
    let log_configuration = LogConfiguration { database_id, ..log };
    let mut applier = Applier::new(connection)?;
    let (log, found) = rewind::open_log(database, &log_configuration)?;
    if found.truncated_bytes > 0 {
        ::log::warn!(
            "{} bytes of an incomplete batch at the end of the log were cut off",
            found.truncated_bytes
        );
    }
    if found.database_ahead {
        ::log::warn!("the database is ahead of its log, which begins anew at {}", log.end());
    }
    let end = log.end();
    let mut reader = found.reader;
    let mut rolled_forward = 0;
    let mut pending = None;
    applier.begin()?;
    while let Some(batch) = reader.next(end.sequence)? {
        if batch.after == end && batch.header.needs_acknowledgement {
            pending = Some(batch);
            break;
        }
        applier.apply(&batch)?;
        rolled_forward += 1;
        if rolled_forward % GROUP_BATCHES as u64 == 0 {
            applier.commit()?;
            applier.begin()?;
            let left = end.sequence.saturating_sub(applier.position().sequence);
            ::log::info!("recovery: at {}, {left} transactions to go", applier.position());
        }
    }
    applier.commit()?;
    let decided = applier.position();
    Ok(Recovered { database_id, decided, pending, log, log_configuration, applier, rolled_forward })
}
