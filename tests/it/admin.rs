//! Admin commands through both ways in: SQL (`ADMIN COMMAND`) and the text console.

use std::time::Duration;

use crate::common::embedded::{Server, server, server_with};
use hotstandby::client::console::ConsoleClient;
use postgres::{Client, SimpleQueryMessage};

type Rows = Vec<(u32, String)>;

const PATIENCE: Duration = Duration::from_secs(60);

fn console(server: &Server, user: &str, password: &str) -> ConsoleClient {
    let address = ([127, 0, 0, 1], server.port).into();
    ConsoleClient::connect(address, user, password, PATIENCE).unwrap()
}

fn by_sql(client: &mut Client, command: &str) -> Rows {
    let text = format!("ADMIN COMMAND '{}'", command.replace('\'', "''"));
    let messages = client.simple_query(&text).unwrap();
    let row = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0)?.parse().unwrap(), row.get(1)?.to_owned())),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// The answer, which has to be the same through both ways in.
fn both(server: &Server, command: &str) -> Rows {
    let sql = by_sql(&mut server.connect(), command);
    let console = console(server, "dba", "dba").command(command).unwrap();
    assert_eq!(sql, console, "{command}");
    sql
}

#[test]
fn questions_are_answered_alike_by_sql_and_console() {
    let server = server_with("[HotStandby]\nHSBEnabled=yes\nConnect=tcp 127.0.0.1 1\n");
    let said = |command: &str| both(&server, command).remove(0);
    assert_eq!(said("hsb state"), (0, "SECONDARY ALONE".into()));
    assert_eq!(said("  HOTSTANDBY   State ; "), (0, "SECONDARY ALONE".into()));
    assert_eq!(said("hsb role"), (0, "SECONDARY".into()));
    assert_eq!(said("hsb status connect"), (14537, "BROKEN".into()));
    assert_eq!(said("hsb status catchup"), (0, "NOT ACTIVE".into()));
    assert_eq!(said("hsb status switch"), (14009, "NO SERVER SWITCH OCCURRED BEFORE".into()));
    assert_eq!(said("hsb cominfo").0, 0);
    assert_eq!(said("pid"), (0, std::process::id().to_string()));
    assert_eq!(said("info name"), (0, "HotStandby".into()));
    assert!(said("errorcode 14527").1.starts_with("14527 NOT_HOTSTANDBY 55000 "));
    assert!(both(&server, "help").len() > 30);
    assert!(both(&server, "commands").iter().any(|row| row.1.starts_with("hsb switch primary\tconsole\t")));
    assert!(both(&server, "help hsb netcopy").iter().any(|row| row.1.contains("SYS_CONSOLE_ROLE")));
    let (code, text) = said("hsb swich primary");
    assert!(code == 14526 && text.contains("'hsb switch primary'"), "{text}");
    let (code, text) = said("info uptme");
    assert!(code == 14526 && text.contains("'uptme'") && text.contains("uptime"), "{text}");
}

#[test]
fn the_previous_role_stands_behind_the_log_position() {
    let server = server_with("[HotStandby]\nHSBEnabled=yes\n");
    let position = || {
        let (code, text) = both(&server, "hsb logpos").remove(0);
        assert_eq!(code, 0);
        let (digits, role) = text.split_once(':').unwrap();
        assert!(digits.len() >= 21 && digits.bytes().all(|digit| digit.is_ascii_digit()), "{text}");
        (digits.to_owned(), role.to_owned())
    };
    assert_eq!(position().1, "SECONDARY");
    server.admin("hsb set primary alone");
    let before = position();
    assert_eq!(before.1, "SECONDARY");
    server.connect().batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    server.admin("hsb set secondary alone");
    let after = position();
    assert_eq!(after.1, "PRIMARY");
    assert!(after.0 > before.0);
}

