//! TLS streams of a lab: what the shell does over TCP, the lab does with pipes that lose nothing and keep the order.
//!
//! A pipe stands between a node and a host that listens ([`Lab::listen_for_streams`]). Its delay is that of the links between them; their loss, rate and
//! queues do not count, because TCP hides them. TCP passes routers that block UDP, unless they block it as well
//! ([`RouterConfig::blocks_tcp`](super::RouterConfig::blocks_tcp)). A stream that a partition, or a link that is down, has taken something from is dead: it delivers nothing
//! any more, as one whose packets are repeated in vain, and nobody is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::agenda::Happening;
use super::trace::Captured;
use super::{HostId, Lab};
use crate::codes::Code;
use crate::engine::{Datagram, SocketName};
use crate::peer::api::SideEffectAnswer;
use crate::transport::identity::PublicKey;

/// After which a TCP connection is given up, as in the shell.
const CONNECT_TIME: Duration = Duration::from_secs(4);
/// Ports of TCP connections on their clients' side, as servers see them.
const FIRST_CLIENT_PORT: u16 = 50_000;

/// One end of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    host: HostId,
    incarnation: u64,
    /// The number of its socket.
    number: u32,
    /// Its address as the other end sees it.
    address: SocketAddr,
}

#[derive(Debug)]
struct Pipe {
    /// The node's, then the server's.
    ends: [End; 2],
    delay: Duration,
    dead: bool,
}

/// Which pipe of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PipeId(u64);

/// What comes out of a pipe, or of the attempt to make one.
#[derive(Debug)]
pub(super) enum FromPipe {
    /// A datagram, at the end of that number.
    Datagram { to: usize, contents: Bytes },
    /// Its end, told to the end of that number.
    Closed { to: usize },
}

/// All pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pipes: BTreeMap<PipeId, Pipe>,
    listeners: BTreeMap<(HostId, u16), PublicKey>,
    next: u64,
}

impl Pipes {
    fn find(&self, host: HostId, incarnation: u64, number: u32) -> Option<(PipeId, usize)> {
        self.pipes.iter().find_map(|(id, pipe)| {
            let end = pipe
                .ends
                .iter()
                .position(|end| (end.host, end.incarnation, end.number) == (host, incarnation, number))?;
            Some((*id, end))
        })
    }
}

impl Lab {
    /// The host takes TLS streams on that TCP port, and proves that key.
    pub fn listen_for_streams(&mut self, host: HostId, port: u16, key: PublicKey) {
        self.pipes.listeners.insert((host, port), key);
    }

    /// The host takes no streams on that port any more; those that stand go on.
    pub fn refuse_streams(&mut self, host: HostId, port: u16) {
        self.pipes.listeners.remove(&(host, port));
    }

    /// Streams that a host has, at either end.
    pub fn stream_count(&self, host: HostId) -> usize {
        let pipes = self.pipes.pipes.values();
        pipes
            .filter(|pipe| pipe.ends.iter().any(|end| end.host == host))
            .count()
    }

    /// All streams of a host break; both ends are told.
    pub fn reset_streams(&mut self, host: HostId) {
        let pipes = self.pipes.pipes.iter();
        let broken: Vec<PipeId> = pipes
            .filter(|(_, pipe)| pipe.ends.iter().any(|end| end.host == host))
            .map(|(id, _)| *id)
            .collect();
        for id in broken {
            if let Some(pipe) = self.pipes.pipes.remove(&id) {
                pipe.ends.iter().for_each(|end| self.tell_end(end));
            }
        }
    }

