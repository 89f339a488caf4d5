//! The load: flows between two sockets, one datagram or a burst of each in turn, as fast as it goes or at a rate. One thread, the same for every forwarder.
//!
//! Every flow has an address of its own at either end (127.1.0.n and 127.2.0.n, or what the kernel's router needs), all behind two sockets that are
//! bound to all addresses; packets name their source. What comes back is counted if it is as long as it should be and carries the mark.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use lanline::relay::ticket::DataKey;
use lanline::wire::relay::{DATA_AUTHENTICATED, DATA_HEADER};

/// Bytes of a game's packet, without anybody's framing.
pub const PAYLOAD: usize = 120;
/// Packets of one flow in a burst.
pub const BURST: usize = 8;
/// Marks our packets; behind it the moment of sending in nanoseconds.
const MARK: [u8; 8] = *b"relaying";
/// Room for the longest framing.
const ROOM: usize = 160;
/// Messages that are received in one call.
const BATCH: usize = 256;
const BUFFER: usize = 16 << 20;
/// Nothing came for so long: nothing is under way.
const QUIET: Duration = Duration::from_millis(20);

/// What stands before the payload on its way to the forwarder.
#[derive(Clone)]
pub enum Framing {
    /// Nothing.
    None,
    /// A relay frame: header as it is but for counter and tag.
    Relay {
        header: [u8; DATA_HEADER],
        key: DataKey,
        counter: u64,
    },
    /// TURN's ChannelData.
    Channel(u16),
}

impl Framing {
    fn length(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Relay { .. } => DATA_HEADER,
            Self::Channel(_) => 4,
        }
    }

    fn write(&mut self, out: &mut [u8]) {
        match self {
            Self::None => {}
            Self::Relay { header, key, counter } => {
                *counter += 1;
                header[6..12].copy_from_slice(&counter.to_be_bytes()[2..]);
                let authenticated: [u8; DATA_AUTHENTICATED] = *header.first_chunk().expect("a header");
                header[DATA_AUTHENTICATED..].copy_from_slice(&key.data_tag(&authenticated));
                out[..DATA_HEADER].copy_from_slice(header);
            }
            Self::Channel(number) => {
                out[..2].copy_from_slice(&number.to_be_bytes());
                out[2..4].copy_from_slice(&(PAYLOAD as u16).to_be_bytes());
            }
        }
    }
}

/// One direction of one pair.
pub struct Flow {
    /// From the second socket to the first.
    pub back: bool,
    pub source: Ipv4Addr,
    pub destination: SocketAddrV4,
    pub framing: Framing,
}

/// Two sockets at all addresses.
pub struct Ends {
    pub sockets: [UdpSocket; 2],
}

