//! The one door to threads: each has a name and a stack that SQL fits into, and one that cannot be started is an error and
//! no panic.
//!
//! For what keeps the pair alive (consoles, the other server, dialling, taking over) a few are kept in reserve ([`run`]), not
//! for SQL clients: those can be refused ([`try_run`]). Invariant: work that is given to the reserve is done, at worst after
//! other work.

use std::sync::{Arc, LazyLock, Mutex, Once, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::error::ServerError;
use crate::hsb::codes::Code;

/// Stack of a thread that runs SQL: SQLite's limits on depth (`storage::limits`) fit into it. Only what is used of it takes memory.
pub const STACK_BYTES: usize = 8 << 20;

type Work = Box<dyn FnOnce() + Send>;

/// Threads that wait for work for which no new one can be started.
struct Reserve {
    to_do: Sender<Work>,
    done_by: Receiver<Work>,
}

/// For work that comes to its end by itself.
static FOR_WORK: LazyLock<Reserve> = LazyLock::new(Reserve::new);
/// For what lasts as long as somebody outside likes: that must not keep the others from their work.
static FOR_CONSOLES: LazyLock<Reserve> = LazyLock::new(Reserve::new);

impl Reserve {
    fn new() -> Reserve {
        let (to_do, done_by) = unbounded();
        Reserve { to_do, done_by }
    }

    fn start(&self, count: usize) {
        for _ in 0..count {
            let done_by = self.done_by.clone();
            let work_on = move || done_by.iter().for_each(|work| work());
            if let Err(error) = named("reserve").spawn(work_on) {
                return log::warn!("no thread can be kept in reserve: {error}");
            }
        }
    }

    fn run(&self, name: &str, work: Work) {
        if let Err((error, work)) = try_run(name, work, |work| work()) {
            log::warn!(
                "no thread can be started for '{name}' ({error}): one that is kept in reserve does it"
            );
            // Never closed: the reserve holds both ends.
            let _ = self.to_do.send(work);
        }
    }
}

/// A thread that its program cannot do without, for as long as it runs.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServerError> {
    named(name).spawn(body).map_err(|error| not_started(name, &error))
}

/// A thread that ends before `scope` does.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, ServerError> {
    named(name).spawn_scoped(scope, body).map_err(|error| not_started(name, &error))
}

fn named(name: &str) -> Builder {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES)
}

fn not_started(name: &str, error: &std::io::Error) -> ServerError {
    ServerError::with(Code::FAILED_UNEXPECTEDLY, format!("(thread {name}: {error})"))
}

/// Does it with what is given on a thread of its own; if none can be started, that comes back with the reason.
pub fn try_run<Given: Send + 'static>(
    name: &str,
    given: Given,
    work: impl FnOnce(Given) + Send + 'static,
) -> Result<(), (std::io::Error, Given)> {
    // A thread that cannot be started would take what it was given with it.
    let kept = Arc::new(Mutex::new(Some(given)));
    let take = |kept: &Mutex<Option<Given>>| kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    let handed = Arc::clone(&kept);
    let body = move || {
        if let Some(given) = take(&handed) {
            work(given);
        }
    };
    match named(name).spawn(body) {
        Ok(_) => Ok(()),
        Err(error) => take(&kept).map_or(Ok(()), |given| Err((error, given))),
    }
}

/// Starts the threads that are kept: once in a process.
pub fn keep_some() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        FOR_WORK.start(4);
        FOR_CONSOLES.start(4);
    });
}

/// Runs it on a thread of its own; if none can be started, on one that is kept.
pub fn run(name: &str, work: impl FnOnce() + Send + 'static) {
    FOR_WORK.run(name, Box::new(work));
}

/// The same for a console, which stays as long as it likes.
pub fn run_console(name: &str, work: impl FnOnce() + Send + 'static) {
    FOR_CONSOLES.run(name, Box::new(work));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_thread_can_be_started_for_is_done_by_one_that_is_kept() {
        keep_some();
        let (done, when_done) = unbounded();
        let name = || std::thread::current().name().map(str::to_owned);
        for _ in 0..20 {
            let done = done.clone();
            FOR_WORK.to_do.send(Box::new(move || drop(done.send(name())))).unwrap();
        }
        for _ in 0..20 {
            assert_eq!(when_done.recv().unwrap().as_deref(), Some("reserve"));
        }
        run("usual", move || drop(done.send(name())));
        assert_eq!(when_done.recv().unwrap().as_deref(), Some("usual"));
    }
}
