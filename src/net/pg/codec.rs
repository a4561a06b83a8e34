//! Reading and writing messages of the PostgreSQL v3 protocol; knows no SQL.
//!
//! Output is appended to one `Vec<u8>` and written when the client waits for it. Input is read into one buffer and
//! handed out in place. A message longer than the limit in force is refused before it is read.

use std::io::{PipeReader, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Parameters;
use crate::error::ServerError;
use crate::pgtypes::append_i64;
use crate::stream::{Stream, Woken, is_timeout};

/// Longest message of a client that has not logged in.
pub const MAX_UNAUTHENTICATED_MESSAGE_BYTES: usize = 64 << 10;
/// A bigger input buffer is given back once it is empty.
const KEPT_INPUT_BYTES: usize = 1 << 20;

/// Which result columns the client wants in binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Formats {
    /// All in text.
    #[default]
    Text,
    /// All in binary.
    Binary,
    /// One by one.
    Each(Vec<bool>),
}

impl Formats {
    /// From the codes of a Bind message.
    pub fn from_codes(codes: &[i16]) -> Formats {
        match codes {
            [] | [0] => Formats::Text,
            [_] => Formats::Binary,
            many => Formats::Each(many.iter().map(|code| *code != 0).collect()),
        }
    }

    /// True if this column goes out in binary.
    pub fn is_binary(&self, column: usize) -> bool {
        match self {
            Formats::Text => false,
            Formats::Binary => true,
            Formats::Each(each) => each.get(column).copied().unwrap_or(false),
        }
    }
}

/// Why there is no next message.
#[derive(Debug)]
pub enum ReadProblem {
    /// The connection ended or failed.
    Closed,
    /// Nothing came in time.
    TimedOut,
    /// The client stopped in the middle of a message for too long.
    Paused,
    /// The message is not one, or too long.
    Protocol(String),
}

/// The client's side of the connection.
pub struct MessageReader {
    stream: Arc<Stream>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Limit in force.
    pub max_message_bytes: usize,
    deadline: Option<Instant>,
    /// How long the client may pause in the middle of a message.
    parameters: Arc<Parameters>,
}

impl MessageReader {
    /// Reads from `stream`.
    pub fn new(stream: Arc<Stream>, parameters: Arc<Parameters>) -> MessageReader {
        let (buffer, max_message_bytes) = (vec![0; 8192], MAX_UNAUTHENTICATED_MESSAGE_BYTES);
        MessageReader { stream, buffer, start: 0, end: 0, max_message_bytes, deadline: None, parameters }
    }

    /// The time up to which reads may last.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
        if deadline.is_none() {
            let _ = self.stream.set_read_timeout(None);
        }
    }

    /// The bytes of a message handed out by [`MessageReader::next_message`].
    pub fn body(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or(&[])
    }

    /// Whether a Sync has arrived behind the message handed out last, all of it.
    pub fn sync_is_next(&self) -> bool {
        self.buffer[self.start..self.end].starts_with(b"S\0\0\0\x04")
    }

    /// True if bytes wait in the buffer.
    pub fn has_input(&self) -> bool {
        self.start < self.end
    }

    /// Waits for the first bytes of a message, for the pulse, or for the time to be over; takes nothing.
    pub fn wait(&self, pulse: Option<&PipeReader>, deadline: Option<Instant>) -> Woken {
        self.stream.wait(pulse, deadline)
    }

    /// Reads the next message: its type and where its body stands.
    pub fn next_message(&mut self) -> Result<(u8, Range<usize>), ReadProblem> {
        let head = self.wait_for(5)?;
        let kind = self.buffer[head];
        let length = self.length_at(head + 1)?;
        let start = self.wait_for(1 + length)?;
        self.start = start + 1 + length;
        Ok((kind, start + 5..start + 1 + length))
    }

    /// Reads the next message of the start-up, which has no type.
    pub fn next_start_up(&mut self, max_bytes: usize) -> Result<Range<usize>, ReadProblem> {
        let head = self.wait_for(4)?;
        let length = self.length_at(head)?;
        if length > max_bytes || length < 8 {
            return Err(ReadProblem::Protocol(format!("invalid length of start-up packet: {length} bytes")));
        }
        let start = self.wait_for(length)?;
        self.start = start + length;
        Ok(start + 4..start + length)
    }

    fn length_at(&self, at: usize) -> Result<usize, ReadProblem> {
        let length =
            self.buffer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_be_bytes);
        match usize::try_from(length) {
            Ok(length) if length >= 4 && length <= self.max_message_bytes => Ok(length),
            _ => Err(ReadProblem::Protocol(format!(
                "invalid message length: {length} bytes, allowed are 4 to {}",
                self.max_message_bytes
            ))),
        }
    }

    /// Reads until `wanted` bytes are there; tells where they start.
    fn wait_for(&mut self, wanted: usize) -> Result<usize, ReadProblem> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.buffer.len() > KEPT_INPUT_BYTES {
                self.buffer = vec![0; 8192];
            }
        }
        while self.end - self.start < wanted {
            if self.start > 0 && self.start + wanted > self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.end == self.buffer.len() {
                // Grows with what arrives, not with what is announced.
                let grown = (self.buffer.len() * 2).min(self.start + wanted.max(8192)).max(self.end + 1);
                self.buffer.resize(grown, 0);
            }
            let read = self.read_some()?;
            self.end += read;
        }
        Ok(self.start)
    }

    fn read_some(&mut self) -> Result<usize, ReadProblem> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(ReadProblem::TimedOut);
        }
        let pause = if self.has_input() { self.parameters.client_read_timeout() } else { None };
        let limit = [left, pause].into_iter().flatten().min();
        if limit.is_some() {
            let _ = self.stream.set_read_timeout(limit.map(|limit| limit.max(Duration::from_millis(1))));
        }
        let late =
            if pause.is_some() && pause == limit { ReadProblem::Paused } else { ReadProblem::TimedOut };
        let read = loop {
            match (&*self.stream).read(&mut self.buffer[self.end..]) {
                Ok(0) => break Err(ReadProblem::Closed),
                Ok(count) => break Ok(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    break Err(if is_timeout(&error) { late } else { ReadProblem::Closed });
                }
            }
        };
        if pause.is_some() && left.is_none() {
            let _ = self.stream.set_read_timeout(None);
        }
        read
    }
}

