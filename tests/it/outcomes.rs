//! What a client is told of a transaction whose session, or server, is ended while it commits: that it has committed,
//! whole; or that its outcome is not known here. Never that it has failed, unless it can never come to be.

use crate::common::embedded;
use crate::common::fixture::{Fixture, NO_PINGS, fixture, has_row, reconnect};
use crate::common::proxy::{From, Verdict, peer_messages};
use crate::common::wire::Wire;
use crate::common::{assert_identical, connected_pair, server_error, signal, sql, state, wait_until};
use hotstandby::demo::pair::{ADMINISTRATOR, Server};
use hotstandby::hsb::event::PeerMessage;
use postgres::NoTls;

fn connect(server: &Server) -> Wire {
    Wire::connect(server.port, ADMINISTRATOR.0, ADMINISTRATOR.1)
}

/// A way to insert row `id` of `t`: how it is sent, and what the client is told when it has committed.
struct Way {
    name: &'static str,
    send: fn(&mut Wire, i64),
    answer: &'static [&'static str],
}

fn insert(id: i64) -> String {
    format!("INSERT INTO t VALUES ({id})")
}

const WAYS: &[Way] = &[
    Way { name: "simple query", send: |wire, id| wire.query(&insert(id)), answer: &["C INSERT 0 1", "Z I"] },
    Way {
        name: "several statements in one simple query",
        send: |wire, id| wire.query(&format!("{}; SELECT 1; {}", insert(id), insert(-id))),
        answer: &["C INSERT 0 1", "T", "D", "C SELECT 1", "C INSERT 0 1", "Z I"],
    },
    Way {
        name: "a block with savepoints in one simple query",
        send: |wire, id| {
            let (first, second) = (insert(-id), insert(id));
            wire.query(&format!("BEGIN; SAVEPOINT s; {first}; ROLLBACK TO s; {second}; RELEASE s; COMMIT"));
        },
        answer: &[
            "C BEGIN",
            "C SAVEPOINT",
            "C INSERT 0 1",
            "C ROLLBACK",
            "C INSERT 0 1",
            "C RELEASE",
            "C COMMIT",
            "Z I",
        ],
    },
    Way {
        name: "a block over several queries",
        send: |wire, id| {
            for (text, answer) in
                [("BEGIN".into(), ["C BEGIN", "Z T"]), (insert(id), ["C INSERT 0 1", "Z T"])]
            {
                wire.query(&text);
                assert_eq!(wire.answer(), answer);
            }
            wire.query("COMMIT");
        },
        answer: &["C COMMIT", "Z I"],
    },
    Way {
        name: "extended query",
        send: |wire, id| wire.pipeline(&[&insert(id)], true),
        answer: &["1", "2", "C INSERT 0 1", "Z I"],
    },
    Way {
        name: "extended query with RETURNING",
        send: |wire, id| wire.pipeline(&[&format!("{} RETURNING id", insert(id))], true),
        answer: &["1", "2", "D", "C INSERT 0 1", "Z I"],
    },
    Way {
        name: "a pipeline that commits at its Sync",
        send: |wire, id| wire.pipeline(&[&insert(id), &insert(-id)], true),
        answer: &["1", "2", "C INSERT 0 1", "1", "2", "C INSERT 0 1", "Z I"],
    },
    Way {
        name: "a pipeline with COMMIT",
        send: |wire, id| wire.pipeline(&["BEGIN", &insert(id), "COMMIT"], true),
        answer: &["1", "2", "C BEGIN", "1", "2", "C INSERT 0 1", "1", "2", "C COMMIT", "Z I"],
    },
    Way {
        name: "a pipeline with COMMIT whose Sync is still to come",
        send: |wire, id| wire.pipeline(&["BEGIN", &insert(id), "COMMIT"], false),
        answer: &["1", "2", "C BEGIN", "1", "2", "C INSERT 0 1", "1", "2", "C COMMIT", "Z I"],
    },
    Way {
        name: "one of two transactions in a pipeline",
        send: |wire, id| {
            wire.pipeline(&[&insert(id)], true);
            wire.pipeline(&[&insert(-id)], true);
        },
        answer: &["1", "2", "C INSERT 0 1", "Z I"],
    },
    Way {
        name: "COPY",
        send: |wire, id| {
            wire.query("COPY t FROM STDIN");
            assert_eq!(wire.next().as_deref(), Some("G"));
            wire.copy(&format!("{id}\n"));
        },
        answer: &["C COPY 1", "Z I"],
    },
    Way {
        name: "COPY in an extended query",
        send: |wire, id| {
            wire.pipeline(&["COPY t FROM STDIN"], true);
            for message in ["1", "2", "G"] {
                assert_eq!(wire.next().as_deref(), Some(message));
            }
            wire.copy(&format!("{id}\n"));
            wire.send(b'S', b"");
        },
        answer: &["C COPY 1", "Z I"],
    },
];

