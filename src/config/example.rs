//! solid.ini.example, from the registry.

use super::registry::REGISTRY;

/// The text of solid.ini.example: every parameter with its factory value, commented out.
pub fn example_text() -> String {
    let mut text = String::from(
        "; solid.ini: every parameter with its factory value. Copy what you change and remove the ; in front.\n\
         ; Sections and names are case-insensitive; sizes take K, M or G; relative paths start at this file's directory.\n\
         ; RO: change it here, then start again. RW: can also be changed while the server runs, at once.\n\
         ; RW/Startup: at the next start. RW/Create: with the next new database. (own): not known to solidDB.\n",
    );
    let mut section = "";
    for row in REGISTRY {
        if row.section != section {
            section = row.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let own = if row.ours { ", own" } else { "" };
        text.push_str(&format!("; {} ({}{own}; {})\n", row.meaning, row.access.name(), row.kind.allowed()));
        text.push_str(format!(";{} = {}", row.name, row.factory).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use std::path::Path;

    #[test]
    fn the_file_at_the_top_equals_the_registry() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("solid.ini.example");
        if std::env::var_os("UPDATE_EXAMPLE").is_some() {
            std::fs::write(&path, example_text()).unwrap();
        }
        let file = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(file, example_text(), "run the tests once with UPDATE_EXAMPLE=1");
    }

    #[test]
    fn without_its_comment_marks_it_is_a_valid_file() {
        let active: String = example_text()
            .lines()
            .map(|line| {
                let entry = line.strip_prefix(';').filter(|rest| !rest.starts_with(' '));
                format!("{}\n", entry.unwrap_or(line))
            })
            .collect();
        let (parameters, warnings) = Parameters::from_text(Path::new("/tmp"), &active).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert!(parameters.list(None).iter().all(|row| row.current == row.factory));
    }
}
