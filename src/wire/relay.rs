//! Relay frames: datagrams that a forwarder (the server, or another player) passes on.
//!
//! Every frame begins with its kind, and byte 4 never has bit 5 set (STUN's magic cookie begins with 0x21), so that no
//! frame can be taken for STUN. All integers are big endian.
//!
//! **6 Data**, both ways, passed on in place: only the tag differs between what a forwarder takes and what it sends.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 1 | 6 |
//! | 1 | 1 | bits 7–4 version (1); others 0 |
//! | 2 | 2 | segment size: 0, the payload is one datagram; else it is several of this size, the last may be shorter |
//! | 4 | 1 | flags; bit 0: from the side that asked for the introduction; bit 5 never set |
//! | 5 | 1 | key number: which of the session's keys made the tag (a new ticket brings a new key) |
//! | 6 | 6 | counter: grows with every frame of a sender under one key |
//! | 12 | 8 | session |
//! | 20 | 8 | tag over bytes 0–19, keyed with what the ticket grants to this sender |
//! | 28 | … | payload: opaque, encrypted end to end |
//!
//! 28 bytes are within the 32 that are left of IPv6's smallest packet: 1280 − 48 (IPv6 and UDP) − 1200 (QUIC's smallest maximum).
//! A header has one length for its version, so that all datagrams of a batch stay equally long and segmentation
//! offload survives on either side of a forwarder. The segment size serves where datagrams have no length of their own (the tunnel). The
//! forwarder finds the session, checks the tag, and follows a sender to a new address only upon a counter higher than any before.
//!
//! **7 Bind**, node → relay: shows the ticket, and opens the way back.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 2 | 7, version as above |
//! | 2 | 2 | length of the ticket, at most 128 |
//! | 4 | 1 | flags, 0 |
//! | 5 | 1 | key number |
//! | 6 | 8 | session |
//! | 14 | 8 | transaction: random, echoed |
//! | 22 | … | ticket |
//! | | 16 | tag over everything before it: the sender holds the ticket's key and did not just see the ticket |
//! | | … | zeros up to at least 64 bytes, so that the answer is never larger |
//!
//! **8 Bound**, relay → node: the answer, 63 bytes.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 2 | 8, version as above |
//! | 2 | 19 | the node's address as the relay sees it: u16 port, u8 family, 16 bytes of IP |
//! | 21 | 1 | status: 0 bound, else a [`Refusal`] |
//! | 22 | 1 | key number |
//! | 23 | 8 | session |
//! | 31 | 8 | transaction |
//! | 39 | 4 | milliseconds for which the binding lives without frames |
//! | 43 | 4 | largest payload in bytes per second; 0: not limited |
//! | 47 | 16 | tag over everything before it |
//!
//! **9 Gone**, relay → node: a data frame could not be passed on (the relay restarted, the ticket expired): bind again. 22 bytes, no tag: the
//! node believes it only if it sent that counter, and then no more than that it should bind again.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 2 | 9, version as above |
//! | 2 | 1 | [`Refusal`] |
//! | 3 | 2 | 0 |
//! | 5 | 1 | key number |
//! | 6 | 8 | session |
//! | 14 | 8 | counter of the frame |

use std::net::SocketAddr;

use super::codec::FIXED_ADDRESS_LENGTH;
use super::introduction::MAX_TICKET;
use super::{DecodeError, Reader, Writer};

/// First byte of a data frame.
pub const DATA_BYTE: u8 = 6;
/// First byte of a bind frame.
pub const BIND_BYTE: u8 = 7;
/// First byte of the answer to a bind frame.
pub const BOUND_BYTE: u8 = 8;
/// First byte of the answer to a data frame without a binding.
pub const GONE_BYTE: u8 = 9;

/// Length of a data frame's header.
pub const DATA_HEADER: usize = 28;
/// Length of what a data frame's tag covers: everything before it.
pub const DATA_AUTHENTICATED: usize = DATA_HEADER - 8;
/// Shortest bind frame, so that its answer is no larger.
pub const MIN_BIND: usize = 64;
/// Length of the answer to a bind frame.
pub const BOUND_LENGTH: usize = 2 + FIXED_ADDRESS_LENGTH + 2 + 8 + 8 + 4 + 4 + 16;
/// Length of a gone frame.
pub const GONE_LENGTH: usize = 22;

