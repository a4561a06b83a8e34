//! Where this server's history and the other's parted: asked on a connection of its own and told to the operator, or on
//! that of a netcopy, before it.
//!
//! Nothing here changes anything; both servers may go on writing meanwhile.

use std::sync::Arc;

use super::outside;
use super::storage::Storage;
use crate::actors::catchup::{self, CatchupThread};
use crate::hsb::codes::Code;
use crate::hsb::event::{Hello, Purpose};
use crate::hsb::position::Position;
use crate::hsb::refusal::Refusal;
use crate::hsb::transactions;
use crate::net::peer::handshake;
use crate::net::peer::history::{self, Answer};
use crate::storage::log::{self, LogReadError};
use crate::stream::Stream;

/// What two servers have found out.
pub(crate) struct Comparison {
    /// What the other server says of itself.
    pub(crate) peer: Hello,
    /// The last position that both histories have in common, if both logs reach back to it.
    pub(crate) common: Option<Position>,
    /// The ends of this log and of the other.
    ends: [Position; 2],
    /// Where they begin.
    beginnings: [Position; 2],
}

impl Comparison {
    /// This history is a part of the other one: nobody but the other server has written since.
    fn is_behind(&self) -> bool {
        self.common.is_some_and(|common| common.sequence == self.ends[0].sequence)
    }

    /// For the operator at either server.
    pub(crate) fn describe(&self) -> String {
        let [mine, other] = self.ends;
        match self.common {
            Some(common) if self.is_behind() => format!(
                "The server at {mine} is behind the one at {other}, which has made {} since: it lacks nothing of this one's.",
                transactions(other.sequence - common.sequence)
            ),
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

/// Reaches the other server and compares.
pub(crate) fn compare(storage: &Storage) -> Result<Comparison, Refusal> {
    let log = storage.log_configuration()?;
    let mine = log::turning_points(&log)?;
    let (mut stream, peer) = outside::dial(&storage.node.parameters, Purpose::History, storage.hello())?;
    if peer.database_id != log.database_id {
        return Err(Code::DIFFERENT_DATABASE.into());
    }
    let answer = history::ask(&mut stream, mine.clone())?;
    let here = log::newest_on_history(&log, &answer.turning_points)?;
    let common = [here, answer.common].into_iter().flatten().max_by_key(|position| position.sequence);
    let ends = [&mine, &answer.turning_points].map(|points| points.first().copied().unwrap_or_default());
    let beginnings = [&mine, &answer.turning_points].map(|points| points.last().copied().unwrap_or_default());
    Ok(Comparison { peer, common, ends, beginnings })
}

/// Answers a server that compares.
pub(crate) fn answer(stream: &mut Stream, storage: &Storage) -> Result<(), Refusal> {
    handshake::welcome(stream, storage.hello())?;
    history::answer(stream, |theirs| look_up(storage, theirs))
}

fn look_up(storage: &Storage, theirs: &[Position]) -> Result<Answer, Refusal> {
    let log = storage.log_configuration()?;
    let turning_points = log::turning_points(&log)?;
    let common = log::newest_on_history(&log, theirs)?;
    Ok(Answer { turning_points, common })
}

/// Before a netcopy, at the source: the newest position that is known to lie on both histories. A log that cannot be read
/// tells nothing, and what is not known is not taken for common.
pub(crate) fn compare_before_copy(
    stream: &mut Stream,
    storage: &Storage,
    target: &Hello,
) -> Result<(), Refusal> {
    let log = storage.log_configuration()?;
    let mut mine = log::turning_points(&log)?;
    let now = storage.node.status.snapshot();
    // The log may be gone by now, and yet the target was on this history when it acknowledged this.
    let acknowledged = Some(now.acknowledged)
        .filter(|acknowledged| (1..=now.decided.sequence).contains(&acknowledged.sequence));
    mine.extend(acknowledged);
    let mut answer = history::ask(stream, mine)?;
    answer.turning_points.push(target.position);
    let here = log::newest_on_history(&log, &answer.turning_points).unwrap_or_else(|error| {
        ::log::warn!("the log does not tell whether it has what the target of the netcopy has: {error}");
        None
    });
    let acknowledged = acknowledged.filter(|position| answer.turning_points.contains(position));
    let common = [here, acknowledged, answer.common].into_iter().flatten();
    let common = common.max_by_key(|position| position.sequence);
    history::tell_common(stream, common.filter(|_| target.database_id == log.database_id))
}

/// The same at the target.
pub(crate) fn compare_before_arrival(
    stream: &mut Stream,
    storage: &Storage,
) -> Result<Option<Position>, Refusal> {
    history::answer(stream, |theirs| {
        let nothing = || Answer { turning_points: Vec::new(), common: None };
        // A server that waits for its first database has no history.
        if !storage.node.database.exists() {
            return Ok(nothing());
        }
        Ok(look_up(storage, theirs).unwrap_or_else(|why| {
            let why = why.detail;
            ::log::warn!("the log does not tell the source of a netcopy what is here: {why}");
            nothing()
        }))
    })?;
    history::hear_common(stream)
}

/// Runs catchups on threads of their own, which explain what they do not find.
pub(crate) fn run_catchup(storage: &Arc<Storage>) -> Box<dyn Fn(CatchupThread)> {
    let storage = Arc::clone(storage);
    Box::new(move |thread| {
        let (asked, node) = (Arc::clone(&storage), &storage.node);
        let explain = move |position, error: &_| explain(&asked, position, error);
        let thread = thread.explained_by(Box::new(explain));
        catchup::run_on_thread(thread, Arc::clone(&node.parameters), Arc::clone(&node.catchup_progress));
    })
}

/// What to do where both servers have transactions that the other lacks.
const CHOOSE: &str = "Nothing is thrown away: choose the server to keep as primary. At the other one, in SECONDARY ALONE, 'hsb rewind' saves its transactions since then to a file and takes them back, so that the servers can connect; or start it with 'solid -x backupserver' and give 'hsb netcopy' at the primary, which saves them as well.";
/// What to do where only the secondary has.
const FOLLOW: &str = "The primary has nothing that the secondary lacks: nothing is lost if they exchange their roles. 'hsb set secondary alone' at this primary, 'hsb switch primary' at the other server, then 'hsb connect'. To keep this one as it is instead, 'hsb rewind' at the other one saves its transactions to a file and takes them back.";

/// Why the other server's position is not on this server's log, with all that can be found out.
fn explain(storage: &Storage, peer: Position, error: &LogReadError) -> Refusal {
    match error {
        LogReadError::NotThere => {
            let points = storage.log_configuration().and_then(|log| log::turning_points(&log));
            let beginning = points.ok().and_then(|points| points.last().copied()).unwrap_or_default();
            let detail = format!("The other server is at {peer}, the log begins at {beginning}.");
            Refusal::new(Code::LOG_TOO_SHORT, detail)
        }
        LogReadError::Diverged { parted_at } => {
            let compared = compare(storage);
            let findings = match &compared {
                Ok(comparison) => comparison.describe(),
                Err(Refusal { detail: why, .. }) => format!(
                    "The other server is at {peer}; the histories parted at {parted_at} or before (it did not say where: {why})."
                ),
            };
            let way_out =
                if compared.is_ok_and(|comparison| comparison.is_behind()) { FOLLOW } else { CHOOSE };
            Refusal::new(Code::NOT_SYNCHRONIZED, format!("{findings} {way_out}"))
        }
        LogReadError::Failed(error) => error.clone().into(),
    }
}
