//! STUN messages as such (RFC 8489, sections 5 and 14): header, attributes, FINGERPRINT, MESSAGE-INTEGRITY.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 2 | type: two bits 0, method and class |
//! | 2 | 2 | length of what follows the header, a multiple of 4 |
//! | 4 | 4 | magic cookie 0x2112A442 |
//! | 8 | 12 | transaction |
//! | 20 | … | attributes: u16 type, u16 length, value, padding to a multiple of 4 |

use std::net::{IpAddr, SocketAddr};

use ring::hmac;

use crate::wire::{DecodeError, Reader, unmapped};

/// Bytes of the header.
pub const HEADER: usize = 20;
/// What bytes 4–7 of every message are.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Largest message that is looked at: a PADDING of 1,500 bytes, which clients of RFC 5780 use to find out whether fragments pass,
/// and room for the rest.
pub const MAX_MESSAGE: usize = 1_600;

/// Type numbers of attributes. Those below 0x8000 must be understood by their reader.
pub mod attribute {
    #![allow(missing_docs)] // Named as in RFC 8489, RFC 5780 and RFC 3489.
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const RESPONSE_ADDRESS: u16 = 0x0002;
    pub const CHANGE_REQUEST: u16 = 0x0003;
    pub const SOURCE_ADDRESS: u16 = 0x0004;
    pub const CHANGED_ADDRESS: u16 = 0x0005;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub const PASSWORD_ALGORITHM: u16 = 0x001D;
    pub const USERHASH: u16 = 0x001E;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const PADDING: u16 = 0x0026;
    pub const RESPONSE_PORT: u16 = 0x0027;
    pub const SOFTWARE: u16 = 0x8022;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const RESPONSE_ORIGIN: u16 = 0x802B;
    pub const OTHER_ADDRESS: u16 = 0x802C;
    /// Our own; not assigned by IANA.
    pub const LANLINE_COOKIE: u16 = 0xF1A1;
}

/// What the CRC-32 of a FINGERPRINT is XORed with ("STUN").
const FINGERPRINT_XOR: u32 = 0x5354_554E;
/// Bytes of a FINGERPRINT with its header.
pub const FINGERPRINT_LENGTH: usize = 8;
/// Bytes of a MESSAGE-INTEGRITY with its header: HMAC-SHA-1.
const INTEGRITY_LENGTH: usize = 24;

/// Whether a datagram is to be read as STUN: a whole header that begins with two zero bits and has the magic cookie.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER && datagram[0] & 0xC0 == 0 && datagram[4..8] == MAGIC_COOKIE.to_be_bytes()
}

/// A message whose header, attribute lengths and (if there is one) FINGERPRINT are right.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type number.
    pub kind: u16,
    /// Its value, without padding.
    pub value: &'a [u8],
    /// Where its header stands in the message.
    pub offset: usize,
}

