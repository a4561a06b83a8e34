//! The handshake of the peer link: both sides prove that they know the shared secret, then say who they are.
//!
//! ```text
//! dialler                         listener
//!   Open { version, nonce }  ──▶
//!                            ◀──  Challenge { nonce, proof }   HMAC-SHA-256(secret, "listener" ‖ both nonces)
//!   Introduce { proof, … }   ──▶                               HMAC-SHA-256(secret, "dialler" ‖ both nonces)
//!                            ◀──  Welcome { hello } or Refused(refusal)
//! ```
//! Nothing about the node is told before the proofs are checked. Without HotStandby.PeerSecretFile the secret is empty,
//! which is allowed on loopback only. Blocking, on the thread of whoever dials or listens; every step has a time-out.
//!
//! Invariant: [`Code::COMMUNICATION_ERROR`] means that nobody answers: the connection was refused or lost, or there was
//! silence. Whoever answers and does not pass is there, whatever is wrong with it, and gets another code: a live primary
//! must not be taken for a dead one because the secrets differ.

use std::io::{Read, Write};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use socket2::TcpKeepalive;

use crate::codec::{self, FRAME_HEADER_BYTES, FrameKind};
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, PeerMessage, Purpose};
use crate::hsb::refusal::Refusal;
use crate::random;
use crate::stream::{Stream, is_timeout};

const PROTOCOL_VERSION: u32 = 2;
/// Before a peer has proved itself it gets no more of our memory than this.
const MAX_HANDSHAKE_BYTES: usize = 4096;
/// For each step, where nothing else is configured.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a refusal waits for its reader.
const GOODBYE: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize, Debug)]
enum Step {
    Open { version: u32, nonce: [u8; 32] },
    Challenge { nonce: [u8; 32], proof: [u8; 32] },
    Introduce { proof: [u8; 32], purpose: Purpose, hello: Hello },
    Welcome { hello: Hello },
    Refused(Refusal),
}

/// What this node brings to a peer link.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions<'a> {
    /// Known to both; empty where none is configured.
    pub secret: &'a [u8],
    /// Random, another one for each server: who hears its own has dialled itself.
    pub node: [u8; 16],
    /// How long sent bytes may stay without the system's acknowledgement (TCP_USER_TIMEOUT); none: the system's own.
    pub user_timeout: Option<Duration>,
    /// For each step of the handshake.
    pub step_timeout: Duration,
}

/// Reaches the peer and introduces this node. Returns the connection and what the peer says of itself.
pub fn dial(
    address: (&str, u16),
    timeout: Option<Duration>,
    LinkOptions { secret, node, user_timeout, step_timeout }: LinkOptions<'_>,
    purpose: Purpose,
    hello: Hello,
) -> Result<(Stream, Hello), Refusal> {
    let mut stream = Stream::connect(address, timeout).map_err(|error| not_connected(address, &error))?;
    prepare(&stream, step_timeout, user_timeout).map_err(|error| unreachable(address, &error))?;
    let ours = nonce(&node)?;
    say(&mut stream, &Step::Open { version: PROTOCOL_VERSION, nonce: ours })?;
    let (theirs, proof) = match hear(&mut stream, MAX_HANDSHAKE_BYTES)? {
        Step::Challenge { nonce, proof } => (nonce, proof),
        Step::Refused(refusal) => return Err(refused(refusal)),
        _ => return Err(unexpected()),
    };
    check(secret, b"listener", &ours, &theirs, &proof)?;
    let proof = prove(secret, b"dialler", &ours, &theirs);
    say(&mut stream, &Step::Introduce { proof, purpose, hello })?;
    let hello = read_answer(&mut stream)?;
    Ok((stream, hello))
}

/// The listener's answer to an introduction.
pub fn read_answer(stream: &mut impl Read) -> Result<Hello, Refusal> {
    match hear(stream, MAX_HANDSHAKE_BYTES)? {
        Step::Welcome { hello } => Ok(hello),
        Step::Refused(refusal) => Err(refused(refusal)),
        _ => Err(unexpected()),
    }
}

