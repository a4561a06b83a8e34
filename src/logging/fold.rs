//! Folding of messages that repeat themselves: a storm costs a few lines and a count. Pure: the time is told.
//!
//! Messages are alike if they differ in nothing but the ports of addresses. The first [`WRITTEN`] alike within a while
//! are written, those after them are counted, and when the while is over one line says the last of them and how many
//! there were. Several messages may take turns: each has a count of its own. Invariants: memory is bounded; every message
//! is written or counted; a count is written when its while is over, when its place is needed, or at the end.

use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

/// So many messages that are alike are written before they are folded.
pub const WRITTEN: u32 = 5;
/// How long messages are remembered, and the first while of folding.
const FIRST_WINDOW: Duration = Duration::from_secs(10);
/// Each further while, as long as it goes on.
const NEXT_WINDOW: Duration = Duration::from_secs(60);
/// Kinds of messages that are remembered at one time.
const MAX_KINDS: usize = 64;

/// What was said lately.
#[derive(Debug, Default)]
pub struct Folder {
    kinds: Vec<Kind>,
}

#[derive(Debug)]
struct Kind {
    hash: u64,
    since: Instant,
    last: Instant,
    window: Duration,
    written: u32,
    folded: u64,
    /// The last one that was folded.
    text: String,
}

impl Folder {
    /// What to write when this message comes: counts that are due, then the message itself unless it is folded.
    pub fn add(&mut self, now: Instant, message: &str) -> Vec<String> {
        let mut lines = self.due(now);
        let hash = xxh3_64(without_ports(message).as_bytes());
        let known = self.kinds.iter_mut().find(|kind| kind.hash == hash);
        let Some(kind) = known else {
            lines.extend(self.make_room());
            let (window, text) = (FIRST_WINDOW, String::new());
            self.kinds.push(Kind { hash, since: now, last: now, window, written: 1, folded: 0, text });
            lines.push(message.to_owned());
            return lines;
        };
        kind.last = now;
        if kind.written < WRITTEN {
            kind.written += 1;
            lines.push(message.to_owned());
        } else {
            kind.folded += 1;
            message.clone_into(&mut kind.text);
        }
        lines
    }

    /// The counts whose while is over.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        self.kinds.retain_mut(|kind| {
            if now.saturating_duration_since(kind.since) < kind.window {
                return true;
            }
            // Quiet for a whole while: forgotten.
            let goes_on = kind.folded > 0;
            lines.extend(kind.count(now));
            (kind.since, kind.window) = (now, NEXT_WINDOW);
            goes_on
        });
        lines
    }

    /// All counts, due or not: nothing comes after.
    pub fn finish(&mut self, now: Instant) -> Vec<String> {
        self.kinds.drain(..).filter_map(|mut kind| kind.count(now)).collect()
    }

    /// The count of the kind that was heard of least lately, if there are too many.
    fn make_room(&mut self) -> Option<String> {
        if self.kinds.len() < MAX_KINDS {
            return None;
        }
        let oldest = (0..self.kinds.len()).min_by_key(|at| self.kinds[*at].last)?;
        let mut kind = self.kinds.swap_remove(oldest);
        kind.count(kind.last)
    }
}

impl Kind {
    fn count(&mut self, now: Instant) -> Option<String> {
        let folded = std::mem::take(&mut self.folded);
        let seconds = now.saturating_duration_since(self.since).as_secs().max(1);
        let text = std::mem::take(&mut self.text);
        (folded > 0).then(|| format!("{text} ({folded} like this in {seconds} s)"))
    }
}

/// The text with `*` for the ports of IP addresses (`10.0.0.1:54321`, `[::1]:54321`).
fn without_ports(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(colon) = rest.find(':') {
        let (before, after) = rest.split_at(colon);
        let digits = after[1..].bytes().take_while(u8::is_ascii_digit).count();
        shown.push_str(before);
        if digits > 0 && ends_with_address(before) {
            shown.push_str(":*");
            rest = &after[1 + digits..];
        } else {
            shown.push(':');
            rest = &after[1..];
        }
    }
    shown + rest
}

fn ends_with_address(text: &str) -> bool {
    let address = text.bytes().rev().take_while(|byte| byte.is_ascii_digit() || *byte == b'.');
    text.ends_with(']') || address.filter(|byte| *byte == b'.').count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_storm_costs_a_few_lines_and_a_count() {
        let (mut folder, start) = (Folder::default(), Instant::now());
        let mut lines = Vec::new();
        // 50 a second for two minutes, each from another port.
        for number in 0..6000u32 {
            let message = format!("INFO  from 127.0.0.1:{}: closed", 10_000 + number);
            lines.extend(folder.add(start + number * SECOND / 50, &message));
        }
        lines.extend(folder.finish(start + 120 * SECOND));
        assert_eq!(lines.len(), 5 + 3, "{lines:#?}");
        assert_eq!(lines[0], "INFO  from 127.0.0.1:10000: closed");
        assert_eq!(lines[5], "INFO  from 127.0.0.1:10499: closed (495 like this in 10 s)");
        let counted = |line: &String| {
            let count = line.split_once("closed (")?.1.split_once(' ')?.0;
            count.parse::<u64>().ok()
        };
        assert_eq!(lines.iter().map(|line| counted(line).unwrap_or(1)).sum::<u64>(), 6000);
    }

    #[test]
    fn messages_that_take_turns_are_folded_each() {
        let (mut folder, start) = (Folder::default(), Instant::now());
        let mut lines = Vec::new();
        for number in 0..300u32 {
            let message = ["A refused", "B refused (1)", "C"][number as usize % 3];
            lines.extend(folder.add(start + number * SECOND / 100, message));
        }
        assert_eq!(lines.len(), 15);
        assert_eq!(
            folder.due(start + 10 * SECOND + SECOND / 50),
            [
                "A refused (95 like this in 10 s)",
                "B refused (1) (95 like this in 10 s)",
                "C (95 like this in 10 s)"
            ]
        );
        // After a quiet while it is as new.
        assert!(folder.due(start + 71 * SECOND).is_empty());
        assert_eq!(folder.add(start + 72 * SECOND, "C"), ["C"]);
    }

    #[test]
    fn what_differs_is_written_and_memory_is_bounded() {
        let (mut folder, start) = (Folder::default(), Instant::now());
        for number in 0..10_000 {
            let message = format!("user {number} from 10.0.0.7:80");
            assert_eq!(folder.add(start, &message), [message]);
        }
        assert!(folder.kinds.len() <= MAX_KINDS);
        // A count whose place is needed is written then.
        (0..7).for_each(|_| drop(folder.add(start, "storm")));
        let lines: Vec<String> =
            (0..64).flat_map(|number| folder.add(start + SECOND, &number.to_string())).collect();
        assert!(lines.contains(&"storm (2 like this in 1 s)".to_owned()), "{lines:?}");
    }

    #[test]
    fn only_ports_are_left_out() {
        for (text, expected) in [
            ("from 10.0.0.1:54321: x", "from 10.0.0.1:*: x"),
            ("[::1]:5 and [fe80::1]:6", "[::1]:* and [fe80::1]:*"),
            ("14503: 12:30:05 1.2:3 é: :7", "14503: 12:30:05 1.2:3 é: :7"),
        ] {
            assert_eq!(without_ports(text), expected);
        }
    }
}
