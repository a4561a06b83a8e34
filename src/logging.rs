//! The message log: solmsg.out in the server's directory, and stderr if wanted.
//!
//! One line per message: `2025-01-31 12:00:00.123Z LEVEL text`. Not here: rotation, message numbers (the callers put
//! them into the text). Invariant: a message is exactly one line, whatever its text holds, and a failing disk never
//! stops the server.

use crate::error::ServerError;
use crate::hsb::codes::Code;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the message log.
pub const FILE_NAME: &str = "solmsg.out";

struct MessageLog {
    file: Mutex<File>,
    also_stderr: bool,
}

/// Sends all messages of the `log` crate to solmsg.out in this directory. Once per process.
pub fn start(directory: &Path, also_stderr: bool) -> Result<(), ServerError> {
    let logger = MessageLog { file: Mutex::new(open(directory)?), also_stderr };
    log::set_boxed_logger(Box::new(logger))
        .map_err(|error| ServerError::with(Code::OPERATION_FAILED, format!("The message log: {error}.")))?;
    log::set_max_level(log::LevelFilter::Info);
    Ok(())
}

fn open(directory: &Path) -> Result<File, ServerError> {
    let path = directory.join(FILE_NAME);
    OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(|error| {
        ServerError::with(Code::OPERATION_FAILED, format!("{} cannot be opened: {error}.", path.display()))
    })
}

impl log::Log for MessageLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // Libraries report their own troubles only.
        let ours = metadata.target().split("::").next() == Some(env!("CARGO_PKG_NAME"));
        ours || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(SystemTime::now(), record.level(), &record.args().to_string());
        // There is nobody to tell if the message log itself cannot be written.
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        if self.also_stderr {
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).sync_data();
    }
}

fn line(time: SystemTime, level: log::Level, text: &str) -> String {
    let mut line = format!("{} {level:<5} ", timestamp(time));
    for character in text.trim_end().chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push('\t'),
            other if other.is_control() => line.extend(other.escape_unicode()),
            other => line.push(other),
        }
    }
    line.push('\n');
    line
}

/// UTC as `2025-01-31 12:00:00.123Z`. A clock before 1970 shows 1970.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    // Years that begin in March put the leap day at the end; an era is the calendar's cycle of 400 years.
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Log;

    #[test]
    fn time_is_shown_as_utc() {
        for (milliseconds, expected) in [
            (0, "1970-01-01 00:00:00.000Z"),
            (951_782_399_999, "2000-02-28 23:59:59.999Z"),
            (951_782_400_000, "2000-02-29 00:00:00.000Z"),
            (951_868_800_000, "2000-03-01 00:00:00.000Z"),
            (1_704_067_199_123, "2023-12-31 23:59:59.123Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn a_message_is_one_line_and_is_appended() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["first\nforged line\x1b[31m", "second"] {
            let log = MessageLog { file: Mutex::new(open(directory.path()).unwrap()), also_stderr: false };
            let target = concat!(env!("CARGO_PKG_NAME"), "::node");
            let (level, text) = (log::Level::Info, format_args!("{text}"));
            log.log(&log::Record::builder().target(target).level(level).args(text).build());
            log.log(
                &log::Record::builder().target("library").level(level).args(format_args!("chatter")).build(),
            );
        }
        let content = std::fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
        let texts: Vec<&str> = content.lines().map(|line| &line[24..]).collect();
        assert_eq!(texts, [" INFO  first\\nforged line\\u{1b}[31m", " INFO  second"]);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let error = start(Path::new("/nonexistent/directory"), false).unwrap_err();
        assert!(error.message.contains("solmsg.out cannot be opened"), "{}", error.message);
    }
}
