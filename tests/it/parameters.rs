//! Every parameter of the registry, on a real node: read, described, changed or refused, saved, found after a restart.
//! docs/parameters.md is generated: UPDATE_DOCS=1 cargo test --test it parameters.

use std::fmt::Write;
use std::path::Path;

use hotstandby::config::registry::{Access, Definition, REGISTRY};
use hotstandby::config::{Id, Parameters, kind::Kind};
use hotstandby::demo::pair;
use hotstandby::node::{Node, StartOptions};
use hotstandby::services::context::Rights;

fn start(directory: &Path) -> Node {
    let (parameters, _) = Parameters::load(directory).unwrap();
    let administrator = Box::new(|| Ok(("dba".to_string(), "dba".to_string())));
    Node::start(StartOptions { parameters, backup_server: false, administrator, netcopy_requested: None })
        .unwrap()
}

fn command(node: &Node, text: &str) -> Vec<(u32, String)> {
    node.context().admin.execute("dba", Rights::Administrator, text)
}

fn done(node: &Node, text: &str) -> String {
    let answer = command(node, text);
    assert!(answer.iter().all(|row| row.0 == 0), "{text}: {answer:?}");
    answer.into_iter().map(|row| row.1 + "\n").collect()
}

fn refused(node: &Node, text: &str) -> String {
    let answer = command(node, text);
    assert!(answer.len() == 1 && answer[0].0 != 0, "{text}: {answer:?}");
    answer[0].1.clone()
}

/// Other values that may be; together they make a solid.ini that a server starts with.
fn another(id: Id, port: u16) -> String {
    let definition = id.definition();
    match (id, definition.kind) {
        (Id::Listen, _) => format!("tcp -r7000 {port}"),
        (Id::DigitTemplateChar, _) => "@".into(),
        (Id::FileNameTemplate, _) => "log####@@@@.log".into(),
        (_, Kind::Text | Kind::Secret) => "else where; or".into(),
        (_, Kind::YesNo) => if definition.factory == "yes" { "no" } else { "yes" }.into(),
        (_, Kind::Number { minimum, .. }) if definition.factory == (minimum + 1).to_string() => {
            (minimum + 2).to_string()
        }
        (_, Kind::Number { minimum, .. }) => (minimum + 1).to_string(),
        (_, kind @ Kind::Size { .. }) => {
            let fits = |size: &&&str| **size != definition.factory && kind.check(size).is_ok();
            (*["128K", "1M", "64M"].iter().find(fits).unwrap()).to_string()
        }
        (_, Kind::PageSize) => "8K".into(),
        (_, Kind::Choice(words)) => {
            (*words.iter().find(|word| **word != definition.factory).unwrap()).to_string()
        }
        (_, Kind::Address { .. }) => "tcp -c10 127.0.0.1 9".into(),
        (_, Kind::Character | Kind::FileTemplate | Kind::Listen) => unreachable!(),
        (_, Kind::FileSpec) => "another file.db".into(),
    }
}

/// Values that must not be.
fn impossible(kind: Kind) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match kind {
        Kind::Text | Kind::Secret => words(&["a\"b", "a\u{7}b"]),
        Kind::YesNo => words(&["maybe", "", "1"]),
        Kind::Number { minimum, maximum, .. } => {
            let mut values: Vec<String> = words(&["", "x", "-1", "1.5", "99999999999999999999"]);
            values.push((maximum + 1).to_string());
            values.extend(minimum.checked_sub(1).map(|value| value.to_string()));
            values
        }
        Kind::Size { minimum, maximum } => {
            let mut values: Vec<String> = words(&["", "x", "-1K", "1.5M", "1Q", "99999999999999999999G"]);
            values.push((maximum + 1).to_string());
            values.extend(minimum.checked_sub(1).map(|value| value.to_string()));
            values
        }
        Kind::PageSize => words(&["0", "3K", "128K", "256"]),
        Kind::Choice(_) => words(&["", "other"]),
        Kind::Address { .. } => words(&["udp 1", "tcp", "tcp 0", "tcp 70000", "tcp a b 1", "tcp -rx 1"]),
        Kind::Character => words(&["", "ab", "/"]),
        Kind::FileTemplate => words(&["", "a/####.log", "log###.log", "log###########.log"]),
        Kind::Listen => {
            words(&["udp 1", "tcp", "tcp 0", "tcp 70000", "tcp a b 1", "tcp -rx 1", "upipe A, udp 1"])
        }
        Kind::FileSpec => words(&["", "a\"b"]),
    }
}

