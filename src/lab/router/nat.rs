//! The state of a router: mappings, filters, ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::RngExt;

use super::super::network::Packet;
use super::super::random::Generator;
use super::super::trace::DropReason;
use super::forwards::{Forwards, Grant, Refusal};
use super::{Allocation, Dependence, Pooling, RouterConfig, Translation};
use crate::codes::MappingProtocol;

/// Ports that mappings get: not the well-known ones.
const FIRST_PORT: u16 = 1024;
const LAST_PORT: u16 = u16::MAX;

/// Where a datagram from inside goes on.
#[derive(Debug)]
pub(crate) enum Way {
    /// Out.
    Outside(Packet),
    /// Back in (hairpin).
    Inside(Packet),
}

/// The part of a remote endpoint that counts.
type RemoteKey = (Option<IpAddr>, Option<u16>);

fn remote_key(dependence: Dependence, remote: SocketAddr) -> RemoteKey {
    match dependence {
        Dependence::EndpointIndependent => (None, None),
        Dependence::Address => (Some(remote.ip()), None),
        Dependence::AddressAndPort => (Some(remote.ip()), Some(remote.port())),
    }
}

#[derive(Debug)]
struct Mapping {
    internal: SocketAddr,
    remote: RemoteKey,
    external: SocketAddr,
    refreshed: Duration,
    /// Who may send in, and when that was refreshed.
    permitted: BTreeMap<RemoteKey, Duration>,
}

/// A router at work.
pub(crate) struct RouterState {
    config: RouterConfig,
    /// Outside IPv4 addresses.
    public: Vec<IpAddr>,
    generator: Generator,
    mappings: BTreeMap<u64, Mapping>,
    by_internal: BTreeMap<(SocketAddr, RemoteKey), u64>,
    by_external: BTreeMap<SocketAddr, Vec<u64>>,
    next_mapping: u64,
    next_sweep: Duration,
    /// The port that a sequential allocation gave last, and when.
    last_port: i32,
    last_allocation: Duration,
    blocks: BTreeMap<IpAddr, u16>,
    paired: BTreeMap<IpAddr, IpAddr>,
    forwards: Forwards,
    /// When the window of each inside address began, and its datagrams since.
    bursts: BTreeMap<IpAddr, (Duration, u32)>,
}

impl RouterState {
    pub(crate) fn new(config: RouterConfig, public: Vec<IpAddr>, mut generator: Generator) -> Self {
        let last_port = generator.random_range(i32::from(FIRST_PORT)..=i32::from(LAST_PORT));
        Self {
            config,
            public,
            generator,
            mappings: BTreeMap::new(),
            by_internal: BTreeMap::new(),
            by_external: BTreeMap::new(),
            next_mapping: 0,
            next_sweep: Duration::ZERO,
            last_port,
            last_allocation: Duration::ZERO,
            blocks: BTreeMap::new(),
            paired: BTreeMap::new(),
            forwards: Forwards::default(),
            bursts: BTreeMap::new(),
        }
    }

    pub(crate) fn config(&self) -> &RouterConfig {
        &self.config
    }

    pub(crate) fn set_config(&mut self, config: RouterConfig) {
        self.config = config;
    }

    pub(crate) fn public(&self) -> &[IpAddr] {
        &self.public
    }

    /// Forgets every mapping, as a router does that loses its power. Ports that its owner forwarded by hand stay.
    pub(crate) fn reboot(&mut self, now: Duration) {
        self.forwards.reboot(now);
        self.mappings.clear();
        self.by_internal.clear();
        self.by_external.clear();
        self.blocks.clear();
    }

    /// Gets other outside addresses, from its provider. Every mapping ends with them.
    pub(crate) fn renumber(&mut self, now: Duration, public: Vec<IpAddr>) {
        self.reboot(now);
        self.paired.clear();
        self.public = public;
    }

