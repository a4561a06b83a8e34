//! Whether a database file and SQLite's log beside it belong together.
//!
//! SQLite does not ask: it reads whatever log lies beside a file, so an old file under a new log, or the log of another day,
//! gives rows of both, or a database that is malformed. Each transaction writes into one row of `_hsb_meta` where it leads
//! and where it came from. That row is on a page of its own table, page 2. So the positions that the log holds are those of
//! its pages 2, and the file's own page 2 must hold one of them, or that from which the log's first one came: pages are
//! moved from the log into the file up to the end of a transaction, never in between, and nothing else changes the file.
//!
//! To be asked before SQLite opens the file: it is read here without SQLite, whose locks the closing would drop.
//!
//! Not here: whether the position is on the history of our own log; that is looked at when it is opened.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;

use super::database::{Database, Place};
use crate::error::ServerError;
use crate::hsb::codes::Code;

/// The page of `_hsb_meta`.
const META_PAGE: u32 = 2;
const WAL_HEAD_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 24;
/// In the first word of a log: whether its sums are made of words with the great end first.
const WAL_MAGIC: u32 = 0x377f_0682;
/// A leaf of a table WITHOUT ROWID.
const INDEX_LEAF: u8 = 10;

/// An error if they do not belong together. What cannot be read is left for SQLite to tell.
pub fn check(database: &Database) -> Result<(), ServerError> {
    let (Some(file), Some(log)) = (place_in_file(database), places_in_log(database)) else { return Ok(()) };
    let (Some(first), Some(last)) = (log.first(), log.last()) else { return Ok(()) };
    let belongs =
        first.before.is_none_or(|before| before == file.at) || log.iter().any(|place| place.at == file.at);
    if belongs {
        return Ok(());
    }
    let from = first.before.map_or_else(|| "?".to_owned(), |before| before.to_string());
    let (path, wal) = (database.path().display(), database.write_ahead_log());
    let wal = wal.display();
    let detail = format!(
        "({path} and {wal} do not belong together: the file is at {}, SQLite's log leads from {from} to {}. Put back the two as they were beside each other; or, if {path} is a backup or the file of a server that was stopped in order, move {wal} away. docs/backup.md says how to copy a database.)",
        file.at, last.at
    );
    Err(ServerError::with(Code::DATABASE_CORRUPT, detail))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn place_in_file(database: &Database) -> Option<Place> {
    let file = File::open(database.path()).ok()?;
    let mut head = [0; 100];
    file.read_exact_at(&mut head, 0).ok()?;
    let page_bytes = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65536,
        bytes => usize::from(bytes),
    };
    let mut page = vec![0; page_bytes];
    file.read_exact_at(&mut page, page_bytes as u64).ok()?;
    place_on(&page)
}

/// Those of the transactions that SQLite would take from the log, in order.
fn places_in_log(database: &Database) -> Option<Vec<Place>> {
    let mut log = BufReader::with_capacity(1 << 20, File::open(database.write_ahead_log()).ok()?);
    let mut head = [0; WAL_HEAD_BYTES];
    log.read_exact(&mut head).ok()?;
    let magic = word(&head, 0)?;
    if magic & !1 != WAL_MAGIC {
        return None;
    }
    let sums = Sums { great_end_first: magic & 1 == 1 };
    let page_bytes = usize::try_from(word(&head, 8)?).ok().filter(|bytes| (512..=65536).contains(bytes))?;
    let salts = head[16..24].to_vec();
    let mut sum = sums.add((0, 0), &head[..24]);
    if (word(&head, 24)?, word(&head, 28)?) != sum {
        return None;
    }
    let (mut places, mut open) = (Vec::new(), None);
    let mut frame = vec![0; FRAME_HEAD_BYTES + page_bytes];
    while log.read_exact(&mut frame).is_ok() && frame[8..16] == salts[..] {
        sum = sums.add(sums.add(sum, &frame[..8]), &frame[FRAME_HEAD_BYTES..]);
        if (word(&frame, 16)?, word(&frame, 20)?) != sum {
            break;
        }
        if word(&frame, 0)? == META_PAGE {
            open = place_on(&frame[FRAME_HEAD_BYTES..]);
        }
        // The last page of a transaction.
        if word(&frame, 4)? != 0 {
            places.extend(open.take());
        }
    }
    Some(places)
}

/// The checksums of SQLite's log, each over all before it.
#[derive(Clone, Copy)]
struct Sums {
    great_end_first: bool,
}

