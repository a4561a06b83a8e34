//! A session's transaction: where its statements run and what they see.
//!
//! Reads run on the session's own reader connection. The first write of a transaction makes the session the writer;
//! from then on everything of that transaction runs there. Invariant: while a transaction is failed, nothing but its
//! end or ROLLBACK TO is carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, MAIN_DB, TransactionState};

use super::access::{ClientScope, Identity};
use super::cut_trigger::CutTrigger;
use super::describe::{self, Metadata};
use super::errors;
use super::execute::Work;
use super::rows::RowSink;
use super::set_statement::{Isolation, TransactionModes};
use super::settings::SessionSettings;
use super::statement::{Kind, Statement};
use super::users::Role;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::hsb::settings::{Durability, Safeness};
use crate::services::context::NodeContext;
use crate::services::registry::Reading;
use crate::storage::database::read_identity;
use crate::storage::writer::{OpenTransaction, WriteRequest, WriteTransaction};

/// When the running statement of a session must end; shared with the reader's progress handler.
pub struct Deadline {
    start: Instant,
    milliseconds: AtomicU64,
}

impl Deadline {
    /// None set.
    pub fn none() -> Arc<Deadline> {
        Arc::new(Deadline { start: Instant::now(), milliseconds: AtomicU64::new(0) })
    }

    /// Sets it from now, or clears it.
    pub fn set(&self, limit: Option<Duration>) {
        let end = limit.map_or(0, |limit| (self.start.elapsed() + limit).as_millis().max(1));
        self.milliseconds.store(u64::try_from(end).unwrap_or(0), Ordering::Relaxed);
    }

    /// True once it has passed.
    pub fn has_passed(&self) -> bool {
        let end = self.milliseconds.load(Ordering::Relaxed);
        end != 0 && self.start.elapsed().as_millis() > u128::from(end)
    }
}

struct Transaction {
    /// Begun by the server for several statements, not by BEGIN.
    implicit: bool,
    failed: bool,
    isolation: Isolation,
    read_only: bool,
    savepoints: Vec<String>,
    /// The reader has an open transaction that keeps this snapshot.
    snapshot: Option<Position>,
    open: Option<OpenTransaction>,
    /// What its commit asks for: fixed when it became the writer.
    asks_for: Option<(Safeness, Durability)>,
    schema_changed: bool,
}

/// A session.
pub struct SqlSession<'r> {
    /// Its reader connection.
    pub reader: &'r Connection,
    /// The node.
    pub context: Arc<NodeContext>,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// What it may do.
    pub role: Role,
    /// Its settings.
    pub settings: SessionSettings,
    /// The running statement's time limit.
    pub deadline: Arc<Deadline>,
    /// Whether a CREATE TRIGGER was cut.
    pub trigger: CutTrigger,
    /// Where the reader's snapshot is noted, for those who look after SQLite's log.
    pub reading: Option<Arc<Reading>>,
    transaction: Option<Transaction>,
}

