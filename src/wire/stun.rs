//! STUN (RFC 8489) with NAT behaviour discovery (RFC 5780): the binding request and its answers. [`raw`] has the message format.
//!
//! | request attribute | what a server of ours does with it |
//! |---|---|
//! | CHANGE-REQUEST | answers from its other address and/or port, if it has one; else error 420 |
//! | SOFTWARE | nothing; our client fills its requests up to 96 bytes with it |
//! | USERNAME, REALM, NONCE, MESSAGE-INTEGRITY and the like | nothing: everybody may ask |
//! | PADDING | nothing (RFC 5780 has the answer grow with it; ours never grows past 96 bytes); seen in [`Request::padding`] |
//! | FINGERPRINT | a wrong one makes the datagram invalid |
//! | others below 0x8000, RESPONSE-PORT included | error 420, which lists them |
//!
//! A success response holds XOR-MAPPED-ADDRESS, RESPONSE-ORIGIN, OTHER-ADDRESS, FINGERPRINT and SOFTWARE, in the order of
//! their worth: what does not fit into 96 bytes any more is left out (over IPv6 with both addresses: FINGERPRINT and
//! SOFTWARE). 96 bytes is the bound on what a spoofed request can make a server send; our own client's requests are as
//! large, so that for them nothing is amplified at all.

pub mod raw;

use std::net::SocketAddr;

use super::codec::cut;
use super::{DecodeError, Reader};
use raw::{Builder, FINGERPRINT_LENGTH, HEADER, Message, attribute};

pub use raw::is_stun;

/// Largest answer, and the size of our own requests.
pub const MAX_RESPONSE: usize = 96;
/// Most unknown attributes that an error answers with (RFC 8489 sets no bound; 8 leave room within [`MAX_RESPONSE`]).
pub const MAX_UNKNOWN: usize = 8;
/// Longest reason of an error in bytes, for the same reason (RFC 8489 allows 763).
pub const MAX_REASON: usize = 32;

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
            padding: None,
            unknown: UnknownAttributes::default(),
        }
    }

    /// Appends the request as our client sends it: [`MAX_RESPONSE`] bytes, with FINGERPRINT. `padding` and `unknown` are not sent.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut builder = Builder::new(out, BINDING_REQUEST, &self.transaction);
        let ChangeRequest { ip, port } = self.change;
        if ip || port {
            let flags = if ip { CHANGE_IP } else { 0 } | if port { CHANGE_PORT } else { 0 };
            builder = builder.attribute(attribute::CHANGE_REQUEST, &flags.to_be_bytes());
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

    /// Of the request.
    pub fn transaction(&self) -> TransactionId {
        match self {
            Self::Success { transaction, .. } | Self::Error { transaction, .. } => *transaction,
        }
    }

    /// Appends the response: at most [`MAX_RESPONSE`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let builder = match self {
            Self::Success {
                transaction,
                mapped,
                origin,
                other,
            } => {
                let mut builder =
                    Builder::new(out, BINDING_SUCCESS, transaction).xor_address(attribute::XOR_MAPPED_ADDRESS, *mapped);
                for (kind, address) in [(attribute::RESPONSE_ORIGIN, origin), (attribute::OTHER_ADDRESS, other)] {
                    if let Some(address) = address {
                        builder = builder.address(kind, *address);
                    }
                }
                builder
            }
            Self::Error {
                transaction,
                code,
                reason,
                unknown,
            } => encode_error(Builder::new(out, BINDING_ERROR, transaction), *code, reason, unknown),
        };
        if builder.length() + FINGERPRINT_LENGTH > MAX_RESPONSE {
            return;
        }
        let with_software = builder.length() + 4 + SOFTWARE.len().next_multiple_of(4) + FINGERPRINT_LENGTH;
        let builder = match with_software {
            ..=MAX_RESPONSE => builder.attribute(attribute::SOFTWARE, SOFTWARE.as_bytes()),
            _ => builder,
        };
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
    let (mut xor_mapped, mut plain_mapped, mut origin, mut other) = (None, None, None, None);
    for attribute in message.attributes() {
        // The first of its kind counts (RFC 8489, section 14).
        match attribute.kind {
            attribute::XOR_MAPPED_ADDRESS if xor_mapped.is_none() => {
                xor_mapped = Some(attribute.xor_address(&transaction)?);
            }
            attribute::MAPPED_ADDRESS if plain_mapped.is_none() => plain_mapped = Some(attribute.address()?),
            attribute::RESPONSE_ORIGIN if origin.is_none() => origin = Some(attribute.address()?),
            attribute::OTHER_ADDRESS if other.is_none() => other = Some(attribute.address()?),
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
