//! Reaching the other server: nothing that an operator needs waits for one that does not answer, and what was answered at
//! once says later what came of it.

use std::net::TcpListener;

use hotstandby::demo::pair::{Pair, Server};

use crate::common::{connected_pair, program, signal, sql, state, wait_until};

/// TCP connects, and nobody ever says anything.
fn silent_peer(server: &Server) -> TcpListener {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    server.expect(&format!("parameter HotStandby.Connect=tcp -r60000 127.0.0.1 {port}")).unwrap();
    silent
}

/// The second row of `hsb status connect`.
fn failure(server: &Server) -> (u32, String) {
    let mut rows = server.console().unwrap().command("hsb status connect").unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    rows.remove(1)
}

/// Before, each of these commands was refused for as long as the dial took.
#[test]
fn commands_that_force_a_state_do_not_wait_for_a_silent_peer() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "PingTimeout=0\n").unwrap();
    pair.first.start(&[]).unwrap();
    let server = &pair.first;
    let _silent = silent_peer(server);
    for (dials, forces, after) in [
        ("hsb connect", "hsb disconnect", "SECONDARY ALONE"),
        ("hsb connect", "hsb set primary alone", "PRIMARY ALONE"),
        ("hsb connect", "hsb set standalone", "STANDALONE"),
        ("hsb connect", "hsb set secondary alone", "SECONDARY ALONE"),
    ] {
        let (code, text) = server.ask(dials).unwrap();
        assert_eq!((code, text.as_str()), (0, "Started the process of connecting the servers."));
        assert_eq!(server.ask("hsb status connect").unwrap(), (14007, "CONNECTING".into()));
        server.expect(forces).unwrap();
        assert_eq!(state(server), after);
        let (code, text) = failure(server);
        assert!(code == 14710 && text.contains(forces), "{code} {text}");
    }
    // A switch that asks the peer first is answered when it is given up.
    std::thread::scope(|scope| {
        let switch = scope.spawn(|| server.ask("hsb switch primary").unwrap());
        wait_until("it dials", || server.expect("hsb status json").unwrap().contains("SWITCHING TO PRIMARY"));
        server.expect("hsb set primary alone").unwrap();
        assert_eq!(state(server), "PRIMARY ALONE");
        assert_eq!(switch.join().unwrap().0, 14710);
    });
    assert_eq!(server.ask("hsb status switch").unwrap().0, 14009, "none was begun");
}

#[test]
fn a_connect_that_fails_says_so_in_answer_status_log_and_event() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "").unwrap();
    pair.first.start(&[]).unwrap();
    let events = pair.first.console().unwrap().watch("watch SYS_EVENT_HSBCONNECTFAILED").unwrap();
    // Nobody listens there: that is known before the answer.
    let (code, text) = pair.first.ask("hsb connect").unwrap();
    assert_eq!(code, 14503, "{text}");
    let last = pair.first.console().unwrap().command("hsb status connect").unwrap().pop().unwrap();
    assert!(last.0 == 14503 && last.1.contains("The last attempt to connect failed"), "{last:?}");
    let event = events.into_iter().next().unwrap();
    assert!(event.starts_with("SYS_EVENT_HSBCONNECTFAILED 14503: not connected"), "{event}");
    let log = crate::common::settled_messages(&pair.first);
    assert!(log.contains("14503: not connected"), "{log}");
    let status = pair.first.expect("hsb status json").unwrap();
    assert!(status.contains("\"connect_failure\":\"14503: "), "{status}");
    // The next attempt begins anew.
    pair.second.start(&[]).unwrap();
    assert_eq!(pair.first.connect().unwrap().0, 14524);
}

#[test]
fn a_connect_string_that_names_the_server_itself_is_said_to() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "").unwrap();
    pair.first.start(&[]).unwrap();
    let server = &pair.first;
    server.expect(&format!("parameter HotStandby.Connect=tcp 127.0.0.1 {}", server.port)).unwrap();
    let is_said = |(code, text): (u32, String)| {
        assert!(code == 14709 && text.contains("this server itself"), "{code} {text}");
    };
    for command in ["hsb switch primary", "hsb rewind"] {
        is_said(server.ask(command).unwrap());
    }
    is_said(server.connect().unwrap());
    server.expect("hsb set primary alone").unwrap();
    is_said(server.connect().unwrap());
    is_said(server.ask("hsb switch secondary").unwrap());
    server.expect("hsb netcopy").unwrap();
    wait_until("the netcopy has failed", || server.ask("hsb status copy").unwrap().0 == 14709);
    let rows = server.console().unwrap().command("hsb status").unwrap();
    let status = rows.into_iter().map(|(_, line)| line + "\n").collect::<String>();
    assert!(
        status.contains("this server itself") && status.contains("set HotStandby.Connect to"),
        "{status}"
    );
    assert_eq!(state(server), "PRIMARY ALONE");
    pair.first.stop().unwrap();
    pair.first.start(&[]).unwrap();
    let log = crate::common::settled_messages(&pair.first);
    assert!(log.contains("is this server itself: the servers cannot connect"), "{log}");
}

