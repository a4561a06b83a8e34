//! Netcopies that break and are repeated, and copies in directories from which servers are started.

use std::path::Path;

use crate::common::proxy::{From, Network, Verdict};
use crate::common::{assert_identical, messages, number, program, signal_process, sql, state, wait_until};
use hotstandby::demo::pair::{Pair, Server};

/// Rows of the big table; each fills most of a block.
const ROWS: i64 = 60;
const ROW_BYTES: usize = 60_000;

/// Something that a compressor can shorten, other for each seed.
fn content(seed: i64) -> Vec<u8> {
    (0..ROW_BYTES as i64).map(|at| ((at * (seed + 7)) >> 3) as u8).collect()
}

struct Fixture {
    pair: Pair,
    network: Network,
    _root: tempfile::TempDir,
}

/// A pair of which only the first runs: PRIMARY ALONE, with some megabytes.
fn primary(extra: &str) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), extra).unwrap();
    let network = Network::between(&pair);
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    let mut session = sql(&pair.first);
    session.batch_execute("CREATE TABLE big (id BIGINT PRIMARY KEY, content BYTEA)").unwrap();
    for id in 0..ROWS {
        let content = content(id);
        session.execute("INSERT INTO big VALUES ($1, $2)", &[&id, &content]).unwrap();
    }
    Fixture { pair, network, _root: root }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for server in [&self.pair.first, &self.pair.second] {
                println!("---- {}\n{}", server.name, messages(server));
            }
        }
    }
}

impl Fixture {
    /// What the primary sends; what is sent to it passes.
    fn hold_after_some_megabytes(&self) {
        let mut passed = 0;
        self.network.spy(move |from, data| {
            passed += if from == From::First { data.len() } else { 0 };
            if from == From::First && passed > 1_500_000 { Verdict::Hold } else { Verdict::Pass }
        });
    }

    /// Begins a netcopy and waits until some blocks have arrived and no more do.
    fn half_a_netcopy(&self) {
        self.hold_after_some_megabytes();
        self.pair.first.expect("hsb netcopy").unwrap();
        let incoming = self.pair.second.directory.join("solid.db.netcopy");
        wait_until("a part of the copy is there", || length(&incoming) > 1_000_000);
    }

    fn netcopy_and_connect(&self) {
        self.pair.copy().unwrap();
        assert_eq!(state(&self.pair.second), "SECONDARY ALONE");
        self.pair.connect().unwrap();
        assert_identical(&self.pair);
        let incoming = self.pair.second.directory.join("solid.db.netcopy");
        wait_until("what is left of copies is gone", || !incoming.exists());
    }
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |file| file.len())
}

/// Bytes of the last netcopy that were at the receiver already, and bytes that were sent.
fn reused_and_sent(pair: &Pair) -> (u64, u64) {
    let figure = |server: &Server, before: &str, after: &str| {
        let text = crate::common::settled_messages(server);
        let line = text.lines().rev().find(|line| line.contains(before) && line.contains(after)).unwrap();
        let figure = line.split(before).nth(1).unwrap().split(after).next().unwrap();
        figure.trim().parse().unwrap()
    };
    (
        figure(&pair.second, "the image is complete;", "bytes of it were here already"),
        figure(&pair.first, "netcopy:", "bytes were sent for an image"),
    )
}

fn change_a_row(server: &Server, id: i64) {
    sql(server).execute("UPDATE big SET content = 'changed' WHERE id = $1", &[&id]).unwrap();
}

#[test]
fn a_netcopy_goes_on_where_a_killed_receiver_left_it() {
    let mut fixture = primary("");
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    fixture.half_a_netcopy();
    let progress = fixture.pair.first.ask("hsb status copy").unwrap();
    assert_eq!(progress.0, 14003);
    assert!(progress.1.starts_with("ACTIVE ") && progress.1.contains("MB/s"), "{}", progress.1);
    fixture.pair.second.kill();
    fixture.network.resume();
    wait_until("the sender has noticed", || fixture.pair.first.ask("hsb status copy").unwrap().0 == 14503);

    // Nothing half-copied is opened, and the image is another one by now.
    change_a_row(&fixture.pair.first, 3);
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    assert!(!fixture.pair.second.database_file().exists());
    fixture.netcopy_and_connect();
    let (reused, sent) = reused_and_sent(&fixture.pair);
    assert!(reused > 700_000 && sent < 3_200_000, "{reused} {sent}");
    let changed = "SELECT count(*) FROM big WHERE content = 'changed'";
    assert_eq!(number(&mut sql(&fixture.pair.second), changed), 1);
}

