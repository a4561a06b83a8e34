//! A line of a message log: time, text made harmless. Not here: where it goes.
//!
//! Invariant: whatever a text holds – it may come from a client, a peer or a file –, its line is one line, is no longer
//! than a bound, and does nothing to a terminal that shows it.

use std::time::SystemTime;

use crate::calendar;

/// A longer message is cut.
const MAX_MESSAGE_CHARACTERS: usize = 4000;
/// So much of a name that somebody gave who has not logged in.
const MAX_NAME_CHARACTERS: usize = 64;

/// Time, text, end of line.
pub fn line(time: SystemTime, text: &str) -> String {
    let mut line = calendar::log_text(time);
    line.push(' ');
    line.push_str(&printable(text.trim_end(), MAX_MESSAGE_CHARACTERS));
    line.push('\n');
    line
}

/// A text of somebody else's for a message: what does not print is escaped, and beyond so many characters it is cut and
/// says how long it was.
pub fn printable(text: &str, max_characters: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(4 * max_characters));
    for (number, character) in text.chars().enumerate() {
        if number == max_characters {
            shown.push_str(&format!("… (cut: {} bytes)", text.len()));
            break;
        }
        match character {
            '"' | '\'' | '\\' | '\t' => shown.push(character),
            // Control characters, line separators, marks that turn the direction of writing, and the like.
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

/// The name that somebody gave who may be anybody.
pub fn name(text: &str) -> String {
    printable(text, MAX_NAME_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

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
            assert_eq!(calendar::log_text(UNIX_EPOCH + Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn a_message_is_one_short_harmless_line() {
        let hostile = "first\nforged line\x1b[31m\u{202e}\u{2028}\t\"it's\" C:\\ é";
        let shown = line(UNIX_EPOCH, hostile);
        let expected = "first\\nforged line\\u{1b}[31m\\u{202e}\\u{2028}\t\"it's\" C:\\ é\n";
        assert_eq!(shown, format!("1970-01-01 00:00:00.000Z {expected}"));
        let long = line(UNIX_EPOCH, &"\u{1}".repeat(1 << 20));
        assert!(long.len() < 8 * MAX_MESSAGE_CHARACTERS && long.ends_with("… (cut: 1048576 bytes)\n"));
        assert_eq!(printable("eve\n\"dba\"\u{1b}[2J", 64), "eve\\n\"dba\"\\u{1b}[2J");
        assert_eq!(printable("abcdef", 3), "abc… (cut: 6 bytes)");
    }
}
