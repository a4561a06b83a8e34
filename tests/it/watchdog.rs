//! The watchdog beside real servers: the eight scenarios of the guide's chapter 7.3, and what else may befall it. Each
//! runs twice: woken by events alone (PingInterval is longer than the test), and polling alone.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::fixture::{Fixture, QUICK_PINGS, fixture, has_row, insert, rows};
use crate::common::proxy::Network;
use crate::common::{assert_identical, signal, state, wait_until};
use hotstandby::demo::pair::{ADMINISTRATOR, Server};

const WAYS: [Way; 2] = [Way::Events, Way::Polling];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Events,
    Polling,
}

/// A pair, the networks from the watchdog to each node, and the watchdog.
struct Watched {
    fixture: Fixture,
    ways_to: [Network; 2],
    ports: [u16; 2],
    directory: PathBuf,
    way: Way,
    process: Option<Child>,
}

impl Watched {
    fn start(way: Way, parameters: &str) -> Watched {
        Watched::start_as(ADMINISTRATOR, way, parameters)
    }

    /// With another user than the administrator: it is created.
    fn start_as(user: (&str, &str), way: Way, parameters: &str) -> Watched {
        let fixture = fixture(QUICK_PINGS);
        if user != ADMINISTRATOR {
            let create =
                format!("CREATE USER {0} IDENTIFIED BY '{1}'; GRANT SYS_CONSOLE_ROLE TO {0}", user.0, user.1);
            fixture.pair.first.sql().unwrap().batch_execute(&create).unwrap();
        }
        let (to_first, first) = Network::in_front_of(&fixture.pair.first);
        let (to_second, second) = Network::in_front_of(&fixture.pair.second);
        let directory = fixture.pair.first.directory.parent().unwrap().join("watchdog");
        let interval = if way == Way::Events { 3_600_000 } else { 50 };
        let ini = format!(
            "[Watchdog]\nConnect1=tcp {first}\nConnect2=tcp {second}\nUsername1={0}\nPassword1={1}\nUsername2={0}\n\
             Password2={1}\nPingInterval={interval}\nNumRetry=1\n{parameters}",
            user.0, user.1
        );
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("solid.ini"), ini).unwrap();
        let ways_to = [to_first, to_second];
        let mut watched = Watched { fixture, ways_to, ports: [first, second], directory, way, process: None };
        watched.start_watchdog();
        watched.wait_for_lines("normal mode", 1);
        watched
    }

    fn start_watchdog(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
        command.arg("-c").arg(&self.directory).stdin(Stdio::null()).stderr(Stdio::null());
        if self.way == Way::Polling {
            command.arg("--poll-only");
        }
        self.process = Some(command.spawn().unwrap());
    }

    fn stop_watchdog(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn first(&mut self) -> &mut Server {
        &mut self.fixture.pair.first
    }

    fn second(&mut self) -> &mut Server {
        &mut self.fixture.pair.second
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("watchdog.log")).unwrap_or_default()
    }

    fn lines(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.contains(words)).count()
    }

    fn wait_for_lines(&self, words: &str, number: usize) {
        wait_until(words, || self.lines(words) >= number);
    }

    /// The orders given so far, each with the number of its node; a repetition because a node was busy counts once.
    fn orders(&self) -> Vec<String> {
        let order = |line: &str| {
            let order = line.split_once(" 'hsb ").filter(|_| !line.contains("To be done"))?.1;
            let node = self.ports.iter().position(|port| order.ends_with(&format!(" {port}")))?;
            Some(format!("{} {}", order.split(' ').next()?, node + 1))
        };
        let mut orders: Vec<String> = self.log().lines().filter_map(order).collect();
        orders.dedup();
        orders
    }

    /// The operator's part: connects, and sees the watchdog back in normal mode.
    fn connect_at(&self, server: &Server) {
        let before = self.lines("normal mode");
        server.expect("hsb connect").unwrap();
        assert_identical(&self.fixture.pair);
        self.wait_for_lines("normal mode", before + 1);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop_watchdog();
        if std::thread::panicking() {
            println!("---- watchdog ({:?})\n{}", self.way, self.log());
        }
    }
}

#[test]
fn scenario_1_primary_down() {
    for way in WAYS {
        let mut watched = Watched::start(way, "");
        watched.first().kill();
        watched.second().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        insert(watched.second(), 2).join().unwrap().unwrap();
        watched.first().start(&[]).unwrap();
        watched.connect_at(&watched.fixture.pair.second);
        assert_eq!(watched.orders(), ["switch 2"]);
        // In normal mode again: the next failure is acted on, the other way round.
        watched.second().kill();
        watched.first().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        assert!(has_row(watched.first(), 2));
    }
}

