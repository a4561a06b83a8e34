//! How long writes pause: failover by the watchdog after a crash and after silence, and switchover under load.
//!
//! `cargo bench --bench failover [-- [--rounds N] [crash] [silence] [switch]]`. Every round is a real failure of a real
//! process; figures are medians and maxima over the rounds, seen from a client.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hotstandby::demo::pair::{ADMINISTRATOR, PATIENCE, Pair, Server, sql_configuration};

/// Between two tries of a client that looks for a server that accepts its write.
const HOP_PAUSE: Duration = Duration::from_millis(1);
/// Clients that write during a switchover.
const CLIENTS: usize = 4;
/// Commits of every client before and after the event that is measured.
const SETTLED: Duration = Duration::from_millis(100);

fn main() {
    let mut rounds = 30;
    let mut parts = Vec::new();
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().and_then(|number| number.parse().ok()).unwrap(),
            "crash" | "silence" | "switch" => parts.push(argument),
            other => panic!("unknown: {other}; see the head of benches/failover.rs"),
        }
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    println!("load average at the start: {}", load_average());
    if wanted("crash") {
        let pauses = failovers(rounds, "", 1000, "", |primary| primary.kill());
        report("SIGKILL of the primary, to the first write at the new one", &pauses);
    }
    if wanted("silence") {
        let settings = "PingInterval=200\nPingTimeout=1000\nConnectTimeout=100\n";
        let pauses = failovers(rounds, settings, 200, "-c200 -r200 ", stop);
        report("SIGSTOP of the primary (PingTimeout 1000 ms), to the first write at the new one", &pauses);
    }
    if wanted("switch") {
        report(
            &format!("hsb switch primary with {CLIENTS} writing clients, longest pause of a client"),
            &switches(rounds),
        );
    }
    println!("load average at the end: {}", load_average());
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(1).collect()
}

fn report(what: &str, pauses: &[Duration]) {
    let mut sorted = pauses.to_vec();
    sorted.sort();
    let milliseconds = |pause: Duration| pause.as_secs_f64() * 1000.0;
    println!(
        "{what}: median {:.1} ms, maximum {:.1} ms ({} rounds)",
        milliseconds(sorted[sorted.len() / 2]),
        milliseconds(sorted[sorted.len() - 1]),
        sorted.len()
    );
}

/// A connected pair with a table, in a directory of its own.
fn pair(settings: &str) -> (tempfile::TempDir, Pair) {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(Path::new(env!("CARGO_BIN_EXE_solid")), root.path(), settings).unwrap();
    pair.start().unwrap();
    pair.first.sql().unwrap().batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    (root, pair)
}

/// The time from each failure of the primary to the first write that its successor accepts.
fn failovers(
    rounds: usize,
    settings: &str,
    interval_ms: u64,
    options: &str,
    fail: impl Fn(&mut Server),
) -> Vec<Duration> {
    let (root, mut pair) = pair(settings);
    let watchdog = Watchdog::start(root.path(), &pair, interval_ms, options);
    let next_id = Arc::new(AtomicI64::new(0));
    let mut pauses = Vec::new();
    for round in 0..rounds {
        watchdog.wait_for_normal_mode(round + 1);
        let load = Writers::start([pair.first.port; 2], 1, &next_id);
        let (id, mut prober) = (Arc::clone(&next_id), Connection::new(pair.second.port));
        assert!(prober.insert(&id).is_err(), "the secondary accepts a write");
        load.wait_for_commits();
        let failed_at = Instant::now();
        let probing = std::thread::spawn(move || {
            while prober.insert(&id).is_err() {
                std::thread::sleep(HOP_PAUSE);
            }
            failed_at.elapsed()
        });
        fail(&mut pair.first);
        pauses.push(probing.join().unwrap());
        pair.first.kill();
        load.stop();
        pair.first.start(&[]).unwrap();
        pair.second.expect("hsb connect").unwrap();
        pair.swap();
    }
    watchdog.wait_for_normal_mode(rounds + 1);
    pauses
}

/// Makes the process deaf and mute, without telling anybody.
fn stop(server: &mut Server) {
    let id = server.process_id().unwrap().to_string();
    assert!(Command::new("kill").args(["-STOP", &id]).status().unwrap().success());
}

