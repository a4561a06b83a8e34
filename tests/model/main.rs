//! The state machine on two nodes: the real heart on the real transition table, the rest reduced to positions.
//!
//! `matrix` writes down what comes of every command and event. `properties` is a model check: every order in which things
//! can happen, within bounds that are printed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod advice;
mod dials;
mod effects;
mod healing;
mod matrix;
mod network;
mod node;
mod properties;
mod record;
mod steps;
