//! Snapshots that keep SQLite's log from starting over: who is warned of, who is ended, what is said.
//!
//! A session that reads from one snapshot (an open REPEATABLE READ transaction, a query that runs, a portal that is not
//! fetched to its end) needs what SQLite's log held when it began, so everything that is written meanwhile stays in the log
//! as well. What counts is how much that is, since it began: what was in the log before is not its doing. The age counts only
//! if it is wanted.
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

/// How long SQLite's log was when each snapshot was first seen.
#[derive(Default)]
pub(crate) struct Beginnings(Vec<(OpenSnapshot, u64)>);

impl Beginnings {
    /// Looks at the snapshots that are open; `log_bytes`: what SQLite's log holds now.
    pub(crate) fn look(&mut self, open: &[OpenSnapshot], log_bytes: u64) {
        self.0.retain(|(known, _)| open.iter().any(|now| now.is(known)));
        for (_, bytes) in &mut self.0 {
            // It has started over: the snapshot needs none of what it held.
            *bytes = (*bytes).min(log_bytes);
        }
        for snapshot in open {
            if !self.0.iter().any(|(known, _)| known.is(snapshot)) {
                self.0.push((snapshot.clone(), log_bytes));
            }
        }
    }

    /// What has been written since the snapshot was first seen.
    fn since(&self, snapshot: &OpenSnapshot, log_bytes: u64) -> u64 {
        let before =
            self.0.iter().find(|(known, _)| known.is(snapshot)).map_or(log_bytes, |(_, bytes)| *bytes);
        log_bytes.saturating_sub(before)
    }
}

/// `open`: oldest first; `log_bytes`: what SQLite's log holds; `copying`: a copy reads, too.
pub(crate) fn judge<'a>(
    open: &'a [OpenSnapshot],
    log_bytes: u64,
    beginnings: &Beginnings,
    limits: Limits,
    copying: bool,
) -> Verdict<'a> {
    let mut verdict = Verdict::default();
    let old: Vec<&OpenSnapshot> = open.iter().filter(|snapshot| snapshot.age >= LEAST_AGE).collect();
    if !limits.age.is_zero() {
        let too_old = old.iter().filter(|snapshot| snapshot.age > limits.age);
        verdict.end.extend(too_old.map(|snapshot| (*snapshot, ended_by_age(snapshot, limits))));
    }
    if !verdict.end.is_empty() || copying || limits.bytes == 0 {
        return verdict;
    }
    let since = |snapshot: &OpenSnapshot| beginnings.since(snapshot, log_bytes);
    // Where snapshots that follow one another keep the log for ever, each has less to answer for.
    let allowed = if log_bytes >= 2 * limits.bytes { limits.bytes / 4 } else { limits.bytes };
    let too_much: Vec<&OpenSnapshot> = old.iter().copied().filter(|one| since(one) >= allowed).collect();
    // The oldest first, in the hope that it is enough; if the log goes on growing, it is not.
    let number = if log_bytes >= limits.bytes + limits.bytes / 4 { too_much.len() } else { 1 };
    verdict.warn = old.first().copied().filter(|one| too_much.is_empty() && since(one) >= limits.bytes / 2);
    let end = |one| (one, ended_by_size(one, log_bytes, since(one), limits));
    verdict.end = too_much.into_iter().take(number).map(end).collect();
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

fn ended_by_size(snapshot: &OpenSnapshot, log_bytes: u64, since: u64, limits: Limits) -> ServerError {
    ServerError::sql(
        "25P04",
        format!(
            "terminating connection because its snapshot, {} s old, keeps SQLite's log from starting over, which has grown by {} MB since, to {} MB (General.SnapshotMaxSize is {} MB); read in shorter transactions, or raise General.SnapshotMaxSize",
            snapshot.age.as_secs(),
            since >> 20,
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

    /// As if all had begun while the log was empty.
    fn judge(open: &[OpenSnapshot], log_bytes: u64, limits: Limits, copying: bool) -> Verdict<'_> {
        let mut beginnings = Beginnings::default();
        beginnings.look(open, 0);
        super::judge(open, log_bytes, &beginnings, limits, copying)
    }

    fn ids(verdict: &Verdict<'_>) -> Vec<u64> {
        verdict.end.iter().map(|(one, _)| one.session.id).collect()
    }

    fn ended(open: &[OpenSnapshot], log_bytes: u64, limits: Limits, copying: bool) -> Vec<u64> {
        ids(&judge(open, log_bytes, limits, copying))
    }

    #[test]
    fn a_reader_answers_only_for_what_was_written_since_it_began() {
        let open = open(&[600_000, 5_000]);
        let mut beginnings = Beginnings::default();
        // The first one has begun after a transaction that is larger than the limit, the second one later still.
        beginnings.look(&open[..1], 150 * MB);
        beginnings.look(&open, 180 * MB);
        let at = |log_bytes| super::judge(&open, log_bytes, &beginnings, LIMITS, false);
        assert!(at(180 * MB).end.is_empty() && at(180 * MB).warn.is_none());
        // Beyond twice the limit the log is to become short all the same.
        assert_eq!(ids(&at(204 * MB)), [0]);
        assert_eq!(ids(&at(210 * MB)), [0, 1]);
        // Whoever has begun at the end of a long log is not to blame for it, however long it is.
        beginnings.look(&open, 900 * MB);
        let fresh = OpenSnapshot::of_session(7, Duration::from_millis(700));
        beginnings.look(std::slice::from_ref(&fresh), 900 * MB);
        assert!(
            super::judge(std::slice::from_ref(&fresh), 900 * MB, &beginnings, LIMITS, false).end.is_empty()
        );
        // The log has started over meanwhile.
        beginnings.look(std::slice::from_ref(&fresh), 10 * MB);
        let now = |log_bytes| {
            ids(&super::judge(std::slice::from_ref(&fresh), log_bytes, &beginnings, LIMITS, false))
        };
        assert_eq!((now(109 * MB), now(110 * MB)), (vec![], vec![7]));
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
