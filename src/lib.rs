//! HotStandby: a two-node high-availability SQL database. The map, in reading order:

pub mod codec;
pub mod command_line;
pub mod config;
pub mod error;
pub mod hsb;
pub mod logging;
pub mod net;
pub mod storage;
