//! What the first packet of a PostgreSQL client asks for: for the listener, which tells the protocols apart, and for the
//! start-up, which acts on it.

use super::codec;
use crate::error::ServerError;

/// A start-up packet is no longer than this.
pub const MAX_START_UP_BYTES: usize = 10_000;

/// By the number that stands behind the packet's length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// A session; any 3.x will do: the server answers with the version that it speaks.
    Session {
        /// Of protocol 3.
        minor_version: i32,
    },
    /// To cancel another session's statement.
    Cancel,
    /// TLS or GSS, before one of the others.
    Encryption,
    /// Something else; perhaps a session of another protocol version.
    Unknown,
}

/// What this number asks for.
pub fn asked(number: i32) -> Asked {
    match number {
        80_877_102 => Asked::Cancel,
        80_877_103 | 80_877_104 => Asked::Encryption,
        number if number >> 16 == 3 => Asked::Session { minor_version: number & 0xffff },
        _ => Asked::Unknown,
    }
}

/// The message that ends a connection before it has begun.
pub fn fatal(error: &ServerError) -> Vec<u8> {
    let mut out = Vec::new();
    codec::error_response(&mut out, "FATAL", error);
    out
}
