//! How far the log is, for those who wait for it: the secondary's apply and the sender of old batches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Published by the one thread that writes the log.
#[derive(Debug, Default)]
pub struct LogMark {
    written: AtomicU64,
    lock: Mutex<()>,
    moved: Condvar,
}

impl LogMark {
    /// Everything up to this sequence is in the file. May go back when pending batches are cut off.
    pub fn publish(&self, sequence: u64) {
        self.written.store(sequence, Ordering::Release);
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.moved.notify_all();
    }

    /// The sequence that is in the file.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Waits until more than `sequence` is in the file, at most so long. True if it is.
    pub fn wait_beyond(&self, sequence: u64, at_most: Duration) -> bool {
        if self.written() > sequence {
            return true;
        }
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.moved.wait_timeout_while(guard, at_most, |()| self.written() <= sequence);
        drop(waited);
        self.written() > sequence
    }
}
