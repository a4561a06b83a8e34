//! Users and their rights: who may do what, what happens to sessions when that changes, and that all of it is at the
//! other server too.

use crate::common::embedded::{Server, server};
use crate::common::{assert_identical, connected_pair, messages, server_error};
use hotstandby::client::console::ConsoleClient;
use hotstandby::demo::pair::{self, PATIENCE};
use postgres::{Client, NoTls};

fn state<T>(result: Result<T, postgres::Error>) -> String {
    server_error(&result.err().expect("this should have been refused")).expect("an answer of the server").0
}

/// The session was ended. The driver shows why, or that the connection is closed, whichever it sees first.
fn is_out<T>(result: Result<T, postgres::Error>) -> bool {
    let error = result.err().expect("this session should have been ended");
    server_error(&error).map_or(error.is_closed(), |(state, _)| state == "57P01")
}

fn console(server: &Server, user: &str, password: &str) -> Result<ConsoleClient, String> {
    let address = ([127, 0, 0, 1], server.port).into();
    ConsoleClient::connect(address, user, password, PATIENCE).map_err(|error| error.message())
}

#[test]
fn names_are_the_same_in_any_case() {
    let server = server();
    let mut admin = server.connect();
    admin.batch_execute("create user \"Anna\" identified by 'one'").unwrap();
    assert_eq!(state(admin.batch_execute("create user ANNA identified by 'two'")), "42710");
    server.connect_as("aNNa", "one").unwrap();
    admin.batch_execute("alter user anna identified by 'it''s'").unwrap();
    assert_eq!(state(server.connect_as("anna", "one")), "28P01");
    server.connect_as("Anna", "it's").unwrap();
    admin.batch_execute("drop user ANNA; drop user if exists anna").unwrap();
    assert_eq!(state(admin.batch_execute("drop user anna")), "42704");
    assert_eq!(state(server.connect_as("anna", "it's")), "28P01");
    for name in ["_hsb_x", "\"\""] {
        assert!(admin.batch_execute(&format!("create user {name} identified by 'p'")).is_err(), "{name}");
    }
}

#[test]
fn one_administrator_stays() {
    let server = server();
    let mut admin = server.connect();
    for sql in ["drop user dba", "revoke sys_admin_role from dba", "grant read_only_role to dba"] {
        assert_eq!(state(admin.batch_execute(sql)), "2BP01", "{sql}");
        assert_eq!(state(admin.batch_execute(&format!("begin; {sql}; commit"))), "2BP01", "{sql}");
        admin.batch_execute("rollback").unwrap();
    }
    admin.batch_execute("create user boss identified by 'p'; grant sys_admin_role to boss").unwrap();
    admin.batch_execute("drop user dba").unwrap();
    assert!(is_out(admin.batch_execute("select 1")));
    let mut boss = server.connect_as("boss", "p").unwrap();
    assert_eq!(state(boss.batch_execute("drop user boss")), "2BP01");
}

#[test]
fn changed_rights_hold_for_sessions_that_are_there() {
    let server = server();
    let mut admin = server.connect();
    admin.batch_execute("create user eve identified by 'p'; create table t (a integer)").unwrap();
    let mut eve = server.connect_as("eve", "p").unwrap();
    let command = "ADMIN COMMAND 'version'";
    eve.batch_execute("insert into t values (1)").unwrap();
    assert_eq!(state(eve.batch_execute(command)), "42501");
    assert!(console(&server, "eve", "p").err().unwrap().contains("SYS_CONSOLE_ROLE"));

    admin.batch_execute("grant sys_console_role to eve").unwrap();
    eve.batch_execute(command).unwrap();
    let mut console = console(&server, "eve", "p").unwrap();
    assert_eq!(console.ask("hsb state").unwrap().0, 14527);
    assert_eq!(console.ask("shutdown").unwrap().0, 14501);
    assert_eq!(console.ask("parameter com.maxconnections=1").unwrap().0, 14501);
    assert_eq!(state(eve.batch_execute("create user x identified by 'p'")), "42501");

    admin.batch_execute("grant read_only_role to eve").unwrap();
    assert_eq!(state(eve.batch_execute("insert into t values (1)")), "42501");
    assert_eq!(state(eve.batch_execute("create table u (a)")), "42501");
    assert_eq!(state(eve.batch_execute(command)), "42501");
    assert_ne!(console.ask("version").unwrap().0, 0);
    eve.batch_execute("select a from t").unwrap();
    assert_eq!(state(admin.batch_execute("revoke sys_admin_role from eve")), "42704");

    admin.batch_execute("revoke read_only_role from eve").unwrap();
    eve.batch_execute("begin; insert into t values (2)").unwrap();
    // The writer is eve's; an administrator who wants it has to end her session.
    let id = server.context.sessions.list().iter().find(|info| info.user == "eve").unwrap().id;
    assert!(server.context.sessions.throw_out(id));
    admin.batch_execute("drop user eve").unwrap();
    assert_eq!(state(server.connect_as("eve", "p")), "28P01");
    let rows = admin.query("select a from t", &[]).unwrap();
    assert_eq!(rows.len(), 1);
}

