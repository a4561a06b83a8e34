//! docs/states.md is generated from the transition table: UPDATE_DOCS=1 cargo test --test states_document.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write;

use hotstandby::hsb::state::State;
use hotstandby::hsb::table::{TABLE, Trigger};

fn words(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::SetPrimaryAlone => "set primary alone",
        Trigger::SetSecondaryAlone => "set secondary alone",
        Trigger::SetStandalone => "set standalone",
        Trigger::Switch => "switch",
        Trigger::SwitchFailed => "switch broken off",
        Trigger::Disconnect => "disconnect",
        Trigger::Connected => "connect, after catchup",
        Trigger::LinkLost => "link lost",
        Trigger::LinkLostAutoAlone => "link lost, AutoPrimaryAlone=yes",
        Trigger::PeerPromoted => "peer set PRIMARY ALONE",
        Trigger::CopyArrived => "netcopy arrived",
        Trigger::ApplyFailed => "a change does not fit",
    }
}

fn identifier(state: State) -> String {
    state.name().replace(' ', "_")
}

fn document() -> String {
    let mut text = String::from(
        "# States and transitions\n\nGenerated from `src/hsb/table.rs`; a test keeps it true. What is not in here does not happen.\n\n```mermaid\nstateDiagram-v2\n",
    );
    for row in TABLE {
        writeln!(text, "    {} --> {}: {}", identifier(row.from), identifier(row.to), words(row.trigger))
            .unwrap();
    }
    text.push_str("```\n\n| from | command or event | to | logged as |\n|---|---|---|---|\n");
    for row in TABLE {
        writeln!(text, "| {} | {} | {} | {} |", row.from, words(row.trigger), row.to, row.reason).unwrap();
    }
    text
}

#[test]
fn the_document_shows_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/states.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == document(),
        "docs/states.md is out of date: UPDATE_DOCS=1 cargo test --test states_document"
    );
}
