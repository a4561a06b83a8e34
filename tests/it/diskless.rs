//! Servers without a disk: Logging.LogEnabled=no, and -x diskless.

use std::path::{Path, PathBuf};

use crate::common::{assert_identical, messages, number, position, program, sql, state, wait_until};
use hotstandby::demo::pair::{Pair, Server};

/// The memory that servers below a directory use; deleted at the end, for tests kill servers.
struct Memory(Vec<PathBuf>);

impl Memory {
    fn of(pair: &Pair) -> Memory {
        let place = |server: &Server| {
            let name = server.directory.canonicalize().unwrap();
            let name = xxhash_rust::xxh3::xxh3_64(name.as_os_str().as_encoded_bytes());
            PathBuf::from(format!("/dev/shm/hotstandby-{name:016x}"))
        };
        Memory([&pair.first, &pair.second].map(place).to_vec())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for place in &self.0 {
            // Most tests leave one or none.
            let _ = std::fs::remove_dir_all(place);
        }
    }
}

/// Ends a server in order, which leaves nothing in memory.
fn terminate(server: &mut Server, memory: &Path) {
    let process = server.process_id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    wait_until("nothing is left in memory", || !memory.exists());
    server.kill();
}

fn rows(server: &Server) -> i64 {
    number(&mut sql(server), "SELECT count(*) FROM t")
}

/// Names in a server's directory that end so.
fn files(server: &Server, suffix: &str) -> Vec<String> {
    let names = std::fs::read_dir(&server.directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(suffix)).collect()
}

fn insert(server: &Server, ids: std::ops::Range<i64>, bytes: usize) {
    let mut session = sql(server);
    for id in ids {
        session.execute(&format!("INSERT INTO t VALUES ($1, randomblob({bytes}))"), &[&id]).unwrap();
    }
}

fn create(server: &Server) {
    sql(server).batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, data BYTEA)").unwrap();
}

#[test]
fn without_a_log_on_disk_the_pair_catches_up_and_survives_a_crash() {
    let root = tempfile::tempdir().unwrap();
    let extra = "AutoPrimaryAlone=yes\nMaxMemLogSize=1M\n[Logging]\nLogEnabled=no\n";
    let mut pair = Pair::prepare(program(), root.path(), extra).unwrap();
    let _memory = Memory::of(&pair);
    pair.start().unwrap();
    create(&pair.first);
    pair.first.expect("hsb disconnect").unwrap();
    pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    insert(&pair.first, 0..20, 1000);
    pair.connect().unwrap();
    assert_identical(&pair);
    for server in [&pair.first, &pair.second] {
        assert!(files(server, ".log").is_empty(), "a log on disk");
    }

    // What was committed is in the database: the end of the process takes nothing away, and nothing is pretended.
    let before = position(&pair.first);
    pair.first.kill();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
    pair.first.start(&[]).unwrap();
    assert_eq!(state(&pair.first), "SECONDARY ALONE");
    assert_eq!(position(&pair.first), before);
    insert(&pair.second, 20..30, 1000);
    pair.second.expect("hsb connect").unwrap();
    assert_identical(&pair);

    // More than the log in memory can hold: the peer needs a copy, and the primary stays what it is.
    pair.second.expect("hsb disconnect").unwrap();
    pair.second.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    insert(&pair.second, 30..60, 60_000);
    assert_eq!(pair.second.connect().unwrap().0, 14708);
    assert_eq!(state(&pair.second), "PRIMARY ALONE");
    pair.second.expect("hsb netcopy").unwrap();
    pair.second.wait_for("hsb status copy", "SUCCESS").unwrap();
    pair.second.expect("hsb connect").unwrap();
    assert_identical(&pair);
    assert_eq!(rows(&pair.first), 60);
}

