//! Two servers tell each other the turning points of their histories, so that each can say where they parted.
//!
//! After the handshake: the dialler's turning points, then the listener's answer. Blocking, on threads of their own.

use std::net::TcpStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::handshake::{Failure, hear, lost, say};
use crate::hsb::position::Position;

/// Enough for all turning points that are told.
const MAX_BYTES: usize = 64 << 10;
/// For reading through a log.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize, Debug)]
struct Question {
    turning_points: Vec<Position>,
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
pub fn ask(stream: &mut TcpStream, turning_points: Vec<Position>) -> Result<Answer, Failure> {
    say(stream, &Question { turning_points })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| lost(&error))?;
    hear(stream, MAX_BYTES)
}

/// The listener's part.
pub fn answer(
    stream: &mut TcpStream,
    compare: impl FnOnce(&[Position]) -> Result<Answer, Failure>,
) -> Result<(), Failure> {
    let question: Question = hear(stream, MAX_BYTES)?;
    let answer = compare(&question.turning_points)?;
    say(stream, &answer)
}
