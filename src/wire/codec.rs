//! Reading and writing of fields, and the two macros that turn a table of fields into a codec.
//!
//! | field | bytes |
//! |---|---|
//! | `u8` `u16` `u32` `u64` `i16` `i32` | big endian |
//! | `array` | its bytes |
//! | `text` | u16 length, UTF-8; at most [`MAX_TEXT`] bytes |
//! | byte string | u24 length, bytes; each has its own bound |
//! | list | u16 count, elements; each list has its own bound |
//! | record | u16 length, fields; what a reader does not know at its end is skipped |
//! | `address` | u8 family (4 or 6), u16 port, 4 or 16 bytes of IP; no scope, IPv4-mapped addresses are unmapped at both ends |
//! | `optional_address` | one byte 0, or an `address` |
//! | `fixed_address` | u16 port, u8 family (0 none, 4, 6), 16 bytes of IP: for datagrams whose length must not vary |
//! | `guid` | u64, neither 0 nor above 63 bits; `optional_guid` may be 0 |
//!
//! A method of [`Writer`] and the method of [`Reader`] with the same name are each other's inverse. Writers cut what is
//! over its bound (in debug builds they stop instead, texts excepted), so that nothing is ever written that a reader refuses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use super::MAX_TEXT;
use crate::transport::identity::{Guid, PublicKey};

/// Why bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than the format needs.
    Truncated,
    /// A field holds a value that the format does not allow.
    Invalid(&'static str),
    /// A length or count above its bound.
    TooLong(&'static str),
    /// A type number that this version does not know (to be ignored).
    UnknownType(u8),
    /// The authentication does not match.
    Unauthenticated,
}

/// Reads fields from bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! read_integers {
    ($($method:ident: $integer:ty,)*) => { $(
        #[doc = concat!("Reads a big-endian `", stringify!($integer), "`.")]
        pub fn $method(&mut self) -> Result<$integer, DecodeError> {
            Ok(<$integer>::from_be_bytes(self.array()?))
        }
    )* };
}

impl<'a> Reader<'a> {
    /// Reads from the first of these bytes on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes, as they are.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    read_integers! { u8: u8, u16: u16, u32: u32, u64: u64, i16: i16, i32: i32, }

