//! The lock of a database: a file that is locked as long as a server runs there, and that says what the server was last.
//!
//! Its words are for one message of the next start (30502). Nothing is decided by them, so they are not synced.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::state::State;
use crate::storage::files;

/// Behind the state, once the server has ended in order.
const IN_ORDER: &str = "ended in order";
const MAX_BYTES: usize = 100;

/// See the module. The lock ends with the value, or with the process.
pub(super) struct DatabaseLock(File);

impl DatabaseLock {
    /// A second server on the same files would ruin them.
    pub(super) fn take(database_file: &Path) -> Result<DatabaseLock, ServerError> {
        let path = files::beside(database_file, ".lock");
        let refuse =
            |why: String| ServerError::with(Code::OPERATION_FAILED, format!("{}: {why}", path.display()));
        // Whoever does not get the lock must leave the words of its holder alone.
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(|error| refuse(error.to_string()))?;
        match file.try_lock() {
            Ok(()) => Ok(DatabaseLock(file)),
            Err(TryLockError::WouldBlock) => Err(refuse(
                "another server runs on this database; stop it, or start in another directory (-c).".into(),
            )),
            Err(TryLockError::Error(error)) => Err(refuse(error.to_string())),
        }
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        &self.0
    }

    /// What the operator should know of the server that ran here last; nothing if it ended in order as no primary.
    pub(super) fn what_it_was(&self) -> Option<String> {
        let mut words = [0; MAX_BYTES];
        let length = self.0.read_at(&mut words, 0).unwrap_or_default();
        let words = String::from_utf8_lossy(&words[..length]);
        let (state, in_order) = match words.trim().strip_suffix(IN_ORDER) {
            Some(state) => (state.trim(), true),
            None => (words.trim(), false),
        };
        let state = State::named(state).filter(|state| state.is_primary());
        match (state, in_order) {
            _ if words.is_empty() => None,
            (None, true) => None,
            (None, false) => Some("not shut down in order".to_owned()),
            (Some(state), true) => Some(state.to_string()),
            (Some(state), false) => Some(format!("{state}, and not shut down in order")),
        }
    }

    /// The server is in this state from now on.
    pub(super) fn note(&self, state: State) {
        self.write(state.name());
    }

    /// The server ends in this state, in order.
    pub(super) fn note_end(&self, state: State) {
        self.write(&format!("{state} {IN_ORDER}"));
    }

    /// Another database is here now.
    pub(super) fn forget(&self) {
        if let Err(error) = self.0.set_len(0) {
            log::warn!("the lock file cannot be cleared: {error}");
        }
    }

    fn write(&self, words: &str) {
        // One write over the words before, so that there is no moment without any.
        if let Err(error) = self.0.write_all_at(format!("{words:<MAX_BYTES$}").as_bytes(), 0) {
            log::warn!("the lock file cannot be written: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_what_the_server_was() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("solid.db");
        let was = || DatabaseLock::take(&database).unwrap().what_it_was();
        assert_eq!(was(), None);
        for (state, at_the_end, in_between) in [
            (
                State::PrimaryUncertain,
                Some("PRIMARY UNCERTAIN"),
                "PRIMARY UNCERTAIN, and not shut down in order",
            ),
            (State::Standalone, Some("STANDALONE"), "STANDALONE, and not shut down in order"),
            (State::SecondaryAlone, None, "not shut down in order"),
            (State::Offline, None, "not shut down in order"),
            (State::Plain, None, "not shut down in order"),
        ] {
            DatabaseLock::take(&database).unwrap().note(state);
            assert_eq!(was().as_deref(), Some(in_between), "{state:?}");
            let held = DatabaseLock::take(&database).unwrap();
            held.note_end(state);
            assert!(DatabaseLock::take(&database).is_err());
            assert_eq!(held.what_it_was().as_deref(), at_the_end, "{state:?}");
        }
        DatabaseLock::take(&database).unwrap().note(State::PrimaryAlone);
        DatabaseLock::take(&database).unwrap().forget();
        assert_eq!(was(), None);
    }
}
