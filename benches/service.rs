//! A pair as a service manager starts it and as a careless network treats it: do failovers stay short, does anything hang, do
//! logs stay bounded?
//!
//! `cargo bench --bench service [-- [--seconds 600] [--rounds 10]]`. Both servers have 1024 file descriptors and a stderr
//! that nobody reads. All the time: 2,000 silent sockets at each server, 50 health checks a second that connect and close,
//! SIGHUP every second to both servers and the watchdog, 200 readers at the standby, clients that write. In each round the
//! primary is killed; the watchdog promotes the other one; the time to the first accepted write counts. At the end every
//! acknowledged row has to be there and both databases have to be the same.

#![allow(clippy::unwrap_used)]

mod load;

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hotstandby::demo::pair::{PATIENCE, Pair, Server};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use load::{Connection, HOP_PAUSE, Watchdog, Writers, load_average, report};

const SILENT_SOCKETS: usize = 2000;
const READERS: usize = 200;
const WRITERS: usize = 4;
const HEALTH_CHECKS_A_SECOND: u64 = 50;
/// Of all message logs of a server, and of those of the watchdog.
const MAX_LOG_BYTES: u64 = 100_000_000;

fn main() {
    let (mut seconds, mut rounds) = (600, 10);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let number = arguments.next().and_then(|number| number.parse().ok()).unwrap();
        match argument.as_str() {
            "--seconds" => seconds = number,
            "--rounds" => rounds = number,
            other => panic!("unknown: {other}; see the head of benches/service.rs"),
        }
    }
    raise_own_limit();
    println!("load average at the start: {}", load_average());
    run(Duration::from_secs(seconds) / rounds as u32, rounds as usize);
    println!("load average at the end: {}", load_average());
}

/// This program holds the other ends of all those connections.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

fn run(round_time: Duration, rounds: usize) {
    let root = tempfile::tempdir().unwrap();
    let (program, _unread) = as_a_service(root.path());
    let mut pair = Pair::prepare(&program, root.path(), "").unwrap();
    pair.start().unwrap();
    pair.first.sql().unwrap().batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    let watchdog = Watchdog::start(root.path(), &pair, 1000, "");
    watchdog.wait_for_normal_mode(1);
    let nuisance = Nuisance::start([pair.first.address(), pair.second.address()]);
    let hang_ups = HangUps::start(watchdog.process_id());
    let (next_id, mut acknowledged, mut pauses) = (Arc::new(AtomicI64::new(0)), HashSet::new(), Vec::new());
    let ports = [pair.first.port, pair.second.port];
    for round in 1..=rounds {
        let begun = Instant::now();
        watchdog.wait_for_normal_mode(round);
        hang_ups.set(&[&pair.first, &pair.second]);
        let readers = Readers::start(&pair.second);
        let writers = Writers::start(ports, WRITERS, &next_id);
        writers.wait_for_commits();
        std::thread::sleep(round_time.saturating_sub(begun.elapsed()));
        // Its process id may soon be another one's.
        hang_ups.set(&[&pair.second]);
        let pause = kill_primary(&mut pair, &next_id, &mut acknowledged);
        let reads = readers.stop();
        writers.wait_for_commits();
        acknowledged.extend(writers.stop().acknowledged);
        println!("round {round}: {:.1} ms, {reads} reads at the standby", pause.as_secs_f64() * 1000.0);
        pauses.push(pause);
        pair.first.start(&[]).unwrap();
        pair.second.expect("hsb connect").unwrap();
        pair.swap();
    }
    watchdog.wait_for_normal_mode(rounds + 1);
    let connections = nuisance.stop();
    hang_ups.stop();
    report("SIGKILL of the primary, to the first write at the new one", &pauses);
    println!("{connections} connections of nobody");
    check(&pair, &acknowledged, root.path());
}

/// A script that starts the server as a service manager would; its stderr is a pipe that nobody reads.
fn as_a_service(root: &Path) -> (PathBuf, File) {
    let pipe = root.join("stderr");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Both ends, so that writing to it neither waits for a reader nor fails.
    let unread =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
    let script = root.join("solid-service");
    let body = format!(
        "#!/bin/sh\nulimit -n 1024\nexec {} \"$@\" 2>{}\n",
        env!("CARGO_BIN_EXE_solid"),
        pipe.display()
    );
    std::fs::write(&script, body).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (script, unread)
}

fn kill_primary(pair: &mut Pair, next_id: &Arc<AtomicI64>, acknowledged: &mut HashSet<i64>) -> Duration {
    let (id, mut prober) = (Arc::clone(next_id), Connection::new(pair.second.port));
    assert!(prober.insert(&id).is_err(), "the secondary accepts a write");
    let failed_at = Instant::now();
    let probing = std::thread::spawn(move || {
        loop {
            if let Ok(id) = prober.insert(&id) {
                return (id, failed_at.elapsed());
            }
            std::thread::sleep(HOP_PAUSE);
        }
    });
    pair.first.kill();
    let (id, pause) = probing.join().unwrap();
    acknowledged.insert(id);
    pause
}

