//! From the first byte to ReadyForQuery: SSLRequest, CancelRequest, start-up packet, SCRAM.
//!
//! All of it must be done within Com.LoginTimeout; what is not well-formed gets an ErrorResponse and the end.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::codec::{self, Fields, MessageReader, ReadProblem};
use super::connection;
use super::first_packet::{Asked, MAX_START_UP_BYTES, asked, fatal};
use super::scram::Exchange;
use crate::error::ServerError;
use crate::logging;
use crate::net::listener::places::{Full, Kind};
use crate::net::listener::{Guest, too_many_clients};
use crate::services::context::NodeContext;
use crate::sql::access;
use crate::sql::access::Identity;
use crate::sql::errors::from_sqlite;
use crate::sql::functions;
use crate::sql::session::{Deadline, SqlSession};
use crate::sql::users::{self, Role};
use crate::storage::limits;
use crate::stream::Stream;

/// A client that takes no bytes for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Operations of SQLite between looks at the time limit.
const PROGRESS_OPERATIONS: i32 = 4000;
/// Looks at the time limit between looks whether the client is still there: a query looks every few dozen milliseconds.
const LOOKS_BETWEEN: u32 = 256;

/// What a client said at start.
struct StartUp {
    user: String,
    settings: Vec<(String, String)>,
    minor_version: i32,
    unknown_options: Vec<String>,
}

fn protocol(message: impl Into<String>) -> ServerError {
    ServerError::sql("08P01", message)
}

/// Why a connection ends before it began; without an error nobody is told.
type Ended = Option<ServerError>;

fn from_problem(problem: ReadProblem) -> Ended {
    match problem {
        ReadProblem::Closed => None,
        ReadProblem::TimedOut => Some(ServerError::sql("08006", "the log-in took too long")),
        ReadProblem::Paused => Some(codec::paused()),
        ReadProblem::Protocol(text) => Some(protocol(text)),
    }
}

/// Runs a whole connection on this thread.
pub fn serve(mut guest: Guest, context: Arc<NodeContext>) {
    if let Some(code) = context.status.why_no_sessions() {
        return refuse(&guest, &context, &ServerError::new(code));
    }
    let stream = Arc::clone(guest.stream());
    if let Err(Some(error)) = run(&mut guest, &stream, &context) {
        let _ = (&*stream).write_all(&fatal(&error));
    }
}

fn refuse(guest: &Guest, context: &NodeContext, error: &ServerError) {
    let Ok(mut reader) = prepare(guest, context) else { return };
    if let Ok(Some(_)) = start_up(guest.stream(), &mut reader, context) {
        let _ = (&**guest.stream()).write_all(&fatal(error));
    }
}

fn prepare(guest: &Guest, context: &NodeContext) -> std::io::Result<MessageReader> {
    let stream = guest.stream();
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut reader = MessageReader::new(Arc::clone(stream), Arc::clone(&context.parameters));
    reader.set_deadline(Some(guest.deadline()));
    Ok(reader)
}

fn run(guest: &mut Guest, stream: &Arc<Stream>, context: &Arc<NodeContext>) -> Result<(), Ended> {
    let mut reader = prepare(guest, context).map_err(|_| None)?;
    let Some(start) = start_up(stream, &mut reader, context)? else { return Ok(()) };
    // Told before it is asked for its password.
    if let Some(full) = guest.full(Kind::Sql) {
        log::warn!("a connection from {} was refused: {}", stream.peer_address(), too_many_clients(full));
        return Err(no_place(Full(Some(full))));
    }
    let role = authenticate(stream, &mut reader, context, &start.user)?;
    guest.let_in(Kind::Sql).map_err(no_place)?;
    send_welcome(stream)?;
    // Nothing is opened for whoever has not logged in.
    let mut connection = context.database.open_reader().map_err(Some)?;
    let deadline = Deadline::none();
    let watched = deadline.clone();
    access::install(&mut connection).map_err(Some)?;
    functions::register(&connection, &context.status, &context.outcomes).map_err(Some)?;
    let (client, mut looks) = (Arc::clone(stream), 0u32);
    let must_end = move || {
        looks = looks.wrapping_add(1);
        watched.has_passed() || (looks.is_multiple_of(LOOKS_BETWEEN) && client.has_left())
    };
    connection
        .progress_handler(PROGRESS_OPERATIONS, Some(must_end))
        .map_err(|error| Some(from_sqlite(&error)))?;
    connection.set_prepared_statement_cache_capacity(256);
    let id = context.sessions.new_id();
    let ticket = context
        .sessions
        .register(id, &start.user, connection.get_interrupt_handle(), Arc::clone(stream))
        .map_err(Some)?;
    let identity = Arc::new(Identity { session: id, user: start.user.clone() });
    let mut session = SqlSession::new(&connection, context.clone(), identity, role, deadline);
    session.reading = Some(Arc::clone(&ticket.reading));
    for (name, value) in &start.settings {
        session.settings.set(name, Some(value)).map_err(Some)?;
    }
    reader.set_deadline(None);
    reader.max_message_bytes = limits::message_bytes();
    let mut greeting = Vec::with_capacity(1024);
    if start.minor_version > 0 || !start.unknown_options.is_empty() {
        negotiate(&mut greeting, &start.unknown_options);
    }
    connection::run(stream, reader, session, ticket, greeting);
    Ok(())
}

/// NegotiateProtocolVersion: we speak 3.0 and know no `_pq_` options.
fn negotiate(out: &mut Vec<u8>, options: &[String]) {
    let start = codec::begin(out, b'v');
    out.extend_from_slice(&0i32.to_be_bytes());
    out.extend_from_slice(&(options.len() as i32).to_be_bytes());
    options.iter().for_each(|option| codec::text(out, option));
    codec::finish(out, start);
}

