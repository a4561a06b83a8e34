//! `solid demo`: a pair of servers at work. Load, a crash, the failover, the comeback, the switch; nothing lost.
//!
//! It uses the product as anybody would, from outside: processes, the SQL port, the console. All figures are measured
//! where a client or an operator would measure them.

mod check;
mod load;
pub mod pair;
mod screen;
mod stay;
mod story;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::command_line::DemoOptions;
use crate::error::ServerError;
use crate::hsb::codes::Code;

/// Runs the demo; an error says what was not as promised.
pub fn run(options: &DemoOptions) -> Result<(), ServerError> {
    let program = std::env::current_exe().map_err(|error| failed(format!("(own program file: {error})")))?;
    let directory = Directory::make(options.dir.as_deref())?;
    let outcome = if options.stay {
        stay::run(&program, &directory.path)
    } else {
        story::run(&program, &directory.path, options, interruption()?.as_ref())
    };
    if options.stay || outcome.is_err() {
        let path = directory.keep();
        return outcome.map_err(|error| {
            let directories =
                format!("\nThe servers' directories with their logs (solmsg.out): {}", path.display());
            let text = error.message() + &directories;
            error.saying(text)
        });
    }
    outcome
}

/// Becomes true at SIGINT and SIGTERM, so that no server is left behind.
fn interruption() -> Result<Arc<AtomicBool>, ServerError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .map_err(|error| failed(format!("(signals: {error})")))?;
    }
    Ok(flag)
}

/// Where the two servers live.
struct Directory {
    path: PathBuf,
    /// Removed at the end unless it is kept.
    temporary: Option<tempfile::TempDir>,
}

impl Directory {
    fn make(given: Option<&Path>) -> Result<Directory, ServerError> {
        let Some(path) = given else {
            let temporary = tempfile::Builder::new().prefix("hotstandby-demo-").tempdir();
            let temporary = temporary.map_err(|error| failed(format!("(temporary directory: {error})")))?;
            return Ok(Directory { path: temporary.path().to_path_buf(), temporary: Some(temporary) });
        };
        let shown = path.display();
        std::fs::create_dir_all(path).map_err(|error| failed(format!("({shown}: {error})")))?;
        let path = path.canonicalize().map_err(|error| failed(format!("({shown}: {error})")))?;
        if path.join("first").exists() || path.join("second").exists() {
            return Err(stay::already_there(&path));
        }
        Ok(Directory { path, temporary: None })
    }

    fn keep(self) -> PathBuf {
        match self.temporary {
            Some(temporary) => temporary.keep(),
            None => self.path,
        }
    }
}

fn failed(detail: impl std::fmt::Display) -> ServerError {
    ServerError::with(Code::OPERATION_FAILED, detail)
}
