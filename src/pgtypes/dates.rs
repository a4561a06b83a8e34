//! Dates and times, which are texts to SQLite. In binary PostgreSQL counts from the year 2000.

use rusqlite::types::Value;

use super::text::text_of;
use super::whole::exactly;
use super::{Cast, Category, Misfit, PgType, Storage, oid};
use crate::calendar;

pub static DATE: PgType = PgType {
    oid: oid::DATE,
    array_oid: 1182,
    names: &["date"],
    size: 4,
    storage: Storage::Text,
    category: Category::Other,
    computed: oid::TEXT,
    cast: Cast::Dropped,
    text_out: |out, value| append(out, date_text(day_of(text_of(value)?)?)?),
    binary_out: |out, value| append(out, day_of(text_of(value)?)?.to_be_bytes()),
    text_in: |text| day_of(text).and_then(date_text).map(Value::Text),
    binary_in: |bytes| date_text(i32::from_be_bytes(exactly(bytes)?)).map(Value::Text),
};

pub static TIME: PgType = PgType {
    oid: oid::TIME,
    array_oid: 1183,
    names: &["time", "time without time zone"],
    size: 8,
    text_out: |out, value| append(out, time_text(microsecond_of_day(text_of(value)?)?)?),
    binary_out: |out, value| append(out, microsecond_of_day(text_of(value)?)?.to_be_bytes()),
    text_in: |text| microsecond_of_day(text).and_then(time_text).map(Value::Text),
    binary_in: |bytes| time_text(i64::from_be_bytes(exactly(bytes)?)).map(Value::Text),
    ..DATE
};

pub static TIMESTAMP: PgType = PgType {
    oid: oid::TIMESTAMP,
    array_oid: 1115,
    names: &["timestamp", "timestamp without time zone"],
    size: 8,
    text_out: |out, value| append(out, timestamp_text(microsecond_of(text_of(value)?)?)?),
    binary_out: |out, value| append(out, microsecond_of(text_of(value)?)?.to_be_bytes()),
    text_in: |text| microsecond_of(text).and_then(timestamp_text).map(Value::Text),
    binary_in: |bytes| timestamp_text(i64::from_be_bytes(exactly(bytes)?)).map(Value::Text),
    ..DATE
};

/// Held in UTC, and sent so.
pub static TIMESTAMPTZ: PgType = PgType {
    oid: oid::TIMESTAMPTZ,
    array_oid: 1185,
    names: &["timestamp with time zone", "timestamptz"],
    text_out: |out, value| {
        let microseconds = microsecond_in_utc(text_of(value)?)?;
        append(out, timestamp_text(microseconds)?)?;
        let endless = [i64::MIN, i64::MAX].contains(&microseconds);
        append(out, if endless { "" } else { "+00" })
    },
    binary_out: |out, value| append(out, microsecond_in_utc(text_of(value)?)?.to_be_bytes()),
    text_in: |text| microsecond_in_utc(text).and_then(timestamp_text).map(Value::Text),
    ..TIMESTAMP
};

fn append(out: &mut Vec<u8>, bytes: impl AsRef<[u8]>) -> Result<(), Misfit> {
    out.extend_from_slice(bytes.as_ref());
    Ok(())
}

/// The end of all days and the beginning, which have names.
const ENDLESS: [&str; 2] = ["infinity", "-infinity"];

fn is_endless(text: &str, which: usize) -> bool {
    text.trim().eq_ignore_ascii_case(ENDLESS[which])
}

fn day_of(text: &str) -> Result<i32, Misfit> {
    match calendar::day_of(text) {
        Some(day) => Ok(day),
        None if is_endless(text, 0) => Ok(i32::MAX),
        None if is_endless(text, 1) => Ok(i32::MIN),
        None => Err(Misfit::NoDate),
    }
}

fn date_text(day: i32) -> Result<String, Misfit> {
    match day {
        i32::MAX => Ok(ENDLESS[0].to_owned()),
        i32::MIN => Ok(ENDLESS[1].to_owned()),
        day => calendar::date_text(day).ok_or(Misfit::NoDate),
    }
}

fn microsecond_of_day(text: &str) -> Result<i64, Misfit> {
    calendar::microsecond_of_day(text).ok_or(Misfit::NoDate)
}

fn time_text(microseconds: i64) -> Result<String, Misfit> {
    calendar::time_text(microseconds).ok_or(Misfit::NoDate)
}

fn microsecond_of(text: &str) -> Result<i64, Misfit> {
    calendar::microsecond_of(text).or_else(|| endless_microsecond(text)).ok_or(Misfit::NoDate)
}

fn microsecond_in_utc(text: &str) -> Result<i64, Misfit> {
    calendar::microsecond_in_utc(text).or_else(|| endless_microsecond(text)).ok_or(Misfit::NoDate)
}

fn endless_microsecond(text: &str) -> Option<i64> {
    let end = is_endless(text, 0).then_some(i64::MAX);
    end.or_else(|| is_endless(text, 1).then_some(i64::MIN))
}

fn timestamp_text(microseconds: i64) -> Result<String, Misfit> {
    match microseconds {
        i64::MAX => Ok(ENDLESS[0].to_owned()),
        i64::MIN => Ok(ENDLESS[1].to_owned()),
        microseconds => calendar::timestamp_text(microseconds).ok_or(Misfit::NoDate),
    }
}
