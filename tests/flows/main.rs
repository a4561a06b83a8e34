//! Actor flows: who tells what to whom, in which order. The actor under test is real, everybody around it is a probe
//! that writes down what it is told. One arbiter, no sockets but the one a link needs, virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod applier;
mod ping;
mod probes;
mod supervisor;
