//! The command table: every admin command, its rights, its help and what carries it out.

use super::{AdminServices, Call, Rows, copies, general, help, hsb, parameters, perfmon, status, verify};
use crate::hsb::event::Command;
use crate::services::context::{self, Rights};

/// What carries a command out.
#[derive(Clone, Copy)]
pub enum Action {
    /// Answered at once; must not wait for anything.
    Answer(fn(&AdminServices, &Call) -> Rows),
    /// On a thread of its own: waits, computes, or touches files.
    Work(fn(&AdminServices, &Call) -> Rows),
    /// The heart decides and answers.
    Heart(Command),
    /// The heart decides, and what it answers is made into the answer on a thread of its own.
    HeartThenWork(Command, fn(&AdminServices, context::Answer) -> Rows),
}

/// One command.
pub struct Row {
    /// Its words, then its arguments: `<…>` has to be given, `[…]` may be left out.
    pub syntax: &'static str,
    /// Who may give it.
    pub rights: Rights,
    /// In half a line.
    pub meaning: &'static str,
    /// What else to know; may be empty.
    pub help: &'static str,
    /// What carries it out.
    pub action: Action,
}

impl Row {
    /// The command's own words.
    pub fn name(&self) -> &'static str {
        self.syntax.find(['<', '[']).map_or(self.syntax, |end| self.syntax[..end].trim_end())
    }

    /// The same, one by one.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.name().split(' ')
    }

    /// No arguments.
    pub fn takes_nothing(&self) -> bool {
        self.name() == self.syntax
    }

    /// Whether it belongs into the message log: it may change something.
    pub fn is_logged(&self) -> bool {
        self.rights == Rights::Administrator
            || matches!(self.action, Action::Heart(_) | Action::HeartThenWork(..))
    }
}

const fn row(
    syntax: &'static str,
    rights: Rights,
    action: Action,
    meaning: &'static str,
    help: &'static str,
) -> Row {
    Row { syntax, rights, meaning, help, action }
}

use Action::{Answer, Heart, HeartThenWork, Work};
use Rights::{Administrator, Console};

