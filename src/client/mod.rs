//! Clients of a node, for programs that drive it.

pub mod console;
