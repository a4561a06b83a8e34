//! A batch: the transactions that commit together, as one frame.
//!
//! The bytes made by [`Batch::seal`] go to the log, over the wire and into the peer's log unchanged. The body is a
//! [`BatchHeader`] followed by the changes (see `change`). It begins with the position before it, so the hash of the
//! body alone chains it to everything earlier.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, FRAME_HEADER_BYTES, FrameError, FrameKind};
use crate::hsb::position::{Chain, Position};

/// What stands before the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeader {
    /// Where the history stood before this batch.
    pub before: Position,
    /// The epoch that the batch is written in.
    pub epoch: u64,
    /// Transactions in it; at least one.
    pub count: u32,
    /// The primary must not decide it before the secondary has acknowledged it. After a crash such a batch at the
    /// end of the log is pending; without the mark a whole one is decided. Stands in the frame's header.
    #[serde(skip)]
    pub needs_acknowledgement: bool,
}

/// A sealed batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The whole frame.
    pub bytes: Bytes,
    /// Its decoded head.
    pub header: BatchHeader,
    /// Where the history stands after it.
    pub after: Position,
    changes_at: usize,
}

impl Batch {
    /// Makes the frame for `changes`.
    pub fn seal(header: BatchHeader, changes: &[u8]) -> Result<Batch, FrameError> {
        let mut buffer = Vec::with_capacity(changes.len() + 128);
        codec::begin_frame(&mut buffer);
        codec::append_value(&mut buffer, &header)?;
        let changes_at = buffer.len();
        buffer.extend_from_slice(changes);
        codec::finish_frame(&mut buffer, FrameKind::Batch, flags(header.needs_acknowledgement))?;
        let after = position_after(&header, &buffer[FRAME_HEADER_BYTES..])?;
        Ok(Batch { bytes: buffer.into(), header, after, changes_at })
    }

    /// Reads a batch from the bytes of one frame, checking everything but that it follows what the reader has.
    pub fn parse(bytes: Bytes) -> Result<Batch, FrameError> {
        let frame = codec::parse_frame(bytes)?;
        if frame.kind != FrameKind::Batch {
            return Err(FrameError::Body("not a batch".into()));
        }
        let (mut header, used) = codec::borrow_value::<BatchHeader>(frame.body())?;
        header.needs_acknowledgement = frame.flags() & codec::FLAG_NEEDS_ACKNOWLEDGEMENT != 0;
        if header.count == 0 {
            return Err(FrameError::Body("a batch of no transactions".into()));
        }
        let after = position_after(&header, frame.body())?;
        Ok(Batch { bytes: frame.bytes, header, after, changes_at: FRAME_HEADER_BYTES + used })
    }

    /// The same batch, at the same position, with or without the mark.
    pub fn marked(&self, needs_acknowledgement: bool) -> Result<Batch, FrameError> {
        if self.header.needs_acknowledgement == needs_acknowledgement {
            return Ok(self.clone());
        }
        let mut bytes = self.bytes.to_vec();
        codec::finish_frame(&mut bytes, FrameKind::Batch, flags(needs_acknowledgement))?;
        let header = BatchHeader { needs_acknowledgement, ..self.header };
        Ok(Batch { bytes: bytes.into(), header, ..*self })
    }

    /// The encoded changes.
    pub fn changes(&self) -> &[u8] {
        &self.bytes[self.changes_at..]
    }
}

fn flags(needs_acknowledgement: bool) -> u16 {
    if needs_acknowledgement { codec::FLAG_NEEDS_ACKNOWLEDGEMENT } else { 0 }
}

fn position_after(header: &BatchHeader, body: &[u8]) -> Result<Position, FrameError> {
    let chain = Chain(xxhash_rust::xxh3::xxh3_128(body).to_le_bytes());
    let sequence = header.before.sequence.checked_add(u64::from(header.count));
    let sequence = sequence.ok_or_else(|| FrameError::Body("the sequence ends".into()))?;
    Ok(Position { epoch: header.epoch, sequence, chain })
}
