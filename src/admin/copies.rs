//! Commands that make checkpoints and copies of the database in directories.

use super::{AdminServices, Call, Rows, one};
use crate::hsb::event::Command;
use crate::operations::directory_copy::{self, EndedCopy};

pub(super) fn make_checkpoint(services: &AdminServices, _: &Call) -> Rows {
    one(services.checkpointer.make_and_tell()?)
}

pub(super) fn copy(services: &AdminServices, call: &Call) -> Rows {
    directory_copy::begin(&services.storage, Command::Copy, directory(call))
}

pub(super) fn back_up(services: &AdminServices, call: &Call) -> Rows {
    directory_copy::begin(&services.storage, Command::Backup, directory(call))
}

pub(super) fn list(services: &AdminServices, _: &Call) -> Rows {
    let ended = services.storage.ended_copies.list();
    if ended.is_empty() {
        return one("No backup or copy has ended since the start of the server.");
    }
    let line = |copy: &EndedCopy| {
        let when = crate::calendar::log_text(copy.when);
        let outcome = match &copy.result {
            Ok(()) => "SUCCESS".to_string(),
            Err(error) => format!("FAILED ({error})"),
        };
        (0, format!("{when} {} {outcome} {}", copy.what, copy.directory.display()))
    };
    Ok(ended.iter().rev().map(line).collect())
}

/// A name may hold blanks; quotes around it are no part of it.
fn directory(call: &Call) -> Option<&str> {
    let name = call.rest.trim();
    let inside = |quote: char| name.strip_prefix(quote)?.strip_suffix(quote);
    Some(inside('"').or_else(|| inside('\'')).unwrap_or(name)).filter(|directory| !directory.is_empty())
}
