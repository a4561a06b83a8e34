//! Provoking codes: on a real node where that is quick, at the heart where a moment has to be caught.

use hotstandby::client::console::ConsoleClient;
use hotstandby::config::{ConnectString, Parameters};
use hotstandby::demo::pair::reserve_port;
use hotstandby::error::ServerError;
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::effect::{AnswerEffect, Decision, Effect, NodeEffect, WriterEffect};
use hotstandby::hsb::event::{BatchInfo, Command, Event};
use hotstandby::hsb::heart::Heart;
use hotstandby::hsb::position::Position;
use hotstandby::hsb::state::State;
use hotstandby::node::{Node, StartOptions};
use hotstandby::services::context::Rights;

use crate::common::embedded::{self, Server};
use crate::common::wire::Wire;

const HSB: &str = "[HotStandby]\nHSBEnabled=yes\nConnect=tcp 127.0.0.1 1\n";

fn number(error: &ServerError) -> u32 {
    error.code.unwrap().number()
}

/// The number at the beginning of what an SQL client was told.
fn told(error: &postgres::Error) -> u32 {
    let message = error.as_db_error().unwrap_or_else(|| panic!("{error}")).message();
    message.split(':').next().unwrap().parse().unwrap_or_else(|_| panic!("{message}"))
}

fn asked(server: &Server, command: &str) -> u32 {
    server.ask(command).0
}

/// The same of a command that is answered when it begins.
fn came_of(server: &Server, command: &str) -> u32 {
    let rows = |command| server.context.admin.execute("dba", Rights::Administrator, command);
    if command == "hsb connect" && asked(server, command) == 0 {
        crate::common::wait_until("it has failed", || rows("hsb status connect").len() > 1);
        return rows("hsb status connect").remove(1).0;
    }
    asked(server, command)
}

pub fn plain(command: &str) -> u32 {
    asked(&embedded::server(), command)
}

pub fn diskless(command: &str) -> u32 {
    let server = embedded::server_with(&format!("{HSB}[General]\nDiskless=yes\n"));
    server.admin("hsb set primary alone");
    asked(&server, command)
}

pub fn secondary(command: &str) -> u32 {
    asked(&embedded::server_with(HSB), command)
}

/// At a PRIMARY ALONE whose peer is not there.
pub fn alone(command: &str) -> u32 {
    let server = embedded::server_with(HSB);
    server.admin("hsb set primary alone");
    asked(&server, command)
}

pub fn standalone(command: &str) -> u32 {
    let server = embedded::server_with(HSB);
    server.admin("hsb set standalone");
    came_of(&server, command)
}

pub fn unconfigured(command: &str) -> u32 {
    asked(&embedded::server_with("[HotStandby]\nHSBEnabled=yes\n"), command)
}

pub fn offline(command: &str) -> u32 {
    asked(&embedded::backup_server(HSB), command)
}

pub fn offline_connection() -> u32 {
    told(&embedded::backup_server(HSB).connect_as("dba", "dba").err().unwrap())
}

pub fn connected(command: &str) -> u32 {
    asked(&embedded::connected_pair("").0, command)
}

pub fn two_secondaries(command: &str) -> u32 {
    let (first, second) = embedded::connected_pair("");
    first.admin("hsb disconnect");
    first.wait_for("hsb state", "PRIMARY ALONE");
    second.wait_for("hsb state", "SECONDARY ALONE");
    first.admin("hsb set secondary alone");
    came_of(&first, command)
}

pub fn address(text: &str) -> u32 {
    number(&ConnectString::parse(text).unwrap_err())
}

/// What a session is told when the server ends it.
fn told_at_the_end(end: fn(Server)) -> u32 {
    let server = embedded::server();
    let mut client = Wire::connect(server.port, "dba", "dba");
    end(server);
    client.error().1.split(':').next().unwrap().parse().unwrap()
}

pub fn thrown_out() -> u32 {
    told_at_the_end(|server| server.admin("throwout all"))
}

pub fn shutdown() -> u32 {
    told_at_the_end(drop)
}

pub fn write_at_a_secondary() -> u32 {
    let server = embedded::server_with(HSB);
    told(&server.connect().batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap_err())
}

// ---- starting ----

fn start(directory: &std::path::Path, ini: &str) -> Result<Node, ServerError> {
    let reserved = reserve_port().unwrap();
    let text = format!("[Com]\nListen=tcp {}\n{ini}", reserved.number);
    let (parameters, _) = Parameters::from_text(directory, &text)?;
    let administrator = Box::new(|| Ok(("dba".to_string(), "dba".to_string())));
    Node::start(StartOptions { parameters, backup_server: false, administrator, netcopy_requested: None })
}

pub fn directory_in_use() -> u32 {
    let server = embedded::server();
    number(&start(server.directory.path(), "").err().unwrap())
}

pub fn no_section() -> u32 {
    let server = embedded::server_with(HSB);
    server.admin("hsb set primary alone");
    server.connect().batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    let directory = server.shut_down();
    let refusal = number(&start(directory.path(), "").err().unwrap());
    // With the section it says what the operator wants.
    start(directory.path(), "[HotStandby]\nHSBEnabled=no\n").unwrap().shut_down();
    refusal
}

pub fn corrupt_database() -> u32 {
    let directory = embedded::server().shut_down();
    std::fs::write(directory.path().join("solid.db"), b"no database at all").unwrap();
    number(&start(directory.path(), "").err().unwrap())
}

pub fn log_cannot_be_opened() -> u32 {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("logs"), b"not a directory").unwrap();
    number(&start(directory.path(), "[Logging]\nLogDir=logs\n").err().unwrap())
}

