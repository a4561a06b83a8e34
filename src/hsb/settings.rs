//! The settings that decide when a commit is answered, as values: safeness, acknowledgement, durability.
//!
//! Not here: where they are configured (`config`) or set per session (`sql`). Invariant: the text form of each value
//! is the one that solid.ini uses, and parsing it gives the value back.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether a commit waits for the other server (HotStandby.SafenessLevel).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum SafenessLevel {
    /// The answer does not wait for the secondary.
    OneSafe,
    /// The answer waits for the secondary's acknowledgement.
    #[default]
    TwoSafe,
    /// Relaxed durability means 1-safe, strict durability 2-safe.
    Auto,
}

impl SafenessLevel {
    /// What solid.ini calls each of them.
    pub const NAMES: [&'static str; 3] = ["1safe", "2safe", "auto"];

    /// The level whose name stands at this place of [`Self::NAMES`].
    pub fn at(place: u64) -> SafenessLevel {
        match place {
            0 => SafenessLevel::OneSafe,
            1 => SafenessLevel::TwoSafe,
            _ => SafenessLevel::Auto,
        }
    }
}

impl fmt::Display for SafenessLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(Self::NAMES[*self as usize])
    }
}

/// When the secondary acknowledges a 2-safe commit (HotStandby.2SafeAckPolicy).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum AcknowledgePolicy {
    /// 1: it is in the secondary's memory, checked and in order.
    #[default]
    Received,
    /// 2: it is committed in the secondary's database.
    Visible,
    /// 3: it is also on the secondary's disk.
    Durable,
}

impl AcknowledgePolicy {
    /// The policy with this number in solid.ini.
    pub fn from_number(number: u64) -> Option<AcknowledgePolicy> {
        match number {
            1 => Some(AcknowledgePolicy::Received),
            2 => Some(AcknowledgePolicy::Visible),
            3 => Some(AcknowledgePolicy::Durable),
            _ => None,
        }
    }

    /// Its number in solid.ini.
    pub fn number(self) -> u64 {
        self as u64 + 1
    }
}

impl fmt::Display for AcknowledgePolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            AcknowledgePolicy::Received => "received",
            AcknowledgePolicy::Visible => "visible",
            AcknowledgePolicy::Durable => "durable",
        })
    }
}

/// When a commit must be on the local disk (Logging.DurabilityLevel).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum DurabilityLevel {
    /// 1: within Logging.RelaxedMaxDelay.
    Relaxed,
    /// 2: relaxed while PRIMARY ACTIVE with 2-safe, strict in every other state.
    #[default]
    Adaptive,
    /// 3: before the answer.
    Strict,
}

impl DurabilityLevel {
    /// The level with this number in solid.ini.
    pub fn from_number(number: u64) -> Option<DurabilityLevel> {
        match number {
            1 => Some(DurabilityLevel::Relaxed),
            2 => Some(DurabilityLevel::Adaptive),
            3 => Some(DurabilityLevel::Strict),
            _ => None,
        }
    }

    /// Its number in solid.ini.
    pub fn number(self) -> u64 {
        self as u64 + 1
    }
}

impl fmt::Display for DurabilityLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            DurabilityLevel::Relaxed => "relaxed",
            DurabilityLevel::Adaptive => "adaptive",
            DurabilityLevel::Strict => "strict",
        })
    }
}

/// What a session or transaction asks for, over the server's setting: from `SET SAFENESS` to the batch.
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

impl Safeness {
    /// Each with the word that SET SAFENESS takes and SHOW SAFENESS says.
    pub const WORDS: [(Safeness, &str); 3] =
        [(Safeness::OneSafe, "1safe"), (Safeness::TwoSafe, "2safe"), (Safeness::Default, "default")];

    /// What a batch asks for that holds a transaction of each: 2-safe is more than the server's, and that than 1-safe.
    pub fn or_stronger(self, other: Safeness) -> Safeness {
        match (self, other) {
            (Safeness::TwoSafe, _) | (_, Safeness::TwoSafe) => Safeness::TwoSafe,
            (Safeness::Default, _) | (_, Safeness::Default) => Safeness::Default,
            (Safeness::OneSafe, Safeness::OneSafe) => Safeness::OneSafe,
        }
    }
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

impl Durability {
    /// Each with the word that SET DURABILITY takes and SHOW DURABILITY says.
    pub const WORDS: [(Durability, &str); 3] =
        [(Durability::Relaxed, "relaxed"), (Durability::Strict, "strict"), (Durability::Default, "default")];

