//! The SQL port: PostgreSQL protocol v3, one thread a session, blocking.
//!
//! `serve` runs a whole connection. What statements mean is decided in `sql`.

pub mod codec;
pub mod connection;
mod copy;
mod extended;
pub mod first_packet;
mod held;
mod listening;
mod rows;
pub mod scram;
mod simple;
pub mod startup;
mod utility;

pub use startup::serve;
