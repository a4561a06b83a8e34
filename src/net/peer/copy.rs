//! A database image on its way from the primary to the other server (`hsb netcopy`).
//!
//! After the handshake: `Head`, blocks in order, `End` with a hash over the whole image; the receiver answers `Done`
//! once the copy is open, or `Failed`. The image is read from a snapshot, so writers go on meanwhile; it is written
//! beside the receiver's database and put in its place by the caller. Blocking, on threads of its own.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::handshake::{Failure, failure, lost, read_frame};
use crate::codec::{self, FRAME_HEADER_BYTES, FrameKind};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::storage::database::{self, Database};
use crate::storage::files;

/// Frames of a copy are at most so long: the largest block, and room for its head.
const MAX_BLOCK_FRAME_BYTES: usize = (256 << 20) + 4096;

#[derive(Serialize, Deserialize, Debug)]
enum CopyMessage {
    Head { page_bytes: u64, pages: u64, database_id: [u8; 16], position: Position },
    End { hash: u128 },
    Done,
    Failed { code: u32, detail: String },
}

#[derive(Serialize, Deserialize)]
struct Block<'a> {
    compressed: bool,
    #[serde(borrow, with = "serde_bytes")]
    bytes: &'a [u8],
}

/// How a copy is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// Bytes of a block; rounded to whole pages.
    pub block_bytes: usize,
    /// Compress blocks.
    pub compress: bool,
    /// Bytes per second at most.
    pub maximum_rate: Option<u64>,
    /// For each read and write.
    pub timeout: Duration,
}

