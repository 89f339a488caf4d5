//! One TLS stream over TCP, both ends alike: a task that moves datagrams between the stream and its owner.
//!
//! In: a TCP connection, a TLS session that has not begun, the [`Queue`] of what is to be written. Out: what arrives, into a channel that holds
//! few (while it is full nothing is read, so that TCP holds the sender back), and at last why the stream ended.
//!
//! **What a stream costs** is bounded whatever the other side does: [`Queue`], one record's plaintext, one datagram that is not whole yet, rustls'
//! own buffers (a record each way) and the system's (`SEND_BUFFER`). Who does not take what it is sent is cut off after `STALL_TIME`, who
//! says nothing after `SILENCE_TIME`, who is told nothing (because nothing that it sends makes sense) after `UNSERVED_TIME`, and whoever does not
//! finish the handshake after `HANDSHAKE_TIME`.
//!
//! TLS runs on the stream directly; an asynchronous wrapper around rustls would be another crate for the few lines that are here.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustls::{ConnectionCommon, SideData};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::queue::{BATCH_BYTES, Queue};
use crate::wire::tunnel::{MAX_TUNNEL_DATAGRAM, TUNNEL_HEADER, first_datagram};

/// From the TCP connection to the end of TLS' handshake: one round trip, with room for two losses in a row (1 s and 2 s until TCP repeats).
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(4);
/// From the handshake to the first datagram that this side sends: QUIC's handshake inside begins at once.
const FIRST_TIME: Duration = Duration::from_secs(10);
/// A stream on which nothing arrives: nodes send something every ten seconds at least.
const SILENCE_TIME: Duration = Duration::from_secs(40);
/// A stream to which nothing is sent: whatever a node sends is acknowledged.
const UNSERVED_TIME: Duration = Duration::from_secs(40);
/// The other side's system takes nothing: what waits by then is of no use to anybody, and a path that is only slow takes something.
const STALL_TIME: Duration = Duration::from_secs(8);
/// For the last datagrams and TLS' end, after the owner has closed the stream.
const GOODBYE_TIME: Duration = Duration::from_secs(1);
/// The system's buffer of a stream: 10 Mbit/s at a round trip of 100 ms. Larger ones would only hold more that is stale.
const SEND_BUFFER: usize = 128 << 10;
/// Reads before others have their turn.
const READS_A_TURN: usize = 16;

/// A datagram that a stream brought.
#[derive(Debug)]
pub struct Arrived {
    /// The stream's number.
    pub number: u32,
    /// The other end of its TCP connection.
    pub source: SocketAddr,
    /// The datagram.
    pub contents: BytesMut,
}

/// Why a stream ended.
#[derive(Debug)]
pub enum End {
    /// Its owner closed it.
    Own,
    /// The other side closed it.
    Remote,
    /// TCP failed.
    Tcp(io::Error),
    /// TLS failed.
    Tls(rustls::Error),
    /// A length that no frame has.
    Framing,
    /// The handshake took too long.
    Handshake,
    /// Silence, or nothing that makes sense.
    Idle,
    /// The other side takes nothing.
    Stalled,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => formatter.write_str("closed by this side"),
            Self::Remote => formatter.write_str("closed by the other side"),
            Self::Tcp(error) => formatter.write_str(&tcp_words(error)),
            Self::Tls(error) => write!(formatter, "no TLS of ours ({error})"),
            Self::Framing => formatter.write_str("what came is no frame"),
            Self::Handshake => formatter.write_str("TLS did not begin in time"),
            Self::Idle => formatter.write_str("silence"),
            Self::Stalled => formatter.write_str("the other side takes nothing"),
        }
    }
}

/// What a failed TCP connection is called: the same words on every system.
pub fn tcp_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => "reset".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
        _ => error.to_string(),
    }
}

/// What the streams of an owner share.
#[derive(Clone)]
pub struct Owner {
    /// Takes what arrives.
    pub arrived: mpsc::Sender<Arrived>,
    /// Called when something was put there.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// The socket as rustls wants it: without waiting.
struct Tcp<'a>(&'a TcpStream);

impl Read for Tcp<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Tcp<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream at work.
pub struct Stream<'a, T> {
    number: u32,
    peer: SocketAddr,
    tcp: TcpStream,
    tls: T,
    queue: &'a Queue,
    owner: &'a Owner,
    /// Plaintext that is not a whole datagram yet.
    plain: Vec<u8>,
    batch: Vec<u8>,
    heard: Instant,
    served: Instant,
    /// This side has sent a datagram.
    has_served: bool,
    /// Since when the system takes nothing of what is to be written.
    blocked: Option<Instant>,
    closing: Option<Instant>,
    /// The other side has closed its direction.
    ended: bool,
}

