//! Who may stay: places for connections, by what they are, and who makes way when those that have not logged in fill theirs.
//!
//! A connection waits until it has logged in; then it is let in as what it is, if there is a place for its kind. One that
//! waits may be dropped for a newer one: of the address that has most of them waiting first, the silent before those that
//! have said what they want, consoles and clients before the other server, the oldest first. So silence and half
//! log-ins take nobody else's place. Not here: what is said on a connection.
//!
//! Invariant: a place is counted until its connection is closed, also that of one who was dropped.

use crate::stream::Stream;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::error::ServerError;
use crate::hsb::codes::Code;

/// What a connection turned out to be, in the order in which they make way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A PostgreSQL client.
    Sql,
    /// Text lines.
    Console,
    /// The other server.
    Peer,
}

/// How many places there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For PostgreSQL clients that have logged in.
    pub sql: usize,
    /// For consoles that have logged in.
    pub consoles: usize,
    /// For connections of the other server that have proved to be its.
    pub peers: usize,
    /// For all that have not come so far.
    pub waiting: usize,
}

impl Limits {
    /// Places for those of this kind that have logged in.
    fn of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Sql => self.sql,
            Kind::Console => self.consoles,
            Kind::Peer => self.peers,
        }
    }
}

/// Who has just come is not dropped at once, so that many who come together all log in: so long, per place of those who
/// wait, a silent one is spared.
const SPARED_PER_PLACE: Duration = Duration::from_micros(500);
/// The same for one that has said what it wants.
const SPARED_SPEAKING: Duration = Duration::from_millis(500);

/// All places.
pub struct Places {
    limits: Box<dyn Fn() -> Limits + Send + Sync>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    let_in: [usize; 3],
}

struct Waiting {
    group: IpAddr,
    since: Instant,
    /// None: silent.
    kind: Option<Kind>,
    stream: Weak<Stream>,
    dropped: bool,
}

/// One that has to make way.
pub struct Dropped {
    /// See [`Place::number`].
    pub number: u64,
    /// What it had said it was.
    pub kind: Option<Kind>,
    /// Its connection, if it is still there.
    pub stream: Option<Arc<Stream>>,
}

/// The place of one connection, given back when dropped.
pub struct Place {
    places: Arc<Places>,
    number: u64,
    let_in: Option<Kind>,
}

/// There is no place of this kind; so many are taken. None: it had to make way while it waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full(pub Option<usize>);

impl Full {
    /// What `of_whom` (consoles, say) are told for whom there is no place.
    pub fn refusal(self, of_whom: &str) -> ServerError {
        let why = match self.0 {
            Some(taken) => format!("Too many {of_whom}: {taken} are connected."),
            None => "This connection had to make way for newer ones before it had logged in.".to_owned(),
        };
        ServerError::with(Code::OPERATION_FAILED, why)
    }
}

