//! The message log as a service has it: readers that stop, signals, rotation, health checks, hostile texts.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::common::{program, signal_process, sql, wait_until};
use hotstandby::demo::pair::{ADMINISTRATOR, Pair, Server};

/// A server whose process is the test's own.
struct Service {
    pair: Pair,
    process: Child,
    _root: tempfile::TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", messages(self));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn service(parameters: &str, stderr: Stdio) -> Service {
    let root = tempfile::tempdir().unwrap();
    let pair = Pair::prepare(program(), root.path(), parameters).unwrap();
    let process = spawn(&pair.first.directory, stderr);
    let service = Service { pair, process, _root: root };
    wait_until("the server listens", || TcpStream::connect(service.server().address()).is_ok());
    service
}

fn spawn(directory: &Path, stderr: Stdio) -> Child {
    let mut command = Command::new(program());
    command.arg("-c").arg(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    command.env("SOLID_USER", ADMINISTRATOR.0).env("SOLID_PASSWORD", ADMINISTRATOR.1);
    command.spawn().unwrap()
}

impl Service {
    fn server(&self) -> &Server {
        &self.pair.first
    }

    fn signal(&self, name: &str) {
        signal_process(self.process.id(), name);
    }

    fn end(&mut self) -> ExitStatus {
        wait_until("the process has ended", || self.process.try_wait().unwrap().is_some());
        self.process.wait().unwrap()
    }

    fn wait_for_message(&self, text: &str) {
        wait_until(&format!("the log says '{text}'"), || messages(self).contains(text));
    }
}

fn messages(service: &Service) -> String {
    fs::read_to_string(service.server().directory.join("solmsg.out")).unwrap_or_default()
}

/// Tries to log in at the console; returns when the server has refused.
fn refused_login(server: &Server, user: &str) {
    let mut client = TcpStream::connect(server.address()).unwrap();
    writeln!(client, "login {user} wrong").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("ERROR"), "{answer}");
}

/// Different messages of 300 bytes and more each: nothing to be folded.
fn refused_logins(server: &Server, count: usize) {
    (0..count).for_each(|number| refused_login(server, &format!("{number}{}", "\u{1}".repeat(56))));
}

#[test]
fn a_reader_of_stderr_that_has_stopped_holds_up_nobody() {
    let mut service = service("", Stdio::piped());
    let mut before = sql(service.server());
    // More than a pipe takes.
    refused_logins(service.server(), 400);
    for (command, state) in [
        ("hsb set primary alone", "PRIMARY ALONE"),
        ("hsb set standalone", "STANDALONE"),
        ("hsb set primary alone", "PRIMARY ALONE"),
    ] {
        service.server().expect(command).unwrap();
        assert_eq!(service.server().expect("hsb state").unwrap(), state);
    }
    before.batch_execute("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1)").unwrap();
    sql(service.server()).batch_execute("INSERT INTO t VALUES (2)").unwrap();
    service.wait_for_message("a console login as '399");
    // A reader that is gone for good.
    drop(service.process.stderr.take());
    refused_logins(service.server(), 1);
    service.wait_for_message("stderr cannot be written");
    sql(service.server()).batch_execute("INSERT INTO t VALUES (3)").unwrap();
    service.signal("-TERM");
    assert!(service.end().success());
    assert!(messages(&service).contains("the server has shut down"));
}

#[test]
fn a_server_whose_stderr_nobody_reads_ends_in_order() {
    let mut service = service("", Stdio::piped());
    refused_logins(service.server(), 400);
    service.signal("-TERM");
    assert!(service.end().success());
    let mut read = String::new();
    service.process.stderr.take().unwrap().read_to_string(&mut read).unwrap();
    assert!(read.contains("listening on") && read.contains("a console login as '0"), "{read}");
}

