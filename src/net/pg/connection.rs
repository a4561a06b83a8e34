//! The message loop of one logged-in client.
//!
//! Output gathers in one buffer that is written when the client waits (Sync, Flush, end of a simple query) or when it
//! is large and the session is not the writer. An error in the extended protocol is written at once, then everything up
//! to Sync is skipped.
//!
//! Invariant: a session that is ended by an administrator, a copy or the shutdown first completes the answer to what has
//! committed, ReadyForQuery included, and a transaction that may yet come to be is never told to have failed.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use super::codec::{self, Formats, MessageReader, ReadProblem};
use super::extended::Portal;
use super::listening::Listening;
use super::rows::{DataRows, MAX_KEPT_RESULT_BYTES, Outlet};
use crate::error::ServerError;
use crate::hsb::settings::{Durability, Safeness, word};
use crate::services::events::Pulse;
use crate::services::registry::{Ticket, last_word, process_id};
use crate::sql::execute::Prepared;
use crate::sql::session::SqlSession;
use crate::sql::settings::REPORTED;
use crate::stream::Stream;

/// More output than this goes to the client between rows.
pub const FLUSH_BYTES: usize = 256 << 10;
/// A bigger output buffer is given back once it is empty.
const KEPT_OUTPUT_BYTES: usize = 1 << 20;

/// SQLSTATE of what has failed because its own client is gone: nobody is left who could be told.
pub(super) const GONE: &str = "08006";

/// Why the loop ends.
pub enum End {
    /// The client left or is gone.
    Gone,
    /// It is told this first.
    Fatal(ServerError),
}

/// One client.
pub struct Client<'r> {
    pub(super) stream: &'r Stream,
    pub(super) session: SqlSession<'r>,
    pub(super) out: Vec<u8>,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal<'r>>,
    /// Statements by their text, for clients that parse the same text again and again.
    pub(super) known_texts: HashMap<String, Arc<Prepared>>,
    skipping: bool,
    ticket: Ticket,
    told: HashMap<&'static str, String>,
    pub(super) told_read_only: bool,
    pub(super) settings_changed: bool,
    pub(super) listening: Listening,
    /// Number of the last event when it was taken, and what wakes this session at the next one.
    pub(super) pulse: Option<(u64, Pulse)>,
    /// The last answer is complete and nothing was asked since.
    at_rest: bool,
    /// Of the schema and the users, when this session's role was read.
    pub(super) checked_generation: u64,
}

/// Serves a client until it leaves.
pub fn run<'r>(
    stream: &'r Stream,
    reader: MessageReader,
    session: SqlSession<'r>,
    ticket: Ticket,
    greeting: Vec<u8>,
) {
    let listening = Listening::new(Arc::clone(&session.context.events));
    let checked_generation = session.context.database.schema_generation();
    let mut client = Client {
        stream,
        session,
        out: greeting,
        statements: HashMap::new(),
        portals: HashMap::new(),
        known_texts: HashMap::new(),
        skipping: false,
        ticket,
        told: HashMap::new(),
        told_read_only: false,
        settings_changed: true,
        listening,
        pulse: None,
        at_rest: false,
        checked_generation,
    };
    let end = client.serve(reader);
    client.portals.clear();
    client.session.rollback();
    client.give_all_memory_back();
    if let End::Fatal(error) = end {
        codec::error_response(&mut client.out, "FATAL", &error);
        let _ = client.flush();
    }
    stream.end();
}

