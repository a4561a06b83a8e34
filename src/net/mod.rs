//! The three protocols on the one port.

pub mod pg;
