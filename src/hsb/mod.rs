//! The pure heart: states, events, the transition table, effects, positions, codes.
//!
//! No actors, files, sockets, clocks or threads in here; `tests/tidy` enforces it.

pub mod advice;
pub mod cause;
pub mod codes;
mod commands;
mod commit;
mod connect;
pub mod effect;
pub mod event;
mod fingerprint;
pub mod heart;
mod invariants;
#[cfg(test)]
mod meeting_tests;
mod pair;
pub mod phase;
pub mod position;
#[cfg(test)]
mod reaching_tests;
pub mod refusal;
#[cfg(test)]
mod replacing_tests;
mod retention;
mod rewind;
mod room;
pub mod settings;
pub mod severity;
pub mod state;
mod switch;
pub mod table;
#[cfg(test)]
mod tests;

pub use self::connect::CONNECT_FAILED;
pub use self::retention::LOG_SIZE;
pub use self::rewind::transactions;
pub use self::room::{DISK_FULL, DISK_ROOM};
pub use self::switch::SWITCH_FAILED;
