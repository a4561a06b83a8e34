//! The one calendar: dates and times in UTC, as the message log, SQLite's texts and PostgreSQL's binary form have them.
//!
//! Not here: how a value becomes one of these (`pgtypes`). The crate jiff calculates; its years end with 9999. Invariant:
//! what cannot be written as a date of the years 1 to 9999 is no date.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp, Unit};

/// PostgreSQL's binary dates and times count from here.
const ZERO: DateTime = DateTime::constant(2000, 1, 1, 0, 0, 0, 0);
const MICROSECONDS_OF_DAY: i64 = 86_400_000_000;

fn of_our_era(day: Date) -> Option<Date> {
    (day.year() > 0).then_some(day)
}

/// `YYYY-MM-DD` of a day counted from 2000-01-01.
pub fn date_text(day: i32) -> Option<String> {
    let day = ZERO.date().checked_add(SignedDuration::from_hours(24 * i64::from(day))).ok()?;
    of_our_era(day).map(|day| day.to_string())
}

/// The day, counted from 2000-01-01, of a text that is a date, or begins with one and goes on with a time.
pub fn day_of(text: &str) -> Option<i32> {
    let day = of_our_era(text.trim().trim_end_matches(['Z', 'z']).parse().ok()?)?;
    i32::try_from(day.duration_since(ZERO.date()).as_hours() / 24).ok()
}

/// `HH:MM:SS[.ffffff]` of microseconds since midnight.
pub fn time_text(microseconds: i64) -> Option<String> {
    if microseconds == MICROSECONDS_OF_DAY {
        return Some("24:00:00".to_owned());
    }
    let inside = (0..MICROSECONDS_OF_DAY).contains(&microseconds);
    let time = Time::midnight().checked_add(SignedDuration::from_micros(microseconds)).ok();
    time.filter(|_| inside).map(|time| time.to_string())
}

/// Microseconds since midnight of a text that is a time of day.
pub fn microsecond_of_day(text: &str) -> Option<i64> {
    if text.trim() == "24:00:00" {
        return Some(MICROSECONDS_OF_DAY);
    }
    let time: Time = text.trim().parse().ok()?;
    i64::try_from(time.duration_since(Time::midnight()).as_micros()).ok()
}

/// `YYYY-MM-DD HH:MM:SS[.ffffff]` of microseconds since 2000-01-01.
pub fn timestamp_text(microseconds: i64) -> Option<String> {
    let at = ZERO.checked_add(SignedDuration::from_micros(microseconds)).ok()?;
    of_our_era(at.date()).map(|day| format!("{day} {}", at.time()))
}

/// Microseconds since 2000-01-01 of a text that is a date, perhaps with a time; what it says of a zone does not count.
pub fn microsecond_of(text: &str) -> Option<i64> {
    microseconds(text.trim().trim_end_matches(['Z', 'z']).parse().ok()?)
}

/// Microseconds since 2000-01-01 in UTC of a text that is a date, perhaps with a time; without a zone it is UTC.
pub fn microsecond_in_utc(text: &str) -> Option<i64> {
    // What the server writes itself has no zone; only behind the day can a sign be one.
    let has_zone = |rest: &str| rest.contains(['Z', 'z', '+', '-']);
    let at = text.get(10..).filter(|rest| has_zone(rest)).and_then(|_| text.trim().parse::<Timestamp>().ok());
    match at {
        Some(at) => microseconds(Offset::UTC.to_datetime(at)),
        None => microsecond_of(text),
    }
}

fn microseconds(at: DateTime) -> Option<i64> {
    of_our_era(at.date())?;
    let whole = at.round(Unit::Microsecond).ok()?;
    i64::try_from(whole.duration_since(ZERO).as_micros()).ok()
}

/// The present time as SQLite's text.
pub fn now_text() -> String {
    let at = utc(SystemTime::now());
    format!("{} {}", at.date(), at.round(Unit::Microsecond).unwrap_or(at).time())
}

/// `2025-01-31 12:00:00.123Z`. A clock before 1970 shows 1970.
pub fn log_text(time: SystemTime) -> String {
    utc(time).strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string()
}

/// A time of the system's clock; one that is none is 1970.
fn utc(time: SystemTime) -> DateTime {
    let at = Timestamp::try_from(time.max(UNIX_EPOCH)).unwrap_or(Timestamp::UNIX_EPOCH);
    Offset::UTC.to_datetime(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_there_and_back() {
        for (day, text) in
            [(0, "2000-01-01"), (-10_957, "1970-01-01"), (59, "2000-02-29"), (2_921_939, "9999-12-31")]
        {
            assert_eq!(date_text(day).as_deref(), Some(text));
            assert_eq!(day_of(text), Some(day));
        }
        assert_eq!((date_text(2_921_940), date_text(i32::MIN)), (None, None));
        for (microseconds, text) in [
            (0, "2000-01-01 00:00:00"),
            (-1, "1999-12-31 23:59:59.999999"),
            (3_600_500_000, "2000-01-01 01:00:00.5"),
        ] {
            assert_eq!(timestamp_text(microseconds).as_deref(), Some(text));
            assert_eq!(microsecond_of(text), Some(microseconds));
            assert_eq!(microsecond_in_utc(text), Some(microseconds));
        }
        assert_eq!((timestamp_text(i64::MAX), timestamp_text(i64::MIN)), (None, None));
        for (microseconds, text) in [
            (0, "00:00:00"),
            (1, "00:00:00.000001"),
            (86_399_500_000, "23:59:59.5"),
            (MICROSECONDS_OF_DAY, "24:00:00"),
        ] {
            assert_eq!(time_text(microseconds).as_deref(), Some(text));
            assert_eq!(microsecond_of_day(text), Some(microseconds));
        }
        assert_eq!((time_text(-1), time_text(MICROSECONDS_OF_DAY + 1)), (None, None));
    }

    #[test]
    fn zones_count_where_they_mean_something() {
        for text in
            ["2000-01-01 02:00:00+02", "2000-01-01T02:00:00+02:00", "2000-01-01 00:00:00Z", "2000-01-01"]
        {
            assert_eq!(microsecond_in_utc(text), Some(0), "{text}");
        }
        assert_eq!(microsecond_of("2000-01-01 00:00:00+02"), Some(0));
        assert_eq!(microsecond_of("2000-01-01 00:00:00Z"), Some(0));
        assert_eq!(day_of("2000-01-02 10:00:00"), Some(1));
        for text in
            ["", "1e5", "2000-02-30", "0020", "2000-01-01 25:00:00", "x", "99999-01-01", "-000001-01-01"]
        {
            assert_eq!(
                (day_of(text), microsecond_of(text), microsecond_in_utc(text)),
                (None, None, None),
                "{text}"
            );
        }
    }
}
