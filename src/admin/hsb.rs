//! HSB commands that ask. Those that change the state are answered by the heart.

use super::{AdminServices, Call, Rows, one};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::phase::{Activity, CopyStatus, SwitchStatus};
use crate::hsb::state::State;

pub(super) fn state(services: &AdminServices, _: &Call) -> Rows {
    one(services.status.state().name())
}

pub(super) fn role(services: &AdminServices, _: &Call) -> Rows {
    one(services.status.state().role())
}

pub(super) fn communication_info(services: &AdminServices, _: &Call) -> Rows {
    match services.parameters.connect() {
        Some(peer) => one(peer.to_string()),
        None => Err(ServerError::new(Code::NO_CONNECT_STRING)),
    }
}

pub(super) fn log_position(services: &AdminServices, _: &Call) -> Rows {
    let now = services.status.snapshot();
    one(format!("{}:{}", now.log_end.digits(), now.previous_role))
}

pub(super) fn outcome(services: &AdminServices, call: &Call) -> Rows {
    let outcome = services.outcomes.outcome(call.rest.trim())?;
    Ok(vec![(0, outcome.name().into()), (0, outcome.explanation().into())])
}

pub(super) fn status_connect(services: &AdminServices, _: &Call) -> Rows {
    let connect = services.status.snapshot().connect;
    Ok(vec![(connect.code().number(), connect.name().into())])
}

pub(super) fn status_catchup(services: &AdminServices, _: &Call) -> Rows {
    if services.status.snapshot().activity == Activity::CatchingUp {
        Ok(vec![(Code::ACTIVE.number(), "ACTIVE".into())])
    } else {
        one("NOT ACTIVE")
    }
}

pub(super) fn status_switch(services: &AdminServices, _: &Call) -> Rows {
    Ok(match services.status.snapshot().switch {
        SwitchStatus::Never => vec![(Code::NO_SWITCH_BEFORE.number(), Code::NO_SWITCH_BEFORE.text().into())],
        SwitchStatus::Active => vec![(Code::ACTIVE.number(), "ACTIVE".into())],
        SwitchStatus::Success => vec![(0, "SUCCESS".into())],
        SwitchStatus::Failed(code) => vec![(code.number(), format!("ERROR {}", code.number()))],
    })
}

pub(super) fn status_copy(services: &AdminServices, _: &Call) -> Rows {
    match services.status.snapshot().copy {
        CopyStatus::Never => one("NOT ACTIVE"),
        CopyStatus::Success => one("SUCCESS"),
        CopyStatus::Failed(code, detail) => {
            Ok(vec![(code.number(), format!("FAILED: {} {detail}", code.text()))])
        }
        CopyStatus::Active => {
            let progress = services.copy_progress.gauge();
            let progress = progress.map_or_else(String::new, |gauge| format!(" {gauge}"));
            Ok(vec![(Code::ACTIVE.number(), format!("ACTIVE{progress}"))])
        }
    }
}

pub(super) fn status(services: &AdminServices, _: &Call) -> Rows {
    let now = services.status.snapshot();
    let settings = now.settings;
    let behind = now.log_end.sequence.saturating_sub(now.acknowledged.sequence);
    let mut lines = vec![
        format!("state       {} ({})", now.state, now.last_change),
        format!("connection  {}", now.connect.name()),
        format!("position    {}", now.decided),
    ];
    if now.log_end != now.decided {
        lines.push(format!("log end     {} (a batch is pending)", now.log_end));
    }
    if now.activity == Activity::CatchingUp
        && let Some(progress) = services.catchup_progress.gauge()
    {
        lines.push(format!("catchup     {progress}"));
    }
    if now.state == State::PrimaryActive {
        lines.push(format!("secondary   {behind} transactions behind"));
    } else if now.state.is_primary() {
        lines.push("secondary   not connected".into());
    }
    lines.push(format!(
        "safeness    {}, 2SafeAckPolicy {}, DurabilityLevel {}, AutoPrimaryAlone {}",
        settings.safeness,
        settings.pair.acknowledge_policy,
        settings.durability,
        if settings.auto_primary_alone { "yes" } else { "no" },
    ));
    if let Some(peer) = services.parameters.connect() {
        lines.push(format!("peer        {peer}"));
    }
    if now.state == State::PrimaryUncertain {
        lines.push("next        'hsb set primary alone' to go on without the secondary, or 'hsb connect' when it is back".into());
    }
    Ok(lines.into_iter().map(|line| (0, line)).collect())
}