impl Client<'_> {
    fn serve(&mut self, mut reader: MessageReader) -> End {
        let start = codec::begin(&mut self.out, b'K');
        self.out.extend_from_slice(&process_id(self.ticket.id).to_be_bytes());
        self.out.extend_from_slice(&self.ticket.secret.to_be_bytes());
        codec::finish(&mut self.out, start);
        if let Err(end) = self.ready() {
            return end;
        }
        loop {
            if let Err(end) = self.next_message(&mut reader) {
                return end;
            }
        }
    }

    fn next_message(&mut self, reader: &mut MessageReader) -> Result<(), End> {
        let was_at_rest = self.at_rest;
        if was_at_rest {
            self.wait_at_rest(reader)?;
        }
        self.at_rest = false;
        let (kind, range) = match reader.next_message() {
            Ok(message) => message,
            Err(problem) => return Err(self.end_of(problem, was_at_rest)),
        };
        // Sync belongs to what was carried out before it.
        if kind != b'S' {
            self.check_closing()?;
            self.check_user()?;
        }
        if self.skipping && !matches!(kind, b'S' | b'X') {
            self.pass_over(kind, reader.body(range));
            return Ok(());
        }
        let handled = match kind {
            b'Q' => {
                self.simple_query(reader, range)?;
                return self.ready();
            }
            b'P' => self.parse(reader.body(range)),
            b'B' => self.bind(reader.body(range)),
            b'D' => self.describe(reader.body(range)),
            b'E' => match self.execute(reader, range) {
                Ok(()) => return self.relieve(),
                Err(error) => Err(error),
            },
            b'C' => self.close(reader.body(range)),
            b'H' => return self.flush(),
            b'S' => {
                self.skipping = false;
                self.sync();
                return self.ready();
            }
            b'X' => return Err(End::Gone),
            // What is left of a COPY that failed.
            b'd' | b'c' | b'f' => return Ok(()),
            b'F' => {
                let error = ServerError::sql("0A000", "function calls of the protocol are not supported");
                self.error(&error);
                return self.ready();
            }
            other => {
                let text = format!("invalid message type {other}");
                return Err(End::Fatal(ServerError::sql("08P01", text)));
            }
        };
        if let Err(error) = handled {
            self.fail(error)?;
            self.skipping = true;
            // Clients that prepare with Flush wait for it before they send Sync.
            return self.flush();
        }
        Ok(())
    }

    fn end_of(&mut self, problem: ReadProblem, was_at_rest: bool) -> End {
        // The Sync that belongs here is not heard any more. Without a transaction all before it is final, and so is its
        // answer.
        let completes = !was_at_rest && !self.session.in_transaction();
        if completes && let Err(end) = self.ready() {
            return end;
        }
        if let Err(end) = self.check_closing() {
            return end;
        }
        match problem {
            ReadProblem::Closed => End::Gone,
            ReadProblem::TimedOut => {
                End::Fatal(ServerError::sql("57P05", "terminating connection due to idle-session timeout"))
            }
            ReadProblem::Paused => End::Fatal(codec::paused()),
            ReadProblem::Protocol(text) => End::Fatal(ServerError::sql("08P01", text)),
        }
    }

    /// Ends the session if an administrator, a copy, the shutdown or SQLite's log wants it.
    pub(super) fn check_closing(&self) -> Result<(), End> {
        self.ticket.closing().map_or(Ok(()), |reason| Err(End::Fatal(reason.clone())))
    }

    /// A statement's error: told, or the last word of a session that shall end.
    pub(super) fn fail(&mut self, error: ServerError) -> Result<(), End> {
        if let Some(reason) = self.ticket.closing() {
            return Err(End::Fatal(last_word(error, reason)));
        }
        if error.code.is_none() && error.sqlstate == GONE {
            return Err(End::Gone);
        }
        self.error(&error);
        Ok(())
    }

    /// Tells an error and what it does to the transaction.
    fn error(&mut self, error: &ServerError) {
        codec::error_response(&mut self.out, "ERROR", error);
        self.session.deadline.set(None);
        self.portals.clear();
        self.session.on_error();
    }

    /// End of an extended query: commits what was sent together.
    fn sync(&mut self) {
        if self.session.is_implicit() {
            self.portals.clear();
            if let Err(error) = self.session.commit() {
                self.error(&error);
            }
        }
        if !self.session.in_transaction() {
            self.portals.clear();
        }
    }

    /// ReadyForQuery, with what has changed before it.
    fn ready(&mut self) -> Result<(), End> {
        self.session.note_reading();
        self.give_memory_back();
        self.append_news();
        codec::ready_for_query(&mut self.out, self.session.status());
        self.at_rest = true;
        self.flush()
    }

    pub(super) fn report_settings(&mut self) {
        for name in REPORTED {
            let value = self.setting(name).unwrap_or_default();
            if self.told.get(name) != Some(&value) {
                codec::parameter_status(&mut self.out, name, &value);
                self.told.insert(name, value);
            }
        }
    }

    /// A setting's value, those that the node decides included.
    pub(super) fn setting(&self, name: &str) -> Option<String> {
        let read_only = self.session.context.status.is_read_only();
        let refuses_writes = read_only || self.session.context.parameters.read_only();
        let on_off = |on: bool| Some(if on { "on" } else { "off" }.to_string());
        match name.to_ascii_lowercase().as_str() {
            "in_hot_standby" => on_off(read_only),
            "default_transaction_read_only" => on_off(refuses_writes || self.session.settings.read_only),
            "transaction_read_only" => on_off(refuses_writes || self.session.modes().1),
            "transaction_isolation" => Some(self.session.modes().0.name().to_string()),
            "transaction_token" => {
                let token = self.session.settings.next_transaction.token.as_ref();
                Some(token.map(|token| token.text().to_string()).unwrap_or_default())
            }
            "safeness" => Some(word(&Safeness::WORDS, self.session.commit_options().0).to_string()),
            "durability" => Some(word(&Durability::WORDS, self.session.commit_options().1).to_string()),
            "is_superuser" => on_off(self.session.role == crate::sql::users::Role::Admin),
            "session_authorization" => Some(self.session.identity.user.clone()),
            "role" => Some("none".to_string()),
            "lock_timeout" | "lock timeout" if self.session.settings.lock_timeout.is_none() => {
                let default = self.session.context.parameters.lock_wait_timeout();
                let ours = name.contains(' ');
                Some(if ours { default.as_secs() } else { default.as_millis() as u64 }.to_string())
            }
            _ => self.session.settings.show(name),
        }
    }

    /// Has rows of a read appended to the output, which goes to the client between them when it is large.
    pub(super) fn append_rows<R>(
        &mut self,
        formats: &mut Formats,
        produce: impl FnOnce(&mut DataRows<'_>) -> Result<R, ServerError>,
    ) -> Result<R, ServerError> {
        let (out, outlet) = (std::mem::take(&mut self.out), Outlet::Client(self.stream));
        let mut rows = DataRows::new(out, std::mem::take(formats), outlet);
        let produced = produce(&mut rows);
        (self.out, *formats) = (rows.out, rows.formats);
        produced
    }

    /// Writes all output.
    pub(super) fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = self.stream.write_all(&self.out);
        self.out.clear();
        if self.out.capacity() > KEPT_OUTPUT_BYTES {
            self.out = Vec::with_capacity(8192);
        }
        written.map_err(|_| End::Gone)
    }

    /// Writes large output. While the session is the writer only what would become too large: until it has left, the
    /// transaction counts as idle, so that a client that takes nothing holds others up no longer than a silent one.
    pub(super) fn relieve(&mut self) -> Result<(), End> {
        let limit = if self.session.is_writing() { MAX_KEPT_RESULT_BYTES } else { FLUSH_BYTES };
        if self.out.len() > limit { self.flush() } else { Ok(()) }
    }
}

/// Sends full buffers to the client between rows of a read.
pub(super) fn flush_large(mut stream: &Stream, out: &mut Vec<u8>) -> Result<(), ServerError> {
    if out.len() < FLUSH_BYTES {
        return Ok(());
    }
    let written = stream.write_all(out);
    out.clear();
    written.map_err(|error| ServerError::sql(GONE, format!("the client takes no data: {error}")))
}
