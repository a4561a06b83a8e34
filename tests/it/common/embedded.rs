//! A node inside the test program, with a client of its SQL port.

use std::sync::Arc;

use hotstandby::config::Parameters;
use hotstandby::demo::pair;
use hotstandby::node::{Node, StartOptions};
use hotstandby::services::context::{NodeContext, Rights};
use postgres::{Client, NoTls};

/// A node in this process, as a program that embeds it would start it.
pub struct Server {
    pub context: Arc<NodeContext>,
    pub port: u16,
    node: Option<Node>,
    _reserved: pair::ReservedPort,
    pub directory: tempfile::TempDir,
}

pub fn server() -> Server {
    server_with("")
}

pub fn server_with(ini: &str) -> Server {
    start(pair::reserve_port().unwrap(), ini, |_| {})
}

pub fn server_with_options(ini: &str, change: impl FnOnce(&mut StartOptions)) -> Server {
    start(pair::reserve_port().unwrap(), ini, change)
}

/// A node that waits for a netcopy.
pub fn backup_server(ini: &str) -> Server {
    start(pair::reserve_port().unwrap(), ini, |options| options.backup_server = true)
}

/// PRIMARY ACTIVE and SECONDARY ACTIVE; `extra` are further lines of [HotStandby] for both.
pub fn connected_pair(extra: &str) -> (Server, Server) {
    let (one, other) = (pair::reserve_port().unwrap(), pair::reserve_port().unwrap());
    let ini = |peer: u16| format!("[HotStandby]\nHSBEnabled=yes\nConnect=tcp 127.0.0.1 {peer}\n{extra}");
    let numbers = (one.number, other.number);
    let first = start(one, &ini(numbers.1), |_| {});
    let second = start(other, &ini(numbers.0), |options| options.backup_server = true);
    first.admin("hsb set primary alone");
    first.admin("hsb netcopy");
    first.wait_for("hsb status copy", "SUCCESS");
    first.admin("hsb connect");
    for server in [&first, &second] {
        server.wait_for("hsb status connect", "CONNECTED");
    }
    (first, second)
}

fn start(reserved: pair::ReservedPort, ini: &str, change: impl FnOnce(&mut StartOptions)) -> Server {
    start_in(tempfile::tempdir().unwrap(), reserved, ini, change)
}

fn start_in(
    directory: tempfile::TempDir,
    reserved: pair::ReservedPort,
    ini: &str,
    change: impl FnOnce(&mut StartOptions),
) -> Server {
    let port = reserved.number;
    let text = format!("[Com]\nListen=tcp {port}\n{ini}");
    let (parameters, _) = Parameters::from_text(directory.path(), &text).unwrap();
    let administrator = Box::new(|| Ok(("dba".to_string(), "dba".to_string())));
    let mut options =
        StartOptions { parameters, backup_server: false, administrator, netcopy_requested: None };
    change(&mut options);
    let node = Node::start(options).unwrap();
    Server { context: node.context().clone(), port, node: Some(node), _reserved: reserved, directory }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.shut_down();
        }
    }
}

impl Server {
    /// Ends it in order; the directory lives on until the value is dropped.
    pub fn shut_down(mut self) -> tempfile::TempDir {
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        drop(self);
        directory
    }

    /// Ends it in order and starts another one in its directory, with what was changed in solid.ini meanwhile.
    pub fn start_again(self) -> Server {
        let directory = self.shut_down();
        let ini = std::fs::read_to_string(directory.path().join("solid.ini")).unwrap();
        start_in(directory, pair::reserve_port().unwrap(), &ini, |_| {})
    }

    pub fn connect_as(&self, user: &str, password: &str) -> Result<Client, postgres::Error> {
        let port = self.port;
        Client::connect(
            &format!("host=127.0.0.1 port={port} user={user} password={password} dbname=x"),
            NoTls,
        )
    }

    /// A command that has to succeed.
    pub fn admin(&self, command: &str) {
        let (code, text) = self.ask(command);
        assert_eq!(code, 0, "{command}: {text}");
    }

    /// The first row of the answer to a command.
    pub fn ask(&self, command: &str) -> (u32, String) {
        self.context.admin.execute("dba", Rights::Administrator, command).remove(0)
    }

    pub fn wait_for(&self, command: &str, wanted: &str) {
        super::wait_until(&format!("'{command}' says {wanted}"), || self.ask(command).1 == wanted);
    }

    pub fn connect(&self) -> Client {
        self.connect_as("dba", "dba").unwrap()
    }
}
