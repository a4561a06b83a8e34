//! Snapshots that keep SQLite's log from starting over: who is warned of, who is ended, what is said.
//!
//! A session that reads from one snapshot (an open REPEATABLE READ transaction, a query that runs, a portal that is not
//! fetched to its end) needs what SQLite's log held when it began, so everything that is written meanwhile stays in the log
//! as well. What counts is how much that is; the age alone only if it is wanted.
//!
//! Not here: the look itself and moving pages (the checkpointer). A copy's own snapshot is not a session's: it ends with
//! the copy, and until then ending sessions would help nobody.

use std::time::Duration;

use crate::error::ServerError;
use crate::services::registry::OpenSnapshot;

/// A younger one is not what the log waits for.
const LEAST_AGE: Duration = Duration::from_millis(500);

/// The parameters.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// General.SnapshotMaxSize, in bytes; 0: none.
    pub(crate) bytes: u64,
    /// General.SnapshotMaxAge; zero: none.
    pub(crate) age: Duration,
}

/// What is to be done about the open snapshots.
#[derive(Default)]
pub(crate) struct Verdict<'a> {
    /// Its owner is to be warned of.
    pub(crate) warn: Option<&'a OpenSnapshot>,
    /// Their owners are to be ended, for this reason.
    pub(crate) end: Vec<(&'a OpenSnapshot, ServerError)>,
}

/// `open`: oldest first; `log_bytes`: what SQLite's log holds; `copying`: a copy reads, too.
pub(crate) fn judge(open: &[OpenSnapshot], log_bytes: u64, limits: Limits, copying: bool) -> Verdict<'_> {
    let mut verdict = Verdict::default();
    let old: Vec<&OpenSnapshot> = open.iter().filter(|snapshot| snapshot.age >= LEAST_AGE).collect();
    if !limits.age.is_zero() {
        let too_old = old.iter().filter(|snapshot| snapshot.age > limits.age);
        verdict.end.extend(too_old.map(|snapshot| (*snapshot, ended_by_age(snapshot, limits))));
    }
    if !verdict.end.is_empty() || copying || limits.bytes == 0 {
        return verdict;
    }
    // The oldest first, in the hope that it is enough; if the log goes on growing, it is not.
    let number = match log_bytes {
        bytes if bytes >= limits.bytes + limits.bytes / 4 => old.len(),
        bytes if bytes >= limits.bytes => 1,
        bytes if bytes >= limits.bytes / 2 => {
            verdict.warn = old.first().copied();
            0
        }
        _ => 0,
    };
    verdict.end =
        old.into_iter().take(number).map(|one| (one, ended_by_size(one, log_bytes, limits))).collect();
    verdict
}

/// For the message log, and for whoever asks.
pub(crate) fn warning(snapshot: &OpenSnapshot, log_bytes: u64, limits: Limits) -> String {
    format!(
        "SQLite's log has grown to {} MB and cannot start over: {snapshot} has been reading from one snapshot. At {} MB (General.SnapshotMaxSize) the session is ended.",
        log_bytes >> 20,
        limits.bytes >> 20
    )
}

fn ended_by_size(snapshot: &OpenSnapshot, log_bytes: u64, limits: Limits) -> ServerError {
    ServerError::sql(
        "25P04",
        format!(
            "terminating connection because its snapshot, {} s old, keeps SQLite's log from starting over, which has grown to {} MB (General.SnapshotMaxSize is {} MB); read in shorter transactions, or raise General.SnapshotMaxSize",
            snapshot.age.as_secs(),
            log_bytes >> 20,
            limits.bytes >> 20
        ),
    )
}

fn ended_by_age(snapshot: &OpenSnapshot, limits: Limits) -> ServerError {
    ServerError::sql(
        "25P04",
        format!(
            "terminating connection because it has read from one snapshot for {} s (General.SnapshotMaxAge is {} s); read in shorter transactions, or raise General.SnapshotMaxAge",
            snapshot.age.as_secs(),
            limits.age.as_secs()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;
    const LIMITS: Limits = Limits { bytes: 100 * MB, age: Duration::ZERO };

    fn open(ages_ms: &[u64]) -> Vec<OpenSnapshot> {
        let of = |(id, age): (usize, &u64)| OpenSnapshot::of_session(id as u64, Duration::from_millis(*age));
        ages_ms.iter().enumerate().map(of).collect()
    }

    fn ended(open: &[OpenSnapshot], log_bytes: u64, limits: Limits, copying: bool) -> Vec<u64> {
        judge(open, log_bytes, limits, copying).end.iter().map(|(one, _)| one.session.id).collect()
    }

    #[test]
    fn size_decides_and_the_oldest_goes_first() {
        let open = open(&[600_000, 5_000, 800, 20]);
        assert!(judge(&open, 49 * MB, LIMITS, false).warn.is_none());
        let warned = judge(&open, 50 * MB, LIMITS, false);
        assert_eq!(warned.warn.map(|one| one.session.id), Some(0));
        assert!(warned.end.is_empty());
        assert_eq!(ended(&open, 100 * MB, LIMITS, false), [0]);
        assert_eq!(ended(&open, 125 * MB, LIMITS, false), [0, 1, 2], "a short read is not to blame");
        assert!(ended(&open, 1000 * MB, LIMITS, true).is_empty(), "a copy holds the log as well");
        let unlimited = Limits { bytes: 0, ..LIMITS };
        assert!(ended(&open, u64::MAX, unlimited, false).is_empty());
        let text = &judge(&open, 100 * MB, LIMITS, false).end[0].1;
        assert!(text.sqlstate == "25P04" && text.message().contains("General.SnapshotMaxSize"), "{text}");
    }

    #[test]
    fn age_counts_only_if_it_is_wanted() {
        let open = open(&[700_000, 5_000]);
        assert!(ended(&open, 0, LIMITS, false).is_empty());
        let limits = Limits { age: Duration::from_secs(600), ..LIMITS };
        assert_eq!(ended(&open, 0, limits, true), [0]);
        assert!(judge(&open, 0, limits, false).end[0].1.message().contains("General.SnapshotMaxAge"));
    }
}
