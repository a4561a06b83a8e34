//! HotStandby: a two-node high-availability SQL database. The map, in reading order:

// What a node is and decides.
pub mod hsb;

// What it is made of.
pub mod actors;
pub mod admin;
pub mod node;

// What it stands on.
pub mod storage;

pub mod net;
pub mod sql;

// What all of them use.
pub mod client;
pub mod codec;
pub mod command_line;
pub mod config;
pub mod counters;
pub mod demo;
pub mod error;
pub mod logging;
pub mod program;
