//! STUN (RFC 8489) with NAT behaviour discovery (RFC 5780): the binding request and its answers. [`raw`] has the message format.
//!
//! | request attribute | what a server of ours does with it |
//! |---|---|
//! | CHANGE-REQUEST | answers from its other address and/or port, if it has one; else error 420 |
//! | RESPONSE-PORT (u16 port, not 0; two more bytes may follow) | answers to that port of the asker's IP address |
//! | PADDING | fills the answer with PADDING up to the length of the request, never beyond it; together with RESPONSE-PORT: error 400 (RFC 5780, section 6.1) |
//! | LANLINE-COOKIE (0xF1A1), empty or 16 zero bytes | puts a cookie into the success response |
//! | SOFTWARE | nothing; our client fills its requests up to 96 bytes with it |
//! | USERNAME, REALM, NONCE, MESSAGE-INTEGRITY and the like | nothing: everybody may ask |
//! | FINGERPRINT | a wrong one makes the datagram invalid |
//! | others below 0x8000 | error 420, which lists them |
//!
//! A success response holds XOR-MAPPED-ADDRESS, LANLINE-COOKIE (if asked for), RESPONSE-ORIGIN, OTHER-ADDRESS, FINGERPRINT,
//! MAPPED-ADDRESS (for clients of RFC 3489 and 5780) and SOFTWARE, in the order of their worth: what does not fit into 96 bytes
//! any more is left out (over IPv6 with both addresses FINGERPRINT and what follows it; with a cookie OTHER-ADDRESS, MAPPED-ADDRESS
//! and SOFTWARE). 96 bytes is the bound on what a spoofed request can make a server send; our own client's requests are as
//! large, so that for them nothing is amplified at all. Only an answer to a padded request is larger, and at most as large as that.
//!
//! **LANLINE-COOKIE** is of our own: 0xF1A1 is comprehension-optional and not assigned by IANA, so that foreign servers ignore it. The
//! server's 16 bytes are the first of HMAC-SHA-256(its secret, u64 time slot, u8 4 or 6, IP address, u16 port), address and port those
//! that XOR-MAPPED-ADDRESS holds. To the client they are opaque: it shows them in the session with the server
//! ([`AddressProof`](super::control::AddressProof)), as proof that it receives at that address. With RESPONSE-PORT there is no
//! cookie: the answer then does not go to the address that it would prove.

pub mod raw;

use std::net::SocketAddr;

use super::codec::cut;
use super::{DecodeError, Reader, unmapped};
use raw::{Builder, FINGERPRINT_LENGTH, HEADER, Message, attribute};

pub use raw::is_stun;

/// Largest answer, and the size of our own requests.
pub const MAX_RESPONSE: usize = 96;
/// Most unknown attributes that an error answers with (RFC 8489 sets no bound; 8 leave room within [`MAX_RESPONSE`]).
pub const MAX_UNKNOWN: usize = 8;
/// Longest reason of an error in bytes, for the same reason (RFC 8489 allows 763).
pub const MAX_REASON: usize = 32;

/// The error code for a request that contradicts itself.
pub const BAD_REQUEST: u16 = 400;
/// The error code for a comprehension-required attribute that is not known.
pub const UNKNOWN_ATTRIBUTE: u16 = 420;

/// What we call ourselves.
const SOFTWARE: &str = "lanline";

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

/// Bits of CHANGE-REQUEST.
const CHANGE_IP: u32 = 4;
const CHANGE_PORT: u32 = 2;

/// What a server signs an address with.
pub type Cookie = [u8; 16];

/// Names a request; random.
pub type TransactionId = [u8; 12];

/// The transaction of a datagram that [`is_stun`]; `None` for others. Lets a client find its request before it decodes.
pub fn peek_transaction(datagram: &[u8]) -> Option<TransactionId> {
    if !is_stun(datagram) {
        return None;
    }
    datagram[8..HEADER].try_into().ok()
}

/// Whether a datagram that [`is_stun`] is a request (for a server), not an answer (for a client).
pub fn is_request(datagram: &[u8]) -> bool {
    matches!(datagram, [high, low, ..] if u16::from_be_bytes([*high, *low]) & 0x0110 == 0)
}

/// From where a server is to answer (RFC 5780, section 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ChangeRequest {
    /// From its other address.
    pub ip: bool,
    /// From its other port.
    pub port: bool,
}

/// Comprehension-required attributes that are not known, at most [`MAX_UNKNOWN`] of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnknownAttributes {
    kinds: [u16; MAX_UNKNOWN],
    count: usize,
}

