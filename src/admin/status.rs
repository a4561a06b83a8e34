//! `hsb status`: both servers on one screen, or as JSON, and what to do next.

use std::time::Duration;

use serde::Serialize;

use super::report::{self, NodeReport, OperationReport, SnapshotReport};
use super::{AdminServices, Call, Rows, one};
use crate::error::ServerError;
use crate::hsb::advice::{View, advise};
use crate::hsb::cause::Cause;
use crate::hsb::codes::Code;
use crate::hsb::event::Purpose;
use crate::hsb::refusal::Refusal;
use crate::hsb::state::State;
use crate::net::peer::handshake;
use crate::stream::Stream;

/// The other server is shown as unreachable if it has not answered by then.
const PEER_PATIENCE: Duration = Duration::from_secs(1);
/// A report is a few hundred bytes.
const MAX_REPORT_BYTES: usize = 64 << 10;
const COLUMN: usize = 32;
/// SQLite's log is mentioned when it is longer.
const LONG_WAL_BYTES: u64 = 64 << 20;

/// What `hsb status json` prints.
#[derive(Serialize)]
struct PairReport {
    this: NodeReport,
    /// None: see `other_problem`.
    other: Option<NodeReport>,
    /// Why nothing is known of the other server.
    other_problem: Option<String>,
    /// What to do; empty when all is well.
    next: Vec<String>,
}

/// In the line of a server whose disk is full.
const READ_ONLY_WITHOUT_ROOM: &str = "disk full, read only until there is room";

pub(super) fn screen(services: &AdminServices, _: &Call) -> Rows {
    Ok(lines(&pair(services)).into_iter().map(|line| (0, line)).collect())
}

pub(super) fn json(services: &AdminServices, _: &Call) -> Rows {
    let text = serde_json::to_string(&pair(services))
        .map_err(|error| ServerError::with(Code::FAILED_UNEXPECTEDLY, format!("(status: {error})")))?;
    one(text)
}

fn pair(services: &AdminServices) -> PairReport {
    let this = report::of_this_node(services);
    let asked = ask_peer(services);
    let next = next_step(&this, asked.as_ref().map_err(|refusal| refusal.code)).into_iter().collect();
    let (other, other_problem) = match asked {
        Ok(other) => (Some(other), None),
        Err(refusal) => (None, Some(refusal.to_string())),
    };
    PairReport { this, other, other_problem, next }
}

/// The other server's report, over a connection of its own.
fn ask_peer(services: &AdminServices) -> Result<NodeReport, Refusal> {
    let (mut stream, _) = services.dial(Purpose::Report, PEER_PATIENCE)?;
    let text: String = handshake::hear(&mut stream, MAX_REPORT_BYTES)?;
    serde_json::from_str(&text).map_err(|error| {
        Refusal::new(Code::OPERATION_FAILED, format!("The other server's report cannot be read ({error})."))
    })
}

/// Tells the other server, which has asked on this connection.
pub(crate) fn tell_peer(services: &AdminServices, stream: &mut Stream) -> Result<(), Refusal> {
    let text = serde_json::to_string(&report::of_this_node(services))
        .map_err(|error| Refusal::new(Code::FAILED_UNEXPECTEDLY, error.to_string()))?;
    handshake::say(stream, &text)
}

fn lines(pair: &PairReport) -> Vec<String> {
    let (this, other) = (&pair.this, pair.other.as_ref());
    let line = |name: &str, of: &dyn Fn(&NodeReport) -> String| {
        let other = other.map_or_else(|| "?".to_owned(), of);
        format!("{name:<14}{:<COLUMN$}{other}", of(this))
    };
    let peer = this.connect.as_deref().unwrap_or("HotStandby.Connect is not set");
    let mut lines = vec![
        format!("{:<14}{:<COLUMN$}other server ({peer})", "", "this server"),
        line("state", &|node| node.state.clone()),
        line("connection", &|node| node.connection.clone()),
        line("position", &|node| node.position.to_string()),
    ];
    let pends = |node: &NodeReport| node.pending;
    if pends(this) || other.is_some_and(pends) {
        let text = |node: &NodeReport| if node.pending { node.log_end.to_string() } else { "none".into() };
        lines.push(line("pending up to", &text));
    }
    lines.push(line("sessions", &|node| node.sessions.to_string()));
    lines.push(line("SQLite's log", &|node| format!("{} KB", node.wal_bytes >> 10)));
    lines.push(format!("lag           {}", lag(this, other)));
    if let Some(primary) = [Some(this), other].into_iter().flatten().find(|node| is_primary(node)) {
        lines.push(format!(
            "commits       {}, acknowledged when {}; durability {}; AutoPrimaryAlone {}",
            primary.safeness,
            primary.acknowledge_policy,
            primary.durability,
            if primary.auto_primary_alone { "yes" } else { "no" },
        ));
        lines.push(format!("on no disk    {}", on_no_disk(primary, secondary(this, other))));
    }
    for (name, node) in [("this server", Some(this)), ("other server", other)] {
        let Some(node) = node else { continue };
        let change = &node.last_change;
        lines.push(format!("{name:<14}{} since {}: {}", change.to, change.at, change.reason));
        if let Some(operation) = &node.operation {
            lines.push(format!("{name:<14}{}", under_way(operation)));
        }
        if let Some(lacks) = &node.disk_full {
            lines.push(format!("{name:<14}{READ_ONLY_WITHOUT_ROOM}: {lacks}"));
        }
        if let Some(failure) = &node.connect_failure {
            lines.push(format!("{name:<14}the last attempt to connect failed: {failure}"));
        }
        if let Some(hindered) = &node.hindered {
            lines.push(format!("{name:<14}{hindered}"));
        }
        if let Some(why) = &node.not_held {
            lines.push(format!("{name:<14}the database file is not locked against other programs: {why}"));
        }
        if node.wal_bytes > LONG_WAL_BYTES {
            lines.push(format!("{name:<14}{}", long_wal(node)));
        }
        if let Some(failure) = &node.copy_failure {
            let at = node.copy_failed_at.as_deref().map_or(String::new(), |at| format!(" at {at}"));
            lines.push(format!("{name:<14}the last copy or backup failed{at}: {failure}"));
        }
    }
    if let Some(problem) = &pair.other_problem {
        lines.push(format!("other server  not reached: {problem}"));
    }
    lines.extend(pair.next.iter().map(|step| format!("next          {step}")));
    lines
}

