//! WatchdogLog: one line per message, also on stderr. Not here: what is said when.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{ServerError, invalid};
use crate::logging::timestamp;
use crate::storage::files;

/// The open log. Invariant: one watchdog writes it, so that two do not watch one pair from one directory.
pub(super) struct Journal(File);

impl Journal {
    pub(super) fn open(path: &Path) -> Result<Journal, ServerError> {
        let shown = path.display();
        let file = files::open_appending(path)
            .map_err(|error| invalid(format!("The watchdog's log {shown} cannot be opened: {error}.")))?;
        match file.try_lock() {
            Ok(()) => Ok(Journal(file)),
            Err(TryLockError::WouldBlock) => Err(invalid(format!(
                "A watchdog runs already with the log {shown}; one is enough, two are dangerous."
            ))),
            Err(TryLockError::Error(error)) => {
                Err(invalid(format!("The watchdog's log {shown} cannot be locked: {error}.")))
            }
        }
    }

    /// A log that cannot be written does not keep the watchdog from its work.
    pub(super) fn say(&mut self, text: &str) {
        let text: String =
            text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let line = format!("{} {text}\n", timestamp(SystemTime::now()));
        let _ = self.0.write_all(line.as_bytes());
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
