//! HotStandby: a two-node high-availability SQL database. The map, in reading order:

pub mod codec;
pub mod error;
pub mod hsb;
pub mod net;
pub mod node;
pub mod sql;
pub mod storage;
