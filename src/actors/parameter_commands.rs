//! `parameter`, `describe parameter` and `save parameters`.
//!
//! Listings are answered at once. What changes something touches files and sockets, so it is done, and answered, on a
//! thread of its own: the actors' thread never waits for a disk.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::supervisor::Answer;
use crate::config::{Id, ParameterRow, Parameters};
use crate::error::{ServerError, invalid};
use crate::node::ParameterChanges;

const SYNTAX: &str = "It reads: parameter [section[.name[=value [temporary]]]].";

/// A command about parameters that changes something.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// `parameter section.name=value [temporary]`
    Set {
        /// Section, as written.
        section: String,
        /// Name, as written.
        name: String,
        /// The new value; `*`: the factory value.
        value: String,
        /// Not for solid.ini.
        temporary: bool,
    },
    /// `save parameters [file]`
    Save(Option<String>),
}

/// For the message log, without values: one of them may be a password.
impl std::fmt::Display for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Set { section, name, .. } => write!(formatter, "parameter {section}.{name} is changed"),
            Change::Save(_) => formatter.write_str("parameters are saved"),
        }
    }
}

/// Answers a command that only looks.
pub fn show(parameters: &Parameters, words: &[&str]) -> Result<Answer, ServerError> {
    let unknown = |section: &str, name: &str| {
        invalid(format!("There is no parameter {section}.{name}; the nearest is {}.", Id::nearest(section, name)))
    };
    let all = |rows: Vec<ParameterRow>| rows.iter().map(|row| (0, line(row))).collect();
    match words {
        ["describe", _, full_name] => {
            let (section, name) = full_name.split_once('.').unwrap_or((full_name, ""));
            let text = parameters.describe(section, name).ok_or_else(|| unknown(section, name))?;
            Ok(text.lines().map(|line| (0, line.to_owned())).collect())
        }
        ["parameter"] => Ok(all(parameters.list(None))),
        ["parameter", name] => match name.split_once('.') {
            Some((section, name)) => {
                let row = parameters.get(section, name).ok_or_else(|| unknown(section, name))?;
                Ok(all(vec![row]))
            }
            None if crate::config::registry::is_section(name) => Ok(all(parameters.list(Some(name)))),
            None => {
                let nearest = crate::config::registry::nearest_section(name);
                Err(invalid(format!("There is no section {name}; the nearest is {nearest}.")))
            }
        },
        ["describe", ..] => Err(invalid("It reads: describe parameter section.name.")),
        _ => Err(invalid(SYNTAX)),
    }
}

/// The change that a command asks for; none if it only looks.
pub fn change(text: &str) -> Option<Result<Change, ServerError>> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if word.eq_ignore_ascii_case("save") {
        let file = rest.trim().split_once(char::is_whitespace).map(|(_, file)| file.trim().to_owned());
        return Some(Ok(Change::Save(file.filter(|file| !file.is_empty()))));
    }
    let (full_name, value) = rest.split_once('=').filter(|_| word.eq_ignore_ascii_case("parameter"))?;
    let Some((section, name)) = full_name.split_once('.') else { return Some(Err(invalid(SYNTAX))) };
    let value = value.trim();
    let (value, temporary) = match value.rsplit_once(char::is_whitespace) {
        Some((value, last)) if last.eq_ignore_ascii_case("temporary") => (value.trim(), true),
        _ => (value, false),
    };
    let (section, name) = (section.trim().to_owned(), name.trim().to_owned());
    // Quotes as in solid.ini.
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value).to_owned();
    Some(Ok(Change::Set { section, name, value, temporary }))
}

/// Carries a change out on a thread of its own and answers there.
pub fn carry_out(changes: &Arc<ParameterChanges>, change: Change, reply: Sender<Answer>) {
    let (changes, lost) = (Arc::clone(changes), reply.clone());
    let body = move || {
        let answer = apply(&changes, &change).unwrap_or_else(|error| super::admin_handler::refusal(&error));
        // Whoever asked may have gone away.
        let _ = reply.send(answer);
    };
    if let Err(error) = std::thread::Builder::new().name("parameter".into()).spawn(body) {
        let error = invalid(format!("No thread can be started: {error}."));
        let _ = lost.send(super::admin_handler::refusal(&error));
    }
}

fn apply(changes: &ParameterChanges, change: &Change) -> Result<Answer, ServerError> {
    let sentence = match change {
        Change::Save(file) => {
            changes.save(file.as_deref().map(Path::new))?;
            format!("The parameters were saved to {}.", file.as_deref().unwrap_or("solid.ini"))
        }
        Change::Set { section, name, value, temporary } => {
            let outcome = changes.set(section, name, value, *temporary)?;
            let when = match (outcome.is_unused, outcome.takes_effect_at_start) {
                (true, _) => "It has no effect in this server.",
                (false, true) => "It takes effect at the next start.",
                (false, false) => "It is in effect.",
            };
            format!("{section}.{name} is set. {when}")
        }
    };
    Ok(vec![(0, sentence)])
}

/// `Section Name current startup factory`; in quotes what is empty or has blanks.
fn line(row: &ParameterRow) -> String {
    let shown = |value: &str| {
        if value.is_empty() || value.contains(char::is_whitespace) { format!("\"{value}\"") } else { value.to_owned() }
    };
    let values = [&row.current, &row.startup, row.factory].map(|value: &str| shown(value));
    format!("{} {} {}", row.section, row.name, values.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> (String, String, String, bool) {
        match change(text) {
            Some(Ok(Change::Set { section, name, value, temporary })) => (section, name, value, temporary),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn changes_are_understood() {
        let expected = |value: &str, temporary| ("Com".into(), "Listen".into(), value.into(), temporary);
        assert_eq!(set("parameter Com.Listen=tcp 1"), expected("tcp 1", false));
        assert_eq!(set("PARAMETER  Com . Listen = \"tcp 1\" Temporary"), expected("tcp 1", true));
        assert_eq!(set("parameter Com.Listen=*"), expected("*", false));
        assert_eq!(set("parameter Com.Listen="), expected("", false));
        assert_eq!(change("save parameters My.ini").unwrap(), Ok(Change::Save(Some("My.ini".into()))));
        assert_eq!(change("save parameters").unwrap(), Ok(Change::Save(None)));
        assert!(change("parameter Com=1").unwrap().is_err());
        assert_eq!(change("parameter Com.Listen"), None);
        assert_eq!(change("describe parameter com.listen"), None);
    }
}