impl Places {
    /// None taken.
    pub fn new(limits: impl Fn() -> Limits + Send + Sync + 'static) -> Arc<Places> {
        Arc::new(Places { limits: Box::new(limits), inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are now.
    pub fn limits(&self) -> Limits {
        (self.limits)()
    }

    /// How many of this kind are let in.
    pub fn taken(&self, kind: Kind) -> usize {
        self.lock().let_in[kind as usize]
    }

    /// How many wait, those included who were dropped and are not gone yet.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether one more may come now. Those who were dropped and are not gone yet count a quarter of the places at most.
    pub fn has_room(&self) -> bool {
        let limit = self.limits().waiting;
        !self.is_crowded() && self.waiting() < limit + limit.div_ceil(4)
    }

    /// Whether somebody has to make way for the next one.
    pub fn is_crowded(&self) -> bool {
        let limit = self.limits().waiting;
        self.lock().waiting.values().filter(|waiting| !waiting.dropped).count() >= limit
    }

    /// A place for a new connection.
    pub fn take(self: &Arc<Self>, stream: &Arc<Stream>, from: IpAddr, now: Instant) -> Place {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        let (group, stream) = (group(from), Arc::downgrade(stream));
        inner.waiting.insert(number, Waiting { group, since: now, kind: None, stream, dropped: false });
        Place { places: Arc::clone(self), number, let_in: None }
    }

    /// Who has to make way for a new one now, if anybody can be asked to. `hurry`: nobody is spared.
    pub fn make_way(&self, now: Instant, hurry: bool) -> Option<Dropped> {
        let spared = |waiting: &Waiting| match waiting.kind {
            _ if hurry => Duration::ZERO,
            None => SPARED_PER_PLACE * u32::try_from(self.limits().waiting).unwrap_or(u32::MAX),
            Some(_) => SPARED_SPEAKING,
        };
        let mut inner = self.lock();
        let mut of_group: HashMap<IpAddr, usize> = HashMap::new();
        for waiting in inner.waiting.values() {
            *of_group.entry(waiting.group).or_default() += 1;
        }
        let candidates = inner.waiting.iter_mut().filter(|(_, waiting)| {
            !waiting.dropped && now.saturating_duration_since(waiting.since) >= spared(waiting)
        });
        // Numbers are in the order of arrival.
        let (number, chosen) = candidates.min_by_key(|(number, waiting)| {
            (usize::MAX - of_group.get(&waiting.group).unwrap_or(&0), waiting.kind, **number)
        })?;
        chosen.dropped = true;
        Some(Dropped { number: *number, kind: chosen.kind, stream: chosen.stream.upgrade() })
    }
}

impl Place {
    /// Grows with each connection.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many of this kind are let in, if that leaves no place for one more.
    pub fn full(&self, kind: Kind) -> Option<usize> {
        Some(self.places.taken(kind)).filter(|taken| *taken >= self.places.limits().of(kind))
    }

    /// It has said what it is.
    pub fn speaks(&self, kind: Kind) {
        if let Some(waiting) = self.places.lock().waiting.get_mut(&self.number) {
            waiting.kind = Some(kind);
        }
    }

    /// It had to make way.
    pub fn is_dropped(&self) -> bool {
        self.places.lock().waiting.get(&self.number).is_some_and(|waiting| waiting.dropped)
    }

    /// It has logged in: from now on nobody takes its place.
    pub fn let_in(&mut self, kind: Kind) -> Result<(), Full> {
        let limits = self.places.limits();
        let limit = limits.of(kind);
        let mut inner = self.places.lock();
        if inner.waiting.get(&self.number).is_none_or(|waiting| waiting.dropped) {
            return Err(Full(None));
        }
        let taken = &mut inner.let_in[kind as usize];
        if *taken >= limit {
            return Err(Full(Some(*taken)));
        }
        *taken += 1;
        inner.waiting.remove(&self.number);
        self.let_in = Some(kind);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.lock();
        match self.let_in {
            Some(kind) => inner.let_in[kind as usize] -= 1,
            None => drop(inner.waiting.remove(&self.number)),
        }
    }
}

/// An address of IPv6 says little of who it is: everybody has as many of them as they want, in a network of their own.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    fn places(waiting: usize) -> (Arc<Places>, Arc<Stream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(Stream::connect(listener.local_addr().unwrap(), None).unwrap());
        (Places::new(move || Limits { sql: 1, consoles: 1, peers: 1, waiting }), stream)
    }

    fn from(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[test]
    fn the_address_with_most_makes_way_first_and_there_the_silent_and_old() {
        let (places, stream) = places(100);
        let start = Instant::now();
        let now = start + Duration::from_secs(1);
        let take = |last: u8, kind: Option<Kind>| {
            let place = places.take(&stream, from(last), start);
            kind.into_iter().for_each(|kind| place.speaks(kind));
            place
        };
        let alone = take(1, None);
        let many = [Some(Kind::Peer), Some(Kind::Sql), None, Some(Kind::Console), None, Some(Kind::Sql)]
            .map(|kind| take(2, kind));
        let mut order = Vec::new();
        while let Some(dropped) = places.make_way(now, false) {
            order.push(dropped.number - many[0].number());
            if order.len() == many.len() {
                break;
            }
        }
        assert_eq!(order, [2, 4, 1, 5, 3, 0]);
        assert!(!alone.is_dropped());
        assert!(many.iter().all(Place::is_dropped));
    }

    #[test]
    fn who_has_just_come_is_spared_unless_it_is_urgent() {
        let (places, stream) = places(100);
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let speaking = places.take(&stream, from(1), start);
        speaking.speaks(Kind::Sql);
        let silent = places.take(&stream, from(1), start);
        assert!(places.make_way(after(49), false).is_none());
        assert_eq!(places.make_way(after(50), false).map(|one| one.number), Some(silent.number()));
        assert!(places.make_way(after(499), false).is_none());
        assert_eq!(places.make_way(start, true).map(|one| one.number), Some(speaking.number()));
        assert!(places.make_way(after(5000), true).is_none(), "nobody is dropped twice");
    }

    #[test]
    fn who_is_let_in_stays_and_who_was_dropped_is_not_let_in() {
        let (places, stream) = places(4);
        let now = Instant::now();
        let mut waiting: Vec<Place> = (0..4).map(|_| places.take(&stream, from(1), now)).collect();
        assert!(!places.has_room());
        let mut first = waiting.remove(0);
        first.let_in(Kind::Sql).unwrap();
        assert!(places.has_room());
        assert_eq!(waiting[0].let_in(Kind::Sql), Err(Full(Some(1))));
        waiting[0].let_in(Kind::Console).unwrap();
        assert_eq!(places.make_way(now, true).map(|one| one.number), Some(waiting[1].number()));
        assert_eq!(waiting[1].let_in(Kind::Peer), Err(Full(None)));
        drop(first);
        waiting[2].let_in(Kind::Sql).unwrap();
        assert_eq!((places.taken(Kind::Sql), places.taken(Kind::Console), places.waiting()), (1, 1, 1));
        drop(waiting);
        assert_eq!((places.taken(Kind::Sql), places.taken(Kind::Console), places.waiting()), (0, 0, 0));
    }

    /// Else a fast stranger could have any number of connections that are only being closed.
    #[test]
    fn who_was_dropped_counts_until_it_is_gone() {
        let (places, stream) = places(8);
        let now = Instant::now();
        let mut waiting = Vec::new();
        while places.has_room() || places.make_way(now, true).is_some() && places.has_room() {
            waiting.push(places.take(&stream, from(1), now));
        }
        assert_eq!(waiting.len(), 10);
        waiting.retain(|place| !place.is_dropped());
        assert!(!waiting.is_empty() && (places.has_room() || places.make_way(now, true).is_some()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let same = ["2001:db8::1", "2001:db8::ffff:1"].map(|text| group(text.parse().unwrap()));
        assert_eq!(same[0], same[1]);
        assert_eq!(group("::ffff:10.0.0.1".parse().unwrap()), from(1));
    }
}
