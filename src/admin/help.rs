//! `help`, `commands` and docs/commands.md: the table, told.

use super::table::{COMMANDS, Row};
use super::{AdminServices, Call, Rights, Rows, parse};

/// All commands, or one of them.
pub(super) fn help(_: &AdminServices, call: &Call) -> Rows {
    let wanted = call.rest.trim();
    if wanted.is_empty() {
        let lines = COMMANDS.iter().map(|row| (0, format!("{}  -  {}", row.syntax, row.meaning)));
        let more = "'help <command>' says more; commands marked * need SYS_ADMIN_ROLE.";
        let marked = lines.zip(COMMANDS).map(|((code, line), row)| (code, format!("{}{line}", mark(row))));
        return Ok(marked.chain([(0, more.to_owned())]).collect());
    }
    let chosen = parse::named(wanted)?;
    Ok(chosen.iter().flat_map(|row| explained(row)).map(|line| (0, line)).collect())
}

fn mark(row: &Row) -> &'static str {
    if row.rights == Rights::Administrator { "* " } else { "  " }
}

fn explained(row: &Row) -> Vec<String> {
    let mut lines = vec![
        row.syntax.to_owned(),
        format!("  {}", sentence(row.meaning)),
        format!("  Needs {}.", row.rights.name()),
    ];
    lines.extend(row.help.lines().map(|line| format!("  {line}")));
    lines
}

/// For programs: syntax, rights, meaning, separated by tabs.
pub(super) fn commands(_: &AdminServices, _: &Call) -> Rows {
    let line = |row: &Row| {
        let rights = if row.rights == Rights::Administrator { "admin" } else { "console" };
        (0, format!("{}\t{rights}\t{}", row.syntax, row.meaning))
    };
    Ok(COMMANDS.iter().map(line).collect())
}

fn sentence(meaning: &str) -> String {
    let mut letters = meaning.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// docs/commands.md.
pub fn document() -> String {
    let mut text = String::from(include_str!("document.md"));
    for row in COMMANDS {
        text.push_str(&format!(
            "\n## `{}`\n\n{} Needs {}.",
            row.syntax,
            sentence(row.meaning),
            row.rights.name()
        ));
        if !row.help.is_empty() {
            text.push_str(&format!("\n\n{}", row.help));
        }
        text.push('\n');
    }
    text
}