#[test]
fn a_netcopy_goes_on_where_a_killed_primary_left_it() {
    let mut fixture = primary("");
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    fixture.half_a_netcopy();
    fixture.pair.first.kill();
    fixture.network.cut();
    fixture.network.resume();
    fixture.pair.first.start(&[]).unwrap();
    fixture.pair.first.expect("hsb set primary alone").unwrap();
    fixture.netcopy_and_connect();
    let (reused, _) = reused_and_sent(&fixture.pair);
    assert!(reused > 700_000, "{reused}");
}

#[test]
fn a_broken_netcopy_leaves_the_old_database_and_a_repeat_brings_the_differences() {
    let mut fixture = primary("");
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    fixture.netcopy_and_connect();
    fixture.pair.first.expect("hsb disconnect").unwrap();
    fixture.pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    fixture.pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    sql(&fixture.pair.first).batch_execute("UPDATE big SET content = 'none' WHERE id % 2 = 0").unwrap();
    for id in (0..ROWS).step_by(2) {
        let content = content(id + 500);
        sql(&fixture.pair.first)
            .execute("UPDATE big SET content = $2 WHERE id = $1", &[&id, &content])
            .unwrap();
    }
    fixture.half_a_netcopy();
    fixture.pair.second.kill();
    fixture.network.resume();
    wait_until("the sender has noticed", || fixture.pair.first.ask("hsb status copy").unwrap().0 == 14503);

    fixture.pair.second.start(&[]).unwrap();
    assert_eq!(state(&fixture.pair.second), "SECONDARY ALONE");
    let whole = "SELECT count(*) FROM big WHERE length(content) = 60000";
    assert_eq!(number(&mut sql(&fixture.pair.second), whole), ROWS, "the old database is there");
    fixture.netcopy_and_connect();
    let (reused, sent) = reused_and_sent(&fixture.pair);
    assert!(reused > 1_000_000 && sent < 3_000_000, "{reused} {sent}");
}

#[test]
fn both_sides_show_a_netcopy_and_refuse_what_would_disturb_it() {
    let mut fixture = primary("");
    let pair = &mut fixture.pair;
    pair.second.start(&["-x", "backupserver"]).unwrap();
    pair.copy().unwrap();
    let mut reader = sql(&pair.second);
    change_a_row(&pair.first, 3);
    for id in 0..ROWS / 2 {
        change_a_row(&pair.first, id);
    }
    let mut session = sql(&pair.first);
    for id in 100..100 + ROWS {
        let content = content(id);
        session.execute("INSERT INTO big VALUES ($1, $2)", &[&id, &content]).unwrap();
    }
    fixture.half_a_netcopy();
    let pair = &fixture.pair;
    for server in [&pair.first, &pair.second] {
        let (code, text) = server.ask("hsb status copy").unwrap();
        assert!(code == 14003 && text.contains(" % (") && text.contains("left"), "{code} {text}");
    }
    let directory = fixture._root.path().join("copy");
    std::fs::create_dir(&directory).unwrap();
    for (server, command, code) in [
        (&pair.first, "hsb netcopy", 14703),
        (&pair.first, &*format!("hsb copy {}", directory.display()), 14703),
        (&pair.first, &*format!("backup {}", directory.display()), 10019),
        (&pair.first, "hsb connect", 14703),
        (&pair.first, "hsb verify", 14703),
        (&pair.second, "hsb set primary alone", 14703),
        (&pair.second, &*format!("backup {}", directory.display()), 10019),
    ] {
        let (refused, text) = server.ask(command).unwrap();
        assert_eq!(refused, code, "{command}: {text}");
    }
    // Its clients were disconnected, and new ones are not let in.
    assert!(reader.batch_execute("SELECT 1").is_err());
    let refused = crate::common::try_sql(&pair.second, "dba-secret").err().unwrap();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "57P03");
    // The writer goes on meanwhile.
    change_a_row(&pair.first, 1);
    fixture.network.resume();
    pair.first.wait_for("hsb status copy", "SUCCESS").unwrap();
    pair.second.wait_for("hsb status copy", "SUCCESS").unwrap();
    pair.connect().unwrap();
    assert_identical(pair);
}

#[test]
fn a_shutdown_gives_up_a_netcopy_and_the_repeat_is_compressed() {
    let mut fixture = primary("NetcopyMaxRate=100K\nNetcopyRpcCompress=yes\n");
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    fixture.pair.first.expect("hsb netcopy").unwrap();
    fixture.pair.first.stop().unwrap();
    assert!(messages(&fixture.pair.first).contains("10082"), "the copy was given up");
    fixture.pair.first.start(&[]).unwrap();
    fixture.pair.first.expect("hsb set primary alone").unwrap();
    fixture.pair.first.expect("parameter HotStandby.NetcopyMaxRate=0 temporary").unwrap();
    fixture.netcopy_and_connect();
    let (_, sent) = reused_and_sent(&fixture.pair);
    assert!(sent < 1_000_000, "{sent}");
}

