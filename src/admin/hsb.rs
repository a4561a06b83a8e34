//! HSB commands that ask. Those that change the state are answered by the heart.

use std::time::{Duration, Instant};

use super::{AdminServices, Call, Rows, one};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::effect::ConnectStatus;
use crate::hsb::phase::{Activity, CopyStatus, SwitchStatus};
use crate::services::context::Answer;

pub(super) fn state(services: &AdminServices, _: &Call) -> Rows {
    one(services.node.status.state().name())
}

pub(super) fn role(services: &AdminServices, _: &Call) -> Rows {
    one(services.node.status.state().role())
}

pub(super) fn communication_info(services: &AdminServices, _: &Call) -> Rows {
    match services.node.parameters.connect() {
        Some(peer) => one(peer.to_string()),
        None => Err(ServerError::new(Code::NO_CONNECT_STRING)),
    }
}

pub(super) fn log_position(services: &AdminServices, _: &Call) -> Rows {
    let now = services.node.status.snapshot();
    one(format!("{}:{}", now.log_end.digits(), now.previous_role))
}

pub(super) fn outcome(services: &AdminServices, call: &Call) -> Rows {
    let outcome = services.node.outcomes.outcome(call.rest.trim())?;
    Ok(vec![(0, outcome.name().into()), (0, outcome.explanation().into())])
}

pub(super) fn status_connect(services: &AdminServices, _: &Call) -> Rows {
    let now = services.node.status.snapshot();
    let mut rows = vec![(now.connect.code().number(), now.connect.name().into())];
    if let Some(refusal) = now.connect_failure {
        let text = format!("The last attempt to connect failed: {}", refusal.text());
        rows.push((refusal.code.number(), text));
    }
    Ok(rows)
}

/// The answer to `hsb connect` waits so long for a failure: what the other server refuses at once is said at once, and
/// who does not answer holds nobody up.
const EARLY_FAILURE: Duration = Duration::from_millis(300);

/// The answer to `hsb connect` that has begun, or why it has failed already.
pub(super) fn with_early_failure(services: &AdminServices, begun: Answer) -> Rows {
    let deadline = Instant::now() + EARLY_FAILURE;
    let is_begun = begun.first().is_some_and(|(code, _)| *code == 0);
    while is_begun && Instant::now() < deadline {
        let now = services.node.status.snapshot();
        match now.connect_failure {
            Some(refusal) => return Ok(vec![(refusal.code.number(), refusal.text())]),
            None if now.connect != ConnectStatus::Connecting => break,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    Ok(begun)
}

pub(super) fn status_catchup(services: &AdminServices, _: &Call) -> Rows {
    if services.node.status.snapshot().activity == Activity::CatchingUp {
        Ok(vec![(Code::ACTIVE.number(), "ACTIVE".into())])
    } else {
        one("NOT ACTIVE")
    }
}

pub(super) fn status_switch(services: &AdminServices, _: &Call) -> Rows {
    Ok(match services.node.status.snapshot().switch {
        SwitchStatus::Never => vec![(Code::NO_SWITCH_BEFORE.number(), Code::NO_SWITCH_BEFORE.text().into())],
        SwitchStatus::Active => vec![(Code::ACTIVE.number(), "ACTIVE".into())],
        SwitchStatus::Success => vec![(0, "SUCCESS".into())],
        SwitchStatus::Failed(code) => vec![(code.number(), format!("ERROR {}", code.number()))],
    })
}

pub(super) fn status_copy(services: &AdminServices, _: &Call) -> Rows {
    match services.node.status.snapshot().copy {
        CopyStatus::Never => one("NOT ACTIVE"),
        CopyStatus::Success => one("SUCCESS"),
        CopyStatus::Failed(refusal) => {
            Ok(vec![(refusal.code.number(), format!("FAILED: {}", refusal.text()))])
        }
        CopyStatus::Active => {
            let progress = services.node.copy_progress.gauge();
            let progress = progress.map_or_else(String::new, |gauge| format!(" {gauge}"));
            Ok(vec![(Code::ACTIVE.number(), format!("ACTIVE{progress}"))])
        }
    }
}
