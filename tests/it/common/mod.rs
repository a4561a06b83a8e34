//! Helpers of the tests that run real server processes.
// Each test program uses some of them; a helper that fails is a test that fails.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod embedded;
pub mod fixture;
pub mod proxy;
pub mod wire;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hotstandby::demo::pair::{ADMINISTRATOR, PATIENCE, Pair, Server};
use hotstandby::storage::checksum::logical_checksum;
use postgres::{Client, NoTls};

/// The server program that belongs to these tests.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_solid"))
}

/// A pair that is PRIMARY ACTIVE and SECONDARY ACTIVE, and the directory it lives in.
pub fn connected_pair(extra: &str) -> (tempfile::TempDir, Pair) {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), extra).unwrap();
    pair.start().unwrap();
    (root, pair)
}

/// An SQL connection as the administrator.
pub fn sql(server: &Server) -> Client {
    try_sql(server, ADMINISTRATOR.1).unwrap()
}

/// An SQL connection that may fail.
pub fn try_sql(server: &Server, password: &str) -> Result<Client, postgres::Error> {
    let mut configuration = postgres::Config::new();
    configuration
        .hostaddr(server.host)
        .port(server.port)
        .user(ADMINISTRATOR.0)
        .password(password)
        .dbname("solid");
    configuration.connect_timeout(Duration::from_secs(20)).connect(NoTls)
}

/// The only number of a query's only row.
pub fn number(client: &mut Client, query: &str) -> i64 {
    client.query_one(query, &[]).unwrap().get(0)
}

/// The SQLSTATE and message of an error that the server has sent; a lost connection has none.
pub fn server_error(error: &postgres::Error) -> Option<(String, String)> {
    error.as_db_error().map(|error| (error.code().code().to_owned(), error.message().to_owned()))
}

/// Waits until `holds`; panics after the usual patience.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// What a server says to `hsb state`.
pub fn state(server: &Server) -> String {
    server.expect("hsb state").unwrap()
}

/// The decided position.
pub fn position(server: &Server) -> String {
    server.expect("info position").unwrap()
}

/// Whether the log ends with a batch whose outcome is open.
pub fn has_pending(server: &Server) -> bool {
    server.expect("info logend").unwrap() != position(server)
}

/// Waits until both are connected and level, then compares their databases.
pub fn assert_identical(pair: &Pair) {
    for server in [&pair.first, &pair.second] {
        server.wait_for("hsb status connect", "CONNECTED").unwrap();
    }
    wait_until("both are at the same position", || position(&pair.first) == position(&pair.second));
    assert_eq!(checksum(&pair.first), checksum(&pair.second), "the databases differ");
}

/// The logical checksum of a server's database.
pub fn checksum(server: &Server) -> Vec<(String, u64, u128)> {
    let (_directory, connection) = server.copy_database().unwrap();
    logical_checksum(&connection).unwrap()
}

/// Keeps a server's process from writing its database, as a program would that has opened it: until the value is dropped.
pub fn lock_out_of_database(server: &Server) -> std::fs::File {
    // SQLite's lock of whoever writes, in the index of its log.
    let lock = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 120,
        l_len: 1,
        l_pid: 0,
    };
    let path = hotstandby::storage::files::beside(&server.database_file(), "-shm");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    wait_until("nobody writes", || nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&lock)).is_ok());
    file
}

/// What a server has written to its message log and to stderr, for failures.
pub fn messages(server: &Server) -> String {
    let read = |name: &str| std::fs::read_to_string(server.directory.join(name)).unwrap_or_default();
    format!("{}{}", read("solmsg.out"), read("stderr.out"))
}

/// The message log of a running server with everything that it has said by now: it is written behind the server's back.
pub fn settled_messages(server: &Server) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mark = format!("nobody-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    // Orders of an administrator stand in the log, whatever comes of them.
    server.ask(&format!("throwout {mark}")).unwrap();
    let log = server.directory.join("solmsg.out");
    let mut text = String::new();
    wait_until("the message log is written", || {
        text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains(&mark)
    });
    text
}

/// Sends a signal (`-STOP`, `-CONT`, …) to a server's process.
pub fn signal(server: &Server, signal: &str) {
    signal_process(server.process_id().unwrap(), signal);
}

/// The same to a process by its id. With `-STOP`, returns when all its threads stand still: the first one has to be
/// scheduled to stop the others, which go on meanwhile.
pub fn signal_process(id: u32, signal: &str) {
    let status = std::process::Command::new("kill").args([signal, &id.to_string()]).status();
    assert!(status.unwrap().success());
    if signal == "-STOP" {
        wait_until("the process stands still", || {
            let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
            threads.map(|thread| thread.unwrap().path().join("stat")).all(|stat| {
                // After the name in parentheses. A thread that has ended does not run either.
                let text = std::fs::read_to_string(stat).unwrap_or_default();
                text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
            })
        });
    }
}

/// Pseudo-random numbers (SplitMix64) that can be had again from their seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From HSB_SEED or the clock; the seed is printed.
    pub fn seeded(what: &str) -> Random {
        let clock =
            || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("HSB_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
        println!("{what}: HSB_SEED={seed}");
        Random(seed)
    }

    /// From a known seed.
    pub fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// Any.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Another one, independent of this.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }
}

/// A number from the environment.
pub fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}