/// The promise without a log on disk: the database is whole, at its last checkpoint or later, and its position says so.
#[test]
fn without_a_log_on_disk_a_power_cut_goes_back_to_the_last_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let extra = "[Logging]\nLogEnabled=no\nDurabilityLevel=3\n";
    let mut pair = Pair::prepare(program(), root.path(), extra).unwrap();
    let _memory = Memory::of(&pair);
    let server = &mut pair.first;
    server.start(&[]).unwrap();
    server.expect("hsb set primary alone").unwrap();
    create(server);
    insert(server, 0..5, 100);
    server.expect("makecp").unwrap();
    let checkpoint = position(server);
    insert(server, 5..10, 100);
    let lines = server.console().unwrap().command("hsb status").unwrap();
    assert!(lines.iter().any(|(_, line)| line.contains("everything since the last checkpoint")), "{lines:?}");
    server.kill();
    // Nobody was reading, so that the checkpoint has moved everything into the database file.
    std::fs::remove_file(server.directory.join("solid.db-wal")).unwrap();
    server.start(&[]).unwrap();
    assert_eq!((position(server), rows(server)), (checkpoint, 5));
}

/// What the log on disk holds and the database does not is not lost by turning the log off.
#[test]
fn a_log_that_is_turned_off_goes_into_the_database_first() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "").unwrap();
    let _memory = Memory::of(&pair);
    let server = &mut pair.first;
    server.start(&[]).unwrap();
    server.expect("hsb set primary alone").unwrap();
    create(server);
    insert(server, 0..20, 100);
    let before = position(server);
    server.kill();
    // As after a power cut: the database has lost what SQLite had not synced.
    std::fs::remove_file(server.directory.join("solid.db-wal")).unwrap();
    let file = server.directory.join("solid.ini");
    let text = std::fs::read_to_string(&file).unwrap() + "\n[Logging]\nLogEnabled=no\n";
    std::fs::write(&file, text).unwrap();
    server.start(&[]).unwrap();
    assert_eq!((position(server), rows(server)), (before, 20));
    assert!(files(server, ".log").is_empty());
}

#[test]
fn a_diskless_pair_works_and_a_restarted_node_gets_a_netcopy() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "AutoPrimaryAlone=yes\n").unwrap();
    let memory = Memory::of(&pair);
    pair.first.start(&["-x", "diskless"]).unwrap();
    pair.second.start(&["-x", "diskless", "-x", "backupserver"]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    create(&pair.first);
    for round in 0..2 {
        pair.first.expect("hsb netcopy").unwrap();
        if let Err(error) = pair.first.wait_for("hsb status copy", "SUCCESS") {
            panic!("{error}\n{}\n{}", messages(&pair.first), messages(&pair.second));
        }
        pair.connect().unwrap();
        // A reader keeps its snapshot and does not hold up the writer.
        let mut reader = sql(&pair.first);
        reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
        let seen = number(&mut reader, "SELECT count(*) FROM t");
        insert(&pair.first, round * 10..round * 10 + 10, 1000);
        assert_eq!(number(&mut reader, "SELECT count(*) FROM t"), seen);
        wait_until("the secondary has them", || rows(&pair.second) == round * 10 + 10);
        pair.second.kill();
        pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
        pair.second.start(&["-x", "diskless", "-x", "backupserver"]).unwrap();
        assert!(pair.second.console().is_err(), "a diskless server still has a database");
    }
    for server in [&pair.first, &pair.second] {
        for suffix in [".db", ".db-wal", ".log"] {
            assert!(files(server, suffix).is_empty(), "{suffix} on disk: {:?}", files(server, suffix));
        }
    }
    terminate(&mut pair.first, &memory.0[0]);
    pair.first.start(&["-x", "diskless"]).unwrap();
    assert!(
        sql(&pair.first).batch_execute("SELECT * FROM t").is_err(),
        "a diskless server has kept its database"
    );
    assert!(memory.0[0].exists());
    terminate(&mut pair.first, &memory.0[0]);
}
