//! The pure heart: states, events, the transition table, effects, positions, codes.
//!
//! No actors, files, sockets, clocks or threads in here; `tests/tidy.rs` enforces it.

pub mod codes;
pub mod position;
pub mod settings;
