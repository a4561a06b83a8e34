//! Comparing the two databases at one position (`hsb verify`), over a connection of its own after the handshake.
//!
//! ```text
//! primary                          secondary
//!   Approach { sequence }      ──▶  waits until it has applied so much
//!                              ◀──  At { position }
//!   (the writer stands still: nothing is committed, nothing new can arrive at the secondary)
//!   Stop { position }          ──▶  waits until it is exactly there, opens a snapshot
//!                              ◀──  Ready, or At { position }: not there in time, try again
//!   (the writer goes on)
//!                              ◀──  Sums
//! ```
//! So the writer waits for one exchange of messages and what is on its way, whatever the size of the databases. Not
//! here: which states may do this. Invariant: both snapshots are at the position in `Stop`.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::handshake::{hear, lost, say};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::storage::checksum::logical_checksum;
use crate::storage::database::{Database, read_identity};
use crate::storage::writer::Writer;
use crate::stream::Stream;

/// How long the secondary may take to come near.
const APPROACH_PATIENCE: Duration = Duration::from_secs(10);
/// How long the writer is held for the secondary's answer before it is let go and all begins again.
const STOP_PATIENCE: Duration = Duration::from_millis(300);
/// How long the writer is held at most if the other server does not answer at all.
const HELD_LIMIT: Duration = Duration::from_secs(1);
/// How long the primary waits for its own writer, and for an answer that should come at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the secondary looks where it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
const ATTEMPTS: usize = 20;
/// Sums of a hundred thousand tables are shorter.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Name, rows and checksum of a table.
pub type TableSum = (String, u64, u128);

#[derive(Serialize, Deserialize, Debug)]
enum Message {
    Approach { sequence: u64 },
    Stop { position: Position },
    At { position: Position },
    Ready,
    Sums(Vec<TableSum>),
    Failed(Refusal),
}

/// Both databases at one position.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    /// The position.
    pub position: Position,
    /// The tables here.
    pub here: Vec<TableSum>,
    /// The tables there.
    pub there: Vec<TableSum>,
}

impl Comparison {
    /// Names of the tables that differ or are missing on one side, in order.
    pub fn differing(&self) -> Vec<&str> {
        let of = |sums: &'_ [TableSum], name: &str| {
            sums.iter().find(|sum| sum.0 == name).map(|sum| (sum.1, sum.2))
        };
        let mut names: Vec<&str> = self.here.iter().chain(&self.there).map(|sum| sum.0.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| of(&self.here, name) != of(&self.there, name));
        names
    }
}

/// At the primary: compares.
pub fn compare(stream: &mut Stream, database: &Database, writer: &Writer) -> Result<Comparison, Refusal> {
    let _reads = database.begin_long_read();
    let snapshot = database.open_reader()?;
    for _ in 0..ATTEMPTS {
        let sequence = current(&snapshot)?.sequence;
        set_timeout(stream, Some(APPROACH_PATIENCE + PATIENCE))?;
        say(stream, &Message::Approach { sequence })?;
        let there = position_in(hear(stream, MAX_MESSAGE_BYTES)?)?;
        if there.sequence < sequence {
            return Err(apart(current(&snapshot)?, there));
        }
        set_timeout(stream, Some(HELD_LIMIT))?;
        let stopped = writer.while_still(PATIENCE, || stop(stream, &snapshot));
        let Some(outcome) = stopped else {
            let detail = "(the writer did not come to a stop; a batch waits to be decided)";
            return Err(Refusal::new(Code::TIMED_OUT, detail));
        };
        match outcome? {
            (position, None) => return finish(stream, &snapshot, position),
            // The secondary cannot be ahead of a primary that stands still.
            (position, Some(there)) if there.sequence >= position.sequence => {
                return Err(apart(position, there));
            }
            _ => sqlite(snapshot.execute_batch("ROLLBACK"))?,
        }
    }
    let detail = "(the secondary stays too far behind; try again when there is less load)";
    Err(Refusal::new(Code::TIMED_OUT, detail))
}

/// While nothing is committed: opens the snapshot and has the other server open its own. `None`: it has.
fn stop(stream: &mut Stream, snapshot: &Connection) -> Result<(Position, Option<Position>), Refusal> {
    sqlite(snapshot.execute_batch("BEGIN"))?;
    let position = current(snapshot)?;
    say(stream, &Message::Stop { position })?;
    match hear(stream, MAX_MESSAGE_BYTES)? {
        Message::Ready => Ok((position, None)),
        other => position_in(other).map(|there| (position, Some(there))),
    }
}

