//! Disks: that they are full or fail while the log is written, and what a crash leaves of a node's files.
//!
//! The log: of what comes after the last synced batch, a power cut or a failed sync may leave any part missing (torn),
//! zero or wrong (flipped). The database: SQLite syncs its own log at checkpoints only, so a power cut may take any tail
//! of that. And two things that no crash does: a bit of the synced log flips, rows change behind the product's back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hotstandby::codec::{self, FrameKind};
use hotstandby::storage::batch::Batch;
use hotstandby::storage::log::{Medium, Operation};
use rusqlite::Connection;

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

/// How a disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There is no room for new files.
    ForFiles,
    /// Nor within those that are there, as where nothing can be allocated in advance.
    ForBytes,
}

/// What is wrong with a node's disk.
#[derive(Debug, Default)]
pub struct Trouble {
    pub full: Option<Full>,
    /// This operation fails after so many that succeed, and every one after it; a write after so many bytes.
    pub failing: Option<(Operation, u32, usize)>,
    /// A write has found no room: what follows takes back what it has written, for which there is.
    takes_back: bool,
    /// Something has failed for good: the process must not go on.
    pub struck: bool,
}

impl Trouble {
    fn strike(&mut self, operation: Operation) -> Option<(usize, io::Error)> {
        if let Some((kind, left, written)) = &mut self.failing
            && *kind == operation
        {
            if *left == 0 {
                self.struck = true;
                // Only the first leaves something.
                return Some((std::mem::take(written), io::Error::from_raw_os_error(libc::EIO)));
            }
            *left -= 1;
        }
        let no_room = |written| Some((written, io::Error::from_raw_os_error(libc::ENOSPC)));
        match (operation, self.full) {
            (Operation::Allocate, Some(_)) => no_room(0),
            (Operation::Write, Some(Full::ForBytes)) => {
                self.takes_back = !self.takes_back;
                if self.takes_back { no_room(29) } else { None }
            }
            _ => None,
        }
    }
}

/// The disk under a node's log.
pub fn medium(trouble: &Arc<Mutex<Trouble>>) -> Medium {
    let trouble = Arc::clone(trouble);
    Medium::failing(Arc::new(move |operation| trouble.lock().unwrap().strike(operation)))
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
    cut_wal(directory, durable, random);
    cut_log(directory, durable.log, random)
}

/// Takes what was not synced from SQLite's log.
pub fn cut_wal(directory: &Path, durable: Durable, random: &mut Random) {
    let (salt, end) = wal_state(directory);
    let kept = if salt == durable.wal.0 { durable.wal.1 } else { 32 };
    if end > kept {
        let mut bytes = fs::read(wal(directory)).unwrap();
        let cut = kept + random.below((end - kept) as u64 + 1) as usize;
        bytes[cut..end].fill(0);
        fs::write(wal(directory), bytes).unwrap();
    }
}

/// Takes what was not synced from the log.
pub fn cut_log(directory: &Path, durable: (u64, u64), random: &mut Random) -> Loss {
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
    segments(directory).pop()
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    segments
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

/// Flips a bit within the log's batches, wherever; false if there are none.
pub fn flip_log(directory: &Path, random: &mut Random) -> bool {
    let segments = segments(directory);
    // Mostly where it is read again soon.
    let back = if random.below(3) == 0 { random.below(segments.len() as u64 + 1) as usize } else { 0 };
    let Some(path) = segments.iter().rev().nth(back).or(segments.last()) else { return false };
    let mut bytes = fs::read(path).unwrap();
    let (_, end) = unsynced(&bytes, (0, 0));
    if end == 0 {
        return false;
    }
    bytes[random.below(end as u64) as usize] ^= 1 << random.below(8);
    fs::write(path, bytes).unwrap();
    true
}

/// Somebody changes a row in the database's file while no server runs on it.
pub fn change_database(directory: &Path, random: &mut Random) {
    let connection = Connection::open(database(directory)).unwrap();
    let row = random.below(5) as i64;
    connection.execute("UPDATE counters SET n = n + 1000 WHERE id = ?", [row]).unwrap();
}
