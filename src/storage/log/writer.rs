//! Appends batches, rolls segments over, drops what is pending or no longer needed; repairs the tail at the start.

use crate::codec;
use crate::storage::files::{self, sync_directory};
use std::fs::File;
use std::io;

#[cfg(test)]
use super::medium::Medium;
use super::medium::WriteError;
use super::segment::{Found, Segment, SegmentHead, SegmentNames, encode_head, read_head_of};
use super::{LogConfiguration, LogReadError, LogReader, damaged, unsynced_flags, unusable};
use crate::codec::FRAME_HEADER_BYTES;
use crate::descriptors::open_surely;
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
/// after its last batch, with zeros behind it; all segments but the last are synced; `synced` is on disk.
pub struct LogWriter {
    configuration: LogConfiguration,
    names: SegmentNames,
    segments: Vec<Known>,
    file: File,
    offset: u64,
    end: Position,
    synced: Position,
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
            .map_err(|error| unusable(&names.path(number), error.cause()))?;
        let segments = vec![known];
        let (end, synced, poisoned) = (start, start, false);
        Ok(LogWriter { configuration, names, segments, file, offset, end, synced, poisoned })
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
        let file = files::open_present(&path).map_err(failed)?;
        let used = segment.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let torn = used.saturating_sub(offset) as u64;
        let medium = &configuration.medium;
        if torn > 0 {
            medium.wipe(&file, offset as u64, torn).map_err(failed)?;
        }
        // A copied log may have lost its zeros; it must not grow once it is being read.
        if (segment.bytes.len() as u64) < configuration.segment_size_bytes {
            medium.allocate(&file, configuration.segment_size_bytes).map_err(failed)?;
        }
        // After a crash of the process alone, what was read may be in the system's memory only.
        medium.sync(&file).map_err(failed)?;
        if let Some(last) = segments.last_mut() {
            last.file_bytes = last.file_bytes.max(configuration.segment_size_bytes);
        }
        let (offset, synced, poisoned) = (offset as u64, end, false);
        Ok((LogWriter { configuration, names, segments, file, offset, end, synced, poisoned }, torn))
    }

    /// Writes a batch that follows [`LogWriter::end`]. After an error nothing was appended.
    pub fn append(&mut self, batch: &Batch) -> Result<(), WriteError> {
        self.check_usable()?;
        if batch.header.before != self.end {
            let text = format!("the batch follows {}, the log ends at {}", batch.header.before, self.end);
            return Err(WriteError::Failed(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let length = batch.bytes.len() as u64;
        self.make_place(length)?;
        let unsynced = self.end.sequence.saturating_sub(self.synced.sequence);
        let header = codec::header_with_flags(&batch.bytes, unsynced_flags(batch, unsynced));
        // The header last: until it is there, the batch is not.
        let body_at = self.offset + FRAME_HEADER_BYTES as u64;
        let medium = &self.configuration.medium;
        let written = medium
            .write(&self.file, &batch.bytes[FRAME_HEADER_BYTES..], body_at)
            .and_then(|()| medium.write(&self.file, &header, self.offset));
        if let Err(error) = written {
            return Err(self.take_back(length, error));
        }
        self.offset += length;
        self.end = batch.after;
        Ok(())
    }

    /// Makes sure that a batch of so many bytes can be appended.
    pub fn reserve(&mut self, length: u64) -> Result<(), WriteError> {
        self.check_usable()?;
        self.make_place(length)?;
        match self.configuration.medium.wipe(&self.file, self.offset, length) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.take_back(length, error)),
        }
    }

    fn make_place(&mut self, length: u64) -> Result<(), WriteError> {
        if self.offset + length <= self.segments[self.segments.len() - 1].file_bytes {
            return Ok(());
        }
        self.sync()?;
        let number = self.segments[self.segments.len() - 1].number + 1;
        let created = create_segment(&self.configuration, &self.names, number, self.end, length);
        let (file, known, offset) =
            created.inspect_err(|error| self.poisoned |= matches!(error, WriteError::Failed(_)))?;
        (self.file, self.offset) = (file, offset);
        self.segments.push(known);
        let maximum = self.configuration.maximum_bytes.unwrap_or(u64::MAX);
        while self.segments.len() > 1
            && self.segments.iter().map(|known| known.file_bytes).sum::<u64>() > maximum
        {
            self.remove_oldest()?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> io::Result<()> {
        std::fs::remove_file(self.names.path(self.segments[0].number))?;
        self.segments.remove(0);
        // Each before the next: the numbers of what a crash leaves follow each other.
        sync_directory(self.names.directory())
    }

    /// Zeros again where a write ended half-way. Zeros need no room where bytes were written; where they find none,
    /// nothing was written either.
    fn take_back(&mut self, length: u64, error: io::Error) -> WriteError {
        let wiped = self.configuration.medium.wipe(&self.file, self.offset, length).map_err(WriteError::from);
        match (WriteError::from(error), wiped) {
            (WriteError::NoRoom(error), Ok(()) | Err(WriteError::NoRoom(_))) => WriteError::NoRoom(error),
            (WriteError::Failed(error), _) | (_, Err(WriteError::Failed(error))) => {
                self.poisoned = true;
                WriteError::Failed(error)
            }
        }
    }

    /// Puts everything appended on disk. After a failure the writer refuses all further work.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        self.check_usable()?;
        if self.synced != self.end {
            self.configuration.medium.sync(&self.file).map_err(|error| {
                self.poisoned = true;
                WriteError::Failed(error)
            })?;
            self.synced = self.end;
        }
        Ok(())
    }

    fn check_usable(&self) -> Result<(), WriteError> {
        if self.poisoned {
            let text = "writing the log failed earlier; what is on disk is unknown";
            return Err(WriteError::Failed(io::Error::other(text)));
        }
        Ok(())
    }

    /// Where the next batch must begin.
    pub fn end(&self) -> Position {
        self.end
    }

    /// On disk up to here.
    pub fn synced(&self) -> Position {
        self.synced
    }

    /// The oldest position from which the log can be read.
    pub fn start(&self) -> Position {
        self.segments[0].start
    }

    /// Bytes in the log, without what was allocated in advance.
    pub fn size_bytes(&self) -> u64 {
        let full = &self.segments[..self.segments.len() - 1];
        full.iter().map(|segment| segment.file_bytes).sum::<u64>() + self.offset
    }

    /// Files of the log.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Drops the batches after `position`, durably. Meant for a few pending ones: each dropped batch costs a sync.
    /// Nobody may be reading them.
    pub fn truncate_after(&mut self, position: Position) -> Result<(), ServerError> {
        if position == self.end {
            return Ok(());
        }
        self.check_usable().map_err(|error| unusable(self.names.directory(), error.cause()))?;
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
            let wiped = self.configuration.medium.wipe(&self.file, offset, length);
            let wiped = wiped.and_then(|()| self.configuration.medium.sync(&self.file));
            wiped.map_err(|error| {
                self.poisoned = true;
                unusable(&path, &error)
            })?;
            (self.offset, self.end) = (offset, before);
        }
        self.synced = self.end;
        Ok(())
    }

    fn drop_last_segment(&mut self) -> Result<(), ServerError> {
        let Some(last) = self.segments.pop() else { return Ok(()) };
        self.end = last.start;
        let path = self.names.path(last.number);
        let before = self.names.path(self.segments[self.segments.len() - 1].number);
        let reopened = files::open_present(&before);
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
        self.synced = self.end;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn offset_for_tests(&self) -> u64 {
        self.offset
    }

    /// Makes this writer's disk fail as the test wants it.
    #[cfg(test)]
    pub(crate) fn set_fault(&mut self, fault: super::Fault) {
        self.configuration.medium = Medium::failing(fault);
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
        while self.segments.len() > 2 && self.segments[1].start.sequence <= position.sequence {
            self.remove_oldest()?;
        }
        Ok(())
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
    // What was on disk when a later batch was written is no tail.
    let was_synced = |later: &Batch| super::synced_before(later).is_some_and(|at| at > position.sequence);
    match segment.later_batch(offset, &position, was_synced) {
        Some(later) => {
            let text = format!("{what}, but it was on disk before the batch at {later} was written");
            Err(segment.damaged_at(offset, text))
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
) -> Result<(File, Known, u64), WriteError> {
    let head = encode_head(&SegmentHead { database_id: configuration.database_id, number, start })
        .map_err(WriteError::Failed)?;
    let offset = head.len() as u64;
    let file_bytes = configuration.segment_size_bytes.max(offset + batch_bytes);
    let path = names.path(number);
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(".new");
    let unfinished = std::path::PathBuf::from(unfinished);
    let make = || -> Result<(File, File), WriteError> {
        let medium = &configuration.medium;
        // Beforehand: once the segment has its name, its directory must not be what cannot be opened.
        let directory = open_surely(|| File::open(names.directory()))?;
        let file = files::create_private(&unfinished)?;
        medium.allocate(&file, file_bytes)?;
        medium.write(&file, &head, 0)?;
        medium.sync(&file).map_err(WriteError::Failed)?;
        std::fs::rename(&unfinished, &path)?;
        Ok((file, directory))
    };
    let (file, directory) = make().inspect_err(|_| {
        // Most likely a full disk: give back what was taken. The first error is the one to report.
        let _ = std::fs::remove_file(&unfinished);
    })?;
    directory.sync_all().map_err(WriteError::Failed)?;
    Ok((file, Known { number, start, file_bytes }, offset))
}