impl<'a, T, D> Stream<'a, T>
where
    T: DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
{
    /// A stream whose TLS is about to begin.
    pub fn new(number: u32, peer: SocketAddr, tcp: TcpStream, tls: T, queue: &'a Queue, owner: &'a Owner) -> Self {
        // Both are for speed alone: a system that cannot goes without.
        let _ = tcp.set_nodelay(true);
        let _ = SockRef::from(&tcp).set_send_buffer_size(SEND_BUFFER);
        let now = Instant::now();
        Self {
            number,
            peer,
            tcp,
            tls,
            queue,
            owner,
            plain: Vec::new(),
            batch: Vec::new(),
            heard: now,
            served: now,
            has_served: false,
            blocked: None,
            closing: None,
            ended: false,
        }
    }

    /// Completes the handshake.
    pub async fn handshake(&mut self) -> Result<(), End> {
        let deadline = Instant::now() + HANDSHAKE_TIME;
        while self.tls.is_handshaking() {
            self.flush().map_err(End::Tcp)?;
            self.read()?;
            if self.ended {
                return Err(End::Remote);
            }
            if self.tls.is_handshaking() && !self.ready(deadline, false).await {
                return Err(End::Handshake);
            }
        }
        (self.heard, self.served) = (Instant::now(), Instant::now());
        Ok(())
    }

    /// Moves datagrams until the stream ends.
    pub async fn run(mut self) -> End {
        loop {
            if let Err(end) = self.turn().await {
                // TLS says what it did not like, if there is room.
                let _ = self.flush();
                return end;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), End> {
        self.write(Instant::now()).map_err(End::Tcp)?;
        for _ in 0..READS_A_TURN {
            let more = self.read()?;
            self.deliver().await?;
            if !more {
                break;
            }
        }
        if self.ended {
            return Err(End::Remote);
        }
        if self.closing.is_some() && self.blocked.is_none() {
            return Err(End::Own);
        }
        let unserved = if self.has_served { UNSERVED_TIME } else { FIRST_TIME };
        let idle = (self.heard + SILENCE_TIME).min(self.served + unserved);
        let stalled = self.blocked.map(|since| since + STALL_TIME);
        let closing = self.closing.map(|since| since + GOODBYE_TIME);
        let deadline = [stalled, closing].into_iter().flatten().fold(idle, Instant::min);
        if self.ready(deadline, true).await {
            return Ok(());
        }
        Err(match deadline {
            _ if closing == Some(deadline) => End::Own,
            _ if stalled == Some(deadline) => End::Stalled,
            _ => End::Idle,
        })
    }

    /// Waits until there is something to do (true), or until the deadline. `queued`: what is queued is something to do, if there is room for it.
    async fn ready(&mut self, deadline: Instant, queued: bool) -> bool {
        let mut timer = pin!(tokio::time::sleep_until(deadline.into()));
        let mut changed = pin!(self.queue.changed());
        let (tcp, tls, blocked) = (&self.tcp, &self.tls, self.blocked.is_some());
        poll_fn(|context| {
            let mut ready = tcp.poll_read_ready(context).is_ready();
            if tls.wants_write() {
                ready |= tcp.poll_write_ready(context).is_ready();
            }
            if queued && !blocked {
                ready |= changed.as_mut().poll(context).is_ready();
            }
            if ready {
                return Poll::Ready(true);
            }
            timer.as_mut().poll(context).map(|()| false)
        })
        .await
    }

    /// Gives TLS what waits, and the system what TLS has.
    fn write(&mut self, now: Instant) -> io::Result<()> {
        loop {
            if !self.flush()? {
                self.blocked.get_or_insert(now);
                return Ok(());
            }
            self.blocked = None;
            self.queue.written();
            self.batch.clear();
            self.queue.take(&mut self.batch);
            if self.batch.is_empty() {
                if self.closing.is_none() && self.queue.is_over() {
                    self.closing = Some(now);
                    self.tls.send_close_notify();
                    continue;
                }
                return Ok(());
            }
            (self.has_served, self.served) = (true, now);
            // TLS takes a record's plaintext whole; it has none by now.
            self.tls.writer().write_all(&self.batch)?;
        }
    }

    /// True if the system has taken everything.
    fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Tcp(&self.tcp)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                // It takes something: slow is not stalled.
                Ok(_) => self.blocked = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// One read. True if there may be more.
    fn read(&mut self) -> Result<bool, End> {
        match self.tls.read_tls(&mut Tcp(&self.tcp)) {
            Ok(0) => {
                self.ended = true;
                return Ok(false);
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(error) => return Err(End::Tcp(error)),
        }
        let state = self.tls.process_new_packets().map_err(End::Tls)?;
        let arrived = state.plaintext_bytes_to_read();
        let before = self.plain.len();
        self.plain.resize(before + arrived, 0);
        if arrived > 0 {
            self.tls
                .reader()
                .read_exact(&mut self.plain[before..])
                .map_err(End::Tcp)?;
            self.heard = Instant::now();
        }
        self.ended |= state.peer_has_closed();
        Ok(true)
    }

    /// Hands whole datagrams over.
    async fn deliver(&mut self) -> Result<(), End> {
        let mut taken = 0;
        while let Some(datagram) = first_datagram(&self.plain[taken..]).map_err(|_| End::Framing)? {
            taken += TUNNEL_HEADER + datagram.len();
            let arrived = Arrived {
                number: self.number,
                source: self.peer,
                contents: BytesMut::from(datagram),
            };
            let full = match self.owner.arrived.try_send(arrived) {
                Ok(()) => continue,
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(End::Own),
                Err(mpsc::error::TrySendError::Full(arrived)) => arrived,
            };
            (self.owner.wake)();
            self.owner.arrived.send(full).await.map_err(|_| End::Own)?;
        }
        if taken > 0 {
            self.plain.drain(..taken);
            (self.owner.wake)();
        }
        debug_assert!(self.plain.len() < TUNNEL_HEADER + MAX_TUNNEL_DATAGRAM);
        Ok(())
    }
}

/// rustls takes as much plaintext at once as is written here.
const _: () = assert!(BATCH_BYTES <= 16 << 10);