/// How far a copy is, for `hsb status copy`; readable at any time.
#[derive(Debug, Default)]
pub struct CopyProgress {
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl CopyProgress {
    /// Bytes done and in all.
    pub fn bytes(&self) -> (u64, u64) {
        (self.done_bytes.load(Ordering::Relaxed), self.total_bytes.load(Ordering::Relaxed))
    }

    fn begin(&self, total: u64) {
        self.done_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(total, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Sends the image and waits until the receiver has opened it.
pub fn send(
    stream: &mut TcpStream,
    database: &Database,
    options: CopyOptions,
    progress: &CopyProgress,
) -> Result<(), Failure> {
    set_timeouts(stream, options.timeout)?;
    let connection = database.open_reader().map_err(failure)?;
    let sqlite = |error: rusqlite::Error| failure(ServerError::from(error));
    connection.execute_batch("BEGIN").map_err(sqlite)?;
    let (database_id, position) = database::read_identity(&connection).map_err(failure)?;
    let number = |sql: &str| {
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|value| value.unsigned_abs())
    };
    let page_bytes = number("PRAGMA page_size").map_err(sqlite)?;
    let pages = number("PRAGMA page_count").map_err(sqlite)?;
    progress.begin(pages * page_bytes);
    say(stream, &CopyMessage::Head { page_bytes, pages, database_id, position })?;

    let mut statement = connection.prepare("SELECT data FROM sqlite_dbpage").map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    let mut hasher = Xxh3::new();
    let mut block = Vec::with_capacity(options.block_bytes + page_bytes as usize);
    let mut pace = Pace::new(options.maximum_rate);
    while let Some(row) = rows.next().map_err(sqlite)? {
        let page = row
            .get_ref(0)
            .and_then(|value| value.as_blob().map_err(rusqlite::Error::from))
            .map_err(sqlite)?;
        block.extend_from_slice(page);
        if block.len() >= options.block_bytes {
            send_block(stream, &block, options.compress, &mut hasher, &mut pace, progress)?;
            block.clear();
        }
    }
    if !block.is_empty() {
        send_block(stream, &block, options.compress, &mut hasher, &mut pace, progress)?;
    }
    say(stream, &CopyMessage::End { hash: hasher.digest128() })?;
    match hear(stream)? {
        CopyMessage::Done => Ok(()),
        CopyMessage::Failed { code, detail } => {
            Err((Code::find(code).unwrap_or(Code::OPERATION_FAILED), detail))
        }
        _ => Err(out_of_order()),
    }
}

fn send_block(
    stream: &mut TcpStream,
    bytes: &[u8],
    compress: bool,
    hasher: &mut Xxh3,
    pace: &mut Pace,
    progress: &CopyProgress,
) -> Result<(), Failure> {
    hasher.update(bytes);
    let smaller = compress
        .then(|| lz4_flex::compress_prepend_size(bytes))
        .filter(|smaller| smaller.len() < bytes.len());
    let block = Block { compressed: smaller.is_some(), bytes: smaller.as_deref().unwrap_or(bytes) };
    let frame = codec::encode_message(FrameKind::CopyBlock, &block).map_err(malformed)?;
    stream.write_all(&frame).map_err(|error| lost(&error))?;
    progress.advance(bytes.len() as u64);
    pace.after(frame.len() as u64);
    Ok(())
}

/// Receives an image into `path`, checks it and puts it on disk. Nothing else is touched.
pub fn receive(
    stream: &mut TcpStream,
    path: &Path,
    timeout: Duration,
    progress: &CopyProgress,
) -> Result<([u8; 16], Position), Failure> {
    set_timeouts(stream, timeout)?;
    let CopyMessage::Head { page_bytes, pages, database_id, position } = hear(stream)? else {
        return Err(out_of_order());
    };
    let total = page_bytes.checked_mul(pages).ok_or_else(out_of_order)?;
    progress.begin(total);
    let disk = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::StorageFull {
            Code::DISK_FULL
        } else {
            Code::OPERATION_FAILED
        };
        (code, format!("({}: {error})", path.display()))
    };
    let mut file = files::create_private(path).map_err(disk)?;
    let mut hasher = Xxh3::new();
    let mut received = 0u64;
    let hash = loop {
        let frame = read_frame(stream, MAX_BLOCK_FRAME_BYTES)?;
        let body = &frame[FRAME_HEADER_BYTES..];
        if frame[5] != FrameKind::CopyBlock as u8 {
            match codec::decode_message::<CopyMessage>(body).map_err(malformed)? {
                CopyMessage::End { hash } => break hash,
                _ => return Err(out_of_order()),
            }
        }
        let (block, _) = codec::borrow_value::<Block<'_>>(body).map_err(malformed)?;
        let unpacked;
        let bytes = if block.compressed {
            unpacked = unpack(block.bytes)?;
            &unpacked[..]
        } else {
            block.bytes
        };
        received += bytes.len() as u64;
        if received > total {
            return Err(out_of_order());
        }
        hasher.update(bytes);
        file.write_all(bytes).map_err(disk)?;
        progress.advance(bytes.len() as u64);
    };
    if received != total || hasher.digest128() != hash {
        return Err((Code::DATABASE_CORRUPT, "(the copy differs from its checksum)".to_string()));
    }
    file.sync_all().map_err(disk)?;
    Ok((database_id, position))
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let length = bytes.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    if length > MAX_BLOCK_FRAME_BYTES {
        return Err(out_of_order());
    }
    lz4_flex::decompress_size_prepended(bytes).map_err(|error| (Code::COMMUNICATION_ERROR, error.to_string()))
}

/// Tells the sender how the copy ended. The sender may be gone; the copy stands all the same.
pub fn answer(stream: &mut TcpStream, outcome: &Result<(), Failure>) {
    let message = match outcome {
        Ok(()) => CopyMessage::Done,
        Err((code, detail)) => CopyMessage::Failed { code: code.number(), detail: detail.clone() },
    };
    let _ = say(stream, &message);
}

/// Keeps a copy below its rate.
struct Pace {
    rate: Option<u64>,
    begun: Instant,
    sent: u64,
}

impl Pace {
    fn new(rate: Option<u64>) -> Pace {
        Pace { rate, begun: Instant::now(), sent: 0 }
    }

    fn after(&mut self, bytes: u64) {
        self.sent += bytes;
        if let Some(rate) = self.rate.filter(|rate| *rate > 0) {
            let due = Duration::from_secs_f64(self.sent as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
        }
    }
}

fn set_timeouts(stream: &TcpStream, timeout: Duration) -> Result<(), Failure> {
    let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
    stream
        .set_read_timeout(timeout)
        .and_then(|()| stream.set_write_timeout(timeout))
        .map_err(|error| lost(&error))
}

fn say(stream: &mut TcpStream, message: &CopyMessage) -> Result<(), Failure> {
    let frame = codec::encode_message(FrameKind::Peer, message).map_err(malformed)?;
    stream.write_all(&frame).map_err(|error| lost(&error))
}

fn hear(stream: &mut TcpStream) -> Result<CopyMessage, Failure> {
    let frame = read_frame(stream, MAX_BLOCK_FRAME_BYTES)?;
    codec::decode_message(&frame[FRAME_HEADER_BYTES..]).map_err(malformed)
}

fn malformed(error: codec::FrameError) -> Failure {
    (Code::COMMUNICATION_ERROR, error.to_string())
}

fn out_of_order() -> Failure {
    (Code::COMMUNICATION_ERROR, "(the copy is not in the expected form)".to_string())
}
