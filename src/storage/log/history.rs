//! Where two histories parted, found out from two logs on two servers.
//!
//! A *turning point* is where an epoch ends in a log: another server wrote on, or nobody has yet. Between two turning
//! points one server wrote in one go, so two histories that share a batch of it share all of it up to the nearer end.
//! Hence the last position that both have in common is a turning point of one of them and lies in the log of the other:
//! the newer one of the two that can be found so. That a position is common is never a guess, because positions carry
//! the hash of all that leads to them.

use super::segment::{Found, Segment, SegmentNames, read_head_of};
use super::{LogConfiguration, LogReadError, LogReader};
use crate::error::ServerError;
use crate::hsb::position::Position;

/// So many turning points are told, the newest. Each is a failover or a switch.
pub const TOLD_TURNING_POINTS: usize = 500;

/// The turning points of a log, the newest first, then where it begins.
pub fn turning_points(configuration: &LogConfiguration) -> Result<Vec<Position>, ServerError> {
    let names = SegmentNames::new(configuration)?;
    let mut starts = Vec::new();
    for number in names.list()? {
        // A segment may be deleted meanwhile; a bad head is reported by whoever opens it.
        if let Ok(Some(head)) = read_head_of(&names.path(number)) {
            starts.push((number, head.start));
        }
    }
    let Some((_, beginning)) = starts.first().copied() else { return Ok(Vec::new()) };
    let mut points = vec![beginning];
    for (index, (number, start)) in starts.iter().enumerate() {
        let next = starts.get(index + 1).map(|(_, next)| next);
        if next.is_some_and(|next| next.epoch == start.epoch) {
            continue;
        }
        let Some(segment) = Segment::open(configuration, &names, *number)? else { continue };
        let (mut offset, mut at) = (segment.first_offset, segment.head.start);
        while let Found::Batch(batch) = segment.look(offset, &at) {
            if batch.after.epoch != at.epoch {
                points.push(at);
            }
            (offset, at) = (offset + batch.bytes.len(), batch.after);
        }
        if next.is_none() {
            points.push(at);
        }
    }
    points.dedup();
    points.reverse();
    let beginning_is_left_out = points.len() > TOLD_TURNING_POINTS;
    points.truncate(TOLD_TURNING_POINTS);
    if beginning_is_left_out {
        points.push(beginning);
    }
    Ok(points)
}

/// The newest of the positions that lies on this log's history.
pub fn newest_on_history(
    configuration: &LogConfiguration,
    positions: &[Position],
) -> Result<Option<Position>, ServerError> {
    let mut positions = positions.to_vec();
    positions.sort_unstable_by_key(|position| std::cmp::Reverse(position.sequence));
    for position in positions {
        match LogReader::open(configuration, position) {
            Ok(_) => return Ok(Some(position)),
            Err(LogReadError::NotThere | LogReadError::Diverged { .. }) => {}
            Err(LogReadError::Failed(error)) => return Err(error),
        }
    }
    Ok(None)
}
