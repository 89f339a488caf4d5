//! The system's messages: `recvmmsg` with what the kernel coalesced (UDP_GRO), `sendmmsg` with runs that it cuts (UDP_SEGMENT), and the
//! machine's own address of each (IP_PKTINFO).
//!
//! [`Inbox`] owns the memory that datagrams arrive in and stay in until they are sent on; [`Outgoing`] describes pieces of it to the system.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void, mmsghdr, socklen_t};

/// Messages that are taken in one call. Under load a batch is as long as this, and the more frames of one destination are in it, the more
/// of them go out as one: with 100 flows that take turns some two and a half. A batch that is not full delays nothing.
pub const BATCH: usize = 256;

/// Room for one message: the kernel coalesces at most 64 KiB, and a few lines more, so that the beginnings of all slots do not fall into the
/// same few lines of the processor's cache. Of these 16 MiB the system gives memory to what was ever used: 1 MiB of small datagrams.
const SLOT: usize = (1 << 16) + 9 * 64;

/// Bytes for control messages: a size (24) and an address (40 at most).
const CONTROL: usize = 64;

/// Most segments in one send; the kernel's limit (UDP_MAX_SEGMENTS) before version 6.9.
pub const MAX_SEGMENTS: usize = 64;

/// Most bytes in one send: a 16-bit IP length less the headers of IPv6 and UDP.
pub const MAX_RUN: usize = 65_535 - 48;

/// An address as the system has it.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    fn new(address: SocketAddr) -> Self {
        // SAFETY: all bytes zero are a valid address of any kind.
        let mut name: Self = unsafe { std::mem::zeroed() };
        match address {
            SocketAddr::V4(address) => {
                name.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(address.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
            }
            SocketAddr::V6(address) => {
                name.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr {
                        s6_addr: address.ip().octets(),
                    },
                    sin6_scope_id: address.scope_id(),
                };
            }
        }
        name
    }

    fn length(&self) -> socklen_t {
        // SAFETY: every kind begins with its family.
        match c_int::from(unsafe { self.family }) {
            libc::AF_INET => size_of::<libc::sockaddr_in>() as socklen_t,
            _ => size_of::<libc::sockaddr_in6>() as socklen_t,
        }
    }

    fn address(&self) -> SocketAddr {
        // SAFETY: the family says which kind it is, and all bytes of the union were written, by us or by the system.
        unsafe {
            if c_int::from(self.family) == libc::AF_INET {
                let ip = Ipv4Addr::from(self.v4.sin_addr.s_addr.to_ne_bytes());
                SocketAddr::from((ip, u16::from_be(self.v4.sin_port)))
            } else {
                let ip = Ipv6Addr::from(self.v6.sin6_addr.s6_addr);
                let port = u16::from_be(self.v6.sin6_port);
                SocketAddr::V6(SocketAddrV6::new(ip, port, 0, self.v6.sin6_scope_id))
            }
        }
    }
}

/// Aligned as control messages want it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

const EMPTY_HEADER: mmsghdr = {
    // SAFETY: a header without name, parts and control messages; all its fields are numbers and pointers.
    unsafe { std::mem::zeroed() }
};

/// One message that arrived: a datagram, or several of one sender.
#[derive(Debug, Clone)]
pub struct Message {
    /// The sender.
    pub source: SocketAddr,
    /// The machine's address that it was sent to, if the socket tells.
    pub local_ip: Option<IpAddr>,
    /// Where its bytes stand in the inbox.
    pub range: Range<usize>,
    /// The length of each datagram; the last may be shorter.
    pub stride: usize,
}

/// Where a batch arrives.
pub struct Inbox {
    bytes: Vec<u8>,
    names: Vec<Name>,
    controls: Vec<Control>,
    parts: Vec<libc::iovec>,
    headers: Vec<mmsghdr>,
    /// Headers that the system has written to since they were made ready.
    used: usize,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; SLOT * BATCH],
            names: vec![Name::new(SocketAddr::from(([0; 4], 0))); BATCH],
            controls: vec![Control([0; CONTROL]); BATCH],
            parts: vec![
                libc::iovec {
                    iov_base: std::ptr::null_mut(),
                    iov_len: 1 << 16,
                };
                BATCH
            ],
            headers: vec![EMPTY_HEADER; BATCH],
            used: BATCH,
        }
    }

    /// Takes what has arrived, without waiting; returns how many messages that are.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for slot in 0..self.used {
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_name = (&raw mut self.names[slot]).cast();
            header.msg_namelen = size_of::<Name>() as socklen_t;
            header.msg_iov = &raw mut self.parts[slot];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[slot]).cast();
            header.msg_controllen = CONTROL as _;
        }
        self.used = 0;
        for (part, slot) in self.parts.iter_mut().zip(self.bytes.chunks_exact_mut(SLOT)) {
            part.iov_base = slot.as_mut_ptr().cast();
        }
        loop {
            // SAFETY: each header points to its name, its part and its control messages, which live in vectors of this inbox that are never
            // resized; each part points to a slot of `bytes`, which is not resized either, and is no longer than the slot. Nothing else refers to
            // them during the call, because `self` is borrowed for it.
            let result = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    BATCH as _,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            if result >= 0 {
                self.used = result as usize;
                return Ok(self.used);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Message `number` of the last batch.
    #[inline]
    pub fn message(&self, number: usize) -> Message {
        let header = &self.headers[number];
        let length = (header.msg_len as usize).min(1 << 16);
        let mut message = Message {
            source: self.names[number].address(),
            local_ip: None,
            range: number * SLOT..number * SLOT + length,
            stride: length,
        };
        read_control(&header.msg_hdr, &mut message);
        message
    }

    /// All slots.
    #[inline]
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// The size of a coalesced message's datagrams, and the address it was sent to.
#[inline]
fn read_control(header: &libc::msghdr, message: &mut Message) {
    if header.msg_controllen == 0 {
        return;
    }
    // SAFETY: the system wrote control messages into the buffer that the header points to, and their length into the header; the
    // macros stay within it. What each kind holds is read unaligned, as it is documented for that kind.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = next.as_ref() {
            let data = libc::CMSG_DATA(control);
            match (control.cmsg_level, control.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size: c_int = std::ptr::read_unaligned(data.cast());
                    message.stride = usize::try_from(size).unwrap_or(0);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = std::ptr::read_unaligned(data.cast());
                    message.local_ip = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = std::ptr::read_unaligned(data.cast());
                    message.local_ip = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, control);
        }
    }
}

