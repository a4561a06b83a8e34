//! The program `solid`: from the command line to a running node and to its end. Not here: what a node is.

use std::process::ExitCode;

use crate::command_line::{self, Command, Mode, Options};
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::logging;
use crate::node::{Node, StartOptions};

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
            eprintln!("solid: {error}");
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
    abort_on_panic();
    let (mut parameters, warnings) = Parameters::load(&directory)?;
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
    stop_on_signals(&node)?;
    node.wait_for_shutdown();
    node.shut_down();
    Ok(())
}

/// SIGTERM and SIGINT end the server in order; a second one ends it at once.
fn stop_on_signals(node: &Node) -> Result<(), ServerError> {
    let failed =
        |error: std::io::Error| ServerError::with(Code::FAILED_UNEXPECTEDLY, format!("(signals: {error})"));
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])
            .map_err(failed)?;
    let request = node.shutdown_requester();
    let body = move || {
        for (count, signal) in signals.forever().enumerate() {
            log::info!("signal {signal}: shutting down");
            if count > 0 {
                std::process::exit(1);
            }
            // A full channel means that the server is shutting down already.
            let _ = request.try_send(());
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(body).map(|_| ()).map_err(failed)
}

/// A panic anywhere ends the process: half a node is worse than none, and the peer takes over.
fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log::error!("internal error, stopping at once: {panic}");
        default(panic);
        std::process::abort();
    }));
}
