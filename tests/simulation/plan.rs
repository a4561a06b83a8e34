//! What a seed decides before anything happens: settings, length, how rough the faults are.

use hotstandby::hsb::settings::{
    AcknowledgePolicy, Durability, DurabilityLevel, PairSettings, Safeness, SafenessLevel, SameSettings,
    Settings,
};

use crate::common::Random;

#[derive(Clone, Debug)]
pub struct Plan {
    pub policy: AcknowledgePolicy,
    pub durability: DurabilityLevel,
    pub auto_primary_alone: bool,
    pub relaxed_max_delay_ms: u64,
    /// How long faults happen.
    pub chaos_ms: u64,
    /// Milliseconds between faults, on average half of it.
    pub fault_interval_ms: u64,
    pub clients: usize,
    /// A file of the log.
    pub segment_bytes: u64,
    /// HotStandby.MaxLogSize.
    pub maximum_log_bytes: Option<u64>,
    /// The product's watchdog is in the operator's place. It acts on one failure, knowing only what the nodes answer.
    pub watchdog: bool,
    /// Operators promote what they find, clients ask for 1-safe, power fails where it hurts: transactions that only the
    /// losing side had may be lost, and nothing else may go wrong.
    pub rough: bool,
    /// Clients of a rough run: so many out of four ask for 1-safe.
    pub one_safe: u64,
}

impl Plan {
    pub fn draw(random: &mut Random) -> Plan {
        let policies = [AcknowledgePolicy::Received, AcknowledgePolicy::Visible, AcknowledgePolicy::Durable];
        let rough = random.below(3) == 0;
        let watchdog = !rough && random.below(3) == 0;
        let levels = [DurabilityLevel::Relaxed, DurabilityLevel::Adaptive, DurabilityLevel::Strict];
        Plan {
            policy: policies[random.below(3) as usize],
            durability: levels[random.below(3) as usize],
            auto_primary_alone: random.below(4) == 0 && !watchdog,
            relaxed_max_delay_ms: 10 + random.below(200),
            chaos_ms: 2000 + random.below(4000),
            fault_interval_ms: 200 + random.below(1500),
            clients: 1 + random.below(4) as usize,
            segment_bytes: if random.below(2) == 0 { 4 << 10 } else { 16 << 10 },
            maximum_log_bytes: (random.below(4) == 0).then(|| 9000 + random.below(20_000)),
            watchdog,
            rough,
            one_safe: 1 + random.below(3),
        }
    }

    pub fn settings(&self) -> Settings {
        Settings {
            safeness: SafenessLevel::TwoSafe,
            durability: self.durability,
            auto_primary_alone: self.auto_primary_alone,
            has_connect_string: true,
            pair: PairSettings {
                acknowledge_policy: self.policy,
                ping_interval_ms: 200,
                ping_timeout_ms: 600,
            },
            maximum_log_bytes: self.maximum_log_bytes,
            same: SameSettings { connect_timeout_ms: 0, page_bytes: 1024, backup_block_bytes: 65536 },
        }
    }

    /// What a client asks for.
    pub fn wish(&self, random: &mut Random) -> (Safeness, Durability) {
        let durability = match random.below(6) {
            0 => Durability::Relaxed,
            1 => Durability::Strict,
            _ => Durability::Default,
        };
        let one_safe = self.rough && random.below(4) < self.one_safe;
        (if one_safe { Safeness::OneSafe } else { Safeness::Default }, durability)
    }
}
