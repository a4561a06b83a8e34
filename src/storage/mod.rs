//! Everything on disk: the log, the database, capture and apply of changes, copies. Knows nothing of states or peers
//! as roles.

pub mod apply;
pub mod batch;
pub mod capture;
pub mod change;
pub mod checkpoint;
pub mod checksum;
pub mod database;
pub mod files;
pub mod functions;
mod hold;
pub mod image;
pub mod kinship;
pub mod limits;
pub mod log;
pub mod memory;
pub mod outcomes;
pub mod recovery;
pub mod rewind;
pub mod sqlite_error;
pub mod table;
mod write_behind;
pub mod writer;