impl UnknownAttributes {
    /// Their type numbers, each once.
    pub fn as_slice(&self) -> &[u16] {
        &self.kinds[..self.count]
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one, unless it is there or there is no room.
    pub fn push(&mut self, kind: u16) {
        if self.count < MAX_UNKNOWN && !self.as_slice().contains(&kind) {
            self.kinds[self.count] = kind;
            self.count += 1;
        }
    }
}

impl FromIterator<u16> for UnknownAttributes {
    fn from_iter<T: IntoIterator<Item = u16>>(kinds: T) -> Self {
        let mut unknown = Self::default();
        kinds.into_iter().for_each(|kind| unknown.push(kind));
        unknown
    }
}

/// A binding request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Echoed by the answer.
    pub transaction: TransactionId,
    /// From where to answer; neither: from where the request arrived.
    pub change: ChangeRequest,
    /// To which port of the asker's IP address to answer, if not to the one that it asks from. Never 0.
    pub response_port: Option<u16>,
    /// The asker wants a cookie for its address.
    pub cookie: bool,
    /// Length of a PADDING attribute, if there is one.
    pub padding: Option<u16>,
    /// What a server cannot honour: it answers with [`Response::unknown_attributes`] if this is not empty.
    pub unknown: UnknownAttributes,
}

impl Request {
    /// A plain request.
    pub fn new(transaction: TransactionId) -> Self {
        Self::with_change(transaction, ChangeRequest::default())
    }

    /// A request to be answered from elsewhere.
    pub fn with_change(transaction: TransactionId, change: ChangeRequest) -> Self {
        Self {
            transaction,
            change,
            response_port: None,
            cookie: false,
            padding: None,
            unknown: UnknownAttributes::default(),
        }
    }

    /// To be answered at another port (not 0) of the same IP address.
    #[must_use]
    pub fn with_response_port(self, port: u16) -> Self {
        debug_assert!(port != 0, "RESPONSE-PORT 0");
        Self {
            response_port: Some(port),
            ..self
        }
    }

    /// To be answered with a cookie for the address that the server sees.
    #[must_use]
    pub fn with_cookie(self) -> Self {
        Self { cookie: true, ..self }
    }

    /// Appends the request as our client sends it: [`MAX_RESPONSE`] bytes, with FINGERPRINT. `padding` and `unknown` are not sent.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut builder = Builder::new(out, BINDING_REQUEST, &self.transaction);
        let ChangeRequest { ip, port } = self.change;
        if ip || port {
            let flags = if ip { CHANGE_IP } else { 0 } | if port { CHANGE_PORT } else { 0 };
            builder = builder.attribute(attribute::CHANGE_REQUEST, &flags.to_be_bytes());
        }
        if let Some(port) = self.response_port {
            // Four bytes, as all implementations send it.
            let [high, low] = port.to_be_bytes();
            builder = builder.attribute(attribute::RESPONSE_PORT, &[high, low, 0, 0]);
        }
        if self.cookie {
            builder = builder.attribute(attribute::LANLINE_COOKIE, &[]);
        }
        let mut software = [b' '; MAX_RESPONSE];
        software[..SOFTWARE.len()].copy_from_slice(SOFTWARE.as_bytes());
        let room = MAX_RESPONSE - builder.length() - FINGERPRINT_LENGTH - 4;
        builder.attribute(attribute::SOFTWARE, &software[..room]).fingerprint();
    }

    /// Reads a request. Other STUN messages are invalid here.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let message = Message::parse(datagram)?;
        if message.kind() != BINDING_REQUEST {
            return Err(DecodeError::Invalid("STUN message type"));
        }
        let mut request = Self::new(message.transaction());
        for attribute in message.attributes() {
            match attribute.kind {
                attribute::CHANGE_REQUEST => {
                    let flags = Reader::new(attribute.value).u32()?;
                    request.change = ChangeRequest {
                        ip: flags & CHANGE_IP != 0,
                        port: flags & CHANGE_PORT != 0,
                    };
                }
                // The first of its kind counts (RFC 8489, section 14).
                attribute::RESPONSE_PORT if request.response_port.is_none() => {
                    match Reader::new(attribute.value).u16()? {
                        0 => return Err(DecodeError::Invalid("STUN response port")),
                        port => request.response_port = Some(port),
                    }
                }
                attribute::RESPONSE_PORT => {}
                attribute::LANLINE_COOKIE => {
                    request.cookie |= attribute.value.is_empty() || attribute.value == Cookie::default();
                }
                attribute::PADDING => request.padding = Some(attribute.value.len() as u16),
                kind if is_optional(kind) || is_credential(kind) => {}
                kind => request.unknown.push(kind),
            }
        }
        Ok(request)
    }
}

