//! Promotion against a live primary, and switches that break: never two primaries that were not asked for.

use std::time::{Duration, Instant};

use crate::common::fixture::{Fixture, Waiting, fixture, has_row, insert, reconnect, rows};
use crate::common::proxy::{Verdict, peer_messages};
use crate::common::{Random, assert_identical, from_environment, server_error, sql, state, wait_until};
use hotstandby::demo::pair::Server;
use hotstandby::hsb::event::PeerMessage;

/// `set primary alone` at the secondary while the old primary lives.
fn promoted_under_a_live_primary() -> Fixture {
    let fixture = fixture("AutoPrimaryAlone=yes\n");
    let pair = &fixture.pair;
    pair.second.expect("hsb set primary alone").unwrap();
    assert_eq!(state(&pair.second), "PRIMARY ALONE");
    pair.first.wait_for("hsb state", "PRIMARY UNCERTAIN").unwrap();
    insert(&pair.second, 10).join().unwrap().unwrap();
    fixture
}

#[test]
fn an_old_primary_that_wrote_nothing_alone_follows_the_new_one() {
    let fixture = promoted_under_a_live_primary();
    let pair = &fixture.pair;
    let waiting = insert(&pair.first, 20);
    for server in [&pair.first, &pair.second] {
        assert_eq!(server.connect().unwrap().0, 14700);
    }
    assert_eq!(
        (state(&pair.first), state(&pair.second)),
        ("PRIMARY UNCERTAIN".into(), "PRIMARY ALONE".into())
    );
    pair.first.expect("hsb set secondary alone").unwrap();
    // It waited as for a lock: nobody has it, so it is surely rolled back.
    let (sqlstate, message) = server_error(&waiting.join().unwrap().unwrap_err()).unwrap();
    assert!(["25006", "40001"].contains(&sqlstate.as_str()), "{sqlstate} {message}");
    reconnect(pair);
    assert_eq!((rows(&pair.first), has_row(&pair.first, 20)), (2, false));
}

#[test]
fn an_old_primary_that_wrote_alone_is_refused() {
    let fixture = promoted_under_a_live_primary();
    let pair = &fixture.pair;
    pair.first.expect("hsb set primary alone").unwrap();
    insert(&pair.first, 20).join().unwrap().unwrap();
    // R5: whoever asks, both stop being primaries.
    let (code, text) = pair.first.connect().unwrap();
    assert_eq!(code, 14528);
    assert!(text.contains("The histories parted at ") && text.contains("has made 1 transaction"), "{text}");
    for server in [&pair.first, &pair.second] {
        server.wait_for("hsb state", "SECONDARY ALONE").unwrap();
    }
    pair.second.expect("hsb set primary alone").unwrap();
    for server in [&pair.first, &pair.second] {
        let (code, text) = server.connect().unwrap();
        assert_eq!(code, 14525, "{text}");
        assert_eq!(
            (state(&pair.first), state(&pair.second)),
            ("SECONDARY ALONE".into(), "PRIMARY ALONE".into())
        );
    }
    assert!(has_row(&pair.first, 20) && has_row(&pair.second, 10), "nothing is thrown away");
}