fn check(pair: &Pair, acknowledged: &HashSet<i64>, root: &Path) {
    let rows: HashSet<i64> = pair
        .first
        .sql()
        .unwrap()
        .query("SELECT id FROM t", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let lost = acknowledged.difference(&rows).count();
    let verified = pair.first.expect("hsb verify").unwrap();
    println!("{} rows acknowledged, {lost} lost; hsb verify: {verified}", acknowledged.len());
    for (who, directory) in [("first", &pair.first.directory), ("second", &pair.second.directory)] {
        let bytes = log_bytes(directory, "solmsg");
        println!("message logs of the server that is the {who} now: {bytes} bytes");
        assert!(bytes < MAX_LOG_BYTES);
    }
    let bytes = log_bytes(root, "watchdog.log");
    println!("logs of the watchdog: {bytes} bytes");
    assert!(bytes < MAX_LOG_BYTES && lost == 0);
}

fn log_bytes(directory: &Path, prefix: &str) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let logs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    logs.map(|entry| entry.metadata().unwrap().len()).sum()
}

/// Silent sockets and health checks at both servers.
struct Nuisance {
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Nuisance {
    fn start(addresses: [SocketAddr; 2]) -> Nuisance {
        let (stop, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let spawn = |address: SocketAddr, body: fn(SocketAddr, &AtomicBool, &AtomicU64)| {
            let (stop, connections) = (Arc::clone(&stop), Arc::clone(&connections));
            std::thread::spawn(move || body(address, &stop, &connections))
        };
        let threads = addresses
            .iter()
            .flat_map(|address| [spawn(*address, stay_silent), spawn(*address, check_health)])
            .collect();
        Nuisance { stop, connections, threads }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.connections.load(Ordering::Relaxed)
    }
}

/// As many open sockets as possible that say nothing; those that the server closes are replaced, a few a second.
fn stay_silent(address: SocketAddr, stop: &AtomicBool, connections: &AtomicU64) {
    let mut sockets: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        sockets.retain(|socket| {
            let mut socket: &TcpStream = socket;
            matches!(socket.read(&mut [0; 64]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        });
        for _ in 0..50.min(SILENT_SOCKETS - sockets.len()) {
            let Ok(socket) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) else { break };
            socket.set_nonblocking(true).unwrap();
            sockets.push(socket);
            connections.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn check_health(address: SocketAddr, stop: &AtomicBool, connections: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        if TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok() {
            connections.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(1000 / HEALTH_CHECKS_A_SECOND));
    }
}

/// SIGHUP every second.
struct HangUps {
    stop: Arc<AtomicBool>,
    processes: Arc<std::sync::Mutex<Vec<u32>>>,
    thread: JoinHandle<()>,
    watchdog: u32,
}

impl HangUps {
    fn start(watchdog: u32) -> HangUps {
        let stop = Arc::new(AtomicBool::new(false));
        let processes: Arc<std::sync::Mutex<Vec<u32>>> = Arc::default();
        let (is_over, to) = (Arc::clone(&stop), Arc::clone(&processes));
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                for process in to.lock().unwrap().iter() {
                    let process = rustix::process::Pid::from_raw(i32::try_from(*process).unwrap());
                    // Fails only for a server that has just been killed.
                    let _ = kill_process(process.unwrap(), Signal::HUP);
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        HangUps { stop, processes, thread, watchdog }
    }

    /// The processes to send it to from now on, besides the watchdog.
    fn set(&self, servers: &[&Server]) {
        let ids = servers.iter().filter_map(|server| server.process_id());
        *self.processes.lock().unwrap() = ids.chain([self.watchdog]).collect();
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Sessions at the standby that read now and then.
struct Readers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Readers {
    fn start(standby: &Server) -> Readers {
        let open = || {
            let deadline = Instant::now() + PATIENCE;
            loop {
                match standby.sql() {
                    Ok(session) => return session,
                    Err(error) => assert!(Instant::now() < deadline, "a reader does not get in: {error}"),
                }
            }
        };
        let mut sessions: Vec<postgres::Client> = (0..READERS).map(|_| open()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut reads = 0;
            while !is_over.load(Ordering::Relaxed) {
                for session in &mut sessions {
                    session.query_one("SELECT max(id) FROM t", &[]).unwrap();
                    reads += 1;
                }
                std::thread::sleep(Duration::from_millis(500));
            }
            reads
        });
        Readers { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