/// Takes fields out of a message body.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts at the first byte.
    pub fn new(body: &'a [u8]) -> Fields<'a> {
        Fields { rest: body }
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], ServerError> {
        if count > self.rest.len() {
            return Err(malformed());
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    /// A string ended by a zero byte.
    pub fn text(&mut self) -> Result<&'a str, ServerError> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
        let bytes = self.bytes(end + 1)?;
        std::str::from_utf8(&bytes[..end]).map_err(|_| ServerError::sql("22021", "text is not valid UTF-8"))
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, ServerError> {
        Ok(self.bytes(1)?[0])
    }

    /// A count of two bytes.
    pub fn count(&mut self) -> Result<usize, ServerError> {
        self.i16().map(|count| usize::from(count as u16))
    }

    /// Two bytes.
    pub fn i16(&mut self) -> Result<i16, ServerError> {
        let bytes = self.bytes(2)?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Four bytes.
    pub fn i32(&mut self) -> Result<i32, ServerError> {
        let bytes = self.bytes(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// The client stopped in the middle of a message.
pub fn paused() -> ServerError {
    ServerError::sql("08006", "the rest of the message did not come in time (Com.ReadTimeout)")
}

/// The client sent something that does not follow the protocol.
pub fn malformed() -> ServerError {
    ServerError::sql("08P01", "the message is malformed")
}

/// Starts a message; [`finish`] fills in its length.
pub fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    start
}

/// Ends a message begun at `start`.
pub fn finish(out: &mut [u8], start: usize) {
    let length = (out.len() - start - 1) as u32;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
}

/// A message without a body.
pub fn empty_message(out: &mut Vec<u8>, kind: u8) {
    out.extend_from_slice(&[kind, 0, 0, 0, 4]);
}

/// A string and its zero byte; inner zero bytes cannot be sent and end it.
pub fn text(out: &mut Vec<u8>, text: &str) {
    let end = text.find('\0').unwrap_or(text.len());
    out.extend_from_slice(&text.as_bytes()[..end]);
    out.push(0);
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    let start = begin(out, b'S');
    text(out, name);
    text(out, value);
    finish(out, start);
}

/// CommandComplete.
pub fn command_complete(out: &mut Vec<u8>, tag: &str, count: Option<u64>) {
    let start = begin(out, b'C');
    out.extend_from_slice(tag.as_bytes());
    if let Some(count) = count {
        if tag == "INSERT" {
            out.extend_from_slice(b" 0");
        }
        out.push(b' ');
        append_i64(out, count.cast_signed());
    }
    out.push(0);
    finish(out, start);
}

/// NotificationResponse, as from the process of this server.
pub fn notification(out: &mut Vec<u8>, channel: &str, payload: &str) {
    let start = begin(out, b'A');
    out.extend_from_slice(&std::process::id().to_be_bytes());
    text(out, channel);
    text(out, payload);
    finish(out, start);
}

/// ReadyForQuery.
pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status]);
}

/// ErrorResponse; `severity` is ERROR or FATAL.
pub fn error_response(out: &mut Vec<u8>, severity: &str, error: &ServerError) {
    let start = begin(out, b'E');
    let message = error.to_string();
    for (field, value) in
        [(b'S', severity), (b'V', severity), (b'C', error.sqlstate), (b'M', message.as_str())]
    {
        out.push(field);
        text(out, value);
    }
    if let Some(code) = error.code {
        out.push(b'D');
        text(out, &code.number().to_string());
    }
    out.push(0);
    finish(out, start);
}

/// NoticeResponse.
pub fn notice(out: &mut Vec<u8>, sqlstate: &str, message: &str) {
    let severity = if sqlstate == "00000" { "NOTICE" } else { "WARNING" };
    let start = begin(out, b'N');
    for (field, value) in [(b'S', severity), (b'V', severity), (b'C', sqlstate), (b'M', message)] {
        out.push(field);
        text(out, value);
    }
    out.push(0);
    finish(out, start);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_pause_counts_in_the_middle_of_a_message_only() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let limit = Duration::from_millis(20);
        let ini = format!("[Com]\nReadTimeout={}\n", limit.as_millis());
        let (parameters, _) = Parameters::from_text(std::path::Path::new("."), &ini).unwrap();
        let mut reader = MessageReader::new(Arc::new(server.into()), Arc::new(parameters));
        let writer = std::thread::spawn(move || {
            // Longer than the limit, but between messages.
            std::thread::sleep(limit * 3);
            client.write_all(b"Q\0\0\0\x04Q\0\0\0\x09sel").unwrap();
            client
        });
        assert!(matches!(reader.next_message(), Ok((b'Q', _))));
        assert!(matches!(reader.next_message(), Err(ReadProblem::Paused)));
        drop(writer.join().unwrap());
    }
}
