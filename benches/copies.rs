//! Netcopy of a large database under load, and catchup against the commits that it repeats.
//!
//!   cargo bench --bench copies -- netcopy [megabytes, 2048]
//!   cargo bench --bench copies -- catchup [transactions, 200000]

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hotstandby::demo::pair::{Pair, Server};
use hotstandby::storage::checksum::logical_checksum;

const CLIENTS: u64 = 8;
const UNDISTURBED: Duration = Duration::from_secs(5);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let what = arguments.next().unwrap_or_else(|| "netcopy".into());
    let size = arguments.next().and_then(|size| size.parse().ok());
    match what.as_str() {
        "netcopy" => netcopy(size.unwrap_or(2048)),
        "catchup" => catchup(size.unwrap_or(200_000)),
        other => eprintln!("'{other}' is neither netcopy nor catchup"),
    }
}

fn pair(root: &Path) -> Pair {
    let mut pair = Pair::prepare(Path::new(env!("CARGO_BIN_EXE_solid")), root, "").unwrap();
    pair.start_servers().unwrap();
    pair.first
        .sql()
        .unwrap()
        .batch_execute("CREATE TABLE big (id BIGINT PRIMARY KEY, content BYTEA); CREATE TABLE load (id BIGINT PRIMARY KEY, n BIGINT)")
        .unwrap();
    pair
}

/// Clients that update rows of their own, each in a transaction of its own, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(server: &Server) -> Load {
        let mut session = server.sql().unwrap();
        for id in 0..CLIENTS as i64 * 100 {
            session.execute("INSERT INTO load VALUES ($1, 0)", &[&id]).unwrap();
        }
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number: u64| {
            let mut session = server.sql().unwrap();
            let (stop, commits) = (Arc::clone(&stop), Arc::clone(&commits));
            std::thread::spawn(move || {
                let statement = session.prepare("UPDATE load SET n = n + 1 WHERE id = $1").unwrap();
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = (number * 100 + turn % 100) as i64;
                    session.execute(&statement, &[&id]).unwrap();
                    commits.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load { stop, commits, clients }
    }

    /// Commits per second while something is done, what it returned, and how long it took.
    fn during<R>(&self, work: impl FnOnce() -> R) -> (f64, R, Duration) {
        let (before, begun) = (self.commits.load(Ordering::Relaxed), Instant::now());
        let result = work();
        let elapsed = begun.elapsed();
        let commits = self.commits.load(Ordering::Relaxed) - before;
        (commits as f64 / elapsed.as_secs_f64(), result, elapsed)
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
    }
}

fn netcopy(megabytes: u64) {
    let root = tempfile::tempdir().unwrap();
    let pair = pair(root.path());
    let mut session = pair.first.sql().unwrap();
    for part in 0..megabytes.div_ceil(8) {
        // 4000 bytes and their share of a page make about 8 MB.
        let sql = format!(
            "INSERT INTO big WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000) SELECT {part} * 2000 + x, randomblob(4000) FROM c"
        );
        session.batch_execute(&sql).unwrap();
    }
    pair.first.expect("makecp").unwrap();
    let file = pair.first.database_file();
    let bytes = file.metadata().unwrap().len();
    println!("database: {} MB, {CLIENTS} clients update single rows", bytes >> 20);

    let load = Load::start(&pair.first);
    std::thread::sleep(Duration::from_secs(1));
    let (undisturbed, ..) = load.during(|| std::thread::sleep(UNDISTURBED));
    let (plain_rate, _, plain) = load.during(|| copy_over_loopback(&file, &root.path().join("plain")));
    std::fs::remove_file(root.path().join("plain")).unwrap();
    let (rate, _, time) = load.during(|| pair.copy().unwrap());
    let (_, _, connect) = load.during(|| pair.connect().unwrap());
    load.stop();

    let percent = |rate: f64| rate / undisturbed * 100.0;
    println!(
        "commits per second: undisturbed {undisturbed:.0} (100 %), during netcopy {:.0} %, during a plain copy {:.0} %",
        percent(rate),
        percent(plain_rate)
    );
    println!(
        "netcopy {:.2} s, plain copy over loopback with fsync {:.2} s: ratio {:.2}",
        time.as_secs_f64(),
        plain.as_secs_f64(),
        time.as_secs_f64() / plain.as_secs_f64()
    );
    println!("connect with catchup under load: {:.2} s", connect.as_secs_f64());
    assert_same(&pair);
}

/// The same bytes, with nothing around them: read, sent, written, synced.
fn copy_over_loopback(from: &Path, to: &Path) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let from = from.to_path_buf();
    let sender = std::thread::spawn(move || {
        let (mut file, mut stream) =
            (std::fs::File::open(from).unwrap(), TcpStream::connect(address).unwrap());
        let mut block = vec![0; 64 << 10];
        loop {
            match file.read(&mut block).unwrap() {
                0 => return,
                length => stream.write_all(&block[..length]).unwrap(),
            }
        }
    });
    let (mut stream, _) = listener.accept().unwrap();
    let mut file = std::fs::File::create(to).unwrap();
    let mut block = vec![0; 64 << 10];
    loop {
        match stream.read(&mut block).unwrap() {
            0 => break,
            length => file.write_all(&block[..length]).unwrap(),
        }
    }
    file.sync_all().unwrap();
    sender.join().unwrap();
}

fn catchup(transactions: u64) {
    for (clients, rate) in [(1, 70), (CLIENTS, 70), (CLIENTS, 99)] {
        let root = tempfile::tempdir().unwrap();
        let pair = pair(root.path());
        pair.copy().unwrap();
        pair.first.expect(&format!("parameter HotStandby.CatchupSpeedRate={rate}")).unwrap();
        let begun = Instant::now();
        let share = if clients == 1 { transactions / 8 } else { transactions / clients };
        let writers: Vec<_> = (0..clients)
            .map(|number| {
                let mut session = pair.first.sql().unwrap();
                std::thread::spawn(move || {
                    let statement = session.prepare("INSERT INTO load VALUES ($1, $1)").unwrap();
                    for turn in 0..share {
                        session.execute(&statement, &[&((number * share + turn) as i64)]).unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let commits = begun.elapsed();
        let begun = Instant::now();
        pair.connect().unwrap();
        let catchup = begun.elapsed();
        println!(
            "{} transactions of {clients} clients: commits {:.2} s, catchup at CatchupSpeedRate {rate} {:.2} s: {:.1} times faster",
            share * clients,
            commits.as_secs_f64(),
            catchup.as_secs_f64(),
            commits.as_secs_f64() / catchup.as_secs_f64()
        );
        assert_same(&pair);
    }
}

fn assert_same(pair: &Pair) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let position =
        |server: &Server| server.expect("hsb logpos").unwrap().split(':').next().unwrap().to_owned();
    while position(&pair.first) != position(&pair.second) {
        assert!(Instant::now() < deadline, "the servers do not become level");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sums = [&pair.first, &pair.second].map(|server| {
        let (_directory, connection) = server.copy_database().unwrap();
        logical_checksum(&connection).unwrap()
    });
    assert_eq!(sums[0], sums[1], "the databases differ");
    println!("checksums of all tables: identical");
}