/// 1280 − 48 − 1200, see above.
const MAX_HEADER: usize = 32;
const _: () = assert!(DATA_HEADER <= MAX_HEADER && BOUND_LENGTH <= MIN_BIND && GONE_LENGTH <= DATA_HEADER);

/// The only version there is.
const VERSION: u8 = 1;
/// Flag of a data frame: from the side that asked for the introduction.
const FROM_ASKER: u8 = 1;
/// The counter has 48 bits.
const MAX_COUNTER: u64 = (1 << 48) - 1;

/// Why a relay does not forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// It does not know the session (it may have restarted): show the ticket again.
    Unknown = 1,
    /// The ticket is over its time: ask the server for another.
    Expired = 2,
    /// The session's budget is used up.
    Budget = 3,
    /// The relay has no room.
    Full = 4,
    /// The ticket is not this relay's, or not genuine.
    Ticket = 5,
}

impl Refusal {
    fn from_number(number: u8) -> Result<Self, DecodeError> {
        match number {
            1 => Ok(Self::Unknown),
            2 => Ok(Self::Expired),
            3 => Ok(Self::Budget),
            4 => Ok(Self::Full),
            5 => Ok(Self::Ticket),
            _ => Err(DecodeError::Invalid("refusal")),
        }
    }
}

/// The header of a data frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// 0: the payload is one datagram. Else the size of each of several; the last may be shorter.
    pub segment_size: u16,
    /// From the side that asked for the introduction.
    pub from_asker: bool,
    /// Which of the session's keys made the tag.
    pub key_number: u8,
    /// Grows with every frame of a sender under one key; 48 bits.
    pub counter: u64,
    /// The session.
    pub session: u64,
    /// Over [`DATA_AUTHENTICATED`] bytes.
    pub tag: [u8; 8],
}

impl DataHeader {
    /// Appends the header; the payload follows it. The tag can be put in later: it is the last 8 of the [`DATA_HEADER`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.counter <= MAX_COUNTER);
        let mut writer = Writer::new(out);
        writer.array(&[DATA_BYTE, VERSION << 4]);
        writer.u16(&self.segment_size);
        writer.u8(if self.from_asker { &FROM_ASKER } else { &0 });
        writer.u8(&self.key_number);
        writer.array(&self.counter.to_be_bytes()[2..]);
        writer.u64(&self.session);
        writer.array(&self.tag);
    }

    /// Reads the header; the payload is what stands behind it. The tag is not checked here.
    pub fn decode(datagram: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let mut reader = Reader::new(datagram);
        expect_kind(&mut reader, DATA_BYTE)?;
        let segment_size = reader.u16()?;
        let from_asker = reader.u8()? & FROM_ASKER != 0;
        let key_number = reader.u8()?;
        let [a, b, c, d, e, f] = reader.array()?;
        let counter = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let (session, tag) = (reader.u64()?, reader.array()?);
        let header = Self {
            segment_size,
            from_asker,
            key_number,
            counter,
            session,
            tag,
        };
        Ok((header, reader.rest()))
    }
}

/// Shows a ticket to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Which of the session's keys made the tag.
    pub key_number: u8,
    /// The session.
    pub session: u64,
    /// Random; echoed.
    pub transaction: u64,
    /// The ticket, at most [`MAX_TICKET`] bytes.
    pub ticket: &'a [u8],
    /// Over everything before it, see [`Bind::authenticated_length`].
    pub tag: [u8; 16],
}

impl<'a> Bind<'a> {
    /// How many bytes stand before the tag, which covers them.
    pub fn authenticated_length(&self) -> usize {
        22 + self.ticket.len()
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.ticket.len() <= MAX_TICKET);
        let start = out.len();
        let ticket = &self.ticket[..self.ticket.len().min(MAX_TICKET)];
        let mut writer = Writer::new(out);
        writer.array(&[BIND_BYTE, VERSION << 4]);
        writer.u16(&(ticket.len() as u16));
        writer.array(&[0, self.key_number]);
        writer.u64(&self.session);
        writer.u64(&self.transaction);
        writer.array(ticket);
        writer.array(&self.tag);
        out.resize(out.len().max(start + MIN_BIND), 0);
    }

    /// Reads the frame. The tag is not checked here.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(datagram);
        expect_kind(&mut reader, BIND_BYTE)?;
        if datagram.len() < MIN_BIND {
            return Err(DecodeError::Truncated);
        }
        let ticket_length = usize::from(reader.u16()?);
        if ticket_length > MAX_TICKET {
            return Err(DecodeError::TooLong("ticket"));
        }
        let [_flags, key_number] = reader.array()?;
        let (session, transaction) = (reader.u64()?, reader.u64()?);
        let ticket = reader.take(ticket_length)?;
        Ok(Self {
            key_number,
            session,
            transaction,
            ticket,
            tag: reader.array()?,
        })
    }
}

