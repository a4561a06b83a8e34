//! The admin handler: understands admin commands, answers what can be answered at once, passes on what changes the
//! state (guide, appendix C).

use std::sync::Arc;

use actix::prelude::*;
use crossbeam_channel::Sender;

use super::parameter_commands;
use super::supervisor::{Answer, Operator};
use crate::config::Parameters;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::event::Command;
use crate::hsb::heart::{CopyStatus, SwitchStatus};
use crate::hsb::state::State;
use crate::net::peer::copy::CopyProgress;
use crate::node::{NodeStatus, ParameterChanges, settings_of};
use crate::sql::registry::SessionRegistry;
use crate::storage::database::Database;

/// From sessions and consoles: one command. Answered in the channel.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct AdminCommand {
    /// Who asks.
    pub user: String,
    /// Has SYS_ADMIN_ROLE.
    pub may_administrate: bool,
    /// The command, without `ADMIN COMMAND` and quotes.
    pub text: String,
    /// For the answer.
    pub reply: Sender<Answer>,
}

/// What the admin handler knows and whom it tells.
pub struct AdminTargets {
    /// The supervisor.
    pub operator: Recipient<Operator>,
    /// Puts changed parameters in force.
    pub changes: Arc<ParameterChanges>,
    /// What can be answered at once.
    pub status: Arc<NodeStatus>,
    /// solid.ini.
    pub parameters: Arc<Parameters>,
    /// Who is connected.
    pub sessions: Arc<SessionRegistry>,
    /// How far a copy is.
    pub copy_progress: Arc<CopyProgress>,
    /// For its size.
    pub database: Arc<Database>,
    /// Ends the server.
    pub shutdown: Sender<()>,
}

/// See the module.
pub struct AdminHandler {
    targets: AdminTargets,
    started: std::time::Instant,
}

const HELP: &[(&str, &str)] = &[
    ("hsb state | role", "the state or role of this server"),
    ("hsb status [connect|catchup|copy|switch]", "an overview, or the last operation of that kind"),
    ("hsb cominfo | logpos", "the other server's connect string; how far this server's log is"),
    ("hsb connect | disconnect", "connect the servers (with catchup), or part in order"),
    ("hsb set primary alone | set secondary alone | set standalone", "set this server's state"),
    ("hsb switch primary | switch secondary", "exchange the roles"),
    ("hsb netcopy", "copy this primary's database to the other server"),
    ("parameter [section[.name[=value [temporary]]]]", "show or change parameters"),
    ("describe parameter section.name | save parameters [file]", "explain or write parameters"),
    ("info dbsize|uptime|version|numusers|hsbstate …", "single figures"),
    ("userlist | throwout <id|all>", "who is connected; end a session"),
    ("errorcode <number|all>", "explain a code"),
    ("version | pid | help", "as they say"),
    ("shutdown [force]", "end this server; force: even with a transaction whose outcome is open"),
];

const INFO_OPTIONS: &str =
    "It reads: info option …, with uptime, version, name, numusers, numtrans, dbsize, hsbstate.";

type Rows = Result<Answer, ServerError>;

impl AdminHandler {
    /// A handler.
    pub fn new(targets: AdminTargets) -> AdminHandler {
        AdminHandler { targets, started: std::time::Instant::now() }
    }