impl<'r> SqlSession<'r> {
    /// A session outside a transaction.
    pub fn new(
        reader: &'r Connection,
        context: Arc<NodeContext>,
        identity: Arc<Identity>,
        role: Role,
        deadline: Arc<Deadline>,
    ) -> SqlSession<'r> {
        SqlSession {
            reader,
            context,
            identity,
            role,
            settings: SessionSettings::default(),
            deadline,
            trigger: CutTrigger::default(),
            reading: None,
            transaction: None,
        }
    }

    /// The letter of ReadyForQuery.
    pub fn status(&self) -> u8 {
        match &self.transaction {
            Some(transaction) if transaction.failed => b'E',
            Some(transaction) if !transaction.implicit => b'T',
            _ => b'I',
        }
    }

    /// True inside a transaction, begun by BEGIN or by the server.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// True in a transaction that the server began and must end.
    pub fn is_implicit(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.implicit)
    }

    /// True once the transaction has become the writer.
    pub fn is_writing(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.open.is_some())
    }

    /// The transaction can only be rolled back.
    pub fn is_failed(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.failed)
    }

    /// Refuses a statement in a failed transaction, and pieces of a CREATE TRIGGER that the client has cut.
    pub fn check_usable(&mut self, statement: &Statement) -> Result<(), ServerError> {
        self.trigger.check(statement)?;
        let ends = matches!(
            &statement.kind,
            Kind::Commit | Kind::Rollback | Kind::RollbackTo(_) | Kind::Empty | Kind::Admin(_)
        );
        if self.is_failed() && !ends {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(ServerError::sql("25P02", text));
        }
        Ok(())
    }

    /// BEGIN; false if a transaction was open already.
    pub fn begin(&mut self, modes: TransactionModes) -> bool {
        if let Some(transaction) = self.transaction.as_mut() {
            let was_implicit = std::mem::replace(&mut transaction.implicit, false);
            transaction.isolation = modes.isolation.unwrap_or(transaction.isolation);
            transaction.read_only = modes.read_only.unwrap_or(transaction.read_only);
            return was_implicit;
        }
        self.start(modes, false);
        true
    }

    /// A transaction for several statements that are sent together.
    pub fn begin_implicit(&mut self) {
        if self.transaction.is_none() {
            self.start(TransactionModes::default(), true);
        }
    }

    fn start(&mut self, modes: TransactionModes, implicit: bool) {
        let next = self.settings.next_transaction.modes;
        self.transaction = Some(Transaction {
            implicit,
            failed: false,
            isolation: modes.isolation.or(next.isolation).unwrap_or(self.settings.isolation),
            read_only: modes.read_only.or(next.read_only).unwrap_or(self.settings.read_only),
            savepoints: Vec::new(),
            snapshot: None,
            open: None,
            asks_for: None,
            schema_changed: false,
        });
    }

    /// SET TRANSACTION: for the open transaction, or the next one.
    pub fn set_modes(&mut self, modes: TransactionModes) -> Result<(), ServerError> {
        let Some(transaction) = self.transaction.as_mut().filter(|transaction| !transaction.implicit) else {
            let next = &mut self.settings.next_transaction.modes;
            next.isolation = modes.isolation.or(next.isolation);
            next.read_only = modes.read_only.or(next.read_only);
            return Ok(());
        };
        if let Some(isolation) = modes.isolation {
            if transaction.open.is_some() || transaction.snapshot.is_some() {
                return Err(ServerError::sql(
                    "25001",
                    "SET TRANSACTION ISOLATION LEVEL must come before any query",
                ));
            }
            transaction.isolation = isolation;
        }
        transaction.read_only = modes.read_only.unwrap_or(transaction.read_only);
        Ok(())
    }

    /// SET TRANSACTION TOKEN: for the open transaction, or the next one; an empty one takes it back.
    pub fn set_token(&mut self, token: &str) -> Result<(), ServerError> {
        let hold = |token| self.context.outcomes.hold(token).map(Arc::new);
        self.settings.next_transaction.token =
            Some(token).filter(|token| !token.is_empty()).map(hold).transpose()?;
        Ok(())
    }

    /// The isolation and the access mode in force.
    pub fn modes(&self) -> (Isolation, bool) {
        let next = self.settings.next_transaction.modes;
        let of_session = || {
            (
                next.isolation.unwrap_or(self.settings.isolation),
                next.read_only.unwrap_or(self.settings.read_only),
            )
        };
        self.transaction
            .as_ref()
            .map_or_else(of_session, |transaction| (transaction.isolation, transaction.read_only))
    }

    /// COMMIT; false if the transaction had failed and was rolled back instead.
    pub fn commit(&mut self) -> Result<bool, ServerError> {
        let Some(mut transaction) = self.transaction.take() else { return Ok(true) };
        // Its token is held until the outcome is known.
        let options = std::mem::take(&mut self.settings.next_transaction);
        self.release_snapshot(&mut transaction);
        match transaction.open {
            Some(open) if transaction.failed => open.rollback(),
            Some(open) => open.commit(options.token.as_ref().map(|token| token.text()))?,
            None => {}
        }
        Ok(!transaction.failed)
    }

    /// ROLLBACK.
    pub fn rollback(&mut self) {
        let Some(mut transaction) = self.transaction.take() else { return };
        self.settings.next_transaction = Default::default();
        self.release_snapshot(&mut transaction);
        if let Some(open) = transaction.open {
            open.rollback();
        }
    }

    /// After an error: a transaction of BEGIN is failed, one of the server's is rolled back.
    pub fn on_error(&mut self) {
        match self.transaction.as_mut() {
            Some(transaction) if !transaction.implicit => {
                transaction.failed = true;
                if transaction.snapshot.is_some() && self.reader.is_autocommit() {
                    // SQLite has ended the snapshot, out of memory: ROLLBACK TO must not let it go on with another one.
                    transaction.savepoints.clear();
                }
            }
            Some(_) => self.rollback(),
            None => self.settings.next_transaction = Default::default(),
        }
    }

    fn release_snapshot(&self, transaction: &mut Transaction) {
        if transaction.snapshot.take().is_some() && !self.reader.is_autocommit() {
            // It has only read: nothing can be lost by ending it.
            let _ = self.reader.execute_batch("ROLLBACK");
        }
    }

    fn block(&mut self, what: &str) -> Result<&mut Transaction, ServerError> {
        let open = self.transaction.as_mut().filter(|transaction| !transaction.implicit);
        open.ok_or_else(|| {
            ServerError::sql("25P01", format!("{what} can only be used in transaction blocks"))
        })
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self, name: &str) -> Result<(), ServerError> {
        let transaction = self.block("SAVEPOINT")?;
        if let Some(open) = transaction.open.as_mut() {
            open.savepoint(name)?;
        }
        transaction.savepoints.push(name.to_string());
        Ok(())
    }

    /// ROLLBACK TO.
    pub fn rollback_to(&mut self, name: &str) -> Result<(), ServerError> {
        let transaction = self.block("ROLLBACK TO SAVEPOINT")?;
        let at = find(&transaction.savepoints, name)?;
        if let Some(open) = transaction.open.as_mut() {
            open.rollback_to(name)?;
        }
        transaction.savepoints.truncate(at + 1);
        transaction.failed = false;
        Ok(())
    }

    /// RELEASE.
    pub fn release(&mut self, name: &str) -> Result<(), ServerError> {
        let transaction = self.block("RELEASE SAVEPOINT")?;
        let at = find(&transaction.savepoints, name)?;
        if let Some(open) = transaction.open.as_mut() {
            open.release(name)?;
        }
        transaction.savepoints.truncate(at);
        Ok(())
    }

    /// To be called before a read on the reader: under REPEATABLE READ the first one fixes the snapshot.
    pub fn before_read(&mut self) -> Result<(), ServerError> {
        if let Some(reading) = self.reading.as_ref().filter(|_| !self.has_snapshot()) {
            reading.begin();
        }
        let Some(transaction) = self.transaction.as_mut() else { return Ok(()) };
        let keeps = transaction.isolation != Isolation::ReadCommitted && !transaction.implicit;
        if keeps && transaction.snapshot.is_none() {
            self.reader.execute_batch("BEGIN").map_err(|error| errors::from_sqlite(&error))?;
            transaction.snapshot = Some(Position::ORIGIN);
            transaction.snapshot = Some(read_identity(self.reader)?.position);
        }
        Ok(())
    }

    /// The reader has a transaction or a statement that is not at its end.
    fn has_snapshot(&self) -> bool {
        !matches!(self.reader.transaction_state(Some(MAIN_DB)), Ok(TransactionState::None))
    }

    /// To be called when reads may have ended.
    pub fn note_reading(&self) {
        if let Some(reading) = self.reading.as_ref().filter(|reading| reading.is_noted())
            && !self.has_snapshot()
        {
            reading.end();
        }
    }

    /// Refuses a write that the user or the transaction may not make.
    pub fn check_may_write(&self, what: &str) -> Result<(), ServerError> {
        if self.role == Role::ReadOnly {
            return Err(ServerError::sql("42501", format!("user \"{}\" may only read", self.identity.user)));
        }
        if self.context.parameters.read_only() {
            return Err(ServerError::with(Code::DATABASE_READ_ONLY, "(General.Readonly)"));
        }
        if self.modes().1 {
            return Err(ServerError::sql(
                "25006",
                format!("cannot execute {what} in a read-only transaction"),
            ));
        }
        Ok(())
    }

    /// Has the writer do something; `alone` if it may be a transaction of its own. Gives the sink back, and the number for
    /// the command tag.
    pub fn write<S: RowSink + Send + 'static>(
        &mut self,
        work: Work,
        alone: bool,
        what: &str,
        mut sink: S,
    ) -> Result<(S, Option<u64>), ServerError> {
        self.check_may_write(what)?;
        self.note_reading();
        let identity = self.identity.clone();
        if alone && self.transaction.is_none() {
            let request = self.request(None);
            let done = self.context.writer.autocommit(request, move |transaction| {
                let count = work.run(transaction, &identity, &mut sink)?;
                Ok((sink, count))
            });
            self.settings.next_transaction = Default::default();
            return done;
        }
        let changes_schema = matches!(work, Work::Schema(_) | Work::Several(_, true));
        let count = self.run_at_writer(|transaction| work.run(transaction, &identity, &mut sink))?;
        if let Some(transaction) = self.transaction.as_mut() {
            transaction.schema_changed |= changes_schema;
        }
        Ok((sink, count))
    }

    /// Runs a job in the transaction at the writer; begins an implicit transaction and becomes the writer if need be.
    pub fn run_at_writer<R>(
        &mut self,
        job: impl FnOnce(&mut WriteTransaction<'_>) -> Result<R, ServerError>,
    ) -> Result<R, ServerError> {
        self.begin_implicit();
        if !self.is_writing() {
            self.become_writer()?;
        }
        match self.transaction.as_mut().and_then(|transaction| transaction.open.as_mut()) {
            Some(open) => open.run(job),
            None => Err(ServerError::sql("XX000", "there is no write transaction")),
        }
    }

    fn become_writer(&mut self) -> Result<(), ServerError> {
        let snapshot = self.transaction.as_ref().and_then(|transaction| transaction.snapshot);
        let request = self.request(snapshot);
        let asks_for = Some((request.safeness, request.durability));
        if let Some(mut transaction) = self.transaction.take() {
            // Ended before the wait, so that it keeps no old pages meanwhile.
            self.release_snapshot(&mut transaction);
            self.transaction = Some(transaction);
        }
        self.note_reading();
        let begun = self.context.writer.begin(request);
        if let (Err(_), Some(_), Some(transaction)) = (&begun, snapshot, self.transaction.as_mut()) {
            // Its snapshot is gone: ROLLBACK TO must not let it go on with another one.
            transaction.savepoints.clear();
        }
        let mut open = begun?;
        if let Some(transaction) = self.transaction.as_mut() {
            for name in &transaction.savepoints {
                open.savepoint(name)?;
            }
            transaction.open = Some(open);
            transaction.asks_for = asks_for;
        }
        Ok(())
    }

    /// Safeness and durability that hold now: of the transaction at hand, of the session outside of one.
    pub fn commit_options(&self) -> (Safeness, Durability) {
        let of_session = (self.settings.safeness, self.settings.durability);
        let Some(transaction) = &self.transaction else { return of_session };
        let next = &self.settings.next_transaction;
        transaction
            .asks_for
            .unwrap_or((next.safeness.unwrap_or(of_session.0), next.durability.unwrap_or(of_session.1)))
    }

    fn request(&self, snapshot: Option<Position>) -> WriteRequest {
        let next = &self.settings.next_transaction;
        WriteRequest {
            session: self.identity.session,
            lock_timeout: self.settings.lock_timeout.unwrap_or(self.context.parameters.lock_wait_timeout()),
            safeness: next.safeness.unwrap_or(self.settings.safeness),
            durability: next.durability.unwrap_or(self.settings.durability),
            token: next.token.as_ref().map(|token| token.text().to_string()),
            snapshot,
        }
    }

    /// The schema that descriptions made now hold for; none inside a transaction that has changed it.
    pub fn schema_generation(&self) -> Option<u64> {
        let own = self.transaction.as_ref().is_some_and(|transaction| transaction.schema_changed);
        (!own).then(|| self.context.database.schema_generation())
    }

    /// Describes a statement where it would run.
    pub fn describe(&mut self, statement: &Statement, declared: &[u32]) -> Result<Metadata, ServerError> {
        let identity = self.identity.clone();
        if let Some(open) = self.transaction.as_mut().and_then(|transaction| transaction.open.as_mut()) {
            return open.run(|transaction| {
                let _scope = ClientScope::enter(&identity);
                describe::describe(transaction.connection(), statement, declared)
            });
        }
        let _scope = ClientScope::enter_reading(&identity);
        describe::describe(self.reader, statement, declared)
    }
}

fn find(savepoints: &[String], name: &str) -> Result<usize, ServerError> {
    let at = savepoints.iter().rposition(|savepoint| savepoint == name);
    at.ok_or_else(|| ServerError::sql("3B001", format!("savepoint \"{name}\" does not exist")))
}
