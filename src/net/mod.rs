//! What arrives on the port: the listener that tells the protocols apart, and the protocols.

pub mod console;
pub mod listener;
pub mod peer;
pub mod pg;
