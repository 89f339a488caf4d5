//! One UDP socket of the shell: batched receiving (recvmmsg, GRO) and sending (GSO) through quinn-udp, on tokio.
//!
//! In: an address to bind; engines' [`Transmit`]s. Out: [`Datagram`]s, one each, already split from the kernel's
//! coalesced batches. Errors that a network makes happen (port unreachable, no route, datagram too large for the link)
//! are counted and ignored: they must never end a socket.
//!
//! ```text
//! let mut socket = UdpSocket::bind(SocketName::Udp4, "0.0.0.0:0".parse()?, DEFAULT_BUFFER)?;
//! let mut buffer = ReceiveBuffer::new();
//! loop {
//!     poll_fn(|context| socket.poll_readable(context)).await?;
//!     socket.receive(&mut buffer, &mut datagrams);       // appends what is there, does not wait
//!     …
//!     socket.send(&transmit, &payload, None);             // does not wait
//! }
//! ```

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
pub use quinn_udp::BATCH_SIZE;
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;

use crate::engine::{Datagram, EcnCodepoint, SocketName, Transmit};

/// Kernel buffer to ask for at a player's socket, each way: 50 ms of 100 Mbit/s and more, well above Linux' default of
/// 208 KiB. The system grants less without an error.
pub const DEFAULT_BUFFER: usize = 1 << 20;

/// Kernel buffer to ask for at a server's socket, each way: 10,000 nodes that come back at once after a restart send a
/// 1,200-byte Initial each, 12 MB with the kernel's overhead; a third of them may come within one turn of the loop.
pub const SERVER_BUFFER: usize = 4 << 20;

/// Bytes for one message of a batch: the kernel coalesces at most 64 KiB (GRO).
const MESSAGE_BUFFER: usize = 1 << 16;

/// Size of the blocks that received datagrams are copied to: one allocation for about a hundred small datagrams.
const ARENA_BLOCK: usize = 1 << 16;

/// Where datagrams are received. One serves any number of sockets of a thread. 2 MiB of address space, of which the
/// system gives memory only to what was ever used.
pub struct ReceiveBuffer {
    scratch: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
    arena: BytesMut,
}

impl ReceiveBuffer {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            scratch: vec![0; MESSAGE_BUFFER * BATCH_SIZE],
            metas: [RecvMeta::default(); BATCH_SIZE],
            arena: BytesMut::new(),
        }
    }
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of a [`UdpSocket::send`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// The kernel took it (or failed on it in a way that is as good as loss; that is counted).
    Done,
    /// The socket's buffer is full. The first `sent` bytes of the payload are gone; wait for
    /// [`UdpSocket::poll_writable`] and send the rest with the same [`Transmit`], or drop it.
    Blocked {
        /// Bytes of the payload that were sent (a multiple of the segment size).
        sent: usize,
    },
}

/// Figures of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpCounters {
    /// Datagrams received.
    pub received: u64,
    /// Errors while receiving: ICMP messages that came back, mostly. Nothing is lost by them.
    pub receive_errors: u64,
    /// Payloads that the system refused to send (no route, too large, unreachable).
    pub send_errors: u64,
}

/// What a [`UdpSocket`] does its system calls through.
pub trait Io {
    /// For options and system calls.
    fn socket(&self) -> SockRef<'_>;
    /// Runs `receive`; tells whoever watches for readiness if it found nothing.
    fn receive_now(&self, receive: impl FnMut() -> io::Result<usize>) -> io::Result<usize>;
    /// Runs `send`; tells whoever watches for readiness if there was no room.
    fn send_now(&self, send: impl FnMut() -> io::Result<()>) -> io::Result<()>;
}

impl Io for tokio::net::UdpSocket {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    fn receive_now(&self, receive: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        self.try_io(Interest::READABLE, receive)
    }

    fn send_now(&self, mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        // First without asking tokio, which does not know of a fresh socket's room; then through it, so that it
        // learns that there is none.
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.try_io(Interest::WRITABLE, send),
            result => result,
        }
    }
}

impl Io for Arc<tokio::net::UdpSocket> {
    fn socket(&self) -> SockRef<'_> {
        (**self).socket()
    }

    fn receive_now(&self, receive: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        (**self).receive_now(receive)
    }

    fn send_now(&self, send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        (**self).send_now(send)
    }
}

/// A socket that several threads drive in turn, each watching it in its own way.
impl Io for Arc<std::net::UdpSocket> {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&**self)
    }

    fn receive_now(&self, mut receive: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        receive()
    }

    fn send_now(&self, mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        send()
    }
}

/// A bound UDP socket. One on tokio belongs to the runtime in which it was bound.
pub struct UdpSocket<S = tokio::net::UdpSocket> {
    io: S,
    state: UdpSocketState,
    name: SocketName,
    local: SocketAddr,
    counters: UdpCounters,
}

