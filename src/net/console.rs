//! The TCP console: a text line in, `RC<TAB>TEXT` lines and a closing `OK` or `ERROR <code>` out.
//!
//! Runs on the caller's thread until the client leaves. Not here: what commands mean, who may give them. Invariants: a
//! line is bounded, so is the time without login; whatever the client sends, it gets a line that says what is wrong.

use crate::error::ServerError;
use crate::hsb::codes::Code;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A longer line ends the connection.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// A client that does not take its answer for so long is left.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a watching client is looked after.
const WATCH_TICK: Duration = Duration::from_millis(500);

/// Rows of an answer: RC and text.
pub type Rows = Vec<(u32, String)>;

/// The next event as one line, if there is one within the time; an error ends the watching.
pub type Watch = Box<dyn FnMut(Duration) -> Result<Option<String>, ServerError>>;

/// What the console needs from the server. `Login` is whatever `authenticate` wants `execute` to know.
pub struct ConsoleHandlers<'a, Login> {
    /// User and password.
    pub authenticate: &'a dyn Fn(&str, &str) -> Result<Login, ServerError>,
    /// One command.
    pub execute: &'a dyn Fn(&Login, &str) -> Rows,
    /// Events for `watch`: all, or those of one name.
    pub subscribe: &'a dyn Fn(&Login, &str) -> Result<Watch, ServerError>,
    /// How long the client may pause in the middle of a line; none: for ever.
    pub pause_limit: &'a dyn Fn() -> Option<Duration>,
    /// Counts the commands whose answers have not been sent yet.
    pub unanswered: &'a AtomicUsize,
}

/// Somebody whose answer has not been sent yet: as long as it lives, it counts.
pub struct Unanswered<'a>(&'a AtomicUsize);

impl<'a> Unanswered<'a> {
    /// Counts from now on.
    pub fn count(counter: &'a AtomicUsize) -> Unanswered<'a> {
        counter.fetch_add(1, Ordering::AcqRel);
        Unanswered(counter)
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Talks to a console client until it leaves or breaks the rules; it has to have logged in by the deadline.
pub fn serve<Login>(stream: &TcpStream, deadline: Instant, handlers: &ConsoleHandlers<'_, Login>) {
    // Without these options the console still works.
    let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let mut lines =
        Lines { stream, buffer: Vec::new(), deadline: Some(deadline), pause_limit: handlers.pause_limit };
    if let Err(Ended::Refused(problem)) = converse(&mut lines, handlers) {
        let error = ServerError::with(Code::INVALID_ARGUMENT, problem);
        let _ = send(stream, &answer(&[error.row()]));
    }
    close(stream);
}

/// Why a conversation is over.
enum Ended {
    /// The client is gone, or left in order.
    Left,
    /// The client did what is not allowed.
    Refused(String),
}

fn converse<Login>(lines: &mut Lines<'_>, handlers: &ConsoleHandlers<'_, Login>) -> Result<(), Ended> {
    let login = loop {
        let line = lines.next()?;
        let (word, rest) = first_word(&line);
        match word.to_ascii_lowercase().as_str() {
            "" => continue,
            "quit" | "exit" => return Ok(()),
            "login" => {}
            _ => return Err(Ended::Refused("The first line is: login <user> <password>.".to_owned())),
        }
        let (user, password) = first_word(rest);
        if user.is_empty() {
            return Err(Ended::Refused("The first line is: login <user> <password>.".to_owned()));
        }
        match (handlers.authenticate)(user, password) {
            Ok(login) => break login,
            Err(error) => {
                let _ = send(lines.stream, &answer(&[error.row()]));
                return Err(Ended::Left);
            }
        }
    };
    lines.deadline = None;
    send(lines.stream, "OK\n")?;
    loop {
        let line = lines.next()?;
        let (word, rest) = first_word(&line);
        match word.to_ascii_lowercase().as_str() {
            "" => {}
            "quit" | "exit" if rest.is_empty() => return Ok(()),
            "watch" => match (handlers.subscribe)(&login, rest.trim()) {
                Ok(events) => return watch(lines.stream, events),
                Err(error) => send(lines.stream, &answer(&[error.row()]))?,
            },
            _ => {
                let _unanswered = Unanswered::count(handlers.unanswered);
                send(lines.stream, &answer(&(handlers.execute)(&login, line.trim())))?;
            }
        }
    }
}

/// Streams events until the client closes.
fn watch(stream: &TcpStream, mut events: Watch) -> Result<(), Ended> {
    loop {
        match events(WATCH_TICK) {
            Ok(Some(event)) => send(stream, &format!("{event}\n"))?,
            Err(error) => return send(stream, &answer(&[error.row()])),
            Ok(None) => {
                if stream.set_read_timeout(Some(Duration::from_millis(1))).is_err() {
                    return Err(Ended::Left);
                }
                // What the client sends while watching means nothing; only its leaving does.
                match (&*stream).read(&mut [0; 4096]) {
                    Ok(0) => return Err(Ended::Left),
                    Err(error) if !is_timeout(&error) => return Err(Ended::Left),
                    _ => {}
                }
            }
        }
    }
}

struct Lines<'a> {
    stream: &'a TcpStream,
    buffer: Vec<u8>,
    deadline: Option<Instant>,
    pause_limit: &'a dyn Fn() -> Option<Duration>,
}

impl Lines<'_> {
    /// The next line, without its end.
    fn next(&mut self) -> Result<String, Ended> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=searched + end).collect();
                line.pop();
                line.pop_if(|byte| *byte == b'\r');
                return match String::from_utf8(line) {
                    Ok(line) if line.len() <= MAX_LINE_BYTES => Ok(line),
                    Ok(_) => Err(too_long()),
                    Err(_) => Err(Ended::Refused("The line is not UTF-8 text.".to_owned())),
                };
            }
            searched = self.buffer.len();
            if searched > MAX_LINE_BYTES + 1 {
                return Err(too_long());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), Ended> {
        let timeout = match self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Err(no_login()),
            None if !self.buffer.is_empty() => (self.pause_limit)(),
            other => other,
        };
        self.stream.set_read_timeout(timeout).map_err(|_| Ended::Left)?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Ended::Left),
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if is_timeout(&error) && self.deadline.is_some() => Err(no_login()),
            Err(error) if is_timeout(&error) => {
                Err(Ended::Refused("The rest of the line did not come in time (Com.ReadTimeout).".to_owned()))
            }
            Err(_) => Err(Ended::Left),
        }
    }
}

