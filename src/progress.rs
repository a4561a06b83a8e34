//! How far something long has come: a copy, a catchup. Written by the thread that does it, read by anybody.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines in the message log: so many percent, and so long.
const SAY_EVERY_PERCENT: u64 = 10;
const SAY_INTERVAL: Duration = Duration::from_secs(1);

/// See the module. Nothing is under way at first.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Option<Run>>);

#[derive(Debug)]
struct Run {
    what: &'static str,
    unit: Unit,
    done: u64,
    total: u64,
    begun: Instant,
    said_percent: u64,
    said_at: Instant,
    remark: Option<&'static str>,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Transactions.
    Transactions,
}

/// One look at a progress.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gauge {
    /// What is counted.
    pub unit: Unit,
    /// So much is done.
    pub done: u64,
    /// So much is to be done in all, as far as known.
    pub total: u64,
    /// Since the beginning.
    pub elapsed: Duration,
    /// What else there is to know.
    pub remark: Option<&'static str>,
}

impl Progress {
    /// Something begins; `what` names it in the message log.
    pub fn begin(&self, what: &'static str, unit: Unit, total: u64) {
        let begun = Instant::now();
        *self.lock() =
            Some(Run { what, unit, done: 0, total, begun, said_percent: 0, said_at: begun, remark: None });
    }

    /// So much more is done. Says so in the message log now and then.
    pub fn advance(&self, amount: u64) {
        self.change(|run| run.done += amount);
    }

    /// So much is done, of so much in all.
    pub fn reach(&self, done: u64, total: u64) {
        self.change(|run| (run.done, run.total) = (done, total));
    }

    /// What else there is to know of it.
    pub fn remark(&self, remark: &'static str) {
        self.change(|run| run.remark = Some(remark));
    }

    /// It is over, well or not.
    pub fn end(&self) {
        *self.lock() = None;
    }

    /// Where it is, while it is under way.
    pub fn gauge(&self) -> Option<Gauge> {
        self.lock().as_ref().map(Run::gauge)
    }

    fn change(&self, change: impl FnOnce(&mut Run)) {
        let mut guard = self.lock();
        let Some(run) = guard.as_mut() else { return };
        change(run);
        let gauge = run.gauge();
        let percent = gauge.percent();
        if percent >= run.said_percent + SAY_EVERY_PERCENT && run.said_at.elapsed() >= SAY_INTERVAL {
            run.said_at = Instant::now();
            run.said_percent = percent - percent % SAY_EVERY_PERCENT;
            let what = run.what;
            drop(guard);
            log::info!("{what}: {gauge}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn gauge(&self) -> Gauge {
        let Run { unit, done, total, remark, .. } = *self;
        Gauge { unit, done, total, elapsed: self.begun.elapsed(), remark }
    }
}

impl Gauge {
    /// 0 to 100.
    pub fn percent(&self) -> u64 {
        let percent = u128::from(self.done) * 100 / u128::from(self.total.max(1));
        u64::try_from(percent).unwrap_or(100).min(100)
    }

    /// Units per second since the beginning; none before there is something to divide.
    pub fn rate_per_second(&self) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (self.done > 0 && seconds > 0.0).then(|| self.done as f64 / seconds)
    }

    /// The rest at the rate so far.
    pub fn time_left(&self) -> Option<Duration> {
        let rate = self.rate_per_second()?;
        Duration::try_from_secs_f64(self.total.saturating_sub(self.done) as f64 / rate).ok()
    }
}

/// `42 % (44040192 of 104857600 bytes), 35.2 MB/s, 2 s left`
impl fmt::Display for Gauge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.unit == Unit::Bytes { "bytes" } else { "transactions" };
        write!(formatter, "{} % ({} of {} {unit})", self.percent(), self.done, self.total)?;
        match (self.unit, self.rate_per_second()) {
            (_, None) => return Ok(()),
            (Unit::Bytes, Some(rate)) => write!(formatter, ", {:.1} MB/s", rate / 1e6)?,
            (Unit::Transactions, Some(rate)) => write!(formatter, ", {rate:.0} transactions/s")?,
        }
        if let Some(left) = self.time_left() {
            write!(formatter, ", {:.0} s left", left.as_secs_f64().ceil())?;
        }
        self.remark.map_or(Ok(()), |remark| write!(formatter, "; {remark}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_rate_and_time_left() {
        let gauge = |done, total| Gauge {
            unit: Unit::Bytes,
            done,
            total,
            elapsed: Duration::from_secs(2),
            remark: None,
        };
        assert_eq!(
            gauge(30_000_000, 120_000_000).to_string(),
            "25 % (30000000 of 120000000 bytes), 15.0 MB/s, 6 s left"
        );
        assert_eq!(gauge(0, 10).to_string(), "0 % (0 of 10 bytes)");
        assert_eq!((gauge(0, 0).percent(), gauge(3, 2).percent()), (0, 100));
        assert_eq!(gauge(3, 2).time_left(), Some(Duration::ZERO));
        assert_eq!(gauge(u64::MAX, u64::MAX).percent(), 100);
        let transactions = Gauge { unit: Unit::Transactions, ..gauge(50, 100) };
        assert_eq!(transactions.to_string(), "50 % (50 of 100 transactions), 25 transactions/s, 2 s left");
    }

    #[test]
    fn nothing_is_shown_before_it_begins_or_after_it_ends() {
        let progress = Progress::default();
        progress.advance(5);
        assert_eq!(progress.gauge(), None);
        progress.begin("test", Unit::Transactions, 10);
        progress.advance(5);
        progress.reach(7, 20);
        assert_eq!(progress.gauge().map(|gauge| (gauge.done, gauge.total)), Some((7, 20)));
        progress.remark("slowly");
        assert!(progress.gauge().is_some_and(|gauge| gauge.to_string().ends_with("s left; slowly")));
        progress.end();
        assert_eq!(progress.gauge(), None);
    }
}
