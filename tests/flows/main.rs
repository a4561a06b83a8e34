//! Actor flows: who tells what to whom, in which order. The actor under test is real, everybody around it is a probe
//! that keeps what it is told as values. One arbiter, no sockets but the ones a link needs, virtual time where time matters.
//!
//! | actor | flows | where |
//! |---|---|---|
//! | supervisor | 2-safe commit, strict, switchover at both sides, broken switchover, ping timeout | `supervisor` |
//! | | connect with catchup at both sides, a peer that arrives, disconnect at both sides, standalone, loss, fast failover, probing | `connecting` |
//! | | netcopy at both sides, broken, refused; copy and backup; rewind; checkpoint | `copies` |
//! | | log full at both sides; shutdown of primary, secondary, a server alone | `ending` |
//! | admin handler | answered at once, by a thread, by the heart, by both; refused | `admin_handler` |
//! | log writer | append, flush, truncate, retain; progress, full, room, size; the end | `log_writer` |
//! | replication sender | attach, send, gather, tell, close, what arrives, catchup start and stop | `sender` |
//! | secondary applier | received, visible, durable, strict; refused batches; drain; pending | `applier` |
//! | ping monitor | silence, signs of life, not watching | `ping` |
//! | (threads) | apply thread, the writer of the database | `threads`, `writer` |

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin_handler;
mod applier;
mod connecting;
mod copies;
mod ending;
mod log_writer;
mod ping;
mod probes;
mod sender;
mod stage;
mod supervisor;
mod threads;
mod writer;
