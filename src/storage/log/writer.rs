//! Appends batches, rolls segments over, drops what is pending or no longer needed; repairs the tail at the start.

use crate::storage::files::sync_directory;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;

use super::segment::{Found, Segment, SegmentHead, SegmentNames, encode_head, read_head_of};
use super::{LogConfiguration, LogReadError, LogReader, damaged, unusable};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::storage::batch::Batch;

/// What the start-up must know about the log it found.
pub struct Recovered {
    /// Stands right after the database's position: reads the batches that the database lacks.
    pub reader: LogReader,
    /// The database's position was beyond the log's end; the log was begun anew there.
    pub database_ahead: bool,
    /// Bytes of a torn tail that were wiped.
    pub truncated_bytes: u64,
}

/// A segment as the writer remembers it.
struct Known {
    number: u64,
    start: Position,
    file_bytes: u64,
}

/// The only one that changes a log. Used by one thread.
///
/// Invariants: `segments` is never empty and ascending without gaps; `file` is the last of them and `offset` the place
/// after its last batch; all segments but the last are synced.
pub struct LogWriter {
    configuration: LogConfiguration,
    names: SegmentNames,
    segments: Vec<Known>,
    file: File,
    offset: u64,
    end: Position,
    unsynced: bool,
    poisoned: bool,
}

impl LogWriter {
    /// Opens what is there and repairs the tail. `database` is the position inside the database.
    pub fn open(
        configuration: LogConfiguration,
        database: Position,
    ) -> Result<(LogWriter, Recovered), ServerError> {
        let names = SegmentNames::new(&configuration)?;
        std::fs::create_dir_all(names.directory()).map_err(|error| unusable(names.directory(), &error))?;
        let segments = known_segments(&names)?;
        let (mut writer, truncated_bytes) = match segments.last() {
            None => (LogWriter::begin(configuration, names, 1, database)?, 0),
            Some(_) => LogWriter::resume(configuration, names, segments)?,
        };
        let database_ahead = database.sequence > writer.end.sequence;
        if database_ahead {
            writer.restart_at(database)?;
        }
        let reader = LogReader::open(&writer.configuration, database).map_err(|error| match error {
            LogReadError::Diverged { parted_at } => {
                let detail =
                    format!("The database is at {database}, which the log left at {parted_at} or before.");
                ServerError::with(Code::LOG_BAD_RECORD, detail)
            }
            error => error.into(),
        })?;
        Ok((writer, Recovered { reader, database_ahead, truncated_bytes }))
    }

    fn begin(
        configuration: LogConfiguration,
        names: SegmentNames,
        number: u64,
        start: Position,
    ) -> Result<LogWriter, ServerError> {
        let (file, known, offset) = create_segment(&configuration, &names, number, start, 0)
            .map_err(|error| unusable(&names.path(number), &error))?;
        let segments = vec![known];
        let (unsynced, poisoned) = (false, false);
        Ok(LogWriter { configuration, names, segments, file, offset, end: start, unsynced, poisoned })
    }

    fn resume(
        configuration: LogConfiguration,
        names: SegmentNames,
        mut segments: Vec<Known>,
    ) -> Result<(LogWriter, u64), ServerError> {
        let number = segments.last().map_or(0, |last| last.number);
        let path = names.path(number);
        let gone = || damaged(&path, 0, "the segment vanished");
        let segment = Segment::open(&configuration, &names, number)?.ok_or_else(gone)?;
        let (offset, end) = find_end(&segment)?;
        let failed = |error: io::Error| unusable(&path, &error);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let used = segment.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let torn = used.saturating_sub(offset) as u64;
        if torn > 0 {
            wipe(&file, offset as u64, torn).and_then(|()| file.sync_data()).map_err(failed)?;
        }
        // A copied log may have lost its zeros; it must not grow once it is being read.
        if (segment.bytes.len() as u64) < configuration.segment_size_bytes {
            preallocate(&file, configuration.segment_size_bytes)
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
        }
        if let Some(last) = segments.last_mut() {
            last.file_bytes = last.file_bytes.max(configuration.segment_size_bytes);
        }
        let (unsynced, poisoned) = (false, false);
        let offset = offset as u64;
        Ok((LogWriter { configuration, names, segments, file, offset, end, unsynced, poisoned }, torn))
    }

