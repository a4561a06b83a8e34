//! A connection over the network: plain TCP today. What TLS will need is in here and where connections are accepted and
//! dialled; nobody else knows what a connection is made of.
//!
//! Blocking, until it is handed to the actors' runtime ([`Stream::into_halves`]). Not here: the port (`net::listener`), and
//! what is said. Invariant: one thread may read, another one write and any end it at the same time, without a lock.

use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// See the module.
#[derive(Debug)]
pub struct Stream(TcpStream);

/// Why [`Stream::wait`] has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// The other side says something, or leaves.
    Input,
    /// There is something in the pipe, or it is closed.
    Pulse,
    /// The time is over.
    TimedOut,
}

impl Stream {
    /// Reaches one of the addresses of a name, within `limit` in all; none: as long as the system allows.
    pub fn connect(name: impl ToSocketAddrs, limit: Option<Duration>) -> io::Result<Stream> {
        let mut last = io::Error::other("the name has no address");
        // An error of a kind of its own: it is not the other side's.
        let addresses = name.to_socket_addrs().map_err(io::Error::other)?;
        let deadline = limit.map(|limit| Instant::now() + limit);
        let addresses: Vec<SocketAddr> = addresses.collect();
        for (tried, address) in addresses.iter().enumerate() {
            let connected = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
            {
                Some(Duration::ZERO) => break,
                // Its share of what is left: an address that swallows everything leaves some to the next one.
                Some(left) => {
                    let still_to_try = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
                    TcpStream::connect_timeout(address, (left / still_to_try).max(Duration::from_millis(1)))
                }
                None => TcpStream::connect(address),
            };
            match connected {
                Ok(stream) => return Ok(Stream(stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Small messages leave at once, and the system asks now and then whether the other side is still there.
    pub fn prepare(&self, keepalive: &TcpKeepalive) -> io::Result<()> {
        self.0.set_nodelay(true)?;
        SockRef::from(&self.0).set_tcp_keepalive(keepalive)
    }

    /// How long sent bytes may stay without the other system's acknowledgement; none: the system's own limit.
    pub fn set_user_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        SockRef::from(&self.0).set_tcp_user_timeout(limit)?;
        Ok(())
    }

    /// How long a read may wait; none: for ever.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(limit)
    }

    /// How long a write may wait; none: for ever.
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(limit)
    }

    /// The same limit for both.
    pub fn set_timeouts(&self, limit: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(limit).and_then(|()| self.set_write_timeout(limit))
    }

    /// How long a write may wait; none: for ever.
    pub fn write_timeout(&self) -> Option<Duration> {
        self.0.write_timeout().ok().flatten()
    }

    /// Whether reads, writes and looks wait at all.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    /// The other side's address, to be shown.
    pub fn peer_address(&self) -> String {
        self.0.peer_addr().map_or_else(|_| "an unknown address".to_owned(), |address| address.to_string())
    }

    /// Looks at the first bytes that have come, without taking them.
    pub fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.peek(bytes)
    }

    /// Waits until the other side says something or leaves, until there is something in the pipe, or until the time is over;
    /// takes nothing.
    pub fn wait(&self, pulse: Option<&PipeReader>, deadline: Option<Instant>) -> Woken {
        let mut places = [(); 2].map(|()| PollFd::new(&self.0, PollFlags::IN));
        let mut count = 1;
        if let Some(pulse) = pulse {
            places[1] = PollFd::new(pulse, PollFlags::IN);
            count = 2;
        }
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // A limit beyond what the system can count is none.
            let limit = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut places[..count], limit.as_ref()) {
                Ok(0) => return Woken::TimedOut,
                Ok(_) if places[0].revents().is_empty() => return Woken::Pulse,
                Err(error) if error == rustix::io::Errno::INTR => {}
                // What is wrong with the connection the next read finds out.
                Ok(_) | Err(_) => return Woken::Input,
            }
        }
    }

    /// Whether a read would end at once: something has come, or the other side has left.
    pub fn has_input(&self) -> bool {
        self.wait(None, Some(Instant::now())) == Woken::Input
    }

    /// Whether the other side has closed its side of the connection, or is gone. Does not wait and takes nothing.
    pub fn has_left(&self) -> bool {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut places = [PollFd::new(&self.0, PollFlags::RDHUP)];
        poll(&mut places, Some(&Timespec::default())).is_ok() && places[0].revents().intersects(gone)
    }

    /// Ends reading, from any thread: whoever reads finds the end.
    pub fn end_reading(&self) {
        // An error means that it has ended already; so everywhere here.
        let _ = self.0.shutdown(Shutdown::Read);
    }

    /// Ends it in both directions, from any thread.
    pub fn end(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }

    /// Ends it so that what was written arrives: closing with bytes unread would reset the connection and may destroy them. The
    /// other side is listened to until it closes, for so long at most.
    pub fn end_gently(&self, patience: Duration) {
        if self.0.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + patience;
        let mut chunk = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.set_read_timeout(Some(left)).is_err() {
                return;
            }
            if !matches!((&self.0).read(&mut chunk), Ok(length) if length > 0) {
                return;
            }
        }
    }

    /// A last word without waiting for anybody, and the end.
    pub fn send_away(&self, words: &[u8]) {
        // Whoever does not take it in time has no use for it.
        let _ = SockRef::from(&self.0).send_with_flags(words, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        self.end();
    }

    /// Takes what has come and forgets it, without waiting: closing with bytes unread may destroy the last word.
    pub fn take_what_is_there(&self) {
        const MOST_CHUNKS: usize = 16;
        let _ = self.set_nonblocking(true);
        let mut chunk = [0; 4096];
        for _ in 0..MOST_CHUNKS {
            if !matches!((&self.0).read(&mut chunk), Ok(length) if length > 0) {
                return;
            }
        }
    }

    /// Its two directions, to be used on the present runtime.
    pub fn into_halves(self) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
        self.set_nonblocking(true)?;
        Ok(tokio::net::TcpStream::from_std(self.0)?.into_split())
    }
}

