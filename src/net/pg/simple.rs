//! The simple query protocol: a text of one or more statements.

use std::ops::Range;

use super::codec::{self, Fields, Formats, MessageReader};
use super::connection::{Client, End};
use super::rows::{DataRows, Outlet};
use crate::error::ServerError;
use crate::sql::access::ClientScope;
use crate::sql::execute::{self, Work};
use crate::sql::statement::{Kind, Statement, Statements};

/// What CommandComplete says.
pub struct Completion {
    /// Its first words.
    pub tag: &'static str,
    /// The number after them.
    pub count: Option<u64>,
}

impl Client<'_> {
    pub(super) fn simple_query(
        &mut self,
        reader: &mut MessageReader,
        range: Range<usize>,
    ) -> Result<(), End> {
        // As in PostgreSQL a simple query does away with the unnamed statement and portal.
        self.statements.remove("");
        self.portals.remove("");
        match self.taken_apart(reader.body(range)) {
            Ok((statement, None)) => {
                self.carry_out(reader, statement, false, true)?;
            }
            Ok((first, Some(text))) => self.carry_out_all(reader, first, &text)?,
            Err(error) => self.fail(error)?,
        }
        if !self.session.in_transaction() {
            self.portals.clear();
        }
        Ok(())
    }

    /// The first statement and, if there are more, the text with all of them, each of which could be taken apart.
    fn taken_apart(&mut self, body: &[u8]) -> Result<(Statement, Option<String>), ServerError> {
        let text = Fields::new(body).text()?;
        let mut statements = Statements::of(text)?;
        let Some(first) = statements.take_next()? else { return Ok((Statement::empty(), None)) };
        let mut several = None;
        while let Some(statement) = statements.take_next()? {
            if matches!(statement.kind, Kind::CutTrigger) {
                self.session.check_usable(&statement)?;
            }
            several.get_or_insert_with(|| text.to_string());
        }
        Ok((first, several))
    }

    fn carry_out_all(&mut self, reader: &mut MessageReader, first: Statement, text: &str) -> Result<(), End> {
        let Ok(mut statements) = Statements::of(text) else { return Ok(()) };
        let _ = statements.take_next();
        let mut next = Some(first);
        while let Some(statement) = next {
            // All of them could be taken apart before.
            next = statements.take_next().unwrap_or_default();
            if !self.carry_out(reader, statement, true, next.is_none())? {
                break;
            }
        }
        Ok(())
    }

    /// False: it failed, and the client knows.
    fn carry_out(
        &mut self,
        reader: &mut MessageReader,
        statement: Statement,
        several: bool,
        last: bool,
    ) -> Result<bool, End> {
        // What has committed is answered; the rest of an open transaction is not worth beginning.
        if self.session.in_transaction() {
            self.check_closing()?;
        }
        if let Err(error) = self.one_of(reader, statement, several, last) {
            self.fail(error)?;
            return Ok(false);
        }
        self.relieve()?;
        Ok(true)
    }

    fn one_of(
        &mut self,
        reader: &mut MessageReader,
        statement: Statement,
        several: bool,
        last: bool,
    ) -> Result<(), ServerError> {
        self.session.check_usable(&statement)?;
        if matches!(statement.kind, Kind::Empty) {
            codec::empty_message(&mut self.out, b'I');
            return Ok(());
        }
        if several {
            self.session.begin_implicit();
        }
        self.session.deadline.set(self.session.settings.statement_max_time);
        let completion = self.run_statement(reader, statement, !several)?;
        self.session.deadline.set(None);
        // Before the client is told that its last statement is complete.
        if last && self.session.is_implicit() {
            self.session.commit()?;
        }
        codec::command_complete(&mut self.out, completion.tag, completion.count);
        Ok(())
    }

    fn run_statement(
        &mut self,
        reader: &mut MessageReader,
        statement: Statement,
        alone: bool,
    ) -> Result<Completion, ServerError> {
        let tag = statement.tag;
        match statement.kind {
            Kind::Query | Kind::Pragma => self.simple_read(statement, alone),
            Kind::Change => self.simple_work(Work::Simple(statement), alone, tag),
            Kind::Copy(command) => self.copy(reader, &command),
            _ => match work_of(&statement) {
                Some(work) => self.simple_work(work, alone, tag),
                None => self.utility(&statement, &Formats::Text, true),
            },
        }
    }

    fn simple_work(&mut self, work: Work, alone: bool, tag: &'static str) -> Result<Completion, ServerError> {
        if matches!(work, Work::User(_)) {
            self.check_admin()?;
        }
        let kept = DataRows::new(Vec::new(), Formats::Text, Outlet::Kept);
        let (kept, count) = self.session.write(work, alone, tag, kept)?;
        self.out.extend_from_slice(&kept.out);
        Ok(Completion { tag, count })
    }

    fn simple_read(&mut self, statement: Statement, alone: bool) -> Result<Completion, ServerError> {
        let tag = statement.tag;
        let locks = statement.locks && self.session.in_transaction();
        if self.session.is_writing() || locks {
            let count = self.read_at_writer(statement, locks)?;
            return Ok(Completion { tag, count });
        }
        self.session.before_read()?;
        let reader = self.session.reader;
        let count = {
            let _scope = ClientScope::enter_reading(&self.session.identity);
            self.append_rows(&mut Formats::Text, |rows| execute::run_simple(reader, &statement, true, rows))?
        };
        match count {
            Some(count) => Ok(Completion { tag, count: Some(count) }),
            None => self.simple_work(Work::Simple(statement), alone, tag),
        }
    }

    /// A read inside a write transaction; with a lock it makes the session the writer.
    fn read_at_writer(&mut self, statement: Statement, locks: bool) -> Result<Option<u64>, ServerError> {
        let identity = self.session.identity.clone();
        if locks {
            self.session.check_may_write("SELECT FOR UPDATE")?;
        }
        if self.session.modes().1 {
            let compiles_readonly = self.session.describe(&statement, &[])?.readonly;
            if !compiles_readonly {
                self.session.check_may_write(statement.tag)?;
            }
        }
        let mut kept = DataRows::new(Vec::new(), Formats::Text, Outlet::Kept);
        let work = Work::Simple(statement);
        let count = self.session.run_at_writer(|transaction| work.run(transaction, &identity, &mut kept))?;
        self.out.extend_from_slice(&kept.out);
        Ok(count)
    }

    pub(super) fn check_admin(&self) -> Result<(), ServerError> {
        if self.session.role == crate::sql::users::Role::Admin {
            return Ok(());
        }
        Err(ServerError::sql("42501", "only users with SYS_ADMIN_ROLE may change users and roles"))
    }
}

/// The writer's work for statements that are neither queries nor about the session.
pub fn work_of(statement: &Statement) -> Option<Work> {
    match &statement.kind {
        Kind::Schema => Some(Work::Schema(statement.sql.clone())),
        Kind::Several(list, schema) => Some(Work::Several(list.clone(), *schema)),
        Kind::User(command) => Some(Work::User(command.clone())),
        _ => None,
    }
}
