//! The lock of a database: a file that is locked as long as a server runs there, and that says what the server was last:
//! its state and how it ended, the role before, the outcome of the last switch, on a line each.
//!
//! Its words are for operators: for a message of the next start (30502), `hsb logpos`, `hsb status switch`. Nothing is
//! decided by them, so they are not synced. And the lock of a log.

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::phase::SwitchStatus;
use crate::hsb::state::State;
use crate::services::status::{Past, Snapshot};
use crate::storage::files;
use crate::storage::log::LogConfiguration;

/// Behind the state, once the server has ended in order.
const IN_ORDER: &str = "ended in order";
const MAX_BYTES: usize = 100;
const MAX_LOG_WORDS_BYTES: usize = 8 << 10;

/// See the module. The lock ends with the value, or with the process.
pub(crate) struct DatabaseLock(File);

impl DatabaseLock {
    /// A second server on the same files would ruin them.
    pub(crate) fn take(database_file: &Path) -> Result<DatabaseLock, ServerError> {
        let path = files::beside(database_file, ".lock");
        let refuse =
            |why: String| ServerError::with(Code::OPERATION_FAILED, format!("{}: {why}", path.display()));
        // Whoever does not get the lock must leave the words of its holder alone.
        let file = files::open_private(&path).map_err(|error| refuse(error.to_string()))?;
        match file.try_lock() {
            Ok(()) => Ok(DatabaseLock(file)),
            Err(TryLockError::WouldBlock) => Err(refuse(
                "another server runs on this database; stop it, or start in another directory (-c).".into(),
            )),
            Err(TryLockError::Error(error)) => Err(refuse(error.to_string())),
        }
    }