/// Opens and binds, without blocking. IPv6 sockets are IPv6 only, so that an IPv4 socket can have the same port. Port 0:
/// any free one.
fn open(address: SocketAddr, buffer: usize) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Less than what was asked for is no reason not to run.
    let _ = socket.set_recv_buffer_size(buffer);
    let _ = socket.set_send_buffer_size(buffer);
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl UdpSocket {
    /// Binds. IPv6 sockets are IPv6 only, so that an IPv4 socket can have the same port. Port 0: any free one.
    ///
    /// Must be called inside a tokio runtime with IO. Fails as the system does: address in use, not available, family
    /// not supported.
    pub fn bind(name: SocketName, address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = open(address, buffer)?;
        let local = socket.local_addr()?;
        Self::new(name, local, tokio::net::UdpSocket::from_std(socket)?)
    }

    /// Ready when there may be something to receive. An error here means that the runtime is ending.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_recv_ready(context)
    }

    /// Ready when there may be room to send.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_send_ready(context)
    }
}

impl UdpSocket<Arc<std::net::UdpSocket>> {
    /// As [`UdpSocket::bind`], outside of any runtime.
    pub fn bind_shared(name: SocketName, address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = open(address, buffer)?;
        let local = socket.local_addr()?;
        Self::new(name, local, Arc::new(socket))
    }
}

impl UdpSocket<Arc<tokio::net::UdpSocket>> {
    /// As [`UdpSocket::bind`], to be shared between a driver and who waits for readiness.
    pub fn bind_shared(name: SocketName, address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = open(address, buffer)?;
        let local = socket.local_addr()?;
        Self::new(name, local, Arc::new(tokio::net::UdpSocket::from_std(socket)?))
    }
}

impl<S: Io> UdpSocket<S> {
    fn new(name: SocketName, local: SocketAddr, io: S) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&*io.socket()))?;
        Ok(Self {
            io,
            state,
            name,
            local,
            counters: UdpCounters::default(),
        })
    }

    /// What the system calls go through.
    pub fn io(&self) -> &S {
        &self.io
    }

    /// The name that its datagrams carry.
    pub fn name(&self) -> SocketName {
        self.name
    }

    /// The address it is bound to; the port is never 0.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Figures since it was bound.
    pub fn counters(&self) -> UdpCounters {
        self.counters
    }

    /// Appends one batch of what has arrived to `datagrams`, without waiting. Returns how many datagrams that were;
    /// 0: nothing more for now.
    pub fn receive(&mut self, buffer: &mut ReceiveBuffer, datagrams: &mut Vec<Datagram>) -> usize {
        let before = datagrams.len();
        match self.receive_batch(buffer, datagrams) {
            0 => 0,
            // A batch of empty datagrams is still a batch: the caller shall ask again.
            _ => (datagrams.len() - before).max(1),
        }
    }

    /// As [`receive`](Self::receive), but returns the messages of the system, several datagrams each: fewer than
    /// [`BATCH_SIZE`] mean that the socket was empty in the end, and whatever comes later makes it readable anew.
    pub fn receive_batch(&mut self, buffer: &mut ReceiveBuffer, datagrams: &mut Vec<Datagram>) -> usize {
        let ReceiveBuffer { scratch, metas, arena } = buffer;
        let messages = loop {
            let mut chunks = scratch.chunks_exact_mut(MESSAGE_BUFFER).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| {
                // The scratch buffer holds exactly BATCH_SIZE chunks.
                chunks.next().unwrap_or_else(|| IoSliceMut::new(&mut []))
            });
            match self.io.receive_now(|| {
                self.state
                    .recv(UdpSockRef::from(&*self.io.socket()), &mut slices, metas)
            }) {
                Ok(messages) => break messages,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
                // An ICMP answer to something sent before (on Windows also connection reset). Each is reported once,
                // so that this ends; a socket that is truly broken would report without end: give the loop a turn.
                Err(_) => {
                    self.counters.receive_errors += 1;
                    if self.counters.receive_errors.is_multiple_of(64) {
                        return 0;
                    }
                }
            }
        };
        let before = datagrams.len();
        for (meta, chunk) in metas.iter().zip(scratch.chunks_exact(MESSAGE_BUFFER)).take(messages) {
            let source = unmapped(meta.addr);
            let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            // A stride of 0 comes with an empty datagram: nobody needs those.
            for contents in chunk[..meta.len.min(MESSAGE_BUFFER)].chunks(meta.stride.max(1)) {
                if arena.capacity() < contents.len() {
                    arena.reserve(ARENA_BLOCK);
                }
                arena.extend_from_slice(contents);
                datagrams.push(Datagram {
                    socket: self.name,
                    source,
                    destination_ip: meta.dst_ip.map(|ip| ip.to_canonical()),
                    ecn,
                    contents: arena.split(),
                });
            }
        }
        self.counters.received += (datagrams.len() - before) as u64;
        messages
    }

    /// Sends `payload` (the first `transmit.size` bytes of the engine's buffer, or what is left of them) without
    /// waiting. `source_ip`: the local address to send from, where the socket is bound to all of them.
    pub fn send(&mut self, transmit: &Transmit, payload: &[u8], source_ip: Option<IpAddr>) -> SendOutcome {
        if let Some(hops) = transmit.time_to_live {
            let usual = self.hops();
            // 0 would be refused, and then the usual one would carry it all the way.
            self.set_hops(u32::from(hops.max(1)));
            let outcome = self.send_segments(transmit, payload, source_ip);
            self.set_hops(usual);
            return outcome;
        }
        self.send_segments(transmit, payload, source_ip)
    }

    fn send_segments(&mut self, transmit: &Transmit, payload: &[u8], source_ip: Option<IpAddr>) -> SendOutcome {
        // What the kernel cannot cut by itself goes in pieces that it can.
        let piece = match transmit.segment_size {
            Some(segment) if segment > 0 => {
                (segment * self.state.max_gso_segments()).min(MAX_GSO_BYTES / segment.min(MAX_GSO_BYTES) * segment)
            }
            _ => payload.len(),
        };
        let mut sent = 0;
        while sent < payload.len() {
            let end = payload.len().min(sent + piece.max(1));
            let part = quinn_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit
                    .ecn
                    .and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
                contents: &payload[sent..end],
                segment_size: transmit.segment_size,
                src_ip: source_ip,
            };
            let result = self
                .io
                .send_now(|| self.state.try_send(UdpSockRef::from(&*self.io.socket()), &part));
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return SendOutcome::Blocked { sent },
                Err(_) => self.counters.send_errors += 1,
            }
            sent = end;
        }
        SendOutcome::Done
    }

    fn hops(&self) -> u32 {
        let socket = self.io.socket();
        let hops = if self.local.is_ipv4() {
            socket.ttl_v4()
        } else {
            socket.unicast_hops_v6()
        };
        hops.unwrap_or(DEFAULT_HOPS)
    }

    fn set_hops(&self, hops: u32) {
        let socket = self.io.socket();
        // A system that cannot sends a plain datagram instead.
        let _ = if self.local.is_ipv4() {
            socket.set_ttl_v4(hops)
        } else {
            socket.set_unicast_hops_v6(hops)
        };
    }
}

