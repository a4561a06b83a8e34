//! Counters and gauges of a node, for `perfmon`. Atomics: counting costs no lock, reading holds nobody up.
//!
//! To add one, add a line to the table and call `add` or `set` where it happens. Not here: what is derived from
//! positions (`admin`).

use std::sync::atomic::{AtomicU64, Ordering};

/// One of them.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// So many more.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// A gauge stands here now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($name:ident: $shown:literal, $meaning:literal;)*) => {
        /// All of them.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $meaning] pub $name: Counter,)*
        }

        impl Counters {
            /// As `perfmon` shows them: name, value, meaning.
            pub fn list(&self) -> Vec<(&'static str, u64, &'static str)> {
                vec![$(($shown, self.$name.get(), $meaning)),*]
            }
        }
    };
}

counters! {
    transactions_committed: "Transactions committed", "transactions that clients of this server committed";
    batches_committed: "Batches committed", "groups in which they were committed";
    batches_sent: "Batches sent", "batches sent to the secondary as they were made";
    bytes_sent: "Bytes sent", "bytes of those batches";
    acknowledgements: "Acknowledgements received", "messages by which the secondary confirmed batches";
    transactions_applied: "Transactions applied", "transactions of the primary executed here";
    bytes_applied: "Bytes applied", "bytes of their batches";
    connections_without_a_word: "Connections without a word", "connections that were closed before anything came, as health checks do";
    snapshots_ended: "Snapshots ended", "sessions that were ended because their snapshot kept SQLite's log from starting over";
    log_batches: "Log batches", "batches written to the log";
    log_bytes: "Log bytes", "bytes written to the log";
    log_syncs: "Log syncs", "times that the log was put on disk";
    log_end: "Log end", "transactions that the log has";
    log_durable: "Log durable", "transactions that the log has on disk";
    log_size: "Log size", "bytes of the log files";
}
