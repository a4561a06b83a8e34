//! docs/traps.md, docs/durability.md and docs/rulings.md are true as far as a program can tell: the tests and files that they name exist,
//! and no trap is left out or without a test that is named after it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const TRAPS: usize = 24;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// The words in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn sources() -> Vec<(PathBuf, String)> {
    [rust_files(&root().join("src")), rust_files(&root().join("tests"))].concat()
}

fn is_test(sources: &[(PathBuf, String)], name: &str) -> bool {
    let function = format!("fn {name}(");
    sources.iter().any(|(_, text)| {
        let found = text.split_once(&function);
        found.is_some_and(|(before, _)| before.trim_end_matches("async ").trim_end().ends_with("test]"))
    })
}

#[test]
fn the_document_names_tests_and_files_that_exist() {
    let document = fs::read_to_string(root().join("docs/traps.md")).unwrap();
    let sources = sources();
    let mut traps = Vec::new();
    for line in document.lines().filter(|line| {
        line.starts_with("| ") && !line.starts_with("| trap ") && !line.starts_with("| fault ")
    }) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let number = cells[0].trim_start_matches("| ").split_once('.').map(|(number, _)| number);
        let number = number.and_then(|number| number.parse::<usize>().ok());
        traps.extend(number);
        if let Some(number) = number {
            assert_eq!(cells.len(), 4, "{line}");
            let named = quoted(cells[2]).any(|name| name.starts_with(&format!("trap_{number:02}_")));
            assert!(named, "no test is named after trap {number}");
            assert!(
                cells[3].trim_end_matches('|').trim() != "",
                "what makes the tests of trap {number} fail?"
            );
        }
        for file in quoted(cells[1]).filter(|word| word.starts_with("src/")) {
            assert!(root().join(file).is_file(), "{file} does not exist: {line}");
        }
        for name in quoted(cells[2]) {
            assert!(is_test(&sources, name), "there is no test {name}: {line}");
        }
    }
    assert_eq!(traps, (1..=TRAPS).collect::<Vec<_>>());
}

/// Comments name rulings by number: each has its row, and what the row names exists and speaks of it.
#[test]
fn every_ruling_that_the_code_names_has_its_row() {
    let document = fs::read_to_string(root().join("docs/rulings.md")).unwrap();
    let sources = sources();
    let mut rulings = 0;
    for line in document.lines().filter(|line| line.starts_with("| R")) {
        rulings += 1;
        let cells: Vec<&str> = line.split(" | ").collect();
        assert_eq!((cells.len(), cells[0]), (5, format!("| R{rulings}").as_str()), "{line}");
        for file in quoted(cells[3]) {
            assert!(root().join(file).is_file(), "{file} does not exist: {line}");
        }
        for name in quoted(cells[4]) {
            assert!(is_test(&sources, name), "there is no test {name}: {line}");
        }
    }
    assert_eq!(rulings, 9);
    let core = sources.iter().filter(|(path, _)| path.starts_with(root().join("src/hsb")));
    let comments = core.flat_map(|(_, text)| text.lines()).filter(|line| line.trim().starts_with("//"));
    let words = comments.flat_map(|line| line.split(|letter: char| !letter.is_alphanumeric()));
    let is_ruling = |word: &&str| {
        word.strip_prefix('R').is_some_and(|number| !number.is_empty() && number.parse::<u32>().is_ok())
    };
    let named: BTreeSet<&str> = words.filter(is_ruling).collect();
    assert!(named.len() >= 8, "{named:?}");
    for name in named {
        assert!(document.contains(&format!("| {name} | ")), "{name} has no row");
    }
}

#[test]
fn what_the_document_on_durability_calls_tested_is_tested() {
    let document = fs::read_to_string(root().join("docs/durability.md")).unwrap();
    let faults = fs::read_to_string(root().join("tests/simulation/coverage.rs")).unwrap();
    let (_, tested) = document.split_once("## What was tested").unwrap();
    let (sources, mut names) = (sources(), 0);
    for line in tested.lines().filter(|line| line.starts_with("| ")) {
        for name in quoted(line) {
            names += 1;
            match name.strip_prefix("Fault::") {
                Some(fault) => {
                    assert!(faults.contains(&format!("    {fault},\n")), "there is no {name}: {line}")
                }
                None => assert!(is_test(&sources, name), "there is no test {name}: {line}"),
            }
        }
    }
    assert!(names >= 40, "they are looked for in vain");
}

/// Without that a power cut may bring the old name back.
#[test]
fn trap_12_every_rename_is_followed_by_a_sync_of_the_directory() {
    let mut renames = 0;
    for (path, text) in rust_files(&root().join("src")) {
        // Nothing is lost if a file of messages has its old name again.
        if path.ends_with("log/tests.rs") || path.ends_with("logging/file.rs") {
            continue;
        }
        for (_, after) in text.match_indices("fs::rename(").map(|(at, _)| text.split_at(at)) {
            renames += 1;
            // What the clean-up after a failed rename takes is in between.
            let syncs = |line: &str| line.contains("sync_directory(") || line.contains("directory.sync_all(");
            let follows = after.lines().skip(1).take(8).any(syncs);
            assert!(follows, "{}", path.display());
        }
    }
    assert!(renames >= 2, "they are looked for in vain");
}
