//! Dates and times as SQLite's text, from counts since 1970; always UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Days from 1970 to PostgreSQL's zero.
pub const DAYS_TO_2000: i64 = 10_957;
/// Microseconds from 1970 to PostgreSQL's zero.
pub const MICROSECONDS_TO_2000: i64 = DAYS_TO_2000 * MICROSECONDS_OF_DAY;
const MICROSECONDS_OF_DAY: i64 = 86_400_000_000;

/// `YYYY-MM-DD` of a day counted from 1970 (proleptic Gregorian calendar).
pub fn date_text(day: i64) -> String {
    // Counts in eras of 400 years that start on 1 March, so that the leap day is the last of its year.
    let shifted = day.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

/// `HH:MM:SS[.ffffff]` of microseconds since midnight.
pub fn time_text(microseconds: i64) -> String {
    let seconds = microseconds.div_euclid(1_000_000);
    let fraction = microseconds.rem_euclid(1_000_000);
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { text } else { format!("{text}.{fraction:06}").trim_end_matches('0').to_string() }
}

/// `YYYY-MM-DD HH:MM:SS[.ffffff]` of microseconds since 1970.
pub fn timestamp_text(microseconds: i64) -> String {
    let day = microseconds.div_euclid(MICROSECONDS_OF_DAY);
    format!("{} {}", date_text(day), time_text(microseconds.rem_euclid(MICROSECONDS_OF_DAY)))
}

/// The present time.
pub fn now_text() -> String {
    timestamp_of(SystemTime::now())
}

/// A time of the system clock.
pub fn timestamp_of(time: SystemTime) -> String {
    let microseconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    timestamp_text(i64::try_from(microseconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(date_text(0), "1970-01-01");
        assert_eq!(date_text(DAYS_TO_2000), "2000-01-01");
        assert_eq!(date_text(11_016), "2000-02-29");
        assert_eq!(timestamp_text(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(timestamp_text(MICROSECONDS_TO_2000 + 3_600_500_000), "2000-01-01 01:00:00.5");
    }
}
