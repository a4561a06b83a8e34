//! A pair with a disturbed network, and single transactions on it.

use std::thread::JoinHandle;

use hotstandby::demo::pair::{Pair, Server};

use super::proxy::Network;
use super::{assert_identical, messages, number, position, program, sql, wait_until};

pub const QUICK_PINGS: &str = "PingInterval=200\nPingTimeout=1500\n";
pub const NO_PINGS: &str = "PingTimeout=0\n";

pub struct Fixture {
    pub network: Network,
    pub pair: Pair,
    _root: tempfile::TempDir,
}

/// A connected pair with a table `t` of one row, and the network between its servers.
pub fn fixture(extra: &str) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), extra).unwrap();
    let network = Network::between(&pair);
    pair.start().unwrap();
    sql(&pair.first)
        .batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (1)")
        .unwrap();
    // Acknowledged means received; what comes next wants to see it.
    wait_until("both servers have the table", || position(&pair.first) == position(&pair.second));
    Fixture { network, pair, _root: root }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for server in [&self.pair.first, &self.pair.second] {
                println!("---- {}\n{}", server.name, messages(server));
            }
        }
    }
}

pub type Waiting = JoinHandle<Result<(), postgres::Error>>;

/// Inserts a row on a connection of its own.
pub fn insert(server: &Server, id: i64) -> Waiting {
    let mut session = sql(server);
    std::thread::spawn(move || session.batch_execute(&format!("INSERT INTO t VALUES ({id})")))
}

pub fn rows(server: &Server) -> i64 {
    number(&mut sql(server), "SELECT count(*) FROM t")
}

pub fn has_row(server: &Server, id: i64) -> bool {
    number(&mut sql(server), &format!("SELECT count(*) FROM t WHERE id = {id}")) == 1
}

pub fn reconnect(pair: &Pair) {
    pair.first.expect("hsb connect").unwrap();
    assert_identical(pair);
}
