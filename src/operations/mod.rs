//! What a node does beside its transactions, on threads of its own and in several steps: copies and netcopies, checkpoints,
//! taking back (rewind), comparing histories, dialling, changing parameters while it runs, the lock of its directory.
//!
//! Not here: when one may begin and what it means for the state (the heart), opening and wiring (`node`).

pub mod checkpointer;
pub(crate) mod copy;
pub mod directory_copy;
pub(crate) mod history;
pub(crate) mod lock;
pub(crate) mod outside;
pub mod parameters;
pub(crate) mod peer_port;
pub(crate) mod rewind;
mod snapshots;
pub mod storage;
