//! Commands about the server itself: what it is, who is connected, its end.

use super::{AdminServices, Call, Rows, one};
use crate::error::{ServerError, invalid};
use crate::hsb::codes::{Code, TABLE};
use crate::hsb::state::State;
use crate::sql::registry::SessionInfo;

pub(super) fn version(_: &AdminServices, _: &Call) -> Rows {
    one(format!("HotStandby {}, SQLite {}", env!("CARGO_PKG_VERSION"), rusqlite::version()))
}

pub(super) fn process_id(_: &AdminServices, _: &Call) -> Rows {
    one(std::process::id().to_string())
}

pub(super) fn error_code(_: &AdminServices, call: &Call) -> Rows {
    let line = |(number, name, state, text): &(u32, &str, &str, &str)| {
        let state = if state.is_empty() { "-" } else { state };
        (0, format!("{number} {name} {state} {text}"))
    };
    if call.rest.eq_ignore_ascii_case("all") {
        return Ok(TABLE.iter().map(line).collect());
    }
    let number: Option<u32> = call.rest.parse().ok();
    let row = number.and_then(|number| TABLE.iter().find(|row| row.0 == number));
    row.map(|row| vec![line(row)])
        .ok_or_else(|| invalid(format!("There is no code '{}'; 'errorcode all' lists them.", call.rest)))
}

pub(super) fn events(services: &AdminServices, _: &Call) -> Rows {
    let line = |(name, meaning): &(&str, &str)| {
        let last = services.events.latest(name).map_or_else(String::new, |event| {
            format!(" (last: {} {})", crate::logging::timestamp(event.posted), event.text)
        });
        (0, format!("{name}  -  {meaning}{last}"))
    };
    Ok(crate::node::EVENTS.iter().map(line).collect())
}

type Figure = (&'static str, &'static str, fn(&AdminServices) -> String);

/// What `info` can tell: option, meaning, and where it comes from.
const FIGURES: &[Figure] = &[
    ("uptime", "seconds since the start", |services| services.started.elapsed().as_secs().to_string()),
    ("version", "of the server", |_| env!("CARGO_PKG_VERSION").into()),
    ("name", "of the product", |_| "HotStandby".into()),
    ("numusers", "SQL sessions", |services| services.sessions.count().to_string()),
    ("numtrans", "transactions since the database was created", |services| {
        services.status.snapshot().decided.sequence.to_string()
    }),
    ("dbsize", "bytes of the database file", |services| {
        std::fs::metadata(services.database.path()).map_or(0, |file| file.len()).to_string()
    }),
    ("cpcount", "checkpoints since the start", |services| services.checkpointer.count().to_string()),
    ("hsbstate", "as 'hsb state'", |services| services.status.state().name().into()),
];

pub(super) fn info(services: &AdminServices, call: &Call) -> Rows {
    let mut rows = Vec::new();
    for option in call.arguments() {
        let Some((_, _, figure)) = FIGURES.iter().find(|row| row.0.eq_ignore_ascii_case(option)) else {
            let known: Vec<&str> = FIGURES.iter().map(|row| row.0).collect();
            return Err(invalid(format!(
                "There is no info option '{option}'; there are {}.",
                known.join(", ")
            )));
        };
        rows.push((0, figure(services)));
    }
    Ok(rows)
}

pub(super) fn user_list(services: &AdminServices, _: &Call) -> Rows {
    let line = |session: SessionInfo| {
        let since = crate::logging::timestamp(session.since);
        (0, format!("{} {} {} since {since}", session.id, session.user, session.address))
    };
    Ok(services.sessions.list().into_iter().map(line).collect())
}

pub(super) fn throw_out(services: &AdminServices, call: &Call) -> Rows {
    let who = call.rest.as_str();
    if who.eq_ignore_ascii_case("all") {
        let number = services.sessions.close_where(Code::THROWN_OUT, |_| true);
        return one(format!("{number} sessions were thrown out."));
    }
    match who.parse().map(|id| services.sessions.throw_out(id)) {
        Ok(true) => one("The session was thrown out."),
        _ => Err(invalid(format!("There is no session '{who}'; 'userlist' shows them."))),
    }
}

pub(super) fn shut_down(services: &AdminServices, call: &Call) -> Rows {
    // PRIMARY UNCERTAIN with a transaction whose outcome is open: somebody should decide it first.
    let now = services.status.snapshot();
    let in_doubt = now.state == State::PrimaryUncertain && now.decided != now.log_end;
    let force = match call.rest.as_str() {
        "" => false,
        word if word.eq_ignore_ascii_case("force") => true,
        _ => return Err(invalid("It reads: shutdown [force].")),
    };
    if in_doubt && !force {
        return Err(ServerError::new(Code::TRANSACTION_ACTIVE));
    }
    // The channel holds one request; a second one changes nothing.
    let _ = services.shutdown.try_send(());
    one("The server is shutting down.")
}
