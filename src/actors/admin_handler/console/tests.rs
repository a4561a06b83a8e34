//! Conversations with a console, over a socket: a database with users, and a few commands that are made up.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::*;
use crate::config::Parameters;
use crate::net::console::MAX_LINE_BYTES;
use crate::services::context::AdminPort;
use crate::services::events::STATE_SWITCH;
use crate::services::status::NodeStatus;
use crate::sql::users::Verifier;
use crate::storage::database::Database;
use crate::storage::writer::Writer;

const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

struct Stage {
    context: Arc<NodeContext>,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let database = Arc::new(Database::at(directory.path().join("solid.db"), 1 << 20));
        let verifier = Verifier::derive("pass word", b"salt", 1);
        let add = |connection: &rusqlite::Connection| {
            users::insert(connection, "admin", Role::Admin, &verifier)?;
            users::insert(connection, "operator", Role::Console, &verifier)?;
            users::insert(connection, "reader", Role::ReadOnly, &verifier)
        };
        database.create(4096, add).unwrap();
        let ini = "[Com]\nListen=tcp -r50 1964\n";
        let parameters = Arc::new(Parameters::from_text(Path::new("/nowhere"), ini).unwrap().0);
        let context = Arc::new_cyclic(|context: &Weak<NodeContext>| {
            let context = Weak::clone(context);
            let waiting = move || context.upgrade().unwrap().unanswered.load(Ordering::Acquire);
            let admin = AdminPort::new(move |user, rights, text| match text {
                "unanswered" => vec![(0, waiting().to_string())],
                "hsb status copy" => vec![(14003, "ACTIVE".to_owned())],
                "two" => vec![(0, "a\nb\n".to_owned()), (14527, String::new()), (14526, "x".to_owned())],
                other => vec![(14526, format!("{user}, {rights:?}: no {other}"))],
            });
            let status = NodeStatus::plain(parameters.settings());
            let writer =
                Writer::new(Arc::clone(&database), Arc::clone(&parameters), Arc::default(), Box::new(|_| {}));
            NodeContext::new(parameters, status, writer, database, Arc::default(), admin)
        });
        Stage { context, _directory: directory }
    }

    /// A client and the thread that serves it.
    fn client(&self, login_timeout: Duration) -> (TcpStream, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        let context = Arc::clone(&self.context);
        let thread = std::thread::spawn(move || serve(Guest::alone(served, login_timeout), &context));
        (client, thread)
    }

    fn converse(&self, input: &[u8], login_timeout: Duration, close_after: bool) -> String {
        let (mut client, thread) = self.client(login_timeout);
        client.write_all(input).unwrap();
        if close_after {
            client.shutdown(Shutdown::Write).unwrap();
        }
        let mut output = String::new();
        client.read_to_string(&mut output).unwrap();
        thread.join().unwrap();
        assert_eq!(self.context.unanswered.load(Ordering::Acquire), 0);
        output
    }

    fn talk(&self, input: &[u8]) -> String {
        self.converse(input, LOGIN_TIMEOUT, true)
    }

    fn change_role(&self, user: &str, role: &str) {
        let connection = self.context.database.open_writer().unwrap();
        connection.execute("UPDATE _hsb_users SET role = ?2 WHERE name = ?1", [user, role]).unwrap();
        self.context.database.schema_changed();
    }
}