/// It is PRIMARY ALONE for an instant when it takes leave, which is not to be taken for going on alone.
#[test]
fn a_primary_that_is_shut_down_in_order_is_replaced() {
    for way in WAYS {
        for round in 0..3 {
            let mut watched = Watched::start(way, "");
            watched.first().stop().unwrap();
            watched.second().wait_for("hsb state", "PRIMARY ALONE").unwrap();
            insert(watched.second(), 2).join().unwrap().unwrap();
            watched.first().start(&[]).unwrap();
            watched.connect_at(&watched.fixture.pair.second);
            assert_eq!(watched.orders(), ["switch 2"], "round {round}");
        }
    }
}

#[test]
fn scenario_2_secondary_down() {
    for way in WAYS {
        let mut watched = Watched::start(way, "");
        watched.second().kill();
        watched.first().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        insert(watched.first(), 2).join().unwrap().unwrap();
        watched.second().start(&[]).unwrap();
        watched.connect_at(&watched.fixture.pair.first);
        assert_eq!(watched.orders(), ["set 1"]);
    }
}

#[test]
fn scenario_3_watchdog_down() {
    for way in WAYS {
        let mut watched = Watched::start(way, "DualSecAutoSwitch=no");
        watched.stop_watchdog();
        watched.first().kill();
        watched.second().wait_for("hsb state", "SECONDARY ALONE").unwrap();
        watched.start_watchdog();
        // It has not seen the pair whole, so it cannot know how old this secondary is.
        watched.wait_for_lines("the secondary has lost its primary", 1);
        watched.first().start(&[]).unwrap();
        watched.wait_for_lines("there is no primary", 1);
        assert_eq!(watched.orders(), [""; 0]);
        assert_eq!(state(watched.second()), "SECONDARY ALONE");
        watched.first().expect("hsb switch primary").unwrap();
        watched.connect_at(&watched.fixture.pair.first);
    }
}

#[test]
fn scenario_4_link_between_the_nodes_broken() {
    for way in WAYS {
        let mut watched = Watched::start(way, "");
        watched.fixture.network.cut_for_good();
        watched.first().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        insert(watched.first(), 2).join().unwrap().unwrap();
        assert_eq!(state(watched.second()), "SECONDARY ALONE");
        watched.fixture.network.resume();
        watched.connect_at(&watched.fixture.pair.first);
        assert_eq!(watched.orders(), ["set 1"]);
    }
}

#[test]
fn scenarios_5_and_6_no_contact_to_one_node() {
    for way in WAYS {
        let mut watched = Watched::start(way, "");
        for node in [0, 1] {
            watched.ways_to[node].cut_for_good();
            watched.wait_for_lines("no contact to one node", node + 1);
            insert(watched.first(), 2 + node as i64).join().unwrap().unwrap();
            watched.ways_to[node].resume();
            watched.wait_for_lines("the pair is whole", node + 2);
        }
        assert_eq!(watched.orders(), [""; 0]);
        assert_identical(&watched.fixture.pair);
    }
}

#[test]
fn scenario_7_primary_cut_off_from_all() {
    for way in WAYS {
        let mut watched = Watched::start(way, "");
        watched.ways_to[0].cut_for_good();
        watched.wait_for_lines("no contact to one node", 1);
        watched.fixture.network.cut_for_good();
        watched.second().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        insert(watched.second(), 2).join().unwrap().unwrap();
        assert_eq!(state(watched.first()), "PRIMARY UNCERTAIN", "it accepts nothing");
        watched.ways_to[0].resume();
        watched.fixture.network.resume();
        watched.wait_for_lines("PRIMARY UNCERTAIN", 1);
        watched.first().expect("hsb set secondary alone").unwrap();
        watched.connect_at(&watched.fixture.pair.second);
        assert_eq!(watched.orders(), ["switch 2"]);
    }
}

