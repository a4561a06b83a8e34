//! The writer's connection and the batch that is being made on it. Locked by whoever leads.

use std::sync::Arc;

use rusqlite::{Connection, InterruptHandle};

use super::queue::{Job, Waiter};
use super::transaction::WriteTransaction;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::hsb::settings::{Durability, Safeness};
use crate::stop::stop_process;
use crate::storage::batch::{Batch, BatchHeader};
use crate::storage::capture::{self, Capture};
use crate::storage::{checkpoint, database, outcomes};

pub(super) struct Core {
    connection: Connection,
    capture: Capture,
    /// Transactions of this batch that changed something.
    count: u32,
    schema_changed: bool,
    /// The batch that was sealed last.
    sealed: Option<Batch>,
    /// Where the changes of the member that is running begin.
    member_mark: usize,
}

/// A batch ready to be submitted.
pub(super) struct Sealed {
    pub(super) batch: Batch,
    pub(super) safeness: Safeness,
    pub(super) durability: Durability,
}

impl Core {
    pub(super) fn new(connection: Connection) -> Result<Core, ServerError> {
        let capture = Capture::install(&connection)?;
        Ok(Core { connection, capture, count: 0, schema_changed: false, sealed: None, member_mark: 0 })
    }

    pub(super) fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// Begins a batch; `taken_over`: the last batch was not made here.
    pub(super) fn begin_batch(&mut self, taken_over: bool) -> Result<(), ServerError> {
        self.run("BEGIN IMMEDIATE")?;
        if taken_over { self.capture.refresh(&self.connection) } else { Ok(()) }
    }

    pub(super) fn check_snapshot(
        &self,
        snapshot: Option<Position>,
        now: Position,
    ) -> Result<(), ServerError> {
        if snapshot.is_some_and(|snapshot| snapshot != now || self.count > 0) {
            let text =
                "could not serialize access: another transaction has written since this one began; repeat it";
            return Err(ServerError::sql("40001", text));
        }
        Ok(())
    }

    pub(super) fn run_member(&mut self, job: Job, token: Option<&str>) -> Result<(), ServerError> {
        self.begin_member()?;
        let outcome = job(&mut self.transaction()).and_then(|()| self.check_member());
        match outcome {
            Ok(()) => self.end_member(token),
            Err(error) => {
                self.roll_back_member();
                Err(error)
            }
        }
    }

    pub(super) fn begin_member(&mut self) -> Result<(), ServerError> {
        if self.lost_batch() {
            // Outside a batch the end of the savepoint would be a commit.
            return Err(ServerError::with(Code::FAILED_UNEXPECTEDLY, "(no batch is open)"));
        }
        self.member_mark = self.capture.mark();
        self.run("SAVEPOINT _hsb_member")
    }

    pub(super) fn transaction(&mut self) -> WriteTransaction<'_> {
        WriteTransaction::new(&self.connection, &self.capture, &mut self.schema_changed)
    }

    /// A change that could not be captured.
    pub(super) fn check_captured(&self) -> Result<(), ServerError> {
        self.capture.problem().map_or(Ok(()), Err)
    }

    /// What SQLite checks only at COMMIT must be known before the batch is sent.
    fn check_member(&self) -> Result<(), ServerError> {
        self.check_captured()?;
        if self.capture.has_deferred_violations(&self.connection) {
            return Err(ServerError::sql("23503", "FOREIGN KEY constraint failed (deferred)"));
        }
        Ok(())
    }

    /// The member is complete: its changes, the token among them, become a transaction record.
    pub(super) fn end_member(&mut self, token: Option<&str>) -> Result<(), ServerError> {
        let recorded = token.map_or(Ok(()), |token| outcomes::record(&self.connection, token));
        let outcome = recorded.and_then(|()| self.check_member()).and_then(|()| {
            if self.capture.mark() != self.member_mark {
                self.capture.end_transaction(&self.connection)?;
                self.count += 1;
            }
            self.run("RELEASE _hsb_member")
        });
        if outcome.is_err() {
            self.roll_back_member();
        }
        outcome
    }

    fn roll_back_member(&mut self) {
        self.capture.truncate(self.member_mark);
        if !self.lost_batch() {
            let rolled_back =
                self.run("ROLLBACK TO _hsb_member").and_then(|()| self.run("RELEASE _hsb_member"));
            if let Err(error) = rolled_back {
                log::error!("a transaction could not be rolled back: {error}");
                self.roll_back();
            }
        }
    }

    /// SQLite has ended the transaction by itself.
    pub(super) fn lost_batch(&self) -> bool {
        self.connection.is_autocommit()
    }

    pub(super) fn captured_bytes(&self) -> usize {
        self.capture.mark()
    }

    pub(super) fn mark(&self) -> usize {
        self.capture.mark()
    }

    pub(super) fn truncate(&self, mark: usize) {
        self.capture.truncate(mark);
    }

    /// Makes the batch's bytes; `None` if nothing was changed.
    pub(super) fn seal(
        &mut self,
        before: Position,
        epoch: u64,
        members: &[Arc<Waiter>],
    ) -> Result<Option<Sealed>, ServerError> {
        if self.count == 0 {
            return Ok(None);
        }
        let mut safeness = Safeness::OneSafe;
        let mut durability = Durability::Relaxed;
        for waiter in members {
            safeness = safeness.or_stronger(waiter.request.safeness);
            durability = durability.or_stronger(waiter.request.durability);
        }
        let needs_acknowledgement = safeness != Safeness::OneSafe;
        let header = BatchHeader { before, epoch, count: self.count, needs_acknowledgement };
        let batch = Batch::seal(header, &self.capture.take()).map_err(|_| capture::too_large())?;
        self.sealed = Some(batch.clone());
        database::write_position(&self.connection, before, batch.after)?;
        Ok(Some(Sealed { batch, safeness, durability }))
    }

    /// Makes a decided batch visible: tells its position and whether the schema has changed. It cannot be refused
    /// any more. With the disk full, or for want of memory, what SQLite has rolled back is done again from the batch's bytes,
    /// by `again`; any other failure ends the process, and recovery makes it true from the log.
    pub(super) fn commit(
        &mut self,
        again: impl FnOnce(&Batch, ServerError) -> Result<(), ServerError>,
    ) -> Option<(Position, bool)> {
        let batch = self.sealed.take()?;
        let schema_changed = std::mem::take(&mut self.schema_changed);
        let committed = match self.run("COMMIT") {
            Err(error) if error.is_tried_again() => {
                self.roll_back();
                again(&batch, error)
            }
            outcome => outcome,
        };
        if let Err(error) = committed {
            let number = Code::FAILED_UNEXPECTEDLY.number();
            stop_process(&format_args!("{number}: a decided batch could not be committed: {error}"));
        }
        self.capture.committed();
        self.count = 0;
        Some((batch.after, schema_changed))
    }

    pub(super) fn roll_back(&mut self) {
        self.capture.truncate(0);
        self.count = 0;
        self.schema_changed = false;
        if !self.connection.is_autocommit()
            && let Err(error) = self.run("ROLLBACK")
        {
            log::error!("ROLLBACK failed: {error}");
        }
    }

    /// Between batches only: within one, SQLite has nothing that it could move.
    pub(super) fn move_pages(&self) -> Result<(), ServerError> {
        if self.lost_batch() { checkpoint::start_log_over(&self.connection) } else { Ok(()) }
    }

    pub(super) fn run(&self, sql: &str) -> Result<(), ServerError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}