    /// The answer, or the command that the supervisor has to answer.
    fn answer(&self, text: &str, may_administrate: bool) -> Result<Rows, Command> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let lower = text.to_ascii_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["hsb" | "hotstandby", rest @ ..] => return self.hsb(rest),
            ["version"] => {
                Ok(one(format!("HotStandby {}, SQLite {}", env!("CARGO_PKG_VERSION"), rusqlite::version())))
            }
            ["pid"] => Ok(one(std::process::id().to_string())),
            ["help"] => {
                Ok(HELP.iter().map(|(command, meaning)| (0, format!("{command}  -  {meaning}"))).collect())
            }
            ["errorcode", "all"] => Ok(crate::hsb::codes::TABLE.iter().map(code_row).collect()),
            ["errorcode", number] => error_code(number),
            ["info"] => Err(ServerError::with(Code::INVALID_ARGUMENT, INFO_OPTIONS)),
            ["info", options @ ..] => Ok(options.iter().map(|option| (0, self.info(option))).collect()),
            ["userlist"] => Ok(self.user_list()),
            ["parameter", ..] | ["describe", "parameter", ..] => {
                parameter_commands::show(&self.targets.parameters, &words)
            }
            ["throwout" | "shutdown", ..] if !may_administrate => Err(no_right()),
            ["throwout", who] => self.throw_out(who),
            ["shutdown"] if self.is_in_doubt() => Err(ServerError::new(Code::TRANSACTION_ACTIVE)),
            ["shutdown"] | ["shutdown", "force"] => {
                // The channel holds one request; a second one changes nothing.
                let _ = self.targets.shutdown.try_send(());
                Ok(one("The server is shutting down.".into()))
            }
            _ => {
                Err(ServerError::with(Code::INVALID_ARGUMENT, format!("Not understood: '{}'.", text.trim())))
            }
        };
        Ok(answer)
    }

    fn hsb(&self, words: &[&str]) -> Result<Rows, Command> {
        let command = match words {
            ["connect"] => Command::Connect,
            ["disconnect"] => Command::Disconnect,
            ["set", "primary", "alone"] => Command::SetPrimaryAlone,
            ["set", "secondary", "alone"] => Command::SetSecondaryAlone,
            ["set", "standalone"] => Command::SetStandalone,
            ["switch", "primary"] => Command::SwitchPrimary,
            ["switch", "secondary"] => Command::SwitchSecondary,
            ["netcopy"] => Command::Netcopy,
            _ => return Ok(self.hsb_query(words)),
        };
        Err(command)
    }

    fn hsb_query(&self, words: &[&str]) -> Rows {
        let now = self.targets.status.snapshot();
        if now.state == State::Plain {
            return Err(ServerError::new(Code::NOT_HOTSTANDBY));
        }
        match words {
            ["state"] => Ok(one(now.state.name().into())),
            ["role"] => Ok(one(now.state.role().into())),
            ["cominfo"] => match self.targets.parameters.connect() {
                Some(peer) => Ok(one(peer.to_string())),
                None => Err(ServerError::new(Code::NO_CONNECT_STRING)),
            },
            ["logpos"] => Ok(one(format!("{}:{}", now.log_end.digits(), now.state.role()))),
            ["status", "connect"] => Ok(vec![(now.connect.code().number(), now.connect.name().into())]),
            ["status", "catchup"] if now.catching_up => Ok(vec![(Code::ACTIVE.number(), "ACTIVE".into())]),
            ["status", "catchup"] => Ok(one("NOT ACTIVE".into())),
            ["status", "copy"] => Ok(self.copy_status(&now.copy)),
            ["status", "switch"] => Ok(switch_status(now.switch)),
            ["status"] => Ok(self.overview()),
            _ => Err(ServerError::with(
                Code::INVALID_ARGUMENT,
                format!("Not understood: 'hsb {}'.", words.join(" ")),
            )),
        }
    }

    fn overview(&self) -> Answer {
        let now = self.targets.status.snapshot();
        let settings = settings_of(&self.targets.parameters);
        let behind = now.log_end.sequence.saturating_sub(now.acknowledged.sequence);
        let mut lines = vec![
            format!("state       {} ({})", now.state, now.last_change),
            format!("connection  {}", now.connect.name()),
            format!("position    {}", now.decided),
        ];
        if now.log_end != now.decided {
            lines.push(format!("log end     {} (a batch is pending)", now.log_end));
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
        if let Some(peer) = self.targets.parameters.connect() {
            lines.push(format!("peer        {peer}"));
        }
        if now.state == State::PrimaryUncertain {
            lines.push("next        'hsb set primary alone' to go on without the secondary, or 'hsb connect' when it is back".into());
        }
        lines.into_iter().map(|line| (0, line)).collect()
    }

    fn copy_status(&self, status: &CopyStatus) -> Answer {
        match status {
            CopyStatus::Never => one("NOT ACTIVE".into()),
            CopyStatus::Success => one("SUCCESS".into()),
            CopyStatus::Failed(code, detail) => {
                vec![(code.number(), format!("FAILED: {} {detail}", code.text()))]
            }
            CopyStatus::Active => {
                let (done, total) = self.targets.copy_progress.bytes();
                let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
                vec![(Code::ACTIVE.number(), format!("ACTIVE {percent} % ({done} of {total} bytes)"))]
            }
        }
    }

    /// PRIMARY UNCERTAIN with a transaction whose outcome is open: somebody should decide it first.
    fn is_in_doubt(&self) -> bool {
        let now = self.targets.status.snapshot();
        now.state == State::PrimaryUncertain && now.decided != now.log_end
    }

    fn info(&self, option: &str) -> String {
        let now = self.targets.status.snapshot();
        match option {
            "uptime" => format!("{} s", self.started.elapsed().as_secs()),
            "version" => env!("CARGO_PKG_VERSION").into(),
            "name" => "HotStandby".into(),
            "numusers" => self.targets.sessions.count().to_string(),
            "numtrans" => now.decided.sequence.to_string(),
            "hsbstate" => now.state.name().into(),
            "dbsize" => {
                std::fs::metadata(self.targets.database.path()).map_or(0, |file| file.len()).to_string()
            }
            _ => String::new(),
        }
    }

    fn user_list(&self) -> Answer {
        let line = |session: crate::sql::registry::SessionInfo| {
            let since = crate::logging::timestamp(session.since);
            (0, format!("{} {} {} since {since}", session.id, session.user, session.address))
        };
        self.targets.sessions.list().into_iter().map(line).collect()
    }

    fn throw_out(&self, who: &str) -> Rows {
        if who == "all" {
            let number = self.targets.sessions.close_where(Code::THROWN_OUT, |_| true);
            return Ok(one(format!("{number} sessions were thrown out.")));
        }
        match who.parse().map(|id| self.targets.sessions.throw_out(id)) {
            Ok(true) => Ok(one("The session was thrown out.".into())),
            _ => Err(ServerError::with(
                Code::INVALID_ARGUMENT,
                format!("There is no session '{who}' ('userlist' shows them)."),
            )),
        }
    }
}

