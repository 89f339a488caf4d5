//! What a server tells two nodes about each other so that they can open a path.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::transport::identity::{Guid, PublicKey};

/// Where a candidate address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CandidateKind {
    /// An address of one of the node's own interfaces.
    Local = 1,
    /// What the server saw (server reflexive).
    Observed = 2,
    /// Opened by UPnP, PCP or NAT-PMP.
    Mapped = 3,
    /// Forwarded by hand (`public=`).
    Manual = 4,
}

/// One address at which a node may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Its origin.
    pub kind: CandidateKind,
    /// The address.
    pub address: SocketAddr,
}

/// What is known of a node's NAT; `None` is "not known", never guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NatFacts {
    /// The mapping differs by destination address.
    pub mapping_varies_by_address: Option<bool>,
    /// The mapping differs by destination port.
    pub mapping_varies_by_port: Option<bool>,
    /// Packets from an address that was never sent to are dropped.
    pub filters_by_address: Option<bool>,
    /// Packets from a port that was never sent to are dropped.
    pub filters_by_port: Option<bool>,
    /// A new mapping gets the local port's number where it can.
    pub preserves_port: Option<bool>,
    /// New mappings get numbers this far apart.
    pub port_step: Option<i16>,
    /// New mappings get numbers from this block (first, last).
    pub port_block: Option<(u16, u16)>,
    /// Its own public address can be reached from inside.
    pub hairpin: Option<bool>,
}

/// Permission to probe many ports, given to both sides by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BirthdayPermit {
    /// Distinct ports that this node may probe. 0: none.
    pub probe_ports: u16,
    /// Sockets that this node may open.
    pub sockets: u16,
}

/// A relay that both sides may use at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOffer {
    /// The relay's address.
    pub address: SocketAddr,
    /// The relay's key.
    pub key: PublicKey,
    /// What to show to it, opaque to the nodes. At most [`MAX_TICKET`] bytes.
    pub ticket: Bytes,
    /// Milliseconds for which the ticket is good.
    pub valid_ms: u32,
}

/// Largest relay ticket in bytes.
pub const MAX_TICKET: usize = 128;
/// Most relays in an introduction.
pub const MAX_RELAYS: usize = 4;
/// Largest opaque first flight in bytes: one padded ClientHello.
pub const MAX_FIRST_FLIGHT: usize = 1400;

/// Sent to both sides of a pair at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Names the attempt at the server and in every probe. Random, so that strangers cannot guess it.
    pub id: u64,
    /// The request of the side that asked; 0 at the other side.
    pub request: u32,
    /// The other node's key.
    pub peer: PublicKey,
    /// Single-use secret that authenticates every probe of this attempt.
    pub secret: [u8; 32],
    /// Milliseconds after which the secret is void.
    pub valid_ms: u32,
    /// Addresses of the other side. Private ones only if both share a public address. At most `MAX_CANDIDATES`.
    pub candidates: Vec<Candidate>,
    /// The receiver's own address as the server saw it.
    pub own_observed: Option<SocketAddr>,
    /// What the server knows of the other side's NAT.
    pub facts: NatFacts,
    /// Permission for birthday probing.
    pub permit: BirthdayPermit,
    /// Relays that the pair may use.
    pub relays: Vec<RelayOffer>,
    /// The asker's first QUIC flight; empty if it sent none.
    pub first_flight: Bytes,
}

impl Introduction {
    /// The other node's guid.
    pub fn peer_guid(&self) -> Guid {
        self.peer.guid()
    }
}