#[test]
fn a_server_without_hotstandby_says_so() {
    let server = server();
    for command in ["hsb state", "hsb role", "hsb logpos", "hsb status", "hsb status copy", "hsb connect"] {
        assert_eq!(both(&server, command)[0].0, 14527, "{command}");
    }
}

#[test]
fn the_console_role_gives_hsb_and_reading_commands_only() {
    let server = server_with("[HotStandby]\nHSBEnabled=yes\n");
    server.admin("hsb set primary alone");
    let mut administrator = server.connect();
    administrator.batch_execute("CREATE USER operator IDENTIFIED BY 'secret'").unwrap();
    administrator.batch_execute("GRANT SYS_CONSOLE_ROLE TO operator").unwrap();
    administrator.batch_execute("CREATE USER clerk IDENTIFIED BY 'secret'").unwrap();
    let mut sql = server.connect_as("operator", "secret").unwrap();
    let mut console = console(&server, "operator", "secret");
    let allowed =
        ["hsb state", "hsb set primary alone", "parameter com.listen", "info uptime", "userlist", "help"];
    for command in allowed {
        assert_eq!(by_sql(&mut sql, command)[0].0, 0, "{command}");
        assert_eq!(console.ask(command).unwrap().0, 0, "{command}");
    }
    let refused = [
        "shutdown",
        "shutdown force",
        "throwout all",
        "parameter general.lockwaittimeout=7",
        "hsb parameter AutoPrimaryAlone yes",
        "save parameters",
    ];
    for command in refused {
        for (code, text) in [by_sql(&mut sql, command).remove(0), console.ask(command).unwrap()] {
            assert!(code != 0 && text.contains("SYS_ADMIN_ROLE"), "{command}: {code} {text}");
        }
    }
    let mut clerk = server.connect_as("clerk", "secret").unwrap();
    assert!(clerk.simple_query("ADMIN COMMAND 'hsb state'").is_err());
    let address = ([127, 0, 0, 1], server.port).into();
    let refused = ConsoleClient::connect(address, "clerk", "secret", PATIENCE).err().unwrap().to_string();
    assert!(
        refused.contains("needs SYS_ADMIN_ROLE or SYS_CONSOLE_ROLE, and 'clerk' has neither"),
        "{refused}"
    );
    assert_eq!(refused.matches("14501").count(), 1, "{refused}");
    let (code, text) = console.ask("backup nowhere").unwrap();
    assert!(code == 14501 && text.starts_with("'backup [directory] …' needs SYS_ADMIN_ROLE"), "{text}");
    // The code is in its column already.
    let (code, text) = console.ask("hsb copy").unwrap();
    assert!(code == 14522 && !text.contains("14522"), "{text}");
}

