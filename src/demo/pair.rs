//! Two servers as child processes in directories of their own: for the demo, and for tests that need real processes.
//!
//! A server that is dropped is killed, by its process id, and reaped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::console::ConsoleClient;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::random;
use crate::stream::Stream;

/// User and password of the administrator of databases made here.
pub const ADMINISTRATOR: (&str, &str) = ("dba", "dba-secret");
/// For conditions that come true in milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server's directory, port and, while it runs, process.
pub struct Server {
    /// For messages.
    pub name: &'static str,
    /// With solid.ini, the database and the log.
    pub directory: PathBuf,
    /// Where it is reached: on loopback, unless it was put elsewhere.
    pub host: IpAddr,
    /// Its port there.
    pub port: u16,
    _reserved: ReservedPort,
    program: PathBuf,
    child: Option<Child>,
}

/// A pair; which of them is the primary changes.
pub struct Pair {
    /// The primary at first.
    pub first: Server,
    /// The secondary at first.
    pub second: Server,
}

impl Pair {
    /// Two directories below `root` with a solid.ini each; `extra` are further lines for both. Starts nothing.
    pub fn prepare(program: &Path, root: &Path, extra: &str) -> Result<Pair, ServerError> {
        let (one, other) = (reserve_port()?, reserve_port()?);
        let numbers = [one.number, other.number];
        let server = |name, port, peer| Server::prepare(program, root, name, port, peer, extra);
        Ok(Pair { first: server("first", one, numbers[1])?, second: server("second", other, numbers[0])? })
    }

    /// Starts both, copies the database and connects: PRIMARY ACTIVE and SECONDARY ACTIVE.
    pub fn start(&mut self) -> Result<(), ServerError> {
        self.start_servers()?;
        self.copy()?;
        self.connect()
    }

    /// Starts both for the first time: PRIMARY ALONE with a new database, and OFFLINE.
    pub fn start_servers(&mut self) -> Result<(), ServerError> {
        self.first.start(&[])?;
        self.second.start(&["-x", "backupserver"])?;
        self.first.expect("hsb set primary alone").map(drop)
    }

    /// Copies the first server's database to the second and waits for the end.
    pub fn copy(&self) -> Result<(), ServerError> {
        self.first.expect("hsb netcopy")?;
        self.first.wait_for("hsb status copy", "SUCCESS")
    }

    /// `hsb connect` at the first server, then waits until both are active.
    pub fn connect(&self) -> Result<(), ServerError> {
        match self.first.connect()? {
            (0, _) => self.second.wait_for("hsb status connect", "CONNECTED"),
            (code, text) => Err(failed(format!("'hsb connect': {code} {text}"))),
        }
    }

    /// `hsb switch primary` at the second server, then waits until both say that it is done. Both keep their names here.
    pub fn switch(&self) -> Result<(), ServerError> {
        self.second.expect("hsb switch primary")?;
        self.second.wait_for("hsb status switch", "SUCCESS")?;
        self.second.wait_for("hsb state", "PRIMARY ACTIVE")?;
        self.first.wait_for("hsb state", "SECONDARY ACTIVE")
    }

    /// The other one becomes the first.
    pub fn swap(&mut self) {
        std::mem::swap(&mut self.first, &mut self.second);
    }
}

