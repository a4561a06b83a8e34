//! The command line of `solcon`. Not here: acting on it.

use std::path::PathBuf;

use clap::Parser;

use super::credentials::{USER_VARIABLE, password_from};
use crate::client::credentials::Credentials;
use crate::config::ConnectString;
use crate::error::{ServerError, invalid};

/// The console of a HotStandby server: admin commands, typed or from a script.
///
/// Commands come from -e, else from -f, else from standard input; on a terminal it is interactive. Exit status: 0 if
/// every command succeeded or is still running, 1 if one was refused or failed, 2 if a server could not be reached or
/// the call was wrong. The password comes from --password-file, from SOLID_PASSWORD, or is asked for.
#[derive(Parser, Debug)]
#[command(name = "solcon", version)]
pub struct Options {
    /// The server, as in solid.ini: "tcp [-cMS] [-rMS] [host] port"; with --status both servers of a pair
    #[arg(required = true, value_name = "CONNECT", num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    connect: Vec<String>,

    /// User; asked for on a terminal if not given
    #[arg(short = 'U', long, value_name = "USER", env = USER_VARIABLE)]
    user: Option<String>,

    /// File whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// A command; may be given several times, 'watch' last only
    #[arg(short = 'e', long = "execute", value_name = "COMMAND", conflicts_with_all = ["file", "status"])]
    pub execute: Vec<String>,

    /// File with a command per line; lines that begin with -- are comments
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "status")]
    pub file: Option<PathBuf>,

    /// Print rows as RC<TAB>TEXT
    #[arg(long, conflicts_with = "status")]
    pub rc: bool,

    /// Show the state of the servers, again and again until Ctrl-C
    #[arg(long)]
    pub status: bool,

    /// With --status: show it once; the exit status is 0 only if the pair is complete
    #[arg(long, requires = "status")]
    pub once: bool,
}

impl Options {
    /// The servers named: each begins with the word `tcp`, so that quotes may be left out.
    pub fn servers(&self) -> Result<Vec<ConnectString>, ServerError> {
        let mut texts: Vec<String> = Vec::new();
        for word in self.connect.iter().flat_map(|text| text.split_whitespace()) {
            let begins = word.eq_ignore_ascii_case("tcp") || word.eq_ignore_ascii_case("tcpip");
            match texts.last_mut() {
                Some(text) if !begins => *text = format!("{text} {word}"),
                _ => texts.push(word.to_owned()),
            }
        }
        let most = if self.status { 2 } else { 1 };
        if texts.len() > most {
            return Err(invalid(format!("{} servers are named, at most {most} can be used.", texts.len())));
        }
        texts.iter().map(|text| ConnectString::parse(text)).collect()
    }

    /// Who logs in at these servers.
    pub fn credentials(&self, servers: &[ConnectString]) -> Result<Credentials, ServerError> {
        let password = self.password_file.as_deref().map(password_from).transpose()?;
        let names: Vec<String> = servers.iter().map(ConnectString::to_string).collect();
        Credentials::complete(self.user.clone(), password, &names.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn servers(arguments: &[&str]) -> Result<Vec<String>, String> {
        let options =
            Options::try_parse_from([&["solcon"], arguments].concat()).map_err(|e| e.to_string())?;
        let servers = options.servers().map_err(|error| error.to_string())?;
        Ok(servers.iter().map(ConnectString::to_string).collect())
    }

    #[test]
    fn servers_are_named_with_or_without_quotes() {
        Options::command().debug_assert();
        assert_eq!(servers(&["tcp 1301"]).unwrap(), ["tcp 127.0.0.1 1301"]);
        assert_eq!(
            servers(&["-e", "hsb state", "-e", "pid", "tcp", "db1", "1301"]).unwrap(),
            ["tcp db1 1301"]
        );
        assert_eq!(servers(&["-e", "pid", "tcp", "-c100", "db1", "1301"]).unwrap(), ["tcp -c100 db1 1301"]);
        let both = ["tcp 127.0.0.1 1301", "tcp 127.0.0.1 1302"];
        assert_eq!(servers(&["--status", "tcp 1301", "tcp 1302"]).unwrap(), both);
        assert_eq!(servers(&["--status", "--once", "tcp", "1301", "TCP", "1302"]).unwrap(), both);
        assert!(servers(&["tcp 1301", "tcp 1302"]).unwrap_err().contains("at most 1"));
        assert!(servers(&["1301"]).unwrap_err().contains("14502"));
        assert!(servers(&["-e", "pid"]).is_err());
        assert!(servers(&["--once", "tcp 1"]).is_err());
        assert!(servers(&["--status", "-e", "pid", "tcp 1"]).is_err());
    }
}