    /// Whether a server runs on this database.
    pub(crate) fn is_held(database_file: &Path) -> bool {
        let file = File::open(files::beside(database_file, ".lock"));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// What the operator should know of the server that ran here last; nothing if it ended in order as no primary.
    pub(crate) fn what_it_was(&self) -> Option<String> {
        let all = self.words();
        let words = all.lines().next().unwrap_or_default();
        let (state, in_order) = match words.trim().strip_suffix(IN_ORDER) {
            Some(state) => (state.trim(), true),
            None => (words.trim(), false),
        };
        let state = State::named(state).filter(|state| state.is_primary());
        match (state, in_order) {
            _ if all.is_empty() => None,
            (None, true) => None,
            (None, false) => Some("not shut down in order".to_owned()),
            (Some(state), true) => Some(state.to_string()),
            (Some(state), false) => Some(format!("{state}, and not shut down in order")),
        }
    }

    /// What is worth knowing of the server that ran here last.
    pub(crate) fn past(&self) -> Past {
        let words = self.words();
        let mut lines = words.lines().map(str::trim);
        let first = lines.next().unwrap_or_default();
        let state = State::named(first.strip_suffix(IN_ORDER).unwrap_or(first).trim());
        let role = lines.next().unwrap_or_default();
        let roles = ["PRIMARY", "SECONDARY", "STANDALONE"];
        let previous_role = roles.into_iter().find(|known| *known == role).unwrap_or_default();
        let switch = match lines.next().and_then(|code| code.parse().ok()).and_then(Code::find) {
            None => SwitchStatus::Never,
            Some(Code::SUCCESS) => SwitchStatus::Success,
            Some(code) => SwitchStatus::Failed(code),
        };
        Past { state, previous_role, switch }
    }

    /// This is what the server is from now on.
    pub(crate) fn note(&self, now: &Snapshot) {
        self.write(now.state.name(), now);
    }

    /// The server ends like this, in order.
    pub(crate) fn note_end(&self, now: &Snapshot) {
        self.write(&format!("{} {IN_ORDER}", now.state), now);
    }

    /// Another database is here now.
    pub(crate) fn forget(&self) {
        if let Err(error) = self.0.set_len(0) {
            log::warn!("the lock file cannot be cleared: {error}");
        }
    }

    fn words(&self) -> String {
        let mut words = [0; MAX_BYTES];
        let length = self.0.read_at(&mut words, 0).unwrap_or_default();
        String::from_utf8_lossy(&words[..length]).into_owned()
    }

    fn write(&self, state: &str, now: &Snapshot) {
        let switch = match now.switch {
            SwitchStatus::Success => "0".to_owned(),
            SwitchStatus::Failed(code) => code.number().to_string(),
            SwitchStatus::Never | SwitchStatus::Active => String::new(),
        };
        let words = format!("{state}\n{}\n{switch}\n", now.previous_role);
        // One write over the words before, so that there is no moment without any.
        if let Err(error) = self.0.write_all_at(format!("{words:<MAX_BYTES$}").as_bytes(), 0) {
            log::warn!("the lock file cannot be written: {error}");
        }
    }
}

/// The lock of a log: no two servers write to one directory, at the same time or by turns. Of a pair both have the same
/// database's log, and each would take the other's for its own.
///
/// The file names the directory and the database that the log belongs to. It counts where it was written: one that was
/// copied along with its directory says nothing.
pub(crate) struct LogLock {
    _locked: File,
}

impl LogLock {
    pub(crate) fn take(log: &LogConfiguration, database_file: &Path) -> Result<LogLock, ServerError> {
        let path = log.directory.join(format!("{}.lock", log.template));
        let refuse = |why: &str| {
            ServerError::with(
                Code::LOG_OPEN_FAILED,
                format!("{}: {why}; give each server its own Logging.LogDir.", path.display()),
            )
        };
        let failed = |error: std::io::Error| refuse(&error.to_string());
        std::fs::create_dir_all(&log.directory).map_err(failed)?;
        let file = files::open_private(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(refuse("another server that runs has its log here")),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let directory = std::fs::canonicalize(&log.directory).map_err(failed)?;
        let owner = absolute(database_file).map_err(failed)?;
        let words = format!("{}\n{}\n", directory.display(), owner.display());
        let noted = read_words(&file).map_err(failed)?;
        let mut lines = noted.lines();
        if let (Some(here), Some(other)) = (lines.next(), lines.next())
            && Path::new(here) == directory
            && Path::new(other) != owner
            && Path::new(other).exists()
        {
            return Err(refuse(&format!("the log here is that of {other}")));
        }
        if noted != words {
            file.set_len(0).and_then(|()| file.write_all_at(words.as_bytes(), 0)).map_err(failed)?;
        }
        Ok(LogLock { _locked: file })
    }
}

/// The file itself need not be there yet.
fn absolute(file: &Path) -> std::io::Result<PathBuf> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = std::fs::canonicalize(directory.unwrap_or(Path::new(".")))?;
    Ok(directory.join(file.file_name().unwrap_or_default()))
}

fn read_words(file: &File) -> std::io::Result<String> {
    let mut words = vec![0; MAX_LOG_WORDS_BYTES];
    let length = file.read_at(&mut words, 0)?;
    Ok(String::from_utf8_lossy(&words[..length]).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::hsb::settings::Settings;
    use crate::hsb::table::TABLE;
    use crate::services::status::NodeStatus;

    fn settings() -> Settings {
        Parameters::factory(Path::new("/nowhere")).unwrap().settings()
    }

    fn now(state: State) -> Snapshot {
        let past = Past { state: None, previous_role: "", switch: SwitchStatus::Never };
        NodeStatus::new(state, settings(), past).snapshot()
    }

    #[test]
    fn a_log_directory_belongs_to_one_server() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let log = |directory: &str| LogConfiguration {
            directory: at(directory),
            template: "sol#####.log".into(),
            digit: '#',
            segment_size_bytes: 1 << 20,
            database_id: [0; 16],
            maximum_bytes: None,
            medium: crate::storage::log::Medium::default(),
        };
        for server in ["one", "other"] {
            std::fs::create_dir(at(server)).unwrap();
            std::fs::write(at(server).join("solid.db"), "x").unwrap();
        }
        let (one, other) = (at("one/solid.db"), at("other/solid.db"));
        let refused = |directory: &str, database: &Path| {
            let error = LogLock::take(&log(directory), database).err().unwrap();
            assert!(error.code == Some(Code::LOG_OPEN_FAILED) && error.message().contains("Logging.LogDir"));
            error.message()
        };
        let held = LogLock::take(&log("logs"), &one).unwrap();
        assert!(refused("logs", &other).contains("that runs"));
        drop(held);
        // Not at the same time, but by turns.
        assert!(refused("logs", &other).contains("one/solid.db"));
        LogLock::take(&log("logs"), &one).unwrap();
        // Copied with its directory, the file says nothing; and nothing of a server that is gone or was moved.
        std::fs::create_dir(at("copied")).unwrap();
        std::fs::copy(at("logs/sol#####.log.lock"), at("copied/sol#####.log.lock")).unwrap();
        LogLock::take(&log("copied"), &other).unwrap();
        std::fs::remove_file(&one).unwrap();
        LogLock::take(&log("logs"), &other).unwrap();
    }

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
            DatabaseLock::take(&database).unwrap().note(&now(state));
            assert_eq!(was().as_deref(), Some(in_between), "{state:?}");
            let held = DatabaseLock::take(&database).unwrap();
            held.note_end(&now(state));
            assert!(DatabaseLock::take(&database).is_err());
            assert_eq!(held.what_it_was().as_deref(), at_the_end, "{state:?}");
        }
        DatabaseLock::take(&database).unwrap().note(&now(State::PrimaryAlone));
        DatabaseLock::take(&database).unwrap().forget();
        assert_eq!(was(), None);
    }

    #[test]
    fn the_role_before_and_the_last_switch_survive() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DatabaseLock::take(&directory.path().join("solid.db")).unwrap();
        assert_eq!(lock.past(), Past { state: None, previous_role: "", switch: SwitchStatus::Never });
        for switch in [SwitchStatus::Never, SwitchStatus::Success, SwitchStatus::Failed(Code::LINK_BROKEN)] {
            lock.note(&Snapshot { switch, previous_role: "STANDALONE", ..now(State::PrimaryAlone) });
            let past = Past { state: Some(State::PrimaryAlone), previous_role: "STANDALONE", switch };
            assert_eq!(lock.past(), past);
            lock.note_end(&Snapshot { switch, previous_role: "STANDALONE", ..now(State::PrimaryAlone) });
            assert_eq!(lock.past(), past);
        }
        // What an older server has written.
        lock.0.set_len(0).unwrap();
        lock.0.write_all_at(b"PRIMARY ACTIVE   ", 0).unwrap();
        assert_eq!(lock.past().state, Some(State::PrimaryActive));
    }

    /// It was a secondary, is started twice, becomes a copy of another: what it was as a primary stays known.
    #[test]
    fn the_previous_role_is_that_of_the_last_other_one() {
        let past =
            |state, previous_role| Past { state: Some(state), previous_role, switch: SwitchStatus::Never };
        for (state, past, role) in [
            (State::SecondaryAlone, past(State::PrimaryActive, "SECONDARY"), "PRIMARY"),
            (State::SecondaryAlone, past(State::SecondaryAlone, "PRIMARY"), "PRIMARY"),
            (State::SecondaryAlone, past(State::SecondaryActive, ""), "SECONDARY"),
            (State::SecondaryAlone, past(State::Offline, ""), "SECONDARY"),
            (State::Offline, past(State::PrimaryAlone, "SECONDARY"), "PRIMARY"),
        ] {
            let status = NodeStatus::new(state, settings(), past);
            assert_eq!(status.snapshot().previous_role, role, "{state} {past:?}");
        }
        let new = past(State::Offline, "");
        let status = NodeStatus::new(State::Offline, settings(), Past { state: None, ..new });
        let arrived = TABLE.iter().find(|row| row.from == State::Offline).unwrap();
        status.changed(*arrived);
        assert_eq!(status.snapshot().previous_role, "SECONDARY");
    }
}
