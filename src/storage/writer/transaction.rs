//! What a job sees of the writer, and the transaction of several statements.

use std::sync::Arc;

use rusqlite::Connection;

use super::Writer;
use super::core::Core;
use super::queue::Waiter;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::storage::capture::Capture;

/// The writer's connection during one transaction.
pub struct WriteTransaction<'a> {
    connection: &'a Connection,
    capture: &'a Capture,
    schema_changed: &'a mut bool,
}

impl<'a> WriteTransaction<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        capture: &'a Capture,
        schema_changed: &'a mut bool,
    ) -> Self {
        WriteTransaction { connection, capture, schema_changed }
    }

    /// Row changes made here are captured.
    pub fn connection(&self) -> &Connection {
        self.connection
    }

    /// Says that users were changed: sessions look their rights up again, as they look at the schema again.
    pub fn users_changed(&mut self) {
        *self.schema_changed = true;
    }

    /// Runs a statement that changes the schema, and captures it.
    pub fn execute_schema(&mut self, sql: &str) -> Result<(), ServerError> {
        *self.schema_changed = true;
        self.capture.execute_schema(self.connection, sql)
    }
}

/// A transaction of several statements; it owns the writer until it ends. Dropping it rolls it back.
pub struct OpenTransaction {
    writer: Arc<Writer>,
    waiter: Arc<Waiter>,
    savepoints: Vec<(String, usize)>,
    ended: bool,
}

impl OpenTransaction {
    pub(super) fn new(writer: Arc<Writer>, waiter: Arc<Waiter>) -> OpenTransaction {
        OpenTransaction { writer, waiter, savepoints: Vec::new(), ended: false }
    }

    fn session(&self) -> u64 {
        self.waiter.request.session
    }

    /// Runs statements on this thread. After an error the transaction is still open and only good for rolling back.
    pub fn run<R>(
        &mut self,
        job: impl FnOnce(&mut WriteTransaction<'_>) -> Result<R, ServerError>,
    ) -> Result<R, ServerError> {
        self.with_core(|core| {
            let outcome = job(&mut core.transaction());
            if core.lost_batch() {
                core.roll_back();
                return Err(outcome.err().unwrap_or_else(|| ServerError::new(Code::OPERATION_FAILED)));
            }
            let answer = outcome?;
            core.check_captured()?;
            Ok(answer)
        })
    }

    /// Marks a point to roll back to.
    pub fn savepoint(&mut self, name: &str) -> Result<(), ServerError> {
        let mark = self.with_core(|core| {
            core.run(&format!("SAVEPOINT {}", quoted(name)))?;
            Ok(core.mark())
        })?;
        self.savepoints.push((name.to_ascii_lowercase(), mark));
        Ok(())
    }

    /// Undoes what came after the savepoint, which stays.
    pub fn rollback_to(&mut self, name: &str) -> Result<(), ServerError> {
        let at = self.find_savepoint(name)?;
        let mark = self.savepoints[at].1;
        self.with_core(|core| {
            core.run(&format!("ROLLBACK TO {}", quoted(name)))?;
            core.truncate(mark);
            Ok(())
        })?;
        self.savepoints.truncate(at + 1);
        Ok(())
    }

    /// Forgets the savepoint and those after it.
    pub fn release(&mut self, name: &str) -> Result<(), ServerError> {
        let at = self.find_savepoint(name)?;
        self.with_core(|core| core.run(&format!("RELEASE {}", quoted(name))))?;
        self.savepoints.truncate(at);
        Ok(())
    }

    fn find_savepoint(&self, name: &str) -> Result<usize, ServerError> {
        let wanted = name.to_ascii_lowercase();
        self.savepoints
            .iter()
            .rposition(|(known, _)| *known == wanted)
            .ok_or_else(|| ServerError::sql("3B001", format!("savepoint \"{name}\" does not exist")))
    }

    /// Seals, waits for the decision, commits; with a token at most one transaction does.
    pub fn commit(mut self, token: Option<&str>) -> Result<(), ServerError> {
        self.with_core(|core| core.end_member(token))?;
        self.writer.queue.committing(self.session())?;
        self.ended = true;
        self.writer.lead(vec![Arc::clone(&self.waiter)], false, Arc::clone(&self.waiter))
    }

    /// Undoes everything.
    pub fn rollback(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) && self.writer.queue.committing(self.session()).is_ok() {
            self.writer.end_batch();
        }
    }

    fn with_core<R>(
        &mut self,
        job: impl FnOnce(&mut Core) -> Result<R, ServerError>,
    ) -> Result<R, ServerError> {
        let session = self.session();
        let writer = Arc::clone(&self.writer);
        writer.with_core(|core| {
            writer.queue.idle(session, false)?;
            let outcome = job(core);
            writer.queue.idle(session, true)?;
            outcome
        })
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        self.end();
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.to_ascii_lowercase().replace('"', "\"\""))
}
