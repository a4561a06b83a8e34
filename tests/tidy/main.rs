//! The house rules that a program can check: which module may use which, what the heart may use, how long files and
//! functions are.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod floors;

use std::fs;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources(below: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    rust_files(&root().join(below), &mut files);
    files.sort();
    assert!(!files.is_empty(), "{below} holds no source");
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn the_heart_is_pure() {
    let forbidden =
        ["actix", "tokio", "rusqlite", "std::fs", "std::net", "std::time", "std::thread", "std::io", "log::"];
    for (name, text) in sources("src/hsb") {
        for word in forbidden {
            assert!(!text.contains(word), "{name} uses {word}: the heart has no I/O, clock or runtime");
        }
    }
}

#[test]
fn storage_and_net_know_nothing_of_states() {
    for (name, text) in sources("src/storage").into_iter().chain(sources("src/net")) {
        for word in ["hsb::state", "hsb::table", "hsb::heart", "crate::actors"] {
            assert!(!text.contains(word), "{name} uses {word}");
        }
    }
}

#[test]
fn actix_stays_with_actors_and_those_who_address_them() {
    for (name, text) in sources("src") {
        let places = ["src/actors/", "src/operations/", "src/node/"];
        let allowed = places.iter().any(|place| name.starts_with(place));
        assert!(allowed || !text.contains("actix::") && !text.contains("actix_rt"), "{name} uses actix");
    }
}

#[test]
fn unsafe_code_stays_in_its_three_places() {
    for (name, text) in sources("src") {
        let places = ["src/storage/capture/hook.rs", "src/storage/memory.rs", "src/storage/log/segment.rs"];
        let allowed = places.contains(&name.as_str());
        let uses = text.lines().any(|line| line.contains("unsafe {") || line.contains("unsafe extern"));
        assert!(allowed || !uses, "{name} has unsafe code");
    }
}

/// Elsewhere a file might be created through a link, or over one that belongs to somebody else.
#[test]
fn files_are_created_in_one_place() {
    // The last three make files of their user's, or for one who watches; the database file is opened and never created.
    let places = ["src/storage/files.rs", "src/storage/hold.rs", "src/logging", "src/demo/"];
    for (name, text) in sources("src") {
        let product = text.split("#[cfg(test)]").next().unwrap();
        let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
        if is_test || places.iter().any(|place| name.starts_with(place)) {
            continue;
        }
        for word in ["OpenOptions", "File::create", "File::options", "fs::write(", "fs::copy("] {
            assert!(!product.contains(word), "{name} uses {word}: storage/files.rs is the one door");
        }
    }
}

/// What each of these is for, one module does, for all others.
#[test]
fn there_is_one_door_to_each() {
    let doors: [(&str, &[&str], &[&str]); 6] = [
        (
            "threads",
            &["thread::spawn", "thread::Builder", "thread::{Builder", "scope.spawn("],
            &["src/threads.rs"],
        ),
        ("the end of the process", &["process::abort", "_exit("], &["src/stop.rs"]),
        ("an exit status", &["process::exit"], &["src/program/signals.rs", "src/watchdog/signals.rs"]),
        ("a connection", &["TcpStream"], &["src/stream.rs"]),
        ("a statement that keeps its place", &["mem::forget", "ManuallyDrop"], &["src/sql/execute.rs"]),
        ("random bytes", &["getrandom"], &["src/random.rs"]),
    ];
    for (name, text) in sources("src") {
        if name.ends_with("tests.rs") || name.contains("/tests/") {
            continue;
        }
        let product = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for (what, words, places) in doors {
            for word in words.iter().filter(|word| product.contains(**word)) {
                assert!(places.contains(&name.as_str()), "{name} uses {word}: {what} comes from {places:?}");
            }
        }
    }
}

#[test]
fn files_and_functions_are_short() {
    let mut problems = Vec::new();
    for (name, text) in sources("src").into_iter().chain(sources("tests")) {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > MAX_FILE_LINES {
            problems.push(format!("{name}: {} lines", lines.len()));
        }
        for (function, at, length) in functions(&lines) {
            if length > MAX_FUNCTION_LINES {
                problems.push(format!("{name}:{at}: {function} has {length} lines"));
            }
        }
    }
    assert!(problems.is_empty(), "too long:\n{}", problems.join("\n"));
}

/// Name, first line and length of every function; rustfmt puts the closing brace below the first letter.
fn functions<'a>(lines: &[&'a str]) -> Vec<(&'a str, usize, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let head = ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "async fn ", "pub async fn "];
        if !head.iter().any(|start| code.starts_with(start)) || code.ends_with(';') {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - code.len()]);
        if let Some(length) = lines[at..].iter().position(|line| *line == close) {
            found.push((code.split('(').next().unwrap(), at + 1, length + 1));
        }
    }
    found
}
