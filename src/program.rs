//! The program `solid`: from the command line to a running node and to its end. Not here: what a node is.

mod signals;

use std::process::ExitCode;

use self::signals::Signals;
use crate::command_line::{self, Command, Mode, Options};
use crate::config::Parameters;
use crate::descriptors;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::logging;
use crate::node::{Node, StartOptions};
use crate::stop::stop_process;

/// Runs the program; an error is one clear sentence on stderr and exit status 1.
pub fn run() -> ExitCode {
    let options = Options::from_command_line();
    let outcome = match &options.command {
        Some(Command::Demo(demo)) => crate::demo::run(demo),
        None => serve(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::last_words(&format!("solid: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> Result<(), ServerError> {
    let directory = options.directory.clone();
    if !directory.is_dir() {
        let detail = format!("There is no directory '{}'.", directory.display());
        return Err(ServerError::with(Code::INVALID_ARGUMENT, detail));
    }
    logging::start(&directory, true)?;
    descriptors::raise_limit();
    abort_on_panic();
    let signals = Signals::answer()?;
    let (mut parameters, warnings) = Parameters::load(&directory)?;
    logging::set_limits(parameters.message_log_limits());
    for warning in warnings {
        log::warn!("{warning}");
    }
    let backup_server = options.modes.contains(&Mode::Backupserver);
    if options.modes.contains(&Mode::Diskless) {
        parameters.make_diskless();
    }
    let administrator = Box::new(move || command_line::administrator(&options));
    let node =
        Node::start(StartOptions { parameters, backup_server, administrator, netcopy_requested: None })?;
    if let Some(address) = node.address() {
        log::info!("listening on {address}; process {}", std::process::id());
    }
    signals.serve(node.shutdown_requester());
    node.wait_for_shutdown();
    node.shut_down();
    log::logger().flush();
    Ok(())
}

/// A panic anywhere ends the process: half a node is worse than none, and the peer takes over. Nothing is written to stderr
/// directly: whoever reads it may have stopped, and the peer waits.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            backtrace.to_string().lines().for_each(|line| log::error!("{line}"));
        }
        stop_process(&format_args!("internal error: thread '{}' {panic}", thread.name().unwrap_or_default()));
    }));
}