/// Promotion under load: the old primary must hear of it, whatever is under way.
#[test]
fn a_primary_under_load_hears_of_the_promotion() {
    let rounds = from_environment("HSB_FAILOVER_ROUNDS", 3);
    let fixture = fixture("AutoPrimaryAlone=yes\n");
    let (mut old, mut new) = (&fixture.pair.first, &fixture.pair.second);
    let mut next_id = 1000;
    for _ in 0..rounds {
        let mut sessions: Vec<_> = (0..4).map(|_| sql(old)).collect();
        let first_id = next_id;
        next_id += 1_000_000;
        let writers: Vec<_> = (0..4)
            .map(|client| {
                let mut session = sessions.pop().unwrap();
                std::thread::spawn(move || {
                    let ids = (first_id + client..).step_by(4);
                    ids.take_while(|id| {
                        session.batch_execute(&format!("INSERT INTO t VALUES ({id})")).is_ok()
                    })
                    .collect::<Vec<i64>>()
                })
            })
            .collect();
        wait_until("there is load", || has_row(new, first_id + 20));
        new.expect("hsb set primary alone").unwrap();
        wait_until("the old primary has heard", || state(old) != "PRIMARY ACTIVE");
        assert_eq!(state(old), "PRIMARY UNCERTAIN");
        old.expect("hsb set secondary alone").unwrap();
        for id in writers.into_iter().flat_map(|writer| writer.join().unwrap()) {
            assert!(has_row(new, id), "{id} was acknowledged");
        }
        old.expect("hsb connect").unwrap();
        assert_identical(&fixture.pair);
        std::mem::swap(&mut old, &mut new);
    }
}

/// One switch with the network cut at a moment of the switch; returns whether it went through, and the clients that may
/// wait for a primary that is in doubt.
fn broken_switch(
    fixture: &Fixture,
    primary: &Server,
    secondary: &Server,
    random: &mut Random,
) -> (bool, Vec<Waiting>) {
    let from_secondary = random.below(2) == 0;
    let asked = if random.below(2) == 0 {
        (secondary, "hsb switch primary")
    } else {
        (primary, "hsb switch secondary")
    };
    let (mut countdown, before) = (random.below(4), random.below(2) == 0);
    fixture.network.spy(move |_, data| {
        let part_of_switch = |message: &PeerMessage| {
            matches!(
                message,
                PeerMessage::AskSwitch
                    | PeerMessage::HandOver { .. }
                    | PeerMessage::TakeOver
                    | PeerMessage::HandedOver
            )
        };
        if !peer_messages(data).iter().any(part_of_switch) {
            return Verdict::Pass;
        }
        countdown = countdown.wrapping_sub(1);
        match countdown == u64::MAX {
            true if before => Verdict::CutBefore,
            true => Verdict::CutAfter,
            false => Verdict::Pass,
        }
    });
    let load: Vec<Waiting> =
        if from_secondary { vec![insert(primary, random.next() as i64 >> 1)] } else { Vec::new() };
    asked.0.expect(asked.1).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let states = (state(primary), state(secondary));
        if states == ("PRIMARY ACTIVE".into(), "PRIMARY ACTIVE".into()) {
            // Or the roles were exchanged between the two questions.
            assert_ne!(state(primary), "PRIMARY ACTIVE", "two primaries");
        }
        let switches = [primary, secondary].map(|server| server.ask("hsb status switch").unwrap().0);
        if !switches.contains(&14003) && states.0 != "PRIMARY ACTIVE" && states.1 != "SECONDARY ACTIVE" {
            break;
        }
        assert!(Instant::now() < deadline, "the switch does not end: {states:?} {switches:?}");
        std::thread::sleep(Duration::from_millis(3));
    }
    fixture.network.resume();
    (state(secondary) == "PRIMARY ACTIVE" && state(primary) == "SECONDARY ACTIVE", load)
}

/// Whatever became of their statements, the clients are answered.
fn finish(load: Vec<Waiting>) {
    for waiting in load {
        let _ = waiting.join().unwrap();
    }
}

