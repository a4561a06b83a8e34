//! The lines of a console: text lines in, `RC<TAB>TEXT` lines and a closing `OK` or `ERROR <code>` out.
//!
//! Not here: what is said in them (`actors::admin_handler::console`). Invariants: a line is bounded, so is the time for it.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crate::config::Parameters;
use crate::hsb::codes::Code;
use crate::stream::{Stream, is_timeout};

/// A longer line ends the connection.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// A client that does not take its answer for so long is left.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last answer waits for its reader.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a conversation is over.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// The client is gone, or left in order.
    Left,
    /// The deadline is over.
    Late,
    /// The client did what is not allowed: why.
    Refused(String),
}

/// A client's connection, line by line.
pub struct Lines<'a> {
    stream: &'a Stream,
    buffer: Vec<u8>,
    deadline: Option<Instant>,
    parameters: &'a Parameters,
}

impl<'a> Lines<'a> {
    /// Of a client from whom whole lines are wanted until the deadline, and none is waited for afterwards; then the client
    /// may take its time between lines, and pause in the middle of one for Com.ReadTimeout at most.
    pub fn new(stream: &'a Stream, deadline: Instant, parameters: &'a Parameters) -> Lines<'a> {
        // Without this option the console still works.
        let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
        Lines { stream, buffer: Vec::new(), deadline: Some(deadline), parameters }
    }

    /// From now on the client may take its time.
    pub fn end_deadline(&mut self) {
        self.deadline = None;
    }

    /// Sends one line.
    pub fn send(&mut self, line: &str) -> Result<(), Ended> {
        self.write(&format!("{line}\n"))
    }

    /// Sends the rows of an answer and how it ends.
    pub fn answer(&mut self, rows: &[(u32, String)]) -> Result<(), Ended> {
        self.write(&answer(rows))
    }

    fn write(&mut self, text: &str) -> Result<(), Ended> {
        self.stream.write_all(text.as_bytes()).map_err(|_| Ended::Left)
    }

    /// Whether the client is still there. Whatever it has sent is thrown away.
    pub fn skip(&mut self) -> Result<(), Ended> {
        self.stream.set_read_timeout(Some(Duration::from_millis(1))).map_err(|_| Ended::Left)?;
        match self.stream.read(&mut [0; 4096]) {
            Ok(0) => Err(Ended::Left),
            Err(error) if !is_timeout(&error) => Err(Ended::Left),
            _ => Ok(()),
        }
    }

    /// Ends the connection; what was sent arrives.
    pub fn close(self) {
        self.stream.end_gently(GOODBYE);
    }

    /// The next line, without its end.
    pub fn next_line(&mut self) -> Result<String, Ended> {
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
            Some(Duration::ZERO) => return Err(Ended::Late),
            None if !self.buffer.is_empty() => self.parameters.client_read_timeout(),
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
            Err(error) if is_timeout(&error) && self.deadline.is_some() => Err(Ended::Late),
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

/// The lines of an answer.
fn answer(rows: &[(u32, String)]) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_the_first_code_that_is_no_success() {
        let rows = |rows: &[(u32, &str)]| {
            rows.iter().map(|(code, text)| (*code, (*text).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(answer(&[]), "OK\n");
        assert_eq!(answer(&rows(&[(0, "a\r\nb\n"), (14003, "ACTIVE")])), "0\ta\n0\tb\n14003\tACTIVE\nOK\n");
        assert_eq!(
            answer(&rows(&[(14003, ""), (14527, "x"), (14526, "y")])),
            "14003\t\n14527\tx\n14526\ty\nERROR 14527\n"
        );
    }
}
