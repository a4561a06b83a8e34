//! Lines on their way to somebody who may be slow: a bounded queue between all threads of the server and one that waits.
//!
//! Invariants: adding never waits for whoever takes; what does not fit takes the place of the oldest lines, and how many
//! are gone is told to whoever takes; memory is bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines that are taken at once.
const MAX_TAKEN: usize = 64;
/// What a line costs beside its text.
const LINE_OVERHEAD_BYTES: usize = 64;

pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    limit_bytes: usize,
}

#[derive(Default)]
struct Inner {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
    /// Since somebody was told.
    dropped: u64,
    /// Lines that were added, and those of them that are written or gone.
    added: u64,
    done: u64,
    closed: bool,
}

/// What is to be written, in this order.
#[derive(Default)]
pub(super) struct Taken {
    /// So many lines are missing before these.
    pub(super) dropped: u64,
    pub(super) lines: Vec<Arc<str>>,
}

impl Queue {
    pub(super) fn new(limit_bytes: usize) -> Queue {
        Queue { inner: Mutex::default(), changed: Condvar::new(), limit_bytes }
    }

    pub(super) fn add(&self, line: &Arc<str>) {
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        inner.added += 1;
        inner.bytes += cost(line);
        inner.lines.push_back(Arc::clone(line));
        // The newest is kept in any case: it may be the server's last word.
        while inner.bytes > self.limit_bytes && inner.lines.len() > 1 {
            if let Some(oldest) = inner.lines.pop_front() {
                inner.bytes -= cost(&oldest);
                inner.dropped += 1;
                inner.done += 1;
            }
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Waits for lines, not longer than this. They count as written when [`Queue::wrote`] says so.
    pub(super) fn take(&self, patience: Duration) -> Taken {
        let deadline = Instant::now() + patience;
        let mut inner = self.lock();
        while inner.lines.is_empty() && Instant::now() < deadline {
            inner = self.wait(inner, deadline);
        }
        let count = inner.lines.len().min(MAX_TAKEN);
        let lines: Vec<_> = inner.lines.drain(..count).collect();
        inner.bytes -= lines.iter().map(cost).sum::<usize>();
        Taken { dropped: std::mem::take(&mut inner.dropped), lines }
    }

    pub(super) fn wrote(&self, lines: usize) {
        self.lock().done += lines as u64;
        self.changed.notify_all();
    }

    /// Waits until all that was added before is written; false if that takes longer.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut inner = self.lock();
        let wanted = inner.added;
        while inner.done < wanted && !inner.closed && Instant::now() < deadline {
            inner = self.wait(inner, deadline);
        }
        inner.done >= wanted
    }

    /// Nobody takes any more: lines are forgotten.
    pub(super) fn close(&self) {
        *self.lock() = Inner { closed: true, ..Inner::default() };
        self.changed.notify_all();
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, deadline: Instant) -> MutexGuard<'a, Inner> {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout(inner, left);
        waited.map_or_else(|error| error.into_inner().0, |waited| waited.0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(line: &Arc<str>) -> usize {
    line.len() + LINE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_counted_and_the_newest_is_kept() {
        let queue = Queue::new(10_000);
        for number in 0..100_000 {
            queue.add(&format!("line {number}").into());
        }
        assert!(!queue.flush(Duration::ZERO));
        let mut seen = 0;
        let mut last = String::new();
        loop {
            let taken = queue.take(Duration::ZERO);
            if taken.lines.is_empty() {
                break;
            }
            seen += taken.dropped + taken.lines.len() as u64;
            queue.wrote(taken.lines.len());
            last = taken.lines.last().unwrap().to_string();
        }
        assert_eq!((seen, last.as_str()), (100_000, "line 99999"));
        assert!(queue.flush(Duration::ZERO));
        queue.close();
        queue.add(&"x".into());
        assert!(queue.take(Duration::ZERO).lines.is_empty());
    }
}