fn row(definition: &Definition, current: &str, startup: &str) -> String {
    let shown = |value: &str| match definition.kind {
        Kind::Secret if !value.is_empty() => "********".to_owned(),
        _ if value.is_empty() || value.contains(' ') => format!("\"{value}\""),
        _ => value.to_owned(),
    };
    let Definition { section, name, factory, .. } = definition;
    format!("{section} {name} {} {} {}\n", shown(current), shown(startup), shown(factory))
}

/// The same with a value that is not in force yet.
fn waiting(definition: &Definition, current: &str, startup: &str, next: &str) -> String {
    let next = match definition.kind {
        Kind::Secret => "********".to_owned(),
        _ if next.contains(' ') => format!("\"{next}\""),
        _ => next.to_owned(),
    };
    let row = row(definition, current, startup);
    format!("{} (waiting for {}: {next})\n", row.trim_end(), definition.access.waits_for())
}

/// Changes one parameter as its access mode allows; gives the value that the next start has to find.
fn change(node: &Node, directory: &Path, id: Id, startup: &str, value: &str) -> String {
    let definition = id.definition();
    let file = || std::fs::read_to_string(directory.join("solid.ini")).unwrap();
    let before = file();
    for wrong in impossible(definition.kind) {
        let text = refused(node, &format!("parameter {id}={wrong}"));
        assert!(!text.is_empty() && file() == before, "{id}={wrong}: {text}");
        assert_eq!(done(node, &format!("parameter {id}")), row(definition, startup, startup));
    }
    match definition.access {
        Access::ReadOnly => {
            assert!(refused(node, &format!("parameter {id}={value}")).contains("read only"), "{id}");
            assert_eq!(file(), before);
            return startup.to_owned();
        }
        Access::Immediate => {
            done(node, &format!("parameter {id}={value} temporary"));
            assert_eq!(done(node, &format!("parameter {id}")), row(definition, value, startup));
            assert_eq!(file(), before, "{id} was temporary");
            done(node, &format!("parameter {id}={value}"));
            assert_eq!(done(node, &format!("parameter {id}")), row(definition, value, startup));
        }
        Access::Startup | Access::Create => {
            let waits_for = definition.access.waits_for();
            assert!(refused(node, &format!("parameter {id}={value} temporary")).contains(waits_for));
            done(node, &format!("parameter {id}={value}"));
            let shown = waiting(definition, startup, startup, value);
            assert_eq!(done(node, &format!("parameter {id}")), shown, "{id}");
            if !matches!(definition.kind, Kind::Secret) {
                let description = done(node, &format!("describe parameter {id}"));
                assert!(
                    description.contains(&format!("Waiting for {waits_for}: {value}\n")),
                    "{description}"
                );
            }
        }
    }
    assert!(file().contains(value), "{id}={value} is not in\n{}", file());
    value.to_owned()
}

#[test]
fn every_parameter_is_read_described_changed_saved_and_survives() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path();
    let ports = [pair::reserve_port().unwrap(), pair::reserve_port().unwrap()];
    let listen = format!("tcp {}", ports[0].number);
    std::fs::write(directory.join("solid.ini"), format!("; ours\n[Com]\nListen = {listen} ; here\n"))
        .unwrap();
    let node = start(directory);
    let mut expected = Vec::new();
    for id in Id::ALL {
        let definition = id.definition();
        let startup = if *id == Id::Listen { &listen } else { definition.factory };
        let name = id.to_string();
        for spelling in [name.to_lowercase(), name.to_uppercase()] {
            assert_eq!(done(&node, &format!("parameter {spelling}")), row(definition, startup, startup));
        }
        let description = done(&node, &format!("describe parameter {name}"));
        for part in [definition.meaning, definition.access.name(), &definition.kind.allowed()] {
            assert!(description.contains(part), "{description}");
        }
        let value = another(*id, ports[1].number);
        expected.push(change(&node, directory, *id, startup, &value));
    }
    assert_eq!(node.address().unwrap().port(), ports[1].number);
    done(&node, "save parameters Other.ini");
    let saved = std::fs::read_to_string(directory.join("Other.ini")).unwrap();
    assert_eq!(saved, std::fs::read_to_string(directory.join("solid.ini")).unwrap());
    assert!(saved.starts_with("; ours\n") && saved.contains(" ; here\n"), "{saved}");
    node.shut_down();
    // Where the log is said to be now.
    std::fs::create_dir(directory.join("else where; or")).unwrap();

    let node = start(directory);
    let all = done(&node, "parameter");
    for (id, value) in Id::ALL.iter().zip(&expected) {
        let row = match id {
            // The database is there already.
            Id::PageSize => waiting(id.definition(), "4K", "4K", value),
            _ => row(id.definition(), value, value),
        };
        assert_eq!(done(&node, &format!("parameter {id}")), row);
        assert!(all.contains(&row), "{all}");
    }
    for id in Id::ALL.iter().filter(|id| id.definition().access != Access::ReadOnly) {
        // These two bind each other and Com.Listen's factory value may be taken.
        if !matches!(id, Id::Listen | Id::FileNameTemplate | Id::DigitTemplateChar) {
            done(&node, &format!("parameter {id}=*"));
        }
    }
    node.shut_down();
    let (parameters, _) = Parameters::load(directory).unwrap();
    assert_eq!(parameters.list(None).iter().filter(|row| row.current != row.factory).count(), 3);
}