    /// A byte that is 0 or 1.
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("boolean")),
        }
    }

    /// A byte string of at most `bound` bytes; `name` goes into the error.
    pub fn byte_string(&mut self, bound: usize, name: &'static str) -> Result<&'a [u8], DecodeError> {
        let [high, middle, low] = self.array()?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > bound {
            return Err(DecodeError::TooLong(name));
        }
        self.take(length)
    }

    /// A [`byte_string`](Self::byte_string) in memory of its own.
    pub fn owned_bytes(&mut self, bound: usize, name: &'static str) -> Result<Bytes, DecodeError> {
        self.byte_string(bound, name).map(Bytes::copy_from_slice)
    }

    /// UTF-8 of at most `bound` bytes; `name` goes into the error.
    pub fn text_of(&mut self, bound: usize, name: &'static str) -> Result<String, DecodeError> {
        let length = usize::from(self.u16()?);
        if length > bound {
            return Err(DecodeError::TooLong(name));
        }
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Invalid(name))?;
        Ok(text.to_owned())
    }

    /// UTF-8 of at most [`MAX_TEXT`] bytes.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        self.text_of(MAX_TEXT, "text")
    }

    /// A list of at most `bound` elements. An element that answers [`DecodeError::UnknownType`] is left out: a later
    /// version may have kinds that this one does not know. (Such elements must be records, so that their end is known.)
    pub fn list<T>(
        &mut self,
        bound: usize,
        name: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::from(self.u16()?);
        if count > bound {
            return Err(DecodeError::TooLong(name));
        }
        // Every element has at least one byte: hostile counts without bytes behind them cost no memory.
        let mut list = Vec::with_capacity(count.min(self.rest.len()));
        for _ in 0..count {
            match element(self) {
                Ok(value) => list.push(value),
                Err(DecodeError::UnknownType(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }

    /// A record: fields with their length in front. Bytes that `fields` leaves are skipped.
    pub fn record<T>(
        &mut self,
        fields: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let length = usize::from(self.u16()?);
        fields(&mut Reader::new(self.take(length)?))
    }

    /// An address.
    pub fn address(&mut self) -> Result<SocketAddr, DecodeError> {
        self.optional_address()?.ok_or(DecodeError::Invalid("address family"))
    }

    /// An address, or none.
    pub fn optional_address(&mut self) -> Result<Option<SocketAddr>, DecodeError> {
        let family = self.u8()?;
        if family == 0 {
            return Ok(None);
        }
        let port = self.u16()?;
        let ip = match family {
            4 => IpAddr::from(self.array::<4>()?),
            6 => IpAddr::from(self.array::<16>()?),
            _ => return Err(DecodeError::Invalid("address family")),
        };
        Ok(Some(unmapped(SocketAddr::new(ip, port))))
    }

    /// A guid.
    pub fn guid(&mut self) -> Result<Guid, DecodeError> {
        match self.optional_guid()? {
            Guid(0) => Err(DecodeError::Invalid("guid")),
            guid => Ok(guid),
        }
    }

    /// A guid, or 0 for nobody.
    pub fn optional_guid(&mut self) -> Result<Guid, DecodeError> {
        match self.u64()? {
            number if number >> 63 == 0 => Ok(Guid(number)),
            _ => Err(DecodeError::Invalid("guid")),
        }
    }

    /// A public key.
    pub fn key(&mut self) -> Result<PublicKey, DecodeError> {
        self.array().map(PublicKey)
    }
}

/// Writes fields.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

macro_rules! write_integers {
    ($($method:ident: $integer:ty,)*) => { $(
        #[doc = concat!("Writes a big-endian `", stringify!($integer), "`.")]
        pub fn $method(&mut self, value: &$integer) {
            self.out.extend_from_slice(&value.to_be_bytes());
        }
    )* };
}

impl<'a> Writer<'a> {
    /// Appends to these bytes.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Bytes as they are.
    pub fn array(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    write_integers! { u8: u8, u16: u16, u32: u32, u64: u64, i16: i16, i32: i32, }

    /// One byte, 0 or 1.
    pub fn boolean(&mut self, value: &bool) {
        self.u8(&u8::from(*value));
    }

    /// A byte string. Callers keep to `bound`.
    pub fn byte_string(&mut self, bytes: &[u8], bound: usize) {
        debug_assert!(bytes.len() <= bound && bound < 1 << 24, "{} bytes", bytes.len());
        let bytes = &bytes[..bytes.len().min(bound)];
        self.array(&(bytes.len() as u32).to_be_bytes()[1..]);
        self.array(bytes);
    }

    /// UTF-8, cut at the last whole character within `bound` bytes.
    pub fn text_of(&mut self, text: &str, bound: usize) {
        let text = cut(text, bound);
        self.u16(&(text.len() as u16));
        self.array(text.as_bytes());
    }

    /// UTF-8, cut at the last whole character within [`MAX_TEXT`] bytes.
    pub fn text(&mut self, text: &str) {
        self.text_of(text, MAX_TEXT);
    }

    /// A list. Callers keep to `bound`.
    pub fn list<T>(&mut self, list: &[T], bound: usize, mut element: impl FnMut(&mut Writer<'_>, &T)) {
        debug_assert!(
            list.len() <= bound && bound <= usize::from(u16::MAX),
            "{} elements",
            list.len()
        );
        let list = &list[..list.len().min(bound)];
        self.u16(&(list.len() as u16));
        for value in list {
            element(self, value);
        }
    }

    /// A record: what `fields` writes, with its length in front.
    pub fn record(&mut self, fields: impl FnOnce(&mut Writer<'_>)) {
        let start = self.out.len();
        self.u16(&0);
        fields(self);
        let length = self.out.len() - start - 2;
        debug_assert!(length <= usize::from(u16::MAX), "a record of {length} bytes");
        self.out[start..start + 2].copy_from_slice(&(length as u16).to_be_bytes());
    }

    /// An address.
    pub fn address(&mut self, address: &SocketAddr) {
        let address = unmapped(*address);
        self.u8(if address.is_ipv4() { &4 } else { &6 });
        self.u16(&address.port());
        match address.ip() {
            IpAddr::V4(ip) => self.array(&ip.octets()),
            IpAddr::V6(ip) => self.array(&ip.octets()),
        }
    }

    /// An address, or none.
    pub fn optional_address(&mut self, address: &Option<SocketAddr>) {
        match address {
            Some(address) => self.address(address),
            None => self.u8(&0),
        }
    }

    /// A guid.
    pub fn guid(&mut self, guid: &Guid) {
        self.u64(&guid.0);
    }

    /// A guid, or 0 for nobody.
    pub fn optional_guid(&mut self, guid: &Guid) {
        self.u64(&guid.0);
    }

    /// A public key.
    pub fn key(&mut self, key: &PublicKey) {
        self.array(&key.0);
    }
}

/// The longest beginning of `text` within `bound` bytes that ends with a whole character.
pub(super) fn cut(text: &str, bound: usize) -> &str {
    let mut end = text.len().min(bound);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The address as it travels: IPv4 if it is an IPv4 address in IPv6's clothes, without scope and flow label.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Bytes of an optional address of fixed length, see [`Writer::fixed_address`].
pub(super) const FIXED_ADDRESS_LENGTH: usize = 19;

impl Writer<'_> {
    /// An optional address in 19 bytes: u16 port, u8 family (0, 4, 6), 16 bytes of IP. IPv4 stands in the first four; what
    /// is not used is 0.
    pub fn fixed_address(&mut self, address: Option<SocketAddr>) {
        let address = address.map(unmapped);
        let (family, ip) = match address.map(|address| address.ip()) {
            None => (0, [0; 16]),
            Some(IpAddr::V4(ip)) => {
                let [a, b, c, d] = ip.octets();
                (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            Some(IpAddr::V6(ip)) => (6, ip.octets()),
        };
        self.u16(&address.map_or(0, |address| address.port()));
        self.u8(&family);
        self.array(&ip);
    }
}

impl Reader<'_> {
    /// What [`Writer::fixed_address`] writes.
    pub fn fixed_address(&mut self) -> Result<Option<SocketAddr>, DecodeError> {
        let (port, family) = (self.u16()?, self.u8()?);
        let ip: [u8; 16] = self.array()?;
        let ip = match family {
            0 => return Ok(None),
            4 => IpAddr::from(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3])),
            6 => IpAddr::from(Ipv6Addr::from(ip)),
            _ => return Err(DecodeError::Invalid("address family")),
        };
        Ok(Some(unmapped(SocketAddr::new(ip, port))))
    }
}

/// Makes `method` read and write an enum as one byte: `enum_codec!(method: Enum { 0 First, 1 Second });`
macro_rules! enum_codec {
    ($method:ident: $name:ident { $($number:literal $variant:ident),* $(,)? }) => {
        impl crate::wire::Writer<'_> {
            pub(in crate::wire) fn $method(&mut self, value: &$name) {
                self.u8(&(*value as u8));
            }
        }
        impl crate::wire::Reader<'_> {
            pub(in crate::wire) fn $method(&mut self) -> Result<$name, crate::wire::DecodeError> {
                match self.u8()? {
                    $($number => Ok($name::$variant),)*
                    _ => Err(crate::wire::DecodeError::Invalid(stringify!($method))),
                }
            }
        }
    };
}

/// Gives a struct `write_fields` and `read_fields` from the table of its fields, in the order of the wire. Each codec
/// names a method of both [`Reader`] and [`Writer`].
macro_rules! struct_codec {
    ($name:ident { $($field:ident: $codec:ident),* $(,)? }) => {
        impl $name {
            pub(in crate::wire) fn write_fields(&self, writer: &mut crate::wire::Writer<'_>) {
                $(writer.$codec(&self.$field);)*
            }
            pub(in crate::wire) fn read_fields(
                reader: &mut crate::wire::Reader<'_>,
            ) -> Result<Self, crate::wire::DecodeError> {
                // Fields of a struct expression are evaluated in the order in which they are written.
                Ok(Self { $($field: reader.$codec()?,)* })
            }
        }
    };
}

/// Gives an enum of messages `encode` and `decode` from a table: number, variant, and the codecs of its fields in the
/// order of the wire. Each codec names a method of both [`Reader`] and [`Writer`].
macro_rules! message_codec {
    ($name:ident { $($number:literal $variant:ident $(($inner:ident))? $({ $($field:ident: $codec:ident),* $(,)? })? ;)* }) => {
        impl $name {
            /// Appends the message: its type number, then its fields.
            pub fn encode(&self, out: &mut Vec<u8>) {
                let mut writer = crate::wire::Writer::new(out);
                match self {
                    $(Self::$variant $(($inner))? $({ $($field),* })? => {
                        writer.u8(&$number);
                        $(writer.$inner($inner);)?
                        $($(writer.$codec($field);)*)?
                    })*
                }
            }

            /// Reads one message. Bytes behind what this version knows are ignored.
            pub fn decode(bytes: &[u8]) -> Result<Self, crate::wire::DecodeError> {
                if bytes.len() > crate::wire::MAX_CONTROL_MESSAGE {
                    return Err(crate::wire::DecodeError::TooLong("message"));
                }
                let mut reader = crate::wire::Reader::new(bytes);
                match reader.u8()? {
                    $($number => Ok(Self::$variant $((reader.$inner()?))? $({ $($field: reader.$codec()?),* })?),)*
                    unknown => Err(crate::wire::DecodeError::UnknownType(unknown)),
                }
            }
        }
    };
}

pub(super) use {enum_codec, message_codec, struct_codec};
