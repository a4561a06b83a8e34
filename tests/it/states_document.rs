//! docs/states.md is generated from the transition table: UPDATE_DOCS=1 cargo test --test it states_document.

use std::fmt::Write;

use hotstandby::hsb::phase::{Activity, state_number};
use hotstandby::hsb::state::State;
use hotstandby::hsb::table::{TABLE, Transition, Trigger};

const STATES: [State; 7] = [
    State::Offline,
    State::SecondaryAlone,
    State::SecondaryActive,
    State::PrimaryActive,
    State::PrimaryAlone,
    State::PrimaryUncertain,
    State::Standalone,
];

const INTRODUCTION: &str = "\
# States and transitions

Generated from `src/hsb/table.rs`; a test keeps it true. What is not in here does not happen.

Two servers form a pair. One is the *primary*: clients write there. The other is the *secondary*: it repeats what the
primary commits, and can be read. Each server is in exactly one state, which `hsb state` shows; the state says who may
write, and what is waited for before a commit is answered. A server always starts as SECONDARY ALONE (or OFFLINE, with
`-x backupserver`), whatever it was before: it never becomes a primary by itself. States change by commands of an operator
or watchdog and when the servers lose each other, in no other way.

";

const STATES_AND_WHAT_TO_DO: &str = "\
## The states, and what to do in each

`hsb status` looks at both servers and says which of this is to be done, and so does the watchdog's log; each command that
they name is accepted in its turn and makes no second primary. The table for those who want to see for themselves:

| state | writes | what it means | what to do |
|---|---|---|---|
| PRIMARY ACTIVE | yes | The pair works: what is committed is on both servers. | Nothing. `hsb switch secondary` exchanges the roles, `hsb disconnect` parts the servers for maintenance. |
| SECONDARY ACTIVE | no | The pair works. | Nothing. If the primary dies: see SECONDARY ALONE. `hsb switch primary` exchanges the roles; `hsb set primary alone` takes over at once, without asking the primary. |
| PRIMARY ALONE | yes | The server works without a secondary and keeps the log for it. | Bring the other server back. It is SECONDARY ALONE then: `hsb connect` (either server); if `hsb status connect` then says 14708: `hsb netcopy` here, then `hsb connect`; 14525, there or in `hsb status copy`: see [divergence](divergence.md). It is PRIMARY UNCERTAIN: `hsb set secondary alone` there first. |
| PRIMARY UNCERTAIN | wait | The secondary is gone, and may have been made the primary meanwhile. | Look at the other server, at its machine if it cannot be reached from here. It is PRIMARY ALONE: `hsb set secondary alone` here, then `hsb connect`; STANDALONE: the same, and `hsb set primary alone` there in between. It is SECONDARY ALONE: `hsb connect`, or, if its `hsb logpos` is the greater one, `hsb set secondary alone` here, then `hsb switch primary` and `hsb connect` there. It is down and stays so: `hsb set primary alone` here. |
| SECONDARY ALONE | no | The server follows nobody: it has just started, or the primary is gone. | The other server is a primary: see there. It is down, seen at its machine, and stays so: `hsb switch primary` here. Both are SECONDARY ALONE: compare `hsb logpos`; at the server whose answer is the greater one `hsb switch primary`, then `hsb connect`. |
| STANDALONE | yes | The server works alone and keeps no log for the other server, which will need a netcopy once the log does not reach back to where it left. | `hsb set primary alone`, then `hsb connect`; if `hsb status connect` then says 14708: `hsb netcopy`, then `hsb connect`. |
| OFFLINE | – | The server waits for a database. | At the other server, if it is not PRIMARY ALONE: `hsb set primary alone`. Then there `hsb netcopy`, then `hsb connect`. |

When both servers have become primaries and both have written (14528), nobody but a person can say which of the two
databases is right. Both are SECONDARY ALONE then. At the one to keep: `hsb set primary alone`. At the other
one `hsb rewind`, which saves to a file what only that one has and takes it back, then `hsb connect`; see
[divergence](divergence.md).

";

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
        Trigger::NoRoom => "disk full",
        Trigger::ApplyFailed => "a change does not fit",
        Trigger::Diverged => "connect: both wrote as primaries",
        Trigger::LogFull => "MaxLogSize reached",
    }
}

fn identifier(state: State) -> String {
    state.name().replace(' ', "_")
}

fn diagram(text: &mut String) {
    text.push_str("## The drawing\n\n```mermaid\nstateDiagram-v2\n    [*] --> SECONDARY_ALONE: start\n");
    text.push_str("    [*] --> OFFLINE: start with -x backupserver\n");
    // One arrow for each pair of states: the drawing stays readable.
    let mut drawn: Vec<(State, State)> = Vec::new();
    for Transition { from, to, .. } in TABLE {
        if drawn.contains(&(*from, *to)) {
            continue;
        }
        drawn.push((*from, *to));
        let all = TABLE.iter().filter(|row| (row.from, row.to) == (*from, *to));
        let labels: Vec<&str> = all.map(|row| words(row.trigger)).collect();
        // A colon ends a label in Mermaid.
        let labels = labels.join(" / ").replace(": ", ", ");
        writeln!(text, "    {} --> {}: {labels}", identifier(*from), identifier(*to)).unwrap();
    }
    text.push_str("```\n\n");
}

fn table(text: &mut String) {
    text.push_str(
        "## The table\n\nOne row for each change of the state; the last column is what is logged.\n\n",
    );
    text.push_str("| from | command or event | to | logged as |\n|---|---|---|---|\n");
    for row in TABLE {
        writeln!(text, "| {} | {} | {} | {} |", row.from, words(row.trigger), row.to, row.reason).unwrap();
    }
}

fn phases(text: &mut String) {
    text.push_str(
        "\n## What can be under way\n\n\
        Not states: `hsb state` goes on showing the state. `hsb status` shows them, and `perfmon` their number as \"HSB \
        state\". Meanwhile every command that would change the state is refused with the code.\n\n\
        | under way | number at a primary | number at a secondary | refusal |\n|---|---|---|---|\n",
    );
    for activity in Activity::ALL.into_iter().filter(|activity| *activity != Activity::Idle) {
        let (primary, secondary) =
            (state_number(State::PrimaryAlone, activity), state_number(State::SecondaryAlone, activity));
        let refusal = activity.refusal().unwrap();
        writeln!(text, "| {} | {primary} | {secondary} | {} |", activity.name(), refusal.number()).unwrap();
    }
    text.push_str("\nWith nothing under way the number is the state's:");
    for state in STATES {
        write!(text, " {} {},", state_number(state, Activity::Idle), state).unwrap();
    }
    text.push_str(" 0 a server without HotStandby.\n");
}

fn document() -> String {
    let mut text = String::from(INTRODUCTION);
    text.push_str(STATES_AND_WHAT_TO_DO);
    diagram(&mut text);
    table(&mut text);
    phases(&mut text);
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
        "docs/states.md is out of date: UPDATE_DOCS=1 cargo test --test it states_document"
    );
}

#[test]
fn the_document_says_of_each_state_what_to_do() {
    for state in STATES {
        assert!(STATES_AND_WHAT_TO_DO.contains(&format!("| {state} |")), "{state}");
    }
}