fn too_long() -> Ended {
    Ended::Refused(format!("The line is longer than {MAX_LINE_BYTES} bytes."))
}

fn no_login() -> Ended {
    Ended::Refused("No login came in time; the first line is: login <user> <password>.".to_owned())
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The first word and what follows it, without the blanks between.
fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

/// The lines of an answer.
pub fn answer(rows: &[(u32, String)]) -> String {
    let mut text = String::new();
    for (code, row) in rows {
        for line in row.trim_end_matches('\n').split('\n') {
            text.push_str(&format!("{code}\t{}\n", line.trim_end_matches('\r')));
        }
    }
    let failed = |code: &&u32| !Code::find(**code).is_some_and(Code::is_success);
    match rows.iter().map(|row| &row.0).find(failed) {
        Some(code) => text.push_str(&format!("ERROR {code}\n")),
        None => text.push_str("OK\n"),
    }
    text
}

fn send(mut stream: &TcpStream, text: &str) -> Result<(), Ended> {
    stream.write_all(text.as_bytes()).map_err(|_| Ended::Left)
}

/// Closes so that the last answer arrives: closing with unread input would reset the connection and may destroy it.
pub(super) fn close(stream: &TcpStream) {
    const PATIENCE: Duration = Duration::from_secs(1);
    const MOST_CHUNKS: usize = 256;
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let deadline = Instant::now() + PATIENCE;
    let mut chunk = [0; 4096];
    for _ in 0..MOST_CHUNKS {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        if !matches!((&*stream).read(&mut chunk), Ok(length) if length > 0) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

    fn converse_with(input: &[u8], login_timeout: Duration, close_after: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let thread = std::thread::spawn(move || {
            let authenticate = |user: &str, password: &str| match (user, password) {
                ("admin", "pass word") => Ok(user.to_owned()),
                _ => Err(ServerError::sql("28P01", "password authentication failed")),
            };
            let unanswered = &AtomicUsize::new(0);
            let execute = |login: &String, command: &str| match command {
                "unanswered" => vec![(0, unanswered.load(Ordering::Acquire).to_string())],
                "hsb state" => vec![(0, "PRIMARY ACTIVE".to_owned())],
                "hsb status copy" => vec![(14003, "ACTIVE".to_owned())],
                "two" => vec![(0, "a\nb\n".to_owned()), (14527, String::new()), (14526, "x".to_owned())],
                other => vec![(14526, format!("{login}: no {other}"))],
            };
            let subscribe = |_: &String, name: &str| -> Result<Watch, ServerError> {
                let mut events = vec![Ok(Some(format!("PRIMARY ALONE{name}")))];
                Ok(Box::new(move |_| events.pop().unwrap_or_else(|| Err(ServerError::new(Code::SHUTDOWN)))))
            };
            let (authenticate, execute, subscribe) = (&authenticate, &execute, &subscribe);
            let pause_limit = &|| Some(Duration::from_millis(50));
            let handlers = ConsoleHandlers { authenticate, execute, subscribe, pause_limit, unanswered };
            serve(&server, Instant::now() + login_timeout, &handlers);
            assert_eq!(unanswered.load(Ordering::Acquire), 0);
        });
        client.write_all(input).unwrap();
        if close_after {
            client.shutdown(Shutdown::Write).unwrap();
        }
        let mut output = String::new();
        client.read_to_string(&mut output).unwrap();
        thread.join().unwrap();
        output
    }

    fn talk(input: &[u8]) -> String {
        converse_with(input, LOGIN_TIMEOUT, true)
    }

    #[test]
    fn commands_are_answered_one_after_another() {
        let input =
            b"\r\nLOGIN admin pass word\r\nhsb state\n\nhsb status copy\r\n two \nwhat\nquit\nhsb state\n";
        let expected = "OK\n0\tPRIMARY ACTIVE\nOK\n14003\tACTIVE\nOK\n0\ta\n0\tb\n14527\t\n14526\tx\nERROR 14527\n\
                        14526\tadmin: no what\nERROR 14526\n";
        assert_eq!(talk(input), expected);
        let watched = talk(b"login admin pass word\nwatch  X\n");
        assert!(
            watched.starts_with("OK\nPRIMARY ALONEX\n13068\t") && watched.ends_with("ERROR 13068\n"),
            "{watched}"
        );
    }

    /// The end of a server waits for it: the answer to `shutdown` is not to be lost.
    #[test]
    fn a_command_counts_until_it_is_answered() {
        let output = talk(b"login admin pass word\nunanswered\nunanswered\n");
        assert_eq!(output, "OK\n0\t1\nOK\n0\t1\nOK\n");
    }

    #[test]
    fn a_wrong_login_is_one_error_and_the_end() {
        assert_eq!(
            talk(b"login admin wrong\nhsb state\n"),
            "14501\tpassword authentication failed\nERROR 14501\n"
        );
        for input in [&b"hsb state\n"[..], b"login\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let output = talk(input);
            assert!(
                output.contains("login <user> <password>") && output.ends_with("ERROR 14526\n"),
                "{output}"
            );
        }
    }

    #[test]
    fn silence_before_the_login_ends_in_time() {
        let output = converse_with(b"log", Duration::from_millis(50), false);
        assert!(output.contains("No login came in time"), "{output}");
    }

    #[test]
    fn a_pause_in_a_line_ends_in_time() {
        let output = converse_with(b"login admin pass word\nhsb st", LOGIN_TIMEOUT, false);
        assert!(output.contains("(Com.ReadTimeout)") && output.ends_with("ERROR 14526\n"), "{output}");
    }

    #[test]
    fn broken_lines_are_refused_with_a_reason() {
        let output = talk(b"login admin pass word\n\xff\xfe\n");
        assert!(output.contains("not UTF-8") && output.ends_with("ERROR 14526\n"), "{output}");
        let output = talk(&vec![b'x'; 300_000]);
        assert!(output.contains("longer than 65536 bytes"), "{output}");
        let mut long = vec![b'x'; MAX_LINE_BYTES + 1];
        long.push(b'\n');
        assert!(talk(&long).contains("longer than 65536 bytes"));
        assert_eq!(talk(b""), "");
        assert_eq!(talk(b"login admin pass word"), "");
    }
}
