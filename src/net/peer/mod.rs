//! The link between the two nodes: handshake, copies, comparing. Once connected, the actors own the link.

pub mod copy;
pub mod handshake;
pub mod history;
pub mod verify;
