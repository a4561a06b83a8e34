//! Runs seeds: one after the other, or on as many threads as there are processors, each a world of its own.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use hotstandby::error::ServerError;
use hotstandby::storage::checksum::logical_checksum;
use hotstandby::storage::database::{Database, read_identity};
use tokio::task::coop::unconstrained;

use crate::clock::Clock;
use crate::common::{Random, from_environment};
use crate::coverage::Coverage;
use crate::node::Node;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::world::World;

/// How a seed ended.
pub struct Ended {
    pub violation: Option<String>,
    pub digest: u64,
    pub coverage: Coverage,
}

/// In memory where that is possible: what a crash leaves is decided by the simulation, not by the disk.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The database file that both nodes begin with.
fn template() -> &'static [u8] {
    static TEMPLATE: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let directory = scratch();
        let path = directory.path().join("template.db");
        let tables = "
            UPDATE _hsb_meta SET value = x'53494d554c4154494f4e000000000000' WHERE key = 'database_id';
            CREATE TABLE journal (sequence INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER UNIQUE NOT NULL);
            CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
            INSERT INTO counters VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0);
            CREATE TABLE items (id INTEGER PRIMARY KEY, of INTEGER) WITHOUT ROWID;";
        let database = Database::at(path.clone(), 1 << 20);
        database.create(1024, |connection| Ok(connection.execute_batch(tables)?)).unwrap();
        std::fs::read(path).unwrap()
    };
    TEMPLATE.get_or_init(make)
}

/// Runs one seed.
pub fn seed(seed: u64, loud: bool) -> Ended {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let root = scratch();
    let mut world = runtime.block_on(async {
        let mut random = Random::from_seed(seed);
        let plan = Plan::draw(&mut random);
        let mut trace = Trace::new(loud);
        trace.add(0, format_args!("seed {seed}: {plan:?}"));
        let nodes = [0, 1].map(|index| Node::new(index, root.path(), template(), &plan));
        let mut world = World::new(Clock::start(), random, plan, nodes, trace);
        world.begin();
        world
    });
    let outcome = runtime.block_on(async {
        unconstrained(std::future::poll_fn(|context| world.poll(context))).await?;
        compare(&mut world)
    });
    let violation = outcome.err();
    world.coverage.seeds = 1;
    world.coverage.transactions = world.oracle.transactions.len() as u64;
    for node in &mut world.nodes {
        node.running = None;
    }
    Ended { violation, digest: world.trace.digest(), coverage: std::mem::take(&mut world.coverage) }
}

/// Both nodes hold all that was acknowledged, their databases are equal, and so are their positions, chain hash included:
/// in the databases, and as the nodes believe them to be. The checksum is the one that `hsb verify` compares
/// (`net/peer/verify.rs`).
fn compare(world: &mut World) -> Result<(), String> {
    let mut whole = Vec::new();
    for node in 0..2 {
        world.read(node)?;
        world.oracle.check_nothing_lost(node)?;
        let running = world.nodes[node].running.as_ref();
        let reader = running.and_then(|running| running.reader.as_ref()).ok_or("a node is not open")?;
        let failed = |error: ServerError| error.to_string();
        let position = read_identity(reader).map_err(failed)?.position;
        if world.nodes[node].view().is_none_or(|view| view.hello.position != position) {
            return Err(format!("node {node} does not know that its database is at {position}"));
        }
        whole.push((position, logical_checksum(reader).map_err(failed)?));
    }
    if whole[0] == whole[1] { Ok(()) } else { Err("the databases differ".into()) }
}

/// With so many seeds, everything that can be reached must have been.
const COMPLETE_SEEDS: u64 = 1000;

/// Runs `count` seeds from `first` on and panics at the first violation, or if something was not reached.
pub fn campaign(first: u64, count: u64) {
    let begun = Instant::now();
    let total = round(first, count);
    total.print(begun.elapsed().as_secs_f64());
    assert!(count < COMPLETE_SEEDS || total.missing().is_empty(), "not reached: {:?}", total.missing());
}

/// What so many seeds have reached; panics at the first violation.
fn round(first: u64, count: u64) -> Coverage {
    let next = AtomicU64::new(first);
    let total = Mutex::new(Coverage::default());
    let failed = Mutex::new(Vec::new());
    let loud = std::env::var_os("HSB_SIM_TRACE").is_some();
    let tolerated = from_environment("HSB_SIM_FAILURES", 1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count as usize);
    println!("simulation: seeds {first} to {}", first + count - 1);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= first + count || failed.lock().unwrap().len() as u64 >= tolerated {
                return;
            }
            let ended = seed(number, loud);
            total.lock().unwrap().add(&ended.coverage);
            if count == 1 {
                println!("seed {number}: trace {:016x}", ended.digest);
            }
            if let Some(violation) = ended.violation {
                println!("seed {number}: {violation}");
                failed.lock().unwrap().push(number);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let total = total.into_inner().unwrap();
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    for number in &failed {
        println!("again: HSB_SEED={number} HSB_SIM_TRACE=1 cargo test --test simulation -- --nocapture");
    }
    if !failed.is_empty() {
        println!("until then: {:?}", total.faults);
    }
    assert!(failed.is_empty(), "seeds {failed:?} have failed");
    total
}

/// Rounds of seeds that nobody has run before, until a violation or until it is stopped. Prints what all of them together
/// have reached.
pub fn endlessly() -> ! {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut first = clock.as_secs() << 20;
    let begun = Instant::now();
    let mut total = Coverage::default();
    loop {
        total.add(&round(first, COMPLETE_SEEDS));
        println!("in all:");
        total.print(begun.elapsed().as_secs_f64());
        assert!(total.missing().is_empty(), "not reached: {:?}", total.missing());
        first += COMPLETE_SEEDS;
    }
}
