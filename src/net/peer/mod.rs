//! The link between the two nodes: handshake and copies. Once connected, the actors own the link.

pub mod copy;
pub mod handshake;
pub mod history;
