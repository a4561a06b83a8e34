//! One segment file: its name, its head, its mapped bytes and what stands at an offset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{LogConfiguration, LogReadError, damaged, unusable};
use crate::codec::{self, FRAME_HEADER_BYTES, FrameError, FrameKind, MAGIC};
use crate::descriptors::open_surely;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::position::Position;
use crate::storage::batch::Batch;

/// First frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHead {
    pub database_id: [u8; 16],
    pub number: u64,
    pub start: Position,
}

/// Translates segment numbers to file names and back.
#[derive(Clone, Debug)]
pub struct SegmentNames {
    directory: PathBuf,
    prefix: String,
    suffix: String,
    digits: usize,
}

impl SegmentNames {
    pub fn new(configuration: &LogConfiguration) -> Result<SegmentNames, ServerError> {
        let template = &configuration.template;
        let digit = configuration.digit;
        let wrong = || {
            let detail = format!(
                "The file name template '{template}' must hold one run of '{digit}' and no directory."
            );
            ServerError::with(Code::LOG_OPEN_FAILED, detail)
        };
        let begin = template.find(digit).ok_or_else(wrong)?;
        let run = &template[begin..];
        let end = begin + run.find(|c| c != digit).unwrap_or(run.len());
        let (prefix, suffix) = (&template[..begin], &template[end..]);
        // A digit beside the run would make names ambiguous.
        let beside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        if suffix.contains(digit)
            || template.contains('/')
            || beside(prefix.chars().last())
            || beside(suffix.chars().next())
        {
            return Err(wrong());
        }
        Ok(SegmentNames {
            directory: configuration.directory.clone(),
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            digits: template[begin..end].chars().count(),
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{}{number:0width$}{}", self.prefix, self.suffix, width = self.digits))
    }

    fn number(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(self.prefix.as_str())?.strip_suffix(self.suffix.as_str())?;
        let padded = digits.len() > self.digits && digits.starts_with('0');
        if digits.len() < self.digits || padded || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok()
    }

    /// Numbers of the segments that are there, ascending.
    pub fn list(&self) -> Result<Vec<u64>, ServerError> {
        let failed = |error: io::Error| unusable(&self.directory, &error);
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            if let Some(number) =
                entry.map_err(failed)?.file_name().to_str().and_then(|name| self.number(name))
            {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// What stands at an offset of a segment.
pub enum Found {
    /// A whole batch that follows the position asked for.
    Batch(Batch),
    /// A zero header, or the end of the file.
    Nothing,
    /// Something else; the text says what.
    Bad(String),
}

/// A mapped segment with its checked head.
pub struct Segment {
    pub path: PathBuf,
    pub head: SegmentHead,
    /// Where the first batch stands.
    pub first_offset: usize,
    pub bytes: Bytes,
    file: File,
}

impl Segment {
    /// Opens and maps a segment, checking its head. None: there is no such file.
    pub fn open(
        configuration: &LogConfiguration,
        names: &SegmentNames,
        number: u64,
    ) -> Result<Option<Segment>, ServerError> {
        let path = names.path(number);
        let file = match open_surely(|| File::open(&path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, &error)),
        };
        let bytes = map(&file).map_err(|error| unusable(&path, &error))?;
        let (head, first_offset) = read_head(&bytes).map_err(|what| damaged(&path, 0, what))?;
        if head.database_id != configuration.database_id {
            let detail = format!("The log file {} is of another database.", path.display());
            return Err(ServerError::with(Code::DIFFERENT_DATABASE, detail));
        }
        if head.number != number {
            return Err(damaged(&path, 0, format!("the head says that this is segment {}", head.number)));
        }
        Ok(Some(Segment { path, head, first_offset, bytes, file }))
    }

    /// Maps the file anew if it has become longer.
    pub fn refresh(&mut self) -> Result<bool, ServerError> {
        let failed = |error: io::Error| unusable(&self.path, &error);
        let length = self.file.metadata().map_err(failed)?.len();
        if length <= self.bytes.len() as u64 {
            return Ok(false);
        }
        self.bytes = map(&self.file).map_err(failed)?;
        Ok(true)
    }

    /// No batch has been written at `offset`.
    pub fn is_end(&self, offset: usize) -> bool {
        let rest = &self.bytes[offset.min(self.bytes.len())..];
        rest[..rest.len().min(FRAME_HEADER_BYTES)].iter().all(|byte| *byte == 0)
    }

    /// What stands at `offset`, where a batch that follows `position` belongs.
    pub fn look(&self, offset: usize, position: &Position) -> Found {
        if self.is_end(offset) {
            return Found::Nothing;
        }
        let rest = self.bytes.slice(offset..);
        let length = match codec::frame_length(&rest) {
            Ok((FrameKind::Batch, length)) => length,
            Ok(_) => return Found::Bad("not a batch".into()),
            Err(error) => return Found::Bad(error.to_string()),
        };
        if length > rest.len() {
            return Found::Bad(FrameError::Incomplete { needed: length, have: rest.len() }.to_string());
        }
        match Batch::parse(rest.slice(..length)) {
            Ok(batch) if batch.header.before == *position => Found::Batch(batch),
            Ok(batch) => {
                Found::Bad(format!("the batch follows {}, the log is at {position}", batch.header.before))
            }
            Err(error) => Found::Bad(error.to_string()),
        }
    }

    /// Offset of a whole batch behind `offset` that can come after `position` and `counts`, if there is one.
    pub fn later_batch(
        &self,
        offset: usize,
        position: &Position,
        counts: impl Fn(&Batch) -> bool,
    ) -> Option<usize> {
        let mut from = offset + 1;
        while let Some(at) = find_magic(&self.bytes, from) {
            if let Ok((FrameKind::Batch, length)) = codec::check_frame(&self.bytes[at..])
                && let Ok(batch) = Batch::parse(self.bytes.slice(at..at + length))
                && batch.header.before.sequence > position.sequence
                && batch.header.before.epoch >= position.epoch
                && counts(&batch)
            {
                return Some(at);
            }
            from = at + 1;
        }
        None
    }

    /// Damage at an offset of this segment.
    pub fn damaged_at(&self, offset: usize, what: impl std::fmt::Display) -> ServerError {
        damaged(&self.path, offset, what)
    }
}

impl From<ServerError> for LogReadError {
    fn from(error: ServerError) -> LogReadError {
        LogReadError::Failed(error)
    }
}

/// The bytes of a new segment's head.
pub fn encode_head(head: &SegmentHead) -> io::Result<Bytes> {
    codec::encode_message(FrameKind::Segment, head).map_err(io::Error::other)
}

fn read_head(bytes: &[u8]) -> Result<(SegmentHead, usize), String> {
    match codec::check_frame(bytes) {
        Ok((FrameKind::Segment, length)) => codec::decode_message(&bytes[FRAME_HEADER_BYTES..length])
            .map(|head| (head, length))
            .map_err(|error| error.to_string()),
        Ok(_) => Err("the file does not begin with the head of a segment".into()),
        Err(error) => Err(format!("the head of the segment is bad: {error}")),
    }
}

/// The head of a segment without mapping it, for finding the right one among many.
pub fn read_head_of(path: &Path) -> io::Result<Option<SegmentHead>> {
    let mut bytes = [0; 128];
    let mut have = 0;
    let file = open_surely(|| File::open(path))?;
    while have < bytes.len() {
        match file.read_at(&mut bytes[have..], have as u64)? {
            0 => break,
            more => have += more,
        }
    }
    Ok(read_head(&bytes[..have]).ok().map(|(head, _)| head))
}

fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    // Long runs of zeros are the usual case: step over them a word at a time.
    let mut at = 0;
    while at < rest.len() {
        if rest.len() - at >= 64 && rest[at..at + 64].iter().all(|byte| *byte == 0) {
            at += 64;
        } else if rest[at..].starts_with(&MAGIC) {
            return Some(from + at);
        } else {
            at += 1;
        }
    }
    None
}

fn map(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: segments never shrink (see the module's rules), so no access leaves the file. Bytes behind the last
    // appended batch may change while mapped; they are copied into no reference that outlives a check: `look` is
    // asked only for batches that were appended before, which are never written again.
    #[allow(unsafe_code)]
    let mapped = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(mapped))
}
