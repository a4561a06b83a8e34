//! Two servers tell each other the turning points of their histories, so that each can say where they parted.
//!
//! After the handshake: the dialler's turning points, then the listener's answer. Before a netcopy the dialler, who is to
//! send it, says last what both have in common; then the listener lets it in or refuses. Blocking, on threads of their own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::handshake::{hear, lost, say};
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::stream::Stream;

/// Enough for all turning points that are told.
const MAX_BYTES: usize = 64 << 10;
/// For reading through a log.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize, Debug)]
struct Question {
    turning_points: Vec<Position>,
}

/// The dialler's finding, before a netcopy.
#[derive(Serialize, Deserialize, Debug)]
struct Finding {
    common: Option<Position>,
}

/// What the listener says.
#[derive(Serialize, Deserialize, Debug)]
pub struct Answer {
    /// The turning points of its own log, the newest first; the last is where the log begins.
    pub turning_points: Vec<Position>,
    /// The newest of the dialler's that lies on its history.
    pub common: Option<Position>,
}

/// The dialler's part.
pub fn ask(stream: &mut Stream, turning_points: Vec<Position>) -> Result<Answer, Refusal> {
    say(stream, &Question { turning_points })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| lost(&error))?;
    hear(stream, MAX_BYTES)
}

/// The listener's part.
pub fn answer(
    stream: &mut Stream,
    compare: impl FnOnce(&[Position]) -> Result<Answer, Refusal>,
) -> Result<(), Refusal> {
    let question: Question = hear(stream, MAX_BYTES)?;
    let answer = compare(&question.turning_points)?;
    say(stream, &answer)
}

/// The dialler's last word before a netcopy: the newest position that both histories are known to have.
pub fn tell_common(stream: &mut Stream, common: Option<Position>) -> Result<(), Refusal> {
    say(stream, &Finding { common })
}

/// The listener hears it.
pub fn hear_common(stream: &mut Stream) -> Result<Option<Position>, Refusal> {
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| lost(&error))?;
    let Finding { common } = hear(stream, MAX_BYTES)?;
    Ok(common)
}