    /// Writes a batch that follows [`LogWriter::end`]. After an error nothing was appended; it may be tried again.
    pub fn append(&mut self, batch: &Batch) -> io::Result<()> {
        self.check_usable()?;
        if batch.header.before != self.end {
            let text = format!("the batch follows {}, the log ends at {}", batch.header.before, self.end);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let length = batch.bytes.len() as u64;
        if self.offset + length > self.segments[self.segments.len() - 1].file_bytes {
            self.roll_over(length)?;
        }
        self.file.write_all_at(&batch.bytes, self.offset)?;
        self.offset += length;
        self.end = batch.after;
        self.unsynced = true;
        Ok(())
    }

    fn roll_over(&mut self, length: u64) -> io::Result<()> {
        self.sync()?;
        let number = self.segments[self.segments.len() - 1].number + 1;
        let (file, known, offset) =
            create_segment(&self.configuration, &self.names, number, self.end, length)?;
        (self.file, self.offset) = (file, offset);
        self.segments.push(known);
        Ok(())
    }

    /// Puts everything appended on disk. After a failure the writer refuses all further work.
    pub fn sync(&mut self) -> io::Result<()> {
        self.check_usable()?;
        if self.unsynced {
            self.file.sync_data().inspect_err(|_| self.poisoned = true)?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn check_usable(&self) -> io::Result<()> {
        if self.poisoned {
            return Err(io::Error::other("syncing the log failed earlier; what is on disk is unknown"));
        }
        Ok(())
    }

    /// Where the next batch must begin.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The oldest position from which the log can be read.
    pub fn start(&self) -> Position {
        self.segments[0].start
    }

    /// Bytes that the segments take on disk.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.file_bytes).sum()
    }

    /// Drops the batches after `position`, durably. Meant for a few pending ones: each dropped batch costs a sync.
    /// Nobody may be reading them.
    pub fn truncate_after(&mut self, position: Position) -> Result<(), ServerError> {
        if position == self.end {
            return Ok(());
        }
        self.check_usable().map_err(|error| unusable(self.names.directory(), &error))?;
        // Before anything is deleted: the position must be there.
        LogReader::open(&self.configuration, position)?;
        while self.segments.len() > 1
            && self.segments[self.segments.len() - 1].start.sequence >= position.sequence
        {
            self.drop_last_segment()?;
        }
        let number = self.segments[self.segments.len() - 1].number;
        let path = self.names.path(number);
        let gone = || damaged(&path, 0, "the segment vanished");
        let segment = Segment::open(&self.configuration, &self.names, number)?.ok_or_else(gone)?;
        let (mut offset, mut at) = (segment.first_offset, segment.head.start);
        let mut dropped = Vec::new();
        while let Found::Batch(batch) = segment.look(offset, &at) {
            let length = batch.bytes.len();
            if batch.after.sequence > position.sequence {
                dropped.push((offset as u64, length as u64, batch.header.before));
            }
            (offset, at) = (offset + length, batch.after);
        }
        // The newest first, each synced: a crash in between leaves a whole log.
        for (offset, length, before) in dropped.into_iter().rev() {
            let wiped = wipe(&self.file, offset, length).and_then(|()| self.file.sync_data());
            wiped.map_err(|error| {
                self.poisoned = true;
                unusable(&path, &error)
            })?;
            (self.offset, self.end) = (offset, before);
        }
        self.unsynced = false;
        Ok(())
    }

    fn drop_last_segment(&mut self) -> Result<(), ServerError> {
        let Some(last) = self.segments.pop() else { return Ok(()) };
        self.end = last.start;
        let path = self.names.path(last.number);
        let before = self.names.path(self.segments[self.segments.len() - 1].number);
        let reopened = OpenOptions::new().read(true).write(true).open(&before);
        self.file = reopened.map_err(|error| unusable(&before, &error))?;
        let removed = std::fs::remove_file(&path).and_then(|()| sync_directory(self.names.directory()));
        removed.map_err(|error| unusable(&path, &error))?;
        // The end of the segment before: needed even if nothing more is dropped there.
        let number = self.segments[self.segments.len() - 1].number;
        let gone = || damaged(&before, 0, "the segment vanished");
        let segment = Segment::open(&self.configuration, &self.names, number)?.ok_or_else(gone)?;
        let (offset, end) = find_end(&segment)?;
        if end != self.end {
            return Err(segment
                .damaged_at(offset, format!("the segment ends at {end}, the next starts at {}", self.end)));
        }
        self.offset = offset as u64;
        self.unsynced = false;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn offset_for_tests(&self) -> u64 {
        self.offset
    }

    /// Deletes all segments and begins anew at `position`: after a netcopy, or if the database is ahead of the log.
    pub fn restart_at(&mut self, position: Position) -> Result<(), ServerError> {
        let old: Vec<u64> = self.segments.iter().map(|segment| segment.number).collect();
        // The oldest first: a crash in between leaves a whole, merely shorter, log.
        let number = old[old.len() - 1] + 1;
        let remove = |number: &u64| {
            let path = self.names.path(*number);
            std::fs::remove_file(&path)
                .and_then(|()| sync_directory(self.names.directory()))
                .map_err(|error| unusable(&path, &error))
        };
        old.iter().try_for_each(remove)?;
        *self = LogWriter::begin(self.configuration.clone(), self.names.clone(), number, position)?;
        Ok(())
    }

    /// Deletes whole segments that end at or before `position`, always keeping the current and the one before.
    pub fn retain_from(&mut self, position: Position) -> io::Result<()> {
        let mut deleted = 0;
        while self.segments.len() > 2 && self.segments[1].start.sequence <= position.sequence {
            let path = self.names.path(self.segments[0].number);
            std::fs::remove_file(path)?;
            self.segments.remove(0);
            deleted += 1;
        }
        if deleted > 0 { sync_directory(self.names.directory()) } else { Ok(()) }
    }
}

/// All segments with their starts; numbers must follow each other.
fn known_segments(names: &SegmentNames) -> Result<Vec<Known>, ServerError> {
    let numbers = names.list()?;
    let mut known = Vec::with_capacity(numbers.len());
    for (index, number) in numbers.iter().enumerate() {
        let path = names.path(*number);
        if *number != numbers[0] + index as u64 {
            return Err(damaged(&names.path(numbers[0] + index as u64), 0, "the segment is missing"));
        }
        let head = read_head_of(&path).map_err(|error| unusable(&path, &error))?;
        let head = head.ok_or_else(|| damaged(&path, 0, "the head of the segment is bad"))?;
        let file_bytes = path.metadata().map_err(|error| unusable(&path, &error))?.len();
        known.push(Known { number: *number, start: head.start, file_bytes });
    }
    Ok(known)
}

/// Where the whole batches of the last segment end; an error if that is not its tail.
fn find_end(segment: &Segment) -> Result<(usize, Position), ServerError> {
    let (mut offset, mut position) = (segment.first_offset, segment.head.start);
    let what = loop {
        match segment.look(offset, &position) {
            Found::Batch(batch) => (offset, position) = (offset + batch.bytes.len(), batch.after),
            Found::Nothing => break "there is no batch".to_owned(),
            Found::Bad(what) => break what,
        }
    };
    // A whole batch right here that does not chain is no torn write.
    let whole = crate::codec::check_frame(&segment.bytes[offset.min(segment.bytes.len())..]).is_ok();
    if whole {
        return Err(segment.damaged_at(offset, what));
    }
    match segment.later_batch(offset, &position) {
        Some(later) => {
            Err(segment.damaged_at(offset, format!("{what}, but a whole batch follows at {later}")))
        }
        None => Ok((offset, position)),
    }
}

/// Makes a segment with room for a batch of `batch_bytes`; it has its name only when it is whole and on disk.
fn create_segment(
    configuration: &LogConfiguration,
    names: &SegmentNames,
    number: u64,
    start: Position,
    batch_bytes: u64,
) -> io::Result<(File, Known, u64)> {
    let head = encode_head(&SegmentHead { database_id: configuration.database_id, number, start })?;
    let offset = head.len() as u64;
    let file_bytes = configuration.segment_size_bytes.max(offset + batch_bytes);
    let path = names.path(number);
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".new");
    let unfinished = std::path::PathBuf::from(unfinished);
    let make = || {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        preallocate(&file, file_bytes)?;
        file.write_all_at(&head, 0)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        sync_directory(names.directory())?;
        Ok(file)
    };
    match make() {
        Ok(file) => Ok((file, Known { number, start, file_bytes }, offset)),
        Err(error) => {
            // Most likely a full disk: give back what was taken. The first error is the one to report.
            let _ = std::fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

/// Makes the file so long, with real room behind it where the file system can do that.
fn preallocate(file: &File, length_bytes: u64) -> io::Result<()> {
    match fs4::FileExt::allocate(file, length_bytes) {
        Err(error) if !is_unsupported(&error) => return Err(error),
        _ => {}
    }
    // Allocating may leave the length as it was.
    if file.metadata()?.len() < length_bytes { file.set_len(length_bytes) } else { Ok(()) }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}

fn wipe(file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while length > 0 {
        let part = length.min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..part as usize], offset)?;
        (offset, length) = (offset + part, length - part);
    }
    Ok(())
}