/// The copy has not begun, but its end is waited for and told all the same.
#[test]
fn a_shutdown_waits_for_a_netcopy_that_still_dials() {
    let mut fixture = primary("");
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    fixture.network.hold(From::Second);
    fixture.pair.first.expect("hsb netcopy").unwrap();
    assert_eq!(fixture.pair.first.ask("hsb status copy").unwrap().0, 14003);
    fixture.pair.first.expect("shutdown").unwrap();
    wait_until("it waits", || messages(&fixture.pair.first).contains("the copy under way is given up"));
    fixture.network.resume();
    fixture.pair.first.wait_for_end().unwrap();
    assert!(messages(&fixture.pair.first).contains("10082"), "the copy was given up");
}

/// Before, it went on beside the shutdown, and the primary might say FAILED of a database that was in place.
#[test]
fn a_receiver_that_is_shut_down_gives_the_copy_up_and_says_so() {
    let mut fixture = primary("");
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    fixture.half_a_netcopy();
    let process = fixture.pair.second.process_id().unwrap();
    signal_process(process, "-TERM");
    let second = &fixture.pair.second;
    wait_until("the shutdown has begun", || messages(second).contains("is given up"));
    fixture.network.resume();
    wait_until("the sender knows", || fixture.pair.first.ask("hsb status copy").unwrap().0 != 14003);
    let (code, text) = fixture.pair.first.ask("hsb status copy").unwrap();
    assert!(code == 10082 && text.contains("shutting down"), "{code} {text}");
    wait_until("it has ended", || messages(second).contains("the server has shut down"));
    for name in ["solid.db", "solid.db.arrived"] {
        assert!(!second.directory.join(name).exists(), "{name}");
    }
    assert!(length(&second.directory.join("solid.db.netcopy")) < 3_000_000, "it did not wait for the rest");
    fixture.pair.second.kill();
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    fixture.netcopy_and_connect();
}

/// The log is kept from the copy's position on, however many checkpoints are made.
#[test]
fn a_copied_directory_starts_and_catches_up() {
    let mut fixture = primary("[Logging]\nMinSplitSize=64K\n");
    let pair = &mut fixture.pair;
    let directory = pair.second.directory.display().to_string();
    // The second time over an older copy with its log and unfinished business.
    for round in 0..2 {
        pair.first.expect(&format!("hsb copy {directory}")).unwrap();
        pair.first.wait_for("hsb status copy", "SUCCESS").unwrap();
        for id in 0..10i64 {
            let content = vec![round as u8; ROW_BYTES];
            sql(&pair.first).execute("UPDATE big SET content = $2 WHERE id = $1", &[&id, &content]).unwrap();
        }
        pair.first.expect("makecp").unwrap();
        pair.second.start(&[]).unwrap();
        assert_eq!(state(&pair.second), "SECONDARY ALONE");
        pair.connect().unwrap();
        assert_identical(pair);
        change_a_row(&pair.first, 20 + round);
        pair.second.kill();
        pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
        pair.first.expect("hsb set primary alone").unwrap();
        change_a_row(&pair.first, 30 + round);
    }
}

#[test]
fn a_receiver_that_cannot_write_says_why_and_a_repeat_succeeds() {
    let mut fixture = primary("");
    let pair = &mut fixture.pair;
    pair.second.start(&["-x", "backupserver"]).unwrap();
    let in_the_way = pair.second.directory.join("solid.db.netcopy");
    std::fs::create_dir(&in_the_way).unwrap();
    pair.first.expect("hsb netcopy").unwrap();
    wait_until("the copy has failed", || pair.first.ask("hsb status copy").unwrap().0 != 14003);
    let (code, text) = pair.first.ask("hsb status copy").unwrap();
    assert!(code == 14501 && text.contains("solid.db.netcopy"), "{code} {text}");
    std::fs::remove_dir(&in_the_way).unwrap();
    fixture.netcopy_and_connect();
}

