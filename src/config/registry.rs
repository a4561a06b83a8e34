//! The one table of all parameters of solid.ini.
//!
//! Everything else (checks, listings, the example file, typed getters) is derived from it. Not here: values.

use super::kind::{Kind, Unit};
use crate::hsb::settings::SafenessLevel;

/// When a change takes effect and whether one is possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Only by editing solid.ini.
    ReadOnly,
    /// At once.
    Immediate,
    /// At the next start.
    Startup,
    /// With the next new database.
    Create,
}

impl Access {
    /// As the documentation abbreviates it.
    pub fn name(self) -> &'static str {
        match self {
            Access::ReadOnly => "RO",
            Access::Immediate => "RW",
            Access::Startup => "RW/Startup",
            Access::Create => "RW/Create",
        }
    }

    /// What a change waits for that is not in effect yet.
    pub fn waits_for(self) -> &'static str {
        match self {
            Access::Create => "the next new database",
            Access::ReadOnly | Access::Immediate | Access::Startup => "the next start",
        }
    }
}

/// One parameter.
#[derive(Debug)]
pub struct Definition {
    /// Section, as it is written.
    pub section: &'static str,
    /// Name, as it is written.
    pub name: &'static str,
    /// Value if solid.ini says nothing.
    pub factory: &'static str,
    /// When a change takes effect.
    pub access: Access,
    /// What a value may be.
    pub kind: Kind,
    /// True if solidDB does not know it.
    pub ours: bool,
    /// One line of meaning.
    pub meaning: &'static str,
}

/// Older names: section, name, and the parameter that is meant.
pub const ALIASES: &[(&str, &str, Id)] = &[("HotStandby", "PrimaryAlone", Id::AutoPrimaryAlone)];

/// Known so that files made for solidDB stay as they are, and without any effect here.
pub const NOT_USED: &[Id] = &[Id::LogBlockSize, Id::DirectIO];

/// While two servers are connected, the primary's value is in force at both.
pub const PRIMARY_RULES: &[Id] =
    &[Id::SafenessLevel, Id::AcknowledgePolicy, Id::DurabilityLevel, Id::PingTimeout, Id::PingInterval];

/// Meant to be the same at both servers of a pair; what differs is a warning when they connect.
pub const SAME_AT_BOTH: &[Id] = &[
    Id::AcknowledgePolicy,
    Id::AutoPrimaryAlone,
    Id::ConnectTimeout,
    Id::DurabilityLevel,
    Id::PageSize,
    Id::BackupBlockSize,
];

impl Definition {
    /// What holds for this parameter besides its row.
    pub fn notes(&self, id: Id) -> impl Iterator<Item = &'static str> {
        let lists = [
            (
                PRIMARY_RULES,
                "While the servers are connected the primary's value is in force at both, also after a switch; then each has its own again.",
            ),
            (
                SAME_AT_BOTH,
                "It should be the same at both servers; they warn when they connect and it differs.",
            ),
            (NOT_USED, "Not used: accepted for compatibility."),
        ];
        lists.into_iter().filter(move |(list, _)| list.contains(&id)).map(|(_, note)| note)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let definition = self.definition();
        write!(formatter, "{}.{}", definition.section, definition.name)
    }
}

macro_rules! registry {
    ($($id:ident: $section:literal, $name:literal, $factory:literal, $access:ident, $kind:expr, $ours:literal, $meaning:literal;)*) => {
        /// A parameter; its number is the row of [`REGISTRY`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Id { $(#[doc = $meaning] $id),* }

        impl Id {
            /// Every parameter, in the table's order.
            pub const ALL: &[Id] = &[$(Id::$id),*];
        }

        /// All parameters, grouped by section.
        pub const REGISTRY: &[Definition] = &[$(Definition {
            section: $section, name: $name, factory: $factory, access: Access::$access, kind: $kind, ours: $ours,
            meaning: $meaning,
        }),*];
    };
}