/// The old primary is cut off from all and its secondary promoted; then the new primary is out of sight and the old one back.
#[test]
fn the_old_primary_is_not_set_alone_while_the_new_one_is_out_of_sight() {
    for (way, parameters) in [(Way::Events, ""), (Way::Polling, "")] {
        let mut watched = Watched::start(way, parameters);
        watched.ways_to[0].cut_for_good();
        watched.wait_for_lines("no contact to one node", 1);
        watched.fixture.network.cut_for_good();
        watched.second().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        watched.ways_to[1].cut_for_good();
        watched.wait_for_lines("no node answers", 1);
        watched.ways_to[0].resume();
        let advice = format!("'hsb set secondary alone' at tcp 127.0.0.1 {}", watched.ports[0]);
        watched.wait_for_lines(&advice, 1);
        assert_eq!(watched.lines("'hsb set primary alone'"), 0);
        assert_eq!(state(watched.first()), "PRIMARY UNCERTAIN");
        watched.first().expect("hsb set secondary alone").unwrap();
        watched.ways_to[1].resume();
        watched.fixture.network.resume();
        let advice = format!("not connected: 'hsb connect' at tcp 127.0.0.1 {}", watched.ports[1]);
        watched.wait_for_lines(&advice, 1);
        watched.connect_at(&watched.fixture.pair.second);
        assert_eq!(watched.orders(), ["switch 2"]);
    }
}

/// The watchdog's password is changed on a running pair: it says so before it matters, and its connections outlive it.
#[test]
fn a_changed_password_is_warned_of_at_once_and_the_failover_happens_all_the_same() {
    for way in WAYS {
        let mut watched = Watched::start_as(("guard", "old"), way, "");
        let change = "ALTER USER guard IDENTIFIED BY 'new'";
        watched.first().sql().unwrap().batch_execute(change).unwrap();
        watched.wait_for_lines("refuses a new log-in of guard", 2);
        watched.first().kill();
        watched.second().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        assert_eq!(watched.orders(), ["switch 2"]);
        assert_eq!(watched.lines("'hsb switch primary' at"), 1);
    }
}

/// No connection is left, so that nothing can be ordered: the log says why and what to do, and does not grow.
#[test]
fn a_watchdog_that_nobody_lets_in_says_so_once() {
    let mut watched = Watched::start_as(("guard", "old"), Way::Polling, "");
    watched.stop_watchdog();
    let change = "ALTER USER guard IDENTIFIED BY 'new'";
    watched.first().sql().unwrap().batch_execute(change).unwrap();
    watched.start_watchdog();
    // More than one log-in interval.
    watched.wait_for_lines("WARNING", 2);
    watched.wait_for_lines("lives, but refuses to say how it is", 1);
    assert_eq!(watched.lines("lives, but refuses to say how it is"), 1, "{}", watched.log());
    assert_eq!(watched.orders(), [""; 0]);
}

#[test]
fn scenario_8_secondary_cut_off_from_all() {
    for way in WAYS {
        let mut watched = Watched::start(way, "");
        watched.ways_to[1].cut_for_good();
        watched.wait_for_lines("no contact to one node", 1);
        watched.fixture.network.cut_for_good();
        watched.first().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        assert_eq!(state(watched.second()), "SECONDARY ALONE");
        watched.ways_to[1].resume();
        watched.fixture.network.resume();
        watched.connect_at(&watched.fixture.pair.first);
        assert_eq!(watched.orders(), ["set 1"]);
    }
}

#[test]
fn without_auto_switch_it_only_writes_what_should_be_done() {
    for way in WAYS {
        let mut watched = Watched::start(way, "AutoSwitch=no");
        watched.second().kill();
        watched.wait_for_lines("stays so: 'hsb set primary alone' at", 1);
        watched.wait_for_lines("failure mode", 1);
        assert_eq!(state(watched.first()), "PRIMARY UNCERTAIN");
        watched.second().start(&[]).unwrap();
        watched.connect_at(&watched.fixture.pair.first);
        watched.first().kill();
        watched.wait_for_lines("stays so: 'hsb switch primary' at", 1);
        watched.wait_for_lines("failure mode", 2);
        assert_eq!(state(watched.second()), "SECONDARY ALONE");
        assert_eq!(watched.orders(), [""; 0]);
    }
}

/// No second failure is acted on; both secondaries is not one.
#[test]
fn of_two_secondaries_the_one_ahead_is_promoted() {
    for way in WAYS {
        let mut watched = Watched::start(way, "");
        watched.first().kill();
        watched.second().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        insert(watched.second(), 2).join().unwrap().unwrap();
        watched.first().start(&[]).unwrap();
        watched.second().kill();
        watched.wait_for_lines("one node has been started again", 1);
        watched.second().start(&[]).unwrap();
        watched.second().wait_for("hsb state", "PRIMARY ALONE").unwrap();
        assert_eq!(rows(watched.second()), 2);
        assert_eq!(state(watched.first()), "SECONDARY ALONE", "it was behind and never promoted");
        watched.connect_at(&watched.fixture.pair.second);
        assert_eq!(watched.orders(), ["switch 2"], "twice, with a failure in between");
    }
}