#[test]
fn what_has_committed_is_answered_whole_before_its_session_is_thrown_out() {
    let fixture = fixture(NO_PINGS);
    let Fixture { network, pair, .. } = &fixture;
    for (way, id) in WAYS.iter().zip(10..) {
        network.hold(From::Second);
        let mut wire = connect(&pair.first);
        (way.send)(&mut wire, id);
        wait_until("the secondary has the row", || has_row(&pair.second, id));
        pair.first.expect("throwout all").unwrap();
        network.resume();
        let wanted: Vec<&str> = way.answer.iter().chain(&["E FATAL 57P01 14519"]).copied().collect();
        assert_eq!(wire.rest(), wanted, "{}", way.name);
        assert!(has_row(&pair.first, id), "{}", way.name);
    }
    assert_identical(pair);
}

/// The answer of a transaction in doubt, ended by `end` at the primary, which its client waits for.
fn assert_in_doubt(fixture: &Fixture, way: &Way, id: i64, end: impl FnOnce(&Server)) {
    let Fixture { network, pair, .. } = fixture;
    network.spy(|from, data| {
        let acknowledges =
            peer_messages(data).iter().any(|message| matches!(message, PeerMessage::Acknowledge { .. }));
        if from == From::Second && acknowledges { Verdict::CutBefore } else { Verdict::Pass }
    });
    let mut wire = connect(&pair.first);
    (way.send)(&mut wire, id);
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    wait_until("the secondary has the row", || has_row(&pair.second, id));
    network.resume();
    end(&pair.first);
    let told = wire.rest();
    let error = told.iter().find(|message| message.starts_with('E')).unwrap();
    assert!(error.ends_with(" 08007 10083"), "{}: {told:?}", way.name);
    // Whatever follows an error before ReadyForQuery is what most clients take for the outcome.
    let after = told.iter().skip_while(|message| *message != error).nth(1);
    assert!(after.is_none_or(|after| after.starts_with('Z')), "{}: {told:?}", way.name);
}

#[test]
fn a_transaction_in_doubt_is_told_as_that_to_a_session_that_is_thrown_out() {
    let fixture = fixture(NO_PINGS);
    let pair = &fixture.pair;
    for (way, id) in WAYS.iter().zip(10..) {
        assert_in_doubt(&fixture, way, id, |primary| {
            primary.expect("throwout all").unwrap();
            primary.expect("hsb set secondary alone").unwrap();
        });
        // The secondary has it: it was never to be called failed.
        pair.second.expect("hsb set primary alone").unwrap();
        reconnect(pair);
        pair.second.expect("hsb switch secondary").unwrap();
        pair.first.wait_for("hsb state", "PRIMARY ACTIVE").unwrap();
        assert!(has_row(&pair.first, id), "{}", way.name);
    }
}

#[test]
fn a_transaction_in_doubt_is_told_as_that_when_the_server_is_shut_down() {
    for way in [&WAYS[0], &WAYS[4], &WAYS[7], &WAYS[8], &WAYS[10]] {
        let fixture = fixture(NO_PINGS);
        assert_in_doubt(&fixture, way, 10, |primary| signal(primary, "-TERM"));
        assert_eq!(state(&fixture.pair.second), "SECONDARY ALONE");
    }
}

