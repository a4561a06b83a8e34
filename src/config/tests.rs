//! Tests of the whole of `config`.

use super::*;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::hsb::settings::{AcknowledgePolicy, DurabilityLevel, SafenessLevel};
use std::path::Path;
use std::time::Duration;

fn load(text: &str) -> Result<(Parameters, Vec<String>), ServerError> {
    Parameters::from_text(Path::new("/nowhere"), text)
}

#[test]
fn a_solid_ini_of_soliddb_carries_over() {
    let text = "[Com]\nListen = upipe SOLID, tcp 1313\nConnect = tcp 1313\n[IndexFile]\nFileSpec_1 = solid.db 100M\nFileSpec_2 = more.db 1G\n[Data Sources]\nOrders = tcp db1 1313, the orders\n[HotStandby]\nPingInterval=500\nPingInterval=700\n";
    let (parameters, warnings) = Parameters::from_text(Path::new("/d"), text).unwrap();
    assert_eq!(parameters.listen().port, 1313);
    assert_eq!(parameters.database_file(), Path::new("/d/solid.db"));
    assert_eq!(parameters.data_source("ORDERS"), Some("tcp db1 1313"));
    assert_eq!(parameters.text(Id::ComConnect), "tcp 1313");
    for (warning, parts) in warnings.iter().zip([
        ["line 2", "listens at 'tcp 1313' only"],
        ["line 5", "'100M' behind the file's name has no effect"],
        ["line 6", "FileSpec_2 is ignored: the database is one file"],
        ["line 11", "PingInterval stands in line 10 already; this line counts"],
    ]) {
        assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
    }
    assert_eq!(warnings.len(), 4, "{warnings:?}");
}

#[test]
fn the_page_size_of_the_file_is_in_force_and_another_one_waits() {
    let (parameters, _) = Parameters::from_text(Path::new("/d"), "[IndexFile]\nBlockSize=8K\n").unwrap();
    parameters.adopt_page_size(8192);
    assert_eq!(parameters.get("indexfile", "blocksize").unwrap().next, None);
    parameters.adopt_page_size(4096);
    let row = parameters.get("indexfile", "blocksize").unwrap();
    assert_eq!((row.current.as_str(), row.next.as_deref()), ("4K", Some("8K")));
    assert_eq!(parameters.page_size_bytes(), 4096);
    // A copy with the page size that is wanted has arrived.
    parameters.adopt_page_size(8192);
    assert_eq!(parameters.get("indexfile", "blocksize").unwrap().next, None);
}

#[test]
fn without_a_file_factory_values_rule() {
    let directory = tempfile::tempdir().unwrap();
    let (parameters, warnings) = Parameters::load(directory.path()).unwrap();
    assert!(warnings.is_empty());
    let listen = parameters.listen();
    assert_eq!((listen.host.as_str(), listen.port), ("127.0.0.1", 1964));
    assert_eq!(listen.read_timeout, Some(Duration::from_secs(60)));
    assert!(!parameters.hsb_enabled() && !parameters.has_hotstandby_section());
    assert_eq!(parameters.connect(), None);
    assert_eq!(parameters.connect_timeout(), None);
    assert_eq!(parameters.ping_timeout(), Some(Duration::from_secs(4)));
    assert_eq!(parameters.safeness_level(), SafenessLevel::TwoSafe);
    assert_eq!(parameters.acknowledge_policy(), AcknowledgePolicy::Received);
    assert_eq!(parameters.durability_level(), DurabilityLevel::Adaptive);
    assert_eq!(parameters.lock_wait_timeout(), Duration::from_secs(30));
    assert_eq!(parameters.page_size_bytes(), 4096);
    assert_eq!(parameters.log_split_size_bytes(), 10 << 20);
    assert_eq!(parameters.log_digit_character(), '#');
    assert_eq!(parameters.max_log_size_bytes(), None);
    assert_eq!(parameters.database_file(), directory.path().join("solid.db"));
    assert_eq!(parameters.copy_directory(), None);
    assert_eq!(parameters.peer_secret(), Ok(None));
}

#[test]
fn the_file_rules_and_the_last_entry_wins() {
    let text = "[hotstandby]\nhsbenabled = YES\nCONNECT = \"tcp -c9 b 1\"\npingtimeout=1\nPingTimeout=9000 ms\n\
                SafenessLevel=Auto\n2SafeAckPolicy=3\nprimaryalone=yes\n[COM]\nListen=tcp -r0 127.0.0.1 2000\n\
                [Logging]\nDurabilityLevel=3\nMinSplitSize = 1M ; small\n";
    let (parameters, warnings) = load(text).unwrap();
    assert!(
        parameters.hsb_enabled() && parameters.auto_primary_alone() && parameters.has_hotstandby_section()
    );
    assert_eq!(parameters.connect().unwrap().to_string(), "tcp -c9 b 1");
    assert_eq!(parameters.ping_timeout(), Some(Duration::from_secs(9)));
    assert_eq!(parameters.safeness_level(), SafenessLevel::Auto);
    assert_eq!(parameters.acknowledge_policy(), AcknowledgePolicy::Durable);
    assert_eq!(parameters.durability_level(), DurabilityLevel::Strict);
    assert_eq!(parameters.listen().read_timeout, None);
    assert_eq!(parameters.log_split_size_bytes(), 1 << 20);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("PingTimeout stands in line 4 already"), "{warnings:?}");
    assert!(warnings[1].contains("AutoPrimaryAlone"), "{warnings:?}");
}