impl Ends {
    /// At any two free ports, or at these.
    pub fn new(ports: [u16; 2]) -> io::Result<Self> {
        let open = |port| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            let buffer = BUFFER as libc::c_int;
            // SAFETY: the value lives through the calls, and is as long as is said.
            unsafe {
                for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
                    libc::setsockopt(
                        socket.as_raw_fd(),
                        libc::SOL_SOCKET,
                        option,
                        (&raw const buffer).cast(),
                        4,
                    );
                }
            }
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        Ok(Self {
            sockets: [open(ports[0])?, open(ports[1])?],
        })
    }

    pub fn port(&self, end: usize) -> u16 {
        self.sockets[end].local_addr().expect("it is bound").port()
    }

    /// Sends one datagram from an address of this machine.
    pub fn send_from(&self, end: usize, source: Ipv4Addr, destination: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        let mut batch = Batch::new(1);
        batch.set(0, source, destination, bytes.as_ptr(), bytes.len(), 0);
        batch.send(&self.sockets[end], 1)
    }

    /// The next datagram at an end, within a second.
    pub fn receive(&self, end: usize) -> io::Result<Vec<u8>> {
        let begin = Instant::now();
        let mut buffer = [0; 2_048];
        loop {
            match self.sockets[end].recv(&mut buffer) {
                Ok(length) => return Ok(buffer[..length].to_vec()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(error) if begin.elapsed() > Duration::from_secs(1) => return Err(error),
                Err(_) => {}
            }
        }
    }
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// Messages to be sent in one call, one a flow.
struct Batch {
    names: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
    parts: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Batch {
    fn new(count: usize) -> Self {
        // SAFETY: numbers and pointers, for which zero is a value.
        unsafe {
            Self {
                names: vec![std::mem::zeroed(); count],
                controls: vec![Control([0; 64]); count],
                parts: vec![std::mem::zeroed(); count],
                headers: vec![std::mem::zeroed(); count],
            }
        }
    }

    fn set(&mut self, place: usize, source: Ipv4Addr, to: SocketAddrV4, bytes: *const u8, length: usize, segment: u16) {
        self.names[place] = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(to.ip().octets()),
            },
            sin_zero: [0; 8],
        };
        self.parts[place] = libc::iovec {
            iov_base: bytes.cast_mut().cast(),
            iov_len: length,
        };
        let header = &mut self.headers[place].msg_hdr;
        header.msg_name = (&raw mut self.names[place]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        header.msg_iov = &raw mut self.parts[place];
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut self.controls[place]).cast();
        // SAFETY: two control messages have room in 64 bytes (32 and 24), and the buffer is aligned for them.
        unsafe {
            header.msg_controllen = 64;
            let control = libc::CMSG_FIRSTHDR(header);
            (*control).cmsg_level = libc::IPPROTO_IP;
            (*control).cmsg_type = libc::IP_PKTINFO;
            (*control).cmsg_len = libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as u32) as usize;
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(source.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            std::ptr::write_unaligned(libc::CMSG_DATA(control).cast(), info);
            header.msg_controllen = libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32) as usize;
            if segment > 0 {
                let start = header.msg_controllen;
                let control: *mut libc::cmsghdr = self.controls[place].0.as_mut_ptr().add(start).cast();
                (*control).cmsg_level = libc::SOL_UDP;
                (*control).cmsg_type = libc::UDP_SEGMENT;
                (*control).cmsg_len = libc::CMSG_LEN(2) as usize;
                std::ptr::write_unaligned(libc::CMSG_DATA(control).cast(), segment);
                header.msg_controllen += libc::CMSG_SPACE(2) as usize;
            }
        }
    }

    fn send(&mut self, socket: &UdpSocket, count: usize) -> io::Result<()> {
        let mut sent = 0;
        while sent < count {
            // SAFETY: the headers were made by `set` and point into `self` and to bytes that the caller keeps.
            let result = unsafe {
                let rest = self.headers.as_mut_ptr().add(sent);
                libc::sendmmsg(socket.as_raw_fd(), rest, (count - sent) as u32, 0)
            };
            if result <= 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::WouldBlock {
                    continue;
                }
                return Err(error);
            }
            sent += result as usize;
        }
        Ok(())
    }
}

/// What came back.
#[derive(Default, Clone)]
pub struct Received {
    pub packets: u64,
    /// Not ours, or not as long as it should be.
    pub odd: u64,
    /// Nanoseconds from sending to receiving, of some packets.
    pub times: Vec<u64>,
}

struct Sink {
    room: Vec<u8>,
    /// Kept only because the headers point to it.
    _parts: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Sink {
    fn new() -> Self {
        let mut room = vec![0; ROOM * BATCH];
        let mut parts: Vec<libc::iovec> = room
            .chunks_exact_mut(ROOM)
            .map(|chunk| libc::iovec {
                iov_base: chunk.as_mut_ptr().cast(),
                iov_len: ROOM,
            })
            .collect();
        let headers = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: numbers and pointers, for which zero is a value.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = part;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Self {
            room,
            _parts: parts,
            headers,
        }
    }

    /// Takes what is there; true if there may be more.
    fn take(&mut self, socket: &UdpSocket, epoch: Instant, keep_times: bool, received: &mut Received) -> bool {
        // SAFETY: the headers point to parts and room that live as long as this.
        let count = unsafe {
            let flags = libc::MSG_DONTWAIT;
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as u32,
                flags,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            return false;
        };
        let now = if keep_times {
            epoch.elapsed().as_nanos() as u64
        } else {
            0
        };
        for (place, header) in self.headers[..count].iter().enumerate() {
            let bytes = &self.room[place * ROOM..][..(header.msg_len as usize).min(ROOM)];
            let payload = match bytes.len() {
                PAYLOAD => bytes,
                length if length == PAYLOAD + DATA_HEADER => &bytes[DATA_HEADER..],
                length if length == PAYLOAD + 4 => &bytes[4..],
                _ => &[],
            };
            if !payload.starts_with(&MARK) {
                received.odd += 1;
                continue;
            }
            received.packets += 1;
            if keep_times && let Some(sent) = payload[8..].first_chunk() {
                received.times.push(now.saturating_sub(u64::from_le_bytes(*sent)));
            }
        }
        count == BATCH
    }
}

/// How to send.
#[derive(Clone, Copy)]
pub struct Load {
    /// Packets of a flow in one go: 1 or [`BURST`].
    pub burst: usize,
    /// Packets a second of all flows together; 0: as many as go.
    pub rate: u64,
    /// For so long.
    pub time: Duration,
}

/// What was sent and what came back, in what time.
pub struct Outcome {
    pub sent: u64,
    pub received: Received,
    pub seconds: f64,
}

/// Sends all flows in turn.
pub struct Generator<'a> {
    ends: &'a Ends,
    flows: &'a mut [Flow],
    sink: Sink,
    bytes: Vec<u8>,
    batches: [Batch; 2],
    epoch: Instant,
}

