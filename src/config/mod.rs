//! solid.ini: which parameters there are, what they may be, what they are now, and how changes get back to the file.
//!
//! * `registry`: the one table of all parameters; * `kind`: what a value may be; * `address`: connect strings;
//! * `parser`: the file's syntax; * `parameters`: the values in force; * `getters`: the same, typed;
//! * `doubts`: warnings about what is hardly meant; * `example`: solid.ini.example.
//!
//! Not here: acting on a change (`operations::parameters` does), command-line options.

pub mod address;
mod doubts;
pub mod example;
mod for_heart;
mod getters;
pub mod kind;
pub mod parameters;
pub mod parser;
pub mod registry;
mod write_back;

pub use address::{ConnectString, ListenAddress};
pub use parameters::{ParameterRow, Parameters, SetOutcome};
pub(crate) use registry::distance;
pub use registry::{Access, Id};

use crate::error::invalid;

#[cfg(test)]
mod tests;
