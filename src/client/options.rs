//! The command line of `solcon`. Not here: acting on it.

use std::path::PathBuf;

use clap::Parser;

use super::credentials::{USER_VARIABLE, password_from};
use crate::client::credentials::Credentials;
use crate::config::parameters::FILE_NAME;
use crate::config::{ConnectString, Id, Parameters};
use crate::error::{ServerError, invalid};

/// The console of a HotStandby server: admin commands, typed or from a script.
///
/// Commands come from -e, else from -f, else from standard input; on a terminal it is interactive. Exit status: 0 if
/// every command succeeded or is still running, 1 if one was refused or failed, 2 if a server could not be reached or
/// the call was wrong. The password comes from --password-file, from SOLID_PASSWORD, or is asked for.
#[derive(Parser, Debug)]
#[command(name = "solcon", version)]
pub struct Options {
    /// The server, as in solid.ini: "tcp [-cMS] [-rMS] [host] port", or a logical name of [Data Sources] there; without one,
    /// Com.Connect counts. With --status both servers of a pair
    #[arg(value_name = "CONNECT", num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
    connect: Vec<String>,

    /// Directory of the solid.ini with [Data Sources] and Com.Connect
    #[arg(short = 'c', long, value_name = "DIR", env = "SOLIDDIR", default_value = ".")]
    directory: PathBuf,

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
    /// The servers named: each begins with the word `tcp`, so that quotes may be left out, or is a logical name.
    pub fn servers(&self) -> Result<Vec<ConnectString>, ServerError> {
        let mut texts: Vec<String> = Vec::new();
        for word in self.connect.iter().flat_map(|text| text.split_whitespace()) {
            let begins = begins_with_protocol(word);
            match texts.last_mut() {
                Some(text) if !begins && begins_with_protocol(text) => *text = format!("{text} {word}"),
                _ => texts.push(word.to_owned()),
            }
        }
        if texts.is_empty() {
            texts.push(self.solid_ini()?.text(Id::ComConnect));
            if texts.iter().any(String::is_empty) {
                return Err(invalid(
                    "No server is named: give it as \"tcp host port\", or set [Com] Connect in solid.ini.",
                ));
            }
        }
        let most = if self.status { 2 } else { 1 };
        if texts.len() > most {
            return Err(invalid(format!("{} servers are named, at most {most} can be used.", texts.len())));
        }
        texts.iter().map(|text| self.server(text)).collect()
    }

    /// A connect string, or the one behind a logical name.
    fn server(&self, text: &str) -> Result<ConnectString, ServerError> {
        if !begins_with_protocol(text) && text.parse::<u16>().is_err() {
            if let Some(behind) = self.solid_ini()?.data_source(text) {
                return ConnectString::parse(behind);
            }
            let malformed = ConnectString::parse(text).err().unwrap_or_else(|| invalid(text));
            let place = self.directory.join(FILE_NAME);
            let nor = format!("Nor is it a name in [Data Sources] of {}.", place.display());
            let text = format!("{} {nor}", malformed.message());
            return Err(malformed.saying(text));
        }
        ConnectString::parse(text)
    }

    fn solid_ini(&self) -> Result<Parameters, ServerError> {
        Parameters::load(&self.directory).map(|(parameters, _)| parameters)
    }

    /// Who logs in at these servers.
    pub fn credentials(&self, servers: &[ConnectString]) -> Result<Credentials, ServerError> {
        let password = self.password_file.as_deref().map(password_from).transpose()?;
        let names: Vec<String> = servers.iter().map(ConnectString::to_string).collect();
        Credentials::complete(self.user.clone(), password, &names.join(" and "))
    }
}

fn begins_with_protocol(text: &str) -> bool {
    let word = text.split_whitespace().next().unwrap_or_default();
    word.eq_ignore_ascii_case("tcp") || word.eq_ignore_ascii_case("tcpip")
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
        assert!(servers(&["-c", "/nowhere", "-e", "pid"]).unwrap_err().contains("No server is named"));
        assert!(servers(&["--once", "tcp 1"]).is_err());
        assert!(servers(&["--status", "-e", "pid", "tcp 1"]).is_err());
    }

    #[test]
    fn logical_names_and_a_server_of_ones_own_come_from_solid_ini() {
        let directory = tempfile::tempdir().unwrap();
        let ini = "[Com]\nConnect=tcp db0 1300\n[Data Sources]\nOrders=tcp db1 1301, the orders\nstock = tcp db2 1302\n";
        std::fs::write(directory.path().join("solid.ini"), ini).unwrap();
        let of =
            |arguments: &[&str]| servers(&[&["-c", directory.path().to_str().unwrap()], arguments].concat());
        assert_eq!(of(&["orders"]).unwrap(), ["tcp db1 1301"]);
        assert_eq!(of(&["-e", "pid", "STOCK"]).unwrap(), ["tcp db2 1302"]);
        assert_eq!(of(&["--status", "orders", "stock"]).unwrap(), ["tcp db1 1301", "tcp db2 1302"]);
        assert_eq!(of(&["--status", "orders", "tcp", "db3", "1"]).unwrap(), ["tcp db1 1301", "tcp db3 1"]);
        assert_eq!(of(&[]).unwrap(), ["tcp db0 1300"]);
        assert!(of(&["nobody"]).unwrap_err().contains("[Data Sources]"));
    }
}
