//! Commands about the server itself: what it is, who is connected, its end.

use std::time::SystemTime;

use super::{AdminServices, Call, Rows, one};
use crate::descriptors::Budget;
use crate::error::{ServerError, invalid};
use crate::hsb::cause::Cause;
use crate::hsb::codes::{Code, TABLE};
use crate::hsb::state::State;
use crate::hsb::table::SHUTTING_DOWN;
use crate::services::registry::SessionInfo;
use crate::storage::checkpoint;
use crate::storage::database::Database;

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
        let last = services.node.events.latest(name).map_or_else(String::new, |event| {
            format!(" (last: {} {})", crate::calendar::log_text(event.posted), event.text)
        });
        (0, format!("{name}  -  {meaning}{last}"))
    };
    Ok(crate::services::events::EVENTS.iter().map(line).collect())
}

type Figure = (&'static str, &'static str, fn(&AdminServices) -> String);

/// What `info` can tell: option, meaning, and where it comes from.
const FIGURES: &[Figure] = &[
    ("primarystarttime", "since when it is a primary (UTC); empty at a secondary", |services| {
        let now = services.node.status.snapshot();
        start_time(now.primary_since.filter(|_| now.state.is_primary()))
    }),
    ("secondarystarttime", "since when it is a secondary (UTC); empty at a primary", |services| {
        let now = services.node.status.snapshot();
        start_time(now.secondary_since.filter(|_| now.state.is_secondary()))
    }),
    ("uptime", "seconds since the start", |services| services.node.started.elapsed().as_secs().to_string()),
    ("version", "of the server program", |_| env!("CARGO_PKG_VERSION").into()),
    ("name", "of the product", |_| "HotStandby".into()),
    ("numusers", "SQL sessions", |services| services.node.sessions.count().to_string()),
    ("numtrans", "transactions since the database was created", |services| {
        services.node.status.snapshot().decided.sequence.to_string()
    }),
    ("dbsize", "bytes of the database files", |services| database_bytes(&services.node.database).to_string()),
    ("logsize", "bytes of the log files", |services| services.node.counters.log_size.get().to_string()),
    ("walsize", "bytes of SQLite's own log, part of 'dbsize'", |services| {
        checkpoint::wal_file_bytes(&services.node.database).to_string()
    }),
    (
        "oldestsnapshot",
        "the session that has read from one snapshot for longest; empty if none does",
        |services| {
            services.node.sessions.snapshots().first().map_or_else(String::new, |open| open.to_string())
        },
    ),
    ("cpcount", "checkpoints since the start", |services| services.checkpointer.count().to_string()),
    ("hsbstate", "as 'hsb state'", |services| services.node.status.state().name().into()),
    ("hsbreason", "why it is in this state", |services| {
        let ends = services.node.status.is_shutting_down();
        if ends { SHUTTING_DOWN.into() } else { services.node.status.snapshot().last_change.reason.into() }
    }),
    ("hsbcause", "the same as a word that programs decide by (docs/status.md)", |services| {
        let ends = services.node.status.is_shutting_down();
        let cause =
            if ends { Cause::ShuttingDown } else { services.node.status.snapshot().last_change.cause };
        cause.name().into()
    }),
    ("diskfull", "the system's words while the disk is full; else empty", |services| {
        services.node.status.snapshot().lacks_room.unwrap_or_default()
    }),
    ("position", "the decided position: epoch.sequence/hash", |services| {
        services.node.status.snapshot().decided.to_string()
    }),
    ("logend", "the end of the log; differs while a batch is undecided", |services| {
        services.node.status.snapshot().log_end.to_string()
    }),
];

/// To the second; empty at the other role.
fn start_time(since: Option<SystemTime>) -> String {
    let text = since.map(crate::calendar::log_text);
    text.and_then(|text| text.get(..19).map(str::to_owned)).unwrap_or_default()
}

/// The file and SQLite's own log beside it.
fn database_bytes(database: &Database) -> u64 {
    let file = std::fs::metadata(database.path()).map_or(0, |file| file.len());
    file + checkpoint::wal_file_bytes(database)
}

pub(super) fn info(services: &AdminServices, call: &Call) -> Rows {
    let figure = |option: &str| match FIGURES.iter().find(|row| row.0.eq_ignore_ascii_case(option)) {
        Some((_, _, figure)) => Ok((0, figure(services))),
        None => {
            let known: Vec<&str> = FIGURES.iter().map(|row| row.0).collect();
            Err(invalid(format!("There is no info option '{option}'; there are {}.", known.join(", "))))
        }
    };
    let options = call.arguments();
    if options.is_empty() {
        return Ok(FIGURES
            .iter()
            .map(|(name, _, figure)| (0, format!("{name}: {}", figure(services))))
            .collect());
    }
    options.into_iter().map(figure).collect()
}

pub(super) fn status(services: &AdminServices, _: &Call) -> Rows {
    let now = services.node.status.snapshot();
    let state = if now.state == State::Plain { "without HotStandby" } else { now.state.name() };
    let lines = [
        format!(
            "HotStandby {} ({state}), up {} s",
            env!("CARGO_PKG_VERSION"),
            services.node.started.elapsed().as_secs()
        ),
        sessions_line(services),
        format!(
            "{} transactions, {} undecided",
            now.decided.sequence,
            now.log_end.sequence - now.decided.sequence.min(now.log_end.sequence)
        ),
        format!(
            "database {} bytes, log {} bytes, {} checkpoints",
            database_bytes(&services.node.database),
            services.node.counters.log_size.get(),
            services.checkpointer.count()
        ),
    ];
    Ok(lines.into_iter().map(|line| (0, line)).collect())
}

/// How many there may be is what is configured, or what the limit of open files allows.
fn sessions_line(services: &AdminServices) -> String {
    let (wanted, budget) = (services.node.parameters.max_connections(), services.budget);
    let count = services.node.sessions.count();
    if wanted <= budget.sessions {
        return format!("{count} SQL sessions of {wanted}");
    }
    let Budget { limit, sessions, .. } = budget;
    format!(
        "{count} SQL sessions of {sessions} (Com.MaxConnections={wanted}; the limit of {limit} open files allows no more)"
    )
}

pub(super) fn user_list(services: &AdminServices, _: &Call) -> Rows {
    let line = |session: SessionInfo| {
        let since = crate::calendar::log_text(session.since);
        (0, format!("{} {} {} since {since}", session.id, session.user, session.address))
    };
    Ok(services.node.sessions.list().into_iter().map(line).collect())
}

pub(super) fn throw_out(services: &AdminServices, call: &Call) -> Rows {
    let who = call.rest.as_str();
    if who.eq_ignore_ascii_case("all") {
        let number = services.node.sessions.close_where(Code::THROWN_OUT, |_| true);
        return one(format!("{number} sessions were thrown out."));
    }
    match who.parse().map(|id| services.node.sessions.throw_out(id)) {
        Ok(true) => one("The session was thrown out."),
        _ => Err(invalid(format!("There is no session '{who}'; 'userlist' shows them."))),
    }
}

pub(super) fn shut_down(services: &AdminServices, call: &Call) -> Rows {
    // PRIMARY UNCERTAIN with a transaction whose outcome is open: somebody should decide it first.
    let now = services.node.status.snapshot();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_info_option() {
        let row = super::super::table::COMMANDS.iter().find(|row| row.syntax.starts_with("info ")).unwrap();
        for (name, meaning, _) in FIGURES {
            let line = format!("* {name}: {meaning}");
            assert!(row.help.contains(&line), "'{line}' is missing in the help of 'info'");
        }
    }
}
