//! Known traps of two-node replication, by their numbers in the specification. Each test fails without its defence.

use crate::common::fixture::{NO_PINGS, fixture, has_row, insert, reconnect, rows};
use crate::common::proxy::{From, Verdict, peer_messages};
use crate::common::{
    assert_identical, connected_pair, has_pending, position, server_error, sql, state, wait_until,
};
use hotstandby::demo::pair::Server;
use hotstandby::hsb::event::PeerMessage;

/// Recovery keeps the last, unacknowledged batch at the end of the log: the secondary may hold it.
#[test]
fn trap_04_a_restarted_primary_does_not_truncate_what_the_secondary_applied() {
    let mut fixture = fixture(NO_PINGS);
    fixture.network.hold(From::Second);
    let waiting = insert(&fixture.pair.first, 2);
    wait_until("the secondary has the row", || has_row(&fixture.pair.second, 2));
    fixture.pair.first.kill();
    assert!(waiting.join().unwrap().is_err());
    fixture.network.resume();
    fixture.pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    fixture.pair.first.start(&[]).unwrap();
    let pair = &fixture.pair;
    assert!(!has_row(&pair.first, 2), "visible and not decided");
    assert!(has_pending(&pair.first), "truncated");
    // It is the primary again: without the batch its history would part from the secondary's here.
    pair.first.expect("hsb set primary alone").unwrap();
    assert!(has_row(&pair.first, 2));
    insert(&pair.first, 3).join().unwrap().unwrap();
    reconnect(pair);
    assert_eq!(rows(&pair.second), 3);
}

/// Both have written one transaction in the same epoch: only the chain hash tells them apart.
#[test]
fn trap_05_the_same_position_is_not_the_same_history() {
    let fixture = fixture("");
    let pair = &fixture.pair;
    pair.first.expect("hsb disconnect").unwrap();
    pair.second.wait_for("hsb status connect", "BROKEN").unwrap();
    pair.first.expect("hsb set secondary alone").unwrap();
    for (server, row) in [(&pair.first, 20), (&pair.second, 10)] {
        server.expect("hsb set primary alone").unwrap();
        insert(server, row).join().unwrap().unwrap();
    }
    pair.first.expect("hsb set secondary alone").unwrap();
    let [first, second] = [&pair.first, &pair.second].map(|server| server.expect("hsb logpos").unwrap());
    assert_eq!(first.split(':').next(), second.split(':').next(), "the example is another one");
    for server in [&pair.first, &pair.second] {
        let (code, text) = server.connect().unwrap();
        assert_eq!(code, 14525, "{text}");
        assert!(text.contains("has made 1 transaction, the one at"), "{text}");
    }
    assert!(has_row(&pair.first, 20) && !has_row(&pair.first, 10));
    assert_eq!((state(&pair.first), state(&pair.second)), ("SECONDARY ALONE".into(), "PRIMARY ALONE".into()));
}

/// Refused at both, with both named; what was written alone stays until an operator says so, and is saved even then.
#[test]
fn trap_06_data_written_alone_is_not_discarded_on_rejoin() {
    let fixture = fixture("");
    let pair = &fixture.pair;
    pair.first.expect("hsb disconnect").unwrap();
    pair.second.wait_for("hsb status connect", "BROKEN").unwrap();
    insert(&pair.first, 20).join().unwrap().unwrap();
    pair.first.expect("hsb set secondary alone").unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
    for written in [false, true] {
        if written {
            insert(&pair.second, 10).join().unwrap().unwrap();
        }
        for server in [&pair.first, &pair.second] {
            let (code, text) = server.connect().unwrap();
            assert_eq!(code, 14525, "{text}");
            assert!(
                text.contains(&position(&pair.first)) && text.contains(&position(&pair.second)),
                "{text}"
            );
        }
        assert!(has_row(&pair.first, 20) && !has_row(&pair.second, 20));
    }
    let answer = pair.first.expect("hsb rewind").unwrap();
    let file = answer.split_whitespace().find(|word| word.ends_with(".sql")).unwrap();
    assert!(std::fs::read_to_string(file).unwrap().contains("20);\nCOMMIT;"));
    reconnect(pair);
    assert!(!has_row(&pair.first, 20) && has_row(&pair.first, 10));
}