impl Id {
    /// Its row.
    pub fn definition(self) -> &'static Definition {
        &REGISTRY[self as usize]
    }

    /// The parameter of this section and name, in any letter case, also by an older name.
    pub fn find(section: &str, name: &str) -> Option<Id> {
        let position = REGISTRY
            .iter()
            .position(|row| row.section.eq_ignore_ascii_case(section) && row.name.eq_ignore_ascii_case(name));
        let alias = || {
            ALIASES
                .iter()
                .find(|alias| alias.0.eq_ignore_ascii_case(section) && alias.1.eq_ignore_ascii_case(name))
        };
        position.map(|row| Id::ALL[row]).or_else(|| alias().map(|alias| alias.2))
    }

    /// The known parameter that looks most like this one, as `section.name`.
    pub fn nearest(section: &str, name: &str) -> String {
        let wanted = format!("{section}.{name}").to_ascii_lowercase();
        let names = REGISTRY.iter().map(|row| format!("{}.{}", row.section, row.name));
        names.min_by_key(|known| distance(&known.to_ascii_lowercase(), &wanted)).unwrap_or_default()
    }
}

/// The known section that looks most like this one.
pub fn nearest_section(section: &str) -> &'static str {
    let wanted = section.to_ascii_lowercase();
    REGISTRY
        .iter()
        .map(|row| row.section)
        .min_by_key(|known| distance(&known.to_ascii_lowercase(), &wanted))
        .unwrap_or("")
}

/// The section of logical names, whose entries are no parameters: `name = connect string`.
pub const DATA_SOURCES: &str = "Data Sources";

/// True if there is a section of this name, in any letter case.
pub fn is_section(section: &str) -> bool {
    REGISTRY.iter().any(|row| row.section.eq_ignore_ascii_case(section))
}

/// How many letters must be inserted, removed or replaced to get from one to the other. Only the first 100 characters
/// count, so that a huge line in a file costs nothing.
pub(crate) fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, letter) in left.chars().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

const DAY_MS: u64 = 86_400_000;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MILLISECONDS: Kind = Kind::Number { minimum: 0, maximum: DAY_MS, unit: Unit::Milliseconds };
const SECONDS: Kind = Kind::Number { minimum: 0, maximum: 86_400, unit: Unit::Seconds };
const ONE_TO_THREE: Kind = Kind::Number { minimum: 1, maximum: 3, unit: Unit::None };
const CONNECT: Kind = Kind::Address { optional: true };
const PERIOD: Kind = Kind::Number { minimum: 10, maximum: DAY_MS, unit: Unit::Milliseconds };

