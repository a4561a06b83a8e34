//! How long writes pause: failover by the watchdog after a crash and after silence, and switchover under load.
//!
//! `cargo bench --bench failover [-- [--rounds N] [crash] [silence] [switch]]`. Every round is a real failure of a real
//! process; figures are medians and maxima over the rounds, seen from a client.

#![allow(clippy::unwrap_used)]

mod load;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use hotstandby::demo::pair::{Pair, Server};

use load::{Connection, HOP_PAUSE, Watchdog, Writers, load_average, report};

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
        pauses.push(load.stop().longest_pause);
        pair.swap();
    }
    pauses
}