#[test]
fn a_session_ends_after_the_answer_to_the_statement_that_makes_it_end() {
    let server = embedded::server();
    server
        .connect()
        .batch_execute("CREATE USER anna IDENTIFIED BY anna; GRANT SYS_ADMIN_ROLE TO anna")
        .unwrap();
    let mut wire = Wire::connect(server.port, "anna", "anna");
    wire.pipeline(&["DROP USER anna"], true);
    let told = wire.answer();
    assert_eq!(told.last().map(String::as_str), Some("Z I"), "{told:?}");
    wire.query("SELECT 1");
    assert_eq!(wire.rest(), ["E FATAL 57P01 -"]);
}

/// It may not wait yet at the first try.
fn until_it_has_stopped<T>(waits: &std::thread::JoinHandle<T>, stop: impl Fn()) {
    wait_until("the statement is stopped", || {
        stop();
        waits.is_finished()
    });
}

#[test]
fn a_statement_that_waits_for_the_writer_is_cancelled_and_thrown_out() {
    let server = embedded::server_with("[General]\nTransactionIdleTimeOut=1000\n");
    let mut owner = server.connect();
    owner.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)").unwrap();
    for statements in ["INSERT INTO t VALUES (2)", "BEGIN; INSERT INTO t VALUES (2); COMMIT"] {
        let mut waiting = server.connect();
        waiting.batch_execute("SET LOCK TIMEOUT 1000").unwrap();
        let cancel = waiting.cancel_token();
        let waits = std::thread::spawn(move || waiting.batch_execute(statements));
        until_it_has_stopped(&waits, || cancel.cancel_query(NoTls).unwrap());
        let error = waits.join().unwrap().unwrap_err();
        assert_eq!(server_error(&error).map(|error| error.0).as_deref(), Some("57014"));

        let mut waiting = Wire::connect(server.port, "dba", "dba");
        let session = server.context.sessions.list().pop().unwrap().id;
        waiting.query("SET LOCK TIMEOUT 1000");
        assert_eq!(waiting.answer(), ["C SET", "Z I"]);
        // So long a row leaves at once: it shows that the statements have begun.
        waiting.query(&format!("SELECT hex(zeroblob(200000)); {statements}"));
        assert_eq!([waiting.next(), waiting.next()].map(Option::unwrap), ["T", "D"]);
        let waits = std::thread::spawn(move || waiting.rest());
        until_it_has_stopped(&waits, || {
            server.context.sessions.throw_out(session);
        });
        assert_eq!(waits.join().unwrap().last().unwrap(), "E FATAL 57P01 14519");
    }
    owner.batch_execute("COMMIT").unwrap();
    let rows: i64 = owner.query_one("SELECT count(*) FROM t", &[]).unwrap().get(0);
    assert_eq!(rows, 1);
}

#[test]
fn a_query_ends_when_its_client_has_left() {
    let server = embedded::server();
    let endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
    for extended in [false, true] {
        let mut wire = Wire::connect(server.port, "dba", "dba");
        if extended {
            wire.pipeline(&[endless], true)
        } else {
            wire.query(endless)
        }
        assert_eq!(server.context.sessions.count(), 1);
        wire.leave();
        wait_until("its session has ended", || server.context.sessions.count() == 0);
    }
}

/// Here "failed" is true: it was never on its way.
#[test]
fn an_open_transaction_that_a_switch_has_ended_has_failed() {
    let (_root, pair) = connected_pair("");
    sql(&pair.first).batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").unwrap();
    let mut wire = connect(&pair.first);
    for (text, answer) in [("BEGIN".into(), ["C BEGIN", "Z T"]), (insert(1), ["C INSERT 0 1", "Z T"])] {
        wire.query(&text);
        assert_eq!(wire.answer(), answer);
    }
    pair.first.expect("hsb switch secondary").unwrap();
    pair.second.wait_for("hsb state", "PRIMARY ACTIVE").unwrap();
    wire.query("COMMIT");
    assert_eq!(wire.answer(), ["E ERROR 40001 10047", "Z I"]);
    assert_identical(&pair);
    assert!(!has_row(&pair.first, 1) && !has_row(&pair.second, 1));
}