#[test]
fn a_switch_that_breaks_leaves_no_two_primaries() {
    let mut random = Random::seeded("broken switches");
    let rounds = from_environment("HSB_SWITCH_ROUNDS", 12);
    let fixture = fixture("");
    let (mut primary, mut secondary) = (&fixture.pair.first, &fixture.pair.second);
    let mut went_through = 0;
    for round in 0..rounds {
        let (switched, load) = broken_switch(&fixture, primary, secondary, &mut random);
        if switched {
            went_through += 1;
            std::mem::swap(&mut primary, &mut secondary);
            finish(load);
            continue;
        }
        let states = (state(primary), state(secondary));
        println!("round {round}: {states:?}");
        // The last message may have gone through before the cut: then the new primary is one, and lost its peer. Or
        // the first did not: then the old primary knows of no switch, and lost its peer as well.
        if states == ("PRIMARY UNCERTAIN".into(), "SECONDARY ALONE".into()) {
        } else if states == ("SECONDARY ALONE".into(), "PRIMARY UNCERTAIN".into()) {
            std::mem::swap(&mut primary, &mut secondary);
        } else {
            assert_eq!(states, ("SECONDARY ALONE".into(), "SECONDARY ALONE".into()), "round {round}");
            let ahead = primary.expect("hsb logpos").unwrap() >= secondary.expect("hsb logpos").unwrap();
            if !ahead
                || random.below(2) == 0
                    && primary.expect("hsb logpos").unwrap() == secondary.expect("hsb logpos").unwrap()
            {
                std::mem::swap(&mut primary, &mut secondary);
            }
            primary.expect("hsb set primary alone").unwrap();
        }
        primary.expect("hsb connect").unwrap();
        finish(load);
        assert_identical(&fixture.pair);
    }
    println!("{rounds} switches were disturbed, {went_through} went through");
}

/// Neither refuses the other, and neither waits for ever.
#[test]
fn connect_at_both_servers_at_the_same_moment() {
    let fixture = fixture("");
    let pair = &fixture.pair;
    for _ in 0..5 {
        pair.first.expect("hsb disconnect").unwrap();
        for (server, alone) in [(&pair.first, "PRIMARY ALONE"), (&pair.second, "SECONDARY ALONE")] {
            server.wait_for("hsb state", alone).unwrap();
        }
        let codes = std::thread::scope(|scope| {
            let ask = |server| scope.spawn(move || Server::connect(server).unwrap().0);
            [ask(&pair.first), ask(&pair.second)].map(|asked| asked.join().unwrap())
        });
        // One that comes later than the other's success meets a catchup or a connected pair.
        assert!(codes.contains(&0) && codes.iter().all(|code| [0, 14702, 14539].contains(code)), "{codes:?}");
        pair.first.wait_for("hsb state", "PRIMARY ACTIVE").unwrap();
        pair.second.wait_for("hsb state", "SECONDARY ACTIVE").unwrap();
    }
}

/// Each asks the other first whether it is a primary; neither may be told "no" by one that is about to become it.
#[test]
fn switch_primary_at_two_secondaries_at_once_makes_one_primary_at_most() {
    let fixture = fixture("");
    let pair = &fixture.pair;
    for round in 0..from_environment("HSB_SWITCH_ROUNDS", 5) {
        pair.first.wait_for("hsb state", "PRIMARY ACTIVE").unwrap();
        pair.first.expect("hsb disconnect").unwrap();
        pair.first.wait_for("hsb state", "PRIMARY ALONE").unwrap();
        pair.second.wait_for("hsb state", "SECONDARY ALONE").unwrap();
        pair.first.expect("hsb set secondary alone").unwrap();
        let together = std::sync::Barrier::new(2);
        let switch = |server: &Server| {
            let mut console = server.console().unwrap();
            together.wait();
            console.command("hsb switch primary").unwrap()[0].0
        };
        let codes = std::thread::scope(|scope| {
            let one = scope.spawn(|| switch(&pair.first));
            let two = switch(&pair.second);
            (one.join().unwrap(), two)
        });
        let primaries =
            [&pair.first, &pair.second].into_iter().filter(|server| state(server) == "PRIMARY ALONE").count();
        assert!(primaries <= 1, "round {round}: {codes:?}");
        assert_eq!(primaries, [codes.0, codes.1].iter().filter(|code| **code == 0).count(), "{codes:?}");
        if state(&pair.second) == "PRIMARY ALONE" {
            pair.second.expect("hsb set secondary alone").unwrap();
        }
        if state(&pair.first) != "PRIMARY ALONE" {
            pair.first.expect("hsb set primary alone").unwrap();
        }
        pair.first.expect("hsb connect").unwrap();
    }
}
