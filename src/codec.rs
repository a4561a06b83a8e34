//! The one frame of the product and its encoding: log files, peer link and copies all use it.
//!
//! ```text
//! offset 0  magic    "HSBF"
//!        4  version  u8, 1
//!        5  kind     u8, see [`FrameKind`]
//!        6  flags    u16, see [`FLAG_NEEDS_ACKNOWLEDGEMENT`] and, in the log, `storage::log`
//!        8  length   u32, bytes of the body
//!       12  crc32c   u32, over bytes 4..12 and the body
//!       16  body
//! ```
//! All integers are little-endian. Structured bodies are bincode, legacy configuration (fixed-width integers,
//! u64 lengths, u32 enum tags), with a size limit. Not here: what the bodies mean.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Bytes before the body.
pub const FRAME_HEADER_BYTES: usize = 16;
/// A body longer than this is refused, by the writer as by the reader.
pub const MAX_BODY_BYTES: usize = 512 << 20;
/// First bytes of every frame; also how the listener recognises a peer.
pub const MAGIC: [u8; 4] = *b"HSBF";
const VERSION: u8 = 1;
/// On a batch: it must not be decided before the secondary has acknowledged it. In the header, not in the body, so
/// that the mark is no part of the history: the same batch may be logged with it here and without it there.
pub const FLAG_NEEDS_ACKNOWLEDGEMENT: u16 = 1;

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// One batch of transactions: the same bytes in the log, on the wire and in the peer's log.
    Batch = 1,
    /// A message between the two nodes.
    Peer = 2,
    /// A block of a database image.
    CopyBlock = 3,
    /// The head of a log segment.
    Segment = 4,
}

/// Why bytes are not a frame.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum FrameError {
    /// There is no whole frame yet; so many bytes are needed in all.
    #[error("frame is cut off: {needed} bytes needed, {have} there")]
    Incomplete {
        /// Bytes of the whole frame as far as known.
        needed: usize,
        /// Bytes present.
        have: usize,
    },
    /// Not our frame, or one of another version.
    #[error("not a HotStandby frame (magic or version differs)")]
    NotAFrame,
    /// The length exceeds [`MAX_BODY_BYTES`].
    #[error("frame of {0} bytes exceeds the limit of {MAX_BODY_BYTES}")]
    TooLong(usize),
    /// The checksum does not fit the bytes.
    #[error("frame checksum differs")]
    Checksum,
    /// The body does not decode.
    #[error("frame body is malformed: {0}")]
    Body(String),
}

/// A checked frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What the body is.
    pub kind: FrameKind,
    /// Header and body as they were written.
    pub bytes: Bytes,
}

impl Frame {
    /// The flags in the header.
    pub fn flags(&self) -> u16 {
        u16::from_le_bytes([self.bytes[6], self.bytes[7]])
    }

    /// The part after the header.
    pub fn body(&self) -> &[u8] {
        &self.bytes[FRAME_HEADER_BYTES..]
    }
}

/// Starts a frame: room for the header, then the caller appends the body and calls [`finish_frame`].
pub fn begin_frame(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME_HEADER_BYTES, 0);
}

/// Fills in the header of a frame begun with [`begin_frame`].
pub fn finish_frame(buffer: &mut [u8], kind: FrameKind, flags: u16) -> Result<(), FrameError> {
    let length = buffer.len() - FRAME_HEADER_BYTES;
    if length > MAX_BODY_BYTES {
        return Err(FrameError::TooLong(length));
    }
    buffer[0..4].copy_from_slice(&MAGIC);
    buffer[4] = VERSION;
    buffer[5] = kind as u8;
    buffer[6..8].copy_from_slice(&flags.to_le_bytes());
    buffer[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    let checksum = checksum_of(buffer);
    buffer[12..16].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn checksum_of(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[4..12]), &frame[FRAME_HEADER_BYTES..])
}

/// The header that a whole frame would have with other flags.
pub fn header_with_flags(frame: &[u8], flags: u16) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = [0; FRAME_HEADER_BYTES];
    header.copy_from_slice(&frame[..FRAME_HEADER_BYTES]);
    header[6..8].copy_from_slice(&flags.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[4..12]), &frame[FRAME_HEADER_BYTES..]);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Kind and total length of the frame that starts here, without reading the body.
pub fn frame_length(bytes: &[u8]) -> Result<(FrameKind, usize), FrameError> {
    if bytes.len() < FRAME_HEADER_BYTES {
        let known = bytes.len().min(4);
        if bytes[..known] != MAGIC[..known] {
            return Err(FrameError::NotAFrame);
        }
        return Err(FrameError::Incomplete { needed: FRAME_HEADER_BYTES, have: bytes.len() });
    }
    if bytes[0..4] != MAGIC || bytes[4] != VERSION {
        return Err(FrameError::NotAFrame);
    }
    let kind = match bytes[5] {
        1 => FrameKind::Batch,
        2 => FrameKind::Peer,
        3 => FrameKind::CopyBlock,
        4 => FrameKind::Segment,
        _ => return Err(FrameError::NotAFrame),
    };
    let length = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    if length > MAX_BODY_BYTES {
        return Err(FrameError::TooLong(length));
    }
    Ok((kind, FRAME_HEADER_BYTES + length))
}

/// Checks the frame at the start of `bytes` in place and tells its kind and total length.
pub fn check_frame(bytes: &[u8]) -> Result<(FrameKind, usize), FrameError> {
    let (kind, needed) = frame_length(bytes)?;
    if bytes.len() < needed {
        return Err(FrameError::Incomplete { needed, have: bytes.len() });
    }
    let stored = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    if checksum_of(&bytes[..needed]) != stored {
        return Err(FrameError::Checksum);
    }
    Ok((kind, needed))
}

/// A whole, checked frame from owned bytes; they hold exactly one frame.
pub fn parse_frame(bytes: Bytes) -> Result<Frame, FrameError> {
    let (kind, needed) = check_frame(&bytes)?;
    Ok(Frame { kind, bytes: bytes.slice(..needed) })
}

/// Frames a serialisable message.
pub fn encode_message<T: Serialize>(kind: FrameKind, message: &T) -> Result<Bytes, FrameError> {
    let mut buffer = Vec::with_capacity(256);
    begin_frame(&mut buffer);
    append_value(&mut buffer, message)?;
    finish_frame(&mut buffer, kind, 0)?;
    Ok(buffer.into())
}

/// Decodes a whole body.
pub fn decode_message<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    bincode::serde::decode_from_slice(body, configuration())
        .map(|(message, _)| message)
        .map_err(|error| FrameError::Body(error.to_string()))
}

/// Appends a value in the product's encoding.
pub fn append_value<T: Serialize>(buffer: &mut Vec<u8>, value: &T) -> Result<(), FrameError> {
    bincode::serde::encode_into_std_write(value, buffer, configuration())
        .map(|_| ())
        .map_err(|error| FrameError::Body(error.to_string()))
}

/// Decodes one value from the start of `bytes`, borrowing from it; also tells how many bytes it took.
pub fn borrow_value<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, usize), FrameError> {
    bincode::serde::borrow_decode_from_slice(bytes, configuration())
        .map_err(|error| FrameError::Body(error.to_string()))
}

type Configuration = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<MAX_BODY_BYTES>,
>;

fn configuration() -> Configuration {
    bincode::config::legacy().with_limit::<MAX_BODY_BYTES>()
}