fn read_until(client: &mut TcpStream, wanted: &str) -> String {
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = String::new();
    while !text.ends_with(wanted) {
        let mut chunk = [0; 4096];
        let length = client.read(&mut chunk).unwrap();
        assert!(length > 0, "'{wanted}' does not come: {text}");
        text.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
    text
}

#[test]
fn commands_are_answered_one_after_another() {
    let stage = Stage::new();
    let input =
        b"\r\nLOGIN admin pass word\r\nhsb state\n\nhsb status copy\r\n two \nwhat\nquit\nhsb state\n";
    let expected = "OK\n14526\tadmin, Administrator: no hsb state\nERROR 14526\n14003\tACTIVE\nOK\n0\ta\n0\tb\n14527\t\n\
                    14526\tx\nERROR 14527\n14526\tadmin, Administrator: no what\nERROR 14526\n";
    assert_eq!(stage.talk(input), expected);
}

/// The end of a server waits for it: the answer to `shutdown` is not to be lost.
#[test]
fn a_command_counts_until_it_is_answered() {
    let output = Stage::new().talk(b"login admin pass word\nunanswered\nunanswered\n");
    assert_eq!(output, "OK\n0\t1\nOK\n0\t1\nOK\n");
}

#[test]
fn a_wrong_login_is_one_error_and_the_end() {
    let stage = Stage::new();
    for (input, refused) in [
        (&b"login admin wrong\nhsb state\n"[..], "14501\tpassword authentication failed"),
        (b"login nobody pass word\nhsb state\n", "14501\tpassword authentication failed"),
        (
            b"login reader pass word\nhsb state\n",
            "14501\tThe console needs SYS_ADMIN_ROLE or SYS_CONSOLE_ROLE",
        ),
    ] {
        let output = stage.talk(input);
        assert!(output.starts_with(refused) && output.lines().count() == 2, "{output}");
    }
    for input in [&b"hsb state\n"[..], b"login\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let output = stage.talk(input);
        assert!(output.contains("login <user> <password>") && output.ends_with("ERROR 14526\n"), "{output}");
    }
    stage.context.status.publish(&crate::hsb::heart::Heart::new(
        State::Offline,
        stage.context.parameters.settings(),
        [0; 16],
        Default::default(),
        Default::default(),
    ));
    assert!(stage.talk(b"login admin pass word\n").contains("ERROR"));
}

#[test]
fn rights_are_those_of_this_moment() {
    let stage = Stage::new();
    let (mut client, thread) = stage.client(LOGIN_TIMEOUT);
    client.write_all(b"login operator pass word\nwhat\n").unwrap();
    assert!(read_until(&mut client, "ERROR 14526\n").contains("operator, Console: no what"));
    stage.change_role("operator", "ADMIN");
    client.write_all(b"what\n").unwrap();
    assert!(read_until(&mut client, "ERROR 14526\n").contains("operator, Administrator: no what"));
    stage.change_role("operator", "READONLY");
    client.write_all(b"what\n").unwrap();
    assert!(read_until(&mut client, "\n").contains("an administrator can GRANT one"));
    drop(client);
    thread.join().unwrap();
}

#[test]
fn events_are_heard_as_long_as_the_user_may_be_there() {
    let stage = Stage::new();
    let refused = stage.talk(b"login admin pass word\nwatch nonsense\n");
    assert!(refused.contains("No event is called 'nonsense'"), "{refused}");
    let (mut client, thread) = stage.client(LOGIN_TIMEOUT);
    client
        .write_all(format!("login operator pass word\nwatch {}\n", STATE_SWITCH.to_lowercase()).as_bytes())
        .unwrap();
    read_until(&mut client, "OK\n");
    // It may take a moment until the client is subscribed.
    let (events, ended) = (Arc::clone(&stage.context.events), Arc::new(AtomicUsize::new(0)));
    let ends = Arc::clone(&ended);
    let posts = std::thread::spawn(move || {
        while ends.load(Ordering::Acquire) == 0 {
            events.post("SYS_EVENT_HSBCONNECTSTATUS", "CONNECTED");
            events.post(STATE_SWITCH, "PRIMARY ALONE");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let heard = read_until(&mut client, "PRIMARY ALONE\n");
    assert!(heard.contains(STATE_SWITCH) && !heard.contains("CONNECTED"), "{heard}");
    stage.change_role("operator", "READONLY");
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("an administrator can GRANT one") && rest.contains("ERROR"), "{rest}");
    ended.store(1, Ordering::Release);
    posts.join().unwrap();
    thread.join().unwrap();
}

#[test]
fn silence_before_the_login_ends_in_time() {
    let output = Stage::new().converse(b"log", Duration::from_millis(50), false);
    assert!(output.contains("No login came in time"), "{output}");
}

#[test]
fn a_pause_in_a_line_ends_in_time() {
    let output = Stage::new().converse(b"login admin pass word\nhsb st", LOGIN_TIMEOUT, false);
    assert!(output.contains("(Com.ReadTimeout)") && output.ends_with("ERROR 14526\n"), "{output}");
}

#[test]
fn broken_lines_are_refused_with_a_reason() {
    let stage = Stage::new();
    let output = stage.talk(b"login admin pass word\n\xff\xfe\n");
    assert!(output.contains("not UTF-8") && output.ends_with("ERROR 14526\n"), "{output}");
    let output = stage.talk(&vec![b'x'; 300_000]);
    assert!(output.contains("longer than 65536 bytes"), "{output}");
    let mut long = vec![b'x'; MAX_LINE_BYTES + 1];
    long.push(b'\n');
    assert!(stage.talk(&long).contains("longer than 65536 bytes"));
    assert_eq!(stage.talk(b""), "");
    assert_eq!(stage.talk(b"login admin pass word"), "");
}
