//! The watchdog: a program beside a pair that acts on the first failure (guide, chapters 6.4 and 7).
//!
//! * `decision`: what two answers mean and what is done about it; pure, no I/O, no clock, so that the simulation
//!   (`tests/simulation`) can put it in the operator's place;
//! * `pace`: how soon an order is repeated; pure;
//! * `observer`: asks a node, listens to its events; `journal`: WatchdogLog; `signals`: what each does to the program;
//!   `program`: puts them together.
//!
//! Not here: connecting the pair again and copying; an operator does that when the failed node is back.
//!
//! Guarantees, as long as AutoPrimaryAlone=no and one watchdog runs for the pair:
//!
//! 1. It acts once. Only from normal mode, which begins when both nodes say in answers of the same round that they are
//!    PRIMARY ACTIVE and SECONDARY ACTIVE; with the action (or with a failure that needs none) failure mode begins and
//!    lasts until the pair is whole again. So it never makes one node the primary after the other, however often the
//!    network comes and goes in between. A watchdog that starts is in failure mode. The exception are two nodes that both
//!    answer SECONDARY ALONE: then the one with the longer log is promoted in either mode. An order whose answer did not
//!    come counts as given. What it has seen or made a primary it remembers: it neither tells nor advises anybody to set
//!    the other one alone while that one is out of sight, in failure mode and with AutoSwitch=no as well.
//! 2. It decides by answers that were asked for after the last event arrived. Events only wake it: late, repeated,
//!    reordered or missing ones change when it looks, not what it does. "Gone" is the exception: it holds from a failed
//!    try to the next answer, and the node's own look at its peer (3) comes on top.
//! 3. A secondary is promoted only when it says SECONDARY ALONE itself, and by `switch primary`, with which the node
//!    tries its peer over its own link. A primary that the watchdog alone cannot reach, or that is slow but answers its
//!    peer, is never replaced. `set primary alone` follows only where the peer has answered that it waits for a copy. A
//!    node that was started again and has not been connected since is no secondary that has lost its primary: what it had
//!    acknowledged and not synced, or had in memory, perhaps only the other node has.
//! 4. A primary in doubt is set alone only while the other node is gone or says SECONDARY ALONE. SECONDARY ACTIVE might
//!    be a node that is being promoted by force at this moment. A primary that knows that its peer was promoted, and two
//!    nodes whose databases have parted, are left to an operator.
//!
//! Not guaranteed: a primary that neither the watchdog nor the secondary can reach is taken for dead. If it lives, it
//! is PRIMARY UNCERTAIN (AutoPrimaryAlone=no) and acknowledges nothing that is 2-safe; with AutoPrimaryAlone=yes there
//! are two primaries, and a secondary that missed what the old one wrote alone may be promoted. An operator, or a second
//! watchdog, that promotes a node while this one promotes the other makes two primaries too. And if the pair is
//! disconnected by an operator, writes and loses its primary all between two looks, the watchdog cannot tell that from
//! a primary that was shut down in order.

pub mod decision;
mod journal;
mod observer;
pub mod pace;
mod program;
mod signals;

pub use program::run;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