    /// What an engine wants.
    pub(super) fn open_stream(&mut self, host: HostId, tunnel: u32, address: SocketAddr, key: Option<PublicKey>) {
        let failed = |code, text: &str| SideEffectAnswer::TunnelFailed {
            tunnel,
            code,
            text: text.to_owned(),
        };
        let interfaces = self.hosts[host.0].interfaces.iter();
        let mut own =
            interfaces.filter(|(_, addresses)| addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4()));
        let way = own.find_map(|(attachment, addresses)| {
            let own = addresses
                .iter()
                .copied()
                .find(|own| own.is_ipv4() == address.is_ipv4())?;
            self.internet.tcp_way(*attachment, own, address.ip())
        });
        let partitioned = |other| self.is_partitioned(host, other);
        let Some((other, seen_as, delay)) = way.filter(|(other, ..)| !partitioned(*other)) else {
            return self.answer_after(host, CONNECT_TIME, failed(Code::NoAnswer, "no answer"));
        };
        let listening = self.pipes.listeners.get(&(other, address.port())).copied();
        let Some(proven) = listening.filter(|_| self.is_running(other)) else {
            return self.answer_after(host, 2 * delay, failed(Code::NoAnswer, "refused"));
        };
        // TCP's handshake, then TLS'.
        let established = 4 * delay;
        if key.is_some_and(|key| key != proven) {
            let text = format!("another key ({})", proven.to_hex());
            return self.answer_after(host, established, failed(Code::WrongKey, &text));
        }
        let number = self.pipes.next;
        self.pipes.next += 1;
        let seen_as = SocketAddr::new(seen_as, FIRST_CLIENT_PORT + (number % 10_000) as u16);
        let end = |host: HostId, number, address| End {
            host,
            incarnation: self.hosts[host.0].incarnation,
            number,
            address,
        };
        let ends = [end(host, tunnel, seen_as), end(other, number as u32, address)];
        let dead = false;
        self.pipes.pipes.insert(PipeId(number), Pipe { ends, delay, dead });
        self.answer_after(host, established, SideEffectAnswer::TunnelOpened { tunnel });
    }

    fn find_pipe(&self, host: HostId, number: u32) -> Option<(PipeId, usize)> {
        self.pipes.find(host, self.hosts[host.0].incarnation, number)
    }

    /// What an engine wants no more.
    pub(super) fn close_stream(&mut self, host: HostId, tunnel: u32) {
        if let Some((id, end)) = self.find_pipe(host, tunnel) {
            let delay = self.pipes.pipes[&id].delay;
            self.tell_of_end(id, 1 - end, delay);
        }
    }

    /// A host's programs are gone, and its system says so.
    pub(super) fn end_streams_of(&mut self, host: HostId) {
        let pipes = self.pipes.pipes.iter();
        let ended: Vec<(PipeId, usize, Duration)> = pipes
            .filter_map(|(id, pipe)| {
                let end = pipe.ends.iter().position(|end| end.host == host)?;
                Some((*id, 1 - end, pipe.delay))
            })
            .collect();
        for (id, to, delay) in ended {
            self.tell_of_end(id, to, delay);
        }
    }

    /// That end hears after the delay that the stream is over.
    fn tell_of_end(&mut self, id: PipeId, to: usize, delay: Duration) {
        let what = FromPipe::Closed { to };
        self.agenda.add(self.time + delay, Happening::OutOfPipe { id, what });
    }

    /// An engine sends through a stream.
    pub(super) fn send_through(&mut self, host: HostId, number: u32, contents: &[u8]) {
        let Some((id, from)) = self.find_pipe(host, number) else {
            return;
        };
        let contents = Bytes::copy_from_slice(contents);
        let what = FromPipe::Datagram { to: 1 - from, contents };
        let delay = self.pipes.pipes[&id].delay;
        self.agenda.add(self.time + delay, Happening::OutOfPipe { id, what });
    }

    /// Something has come to the end of a pipe.
    pub(super) fn out_of_pipe(&mut self, id: PipeId, what: FromPipe) {
        let Some(pipe) = self.pipes.pipes.get(&id) else { return };
        let ([node, server], dead) = (pipe.ends, pipe.dead);
        let cut = self.is_partitioned(node.host, server.host) || !self.is_connected(node.host);
        match what {
            FromPipe::Closed { to } => {
                self.pipes.pipes.remove(&id);
                if !dead && !cut {
                    self.tell_end(&[node, server][to]);
                }
            }
            FromPipe::Datagram { to, contents } if !dead && !cut => {
                let (end, other) = ([node, server][to], [node, server][1 - to]);
                self.deliver_from_pipe(end, other.address, contents);
            }
            FromPipe::Datagram { .. } => {
                if let Some(pipe) = self.pipes.pipes.get_mut(&id) {
                    pipe.dead = true;
                }
            }
        }
    }

    fn tell_end(&mut self, end: &End) {
        let (number, now) = (end.number, self.now());
        let state = &mut self.hosts[end.host.0];
        if state.incarnation != end.incarnation {
            return;
        }
        if let Some(engine) = state.engine.as_deref_mut() {
            state.randomness.scope(|| engine.stream_closed(now, number));
            self.drive(end.host);
        }
    }

    fn deliver_from_pipe(&mut self, end: End, source: SocketAddr, contents: Bytes) {
        let now = self.now();
        let state = &mut self.hosts[end.host.0];
        if state.incarnation != end.incarnation {
            return;
        }
        if let Some(captured) = &mut self.captured {
            let contents = contents.clone();
            captured.push(Captured {
                host: end.host,
                source,
                contents,
            });
        }
        let datagram = Datagram {
            socket: SocketName::Tunnel(end.number),
            source,
            destination_ip: None,
            ecn: None,
            contents: BytesMut::from(&contents[..]),
        };
        if let Some(engine) = state.engine.as_deref_mut() {
            state.randomness.scope(|| engine.handle_datagram(now, datagram));
            self.drive(end.host);
        }
    }

    /// Whether the host has a cable in at least one interface.
    fn is_connected(&self, host: HostId) -> bool {
        let mut interfaces = self.hosts[host.0].interfaces.iter();
        interfaces.any(|(attachment, _)| self.internet.is_connected(*attachment))
    }

    /// The address of a stream's other end, as that host sees it; for tests that send what no engine would.
    ///
    /// # Panics
    /// If the host has no such stream.
    pub fn stream_source(&self, host: HostId, number: u32) -> SocketAddr {
        let (id, end) = self.find_pipe(host, number).expect("the host has that stream");
        self.pipes.pipes[&id].ends[1 - end].address
    }

    /// The numbers of a host's streams.
    pub fn streams(&self, host: HostId) -> Vec<u32> {
        let ends = self.pipes.pipes.values().flat_map(|pipe| pipe.ends);
        ends.filter(|end| end.host == host).map(|end| end.number).collect()
    }
}
