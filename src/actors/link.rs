//! One connection to the peer: a task that reads frames and hands them to the actors, and one that writes.
//!
//! Not an actor: it holds no state but its bytes. A malformed frame ends the connection; the node lives on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::prelude::*;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::ping_monitor::PingMessage;
use super::replication_sender::SenderMessage;
use super::secondary_applier::ApplierMessage;
use super::supervisor::SupervisorMessage;
use crate::codec::{self, FRAME_HEADER_BYTES, FrameError, FrameKind};
use crate::hsb::event::{Event, LinkId, PeerMessage};
use crate::stream::Stream;

/// Control messages are small; only batches may be as long as the frame format allows.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
const READ_BUFFER_BYTES: usize = 256 << 10;

/// A connection to the peer that is past its handshake: a socket, or what a test has in its place. Until it is split it
/// takes the last words of the handshake.
pub trait PeerStream: io::Write + Send + std::fmt::Debug {
    /// The two directions, to be used on the present arbiter.
    fn split(self: Box<Self>) -> io::Result<Halves>;
}

/// The reading and the writing end of a connection.
pub type Halves = (Box<dyn AsyncRead + Unpin>, Box<dyn AsyncWrite + Unpin>);

impl PeerStream for Stream {
    fn split(self: Box<Self>) -> io::Result<Halves> {
        let (read_half, write_half) = self.into_halves()?;
        Ok((Box::new(read_half), Box::new(write_half)))
    }
}

/// Who hears what arrives.
#[derive(Clone)]
pub struct LinkRecipients {
    /// Control messages.
    pub supervisor: Recipient<SupervisorMessage>,
    /// Acknowledgements, at the primary; the end.
    pub sender: Recipient<SenderMessage>,
    /// Batches, at the secondary.
    pub applier: Recipient<ApplierMessage>,
    /// Signs of life.
    pub monitor: Recipient<PingMessage>,
}

/// The writing end. Dropping it closes the connection once all is written.
#[derive(Clone)]
pub struct Outgoing(mpsc::UnboundedSender<Bytes>);

impl Outgoing {
    /// Queues a frame. A connection that has ended swallows it; its end is reported by the reading task.
    pub fn send(&self, frame: Bytes) {
        let _ = self.0.send(frame);
    }

    /// Queues a message.
    pub fn tell(&self, message: &PeerMessage) {
        match codec::encode_message(FrameKind::Peer, message) {
            Ok(frame) => self.send(frame),
            Err(error) => log::error!("a message to the peer cannot be encoded: {error}"),
        }
    }
}

/// A started connection.
pub struct Link {
    /// Its number.
    pub id: LinkId,
    /// Its writing end.
    pub outgoing: Outgoing,
    /// Set when nobody wants to hear of this connection any more.
    given_up: Arc<AtomicBool>,
}

