//! What the benchmarks of failures share: the watchdog as a process, clients that write and look for a server that accepts it.

// Each benchmark uses some of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hotstandby::demo::pair::{ADMINISTRATOR, PATIENCE, Pair, sql_configuration};

/// Between two tries of a client that looks for a server that accepts its write.
pub const HOP_PAUSE: Duration = Duration::from_millis(1);

pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(1).collect()
}

pub fn report(what: &str, pauses: &[Duration]) {
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

/// The product's watchdog.
pub struct Watchdog {
    process: Child,
    log: PathBuf,
}

impl Watchdog {
    /// Starts it with its solid.ini and its log in `root`.
    pub fn start(root: &Path, pair: &Pair, interval_ms: u64, options: &str) -> Watchdog {
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
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Watchdog { process, log: root.join("watchdog.log") }
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until the log says for the so-many-eth time that the pair is whole.
    pub fn wait_for_normal_mode(&self, times: usize) {
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
pub struct Connection {
    port: u16,
    open: Option<(postgres::Client, postgres::Statement)>,
}

impl Connection {
    pub fn new(port: u16) -> Connection {
        Connection { port, open: None }
    }

    /// Inserts the next row; its id.
    pub fn insert(&mut self, next_id: &AtomicI64) -> Result<i64, postgres::Error> {
        if self.open.as_ref().is_none_or(|(client, _)| client.is_closed()) {
            let mut client = sql_configuration(self.port).connect(postgres::NoTls)?;
            let statement = client.prepare("INSERT INTO t VALUES ($1)")?;
            self.open = Some((client, statement));
        }
        let id = next_id.fetch_add(1, Ordering::Relaxed);
        if let Some((client, statement)) = &mut self.open {
            client.execute(&*statement, &[&id])?;
        }
        Ok(id)
    }
}

/// What became of one client.
#[derive(Default)]
pub struct Written {
    /// The longest time between two commits.
    pub longest_pause: Duration,
    /// The rows whose commit was acknowledged.
    pub acknowledged: Vec<i64>,
}

/// Clients that write without a break, each to whichever of two servers accepts it.
pub struct Writers {
    stop: Arc<AtomicBool>,
    commits: Vec<Arc<AtomicI64>>,
    clients: Vec<JoinHandle<Written>>,
}

impl Writers {
    pub fn start(ports: [u16; 2], number: usize, next_id: &Arc<AtomicI64>) -> Writers {
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
    pub fn wait_for_commits(&self) {
        let deadline = Instant::now() + PATIENCE;
        for commits in &self.commits {
            let before = commits.load(Ordering::Relaxed);
            while commits.load(Ordering::Relaxed) < before + 10 {
                assert!(Instant::now() < deadline, "a client does not get on");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Ends them; what became of all of them together.
    pub fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Written::default();
        for client in self.clients {
            let written = client.join().unwrap();
            total.longest_pause = total.longest_pause.max(written.longest_pause);
            total.acknowledged.extend(written.acknowledged);
        }
        total
    }
}

fn write_until(stop: &AtomicBool, commits: &AtomicI64, ports: [u16; 2], next_id: &AtomicI64) -> Written {
    let mut connections = ports.map(Connection::new);
    // Only the first connection is there before the event; a client does not know when to open the other.
    let mut at = 0;
    let mut last: Option<Instant> = None;
    let mut written = Written::default();
    while !stop.load(Ordering::Relaxed) {
        let Ok(id) = connections[at].insert(next_id) else {
            at = 1 - at;
            std::thread::sleep(HOP_PAUSE);
            continue;
        };
        let now = Instant::now();
        written.longest_pause = written.longest_pause.max(last.map_or(Duration::ZERO, |last| now - last));
        written.acknowledged.push(id);
        last = Some(now);
        commits.fetch_add(1, Ordering::Relaxed);
    }
    written
}