#[test]
fn a_dropped_user_is_out_at_the_next_statement() {
    let server = server();
    let mut admin = server.connect();
    admin.batch_execute("create user eve identified by 'p'; create user kim identified by 'p'").unwrap();
    let mut sessions = ["eve", "kim"].map(|user| server.connect_as(user, "p").unwrap());
    let statement = sessions[1].prepare("select 1").unwrap();
    // A snapshot of the time before does not keep her in for longer than it lasts.
    sessions[0].batch_execute("begin isolation level repeatable read; select 1").unwrap();
    admin.batch_execute("begin; drop user eve; drop user kim; rollback").unwrap();
    sessions[1].query(&statement, &[]).unwrap();
    admin.batch_execute("drop user eve; drop user kim").unwrap();
    assert!(is_out(sessions[1].query(&statement, &[])));
    sessions[0].batch_execute("select 1").unwrap();
    sessions[0].batch_execute("commit").unwrap();
    assert!(is_out(sessions[0].batch_execute("select 1")));
}

#[test]
fn users_are_at_the_other_server_too() {
    let (_root, mut pair) = connected_pair("");
    let login = |server: &pair::Server, user: &str, password: &str| -> Result<Client, postgres::Error> {
        pair::sql_configuration(server.port).user(user).password(password).connect(NoTls)
    };
    let mut primary = pair.first.sql().unwrap();
    primary
        .batch_execute(
            "create user anna identified by 'anna-first-secret'; create user eve identified by 'eve-secret';
             grant sys_console_role to anna",
        )
        .unwrap();
    assert_identical(&pair);
    let mut eve = login(&pair.second, "eve", "eve-secret").unwrap();
    eve.batch_execute("select 1").unwrap();
    primary
        .batch_execute("alter user anna identified by 'anna-second-secret'; drop user eve; revoke sys_console_role from anna")
        .unwrap();
    assert_identical(&pair);
    assert!(is_out(eve.batch_execute("select 1")));
    assert_eq!(state(login(&pair.second, "eve", "eve-secret")), "28P01");
    assert_eq!(state(login(&pair.second, "anna", "anna-first-secret")), "28P01");
    let mut at_secondary = login(&pair.second, "anna", "anna-second-secret").unwrap();
    assert_eq!(state(at_secondary.batch_execute("ADMIN COMMAND 'hsb state'")), "42501");
    assert_eq!(
        state(pair.second.sql().unwrap().batch_execute("create user x identified by 'x-secret'")),
        "25006"
    );

    pair.first.kill();
    pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    pair.second.expect("hsb set primary alone").unwrap();
    let mut after = login(&pair.second, "anna", "anna-second-secret").unwrap();
    after.batch_execute("create table mine (a integer)").unwrap();
    assert_eq!(state(login(&pair.second, "eve", "eve-secret")), "28P01");
    for server in [&pair.first, &pair.second] {
        assert!(!messages(server).contains("-secret"), "{}", messages(server));
    }
}
