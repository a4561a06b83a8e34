//! What is malformed, forged or out of place is refused with a reason, and the server lives on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    Random, assert_identical, from_environment, number, program, server_error, sql, state, try_sql,
};
use hotstandby::client::console::ConsoleClient;
use hotstandby::codec::{self, FrameKind};
use hotstandby::demo::pair::{ADMINISTRATOR, Pair, Server};
use hotstandby::hsb::codes::Code;
use hotstandby::hsb::event::{Hello, Purpose};
use hotstandby::hsb::position::Position;
use hotstandby::hsb::refusal::Refusal;
use hotstandby::hsb::settings::{AcknowledgePolicy, PairSettings};
use hotstandby::hsb::state::State;
use hotstandby::net::peer::handshake::{self, LinkOptions};
use hotstandby::stream::Stream;

/// Runs the program until it ends by itself, which it has to do soon.
fn run(directory: &Path, administrator: bool) -> Output {
    let mut command = Command::new(program());
    command.arg("-c").arg(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("SOLID_USER").env_remove("SOLID_PASSWORD");
    if administrator {
        command.env("SOLID_USER", ADMINISTRATOR.0).env("SOLID_PASSWORD", ADMINISTRATOR.1);
    }
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the server started: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn assert_refused(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    for part in parts {
        assert!(text.contains(part), "'{part}' is missing in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// A pair of which only the first server runs, in PRIMARY ALONE.
fn one_server() -> (tempfile::TempDir, Pair) {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "").unwrap();
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    (root, pair)
}

fn assert_alive(server: &Server) {
    assert_eq!(number(&mut sql(server), "SELECT count(*) FROM (SELECT 1 UNION SELECT 2)"), 2);
    server.expect("hsb state").unwrap();
}

/// SQLite would mix a new database with the log of the old one, and take over the old one's identity and position.
#[test]
fn a_database_that_is_lost_without_its_log_is_not_made_anew() {
    let (_root, mut pair) = one_server();
    sql(&pair.first).batch_execute("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1)").unwrap();
    pair.first.kill();
    let (file, elsewhere) = (pair.first.database_file(), pair.first.directory.join("elsewhere"));
    std::fs::rename(&file, &elsewhere).unwrap();
    assert_refused(&run(&pair.first.directory, true), &["10081", "solid.db-wal", "-x backupserver"]);
    assert!(!file.exists());
    std::fs::rename(&elsewhere, &file).unwrap();
    pair.first.start(&[]).unwrap();
    assert_eq!(number(&mut sql(&pair.first), "SELECT a FROM t"), 1);
}

#[test]
fn a_malformed_solid_ini_is_refused_with_file_and_line() {
    let root = tempfile::tempdir().unwrap();
    let cases = [
        ("[Com]\nListen=tcp 1964\n[HotStandby]\nPingTimeout=soon\n", "4"),
        ("[Com]\nListen=tcp 99999\n", "2"),
        ("[Com]\n\nwhat is this\n", "3"),
        ("[Com\nListen=tcp 1964\n", "1"),
        ("[Logging]\nDurabilityLevel=7\n", "2"),
    ];
    for (ini, line) in cases {
        std::fs::write(root.path().join("solid.ini"), ini).unwrap();
        let output = run(root.path(), true);
        assert_refused(&output, &["solid.ini", line]);
        assert!(!root.path().join("solid.db").exists());
    }
    std::fs::write(root.path().join("solid.ini"), [0xff, 0xfe, b'[', 0, b'\n']).unwrap();
    assert_refused(&run(root.path(), true), &["solid.ini"]);
}

#[test]
fn a_new_database_needs_an_administrator() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("solid.ini"), "[Com]\nListen=tcp 127.0.0.1 1964\n").unwrap();
    assert_refused(&run(root.path(), false), &["administrator", "SOLID_USER"]);
    assert!(!root.path().join("solid.db").exists());
    assert_refused(&run(&root.path().join("nowhere"), false), &["nowhere"]);
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let (_root, pair) = one_server();
    let output = run(&pair.first.directory, true);
    assert_refused(&output, &["another server"]);
    assert_alive(&pair.first);
}

#[test]
fn wrong_passwords_are_refused() {
    let (_root, pair) = one_server();
    let error = try_sql(&pair.first, "wrong").err().unwrap();
    assert_eq!(server_error(&error).unwrap().0, "28P01");
    for (user, password) in [(ADMINISTRATOR.0, "wrong"), (ADMINISTRATOR.0, ""), ("nobody", ADMINISTRATOR.1)] {
        let refused = ConsoleClient::connect(pair.first.address(), user, password, Duration::from_secs(20));
        assert!(refused.is_err(), "{user} {password}");
    }
    assert_alive(&pair.first);
}

/// Sends bytes, reads what comes until the server closes; it must not take long, nor all memory.
fn offer(server: &Server, bytes: &[u8]) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may close before it has read all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.take(1 << 20).read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}, after {bytes:02x?}");
    }
}

