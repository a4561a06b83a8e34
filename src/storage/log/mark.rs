//! How far the log is, for those who wait for it: the secondary's apply and the sender of old batches.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::hsb::position::Position;

/// Published by the one thread that writes the log.
#[derive(Debug, Default)]
pub struct LogMark {
    log: Mutex<Mark>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Mark {
    written: Position,
    ended: bool,
}

impl LogMark {
    fn lock(&self) -> MutexGuard<'_, Mark> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything up to this position is in the file. Goes back when a pending batch is cut off.
    pub fn publish(&self, position: Position) {
        self.lock().written = position;
        self.moved.notify_all();
    }

    /// Nothing more will be written: the server is going down.
    pub fn end(&self) {
        self.lock().ended = true;
        self.moved.notify_all();
    }

    /// Whether the log has ended, so that waiting for it is in vain.
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// The sequence that is in the file.
    pub fn written(&self) -> u64 {
        self.lock().written.sequence
    }

    /// Waits until more than `sequence` is in the file, at most so long.
    pub fn wait_beyond(&self, sequence: u64, at_most: Duration) {
        self.wait(at_most, |written| written.sequence > sequence);
    }

    /// Waits until the batch that leads to `position` is in the file, at most so long. True if it is. A pending batch
    /// of an older epoch, which is still to be cut off, does not count for it.
    pub fn wait_for(&self, position: Position, at_most: Duration) -> bool {
        self.wait(at_most, |written| written.progress() >= position.progress())
    }

    fn wait(&self, at_most: Duration, reached: impl Fn(&Position) -> bool) -> bool {
        let waits = |mark: &mut Mark| !mark.ended && !reached(&mark.written);
        let waited = self.moved.wait_timeout_while(self.lock(), at_most, waits);
        let (mark, _) = waited.unwrap_or_else(PoisonError::into_inner);
        reached(&mark.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsb::position::Chain;

    #[test]
    fn a_pending_batch_does_not_stand_for_the_one_that_replaces_it() {
        let at = |epoch, sequence| Position { epoch, sequence, chain: Chain::default() };
        let mark = LogMark::default();
        mark.publish(at(1, 12));
        assert!(!mark.wait_for(at(2, 10), Duration::ZERO));
        mark.publish(at(2, 10));
        assert!(mark.wait_for(at(2, 10), Duration::ZERO));
    }
}
