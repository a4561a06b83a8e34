//! How much memory SQLite may take for the statements of a session that reads.
//!
//! SQLite's own limit on its heap holds for the whole process: a reader that reaches it would make the writer and the apply
//! thread fail. So what SQLite allocates is counted by thread, and refused only while a session reads on its own connection
//! ([`reading`]); the statement then ends with "out of memory" and all others go on. Connections of readers are opened,
//! used and closed by one thread, which is what makes the count right.
//!
//! Invariant: outside of [`reading`] nothing is counted and nothing refused. Not here: the results on their way to a client.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Once, OnceLock};

use rusqlite::ffi;

/// A session has so much without asking what the others have.
pub const FREE_BYTES: i64 = 16 << 20;
/// What is taken from the common store at once.
const STEP_BYTES: i64 = 4 << 20;

/// What all sessions together may take beyond their free bytes, and what they have taken.
static TOTAL: AtomicI64 = AtomicI64::new(1 << 30);
static TAKEN: AtomicI64 = AtomicI64::new(0);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing is counted.
    Off,
    /// Counted and never refused.
    Counting,
    /// Refused beyond the limits.
    Limiting,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Off) };
    static USED: Cell<i64> = const { Cell::new(0) };
    static GRANTED: Cell<i64> = const { Cell::new(0) };
}

/// Memory of all sessions' reading statements together; a session may take a quarter of it.
pub fn set_total(bytes: u64) {
    TOTAL.store(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
}

/// What one session may take.
pub fn session_bytes() -> i64 {
    TOTAL.load(Ordering::Relaxed) / 4
}

/// What SQLite holds of this session's reading connection, about.
pub fn used_bytes() -> i64 {
    USED.get()
}

/// Begins to count anew, when nothing is held any more.
pub fn forget() {
    USED.set(0);
    TAKEN.fetch_sub(GRANTED.replace(0), Ordering::Relaxed);
}

/// While it lives, this thread's statements are in another mode.
pub struct Scope {
    before: Mode,
}

/// The session reads on its own connection: memory is limited.
pub fn reading() -> Scope {
    Scope { before: MODE.replace(Mode::Limiting) }
}

/// Values are fetched, for which nothing may be refused: rusqlite takes a value that SQLite could not make room for as an
/// error of its own and panics. Whoever fetches bounds what that comes to.
pub fn fetching() -> Scope {
    let before = MODE.get();
    if before == Mode::Limiting {
        MODE.set(Mode::Counting);
    }
    Scope { before }
}

impl Drop for Scope {
    fn drop(&mut self) {
        MODE.set(self.before);
    }
}

/// Counts; false if it is too much.
fn admit(bytes: i64) -> bool {
    let mode = MODE.get();
    if mode == Mode::Off {
        return true;
    }
    let limiting = mode == Mode::Limiting;
    let used = USED.get() + bytes;
    if limiting && used > session_bytes() {
        return false;
    }
    let granted = GRANTED.get();
    let lacking = used - FREE_BYTES - granted;
    if lacking > 0 {
        let step = lacking.max(STEP_BYTES);
        let before = TAKEN.fetch_add(step, Ordering::Relaxed);
        if limiting && before + step > TOTAL.load(Ordering::Relaxed) {
            TAKEN.fetch_sub(step, Ordering::Relaxed);
            return false;
        }
        GRANTED.set(granted + step);
    }
    USED.set(used);
    true
}

fn give_back(bytes: i64) {
    if MODE.get() == Mode::Off {
        return;
    }
    let used = (USED.get() - bytes).max(0);
    USED.set(used);
    // What a statement no longer needs is there for others before its session ends; not to the last byte, so that a
    // session at the edge of a step does not go to and fro.
    let granted = GRANTED.get();
    let spare = granted - (used - FREE_BYTES).max(0);
    if spare >= 2 * STEP_BYTES {
        GRANTED.set(granted - spare);
        TAKEN.fetch_sub(spare, Ordering::Relaxed);
    }
}

/// SQLite's own allocator, which does the work.
struct Allocator {
    allocate: unsafe extern "C" fn(c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    resize: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    size: unsafe extern "C" fn(*mut c_void) -> c_int,
}

static ALLOCATOR: OnceLock<Allocator> = OnceLock::new();

/// Puts the count in front of SQLite's allocator. Has to come before the process uses SQLite; without it nothing is limited.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        if !put_in_front() {
            log::warn!("SQLite is in use already: the memory of reading statements is not limited");
        }
    });
}

