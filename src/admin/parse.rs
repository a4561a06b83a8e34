//! From a line of text to a row of the table. Letter case and blanks do not matter; arguments stay as typed.

use super::table::{COMMANDS, Row};
use crate::config::registry::distance;
use crate::error::{ServerError, invalid};

/// A longer command is not looked up for likeness.
const SHOWN_CHARACTERS: usize = 60;

/// The row that is meant, and what follows its words.
pub(super) fn find(text: &str) -> Result<(&'static Row, String), ServerError> {
    let text = text.trim().trim_end_matches(|last: char| last == ';' || last.is_whitespace());
    if text.is_empty() {
        return Err(invalid("No command is given; 'help' lists the commands."));
    }
    let longest = COMMANDS.iter().filter_map(|row| Some((row, after_words(row, text)?)));
    let length = longest.clone().map(|(row, _)| row.words().count()).max().unwrap_or(0);
    let mut same_words =
        longest.filter(|(row, _)| row.words().count() == length).collect::<Vec<_>>().into_iter().peekable();
    let Some((first, _)) = same_words.peek().copied() else { return Err(unknown(text)) };
    match same_words.find(|(row, rest)| fits(row, rest)) {
        Some((row, rest)) => Ok((row, rest.to_owned())),
        // 'hsb status nonsense' is more likely a mistyped command than 'hsb status' with an argument.
        None if first.takes_nothing() => Err(unknown(text)),
        None => Err(invalid(format!("It reads: {} ('help {}' says more).", first.syntax, first.name()))),
    }
}

/// The rows whose words these are, for `help`.
pub(super) fn named(text: &str) -> Result<Vec<&'static Row>, ServerError> {
    let given = normalized(text.trim_end_matches(|last: char| last == ';' || last.is_whitespace()));
    let rows: Vec<&Row> = COMMANDS.iter().filter(|row| row.name() == given).collect();
    let rows = if rows.is_empty() {
        COMMANDS.iter().filter(|row| row.name().starts_with(&format!("{given} "))).collect()
    } else {
        rows
    };
    if rows.is_empty() { Err(unknown(text)) } else { Ok(rows) }
}

/// What follows the row's words if the text begins with them.
fn after_words<'a>(row: &Row, text: &'a str) -> Option<&'a str> {
    let mut rest = text;
    for word in row.words() {
        let (given, after) = first_word(rest);
        let synonym = word == "hsb" && given.eq_ignore_ascii_case("hotstandby");
        if !given.eq_ignore_ascii_case(word) && !synonym {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// Whether the arguments are as many as the syntax has, and an assignment where it has one.
fn fits(row: &Row, rest: &str) -> bool {
    let places = &row.syntax[row.name().len()..];
    let count = rest.split_whitespace().count();
    // What takes any words takes any text, such as a transaction's token.
    if places.contains('=') || (rest.contains('=') && !places.contains('…')) {
        return places.contains('=') && rest.contains('=');
    }
    let required = places.matches('<').count();
    let most = if places.contains('…') { usize::MAX } else { required + places.matches('[').count() };
    (required..=most).contains(&count)
}

fn unknown(text: &str) -> ServerError {
    let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    let given = normalized(&shown);
    let begins = |row: &&Row| row.name().starts_with(&format!("{given} "));
    let mut continuations: Vec<&str> = COMMANDS.iter().filter(begins).map(Row::name).collect();
    continuations.dedup();
    if !continuations.is_empty() {
        let list = continuations.join("', '");
        return invalid(format!("'{shown}' is not complete; it goes on as '{list}'."));
    }
    let far = |row: &Row| {
        let count = if row.takes_nothing() { usize::MAX } else { row.words().count() };
        let words: Vec<&str> = given.split(' ').take(count).collect();
        distance(row.name(), &words.join(" "))
    };
    match COMMANDS.iter().map(|row| (far(row), row.name())).min() {
        Some((far, name)) if far <= 1 + name.len() / 3 => {
            invalid(format!("'{shown}' is not a command. Is '{name}' meant? 'help' lists the commands."))
        }
        _ => invalid(format!("'{shown}' is not a command; 'help' lists the commands.")),
    }
}

fn normalized(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
    let text = words.join(" ");
    match text.strip_prefix("hotstandby") {
        Some(rest) => format!("hsb{rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (&'static str, String) {
        let (row, rest) = find(text).unwrap();
        (row.syntax, rest)
    }

    fn refused(text: &str) -> String {
        find(text).map(|(row, _)| row.syntax).unwrap_err().message()
    }

    #[test]
    fn letter_case_blanks_and_a_semicolon_do_not_matter() {
        for text in ["hsb set primary alone", " HotStandby  SET primary\talone ; ", "Hsb Set Primary Alone;;"]
        {
            assert_eq!(found(text), ("hsb set primary alone", String::new()));
        }
    }

    #[test]
    fn arguments_stay_as_typed_and_are_counted() {
        assert_eq!(
            found("Save Parameters /tmp/Mine.ini;"),
            ("save parameters [file]", "/tmp/Mine.ini".into())
        );
        assert_eq!(found("throwout ALL").1, "ALL");
        assert!(refused("throwout").contains("throwout <id|all>"));
        assert!(refused("throwout 1 2").contains("throwout <id|all>"));
        assert!(refused("errorcode").contains("errorcode <number|all>"));
        assert!(refused("version 2").contains("version"));
        assert_eq!(found("hsb outcome Token=1 of 'x'").1, "Token=1 of 'x'");
        assert_eq!(found("help hsb set primary alone").1, "hsb set primary alone");
        assert_eq!(found("info uptime version").1, "uptime version");
    }

    #[test]
    fn an_assignment_tells_two_commands_of_the_same_words_apart() {
        assert_eq!(found("parameter").0, "parameter [section[.name]]");
        assert_eq!(found("parameter com.listen").0, "parameter [section[.name]]");
        let (syntax, rest) = found("parameter hotstandby.connect = tcp host 1301 temporary");
        assert!(syntax.starts_with("parameter <section.name=value>"));
        assert_eq!(rest, "hotstandby.connect = tcp host 1301 temporary");
    }

    #[test]
    fn an_unknown_command_names_the_nearest() {
        assert!(refused("hsb stat").contains("Is 'hsb state' meant?"));
        assert!(refused("hsb swich primary").contains("'hsb switch primary'"));
        assert!(refused("hsb status conect").contains("'hsb status connect'"));
        assert!(refused("shutdwon").contains("'shutdown'"));
        assert!(refused("hotstandby set").contains("'hsb set standalone'"));
        assert!(refused("what is this").ends_with("'help' lists the commands."));
        assert!(refused("  ; ").contains("No command"));
        assert!(refused(&"ä".repeat(5000)).len() < 400);
    }
}