    /// A program inside asks for a port.
    pub(crate) fn map_port(
        &mut self,
        now: Duration,
        protocol: MappingProtocol,
        internal: SocketAddr,
        wanted: u16,
        lifetime: u32,
    ) -> Result<Grant, Refusal> {
        let external = SocketAddr::new(self.forwarding_address(internal.ip()), wanted);
        let timeout = self.config.mapping_timeout;
        let in_use = |external: SocketAddr| {
            let held = self.by_external.get(&external);
            held.into_iter().flatten().any(|id| {
                let mapping = &self.mappings[id];
                mapping.internal != internal && now < mapping.refreshed + timeout
            })
        };
        let order = (protocol, internal, external, lifetime);
        let mut grant = self.forwards.grant(
            now,
            &self.config.port_mapping,
            order,
            self.translates(internal.ip()),
            in_use,
        )?;
        if let Some(claimed) = self.config.port_mapping.claims {
            grant.claimed.set_ip(claimed);
        }
        Ok(grant)
    }

    /// A program inside gives its port back.
    pub(crate) fn unmap_port(&mut self, external: SocketAddr) {
        self.forwards.remove(external);
    }

    /// The router's owner forwards a port by hand.
    pub(crate) fn forward_by_hand(&mut self, port: u16, internal: SocketAddr) -> SocketAddr {
        let external = SocketAddr::new(self.forwarding_address(internal.ip()), port);
        self.forwards.by_hand(external, internal);
        external
    }

    /// The outside address of ports that are forwarded to that host. Without translation its own: a hole in the firewall.
    fn forwarding_address(&mut self, internal: IpAddr) -> IpAddr {
        match self.config.pooling {
            _ if !self.translates(internal) => internal,
            Pooling::Paired => self.outside_address(internal),
            Pooling::Arbitrary => self.public[0],
        }
    }

    /// Mappings that are alive.
    pub(crate) fn mapping_count(&self, now: Duration) -> usize {
        self.mappings
            .values()
            .filter(|mapping| self.alive(mapping, now))
            .count()
    }

    fn alive(&self, mapping: &Mapping, now: Duration) -> bool {
        now < mapping.refreshed + self.config.mapping_timeout
    }

    fn translates(&self, address: IpAddr) -> bool {
        self.config.translation == Translation::Nat && address.is_ipv4()
    }

    /// A datagram from inside, on its way out.
    pub(crate) fn outbound(&mut self, now: Duration, mut packet: Packet) -> Result<Way, (Packet, DropReason)> {
        if self.config.blocks_udp {
            return Err((packet, DropReason::UdpBlocked));
        }
        let hairpins = self.public.contains(&packet.destination.ip());
        if hairpins && !self.config.hairpin {
            return Err((packet, DropReason::NoHairpin));
        }
        if !self.allows(now, packet.source.ip()) {
            return Err((packet, DropReason::Burst));
        }
        if self.config.translation != Translation::None {
            match self.outgoing_mapping(now, packet.source, packet.destination) {
                Ok(external) => packet.source = external,
                Err(reason) => return Err((packet, reason)),
            }
        }
        if hairpins {
            return self.inbound(now, packet).map(Way::Inside);
        }
        Ok(Way::Outside(packet))
    }

    /// Counts a datagram of that inside address; false if it is one too many.
    fn allows(&mut self, now: Duration, inside: IpAddr) -> bool {
        let Some(limit) = self.config.burst_limit else {
            return true;
        };
        let (began, count) = self.bursts.entry(inside).or_insert((now, 0));
        if now >= *began + limit.window {
            (*began, *count) = (now, 0);
        }
        *count += 1;
        *count <= limit.packets
    }

    /// A datagram from outside, on its way in.
    pub(crate) fn inbound(&mut self, now: Duration, mut packet: Packet) -> Result<Packet, (Packet, DropReason)> {
        if self.config.blocks_udp {
            return Err((packet, DropReason::UdpBlocked));
        }
        match self.entrance(now, packet.source, packet.destination) {
            Ok(internal) => packet.destination = internal,
            Err(reason) => return Err((packet, reason)),
        }
        if !self.allows(now, packet.destination.ip()) {
            return Err((packet, DropReason::Burst));
        }
        Ok(packet)
    }

