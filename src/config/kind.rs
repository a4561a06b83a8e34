//! What the value of a parameter may be, and how its text is checked.
//!
//! Invariant: a checked value carries its number (bytes, milliseconds, 0/1, index of a choice) next to its text, so
//! that reading a parameter never parses.

use super::address::ConnectString;
use crate::error::ServerError;

/// What the number of a parameter counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nothing in particular.
    None,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Percent.
    Percent,
    /// Log records.
    Records,
}

impl Unit {
    fn suffix(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Milliseconds => "ms",
            Unit::Seconds => "s",
            Unit::Percent => "%",
            Unit::Records => "records",
        }
    }
}

/// The kinds of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A text that is not shown.
    Secret,
    /// `yes` or `no`; its number is 1 or 0.
    YesNo,
    /// A whole number.
    Number {
        /// Least.
        minimum: u64,
        /// Greatest.
        maximum: u64,
        /// What it counts.
        unit: Unit,
    },
    /// Bytes, with K, M or G.
    Size {
        /// Least, in bytes.
        minimum: u64,
        /// Greatest, in bytes.
        maximum: u64,
    },
    /// Bytes of a database page: a power of two.
    PageSize,
    /// One of these words; its number is the index.
    Choice(&'static [&'static str]),
    /// A connect string.
    Address {
        /// It may be left empty.
        optional: bool,
    },
    /// Exactly one character.
    Character,
    /// The name of a log file with digits to be filled in.
    FileTemplate,
    /// Where to listen: a connect string; of several behind commas, as solidDB has them, the first of protocol tcp counts.
    Listen,
    /// The database file; behind its name solidDB has a size and a device number.
    FileSpec,
}

/// A value that passed its check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// As it is shown and written back.
    pub text: String,
    /// What it means, see [`Kind`]; 0 for texts.
    pub number: u64,
}

impl Kind {
    /// Checks a value; the error says what is allowed.
    pub fn check(&self, text: &str) -> Result<Checked, String> {
        let text = text.trim();
        let refused = || self.allowed();
        if text.chars().any(|character| character.is_control() || character == '"') {
            return Err("no control characters and no double quotes are allowed".to_owned());
        }
        let (text, number) = match self {
            Kind::Text | Kind::Secret => (text, 0),
            Kind::YesNo => match text.to_ascii_lowercase().as_str() {
                "yes" => ("yes", 1),
                "no" => ("no", 0),
                _ => return Err(refused()),
            },
            Kind::Number { minimum, maximum, unit } => {
                let digits = text.strip_suffix(unit.suffix()).unwrap_or(text).trim_end();
                let number = digits.parse::<u64>().map_err(|_| refused())?;
                (minimum..=maximum).contains(&&number).then_some((digits, number)).ok_or_else(refused)?
            }
            Kind::Size { minimum, maximum } => {
                let number = parse_size(text).ok_or_else(refused)?;
                (minimum..=maximum).contains(&&number).then_some((text, number)).ok_or_else(refused)?
            }
            Kind::PageSize => {
                let number = parse_size(text).ok_or_else(refused)?;
                let usable = (512..=65536).contains(&number) && number.is_power_of_two();
                usable.then_some((text, number)).ok_or_else(refused)?
            }
            Kind::Choice(words) => {
                let index =
                    words.iter().position(|word| word.eq_ignore_ascii_case(text)).ok_or_else(refused)?;
                (words[index], index as u64)
            }
            Kind::Address { optional } => {
                if !(*optional && text.is_empty()) {
                    ConnectString::parse(text)
                        .map_err(|error| format!("{} ({})", refused(), error.message()))?;
                }
                (text, 0)
            }
            Kind::Character => {
                let mut characters = text.chars();
                let single =
                    characters.next().filter(|character| character.is_ascii_graphic() && *character != '/');
                match (single, characters.next()) {
                    (Some(character), None) => (text, u64::from(u32::from(character))),
                    _ => return Err(refused()),
                }
            }
            Kind::FileTemplate => {
                if text.is_empty() || text.contains('/') || text.contains('\\') || text.len() > 200 {
                    return Err(refused());
                }
                (text, 0)
            }
            Kind::Listen => {
                let first =
                    first_address(text).map_err(|error| format!("{} ({})", refused(), error.message()))?;
                (first, 0)
            }
            Kind::FileSpec => {
                let (name, _) = file_and_size(text);
                (!name.is_empty()).then_some((name, 0)).ok_or_else(refused)?
            }
        };
        Ok(Checked { text: text.to_owned(), number })
    }

