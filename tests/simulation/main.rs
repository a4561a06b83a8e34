//! Two nodes in one process, on one thread, in virtual time: the product's own heart, actors, log and storage under faults.
//!
//! `HSB_SEED=17 cargo test --test simulation -- --nocapture` replays one run; HSB_SIM_TRACE=1 prints its course.
//!
//! What is the product's own: everything from the writer to both databases (writer, capture, supervisor, heart, log,
//! sender, link, applier, apply, catchup, ping monitor, recovery), and the watchdog's decisions. What the simulation has in
//! its place: sockets, threads, clocks, the failures of disks, the first half of the handshake, SQL sessions, the way of
//! a netcopy over the network, and operators.
//!
//! A run has a phase of chaos ([`plan`], [`faults`], [`crashes`]) and one in which nothing breaks any more and everything
//! must become whole. It ends when the nodes are connected and level, nobody waits, and both databases are equal: by the
//! checksum that `hsb verify` compares, and by position, chain hash included ([`run`]). All along the oracle ([`oracle`],
//! [`clients`]) knows which transactions were acknowledged, have failed or are unknown, and what readers may see. What ends a
//! client's wait over its head is drawn too ([`causes`]). With a thousand seeds or more, every row of the transition table,
//! every kind of fault and every such cause must have been met ([`coverage`]).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod causes;
mod clients;
mod clock;
#[path = "../it/common/mod.rs"]
mod common;
mod copies;
mod coverage;
mod crashes;
mod dials;
mod disk;
mod faults;
mod network;
mod node;
mod operator;
mod oracle;
mod plan;
mod run;
mod steps;
mod trace;
mod watchdog;
mod world;

/// HSB_SIM_SEEDS runs so many seeds, 0 without end; HSB_SEED is the first, and the only one unless a number is given.
#[test]
fn nothing_acknowledged_is_lost() {
    let first = std::env::var("HSB_SEED").ok().and_then(|seed| seed.parse().ok());
    match common::from_environment("HSB_SIM_SEEDS", if first.is_some() { 1 } else { 60 }) {
        0 => run::endlessly(),
        count => run::campaign(first.unwrap_or(0), count),
    }
}

/// One seed is one run.
#[test]
fn a_seed_replays_the_identical_run() {
    for seed in [3, 4] {
        let (one, again) = (run::seed(seed, false), run::seed(seed, false));
        assert_eq!(one.digest, again.digest, "seed {seed}");
    }
}
