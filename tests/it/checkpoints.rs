//! Checkpoints of an embedded node: by command and by themselves, and what they and backups do to the log.

use crate::common::embedded::{Server, server_with};
use crate::common::wait_until;
use hotstandby::services::context::Rights;

const SMALL_LOG: &str = "[Logging]\nMinSplitSize=64K\n";

fn ask(server: &Server, command: &str) -> String {
    let answer = server.context.admin.execute("dba", Rights::Administrator, command);
    assert_eq!(answer[0].0, 0, "{command}: {answer:?}");
    answer[0].1.clone()
}

fn checkpoints(server: &Server) -> u64 {
    ask(server, "info cpcount").parse().unwrap()
}

fn segments(server: &Server) -> usize {
    let entries = std::fs::read_dir(server.context.parameters.directory()).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".log")).count()
}

/// Fills several segments of the log.
fn write(server: &Server) {
    let mut session = server.connect();
    session.batch_execute("CREATE TABLE IF NOT EXISTS t (content TEXT)").unwrap();
    for _ in 0..30 {
        session.batch_execute("INSERT INTO t VALUES (hex(zeroblob(8000)))").unwrap();
    }
}

fn back_up(server: &Server) {
    let directory = server.context.parameters.directory().join("backup");
    let _ = std::fs::create_dir(&directory);
    ask(server, "backup");
    wait_until("the backup is there", || {
        server.context.status.snapshot().copy == hotstandby::hsb::phase::CopyStatus::Success
    });
}

#[test]
fn makecp_answers_when_the_checkpoint_is_made_and_deletes_log() {
    let server = server_with(SMALL_LOG);
    write(&server);
    assert!(segments(&server) > 5);
    ask(&server, "makecp");
    assert_eq!(checkpoints(&server), 1);
    wait_until("the log is short", || segments(&server) == 2);
}

/// Before, a power cut behind it left the database ahead of its log.
#[test]
fn a_checkpoint_syncs_the_log_before_the_database() {
    let server =
        server_with("[HotStandby]\nHSBEnabled=yes\n[Logging]\nDurabilityLevel=1\nRelaxedMaxDelay=86400000\n");
    ask(&server, "hsb set primary alone");
    write(&server);
    let decided = server.context.status.snapshot().decided.sequence;
    let on_disk = || {
        let status: serde_json::Value = serde_json::from_str(&ask(&server, "hsb status json")).unwrap();
        status["this"]["on_disk"].as_u64().unwrap()
    };
    assert!(on_disk() < decided, "the example is another one");
    ask(&server, "makecp");
    assert!(on_disk() >= decided);
}

#[test]
fn checkpoints_come_by_themselves_after_so_many_transactions() {
    let server = server_with("[General]\nCheckpointInterval=20\nMinCheckpointTime=0\n");
    write(&server);
    wait_until("a checkpoint is made", || checkpoints(&server) > 0);
}

#[test]
fn without_checkpoint_delete_log_a_backup_decides_about_the_log() {
    let server = server_with(&format!("{SMALL_LOG}[General]\nCheckpointDeleteLog=no\n"));
    write(&server);
    let before = segments(&server);
    ask(&server, "makecp");
    write(&server);
    // The retention is asked of the threads in order: what a checkpoint would delete is gone when the backup's is.
    assert!(segments(&server) > before);
    back_up(&server);
    wait_until("the log is short", || segments(&server) == 2);
}

#[test]
fn with_neither_the_log_is_kept() {
    let settings = format!("{SMALL_LOG}[General]\nCheckpointDeleteLog=no\nBackupDeleteLog=no\n");
    let server = server_with(&settings);
    write(&server);
    ask(&server, "makecp");
    back_up(&server);
    write(&server);
    let first = server.context.parameters.directory().join("sol00001.log");
    assert!(first.exists());
}

#[test]
fn the_backup_of_a_plain_server_is_whole() {
    let server = server_with("");
    write(&server);
    back_up(&server);
    let copy = server.context.parameters.directory().join("backup/solid.db");
    let copy = rusqlite::Connection::open(copy).unwrap();
    assert_eq!(copy.query_row("SELECT count(*) FROM t", [], |row| row.get(0)), Ok(30));
    let answer = server.context.admin.execute("dba", Rights::Administrator, "hsb copy");
    assert_eq!(answer[0].0, 14527);
}