/// The answer to [`Bind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The node's address as the relay sees it.
    pub observed: SocketAddr,
    /// `None`: bound. Else why not.
    pub refusal: Option<Refusal>,
    /// Echoed.
    pub key_number: u8,
    /// The session.
    pub session: u64,
    /// Echoed.
    pub transaction: u64,
    /// Milliseconds for which the binding lives without frames.
    pub idle_ms: u32,
    /// Largest payload in bytes per second; 0: not limited.
    pub bytes_per_second: u32,
    /// Over everything before it.
    pub tag: [u8; 16],
}

impl Bound {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.array(&[BOUND_BYTE, VERSION << 4]);
        writer.fixed_address(Some(self.observed));
        writer.array(&[self.refusal.map_or(0, |refusal| refusal as u8), self.key_number]);
        writer.u64(&self.session);
        writer.u64(&self.transaction);
        writer.u32(&self.idle_ms);
        writer.u32(&self.bytes_per_second);
        writer.array(&self.tag);
    }

    /// Reads the frame. The tag is not checked here.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(datagram);
        expect_kind(&mut reader, BOUND_BYTE)?;
        let observed = reader.fixed_address()?.ok_or(DecodeError::Invalid("address family"))?;
        let refusal = match reader.u8()? {
            0 => None,
            number => Some(Refusal::from_number(number)?),
        };
        Ok(Self {
            observed,
            refusal,
            key_number: reader.u8()?,
            session: reader.u64()?,
            transaction: reader.u64()?,
            idle_ms: reader.u32()?,
            bytes_per_second: reader.u32()?,
            tag: reader.array()?,
        })
    }
}

/// The answer to a data frame without a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// Why.
    pub refusal: Refusal,
    /// Of the frame.
    pub key_number: u8,
    /// The session.
    pub session: u64,
    /// Of the frame.
    pub counter: u64,
}

impl Gone {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.array(&[GONE_BYTE, VERSION << 4, self.refusal as u8, 0, 0, self.key_number]);
        writer.u64(&self.session);
        writer.u64(&self.counter);
    }

    /// Reads the frame.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(datagram);
        expect_kind(&mut reader, GONE_BYTE)?;
        let refusal = Refusal::from_number(reader.u8()?)?;
        let [_, _flags, key_number] = reader.array()?;
        Ok(Self {
            refusal,
            key_number,
            session: reader.u64()?,
            counter: reader.u64()?,
        })
    }
}

/// Any relay frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayFrame<'a> {
    /// To be passed on: header and payload.
    Data(DataHeader, &'a [u8]),
    /// A ticket.
    Bind(Bind<'a>),
    /// The answer to a ticket.
    Bound(Bound),
    /// The answer to data without a binding.
    Gone(Gone),
}

impl<'a> RelayFrame<'a> {
    /// Appends the frame, payload included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Data(header, payload) => {
                header.encode(out);
                out.extend_from_slice(payload);
            }
            Self::Bind(bind) => bind.encode(out),
            Self::Bound(bound) => bound.encode(out),
            Self::Gone(gone) => gone.encode(out),
        }
    }

    /// Reads a frame of whatever kind. Tags are not checked here.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        match *datagram.first().ok_or(DecodeError::Truncated)? {
            DATA_BYTE => DataHeader::decode(datagram).map(|(header, payload)| Self::Data(header, payload)),
            BIND_BYTE => Bind::decode(datagram).map(Self::Bind),
            BOUND_BYTE => Bound::decode(datagram).map(Self::Bound),
            GONE_BYTE => Gone::decode(datagram).map(Self::Gone),
            unknown => Err(DecodeError::UnknownType(unknown)),
        }
    }
}

/// Reads the two bytes that every frame begins with.
fn expect_kind(reader: &mut Reader<'_>, kind: u8) -> Result<(), DecodeError> {
    let [number, version] = reader.array()?;
    if number != kind {
        return Err(DecodeError::UnknownType(number));
    }
    match version >> 4 {
        VERSION => Ok(()),
        _ => Err(DecodeError::Invalid("relay frame version")),
    }
}
