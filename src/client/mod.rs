//! Clients of a node's console.
//!
//! * `console`: one connection; * `credentials`: whose; * `solcon`: the program, with `options` (its command line),
//!   `interactive` (line editing) and `status_screen` (both nodes at a glance).
//!
//! Not here: what commands mean; the server says that itself (`help`, `commands`).

pub mod console;
pub mod credentials;
mod interactive;
mod options;
pub mod solcon;
mod status_screen;
