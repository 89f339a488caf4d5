//! What happened to every datagram, for comparing two runs and for looking into a failure.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::HostId;
use crate::engine::SocketName;

/// Why the lab's network did not deliver a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The link's loss.
    Lost,
    /// The link's queue was full.
    QueueFull,
    /// Larger than the link's MTU.
    TooLarge,
    /// The link is down.
    LinkDown,
    /// The hosts are partitioned from each other.
    Partitioned,
    /// Its time to live ended at a router.
    HopLimit,
    /// No network knows the address.
    NoRoute,
    /// The engine sent from a socket that it does not have, or that cannot reach the address's family.
    NoSuchSocket,
    /// Nobody listens on that port of the host.
    NobodyListens,
    /// The host has crashed.
    HostDown,
    /// A router has no mapping for it.
    NoMapping,
    /// A router has a mapping, but its filter lets that source not in.
    Filtered,
    /// From inside to a router's own public address, and the router does not hairpin.
    NoHairpin,
    /// A router has no free port left.
    PortsExhausted,
    /// A router's limit of mappings for one inside address is reached.
    QuotaExceeded,
    /// A router passes no UDP.
    UdpBlocked,
    /// A router drops bursts of one inside host.
    Burst,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The host sent it; addresses are as the host knows them.
    Sent,
    /// The host received it; addresses are as the host sees them.
    Delivered,
    /// It ended on the way; the host is the one that sent it, the addresses those at the place where it ended.
    Dropped(DropReason),
}

/// A datagram at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceEntry {
    /// Virtual time since the lab's start.
    pub time: Duration,
    /// What happened.
    pub fate: Fate,
    /// To or at whom.
    pub host: HostId,
    /// Source address at that place.
    pub source: SocketAddr,
    /// Destination address at that place.
    pub destination: SocketAddr,
    /// Bytes of UDP payload.
    pub length: usize,
    /// FNV-1a of the payload.
    pub hash: u64,
}

/// A datagram as a host received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// At whom.
    pub host: HostId,
    /// From where, as the host sees it.
    pub source: SocketAddr,
    /// The UDP payload.
    pub contents: bytes::Bytes,
}

/// A datagram as a host sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Virtual time since the lab's start.
    pub time: Duration,
    /// By whom.
    pub host: HostId,
    /// From which of its sockets.
    pub socket: SocketName,
    /// The source address, as the host knows it.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// The time to live that the engine asked for; `None`: the ordinary one.
    pub time_to_live: Option<u8>,
    /// The UDP payload.
    pub contents: bytes::Bytes,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:>14.6} ms host {} {:?} {} -> {} {} bytes {:016x}",
            self.time.as_secs_f64() * 1e3,
            self.host.0,
            self.fate,
            self.source,
            self.destination,
            self.length,
            self.hash
        )
    }
}

/// FNV-1a, 64 bits: the same on every machine and in every version, which the standard hashers do not promise.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes
        .iter()
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The first place where two traces differ, told for people; `None` if they are equal.
pub fn first_difference(left: &[TraceEntry], right: &[TraceEntry]) -> Option<String> {
    let show = |entry: Option<&TraceEntry>| entry.map_or("(end)".to_owned(), TraceEntry::to_string);
    (0..left.len().max(right.len()))
        .find(|index| left.get(*index) != right.get(*index))
        .map(|index| {
            format!(
                "entry {index}:\n  {}\n  {}",
                show(left.get(index)),
                show(right.get(index))
            )
        })
}
