//! How many connections a node takes: what is configured, within what the limit of open files leaves room for.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Parameters;
use crate::descriptors::{self, Budget};
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::net::listener::places::Limits;

/// What the limit of open files leaves room for; a warning if that is less than what is configured.
pub(super) fn of_this_process(parameters: &Parameters) -> Result<Budget, ServerError> {
    let budget = Budget::of_this_process();
    let Budget { limit, sessions, least_limit, .. } = budget;
    if sessions == 0 {
        let detail = format!(
            "This process may have {limit} files open, and needs at least {least_limit}: raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd)."
        );
        return Err(ServerError::with(Code::OPERATION_FAILED, detail));
    }
    let wanted = parameters.max_connections();
    if sessions < wanted {
        log::warn!(
            "Com.MaxConnections={wanted}, but this process may have {limit} files open: {sessions} SQL connections at one time; raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd) for more"
        );
    }
    Ok(budget)
}

/// How many connections of each kind there may be and how long a log-in may take, as it is configured when it is asked.
pub(super) fn rules(
    parameters: &Arc<Parameters>,
    budget: Budget,
) -> (impl Fn() -> Limits + use<>, impl Fn() -> Duration + use<>) {
    let (for_limits, for_logins) = (Arc::clone(parameters), Arc::clone(parameters));
    (move || limits(&for_limits, budget), move || for_logins.login_timeout())
}

fn limits(parameters: &Parameters, budget: Budget) -> Limits {
    Limits {
        sql: parameters.max_connections().min(budget.sessions),
        consoles: descriptors::CONSOLES,
        peers: descriptors::PEERS,
        waiting: parameters.max_pending_logins().min(budget.waiting),
    }
}