fn one(text: String) -> Answer {
    vec![(0, text)]
}

fn no_right() -> ServerError {
    ServerError::sql("42501", "the command needs SYS_ADMIN_ROLE")
}

fn switch_status(status: SwitchStatus) -> Answer {
    match status {
        SwitchStatus::Never => vec![(Code::NO_SWITCH_BEFORE.number(), Code::NO_SWITCH_BEFORE.text().into())],
        SwitchStatus::Active => vec![(Code::ACTIVE.number(), "ACTIVE".into())],
        SwitchStatus::Success => one("SUCCESS".into()),
        SwitchStatus::Failed(code) => vec![(code.number(), format!("ERROR {}", code.number()))],
    }
}

fn code_row((number, name, state, text): &(u32, &str, &str, &str)) -> (u32, String) {
    (0, format!("{number} {name} {state} {text}"))
}

fn error_code(number: &str) -> Rows {
    let known = number
        .parse()
        .ok()
        .and_then(|number: u32| crate::hsb::codes::TABLE.iter().find(|row| row.0 == number));
    known
        .map(|row| vec![code_row(row)])
        .ok_or_else(|| ServerError::with(Code::INVALID_ARGUMENT, format!("There is no code '{number}'.")))
}

/// An error as the answer to a command.
pub(super) fn refusal(error: &ServerError) -> Answer {
    vec![(error.code.unwrap_or(Code::OPERATION_FAILED).number(), error.message.clone())]
}

impl Actor for AdminHandler {
    type Context = Context<Self>;
}

impl Handler<AdminCommand> for AdminHandler {
    type Result = ();
    fn handle(&mut self, command: AdminCommand, _: &mut Context<Self>) {
        if let Some(change) = parameter_commands::change(command.text.trim().trim_end_matches(';').trim_end()) {
            let allowed = if command.may_administrate { change } else { Err(no_right()) };
            match allowed {
                Ok(change) => {
                    log::info!("{}: {change}", command.user);
                    parameter_commands::carry_out(&self.targets.changes, change, command.reply);
                }
                Err(error) => drop(command.reply.send(refusal(&error))),
            }
            return;
        }
        let answer = match self.answer(&command.text, command.may_administrate) {
            Err(state_command) => {
                log::info!("{}: {}", command.user, command.text.trim());
                let operator = Operator { command: Some(state_command), reply: command.reply };
                return self.targets.operator.do_send(operator);
            }
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => refusal(&error),
        };
        // Whoever asked may have gone away.
        let _ = command.reply.send(answer);
    }
}
