//! Everything on disk: the log, the database, capture and apply of changes, copies. Knows nothing of states or peers
//! as roles.

pub mod batch;
pub mod log;
