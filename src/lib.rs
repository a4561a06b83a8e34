//! HotStandby: a two-node high-availability SQL database. The map, in reading order:

pub mod codec;
pub mod config;
pub mod error;
pub mod hsb;
pub mod storage;
