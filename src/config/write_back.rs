//! Changed values back into solid.ini.
//!
//! The file is read again and only the values in question are replaced, so comments, order and edits made meanwhile
//! stay. Invariant: at every moment solid.ini is the old file or the new one, whole.

use super::invalid;
use super::parameters::{FILE_NAME, Parameters, SetOutcome, read_file};
use super::parser;
use super::registry::Id;
use crate::error::ServerError;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::PoisonError;

impl Parameters {
    /// [`Parameters::set`], and into solid.ini at once: an operator who was told that a value is set finds it after a
    /// crash too. If the file cannot be written, nothing has changed.
    pub fn set_and_write_back(
        &self,
        section: &str,
        name: &str,
        value: &str,
    ) -> Result<SetOutcome, ServerError> {
        let values = || self.values.write().unwrap_or_else(PoisonError::into_inner);
        let before = Id::find(section, name).map(|id| (id, values()[id as usize].clone()));
        let outcome = self.set(section, name, value, false)?;
        self.write_back().inspect_err(|_| {
            if let Some((id, before)) = before {
                let value = &mut values()[id as usize];
                self.put(id, value, before.current.clone());
                *value = before;
            }
        })?;
        Ok(outcome)
    }

    /// Puts changed, non-temporary values into solid.ini.
    pub fn write_back(&self) -> Result<(), ServerError> {
        let _guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = self.unwritten();
        if changes.is_empty() {
            return Ok(());
        }
        let path = self.directory.join(FILE_NAME);
        // A rename would replace a symbolic link instead of the file that it names.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let text = rewritten(&path, &changes)?;
        replace_file(&path, &text)?;
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        for (id, written) in changes {
            let slot = &mut values[id as usize].unwritten;
            if slot.as_ref() == Some(&written) {
                *slot = None;
            }
        }
        Ok(())
    }

    /// Writes solid.ini with the changed, non-temporary values to another file; never over one that is no INI file.
    pub fn save_to(&self, target: &Path) -> Result<(), ServerError> {
        let _guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let text = rewritten(&self.directory.join(FILE_NAME), &self.unwritten())?;
        let target = self.directory.join(target);
        let is_ini = read_file(&target).is_ok_and(|text| parser::parse(&text.unwrap_or_default()).is_ok());
        if !is_ini {
            return Err(invalid(format!(
                "{} is there and holds something else; choose another name.",
                target.display()
            )));
        }
        replace_file(&target, &text)
    }

    fn unwritten(&self) -> Vec<(Id, String)> {
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        let rows = Id::ALL.iter().zip(values.iter());
        rows.filter_map(|(id, value)| value.unwritten.clone().map(|text| (*id, text))).collect()
    }
}

fn rewritten(path: &Path, changes: &[(Id, String)]) -> Result<String, ServerError> {
    let mut text = read_file(path)?.unwrap_or_default();
    for (id, value) in changes {
        text = with_value(&text, *id, value).map_err(|error| {
            invalid(format!("{}, line {}: {}.", path.display(), error.line, error.problem))
        })?;
    }
    Ok(text)
}

/// The file's text with this value in it.
fn with_value(text: &str, id: Id, value: &str) -> Result<String, parser::SyntaxError> {
    let parsed = parser::parse(text)?;
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let line_end = if text.contains("\r\n") { "\r" } else { "" };
    let shown = quoted(value);
    let definition = id.definition();
    let same = |entry: &&parser::Entry| Id::find(&entry.section, &entry.name) == Some(id);
    if let Some(entry) = parsed.entries.iter().rfind(same) {
        let space = if entry.place.is_empty() && !shown.is_empty() { " " } else { "" };
        lines[entry.line - 1].replace_range(entry.place.clone(), &format!("{space}{shown}"));
        return Ok(lines.join("\n"));
    }
    if value == definition.factory {
        return Ok(text.to_owned());
    }
    let line = format!("{} = {shown}{line_end}", definition.name);
    if let Some((_, header)) =
        parsed.sections.iter().rfind(|section| section.0.eq_ignore_ascii_case(definition.section))
    {
        let next =
            parsed.sections.iter().map(|section| section.1).find(|line| line > header).unwrap_or(usize::MAX);
        let inside = |entry: &&parser::Entry| entry.line > *header && entry.line < next;
        let after = parsed.entries.iter().rfind(inside).map_or(*header, |entry| entry.line);
        if after == lines.len() && !line_end.is_empty() {
            lines[after - 1].push('\r');
        }
        lines.insert(after, line);
        if after + 1 == lines.len() {
            lines.push(String::new());
        }
        return Ok(lines.join("\n"));
    }
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push_str(&format!("{line_end}\n"));
    }
    text.push_str(&format!("[{}]{line_end}\n{line}\n", definition.section));
    Ok(text)
}

/// In quotes where the parser would read something else.
fn quoted(value: &str) -> String {
    if value.contains(';') || value.starts_with('\'') { format!("\"{value}\"") } else { value.to_owned() }
}

fn replace_file(path: &Path, text: &str) -> Result<(), ServerError> {
    let failed = |error: std::io::Error| invalid(format!("{} cannot be written: {error}.", path.display()));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    if let Ok(metadata) = std::fs::metadata(path) {
        file.as_file().set_permissions(metadata.permissions()).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_changes() {
        let text =
            "; head\n[com]\nlisten = tcp 1 ; old\nLISTEN =tcp 2 ; in force\n\n[HotStandby]\nConnect=\n";
        let changed = with_value(text, Id::Listen, "tcp 3").unwrap();
        assert_eq!(changed, text.replace("=tcp 2", "=tcp 3"));
        let changed = with_value(text, Id::Connect, "tcp b 4").unwrap();
        assert_eq!(changed, text.replace("Connect=", "Connect= tcp b 4"));
        let changed = with_value(text, Id::CopyDirectory, "a;b").unwrap();
        assert_eq!(changed, format!("{text}CopyDirectory = \"a;b\"\n"));
        let changed = with_value(text, Id::MaxConnections, "7").unwrap();
        assert_eq!(changed, text.replace("in force\n", "in force\nMaxConnections = 7\n"));
        assert_eq!(with_value(text, Id::MaxConnections, "1000").unwrap(), text);
        let changed = with_value("[Com]", Id::PageSize, "8K").unwrap();
        assert_eq!(changed, "[Com]\n[IndexFile]\nBlockSize = 8K\n");
        assert_eq!(with_value("", Id::LogDir, "x").unwrap(), "[Logging]\nLogDir = x\n");
        assert_eq!(
            with_value("[Com]\r\n", Id::MaxConnections, "7").unwrap(),
            "[Com]\r\nMaxConnections = 7\r\n"
        );
        assert_eq!(
            with_value("[Logging]\r\n[Com]", Id::MaxConnections, "7").unwrap(),
            "[Logging]\r\n[Com]\r\nMaxConnections = 7\r\n"
        );
    }

    #[test]
    fn every_change_is_read_back() {
        let mut text = String::from("[HotStandby]\nPrimaryAlone=no");
        for (id, value) in [
            (Id::AutoPrimaryAlone, "yes"),
            (Id::CopyDirectory, "'odd' ; name"),
            (Id::LogDir, "log s"),
            (Id::Connect, "tcp 1"),
        ] {
            text = with_value(&text, id, value).unwrap();
            let (parameters, _) = Parameters::from_text(Path::new("."), &text).unwrap();
            assert_eq!(parameters.text(id), value);
        }
    }
}
