//! `solcon` at a terminal: line editing, history, completion.
//!
//! Not here: running commands. Invariant: what may be a secret is not written to the history.

use std::path::{Path, PathBuf};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Context, Editor};

use super::solcon::{Outcome, Session, is_quit, is_watch};
use crate::error::{ServerError, invalid};

/// In the user's home directory.
const HISTORY_FILE: &str = ".solcon_history";
/// Commands that this program adds to the server's.
const OWN_COMMANDS: [&str; 3] = ["watch", "quit", "help"];

/// Reads and runs commands until the user leaves. Refusals are shown and do not matter for the exit status.
pub(super) fn run(session: &mut Session) -> Result<Outcome, ServerError> {
    let failed = |error: ReadlineError| invalid(format!("The terminal cannot be used: {error}."));
    let configuration = Config::builder().completion_type(CompletionType::List).build();
    let mut editor: Editor<Words, FileHistory> = Editor::with_config(configuration).map_err(failed)?;
    editor.set_helper(Some(Words::of(session)));
    let history = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(HISTORY_FILE));
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    println!("Connected to {}. Tab completes, 'help' lists the commands, 'quit' leaves.", session.server);
    let prompt = format!("{}> ", session.server.port);
    loop {
        match editor.readline(&prompt) {
            Ok(line) if is_quit(&line) => break,
            Ok(line) => {
                remember(&mut editor, history.as_deref(), line.trim());
                run_one(session, &line);
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Outcome::Good)
}

/// Written at once, because Ctrl-C while watching ends the program. A history that cannot be written is done without.
fn remember(editor: &mut Editor<Words, FileHistory>, file: Option<&Path>, line: &str) {
    if line.is_empty() || may_hold_secret(line) {
        return;
    }
    let _ = editor.add_history_entry(line);
    if let Some(file) = file {
        let _ = editor.append_history(file);
    }
}

fn run_one(session: &mut Session, line: &str) {
    if is_watch(line) {
        println!("Events as they happen; Ctrl-C ends solcon.");
    }
    if let Err(error) = session.run(line) {
        eprintln!("{error}\nThe next command tries to connect again.");
    } else if line.trim().eq_ignore_ascii_case("help") {
        println!("watch [event]  -  events as they happen, until Ctrl-C\nquit  -  leave");
    }
}

fn may_hold_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["password", "secret", "login", "identified"].iter().any(|word| line.contains(word))
}

/// The server's commands, for completion.
struct Words {
    commands: Vec<String>,
}

impl Words {
    /// As the server tells them; without an answer there is no completion.
    fn of(session: &mut Session) -> Words {
        let rows = session.ask("commands").unwrap_or_default();
        let mut commands: Vec<String> =
            rows.iter().filter(|row| row.0 == 0).map(|(_, text)| fixed_words(text)).collect();
        commands.extend(OWN_COMMANDS.map(str::to_owned));
        commands.retain(|command| !command.is_empty());
        commands.sort();
        commands.dedup();
        Words { commands }
    }

    /// What the word before the cursor may become: where it starts, and the words.
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let start = line.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
        let typed: Vec<String> = line[..start].split_whitespace().map(str::to_ascii_lowercase).collect();
        let begun = line[start..].to_ascii_lowercase();
        let mut found: Vec<String> = self
            .commands
            .iter()
            .filter_map(|command| {
                let words: Vec<&str> = command.split_whitespace().collect();
                let next = words.get(typed.len())?;
                (words[..typed.len()] == typed[..] && next.starts_with(&begun)).then(|| format!("{next} "))
            })
            .collect();
        found.dedup();
        (start, found)
    }
}

/// The words of a command's syntax that are always typed as they are.
fn fixed_words(syntax: &str) -> String {
    let syntax = syntax.split('\t').next().unwrap_or_default();
    let words = syntax.split_whitespace().take_while(|word| !word.contains(['[', '<']));
    words.collect::<Vec<_>>().join(" ")
}

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(&line[..position]))
    }
}

impl rustyline::hint::Hinter for Words {
    type Hint = String;
}
impl rustyline::highlight::Highlighter for Words {}
impl rustyline::validate::Validator for Words {}
impl rustyline::Helper for Words {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_word_of_each_command_is_offered() {
        let rows = [
            "hsb set primary alone\tconsole\tx",
            "hsb set standalone\tadmin\tx",
            "hsb state\tconsole\tx",
            "throwout <id|all>\tadmin\tend a session",
        ];
        let mut commands: Vec<String> = rows.iter().map(|row| fixed_words(row)).collect();
        commands.sort();
        let words = Words { commands };
        assert_eq!(words.candidates(""), (0, vec!["hsb ".to_owned(), "throwout ".to_owned()]));
        assert_eq!(words.candidates("HSB s"), (4, vec!["set ".to_owned(), "state ".to_owned()]));
        assert_eq!(words.candidates("hsb  set "), (9, vec!["primary ".to_owned(), "standalone ".to_owned()]));
        assert_eq!(words.candidates("hsb set primary alone "), (22, Vec::new()));
        assert_eq!(words.candidates("é x"), ("é ".len(), Vec::new()));
    }

    #[test]
    fn secrets_stay_out_of_the_history() {
        assert!(may_hold_secret("parameter Watchdog.PASSWORD1=x"));
        assert!(may_hold_secret("login dba x"));
        assert!(!may_hold_secret("hsb state"));
    }
}
