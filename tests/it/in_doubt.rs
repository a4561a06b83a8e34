//! Transactions in doubt: the network between the servers fails while an acknowledgement is on its way.

use std::time::{Duration, Instant};

use crate::common::fixture::{
    Fixture, NO_PINGS, QUICK_PINGS, Waiting, fixture, has_row, insert, reconnect, rows,
};
use crate::common::proxy::{From, Verdict, has_batch, peer_messages};
use crate::common::{assert_identical, has_pending, messages, number, server_error, sql, state, wait_until};
use hotstandby::hsb::event::PeerMessage;
use postgres::NoTls;

/// How far the batch of the transaction in doubt gets.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Batch {
    Arrives,
    GetsLost,
}

/// A primary that is PRIMARY UNCERTAIN with row 2 waiting, and its client.
fn in_doubt(fixture: &Fixture, batch: Batch) -> Waiting {
    let Fixture { network, pair, .. } = fixture;
    match batch {
        Batch::Arrives => network.spy(|from, data| {
            let acknowledges =
                peer_messages(data).iter().any(|message| matches!(message, PeerMessage::Acknowledge { .. }));
            if from == From::Second && acknowledges { Verdict::CutBefore } else { Verdict::Pass }
        }),
        Batch::GetsLost => network.spy(|from, data| {
            if from == From::First && has_batch(data) { Verdict::CutBefore } else { Verdict::Pass }
        }),
    }
    let waiting = insert(&pair.first, 2);
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    if batch == Batch::Arrives {
        wait_until("the secondary has the row", || has_row(&pair.second, 2));
    }
    assert!(has_pending(&pair.first));
    assert!(!has_row(&pair.first, 2), "visible while in doubt");
    assert!(!waiting.is_finished());
    network.resume();
    waiting
}

fn assert_outcome_unknown(waiting: Waiting) {
    let error = waiting.join().unwrap().unwrap_err();
    let (state, message) = server_error(&error).unwrap();
    assert_eq!(state, "08007", "{message}");
    assert!(message.contains("10083") && message.contains("HOTSTANDBY_OUTCOME"), "{message}");
    assert!(message.contains("Do not repeat it blindly"), "{message}");
}

#[test]
fn trap_01_nothing_shows_or_undoes_a_commit_that_waits_for_its_acknowledgement() {
    let fixture = fixture(QUICK_PINGS);
    let Fixture { network, pair, .. } = &fixture;
    let mut reader = sql(&pair.first);
    network.hold(From::Second);
    let mut session = sql(&pair.first);
    let cancel = session.cancel_token();
    let waiting = std::thread::spawn(move || session.batch_execute("INSERT INTO t VALUES (2)"));
    wait_until("the secondary has the row", || has_row(&pair.second, 2));
    for _ in 0..5 {
        cancel.cancel_query(NoTls).unwrap();
        assert_eq!(number(&mut reader, "SELECT count(*) FROM t"), 1);
        assert_eq!(rows(&pair.first), 1);
        assert!(!waiting.is_finished());
    }
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    cancel.cancel_query(NoTls).unwrap();
    assert_eq!(number(&mut reader, "SELECT count(*) FROM t"), 1, "reads go on");

    let mut writer = sql(&pair.first);
    writer.batch_execute("SET LOCK TIMEOUT 1").unwrap();
    let begun = Instant::now();
    let error = writer.batch_execute("INSERT INTO t VALUES (3)").unwrap_err();
    let (sqlstate, message) = server_error(&error).unwrap();
    assert!(message.contains("10089"), "{sqlstate} {message}");
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(!waiting.is_finished());

    pair.first.expect("hsb set primary alone").unwrap();
    waiting.join().unwrap().unwrap();
    assert_eq!(number(&mut reader, "SELECT count(*) FROM t"), 2);
    network.resume();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    reconnect(pair);
    assert_eq!(rows(&pair.second), 2);
}

#[test]
fn a_client_that_leaves_does_not_undo_its_commit() {
    let fixture = fixture(NO_PINGS);
    let Fixture { network, pair, .. } = &fixture;
    network.hold(From::Second);
    let mut session = raw_session(pair.first.port);
    session.send_query("INSERT INTO t VALUES (2)");
    wait_until("the secondary has the row", || has_row(&pair.second, 2));
    drop(session);
    assert_eq!(rows(&pair.first), 1);
    network.resume();
    wait_until("the commit is there", || rows(&pair.first) == 2);
    assert_identical(pair);
}