#[test]
fn what_is_unknown_is_a_warning_that_names_the_nearest() {
    let text = "[HotStandBay]\nx=1\n[HotStandby]\nPingTimeuot=1\n[Com]\n";
    let (_, warnings) = load(text).unwrap();
    assert_eq!(
        warnings,
        [
            "/nowhere/solid.ini, line 1: unknown section [HotStandBay] is ignored; the nearest known one is [HotStandby].",
            "/nowhere/solid.ini, line 4: unknown parameter HotStandby.PingTimeuot is ignored; the nearest known one is HotStandby.PingTimeout.",
        ]
    );
}

#[test]
fn what_is_wrong_stops_the_start_and_says_where() {
    for (text, expected) in [
        (
            "[Logging]\nDurabilityLevel=4",
            "14526: /nowhere/solid.ini, line 2: Logging.DurabilityLevel: '4' is not possible; allowed: a whole number from 1 to 3.",
        ),
        ("[Com]\nnonsense", "/nowhere/solid.ini, line 2: neither a [section]"),
        (
            "[General]\n\nBackupBlockSize=5000",
            "line 3: General.BackupBlockSize: '5000' is not possible; allowed: a multiple of IndexFile.BlockSize (4096 bytes).",
        ),
        ("[Logging]\nFileNameTemplate=sol##.log", "line 2: Logging.FileNameTemplate: 'sol##.log'"),
        ("[Logging]\nDigitTemplateChar=x", "solid.ini: Logging.FileNameTemplate: 'sol#####.log'"),
        (
            "[Com]\nListen=tcp 0.0.0.0 1\n[HotStandby]\nHSBEnabled=yes",
            "line 2: Com.Listen: 'tcp 0.0.0.0 1' is not possible; a HotStandby server that listens beyond",
        ),
        (
            "[HotStandby]\nHSBEnabled=yes\nPeerSecretFile=missing",
            "PeerSecretFile: /nowhere/missing: cannot be read",
        ),
        ("[Watchdog]\nPassword1=\"a\tb\"", "Watchdog.Password1: '********'"),
    ] {
        let error = load(text).err().unwrap();
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert_eq!(error.code, Some(Code::INVALID_ARGUMENT));
    }
}

#[test]
fn a_connect_string_that_is_none_is_refused_with_its_own_code() {
    let parameters = Parameters::factory(Path::new("/nowhere")).unwrap();
    for (text, number) in [("udp host 1", 14502), ("tcp -rfoo host 1", 14547), ("upipe SOLID", 21300)] {
        for (section, name) in [("HotStandby", "Connect"), ("Com", "Listen")] {
            let error = parameters.set(section, name, text, false).unwrap_err();
            assert_eq!(error.code.map(Code::number), Some(number), "{error}");
            assert!(error.message().contains(name) && error.message().contains(text), "{error}");
            let error = load(&format!("[{section}]\n{name}={text}")).err().unwrap();
            assert_eq!(error.code.map(Code::number), Some(number), "{error}");
            assert!(error.message().contains("line 2") && error.message().contains(text), "{error}");
        }
    }
}