fn startup(parameters: &[u8]) -> Vec<u8> {
    let mut message = ((parameters.len() + 8) as u32).to_be_bytes().to_vec();
    message.extend(196_608u32.to_be_bytes());
    message.extend(parameters);
    message
}

#[test]
fn garbage_on_the_port_is_survived() {
    let (_root, pair) = one_server();
    let mut random = Random::seeded("garbage");
    let frame = codec::encode_message(FrameKind::Peer, &0u32).unwrap();
    let peer_header = [&b"HSBF\x01\x02\0\0"[..], &40u32.to_le_bytes()].concat();
    let prefixes: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"HSBF".to_vec(),
        peer_header,
        frame.to_vec(),
        startup(b"user\0dba\0\0"),
        startup(b"user\0dba\0database\0solid\0\0"),
        196_608u32.to_be_bytes().to_vec(),
        vec![0, 0, 0, 16, 4, 210, 22, 46],
        b"login ".to_vec(),
        format!("login {} {}\n", ADMINISTRATOR.0, ADMINISTRATOR.1).into_bytes(),
        format!("login {} {}\nparameter ", ADMINISTRATOR.0, ADMINISTRATOR.1).into_bytes(),
    ];
    for round in 0..from_environment("HSB_GARBAGE_ROUNDS", 10) {
        for prefix in &prefixes {
            let length = random.below(300);
            let garbage = (0..length).map(|_| random.next() as u8);
            let bytes: Vec<u8> = prefix.iter().copied().chain(garbage).collect();
            offer(&pair.first, &bytes);
        }
        if round == 0 {
            assert_alive(&pair.first);
        }
    }
    assert_alive(&pair.first);
    assert_eq!(state(&pair.first), "PRIMARY ALONE");
}

/// After a valid log-in too: the password is known, the messages are senseless.
#[test]
fn garbage_after_the_log_in_is_survived() {
    let (_root, pair) = one_server();
    let mut random = Random::seeded("garbage after log-in");
    for _ in 0..from_environment("HSB_GARBAGE_ROUNDS", 10) {
        let mut console = TcpStream::connect(pair.first.address()).unwrap();
        writeln!(console, "login {} {}", ADMINISTRATOR.0, ADMINISTRATOR.1).unwrap();
        let words = [
            "hsb",
            "set",
            "status",
            "copy",
            "parameter",
            "=",
            ".",
            "'",
            "HotStandby.",
            "\t",
            "99999999999999999999",
            "describe",
            "errorcode",
            "throwout",
            "ä",
        ];
        for _ in 0..20 {
            let line: Vec<&str> =
                (0..random.below(5)).map(|_| words[random.below(words.len() as u64) as usize]).collect();
            writeln!(console, "{}", line.join(if random.below(2) == 0 { " " } else { "" })).unwrap();
        }
        console.shutdown(std::net::Shutdown::Write).unwrap();
        console.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = String::new();
        console.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("OK\n"), "{answer}");
        assert_alive(&pair.first);
    }
}

#[test]
fn oversized_messages_are_refused() {
    let (_root, pair) = one_server();
    let huge = (256u32 << 20).to_le_bytes();
    let frame = [&b"HSBF\x01\x02\0\0"[..], &huge, &[0; 4], &[7; 70_000]].concat();
    offer(&pair.first, &frame);
    let batch = [&b"HSBF\x01\x01\0\0"[..], &huge, &[0; 4], &[7; 70_000]].concat();
    offer(&pair.first, &batch);
    offer(
        &pair.first,
        &[&0x7fff_ffffu32.to_be_bytes()[..], &196_608u32.to_be_bytes(), &[7; 70_000]].concat(),
    );
    // A start-up that is fine, then an answer to the password request that claims a gigabyte.
    offer(
        &pair.first,
        &[&startup(b"user\0dba\0\0")[..], b"p", &0x4000_0000u32.to_be_bytes(), &[7; 70_000]].concat(),
    );
    offer(&pair.first, &[&b"login dba "[..], &[b'x'; 300_000]].concat());
    let login = format!("login {} {}\n", ADMINISTRATOR.0, ADMINISTRATOR.1);
    offer(&pair.first, &[login.as_bytes(), &[b'x'; 300_000]].concat());
    assert_alive(&pair.first);
}

#[test]
fn a_peer_of_another_database_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "").unwrap();
    pair.first.start(&[]).unwrap();
    pair.second.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    for server in [&pair.first, &pair.second] {
        assert_eq!(server.connect().unwrap().0, 14524);
    }
    assert_eq!((state(&pair.first), state(&pair.second)), ("PRIMARY ALONE".into(), "SECONDARY ALONE".into()));
    sql(&pair.first).batch_execute("CREATE TABLE t (id BIGINT)").unwrap();
    assert_alive(&pair.second);
}

