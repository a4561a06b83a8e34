//! The network between the two nodes: connections made of two pipes, with delays, cuts and resets.
//!
//! What is written is under way for a while and arrives in order. A cut direction holds everything back until it is
//! mended (as TCP does, which sends again); a silent one has lost its sender and brings nothing more, not even an end.
//! A half-open connection is lost at one end and alive at the other, where what the lost end had sent may still arrive,
//! however late: also after the two nodes have made another.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use hotstandby::actors::link::{Halves, PeerStream};
use hotstandby::codec::{self, FrameKind};
use hotstandby::storage::batch::Batch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;
use crate::common::Random;

/// Bytes under way in one direction before the writer has to wait: the socket buffers.
const WINDOW_BYTES: usize = 64 << 10;

/// Whether a node's process lives. Its fuse burns with everything that leaves the process; when it is burnt down, nothing
/// leaves any more, and the world finishes the crash.
#[derive(Debug, Default)]
pub struct Life {
    dead: AtomicBool,
    fuse: AtomicU32,
}

impl Life {
    pub fn is_over(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// Dies after so many more effects.
    pub fn light_fuse(&self, effects: u32) {
        self.fuse.store(effects, Ordering::Relaxed);
    }

    /// One effect is about to leave the process; false if it must not.
    pub fn spend(&self) -> bool {
        let left = self.fuse.load(Ordering::Relaxed);
        if left > 0 {
            self.fuse.store(left - 1, Ordering::Relaxed);
            if left == 1 {
                self.end();
            }
        }
        !self.is_over()
    }
}

#[derive(Debug)]
struct Pipe {
    under_way: VecDeque<(u64, Bytes)>,
    under_way_bytes: usize,
    arrived: BytesMut,
    /// The writer has closed it; the end arrives then.
    end_at: Option<u64>,
    ended: bool,
    /// The reader's end, and the writer's, has been told that the connection is lost.
    reset: [bool; 2],
    silent: bool,
    /// What is written reaches nobody.
    void: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    last_due: u64,
    clock: Clock,
    random: Random,
    latency_ms: u64,
    /// What the tap has not understood yet, and the newest batch that has arrived.
    tapped: BytesMut,
    batches_up_to: (u64, u64),
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn due(&mut self) -> u64 {
        let due = self.clock.now_ms() + 1 + self.random.below(self.latency_ms);
        self.last_due = self.last_due.max(due);
        self.last_due
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.void {
            return;
        }
        let due = self.due();
        self.under_way_bytes += bytes.len();
        self.under_way.push_back((due, Bytes::copy_from_slice(bytes)));
    }

    fn close(&mut self) {
        if self.end_at.is_none() && !self.silent {
            self.end_at = Some(self.due());
        }
    }

    /// Brings what is due. True if anything came.
    fn deliver(&mut self, now: u64) -> bool {
        let mut came = false;
        while let Some((_, bytes)) = self.under_way.pop_front_if(|(due, _)| *due <= now) {
            self.under_way_bytes -= bytes.len();
            if !self.reader_gone {
                self.arrived.extend_from_slice(&bytes);
                self.tapped.extend_from_slice(&bytes);
            }
            came = true;
        }
        if !self.ended && self.under_way.is_empty() && self.end_at.is_some_and(|due| due <= now) {
            self.ended = true;
            came = true;
        }
        if came {
            self.tap();
            self.wake();
        }
        came
    }

    /// Notes which batches have reached the other process, whatever that makes of them.
    fn tap(&mut self) {
        while let Ok((kind, length)) = codec::frame_length(&self.tapped) {
            if self.tapped.len() < length {
                break;
            }
            let frame = self.tapped.split_to(length).freeze();
            if kind == FrameKind::Batch
                && let Ok(batch) = Batch::parse(frame)
            {
                self.batches_up_to = self.batches_up_to.max(batch.after.progress());
            }
        }
    }

    fn next_due(&self) -> Option<u64> {
        let end = self.end_at.filter(|_| !self.ended);
        self.under_way.front().map(|(due, _)| *due).or(end)
    }
}

const READER: usize = 0;
const WRITER: usize = 1;

type Shared = Arc<Mutex<Pipe>>;

fn lock(pipe: &Shared) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap()
}

/// One end of a connection, before it is split.
#[derive(Debug)]
pub struct End {
    read: Option<Shared>,
    write: Option<Shared>,
    life: Arc<Life>,
}

impl End {
    /// What has arrived and was not read, if it is a whole frame or the end.
    pub fn has_answer(&self) -> bool {
        let Some(read) = &self.read else { return true };
        let pipe = lock(read);
        let whole = codec::frame_length(&pipe.arrived).is_ok_and(|(_, length)| pipe.arrived.len() >= length);
        whole || pipe.ended || pipe.reset[READER]
    }
}

