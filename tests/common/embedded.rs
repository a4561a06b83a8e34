//! A node inside the test program, with a client of its SQL port.

use std::sync::Arc;

use hotstandby::config::Parameters;
use hotstandby::demo::pair;
use hotstandby::node::{Node, NodeContext, StartOptions};
use postgres::{Client, NoTls};

/// A node in this process, as a program that embeds it would start it.
pub struct Server {
    pub context: Arc<NodeContext>,
    pub port: u16,
    node: Option<Node>,
    _reserved: pair::ReservedPort,
    _directory: tempfile::TempDir,
}

pub fn server() -> Server {
    server_with("")
}

pub fn server_with(ini: &str) -> Server {
    server_with_options(ini, |_| {})
}

pub fn server_with_options(ini: &str, change: impl FnOnce(&mut StartOptions)) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let reserved = pair::reserve_port().unwrap();
    let port = reserved.number;
    let text = format!("[Com]\nListen=tcp {port}\n{ini}");
    let (parameters, _) = Parameters::from_text(directory.path(), &text).unwrap();
    let administrator = Box::new(|| Ok(("dba".to_string(), "dba".to_string())));
    let mut options =
        StartOptions { parameters, backup_server: false, administrator, netcopy_requested: None };
    change(&mut options);
    let node = Node::start(options).unwrap();
    Server {
        context: node.context().clone(),
        port,
        node: Some(node),
        _reserved: reserved,
        _directory: directory,
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.shut_down();
        }
    }
}

impl Server {
    pub fn connect_as(&self, user: &str, password: &str) -> Result<Client, postgres::Error> {
        let port = self.port;
        Client::connect(
            &format!("host=127.0.0.1 port={port} user={user} password={password} dbname=x"),
            NoTls,
        )
    }

    pub fn admin(&self, command: &str) {
        let answer = self.context.admin.execute("dba", true, command);
        assert_eq!(answer[0].0, 0, "{command}: {answer:?}");
    }

    pub fn connect(&self) -> Client {
        self.connect_as("dba", "dba").unwrap()
    }
}
