//! The receiver's side of a copy: a file beside the database that grows into the image.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::{
    Block, CopyMessage, Head, MAX_BLOCK_BYTES, MAX_FRAME_BYTES, go_on_unless, hear, malformed, out_of_order,
    say, set_timeouts,
};
use crate::codec::{self, FRAME_HEADER_BYTES, FrameKind};
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::net::peer::handshake::read_frame;
use crate::progress::{Progress, Unit};
use crate::storage::files;
use crate::stream::Stream;
use crate::threads;

/// An offer is made after so many bytes that were read, or so many hashes.
const OFFER_BYTES: u64 = 16 << 20;
const OFFER_HASHES: usize = 1024;
/// Between signs of life at most, while the receiver is busy.
const WORKING_INTERVAL: Duration = Duration::from_secs(1);

/// A whole, checked image; not yet synced.
#[derive(Debug)]
pub struct Received {
    /// Whose it is.
    pub database_id: [u8; 16],
    /// When it is from.
    pub position: Position,
    /// Bytes that were here already.
    pub reused_bytes: u64,
    file: File,
    path: PathBuf,
}

impl Received {
    /// Puts it on disk.
    pub fn sync(&self) -> Result<(), Refusal> {
        self.file.sync_all().map_err(|error| disk(&self.path, &error))
    }
}

/// Receives an image into `path`, which may hold what a broken copy left, and checks it. `base` is the database that
/// is to be replaced, if there is one: read only. When it fails, or is given up by `abort`, `path` keeps what a repeat
/// can use.
pub fn receive(
    stream: &Stream,
    path: &Path,
    base: &Path,
    timeout: Duration,
    progress: &Progress,
    abort: &AtomicBool,
) -> Result<Received, Refusal> {
    set_timeouts(stream, timeout)?;
    let CopyMessage::Head(head) = hear(stream)? else { return Err(out_of_order()) };
    set_timeouts(stream, Duration::from_millis(head.timeout_ms))?;
    let total = head.bytes().filter(|_| (1..=MAX_BLOCK_BYTES as u64).contains(&head.block_bytes));
    let total = total.ok_or_else(out_of_order)?;
    progress.begin("netcopy", Unit::Bytes, total);
    let file = files::open_private(path).map_err(|error| disk(path, &error))?;
    let kept_bytes = file.metadata().map_err(|error| disk(path, &error))?.len().min(total);
    let base = File::open(base).ok();
    let base_bytes =
        base.as_ref().and_then(|base| base.metadata().ok()).map_or(0, |base| base.len()).min(total);
    let here = Here { head, total, file, kept_bytes, base, base_bytes, path: path.to_path_buf() };
    let given_up = AtomicBool::new(false);
    let reused_bytes = std::thread::scope(|scope| {
        // Its failure is one of the connection, which this thread notices as well.
        let offers = threads::spawn_scoped(scope, "copy-offers", || here.offer(stream, &given_up));
        let offers = offers?;
        let outcome = here.receive_blocks(stream, progress, abort);
        given_up.store(true, Ordering::Relaxed);
        // A sender that still sends blocks hears no offers: both would wait for each other.
        while outcome.is_err() && !offers.is_finished() && read_frame(&mut &*stream, MAX_FRAME_BYTES).is_ok()
        {
        }
        outcome
    })?;
    here.file.set_len(total).map_err(|error| disk(path, &error))?;
    let Here { file, path, .. } = here;
    Ok(Received { database_id: head.database_id, position: head.position, reused_bytes, file, path })
}

/// What is here before the copy, and the file that it goes to.
struct Here {
    head: Head,
    total: u64,
    /// What an earlier copy left in it is looked at before it is overwritten: a block is only written after the sender
    /// has heard its hash.
    file: File,
    kept_bytes: u64,
    base: Option<File>,
    base_bytes: u64,
    path: PathBuf,
}

impl Here {
    fn length(&self, index: u64) -> usize {
        let begin = index.saturating_mul(self.head.block_bytes).min(self.total);
        // At most MAX_BLOCK_BYTES, as checked.
        (self.total - begin).min(self.head.block_bytes) as usize
    }

