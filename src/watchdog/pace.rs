//! How soon an order that was refused, or did not get there, is given again: after pauses that grow up to a limit.
//!
//! Pure: time is what the caller says it is. Not here: whether it is given again (`decision`).

use std::time::Duration;

use super::decision::Reply;
use crate::hsb::codes::Code;

/// Before the first repeat: most of what refuses an order passes quickly.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Before any repeat at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pauses of both nodes. Invariant: no pause is shorter than the one before it, up to the limit, until an order is
/// carried out or the pair is whole.
#[derive(Debug, Default)]
pub struct Pace {
    nodes: [Option<Pause>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    length: Duration,
    until: Duration,
}

impl Pace {
    /// Whether the node may be given an order at this time.
    pub fn allows(&self, node: usize, now: Duration) -> bool {
        self.nodes[node].is_none_or(|pause| pause.until <= now)
    }

    /// The end of the next pause that has not ended.
    pub fn next_end(&self, now: Duration) -> Option<Duration> {
        self.nodes.iter().flatten().map(|pause| pause.until).filter(|until| *until > now).min()
    }

    /// What became of an order to the node.
    pub fn answered(&mut self, node: usize, reply: Reply, now: Duration) {
        let done = matches!(reply, Reply::Code(code) if Code::find(code).is_some_and(Code::is_success));
        let longer = self.nodes[node].map_or(FIRST_PAUSE, |pause| (pause.length * 2).min(LONGEST_PAUSE));
        self.nodes[node] = (!done).then(|| Pause { length: longer, until: now + longer });
    }

    /// The pair is whole.
    pub fn begin_anew(&mut self) {
        self.nodes = [None, None];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_order_is_repeated_after_pauses_that_grow_up_to_a_limit() {
        for reply in
            [Reply::NotGiven, Reply::None, Reply::Code(Code::CATCHUP_ACTIVE.number()), Reply::Code(14501)]
        {
            let (mut pace, mut now, mut orders) = (Pace::default(), Duration::ZERO, Vec::new());
            // Asked every millisecond, for a minute.
            while now < Duration::from_secs(60) {
                if pace.allows(0, now) {
                    orders.push(now);
                    pace.answered(0, reply, now);
                    assert_eq!(pace.next_end(now).is_some(), !pace.allows(0, now));
                }
                now += Duration::from_millis(1);
            }
            assert_eq!(orders[..4], [0, 50, 150, 350].map(Duration::from_millis));
            assert!((10..15).contains(&orders.len()), "{orders:?}");
            assert!(pace.allows(1, now), "the other node is not concerned");
            pace.answered(0, Reply::Code(0), now);
            assert!(pace.allows(0, now) && pace.next_end(now).is_none());
        }
    }
}
