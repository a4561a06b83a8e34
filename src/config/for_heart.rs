//! The settings that the heart decides by, as solid.ini has them.

use std::time::Duration;

use super::Parameters;
use crate::hsb::settings::{PairSettings, SameSettings, Settings};

impl Parameters {
    /// The settings that the heart decides by, as solid.ini has them now.
    pub fn settings(&self) -> Settings {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let in_memory = self.diskless() || !self.log_enabled();
        Settings {
            // A log in memory has its own limit and drops what is oldest.
            maximum_log_bytes: self.max_log_size_bytes().filter(|_| !in_memory),
            safeness: self.safeness_level(),
            durability: self.durability_level(),
            auto_primary_alone: self.auto_primary_alone(),
            has_connect_string: self.connect().is_some(),
            pair: PairSettings {
                acknowledge_policy: self.acknowledge_policy(),
                ping_interval_ms: milliseconds(self.ping_interval()),
                ping_timeout_ms: milliseconds(self.ping_timeout().unwrap_or_default()),
            },
            same: SameSettings {
                connect_timeout_ms: milliseconds(self.connect_timeout().unwrap_or_default()),
                page_bytes: self.page_size_bytes() as u64,
                backup_block_bytes: self.backup_block_size_bytes() as u64,
            },
        }
    }
}