    /// Reads the block as it is here: from what an earlier copy left, or else from the old database.
    fn read(&self, index: u64, block: &mut Vec<u8>) -> std::io::Result<bool> {
        let (begin, length) = (index * self.head.block_bytes, self.length(index));
        let end = begin + length as u64;
        block.resize(length, 0);
        if end <= self.kept_bytes {
            self.file.read_exact_at(block, begin)?;
            return Ok(true);
        }
        match &self.base {
            Some(base) if end <= self.base_bytes => base.read_exact_at(block, begin).map(|()| false),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn offer(&self, stream: &Stream, given_up: &AtomicBool) -> Result<(), Refusal> {
        let here = self.kept_bytes.max(self.base_bytes);
        let blocks = if here == self.total {
            here.div_ceil(self.head.block_bytes)
        } else {
            here / self.head.block_bytes
        };
        let (mut hashes, mut bytes, mut block) = (Vec::new(), 0, Vec::new());
        for index in 0..blocks {
            if self.read(index, &mut block).is_err() {
                // A disk that cannot be read, or a file that became shorter: that block has to be sent.
                block.clear();
            }
            hashes.push(self.head.hash(&block));
            bytes += block.len() as u64;
            if bytes >= OFFER_BYTES || hashes.len() >= OFFER_HASHES {
                if given_up.load(Ordering::Relaxed) {
                    return Ok(());
                }
                say(stream, &CopyMessage::Offer { hashes: std::mem::take(&mut hashes) })?;
                bytes = 0;
            }
        }
        if !hashes.is_empty() {
            say(stream, &CopyMessage::Offer { hashes })?;
        }
        say(stream, &CopyMessage::Offer { hashes: Vec::new() })
    }

    /// Until the end; returns how many bytes need not be sent.
    fn receive_blocks(
        &self,
        stream: &Stream,
        progress: &Progress,
        abort: &AtomicBool,
    ) -> Result<u64, Refusal> {
        let mut hasher = self.head.hasher();
        let (mut index, mut reused, mut block) = (0, 0, Vec::new());
        loop {
            let frame = read_frame(&mut &*stream, MAX_FRAME_BYTES)?;
            go_on_unless(abort)?;
            let body = &frame[FRAME_HEADER_BYTES..];
            if frame[5] == FrameKind::CopyBlock as u8 {
                self.unpack(body, index, &mut block)?;
                self.write(index, &block)?;
                hasher.update(&block);
                progress.advance(block.len() as u64);
                index += 1;
                continue;
            }
            match codec::decode_message::<CopyMessage>(body).map_err(malformed)? {
                CopyMessage::Same { blocks } => {
                    for index in index..index.saturating_add(blocks) {
                        if self.length(index) == 0 {
                            return Err(out_of_order());
                        }
                        let in_place =
                            self.read(index, &mut block).map_err(|error| disk(&self.path, &error))?;
                        if !in_place {
                            self.write(index, &block)?;
                        }
                        hasher.update(&block);
                        progress.advance(block.len() as u64);
                        reused += block.len() as u64;
                    }
                    index += blocks;
                }
                CopyMessage::Pause => {}
                CopyMessage::End { hash } if self.length(index) == 0 && hash == hasher.digest128() => {
                    return Ok(reused);
                }
                CopyMessage::End { .. } => {
                    let detail = "(the copy differs from its checksum)";
                    return Err(Refusal::new(Code::DATABASE_CORRUPT, detail));
                }
                _ => return Err(out_of_order()),
            }
        }
    }

    fn unpack(&self, body: &[u8], index: u64, block: &mut Vec<u8>) -> Result<(), Refusal> {
        let (received, _) = codec::borrow_value::<Block<'_>>(body).map_err(malformed)?;
        let length = self.length(index);
        block.clear();
        if received.compressed {
            let (prefix, packed) = received.bytes.split_first_chunk::<4>().ok_or_else(out_of_order)?;
            if u32::from_le_bytes(*prefix) as usize != length {
                return Err(out_of_order());
            }
            block.resize(length, 0);
            let unpacked = lz4_flex::decompress_into(packed, block)
                .map_err(|error| Refusal::new(Code::COMMUNICATION_ERROR, error.to_string()))?;
            block.truncate(unpacked);
        } else {
            block.extend_from_slice(received.bytes);
        }
        if block.len() == length && length > 0 { Ok(()) } else { Err(out_of_order()) }
    }

    fn write(&self, index: u64, block: &[u8]) -> Result<(), Refusal> {
        self.file.write_all_at(block, index * self.head.block_bytes).map_err(|error| disk(&self.path, &error))
    }
}

/// Does something long while the sender hears that this node lives.
pub fn while_working<R: Send>(stream: &Stream, work: impl FnOnce() -> R + Send) -> Option<R> {
    let timeout = stream.write_timeout().unwrap_or(WORKING_INTERVAL);
    let interval = WORKING_INTERVAL.min(timeout / 3);
    let (done, when_done) = bounded(1);
    std::thread::scope(|scope| {
        threads::spawn_scoped(scope, "copy-work", move || done.send(work())).ok()?;
        loop {
            match when_done.recv_timeout(interval) {
                Ok(result) => return Some(result),
                // Whether the sender still listens does not matter: what is begun here is finished.
                Err(RecvTimeoutError::Timeout) => drop(say(stream, &CopyMessage::Working)),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    })
}

fn disk(path: &Path, error: &std::io::Error) -> Refusal {
    let code = if error.kind() == std::io::ErrorKind::StorageFull {
        Code::DISK_FULL
    } else {
        Code::OPERATION_FAILED
    };
    Refusal::new(code, format!("({}: {error})", path.display()))
}