#[test]
fn sections_names_and_files_that_are_not_there_are_refused() {
    let server = crate::common::embedded::server();
    let answer = |text: &str| server.context.admin.execute("dba", Rights::Administrator, text);
    let refused = |text: &str, part: &str| {
        let answer = answer(text);
        assert!(
            answer.len() == 1 && answer[0].0 == 14526 && answer[0].1.contains(part),
            "{text}: {answer:?}"
        );
    };
    let of_com = Id::ALL.iter().filter(|id| id.definition().section == "Com").count();
    assert_eq!(answer("parameter com").len(), of_com);
    assert_eq!(answer("parameter hotstandby.primaryalone")[0].1, "HotStandby AutoPrimaryAlone no no no");
    assert_eq!(answer("describe parameter hotstandby.primaryalone")[0].1, "HotStandby.AutoPrimaryAlone");
    server.admin("parameter HotStandby.PrimaryAlone = yes");
    assert_eq!(answer("parameter hotstandby.autoprimaryalone")[0].1, "HotStandby AutoPrimaryAlone yes no no");
    refused("parameter hotstandbay", "HotStandby");
    refused("parameter hotstandby.pingtimeuot", "HotStandby.PingTimeout");
    refused("parameter hotstandby.pingtimeuot=1", "HotStandby.PingTimeout");
    refused("save parameters solid.db", "holds something else");
    refused("save parameters no/such/directory.ini", "cannot be written");
    let unused = answer("parameter Logging.DirectIO=yes");
    assert!(unused[0].0 == 0 && unused[0].1.contains("no effect"), "{unused:?}");
    let forbidden = server.context.admin.execute("eve", Rights::Console, "parameter Com.MaxConnections=1");
    assert_ne!(forbidden[0].0, 0);
    assert_ne!(server.context.admin.execute("eve", Rights::Console, "save parameters")[0].0, 0);
}

fn document() -> String {
    let mut text = String::from(
        "# Parameters\n\nGenerated from `src/config/registry.rs`; a test keeps it true. The file is `solid.ini` in the \
         server's directory (`-c`, or SOLIDDIR).\n\nAccess: RO – only by editing solid.ini; RW – a change is in force \
         at once; RW/Startup – at the next start; RW/Create – with the next new database.\n\n\
         `parameter section.name=value` writes solid.ini before it answers: the file is written beside the old one, put \
         on disk and renamed, comments and order are kept, and a value that was confirmed is there after a crash. If \
         the file cannot be written, the command fails and nothing has changed. With `temporary` the value is in force \
         until the server ends. `*` is the factory value. *Own* parameters are not known to solidDB.\n",
    );
    let mut section = "";
    for id in Id::ALL {
        let definition = id.definition();
        if definition.section != section {
            section = definition.section;
            writeln!(
                text,
                "\n## {section}\n\n| name | factory | access | allowed | meaning |\n|---|---|---|---|---|"
            )
            .unwrap();
        }
        let own = if definition.ours { " *Own.*" } else { "" };
        let notes: String = definition.notes(*id).map(|note| format!(" {note}")).collect();
        writeln!(
            text,
            "| {} | {} | {} | {} | {}{notes}{own} |",
            definition.name,
            definition.factory,
            definition.access.name(),
            definition.kind.allowed(),
            definition.meaning
        )
        .unwrap();
    }
    text
}

#[test]
fn the_document_shows_the_registry() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/parameters.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == document(),
        "docs/parameters.md is out of date: UPDATE_DOCS=1 cargo test --test it parameters"
    );
    assert_eq!(REGISTRY.len(), Id::ALL.len());
}