/// Attributes that a reader may ignore.
fn is_optional(kind: u16) -> bool {
    kind & 0x8000 != 0
}

/// Attributes that prove who asks: understood, and not needed.
fn is_credential(kind: u16) -> bool {
    matches!(
        kind,
        attribute::USERNAME
            | attribute::MESSAGE_INTEGRITY
            | attribute::REALM
            | attribute::NONCE
            | attribute::MESSAGE_INTEGRITY_SHA256
            | attribute::PASSWORD_ALGORITHM
            | attribute::USERHASH
    )
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// It worked.
    Success {
        /// Of the request.
        transaction: TransactionId,
        /// Where the request came from, as the server saw it.
        mapped: SocketAddr,
        /// Where the response came from, as the server believes.
        origin: Option<SocketAddr>,
        /// The server's other address and port.
        other: Option<SocketAddr>,
        /// The server's cookie for `mapped`, if it was asked for one.
        cookie: Option<Cookie>,
    },
    /// It did not.
    Error {
        /// Of the request.
        transaction: TransactionId,
        /// 300 to 699.
        code: u16,
        /// In words; at most [`MAX_REASON`] bytes are sent.
        reason: String,
        /// What was not understood, with code 420.
        unknown: UnknownAttributes,
    },
}

impl Response {
    /// The answer to a request with attributes that a server cannot honour.
    pub fn unknown_attributes(transaction: TransactionId, unknown: UnknownAttributes) -> Self {
        Self::Error {
            transaction,
            code: UNKNOWN_ATTRIBUTE,
            reason: "Unknown Attribute".to_owned(),
            unknown,
        }
    }

    /// The answer to a request that contradicts itself.
    pub fn bad_request(transaction: TransactionId) -> Self {
        Self::Error {
            transaction,
            code: BAD_REQUEST,
            reason: "Bad Request".to_owned(),
            unknown: UnknownAttributes::default(),
        }
    }

    /// Of the request.
    pub fn transaction(&self) -> TransactionId {
        match self {
            Self::Success { transaction, .. } | Self::Error { transaction, .. } => *transaction,
        }
    }

    /// Appends the response: at most [`MAX_RESPONSE`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_padded(out, 0);
    }

    /// Appends the response; a success that is shorter than `length` (the request's) is filled up to it with PADDING. It never gets
    /// longer than that, nor, without PADDING, than [`MAX_RESPONSE`].
    pub fn encode_padded(&self, out: &mut Vec<u8>, length: usize) {
        let (mut builder, padded) = match self {
            Self::Success {
                transaction,
                mapped,
                origin,
                other,
                cookie,
            } => {
                let mut builder =
                    Builder::new(out, BINDING_SUCCESS, transaction).xor_address(attribute::XOR_MAPPED_ADDRESS, *mapped);
                if let Some(cookie) = cookie {
                    builder = builder.attribute(attribute::LANLINE_COOKIE, cookie);
                }
                for (kind, address) in [(attribute::RESPONSE_ORIGIN, origin), (attribute::OTHER_ADDRESS, other)] {
                    if let Some(address) = address.filter(|address| has_room(&builder, address_length(*address))) {
                        builder = builder.address(kind, address);
                    }
                }
                if has_room(&builder, address_length(*mapped) + FINGERPRINT_LENGTH) {
                    builder = builder.address(attribute::MAPPED_ADDRESS, *mapped);
                }
                (builder, true)
            }
            Self::Error {
                transaction,
                code,
                reason,
                unknown,
            } => (
                encode_error(Builder::new(out, BINDING_ERROR, transaction), *code, reason, unknown),
                false,
            ),
        };
        if !has_room(&builder, FINGERPRINT_LENGTH) {
            return;
        }
        let software = 4 + SOFTWARE.len().next_multiple_of(4);
        if has_room(&builder, software + FINGERPRINT_LENGTH) {
            builder = builder.attribute(attribute::SOFTWARE, SOFTWARE.as_bytes());
        }
        let room = length
            .min(raw::MAX_MESSAGE)
            .checked_sub(builder.length() + 4 + FINGERPRINT_LENGTH);
        if let Some(room) = room.filter(|_| padded) {
            // A message's length is a multiple of 4, and so is what is left.
            builder = builder.attribute(attribute::PADDING, &[0; raw::MAX_MESSAGE][..room / 4 * 4]);
        }
        builder.fingerprint();
    }

    /// Reads a response. Other STUN messages are invalid here, as are successes with attributes that a client would have to
    /// understand (RFC 8489, section 6.3.3).
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let message = Message::parse(datagram)?;
        match message.kind() {
            BINDING_SUCCESS => decode_success(&message),
            BINDING_ERROR => decode_error(&message),
            _ => Err(DecodeError::Invalid("STUN message type")),
        }
    }
}