/// A primary that was restored from an old backup, and one that is blank, lack what they once promised.
#[test]
fn trap_07_a_blank_node_or_an_old_backup_does_not_rejoin_as_if_it_had_promised_nothing() {
    let (_root, mut pair) = connected_pair("");
    sql(&pair.first).batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    assert_identical(&pair);
    pair.first.stop().unwrap();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    let backup = tempfile::tempdir().unwrap();
    copy_files(&pair.first.directory, backup.path());
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    pair.connect().unwrap();
    insert(&pair.first, 1).join().unwrap().unwrap();
    assert_identical(&pair);

    pair.first.kill();
    remove_files(&pair.first);
    copy_files(backup.path(), &pair.first.directory);
    pair.first.start(&[]).unwrap();
    pair.second.wait_for("hsb status connect", "BROKEN").unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    for row in [None, Some(2)] {
        if let Some(row) = row {
            // Now its epoch is the newer one, and its position as far as the other's.
            insert(&pair.first, row).join().unwrap().unwrap();
        }
        for server in [&pair.first, &pair.second] {
            let (code, text) = server.connect().unwrap();
            assert_eq!(code, 14525, "{text}");
        }
        assert!(has_row(&pair.second, 1), "acknowledged and lost");
    }

    pair.first.kill();
    remove_files(&pair.first);
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    for server in [&pair.first, &pair.second] {
        let (code, text) = server.connect().unwrap();
        assert_eq!(code, 14524, "{text}");
        assert!(text.contains("The ids are "), "{text}");
    }
    assert!(has_row(&pair.second, 1), "acknowledged and lost");
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn remove_files(server: &Server) {
    for entry in std::fs::read_dir(&server.directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "solid.ini" {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// The partition swallows the word of the promotion; it ends while the old primary still believes that it is connected.
#[test]
fn trap_08_a_stale_primary_learns_at_the_first_message_that_it_is_stale() {
    let fixture = fixture(&format!("{NO_PINGS}AutoPrimaryAlone=yes\n"));
    let pair = &fixture.pair;
    fixture.network.hold(From::First);
    fixture.network.hold(From::Second);
    pair.second.expect("hsb set primary alone").unwrap();
    insert(&pair.second, 10).join().unwrap().unwrap();
    assert_eq!(state(&pair.first), "PRIMARY ACTIVE", "it cannot know");
    let waiting = insert(&pair.first, 20);
    wait_until("the transaction is in doubt", || has_pending(&pair.first));
    fixture.network.resume();
    // Not PRIMARY ALONE, as after the loss of a connection.
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    assert!(!has_row(&pair.first, 20) && !waiting.is_finished(), "acknowledged by a stale primary");
    pair.first.expect("hsb set secondary alone").unwrap();
    let (sqlstate, message) = server_error(&waiting.join().unwrap().unwrap_err()).unwrap();
    assert_eq!(sqlstate, "08007", "{message}");
    reconnect(pair);
    assert!(has_row(&pair.first, 10) && !has_row(&pair.first, 20));
}

/// The same where the word of the promotion is lost and the old primary, ahead in sequence, has the older epoch.
#[test]
fn trap_08_a_stale_primary_is_not_followed() {
    let fixture = fixture("");
    let pair = &fixture.pair;
    let mut says = Vec::new();
    fixture.network.spy(move |from, data| {
        says.extend(peer_messages(data));
        let promoted = says.iter().any(|message| matches!(message, PeerMessage::Promoted));
        if from == From::Second && promoted { Verdict::CutBefore } else { Verdict::Pass }
    });
    pair.second.expect("hsb set primary alone").unwrap();
    insert(&pair.second, 10).join().unwrap().unwrap();
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    fixture.network.resume();
    pair.first.expect("hsb set primary alone").unwrap();
    for row in [20, 21] {
        insert(&pair.first, row).join().unwrap().unwrap();
    }
    pair.second.expect("hsb set secondary alone").unwrap();
    // The node with the newer epoch does not follow the one that lacks its transactions.
    for server in [&pair.first, &pair.second] {
        assert_eq!(server.connect().unwrap().0, 14525);
    }
    assert!(has_row(&pair.second, 10) && has_row(&pair.first, 20));
}
