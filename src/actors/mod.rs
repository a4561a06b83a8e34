//! The actors of a node, and the typed messages between them. Thin: a message becomes an event for the heart or a
//! job for storage; the heart's effects become messages.
//!
//! ```text
//! sessions ──Submit──▶ Supervisor ──Append──▶ LogWriter ──jobs──▶ log thread
//!                       ▲  │  ▲  └──Send──────▶ ReplicationSender ◀──▶ the peer
//!   AdminHandler ───────┘  │  └────Acknowledged───────┘        │
//!   PingMonitor ──LinkLost─┘                       BatchArrived ▼
//!                          └──Follow, Drain──▶ SecondaryApplier ──jobs──▶ apply thread
//! ```
//!
//! All of them share one arbiter and none of them blocks; files and SQLite are touched on the two threads of
//! [`threads`]. Each hears one closed message (`SupervisorMessage`, `LogWriterMessage`, …), matched exhaustively, and holds
//! recipients of those of others, so that tests can put a probe in any place. What the heart wants of an actor
//! ([`crate::hsb::effect`]) is in its message as it is, under `Do`.
//! Invariant: messages between two actors arrive in order; where an order across two paths matters (a control message
//! after batches), the applier's drain restores it. Placement and wiring: `node`.

pub mod admin_handler;
pub mod catchup;
mod gathering;
pub mod link;
pub mod log_writer;
pub mod ping_monitor;
pub mod replication_sender;
pub mod secondary_applier;
pub mod supervisor;
pub mod threads;