fn long_wal(node: &NodeReport) -> String {
    let size = format!("SQLite's log has grown to {} MB", node.wal_bytes >> 20);
    match &node.oldest_snapshot {
        Some(SnapshotReport { session, user, address, seconds }) => format!(
            "{size}; the oldest snapshot is that of session {session} ({user}, {address}), for {seconds} s"
        ),
        None => size,
    }
}

fn is_primary(node: &NodeReport) -> bool {
    State::named(&node.state).is_some_and(State::is_primary)
}

/// Beside the primary, which is one of the two.
fn secondary<'a>(this: &'a NodeReport, other: Option<&'a NodeReport>) -> Option<&'a NodeReport> {
    if is_primary(this) { other } else { Some(this) }
}

fn lag(this: &NodeReport, other: Option<&NodeReport>) -> String {
    let primary = [Some(this), other].into_iter().flatten().find(|node| is_primary(node));
    let Some(primary) = primary else {
        return if other.is_none() {
            "unknown: the primary cannot be asked".into()
        } else {
            "no primary".into()
        };
    };
    let lag = &primary.lag;
    let Some(transactions) = lag.transactions else {
        return format!("unknown since {}", lag.unknown_since.as_deref().unwrap_or("the start"));
    };
    let bytes = lag.bytes.map_or(String::new(), |bytes| format!(" ({bytes} bytes)"));
    let applied = match secondary(this, other) {
        Some(secondary) if secondary.state == "SECONDARY ACTIVE" => {
            let behind = primary.position.sequence.saturating_sub(secondary.position.sequence);
            format!(", {behind} not applied")
        }
        _ => String::new(),
    };
    format!("{transactions} transactions not acknowledged{bytes}{applied}")
}

/// What would be lost of what was acknowledged if every server lost its memory now.
fn on_no_disk(primary: &NodeReport, secondary: Option<&NodeReport>) -> String {
    let connected = secondary.filter(|_| primary.connection == "CONNECTED");
    let Some(on_disk) = primary.on_disk.max(connected.and_then(|node| node.on_disk)) else {
        return "everything since the last checkpoint, and of a diskless server everything".into();
    };
    let count = primary.position.sequence.saturating_sub(on_disk);
    format!("{count} acknowledged commits are in memory only")
}

fn under_way(operation: &OperationReport) -> String {
    let mut text = operation.name.clone();
    if let (Some(percent), Some(done), Some(total)) = (operation.percent, operation.done, operation.total) {
        text.push_str(&format!(" {percent} %, {done} of {total} {}", operation.unit));
    }
    if let Some(rate) = operation.rate {
        text.push_str(&format!(", {rate} a second"));
    }
    if let Some(left) = operation.seconds_left {
        text.push_str(&format!(", {left} s left"));
    }
    text
}

/// What an operator should do; none when all is well or takes its course.
fn next_step(this: &NodeReport, other: Result<&NodeReport, Code>) -> Option<String> {
    if this.operation.is_some() || other.is_ok_and(|other| other.operation.is_some()) {
        return None;
    }
    let plain = this.state.is_empty();
    let nowhere = other.err() == Some(Code::NO_CONNECT_STRING);
    let Some(peer) = this.connect.as_ref().filter(|_| !plain && !nowhere) else {
        let text = "set HotStandby.Connect to the other server's address";
        return (!plain).then(|| text.to_owned());
    };
    if other.is_ok_and(|other| other.connect.is_none()) {
        return Some("set HotStandby.Connect at the other server, to this one's address".to_owned());
    }
    if let Err(code) = other
        && code != Code::COMMUNICATION_ERROR
    {
        let text = "the other server cannot be asked, which does not mean that it is down: mend what stands behind 'not reached'";
        return Some(text.to_owned());
    }
    let advice = advise([Some(view(this)), other.ok().map(view)], None);
    let there = format!("the other server ({peer})");
    (!advice.is_nothing()).then(|| advice.text(["this server", &there]))
}

