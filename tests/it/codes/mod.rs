//! Every code of the table: how it is provoked, or why this product does not return it. docs/errors.md is generated
//! from both: UPDATE_DOCS=1 cargo test --test it codes.

mod provoke;

use std::fmt::Write;
use std::path::Path;

use hotstandby::hsb::codes::{Code, TABLE};

/// How a code comes about.
pub enum Way {
    /// Provoked here: who returns it, and the numbers that were seen.
    Here(&'static str, fn() -> u32),
    /// Provoked by a test elsewhere: who returns it, the file, the test.
    There(&'static str, &'static str, &'static str),
    /// Not returned, and why.
    No(&'static str),
}

use Way::{Here, No, There};
use provoke as p;

const HEART: &str = "src/hsb/tests.rs";

const WAYS: &[(u32, Way)] = &[
    (0, Here("every command that succeeds", || p::alone("version"))),
    (14003, Here("hsb status switch, catchup, copy", p::active)),
    (14007, Here("hsb status connect", p::connecting)),
    (14008, Here("hsb status connect", p::catching_up)),
    (14009, Here("hsb status switch", || p::alone("hsb status switch"))),
    (14010, Here("hsb status connect", p::disconnecting)),
    (
        14501,
        Here(
            "start in a directory that another server uses; a handshake that fails (other secret, other version); a command that the user has no role for (42501 where SQL refuses it); any operation without a number of its own",
            p::directory_in_use,
        ),
    ),
    (14502, Here("HotStandby.Connect, Com.Listen", || p::address("udp host 1"))),
    (14503, Here("hsb connect, switch, netcopy, verify", || p::alone("hsb verify"))),
    (
        14506,
        There(
            "SQL sessions while a copy replaces the database",
            "tests/it/clients.rs",
            "cancel_and_close_all",
        ),
    ),
    (14518, No("clients of this product see 21308 or the end of their connection")),
    (14519, Here("SQL sessions after 'throwout'", p::thrown_out)),
    (14520, No("a secondary takes connections and reads; what it does not take is writes (10045)")),
    (14522, There("hsb copy", "tests/it/copies.rs", "14522")),
    (14523, Here("commands during a switch", p::switch_active)),
    (14524, There("hsb connect, netcopy", "tests/it/bad_input.rs", "a_peer_of_another_database_is_refused")),
    (
        14525,
        There(
            "hsb connect, verify",
            "tests/it/status_and_verify.rs",
            "verify_of_servers_that_are_not_connected",
        ),
    ),
    (14526, Here("commands and parameters that are not valid", || p::alone("hsb swich"))),
    (14527, Here("hsb commands on a server without HotStandby", || p::plain("hsb state"))),
    (14528, There("hsb connect", "tests/it/two_primaries.rs", "14528")),
    (14529, Here("SQL statements that nobody else has yet, hsb verify", p::timed_out)),
    (14535, Here("hsb switch primary", || p::alone("hsb switch primary"))),
    (14536, Here("hsb switch secondary", || p::secondary("hsb switch secondary"))),
    (14537, Here("hsb disconnect, hsb status connect", || p::alone("hsb disconnect"))),
    (14538, Here("hsb netcopy", || p::secondary("hsb netcopy"))),
    (14539, Here("hsb set secondary alone, hsb connect", || p::secondary("hsb set secondary alone"))),
    (14540, Here("hsb set standalone", || p::standalone("hsb set standalone"))),
    (14541, No("no parameter of solid.ini forbids STANDALONE, so none can conflict with it")),
    (14542, Here("commands of a server that waits for a netcopy", || p::offline("hsb connect"))),
    (14543, Here("start without [HotStandby] on the database of a pair", p::no_section)),
    (14544, Here("hsb copy", || p::diskless("hsb copy somewhere"))),
    (14545, Here("hsb set primary alone while the servers part", p::alone_while_parting)),
    (14546, There("hsb switch secondary", HEART, "CATCHUP_FIRST")),
    (14547, Here("HotStandby.Connect, Com.Listen", || p::address("tcp -rsoon 1964"))),
    (14548, Here("hsb switch secondary", || p::standalone("hsb switch secondary"))),
    (14549, There("shutdown", "tests/it/in_doubt.rs", "a_server_in_doubt_can_be_shut_down")),
    (14550, Here("parameter hotstandby.connect=…", || p::connected("parameter hotstandby.connect=tcp 1"))),
    (14552, Here("connections to a server that waits for a netcopy", p::offline_connection)),
    (14700, There("hsb connect", "tests/it/two_primaries.rs", "14700")),
    (14701, Here("hsb connect", || p::two_secondaries("hsb connect"))),
    (14702, Here("commands while the servers connect", p::catchup_active)),
    (14703, Here("commands during a copy", p::copy_active)),
    (14704, Here("hsb netcopy", || p::standalone("hsb netcopy"))),
    (14705, Here("hsb set standalone", p::standalone_at_a_secondary)),
    (14707, Here("hsb connect, verify", || p::standalone("hsb connect"))),
    (14708, There("hsb connect", "src/storage/log/tests.rs", "position_not_in_the_log_is_told_apart")),
    (14709, Here("hsb connect, cominfo, netcopy", || p::unconfigured("hsb connect"))),
    (14710, Here("commands while the servers part", p::parting)),
    (
        14711,
        There(
            "new connections",
            "tests/it/admin.rs",
            "a_server_that_goes_down_lets_open_transactions_end_and_takes_no_new_clients",
        ),
    ),
    (14712, Here("hsb verify", || p::secondary("hsb verify"))),
    (10002, Here("what should not happen", p::unexpected)),
    (
        10013,
        There("SQL writes during a switch", "tests/flows/supervisor.rs", "switchover_at_the_old_primary"),
    ),
    (10019, There("backup, hsb copy, netcopy", "tests/it/copies.rs", "10019")),
    (10024, There("backup, hsb copy", "tests/it/copies.rs", "10024")),
    (10030, There("backup, hsb copy", "tests/it/copies.rs", "10030")),
    (10041, There("SQL writes with General.Readonly=yes", "tests/it/parameter_effects.rs", "10041")),
    (10045, Here("SQL writes at a secondary", p::write_at_a_secondary)),
    (
        10046,
        No(
            "statements that change the schema wait their turn like all writes, and nothing fails because of them",
        ),
    ),
    (10047, There("SQL transactions during switch and failover", "tests/it/outcomes.rs", "10047")),
    (
        10049,
        There(
            "hsb verify, netcopy",
            "tests/it/status_and_verify.rs",
            "verify_of_servers_that_are_not_connected",
        ),
    ),
    (
        10080,
        There(
            "message log of a secondary, promotion of it",
            "src/storage/apply/tests.rs",
            "what_does_not_fit_is_reported_and_rolled_back",
        ),
    ),
    (10081, Here("start, netcopy", p::corrupt_database)),
    (10082, There("a copy that is given up because the server ends", "tests/it/copies.rs", "10082")),
    (
        10083,
        There(
            "SQL transactions whose outcome is not known here (SQLSTATE 08007)",
            "tests/it/in_doubt.rs",
            "10083",
        ),
    ),
    (10089, There("SQL writes in PRIMARY UNCERTAIN, hsb verify", "tests/it/in_doubt.rs", "10089")),
    (11002, Here("SQL writes, the log, copies", p::disk_full)),
    (13068, Here("SQL sessions when the server goes down", p::shutdown)),
    (21300, Here("HotStandby.Connect", || p::address("upipe SOLID"))),
    (21306, Here("the console client; start with a port that is taken", p::server_not_found)),
    (21307, No("connect info with several servers comes with the failover client")),
    (21308, Here("the console client", p::connection_broken)),
    (25216, No("comes with the failover client")),
    (25217, No("comes with the failover client")),
    (25218, No("comes with the failover client")),
    (
        30787,
        There(
            "start, hsb connect",
            "src/storage/log/tests.rs",
            "trap_13_flipped_bit_in_the_middle_is_damage",
        ),
    ),
    (30788, No("a failed write ends the process; the number stands in solmsg.out only")),
    (30789, Here("start", p::log_cannot_be_opened)),
    (30790, Here("start of a server whose log is in memory", p::no_memory_for_the_log)),
];

/// Codes that only solidDB returns: programs and people that know them find out what stands in for them.
const ONLY_SOLIDDB: &[u32] = &[
    14510, 14511, 14551, 14706, 10048, 10050, 10078, 10079, 10084, 10085, 10087, 10088, 11003, 13123, 13167,
    13170, 20009, 21318,
];

fn way(number: u32) -> &'static Way {
    if ONLY_SOLIDDB.contains(&number) {
        return &No("only solidDB returns it");
    }
    &WAYS.iter().find(|row| row.0 == number).unwrap_or_else(|| panic!("{number} is in no row of WAYS")).1
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_code_is_provoked_or_explained() {
    assert_eq!(WAYS.len() + ONLY_SOLIDDB.len(), TABLE.len());
    let mut wrong = Vec::new();
    for (number, name, ..) in TABLE {
        match way(*number) {
            Here(_, provoke) => {
                let seen = provoke();
                if seen != *number {
                    wrong.push(format!("{number} {name}: {seen}"));
                }
            }
            There(_, file, test) => {
                assert!(read(file).contains(test), "{number}: there is no '{test}' in {file}");
            }
            No(_) => {}
        }
    }
    assert!(wrong.is_empty(), "other codes came: {wrong:?}");
}

#[test]
fn what_is_said_not_to_be_returned_is_not() {
    let mut sources = Vec::new();
    gather(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    for (number, name, ..) in TABLE {
        // A number that only the message log shows is raised all the same.
        if *number == 30788 || !matches!(way(*number), No(_)) {
            continue;
        }
        let used = |text: &String| text.contains(&format!("Code::{name}"));
        assert!(
            !sources.iter().any(used),
            "{name} is returned now: say in tests/it/codes/mod.rs how, and UPDATE_DOCS=1 cargo test --test it codes"
        );
    }
}

fn gather(directory: &Path, sources: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, sources);
        } else {
            sources.push(std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

#[test]
fn every_text_says_what_to_do() {
    for (number, name, _, text) in TABLE {
        let is_answer = Code::find(*number).is_some_and(Code::is_success);
        let parts = text.split([';', ':', '.', ',']).filter(|part| part.trim().len() > 4).count();
        assert!(is_answer || parts >= 2, "{name} says what is wrong and not what to do: {text}");
    }
}

fn document() -> String {
    let mut text = String::from(
        "# Codes\n\nGenerated from `src/hsb/codes.rs` and `tests/it/codes/`, which provokes each of them; a test keeps it true.\n\
         `errorcode <number>` prints the same. On SQL connections a code comes with its SQLSTATE, and its number stands\n\
         at the beginning of the message.\n\n| code | SQLSTATE | what is wrong and what to do | returned by |\n|---|---|---|---|\n",
    );
    for (number, _, sqlstate, meaning) in TABLE {
        let by = match way(*number) {
            Here(by, _) | There(by, ..) => (*by).to_owned(),
            No(why) => format!("– ({why})"),
        };
        writeln!(text, "| {number} | {sqlstate} | {meaning} | {by} |").unwrap();
    }
    text
}

#[test]
fn the_document_shows_the_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == document(), "docs/errors.md is out of date: UPDATE_DOCS=1 cargo test --test it codes");
}
