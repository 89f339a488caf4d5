//! Punch probes: small authenticated datagrams that open and verify paths.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 1 | 4 request, 5 response |
//! | 1 | 1 | bits 7–4 version (1), bit 0: the sender is the side that asked for the introduction; other bits 0 |
//! | 2 | 2 | port of the observed address; 0 in a request |
//! | 4 | 1 | family of the observed address: 4, 6; 0 in a request |
//! | 5 | 16 | IP of the observed address; IPv4 in the first four bytes, rest 0; 0 in a request |
//! | 21 | 8 | introduction |
//! | 29 | 8 | transaction: random, echoed by the response |
//! | 37 | 16 | tag |
//! | 53 | … | padding: zeros |
//!
//! The tag is the first 16 bytes of HMAC-SHA-256, keyed with the introduction's secret, over everything else in the
//! datagram: bytes 0–36, then the padding. So nobody on the way can cut, lengthen or fill it, and fields that a later
//! version puts where the padding begins are authenticated too (and ignored by who does not know them).
//!
//! Request and response have the same plain length, so that a response is never larger than its request; the response to a
//! padded request may be padded up to the same size. Byte 4 is never 0x21, where STUN's magic cookie begins: no probe can
//! be taken for STUN.

use std::fmt;
use std::net::SocketAddr;

use ring::hmac;

use super::codec::FIXED_ADDRESS_LENGTH;
use super::{DecodeError, Reader, Writer};

/// First byte of a request.
pub const REQUEST_BYTE: u8 = 4;
/// First byte of a response.
pub const RESPONSE_BYTE: u8 = 5;
/// Length of a probe without padding, request or response.
pub const PLAIN_PROBE: usize = AUTHENTICATED + TAG;
/// Length of a probe that also proves that the path carries QUIC's smallest maximum datagram (RFC 9000, section 14).
pub const PADDED_PROBE: usize = 1200;
/// Largest probe that is looked at: an Ethernet frame's worth over IPv6, should a later version probe for more.
pub const MAX_PROBE: usize = 1452;

/// The only version there is.
const VERSION: u8 = 1;
/// Bit of the second byte: the sender asked for the introduction.
const FROM_ASKER: u8 = 1;
/// Bytes before the tag: kind, version, observed address, introduction, transaction.
const AUTHENTICATED: usize = INTRODUCTION + 8 + 8;
/// Bytes of the tag. A forger has the seconds of an attempt: 128 bits are far beyond it.
const TAG: usize = 16;
/// Where the introduction stands.
const INTRODUCTION: usize = 2 + FIXED_ADDRESS_LENGTH;

/// A probe asks, its answer echoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// "Do you hear me here?"
    Request,
    /// "I do; I saw you at `observed`."
    Response {
        /// The address that the request came from, as the answerer saw it.
        observed: SocketAddr,
    },
}

/// One probe, decoded and authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// [`super::introduction::Introduction::id`].
    pub introduction: u64,
    /// True if the sender is the side that asked for the introduction (tells reflected packets from real ones).
    pub from_asker: bool,
    /// Random; echoed by the response.
    pub transaction: u64,
    /// Request or response.
    pub kind: ProbeKind,
}

/// What authenticates the probes of one introduction.
#[derive(Clone)]
pub struct ProbeKey(hmac::Key);

impl ProbeKey {
    /// The key of an introduction's secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The tag over what stands before it and behind it.
    fn tag(&self, fields: &[u8], padding: &[u8]) -> [u8; TAG] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(fields);
        context.update(padding);
        let mut tag = [0; TAG];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG]);
        tag
    }
}

impl fmt::Debug for ProbeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProbeKey")
    }
}

impl Probe {
    /// Appends the probe, padded to `padded_to` bytes (0 or anything up to [`PLAIN_PROBE`]: no padding; at most [`MAX_PROBE`]).
    pub fn encode(&self, key: &ProbeKey, padded_to: usize, out: &mut Vec<u8>) {
        let start = out.len();
        let (number, observed) = match self.kind {
            ProbeKind::Request => (REQUEST_BYTE, None),
            ProbeKind::Response { observed } => (RESPONSE_BYTE, Some(observed)),
        };
        let mut writer = Writer::new(out);
        writer.u8(&number);
        writer.u8(&(VERSION << 4 | if self.from_asker { FROM_ASKER } else { 0 }));
        writer.fixed_address(observed);
        writer.u64(&self.introduction);
        writer.u64(&self.transaction);
        writer.array(&[0; TAG]);
        out.resize(start + padded_to.clamp(PLAIN_PROBE, MAX_PROBE), 0);
        let (fields, rest) = out[start..].split_at_mut(AUTHENTICATED);
        let (tag, padding) = rest.split_at_mut(TAG);
        tag.copy_from_slice(&key.tag(fields, padding));
    }

    /// The introduction that a datagram claims to belong to, for looking up its key. Nothing is authenticated yet.
    pub fn peek_introduction(datagram: &[u8]) -> Option<u64> {
        if !matches!(datagram.first(), Some(&(REQUEST_BYTE | RESPONSE_BYTE)))
            || !(PLAIN_PROBE..=MAX_PROBE).contains(&datagram.len())
        {
            return None;
        }
        Reader::new(&datagram[INTRODUCTION..]).u64().ok()
    }

    /// Reads and authenticates a datagram.
    pub fn decode(datagram: &[u8], key: &ProbeKey) -> Result<Self, DecodeError> {
        if datagram.len() > MAX_PROBE {
            return Err(DecodeError::TooLong("probe"));
        }
        let (fields, rest) = datagram.split_at_checked(AUTHENTICATED).ok_or(DecodeError::Truncated)?;
        let (tag, padding) = rest.split_first_chunk::<TAG>().ok_or(DecodeError::Truncated)?;
        let mut reader = Reader::new(fields);
        let number = reader.u8()?;
        if !matches!(number, REQUEST_BYTE | RESPONSE_BYTE) {
            return Err(DecodeError::UnknownType(number));
        }
        let flags = reader.u8()?;
        if flags >> 4 != VERSION {
            return Err(DecodeError::Invalid("probe version"));
        }
        if !equal_in_constant_time(tag, &key.tag(fields, padding)) {
            return Err(DecodeError::Unauthenticated);
        }
        let observed = reader.fixed_address()?;
        let (introduction, transaction) = (reader.u64()?, reader.u64()?);
        let kind = match observed {
            _ if number == REQUEST_BYTE => ProbeKind::Request,
            Some(observed) => ProbeKind::Response { observed },
            None => return Err(DecodeError::Invalid("observed address")),
        };
        let from_asker = flags & FROM_ASKER != 0;
        Ok(Self {
            introduction,
            from_asker,
            transaction,
            kind,
        })
    }
}

/// Compares without telling by the time it takes how much of a forgery was right.
fn equal_in_constant_time(left: &[u8; TAG], right: &[u8; TAG]) -> bool {
    left.iter()
        .zip(right)
        .fold(0, |difference, (left, right)| difference | (left ^ right))
        == 0
}
