//! The syntax of an INI file: `[section]`, `name = value`, `;` comments, optional quotes around a value.
//!
//! It keeps where each value stands, so that a value can be replaced without touching anything else. Not here: which
//! names exist and what they may be. Invariant: whatever the bytes, the answer is entries or an error with a line.

use std::ops::Range;

/// One `name = value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The section above it, as written.
    pub section: String,
    /// Name, as written.
    pub name: String,
    /// Value without quotes.
    pub value: String,
    /// Line number, from 1.
    pub line: usize,
    /// Bytes of the value, with its quotes, in that line.
    pub place: Range<usize>,
}

/// A file taken apart.
#[derive(Default, Debug)]
pub struct Parsed {
    /// Entries in the file's order.
    pub entries: Vec<Entry>,
    /// Section headers: name and line number, from 1.
    pub sections: Vec<(String, usize)>,
}

/// A line that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// Takes a file apart.
pub fn parse(text: &str) -> Result<Parsed, SyntaxError> {
    let mut parsed = Parsed::default();
    for (index, raw) in text.split('\n').enumerate() {
        let line = index + 1;
        let wrong = |problem: &str| SyntaxError { line, problem: problem.to_owned() };
        let start = if index == 0 && raw.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let content = raw[start..].trim();
        if content.is_empty() || content.starts_with(';') {
            continue;
        }
        if let Some(header) = content.strip_prefix('[') {
            let (name, rest) =
                header.split_once(']').ok_or_else(|| wrong("a ] is missing after the section's name"))?;
            if !is_nothing(rest) || name.trim().is_empty() {
                return Err(wrong("a section is a name in brackets, as in [HotStandby]"));
            }
            parsed.sections.push((name.trim().to_owned(), line));
            continue;
        }
        let Some(equals) = raw.find('=') else {
            return Err(wrong("neither a [section] nor 'name = value' nor a comment that begins with ;"));
        };
        let name = raw[start..equals].trim();
        if name.is_empty() || name.contains([';', '"', '[', ']']) {
            return Err(wrong("a parameter's name is missing before the ="));
        }
        let Some((section, _)) = parsed.sections.last() else {
            return Err(wrong("the entry stands before the first [section]"));
        };
        let (value, place) =
            value_at(raw, equals + 1).map_err(|problem| wrong(&format!("{name}: {problem}")))?;
        parsed.entries.push(Entry { section: section.clone(), name: name.to_owned(), value, line, place });
    }
    Ok(parsed)
}

/// Blank, or a comment.
fn is_nothing(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with(';')
}

/// The value that begins at or after this byte of the line.
fn value_at(raw: &str, from: usize) -> Result<(String, Range<usize>), String> {
    let rest = &raw[from..];
    let start = from + rest.len() - rest.trim_start().len();
    let rest = &raw[start..];
    if let Some(quote) = rest.chars().next().filter(|character| matches!(character, '"' | '\'')) {
        let inner = &rest[1..];
        let end = inner.find(quote).ok_or_else(|| format!("a closing {quote} is missing"))?;
        if !is_nothing(&inner[end + 1..]) {
            return Err("only a comment may follow a value in quotes".to_owned());
        }
        return Ok((inner[..end].to_owned(), start..start + end + 2));
    }
    let value = rest.split(';').next().unwrap_or_default().trim_end();
    // An empty value stands right behind the equals sign, so that a new one can be put there.
    let start = if value.is_empty() { from } else { start };
    Ok((value.to_owned(), start..start + value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_file_is_read() {
        let text = "\u{feff}; head\r\n[Com] ; c\r\n Listen = tcp 1964 ; comment\r\n\n[ HotStandby ]\nConnect=\"tcp a;b 1\" ; x\nA = 'q r'\nEmpty =  ; nothing\nLast=";
        let parsed = parse(text).unwrap();
        let values: Vec<_> = parsed
            .entries
            .iter()
            .map(|entry| (entry.section.as_str(), entry.name.as_str(), entry.value.as_str(), entry.line))
            .collect();
        assert_eq!(
            values,
            [
                ("Com", "Listen", "tcp 1964", 3),
                ("HotStandby", "Connect", "tcp a;b 1", 6),
                ("HotStandby", "A", "q r", 7),
                ("HotStandby", "Empty", "", 8),
                ("HotStandby", "Last", "", 9),
            ]
        );
        let lines: Vec<&str> = text.split('\n').collect();
        let places: Vec<_> =
            parsed.entries.iter().map(|entry| &lines[entry.line - 1][entry.place.clone()]).collect();
        assert_eq!(places, ["tcp 1964", "\"tcp a;b 1\"", "'q r'", "", ""]);
    }

    #[test]
    fn malformed_lines_are_named() {
        for (text, line) in [
            ("a=1", 1),
            ("[x]\nnonsense", 2),
            ("[x\n", 1),
            ("[x] y", 1),
            ("[]", 1),
            ("[x]\n\n=1", 3),
            ("[x]\na=\"1", 2),
            ("[x]\na=\"1\" 2", 2),
            ("[x]\n# a = 'é", 2),
        ] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn any_bytes_give_an_answer() {
        let pieces = ["[", "]", "=", ";", "\"", "'", "a", "é", " ", "\n", "\r\n", "\u{feff}", "\0"];
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let _ = parse(&text);
        }
    }
}
