//! What a server tells two nodes about each other so that they can open a path.
//!
//! | Introduction | |
//! |---|---|
//! | u64 | id |
//! | u32 | request |
//! | 32 bytes | the other's key |
//! | 32 bytes | secret |
//! | u32 | validity in ms |
//! | candidates | list (≤ 16) of records: u8 kind (1 local, 2 observed, 3 mapped, 4 manual), address. Kinds that a reader does not know are left out |
//! | optional address | own address as the server saw it |
//! | facts | record, see below |
//! | permit | record: u16 ports that may be probed, u16 sockets |
//! | relays | list (≤ 4) of relay offers: records |
//! | byte string (≤ 1400) | first flight |
//! | facts | the receiver's own, as the server knows them |
//!
//! | facts | |
//! |---|---|
//! | u8 known | bit 0 mapping varies by address, 1 by port, 2 filters by address, 3 by port, 4 preserves the port, 5 hairpin, 6 port step, 7 port block |
//! | u8 values | the same bits; 0 where not known. Bits 6 and 7 are 0 |
//! | i16 | port step; 0 if not known |
//! | u16, u16 | first and last port of the block, first ≤ last; 0 if not known |
//!
//! | relay offer | |
//! |---|---|
//! | optional address | of the relay; none: the server itself, wherever the receiver's session with it goes |
//! | 32 bytes | the relay's key |
//! | byte string (≤ 128) | ticket |
//! | u32 | validity in ms |
//! | u64 | session |
//! | boolean | the receiver is the side that asked |
//! | u8 | key number |
//! | 32 bytes | the secret that the ticket grants to the receiver |
//! | u32 | idle time in ms |
//!
//! | relay introduction | |
//! |---|---|
//! | u64 | id |
//! | u32 | request; 0 at the side that did not ask |
//! | 32 bytes | the other's key |
//! | 32 bytes | secret that authenticates probes over the relay |
//! | relays | as above |
//! | boolean | announced: the asker's game asked for it |
//!
//! | forecast | |
//! |---|---|
//! | u8 | round |
//! | address | before |
//! | u16 | after |
//! | i16 | step, not 0 |
//!
//! Addresses are not judged here: whoever is about to send to one checks that it may (never multicast, link-local, port 0 …).

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::codec::{enum_codec, struct_codec};
use super::{DecodeError, MAX_CANDIDATES, Reader, Writer};
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

/// Most distinct ports of a [`BirthdayPermit`]: with [`BIRTHDAY_SOCKETS`] at the other side, anywhere among 64,512 ports, 99.9 of 100
/// attempts hit within 1,715, and 99.97 within these.
pub const BIRTHDAY_PORTS: u16 = 2_048;
/// Most sockets of a [`BirthdayPermit`]: with these nine attempts in ten hit within 577 ports, 2.3 s at 250 a second.
pub const BIRTHDAY_SOCKETS: u16 = 256;
/// The same behind what looks like a carrier's NAT: those allow a household a few hundred to a few thousand mappings, for all it does.
pub const BIRTHDAY_SOCKETS_OF_CARRIER: u16 = 64;
/// A block of fewer ports than this is a carrier's: households share the ports of one address there, in blocks of hundreds to thousands
/// (RFC 7422). A home's router draws from 16,384 (the range of dynamic ports: 49,152 to 65,535) or more.
const SMALLEST_BLOCK_OF_HOME: u32 = 16_384;

/// Whether a router that gives ports from this block (first, last) looks like a carrier's. A block that ends before it begins does, to
/// be careful: the wire does not carry one.
pub fn is_suspected_carriers((first, last): (u16, u16)) -> bool {
    u32::from(last.saturating_sub(first)) + 1 < SMALLEST_BLOCK_OF_HOME
}

/// Sockets that the side may open whose router gives ports from that block, if from a known one.
pub fn birthday_sockets(block: Option<(u16, u16)>) -> u16 {
    if block.is_some_and(is_suspected_carriers) {
        BIRTHDAY_SOCKETS_OF_CARRIER
    } else {
        BIRTHDAY_SOCKETS
    }
}

/// A relay that both sides may use at once. Every offer is a session of its own at the relay.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayOffer {
    /// The relay's address. `None`: the server's own relay, wherever the session with the server goes.
    pub address: Option<SocketAddr>,
    /// The relay's key, which names it.
    pub key: PublicKey,
    /// What to show to it, opaque to the nodes. At most [`MAX_TICKET`] bytes.
    pub ticket: Bytes,
    /// Milliseconds for which the ticket is good.
    pub valid_ms: u32,
    /// The pair's session at the relay.
    pub session: u64,
    /// The receiver is the side that asked.
    pub from_asker: bool,
    /// Which of the session's keys the ticket grants.
    pub key_number: u8,
    /// What the ticket grants to the receiver: authenticates its frames.
    pub secret: [u8; 32],
    /// Milliseconds of silence after which the relay forgets the session.
    pub idle_ms: u32,
}