/// Every command, in the order of `help`.
pub const COMMANDS: &[Row] = &[
    row(
        "hsb state",
        Console,
        Answer(hsb::state),
        "the state of this server",
        "OFFLINE, STANDALONE, PRIMARY ALONE, PRIMARY ACTIVE, PRIMARY UNCERTAIN, SECONDARY ALONE or SECONDARY ACTIVE.",
    ),
    row("hsb role", Console, Answer(hsb::role), "PRIMARY, SECONDARY or STANDALONE", "'hsb state' says more."),
    row(
        "hsb status",
        Console,
        Work(status::screen),
        "both servers on one screen, and what to do next",
        "States, positions, lag, safeness and durability in force, the last changes and their reasons, what is under way.\nThe other server is asked, and shown as not reached if it does not answer within a second.",
    ),
    row(
        "hsb status json",
        Console,
        Work(status::json),
        "the same for programs",
        "One row of JSON, explained in docs/status.md.",
    ),
    row(
        "hsb verify",
        Console,
        Work(verify::verify),
        "compare the two databases, table by table",
        "At the primary, with load or without: SAME, or the first table that differs and how many there are (RC 14525). Both\ncompute at one position; writers wait for a few milliseconds until that is fixed.",
    ),
    row(
        "hsb status connect",
        Console,
        Answer(hsb::status_connect),
        "the connection between the servers",
        "CONNECTED (RC 0), CONNECTING (14007), CATCHUP (14008), DISCONNECTING (14010) or BROKEN (14537). If the last attempt\nto connect has failed, a second row says why, with its code as RC.",
    ),
    row(
        "hsb status catchup",
        Console,
        Answer(hsb::status_catchup),
        "whether the secondary is catching up",
        "ACTIVE (RC 14003) or NOT ACTIVE.",
    ),
    row(
        "hsb status copy",
        Console,
        Answer(hsb::status_copy),
        "the last copy or netcopy that was started",
        "ACTIVE (RC 14003, with progress), SUCCESS, NOT ACTIVE if there was none, or FAILED with the code of the reason.",
    ),
    row(
        "hsb status switch",
        Console,
        Answer(hsb::status_switch),
        "the last switch that was started",
        "NO SERVER SWITCH OCCURRED BEFORE (RC 14009), ACTIVE (14003), SUCCESS, or ERROR and the code of the reason; also of a\nswitch before the last start. One that was refused at once does not count.",
    ),
    row(
        "hsb cominfo",
        Console,
        Answer(hsb::communication_info),
        "the connect string of the other server",
        "It says where the other server should be, not whether it is there.",
    ),
    row(
        "hsb logpos",
        Console,
        Answer(hsb::log_position),
        "how far this server's history goes, and its previous role",
        "Compare the strings of two servers in SECONDARY ALONE: the greater one should become the primary. 'hsb connect' still\nchecks that neither has transactions that the other lacks. Behind the colon: the role before the present one, also across\nrestarts.",
    ),
    row(
        "hsb connect",
        Console,
        HeartThenWork(Command::Connect, hsb::with_early_failure),
        "connect the servers; the secondary catches up",
        "Done in the background; answered within a third of a second, with the failure if there is one by then. 'hsb status connect'\nshows how it goes and, if it fails later, why; so do the message log and SYS_EVENT_HSBCONNECTFAILED. 'hsb disconnect' ends it, and while the other server has not answered also the\ncommands that set this one alone or standalone.",
    ),
    row(
        "hsb disconnect",
        Console,
        Heart(Command::Disconnect),
        "end the connection in order",
        "The servers become PRIMARY ALONE and SECONDARY ALONE, both with everything that was committed. Ends an attempt to connect,\nor a switch that still asks the other server, as well.",
    ),
    row(
        "hsb set primary alone",
        Console,
        Heart(Command::SetPrimaryAlone),
        "be the primary and go on without the other server",
        "At a secondary this is the fast failover: the other server is not asked. Make sure that it is not a primary any more.",
    ),
    row(
        "hsb set secondary alone",
        Console,
        Heart(Command::SetSecondaryAlone),
        "be a secondary without a primary",
        "At a PRIMARY ALONE, PRIMARY UNCERTAIN or STANDALONE server; where the server dials the other one, at a SECONDARY ALONE\none as well, where it ends that.",
    ),
    row(
        "hsb set standalone",
        Console,
        Heart(Command::SetStandalone),
        "be a primary that keeps no log for the other server",
        "The way back: 'hsb set primary alone', then 'hsb connect'. The other server needs a netcopy in between once the log does\nnot reach back to where it left (14708).",
    ),
    row(
        "hsb switch primary",
        Console,
        Heart(Command::SwitchPrimary),
        "exchange the roles; this secondary becomes the primary",
        "Runs in the background: 'hsb status switch' shows how it goes. At a SECONDARY ALONE server, the other one is asked\nfirst whether it is a primary; if it cannot be reached within HotStandby.ConnectTimeout, or PingTimeout if that is 0, it\ncounts as gone.",
    ),
    row(
        "hsb switch secondary",
        Console,
        Heart(Command::SwitchSecondary),
        "exchange the roles; this primary becomes the secondary",
        "Runs in the background: 'hsb status switch' shows how it goes. At a PRIMARY ALONE or PRIMARY UNCERTAIN server, the other\none is asked first whether it has everything; if it cannot be reached, this server becomes SECONDARY ALONE all the same,\nand the answer says that there is no primary then.",
    ),
    row(
        "hsb netcopy",
        Console,
        Heart(Command::Netcopy),
        "copy this primary's database to the other server",
        "At a PRIMARY ALONE server, which goes on working meanwhile. 'hsb status copy' shows how it goes.",
    ),
    row(
        "hsb rewind",
        Console,
        Heart(Command::Rewind),
        "take back the transactions that the primary lacks",
        "At a SECONDARY ALONE server that 'hsb connect' refuses with 14525. Saves them as SQL to a file beside the database\nfirst and names it; after that 'hsb connect' works. Where the schema was changed among them, or the logs do not tell\nwhat they are, they are not taken back: then this is the consent to a 'hsb netcopy' that replaces the database.",
    ),
    row(
        "hsb copy [directory] …",
        Console,
        Work(copies::copy),
        "copy this primary's database to a directory, for a server that is started there",
        "At a PRIMARY ALONE server, which goes on working meanwhile; without a directory, to HotStandby.CopyDirectory. Blanks belong\nto the name; quotes around it do not. 'hsb status copy' shows how it goes.",
    ),
    row(
        "hsb outcome <token> …",
        Console,
        Work(hsb::outcome),
        "what became of the transaction with this token",
        "COMMITTED, ROLLED BACK or UNKNOWN, then what that means. Blanks around the token do not count; HOTSTANDBY_OUTCOME()\nin SQL takes any token. See docs/outcome.md.",
    ),
    row(
        "hsb parameter <name> <value> …",
        Administrator,
        Work(parameters::set_of_hotstandby),
        "as 'parameter hotstandby.name=value'",
        "The older form.",
    ),
    row(
        "parameter [section[.name]]",
        Console,
        Answer(parameters::show),
        "show parameters",
        "Each row: section, name, value now, value at the start, factory value; behind them a value that waits for the next start or\nthe next new database.",
    ),
    row(
        "parameter <section.name=value> [temporary]",
        Administrator,
        Work(parameters::set),
        "change a parameter",
        "'*' is the factory value. 'temporary' keeps the change out of solid.ini.",
    ),
    row(
        "describe parameter [section[.name]]",
        Console,
        Answer(parameters::describe),
        "what a parameter is for",
        "Without a name, or with 'all': every parameter; with a section, those of the section.",
    ),
    row(
        "save parameters [file]",
        Administrator,
        Work(parameters::save),
        "write changed parameters to solid.ini or to another file",
        "",
    ),
    row(
        "makecp",
        Administrator,
        Work(copies::make_checkpoint),
        "make a checkpoint; answers when it is made",
        "Until then everything committed is on disk without the log; log files that nobody needs are deleted, changed\nparameters are written to solid.ini.",
    ),
    row(
        "backup [directory] …",
        Administrator,
        Work(copies::back_up),
        "copy the database to a directory, in any state",
        "Without a directory, to General.BackupDirectory. The directory has to exist. Blanks belong to its name; quotes around it do\nnot. 'status backup' shows how it goes, and so does the message log.",
    ),
    row(
        "status backup",
        Console,
        Answer(hsb::status_copy),
        "the last backup or copy that was started",
        "As 'hsb status copy'.",
    ),
    row(
        "backup list",
        Console,
        Answer(copies::list),
        "the backups and copies since the start of the server, the last one first",
        "Each row: when it ended (UTC), SUCCESS or FAILED with the reason, the directory. 'backuplist' is the same.",
    ),
    row("backuplist", Console, Answer(copies::list), "as 'backup list'", ""),
    row(
        "info [option] …",
        Console,
        Work(general::info),
        "single figures, a row each",
        "Without an option: all of them, each with its name. The options are:\n\n* primarystarttime: since when it is a primary (UTC); empty at a secondary\n* secondarystarttime: since when it is a secondary (UTC); empty at a primary\n* uptime: seconds since the start\n* version: of the server program\n* name: of the product\n* numusers: SQL sessions\n* numtrans: transactions since the database was created\n* dbsize: bytes of the database files\n* logsize: bytes of the log files\n* walsize: bytes of SQLite's own log, part of 'dbsize'\n* oldestsnapshot: the session that has read from one snapshot for longest; empty if none does\n* cpcount: checkpoints since the start\n* hsbstate: as 'hsb state'\n* hsbreason: why it is in this state\n* hsbcause: the same as a word that programs decide by (docs/status.md)\n* diskfull: the system's words while the disk is full; else empty\n* position: the decided position: epoch.sequence/hash\n* logend: the end of the log; differs while a batch is undecided",
    ),
    row(
        "perfmon",
        Console,
        Answer(perfmon::perfmon),
        "counters since the start",
        "Each row: name, value, meaning. 'HSB state': 0 none, 1 STANDALONE, 2 OFFLINE, 3 switching to primary, 4 switching to\nsecondary, 5 PRIMARY ALONE, 6 to 9 the same copying, connecting, catching up, disconnecting, 10 PRIMARY ACTIVE,\n11 PRIMARY UNCERTAIN, 12 SECONDARY ALONE, 13 to 16 the same copying, connecting, catching up, disconnecting,\n17 SECONDARY ACTIVE.",
    ),
    row(
        "status",
        Console,
        Work(general::status),
        "this server in a few lines",
        "'hsb status' shows the pair.",
    ),
    row(
        "userlist",
        Console,
        Answer(general::user_list),
        "who is connected by SQL",
        "Each row: id, user, address, since when.",
    ),
    row(
        "throwout <id|all>",
        Administrator,
        Answer(general::throw_out),
        "end one SQL session or all",
        "'userlist' shows the ids. Open transactions are rolled back.",
    ),
    row(
        "errorcode <number|all>",
        Console,
        Answer(general::error_code),
        "what a code means and what to do",
        "",
    ),
    row("version", Console, Answer(general::version), "the versions of server and SQL engine", ""),
    row("pid", Console, Answer(general::process_id), "the server's process id", ""),
    row(
        "shutdown [force]",
        Administrator,
        Answer(general::shut_down),
        "end this server in order",
        "In PRIMARY UNCERTAIN with a transaction whose outcome is open, only with 'force': better decide it first.",
    ),
    row("help [command] …", Console, Answer(help::help), "all commands, or more about one", ""),
    row(
        "events",
        Console,
        Answer(general::events),
        "the events that can be listened to, and the last one of each",
        "Hear of them by LISTEN in SQL or by 'watch [event]' on the console.",
    ),
    row(
        "commands",
        Console,
        Answer(help::commands),
        "the list of commands for programs",
        "Each row: syntax, 'console' or 'admin', meaning, separated by tabs.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_well_formed() {
        for row in COMMANDS {
            assert!(
                row.name().chars().all(|letter| letter.is_ascii_lowercase() || letter == ' '),
                "{}",
                row.syntax
            );
            assert!(!row.meaning.is_empty() && !row.meaning.ends_with('.'), "{}", row.syntax);
            assert!(!row.help.ends_with([' ', '\n']), "{}", row.syntax);
            assert!(row.syntax.len() + row.meaning.len() < 110, "{}: too long for a line", row.syntax);
        }
        let mut names: Vec<_> = COMMANDS.iter().map(|row| row.syntax).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMANDS.len(), "a command stands twice");
    }
}