    /// What a batch asks for that holds a transaction of each: strict is more than the server's, and that than relaxed.
    pub fn or_stronger(self, other: Durability) -> Durability {
        match (self, other) {
            (Durability::Strict, _) | (_, Durability::Strict) => Durability::Strict,
            (Durability::Default, _) | (_, Durability::Default) => Durability::Default,
            (Durability::Relaxed, Durability::Relaxed) => Durability::Relaxed,
        }
    }
}

/// The word for a value of such a list.
pub fn word<T: PartialEq>(words: &[(T, &'static str)], value: T) -> &'static str {
    words.iter().find(|(known, _)| *known == value).map_or("", |(_, word)| word)
}

/// The primary's settings that the secondary takes over at connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct PairSettings {
    /// When the secondary acknowledges.
    pub acknowledge_policy: AcknowledgePolicy,
    /// Milliseconds between signs of life; both directions.
    pub ping_interval_ms: u64,
    /// Milliseconds of silence after which the link counts as lost; 0: never.
    pub ping_timeout_ms: u64,
}

/// When a secondary acknowledges what it has received, and what it has on disk then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct AcknowledgeRule {
    /// The primary's.
    pub policy: AcknowledgePolicy,
    /// Strict durability: what is applied is in the log on disk. Otherwise a power cut may leave the database ahead of the
    /// log, which begins anew then and is of no use to the other server for catching up.
    pub strict: bool,
}

/// What should be the same at both servers and that the heart does not decide by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct SameSettings {
    /// HotStandby.ConnectTimeout, in milliseconds.
    pub connect_timeout_ms: u64,
    /// IndexFile.BlockSize.
    pub page_bytes: u64,
    /// General.BackupBlockSize.
    pub backup_block_bytes: u64,
}

/// All that the heart decides by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
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
    /// HotStandby.MaxLogSize: bytes of log that are kept for the peer at most; none: unlimited.
    pub maximum_log_bytes: Option<u64>,
    /// What is only compared.
    pub same: SameSettings,
}

impl Settings {
    /// These, with the primary's where its values are in force at both servers.
    pub fn with_rule_of(self, primary: &Settings) -> Settings {
        Settings { safeness: primary.safeness, durability: primary.durability, pair: primary.pair, ..self }
    }

    /// These, with what the primary rules changed where the operator has changed it.
    pub fn with_changes(mut self, before: &Settings, after: &Settings) -> Settings {
        fn follow<T: PartialEq + Copy>(value: &mut T, before: T, after: T) {
            if before != after {
                *value = after;
            }
        }
        follow(&mut self.safeness, before.safeness, after.safeness);
        follow(&mut self.durability, before.durability, after.durability);
        let (old, new) = (before.pair, after.pair);
        follow(&mut self.pair.acknowledge_policy, old.acknowledge_policy, new.acknowledge_policy);
        follow(&mut self.pair.ping_interval_ms, old.ping_interval_ms, new.ping_interval_ms);
        follow(&mut self.pair.ping_timeout_ms, old.ping_timeout_ms, new.ping_timeout_ms);
        self
    }

    /// What should be the same at both servers and is not: parameter, value here, value there.
    pub fn differences(&self, theirs: &Settings) -> Vec<String> {
        let numbers = |settings: &Settings| {
            [
                ("HotStandby.2SafeAckPolicy", settings.pair.acknowledge_policy.number()),
                ("HotStandby.ConnectTimeout", settings.same.connect_timeout_ms),
                ("Logging.DurabilityLevel", settings.durability.number()),
                ("IndexFile.BlockSize", settings.same.page_bytes),
                ("General.BackupBlockSize", settings.same.backup_block_bytes),
            ]
        };
        let pairs = numbers(self).into_iter().zip(numbers(theirs));
        let differ = pairs.filter(|((_, here), (_, there))| here != there);
        let mut found: Vec<String> = differ
            .map(|((name, here), (_, there))| {
                format!("{name} is {here} here and {there} at the other server")
            })
            .collect();
        if self.auto_primary_alone != theirs.auto_primary_alone {
            let word = |yes| if yes { "yes" } else { "no" };
            let (here, there) = (word(self.auto_primary_alone), word(theirs.auto_primary_alone));
            found.push(format!("HotStandby.AutoPrimaryAlone is {here} here and {there} at the other server"));
        }
        found
    }

    /// How a secondary under these settings acknowledges.
    pub fn acknowledge_rule(&self) -> AcknowledgeRule {
        let strict = self.durability == DurabilityLevel::Strict;
        AcknowledgeRule { policy: self.pair.acknowledge_policy, strict }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_numbers_lead_back_to_the_value() {
        for (place, name) in (0..).zip(SafenessLevel::NAMES) {
            assert_eq!(SafenessLevel::at(place).to_string(), name);
        }
        for number in 1..=3 {
            assert_eq!(AcknowledgePolicy::from_number(number).map(AcknowledgePolicy::number), Some(number));
            assert_eq!(DurabilityLevel::from_number(number).map(DurabilityLevel::number), Some(number));
        }
        assert_eq!(AcknowledgePolicy::from_number(0), None);
        assert_eq!(DurabilityLevel::from_number(4), None);
    }
}