#[test]
fn a_peer_with_another_secret_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "PeerSecretFile=secret\n").unwrap();
    let secret = |server: &Server, text: &str| std::fs::write(server.directory.join("secret"), text).unwrap();
    secret(&pair.first, "the secret of this pair");
    secret(&pair.second, "the secret of this pair");
    pair.start().unwrap();
    pair.second.kill();
    secret(&pair.second, "another secret of another pair");
    pair.second.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    for server in [&pair.first, &pair.second] {
        let (code, text) = server.connect().unwrap();
        assert_ne!(code, 0);
        assert!(text.contains("secret"), "{text}");
    }
    // R2, R4: that server lives, and may be the primary.
    for (server, switch) in [(&pair.second, "hsb switch primary"), (&pair.first, "hsb switch secondary")] {
        let (code, text) = server.ask(switch).unwrap();
        assert!(
            code == 14501 && text.contains("PeerSecretFile") && text.contains("Nothing was changed"),
            "{text}"
        );
    }
    std::fs::remove_file(pair.second.directory.join("secret")).unwrap();
    assert_eq!(pair.first.ask("hsb switch secondary").unwrap().0, 14501);
    secret(&pair.second, "another secret of another pair");
    let status = pair.second.console().unwrap().command("hsb status").unwrap();
    let next = status
        .iter()
        .map(|(_, line)| line.as_str())
        .filter(|line| line.starts_with("next"))
        .collect::<String>();
    assert!(next.contains("mend") && !next.contains("set primary alone"), "{next}");
    assert_eq!((state(&pair.first), state(&pair.second)), ("PRIMARY ALONE".into(), "SECONDARY ALONE".into()));
    assert_alive(&pair.first);
    pair.second.kill();
    secret(&pair.second, "the secret of this pair");
    pair.second.start(&[]).unwrap();
    pair.first.expect("hsb connect").unwrap();
    assert_identical(&pair);
}

// ---- the handshake by itself ----

const OPTIONS: LinkOptions<'static> = LinkOptions {
    secret: b"the secret of this pair",
    node: [1; 16],
    user_timeout: None,
    step_timeout: Duration::from_secs(10),
};

fn hello() -> Hello {
    let pair = PairSettings {
        acknowledge_policy: AcknowledgePolicy::Received,
        ping_interval_ms: 1,
        ping_timeout_ms: 1,
    };
    let (position, log_end) = (Position::ORIGIN, Position::ORIGIN);
    Hello { database_id: [1; 16], state: State::PrimaryAlone, position, log_end, pair }
}

/// What a dialler makes of a listener that does `answer`.
fn dial_to(options: LinkOptions<'_>, answer: fn(Stream)) -> Result<Hello, Refusal> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || answer(listener.accept().unwrap().0.into()));
    let options = LinkOptions { node: [2; 16], ..options };
    let outcome = handshake::dial(("127.0.0.1", port), None, options, Purpose::Probe, hello());
    let outcome = outcome.map(|(_, hello)| hello);
    thread.join().unwrap();
    outcome
}

fn serve(mut stream: Stream) {
    if handshake::listen(&stream, OPTIONS).is_ok() {
        handshake::welcome(&mut stream, hello()).unwrap();
    }
}

#[test]
fn who_answers_and_does_not_pass_is_not_taken_for_unreachable() {
    assert_eq!(dial_to(OPTIONS, serve), Ok(hello()));
    let Refusal { code, detail } = dial_to(LinkOptions { secret: b"another", ..OPTIONS }, serve).unwrap_err();
    assert_eq!(code, Code::OPERATION_FAILED);
    assert!(detail.contains("HotStandby.PeerSecretFile"), "{detail}");
    let refusing: [fn(Stream); 3] = [
        |stream| handshake::turn_away(&stream, Code::COMMUNICATION_ERROR.into()),
        |mut stream| {
            stream.write_all(b"SSH-2.0-of something else altogether\r\n").unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap_or_default();
        },
        |mut stream| {
            handshake::say(&mut stream, &77u32).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap_or_default();
        },
    ];
    for answer in refusing {
        assert_eq!(dial_to(OPTIONS, answer).unwrap_err().code, Code::OPERATION_FAILED);
    }
}

/// Failover from a primary that is stopped, or dies just now, depends on it.
#[test]
fn who_says_nothing_is_unreachable() {
    let impatient = LinkOptions { step_timeout: Duration::from_millis(20), ..OPTIONS };
    let silent = |mut stream: Stream| {
        // Until the dialler has given up.
        stream.read_to_end(&mut Vec::new()).unwrap_or_default();
    };
    assert_eq!(dial_to(impatient, silent).unwrap_err().code, Code::COMMUNICATION_ERROR);
    assert_eq!(dial_to(OPTIONS, drop).unwrap_err().code, Code::COMMUNICATION_ERROR);
}

/// Else a server of another version would be taken for dead.
#[test]
fn a_dialler_of_another_version_is_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut dialler = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut frame = codec::encode_message(FrameKind::Peer, &[7u8; 32]).unwrap().to_vec();
    frame[4] += 1;
    dialler.write_all(&frame).unwrap();
    let thread = std::thread::spawn(move || handshake::listen(&stream.into(), OPTIONS).unwrap_err().code);
    assert_eq!(handshake::read_answer(&mut dialler).unwrap_err().code, Code::OPERATION_FAILED);
    drop(dialler);
    assert_eq!(thread.join().unwrap(), Code::OPERATION_FAILED);
}
