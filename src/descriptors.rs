//! File descriptors: how many this process may have open, what they are kept for, and some that are held in reserve.
//!
//! The budget keeps SQL clients and strangers from taking what the server needs for itself. What can still use them up
//! (temporary files of large sorts, other programs on the machine) must not stop the log: what has to be opened for it is
//! opened in place of a descriptor from the reserve. Not here: who is refused.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What one SQL session costs: its socket, the database and SQLite's log.
const FOR_A_SESSION: usize = 3;
/// Console connections that have logged in.
pub const CONSOLES: usize = 32;
/// Connections of the other server beside the link.
pub const PEERS: usize = 16;
/// Kept for the server itself: log files, its connections to the database, the link, copies, temporary files.
const FOR_THE_SERVER: usize = 64;
/// Connections that have not logged in take an eighth of all, but at least so many.
const LEAST_WAITING: usize = 16;
/// Where no limit is known.
const UNLIMITED: usize = 1 << 20;
const HELD: usize = 8;

/// Raises the limit to what the system allows this process.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        log::warn!("the limit of open files cannot be raised: {error}");
    }
}

/// What a server does with its descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// All that the process may have.
    pub limit: usize,
    /// SQL sessions that there is room for.
    pub sessions: usize,
    /// Connections that have not logged in.
    pub waiting: usize,
    /// With a smaller limit there is room for no session at all.
    pub least_limit: usize,
}

impl Budget {
    /// Of this process, from what it may have and has open now.
    pub fn of_this_process() -> Budget {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(UNLIMITED, |limit| usize::try_from(limit).unwrap_or(UNLIMITED));
        // Not known everywhere; then what the server keeps for itself has to do.
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
        Budget::of(limit, open)
    }

    fn of(limit: usize, open: usize) -> Budget {
        let waiting = (limit / 8).max(LEAST_WAITING);
        let kept = open + FOR_THE_SERVER + CONSOLES + PEERS;
        let least = kept + FOR_A_SESSION;
        Budget {
            limit,
            sessions: limit.saturating_sub(kept + waiting) / FOR_A_SESSION,
            waiting,
            least_limit: (least + LEAST_WAITING).max(least * 8 / 7 + 1),
        }
    }
}

static RESERVE: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Opens something that the server cannot do without: if no descriptor is left, one of the reserve makes way for it.
pub fn open_surely<T>(open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    open_surely_unless(open, is_exhausted)
}

/// The same for what has errors of its own; `is_exhausted` tells that descriptors are missing.
pub fn open_surely_unless<T, E: std::fmt::Display>(
    mut open: impl FnMut() -> Result<T, E>,
    is_exhausted: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let mut opened = open();
    // It may need more than one, and others may be faster.
    while let Err(error) = &opened
        && is_exhausted(error)
    {
        let Some(held) = RESERVE.lock().unwrap_or_else(PoisonError::into_inner).pop() else { break };
        log::warn!("no descriptors are left ({error}): one of the reserve is used");
        drop(held);
        opened = open();
    }
    opened
}

/// Whether nothing can be opened at this moment for want of a descriptor.
pub fn are_exhausted() -> bool {
    File::open("/dev/null").is_err_and(|error| is_exhausted(&error))
}

/// Fills the reserve, as far as there are descriptors for it. Called at the start and now and then.
pub fn fill_reserve() {
    let mut reserve = RESERVE.lock().unwrap_or_else(PoisonError::into_inner);
    while reserve.len() < HELD {
        match File::open("/dev/null") {
            Ok(file) => reserve.push(file),
            Err(_) => return,
        }
    }
}

/// No descriptors are left, in this process or on this machine.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_needs_is_kept_whatever_the_limit_is() {
        for limit in [100, 160, 256, 1024, 4096, 1 << 20] {
            let open = 30;
            let budget = Budget::of(limit, open);
            let spent = open + CONSOLES + PEERS + budget.waiting + budget.sessions * FOR_A_SESSION;
            assert!(budget.sessions == 0 || spent + FOR_THE_SERVER <= limit, "{limit}: {budget:?}");
            assert_eq!(budget.sessions > 0, limit >= budget.least_limit, "{budget:?}");
            let least = Budget::of(budget.least_limit, open);
            assert!(least.sessions > 0, "{least:?}");
        }
        assert_eq!(Budget::of(100, 30).sessions, 0);
        assert!(Budget::of(256, 30).sessions >= 20);
        assert!(Budget::of(1024, 30).sessions >= 200);
        assert!(Budget::of(4096, 30).sessions >= 1000);
    }

    #[test]
    fn what_must_be_opened_takes_from_the_reserve() {
        fill_reserve();
        let mut tries = 0;
        let opened = open_surely(|| {
            tries += 1;
            if tries < 3 { Err(io::Error::from_raw_os_error(libc::EMFILE)) } else { Ok(tries) }
        });
        assert_eq!(opened.unwrap(), 3);
        fill_reserve();
        let mut tries = 0;
        let refused: io::Result<()> = open_surely(|| {
            tries += 1;
            Err(io::Error::from_raw_os_error(libc::EACCES))
        });
        assert_eq!((refused.unwrap_err().raw_os_error(), tries), (Some(libc::EACCES), 1));
    }
}
