//! The extended query protocol: Parse, Bind, Describe, Execute, Close.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::CachedStatement;
use rusqlite::types::Value;

use super::codec::{self, Fields, Formats, MessageReader};
use super::connection::Client;
use super::rows::{self, DataRows, Outlet};
use super::simple::{Completion, work_of};
use crate::error::ServerError;
use crate::pgtypes::{self, oid};
use crate::sql::access::ClientScope;
use crate::sql::describe::{Metadata, ResultColumn};
use crate::sql::errors::from_sqlite;
use crate::sql::execute::{self, Prepared, Work};
use crate::sql::rows::give_row;
use crate::sql::statement::{Kind, Statement, Statements};
use crate::storage::memory;

/// Statements remembered by their text, and named ones, are bounded.
const MAX_KNOWN_TEXTS: usize = 256;
const MAX_STATEMENTS: usize = 10_000;
const MAX_PORTALS: usize = 1000;

/// A bound statement on its way through execution.
pub struct Portal<'r> {
    pub(super) prepared: Arc<Prepared>,
    pub(super) parameters: Vec<Value>,
    formats: Formats,
    /// Columns refined by the first row; none: the statement's.
    columns: Option<Vec<ResultColumn>>,
    pub(super) state: PortalState<'r>,
}

pub(super) enum PortalState<'r> {
    Bound,
    /// Stepped on the reader; perhaps encoded rows not sent yet.
    Running {
        statement: CachedStatement<'r>,
        ready: Vec<u8>,
    },
    /// All rows are encoded; the first ones of them are sent.
    Buffered {
        rows: Vec<u8>,
        sent: usize,
        count: Option<u64>,
    },
    Finished,
}

impl Drop for Portal<'_> {
    fn drop(&mut self) {
        if let PortalState::Running { statement, .. } = &mut self.state {
            let _reading = memory::reading();
            // Goes back to the cache; dropping its rows resets it.
            drop(statement.raw_query());
        }
    }
}

fn columns_of<'p>(refined: &'p Option<Vec<ResultColumn>>, prepared: &'p Prepared) -> &'p [ResultColumn] {
    refined.as_deref().unwrap_or(&prepared.metadata.columns)
}

fn no_statement(name: &str) -> ServerError {
    ServerError::sql("26000", format!("prepared statement \"{name}\" does not exist"))
}

fn no_portal(name: &str) -> ServerError {
    ServerError::sql("34000", format!("portal \"{name}\" does not exist"))
}