impl fmt::Debug for RelayOffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the secret and the ticket: this goes into logs of failing tests.
        let mut shown = formatter.debug_struct("RelayOffer");
        shown.field("address", &self.address).field("session", &self.session);
        shown
            .field("from_asker", &self.from_asker)
            .field("valid_ms", &self.valid_ms);
        shown.finish_non_exhaustive()
    }
}

/// Relays for a pair, without an attempt to open a direct way: what the wish for a relay leads to, at both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayIntroduction {
    /// Names it in the probes over the relay. Random.
    pub id: u64,
    /// The request of the side that asked; 0 at the other side.
    pub request: u32,
    /// The other node's key.
    pub peer: PublicKey,
    /// Authenticates the probes over the relay.
    pub secret: [u8; 32],
    /// The relays, the best first.
    pub relays: Vec<RelayOffer>,
    /// The asker's game asked for it by name: the other one's hears of it.
    pub announced: bool,
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
    /// What the server knows of the receiver's NAT. Both sides choose how to punch by the same two sets of facts.
    pub own_facts: NatFacts,
}

/// Where a symmetric router that gives ports in sequence will put, or has just put, the mapping towards the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortForecast {
    /// The sender's try within the attempt that this belongs to.
    pub round: u8,
    /// The outside address of a mapping made just before the one that is sought.
    pub before: SocketAddr,
    /// The outside port of one made just after it; equal to `before`'s port: it is not made yet.
    pub after: u16,
    /// The distance between one mapping and the next; never 0.
    pub step: i16,
}

impl Introduction {
    /// The other node's guid.
    pub fn peer_guid(&self) -> Guid {
        self.peer.guid()
    }

    /// Appends the fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write_fields(&mut Writer::new(out));
    }

    /// Reads the fields; bytes behind them are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read_fields(&mut Reader::new(bytes))
    }
}

struct_codec!(Introduction {
    id: u64,
    request: u32,
    peer: key,
    secret: array,
    valid_ms: u32,
    candidates: candidates,
    own_observed: optional_address,
    facts: facts,
    permit: permit,
    relays: relays,
    first_flight: first_flight,
    own_facts: facts,
});

struct_codec!(PortForecast {
    round: u8,
    before: address,
    after: u16,
    step: i16,
});

struct_codec!(Candidate {
    kind: candidate_kind,
    address: address
});
struct_codec!(BirthdayPermit {
    probe_ports: u16,
    sockets: u16
});
struct_codec!(RelayOffer {
    address: optional_address,
    key: key,
    ticket: ticket,
    valid_ms: u32,
    session: u64,
    from_asker: boolean,
    key_number: u8,
    secret: array,
    idle_ms: u32,
});
struct_codec!(RelayIntroduction {
    id: u64,
    request: u32,
    peer: key,
    secret: array,
    relays: relays,
    announced: boolean,
});

enum_codec!(candidate_kind_number: CandidateKind { 1 Local, 2 Observed, 3 Mapped, 4 Manual });

/// Bits of the two bytes in front of the facts.
mod fact {
    pub const MAPPING_VARIES_BY_ADDRESS: u8 = 1;
    pub const MAPPING_VARIES_BY_PORT: u8 = 1 << 1;
    pub const FILTERS_BY_ADDRESS: u8 = 1 << 2;
    pub const FILTERS_BY_PORT: u8 = 1 << 3;
    pub const PRESERVES_PORT: u8 = 1 << 4;
    pub const HAIRPIN: u8 = 1 << 5;
    pub const PORT_STEP: u8 = 1 << 6;
    pub const PORT_BLOCK: u8 = 1 << 7;
}

impl NatFacts {
    fn write_fields(&self, writer: &mut Writer<'_>) {
        // A block whose ends are swapped says nothing; a reader would refuse it.
        let block = self.port_block.filter(|(first, last)| first <= last);
        let booleans = [
            (fact::MAPPING_VARIES_BY_ADDRESS, self.mapping_varies_by_address),
            (fact::MAPPING_VARIES_BY_PORT, self.mapping_varies_by_port),
            (fact::FILTERS_BY_ADDRESS, self.filters_by_address),
            (fact::FILTERS_BY_PORT, self.filters_by_port),
            (fact::PRESERVES_PORT, self.preserves_port),
            (fact::HAIRPIN, self.hairpin),
        ];
        let (mut known, mut values) = (0, 0);
        for (bit, value) in booleans {
            known |= if value.is_some() { bit } else { 0 };
            values |= if value == Some(true) { bit } else { 0 };
        }
        known |= if self.port_step.is_some() { fact::PORT_STEP } else { 0 };
        known |= if block.is_some() { fact::PORT_BLOCK } else { 0 };
        let (first, last) = block.unwrap_or_default();
        writer.u8(&known);
        writer.u8(&values);
        writer.i16(&self.port_step.unwrap_or_default());
        writer.u16(&first);
        writer.u16(&last);
    }

