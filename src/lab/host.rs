//! Hosts: a machine with interfaces, sockets and one engine; and the engines that the lab can run.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::agenda::Slot;
use super::crypto::Randomness;
use super::events::{OwnedEvent, RecordedEvent};
use super::network::{AttachmentId, RouterId};
use super::random::Generator;
use crate::engine::{Datagram, Engine, SocketName, Transmit};
use crate::peer::Node;
use crate::peer::api::nat::MappingId;
use crate::peer::api::{SideEffect, SideEffectAnswer};
use crate::server::Server;
use crate::server::proxy_server::ProxyServer;

/// What the lab can run: an engine, and how to get out of it what is not a datagram.
pub trait LabEngine: Engine + Any {
    /// Moves all events and side effects out. `reliable_room` as in [`Node::poll_event`]. Calls [`Outputs::event`] or
    /// [`Outputs::side_effect`] for each, which end a loop that never ends.
    fn drain(&mut self, reliable_room: bool, outputs: &mut Outputs) {
        let _ = (reliable_room, outputs);
    }

    /// Takes the answer to a side effect.
    fn answer(&mut self, now: Instant, answer: SideEffectAnswer) {
        let _ = (now, answer);
    }

    /// The stream of that number has ended.
    fn stream_closed(&mut self, now: Instant, number: u32) {
        let _ = (now, number);
    }
}

/// Where an engine's outputs go.
pub struct Outputs {
    pub(super) events: Vec<OwnedEvent>,
    pub(super) side_effects: Vec<SideEffect>,
    pub(super) effort: Effort,
}

impl Outputs {
    /// An event came out.
    pub fn event(&mut self, event: impl Into<OwnedEvent>) {
        self.effort.spend();
        self.events.push(event.into());
    }

    /// A side effect came out.
    pub fn side_effect(&mut self, side_effect: SideEffect) {
        self.effort.spend();
        self.side_effects.push(side_effect);
    }
}

/// Outputs that one call into an engine may lead to before it counts as one that never settles. A saturated sender with
/// the largest windows has some thousand packets, a full event queue 100,000 messages.
pub(super) const MAX_OUTPUTS: u32 = 1_000_000;
/// Deadlines that an engine may have within one virtual millisecond. A paced sender at 1 Gbit/s has a hundred.
pub(super) const MAX_WAKES_PER_MILLISECOND: u32 = 10_000;

/// Counts outputs and panics when an engine never settles.
pub(super) struct Effort {
    left: u32,
    seed: u64,
    host: Rc<str>,
}

impl Effort {
    pub(super) fn new(seed: u64, host: Rc<str>) -> Self {
        Self {
            left: MAX_OUTPUTS,
            seed,
            host,
        }
    }

    pub(super) fn spend(&mut self) {
        self.left -= 1;
        assert!(
            self.left > 0,
            "engine never settles: host {} gave {MAX_OUTPUTS} outputs after one input (lab seed {})",
            self.host,
            self.seed
        );
    }
}

impl LabEngine for Node {
    fn drain(&mut self, reliable_room: bool, outputs: &mut Outputs) {
        while let Some(event) = self.poll_event(reliable_room) {
            outputs.event(event);
        }
        while let Some(side_effect) = self.poll_side_effect() {
            outputs.side_effect(side_effect);
        }
    }

    fn answer(&mut self, now: Instant, answer: SideEffectAnswer) {
        self.side_effect_answer(now, answer);
    }

    fn stream_closed(&mut self, now: Instant, number: u32) {
        let text = "reset".to_owned();
        let tunnel = number;
        self.side_effect_answer(now, SideEffectAnswer::TunnelClosed { tunnel, text });
    }
}

impl LabEngine for Server {
    fn stream_closed(&mut self, now: Instant, number: u32) {
        self.tunnel_closed(now, number);
    }
}

impl LabEngine for ProxyServer {}

/// A datagram that a [`RawHost`] received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// When.
    pub time: Duration,
    /// On which socket.
    pub socket: SocketName,
    /// From whom.
    pub source: SocketAddr,
    /// What.
    pub contents: Vec<u8>,
}

/// A plain UDP endpoint that records what it receives and sends what the test wants: for observing routers and links from
/// outside, and for sending what no engine would.
pub struct RawHost {
    started: Instant,
    outbox: VecDeque<(Transmit, Vec<u8>)>,
    received: Vec<Received>,
    echoes: bool,
}

impl RawHost {
    pub(super) fn new(started: Instant, echoes: bool) -> Self {
        Self {
            started,
            outbox: VecDeque::new(),
            received: Vec::new(),
            echoes,
        }
    }

    /// What has been received, in order.
    pub fn received(&self) -> &[Received] {
        &self.received
    }

    pub(super) fn take_received(&mut self) -> Vec<Received> {
        std::mem::take(&mut self.received)
    }

    pub(super) fn send(&mut self, transmit: Transmit, contents: &[u8]) {
        self.outbox.push_back((transmit, contents.to_vec()));
    }
}

