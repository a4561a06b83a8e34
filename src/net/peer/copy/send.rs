//! The primary's side of a copy.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{
    Block, CopyMessage, Head, SAME_BYTES, go_on_unless, hear, malformed, out_of_order, say, set_timeouts,
};
use crate::codec::{self, FrameKind};
use crate::hsb::refusal::Refusal;
use crate::net::peer::handshake::lost;
use crate::progress::{Progress, Unit};
use crate::random;
use crate::storage::image::Image;
use crate::stream::Stream;

/// The longest pause before another sign of life.
const PAUSE: Duration = Duration::from_millis(500);

/// How a copy is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions<'a> {
    /// Compress blocks.
    pub compress: bool,
    /// Bytes per second at most.
    pub maximum_rate: Option<u64>,
    /// For each read and write, on both sides.
    pub timeout: Duration,
    /// Set when the copy is to be given up.
    pub abort: &'a AtomicBool,
}

/// Sends the image and waits until the receiver has opened it. Returns how many bytes had to be sent.
pub fn send(
    stream: &mut Stream,
    image: &Image,
    options: CopyOptions<'_>,
    progress: &Progress,
) -> Result<u64, Refusal> {
    set_timeouts(stream, options.timeout)?;
    progress.begin("netcopy", Unit::Bytes, image.bytes());
    let head = Head {
        page_bytes: image.page_bytes,
        pages: image.pages,
        block_bytes: image.block_bytes(),
        database_id: image.database_id,
        position: image.position,
        seed: u64::from_le_bytes(random::bytes()?),
        timeout_ms: u64::try_from(options.timeout.as_millis()).unwrap_or(u64::MAX),
    };
    say(stream, &CopyMessage::Head(head))?;
    let pace = Pace::new(options.maximum_rate);
    let mut sending =
        Sending { stream, options, pace, offers: VecDeque::new(), more_offers: true, same: 0, sent: 0 };
    let mut hasher = head.hasher();
    let mut block = Vec::new();
    for index in 0..image.blocks() {
        image.read(index, &mut block)?;
        hasher.update(&block);
        if sending.next_offer()? == Some(head.hash(&block)) {
            sending.leave_out(head.block_bytes)?;
        } else {
            sending.send(&block)?;
        }
        progress.advance(block.len() as u64);
    }
    sending.end(hasher.digest128())
}

/// The connection and what the receiver has said.
struct Sending<'a> {
    stream: &'a mut Stream,
    options: CopyOptions<'a>,
    pace: Pace,
    offers: VecDeque<u128>,
    more_offers: bool,
    /// Blocks that were left out and not yet mentioned.
    same: u64,
    sent: u64,
}

impl Sending<'_> {
    /// The hash of the next block as the receiver has it, if it has one.
    fn next_offer(&mut self) -> Result<Option<u128>, Refusal> {
        go_on_unless(self.options.abort)?;
        // A receiver that has failed says so at any time.
        while self.stream.has_input() || self.offers.is_empty() && self.more_offers {
            match hear(self.stream)? {
                CopyMessage::Offer { hashes } => {
                    self.more_offers = !hashes.is_empty();
                    self.offers.extend(hashes);
                }
                CopyMessage::Failed(refusal) => return Err(refusal),
                _ => return Err(out_of_order()),
            }
        }
        Ok(self.offers.pop_front())
    }

    fn leave_out(&mut self, block_bytes: u64) -> Result<(), Refusal> {
        self.same += 1;
        if self.same.saturating_mul(block_bytes) >= SAME_BYTES { self.mention_same() } else { Ok(()) }
    }

    fn mention_same(&mut self) -> Result<(), Refusal> {
        match std::mem::take(&mut self.same) {
            0 => Ok(()),
            blocks => say(self.stream, &CopyMessage::Same { blocks }),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.mention_same()?;
        let smaller = self.options.compress.then(|| lz4_flex::compress_prepend_size(bytes));
        let smaller = smaller.filter(|smaller| smaller.len() < bytes.len());
        let block = Block { compressed: smaller.is_some(), bytes: smaller.as_deref().unwrap_or(bytes) };
        let frame = codec::encode_message(FrameKind::CopyBlock, &block).map_err(malformed)?;
        self.stream.write_all(&frame).map_err(|error| lost(&error))?;
        self.sent += frame.len() as u64;
        while let Some(pause) = self.pace.pause_after(self.sent) {
            if self.options.abort.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(pause.min(PAUSE));
            say(self.stream, &CopyMessage::Pause)?;
        }
        Ok(())
    }

    fn end(mut self, hash: u128) -> Result<u64, Refusal> {
        self.mention_same()?;
        say(self.stream, &CopyMessage::End { hash })?;
        loop {
            match hear(self.stream)? {
                // What remains of the offers was for nothing.
                CopyMessage::Offer { .. } | CopyMessage::Working => {}
                CopyMessage::Done => return Ok(self.sent),
                CopyMessage::Failed(refusal) => return Err(refusal),
                _ => return Err(out_of_order()),
            }
        }
    }
}

/// Keeps a copy below its rate.
pub struct Pace {
    rate: Option<u64>,
    begun: Instant,
}

impl Pace {
    /// So many bytes per second at most, from now on.
    pub fn new(rate: Option<u64>) -> Pace {
        Pace { rate, begun: Instant::now() }
    }

    /// How long to wait after so many bytes in all; none: go on.
    pub fn pause_after(&self, bytes: u64) -> Option<Duration> {
        let due = Duration::try_from_secs_f64(bytes as f64 / self.rate? as f64).unwrap_or(Duration::MAX);
        Some(due.saturating_sub(self.begun.elapsed())).filter(|pause| !pause.is_zero())
    }
}