    /// What is allowed, for messages: "yes or no", "a number from 1 to 99 %".
    pub fn allowed(&self) -> String {
        match self {
            Kind::Text | Kind::Secret => "a text".to_owned(),
            Kind::YesNo => "yes or no".to_owned(),
            Kind::Number { minimum, maximum, unit } => {
                format!("a whole number from {minimum} to {maximum} {}", unit.suffix()).trim_end().to_owned()
            }
            Kind::Size { minimum, maximum } => {
                format!(
                    "a size from {} to {}, in bytes or with K, M or G",
                    show_size(*minimum),
                    show_size(*maximum)
                )
            }
            Kind::PageSize => "512, 1K, 2K, 4K, 8K, 16K, 32K or 64K".to_owned(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Address { optional: false } => "tcp [-cMS] [-rMS] [host] port".to_owned(),
            Kind::Address { optional: true } => "tcp [-cMS] [-rMS] [host] port, or nothing".to_owned(),
            Kind::Character => "one visible character other than /".to_owned(),
            Kind::FileTemplate => "a file name without a directory, with 4 to 10 digit characters".to_owned(),
            Kind::Listen => "tcp [-cMS] [-rMS] [host] port".to_owned(),
            Kind::FileSpec => "a file name".to_owned(),
        }
    }
}

/// The first name that this server can listen at; an error if there is none.
pub(super) fn first_address(text: &str) -> Result<&str, ServerError> {
    let mut names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let first = names.next().unwrap_or_default();
    match ConnectString::parse(first) {
        Ok(_) => Ok(first),
        Err(error) => names.find(|name| ConnectString::parse(name).is_ok()).ok_or(error),
    }
}

/// The file of a `FileSpec_1`, and what solidDB writes behind it: the most bytes it may have, and a device number.
pub(super) fn file_and_size(text: &str) -> (&str, Option<&str>) {
    let last_word = |text: &'_ str| text.trim_end().rfind(char::is_whitespace).map(|at| at + 1);
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let Some(last) = last_word(text) else { return (text, None) };
    let before = text[..last].trim_end();
    let start = match last_word(before) {
        // Size and device number.
        Some(size) if is_number(&text[last..]) && parse_size(&before[size..]).is_some() => size,
        _ if parse_size(&text[last..]).is_some() => last,
        _ => return (text, None),
    };
    (text[..start].trim_end(), Some(text[start..].trim()))
}

/// Bytes of a text like `64K`.
fn parse_size(text: &str) -> Option<u64> {
    let digits_end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits_end..].trim_start().to_ascii_uppercase().as_str() {
        "" => 1,
        "K" | "KB" => 1 << 10,
        "M" | "MB" => 1 << 20,
        "G" | "GB" => 1 << 30,
        _ => return None,
    };
    text[..digits_end].parse::<u64>().ok()?.checked_mul(factor)
}

/// The shortest text that [`parse_size`] reads as these bytes.
pub(super) fn show_size(bytes: u64) -> String {
    for (shift, letter) in [(30, "G"), (20, "M"), (10, "K")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{letter}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64K", 65536), ("10m", 10 << 20), ("1 G", 1 << 30)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        for text in ["", "K", "-1", "1.5M", "10Q", "99999999999999999999", "18446744073709551615G", "5Ké"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn what_soliddb_writes_behind_a_file_is_told_from_its_name() {
        for (text, name, size) in [
            ("solid.db", "solid.db", None),
            ("solid.db 100M", "solid.db", Some("100M")),
            ("/data/solid.db 2147483647 1", "/data/solid.db", Some("2147483647 1")),
            ("my data.db", "my data.db", None),
            ("my data.db 2G", "my data.db", Some("2G")),
        ] {
            assert_eq!(file_and_size(text), (name, size));
            assert_eq!(Kind::FileSpec.check(text).unwrap().text, name);
        }
    }

    #[test]
    fn of_several_names_the_first_that_can_be_used_counts() {
        for (text, used) in [
            ("tcp 1964", "tcp 1964"),
            ("tcp 1964, upipe SOLID", "tcp 1964"),
            ("upipe SOLID, tcp db1 1313, tcp 1964", "tcp db1 1313"),
        ] {
            assert_eq!(Kind::Listen.check(text).unwrap().text, used);
        }
        assert!(Kind::Listen.check("upipe SOLID").unwrap_err().contains("protocol"));
        assert!(Kind::Listen.check("").is_err());
    }

    #[test]
    fn values_outside_what_is_allowed_are_refused() {
        let percent = Kind::Number { minimum: 1, maximum: 99, unit: Unit::Percent };
        assert_eq!(percent.check("70 %").unwrap().number, 70);
        assert_eq!(percent.check("100").unwrap_err(), "a whole number from 1 to 99 %");
        assert_eq!(Kind::YesNo.check("YES").unwrap(), Checked { text: "yes".to_owned(), number: 1 });
        assert!(Kind::YesNo.check("maybe").is_err());
        assert_eq!(Kind::Choice(&["1safe", "2safe"]).check("2SAFE").unwrap().text, "2safe");
        assert!(Kind::PageSize.check("3K").is_err());
        assert!(Kind::Address { optional: true }.check("").is_ok());
        assert!(Kind::Address { optional: false }.check("").is_err());
        assert!(Kind::Character.check("##").is_err());
        assert!(Kind::FileTemplate.check("logs/sol####.log").is_err());
        assert!(Kind::Text.check("two\nlines").is_err());
    }
}