registry! {
    Listen: "Com", "Listen", "tcp 1964", Immediate, Kind::Listen, false, "Where SQL clients, consoles and the other server connect; without a host only from this machine. -r stands in for Com.ReadTimeout. A change opens the new port, then closes the old one; connections stay.";
    MaxConnections: "Com", "MaxConnections", "1000", Immediate, Kind::Number { minimum: 1, maximum: 100_000, unit: Unit::None }, false, "SQL connections at one time; the next one is refused. Fewer if the limit of open files is too low for so many: the server says so when it starts, and 'status' shows it.";
    LoginTimeout: "Com", "LoginTimeout", "10000", Immediate, PERIOD, true, "How long a connection may take until it has logged in, in milliseconds.";
    MaxPendingLogins: "Com", "MaxPendingLogins", "512", Immediate, Kind::Number { minimum: 1, maximum: 10_000, unit: Unit::None }, true, "Connections that have not logged in; for a newer one the oldest makes way, first a silent one and of the address that has most of them. An eighth of the limit of open files at most.";
    ReadTimeout: "Com", "ReadTimeout", "60000", Immediate, MILLISECONDS, false, "How long a client may pause in the middle of a message, in milliseconds; 0: for ever.";
    ComConnect: "Com", "Connect", "", Startup, CONNECT, false, "Read by solcon: the server to connect to if none is named.";

    BackupBlockSize: "General", "BackupBlockSize", "64K", Startup, Kind::Size { minimum: 512, maximum: GIB }, false, "Block of netcopy and backup; a multiple of IndexFile.BlockSize.";
    BackupDirectory: "General", "BackupDirectory", "backup", Startup, Kind::Text, false, "Where 'backup' writes unless told otherwise.";
    BackupDeleteLog: "General", "BackupDeleteLog", "yes", Startup, Kind::YesNo, false, "Delete log files that a finished backup makes superfluous.";
    CheckpointDeleteLog: "General", "CheckpointDeleteLog", "yes", Startup, Kind::YesNo, false, "Delete log files that a checkpoint makes superfluous.";
    CheckpointInterval: "General", "CheckpointInterval", "50000", Immediate, Kind::Number { minimum: 1, maximum: 1_000_000_000, unit: Unit::Records }, false, "Log records between checkpoints.";
    MinCheckpointTime: "General", "MinCheckpointTime", "300", Immediate, SECONDS, false, "Least time between automatic checkpoints, in seconds.";
    LockWaitTimeOut: "General", "LockWaitTimeOut", "30", Immediate, SECONDS, false, "How long a statement waits to become the writer, or for a state that accepts writes, in seconds; 0: not at all.";
    TransactionIdleTimeOut: "General", "TransactionIdleTimeOut", "5", Immediate, SECONDS, true, "An open write transaction that is idle this long while others wait is rolled back, in seconds; 0: never.";
    SnapshotMaxSize: "General", "SnapshotMaxSize", "512M", Immediate, Kind::Size { minimum: 0, maximum: TIB }, true, "Bytes that SQLite's log (solid.db-wal) may hold because a session reads from an old snapshot: beyond that the session with the oldest one is ended (25P04); a warning at half of it. 0: unlimited.";
    SnapshotMaxAge: "General", "SnapshotMaxAge", "0", Immediate, Kind::Number { minimum: 0, maximum: 31_536_000, unit: Unit::Seconds }, true, "A session that reads from one snapshot for longer is ended (25P04), in seconds; 0: never, only SnapshotMaxSize counts.";
    MaxStatementMemory: "General", "MaxStatementMemory", "1G", Startup, Kind::Size { minimum: 64 << 20, maximum: TIB }, true, "Memory for the statements of all sessions that read, besides 16 MB for each. One session may take a quarter of it (else 53200), one value or row a sixteenth (else 54000).";
    Readonly: "General", "Readonly", "no", Startup, Kind::YesNo, false, "Refuse every write of clients (10041); what the other server replicates is still applied.";
    Diskless: "General", "Diskless", "no", ReadOnly, Kind::YesNo, false, "Keep nothing on disk.";

    DatabaseFile: "IndexFile", "FileSpec_1", "solid.db", ReadOnly, Kind::FileSpec, false, "The database file.";
    PageSize: "IndexFile", "BlockSize", "4K", Create, Kind::PageSize, false, "Page size of the database.";
    CacheSize: "IndexFile", "CacheSize", "64M", Startup, Kind::Size { minimum: 512 << 10, maximum: TIB }, false, "Page cache.";

    LogEnabled: "Logging", "LogEnabled", "yes", Startup, Kind::YesNo, false, "no: the log is kept in memory only, up to HotStandby.MaxMemLogSize.";
    LogDir: "Logging", "LogDir", ".", Startup, Kind::Text, false, "Directory of the log files.";
    FileNameTemplate: "Logging", "FileNameTemplate", "sol#####.log", Startup, Kind::FileTemplate, false, "Name of the log files; each # stands for a digit.";
    DigitTemplateChar: "Logging", "DigitTemplateChar", "#", Startup, Kind::Character, false, "The character that stands for a digit in FileNameTemplate.";
    MinSplitSize: "Logging", "MinSplitSize", "10M", Startup, Kind::Size { minimum: 64 << 10, maximum: 4 * GIB - 1 }, false, "Size of a log file at which the next one is begun.";
    LogBlockSize: "Logging", "BlockSize", "16K", Startup, Kind::Size { minimum: 512, maximum: 16 << 20 }, false, "Not used: the log is written in units of whole batches.";
    DurabilityLevel: "Logging", "DurabilityLevel", "2", Immediate, ONE_TO_THREE, false, "When a commit must be on disk: 1 relaxed, 2 adaptive, 3 strict.";
    RelaxedMaxDelay: "Logging", "RelaxedMaxDelay", "5000", Startup, Kind::Number { minimum: 100, maximum: DAY_MS, unit: Unit::Milliseconds }, false, "Longest time until a relaxed commit is on disk, in milliseconds.";
    DirectIO: "Logging", "DirectIO", "no", Startup, Kind::YesNo, false, "Not used: the log is written through the operating system's cache and synced.";

    MessageLogSize: "Srv", "MessageLogSize", "10M", Immediate, Kind::Size { minimum: 0, maximum: TIB }, false, "Size at which solmsg.out is renamed to solmsg.out.1, that one to solmsg.out.2, and so on; 0: never, for those who rotate it from outside and send SIGHUP.";
    MessageLogFiles: "Srv", "MessageLogFiles", "5", Immediate, Kind::Number { minimum: 0, maximum: 1000, unit: Unit::None }, true, "Old files solmsg.out.1, solmsg.out.2, … that are kept; the oldest is deleted.";

    HsbEnabled: "HotStandby", "HSBEnabled", "no", ReadOnly, Kind::YesNo, false, "This server is one of a HotStandby pair.";
    Connect: "HotStandby", "Connect", "", Immediate, CONNECT, false, "Where the other server listens; can be changed only while not connected.";
    ConnectTimeout: "HotStandby", "ConnectTimeout", "0", Immediate, MILLISECONDS, false, "How long connecting to the other server may take, in milliseconds; 0: 'hsb connect' as long as the system allows, all other commands that reach for the other server PingTimeout.";
    PingInterval: "HotStandby", "PingInterval", "1000", Immediate, PERIOD, false, "Time between signs of life, in milliseconds; half of PingTimeout if that is shorter.";
    PingTimeout: "HotStandby", "PingTimeout", "4000", Immediate, MILLISECONDS, false, "Silence after which the connection counts as broken, in milliseconds; 0: no pinging.";
    AutoPrimaryAlone: "HotStandby", "AutoPrimaryAlone", "no", Immediate, Kind::YesNo, false, "A primary that loses its secondary goes on alone instead of waiting in PRIMARY UNCERTAIN.";
    SafenessLevel: "HotStandby", "SafenessLevel", "2safe", Immediate, Kind::Choice(&SafenessLevel::NAMES), false, "Whether a commit waits for the secondary: 1safe, 2safe, or auto (by durability).";
    AcknowledgePolicy: "HotStandby", "2SafeAckPolicy", "1", Immediate, ONE_TO_THREE, false, "When the secondary acknowledges: 1 received, 2 visible, 3 durable.";
    OneSafeMaxDelay: "HotStandby", "1SafeMaxDelay", "5000", Immediate, MILLISECONDS, false, "Longest time that committed 1-safe transactions may be gathered before they are sent, in milliseconds; they are sent earlier when the secondary has acknowledged what went before, and always before a 2-safe one. 0: each at once.";
    CatchupSpeedRate: "HotStandby", "CatchupSpeedRate", "70", Immediate, Kind::Number { minimum: 1, maximum: 99, unit: Unit::Percent }, false, "Share of the server's time that catchup may take, in percent.";
    MaxLogSize: "HotStandby", "MaxLogSize", "0", Immediate, Kind::Size { minimum: 0, maximum: 1024 * TIB }, false, "Bytes of log kept for the other server, after which the server becomes STANDALONE; 0: unlimited.";
    MaxMemLogSize: "HotStandby", "MaxMemLogSize", "8M", ReadOnly, Kind::Size { minimum: 64 << 10, maximum: TIB }, false, "Size of a log that is kept in memory.";
    CopyDirectory: "HotStandby", "CopyDirectory", "", Immediate, Kind::Text, false, "Where 'hsb copy' writes unless told otherwise.";
    NetcopyRpcTimeout: "HotStandby", "NetcopyRpcTimeout", "30000", Immediate, PERIOD, false, "Silence after which a netcopy is given up, in milliseconds.";
    NetcopyRpcCompress: "HotStandby", "NetcopyRpcCompress", "no", Immediate, Kind::YesNo, false, "Compress the blocks of a netcopy.";
    NetcopyMaxRate: "HotStandby", "NetcopyMaxRate", "0", Immediate, Kind::Size { minimum: 0, maximum: TIB }, true, "Bytes per second that a netcopy may send; 0: unlimited.";
    PeerSecretFile: "HotStandby", "PeerSecretFile", "", Startup, Kind::Text, true, "File with the secret that both servers share; required when listening beyond this machine.";

    ReadMostlyLoadPercentAtPrimary: "Cluster", "ReadMostlyLoadPercentAtPrimary", "50", Immediate, Kind::Number { minimum: 0, maximum: 100, unit: Unit::Percent }, false, "Share of READ_MOSTLY clients that the primary keeps for itself, in percent; asked for by clients with transparent connectivity.";

    FailoverWaitTimeout: "TransparentFailover", "WaitTimeout", "2000", Startup, MILLISECONDS, false, "Read by clients: how long to wait for the new primary's event, in milliseconds.";
    FailoverReconnectTimeout: "TransparentFailover", "ReconnectTimeout", "10000", Startup, MILLISECONDS, false, "Read by clients: how long to look for a primary, in milliseconds.";

    WatchdogConnect1: "Watchdog", "Connect1", "", Startup, CONNECT, false, "Read by watchdog: the first server.";
    WatchdogConnect2: "Watchdog", "Connect2", "", Startup, CONNECT, false, "Read by watchdog: the second server.";
    WatchdogUsername1: "Watchdog", "Username1", "", Startup, Kind::Text, false, "Read by watchdog: user at the first server; asked for if empty.";
    WatchdogUsername2: "Watchdog", "Username2", "", Startup, Kind::Text, false, "Read by watchdog: user at the second server; asked for if empty.";
    WatchdogPassword1: "Watchdog", "Password1", "", Startup, Kind::Secret, false, "Read by watchdog: password at the first server; asked for if empty.";
    WatchdogPassword2: "Watchdog", "Password2", "", Startup, Kind::Secret, false, "Read by watchdog: password at the second server; asked for if empty.";
    WatchdogNumRetry: "Watchdog", "NumRetry", "0", Startup, Kind::Number { minimum: 0, maximum: 1000, unit: Unit::None }, false, "Read by watchdog: further tries, without a pause, before a server counts as gone.";
    WatchdogPingInterval: "Watchdog", "PingInterval", "1000", Startup, PERIOD, false, "Read by watchdog: time between two looks at the servers, in milliseconds.";
    WatchdogAutoSwitch: "Watchdog", "AutoSwitch", "yes", Startup, Kind::YesNo, false, "Read by watchdog: act on a failure; no: only write down what should be done.";
    WatchdogDualSecAutoSwitch: "Watchdog", "DualSecAutoSwitch", "yes", Startup, Kind::YesNo, false, "Read by watchdog: when both servers are secondaries, make the one that is ahead primary.";
    WatchdogLog: "Watchdog", "WatchdogLog", "watchdog.log", Startup, Kind::Text, false, "Read by watchdog: its log file.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let mut seen = std::collections::HashSet::new();
        let mut sections: Vec<&str> = Vec::new();
        for (row, definition) in REGISTRY.iter().enumerate() {
            let key = format!("{}.{}", definition.section, definition.name).to_ascii_lowercase();
            assert!(seen.insert(key.clone()), "{key} twice");
            let checked = definition.kind.check(definition.factory);
            assert_eq!(checked.map(|value| value.text), Ok(definition.factory.to_owned()), "{key}");
            assert!(definition.meaning.ends_with('.'), "{key}");
            assert_eq!(
                Id::find(definition.section, &definition.name.to_ascii_uppercase()),
                Some(Id::ALL[row])
            );
            assert_eq!(Id::ALL[row] as usize, row);
            if sections.last() != Some(&definition.section) {
                assert!(
                    !sections.contains(&definition.section),
                    "{} is not in one piece",
                    definition.section
                );
                sections.push(definition.section);
            }
        }
    }

    #[test]
    fn older_names_and_near_misses_are_found() {
        assert_eq!(Id::find("hotstandby", "PRIMARYALONE"), Some(Id::AutoPrimaryAlone));
        assert_eq!(Id::find("HotStandby", "PingTimeuot"), None);
        assert_eq!(Id::nearest("HotStandby", "PingTimeuot"), "HotStandby.PingTimeout");
        assert_eq!(Id::nearest("Loging", "logdir"), "Logging.LogDir");
        assert_eq!(nearest_section("HotStandBay"), "HotStandby");
        assert!(is_section("com"));
    }
}
