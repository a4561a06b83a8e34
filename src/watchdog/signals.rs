//! What each signal does to the watchdog. Not here: which signals there are (`signals`).

use super::journal::Journal;
use crate::error::ServerError;
use crate::signals::{self, Wish};

/// Takes over all signals, on a thread of its own: an order that is under way may take minutes.
pub(super) fn answer(journal: &Journal) -> Result<(), ServerError> {
    let journal = journal.clone();
    signals::answer(move |wish, name| match wish {
        Wish::End | Wish::EndByKey | Wish::EndAtOnce => {
            journal.say(&format!("{name}: the watchdog ends; nobody watches the pair from now on"));
            journal.flush();
            std::process::exit(0);
        }
        Wish::Reopen => {
            journal.reopen();
            journal.say(&format!("{name}: the log was opened anew"));
        }
        Wish::Nothing => journal.say(&format!("{name} means nothing to the watchdog")),
    })
}