fn put_in_front() -> bool {
    // SAFETY: an all-zero structure of pointers and function options is a valid one, and SQLite fills it in.
    let mut methods: ffi::sqlite3_mem_methods = unsafe { std::mem::zeroed() };
    // SAFETY: the argument is what this option of sqlite3_config asks for. It is refused once SQLite is in use.
    let result = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, &raw mut methods) };
    let (Some(allocate), Some(free), Some(resize), Some(size)) =
        (methods.xMalloc, methods.xFree, methods.xRealloc, methods.xSize)
    else {
        return false;
    };
    if result != ffi::SQLITE_OK || ALLOCATOR.set(Allocator { allocate, free, resize, size }).is_err() {
        return false;
    }
    methods.xMalloc = Some(counted_allocate);
    methods.xFree = Some(counted_free);
    methods.xRealloc = Some(counted_resize);
    // SAFETY: as above; SQLite copies the structure, and its functions are static.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods) == ffi::SQLITE_OK }
}

unsafe extern "C" fn counted_allocate(bytes: c_int) -> *mut c_void {
    let Some(allocator) = ALLOCATOR.get() else { return std::ptr::null_mut() };
    if !admit(i64::from(bytes)) {
        return std::ptr::null_mut();
    }
    // SAFETY: SQLite's own function, called as SQLite would.
    unsafe {
        if MODE.get() == Mode::Off {
            return (allocator.allocate)(bytes);
        }
        let place = (allocator.allocate)(bytes);
        let unused = if place.is_null() { bytes } else { bytes - (allocator.size)(place) };
        give_back(i64::from(unused));
        place
    }
}

unsafe extern "C" fn counted_free(place: *mut c_void) {
    let Some(allocator) = ALLOCATOR.get() else { return };
    // SAFETY: as above; the place came from this allocator.
    unsafe {
        if MODE.get() != Mode::Off {
            give_back(i64::from((allocator.size)(place)));
        }
        (allocator.free)(place);
    }
}

unsafe extern "C" fn counted_resize(place: *mut c_void, bytes: c_int) -> *mut c_void {
    let Some(allocator) = ALLOCATOR.get() else { return std::ptr::null_mut() };
    // SAFETY: as above.
    unsafe {
        if MODE.get() == Mode::Off {
            return (allocator.resize)(place, bytes);
        }
        let more = i64::from(bytes) - i64::from((allocator.size)(place));
        if more > 0 && !admit(more) {
            return std::ptr::null_mut();
        }
        let resized = (allocator.resize)(place, bytes);
        // What was admitted and is not used, or what became free.
        let unused = match resized.is_null() {
            true => more.max(0),
            false => more.max(0) - more + i64::from(bytes - (allocator.size)(resized)),
        };
        give_back(unused);
        resized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_session_that_reads_is_counted_and_refused() {
        let (session, total) = (session_bytes(), TOTAL.load(Ordering::Relaxed));
        assert!(admit(i64::MAX / 2), "outside nothing is refused");
        assert_eq!(used_bytes(), 0);
        {
            let _reading = reading();
            assert!(admit(session) && !admit(1));
            {
                let _fetching = fetching();
                assert!(admit(1 << 20));
            }
            assert!(!admit(1));
            give_back(session + (1 << 20));
            // What the statement had is there for others while the session lives on.
            assert!(GRANTED.get() < 2 * STEP_BYTES, "{}", GRANTED.get());
            assert!(admit(FREE_BYTES + 1));
        }
        assert!(TAKEN.load(Ordering::Relaxed) > 0);
        forget();
        assert_eq!((used_bytes(), GRANTED.get()), (0, 0));
        // All others together leave a session what is free.
        TAKEN.fetch_add(total, Ordering::Relaxed);
        let _reading = reading();
        assert!(admit(FREE_BYTES) && !admit(1));
        TAKEN.fetch_sub(total, Ordering::Relaxed);
        forget();
    }
}
