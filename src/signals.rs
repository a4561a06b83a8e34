//! The signals that a service may get, and what each asks for: one table for all programs.
//!
//! SIGPIPE is ignored from the start of every Rust program; SIGKILL, SIGSTOP and the signals of job control are the system's.
//! Not here: how a program answers (`program::signals`, `watchdog::signals`).

use signal_hook::consts::signal::*;

use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::threads;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// An end in order.
    End,
    /// The same, and the second time an end at once.
    EndByKey,
    /// An end at once, as by kill -9, but for a message.
    EndAtOnce,
    /// The message log anew.
    Reopen,
    /// Nothing: without an answer it would end the process.
    Nothing,
}

/// All signals that are answered. SIGXFSZ: the write that was too long fails, which is handled where it happens.
const WISHES: &[(i32, &str, Wish)] = &[
    (SIGTERM, "SIGTERM", Wish::End),
    (SIGXCPU, "SIGXCPU", Wish::End),
    (SIGINT, "SIGINT", Wish::EndByKey),
    (SIGQUIT, "SIGQUIT", Wish::EndAtOnce),
    (SIGHUP, "SIGHUP", Wish::Reopen),
    (SIGUSR1, "SIGUSR1", Wish::Nothing),
    (SIGUSR2, "SIGUSR2", Wish::Nothing),
    (SIGALRM, "SIGALRM", Wish::Nothing),
    (SIGVTALRM, "SIGVTALRM", Wish::Nothing),
    (SIGPROF, "SIGPROF", Wish::Nothing),
    (SIGIO, "SIGIO", Wish::Nothing),
    (SIGXFSZ, "SIGXFSZ", Wish::Nothing),
];

/// Takes over all signals of the table: each is answered with its wish and its name, one after another, on a thread of its
/// own.
pub fn answer(mut answer: impl FnMut(Wish, &'static str) + Send + 'static) -> Result<(), ServerError> {
    let numbers = WISHES.iter().map(|row| row.0);
    let mut arriving = signal_hook::iterator::Signals::new(numbers)
        .map_err(|error| ServerError::with(Code::FAILED_UNEXPECTEDLY, format!("(signals: {error})")))?;
    let body = move || {
        for number in arriving.forever() {
            if let Some((_, name, wish)) = WISHES.iter().find(|row| row.0 == number) {
                answer(*wish, name);
            }
        }
    };
    threads::spawn("signals", body).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each signal that a program may catch and that ends it, or leaves a core, if it does not.
    #[test]
    fn every_deadly_signal_is_in_the_table() {
        // Faults of the program itself, and what cannot be caught, stay with the system; SIGPIPE is ignored.
        let others = [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSYS, SIGTRAP, SIGPIPE];
        let harmless = [SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH];
        for number in 1..=25 {
            let known = WISHES.iter().any(|row| row.0 == number);
            let left = others.contains(&number) || harmless.contains(&number);
            // 16 has no name on most machines.
            assert!(known != left || number == 16, "signal {number}");
        }
    }
}