/// One message to be sent.
#[derive(Clone, Copy)]
pub struct Sending {
    /// Where to.
    pub destination: SocketAddr,
    /// From which of the machine's addresses; `None`: the socket's, or the system's choice.
    pub local_ip: Option<IpAddr>,
    /// Cut every so many bytes; 0: one datagram.
    pub segment: u16,
}

/// Messages on their way to the system: all pieces of one buffer.
#[derive(Default)]
pub struct Outgoing {
    names: Vec<Name>,
    controls: Vec<(Control, usize)>,
    parts: Vec<libc::iovec>,
    /// The number of parts of each message.
    counts: Vec<usize>,
    headers: Vec<mmsghdr>,
}

impl Outgoing {
    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.names.clear();
        self.controls.clear();
        self.parts.clear();
        self.counts.clear();
    }

    /// Appends a message of those pieces of `bytes`.
    #[inline]
    pub fn push(&mut self, sending: &Sending, bytes: &[u8], pieces: impl Iterator<Item = Range<usize>>) {
        let before = self.parts.len();
        self.parts.extend(pieces.map(|piece| {
            let piece = &bytes[piece];
            libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast::<c_void>(),
                iov_len: piece.len(),
            }
        }));
        self.counts.push(self.parts.len() - before);
        self.names.push(Name::new(sending.destination));
        self.controls.push(control(sending));
    }

    /// Hands the messages from `first` on to the system, without waiting; returns how many it took, at least one.
    ///
    /// `bytes` is what the messages were made of.
    pub fn send(&mut self, socket: BorrowedFd<'_>, first: usize, bytes: &[u8]) -> io::Result<usize> {
        debug_assert!(self.parts.iter().all(|part| {
            let range = bytes.as_ptr_range();
            range.contains(&part.iov_base.cast_const().cast()) || part.iov_len == 0
        }));
        // Pointers are put in only now, when nothing grows any more.
        self.headers.clear();
        let mut part = self.counts[..first].iter().sum::<usize>();
        for number in first..self.names.len() {
            let mut header = EMPTY_HEADER;
            let message = &mut header.msg_hdr;
            message.msg_name = (&raw mut self.names[number]).cast();
            message.msg_namelen = self.names[number].length();
            message.msg_iov = self.parts[part..].as_mut_ptr();
            message.msg_iovlen = self.counts[number] as _;
            let (control, length) = &mut self.controls[number];
            if *length > 0 {
                message.msg_control = (&raw mut *control).cast();
                message.msg_controllen = *length as _;
            }
            part += self.counts[number];
            self.headers.push(header);
        }
        loop {
            // SAFETY: the headers point to names, parts and control messages in vectors of `self`, which is borrowed for the call, within their
            // lengths; the parts point into `bytes`, which is borrowed for it as well. The system only reads.
            let result = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    self.headers.len() as _,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if result >= 0 {
                return Ok(result as usize);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// The control messages that go with a message, and their length.
#[inline]
fn control(sending: &Sending) -> (Control, usize) {
    let mut control = Control([0; CONTROL]);
    let mut length = 0;
    if sending.segment > 0 {
        append(
            &mut control,
            &mut length,
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            sending.segment,
        );
    }
    match sending.local_ip {
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(ip.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            append(&mut control, &mut length, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                ipi6_ifindex: 0,
            };
            append(&mut control, &mut length, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    (control, length)
}

/// Appends one control message.
fn append<T>(control: &mut Control, length: &mut usize, level: c_int, kind: c_int, value: T) {
    // SAFETY: these two only compute lengths.
    let (space, used) = unsafe {
        let size = size_of::<T>() as u32;
        (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size))
    };
    assert!(*length + space <= CONTROL, "CONTROL has room for a size and an address");
    // SAFETY: header and value fit, as was just checked; the buffer is aligned for headers and every message's space keeps it so; the value is
    // written unaligned.
    unsafe {
        let header: *mut libc::cmsghdr = control.0.as_mut_ptr().add(*length).cast();
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = used as _;
        std::ptr::write_unaligned(libc::CMSG_DATA(header).cast(), value);
    }
    *length += space;
}