    /// For whom a datagram from outside is.
    fn entrance(
        &mut self,
        now: Duration,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<SocketAddr, DropReason> {
        if self.config.translation == Translation::None || (destination.is_ipv6() && self.config.ipv6_open) {
            return Ok(destination);
        }
        if let Some(internal) = self.forwards.inbound(now, source, destination) {
            return Ok(internal);
        }
        let at_port = self.by_external.get(&destination).map_or(&[][..], Vec::as_slice);
        let alive = |id: &&u64| self.alive(&self.mappings[*id], now);
        let remote = remote_key(self.config.mapping, source);
        // With overloaded ports the remote endpoint says which mapping is meant.
        let mapping = at_port
            .iter()
            .filter(alive)
            .find(|id| self.mappings[*id].remote == remote)
            .or_else(|| at_port.iter().find(alive));
        let Some(&mapping) = mapping else {
            return Err(DropReason::NoMapping);
        };
        let filter_key = remote_key(self.config.filtering, source);
        let (timeout, refreshes) = (self.config.mapping_timeout, self.config.inbound_refreshes);
        let mapping = self.mappings.get_mut(&mapping).expect("indexed mappings exist");
        match mapping.permitted.get_mut(&filter_key) {
            Some(refreshed) if now < *refreshed + timeout => {
                if refreshes {
                    *refreshed = now;
                    mapping.refreshed = now;
                }
            }
            _ => return Err(DropReason::Filtered),
        }
        Ok(mapping.internal)
    }

    /// The outside endpoint of a datagram from inside; made if there is none, and refreshed.
    fn outgoing_mapping(
        &mut self,
        now: Duration,
        internal: SocketAddr,
        remote: SocketAddr,
    ) -> Result<SocketAddr, DropReason> {
        let translates = self.translates(internal.ip());
        let timeout = self.config.mapping_timeout;
        if let Some(external) = self.forwards.reply(now, timeout, internal, remote) {
            return Ok(external);
        }
        let dependence = if translates {
            self.config.mapping
        } else {
            Dependence::EndpointIndependent
        };
        let key = (internal, remote_key(dependence, remote));
        let known = self.by_internal.get(&key).copied();
        let id = match known.filter(|id| self.alive(&self.mappings[id], now)) {
            Some(id) => id,
            None => {
                if let Some(id) = known {
                    self.remove(id);
                }
                // A forwarded port is a mapping that depends on nothing (RFC 6887, section 11.3).
                if dependence == Dependence::EndpointIndependent
                    && let Some(external) = self.forwards.external(now, internal)
                {
                    return Ok(external);
                }
                self.sweep(now);
                let external = if translates {
                    self.allocate(now, internal, key.1)?
                } else {
                    internal
                };
                self.insert(key, external)
            }
        };
        let filter_key = remote_key(self.config.filtering, remote);
        let mapping = self.mappings.get_mut(&id).expect("it was found or made above");
        mapping.refreshed = now;
        mapping.permitted.insert(filter_key, now);
        Ok(mapping.external)
    }

    fn insert(&mut self, key: (SocketAddr, RemoteKey), external: SocketAddr) -> u64 {
        let id = self.next_mapping;
        self.next_mapping += 1;
        self.by_internal.insert(key, id);
        self.by_external.entry(external).or_default().push(id);
        let mapping = Mapping {
            internal: key.0,
            remote: key.1,
            external,
            refreshed: Duration::ZERO,
            permitted: BTreeMap::new(),
        };
        self.mappings.insert(id, mapping);
        id
    }

    fn remove(&mut self, id: u64) {
        let Some(mapping) = self.mappings.remove(&id) else {
            return;
        };
        self.by_internal.remove(&(mapping.internal, mapping.remote));
        if let Some(others) = self.by_external.get_mut(&mapping.external) {
            others.retain(|other| *other != id);
            if others.is_empty() {
                self.by_external.remove(&mapping.external);
            }
        }
    }

    /// Removes what has ended, once per time-out: keeps the tables small, changes nothing that can be observed.
    fn sweep(&mut self, now: Duration) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + self.config.mapping_timeout;
        let ended: Vec<u64> = self
            .mappings
            .iter()
            .filter(|(_, mapping)| !self.alive(mapping, now))
            .map(|(id, _)| *id)
            .collect();
        ended.into_iter().for_each(|id| self.remove(id));
    }