#[test]
fn a_catchup_shows_how_far_it_is() {
    let mut fixture = primary("CatchupSpeedRate=99\nPingTimeout=0\n");
    fixture.pair.second.start(&["-x", "backupserver"]).unwrap();
    fixture.netcopy_and_connect();
    let pair = &fixture.pair;
    pair.first.expect("hsb disconnect").unwrap();
    pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    let mut session = sql(&pair.first);
    for id in 1000..1000 + ROWS {
        session.execute("INSERT INTO big VALUES ($1, $2)", &[&id, &content(id)]).unwrap();
    }
    fixture.hold_after_some_megabytes();
    pair.first.expect("hsb connect").unwrap();
    let line = || {
        let rows = pair.first.console().unwrap().command("hsb status").unwrap();
        rows.into_iter().map(|(_, line)| line).find(|line| line.contains("CATCHING UP"))
    };
    wait_until("a part is there", || {
        line().is_some_and(|line| line.contains(" of 60 transactions, ") && !line.contains(" 0 %"))
    });
    assert_eq!(pair.first.ask("hsb status connect").unwrap().0, 14008);
    assert_eq!(pair.first.ask("hsb status catchup").unwrap().0, 14003);
    fixture.network.resume();
    assert_identical(pair);
    assert_eq!(line(), None);
}

#[test]
fn copies_and_backups_that_are_not_possible_say_why() {
    let mut fixture = primary("");
    let root = fixture._root.path().to_path_buf();
    let pair = &mut fixture.pair;
    std::fs::create_dir(root.join("foreign")).unwrap();
    std::fs::write(root.join("foreign/solid.db"), "something else").unwrap();
    std::fs::write(root.join("file"), "").unwrap();
    // Another server's log without its database, and a file that only looks like a log.
    for (directory, source) in [("log-only", Some("stranger")), ("look-alike", None)] {
        let directory = root.join(directory);
        std::fs::create_dir(&directory).unwrap();
        match source {
            None => std::fs::write(directory.join("sol00007.log"), "somebody's own").unwrap(),
            Some(name) => {
                let mut stranger = Pair::prepare(program(), &root.join(name), "").unwrap().first;
                stranger.start(&[]).unwrap();
                std::fs::copy(stranger.directory.join("sol00001.log"), directory.join("sol00001.log"))
                    .map(drop)
                    .unwrap();
            }
        }
    }
    let own = pair.first.directory.display().to_string();
    for (command, code) in [
        ("hsb copy".to_string(), 14522),
        ("hsb copy nowhere".to_string(), 10030),
        ("backup".to_string(), 10030),
        (format!("hsb copy {}", root.join("file").display()), 10024),
        (format!("hsb copy {}", root.join("foreign").display()), 10024),
        (format!("hsb copy {}", root.join("log-only").display()), 10024),
        (format!("backup {}", root.join("look-alike").display()), 10024),
        (format!("backup {own}"), 10024),
    ] {
        let (refused, text) = pair.first.ask(&command).unwrap();
        assert_eq!(refused, code, "{command}: {text}");
    }
    assert!(root.join("log-only/sol00001.log").exists() && root.join("look-alike/sol00007.log").exists());
    pair.second.start(&["-x", "backupserver"]).unwrap();
    pair.copy().unwrap();
    let busy = format!("hsb copy {}", pair.second.directory.display());
    pair.first.expect(&busy).unwrap();
    wait_until("the lock is found", || pair.first.ask("hsb status copy").unwrap().0 == 10024);
    let failure = || {
        let rows = pair.first.console().unwrap().command("hsb status").unwrap();
        rows.into_iter()
            .map(|(_, line)| line)
            .find(|line| line.contains("the last copy or backup failed at 2"))
    };
    let shown = failure().unwrap();
    // The number and the general sentence once, although one error stands in another.
    assert_eq!((shown.matches("10024").count(), shown.matches("14501").count()), (1, 0), "{shown}");
    std::fs::create_dir(root.join("fits")).unwrap();
    pair.first.expect(&format!("backup {}", root.join("fits").display())).unwrap();
    pair.first.wait_for("hsb status copy", "SUCCESS").unwrap();
    assert_eq!(failure(), None);
    pair.connect().unwrap();
    assert_eq!(pair.first.ask("hsb copy").unwrap().0, 14704);
    assert_eq!(pair.second.ask("hsb copy").unwrap().0, 14538);
}

#[test]
fn a_backup_of_an_active_secondary_is_a_database() {
    let mut fixture = primary("[General]\nBackupDirectory=kept\n");
    let pair = &mut fixture.pair;
    pair.second.start(&["-x", "backupserver"]).unwrap();
    pair.copy().unwrap();
    pair.connect().unwrap();
    std::fs::create_dir(pair.second.directory.join("kept")).unwrap();
    pair.second.expect("backup").unwrap();
    pair.second.wait_for("hsb status copy", "SUCCESS").unwrap();
    let copy = pair.second.directory.join("kept/solid.db");
    let copy = rusqlite::Connection::open(copy).unwrap();
    let text = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    assert_eq!(text("SELECT CAST(count(*) AS TEXT) FROM big"), ROWS.to_string());
    assert_eq!(state(&pair.second), "SECONDARY ACTIVE");
}