impl Server {
    fn prepare(
        program: &Path,
        root: &Path,
        name: &'static str,
        reserved: ReservedPort,
        peer: u16,
        extra: &str,
    ) -> Result<Server, ServerError> {
        let directory = root.join(name);
        let port = reserved.number;
        let ini =
            format!("[Com]\nListen=tcp {port}\n[HotStandby]\nHSBEnabled=yes\nConnect=tcp {peer}\n{extra}\n");
        std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(directory.join("solid.ini"), ini))
            .map_err(|error| failed(format!("{}: {error}", directory.display())))?;
        Ok(Server {
            name,
            directory,
            host: Ipv4Addr::LOCALHOST.into(),
            port,
            _reserved: reserved,
            program: program.to_path_buf(),
            child: None,
        })
    }

    /// Starts the process and waits until it accepts connections.
    pub fn start(&mut self, arguments: &[&str]) -> Result<(), ServerError> {
        let output = std::fs::File::create(self.directory.join("stderr.out"))
            .map_err(|error| failed(format!("{}: {error}", self.directory.display())))?;
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&self.directory)
            .args(arguments)
            .env("SOLID_USER", ADMINISTRATOR.0)
            .env("SOLID_PASSWORD", ADMINISTRATOR.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(|error| failed(format!("{}: {error}", self.program.display())))?;
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while Stream::connect(self.address(), None).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                return Err(failed(format!(
                    "server '{}' did not start; see stderr.out and solmsg.out in {}",
                    self.name,
                    self.directory.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (self.host, self.port).into()
    }

    /// The process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to shut down in order and waits until it has.
    pub fn stop(&mut self) -> Result<(), ServerError> {
        self.expect("shutdown")?;
        self.wait_for_end()
    }

    /// Waits until its process has ended.
    pub fn wait_for_end(&mut self) -> Result<(), ServerError> {
        if let Some(mut child) = self.child.take() {
            child.wait().map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }

    /// Lets the process live on when this value is dropped.
    pub fn leave_running(&mut self) {
        self.child = None;
    }

    /// Its database file.
    pub fn database_file(&self) -> PathBuf {
        self.directory.join("solid.db")
    }

    /// Its database as it is now: a copy, for the file itself is the server's alone. The copy is deleted with the directory.
    pub fn copy_database(&self) -> Result<(tempfile::TempDir, rusqlite::Connection), ServerError> {
        let directory = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
        self.expect(&format!("backup {}", directory.path().display()))?;
        self.wait_for("hsb status copy", "SUCCESS")?;
        let connection = rusqlite::Connection::open(directory.path().join("solid.db"))?;
        Ok((directory, connection))
    }

    /// A new SQL connection of the administrator.
    pub fn sql(&self) -> Result<postgres::Client, postgres::Error> {
        sql_configuration(self.port).hostaddr(self.host).connect(postgres::NoTls)
    }

    /// A new console connection.
    pub fn console(&self) -> Result<ConsoleClient, ServerError> {
        ConsoleClient::connect(self.address(), ADMINISTRATOR.0, ADMINISTRATOR.1, PATIENCE)
    }

    /// Gives a command and returns RC and TEXT of the first row.
    pub fn ask(&self, command: &str) -> Result<(u32, String), ServerError> {
        self.console()?.ask(command)
    }

    /// Gives a command that has to succeed.
    pub fn expect(&self, command: &str) -> Result<String, ServerError> {
        match self.ask(command)? {
            (0, text) => Ok(text),
            (code, text) => Err(failed(format!("'{command}' at server '{}': {code} {text}", self.name))),
        }
    }

    /// `hsb connect` and what came of it: 0, or code and reason. It is answered when it begins.
    pub fn connect(&self) -> Result<(u32, String), ServerError> {
        let refused = self.ask("hsb connect")?;
        if refused.0 != 0 {
            return Ok(refused);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut console = self.console()?;
        loop {
            let mut rows = console.command("hsb status connect")?;
            let under_way = [Code::CONNECTING, Code::CATCHUP].map(Code::number);
            let is_under_way = rows.first().is_some_and(|row| under_way.contains(&row.0));
            match rows.pop() {
                Some(last) if !is_under_way => return Ok(last),
                _ if Instant::now() > deadline => {
                    return Err(failed(format!("server '{}' connects for too long", self.name)));
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Repeats a command until its first row is `wanted`; not if it says that what is waited for has failed.
    pub fn wait_for(&self, command: &str, wanted: &str) -> Result<(), ServerError> {
        let deadline = Instant::now() + PATIENCE;
        let mut console = self.console()?;
        loop {
            let (code, text) = console.ask(command)?;
            if text == wanted {
                return Ok(());
            }
            // Servers that are not connected may be later on.
            let has_failed = !Code::from(code).is_success() && code != Code::LINK_BROKEN.number();
            if Instant::now() > deadline || has_failed {
                return Err(failed(format!(
                    "'{command}' at server '{}' says {code} {text}, not {wanted}",
                    self.name
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How the administrator connects to the SQL port of a server made here.
pub fn sql_configuration(port: u16) -> postgres::Config {
    let mut configuration = postgres::Config::new();
    configuration
        .host("127.0.0.1")
        .port(port)
        .user(ADMINISTRATOR.0)
        .password(ADMINISTRATOR.1)
        .dbname("hotstandby")
        .connect_timeout(Duration::from_secs(2));
    configuration
}

/// A TCP port that is this value's own among all programs that take theirs here, whether a server listens or not.
pub struct ReservedPort {
    /// The port.
    pub number: u16,
    /// The UDP port of the same number: nobody uses it, so holding it says "taken", and it is free when the holder ends.
    _mark: UdpSocket,
}

/// A free port, chosen at random below those that the system gives to outgoing connections: nobody takes it by chance
/// before the server does, or while the server is down.
pub fn reserve_port() -> Result<ReservedPort, ServerError> {
    for _ in 0..1000 {
        let number = 10_000 + u16::from_le_bytes(random::bytes()?) % 22_000;
        let address = (Ipv4Addr::LOCALHOST, number);
        if let (Ok(mark), Ok(_)) = (UdpSocket::bind(address), TcpListener::bind(address)) {
            return Ok(ReservedPort { number, _mark: mark });
        }
    }
    Err(failed("no free port".into()))
}

fn failed(detail: String) -> ServerError {
    ServerError::with(Code::OPERATION_FAILED, detail)
}