/// Reads up to the start-up packet; none if this was a CancelRequest.
fn start_up(
    mut stream: &Stream,
    reader: &mut MessageReader,
    context: &NodeContext,
) -> Result<Option<StartUp>, Ended> {
    // A client asks for TLS and for GSS at most once each.
    for _ in 0..3 {
        let range = reader.next_start_up(MAX_START_UP_BYTES).map_err(from_problem)?;
        let mut fields = Fields::new(reader.body(range));
        let number = fields.i32().map_err(Some)?;
        match asked(number) {
            Asked::Encryption => {
                if reader.has_input() {
                    return Err(Some(protocol("data after the request for encryption")));
                }
                stream.write_all(b"N").map_err(|_| None)?;
            }
            Asked::Cancel => {
                let (process, secret) = (fields.i32().map_err(Some)?, fields.i32().map_err(Some)?);
                context.sessions.cancel(process, secret);
                return Ok(None);
            }
            Asked::Session { minor_version } => {
                return parse_start_up(fields, minor_version).map(Some).map_err(Some);
            }
            Asked::Unknown => {
                let (major, minor) = (number >> 16, number & 0xffff);
                let text = format!("unsupported protocol {major}.{minor}: the server speaks 3.0");
                return Err(Some(ServerError::sql("0A000", text)));
            }
        }
    }
    Err(Some(protocol("no start-up packet")))
}

fn parse_start_up(mut fields: Fields<'_>, minor_version: i32) -> Result<StartUp, ServerError> {
    let mut start =
        StartUp { user: String::new(), settings: Vec::new(), minor_version, unknown_options: Vec::new() };
    loop {
        let name = fields.text()?;
        if name.is_empty() {
            break;
        }
        let value = fields.text()?;
        match name {
            "user" => start.user = value.to_string(),
            "database" => {}
            "replication" if !["false", "off", "no", "0"].contains(&value) => {
                return Err(ServerError::sql("0A000", "replication connections are not supported"));
            }
            "replication" => {}
            "options" => command_line_options(value, &mut start.settings),
            _ if name.starts_with("_pq_.") => start.unknown_options.push(name.to_string()),
            _ => start.settings.push((name.to_string(), value.to_string())),
        }
    }
    if start.user.is_empty() {
        return Err(ServerError::sql("28000", "no user name is given"));
    }
    Ok(start)
}

/// `-c name=value …`, as PGOPTIONS sends it.
fn command_line_options(text: &str, settings: &mut Vec<(String, String)>) {
    for word in text.split_whitespace() {
        let word = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or(word);
        if let Some((name, value)) = word.split_once('=') {
            settings.push((name.replace('-', "_"), value.to_string()));
        }
    }
}

/// SCRAM-SHA-256; the same steps for users who do not exist.
fn authenticate(
    mut stream: &Stream,
    reader: &mut MessageReader,
    context: &NodeContext,
    user: &str,
) -> Result<Role, Ended> {
    let found = context.database.ask(|connection| users::find_for_login(connection, user));
    let (role, verifier) = found.map_err(Some)?;
    let failed =
        || Some(ServerError::sql("28P01", format!("password authentication failed for user \"{user}\"")));
    let mut send = |kind: i32, body: &[u8]| {
        let mut out = Vec::with_capacity(body.len() + 16);
        let start = codec::begin(&mut out, b'R');
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(body);
        codec::finish(&mut out, start);
        stream.write_all(&out).map_err(|_| None)
    };
    send(10, b"SCRAM-SHA-256\0\0")?;
    let first = password_message(reader)?;
    let mut fields = Fields::new(&first);
    if fields.text().map_err(Some)? != "SCRAM-SHA-256" {
        return Err(Some(protocol("the client chose an authentication that was not offered")));
    }
    fields.i32().map_err(Some)?;
    let message = utf8(fields.rest())?;
    let nonce = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        crate::random::bytes::<18>().map_err(Some)?,
    );
    let exchange = Exchange::begin(message, verifier, &nonce).map_err(Some)?;
    send(11, exchange.server_first().as_bytes())?;
    let last = password_message(reader)?;
    let answer = exchange.finish(utf8(&last)?).map_err(Some)?;
    let (Some(answer), Some(role)) = (answer, role) else {
        log_failure(stream, user);
        return Err(failed());
    };
    send(12, answer.as_bytes())?;
    Ok(role)
}

/// AuthenticationOk.
fn send_welcome(mut stream: &Stream) -> Result<(), Ended> {
    stream.write_all(b"R\0\0\0\x08\0\0\0\0").map_err(|_| None)
}

/// The password was right, and there is no place; whoever was dropped has been told.
fn no_place(Full(taken): Full) -> Ended {
    taken.map(|taken| ServerError::sql("53300", too_many_clients(taken)))
}

/// For whoever watches for guessed passwords. The name is the client's choice: it is cut and made printable.
fn log_failure(stream: &Stream, user: &str) {
    let (user, address) = (logging::name(user), stream.peer_address());
    log::warn!("password authentication failed for user \"{user}\" from {address}");
}

fn utf8(bytes: &[u8]) -> Result<&str, Ended> {
    std::str::from_utf8(bytes).map_err(|_| Some(protocol("malformed SCRAM message")))
}

fn password_message(reader: &mut MessageReader) -> Result<Vec<u8>, Ended> {
    let (kind, range) = reader.next_message().map_err(from_problem)?;
    if kind != b'p' {
        return Err(Some(protocol("a password message was expected")));
    }
    Ok(reader.body(range).to_vec())
}