impl<'a> Message<'a> {
    /// Checks header, attribute lengths and FINGERPRINT.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        if datagram.len() < HEADER {
            return Err(DecodeError::Truncated);
        }
        if datagram.len() > MAX_MESSAGE {
            return Err(DecodeError::TooLong("STUN message"));
        }
        if !is_stun(datagram) {
            return Err(DecodeError::Invalid("STUN header"));
        }
        let length = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
        if length % 4 != 0 || length != datagram.len() - HEADER {
            return Err(DecodeError::Invalid("STUN length"));
        }
        let message = Self { bytes: datagram };
        message.check_attributes()?;
        Ok(message)
    }

    /// Walks over all attributes once: lengths, and FINGERPRINT, which must be the last.
    fn check_attributes(&self) -> Result<(), DecodeError> {
        let mut offset = HEADER;
        while offset < self.bytes.len() {
            let attribute = self.attribute_at(offset)?;
            offset += 4 + attribute.value.len().next_multiple_of(4);
            if attribute.kind == attribute::FINGERPRINT {
                let right = fingerprint(&self.bytes[..attribute.offset]).to_be_bytes();
                if offset != self.bytes.len() || attribute.value != right {
                    return Err(DecodeError::Invalid("STUN fingerprint"));
                }
            }
        }
        Ok(())
    }

    fn attribute_at(&self, offset: usize) -> Result<Attribute<'a>, DecodeError> {
        let mut reader = Reader::new(&self.bytes[offset..]);
        let (kind, length) = (reader.u16()?, usize::from(reader.u16()?));
        let padded = reader.take(length.next_multiple_of(4))?;
        Ok(Attribute {
            kind,
            value: &padded[..length],
            offset,
        })
    }

    /// Method and class.
    pub fn kind(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// The transaction.
    pub fn transaction(&self) -> [u8; 12] {
        let mut transaction = [0; 12];
        transaction.copy_from_slice(&self.bytes[8..HEADER]);
        transaction
    }

    /// The attributes that count, in their order: what stands behind MESSAGE-INTEGRITY is not authenticated and left out,
    /// MESSAGE-INTEGRITY-SHA256 and FINGERPRINT excepted.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let message = *self;
        let mut offset = HEADER;
        let mut integrity_seen = false;
        std::iter::from_fn(move || {
            while offset < message.bytes.len() {
                let attribute = message.attribute_at(offset).ok()?;
                offset += 4 + attribute.value.len().next_multiple_of(4);
                let counts = !integrity_seen
                    || matches!(
                        attribute.kind,
                        attribute::MESSAGE_INTEGRITY_SHA256 | attribute::FINGERPRINT
                    );
                integrity_seen |= matches!(
                    attribute.kind,
                    attribute::MESSAGE_INTEGRITY | attribute::MESSAGE_INTEGRITY_SHA256
                );
                if counts {
                    return Some(attribute);
                }
            }
            None
        })
    }

    /// The first attribute of a type.
    pub fn attribute(&self, kind: u16) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.kind == kind)
    }

    /// Checks MESSAGE-INTEGRITY: HMAC-SHA-1 with `key` over everything before it, with the header's length as if it were
    /// the last attribute. The key is the password (short-term), or MD5 of "username:realm:password" (long-term).
    pub fn check_integrity(&self, key: &[u8]) -> Result<(), DecodeError> {
        let integrity = self
            .attribute(attribute::MESSAGE_INTEGRITY)
            .ok_or(DecodeError::Unauthenticated)?;
        let before = &self.bytes[..integrity.offset];
        let context = integrity_context(before, key);
        let right = context.sign();
        let difference = right
            .as_ref()
            .iter()
            .zip(integrity.value)
            .fold(0, |sum, (left, right)| sum | (left ^ right));
        match difference {
            0 if right.as_ref().len() == integrity.value.len() => Ok(()),
            _ => Err(DecodeError::Unauthenticated),
        }
    }
}

/// The HMAC-SHA-1 of what stands before a MESSAGE-INTEGRITY.
fn integrity_context(before: &[u8], key: &[u8]) -> hmac::Context {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let length = (before.len() - HEADER + INTEGRITY_LENGTH) as u16;
    let mut context = hmac::Context::with_key(&key);
    context.update(&before[..2]);
    context.update(&length.to_be_bytes());
    context.update(&before[4..]);
    context
}

/// The value of a FINGERPRINT behind these bytes: their CRC-32 (with the header's length as if the FINGERPRINT stood there).
fn fingerprint(before: &[u8]) -> u32 {
    let length = (before.len() - HEADER + FINGERPRINT_LENGTH) as u16;
    let crc = crc32(crc32(crc32(!0, &before[..2]), &length.to_be_bytes()), &before[4..]);
    !crc ^ FINGERPRINT_XOR
}

/// CRC-32 of ISO 3309 (reflected polynomial 0xEDB88320) by bits of four: 16 words of table instead of 256.
fn crc32(start: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 == 1 {
                    0xEDB8_8320 ^ (value >> 1)
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    bytes.iter().fold(start, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        let crc = TABLE[(crc & 15) as usize] ^ (crc >> 4);
        TABLE[(crc & 15) as usize] ^ (crc >> 4)
    })
}

/// Writes one message.
#[derive(Debug)]
pub struct Builder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    padding: u8,
}

impl<'a> Builder<'a> {
    /// Appends a message without attributes to `out`.
    pub fn new(out: &'a mut Vec<u8>, kind: u16, transaction: &[u8; 12]) -> Self {
        let start = out.len();
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(transaction);
        Self { out, start, padding: 0 }
    }