/// The longest pause of a client around each switchover.
fn switches(rounds: usize) -> Vec<Duration> {
    let (_root, mut pair) = pair("");
    let next_id = Arc::new(AtomicI64::new(0));
    let mut pauses = Vec::new();
    for _ in 0..rounds {
        let load = Writers::start([pair.first.port, pair.second.port], CLIENTS, &next_id);
        load.wait_for_commits();
        std::thread::sleep(SETTLED);
        pair.switch().unwrap();
        load.wait_for_commits();
        std::thread::sleep(SETTLED);
        pauses.push(load.stop());
        pair.swap();
    }
    pauses
}

/// The product's watchdog.
struct Watchdog {
    process: Child,
    log: PathBuf,
}

impl Watchdog {
    fn start(root: &Path, pair: &Pair, interval_ms: u64, options: &str) -> Watchdog {
        let ini = format!(
            "[Watchdog]\nConnect1=tcp {options}{}\nConnect2=tcp {options}{}\nPingInterval={interval_ms}\n",
            pair.first.port, pair.second.port
        );
        std::fs::write(root.join("solid.ini"), ini).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_watchdog"))
            .arg("-c")
            .arg(root)
            .env("SOLID_USER", ADMINISTRATOR.0)
            .env("SOLID_PASSWORD", ADMINISTRATOR.1)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Watchdog { process, log: root.join("watchdog.log") }
    }

    fn wait_for_normal_mode(&self, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            if log.matches("normal mode").count() >= times {
                return;
            }
            assert!(Instant::now() < deadline, "the watchdog does not see the pair whole:\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() || std::env::var_os("HSB_BENCH_LOG").is_some() {
            println!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// A client's connection to one server, opened when it is needed.
struct Connection {
    port: u16,
    open: Option<(postgres::Client, postgres::Statement)>,
}

impl Connection {
    fn new(port: u16) -> Connection {
        Connection { port, open: None }
    }

    /// Inserts the next row.
    fn insert(&mut self, next_id: &AtomicI64) -> Result<(), postgres::Error> {
        if self.open.as_ref().is_none_or(|(client, _)| client.is_closed()) {
            let mut client = sql_configuration(self.port).connect(postgres::NoTls)?;
            let statement = client.prepare("INSERT INTO t VALUES ($1)")?;
            self.open = Some((client, statement));
        }
        let Some((client, statement)) = &mut self.open else { return Ok(()) };
        let id = next_id.fetch_add(1, Ordering::Relaxed);
        client.execute(&*statement, &[&id]).map(drop)
    }
}

/// Clients that write without a break, each to whichever of two servers accepts it.
struct Writers {
    stop: Arc<AtomicBool>,
    commits: Vec<Arc<AtomicI64>>,
    clients: Vec<JoinHandle<Duration>>,
}

impl Writers {
    fn start(ports: [u16; 2], number: usize, next_id: &Arc<AtomicI64>) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let commits: Vec<_> = (0..number).map(|_| Arc::new(AtomicI64::new(0))).collect();
        let client = |commits: &Arc<AtomicI64>| {
            let (stop, commits, next_id) = (Arc::clone(&stop), Arc::clone(commits), Arc::clone(next_id));
            std::thread::spawn(move || write_until(&stop, &commits, ports, &next_id))
        };
        let clients = commits.iter().map(client).collect();
        Writers { stop, commits, clients }
    }

    /// Waits until every client has committed again.
    fn wait_for_commits(&self) {
        let deadline = Instant::now() + PATIENCE;
        for commits in &self.commits {
            let before = commits.load(Ordering::Relaxed);
            while commits.load(Ordering::Relaxed) < before + 10 {
                assert!(Instant::now() < deadline, "a client does not get on");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// The longest pause between two commits of one client.
    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().unwrap()).max().unwrap_or_default()
    }
}

fn write_until(stop: &AtomicBool, commits: &AtomicI64, ports: [u16; 2], next_id: &AtomicI64) -> Duration {
    let mut connections = ports.map(Connection::new);
    // Only the first connection is there before the event; a client does not know when to open the other.
    let mut at = 0;
    let mut last: Option<Instant> = None;
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        if connections[at].insert(next_id).is_err() {
            at = 1 - at;
            std::thread::sleep(HOP_PAUSE);
            continue;
        }
        let now = Instant::now();
        longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
        last = Some(now);
        commits.fetch_add(1, Ordering::Relaxed);
    }
    longest
}
