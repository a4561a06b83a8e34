//! HotStandby: a two-node high-availability SQL database. The program is `solid`; a node can live in another program too:
//!
//! ```
//! use std::time::Duration;
//! use hotstandby::config::Parameters;
//! use hotstandby::node::{Node, StartOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (directory, port) = (tempfile::tempdir()?, hotstandby::demo::pair::reserve_port()?);
//! # let (directory, port) = (directory.path(), port.number);
//! let ini = format!("[Com]\nListen=tcp {port}\n[HotStandby]\nHSBEnabled=yes\nConnect=tcp node-b 1964\n");
//! // Or `Parameters::load(directory)`, from the solid.ini there. The warnings are for whoever wrote it.
//! let (parameters, _warnings) = Parameters::from_text(directory, &ini)?;
//! // Asked for only if the directory has no database yet.
//! let administrator = Box::new(|| Ok(("dba".to_owned(), "secret".to_owned())));
//! let node = Node::start(StartOptions { parameters, backup_server: false, administrator, netcopy_requested: None })?;
//!
//! let mut events = node.events();
//! let answer = node.command("hsb set primary alone");
//! assert_eq!(answer[0].0, 0, "{}", answer[0].1);
//! let event = events.wait(Duration::from_secs(10))?.ok_or("no event came")?;
//! assert_eq!((event.name.as_str(), event.text.as_str()), ("SYS_EVENT_HSBSTATESWITCH", "PRIMARY ALONE"));
//!
//! let mut session = node.connect("dba", "secret")?;
//! session.batch_execute("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1)")?;
//! drop(session);
//! node.shut_down();
//! # Ok(())
//! # }
//! ```
//!
//! The map, in reading order:

// What a node is and decides.
pub mod hsb;

// What it is made of.
pub mod actors;
pub mod admin;
pub mod node;
pub mod operations;

// What it stands on.
pub mod storage;

pub mod net;
pub mod services;
pub mod sql;

// What all of them use.
pub mod calendar;
pub mod client;
pub mod codec;
pub mod command_line;
pub mod config;
pub mod counters;
pub mod demo;
pub mod descriptors;
pub mod error;
pub mod logging;
pub mod pgtypes;
pub mod program;
pub mod progress;
pub(crate) mod random;
pub mod signals;
pub mod stop;
pub mod stream;
pub mod threads;

// Programs beside the nodes.
pub mod watchdog;
