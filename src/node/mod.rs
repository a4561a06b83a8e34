//! A node: the one place that opens storage, starts threads and actors, and wires them.
//!
//! Everything here is construction and destruction; what happens in between is in `hsb` (decisions), `actors`
//! (messages), `storage` and `net`.

pub mod assembly;
mod budget;
mod memory;
mod opening;
mod start;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::opening::Held;
pub use self::start::StartOptions;
use crate::actors::supervisor::SupervisorMessage;
use crate::actors::threads::apply::ApplyJob;
use crate::actors::threads::log::LogJob;
use crate::error::ServerError;
use crate::hsb::codes::Code;
use crate::net::listener::ListenerHandle;
use crate::operations::checkpointer::Checkpointer;
pub use crate::operations::peer_port::NetcopyRequested;
use crate::operations::storage::Storage;
use crate::services::context::{Answer, NodeContext, Rights};
use crate::services::events::Subscription;

/// How long transactions of several statements may go on when the server is to end.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(3);
/// How long the end of the server waits for each of these: a copy that is given up, the peer, and those who wait for answers.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(12);

/// A running node. Stop it with [`Node::shut_down`]; dropping it leaves its threads running.
pub struct Node {
    storage: Arc<Storage>,
    checkpointer: Arc<Checkpointer>,
    listener: Arc<ListenerHandle>,
    shutdown: Receiver<()>,
    request_shutdown: Sender<()>,
    threads: Vec<JoinHandle<()>>,
    system: actix_rt::System,
    held: Held,
}

impl Node {
    /// Opens the directory, recovers, and serves.
    pub fn start(options: StartOptions) -> Result<Node, ServerError> {
        start::start(options)
    }

    /// The address that clients, consoles and the peer use; none once it is shutting down.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// What sessions use: for programs that embed the node.
    pub fn context(&self) -> &Arc<NodeContext> {
        &self.storage.node
    }

    /// Gives an admin command as the program itself, with all rights: rows of RC and TEXT.
    pub fn command(&self, text: &str) -> Answer {
        self.context().admin.execute("the embedding program", Rights::Administrator, text)
    }

    /// An SQL session of this program: through the node's own port, with the user's rights, like any other client's.
    pub fn connect(&self, user: &str, password: &str) -> Result<postgres::Client, postgres::Error> {
        let mut address = self.address().unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        let mut configuration = postgres::Config::new();
        configuration.hostaddr(address.ip()).port(address.port()).user(user).password(password);
        configuration.dbname("hotstandby").connect_timeout(Duration::from_secs(10)).connect(postgres::NoTls)
    }

    /// Events from now on, for programs that embed the node.
    pub fn events(&self) -> Subscription {
        self.context().events.subscribe()
    }

    /// Ends [`Node::wait_for_shutdown`].
    pub fn shutdown_requester(&self) -> Sender<()> {
        self.request_shutdown.clone()
    }

    /// Waits for the admin command `shutdown` or for a request of this process.
    pub fn wait_for_shutdown(&self) {
        // An error means that nobody is left who could ask.
        let _ = self.shutdown.recv();
    }

    /// Takes leave of the peer, ends the sessions, puts everything on disk.
    ///
    /// New connections are refused at once; transactions that are open may end, for a while; a copy or
    /// backup that is being made is given up.
    pub fn shut_down(self) {
        let node = &self.storage.node;
        node.status.begin_shutdown();
        let deadline = Instant::now() + TRANSACTION_PATIENCE;
        while node.writer.has_open_transaction() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.checkpointer.give_up_copies(SHUTDOWN_PATIENCE);
        let (reply, answer) = bounded(1);
        self.storage.supervisor.do_send(SupervisorMessage::ShutDown { reply });
        if answer.recv_timeout(SHUTDOWN_PATIENCE).is_err() {
            log::warn!("the other server did not take leave in time");
        }
        node.sessions.close_all(Code::SHUTDOWN, Duration::from_secs(3));
        self.listener.stop();
        if let Err(error) = self.checkpointer.make() {
            log::debug!("no checkpoint at the end: {error}");
        }
        node.writer.detach();
        // The threads end when they have done what came before; an error means that they have ended already.
        let _ = self.storage.log_jobs.send(LogJob::Stop);
        let _ = self.storage.apply_jobs.send(ApplyJob::Stop);
        self.system.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread ended badly");
            }
        }
        let deadline = Instant::now() + SHUTDOWN_PATIENCE;
        while node.unanswered.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        // The connection that holds the file is the last: closing it moves what is in SQLite's log into the database.
        let _nothing_more = node.database.ask_nothing();
        node.database.release();
        self.held.lock.note_end(&node.status.snapshot());
        log::info!("the server has shut down");
    }
}