/// Whether that many bytes more stay within [`MAX_RESPONSE`].
fn has_room(builder: &Builder<'_>, bytes: usize) -> bool {
    builder.length() + bytes <= MAX_RESPONSE
}

/// Bytes of an attribute that holds the address, header included.
fn address_length(address: SocketAddr) -> usize {
    if unmapped(address).is_ipv4() { 12 } else { 24 }
}

/// ERROR-CODE (u16 0, u8 hundreds, u8 rest, reason) and UNKNOWN-ATTRIBUTES (a u16 each).
fn encode_error<'a>(mut builder: Builder<'a>, code: u16, reason: &str, unknown: &UnknownAttributes) -> Builder<'a> {
    let reason = cut(reason, MAX_REASON);
    let code = code.clamp(300, 699);
    let mut value = [0; 4 + MAX_REASON];
    value[2..4].copy_from_slice(&[(code / 100) as u8, (code % 100) as u8]);
    value[4..4 + reason.len()].copy_from_slice(reason.as_bytes());
    builder = builder.attribute(attribute::ERROR_CODE, &value[..4 + reason.len()]);
    if unknown.is_empty() {
        return builder;
    }
    let mut kinds = [0; 2 * MAX_UNKNOWN];
    for (bytes, kind) in kinds.chunks_exact_mut(2).zip(unknown.as_slice()) {
        bytes.copy_from_slice(&kind.to_be_bytes());
    }
    builder.attribute(attribute::UNKNOWN_ATTRIBUTES, &kinds[..2 * unknown.as_slice().len()])
}

fn decode_success(message: &Message<'_>) -> Result<Response, DecodeError> {
    let transaction = message.transaction();
    let (mut xor_mapped, mut plain_mapped, mut origin, mut other, mut cookie) = (None, None, None, None, None);
    for attribute in message.attributes() {
        // The first of its kind counts (RFC 8489, section 14).
        match attribute.kind {
            attribute::XOR_MAPPED_ADDRESS if xor_mapped.is_none() => {
                xor_mapped = Some(attribute.xor_address(&transaction)?);
            }
            attribute::MAPPED_ADDRESS if plain_mapped.is_none() => plain_mapped = Some(attribute.address()?),
            attribute::RESPONSE_ORIGIN if origin.is_none() => origin = Some(attribute.address()?),
            attribute::OTHER_ADDRESS if other.is_none() => other = Some(attribute.address()?),
            // Of another length: not ours.
            attribute::LANLINE_COOKIE if cookie.is_none() => cookie = attribute.value.try_into().ok(),
            attribute::XOR_MAPPED_ADDRESS | attribute::MAPPED_ADDRESS | attribute::PADDING => {}
            // Servers that also speak RFC 3489 send these beside the new ones.
            attribute::RESPONSE_ADDRESS | attribute::SOURCE_ADDRESS | attribute::CHANGED_ADDRESS => {}
            kind if is_optional(kind) || is_credential(kind) => {}
            _ => return Err(DecodeError::Invalid("STUN attribute")),
        }
    }
    let mapped = xor_mapped.or(plain_mapped).ok_or(DecodeError::Truncated)?;
    Ok(Response::Success {
        transaction,
        mapped,
        origin,
        other,
        cookie,
    })
}

fn decode_error(message: &Message<'_>) -> Result<Response, DecodeError> {
    let error = message.attribute(attribute::ERROR_CODE).ok_or(DecodeError::Truncated)?;
    let mut reader = Reader::new(error.value);
    let [_, _, hundreds, rest] = reader.array()?;
    let code = u16::from(hundreds & 7) * 100 + u16::from(rest);
    if !(300..=699).contains(&code) || rest > 99 {
        return Err(DecodeError::Invalid("STUN error code"));
    }
    // Foreign servers may say more than we would, and not in UTF-8: it is for people.
    let reason = String::from_utf8_lossy(reader.rest());
    let reason = cut(&reason, MAX_REASON).to_owned();
    let unknown = message
        .attribute(attribute::UNKNOWN_ATTRIBUTES)
        .map_or_else(UnknownAttributes::default, |list| {
            list.value
                .chunks_exact(2)
                .map(|kind| u16::from_be_bytes([kind[0], kind[1]]))
                .collect()
        });
    Ok(Response::Error {
        transaction: message.transaction(),
        code,
        reason,
        unknown,
    })
}