#[test]
fn every_signal_of_a_service_has_an_answer() {
    let mut service = service("", Stdio::null());
    let log = service.server().directory.join("solmsg.out");
    let aside = log.with_file_name("aside");
    fs::rename(&log, &aside).unwrap();
    service.signal("-HUP");
    service.wait_for_message("SIGHUP");
    assert!(!fs::read_to_string(&aside).unwrap().contains("SIGHUP"));
    for name in ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "XFSZ", "PIPE"] {
        service.signal(&format!("-{name}"));
        if name != "PIPE" {
            service.wait_for_message(&format!("SIG{name}: means nothing"));
        }
    }
    service.server().expect("hsb set primary alone").unwrap();
    // The end waits for this transaction, and a service manager sends its signal twice.
    let mut client = sql(service.server());
    client.batch_execute("CREATE TABLE t (a INTEGER); BEGIN; INSERT INTO t VALUES (1)").unwrap();
    service.signal("-TERM");
    service.wait_for_message("SIGTERM: shutting down");
    service.signal("-TERM");
    service.signal("-HUP");
    assert!(service.end().success());
    let text = messages(&service);
    assert!(text.contains("the server has shut down"), "{text}");
    // In order: it says so when it starts again.
    service.process = spawn(&service.pair.first.directory, Stdio::null());
    service.wait_for_message("30502: the server was PRIMARY ALONE: started");
    service.signal("-QUIT");
    assert_eq!(service.end().code(), Some(1));
    assert!(messages(&service).contains("ERROR SIGQUIT: stopping at once"));
}

#[test]
fn the_message_log_stays_within_its_limits() {
    let service = service("[Srv]\nMessageLogSize=8K\nMessageLogFiles=2", Stdio::null());
    let (server, directory) = (service.server(), &service.server().directory);
    let file = |name: &str| directory.join(name);
    refused_logins(server, 120);
    service.wait_for_message("a console login as '119");
    for name in ["solmsg.out", "solmsg.out.1", "solmsg.out.2"] {
        assert!(fs::metadata(file(name)).unwrap().len() <= 8 << 10, "{name}");
    }
    assert!(!file("solmsg.out.3").exists());
    // A running server takes other limits.
    server.expect("parameter Srv.MessageLogSize=0").unwrap();
    refused_logins(server, 60);
    service.wait_for_message("a console login as '59");
    assert!(fs::metadata(file("solmsg.out")).unwrap().len() > 8 << 10);
}

#[test]
fn health_checks_leave_nothing_behind_and_storms_are_folded() {
    let service = service("", Stdio::null());
    let server = service.server();
    service.wait_for_message("listening on");
    let before = messages(&service);
    for number in 0..300 {
        let client = TcpStream::connect(server.address()).unwrap();
        // Some checks end with a reset.
        if number % 2 == 0 {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    let count = || {
        let rows = server.console().unwrap().command("perfmon").unwrap();
        let row = rows.into_iter().find(|row| row.1.starts_with("Connections without a word")).unwrap();
        row.1.split_whitespace().nth(4).unwrap().parse::<u64>().unwrap()
    };
    // The helper that waits for the server makes one or more as well.
    wait_until("all are counted", || count() >= 300);
    assert_eq!(messages(&service), before);
    // Whoever says something senseless is a message, and many of them are few messages.
    for _ in 0..200 {
        let mut client = TcpStream::connect(server.address()).unwrap();
        client.write_all(&[1; 8]).unwrap();
        let _ = client.read_to_string(&mut String::new());
    }
    service.wait_for_message("was closed: ");
    let lines = || messages(&service).lines().count() - before.lines().count();
    assert!(lines() < 30, "{}", messages(&service));
}

#[test]
fn a_text_of_a_stranger_is_a_short_harmless_line() {
    let service = service("", Stdio::null());
    refused_login(service.server(), &format!("\u{1b}[2J\u{202e}{}", "x".repeat(60_000)));
    service.wait_for_message("a console login as '");
    let text = messages(&service);
    let line = text.lines().find(|line| line.contains("a console login as '")).unwrap();
    assert!(line.len() < 300 && line.contains("\\u{1b}[2J\\u{202e}xxx"), "{line}");
}

#[test]
fn a_port_that_cannot_be_had_is_said_as_that() {
    let taken = service("", Stdio::null());
    let port = taken.server().port;
    let refused = |listen: &str| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("solid.ini"), format!("[Com]\nListen={listen}\n")).unwrap();
        let output = spawn(directory.path(), Stdio::piped()).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{listen}");
        assert!(!directory.path().join("solid.db").exists());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(&format!("tcp {port}"));
    assert!(text.contains(&format!("127.0.0.1 port {port} (Com.Listen): another program has it")), "{text}");
    assert!(!text.contains("server was not found"), "{text}");
    let text = refused("tcp 203.0.113.7 1964");
    assert!(text.contains("this machine has no such address"), "{text}");
    for listen in ["tcp *", "tcp * 1964"] {
        let text = refused(listen);
        assert!(text.contains("write 'tcp 0.0.0.0 port'"), "{text}");
    }
}