/// The primary lives and answers its peer, only the watchdog cannot reach it: the secondary finds that out and refuses.
#[test]
fn a_primary_that_its_secondary_can_reach_is_not_replaced() {
    for way in WAYS {
        let mut watched = Watched::start(way, "");
        watched.ways_to[0].cut_for_good();
        watched.wait_for_lines("no contact to one node", 1);
        watched.fixture.network.cut();
        watched.wait_for_lines("answers: 14700", 1);
        assert_eq!(state(watched.first()), "PRIMARY UNCERTAIN");
        assert_eq!(state(watched.second()), "SECONDARY ALONE");
        watched.ways_to[0].resume();
        watched.connect_at(&watched.fixture.pair.second);
        assert_eq!(watched.orders(), ["switch 2"]);
    }
}

/// An operator promotes the secondary of a living primary: the watchdog does not set the old primary alone, whether it
/// sees the new one or not.
#[test]
fn an_operators_forced_failover_is_not_undone() {
    for way in WAYS {
        let mut watched = Watched::start(way, "");
        watched.second().expect("hsb set primary alone").unwrap();
        watched.first().wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
        watched.wait_for_lines("one node goes on alone", 1);
        watched.first().expect("hsb set secondary alone").unwrap();
        watched.connect_at(&watched.fixture.pair.second);
        watched.ways_to[0].cut_for_good();
        watched.wait_for_lines("no contact to one node", 1);
        watched.first().expect("hsb set primary alone").unwrap();
        watched.wait_for_lines("knows that its peer was promoted", 1);
        assert_eq!(state(watched.second()), "PRIMARY UNCERTAIN");
        assert_eq!(watched.orders(), [""; 0]);
    }
}

/// A primary that stops without a word is replaced after its ping timeout; when it goes on, it accepts nothing.
#[test]
fn a_silent_primary_is_replaced_and_does_not_come_back_as_one() {
    // Without polls a silent node is only asked when something else happens.
    let mut watched = Watched::start(Way::Polling, "");
    insert(watched.first(), 2).join().unwrap().unwrap();
    // So long the secondary tries the silent primary before it takes over.
    watched.second().expect("parameter HotStandby.ConnectTimeout=300 temporary").unwrap();
    signal(watched.first(), "-STOP");
    watched.second().wait_for("hsb state", "PRIMARY ALONE").unwrap();
    insert(watched.second(), 3).join().unwrap().unwrap();
    signal(watched.first(), "-CONT");
    watched.first().wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    watched.wait_for_lines("PRIMARY UNCERTAIN", 1);
    watched.first().expect("hsb set secondary alone").unwrap();
    watched.connect_at(&watched.fixture.pair.second);
    assert_eq!(watched.orders(), ["switch 2"]);
    assert_eq!(rows(watched.first()), 3);
}

/// As a service gets them: it goes on, in a new file after SIGHUP, though nobody reads its stderr, and ends with a word.
#[test]
fn signals_do_not_take_the_watchdog_away() {
    let mut watched = Watched::start(Way::Events, "");
    let process = i32::try_from(watched.process.as_ref().unwrap().id()).unwrap();
    let send = |name: &str| {
        let status = Command::new("kill").arg(name).arg(process.to_string()).status();
        assert!(status.unwrap().success());
    };
    let log = watched.directory.join("watchdog.log");
    std::fs::rename(&log, watched.directory.join("old")).unwrap();
    send("-HUP");
    watched.wait_for_lines("SIGHUP: the log was opened anew", 1);
    for signal in ["-USR1", "-USR2", "-ALRM", "-VTALRM", "-PROF", "-29", "-XFSZ", "-PIPE"] {
        send(signal);
    }
    watched.wait_for_lines("means nothing to the watchdog", 1);
    watched.second().kill();
    watched.first().wait_for("hsb state", "PRIMARY ALONE").unwrap();
    send("-TERM");
    let status = watched.process.take().unwrap().wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(watched.lines("SIGTERM: the watchdog ends"), 1, "{}", watched.log());
}

#[test]
fn one_watchdog_is_enough_and_warns_of_what_makes_two_primaries() {
    let mut watched = Watched::start(Way::Events, "");
    let second =
        Command::new(env!("CARGO_BIN_EXE_watchdog")).arg("-c").arg(&watched.directory).output().unwrap();
    let errors = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && errors.contains("runs already"), "{errors}");
    watched.stop_watchdog();
    watched.first().expect("parameter HotStandby.AutoPrimaryAlone=yes").unwrap();
    watched.start_watchdog();
    watched.wait_for_lines("WARNING", 1);
}
