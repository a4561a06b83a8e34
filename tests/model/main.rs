//! A model check: two nodes that are the real heart on the real transition table, in every order in which things can
//! happen, within bounds that are printed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dials;
mod healing;
mod network;
mod node;
mod properties;
mod record;
mod steps;
