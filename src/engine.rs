//! The engine contract.
//!
//! An engine is a state machine without IO. It is fed datagrams, commands and the time, and then
//! drained: [`Engine::poll_transmit`] until `None`, its own `poll_event` until `None`, its own
//! `poll_side_effect` (if it has any) until `None`, and last [`Engine::poll_timeout`], which names
//! the moment at which [`Engine::handle_timeout`] must be called if nothing else happens before.
//!
//! An engine never reads a clock, sleeps, spawns, or draws randomness that was not handed in: its
//! constructor takes a 32-byte seed from which everything random in it is derived. `now` never goes
//! backwards between two calls.
//!
//! The shell runs engines on real sockets; the lab runs thousands of them in virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::BytesMut;
pub use quinn_proto::EcnCodepoint;

/// Which of an engine's sockets a datagram came in on, or goes out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketName {
    /// The node's IPv4 socket; a server's first IPv4 socket on its main port.
    Udp4,
    /// The node's IPv6 socket; a server's first IPv6 socket on its main port.
    Udp6,
    /// A winner (or candidate) of birthday punching.
    Birthday(u16),
    /// Datagrams inside a TLS stream over TCP, for networks without UDP.
    Tunnel(u32),
    /// A session at a forwarder, numbered by the node's engine: datagrams inside relay frames. The shell never sees this name: what goes there
    /// leaves in frames by one of the others.
    Relay(u32),
    /// A server's further sockets: other listen addresses and the second port, numbered by the shell
    /// in the order in which it opened them.
    Listen(u8),
}

/// One received datagram. A batch that the kernel coalesced (GRO) is split by its stride first.
#[derive(Debug)]
pub struct Datagram {
    /// The socket that it arrived on.
    pub socket: SocketName,
    /// The sender's address as seen on that socket; IPv4-mapped IPv6 addresses are unmapped.
    pub source: SocketAddr,
    /// The local address that it was sent to, where the system tells.
    pub destination_ip: Option<IpAddr>,
    /// The congestion mark of its IP header.
    pub ecn: Option<EcnCodepoint>,
    /// The payload.
    pub contents: BytesMut,
}

/// What to send. The payload stands in the buffer that was handed to [`Engine::poll_transmit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// The socket to send from.
    pub socket: SocketName,
    /// Where to.
    pub destination: SocketAddr,
    /// The congestion mark for the IP header.
    pub ecn: Option<EcnCodepoint>,
    /// Bytes of the buffer that are to be sent.
    pub size: usize,
    /// `Some(n)`: the buffer holds several datagrams of `n` bytes each, the last one may be shorter.
    pub segment_size: Option<usize>,
    /// A time-to-live for this datagram alone (the low-TTL opener of punching).
    pub time_to_live: Option<u8>,
}

/// What the shell and the lab need to drive any engine.
pub trait Engine {
    /// Takes one datagram. Whatever it holds, this does not panic.
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram);
    /// Called when the moment named by [`Engine::poll_timeout`] has come. Calling it early is harmless.
    fn handle_timeout(&mut self, now: Instant);
    /// Writes the next datagram (or run of equal datagrams) into `buffer`, which comes in empty.
    /// `None`: nothing more to send for now.
    fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit>;
    /// The next moment at which the engine wants to be called, if any. May be in the past.
    fn poll_timeout(&mut self) -> Option<Instant>;
}
