//! The two threads where storage blocks: one writes the log, one applies what the primary sends.

pub mod apply;
pub mod log;

use crate::error::ServerError;

/// Ends the process at once: going on would break a promise (a failed fsync, a log that cannot be written). The peer
/// takes over; recovery makes this node whole at its next start.
pub fn stop_process(error: &ServerError) -> ! {
    ::log::error!("stopping at once: {error}");
    ::log::logger().flush();
    std::process::abort();
}
