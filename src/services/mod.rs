//! What runs on and is looked at from everywhere in a node: its status, its events, who is connected, what became of
//! transactions with tokens, and the context in which a session works.
//!
//! Shared values with their own locks. Not here: decisions (`hsb`), messages (`actors`), protocols (`net`). Invariant:
//! nothing of what is above (`sql`, `net`, `actors`, `operations`, `admin`, `node`) is known here.

pub mod context;
pub mod events;
pub mod outcomes;
pub mod registry;
pub mod status;
