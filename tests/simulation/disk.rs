//! What a crash leaves on disk: a copy of a node's files, from which a power cut takes what was not synced.
//!
//! The log: of what comes after the last synced batch any part may be missing (torn), zero or wrong (flipped).
//! The database: SQLite syncs its own log at checkpoints only, so a power cut may take any tail of that.

use std::fs;
use std::path::{Path, PathBuf};

use hotstandby::codec::{self, FrameKind};
use hotstandby::storage::batch::Batch;

use crate::common::Random;

/// What is on disk for certain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Durable {
    /// The log's position, as (epoch, sequence).
    pub log: (u64, u64),
    /// SQLite's log: its salt and bytes when it was last synced.
    pub wal: (u64, usize),
}

/// What a power cut did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    Nothing,
    LogDropped,
    LogTorn,
    LogFlipped,
}

/// Copies database and log into an empty directory.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut names: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let text = name.to_string_lossy();
        if !text.ends_with("-shm") {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

pub fn database(directory: &Path) -> PathBuf {
    directory.join("solid.db")
}

fn wal(directory: &Path) -> PathBuf {
    directory.join("solid.db-wal")
}

/// Salt and length of what SQLite's log holds now.
pub fn wal_state(directory: &Path) -> (u64, usize) {
    let Ok(bytes) = fs::read(wal(directory)) else { return (0, 0) };
    if bytes.len() < 32 {
        return (0, 0);
    }
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let frame = 24 + number(8) as usize;
    let mut end = 32;
    while end + frame <= bytes.len() && bytes[end + 8..end + 16] == bytes[16..24] {
        end += frame;
    }
    (u64::from_be_bytes(bytes[16..24].try_into().unwrap()), end)
}

/// Takes what was not synced from a copy of the files.
pub fn cut_power(directory: &Path, durable: Durable, random: &mut Random) -> Loss {
    let (salt, end) = wal_state(directory);
    let kept = if salt == durable.wal.0 { durable.wal.1 } else { 32 };
    if end > kept {
        let mut bytes = fs::read(wal(directory)).unwrap();
        let cut = kept + random.below((end - kept) as u64 + 1) as usize;
        bytes[cut..end].fill(0);
        fs::write(wal(directory), bytes).unwrap();
    }
    cut_log(directory, durable.log, random)
}

fn cut_log(directory: &Path, durable: (u64, u64), random: &mut Random) -> Loss {
    let Some(path) = newest_segment(directory) else { return Loss::Nothing };
    let mut bytes = fs::read(&path).unwrap();
    let (from, end) = unsynced(&bytes, durable);
    if end <= from {
        return Loss::Nothing;
    }
    let cut = from + random.below((end - from) as u64) as usize;
    let loss = match random.below(3) {
        0 => {
            bytes[from..end].fill(0);
            Loss::LogDropped
        }
        1 => {
            bytes[cut..end].fill(0);
            Loss::LogTorn
        }
        _ => {
            bytes[cut] ^= 1 << random.below(8);
            bytes[cut + 1..end].fill(0);
            Loss::LogFlipped
        }
    };
    fs::write(path, bytes).unwrap();
    loss
}

fn newest_segment(directory: &Path) -> Option<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    segments.pop()
}

/// Where the batches after the durable one begin and end.
fn unsynced(bytes: &[u8], durable: (u64, u64)) -> (usize, usize) {
    let mut at = 0;
    let mut from = 0;
    while let Ok((kind, length)) = codec::check_frame(&bytes[at..]) {
        let frame = bytes::Bytes::copy_from_slice(&bytes[at..at + length]);
        at += length;
        let synced = match kind {
            FrameKind::Batch => Batch::parse(frame).is_ok_and(|batch| batch.after.progress() <= durable),
            _ => true,
        };
        if synced {
            from = at;
        }
    }
    (from, at)
}