impl Sums {
    fn add(self, (mut one, mut other): (u32, u32), bytes: &[u8]) -> (u32, u32) {
        let value = |bytes: &[u8]| {
            let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            if self.great_end_first { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        for pair in bytes.chunks_exact(8) {
            one = one.wrapping_add(value(&pair[..4])).wrapping_add(other);
            other = other.wrapping_add(value(&pair[4..])).wrapping_add(one);
        }
        (one, other)
    }
}

/// The row 'position' on a page of `_hsb_meta`.
fn place_on(page: &[u8]) -> Option<Place> {
    if *page.first()? != INDEX_LEAF {
        return None;
    }
    let cells = usize::from(u16::from_be_bytes([*page.get(3)?, *page.get(4)?]));
    (0..cells).find_map(|cell| {
        let pointer = 8 + 2 * cell;
        let at = usize::from(u16::from_be_bytes([*page.get(pointer)?, *page.get(pointer + 1)?]));
        let (_, record) = varint(page, at)?;
        let (head_bytes, key_kind) = varint(page, record)?;
        let (key_kind, value_kind) = varint(page, key_kind)?;
        let (value_kind, _) = varint(page, value_kind)?;
        let key_bytes = usize::try_from(key_kind).ok()?.checked_sub(13)? / 2;
        let value_bytes = usize::try_from(value_kind).ok()?.checked_sub(12)? / 2;
        let key = record + usize::try_from(head_bytes).ok()?;
        let value = page.get(key + key_bytes..)?.get(..value_bytes)?;
        (page.get(key..key + key_bytes)? == b"position").then(|| Place::decode(value))?
    })
}

/// A number of SQLite's variable length, and what comes after it.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for place in 0..8 {
        let byte = *bytes.get(at + place)?;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + place + 1));
        }
    }
    Some((value << 8 | u64::from(*bytes.get(at + 8)?), at + 9))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use rusqlite::Connection;

    use super::*;
    use crate::hsb::position::Position;
    use crate::storage::database::{read_identity, write_position};
    use crate::storage::{checkpoint, files};

    fn write(connection: &Connection, number: u64) {
        let before = read_identity(connection).unwrap().position;
        let after = Position { epoch: 1, sequence: before.sequence + number, ..before };
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
            .execute("INSERT INTO t VALUES (?, zeroblob(3000))", [after.sequence.cast_signed()])
            .unwrap();
        write_position(connection, before, after).unwrap();
        connection.execute_batch("COMMIT").unwrap();
    }

    fn copy(database: &Database, to: &Path, suffix: &str) {
        std::fs::copy(files::beside(database.path(), suffix), files::beside(to, suffix)).unwrap();
    }

    /// As a kill at any moment leaves them, they belong together; of two moments between which pages were moved, not.
    #[test]
    fn a_file_and_a_log_of_different_moments_are_told_from_those_of_one() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::at(directory.path().join("solid.db"), 1 << 20);
        database.create(4096, |_| Ok(())).unwrap();
        let moments: Vec<_> =
            (0..8).map(|moment| directory.path().join(format!("moment{moment}.db"))).collect();
        let connection = database.open_for_apply().unwrap();
        connection.execute_batch("CREATE TABLE t (id INTEGER, v BLOB)").unwrap();
        for (moment, to) in moments.iter().enumerate() {
            (0..3).for_each(|_| write(&connection, 1));
            copy(&database, to, "");
            copy(&database, to, "-wal");
            // In SQLite's log stays nothing, something, or all.
            match moment % 4 {
                0 => checkpoint::start_log_over(&connection).unwrap(),
                1 => {
                    let reader = database.open_reader().unwrap();
                    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
                    write(&connection, 1);
                    checkpoint::move_pages(&connection).unwrap();
                }
                2 => drop(checkpoint::move_pages(&connection).unwrap()),
                _ => {}
            }
        }
        drop(connection);
        let mut refused = 0;
        for (of_file, file) in moments.iter().enumerate() {
            for (of_log, log) in moments.iter().enumerate() {
                let mixed = directory.path().join("mixed.db");
                std::fs::copy(file, &mixed).unwrap();
                std::fs::copy(files::beside(log, "-wal"), files::beside(&mixed, "-wal")).unwrap();
                let mixed = Database::at(mixed, 0);
                match check(&mixed) {
                    Ok(()) => assert_whole(&mixed),
                    Err(error) => {
                        assert_ne!(of_file, of_log, "{error}");
                        assert_eq!(error.code, Some(Code::DATABASE_CORRUPT));
                        assert!(error.message().contains("do not belong together"), "{error}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 10, "only {refused} mixtures were refused");
    }

    /// Of the files of two moments, too, some give the database of one.
    fn assert_whole(database: &Database) {
        let connection = database.open_for_apply().unwrap();
        let position = read_identity(&connection).unwrap().position;
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("SELECT count(*) FROM t").unsigned_abs(), position.sequence);
        assert_eq!(number("SELECT max(id) FROM t").unsigned_abs(), position.sequence);
        let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
    }

    #[test]
    fn the_row_is_read_as_sqlite_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::at(directory.path().join("solid.db"), 1 << 20);
        database.create(4096, |_| Ok(())).unwrap();
        let connection = database.open_for_apply().unwrap();
        connection.execute_batch("CREATE TABLE t (id INTEGER, v BLOB)").unwrap();
        (0..5).for_each(|_| write(&connection, 300));
        let position = read_identity(&connection).unwrap().position;
        let places = places_in_log(&database).unwrap();
        assert_eq!(
            places.iter().map(|place| place.at.sequence).collect::<Vec<_>>(),
            [300, 600, 900, 1200, 1500]
        );
        assert_eq!(places.first().unwrap().before, Some(Position::ORIGIN));
        drop(connection);
        // The last connection moves everything into the file.
        assert_eq!(place_in_file(&database).unwrap().at, position);
    }
}