fn finish(stream: &mut Stream, snapshot: &Connection, position: Position) -> Result<Comparison, Refusal> {
    let here = logical_checksum(snapshot)?;
    // A large table takes its time over there too; that the other server lives, the system's keepalive watches.
    set_timeout(stream, None)?;
    match hear(stream, MAX_MESSAGE_BYTES)? {
        Message::Sums(there) => Ok(Comparison { position, here, there }),
        Message::Failed(refusal) => Err(refusal),
        _ => Err(unexpected()),
    }
}

/// At the secondary: answers until it has sent its sums. `follows`: whether waiting brings it further.
pub fn answer(stream: &mut Stream, database: &Database, follows: impl Fn() -> bool) -> Result<(), Refusal> {
    let _reads = database.begin_long_read();
    let snapshot = database.open_reader()?;
    set_timeout(stream, Some(APPROACH_PATIENCE + PATIENCE))?;
    loop {
        match hear(stream, MAX_MESSAGE_BYTES)? {
            Message::Approach { sequence } => {
                let patience = if follows() { APPROACH_PATIENCE } else { Duration::ZERO };
                let position = wait(patience, &snapshot, |position| position.sequence >= sequence)?;
                sqlite(snapshot.execute_batch("ROLLBACK"))?;
                say(stream, &Message::At { position })?;
            }
            Message::Stop { position: wanted } => {
                let position =
                    wait(STOP_PATIENCE, &snapshot, |position| position.sequence >= wanted.sequence)?;
                if position == wanted {
                    say(stream, &Message::Ready)?;
                    break;
                }
                sqlite(snapshot.execute_batch("ROLLBACK"))?;
                say(stream, &Message::At { position })?;
            }
            _ => return Err(unexpected()),
        }
    }
    let sums = match logical_checksum(&snapshot) {
        Ok(sums) => Message::Sums(sums),
        Err(error) => Message::Failed(error.into()),
    };
    say(stream, &sums)
}

/// Waits until the database has got there; leaves a snapshot open at the position that is returned.
fn wait(
    patience: Duration,
    snapshot: &Connection,
    there: impl Fn(&Position) -> bool,
) -> Result<Position, Refusal> {
    let deadline = Instant::now() + patience;
    loop {
        sqlite(snapshot.execute_batch("BEGIN"))?;
        let position = current(snapshot)?;
        if there(&position) || Instant::now() >= deadline {
            return Ok(position);
        }
        sqlite(snapshot.execute_batch("ROLLBACK"))?;
        std::thread::sleep(LOOK_INTERVAL);
    }
}

fn current(connection: &Connection) -> Result<Position, Refusal> {
    Ok(read_identity(connection)?.position)
}

fn position_in(message: Message) -> Result<Position, Refusal> {
    match message {
        Message::At { position } => Ok(position),
        Message::Failed(refusal) => Err(refusal),
        _ => Err(unexpected()),
    }
}

fn apart(here: Position, there: Position) -> Refusal {
    let detail = format!("This server is at {here}, the other at {there}: 'hsb connect' first.");
    Refusal::new(Code::NOT_SYNCHRONIZED, detail)
}

fn sqlite(result: rusqlite::Result<()>) -> Result<(), Refusal> {
    Ok(result.map_err(ServerError::from)?)
}

fn set_timeout(stream: &Stream, timeout: Option<Duration>) -> Result<(), Refusal> {
    stream.set_read_timeout(timeout).map_err(|error| lost(&error))
}

fn unexpected() -> Refusal {
    Refusal::new(Code::COMMUNICATION_ERROR, "(an unexpected message while comparing)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_on_either_side() {
        let sum = |name: &str, rows, hash| (name.to_owned(), rows, hash);
        let both = |here: Vec<TableSum>, there: Vec<TableSum>| Comparison {
            position: Position::ORIGIN,
            here,
            there,
        };
        let same = both(vec![sum("a", 1, 1), sum("b", 2, 2)], vec![sum("a", 1, 1), sum("b", 2, 2)]);
        assert!(same.differing().is_empty());
        let different = both(
            vec![sum("a", 1, 1), sum("b", 2, 2), sum("c", 3, 3)],
            vec![sum("b", 2, 7), sum("c", 3, 3), sum("d", 0, 0)],
        );
        assert_eq!(different.differing(), ["a", "b", "d"]);
    }
}