#[test]
fn the_previous_role_and_the_last_switch_survive_a_restart_and_a_netcopy() {
    let (_root, mut pair) = connected_pair("");
    let role = |server: &Server| server.expect("hsb logpos").unwrap().split(':').nth(1).unwrap().to_owned();
    assert_eq!(role(&pair.second), "SECONDARY", "after a netcopy");
    pair.switch().unwrap();
    pair.swap();
    pair.first.kill();
    for start in ["first", "second"] {
        pair.first.start(&[]).unwrap();
        assert_eq!(role(&pair.first), "PRIMARY", "the {start} start after its end as a primary");
        assert_eq!(pair.first.ask("hsb status switch").unwrap(), (0, "SUCCESS".into()));
        pair.first.kill();
    }
    pair.second.stop().unwrap();
    pair.second.start(&[]).unwrap();
    assert_eq!(role(&pair.second), "PRIMARY", "it was one before the switch");
}

/// What comes of a dial that the other server answers only when this one has begun to end.
#[test]
fn a_shutdown_ends_an_attempt_to_connect_and_leaves_the_primary_as_it_was() {
    for by_signal in [false, true] {
        let (_root, mut pair) = connected_pair("PingTimeout=0\n");
        pair.first.expect("hsb disconnect").unwrap();
        pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
        // It keeps the server from ending at once.
        let mut client = sql(&pair.second);
        client.batch_execute("BEGIN; SELECT 1").unwrap();
        signal(&pair.first, "-STOP");
        pair.second.expect("hsb connect").unwrap();
        assert_eq!(pair.second.ask("hsb status connect").unwrap().0, 14007);
        let events = pair.second.console().unwrap().watch("watch SYS_EVENT_HSBCONNECTFAILED").unwrap();
        match by_signal {
            true => signal(&pair.second, "-TERM"),
            false => pair.second.expect("shutdown").map(drop).unwrap(),
        }
        let failed = events.into_iter().next().unwrap();
        assert!(failed.contains("14711"), "{failed}");
        signal(&pair.first, "-CONT");
        pair.second.wait_for_end().unwrap();
        // Whatever arrives from it has arrived when it is gone.
        wait_until("the primary has nothing under way", || {
            pair.first.ask("hsb status connect").unwrap().0 == 14537
        });
        assert_eq!(state(&pair.first), "PRIMARY ALONE");
        let log = crate::common::settled_messages(&pair.first);
        assert!(!log.contains("PRIMARY UNCERTAIN"), "{log}");
        pair.second.start(&[]).unwrap();
        pair.connect().unwrap();
    }
}

#[test]
fn the_connect_string_stays_while_anything_is_under_way_between_the_servers() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "PingTimeout=0\n").unwrap();
    pair.first.start(&[]).unwrap();
    let server = &pair.first;
    let _silent = silent_peer(server);
    let connect = server.expect("hsb cominfo").unwrap();
    let refused = |what: &str| {
        let (code, text) = server.ask("parameter HotStandby.Connect=tcp 127.0.0.1 1").unwrap();
        assert!(code == 14550 && text.contains(what), "{code} {text}");
        assert_eq!(server.expect("hsb cominfo").unwrap(), connect);
    };
    server.expect("hsb connect").unwrap();
    refused("CONNECTING. 'hsb disconnect' ends it");
    server.expect("hsb disconnect").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| server.ask("hsb switch primary").unwrap());
        wait_until("it asks", || server.expect("hsb status json").unwrap().contains("SWITCHING TO PRIMARY"));
        refused("'hsb disconnect' ends it");
        server.expect("hsb disconnect").unwrap();
    });
    server.expect("hsb set primary alone").unwrap();
    server.expect("hsb netcopy").unwrap();
    refused("COPYING. Wait until 'hsb status copy'");
    assert_eq!(server.ask("hsb disconnect").unwrap().0, 14703, "nothing ends a copy but its end");
}

#[test]
fn a_switch_that_leaves_no_primary_says_so() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::prepare(program(), root.path(), "").unwrap();
    pair.first.start(&[]).unwrap();
    pair.first.expect("hsb set primary alone").unwrap();
    let text = pair.first.expect("hsb switch secondary").unwrap();
    assert!(text.contains("SECONDARY ALONE") && text.contains("no primary now"), "{text}");
    pair.first.expect("hsb switch primary").unwrap();
    assert_eq!(state(&pair.first), "PRIMARY ALONE");
}
