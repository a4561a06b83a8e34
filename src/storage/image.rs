//! The database file as it is at one position, read block by block while writers go on.
//!
//! An open read transaction holds the picture still; SQLite hands out its pages as they were when it began. Nothing is
//! copied for that. Invariant: blocks of one image, put one after another, are a whole database file at `position`.

use rusqlite::Connection;

use super::database::{Database, LongRead, read_identity};
use crate::error::ServerError;
use crate::hsb::position::{DatabasePosition, Position};

/// See the module.
pub struct Image {
    connection: Connection,
    /// Whose it is.
    pub database_id: [u8; 16],
    /// When it is from.
    pub position: Position,
    /// Of the database.
    pub page_bytes: u64,
    /// In all.
    pub pages: u64,
    block_pages: u64,
    _reads: LongRead,
}

impl Image {
    /// Takes the picture. Blocks are `block_bytes` long, rounded to whole pages; the last may be shorter.
    pub fn take(database: &Database, block_bytes: usize) -> Result<Image, ServerError> {
        let _reads = database.begin_long_read();
        let connection = database.open_reader()?;
        connection.execute_batch("BEGIN")?;
        let DatabasePosition { database_id, position } = read_identity(&connection)?;
        let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
        let page_bytes = number("PRAGMA page_size")?;
        let pages = number("PRAGMA page_count")?;
        let block_pages = (block_bytes as u64 / page_bytes.max(1)).max(1);
        Ok(Image { connection, database_id, position, page_bytes, pages, block_pages, _reads })
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.pages * self.page_bytes
    }

    /// Length of a block.
    pub fn block_bytes(&self) -> u64 {
        self.block_pages * self.page_bytes
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.pages.div_ceil(self.block_pages)
    }

    /// Reads a block, counted from 0, into `block`.
    pub fn read(&self, index: u64, block: &mut Vec<u8>) -> Result<(), ServerError> {
        block.clear();
        let mut statement =
            self.connection.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?")?;
        let first = index * self.block_pages + 1;
        for page in first..(first + self.block_pages).min(self.pages + 1) {
            let mut rows = statement.query([i64::try_from(page).unwrap_or(i64::MAX)])?;
            let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            block.extend_from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_image_does_not_see_what_is_written_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::at(directory.path().join("solid.db"), 1 << 20);
        database.create(4096, |_| Ok(())).unwrap();
        let writer = database.open_writer().unwrap();
        writer.execute_batch("CREATE TABLE t (v); INSERT INTO t VALUES (zeroblob(300000))").unwrap();
        let image = Image::take(&database, 10_000).unwrap();
        writer.execute_batch("UPDATE t SET v = randomblob(400000)").unwrap();

        assert_eq!(image.block_bytes(), 8192);
        let (mut file, mut block) = (Vec::new(), Vec::new());
        for index in 0..image.blocks() {
            image.read(index, &mut block).unwrap();
            file.extend_from_slice(&block);
        }
        assert_eq!(file.len() as u64, image.bytes());
        let copy = directory.path().join("copy.db");
        std::fs::write(&copy, file).unwrap();
        let copy = Connection::open(copy).unwrap();
        let text = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(text("PRAGMA integrity_check"), "ok");
        assert_eq!(text("SELECT CAST(length(v) AS TEXT) FROM t"), "300000");
        let DatabasePosition { database_id, position } = read_identity(&copy).unwrap();
        assert_eq!((database_id, position), (image.database_id, image.position));
    }
}