/// Time-to-live of ordinary datagrams where the system does not tell what it uses: the default of Linux, macOS and the
/// BSDs, and enough for any path.
const DEFAULT_HOPS: u32 = 64;

/// Most bytes that one GSO call may carry: a 16-bit IP length less the IPv6 and UDP headers.
const MAX_GSO_BYTES: usize = 65_535 - 48;

/// IPv4-mapped IPv6 addresses as the IPv4 addresses that they are.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(IpAddr::V4(ip), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap()
    }

    fn local(name: SocketName) -> UdpSocket {
        UdpSocket::bind(name, "127.0.0.1:0".parse().unwrap(), DEFAULT_BUFFER).unwrap()
    }

    fn transmit(destination: SocketAddr, size: usize, segment_size: Option<usize>) -> Transmit {
        Transmit {
            socket: SocketName::Udp4,
            destination,
            ecn: None,
            size,
            segment_size,
            time_to_live: None,
        }
    }

    /// Receives until `count` datagrams are there.
    async fn receive(socket: &mut UdpSocket, count: usize) -> Vec<Datagram> {
        let (mut buffer, mut datagrams) = (ReceiveBuffer::new(), Vec::new());
        while datagrams.len() < count {
            poll_fn(|context| socket.poll_readable(context)).await.unwrap();
            while socket.receive(&mut buffer, &mut datagrams) > 0 {}
        }
        datagrams
    }

    #[test]
    fn segments_arrive_as_single_datagrams_in_order() {
        runtime().block_on(async {
            let (mut sender, mut receiver) = (local(SocketName::Udp4), local(SocketName::Listen(3)));
            // More than any kernel cuts in one call, and a shorter last one.
            let payload: Vec<u8> = (0..100 * 1_000 + 10).map(|index| (index / 1_000) as u8).collect();
            let transmit = transmit(receiver.local_address(), payload.len(), Some(1_000));
            assert_eq!(sender.send(&transmit, &payload, None), SendOutcome::Done);
            let datagrams = receive(&mut receiver, 101).await;
            assert_eq!(datagrams.len(), 101);
            for (index, datagram) in datagrams.iter().enumerate() {
                assert_eq!(datagram.contents.len(), if index == 100 { 10 } else { 1_000 });
                assert!(datagram.contents.iter().all(|byte| *byte == index as u8));
                assert_eq!(
                    (datagram.socket, datagram.source),
                    (SocketName::Listen(3), sender.local_address())
                );
            }
        });
    }

    #[test]
    fn what_cannot_be_sent_is_counted_and_the_socket_lives() {
        runtime().block_on(async {
            let (mut sender, mut receiver) = (local(SocketName::Udp4), local(SocketName::Udp4));
            // IPv6 through an IPv4 socket.
            let wrong = transmit("[::1]:9".parse().unwrap(), 3, None);
            assert_eq!(sender.send(&wrong, b"abc", None), SendOutcome::Done);
            assert_eq!(sender.counters().send_errors, 1);
            // A closed port, twice, so that the ICMP answer of the first can meet the second.
            let closed = local(SocketName::Udp4).local_address();
            for _ in 0..2 {
                sender.send(&transmit(closed, 3, None), b"abc", None);
            }
            sender.send(&transmit(receiver.local_address(), 3, None), b"abc", None);
            assert_eq!(receive(&mut receiver, 1).await[0].contents[..], b"abc"[..]);
        });
    }

    /// The time-to-live of the next datagram, which the receiver's system tells.
    #[cfg(target_os = "linux")]
    fn hops_of_next(receiver: &std::net::UdpSocket) -> u32 {
        use std::os::fd::AsRawFd;
        let mut contents = [0u8; 64];
        let mut control = [0u64; 8];
        let mut part = libc::iovec {
            iov_base: contents.as_mut_ptr().cast(),
            iov_len: contents.len(),
        };
        // SAFETY: everything that the header points to is valid for the calls; the control messages are read within the
        // length that the system wrote, and this kind holds an int.
        unsafe {
            let mut header: libc::msghdr = std::mem::zeroed();
            (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control) as _;
            assert!(libc::recvmsg(receiver.as_raw_fd(), &mut header, 0) >= 0);
            let message = libc::CMSG_FIRSTHDR(&header);
            assert!(!message.is_null());
            let kind = ((*message).cmsg_level, (*message).cmsg_type);
            assert!(kind == (libc::IPPROTO_IP, libc::IP_TTL) || kind == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT));
            let value: libc::c_int = std::ptr::read_unaligned(libc::CMSG_DATA(message).cast());
            value as u32
        }
    }

    #[cfg(target_os = "linux")]
    fn tell_hops(receiver: &std::net::UdpSocket) {
        use std::os::fd::AsRawFd;
        let (level, option) = if receiver.local_addr().unwrap().is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_RECVTTL)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT)
        };
        let on: libc::c_int = 1;
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the value is valid for the call, and as long as is said.
        let set = unsafe { libc::setsockopt(receiver.as_raw_fd(), level, option, (&raw const on).cast(), length) };
        assert_eq!(set, 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_small_time_to_live_is_for_one_datagram_only() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(receiver) = std::net::UdpSocket::bind(address) else {
                println!("skipped: this machine has no {address}");
                continue;
            };
            tell_hops(&receiver);
            let address = address.parse().unwrap();
            let mut sender =
                UdpSocket::<Arc<std::net::UdpSocket>>::bind_shared(SocketName::Udp4, address, DEFAULT_BUFFER).unwrap();
            let usual = transmit(receiver.local_addr().unwrap(), 1, None);
            let mut send = |hops| {
                let time_to_live = hops;
                sender.send(&Transmit { time_to_live, ..usual }, b"x", None);
                hops_of_next(&receiver)
            };
            let system = send(None);
            assert!(system >= 32, "{system}");
            for low in [3, 1, 255] {
                assert_eq!(send(Some(low)), u32::from(low));
                assert_eq!(send(None), system);
            }
            // None is not a time-to-live; the smallest is meant.
            assert_eq!(send(Some(0)), 1);
            // What somebody else chose for the socket stays.
            sender.set_hops(77);
            let time_to_live = Some(2);
            sender.send(&Transmit { time_to_live, ..usual }, b"x", None);
            sender.send(&usual, b"x", None);
            assert_eq!((hops_of_next(&receiver), hops_of_next(&receiver)), (2, 77));
            // All segments of a run have it.
            let (size, segment_size) = (3, Some(1));
            sender.send(
                &Transmit {
                    time_to_live,
                    size,
                    segment_size,
                    ..usual
                },
                b"abc",
                None,
            );
            assert_eq!([(); 3].map(|()| hops_of_next(&receiver)), [2; 3]);
        }
    }
}
