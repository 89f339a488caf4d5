//! The two structs that go to games as they are: an address and the 128-byte event.
//!
//! Their layout is the same on every target: fixed-width integers at fixed offsets, 64-bit fields on 8-byte offsets,
//! pointers widened to 8 bytes. The assertions at the end of the file and of the C header hold it.

use std::ffi::c_char;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// An IP address and port. 24 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressRecord {
    /// 4 (IPv4), 6 (IPv6) or 0 (no address).
    pub family: u8,
    /// Zero.
    pub reserved: u8,
    /// UDP port, in the machine's own byte order.
    pub port: u16,
    /// Scope (interface number) of an IPv6 link-local address, else 0.
    pub scope: u32,
    /// The address in network byte order; IPv4 in the first four bytes, the others zero.
    pub ip: [u8; 16],
}

impl From<SocketAddr> for AddressRecord {
    fn from(address: SocketAddr) -> Self {
        let mut record = Self {
            port: address.port(),
            ..Self::default()
        };
        match address {
            SocketAddr::V4(v4) => {
                record.family = 4;
                record.ip[..4].copy_from_slice(&v4.ip().octets());
            }
            SocketAddr::V6(v6) => {
                record.family = 6;
                record.scope = v6.scope_id();
                record.ip = v6.ip().octets();
            }
        }
        record
    }
}

impl From<Option<SocketAddr>> for AddressRecord {
    fn from(address: Option<SocketAddr>) -> Self {
        address.map(Self::from).unwrap_or_default()
    }
}

impl AddressRecord {
    /// The socket address; `None` if `family` is neither 4 nor 6.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.family {
            4 => {
                let ip = Ipv4Addr::new(self.ip[0], self.ip[1], self.ip[2], self.ip[3]);
                Some(SocketAddr::new(IpAddr::V4(ip), self.port))
            }
            6 => Some(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(self.ip),
                self.port,
                0,
                self.scope,
            ))),
            _ => None,
        }
    }
}

/// Something that happened. Exactly 128 bytes, with the same offsets on every target; fields that the
/// type does not name are zero. `data` and `text` are borrowed: they live until the node's next
/// lanline_poll, its lanline_node_destroy, or lanline_shutdown_all, and are never to be freed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct EventRecord {
    /// One of LANLINE_EVENT_…; ignore those you do not know.
    pub r#type: u32,
    /// The request that this event ends; 0: nobody asked.
    pub request: u32,
    /// When the library learned of it: microseconds of the system's monotonic clock.
    pub time_us: u64,
    /// Guid of the player that it is about; 0: none.
    pub peer: u64,
    /// A second player (old host, unreachable member, …); 0: none.
    pub peer2: u64,
    /// LANLINE_OK or the reason, one of LANLINE_…
    pub code: i32,
    /// LANLINE_FLAG_…
    pub flags: u32,
    /// Channel of a message.
    pub channel: u8,
    /// LANLINE_SEND_… of a message.
    pub mode: u8,
    /// LANLINE_PATH_…: how packets travel now.
    pub path: u8,
    /// LANLINE_PATH_…: how packets travelled before.
    pub path_from: u8,
    /// A number whose meaning the type tells.
    pub count: u32,
    /// An address whose meaning the type tells.
    pub address: AddressRecord,
    /// Bytes: a message's payload, a join's data, a server's key; NULL if `data_len` is 0.
    pub data: *const u8,
    /// Widens `data` to 8 bytes.
    #[cfg(target_pointer_width = "32")]
    pub data_high: u32,
    /// Bytes at `data`.
    pub data_len: u32,
    /// Bytes at `text`, without the NUL behind them.
    pub text_len: u32,
    /// UTF-8 for a player's developer: what happened and what to do about it; with a NUL behind it; NULL if there is none.
    pub text: *const c_char,
    /// Widens `text` to 8 bytes.
    #[cfg(target_pointer_width = "32")]
    pub text_high: u32,
    /// Zero.
    pub reserved: [u8; 32],
}

// SAFETY: the pointers are either offsets that nobody dereferences (inside the queue) or handed to the caller, who
// keeps the rules of the header.
unsafe impl Send for EventRecord {}

impl Default for EventRecord {
    fn default() -> Self {
        Self {
            r#type: 0,
            request: 0,
            time_us: 0,
            peer: 0,
            peer2: 0,
            code: 0,
            flags: 0,
            channel: 0,
            mode: 0,
            path: 0,
            path_from: 0,
            count: 0,
            address: AddressRecord::default(),
            data: std::ptr::null(),
            #[cfg(target_pointer_width = "32")]
            data_high: 0,
            data_len: 0,
            text_len: 0,
            text: std::ptr::null(),
            #[cfg(target_pointer_width = "32")]
            text_high: 0,
            reserved: [0; 32],
        }
    }
}

const _: () = {
    assert!(size_of::<AddressRecord>() == 24);
    assert!(offset_of!(AddressRecord, port) == 2);
    assert!(offset_of!(AddressRecord, scope) == 4);
    assert!(offset_of!(AddressRecord, ip) == 8);
    assert!(size_of::<EventRecord>() == 128);
    assert!(offset_of!(EventRecord, r#type) == 0);
    assert!(offset_of!(EventRecord, request) == 4);
    assert!(offset_of!(EventRecord, time_us) == 8);
    assert!(offset_of!(EventRecord, peer) == 16);
    assert!(offset_of!(EventRecord, peer2) == 24);
    assert!(offset_of!(EventRecord, code) == 32);
    assert!(offset_of!(EventRecord, flags) == 36);
    assert!(offset_of!(EventRecord, channel) == 40);
    assert!(offset_of!(EventRecord, mode) == 41);
    assert!(offset_of!(EventRecord, path) == 42);
    assert!(offset_of!(EventRecord, path_from) == 43);
    assert!(offset_of!(EventRecord, count) == 44);
    assert!(offset_of!(EventRecord, address) == 48);
    assert!(offset_of!(EventRecord, data) == 72);
    assert!(offset_of!(EventRecord, data_len) == 80);
    assert!(offset_of!(EventRecord, text_len) == 84);
    assert!(offset_of!(EventRecord, text) == 88);
    assert!(offset_of!(EventRecord, reserved) == 96);
};