/// A session whose statement goes on when the client closes its socket in the middle.
struct RawSession(std::process::Child);

impl RawSession {
    fn send_query(&mut self, query: &str) {
        use std::io::Write;
        writeln!(self.0.stdin.as_mut().unwrap(), "{query}").unwrap();
    }
}

impl Drop for RawSession {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A client process of its own: this test program, run as [`statements_from_standard_input`], so that it can be killed.
fn raw_session(port: u16) -> RawSession {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_doubt::statements_from_standard_input", "--nocapture"])
        .env("HSB_TEST_PORT", port.to_string())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn();
    RawSession(child.unwrap())
}

/// The body of the client process that [`raw_session`] starts; does nothing when it is run as a test.
#[test]
fn statements_from_standard_input() {
    let Ok(port) = std::env::var("HSB_TEST_PORT") else { return };
    let (user, password) = hotstandby::demo::pair::ADMINISTRATOR;
    let mut configuration = postgres::Config::new();
    configuration.host("127.0.0.1").port(port.parse().unwrap()).user(user).password(password).dbname("solid");
    let mut session = configuration.connect(NoTls).unwrap();
    for line in std::io::stdin().lines() {
        session.batch_execute(&line.unwrap()).unwrap();
    }
}

#[test]
fn auto_primary_alone_goes_on_by_itself() {
    let fixture = fixture("AutoPrimaryAlone=yes\n");
    let Fixture { network, pair, .. } = &fixture;
    network.hold(From::Second);
    let waiting = insert(&pair.first, 2);
    wait_until("the secondary has the row", || has_row(&pair.second, 2));
    assert!(!waiting.is_finished());
    network.cut();
    waiting.join().unwrap().unwrap();
    assert_eq!(state(&pair.first), "PRIMARY ALONE");
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    insert(&pair.first, 3).join().unwrap().unwrap();
    network.resume();
    reconnect(pair);
    assert_eq!(rows(&pair.second), 3);
}

#[test]
fn silence_is_noticed_by_both() {
    let fixture = fixture(&format!("{QUICK_PINGS}AutoPrimaryAlone=yes\n"));
    let Fixture { network, pair, .. } = &fixture;
    network.lose();
    let waiting = insert(&pair.first, 2);
    waiting.join().unwrap().unwrap();
    assert_eq!(state(&pair.first), "PRIMARY ALONE");
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    network.resume();
    reconnect(pair);
}

fn connect_settles(batch: Batch, dialler_is_primary: bool) {
    let fixture = fixture("");
    let waiting = in_doubt(&fixture, batch);
    let pair = &fixture.pair;
    let dialler = if dialler_is_primary { &pair.first } else { &pair.second };
    dialler.expect("hsb connect").unwrap();
    assert_identical(pair);
    waiting.join().unwrap().unwrap();
    assert!(!has_pending(&pair.first));
    assert_eq!((state(&pair.first), rows(&pair.first)), ("PRIMARY ACTIVE".into(), 2));
    insert(&pair.first, 3).join().unwrap().unwrap();
    assert_identical(pair);
}

#[test]
fn connecting_settles_what_the_secondary_has() {
    connect_settles(Batch::Arrives, true);
    connect_settles(Batch::Arrives, false);
}

#[test]
fn connecting_settles_what_the_secondary_has_not() {
    connect_settles(Batch::GetsLost, true);
    connect_settles(Batch::GetsLost, false);
}

/// The uncertain primary steps down, the other one takes over and writes on.
fn step_down(batch: Batch) {
    let mut fixture = fixture("");
    let waiting = in_doubt(&fixture, batch);
    fixture.pair.first.expect("hsb set secondary alone").unwrap();
    assert_outcome_unknown(waiting);
    let pair = &fixture.pair;
    assert!(!has_row(&pair.first, 2) && has_pending(&pair.first));
    pair.second.expect("hsb set primary alone").unwrap();
    assert_eq!(has_row(&pair.second, 2), batch == Batch::Arrives);
    insert(&pair.second, 3).join().unwrap().unwrap();
    reconnect(pair);
    assert!(!has_pending(&pair.first));
    assert_eq!(has_row(&pair.first, 2), batch == Batch::Arrives);
    assert!(has_row(&pair.first, 3));
    insert(&pair.second, 4).join().unwrap().unwrap();
    assert_identical(pair);
    // What was settled stays settled after a crash.
    fixture.pair.first.kill();
    fixture.pair.first.start(&[]).unwrap();
    fixture.pair.second.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    reconnect(&fixture.pair);
    assert_eq!(has_row(&fixture.pair.first, 2), batch == Batch::Arrives);
}

#[test]
fn stepping_down_the_new_primary_has_the_transaction() {
    step_down(Batch::Arrives);
}

#[test]
fn stepping_down_the_new_primary_lacks_the_transaction() {
    step_down(Batch::GetsLost);
}

/// Nothing is written at the new primary: there is no batch that could push the pending one out.
#[test]
fn stepping_down_without_a_later_write() {
    for batch in [Batch::Arrives, Batch::GetsLost] {
        let fixture = fixture("");
        let waiting = in_doubt(&fixture, batch);
        let pair = &fixture.pair;
        pair.first.expect("hsb set secondary alone").unwrap();
        assert_outcome_unknown(waiting);
        pair.second.expect("hsb set primary alone").unwrap();
        reconnect(pair);
        assert!(!has_pending(&pair.first));
        assert_eq!(has_row(&pair.first, 2), batch == Batch::Arrives, "{batch:?}");
    }
}

/// It steps down and takes over again, without having heard of the other server, which has the transaction.
#[test]
fn trap_03_what_the_peer_may_hold_is_kept_pending_in_order() {
    let fixture = fixture("");
    let waiting = in_doubt(&fixture, Batch::Arrives);
    let pair = &fixture.pair;
    pair.first.expect("hsb set secondary alone").unwrap();
    assert_outcome_unknown(waiting);
    assert!(!has_row(&pair.first, 2) && has_pending(&pair.first));
    pair.first.expect("hsb set primary alone").unwrap();
    assert!(has_row(&pair.first, 2), "rolled back, and the other server has it");
    insert(&pair.first, 3).join().unwrap().unwrap();
    reconnect(pair);
    assert_eq!(rows(&pair.second), 3);
}

/// A crashed uncertain primary comes back without showing what is in doubt (R7).
fn crashed_in_doubt(batch: Batch) -> Fixture {
    let mut fixture = fixture("");
    let waiting = in_doubt(&fixture, batch);
    fixture.pair.first.kill();
    assert!(waiting.join().unwrap().is_err());
    fixture.pair.first.start(&[]).unwrap();
    assert_eq!(state(&fixture.pair.first), "SECONDARY ALONE");
    assert!(!has_row(&fixture.pair.first, 2), "visible after a crash in doubt");
    assert!(has_pending(&fixture.pair.first));
    fixture
}

#[test]
fn trap_02_after_a_crash_in_doubt_nothing_shows_until_set_primary_alone() {
    for batch in [Batch::Arrives, Batch::GetsLost] {
        let fixture = crashed_in_doubt(batch);
        let pair = &fixture.pair;
        pair.first.expect("hsb set primary alone").unwrap();
        assert!(has_row(&pair.first, 2) && !has_pending(&pair.first));
        insert(&pair.first, 3).join().unwrap().unwrap();
        reconnect(pair);
        assert_eq!(rows(&pair.second), 3);
    }
}

#[test]
fn after_a_crash_in_doubt_the_new_primary_settles() {
    for (batch, writes) in
        [(Batch::Arrives, false), (Batch::Arrives, true), (Batch::GetsLost, false), (Batch::GetsLost, true)]
    {
        let fixture = crashed_in_doubt(batch);
        let pair = &fixture.pair;
        pair.second.expect("hsb set primary alone").unwrap();
        if writes {
            insert(&pair.second, 3).join().unwrap().unwrap();
        }
        reconnect(pair);
        assert!(!has_pending(&pair.first));
        assert_eq!(has_row(&pair.first, 2), batch == Batch::Arrives, "{batch:?}, writes: {writes}");
    }
}

/// The command is refused; a signal ends the server all the same, and what is in doubt stays so.
#[test]
fn a_server_in_doubt_can_be_shut_down() {
    let mut fixture = fixture("");
    let waiting = in_doubt(&fixture, Batch::Arrives);
    let first = &mut fixture.pair.first;
    assert_eq!(first.ask("shutdown").unwrap().0, 14549);
    let process = first.process_id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    wait_until("the server has ended", || messages(first).contains("the server has shut down"));
    assert!(waiting.join().unwrap().is_err());
    first.kill();
    first.start(&[]).unwrap();
    assert!(!has_row(&fixture.pair.first, 2) && has_pending(&fixture.pair.first));
    fixture.pair.second.expect("hsb set primary alone").unwrap();
    reconnect(&fixture.pair);
    assert!(has_row(&fixture.pair.first, 2));
}

#[test]
fn set_standalone_commits() {
    for batch in [Batch::Arrives, Batch::GetsLost] {
        let fixture = fixture("");
        let waiting = in_doubt(&fixture, batch);
        let pair = &fixture.pair;
        pair.first.expect("hsb set standalone").unwrap();
        waiting.join().unwrap().unwrap();
        assert_eq!((state(&pair.first), has_row(&pair.first, 2)), ("STANDALONE".into(), true));
        assert!(!has_pending(&pair.first));
        // A server that was STANDALONE has its peer's database copied.
        pair.first.expect("hsb set primary alone").unwrap();
        pair.copy().unwrap();
        reconnect(pair);
        assert!(has_row(&pair.second, 2));
    }
}

#[test]
fn set_primary_alone_commits_what_the_secondary_has_not() {
    let fixture = fixture("");
    let waiting = in_doubt(&fixture, Batch::GetsLost);
    let pair = &fixture.pair;
    pair.first.expect("hsb set primary alone").unwrap();
    waiting.join().unwrap().unwrap();
    assert!(has_row(&pair.first, 2) && !has_row(&pair.second, 2) && !has_pending(&pair.first));
    reconnect(pair);
    assert!(has_row(&pair.second, 2));
}

/// R3: what stays pending while the server is a secondary commits when it becomes a primary again, also after a crash.
#[test]
fn stepping_down_and_up_again_commits() {
    for (batch, crash, up, wanted) in [
        (Batch::Arrives, false, "hsb set primary alone", "PRIMARY ALONE"),
        (Batch::GetsLost, false, "hsb set standalone", "STANDALONE"),
        (Batch::GetsLost, true, "hsb switch primary", "PRIMARY ALONE"),
    ] {
        let mut fixture = fixture("");
        let waiting = in_doubt(&fixture, batch);
        fixture.pair.first.expect("hsb set secondary alone").unwrap();
        assert_outcome_unknown(waiting);
        if crash {
            // Twice: a start does not decide either.
            for _ in 0..2 {
                fixture.pair.first.kill();
                fixture.pair.first.start(&[]).unwrap();
            }
        }
        let pair = &fixture.pair;
        assert!(!has_row(&pair.first, 2) && has_pending(&pair.first));
        pair.first.expect(up).unwrap();
        assert_eq!(state(&pair.first), wanted);
        assert!(has_row(&pair.first, 2) && !has_pending(&pair.first), "{up}");
        insert(&pair.first, 3).join().unwrap().unwrap();
        if wanted == "PRIMARY ALONE" {
            reconnect(pair);
            assert_eq!(rows(&pair.second), 3);
        }
    }
}

/// R2, R3: the other server need not have what is pending here, and need not be reachable.
#[test]
fn switch_secondary_in_doubt_keeps_the_doubt() {
    for (batch, reachable) in [(Batch::GetsLost, true), (Batch::Arrives, false)] {
        let fixture = fixture("");
        let waiting = in_doubt(&fixture, batch);
        let pair = &fixture.pair;
        if !reachable {
            fixture.network.cut_for_good();
        }
        pair.first.expect("hsb switch secondary").unwrap();
        assert_eq!(state(&pair.first), "SECONDARY ALONE");
        assert_outcome_unknown(waiting);
        assert!(!has_row(&pair.first, 2) && has_pending(&pair.first));
        fixture.network.resume();
        pair.second.expect("hsb set primary alone").unwrap();
        reconnect(pair);
        assert_eq!(has_row(&pair.first, 2), batch == Batch::Arrives);
    }
}

/// What was pending in the database that a netcopy replaces does not come back.
#[test]
fn a_netcopy_ends_the_doubt() {
    let mut fixture = crashed_in_doubt(Batch::GetsLost);
    let pair = &mut fixture.pair;
    pair.second.expect("hsb set primary alone").unwrap();
    insert(&pair.second, 3).join().unwrap().unwrap();
    pair.swap();
    pair.copy().unwrap();
    assert!(!has_pending(&pair.second) && has_row(&pair.second, 3));
    pair.second.kill();
    pair.second.start(&[]).unwrap();
    assert!(!has_pending(&pair.second) && !has_row(&pair.second, 2));
    reconnect(pair);
}
