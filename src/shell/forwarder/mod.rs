//! The forwarding fast path of a server: threads that pass relay frames on, beside the main loop, which never sees them. Linux only; elsewhere
//! ([`portable`](self)) nothing starts, and the server's engine forwards by itself.
//!
//! In: the main loop's sockets, limits, the ticket key (from the server's engine, [`ForwarderRelay`]); frames from tunnels and strays ([`Forwarder::hand_in`]). Out: forwarded frames, on
//! the wire; what only the main loop can do ([`Forwarder::take`]): frames for tunnels, datagrams that came to the wrong socket; figures.
//!
//! | file | what it does |
//! |---|---|
//! | `steering` | which socket of a port a datagram comes to: a BPF program in the kernel, and the same in Rust |
//! | `shard` | a thread: sockets, a [`Relay`](crate::relay::Relay), batches |
//! | `messages` | `recvmmsg`, `sendmmsg`, control messages |
//! | `runs` | frames of one destination joined to one send (GSO), without copying |
//! | `outlet` | a socket, and what waits while it is full |
//! | `queue` | frames from thread to thread |
//!
//! **Sockets.** Each listen address of the main port has a SO_REUSEPORT group: first the main loop's socket, then one of each shard. The program
//! sends first byte 6 and 7 to the shard that the session leads to, everything else to the main loop. So all frames of a session come to one
//! thread, whichever address and IP version its sides use, and nothing about it is ever locked.
//!
//! The main loop's socket is bound *before* it is made one of a group, as if there were none: a port that anybody else has, a second server
//! included, is refused as ever ([`super::server`]'s `sockets`). Only then it opens its port, and only to sockets of the same user that ask to
//! share it, which no server does at first. A process that joined all the same would get nothing: the program names the first sockets alone.
//!
//! **What comes to the wrong socket.** The kernel coalesces datagrams of one sender before it chooses a socket, and the choice looks at the first:
//! frames of several sessions, or QUIC among them. They are told apart here, one by one, and handed to whose they are. In the moment between the
//! first socket's joining and the program's start anything can come anywhere; the same holds for that.
//!
//! **Bounds.** A shard's receive buffer is the system's; what it cannot send waits in its outlet's backlog of 256 KiB, of which the oldest
//! half gives way; frames between threads wait in queues of the same size. All drops are counted.

#[cfg(target_os = "linux")]
mod messages;
#[cfg(target_os = "linux")]
mod outlet;
#[cfg(target_os = "linux")]
mod queue;
#[cfg(target_os = "linux")]
mod runs;
#[cfg(target_os = "linux")]
mod shard;
#[cfg(target_os = "linux")]
mod steering;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux::MainQueues;
#[cfg(target_os = "linux")]
pub use linux::{Forwarder, ForwarderRelay};

#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(not(target_os = "linux"))]
pub use portable::{Forwarder, ForwarderRelay};

use crate::relay::{RelayCounters, RelayLimits, Way};

/// Most threads, if none are asked for: a shard passes on some 800,000 frames a second (`benches/relay`), so that eight fill a 10 Gbit/s link
/// with small ones; and each has 16 MiB of address space and, under load, 1 MiB of memory for what arrives.
pub const MAX_SHARDS: usize = 8;

/// How to start a [`Forwarder`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ForwarderConfig {
    /// For all threads together.
    pub limits: RelayLimits,
    /// Threads; `None`: as many as processors, at most [`MAX_SHARDS`].
    pub shards: Option<usize>,
}

/// Figures of a forwarder, over all its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForwarderCounters {
    /// What the relays say.
    pub relay: RelayCounters,
    /// Frames that came to another's socket and were handed on.
    pub misdirected: u64,
    /// Sends that the system refused (no route, too large), and errors while receiving.
    pub socket_errors: u64,
    /// Frames that gave way because a socket was full.
    pub blocked_drops: u64,
    /// Frames that gave way on their way to another thread.
    pub handed_dropped: u64,
}

/// What the main loop is to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// Send it through the tunnel that the way names.
    ToTunnel(Way),
    /// Handle it as a datagram that came that way.
    Stray(Way),
}