/// The listener's part up to the introduction; the caller answers with [`welcome`] or [`refuse`]. Whoever does not get
/// so far is told why.
pub fn listen(stream: &Stream, options: LinkOptions<'_>) -> Result<(Purpose, Hello), Refusal> {
    prepare(stream, options.step_timeout, options.user_timeout).map_err(|error| lost(&error))?;
    let introduction = hear_introduction(stream, options);
    if let Err(refusal) = &introduction
        && refusal.code != Code::COMMUNICATION_ERROR
    {
        turn_away(stream, refusal.clone());
    }
    introduction
}

fn hear_introduction(mut stream: &Stream, options: LinkOptions<'_>) -> Result<(Purpose, Hello), Refusal> {
    let LinkOptions { secret, node, .. } = options;
    let theirs = match hear(&mut stream, MAX_HANDSHAKE_BYTES)? {
        Step::Open { nonce, .. } if nonce.starts_with(&node) => {
            let detail = "It is the address of this server itself.";
            return Err(Refusal::new(Code::NO_CONNECT_STRING, detail));
        }
        Step::Open { version: PROTOCOL_VERSION, nonce } => nonce,
        Step::Open { version, .. } => {
            let detail = format!(
                "The servers speak different versions of the peer protocol ({version} and {PROTOCOL_VERSION}): update the older one."
            );
            return Err(Refusal::new(Code::OPERATION_FAILED, detail));
        }
        _ => return Err(unexpected()),
    };
    let ours = nonce(&node)?;
    say(&mut stream, &Step::Challenge { nonce: ours, proof: prove(secret, b"listener", &theirs, &ours) })?;
    match hear(&mut stream, MAX_HANDSHAKE_BYTES)? {
        Step::Introduce { proof, purpose, hello } => {
            check(secret, b"dialler", &theirs, &ours, &proof).map(|()| (purpose, hello))
        }
        _ => Err(unexpected()),
    }
}

/// Refuses a dialler that may have sent more than was read, so that the reason arrives all the same.
pub fn turn_away(mut stream: &Stream, refusal: Refusal) {
    refuse(&mut stream, refusal);
    stream.end_gently(GOODBYE);
}

/// Accepts the introduction.
pub fn welcome(stream: &mut (impl Write + ?Sized), hello: Hello) -> Result<(), Refusal> {
    say(stream, &Step::Welcome { hello })
}

/// Ends the handshake with a reason. The connection is of no use any more, so a failure to say so does not matter.
pub fn refuse(stream: &mut (impl Write + ?Sized), refusal: impl Into<Refusal>) {
    let _ = say(stream, &Step::Refused(refusal.into()));
}

/// Tells a peer that has accepted a dial which was given up meanwhile. The connection is of no use any more, so a failure to
/// say so does not matter.
pub fn leave(stream: &mut (impl Write + ?Sized)) {
    let refusal = Refusal::new(Code::PEER_COMMAND_CONFLICT, "The attempt to connect was given up.");
    let _ = say(stream, &PeerMessage::Refused(refusal));
}

/// Whoever could not try does not know whether somebody is there.
fn not_connected(address: (&str, u16), error: &std::io::Error) -> Refusal {
    use std::io::ErrorKind::{AddrNotAvailable, Other, OutOfMemory, PermissionDenied};
    let no_descriptors = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    if no_descriptors || matches!(error.kind(), AddrNotAvailable | Other | OutOfMemory | PermissionDenied) {
        let (host, port) = address;
        let detail = format!("This server cannot try to reach the other one at {host} {port}: {error}.");
        return Refusal::new(Code::OPERATION_FAILED, detail);
    }
    unreachable(address, error)
}

/// Socket options of a peer link; see "Losing each other" in the specification.
fn prepare(stream: &Stream, timeout: Duration, user_timeout: Option<Duration>) -> std::io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
    stream.prepare(&keepalive)?;
    stream.set_timeouts(Some(timeout))?;
    stream.set_user_timeout(user_timeout)
}

/// Begins with the node's own number; the rest is new each time.
fn nonce(node: &[u8; 16]) -> Result<[u8; 32], Refusal> {
    let mut nonce = [0; 32];
    nonce[..16].copy_from_slice(node);
    nonce[16..].copy_from_slice(&random::bytes::<16>()?);
    Ok(nonce)
}

fn mac(secret: &[u8], who: &[u8], dialler: &[u8; 32], listener: &[u8; 32]) -> Hmac<Sha256> {
    // HMAC takes keys of any length, so this cannot fail.
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
    mac.update(who);
    mac.update(dialler);
    mac.update(listener);
    mac
}