impl io::Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(read) = &self.read else { return Ok(0) };
        let mut pipe = lock(read);
        if pipe.reset[READER] {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let length = buffer.len().min(pipe.arrived.len());
        pipe.arrived.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

impl io::Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(write) = &self.write
            && self.life.spend()
        {
            lock(write).put(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PeerStream for End {
    fn split(mut self: Box<Self>) -> io::Result<Halves> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let read = ReadEnd(self.read.take().ok_or_else(gone)?);
        let write = WriteEnd(self.write.take().ok_or_else(gone)?, Arc::clone(&self.life));
        Ok((Box::new(read), Box::new(write)))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.read.take().map(ReadEnd);
        self.write.take().map(|pipe| WriteEnd(pipe, Arc::clone(&self.life)));
    }
}

struct ReadEnd(Shared);
struct WriteEnd(Shared, Arc<Life>);

impl AsyncRead for ReadEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.0);
        if pipe.reset[READER] {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.arrived.is_empty() && !pipe.ended {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = buffer.remaining().min(pipe.arrived.len());
        buffer.put_slice(&pipe.arrived[..length]);
        pipe.arrived.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        let mut pipe = lock(&self.0);
        pipe.reader_gone = true;
        pipe.arrived.clear();
    }
}

impl AsyncWrite for WriteEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.0);
        if pipe.reset[WRITER] {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.under_way_bytes >= WINDOW_BYTES {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.1.spend() {
            pipe.put(bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        lock(&self.0).close();
    }
}

/// All connections there are or were.
pub struct Network {
    clock: Clock,
    random: Random,
    /// `pipes[n]`: what node n writes.
    pipes: [Vec<Shared>; 2],
    /// Whether what node n writes is held back.
    pub cut: [bool; 2],
    pub latency_ms: u64,
    /// The newest batch that ever arrived at node n.
    pub batches_at: [(u64, u64); 2],
    /// The same since the node was started: what it holds in memory at least.
    pub held_at: [(u64, u64); 2],
}

impl Network {
    pub fn new(clock: Clock, random: Random) -> Network {
        Network {
            clock,
            random,
            pipes: [Vec::new(), Vec::new()],
            cut: [false; 2],
            latency_ms: 3,
            batches_at: [(0, 0); 2],
            held_at: [(0, 0); 2],
        }
    }

    /// A connection from one node to the other: the dialler's end and the listener's.
    pub fn connect(&mut self, dialler: usize, lives: [&Arc<Life>; 2]) -> (End, End) {
        let mut pipe = |from: usize| {
            let pipe = Arc::new(Mutex::new(Pipe {
                under_way: VecDeque::new(),
                under_way_bytes: 0,
                arrived: BytesMut::new(),
                end_at: None,
                ended: false,
                reset: [false; 2],
                silent: false,
                void: false,
                reader_gone: false,
                reader: None,
                writer: None,
                last_due: 0,
                clock: self.clock,
                random: self.random.fork(),
                latency_ms: self.latency_ms,
                tapped: BytesMut::new(),
                batches_up_to: (0, 0),
            }));
            self.pipes[from].push(Arc::clone(&pipe));
            pipe
        };
        let (there, back) = (pipe(dialler), pipe(1 - dialler));
        let end = |read: &Shared, write: &Shared, node: usize| End {
            read: Some(Arc::clone(read)),
            write: Some(Arc::clone(write)),
            life: Arc::clone(lives[node]),
        };
        (end(&back, &there, dialler), end(&there, &back, 1 - dialler))
    }

    fn all(&self) -> impl Iterator<Item = &Shared> {
        self.pipes.iter().flatten()
    }

    /// Whether a connection can be made.
    pub fn is_passable(&self) -> bool {
        self.cut == [false, false]
    }

    /// Every connection is reset at both ends.
    pub fn reset(&mut self) {
        for pipe in self.all() {
            let mut pipe = lock(pipe);
            pipe.reset = [true; 2];
            pipe.wake();
        }
        self.pipes = [Vec::new(), Vec::new()];
    }

    /// The node has lost power: nothing that it has not yet sent arrives, and no end either.
    pub fn silence(&mut self, node: usize) {
        for pipe in &self.pipes[node] {
            let mut pipe = lock(pipe);
            pipe.silent = true;
            pipe.under_way.clear();
            pipe.under_way_bytes = 0;
        }
    }

    /// Node `node` loses every connection; the other hears nothing of it, and gets what was under way to it so much later.
    /// True if there was anything.
    pub fn half_open(&mut self, node: usize, later_ms: u64) -> bool {
        let mut any = false;
        for pipe in &self.pipes[node] {
            let mut pipe = lock(pipe);
            pipe.reset[WRITER] = true;
            pipe.silent = true;
            pipe.end_at = None;
            any |= !pipe.under_way.is_empty();
            pipe.under_way.iter_mut().for_each(|(due, _)| *due += later_ms);
            pipe.wake();
        }
        for pipe in &self.pipes[1 - node] {
            let mut pipe = lock(pipe);
            pipe.reset[READER] = true;
            pipe.void = true;
            pipe.under_way.clear();
            pipe.under_way_bytes = 0;
            pipe.wake();
        }
        any
    }

    pub fn set_latency(&mut self, latency_ms: u64) {
        self.latency_ms = latency_ms;
        for pipe in self.all() {
            lock(pipe).latency_ms = latency_ms;
        }
    }

    pub fn deliver(&mut self, now: u64) -> bool {
        let mut came = false;
        for from in 0..2 {
            if self.cut[from] {
                continue;
            }
            for pipe in &self.pipes[from] {
                let mut pipe = lock(pipe);
                came |= pipe.deliver(now);
                self.batches_at[1 - from] = self.batches_at[1 - from].max(pipe.batches_up_to);
                self.held_at[1 - from] = self.held_at[1 - from].max(pipe.batches_up_to);
            }
            self.pipes[from].retain(|pipe| {
                let pipe = lock(pipe);
                !(pipe.ended || pipe.silent && pipe.reader_gone)
            });
        }
        came
    }

    pub fn next_due(&self) -> Option<u64> {
        (0..2)
            .filter(|from| !self.cut[*from])
            .flat_map(|from| &self.pipes[from])
            .filter_map(|pipe| lock(pipe).next_due())
            .min()
    }
}