    fn read_fields(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (known, values) = (reader.u8()?, reader.u8()?);
        let (port_step, first, last) = (reader.i16()?, reader.u16()?, reader.u16()?);
        if known & fact::PORT_BLOCK != 0 && first > last {
            return Err(DecodeError::Invalid("port block"));
        }
        let boolean = |bit| (known & bit != 0).then_some(values & bit != 0);
        Ok(Self {
            mapping_varies_by_address: boolean(fact::MAPPING_VARIES_BY_ADDRESS),
            mapping_varies_by_port: boolean(fact::MAPPING_VARIES_BY_PORT),
            filters_by_address: boolean(fact::FILTERS_BY_ADDRESS),
            filters_by_port: boolean(fact::FILTERS_BY_PORT),
            preserves_port: boolean(fact::PRESERVES_PORT),
            hairpin: boolean(fact::HAIRPIN),
            port_step: (known & fact::PORT_STEP != 0).then_some(port_step),
            port_block: (known & fact::PORT_BLOCK != 0).then_some((first, last)),
        })
    }
}

impl Writer<'_> {
    pub(super) fn candidates(&mut self, candidates: &[Candidate]) {
        self.list(candidates, MAX_CANDIDATES, |writer, candidate| {
            writer.record(|writer| candidate.write_fields(writer));
        });
    }

    pub(super) fn facts(&mut self, facts: &NatFacts) {
        self.record(|writer| facts.write_fields(writer));
    }

    pub(super) fn forecast(&mut self, forecast: &PortForecast) {
        self.record(|writer| forecast.write_fields(writer));
    }

    pub(super) fn first_flight(&mut self, first_flight: &Bytes) {
        self.byte_string(first_flight, MAX_FIRST_FLIGHT);
    }

    fn candidate_kind(&mut self, kind: &CandidateKind) {
        self.candidate_kind_number(kind);
    }

    pub(super) fn permit(&mut self, permit: &BirthdayPermit) {
        self.record(|writer| permit.write_fields(writer));
    }

    pub(super) fn relay_introduction(&mut self, introduction: &RelayIntroduction) {
        self.record(|writer| introduction.write_fields(writer));
    }

    fn relays(&mut self, relays: &[RelayOffer]) {
        self.list(relays, MAX_RELAYS, |writer, relay| {
            writer.record(|writer| relay.write_fields(writer))
        });
    }

    fn ticket(&mut self, ticket: &Bytes) {
        self.byte_string(ticket, MAX_TICKET);
    }
}

impl Reader<'_> {
    pub(super) fn candidates(&mut self) -> Result<Vec<Candidate>, DecodeError> {
        self.list(MAX_CANDIDATES, "candidates", |reader| {
            reader.record(Candidate::read_fields)
        })
    }

    pub(super) fn facts(&mut self) -> Result<NatFacts, DecodeError> {
        self.record(NatFacts::read_fields)
    }

    pub(super) fn forecast(&mut self) -> Result<PortForecast, DecodeError> {
        match self.record(PortForecast::read_fields)? {
            forecast if forecast.step == 0 => Err(DecodeError::Invalid("port step")),
            forecast => Ok(forecast),
        }
    }

    pub(super) fn first_flight(&mut self) -> Result<Bytes, DecodeError> {
        self.owned_bytes(MAX_FIRST_FLIGHT, "first flight")
    }

    /// A kind that this version does not know is an unknown type: its candidate is left out of the list.
    fn candidate_kind(&mut self) -> Result<CandidateKind, DecodeError> {
        let number = self.rest().first().copied().unwrap_or_default();
        self.candidate_kind_number().map_err(|error| match error {
            DecodeError::Invalid(_) => DecodeError::UnknownType(number),
            error => error,
        })
    }

    pub(super) fn permit(&mut self) -> Result<BirthdayPermit, DecodeError> {
        self.record(BirthdayPermit::read_fields)
    }

    pub(super) fn relay_introduction(&mut self) -> Result<RelayIntroduction, DecodeError> {
        self.record(RelayIntroduction::read_fields)
    }

    fn relays(&mut self) -> Result<Vec<RelayOffer>, DecodeError> {
        self.list(MAX_RELAYS, "relays", |reader| reader.record(RelayOffer::read_fields))
    }

    fn ticket(&mut self) -> Result<Bytes, DecodeError> {
        self.owned_bytes(MAX_TICKET, "ticket")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_narrower_than_the_range_of_dynamic_ports_is_a_carriers() {
        for (first, last, suspected) in [
            (1_024, 65_535, false),
            (49_152, 65_535, false),
            (49_153, 65_535, true),
            (0, 16_383, false),
            (0, 16_382, true),
            (30_000, 32_047, true),
            (7, 7, true),
            (9, 3, true),
        ] {
            assert_eq!(is_suspected_carriers((first, last)), suspected, "{first} to {last}");
            let sockets = if suspected { 64 } else { 256 };
            assert_eq!(birthday_sockets(Some((first, last))), sockets, "{first} to {last}");
        }
        assert_eq!(birthday_sockets(None), 256, "nothing points to a carrier");
    }
}
