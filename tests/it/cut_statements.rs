//! What a client has cut is not carried out piece by piece.

use crate::common::embedded::{Server, server};
use crate::common::{number, server_error};
use postgres::Client;

/// The pieces in which psql sends a trigger as it stands in every schema file of SQLite.
const PIECES: [&str; 4] = [
    "CREATE TRIGGER clean AFTER DELETE ON stock BEGIN INSERT INTO audit(what) VALUES ('deleted ' || old.id);",
    "DELETE FROM audit WHERE id < 100;",
    "UPDATE stock SET n = 0;",
    "END;",
];

fn shop() -> (Server, Client) {
    let server = server();
    let mut session = server.connect();
    session
        .batch_execute(
            "CREATE TABLE stock (id INTEGER PRIMARY KEY, n INTEGER);
             CREATE TABLE audit (id INTEGER PRIMARY KEY, what TEXT);
             INSERT INTO stock VALUES (1, 10), (2, 20); INSERT INTO audit VALUES (1, 'old'), (2, 'older')",
        )
        .unwrap();
    (server, session)
}

fn refused<T>(result: Result<T, postgres::Error>) -> (String, String) {
    server_error(&result.err().expect("this should have been refused")).unwrap()
}

fn assert_untouched(session: &mut Client) {
    assert_eq!(number(session, "SELECT count(*) FROM audit"), 2);
    assert_eq!(number(session, "SELECT CAST(sum(n) AS int8) FROM stock"), 30);
    assert_eq!(number(session, "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'"), 0);
}

#[test]
fn the_pieces_of_a_trigger_that_the_client_has_cut_are_refused_up_to_its_end() {
    let (_server, mut session) = shop();
    for (index, piece) in PIECES.iter().enumerate() {
        let (state, message) = refused(session.batch_execute(piece));
        assert_eq!(state, "42601", "{message}");
        assert!(index != 0 || message.contains("AS $$"), "{message}");
    }
    assert_untouched(&mut session);

    // Prepared, as other drivers send them; without the END the session stays careful, and ROLLBACK ends that.
    for piece in &PIECES[..3] {
        assert_eq!(refused(session.execute(*piece, &[])).0, "42601");
    }
    assert_eq!(refused(session.query("SELECT 1", &[])).0, "42601");
    session.batch_execute("ROLLBACK").unwrap();
    assert_untouched(&mut session);

    // In a transaction END is not taken for its COMMIT.
    session.batch_execute("BEGIN; INSERT INTO audit VALUES (3, 'new')").unwrap();
    for piece in PIECES {
        assert_eq!(refused(session.batch_execute(piece)).0, "42601");
    }
    assert_eq!(refused(session.batch_execute("SELECT 1")).0, "25P02");
    session.batch_execute("ROLLBACK").unwrap();
    assert_untouched(&mut session);
}

#[test]
fn nothing_of_a_text_with_a_trigger_that_was_cut_is_carried_out() {
    let (_server, mut session) = shop();
    let text = format!("DELETE FROM stock; {}", PIECES[0]);
    assert_eq!(refused(session.batch_execute(&text)).0, "42601");
    assert_eq!(refused(session.batch_execute("END")).0, "42601");
    assert_untouched(&mut session);
    session.batch_execute(&PIECES.join(" ")).unwrap();
    session.batch_execute("DELETE FROM stock WHERE id = 1").unwrap();
    assert_eq!(number(&mut session, "SELECT CAST(sum(n) AS int8) FROM stock"), 0);
}

#[test]
fn the_body_of_a_trigger_may_stand_in_dollar_quotes() {
    for body in [
        "$$ INSERT INTO audit(what) VALUES ('gone'::text); UPDATE stock SET n = 0; $$",
        "$body$ INSERT INTO audit(what) VALUES ($$gone$$); UPDATE stock SET n = 0 -- all\n $body$",
        "$$ BEGIN INSERT INTO audit(what) VALUES ('gone'); UPDATE stock SET n = 0; END; $$",
    ] {
        let (_server, mut session) = shop();
        let head = "CREATE TRIGGER clean AFTER DELETE ON stock FOR EACH ROW WHEN old.id > 0 AS";
        session.batch_execute(&format!("{head} {body}; SELECT 1")).unwrap();
        session.batch_execute("DELETE FROM stock WHERE id = 1").unwrap();
        assert_eq!(number(&mut session, "SELECT CAST(sum(n) AS int8) FROM stock"), 0, "{body}");
        assert_eq!(number(&mut session, "SELECT count(*) FROM audit WHERE what = 'gone'"), 1, "{body}");
    }
    let (_server, mut session) = shop();
    for body in ["$$$$", "$$ DELETE FROM audit; END; DELETE FROM stock $$", "$$ BEGIN DELETE FROM audit; $$"]
    {
        let create = format!("CREATE TRIGGER clean AFTER DELETE ON stock AS {body}");
        assert_eq!(refused(session.batch_execute(&create)).0, "42601", "{body}");
    }
    assert_untouched(&mut session);
}

#[test]
fn a_text_that_ends_within_a_quote_or_a_comment_is_refused_whole() {
    let (_server, mut session) = shop();
    for text in [
        "DELETE FROM stock /* WHERE id = 1",
        "DELETE FROM audit; DELETE FROM stock -- all\n /* and",
        "DELETE FROM audit; SELECT 'a",
        "INSERT INTO audit(what) SELECT E'abc",
        "INSERT INTO audit(what) SELECT $$abc",
        "INSERT INTO audit(what) SELECT $a$abc$b$",
        "DELETE FROM audit; SELECT 1 AS \"x",
        "DELETE FROM audit; SELECT 1 AS [x",
        // A comment of PostgreSQL's, of which SQLite would carry out the end.
        "SELECT 1; /* /* */ DELETE FROM audit; */",
    ] {
        assert_eq!(refused(session.batch_execute(text)).0, "42601", "{text}");
    }
    assert_untouched(&mut session);
    session.batch_execute("DELETE FROM stock /* none */ WHERE id = 5 /* of ; them */; -- ' at all").unwrap();
    assert_untouched(&mut session);
}
