//! The two threads where storage blocks: one writes the log, one applies what the primary sends.

pub mod apply;
pub mod log;