fn view(node: &NodeReport) -> View {
    let state = State::named(&node.state).unwrap_or(State::Plain);
    let change = &node.last_change;
    let cause = Cause::named(&change.cause).or_else(|| Cause::of_older_server(&change.reason));
    let view = View::new(state, (node.log_end.epoch, node.log_end.sequence), cause);
    View {
        damaged: view.damaged || node.netcopy_needed,
        lacks_room: node.disk_full.is_some(),
        remedy: node.remedy,
        ..view
    }
}

#[cfg(test)]
mod tests {
    use super::report::PositionReport;
    use super::*;

    fn node(state: &str) -> NodeReport {
        let connection = if state.ends_with("ACTIVE") { "CONNECTED" } else { "BROKEN" };
        let connect = Some("tcp b 1".into());
        NodeReport { state: state.into(), connection: connection.into(), connect, ..NodeReport::default() }
    }

    fn next(this: &str, other: Option<&str>) -> String {
        next_step(&node(this), other.map(node).as_ref().ok_or(Code::COMMUNICATION_ERROR)).unwrap_or_default()
    }

    #[test]
    fn what_to_do_next_names_the_server_and_the_command() {
        assert_eq!(next("PRIMARY ACTIVE", Some("SECONDARY ACTIVE")), "");
        let text = next("PRIMARY UNCERTAIN", Some("PRIMARY ALONE"));
        let steps =
            "'hsb set secondary alone' at this server, then 'hsb connect' at the other server (tcp b 1)";
        assert!(text.contains(steps), "{text}");
        let text = next("PRIMARY UNCERTAIN", None);
        let condition =
            "Only if it is down, seen at the machine itself, and stays so: 'hsb set primary alone'";
        assert!(text.contains(condition), "{text}");
        let unasked = next_step(&node("PRIMARY UNCERTAIN"), Err(Code::OPERATION_FAILED)).unwrap_or_default();
        assert!(unasked.contains("mend") && !unasked.contains("'hsb"), "{unasked}");
        let damaged = NodeReport { netcopy_needed: true, ..node("SECONDARY ALONE") };
        let text = next_step(&node("SECONDARY ALONE"), Ok(&damaged)).unwrap_or_default();
        assert!(
            text.contains("'hsb set primary alone' at this server, then 'hsb netcopy' at this"),
            "{text}"
        );
        let nowhere = NodeReport { connect: None, ..node("SECONDARY ALONE") };
        let text = next_step(&nowhere, Err(Code::NO_CONNECT_STRING)).unwrap_or_default();
        assert!(text.contains("HotStandby.Connect"), "{text}");
    }

    #[test]
    fn what_is_on_one_disk_of_a_connected_pair_is_on_a_disk() {
        let with = |state: &str, on_disk| {
            let position = PositionReport { sequence: 10, ..PositionReport::default() };
            NodeReport { position, on_disk, ..node(state) }
        };
        let count = |primary: &NodeReport, secondary: &NodeReport| on_no_disk(primary, Some(secondary));
        let (active, other) = (with("PRIMARY ACTIVE", Some(7)), with("SECONDARY ACTIVE", Some(9)));
        assert!(count(&active, &other).starts_with("1 acknowledged"));
        assert!(on_no_disk(&active, None).starts_with("3 acknowledged"), "what is not known is on no disk");
        // Another history, as far as is known.
        assert!(count(&with("PRIMARY ALONE", Some(7)), &other).starts_with("3 acknowledged"));
        let memory = with("PRIMARY ACTIVE", None);
        assert!(count(&memory, &other).starts_with("1 acknowledged"));
        assert!(on_no_disk(&memory, None).starts_with("everything since the last checkpoint"));
    }

    #[test]
    fn a_lag_is_never_zero_while_disconnected() {
        let mut alone = node("PRIMARY ALONE");
        alone.lag.unknown_since = Some("2026-01-01".into());
        assert_eq!(lag(&alone, Some(&node("SECONDARY ALONE"))), "unknown since 2026-01-01");
        assert_eq!(lag(&node("SECONDARY ALONE"), Some(&alone)), "unknown since 2026-01-01");
        assert!(lag(&node("SECONDARY ALONE"), None).starts_with("unknown"));
        let mut active = node("PRIMARY ACTIVE");
        active.lag.transactions = Some(0);
        assert!(lag(&active, None).starts_with("0 transactions"));
    }
}
