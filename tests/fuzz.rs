//! Decoders and parsers against mutated and invented input: whatever comes, it is refused or understood, never a panic,
//! and nothing damaged passes for whole.
//!
//! `HSB_FUZZ_CASES` sets the number of cases per test; proptest prints the smallest input that fails.

#![allow(clippy::unwrap_used)]

#[path = "it/common/mod.rs"]
mod common;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use common::{embedded, from_environment};
use hotstandby::codec::{self, FrameKind};
use hotstandby::config::{ConnectString, Parameters, example, parser};
use hotstandby::hsb::event::{Hello, PeerMessage};
use hotstandby::hsb::position::Position;
use hotstandby::net::{listener::Guest, pg};
use hotstandby::sql::statement;
use hotstandby::storage::apply::Applier;
use hotstandby::storage::batch::{Batch, BatchHeader};
use hotstandby::storage::change;
use hotstandby::storage::log::{LogConfiguration, LogReadError, LogWriter, Medium};
use proptest::prelude::*;

fn cases(factory: u32) -> ProptestConfig {
    let cases = from_environment("HSB_FUZZ_CASES", u64::from(factory));
    ProptestConfig {
        cases: u32::try_from(cases).unwrap_or(u32::MAX),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// One way of damaging bytes; places are shares of the length.
#[derive(Clone, Debug)]
enum Damage {
    Flip(f64, u8),
    Set(f64, u8),
    Cut(f64),
    Remove(f64, usize),
    Insert(f64, Vec<u8>),
    Repeat(f64, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = || 0.0..1.0f64;
    prop_oneof![
        (place(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, 1 << bit)),
        (place(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        place().prop_map(Damage::Cut),
        (place(), 1..40usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        (place(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (place(), 1..200usize).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ]
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    prop::collection::vec(damage(), 1..4)
}

fn apply_damage(bytes: &mut Vec<u8>, all: &[Damage]) {
    for damage in all {
        if bytes.is_empty() {
            return;
        }
        let place = |share: f64| ((bytes.len() as f64 * share) as usize).min(bytes.len() - 1);
        match damage {
            Damage::Flip(at, bits) => {
                let at = place(*at);
                bytes[at] ^= bits;
            }
            Damage::Set(at, value) => {
                let at = place(*at);
                bytes[at] = *value;
            }
            Damage::Cut(at) => bytes.truncate(place(*at)),
            Damage::Remove(at, count) => {
                let at = place(*at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Damage::Insert(at, new) => {
                let at = place(*at);
                bytes.splice(at..at, new.iter().copied());
            }
            Damage::Repeat(at, count) => {
                let at = place(*at);
                let again = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

/// A frame around any body: what the checksum does not keep out.
fn frame_around(kind: FrameKind, body: &[u8]) -> Bytes {
    let mut buffer = Vec::new();
    codec::begin_frame(&mut buffer);
    buffer.extend_from_slice(body);
    codec::finish_frame(&mut buffer, kind, 0).unwrap();
    buffer.into()
}

const META: &str = "CREATE TABLE _hsb_meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    INSERT INTO _hsb_meta VALUES ('position', zeroblob(32)), ('database_id', zeroblob(16));
    CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB);
    CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    INSERT INTO t VALUES (1, 'one', x'01'), (2, NULL, x'');
    INSERT INTO w VALUES ('a', 1.5);";

/// A real batch's changes: an insert, an update, a delete of both kinds of table.
static CHANGES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    use change::{Change, ColumnChange, RowKey, Value};
    let all = [
        Change::Insert {
            table: "t",
            rowid: Some(3),
            values: vec![Value::Null, Value::Text(b"x"), Value::Null],
        },
        Change::Update {
            table: "t",
            key: RowKey::Rowid { old: 1, new: 1 },
            columns: vec![ColumnChange { column: 1, old: Value::Text(b"one"), new: Value::Integer(7) }],
        },
        Change::Delete { table: "w", rowid: None, values: vec![Value::Text(b"a"), Value::Real(1.5)] },
    ];
    let mut bytes = Vec::new();
    for change in &all {
        codec::append_value(&mut bytes, change).unwrap();
    }
    bytes
});

fn batch_after(before: Position, changes: &[u8]) -> Batch {
    let header = BatchHeader { before, epoch: 1, count: 1, needs_acknowledgement: false };
    Batch::seal(header, changes).unwrap()
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_damaged_frame_is_never_whole(damages in damages(), changes in prop::collection::vec(any::<u8>(), 0..300)) {
        let whole = batch_after(Position::ORIGIN, &changes).bytes;
        let mut bytes = whole.to_vec();
        apply_damage(&mut bytes, &damages);
        if let Ok(frame) = codec::parse_frame(bytes.clone().into()) {
            prop_assert_eq!(&frame.bytes, &whole);
        }
        let _ = Batch::parse(bytes.into());
    }

    #[test]
    fn any_body_is_decoded_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let frame = codec::parse_frame(frame_around(FrameKind::Peer, &body)).unwrap();
        let _ = codec::decode_message::<PeerMessage>(frame.body());
        let _ = codec::decode_message::<Hello>(frame.body());
        let _ = Batch::parse(frame_around(FrameKind::Batch, &body));
        for change in change::changes(&body).take(1000) {
            if change.is_err() {
                break;
            }
        }
    }

    #[test]
    fn any_statement_is_understood_or_refused(sql in sql_like()) {
        let _ = statement::parse(&sql);
    }

    #[test]
    fn any_solid_ini_is_read_or_refused(text in ini_like()) {
        let _ = parser::parse(&text);
        let _ = Parameters::from_text(Path::new("/nowhere"), &text);
    }

    #[test]
    fn a_damaged_solid_ini_is_read_or_refused(damages in damages()) {
        let mut bytes = example::example_text().replace("\n;", "\n").into_bytes();
        apply_damage(&mut bytes, &damages);
        let _ = Parameters::from_text(Path::new("/nowhere"), &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_connect_string_is_read_or_refused(text in "(tcp|TCP|udp)?[ -]{0,2}(-c[0-9]{0,22})? ?\\PC{0,20} ?[0-9]{0,7}") {
        if let Ok(address) = ConnectString::parse(&text) {
            prop_assert_eq!(ConnectString::parse(&address.to_string()).unwrap(), address);
        }
    }
}

proptest! {
    #![proptest_config(cases(200))]

    /// Even with a right checksum a batch does no harm: applied as it stands, or refused and rolled back.
    #[test]
    fn any_changes_are_applied_or_refused(damages in damages()) {
        let mut changes = CHANGES.clone();
        apply_damage(&mut changes, &damages);
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(META).unwrap();
        let mut applier = Applier::new(connection).unwrap();
        applier.begin().unwrap();
        match applier.apply(&batch_after(Position::ORIGIN, &changes)) {
            Ok(()) => applier.commit().unwrap(),
            Err(_) => {
                applier.rollback();
                let rows: i64 =
                    applier.connection().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
                prop_assert_eq!(rows, 2);
            }
        }
    }

    /// What a damaged log still yields is a part of what was written, from its beginning.
    #[test]
    fn a_damaged_log_yields_its_own_history_or_an_error(
        damages in damages(), which in 0.0..1.0f64, sizes in prop::collection::vec(1..900usize, 1..12)
    ) {
        let directory = tempfile::tempdir().unwrap();
        let configuration = LogConfiguration {
            directory: directory.path().to_path_buf(),
            template: "sol#####.log".into(),
            digit: '#',
            segment_size_bytes: 4096,
            database_id: [7; 16],
            maximum_bytes: None,
            medium: Medium::default(),
        };
        let mut history = vec![Position::ORIGIN];
        {
            let (mut writer, _) = LogWriter::open(configuration.clone(), Position::ORIGIN).unwrap();
            for size in sizes {
                writer.append(&batch_after(writer.end(), &vec![size as u8; size])).unwrap();
                history.push(writer.end());
            }
            writer.sync().unwrap();
        }
        let mut files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        let file = &files[(files.len() as f64 * which) as usize];
        let mut bytes = std::fs::read(file).unwrap();
        apply_damage(&mut bytes, &damages);
        std::fs::write(file, bytes).unwrap();
        if let Ok((writer, mut recovered)) = LogWriter::open(configuration, Position::ORIGIN) {
            prop_assert!(history.contains(&writer.end()));
            let mut next = 1;
            loop {
                match recovered.reader.next(u64::MAX) {
                    Ok(Some(batch)) => prop_assert_eq!(batch.after, history[next]),
                    Ok(None) => break,
                    Err(LogReadError::Failed(_) | LogReadError::NotThere | LogReadError::Diverged { .. }) => break,
                }
                next += 1;
            }
        }
    }

    /// The first bytes of an SQL connection, up to the password.
    #[test]
    fn any_start_up_is_read_or_refused(bytes in start_up_like()) {
        let (mut client, served) = connection();
        client.write_all(&bytes).unwrap();
        drop(client);
        pg::serve(Guest::alone(served, Duration::from_secs(60)), SERVER.context.clone());
    }
}

/// A node that serves the start-up cases.
static SERVER: LazyLock<embedded::Server> = LazyLock::new(embedded::server);

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn start_up_like() -> impl Strategy<Value = Vec<u8>> {
    let parameters =
        "(user\0(dba|[a-z]{0,9})\0)?(database\0[a-z]{0,9}\0)?(_pq_\\.x\0one\0)?(\\PC{0,20}\0){0,3}";
    let whole = (
        parameters,
        prop_oneof![Just(196_608u32), Just(196_610), Just(80_877_102), Just(80_877_103), any::<u32>()],
    )
        .prop_map(|(parameters, code)| {
            let length = parameters.len() as u32 + 9;
            [&length.to_be_bytes()[..], &code.to_be_bytes(), parameters.as_bytes(), &[0]].concat()
        });
    let answer = prop::collection::vec(any::<u8>(), 0..80)
        .prop_map(|body| [&b"p"[..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat());
    (whole, answer, prop::option::of(damages())).prop_map(|(mut bytes, answer, damages)| {
        bytes.extend(answer);
        if let Some(damages) = damages {
            apply_damage(&mut bytes, &damages);
        }
        bytes
    })
}

/// Pieces of SQL in a senseless order.
fn sql_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "SELECT",
            "INSERT INTO",
            "VALUES",
            "BEGIN",
            "COMMIT",
            "ROLLBACK TO",
            "SAVEPOINT",
            "SET TRANSACTION",
            "SET SAFENESS 2SAFE",
            "ADMIN COMMAND",
            "CREATE USER",
            "CREATE TABLE",
            "IDENTIFIED BY",
            "GRANT",
            "COPY",
            "FROM STDIN",
            "PREPARE",
            "EXPLAIN",
            "WITH",
            "AS",
            "(",
            ")",
            ",",
            ";",
            ".",
            "'",
            "\"",
            "$1",
            "?",
            "::int",
            "--",
            "/*",
            "*/",
            "E'\\'",
            "$$",
            "CASE",
            "END",
            "x'",
            "FOR UPDATE",
            "TRIGGER",
            "PRAGMA",
            "ATTACH",
            "nulls first",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
        "'[^']{0,6}'?",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.join(" "))
}

/// Pieces of a solid.ini in a senseless order.
fn ini_like() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        prop::sample::select(vec![
            "[Com]",
            "[HotStandby]",
            "[Logging]",
            "[General",
            "]",
            "Listen=tcp 1964",
            "Listen=tcp 0.0.0.0 1",
            "PingTimeout=",
            "FileNameTemplate=sol#.log",
            "DigitTemplateChar=##",
            "BackupBlockSize=3K",
            "BlockSize=99999999999999999999G",
            "HSBEnabled=yes",
            "Connect=\"tcp 1",
            "; what",
            "=",
            "PeerSecretFile=/",
            "MinSplitSize=-1",
            "1SafeMaxDelay = 0x10",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,20}",
        "[A-Za-z0-9]{1,12} ?= ?\\PC{0,12}",
    ];
    prop::collection::vec(line, 0..16).prop_map(|lines| lines.join("\n"))
}
