//! Disks that are really full: servers whose log and database are on small file systems of their own.
//!
//! Mounting needs root. Without it these tests say so and pass; what the log does without room is tested in the library
//! as well, by making its writes fail.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::common::{messages, number, server_error, sql, state, wait_until};
use hotstandby::demo::pair::{Pair, Server};

const ON_SMALL_DISKS: &str =
    "AutoPrimaryAlone=yes\n[Logging]\nLogDir=log\nMinSplitSize=1M\n[IndexFile]\nFileSpec_1=db/solid.db\n";
/// 60 000 bytes that the log cannot shorten.
const INSERT: &str = "INSERT INTO t VALUES ($1, randomblob(60000))";

/// Whether this test may give a server file systems of its own.
fn can_mount() -> bool {
    let probe = std::process::Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "mount",
            "-t",
            "tmpfs",
            "-o",
            "size=1m",
            "none",
            "/mnt",
        ])
        .output();
    let can = probe.is_ok_and(|output| output.status.success());
    if !can {
        println!("no right to mount a file system: not tested");
    }
    can
}

/// A program that gives the server a log of 6 MB and a database of 12 MB and then becomes it.
fn program_on_small_disks(root: &Path) -> PathBuf {
    let path = root.join("solid-on-small-disks");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --propagation private sh -c '\
         mkdir -p \"$2/log\" \"$2/db\" && mount -t tmpfs -o size=6m none \"$2/log\" && \
         mount -t tmpfs -o size=12m none \"$2/db\" && exec {} \"$@\"' sh \"$@\"\n",
        crate::common::program().display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn pair() -> Option<(tempfile::TempDir, Pair)> {
    if !can_mount() {
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    let program = program_on_small_disks(root.path());
    let mut pair = Pair::prepare(&program, root.path(), ON_SMALL_DISKS).unwrap();
    if let Err(error) = pair.start() {
        panic!("{error}\n{}\n{}", messages(&pair.first), messages(&pair.second));
    }
    sql(&pair.first).batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, data BYTEA)").unwrap();
    Some((root, pair))
}

/// What takes the rest of one of a server's disks, until it is dropped.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(server: &Server, disk: &str) -> Ballast {
        // The file system is seen by the server alone: the way there leads through its process.
        let outside = PathBuf::from(format!("/proc/{}/root", server.process_id().unwrap()));
        let inside = server.directory.join(disk).join("ballast");
        let path = outside.join(inside.strip_prefix("/").unwrap());
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
        Ballast(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn insert(server: &Server, id: i64) -> Result<u64, postgres::Error> {
    sql(server).execute(INSERT, &[&id])
}

fn is_disk_full(error: &postgres::Error) -> bool {
    server_error(error).is_some_and(|(sqlstate, message)| sqlstate == "53100" && message.contains("11002"))
}

fn rows(server: &Server) -> i64 {
    number(&mut sql(server), "SELECT count(*) FROM t")
}

fn lacks_room(server: &Server) -> bool {
    messages(server)
        .lines()
        .any(|line| line.contains("11002") && line.contains("No writes until there is room"))
}

#[test]
fn a_primary_alone_whose_log_is_full_refuses_writes_until_there_is_room() {
    let Some((_root, pair)) = pair() else { return };
    pair.first.expect("hsb disconnect").unwrap();
    pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    let ballast = Ballast::fill(&pair.first, "log");
    let mut inserted = 0;
    let error = loop {
        match insert(&pair.first, inserted) {
            Ok(_) => inserted += 1,
            Err(error) => break error,
        }
    };
    assert!(is_disk_full(&error), "{error:?}\n{}", messages(&pair.first));
    assert_eq!(rows(&pair.first), inserted, "what was refused is there");
    assert!(is_disk_full(&insert(&pair.first, inserted).unwrap_err()));
    assert!(lacks_room(&pair.first));
    drop(ballast);
    wait_until("the primary takes writes again", || insert(&pair.first, inserted).is_ok());
    pair.connect().unwrap();
    assert_eq!(rows(&pair.second), inserted + 1);
}

/// The batch is decided and the database has no room for it: the client must not be told that it has failed.
#[test]
fn a_decided_batch_waits_for_room_in_the_database() {
    let Some((_root, pair)) = pair() else { return };
    let ballast = Ballast::fill(&pair.first, "db");
    let mut session = sql(&pair.first);
    let waiting = std::thread::spawn(move || session.execute(INSERT, &[&1_i64]));
    wait_until("the primary says that it has no room", || lacks_room(&pair.first));
    let status = pair.first.console().unwrap().command("hsb status").unwrap();
    let told = |(_, line): &(u32, String)| line.contains("disk full, read only until there is room");
    assert!(status.iter().any(told), "{status:?}");
    let mut other = sql(&pair.first);
    assert!(is_disk_full(&other.execute(INSERT, &[&2_i64]).unwrap_err()));
    assert_eq!(number(&mut other, "SELECT count(*) FROM t"), 0);
    let (code, _) = pair.first.ask("hsb switch secondary").unwrap();
    assert_eq!(code, 11002);
    drop(ballast);
    waiting.join().unwrap().unwrap();
    wait_until("the primary takes writes again", || other.execute(INSERT, &[&2_i64]).is_ok());
    assert_eq!(number(&mut other, "SELECT count(*) FROM t"), 2);
    wait_until("the secondary has both", || rows(&pair.second) == 2);
}

#[test]
fn a_secondary_without_room_leaves_and_connects_again_when_there_is_room() {
    for disk in ["log", "db"] {
        let Some((_root, pair)) = pair() else { return };
        let ballast = Ballast::fill(&pair.second, disk);
        let mut inserted = 0;
        while state(&pair.first) == "PRIMARY ACTIVE" {
            insert(&pair.first, inserted).unwrap();
            inserted += 1;
        }
        pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
        wait_until("the secondary says that it lacks room", || lacks_room(&pair.second));
        wait_until("the primary knows why", || messages(&pair.first).contains("11002"));
        insert(&pair.first, inserted).unwrap();
        assert_eq!(pair.second.connect().unwrap().0, 11002);
        assert_eq!(pair.first.ask("hsb state").unwrap().1, "PRIMARY ALONE");
        drop(ballast);
        wait_until("the secondary has room", || pair.second.ask("hsb connect").unwrap().0 == 0);
        pair.second.wait_for("hsb status connect", "CONNECTED").unwrap();
        wait_until("both have the same", || rows(&pair.second) == inserted + 1);
    }
}