impl<'a> Generator<'a> {
    pub fn new(ends: &'a Ends, flows: &'a mut [Flow]) -> Self {
        let count = flows.len();
        Self {
            ends,
            flows,
            sink: Sink::new(),
            bytes: vec![0xa5; ROOM * BURST * count],
            batches: [Batch::new(count), Batch::new(count)],
            epoch: Instant::now(),
        }
    }

    /// Sends one packet, or one burst, of every flow.
    fn round(&mut self, burst: usize) -> io::Result<u64> {
        let mut counts = [0; 2];
        let now = self.epoch.elapsed().as_nanos() as u64;
        for (number, flow) in self.flows.iter_mut().enumerate() {
            let length = flow.framing.length() + PAYLOAD;
            let bytes = &mut self.bytes[number * ROOM * BURST..][..length * burst];
            for packet in bytes.chunks_exact_mut(length) {
                let (frame, payload) = packet.split_at_mut(length - PAYLOAD);
                flow.framing.write(frame);
                payload[..8].copy_from_slice(&MARK);
                payload[8..16].copy_from_slice(&now.to_le_bytes());
            }
            let end = usize::from(flow.back);
            let segment = if burst > 1 { length as u16 } else { 0 };
            let (place, total) = (counts[end], bytes.len());
            self.batches[end].set(place, flow.source, flow.destination, bytes.as_ptr(), total, segment);
            counts[end] += 1;
        }
        for ((batch, socket), count) in self.batches.iter_mut().zip(&self.ends.sockets).zip(counts) {
            batch.send(socket, count)?;
        }
        Ok((self.flows.len() * burst) as u64)
    }

    fn take(&mut self, keep_times: bool, received: &mut Received) {
        for socket in &self.ends.sockets {
            while self.sink.take(socket, self.epoch, keep_times, received) {}
        }
    }

    /// Takes what is under way, until nothing comes any more.
    pub fn settle(&mut self, keep_times: bool, received: &mut Received) {
        let mut last = (Instant::now(), received.packets);
        while last.0.elapsed() < QUIET {
            self.take(keep_times, received);
            if received.packets != last.1 {
                last = (Instant::now(), received.packets);
            }
        }
    }

    /// Sends for a while, and waits for what is under way. At a rate, the times of all packets are kept.
    pub fn run(&mut self, load: Load) -> io::Result<Outcome> {
        let (begin, mut sent, mut received) = (Instant::now(), 0, Received::default());
        let keep_times = load.rate > 0;
        while begin.elapsed() < load.time {
            if load.rate == 0 || sent <= (begin.elapsed().as_secs_f64() * load.rate as f64) as u64 {
                sent += self.round(load.burst)?;
            }
            self.take(keep_times, &mut received);
        }
        let seconds = begin.elapsed().as_secs_f64();
        self.settle(keep_times, &mut received);
        Ok(Outcome {
            sent,
            received,
            seconds,
        })
    }

    /// One packet of every flow at a time: nanoseconds from end to end, sorted.
    pub fn ping(&mut self, count: usize) -> io::Result<Vec<u64>> {
        let (mut received, mut sent) = (Received::default(), 0);
        for _ in 0..count {
            sent += self.round(1)?;
            let begin = Instant::now();
            while received.packets < sent && begin.elapsed() < Duration::from_millis(100) {
                self.take(true, &mut received);
            }
            if received.packets < sent {
                return Err(io::Error::other("a packet did not come back"));
            }
        }
        received.times.sort_unstable();
        Ok(received.times)
    }
}