/// What the directory in memory would be called is taken by somebody's file.
pub fn no_memory_for_the_log() -> u32 {
    let directory = tempfile::tempdir().unwrap();
    let path = std::fs::canonicalize(directory.path()).unwrap();
    let name = xxhash_rust::xxh3::xxh3_64(path.as_os_str().as_encoded_bytes());
    let in_the_way = std::path::PathBuf::from(format!("/dev/shm/hotstandby-{name:016x}"));
    std::fs::write(&in_the_way, b"").unwrap();
    let outcome = start(directory.path(), "[Logging]\nLogEnabled=no\n");
    std::fs::remove_file(&in_the_way).unwrap();
    number(&outcome.err().unwrap())
}

pub fn disk_full() -> u32 {
    // SQLite's own word for a disk that is full.
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (a); PRAGMA max_page_count=2").unwrap();
    number(&connection.execute_batch("INSERT INTO t VALUES (zeroblob(100000))").unwrap_err().into())
}

// ---- the console client ----

pub fn server_not_found() -> u32 {
    let reserved = reserve_port().unwrap();
    let address = ([127, 0, 0, 1], reserved.number).into();
    number(&ConsoleClient::connect(address, "dba", "dba", std::time::Duration::from_secs(10)).err().unwrap())
}

pub fn connection_broken() -> u32 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let hang_up = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let outcome = ConsoleClient::connect(address, "dba", "dba", std::time::Duration::from_secs(10));
    hang_up.join().unwrap();
    number(&outcome.err().unwrap())
}

// ---- the heart ----

fn heart(state: State) -> Heart {
    let directory = std::env::temp_dir();
    let (parameters, _) = Parameters::from_text(&directory, HSB).unwrap();
    Heart::new(state, parameters.settings(), [1; 16], Position::ORIGIN, Position::ORIGIN)
}

fn command(heart: &mut Heart, command: Command) -> Vec<Effect> {
    heart.handle(Event::Command { request: 1, command })
}

fn replied(effects: &[Effect]) -> u32 {
    let code = effects.iter().find_map(|effect| match effect {
        Effect::Answer(AnswerEffect::Reply { code, .. }) => Some(code.number()),
        _ => None,
    });
    code.unwrap_or_else(|| panic!("{effects:?}"))
}

fn refused(state: State, first: Command, then: Command) -> u32 {
    let mut heart = heart(state);
    command(&mut heart, first);
    replied(&command(&mut heart, then))
}

pub fn switch_active() -> u32 {
    refused(State::PrimaryActive, Command::SwitchSecondary, Command::SetPrimaryAlone)
}

pub fn catchup_active() -> u32 {
    refused(State::PrimaryAlone, Command::Connect, Command::Connect)
}

pub fn copy_active() -> u32 {
    refused(State::PrimaryAlone, Command::Netcopy, Command::Connect)
}

pub fn parting() -> u32 {
    refused(State::SecondaryActive, Command::Disconnect, Command::SwitchPrimary)
}

pub fn alone_while_parting() -> u32 {
    refused(State::SecondaryActive, Command::Disconnect, Command::SetPrimaryAlone)
}

pub fn standalone_at_a_secondary() -> u32 {
    replied(&command(&mut heart(State::SecondaryActive), Command::SetStandalone))
}

fn connect_status(effects: &[Effect]) -> u32 {
    let code = effects.iter().find_map(|effect| match effect {
        Effect::Node(NodeEffect::ConnectStatus(status)) => Some(status.code().number()),
        _ => None,
    });
    code.unwrap_or_else(|| panic!("{effects:?}"))
}

pub fn connecting() -> u32 {
    connect_status(&command(&mut heart(State::PrimaryAlone), Command::Connect))
}

/// A primary whose secondary catches up, and what it did last.
fn catchup() -> (Heart, Vec<Effect>) {
    let mut primary = heart(State::PrimaryAlone);
    let hello = heart(State::SecondaryAlone).hello();
    primary.handle(Event::PeerArrived { link: 3, hello });
    let effects = primary.handle(Event::HistoryChecked { link: 3, result: Ok(()) });
    (primary, effects)
}

pub fn catching_up() -> u32 {
    connect_status(&catchup().1)
}

pub fn disconnecting() -> u32 {
    connect_status(&command(&mut heart(State::PrimaryActive), Command::Disconnect))
}

pub fn active() -> u32 {
    let mut heart = heart(State::PrimaryActive);
    command(&mut heart, Command::SwitchSecondary);
    match heart.switch_status() {
        hotstandby::hsb::phase::SwitchStatus::Active => Code::ACTIVE.number(),
        other => panic!("{other:?}"),
    }
}

fn batch(after: Position) -> BatchInfo {
    BatchInfo { before: Position::ORIGIN, after, needs_acknowledgement: true, strict: false, bytes: 100 }
}

fn rejected(effects: &[Effect]) -> u32 {
    let code = effects.iter().find_map(|effect| match effect {
        Effect::Writer(WriterEffect::Decide(Decision::Reject(code))) => Some(code.number()),
        _ => None,
    });
    code.unwrap_or_else(|| panic!("{effects:?}"))
}

/// A batch that is held back for the end of catchup until its client's patience is over.
pub fn timed_out() -> u32 {
    let (mut heart, _) = catchup();
    heart.handle(Event::CatchupNearEnd { link: 3 });
    heart.handle(Event::BatchReady(batch(Position { sequence: 1, ..Position::ORIGIN })));
    rejected(&heart.handle(Event::Withdraw))
}

/// A batch that does not follow the last one.
pub fn unexpected() -> u32 {
    let elsewhere = Position { sequence: 7, ..Position::ORIGIN };
    let info = BatchInfo { before: elsewhere, ..batch(elsewhere) };
    rejected(&heart(State::PrimaryAlone).handle(Event::BatchReady(info)))
}
