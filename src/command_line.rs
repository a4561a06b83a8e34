//! The command line of `solid`. Not here: acting on it.

use crate::error::{ServerError, invalid};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

/// HotStandby: a two-node high-availability SQL database. Without a subcommand it starts the server of this directory.
#[derive(Parser, Debug, Clone)]
#[command(name = "solid", version, args_conflicts_with_subcommands = true)]
pub struct Options {
    /// Directory of solid.ini and of everything that it names
    #[arg(short = 'c', value_name = "DIR", env = "SOLIDDIR", default_value = ".")]
    pub directory: PathBuf,

    /// Start in a special mode; may be given twice
    #[arg(short = 'x', value_name = "MODE")]
    pub modes: Vec<Mode>,

    /// Administrator of a database that is created now; asked for on a terminal if not given
    #[arg(short = 'U', value_name = "USER", env = "SOLID_USER")]
    pub user: Option<String>,

    /// The administrator's password. Other users of this machine can see -P in the list of processes: prefer the
    /// environment (SOLID_PASSWORD) or leave it out and be asked
    #[arg(short = 'P', value_name = "PASSWORD", env = "SOLID_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,

    /// Instead of starting a server
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Special modes of the server.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Wait for a netcopy from the primary and become its secondary
    Backupserver,
    /// Keep nothing on disk: database and log are in memory and end with the server
    Diskless,
}

/// What else the program does.
#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Show a pair of servers at work: load, a crash, the failover, nothing lost
    Demo(DemoOptions),
}

/// Options of `solid demo`.
#[derive(Args, Debug, Clone)]
pub struct DemoOptions {
    /// Set up the pair, say how to connect to it, and leave it running; no load, no crash
    #[arg(long)]
    pub stay: bool,

    /// New directory for the two servers; a temporary one if not given
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Clients that write
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub clients: u32,

    /// Seconds of load before the crash, after it, and after the switch back
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
}

impl Options {
    /// The options of this process; explains and ends it if they are wrong or help is wanted.
    pub fn from_command_line() -> Options {
        Options::parse()
    }
}

/// User and password of the administrator of a new database: from -U and -P, the environment, or a terminal.
pub fn administrator(options: &Options) -> Result<(String, String), ServerError> {
    let given = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
    let (user, password) = (given(&options.user), given(&options.password));
    if (user.is_none() || password.is_none()) && !std::io::stdin().is_terminal() {
        return Err(invalid(
            "A new database needs an administrator: set SOLID_USER and SOLID_PASSWORD, or use -U and -P, or start on a terminal to be asked.",
        ));
    }
    let user = user.map_or_else(ask_user, Ok)?;
    let password = password.map_or_else(|| ask_password(&user), Ok)?;
    Ok((user, password))
}

fn ask_user() -> Result<String, ServerError> {
    let mut line = String::new();
    let _ = write!(std::io::stderr(), "Name of the new database's administrator: ");
    let read = std::io::stdin().lock().read_line(&mut line);
    let name = line.trim();
    match read {
        Ok(_) if !name.is_empty() && !name.contains(char::is_whitespace) => Ok(name.to_owned()),
        Ok(_) => Err(invalid("The administrator's name is one word.")),
        Err(error) => Err(invalid(format!("The administrator's name cannot be read: {error}."))),
    }
}

fn ask_password(user: &str) -> Result<String, ServerError> {
    let ask = |prompt: String| {
        rpassword::prompt_password(prompt)
            .map_err(|error| invalid(format!("The password cannot be read: {error}.")))
    };
    let password = ask(format!("Password of {user}: "))?;
    if password.is_empty() {
        return Err(invalid("The password is empty."));
    }
    if ask("The same once more: ".to_owned())? != password {
        return Err(invalid("The two passwords differ."));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn options_are_read_as_documented() {
        Options::command().debug_assert();
        let options =
            Options::parse_from(["solid", "-c", "/data", "-x", "backupserver", "-U", "u", "-P", "p"]);
        assert_eq!(options.directory, PathBuf::from("/data"));
        assert_eq!(options.modes, [Mode::Backupserver]);
        assert_eq!(administrator(&options).unwrap(), ("u".to_owned(), "p".to_owned()));
        assert_eq!(Options::parse_from(["solid", "-xbackupserver"]).modes, [Mode::Backupserver]);
        let both = Options::parse_from(["solid", "-x", "diskless", "-xbackupserver"]);
        assert_eq!(both.modes, [Mode::Diskless, Mode::Backupserver]);
        assert!(Options::try_parse_from(["solid", "-x", "other"]).is_err());
        assert!(Options::try_parse_from(["solid", "stray"]).is_err());
    }

    #[test]
    fn demo_has_its_own_options() {
        let options = Options::parse_from([
            "solid",
            "demo",
            "--stay",
            "--dir",
            "/d",
            "--clients",
            "2",
            "--seconds",
            "3",
        ]);
        let Some(Command::Demo(demo)) = options.command else { panic!("no demo") };
        assert!(demo.stay);
        assert_eq!((demo.dir, demo.clients, demo.seconds), (Some(PathBuf::from("/d")), 2, 3));
        assert!(Options::try_parse_from(["solid", "demo", "--clients", "0"]).is_err());
    }

    #[test]
    fn help_warns_of_passwords_on_the_command_line() {
        let help = Options::command().render_long_help().to_string();
        assert!(help.contains("list of processes") && help.contains("SOLID_PASSWORD"), "{help}");
    }
}
