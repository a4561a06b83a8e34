//! The code table: number, SQLSTATE and text of everything the product answers (guide, appendix B).
//!
//! Each text says what is wrong and what to do about it; details of the case are appended where it is raised.

/// A number of the code table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(from = "u32")]
pub struct Code(u32);

/// As another server says it: one that this server does not know yet is 14501.
impl From<u32> for Code {
    fn from(number: u32) -> Code {
        Code::find(number).unwrap_or(Code::OPERATION_FAILED)
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal, $sqlstate:literal, $text:literal;)*) => {
        impl Code {
            // The sections of solid.ini in the texts are no links.
            $(#[allow(rustdoc::broken_intra_doc_links)] #[doc = $text] pub const $name: Code = Code($number);)*
        }
        /// Every code: number, name, SQLSTATE (empty where it never reaches an SQL client as an error), text.
        pub const TABLE: &[(u32, &str, &str, &str)] = &[$(($number, stringify!($name), $sqlstate, $text)),*];
    };
}

impl Code {
    /// The number itself.
    pub fn number(self) -> u32 {
        self.0
    }

    /// What is wrong and what to do.
    pub fn text(self) -> &'static str {
        row(self.0).map_or("unknown code", |row| row.3)
    }

    /// SQLSTATE on SQL connections.
    pub fn sqlstate(self) -> &'static str {
        row(self.0).map(|row| row.2).filter(|state| !state.is_empty()).unwrap_or("XX000")
    }

    /// The code with this number, if there is one.
    pub fn find(number: u32) -> Option<Code> {
        row(number).map(|row| Code(row.0))
    }

    /// True for answers that are no refusal: success and "still running".
    pub fn is_success(self) -> bool {
        matches!(self.0, 0 | 14003 | 14007..=14010)
    }
}

fn row(number: u32) -> Option<&'static (u32, &'static str, &'static str, &'static str)> {
    TABLE.iter().find(|row| row.0 == number)
}

