//! How deep and how large a client's statement may be: what fits into `threads::STACK_BYTES`.
//!
//! SQLite recurses over patterns, expressions and definitions on the stack of whoever runs it, and an overflow ends the
//! process. Measured at its own limits, with and without optimisation, it takes less than 3 MB: LIKE 55 bytes for each
//! character of the pattern, a chain of generated columns 1.2 KB for each, nested views, triggers and cascades up to
//! 1.6 MB. Invariant: what a client's connection lets through, the connections that apply it hold as well, so only those
//! of clients are limited further.

use rusqlite::Connection;
use rusqlite::limits::Limit;

use super::memory;

/// Longest pattern of LIKE and GLOB.
pub const MAX_PATTERN_BYTES: i32 = 10_000;
/// Longest text that a client may send as SQL.
pub const MAX_TEXT_BYTES: usize = 16 << 20;
/// What rewriting may make of it.
const MAX_REWRITTEN_BYTES: i32 = 64 << 20;
/// Instructions of a compiled statement, of 24 bytes each.
const MAX_INSTRUCTIONS: i32 = 10_000_000;

/// Largest value, and largest row of a table: a sixteenth of what all reading statements may take.
pub fn value_bytes() -> usize {
    usize::try_from(memory::session_bytes() / 4).unwrap_or(usize::MAX).min(1_000_000_000)
}

/// Largest row of a result, and longest message of a client: bytes in text take twice their number.
pub fn message_bytes() -> usize {
    2 * value_bytes() + (1 << 20)
}

/// For the connections that run statements of clients.
pub fn set(connection: &Connection) -> rusqlite::Result<()> {
    let limits = [
        (Limit::SQLITE_LIMIT_LENGTH, i32::try_from(value_bytes()).unwrap_or(i32::MAX)),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN_BYTES),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_REWRITTEN_BYTES),
        (Limit::SQLITE_LIMIT_VDBE_OP, MAX_INSTRUCTIONS),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        // Stated, so that they stay when SQLite's own change.
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 1000),
        (Limit::SQLITE_LIMIT_PARSER_DEPTH, 2500),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1000),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 500),
        (Limit::SQLITE_LIMIT_COLUMN, 2000),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 1000),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 32_766),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ];
    limits.into_iter().try_for_each(|(limit, value)| connection.set_limit(limit, value).map(drop))
}