/// One that was accepted.
impl From<TcpStream> for Stream {
    fn from(accepted: TcpStream) -> Stream {
        Stream(accepted)
    }
}

/// For waiting for the first bytes of many at the same time.
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(bytes)
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(bytes)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a read or write has ended because its time was over: the system says EAGAIN, Rust "timed out".
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Stream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = Stream::connect(listener.local_addr().unwrap(), Some(Duration::from_secs(60))).unwrap();
        (one, listener.accept().unwrap().0.into())
    }

    #[test]
    fn what_has_come_is_seen_and_not_taken() {
        let (mut one, mut other) = pair();
        assert!(!other.has_input() && !other.has_left());
        let soon = || Some(Instant::now() + Duration::from_millis(1));
        assert_eq!(other.wait(None, soon()), Woken::TimedOut);
        let (pulse, writer) = io::pipe().unwrap();
        drop(writer);
        assert_eq!(other.wait(Some(&pulse), None), Woken::Pulse);
        one.write_all(b"hello").unwrap();
        assert_eq!(other.wait(Some(&pulse), None), Woken::Input);
        let mut bytes = [0; 5];
        assert_eq!(other.peek(&mut bytes).unwrap(), 5);
        other.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        assert!(!other.has_input());
        one.end();
        assert_eq!(other.wait(None, None), Woken::Input);
        assert!(other.has_left());
    }

    /// Else a refusal would be lost to whoever has sent more than was read.
    #[test]
    fn a_gentle_end_lets_the_last_word_arrive() {
        let (mut one, mut other) = pair();
        other.write_all(&[7; 100_000]).unwrap();
        let reader = std::thread::spawn(move || {
            let mut heard = String::new();
            other.read_to_string(&mut heard).map(|_| heard)
        });
        one.write_all(b"no").unwrap();
        one.end_gently(Duration::from_secs(60));
        drop(one);
        assert_eq!(reader.join().unwrap().unwrap(), "no");
    }

    #[test]
    fn any_thread_can_end_it() {
        let (one, _other) = pair();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| (&one).read(&mut [0]).unwrap());
            one.end_reading();
            assert_eq!(reader.join().unwrap(), 0);
        });
    }

    #[test]
    fn a_name_without_an_address_is_no_failure_of_the_other_side() {
        let error = Stream::connect(("", 1), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other, "{error}");
        assert!(Stream::connect("127.0.0.1:1", Some(Duration::from_secs(60))).is_err());
    }
}
