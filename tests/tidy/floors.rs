//! The floors of the house: which module of src may use which. Each may use what stands before it in [`FLOORS`] and nothing
//! after it, so there is no circle. The figure in ARCHITECTURE.md is made from the code:
//! UPDATE_DOCS=1 cargo test --test tidy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::{root, sources};

/// From the ground up.
const FLOORS: [&str; 28] = [
    "hsb",
    "error",
    "stop",
    "stream",
    "random",
    "codec",
    "counters",
    "progress",
    "calendar",
    "threads",
    "signals",
    "logging",
    "descriptors",
    "config",
    "pgtypes",
    "storage",
    "services",
    "sql",
    "net",
    "actors",
    "operations",
    "admin",
    "client",
    "node",
    "command_line",
    "demo",
    "watchdog",
    "program",
];
const BEGIN: &str = "<!-- floors: made by UPDATE_DOCS=1 cargo test --test tidy -->\n";
const END: &str = "<!-- end of floors -->\n";

/// The module of a file of src: its folder, or its own name.
fn module_of(name: &str) -> &str {
    let below = name.strip_prefix("src/").unwrap();
    below.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The code of a file, without comments and without the tests at its end.
fn code_of(text: &str) -> String {
    let product = text.split("#[cfg(test)]\nmod ").next().unwrap();
    product.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Modules that a code names: `crate::a::…` and `crate::{a::…, b}`.
fn used(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    for after in code.split("crate::").skip(1) {
        let names: Vec<&str> = match after.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap().split(',').map(str::trim).collect(),
            None => vec![after],
        };
        for name in names {
            let end = name.find(|letter| !is_name(letter)).unwrap_or(name.len());
            found.insert(name[..end].to_owned());
        }
    }
    found
}

/// For each module what it uses.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in sources("src") {
        let module = module_of(&name);
        if name == "src/lib.rs" || name.ends_with("tests.rs") || name.contains("/tests/") || module == "bin" {
            continue;
        }
        arrows.entry(module.to_owned()).or_default().extend(used(&code_of(&text)));
    }
    for (module, uses) in &mut arrows {
        uses.remove(module);
        uses.retain(|used| FLOORS.contains(&used.as_str()));
    }
    arrows
}

#[test]
fn no_module_uses_what_stands_above_it() {
    let arrows = arrows();
    let floor = |module: &str| FLOORS.iter().position(|floor| *floor == module);
    let mut up = Vec::new();
    for (module, uses) in &arrows {
        let own = floor(module).unwrap_or_else(|| panic!("{module} has no floor in tests/tidy/floors.rs"));
        let above = uses.iter().filter(|used| floor(used) > Some(own));
        up.extend(above.map(|used| (module.as_str(), used.as_str())));
    }
    assert!(up.is_empty(), "arrows up: what is used by both belongs below both: {up:?}");
}

#[test]
fn the_figure_of_the_floors_is_true() {
    let arrows = arrows();
    let mut figure = format!("{BEGIN}```\n");
    for module in FLOORS.iter().rev() {
        let uses = &arrows[*module];
        let uses: Vec<&str> = FLOORS.iter().rev().copied().filter(|floor| uses.contains(*floor)).collect();
        figure.push_str(format!("{module:<13} {}", uses.join(" ")).trim_end());
        figure.push('\n');
    }
    figure.push_str("```\n");
    let path = root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the place of the figure");
    let (_, after) = rest.split_once(END).expect("the end of the figure");
    let wanted = format!("{before}{figure}{END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == wanted,
        "ARCHITECTURE.md is out of date: UPDATE_DOCS=1 cargo test --test tidy"
    );
}
