//! Where connections are until they have said a word: one thread for all of them and for the port.
//!
//! Not here: who has to make way ([`super::places`]). Invariants: nothing here waits for a client; when the system has no
//! descriptors left, the thread does not run in circles, and whoever is silent makes way at once.

use super::places::{Kind, Places};
use super::protocol::{Protocol, classify, send_away};
use super::{Guest, Shared};
use crate::hsb::codes::Code;
use crate::stream::Stream;
use crate::threads;
use log::{debug, info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::TcpKeepalive;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often it looks after what nothing wakes it for: a place that is given back, the rest of a first word.
const TICK: Duration = Duration::from_millis(5);
/// When the system has no descriptors left, nothing is accepted for so long.
const PAUSE: Duration = Duration::from_millis(50);
/// So many are accepted before those that have spoken are looked after.
const AT_ONE_TIME: usize = 16;
/// How often the same trouble is told.
const TOLD_EVERY: Duration = Duration::from_secs(60);

const CROWDED: &str =
    "Too many connections that have not logged in (Com.MaxPendingLogins): this one had to make way.";

pub(super) struct Lobby {
    listener: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    shared: Arc<Shared>,
    silent: Vec<Silent>,
    /// No descriptors: nothing is accepted until then.
    paused_until: Option<Instant>,
    told: [Option<Instant>; 2],
}

struct Silent {
    guest: Guest,
    from: SocketAddr,
    /// Bytes that have come; too few to tell what they begin.
    seen: usize,
    /// There is something to look at.
    stirs: bool,
}

/// What has become of a silent connection.
enum Heard {
    Nothing,
    Some(usize),
    Closed,
    Word(Result<Protocol, &'static str>),
}

impl Lobby {
    pub(super) fn new(listener: Arc<TcpListener>, stopping: Arc<AtomicBool>, shared: Arc<Shared>) -> Lobby {
        Lobby { listener, stopping, shared, silent: Vec::new(), paused_until: None, told: [None; 2] }
    }

    pub(super) fn run(mut self) {
        while !self.stopping.load(Ordering::SeqCst) {
            let accepts = self.accepts();
            let arrived = self.wait(accepts);
            self.look_after_silent();
            if arrived && !self.stopping.load(Ordering::SeqCst) {
                self.accept_some();
            }
        }
    }

    fn places(&self) -> &Arc<Places> {
        &self.shared.places
    }

    /// Whether there is room for one more, made if need be.
    fn accepts(&mut self) -> bool {
        self.paused_until = self.paused_until.filter(|until| *until > Instant::now());
        self.paused_until.is_none()
            && (self.places().has_room() || self.places().is_crowded() && self.make_way(false))
    }

    /// Drops one that has not logged in. True: there is room now.
    fn make_way(&mut self, hurry: bool) -> bool {
        let Some(dropped) = self.places().make_way(Instant::now(), hurry) else { return false };
        self.tell(0, "connections that have not logged in have to make way for newer ones", &"");
        if let Some(stream) = &dropped.stream {
            if dropped.kind.is_none() {
                stream.take_what_is_there();
            }
            send_away(stream, dropped.kind, Code::OPERATION_FAILED, CROWDED);
        }
        self.silent.retain(|silent| silent.guest.place.number() != dropped.number);
        self.places().has_room()
    }

    /// True if somebody wants to come in.
    fn wait(&mut self, accepts: bool) -> bool {
        let now = Instant::now();
        let unclear = self.silent.iter().any(|silent| silent.seen > 0);
        let tick = (!accepts || unclear).then_some(TICK);
        let deadline = self.silent.iter().map(|silent| silent.guest.deadline).min();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now).max(TICK));
        let limit = [tick, left].into_iter().flatten().min().and_then(|limit| Timespec::try_from(limit).ok());
        let input = |wanted: bool| if wanted { PollFlags::IN } else { PollFlags::empty() };
        let mut places: Vec<PollFd<'_>> = Vec::with_capacity(self.silent.len() + 1);
        places.push(PollFd::new(&self.listener, input(accepts)));
        // Where bytes are already, it would wake at once, again and again.
        places.extend(
            self.silent.iter().map(|silent| PollFd::new(&silent.guest.stream, input(silent.seen == 0))),
        );
        let woken = poll(&mut places, limit.as_ref());
        if woken.is_err() {
            // For want of memory, say: everything is looked at instead.
            std::thread::sleep(TICK);
        }
        let mut stirs = places.iter().map(|place| woken.is_err() || !place.revents().is_empty());
        let arrived = stirs.next().unwrap_or(false) && accepts;
        let stirs: Vec<bool> = stirs.collect();
        for (silent, stirs) in self.silent.iter_mut().zip(stirs) {
            silent.stirs = stirs || silent.seen > 0;
        }
        arrived
    }

    fn accept_some(&mut self) {
        for _ in 0..AT_ONE_TIME {
            if !self.accepts() {
                return;
            }
            match self.listener.accept() {
                Ok((stream, from)) => self.admit(stream.into(), from),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) if self.stopping.load(Ordering::SeqCst) => return,
                Err(error) => {
                    // Usually no descriptors are left: trying again at once would only burn time, unless one has
                    // been given back for it.
                    self.tell(1, "a connection cannot be accepted", &error);
                    let silent = self.silent.len();
                    self.make_way(true);
                    if self.silent.len() == silent {
                        self.paused_until = Some(Instant::now() + PAUSE);
                        return;
                    }
                }
            }
        }
    }

    fn tell(&mut self, what: usize, text: &str, cause: &dyn std::fmt::Display) {
        if self.told[what].is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            self.told[what] = Some(Instant::now());
            let separator = if cause.to_string().is_empty() { "" } else { ": " };
            warn!("{text}{separator}{cause} (told once a minute)");
        }
    }

    fn admit(&mut self, stream: Stream, from: SocketAddr) {
        set_options(&stream);
        if let Err(error) = stream.set_nonblocking(true) {
            return debug!("a connection from {from} was closed: {error}");
        }
        let guest = Guest::new(stream, from, self.places(), (self.shared.time_to_log_in)());
        self.silent.push(Silent { guest, from, seen: 0, stirs: false });
    }

    fn look_after_silent(&mut self) {
        let now = Instant::now();
        let mut at = 0;
        while let Some(silent) = self.silent.get_mut(at) {
            let stirs = std::mem::take(&mut silent.stirs);
            let heard = if stirs { listen_to(&silent.guest.stream, silent.seen) } else { Heard::Nothing };
            match heard {
                Heard::Nothing if silent.guest.deadline > now => at += 1,
                Heard::Some(seen) if silent.guest.deadline > now => {
                    silent.seen = seen;
                    at += 1;
                }
                heard => {
                    let silent = self.silent.swap_remove(at);
                    self.dismiss(silent, heard);
                }
            }
        }
    }

    /// It leaves the lobby, by one door or the other.
    fn dismiss(&self, Silent { guest, from, .. }: Silent, heard: Heard) {
        let problem = match heard {
            Heard::Closed => return (self.shared.handlers.left)(),
            Heard::Word(Ok(protocol)) => return self.hand_over(guest, from, protocol),
            Heard::Word(Err(problem)) => problem,
            Heard::Nothing | Heard::Some(_) => "Nothing that this server understands came in time.",
        };
        info!("A connection from {from} was closed: {problem}");
        guest.stream.take_what_is_there();
        send_away(&guest.stream, None, Code::INVALID_ARGUMENT, problem);
    }

    fn hand_over(&self, guest: Guest, from: SocketAddr, protocol: Protocol) {
        guest.place.speaks(protocol.kind());
        if guest.stream.set_nonblocking(false).is_err() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let name = format!("client {from}");
        match protocol {
            Protocol::Peer => threads::run(&name, move || (shared.handlers.peer)(guest)),
            Protocol::Console => threads::run_console(&name, move || (shared.handlers.console)(guest)),
            Protocol::Sql => {
                let serve = move |guest| (shared.handlers.sql)(guest);
                if let Err((error, guest)) = threads::try_run(&name, guest, serve) {
                    warn!("A connection from {from} was closed: no thread can be started ({error}).");
                    let text = format!("too many clients: no thread can be started for this one ({error})");
                    guest.stream.take_what_is_there();
                    send_away(&guest.stream, Some(Kind::Sql), Code::OPERATION_FAILED, &text);
                }
            }
        }
    }
}

/// Looks at the first bytes without taking them.
fn listen_to(stream: &Stream, seen: usize) -> Heard {
    let mut bytes = [0; 8];
    match stream.peek(&mut bytes) {
        Ok(0) => Heard::Closed,
        Ok(length) if length == seen => Heard::Some(seen),
        Ok(length) => classify(&bytes[..length]).map_or(Heard::Some(length), Heard::Word),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Heard::Nothing
        }
        Err(_) => Heard::Closed,
    }
}

fn set_options(stream: &Stream) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    // A connection without these options is slower, not wrong.
    let _ = stream.prepare(&keepalive);
}
