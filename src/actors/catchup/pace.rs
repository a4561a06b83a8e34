//! How much of the time a catchup may take (HotStandby.CatchupSpeedRate), and whether that is enough.

use std::time::{Duration, Instant};

/// Work and pause alternate in slices of about this length.
const SLICE: Duration = Duration::from_millis(50);
/// How often the rest is looked at.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// After so many looks at which the rest had not become less, the rate is not enough.
const LOOKS: u32 = 3;
/// What a catchup then takes.
const FULL_RATE_PERCENT: u64 = 99;

/// See the module.
pub struct Pace {
    slice_began: Instant,
    observed_at: Instant,
    rest: u64,
    looks_in_vain: u32,
    cannot_keep_up: bool,
}

impl Pace {
    /// Begins now.
    pub fn new(now: Instant) -> Pace {
        Pace { slice_began: now, observed_at: now, rest: u64::MAX, looks_in_vain: 0, cannot_keep_up: false }
    }

    /// How long to pause now; none while the share of the slice lasts.
    pub fn pause(&mut self, now: Instant, rate_percent: u64) -> Option<Duration> {
        let rate =
            if self.cannot_keep_up { FULL_RATE_PERCENT } else { rate_percent.clamp(1, FULL_RATE_PERCENT) };
        let worked = now.saturating_duration_since(self.slice_began);
        if worked < SLICE.mul_f64(rate as f64 / 100.0) {
            return None;
        }
        let pause = worked.mul_f64((100 - rate) as f64 / rate as f64).min(SLICE);
        self.slice_began = now + pause;
        Some(pause)
    }

    /// Takes note of how much is left. True once: the rest does not become less, the pace is at its full rate from now on.
    pub fn observe(&mut self, now: Instant, rest: u64) -> bool {
        if now.saturating_duration_since(self.observed_at) < OBSERVE_INTERVAL {
            return false;
        }
        self.looks_in_vain = if rest >= self.rest { self.looks_in_vain + 1 } else { 0 };
        (self.observed_at, self.rest) = (now, rest);
        let rises = self.looks_in_vain >= LOOKS && !self.cannot_keep_up;
        self.cannot_keep_up |= rises;
        rises
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works in steps of a millisecond for ten seconds; the share of the time that was work, in percent.
    fn share(rate_percent: u64) -> f64 {
        let begun = Instant::now();
        let (mut now, mut worked) = (begun, Duration::ZERO);
        let mut pace = Pace::new(now);
        while now < begun + Duration::from_secs(10) {
            now += Duration::from_millis(1);
            worked += Duration::from_millis(1);
            now += pace.pause(now, rate_percent).unwrap_or_default();
        }
        worked.as_secs_f64() / (now - begun).as_secs_f64() * 100.0
    }

    #[test]
    fn work_takes_its_share_of_the_time() {
        for rate in [10, 30, 70, 99] {
            let share = share(rate);
            assert!((share - rate as f64).abs() < 1.5, "{rate} % became {share} %");
        }
    }

    #[test]
    fn a_rest_that_does_not_shrink_takes_the_full_rate() {
        let begun = Instant::now();
        let second = |seconds| begun + Duration::from_secs(seconds);
        let mut pace = Pace::new(begun);
        let looks = [(1, 100), (2, 90), (3, 95), (4, 95), (5, 80), (6, 80), (7, 81)];
        for (at, rest) in looks {
            assert!(!pace.observe(second(at), rest), "at {at}");
        }
        assert!(!pace.observe(second(7), 500), "too soon to look again");
        assert!(pace.observe(second(8), 82));
        assert!(!pace.observe(second(9), 83), "said once");
        let pause = pace.pause(second(20), 1).unwrap_or_default();
        let next = pace.pause(second(20) + pause + SLICE, 1);
        assert!(next.is_some_and(|pause| pause < Duration::from_millis(1)), "{next:?}");
    }
}
