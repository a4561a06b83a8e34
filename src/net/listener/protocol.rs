//! The first bytes of a connection: which protocol they begin, and what is said to who is not served.

use super::places::Kind;
use crate::codec::MAGIC;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::net::pg::first_packet::{Asked, MAX_START_UP_BYTES, asked, fatal};
use crate::stream::Stream;

/// What the first bytes begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// PostgreSQL.
    Sql,
    /// The other server.
    Peer,
    /// Text lines.
    Console,
}

impl Protocol {
    pub(super) fn kind(self) -> Kind {
        match self {
            Protocol::Sql => Kind::Sql,
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
    if !(8..=MAX_START_UP_BYTES as u32).contains(&u32::from_be_bytes([*a, *b, *c, *d])) {
        return Some(Err(SENSELESS));
    }
    let [a, b, c, d] = *rest else { return None };
    Some(match asked(i32::from_be_bytes([a, b, c, d])) {
        Asked::Session { .. } | Asked::Cancel | Asked::Encryption => Ok(Protocol::Sql),
        Asked::Unknown => Err(SENSELESS),
    })
}

/// A last word without waiting for anybody, and the end. The other server hears one as well: it would take a connection
/// that is just closed for the end of this one, and could become a second primary.
pub(super) fn send_away(stream: &Stream, kind: Option<Kind>, code: Code, text: &str) {
    stream.send_away(&match kind {
        Some(Kind::Sql) => fatal(&ServerError::sql("53300", text)),
        _ => format!("ERROR {} {text}\n", code.number()).into_bytes(),
    });
}