#[test]
fn a_server_that_goes_down_lets_open_transactions_end_and_takes_no_new_clients() {
    let server = server();
    let mut client = server.connect();
    client.batch_execute("CREATE TABLE t (id INTEGER PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)").unwrap();
    let file = server.directory.path().join("solid.db");
    let kept = tempfile::tempdir().unwrap();
    let status = server.context.status.clone();
    let address = server.port;
    let end = std::thread::spawn(move || {
        let directory = server.shut_down();
        let copy = kept.path().join("solid.db");
        std::fs::copy(directory.path().join("solid.db"), &copy).unwrap();
        assert!(!directory.path().join("solid.db-wal").exists(), "no checkpoint was made");
        (kept, copy)
    });
    crate::common::wait_until("it goes down", || status.is_shutting_down());
    let refused = postgres::Config::new()
        .host("127.0.0.1")
        .port(address)
        .user("dba")
        .password("dba")
        .connect(postgres::NoTls)
        .err()
        .unwrap();
    assert_eq!(refused.as_db_error().unwrap().code().code(), "57P03");
    client.batch_execute("INSERT INTO t VALUES (2); COMMIT").unwrap();
    let (_kept, copy) = end.join().unwrap();
    assert!(!file.exists());
    let reader = rusqlite::Connection::open(copy).unwrap();
    assert_eq!(reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

#[test]
fn sessions_are_listed_and_thrown_out() {
    let server = server();
    let mut client = server.connect();
    let id = server.ask("userlist").1.split(' ').next().unwrap().to_owned();
    assert_eq!(server.ask(&format!("throwout {id}")).0, 0);
    let error = client.batch_execute("SELECT 1").unwrap_err();
    assert!(error.as_db_error().is_none_or(|error| error.code().code() == "57P01"), "{error}");
    crate::common::wait_until("it has left", || server.context.sessions.count() == 0);
    let (code, text) = server.ask("throwout 999999");
    assert!(code == 14526 && text.contains("userlist"), "{text}");
    assert_eq!(server.ask("throwout all").0, 0);
}

#[test]
fn directories_with_blanks_and_quotes_are_taken_and_backups_are_listed() {
    let server = server();
    assert!(both(&server, "backup list")[0].1.starts_with("No backup"));
    for (given, name) in [
        ("backup my backups", "my backups"),
        ("backup \"in quotes\"", "in quotes"),
        ("backup 'it''s =mine'", "it''s =mine"),
        ("backup \"list\"", "list"),
    ] {
        std::fs::create_dir(server.directory.path().join(name)).unwrap();
        let answer = console(&server, "dba", "dba").command(given).unwrap();
        assert_eq!(answer[0].0, 0, "{given}: {answer:?}");
        server.wait_for("status backup", "SUCCESS");
        assert!(server.directory.path().join(name).join("solid.db").is_file(), "{given}");
        let list = both(&server, "backuplist");
        assert!(list[0].1.contains("backup SUCCESS") && list[0].1.ends_with(name), "{list:?}");
        assert_eq!(list, both(&server, "backup list"));
    }
    assert_eq!(both(&server, "backup list").len(), 4);
    let (code, text) = server.ask("backup no such place");
    assert!(code == 10030 && text.contains("no such place"), "{code} {text}");
}

#[test]
fn a_whole_section_or_everything_can_be_described_and_asked() {
    let server = server();
    let figures = console(&server, "dba", "dba").command("info").unwrap();
    assert!(figures.len() > 10 && figures.contains(&(0, "name: HotStandby".into())), "{figures:?}");
    let heads = |command: &str| {
        both(&server, command).into_iter().filter(|row| row.1.starts_with("Access: ")).count()
    };
    assert_eq!(heads("describe parameter"), heads("describe parameter all"));
    assert!(heads("describe parameter") > heads("describe parameter com"));
    assert_eq!(heads("describe parameter com"), both(&server, "parameter com").len());
    assert_eq!(both(&server, "describe parameter nonsense")[0].0, 14526);
}

#[test]
fn a_page_size_waits_for_the_next_new_database_and_is_shown_as_waiting() {
    let server = server();
    let said = |server: &Server, command: &str| both(server, command).remove(0).1;
    assert_eq!(
        said(&server, "parameter IndexFile.BlockSize=8K"),
        "IndexFile.BlockSize is set. It waits for the next new database."
    );
    let waiting = "IndexFile BlockSize 4K 4K 4K (waiting for the next new database: 8K)";
    assert_eq!(said(&server, "parameter indexfile.blocksize"), waiting);
    assert!(
        both(&server, "describe parameter indexfile.blocksize")
            .iter()
            .any(|row| row.1 == "Waiting for the next new database: 8K")
    );
    assert_eq!(
        said(&server, "parameter General.BackupBlockSize=128K"),
        "General.BackupBlockSize is set. It waits for the next start."
    );
    assert_eq!(
        said(&server, "parameter general.backupblocksize"),
        "General BackupBlockSize 64K 64K 64K (waiting for the next start: 128K)"
    );
    // The next start has the file that is there.
    let again = server.start_again();
    assert_eq!(said(&again, "parameter indexfile.blocksize"), waiting);
    assert_eq!(said(&again, "parameter general.backupblocksize"), "General BackupBlockSize 128K 128K 64K");
}
