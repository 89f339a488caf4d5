//! One port, told apart: what a datagram is, by its first bytes and where it comes from. Nothing is parsed here.
//!
//! The order is fixed; the first rule that fits decides:
//!
//! | | rule | [`Kind`] |
//! |---|---|---|
//! | 1 | first two bits 0, a whole STUN header, the magic cookie at byte 4 | `Stun` |
//! | 2 | the source is in the GATE.PUNCH peer table | `GateRaw` |
//! | 3 | first byte 4–15 | `OwnFrame` |
//! | 4 | top bit set, and a QUIC version that we speak, or 0 (version negotiation) | `QuicLong` |
//! | | top bit set, a GATE role is active, and GameMaker's header with a length that fits, or a lone fb, fc or fd | `Gate` |
//! | 5 | first bits 01 and a known connection id | `QuicShort` |
//! | | everything else: counted and dropped, never answered | `Unknown` |
//!
//! GameMaker's header begins with 0xde, whose top bit is set, as in QUIC's long headers; where those have their version it has
//! `c0 ad de 0c`, which no QUIC version is. Batches that the kernel coalesced are split by stride before this.

use super::stun;

/// First bytes of our own frames: probes, relay frames, and room for more.
pub const OWN_FRAMES: std::ops::RangeInclusive<u8> = 4..=15;
/// QUIC versions that we take: 1 (RFC 9000), and 0, which marks version negotiation.
pub const QUIC_VERSIONS: [u32; 2] = [1, 0];
/// GameMaker's header as far as it is constant: two little-endian u32, 0xDEADC0DE and 12 (its own length). The length of the
/// payload follows.
pub const GATE_HEADER: [u8; 8] = [0xde, 0xc0, 0xad, 0xde, 0x0c, 0, 0, 0];

/// GameMaker's header as a whole.
const GATE_HEADER_LENGTH: usize = 12;
/// Knock (-3), welcome (-4) and data request (-5) of GATE.PUNCH, sent without header by clients that follow the published description.
const GATE_LONE_BYTES: std::ops::RangeInclusive<u8> = 0xfb..=0xfd;
/// QUIC's long header up to its first connection id's length (RFC 8999): first byte, version, length.
const QUIC_LONG_MINIMUM: usize = 6;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// STUN.
    Stun,
    /// A frame of our own, with its first byte (see [`super::probe`] and [`super::relay`]).
    OwnFrame(u8),
    /// QUIC with a long header.
    QuicLong,
    /// QUIC with a short header, for a connection that we know.
    QuicShort,
    /// GATE.PUNCH: a message of somebody who is not (yet) in the peer table.
    Gate,
    /// A game's own datagram from a peer that GATE.PUNCH connected.
    GateRaw,
    /// Nothing that we know.
    Unknown,
}

/// What telling apart needs to know beside the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Context<F> {
    /// The source address is in the GATE.PUNCH peer table.
    pub source_is_gate_peer: bool,
    /// A GATE.PUNCH role is active at this node.
    pub gate_role_active: bool,
    /// Whether the bytes behind the first one begin with a connection id of ours.
    pub knows_connection_id: F,
}

/// Says what a datagram is.
pub fn classify<F: FnOnce(&[u8]) -> bool>(datagram: &[u8], context: Context<F>) -> Kind {
    if stun::is_stun(datagram) {
        return Kind::Stun;
    }
    if context.source_is_gate_peer {
        return Kind::GateRaw;
    }
    let Some((&first, rest)) = datagram.split_first() else {
        return Kind::Unknown;
    };
    match first {
        _ if OWN_FRAMES.contains(&first) => Kind::OwnFrame(first),
        0x80.. if is_quic_long(datagram) => Kind::QuicLong,
        0x80.. if context.gate_role_active && is_gate(datagram) => Kind::Gate,
        0x40..=0x7f if (context.knows_connection_id)(rest) => Kind::QuicShort,
        _ => Kind::Unknown,
    }
}

/// A long header with one of [`QUIC_VERSIONS`].
fn is_quic_long(datagram: &[u8]) -> bool {
    match *datagram {
        [_, a, b, c, d, ..] if datagram.len() >= QUIC_LONG_MINIMUM => {
            QUIC_VERSIONS.contains(&u32::from_be_bytes([a, b, c, d]))
        }
        _ => false,
    }
}

/// GameMaker's header with a payload length that the datagram has, or one lone command byte.
fn is_gate(datagram: &[u8]) -> bool {
    if let [only] = datagram {
        return GATE_LONE_BYTES.contains(only);
    }
    match datagram.split_first_chunk::<GATE_HEADER_LENGTH>() {
        Some((header, payload)) => {
            let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
            header[..8] == GATE_HEADER && usize::try_from(length).is_ok_and(|length| length <= payload.len())
        }
        None => false,
    }
}
