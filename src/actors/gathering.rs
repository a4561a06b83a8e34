//! 1-safe batches on their way to the sender: sent at once while the secondary keeps up, gathered while it still has to
//! acknowledge what went before, and never for longer than HotStandby.1SafeMaxDelay.
//!
//! Not here: the clock and the connection. Invariant: batches leave in the order in which they came; a 2-safe batch, and
//! every message, leaves after all batches before it.

use bytes::Bytes;

use crate::storage::batch::Batch;

/// With so much gathered there is nothing to wait for.
const ENOUGH_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Default, Debug)]
pub(crate) struct Gathering {
    waiting: Vec<Bytes>,
    bytes: usize,
    /// Sequence of the last batch that came.
    last: u64,
    /// Sequence of the last batch that was sent.
    sent: u64,
    /// Up to here the secondary has everything.
    acknowledged: u64,
}

impl Gathering {
    /// A batch is to be sent; true if everything that waits has to leave now.
    pub(super) fn add(&mut self, batch: &Batch) -> bool {
        self.waiting.push(batch.bytes.clone());
        self.bytes += batch.bytes.len();
        self.last = batch.after.sequence;
        batch.header.needs_acknowledgement || self.bytes >= ENOUGH_BYTES || self.is_level()
    }

    /// The secondary has everything up to here; true if everything that waits has to leave now.
    pub(super) fn acknowledged(&mut self, sequence: u64) -> bool {
        self.acknowledged = sequence;
        self.is_level() && !self.waiting.is_empty()
    }

    /// What waits, in order; it counts as sent.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        self.sent = self.last;
        std::mem::take(&mut self.waiting)
    }

    fn is_level(&self) -> bool {
        self.sent <= self.acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsb::position::Position;
    use crate::storage::batch::BatchHeader;

    /// Batches 1, 2, … with these safenesses; true: 2-safe.
    fn batches(two_safe: &[bool], size: usize) -> Vec<Batch> {
        let mut before = Position::ORIGIN;
        let mut made = Vec::new();
        for needs_acknowledgement in two_safe {
            let header =
                BatchHeader { before, epoch: 1, count: 1, needs_acknowledgement: *needs_acknowledgement };
            let batch = Batch::seal(header, &vec![7; size]).unwrap();
            before = batch.after;
            made.push(batch);
        }
        made
    }

    #[test]
    fn while_the_secondary_is_level_nothing_waits() {
        let mut gathering = Gathering::default();
        for batch in batches(&[false; 5], 10) {
            assert!(gathering.add(&batch));
            assert_eq!(gathering.take(), std::slice::from_ref(&batch.bytes));
            assert!(!gathering.acknowledged(batch.after.sequence));
        }
    }

    #[test]
    fn what_waits_leaves_with_the_acknowledgement_in_order() {
        let batches = batches(&[false; 4], 10);
        let mut gathering = Gathering::default();
        assert!(gathering.add(&batches[0]));
        gathering.take();
        assert!(!gathering.add(&batches[1]) && !gathering.add(&batches[2]));
        assert!(gathering.acknowledged(1));
        assert_eq!(gathering.take(), [batches[1].bytes.clone(), batches[2].bytes.clone()]);
        // Batch 3 is on its way: 4 waits until it is acknowledged.
        assert!(!gathering.add(&batches[3]) && !gathering.acknowledged(2));
        assert!(gathering.acknowledged(3));
        assert_eq!(gathering.take(), [batches[3].bytes.clone()]);
    }

    #[test]
    fn a_2_safe_batch_takes_along_what_is_before_it() {
        let batches = batches(&[false, false, true], 10);
        let mut gathering = Gathering::default();
        gathering.add(&batches[0]);
        gathering.take();
        assert!(!gathering.add(&batches[1]) && gathering.add(&batches[2]));
        assert_eq!(gathering.take(), [batches[1].bytes.clone(), batches[2].bytes.clone()]);
    }

    #[test]
    fn much_does_not_wait() {
        let batches = batches(&[false, false], ENOUGH_BYTES);
        let mut gathering = Gathering::default();
        gathering.add(&batches[0]);
        gathering.take();
        assert!(gathering.add(&batches[1]));
    }
}
