//! Reads batches in order from a position on, in place, while the writer may be appending.

use bytes::Bytes;

use super::segment::{Found, Segment, SegmentNames, read_head_of};
use super::{LogConfiguration, LogReadError, unusable};
use crate::error::ServerError;
use crate::hsb::position::Position;
use crate::storage::batch::Batch;

/// A place in the log. The batches that it returns share the mapped file.
///
/// Invariant: `position` is where the history stands before the batch at `offset` of `segment`.
pub struct LogReader {
    configuration: LogConfiguration,
    names: SegmentNames,
    segment: Segment,
    offset: usize,
    position: Position,
}

impl LogReader {
    /// Finds `from` in the log.
    pub fn open(configuration: &LogConfiguration, from: Position) -> Result<LogReader, LogReadError> {
        let names = SegmentNames::new(configuration)?;
        let reaches_it = |start: &Position| start.sequence <= from.sequence;
        let Some(mut reader) = LogReader::at_segment(configuration, &names, reaches_it)? else {
            return Err(LogReadError::NotThere);
        };
        while reader.position.sequence < from.sequence {
            // What is being appended just now may be half there; it is after everything that can be asked for.
            match reader.segment.look(reader.offset, &reader.position) {
                Found::Batch(batch) => reader.advance(&batch),
                Found::Bad(what) => {
                    let later = reader.segment.later_batch(reader.offset, &reader.position, |_| true);
                    match later {
                        Some(_) => return Err(reader.segment.damaged_at(reader.offset, what).into()),
                        None => break,
                    }
                }
                Found::Nothing => break,
            }
        }
        if reader.position == from { Ok(reader) } else { Err(parting(configuration, &names, from)?) }
    }

    /// The beginning of the last segment whose start `fits`.
    fn at_segment(
        configuration: &LogConfiguration,
        names: &SegmentNames,
        fits: impl Fn(&Position) -> bool,
    ) -> Result<Option<LogReader>, ServerError> {
        for number in names.list()?.into_iter().rev() {
            let path = names.path(number);
            match read_head_of(&path) {
                Ok(Some(head)) if !fits(&head.start) => continue,
                // Bad heads are reported by opening the segment.
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unusable(&path, &error)),
            }
            if let Some(segment) = Segment::open(configuration, names, number)? {
                let (offset, position) = (segment.first_offset, segment.head.start);
                let (configuration, names) = (configuration.clone(), names.clone());
                return Ok(Some(LogReader { configuration, names, segment, offset, position }));
            }
        }
        Ok(None)
    }

    /// Where the next batch begins.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next batch that ends at or before `up_to_sequence`, if there is one. `up_to_sequence` must not be beyond
    /// what has been appended, unless nobody is appending.
    pub fn next(&mut self, up_to_sequence: u64) -> Result<Option<Batch>, LogReadError> {
        while self.position.sequence < up_to_sequence {
            // Before looking here: the writer finishes this segment before it begins the next.
            let next = self.next_segment()?;
            match self.segment.look(self.offset, &self.position) {
                Found::Batch(batch) if batch.after.sequence > up_to_sequence => return Ok(None),
                Found::Batch(batch) => {
                    self.advance(&batch);
                    return Ok(Some(batch));
                }
                Found::Nothing | Found::Bad(_) if self.segment.refresh()? => {}
                Found::Bad(what) => return Err(self.segment.damaged_at(self.offset, what).into()),
                Found::Nothing => match next {
                    Some(segment) => self.move_to(segment)?,
                    None if self.is_last()? => return Ok(None),
                    None => {}
                },
            }
        }
        Ok(None)
    }

    /// The next batches that end at or before `up_to_sequence`, as they lie one after another in the log, until there are
    /// `enough_bytes`; at least one, if there is one.
    pub fn next_block(
        &mut self,
        up_to_sequence: u64,
        enough_bytes: usize,
    ) -> Result<Option<Bytes>, LogReadError> {
        let Some(first) = self.next(up_to_sequence)? else { return Ok(None) };
        let begin = self.offset - first.bytes.len();
        while self.offset - begin < enough_bytes {
            match self.segment.look(self.offset, &self.position) {
                Found::Batch(batch) if batch.after.sequence <= up_to_sequence => self.advance(&batch),
                // What is wrong, if anything, is found when the next block is asked for.
                _ => break,
            }
        }
        Ok(Some(self.segment.bytes.slice(begin..self.offset)))
    }

    fn advance(&mut self, batch: &Batch) {
        self.offset += batch.bytes.len();
        self.position = batch.after;
    }

    /// The segment after this one. Opened only at the end of this one: most calls find a batch there.
    fn next_segment(&self) -> Result<Option<Segment>, ServerError> {
        if !self.segment.is_end(self.offset) {
            return Ok(None);
        }
        Segment::open(&self.configuration, &self.names, self.segment.head.number + 1)
    }

    fn move_to(&mut self, segment: Segment) -> Result<(), LogReadError> {
        if segment.head.start != self.position {
            let what = format!(
                "the segment starts at {}, the one before ends at {}",
                segment.head.start, self.position
            );
            return Err(segment.damaged_at(0, what).into());
        }
        self.offset = segment.first_offset;
        self.segment = segment;
        Ok(())
    }

    /// True at the end of the log, false if the next segment has just been begun.
    fn is_last(&self) -> Result<bool, LogReadError> {
        let numbers = self.names.list()?;
        let here = self.segment.head.number;
        match numbers.last() {
            Some(_) if numbers.binary_search(&(here + 1)).is_ok() => Ok(false),
            Some(last) if *last == here => Ok(true),
            // Deleted while this reader was behind.
            _ => Err(LogReadError::NotThere),
        }
    }
}

/// Where a history that has `from` left this log: the last batch here that is not later than `from`, neither in
/// sequence nor in epoch.
fn parting(
    configuration: &LogConfiguration,
    names: &SegmentNames,
    from: Position,
) -> Result<LogReadError, LogReadError> {
    let fits = |at: &Position| at.sequence < from.sequence && at.epoch <= from.epoch;
    let Some(mut reader) = LogReader::at_segment(configuration, names, fits)? else {
        return Ok(match LogReader::at_segment(configuration, names, |at| at.sequence <= from.sequence)? {
            Some(oldest) => LogReadError::Diverged { parted_at: oldest.position },
            None => LogReadError::NotThere,
        });
    };
    while let Found::Batch(batch) = reader.segment.look(reader.offset, &reader.position) {
        if !fits(&batch.after) {
            break;
        }
        reader.advance(&batch);
    }
    Ok(LogReadError::Diverged { parted_at: reader.position })
}