    /// Fills attributes up with this byte instead of 0 (any will do; RFC 5769's samples have spaces).
    pub fn pad_with(mut self, padding: u8) -> Self {
        self.padding = padding;
        self
    }

    /// Bytes so far.
    pub fn length(&self) -> usize {
        self.out.len() - self.start
    }

    /// An attribute. Nothing is written if the message would grow past [`MAX_MESSAGE`].
    pub fn attribute(self, kind: u16, value: &[u8]) -> Self {
        let padded = value.len().next_multiple_of(4);
        if self.length() + 4 + padded > MAX_MESSAGE {
            debug_assert!(false, "a STUN attribute of {} bytes", value.len());
            return self;
        }
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(self.out.len() + padded - value.len(), self.padding);
        let length = (self.length() - HEADER) as u16;
        self.out[self.start + 2..self.start + 4].copy_from_slice(&length.to_be_bytes());
        self
    }

    /// An address in clear.
    pub fn address(self, kind: u16, address: SocketAddr) -> Self {
        let (value, length) = address_value(address, &[0; 16]);
        self.attribute(kind, &value[..length])
    }

    /// An address XORed with magic cookie and transaction, so that routers do not rewrite it.
    pub fn xor_address(self, kind: u16, address: SocketAddr) -> Self {
        let mut mask = [0; 16];
        mask.copy_from_slice(&self.out[self.start + 4..self.start + HEADER]);
        let (value, length) = address_value(address, &mask);
        self.attribute(kind, &value[..length])
    }

    /// MESSAGE-INTEGRITY, see [`Message::check_integrity`].
    pub fn integrity(self, key: &[u8]) -> Self {
        let tag = integrity_context(&self.out[self.start..], key).sign();
        self.attribute(attribute::MESSAGE_INTEGRITY, tag.as_ref())
    }

    /// FINGERPRINT; the last attribute.
    pub fn fingerprint(self) -> Self {
        let value = fingerprint(&self.out[self.start..]);
        self.attribute(attribute::FINGERPRINT, &value.to_be_bytes())
    }
}

/// The value of an address attribute and its length: u8 0, u8 family (1, 2), u16 port, 4 or 16 bytes of IP; port and IP XORed with `mask`.
fn address_value(address: SocketAddr, mask: &[u8; 16]) -> ([u8; 20], usize) {
    let address = unmapped(address);
    let mut value = [0; 20];
    let port = address.port().to_be_bytes();
    value[2..4].copy_from_slice(&[port[0] ^ mask[0], port[1] ^ mask[1]]);
    let length = match address.ip() {
        IpAddr::V4(ip) => {
            value[1] = 1;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = 2;
            value[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    for (byte, mask) in value[4..length].iter_mut().zip(mask) {
        *byte ^= mask;
    }
    (value, length)
}

impl Attribute<'_> {
    /// An address in clear.
    pub fn address(&self) -> Result<SocketAddr, DecodeError> {
        self.masked_address(&[0; 16])
    }

    /// An address XORed with magic cookie and this transaction.
    pub fn xor_address(&self, transaction: &[u8; 12]) -> Result<SocketAddr, DecodeError> {
        let mut mask = [0; 16];
        mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        mask[4..].copy_from_slice(transaction);
        self.masked_address(&mask)
    }

    fn masked_address(&self, mask: &[u8; 16]) -> Result<SocketAddr, DecodeError> {
        let mut reader = Reader::new(self.value);
        let [_, family] = reader.array()?;
        let port = reader.u16()? ^ u16::from_be_bytes([mask[0], mask[1]]);
        let ip = match family {
            1 => IpAddr::from(masked(reader.array::<4>()?, mask)),
            2 => IpAddr::from(masked(reader.array::<16>()?, mask)),
            _ => return Err(DecodeError::Invalid("STUN address family")),
        };
        Ok(unmapped(SocketAddr::new(ip, port)))
    }
}

fn masked<const N: usize>(mut bytes: [u8; N], mask: &[u8; 16]) -> [u8; N] {
    for (byte, mask) in bytes.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    bytes
}