    fn allocate(&mut self, now: Duration, internal: SocketAddr, remote: RemoteKey) -> Result<SocketAddr, DropReason> {
        let held = self
            .mappings
            .values()
            .filter(|mapping| mapping.internal.ip() == internal.ip());
        if let Some(quota) = self.config.port_quota
            && held.filter(|mapping| self.alive(mapping, now)).count() >= quota
        {
            return Err(DropReason::QuotaExceeded);
        }
        let address = self.outside_address(internal.ip());
        let (first, last, start, step) = self.search_order(now, internal);
        let count = i32::from(last) - i32::from(first) + 1;
        for index in 0..count {
            let offset = (start - i32::from(first) + step * index).rem_euclid(count);
            let port = (i32::from(first) + offset) as u16;
            let external = SocketAddr::new(address, port);
            if self.is_free(now, internal, external, remote) {
                self.last_port = i32::from(port);
                self.last_allocation = now;
                return Ok(external);
            }
        }
        Err(DropReason::PortsExhausted)
    }

    /// The range to search, where to begin, and how to go on.
    fn search_order(&mut self, now: Duration, internal: SocketAddr) -> (u16, u16, i32, i32) {
        match self.config.allocation {
            Allocation::Preserving => (FIRST_PORT, LAST_PORT, i32::from(internal.port()), 1),
            Allocation::Sequential {
                step,
                foreign_per_second,
            } => {
                let elapsed = now.saturating_sub(self.last_allocation).as_secs_f64();
                let foreign = self.count_arrivals(foreign_per_second * elapsed);
                let step = i32::from(step);
                (FIRST_PORT, LAST_PORT, self.last_port + step * (1 + foreign), step)
            }
            Allocation::RandomInBlock { size } => {
                let first = self.block_of(internal.ip(), size);
                let last = first + (size - 1);
                (
                    first,
                    last,
                    self.generator.random_range(i32::from(first)..=i32::from(last)),
                    1,
                )
            }
            Allocation::Random => {
                let start = self
                    .generator
                    .random_range(i32::from(FIRST_PORT)..=i32::from(LAST_PORT));
                (FIRST_PORT, LAST_PORT, start, 1)
            }
        }
    }

    /// A Poisson number: how many events of a random stream come while `expected` do on average.
    fn count_arrivals(&mut self, expected: f64) -> i32 {
        // More than this many foreign mappings between two of ours go around the whole range anyway.
        const MOST: i32 = 65_536;
        let mut waited = 0.0;
        for count in 0..MOST {
            waited -= (1.0 - self.generator.random::<f64>()).ln();
            if waited > expected {
                return count;
            }
        }
        MOST
    }

    fn block_of(&mut self, internal: IpAddr, size: u16) -> u16 {
        let blocks = LAST_PORT / size;
        let lowest = FIRST_PORT.div_ceil(size).min(blocks);
        let generator = &mut self.generator;
        let block = self
            .blocks
            .entry(internal)
            .or_insert_with(|| generator.random_range(lowest..=blocks));
        *block * size
    }

    fn outside_address(&mut self, internal: IpAddr) -> IpAddr {
        let random = self.public[self.generator.random_range(0..self.public.len())];
        match self.config.pooling {
            Pooling::Arbitrary => random,
            Pooling::Paired => *self.paired.entry(internal).or_insert(random),
        }
    }

    fn is_free(&mut self, now: Duration, internal: SocketAddr, external: SocketAddr, remote: RemoteKey) -> bool {
        if self
            .forwards
            .holder(now, external)
            .is_some_and(|holder| holder != internal)
        {
            return false;
        }
        let Some(at_port) = self.by_external.get(&external) else {
            return true;
        };
        let overloads = self.config.port_overloading && remote != (None, None);
        at_port.iter().all(|id| {
            let mapping = &self.mappings[id];
            !self.alive(mapping, now) || (overloads && mapping.remote != remote)
        })
    }
}
