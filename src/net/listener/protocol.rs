//! The first bytes of a connection: which protocol they begin, and what is said to who is not served.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::places::Kind;
use crate::codec::MAGIC;
use crate::hsb::codes::Code;

/// A PostgreSQL start-up message is no longer than this.
const MAX_STARTUP_BYTES: u32 = 10_000;
/// Codes of the PostgreSQL messages that stand in place of a version.
const CANCEL_REQUEST: u32 = 80_877_102;
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];

/// What the first bytes begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// PostgreSQL.
    Sql {
        /// Only to cancel another session's statement.
        cancel: bool,
    },
    /// The other server.
    Peer,
    /// Text lines.
    Console,
}

impl Protocol {
    pub(super) fn kind(self) -> Kind {
        match self {
            Protocol::Sql { .. } => Kind::Sql,
            Protocol::Peer => Kind::Peer,
            Protocol::Console => Kind::Console,
        }
    }
}

/// The protocol that begins with these bytes; none while more of them are needed.
pub(super) fn classify(bytes: &[u8]) -> Option<Result<Protocol, &'static str>> {
    const SENSELESS: &str =
        "This server speaks the PostgreSQL protocol and takes text lines; this is neither.";
    let first = *bytes.first()?;
    if bytes.starts_with(&MAGIC) {
        return Some(Ok(Protocol::Peer));
    }
    if MAGIC.starts_with(bytes) {
        return None;
    }
    if first != 0 {
        // Bytes that begin a character of UTF-8 text.
        let text = matches!(first, b' '..=b'~' | 0xc2..=0xf4 | b'\t' | b'\r' | b'\n');
        return Some(if text { Ok(Protocol::Console) } else { Err(SENSELESS) });
    }
    let [a, b, c, d, rest @ ..] = bytes else { return None };
    if !(8..=MAX_STARTUP_BYTES).contains(&u32::from_be_bytes([*a, *b, *c, *d])) {
        return Some(Err(SENSELESS));
    }
    let [a, b, c, d] = *rest else { return None };
    let code = u32::from_be_bytes([a, b, c, d]);
    // Any 3.x counts: the server may answer with a lower version.
    if code >> 16 == 3 || code == CANCEL_REQUEST || ENCRYPTION_REQUESTS.contains(&code) {
        return Some(Ok(Protocol::Sql { cancel: code == CANCEL_REQUEST }));
    }
    Some(Err(SENSELESS))
}

/// Tells a PostgreSQL client that the server is full. A request for encryption is declined first, because clients do
/// not show an error that comes instead of that answer.
pub(super) fn refuse_sql(mut stream: &TcpStream, text: &str) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    for _ in 0..=ENCRYPTION_REQUESTS.len() {
        let mut head = [0; 8];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        let [.., a, b, c, d] = head;
        if !ENCRYPTION_REQUESTS.contains(&u32::from_be_bytes([a, b, c, d])) {
            break;
        }
        if stream.write_all(b"N").is_err() {
            return;
        }
    }
    let _ = stream.write_all(&fatal(text));
}

/// The PostgreSQL message that ends a connection because there are too many.
fn fatal(text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in [('S', "FATAL"), ('V', "FATAL"), ('C', "53300"), ('M', text)] {
        body.extend_from_slice(format!("{field}{value}\0").as_bytes());
    }
    body.push(0);
    let mut message = vec![b'E'];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(&body);
    message
}

/// A last word without waiting for anybody, and the end. The other server hears one as well: it would take a connection
/// that is just closed for the end of this one, and could become a second primary.
pub(super) fn send_away(stream: &TcpStream, kind: Option<Kind>, code: Code, text: &str) {
    let words = match kind {
        Some(Kind::Sql) => fatal(text),
        _ => format!("ERROR {} {text}\n", code.number()).into_bytes(),
    };
    // Whoever does not take it in time has no use for it.
    let _ = SockRef::from(stream).send_with_flags(&words, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    let _ = stream.shutdown(Shutdown::Both);
}
