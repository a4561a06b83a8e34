//! Commands that make checkpoints and copies of the database in directories.

use super::{AdminServices, Call, Rows, one};
use crate::hsb::event::Command;

pub(super) fn make_checkpoint(services: &AdminServices, _: &Call) -> Rows {
    one(services.checkpointer.make_and_tell()?)
}

pub(super) fn copy(services: &AdminServices, call: &Call) -> Rows {
    services.directory_copies.begin(Command::Copy, directory(call))
}

pub(super) fn back_up(services: &AdminServices, call: &Call) -> Rows {
    services.directory_copies.begin(Command::Backup, directory(call))
}

/// A name may hold blanks.
fn directory(call: &Call) -> Option<&str> {
    Some(call.rest.trim()).filter(|directory| !directory.is_empty())
}
