//! A database image on its way from the primary to the other server (`hsb netcopy`).
//!
//! ```text
//! primary                                receiver
//!   Head { what comes }            ──▶
//!                                  ◀──   Offer { hashes } …   of the blocks that it has already, perhaps
//!   blocks, Same { count }, Pause  ──▶                        in order; Same: yours are right
//!   End { hash over the image }    ──▶
//!                                  ◀──   Working …            while it syncs and opens
//!                                  ◀──   Done or Failed
//! ```
//! The image is read from a snapshot, so writers go on meanwhile; it is written beside the receiver's database and put in
//! its place by the caller. What a broken copy left, and the database that is to be replaced, are where the receiver
//! looks for blocks that it need not be sent: so a repeat goes on where the last one stopped, and a copy over an old
//! copy brings the differences only. Whatever their origin, all blocks pass through the hash over the whole image, which
//! is seeded anew for each copy. Blocking, on threads of its own.

mod receive;
mod send;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use super::handshake::{lost, malformed, read_frame};
use crate::codec::{self, FRAME_HEADER_BYTES, FrameKind};
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::stream::Stream;

pub use self::receive::{Received, receive, while_working};
pub use self::send::{CopyOptions, Pace, send};

/// A block is at most so long, and a gigabyte is what General.BackupBlockSize allows: longer ones are sent in parts.
pub const MAX_BLOCK_BYTES: usize = 64 << 20;
/// Frames of a copy are at most so long: the largest block, and room for its head.
const MAX_FRAME_BYTES: usize = MAX_BLOCK_BYTES + 4096;
/// After so many bytes of blocks that need not be sent, the receiver hears of them.
const SAME_BYTES: u64 = 16 << 20;

/// How long the sender may take to hear that the receiver has failed.
const FAREWELL: Duration = Duration::from_secs(30);

/// What the primary announces.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct Head {
    page_bytes: u64,
    pages: u64,
    block_bytes: u64,
    database_id: [u8; 16],
    position: Position,
    /// Of all hashes of this copy: nobody can have prepared blocks whose hashes are equal.
    seed: u64,
    /// HotStandby.NetcopyRpcTimeout of the primary, in milliseconds; it rules on both sides.
    timeout_ms: u64,
}

#[derive(Serialize, Deserialize, Debug)]
enum CopyMessage {
    Head(Head),
    /// Hashes of the next blocks at the receiver; an empty one is the last.
    Offer {
        hashes: Vec<u128>,
    },
    /// So many blocks are as the receiver has them.
    Same {
        blocks: u64,
    },
    /// The primary holds back: HotStandby.NetcopyMaxRate.
    Pause,
    End {
        hash: u128,
    },
    /// The receiver is busy with what it has.
    Working,
    Done,
    Failed(Refusal),
}

#[derive(Serialize, Deserialize)]
struct Block<'a> {
    compressed: bool,
    #[serde(borrow, with = "serde_bytes")]
    bytes: &'a [u8],
}

impl Head {
    fn bytes(&self) -> Option<u64> {
        self.page_bytes.checked_mul(self.pages)
    }

    fn hasher(&self) -> Xxh3 {
        Xxh3::with_seed(self.seed)
    }

    fn hash(&self, block: &[u8]) -> u128 {
        xxh3_128_with_seed(block, self.seed)
    }
}

/// Tells the sender how the copy ended. The sender may be gone; the copy stands all the same.
pub fn answer(stream: &Stream, outcome: &Result<(), Refusal>) {
    let message = match outcome {
        Ok(()) => CopyMessage::Done,
        Err(refusal) => CopyMessage::Failed(refusal.clone()),
    };
    let _ = say(stream, &message);
    if outcome.is_err() {
        // Blocks may still be on their way.
        stream.end_gently(FAREWELL);
    }
}

/// A server that goes down ends its copies, whichever side it is on.
pub fn go_on_unless(abort: &AtomicBool) -> Result<(), Refusal> {
    match abort.load(Ordering::Relaxed) {
        false => Ok(()),
        true => Err(Refusal::new(Code::BACKUP_ABORTED, "The server is shutting down.")),
    }
}

fn set_timeouts(stream: &Stream, timeout: Duration) -> Result<(), Refusal> {
    let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
    stream.set_timeouts(timeout).map_err(|error| lost(&error))
}

fn say(mut stream: &Stream, message: &CopyMessage) -> Result<(), Refusal> {
    let frame = codec::encode_message(FrameKind::Peer, message).map_err(malformed)?;
    stream.write_all(&frame).map_err(|error| lost(&error))
}

fn hear(mut stream: &Stream) -> Result<CopyMessage, Refusal> {
    let frame = read_frame(&mut stream, MAX_FRAME_BYTES)?;
    codec::decode_message(&frame[FRAME_HEADER_BYTES..]).map_err(malformed)
}

fn out_of_order() -> Refusal {
    Refusal::new(Code::COMMUNICATION_ERROR, "(the copy is not in the expected form)")
}