fn prove(secret: &[u8], who: &[u8], dialler: &[u8; 32], listener: &[u8; 32]) -> [u8; 32] {
    mac(secret, who, dialler, listener).finalize().into_bytes().into()
}

fn check(
    secret: &[u8],
    who: &[u8],
    dialler: &[u8; 32],
    listener: &[u8; 32],
    proof: &[u8; 32],
) -> Result<(), Refusal> {
    mac(secret, who, dialler, listener).verify_slice(proof).map_err(|_| {
        let detail = "The two servers' peer secrets differ: compare the files that HotStandby.PeerSecretFile names at both.";
        Refusal::new(Code::OPERATION_FAILED, detail)
    })
}

/// Sends one message.
pub fn say<T: Serialize>(stream: &mut (impl Write + ?Sized), message: &T) -> Result<(), Refusal> {
    let frame = codec::encode_message(FrameKind::Peer, message)
        .map_err(|error| Refusal::new(Code::FAILED_UNEXPECTEDLY, error.to_string()))?;
    stream.write_all(&frame).map_err(|error| lost(&error))
}

/// Receives one message of at most `limit` bytes.
pub fn hear<T: DeserializeOwned>(stream: &mut impl Read, limit: usize) -> Result<T, Refusal> {
    let frame = read_frame(stream, limit)?;
    codec::decode_message(&frame[FRAME_HEADER_BYTES..]).map_err(malformed)
}

/// Reads one checked frame of at most `limit` bytes from a blocking stream.
pub fn read_frame(stream: &mut impl Read, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut frame).map_err(|error| lost(&error))?;
    let (_, length) = codec::frame_length(&frame).map_err(malformed)?;
    if length > limit {
        return Err(malformed(codec::FrameError::TooLong(length)));
    }
    frame.resize(length, 0);
    stream.read_exact(&mut frame[FRAME_HEADER_BYTES..]).map_err(|error| lost(&error))?;
    codec::check_frame(&frame).map_err(malformed)?;
    Ok(frame)
}

fn unreachable((host, port): (&str, u16), error: &std::io::Error) -> Refusal {
    Refusal::new(Code::COMMUNICATION_ERROR, format!("({host} {port}: {})", in_words(error)))
}

pub(super) fn lost(error: &std::io::Error) -> Refusal {
    Refusal::new(Code::COMMUNICATION_ERROR, format!("({})", in_words(error)))
}

fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        _ if is_timeout(error) => "no answer in time".to_owned(),
        std::io::ErrorKind::UnexpectedEof => "the other side has closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

pub(super) fn malformed(error: codec::FrameError) -> Refusal {
    let detail = match error {
        codec::FrameError::Checksum => "What the other side sent has arrived damaged.".to_owned(),
        _ => format!(
            "The other side does not speak this server's peer protocol: another version or another program ({error})."
        ),
    };
    Refusal::new(Code::OPERATION_FAILED, detail)
}

fn unexpected() -> Refusal {
    Refusal::new(Code::OPERATION_FAILED, "(an unexpected message in the handshake)")
}

/// The peer may have lost somebody; it has not lost us.
fn refused(refusal: Refusal) -> Refusal {
    match refusal.code {
        Code::COMMUNICATION_ERROR => Refusal { code: Code::OPERATION_FAILED, ..refusal },
        _ => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R4: what this server lacks must not make it the primary.
    #[test]
    fn who_could_not_try_does_not_take_the_other_server_for_dead() {
        let code = |error: std::io::Error| not_connected(("node-b", 1964), &error).code;
        for here in [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOMEM, libc::EACCES, libc::EPERM]
        {
            assert_eq!(code(std::io::Error::from_raw_os_error(here)), Code::OPERATION_FAILED, "{here}");
        }
        assert_eq!(code(std::io::Error::other("failed to look up the name")), Code::OPERATION_FAILED);
        // The other machine, or the cable to it, is gone.
        let gone =
            [libc::ECONNREFUSED, libc::ECONNRESET, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::EHOSTDOWN];
        for there in gone.into_iter().chain([libc::ENETUNREACH, libc::ENETDOWN]) {
            assert_eq!(code(std::io::Error::from_raw_os_error(there)), Code::COMMUNICATION_ERROR, "{there}");
        }
    }
}
