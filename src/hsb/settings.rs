//! Settings that the heart decides by. Values come from solid.ini; the primary's rule for the pair where the
//! documents say so.

use serde::{Deserialize, Serialize};

/// HotStandby.SafenessLevel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SafenessLevel {
    /// Answer after the local commit.
    OneSafe,
    /// Answer after the secondary's acknowledgement.
    TwoSafe,
    /// Follows the transaction's durability: relaxed is 1-safe, strict is 2-safe.
    Auto,
}

/// HotStandby.2SafeAckPolicy: when the secondary acknowledges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AcknowledgePolicy {
    /// 1: in the secondary's memory, checked and in order.
    Received,
    /// 2: committed in the secondary's database.
    Visible,
    /// 3: also in the secondary's log on disk.
    Durable,
}

/// Logging.DurabilityLevel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DurabilityLevel {
    /// 1: on disk within RelaxedMaxDelay.
    Relaxed,
    /// 2: relaxed while PRIMARY ACTIVE with 2-safe, strict otherwise.
    Adaptive,
    /// 3: on disk before the answer.
    Strict,
}

/// What a session or transaction asks for, over the server's setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Safeness {
    /// The server's.
    #[default]
    Default,
    /// 1-safe.
    OneSafe,
    /// 2-safe.
    TwoSafe,
}

/// What a session or transaction asks for, over the server's setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// The server's.
    #[default]
    Default,
    /// On disk soon.
    Relaxed,
    /// On disk before the answer.
    Strict,
}

/// The primary's settings that the secondary takes over at connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PairSettings {
    /// When the secondary acknowledges.
    pub acknowledge_policy: AcknowledgePolicy,
    /// Milliseconds between signs of life; both directions.
    pub ping_interval_ms: u64,
    /// Milliseconds of silence after which the link counts as lost; 0: never.
    pub ping_timeout_ms: u64,
}

/// All that the heart decides by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The server's safeness.
    pub safeness: SafenessLevel,
    /// The server's durability.
    pub durability: DurabilityLevel,
    /// Whether a primary goes on alone by itself when the link is lost.
    pub auto_primary_alone: bool,
    /// Whether HotStandby.Connect names a peer.
    pub has_connect_string: bool,
    /// What goes to the peer at connect.
    pub pair: PairSettings,
}

impl Settings {
    /// Whether a transaction that asks for `safeness` and `durability` is 2-safe.
    pub fn is_two_safe(&self, safeness: Safeness, durability: Durability) -> bool {
        match (safeness, self.safeness) {
            (Safeness::TwoSafe, _) => true,
            (Safeness::OneSafe, _) => false,
            (Safeness::Default, SafenessLevel::TwoSafe) => true,
            (Safeness::Default, SafenessLevel::OneSafe) => false,
            (Safeness::Default, SafenessLevel::Auto) => match durability {
                Durability::Strict => true,
                Durability::Relaxed => false,
                Durability::Default => self.durability != DurabilityLevel::Relaxed,
            },
        }
    }

    /// Whether a batch must be on disk before it is answered; `guarded`: the secondary's acknowledgement is awaited.
    pub fn is_strict(&self, durability: Durability, guarded: bool) -> bool {
        match (durability, self.durability) {
            (Durability::Strict, _) | (Durability::Default, DurabilityLevel::Strict) => true,
            (Durability::Relaxed, _) | (Durability::Default, DurabilityLevel::Relaxed) => false,
            (Durability::Default, DurabilityLevel::Adaptive) => !guarded,
        }
    }
}
