//! A client of the TCP console: commands in, rows of RC and TEXT out; or events, one line each.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::TcpKeepalive;

use super::credentials::Credentials;
use crate::config::ConnectString;
use crate::error::{ServerError, invalid};
use crate::hsb::codes::Code;
use crate::stream::{Stream, is_timeout};

/// Silence of a server's host after which the system begins to ask whether it is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);

/// A logged-in console connection.
pub struct ConsoleClient {
    reader: BufReader<Stream>,
}

impl ConsoleClient {
    /// Connects to what a connect string names and logs in. `timeout` holds for connecting and for every answer,
    /// unless the string has its own -c and -r.
    pub fn open(
        server: &ConnectString,
        credentials: &Credentials,
        timeout: Duration,
    ) -> Result<ConsoleClient, ServerError> {
        let not_found = |error: std::io::Error| not_found(server, &error);
        let address = (server.host.as_str(), server.port);
        let stream = Stream::connect(address, server.connect_timeout_or(Some(timeout))).map_err(not_found)?;
        ConsoleClient::log_in(
            stream,
            &credentials.user,
            &credentials.password,
            server.read_timeout_or(Some(timeout)),
        )
    }

    /// Connects and logs in; `timeout` holds for connecting and for every answer.
    pub fn connect(
        address: SocketAddr,
        user: &str,
        password: &str,
        timeout: Duration,
    ) -> Result<ConsoleClient, ServerError> {
        let stream = Stream::connect(address, Some(timeout)).map_err(|error| not_found(&address, &error))?;
        ConsoleClient::log_in(stream, user, password, Some(timeout))
    }

    fn log_in(
        stream: Stream,
        user: &str,
        password: &str,
        read_timeout: Option<Duration>,
    ) -> Result<ConsoleClient, ServerError> {
        // The console is a protocol of lines: nothing that a file or a variable holds may become a second one.
        if user.is_empty() || user.contains(char::is_whitespace) || password.contains(['\n', '\r']) {
            return Err(invalid("A user is one word, a password one line."));
        }
        let mut client = ConsoleClient { reader: BufReader::new(stream) };
        client.set_patience(read_timeout)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_AFTER / 3);
        client.reader.get_ref().prepare(&keepalive).map_err(|error| lost(&error))?;
        let rows = client.command(&format!("login {user} {password}"))?;
        match rows.into_iter().find(|(code, _)| *code != 0) {
            None => Ok(client),
            Some((code, text)) => Err(ServerError::heard(Code::find(code), "28P01", text)),
        }
    }

    /// How long the next answers may take; none: for ever.
    pub fn set_patience(&self, timeout: Option<Duration>) -> Result<(), ServerError> {
        self.reader.get_ref().set_read_timeout(timeout).map_err(|error| lost(&error))
    }

    /// Gives a command and returns the rows of its answer.
    pub fn command(&mut self, text: &str) -> Result<Vec<(u32, String)>, ServerError> {
        self.send(text)?;
        self.answer()
    }

    /// Gives several commands at once and returns the first row of each answer: one round trip.
    pub fn ask_all<const N: usize>(
        &mut self,
        commands: [&str; N],
    ) -> Result<[(u32, String); N], ServerError> {
        self.send(&commands.join("\n"))?;
        let mut rows = [const { (0, String::new()) }; N];
        for row in &mut rows {
            *row = self.answer()?.into_iter().next().unwrap_or_default();
        }
        Ok(rows)
    }

    /// The first row of a command's answer.
    pub fn ask(&mut self, text: &str) -> Result<(u32, String), ServerError> {
        let rows = self.command(text)?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Gives the command `watch` with or without the name of an event: events from now on, one line each, until the
    /// connection ends.
    pub fn watch(mut self, command: &str) -> Result<impl Iterator<Item = String>, ServerError> {
        self.send(command)?;
        self.set_patience(None)?;
        // A refusal is an answer as to any command: rows and a closing line.
        Ok(self.reader.lines().map_while(Result::ok).take_while(|line| !line.starts_with("ERROR ")))
    }

    fn send(&mut self, text: &str) -> Result<(), ServerError> {
        self.reader.get_mut().write_all(format!("{text}\n").as_bytes()).map_err(|error| lost(&error))
    }

    fn answer(&mut self) -> Result<Vec<(u32, String)>, ServerError> {
        let mut rows = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).map_err(|error| lost(&error))? == 0 {
                return Err(ServerError::new(Code::CONNECTION_IS_BROKEN));
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if line == "OK" || line.starts_with("ERROR ") {
                return Ok(rows);
            }
            let (code, text) = line.split_once('\t').unwrap_or(("0", line));
            rows.push((code.parse().unwrap_or(Code::OPERATION_FAILED.number()), text.to_string()));
        }
    }
}

fn not_found(address: &dyn std::fmt::Display, error: &std::io::Error) -> ServerError {
    ServerError::with(Code::SERVER_NOT_FOUND, format!("({address}: {error})"))
}

fn lost(error: &std::io::Error) -> ServerError {
    match is_timeout(error) {
        true => ServerError::with(Code::TIMED_OUT, "(no answer of the server in time)"),
        false => ServerError::with(Code::CONNECTION_IS_BROKEN, format!("({error})")),
    }
}
