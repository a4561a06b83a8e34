//! Where this server's history and the other's parted: asked on a connection of its own, told to the operator.
//!
//! Nothing here changes anything; both servers may go on writing meanwhile.

use std::net::TcpStream;
use std::sync::Arc;

use super::outside;
use super::storage::Storage;
use crate::actors::catchup::{self, CatchupThread};
use crate::config::Parameters;
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, Purpose};
use crate::hsb::position::Position;
use crate::net::peer::handshake::{self, Failure, failure};
use crate::net::peer::history::{self, Answer};
use crate::progress::Progress;
use crate::storage::log::{self, LogReadError};

/// What two servers have found out.
pub(super) struct Comparison {
    /// What the other server says of itself.
    pub(super) peer: Hello,
    /// The last position that both histories have in common, if both logs reach back to it.
    pub(super) common: Option<Position>,
    /// The ends of this log and of the other.
    ends: [Position; 2],
    /// Where they begin.
    beginnings: [Position; 2],
}

impl Comparison {
    /// For the operator at either server.
    pub(super) fn describe(&self) -> String {
        let [mine, other] = self.ends;
        match self.common {
            Some(common) => format!(
                "The histories parted at {common}. Since then the server at {mine} has made {}, the one at {other} {}.",
                transactions(mine.sequence - common.sequence),
                transactions(other.sequence - common.sequence)
            ),
            None => {
                let [first, second] = self.beginnings;
                format!(
                    "The histories have nothing in common as far back as the logs reach: the server at {mine} to {first}, the one at {other} to {second}."
                )
            }
        }
    }
}

fn transactions(count: u64) -> String {
    match count {
        0 => "no transaction".into(),
        1 => "1 transaction".into(),
        count => format!("{count} transactions"),
    }
}

/// Reaches the other server and compares.
pub(super) fn compare(parameters: &Parameters, storage: &Storage) -> Result<Comparison, Failure> {
    let log = storage.log_configuration().map_err(failure)?;
    let mine = log::turning_points(&log).map_err(failure)?;
    let (mut stream, peer) = outside::dial(parameters, Purpose::History, storage.hello(parameters))?;
    if peer.database_id != log.database_id {
        return Err((Code::DIFFERENT_DATABASE, String::new()));
    }
    let answer = history::ask(&mut stream, mine.clone())?;
    let here = log::newest_on_history(&log, &answer.turning_points).map_err(failure)?;
    let common = [here, answer.common].into_iter().flatten().max_by_key(|position| position.sequence);
    let ends = [&mine, &answer.turning_points].map(|points| points.first().copied().unwrap_or_default());
    let beginnings = [&mine, &answer.turning_points].map(|points| points.last().copied().unwrap_or_default());
    Ok(Comparison { peer, common, ends, beginnings })
}

/// Answers a server that compares.
pub(super) fn answer(
    stream: &mut TcpStream,
    parameters: &Parameters,
    storage: &Storage,
) -> Result<(), Failure> {
    handshake::welcome(stream, storage.hello(parameters))?;
    history::answer(stream, |theirs| {
        let log = storage.log_configuration().map_err(failure)?;
        let turning_points = log::turning_points(&log).map_err(failure)?;
        let common = log::newest_on_history(&log, theirs).map_err(failure)?;
        Ok(Answer { turning_points, common })
    })
}

/// Runs catchups on threads of their own, which explain what they do not find.
pub(super) fn run_catchup(
    parameters: &Arc<Parameters>,
    storage: &Arc<Storage>,
    progress: &Arc<Progress>,
) -> Box<dyn Fn(CatchupThread)> {
    let (parameters, storage, progress) = (Arc::clone(parameters), Arc::clone(storage), Arc::clone(progress));
    Box::new(move |thread| {
        let (asking, asked) = (Arc::clone(&parameters), Arc::clone(&storage));
        let explain = move |position, error: &_| explain(&asking, &asked, position, error);
        let thread = thread.explained_by(Box::new(explain));
        catchup::run_on_thread(thread, Arc::clone(&parameters), Arc::clone(&progress));
    })
}

/// Why the other server's position is not on this server's log, with all that can be found out.
fn explain(parameters: &Parameters, storage: &Storage, peer: Position, error: &LogReadError) -> Failure {
    match error {
        LogReadError::NotThere => {
            let points = storage.log_configuration().and_then(|log| log::turning_points(&log));
            let beginning = points.ok().and_then(|points| points.last().copied()).unwrap_or_default();
            let detail = format!("The other server is at {peer}, the log begins at {beginning}.");
            (Code::LOG_TOO_SHORT, detail)
        }
        LogReadError::Diverged { parted_at } => {
            let findings = match compare(parameters, storage) {
                Ok(comparison) => comparison.describe(),
                Err((_, why)) => format!(
                    "The other server is at {peer}; the histories parted at {parted_at} or before (it did not say where: {why})."
                ),
            };
            let detail = format!(
                "{findings} Nothing is thrown away: choose the server to keep as primary. At the other one, in SECONDARY ALONE, 'hsb rewind' saves its transactions since then to a file and takes them back, so that the servers can connect; or start it with 'solid -x backupserver' and give 'hsb netcopy' at the primary."
            );
            (Code::NOT_SYNCHRONIZED, detail)
        }
        LogReadError::Failed(error) => failure(error.clone()),
    }
}