/// The reading task goes on until the end of the connection, but only discards: a socket that is closed with bytes unread
/// would reset the connection and take the last words with it.
impl Drop for Link {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// Starts the two tasks on the present arbiter.
pub fn start(id: LinkId, stream: Box<dyn PeerStream>, recipients: LinkRecipients) -> io::Result<Link> {
    let (mut read_half, mut write_half) = stream.split()?;
    let (sender, mut receiver) = mpsc::unbounded_channel::<Bytes>();
    actix_rt::spawn(async move {
        while let Some(frame) = receiver.recv().await {
            if write_half.write_all(&frame).await.is_err() {
                // The reading task sees the same broken connection and reports it.
                return;
            }
        }
        let _ = write_half.shutdown().await;
    });
    let given_up = Arc::new(AtomicBool::new(false));
    let is_given_up = Arc::clone(&given_up);
    actix_rt::spawn(async move {
        let mut buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
        let why = loop {
            match read_half.read_buf(&mut buffer).await {
                Ok(0) => break "closed by the other server".to_string(),
                Ok(_) => {}
                Err(error) => break error.to_string(),
            }
            if is_given_up.load(Ordering::Relaxed) {
                buffer.clear();
                continue;
            }
            recipients.monitor.do_send(PingMessage::Heard { link: id });
            if let Err(error) = dispatch(id, &mut buffer, &recipients).await {
                break error.to_string();
            }
        };
        if !is_given_up.load(Ordering::Relaxed) {
            recipients.sender.do_send(SenderMessage::Closed { link: id, why });
        }
    });
    Ok(Link { id, outgoing: Outgoing(sender), given_up })
}

/// Hands over every whole frame at the start of `buffer`. A message is waited for: what it brings about (that the
/// applier follows this connection, say) is under way before the frames behind it are handed over.
async fn dispatch(
    link: LinkId,
    buffer: &mut BytesMut,
    recipients: &LinkRecipients,
) -> Result<(), FrameError> {
    loop {
        let (kind, length) = match codec::frame_length(buffer) {
            Ok(known) => known,
            Err(FrameError::Incomplete { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if kind != FrameKind::Batch && length > MAX_MESSAGE_BYTES {
            return Err(FrameError::TooLong(length));
        }
        if buffer.len() < length {
            buffer.reserve(length - buffer.len());
            return Ok(());
        }
        let bytes = buffer.split_to(length).freeze();
        match kind {
            FrameKind::Batch => recipients.applier.do_send(ApplierMessage::BatchArrived { link, bytes }),
            FrameKind::Peer => {
                codec::check_frame(&bytes)?;
                match codec::decode_message::<PeerMessage>(&bytes[FRAME_HEADER_BYTES..])? {
                    PeerMessage::Ping => {}
                    PeerMessage::Acknowledge { position } => {
                        recipients.sender.do_send(SenderMessage::Acknowledged { link, position });
                    }
                    message => {
                        // Fails only when the node is going down.
                        let event = SupervisorMessage::Event(Event::PeerSays { link, message });
                        let _ = recipients.supervisor.send(event).await;
                    }
                }
            }
            FrameKind::CopyBlock | FrameKind::Segment => return Err(FrameError::NotAFrame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsb::effect::ApplierEffect;
    use crate::hsb::position::Position;
    use crate::hsb::settings::{AcknowledgePolicy, PairSettings};
    use crate::storage::batch::{Batch, BatchHeader};

    /// Stands for the applier; writes down in which order it hears.
    struct Applier(crossbeam_channel::Sender<&'static str>);
    /// Stands for all others; tells the applier of messages as the supervisor does.
    struct Others(Addr<Applier>);

    impl Actor for Applier {
        type Context = Context<Self>;
    }
    impl Actor for Others {
        type Context = Context<Self>;
    }
    impl Handler<ApplierMessage> for Applier {
        type Result = ();
        fn handle(&mut self, message: ApplierMessage, _: &mut Context<Self>) {
            let batch = matches!(message, ApplierMessage::BatchArrived { .. });
            self.0.send(if batch { "batch" } else { "message" }).unwrap();
        }
    }
    impl Handler<SupervisorMessage> for Others {
        type Result = ();
        fn handle(&mut self, _: SupervisorMessage, _: &mut Context<Self>) {
            self.0.do_send(ApplierMessage::Do(ApplierEffect::ForgetPending));
        }
    }
    impl Handler<SenderMessage> for Others {
        type Result = ();
        fn handle(&mut self, _: SenderMessage, _: &mut Context<Self>) {}
    }
    impl Handler<PingMessage> for Others {
        type Result = ();
        fn handle(&mut self, _: PingMessage, _: &mut Context<Self>) {}
    }

    /// Else the batches right behind "accepted" would meet an applier that follows nobody yet, and be lost.
    #[actix::test]
    async fn what_a_message_brings_about_precedes_the_batch_behind_it() {
        let (sender, heard) = crossbeam_channel::unbounded();
        let applier = Applier(sender).start();
        let others = Others(applier.clone()).start();
        let header =
            BatchHeader { before: Position::ORIGIN, epoch: 1, count: 1, needs_acknowledgement: false };
        let batch = Batch::seal(header, &[]).unwrap().bytes;
        let pair = PairSettings {
            acknowledge_policy: AcknowledgePolicy::Received,
            ping_interval_ms: 1,
            ping_timeout_ms: 1,
        };
        let accept = codec::encode_message(FrameKind::Peer, &PeerMessage::Accept { pair }).unwrap();
        let mut buffer = BytesMut::from([accept, batch].concat().as_slice());
        let recipients = LinkRecipients {
            supervisor: others.clone().recipient(),
            sender: others.clone().recipient(),
            applier: applier.clone().recipient(),
            monitor: others.recipient(),
        };
        dispatch(1, &mut buffer, &recipients).await.unwrap();
        applier.send(ApplierMessage::Do(ApplierEffect::ForgetPending)).await.unwrap();
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["message", "batch", "message"]);
    }
}
