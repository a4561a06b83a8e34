//! The end of the process at once, for all who may not go on: a promise would be broken (a failed sync, a log that cannot
//! be written, a decided batch that cannot be committed), or half a node is left (a panic). The peer takes over; recovery
//! makes this node whole at its next start.
//!
//! Not here: the end in order (`node`), and what a signal asks for (`signals`).

use std::fmt::Display;

/// Says why and ends the process as a crash does, without any destructor.
pub fn stop_process(why: &dyn Display) -> ! {
    log::error!("stopping at once, recovery follows at the next start: {why}");
    log::logger().flush();
    std::process::abort();
}
