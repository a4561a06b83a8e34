//! Other programs, other servers and hands at the files of a server: kept out, waited for, or refused by name.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::fixture::{fixture, insert};
use crate::common::{
    assert_identical, lock_out_of_database, messages, number, program, sql, state, wait_until,
};
use hotstandby::demo::pair::{Pair, Server};
use hotstandby::storage::files::beside;

/// A pair of which only the first server runs, in PRIMARY ALONE, with a table.
fn one_server(extra: &str) -> (tempfile::TempDir, Pair) {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), extra).unwrap();
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    sql(&pair.first).batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)").unwrap();
    (root, pair)
}

fn write(server: &Server, rows: u32) {
    let mut client = sql(server);
    for _ in 0..rows {
        client.batch_execute("INSERT INTO t (v) VALUES (printf('%.*c', 500, 'x'))").unwrap();
    }
}

/// What a server says that has to end by itself.
fn refusal(server: &Server) -> String {
    let child = Command::new(program())
        .arg("-c")
        .arg(&server.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .env("SOLID_USER", "dba")
        .env("SOLID_PASSWORD", "dba")
        .spawn();
    let mut child = child.unwrap();
    wait_until("the server ends by itself", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// This test's program opens the file as `sqlite3` would; it is another process than the server's.
fn open(file: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_millis(50)).unwrap();
    connection
}

#[test]
fn another_program_can_neither_read_nor_write_the_database_of_a_running_server() {
    let (_root, mut pair) = one_server("");
    write(&pair.first, 3);
    let file = pair.first.database_file();
    for _ in 0..2 {
        let other = open(&file);
        for sql in ["SELECT count(*) FROM t", "BEGIN IMMEDIATE", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            let error = other.prepare(sql).and_then(|mut sql| sql.query([])?.next().map(drop)).unwrap_err();
            assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{sql}: {error}");
        }
        drop(other);
        write(&pair.first, 3);
        pair.first.expect("makecp").unwrap();
    }
    pair.first.kill();
    assert_eq!(open(&file).query_row("SELECT count(*) FROM t", [], |row| row.get(0)), Ok(9));
}

#[test]
fn a_server_does_not_start_while_another_program_has_its_database_open() {
    let (_root, mut pair) = one_server("");
    write(&pair.first, 3);
    pair.first.kill();
    let other = open(&pair.first.database_file());
    other.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    let text = refusal(&pair.first);
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    drop(other);
    pair.first.start(&[]).unwrap();
    assert_eq!(number(&mut sql(&pair.first), "SELECT count(*) FROM t"), 3);
}

fn status(server: &Server) -> serde_json::Value {
    serde_json::from_str(&server.expect("hsb status json").unwrap()).unwrap()
}

#[test]
fn a_database_that_is_locked_at_the_secondary_is_waited_for_and_needs_no_netcopy() {
    let fixture = fixture("2SafeAckPolicy=1\n");
    let pair = &fixture.pair;
    let lock = lock_out_of_database(&pair.second);
    insert(&pair.first, 2).join().unwrap().unwrap();
    wait_until("it is said", || status(&pair.second)["this"]["hindered"].is_string());
    let said = status(&pair.second);
    let text = said["this"]["hindered"].as_str().unwrap();
    assert!(text.contains("database is locked") && text.contains("No netcopy"), "{text}");
    assert_eq!(said["this"]["netcopy_needed"], false);
    assert!(pair.second.expect("hsb status").is_ok());
    insert(&pair.first, 3).join().unwrap().unwrap();
    assert_eq!(
        (state(&pair.first), state(&pair.second)),
        ("PRIMARY ACTIVE".into(), "SECONDARY ACTIVE".into())
    );
    drop(lock);
    assert_identical(pair);
    wait_until("it is over", || status(&pair.second)["this"]["hindered"].is_null());
    assert!(!messages(&pair.second).contains("10080"), "{}", messages(&pair.second));
}

/// Both ways: an older file under a newer log of SQLite's, and an older log beside a newer file.
#[test]
fn a_database_file_and_a_log_of_sqlite_of_different_moments_are_refused() {
    let (root, mut pair) = one_server("");
    let (file, kept) = (pair.first.database_file(), root.path().join("kept.db"));
    let (wal, kept_wal) = (beside(&file, "-wal"), beside(&kept, "-wal"));
    write(&pair.first, 10);
    pair.first.kill();
    std::fs::copy(&file, &kept).unwrap();
    std::fs::copy(&wal, &kept_wal).unwrap();
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    write(&pair.first, 10);
    pair.first.expect("makecp").unwrap();
    wait_until("SQLite's log starts over", || std::fs::metadata(&wal).unwrap().len() == 0);
    write(&pair.first, 10);
    pair.first.kill();
    std::fs::copy(&file, root.path().join("newer.db")).unwrap();
    std::fs::copy(&kept, &file).unwrap();
    let text = refusal(&pair.first);
    assert!(text.contains("10081") && text.contains("do not belong together"), "{text}");
    std::fs::copy(root.path().join("newer.db"), &file).unwrap();
    pair.first.start(&[]).unwrap();
    assert_eq!(number(&mut sql(&pair.first), "SELECT count(*) FROM t"), 30);
    pair.first.stop().unwrap();
    assert!(!wal.exists());
    std::fs::copy(&kept_wal, &wal).unwrap();
    let text = refusal(&pair.first);
    assert!(text.contains("10081") && text.contains("do not belong together"), "{text}");
    std::fs::remove_file(&wal).unwrap();
    pair.first.start(&[]).unwrap();
    assert_eq!(number(&mut sql(&pair.first), "SELECT count(*) FROM t"), 30);
}

#[test]
fn two_servers_cannot_have_one_log_directory() {
    let logs = tempfile::tempdir().unwrap();
    let (_root, mut pair) = one_server(&format!("[Logging]\nLogDir={}\n", logs.path().display()));
    let text = refusal(&pair.second);
    assert!(text.contains("30789") && text.contains("Logging.LogDir"), "{text}");
    pair.first.stop().unwrap();
    let text = refusal(&pair.second);
    assert!(text.contains("30789") && text.contains(&pair.first.directory.display().to_string()), "{text}");
    pair.first.start(&[]).unwrap();
}

#[test]
fn a_database_file_that_was_copied_alone_is_warned_of() {
    let (_root, mut pair) = one_server("");
    write(&pair.first, 3);
    pair.first.expect("makecp").unwrap();
    std::fs::copy(pair.first.database_file(), pair.second.database_file()).unwrap();
    pair.second.start(&[]).unwrap();
    let said = crate::common::settled_messages(&pair.second);
    assert!(said.contains("without its log files") && said.contains("docs/backup.md"), "{said}");
    // Its own files are there from now on.
    pair.second.stop().unwrap();
    pair.second.start(&[]).unwrap();
    let said = crate::common::settled_messages(&pair.second);
    assert_eq!(said.matches("without its log files").count(), 1);
}

/// A netcopy replaces the file; whoever opens the new one before the server has locked it keeps the server from doing so.
#[test]
fn a_file_that_could_not_be_locked_is_shown_and_locked_as_soon_as_it_can_be() {
    let (_root, mut pair) = one_server("");
    pair.second.start(&["-x", "backupserver"]).unwrap();
    let file = pair.second.database_file();
    let copied = AtomicBool::new(false);
    let other = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            loop {
                let opened = file.exists().then(|| rusqlite::Connection::open(&file).ok()).flatten();
                let reads = |other: &rusqlite::Connection| {
                    other.busy_timeout(Duration::ZERO).is_ok()
                        && other.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").is_ok()
                };
                let other = opened.filter(reads);
                if other.is_some() || copied.load(Ordering::Relaxed) {
                    return other;
                }
            }
        });
        let done = pair.copy();
        copied.store(true, Ordering::Relaxed);
        done.unwrap();
        other.join().unwrap()
    });
    // It has to be quick.
    let Some(other) = other else { return };
    wait_until("it is said", || status(&pair.second)["this"]["not_held"].is_string());
    let text = status(&pair.second)["this"]["not_held"].as_str().unwrap().to_owned();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    drop(other);
    wait_until("it is locked", || status(&pair.second)["this"]["not_held"].is_null());
    assert!(open(&file).execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").is_err());
}
