//! What each signal does to the watchdog: every one that a service may get has an answer.
//!
//! Not here: SIGPIPE, which every Rust program ignores from its start; faults of the program itself; SIGKILL and SIGSTOP.

use signal_hook::consts::signal::*;

use super::journal::Journal;
use crate::error::{ServerError, invalid};
use crate::threads;

const ENDS: &[(i32, &str)] =
    &[(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGQUIT, "SIGQUIT"), (SIGXCPU, "SIGXCPU")];
/// They mean nothing, and would end a program that does not answer them.
const OTHERS: &[i32] = &[SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ];

/// Takes over all signals, on a thread of its own: an order that is under way may take minutes.
pub(super) fn answer(journal: &Journal) -> Result<(), ServerError> {
    let numbers = ENDS.iter().map(|(number, _)| *number).chain(OTHERS.iter().copied()).chain([SIGHUP]);
    let mut arriving = signal_hook::iterator::Signals::new(numbers)
        .map_err(|error| invalid(format!("Signals cannot be answered: {error}.")))?;
    let journal = journal.clone();
    let work = move || {
        for number in arriving.forever() {
            match ENDS.iter().find(|(end, _)| *end == number) {
                Some((_, name)) => {
                    journal.say(&format!("{name}: the watchdog ends; nobody watches the pair from now on"));
                    journal.flush();
                    std::process::exit(0);
                }
                None if number == SIGHUP => {
                    journal.reopen();
                    journal.say("SIGHUP: the log was opened anew");
                }
                None => journal.say(&format!("signal {number} means nothing to the watchdog")),
            }
        }
    };
    threads::spawn("signals", work).map(drop)
}