codes! {
    SUCCESS = 0, "00000", "Success.";
    ACTIVE = 14003, "", "ACTIVE";
    CONNECTING = 14007, "", "CONNECTING";
    CATCHUP = 14008, "", "CATCHUP";
    NO_SWITCH_BEFORE = 14009, "", "NO SERVER SWITCH OCCURRED BEFORE";
    DISCONNECTING = 14010, "", "DISCONNECTING";
    OPERATION_FAILED = 14501, "58000", "The operation failed; the sentence behind this says why, and solmsg.out has the circumstances.";
    CONNECT_STRING_INVALID = 14502, "22023", "The connect string is invalid; it reads 'tcp host port'.";
    COMMUNICATION_ERROR = 14503, "08006", "The other server cannot be reached or the connection to it was lost; check that it runs and that HotStandby.Connect is right.";
    SERVER_CLOSED = 14506, "57P03", "The server is closed: its database is being replaced by a copy; try again when the copy has ended.";
    CONNECTION_BROKEN = 14518, "08006", "The connection is broken; connect again, and if that fails, to the other server.";
    THROWN_OUT = 14519, "57P01", "The user was thrown out by an administrator; connect again.";
    SECONDARY_NO_CONNECTIONS = 14520, "57P03", "The server is a secondary that takes no connections now; connect to the primary.";
    COPY_DIRECTORY_MISSING = 14522, "22023", "No copy directory is given: name one in the command or set HotStandby.CopyDirectory.";
    SWITCH_ACTIVE = 14523, "55000", "A switch is already running; wait until 'hsb status switch' says that it has ended.";
    DIFFERENT_DATABASE = 14524, "55000", "The two servers hold different databases (their ids differ). To make one a copy of the other, start it with 'solid -x backupserver' and give 'hsb netcopy' at the other.";
    NOT_SYNCHRONIZED = 14525, "55000", "The databases are not properly synchronized: one has transactions that the other lacks. 'hsb status' shows both servers and what to do.";
    INVALID_ARGUMENT = 14526, "22023", "The command or its argument is not valid; 'help' lists the commands.";
    NOT_HOTSTANDBY = 14527, "55000", "This is not a HotStandby server; set HotStandby.HSBEnabled=yes in solid.ini and start again.";
    BOTH_DIVERGED = 14528, "55000", "Both servers wrote as primaries and their databases have parted; choose the one to keep and set it PRIMARY ALONE; at the other 'hsb rewind' takes its transactions back or, where it cannot, says so and lets 'hsb netcopy' at the primary replace the database; so does a start with 'solid -x backupserver'.";
    TIMED_OUT = 14529, "57014", "The operation timed out; 'hsb status' shows what it waits for. Nothing was changed: try again.";
    ALREADY_PRIMARY = 14535, "55000", "The server is already a primary; nothing needs to be done.";
    ALREADY_SECONDARY = 14536, "55000", "The server is already a secondary; nothing needs to be done.";
    LINK_BROKEN = 14537, "08006", "The HotStandby connection is broken or not there; 'hsb status' shows both servers and what starts it.";
    NOT_PRIMARY = 14538, "55000", "The server is not a primary; give the command at the primary. 'hsb status' shows both servers and what to do if there is none.";
    REFUSED_IN_STATE = 14539, "55000", "The operation is not allowed in the server's present state; 'hsb state' shows it.";
    ALREADY_STANDALONE = 14540, "55000", "The server is already standalone; 'hsb set primary alone' makes it keep the log for the other server again.";
    INI_CONFLICTS = 14541, "55000", "solid.ini conflicts with 'set standalone'; change solid.ini or use 'hsb set primary alone'.";
    BACKUPSERVER_MODE = 14542, "57P03", "The server is OFFLINE: it waits for a netcopy and does nothing else. Give 'hsb netcopy' at the primary, in PRIMARY ALONE.";
    NO_HOTSTANDBY_SECTION = 14543, "F0000", "The database belongs to a HotStandby pair, but solid.ini has no [HotStandby] section. Give it one: with HSBEnabled=yes it goes on in the pair; with HSBEnabled=no it becomes a single server, and keeps no log for the other one: to come back it may need a netcopy.";
    DISKLESS = 14544, "0A000", "Not possible on a diskless server; use 'hsb netcopy', or give the command at a server with a disk.";
    ALONE_ONLY_WHEN_BROKEN = 14545, "55000", "PRIMARY ALONE can be set only when the connection is broken, and it is being ended at this moment; try again when 'hsb status connect' says BROKEN.";
    CATCHUP_FIRST = 14546, "55000", "The other server is behind: 'hsb connect', and let it catch up before switching.";
    READ_TIMEOUT_INVALID = 14547, "22023", "The read timeout (-r) is not valid; write milliseconds right behind it, as in -r1000.";
    SWITCH_FROM_STANDALONE = 14548, "55000", "A STANDALONE server cannot switch; use 'hsb set secondary alone' or 'hsb set primary alone'.";
    TRANSACTION_ACTIVE = 14549, "55000", "A HotStandby transaction is active: set the server alone or switch before shutting down.";
    CONNECT_WHILE_CONNECTED = 14550, "55000", "HotStandby.Connect can be changed only while nothing is under way between the servers.";
    BACKUPSERVER_NO_CONNECTIONS = 14552, "57P03", "The server is OFFLINE: it waits for a netcopy and takes no connections before. Give 'hsb netcopy' at the primary, in PRIMARY ALONE; 'hsb status' there shows this server, too.";
    BOTH_PRIMARY = 14700, "55000", "Rejected: there would be two primaries, or there are; 'hsb status' shows both servers and what to do.";
    BOTH_SECONDARY = 14701, "55000", "Rejected: both servers are secondaries; 'hsb switch primary' at the one whose 'hsb logpos' is greater, then 'hsb connect' there.";
    CATCHUP_ACTIVE = 14702, "55000", "Rejected while servers are connecting or catchup is running; wait until 'hsb status connect' says CONNECTED.";
    COPY_ACTIVE = 14703, "55000", "Rejected while a copy is running; wait until 'hsb status copy' says that it has ended.";
    COPY_ONLY_ALONE = 14704, "55000", "Copy and netcopy are possible only in PRIMARY ALONE: in PRIMARY ACTIVE 'hsb disconnect' first, in STANDALONE 'hsb set primary alone', in PRIMARY UNCERTAIN what 'hsb status' says; 'backup' goes in any state.";
    STANDALONE_NOT_ALLOWED = 14705, "55000", "A connected secondary cannot be set standalone; 'hsb set standalone' goes at the primary, or here after 'hsb switch primary'.";
    NOT_IN_STANDALONE = 14707, "55000", "Not possible while one of the servers is STANDALONE; 'hsb set primary alone' at that one first.";
    LOG_TOO_SHORT = 14708, "55000", "The primary's log does not reach back to the secondary's position; copy the database with 'hsb netcopy' at the primary, which has to be PRIMARY ALONE for that, then 'hsb connect'. If the secondary may have transactions of its own, 'hsb status copy' says so and what to do first.";
    NO_CONNECT_STRING = 14709, "55000", "HotStandby.Connect names no other server: set it to the other server's address, as in 'parameter HotStandby.Connect=tcp host port'.";
    PEER_COMMAND_CONFLICT = 14710, "55000", "The command conflicts with another one, given here or at the other server; try again when that one has ended.";
    SHUTTING_DOWN = 14711, "57P03", "The server is shutting down; connect to the other server.";
    SERVER_IS_SECONDARY = 14712, "25006", "The server is a secondary; use the primary ('hsb status' shows where it is).";
    FAILED_UNEXPECTEDLY = 10002, "XX000", "The operation failed unexpectedly; solmsg.out has the circumstances. Please report it with them.";
    TRANSACTION_READ_ONLY = 10013, "25006", "The transaction is read only: the server does not accept writes now; look for the primary.";
    COPY_ALREADY_ACTIVE = 10019, "55006", "A backup or copy is already active; wait until 'hsb status copy' says that it has ended.";
    COPY_DIRECTORY_ILLEGAL = 10024, "22023", "The copy directory is not usable, for the reason that follows; mend that, or name another directory.";
    COPY_DIRECTORY_ABSENT = 10030, "58P01", "The copy directory does not exist; create it or name another.";
    DATABASE_READ_ONLY = 10041, "25006", "The database is read only; look for the primary, or for the reason in solmsg.out.";
    NOT_ON_SECONDARY = 10045, "25006", "Not possible on a HotStandby secondary; connect to the primary to write.";
    DICTIONARY_ACTIVE = 10046, "55006", "A data dictionary operation is active; try again when it has ended.";
    REPLICATED_ABORTED = 10047, "40001", "The transaction was aborted because the server is no longer the primary (switch or failover); repeat it at the new primary.";
    REMOTE_NOT_SECONDARY = 10049, "55000", "The remote server is not a secondary; 'hsb status' shows what it is and what to do.";
    APPLY_FAILED = 10080, "XX001", "The secondary cannot execute an operation that it received: its database differs from the primary's. Copy the primary's database to it with 'hsb netcopy' at the primary, in PRIMARY ALONE.";
    DATABASE_CORRUPT = 10081, "XX001", "The database file is incomplete or corrupt; replace it: start with 'solid -x backupserver' and give 'hsb netcopy' at the other server.";
    BACKUP_ABORTED = 10082, "57014", "The backup was aborted; what it wrote is of no use. Start it again.";
    COMMIT_SENT = 10083, "55000", "The transaction cannot be aborted: its commit was already sent to the secondary; wait for its outcome.";
    UNCERTAIN = 10089, "57P03", "The server is in PRIMARY UNCERTAIN and takes no writes, because the other server may have been made the primary; 'hsb status' shows that one, if it can be reached, and what to do.";
    DISK_FULL = 11002, "53100", "The disk is full; make room, then repeat what failed.";
    SHUTDOWN = 13068, "57P01", "The server is being shut down; connect to the other server.";
    PROTOCOL_UNSUPPORTED = 21300, "08001", "The protocol of the connect string is not supported; use 'tcp'.";
    SERVER_NOT_FOUND = 21306, "08001", "The server was not found or the connection failed; check its address and that it runs.";
    CONNECT_INFO_INVALID = 21307, "08001", "The connect info is invalid; it reads 'tcp host port', more servers follow behind commas.";
    CONNECTION_IS_BROKEN = 21308, "08S01", "The connection is broken; what was under way may or may not have happened. Connect again.";
    CONNECTION_SWITCH = 25216, "HY000", "The connection was switched to the other server; some session context may be lost: set it anew.";
    CONNECTION_NOT_ESTABLISHED = 25217, "08001", "The client could not establish a connection; check the addresses and that one of the servers is a primary.";
    CONNECTED_ALONE = 25218, "01000", "Connected to a STANDALONE or PRIMARY ALONE server; what is written is on one server only. 'hsb status' shows what to do.";
    COMMUNICATION_WRITE_FAILED = 14510, "08006", "Writing to the connection failed, in solidDB; here 14503 and 14518 say so. Connect again, and if that fails, to the other server.";
    COMMUNICATION_READ_FAILED = 14511, "08006", "Reading from the connection failed, in solidDB; here 14503 and 14518 say so. Connect again, and if that fails, to the other server.";
    START_AFTER_COMMIT_LIMIT = 14551, "54000", "Too many START AFTER COMMIT statements, in solidDB; this server has no such statement.";
    READ_THREAD_MODE_INVALID = 14706, "22023", "An invalid read thread mode, in solidDB; this server has no such mode.";
    DICTIONARY_CHANGES_MIXED = 10048, "0A000", "Schema changes and updates in one replicated transaction, in solidDB; this server replicates them together.";
    BLOB_REPLICATED = 10050, "0A000", "A BLOB cannot be replicated, in solidDB; this server replicates every value.";
    USER_ROLLED_BACK = 10078, "40000", "The user rolled the transaction back, in solidDB; here ROLLBACK is not an error.";
    FILESPEC_IN_USE = 10079, "55006", "A FileSpec is in use and cannot be removed, in solidDB; here the database is the one file of IndexFile.FileSpec_1.";
    TABLE_NOT_LOCKED = 10084, "55000", "The table is not locked, in solidDB; this server has no table locks.";
    CHECKPOINTING_DISABLED = 10085, "55000", "Checkpoints are switched off, in solidDB; this server always makes them.";
    MEMORY_TABLE_REFUSED = 10087, "0A000", "HotStandby with main-memory tables, in solidDB; this server has one kind of table.";
    LOCK_TIMEOUT_TOO_LARGE = 10088, "22023", "The lock timeout is too large, in solidDB; here every number of seconds up to 4294967295 is taken.";
    CONFIGURATION_EXCEEDED = 11003, "53400", "The configured size of the database is exceeded, in solidDB; here the disk is the limit (11002).";
    TABLE_NOT_EMPTY = 13123, "55000", "The table is not empty, in solidDB; this server has one kind of table, so none is changed into another.";
    ONLY_MEMORY_TRANSIENT = 13167, "0A000", "Only main-memory tables can be transient, in solidDB; this server has no transient tables.";
    ONLY_MEMORY_TEMPORARY = 13170, "0A000", "Only main-memory tables can be temporary, in solidDB; here CREATE TEMPORARY TABLE says itself what is not possible.";
    SESSION_WRITE_FAILED = 20009, "08006", "A write to the session failed, in solidDB; here the connection ends with a code of class 08. Connect again, and if that fails, to the other server.";
    UNUSUAL_RETURN_CODE = 21318, "08006", "The operation failed with an unusual return code, in solidDB; here the connection ends with a code of class 08. Connect again, and if that fails, to the other server.";
    LOG_BAD_RECORD = 30787, "58030", "The replication log holds a record of a bad type or position; copy the database from the other server with 'hsb netcopy'.";
    LOG_WRITE_FAILED = 30788, "58030", "Writing the replication log failed; the server stops. Check the disk, start again: nothing acknowledged is lost.";
    LOG_OPEN_FAILED = 30789, "58030", "Opening the replication log failed; check Logging.LogDir, its permissions and the disk.";
    LOG_NO_MEMORY = 30790, "58030", "Out of memory for the replication log; raise HotStandby.MaxMemLogSize or connect the servers.";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of the guide's appendix B that this product uses.
    const NUMBERS: &[u32] = &[
        0, 14003, 14007, 14008, 14009, 14010, 14501, 14502, 14503, 14506, 14518, 14519, 14520, 14522, 14523,
        14524, 14525, 14526, 14527, 14528, 14529, 14535, 14536, 14537, 14538, 14539, 14540, 14541, 14542,
        14543, 14544, 14545, 14546, 14547, 14548, 14549, 14550, 14552, 14700, 14701, 14702, 14703, 14704,
        14705, 14707, 14708, 14709, 14710, 14711, 14712, 10002, 10013, 10019, 10024, 10030, 10041, 10045,
        10046, 10047, 10049, 10080, 10081, 10082, 10083, 10089, 11002, 13068, 21300, 21306, 21307, 21308,
        25216, 25217, 25218, 30787, 30788, 30789, 30790,
        // Only solidDB returns these; a program that knows them finds out what stands in for them.
        14510, 14511, 14551, 14706, 10048, 10050, 10078, 10079, 10084, 10085, 10087, 10088, 11003, 13123,
        13167, 13170, 20009, 21318,
    ];

    #[test]
    fn every_code_is_there_once() {
        let table: std::collections::BTreeSet<u32> = TABLE.iter().map(|row| row.0).collect();
        assert_eq!(table.len(), TABLE.len(), "a number stands twice");
        assert_eq!(table, NUMBERS.iter().copied().collect());
        let names: std::collections::BTreeSet<&str> = TABLE.iter().map(|row| row.1).collect();
        assert_eq!(names.len(), TABLE.len(), "a name stands twice");
        for (number, name, sqlstate, text) in TABLE {
            assert_eq!(Code::find(*number).map(Code::number), Some(*number));
            assert!(!text.is_empty(), "{name}");
            let well_formed = sqlstate.len() == 5
                && sqlstate.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
            let only_an_answer = Code::find(*number).is_some_and(Code::is_success) && *number != 0;
            assert_eq!(well_formed, !only_an_answer, "{name}: {sqlstate:?}");
            assert_eq!(sqlstate.is_empty(), only_an_answer, "{name}");
        }
        assert_eq!(Code::find(1), None);
    }
}