impl<'r> Client<'r> {
    pub(super) fn parse(&mut self, body: &[u8]) -> Result<(), ServerError> {
        let mut fields = Fields::new(body);
        let (name, text) = (fields.text()?, fields.text()?);
        let count = fields.count()?;
        let declared =
            (0..count).map(|_| fields.i32().map(i32::cast_unsigned)).collect::<Result<Vec<u32>, _>>()?;
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(ServerError::sql("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        if self.statements.len() >= MAX_STATEMENTS {
            return Err(ServerError::sql("54000", "too many prepared statements"));
        }
        let prepared = self.prepared_of(text, declared)?;
        self.check_statements(&prepared)?;
        self.statements.insert(name.to_string(), prepared);
        codec::empty_message(&mut self.out, b'1');
        Ok(())
    }

    fn prepared_of(&mut self, text: &str, declared: Vec<u32>) -> Result<Arc<Prepared>, ServerError> {
        let generation = self.session.schema_generation();
        if let Some(known) = self.known_texts.get(text)
            && Some(known.generation) == generation
            && known.declared == declared
            && !self.session.is_failed()
        {
            return Ok(known.clone());
        }
        let mut statements = Statements::of(text)?;
        let statement = statements.take_next()?.unwrap_or_else(Statement::empty);
        if statements.take_next()?.is_some() {
            return Err(ServerError::sql(
                "42601",
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        self.session.check_usable(&statement)?;
        let metadata = self.describe_in_time(&statement, &declared)?;
        let described = AtomicBool::new(false);
        let prepared = Arc::new(Prepared {
            statement,
            metadata,
            generation: generation.unwrap_or(0),
            declared,
            described,
        });
        if generation.is_some() && text.len() < 10_000 {
            if self.known_texts.len() >= MAX_KNOWN_TEXTS {
                self.known_texts.clear();
            }
            self.known_texts.insert(text.to_string(), prepared.clone());
        }
        Ok(prepared)
    }

    /// Preparing counts as running. SQLite looks at the limit now and then while it prepares, and not at all in some of what takes
    /// long (chains of generated columns): what is late is told to be so when it comes back.
    fn describe_in_time(&mut self, statement: &Statement, declared: &[u32]) -> Result<Metadata, ServerError> {
        self.session.deadline.set(self.session.settings.statement_max_time);
        let described = self.session.describe(statement, declared);
        let is_late = self.session.deadline.has_passed();
        self.session.deadline.set(None);
        if is_late {
            return Err(ServerError::sql("57014", "canceling statement due to statement timeout"));
        }
        described
    }

    /// A message between an error and Sync. Clients that cut a CREATE TRIGGER send all the pieces before they wait.
    pub(super) fn pass_over(&mut self, kind: u8, body: &[u8]) {
        if kind != b'P' || !self.session.trigger.is_open() {
            return;
        }
        let mut fields = Fields::new(body);
        let text = fields.text().and_then(|_| fields.text());
        let statement = text.and_then(Statements::of).and_then(|mut statements| statements.take_next());
        if let Ok(Some(statement)) = statement {
            self.session.trigger.pass(&statement);
        }
    }

    /// The statement as the present schema makes it.
    fn current(&mut self, name: &str) -> Result<Arc<Prepared>, ServerError> {
        let prepared = self.statements.get(name).ok_or_else(|| no_statement(name))?;
        let generation = self.session.schema_generation();
        let fresh = matches!(prepared.statement.kind, Kind::Query | Kind::Change | Kind::Pragma);
        if !fresh || Some(prepared.generation) == generation || self.session.is_failed() {
            return Ok(prepared.clone());
        }
        let old = prepared.clone();
        let metadata = self.session.describe(&old.statement, &old.declared)?;
        let told = old.described.load(Ordering::Relaxed);
        if told && metadata.columns != old.metadata.columns {
            return Err(execute::plan_changed());
        }
        let prepared = Arc::new(Prepared {
            statement: old.statement.clone(),
            metadata,
            generation: generation.unwrap_or(0),
            declared: old.declared.clone(),
            described: AtomicBool::new(told),
        });
        self.statements.insert(name.to_string(), prepared.clone());
        Ok(prepared)
    }

    pub(super) fn bind(&mut self, body: &[u8]) -> Result<(), ServerError> {
        let mut fields = Fields::new(body);
        let (portal, name) = (fields.text()?, fields.text()?);
        let prepared = self.current(name)?;
        self.session.check_usable(&prepared.statement)?;
        let count = fields.count()?;
        let codes = (0..count).map(|_| fields.i16()).collect::<Result<Vec<i16>, _>>()?;
        let parameter_formats = Formats::from_codes(&codes);
        let count = fields.count()?;
        let wanted = &prepared.metadata.parameters;
        if count != wanted.len() {
            let text = format!(
                "bind message supplies {count} parameters, but the statement requires {}",
                wanted.len()
            );
            return Err(ServerError::sql("08P01", text));
        }
        let mut parameters = Vec::with_capacity(count);
        for (index, parameter) in wanted.iter().enumerate() {
            let length = fields.i32()?;
            let bytes = match usize::try_from(length) {
                Ok(length) => Some(fields.bytes(length)?),
                Err(_) => None,
            };
            let value = match bytes {
                None => Value::Null,
                Some(bytes) if parameter_formats.is_binary(index) => parameter.kind.from_binary(bytes)?,
                Some(bytes) => parameter.kind.from_text(bytes)?,
            };
            let is_number = parameter.operand && parameter.oid == oid::NUMERIC;
            parameters.push(if is_number { pgtypes::as_number(value)? } else { value });
        }
        let count = fields.count()?;
        let codes = (0..count).map(|_| fields.i16()).collect::<Result<Vec<i16>, _>>()?;
        if self.portals.len() >= MAX_PORTALS {
            return Err(ServerError::sql("54000", "too many portals"));
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(ServerError::sql("42P03", format!("portal \"{portal}\" already exists")));
        }
        self.check_portals(portal, &parameters)?;
        let formats = Formats::from_codes(&codes);
        let bound = Portal { prepared, parameters, formats, columns: None, state: PortalState::Bound };
        insert_portal(&mut self.portals, portal, bound);
        codec::empty_message(&mut self.out, b'2');
        Ok(())
    }

    pub(super) fn describe(&mut self, body: &[u8]) -> Result<(), ServerError> {
        let mut fields = Fields::new(body);
        let (kind, name) = (fields.byte()?, fields.text()?);
        match kind {
            b'S' => {
                let prepared = self.current(name)?;
                prepared.described.store(true, Ordering::Relaxed);
                let metadata = &prepared.metadata;
                let start = codec::begin(&mut self.out, b't');
                self.out.extend_from_slice(&(metadata.parameters.len() as i16).to_be_bytes());
                for parameter in &metadata.parameters {
                    let told = if parameter.oid == 0 { oid::TEXT } else { parameter.oid };
                    self.out.extend_from_slice(&told.to_be_bytes());
                }
                codec::finish(&mut self.out, start);
                rows::append_description(&mut self.out, &metadata.columns, &Formats::Text);
                Ok(())
            }
            b'P' => self.describe_portal(name),
            _ => Err(codec::malformed()),
        }
    }

    fn describe_portal(&mut self, name: &str) -> Result<(), ServerError> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let metadata = &portal.prepared.metadata;
        let told = portal.prepared.described.load(Ordering::Relaxed);
        let early = metadata.readonly
            && metadata.is_uncertain()
            && !told
            && matches!(portal.state, PortalState::Bound);
        let reader_only =
            !self.session.is_writing() && !portal.prepared.statement.locks && !self.session.is_failed();
        if !early || !reader_only {
            rows::append_description(&mut self.out, &metadata.columns, &portal.formats);
            return Ok(());
        }
        self.session.before_read()?;
        let _scope = ClientScope::enter_reading(&self.session.identity);
        start_early(self.session.reader, portal)?;
        let columns = columns_of(&portal.columns, &portal.prepared);
        rows::append_description(&mut self.out, columns, &portal.formats);
        Ok(())
    }

    pub(super) fn close(&mut self, body: &[u8]) -> Result<(), ServerError> {
        let mut fields = Fields::new(body);
        let (kind, name) = (fields.byte()?, fields.text()?);
        match kind {
            b'S' => drop(self.statements.remove(name)),
            _ => drop(self.portals.remove(name)),
        }
        codec::empty_message(&mut self.out, b'3');
        Ok(())
    }

    pub(super) fn execute(
        &mut self,
        reader: &mut MessageReader,
        range: Range<usize>,
    ) -> Result<(), ServerError> {
        let mut fields = Fields::new(reader.body(range));
        let name = fields.text()?;
        let limit = u64::try_from(fields.i32()?).unwrap_or(0);
        let (name, mut portal) = self.portals.remove_entry(name).ok_or_else(|| no_portal(name))?;
        self.session.check_usable(&portal.prepared.statement)?;
        // With Sync next the statement is all there is of its transaction.
        let alone = reader.sync_is_next();
        self.session.deadline.set(self.session.settings.statement_max_time);
        let completion = self.execute_portal(reader, &mut portal, limit, alone)?;
        self.session.deadline.set(None);
        match completion {
            Some(completion) if completion.tag.is_empty() => codec::empty_message(&mut self.out, b'I'),
            Some(completion) => codec::command_complete(&mut self.out, completion.tag, completion.count),
            None => codec::empty_message(&mut self.out, b's'),
        }
        let ends = matches!(portal.prepared.statement.kind, Kind::Commit | Kind::Rollback | Kind::Discard);
        if !ends {
            self.portals.insert(name, portal);
        }
        Ok(())
    }

    /// Runs a portal; none if it is suspended at the limit.
    fn execute_portal(
        &mut self,
        reader: &mut MessageReader,
        portal: &mut Portal<'r>,
        limit: u64,
        alone: bool,
    ) -> Result<Option<Completion>, ServerError> {
        let prepared = portal.prepared.clone();
        let tag = prepared.statement.tag;
        match &prepared.statement.kind {
            Kind::Empty => return Ok(Some(Completion { tag: "", count: None })),
            Kind::Query | Kind::Pragma | Kind::Change => {}
            Kind::Copy(command) => return self.copy(reader, command).map(Some),
            _ => return self.execute_other(&prepared, &portal.formats, alone).map(Some),
        }
        if matches!(portal.state, PortalState::Bound) {
            self.start_portal(portal, &prepared, alone)?;
        }
        let columns = columns_of(&portal.columns, &prepared);
        match &mut portal.state {
            PortalState::Running { statement, ready } => {
                let early = u64::from(!ready.is_empty());
                self.out.append(ready);
                if limit != 0 && early == limit {
                    return Ok(None);
                }
                let left = limit.saturating_sub(early);
                let _scope = ClientScope::enter_reading(&self.session.identity);
                let (count, done) = self.append_rows(&mut portal.formats, |rows| {
                    execute::step_rows(statement, columns, left, rows)
                })?;
                if !done {
                    return Ok(None);
                }
                portal.state = PortalState::Finished;
                Ok(Some(Completion { tag, count: Some(early + count) }))
            }
            PortalState::Buffered { rows, sent, count } => {
                let (end, number) = rows_up_to(rows, *sent, limit);
                self.out.extend_from_slice(rows.get(*sent..end).unwrap_or(&[]));
                *sent = end;
                if end < rows.len() {
                    return Ok(None);
                }
                let count = if prepared.metadata.readonly { Some(number) } else { *count };
                portal.state = PortalState::Finished;
                Ok(Some(Completion { tag, count }))
            }
            PortalState::Finished | PortalState::Bound => Ok(Some(Completion { tag, count: Some(0) })),
        }
    }

    fn start_portal(
        &mut self,
        portal: &mut Portal<'r>,
        prepared: &Arc<Prepared>,
        alone: bool,
    ) -> Result<(), ServerError> {
        let pragma = matches!(prepared.statement.kind, Kind::Pragma);
        let locks = prepared.statement.locks && self.session.in_transaction();
        if (prepared.metadata.readonly && !self.session.is_writing() && !locks) || pragma {
            self.session.before_read()?;
            let _scope = ClientScope::enter_reading(&self.session.identity);
            let mut statement = self
                .session
                .reader
                .prepare_cached(&prepared.statement.sql)
                .map_err(|error| from_sqlite(&error))?;
            execute::bind(&mut statement, &prepared.metadata, &portal.parameters)?;
            portal.state = PortalState::Running { statement, ready: Vec::new() };
            return Ok(());
        }
        let parameters = std::mem::take(&mut portal.parameters);
        let work = Work::Prepared(prepared.clone(), parameters);
        let mut kept = DataRows::new(Vec::new(), portal.formats.clone(), Outlet::Kept);
        let (kept, count) = if prepared.metadata.readonly {
            if locks {
                self.session.check_may_write("SELECT FOR UPDATE")?;
            }
            let identity = self.session.identity.clone();
            let count =
                self.session.run_at_writer(|transaction| work.run(transaction, &identity, &mut kept))?;
            (kept, count)
        } else {
            self.session.write(work, alone, prepared.statement.tag, kept)?
        };
        portal.state = PortalState::Buffered { rows: kept.out, sent: 0, count };
        Ok(())
    }

    fn execute_other(
        &mut self,
        prepared: &Prepared,
        formats: &Formats,
        alone: bool,
    ) -> Result<Completion, ServerError> {
        let Some(work) = work_of(&prepared.statement) else {
            return self.utility(&prepared.statement, formats, false);
        };
        if matches!(work, Work::User(_)) {
            self.check_admin()?;
        }
        let tag = prepared.statement.tag;
        let kept = DataRows::new(Vec::new(), Formats::Text, Outlet::Kept);
        let (_, count) = self.session.write(work, alone, tag, kept)?;
        Ok(Completion { tag, count })
    }
}

fn insert_portal<'r>(portals: &mut HashMap<String, Portal<'r>>, name: &str, portal: Portal<'r>) {
    // The unnamed portal is replaced in place: no allocation per execution.
    match portals.get_mut(name) {
        Some(place) => *place = portal,
        None => drop(portals.insert(name.to_string(), portal)),
    }
}

/// Steps to the first row, so that its values can tell the types of columns.
fn start_early<'r>(reader: &'r rusqlite::Connection, portal: &mut Portal<'r>) -> Result<(), ServerError> {
    let prepared = portal.prepared.clone();
    let mut statement =
        reader.prepare_cached(&prepared.statement.sql).map_err(|error| from_sqlite(&error))?;
    execute::bind(&mut statement, &prepared.metadata, &portal.parameters)?;
    let mut columns = prepared.metadata.columns.clone();
    let mut ready = DataRows::new(Vec::new(), portal.formats.clone(), Outlet::Kept);
    let (_, is_empty) = execute::step(&mut statement, 1, |row| {
        execute::refine(&mut columns, row);
        give_row(row, &columns, &mut ready)
    })?;
    if is_empty {
        portal.state = PortalState::Buffered { rows: Vec::new(), sent: 0, count: Some(0) };
        return Ok(());
    }
    portal.columns = Some(columns);
    portal.state = PortalState::Running { statement, ready: ready.out };
    Ok(())
}

/// Where so many encoded rows end (0: all), and how many they are.
fn rows_up_to(rows: &[u8], from: usize, limit: u64) -> (usize, u64) {
    let (mut at, mut count) = (from, 0);
    while at < rows.len() && (limit == 0 || count < limit) {
        let length =
            rows.get(at + 1..at + 5).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        at += 1 + length as usize;
        count += 1;
    }
    (at.min(rows.len()), count)
}