impl Engine for RawHost {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        if self.echoes {
            let transmit = Transmit {
                socket: datagram.socket,
                destination: datagram.source,
                ecn: datagram.ecn,
                size: datagram.contents.len(),
                segment_size: None,
                time_to_live: None,
            };
            self.outbox.push_back((transmit, datagram.contents.to_vec()));
        }
        self.received.push(Received {
            time: now.duration_since(self.started),
            socket: datagram.socket,
            source: datagram.source,
            contents: datagram.contents.to_vec(),
        });
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self, _now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, contents) = self.outbox.pop_front()?;
        buffer.extend_from_slice(&contents);
        Some(transmit)
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }
}

impl LabEngine for RawHost {}

/// What an engine is made from.
#[derive(Debug, Clone, Copy)]
pub struct Startup {
    /// The time.
    pub now: Instant,
    /// Its seed: differs by lab seed, host, and incarnation.
    pub seed: [u8; 32],
    /// 0 at first, one more with each restart.
    pub incarnation: u64,
}

/// Makes a host's engine, at first and at each restart.
pub(super) type Factory = Box<dyn Fn(Startup) -> Box<dyn LabEngine>>;

/// Datagrams of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostCounters {
    /// Sent.
    pub sent: u64,
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Received.
    pub received: u64,
    /// Bytes of UDP payload received.
    pub bytes_received: u64,
}

pub(super) struct Host {
    pub(super) name: Rc<str>,
    pub(super) interfaces: Vec<(AttachmentId, Vec<IpAddr>)>,
    pub(super) sockets: BTreeMap<SocketName, SocketAddr>,
    pub(super) factory: Option<Factory>,
    /// `None`: not started, or crashed.
    pub(super) engine: Option<Box<dyn LabEngine>>,
    pub(super) incarnation: u64,
    pub(super) randomness: Randomness,
    pub(super) events: Vec<RecordedEvent>,
    pub(super) reliable_room: bool,
    pub(super) wake: Option<Slot>,
    /// Deadlines in this millisecond.
    pub(super) wakes: (u128, u32),
    pub(super) counters: HostCounters,
    /// Ports that routers forward: the try, the router, the outside address there.
    pub(super) forwarded: BTreeMap<MappingId, (RouterId, SocketAddr)>,
    /// Chooses ports for sockets that do not ask for one.
    generator: Generator,
}

/// The ports that the system gives, in no order, to sockets which do not ask for one (Linux's range).
const EPHEMERAL_PORTS: std::ops::Range<u16> = 32_768..61_000;

impl Host {
    pub(super) fn new(name: &str, randomness: Randomness, generator: Generator) -> Self {
        Self {
            name: name.into(),
            interfaces: Vec::new(),
            sockets: BTreeMap::new(),
            factory: None,
            engine: None,
            incarnation: 0,
            randomness,
            events: Vec::new(),
            reliable_room: true,
            wake: None,
            wakes: (0, 0),
            counters: HostCounters::default(),
            forwarded: BTreeMap::new(),
            generator,
        }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces
            .iter()
            .flat_map(|(_, addresses)| addresses.iter().copied())
    }

    /// The socket that receives what is sent to `destination`; one bound to the very address comes first.
    pub(super) fn socket_for(&self, destination: SocketAddr) -> Option<SocketName> {
        let fits = |bound: &SocketAddr| {
            *bound == destination
                || (bound.port() == destination.port()
                    && bound.ip().is_unspecified()
                    && bound.is_ipv4() == destination.is_ipv4())
        };
        let exact = self.sockets.iter().find(|(_, bound)| **bound == destination);
        exact
            .or_else(|| self.sockets.iter().find(|(_, bound)| fits(bound)))
            .map(|(name, _)| *name)
    }

    /// The bound address of a socket. Sockets for birthday punching open themselves at their first use.
    pub(super) fn bound(&mut self, socket: SocketName, destination: SocketAddr) -> Option<SocketAddr> {
        if let Some(bound) = self.sockets.get(&socket) {
            return Some(*bound);
        }
        if !matches!(socket, SocketName::Birthday(_)) {
            return None;
        }
        let address: IpAddr = if destination.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        Some(self.open_ephemeral(socket, address))
    }

    fn open_ephemeral(&mut self, socket: SocketName, address: IpAddr) -> SocketAddr {
        let bound = loop {
            let port = self.generator.random_range(EPHEMERAL_PORTS);
            if self.sockets.values().all(|bound| bound.port() != port) {
                break SocketAddr::new(address, port);
            }
        };
        self.sockets.insert(socket, bound);
        bound
    }

    /// Opens a run of sockets for birthday punching and measurements.
    pub(super) fn open_pool(&mut self, first: u16, count: u16, ipv6: bool) -> Vec<(SocketName, SocketAddr)> {
        let address: IpAddr = if ipv6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let names = (0..count).map(|number| SocketName::Birthday(first.wrapping_add(number)));
        names.map(|name| (name, self.open_ephemeral(name, address))).collect()
    }
}