#[test]
fn a_connect_string_that_names_the_server_itself_is_warned_of() {
    let warned = |listen: &str, connect: &str| {
        let text = format!(
            "[Com]\nListen={listen}\n[HotStandby]\nHSBEnabled=yes\nConnect={connect}\nPeerSecretFile=secret"
        );
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "a secret of sixteen letters").unwrap();
        let (_, warnings) = Parameters::from_text(directory.path(), &text).unwrap();
        warnings.iter().any(|warning| warning.contains("is this server itself"))
    };
    for (listen, connect, own) in [
        ("tcp 1964", "tcp 1964", true),
        ("tcp 1964", "tcp localhost 1964", true),
        ("tcp 127.0.0.1 1964", "tcp -c100 127.0.0.1 1964", true),
        ("tcp 0.0.0.0 1964", "tcp 1964", true),
        ("tcp node-a 1964", "tcp NODE-A 1964", true),
        ("tcp 1964", "tcp 1965", false),
        ("tcp 0.0.0.0 1964", "tcp 192.0.2.1 1964", false),
        ("tcp 127.0.0.1 1964", "tcp 127.0.0.2 1964", false),
        ("tcp node-a 1964", "tcp node-b 1964", false),
    ] {
        assert_eq!(warned(listen, connect), own, "{listen}; {connect}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_line() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("solid.ini"), b"[Com]\n\n; \xff\n").unwrap();
    let error = Parameters::load(directory.path()).err().unwrap();
    assert!(error.message().ends_with("solid.ini, line 3: not UTF-8 text."), "{}", error.message());
}

#[test]
fn the_peer_secret_is_the_files_content() {
    let directory = tempfile::tempdir().unwrap();
    let ini =
        "[Com]\nListen=tcp 0.0.0.0 1\n[HotStandby]\nHSBEnabled=yes\nPeerSecretFile=secret\nConnect=tcp 2\n";
    std::fs::write(directory.path().join("solid.ini"), ini).unwrap();
    std::fs::write(directory.path().join("secret"), " hush \n").unwrap();
    let (parameters, warnings) = Parameters::load(directory.path()).unwrap();
    assert_eq!(parameters.peer_secret(), Ok(Some("hush".to_owned())));
    assert!(warnings.is_empty());
    std::fs::write(directory.path().join("secret"), "\n").unwrap();
    assert!(parameters.peer_secret().unwrap_err().message().contains("is empty"));
}

#[test]
fn changes_follow_the_access_mode() {
    let (parameters, _) = load("[HotStandby]\nHSBEnabled=yes\nConnect=tcp 1\n").unwrap();
    let now = SetOutcome { access: Access::Immediate, is_unused: false };
    let later = SetOutcome { access: Access::Startup, is_unused: false };
    assert_eq!(parameters.set("hotstandby", "pingtimeout", "7000", true), Ok(now));
    assert_eq!(parameters.ping_timeout(), Some(Duration::from_secs(7)));
    assert_eq!(parameters.set("HotStandby", "PingTimeout", " * ", false), Ok(now));
    assert_eq!(parameters.ping_timeout(), Some(Duration::from_secs(4)));
    assert_eq!(parameters.set("Logging", "MinSplitSize", "20M", false), Ok(later));
    assert_eq!(parameters.log_split_size_bytes(), 10 << 20);
    assert_eq!(parameters.get("logging", "minsplitsize").unwrap().next.as_deref(), Some("20M"));
    assert!(
        parameters.describe("logging", "minsplitsize").unwrap().contains("Waiting for the next start: 20M")
    );
    for (section, name, value, temporary, expected) in [
        ("HotStandby", "HSBEnabled", "no", false, "read only"),
        (
            "HotStandby",
            "PingTimeout",
            "soon",
            false,
            "'soon' is not possible; allowed: a whole number from 0",
        ),
        ("Logging", "MinSplitSize", "30M", true, "cannot be temporary"),
        ("HotStandby", "PingTime", "1", false, "the nearest is HotStandby.PingTimeout"),
        ("Com", "Listen", "tcp 0.0.0.0 1964", false, "needs HotStandby.PeerSecretFile"),
        ("General", "BackupBlockSize", "4097", false, "a multiple of IndexFile.BlockSize"),
    ] {
        let error = parameters.set(section, name, value, temporary).unwrap_err();
        assert!(error.message().contains(expected), "{}", error.message());
        assert_eq!(error.code, Some(Code::INVALID_ARGUMENT));
    }
    let of_com = registry::REGISTRY.iter().filter(|row| row.section == "Com").count();
    assert_eq!(parameters.list(Some("COM")).len(), of_com);
    assert_eq!(parameters.list(None).len(), registry::REGISTRY.len());
}

#[test]
fn passwords_are_not_listed() {
    let (parameters, _) = load("[Watchdog]\nPassword1=hush\n").unwrap();
    assert_eq!(parameters.text(Id::WatchdogPassword1), "hush");
    assert_eq!(parameters.get("Watchdog", "Password1").unwrap().current, "********");
    assert!(!parameters.describe("Watchdog", "Password1").unwrap().contains("hush"));
}

#[test]
fn write_back_keeps_comments_order_and_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("solid.ini");
    let ini = "; ours\n[HotStandby]\nPingTimeout = 5000 ; chosen\nPingInterval=1000\n\n[Com]\n; end\n";
    std::fs::write(&path, ini).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (parameters, _) = Parameters::load(directory.path()).unwrap();
    parameters.write_back().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), ini);
    parameters.set("HotStandby", "PingTimeout", "9000", false).unwrap();
    parameters.set("HotStandby", "PingInterval", "2000", true).unwrap();
    parameters.set("Logging", "MinSplitSize", "20M", false).unwrap();
    parameters.save_to(Path::new("other.ini")).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), ini);
    parameters.write_back().unwrap();
    let expected = format!("{}[Logging]\nMinSplitSize = 20M\n", ini.replace("5000", "9000"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(std::fs::read_to_string(directory.path().join("other.ini")).unwrap(), expected);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    let (again, _) = Parameters::load(directory.path()).unwrap();
    assert_eq!(
        (again.ping_timeout(), again.log_split_size_bytes()),
        (Some(Duration::from_secs(9)), 20 << 20)
    );
}
