//! A client of the TCP console: commands in, rows of RC and TEXT out.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::ServerError;
use crate::hsb::codes::Code;

/// A logged-in console connection.
pub struct ConsoleClient {
    reader: BufReader<TcpStream>,
}

impl ConsoleClient {
    /// Connects and logs in; `timeout` holds for connecting and for every answer.
    pub fn connect(
        address: SocketAddr,
        user: &str,
        password: &str,
        timeout: Duration,
    ) -> Result<ConsoleClient, ServerError> {
        let stream = TcpStream::connect_timeout(&address, timeout)
            .map_err(|error| ServerError::with(Code::SERVER_NOT_FOUND, format!("({address}: {error})")))?;
        stream
            .set_read_timeout(Some(timeout))
            .and_then(|()| stream.set_nodelay(true))
            .map_err(|error| lost(&error))?;
        let mut client = ConsoleClient { reader: BufReader::new(stream) };
        let rows = client.command(&format!("login {user} {password}"))?;
        match rows.into_iter().find(|(code, _)| *code != 0) {
            None => Ok(client),
            Some((code, text)) => {
                Err(ServerError { code: Code::find(code), sqlstate: "28P01", message: text })
            }
        }
    }

    /// Gives a command and returns the rows of its answer.
    pub fn command(&mut self, text: &str) -> Result<Vec<(u32, String)>, ServerError> {
        self.reader.get_mut().write_all(format!("{text}\n").as_bytes()).map_err(|error| lost(&error))?;
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

    /// The first row of a command's answer.
    pub fn ask(&mut self, text: &str) -> Result<(u32, String), ServerError> {
        let rows = self.command(text)?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }
}

fn lost(error: &std::io::Error) -> ServerError {
    ServerError::with(Code::CONNECTION_IS_BROKEN, format!("({error})"))
}
