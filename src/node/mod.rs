//! What a session gets from the node.

pub mod stand_in;
pub use stand_in::*;
