//! Passing time, and driving engines through it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::agenda::Happening;
use super::host::{Effort, MAX_WAKES_PER_MILLISECOND, Outputs, Startup};
use super::network::{DEFAULT_TIME_TO_LIVE, Lost, Packet, Step};
use super::trace::{self, Captured, DropReason, Fate, Sent, TraceEntry};
use super::{AttachmentId, HostId, Lab, Party, RecordedEvent, derive_seed};
use crate::engine::{Datagram, SocketName, Transmit};
use crate::peer::api::{SideEffect, SideEffectAnswer};

/// Passing time.
impl Lab {
    /// Virtual time as engines are given it.
    pub fn now(&self) -> Instant {
        self.start + self.time
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.time
    }

    /// Lets that much time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.time + duration;
        while self.step(end) {}
        self.time = end;
    }

    /// Lets time pass until `condition` holds, at most for `limit`. Returns how long it took, or `None`.
    pub fn run_until(&mut self, limit: Duration, mut condition: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let begin = self.time;
        let end = begin + limit;
        loop {
            if condition(self) {
                return Some(self.time - begin);
            }
            if !self.step(end) {
                self.time = end;
                return None;
            }
        }
    }

    /// The next happening, unless it is later than `limit`.
    fn step(&mut self, limit: Duration) -> bool {
        let Some((time, happening)) = self.agenda.pop(limit) else {
            return false;
        };
        debug_assert!(time >= self.time, "time goes backwards (lab seed {})", self.seed);
        self.time = time;
        match happening {
            Happening::AtMiddle { network, packet } => {
                let step = self.internet.at_middle(time, &mut self.agenda, network, packet);
                self.after_step(step);
            }
            Happening::AtEnd { attachment, packet } => {
                let step = self.internet.at_end(time, &mut self.agenda, attachment, packet);
                self.after_step(step);
            }
            Happening::AtHost { host, packet } => self.deliver(host, packet),
            Happening::OutOfPipe { id, what } => self.out_of_pipe(id, what),
            Happening::Wake { host } => self.wake(host),
            Happening::Answer {
                host,
                incarnation,
                answer,
            } => self.answer(host, incarnation, answer),
        }
        true
    }

    fn after_step(&mut self, step: Step) {
        match step {
            Ok(None) => {}
            Ok(Some((host, packet))) => self.deliver(host, packet),
            Err(Lost { packet, reason }) => self.dropped_on_the_way(&packet, reason),
        }
    }
}

/// Driving engines.
impl Lab {
    pub(super) fn launch(&mut self, host: HostId) {
        let now = self.now();
        let state = &mut self.hosts[host.0];
        let startup = Startup {
            now,
            seed: derive_seed(
                self.seed,
                &format!("engine of incarnation {}", state.incarnation),
                host.0 as u64,
            ),
            incarnation: state.incarnation,
        };
        let factory = state
            .factory
            .as_ref()
            .expect("a host is started before it is restarted");
        let engine = state.randomness.scope(|| factory(startup));
        state.engine = Some(engine);
        self.drive(host);
    }

    fn wake(&mut self, host: HostId) {
        let now = self.now();
        let millisecond = self.time.as_millis();
        let state = &mut self.hosts[host.0];
        state.wake = None;
        if state.wakes.0 != millisecond {
            state.wakes = (millisecond, 0);
        }
        state.wakes.1 += 1;
        assert!(
            state.wakes.1 <= MAX_WAKES_PER_MILLISECOND,
            "engine never settles: host {} had {MAX_WAKES_PER_MILLISECOND} deadlines within a millisecond (lab seed {})",
            state.name,
            self.seed
        );
        if let Some(engine) = state.engine.as_deref_mut() {
            state.randomness.scope(|| engine.handle_timeout(now));
            self.drive(host);
        }
    }

    fn answer(&mut self, host: HostId, incarnation: u64, answer: SideEffectAnswer) {
        let now = self.now();
        let state = &mut self.hosts[host.0];
        if state.incarnation != incarnation {
            return;
        }
        if let Some(engine) = state.engine.as_deref_mut() {
            state.randomness.scope(|| engine.answer(now, answer));
            self.drive(host);
        }
    }

    fn deliver(&mut self, host: HostId, packet: Packet) {
        if self.is_partitioned(packet.origin, host) {
            return self.dropped_on_the_way(&packet, DropReason::Partitioned);
        }
        let now = self.now();
        let state = &mut self.hosts[host.0];
        let Some(socket) = state.socket_for(packet.destination) else {
            return self.dropped_on_the_way(&packet, DropReason::NobodyListens);
        };
        if state.engine.is_none() {
            return self.dropped_on_the_way(&packet, DropReason::HostDown);
        }
        state.counters.received += 1;
        state.counters.bytes_received += packet.contents.len() as u64;
        self.note(Fate::Delivered, host, &packet);
        if let Some(captured) = &mut self.captured {
            captured.push(Captured {
                host,
                source: packet.source,
                contents: packet.contents.clone(),
            });
        }
        if let Some(probes) = &mut self.probes {
            probes
                .entry(host)
                .or_default()
                .received(packet.source, &packet.contents);
        }
        let datagram = Datagram {
            socket,
            source: packet.source,
            destination_ip: Some(packet.destination.ip()),
            ecn: packet.ecn,
            // Copied only if a duplicate is still under way.
            contents: packet
                .contents
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..])),
        };
        let state = &mut self.hosts[host.0];
        if let Some(engine) = state.engine.as_deref_mut() {
            state.randomness.scope(|| engine.handle_datagram(now, datagram));
            self.drive(host);
        }
    }

    pub(super) fn inject_into(&mut self, host: HostId, socket: SocketName, source: SocketAddr, contents: &[u8]) {
        let now = self.now();
        let state = &mut self.hosts[host.0];
        let datagram = Datagram {
            socket,
            source,
            destination_ip: None,
            ecn: None,
            contents: BytesMut::from(contents),
        };
        if let Some(engine) = state.engine.as_deref_mut() {
            state.randomness.scope(|| engine.handle_datagram(now, datagram));
            self.drive(host);
        }
    }

    /// Drains a host's engine and plans its deadline.
    pub(super) fn drive(&mut self, host: HostId) {
        let now = self.now();
        let state = &mut self.hosts[host.0];
        let Some(mut engine) = state.engine.take() else {
            return;
        };
        let (randomness, reliable_room) = (state.randomness.clone(), state.reliable_room);
        let mut outputs = Outputs {
            events: Vec::new(),
            side_effects: Vec::new(),
            effort: Effort::new(self.seed, state.name.clone()),
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            buffer.clear();
            while let Some(transmit) = randomness.scope(|| engine.poll_transmit(now, &mut buffer)) {
                outputs.effort.spend();
                self.transmit(host, transmit, &buffer);
                buffer.clear();
            }
            randomness.scope(|| engine.drain(reliable_room, &mut outputs));
            if outputs.events.is_empty() && outputs.side_effects.is_empty() {
                break;
            }
            let time = self.time;
            let events = outputs.events.drain(..);
            self.hosts[host.0]
                .events
                .extend(events.map(|event| RecordedEvent { time, event }));
            for side_effect in outputs.side_effects.drain(..) {
                self.side_effect(host, side_effect);
            }
        }
        self.buffer = buffer;
        let deadline = randomness.scope(|| engine.poll_timeout());
        self.hosts[host.0].engine = Some(engine);
        self.plan_wake(host, deadline);
    }

    fn plan_wake(&mut self, host: HostId, deadline: Option<Instant>) {
        let at = deadline.map(|deadline| deadline.saturating_duration_since(self.start).max(self.time));
        let wake = &mut self.hosts[host.0].wake;
        if wake.map(|slot| slot.0) == at {
            return;
        }
        if let Some(slot) = wake.take() {
            self.agenda.remove(slot);
        }
        *wake = at.map(|at| self.agenda.add(at, Happening::Wake { host }));
    }

    fn side_effect(&mut self, host: HostId, side_effect: SideEffect) {
        let (id, name) = match side_effect {
            SideEffect::Resolve { id, host } => (id, host),
            SideEffect::OpenSockets { id, first, count, ipv6 } => {
                let sockets = self.hosts[host.0].open_pool(first, count, ipv6);
                return self.answer_after(host, Duration::ZERO, SideEffectAnswer::SocketsOpened { id, sockets });
            }
            SideEffect::CloseSockets(names) => {
                for name in names {
                    self.hosts[host.0].sockets.remove(&name);
                }
                return;
            }
            SideEffect::MapPort(order) => return self.order_mapping(host, order),
            SideEffect::OpenTunnel { tunnel, address, key } => return self.open_stream(host, tunnel, address, key),
            SideEffect::CloseTunnel { tunnel } => return self.close_stream(host, tunnel),
        };
        let addresses = match self.names.get(&name) {
            Some(addresses) if !addresses.is_empty() => Ok(addresses.clone()),
            Some(_) => Err(format!("{name} has no addresses")),
            None => Err(format!("{name} is not known")),
        };
        self.answer_after(host, self.resolve_time, SideEffectAnswer::Resolved { id, addresses });
    }

    pub(super) fn answer_after(&mut self, host: HostId, delay: Duration, answer: SideEffectAnswer) {
        let incarnation = self.hosts[host.0].incarnation;
        let happening = Happening::Answer {
            host,
            incarnation,
            answer,
        };
        self.agenda.add(self.time + delay, happening);
    }
}

/// Datagrams of hosts.
impl Lab {
    /// Splits a run of equal datagrams and sends each.
    fn transmit(&mut self, host: HostId, transmit: Transmit, buffer: &[u8]) {
        let contents = buffer.get(..transmit.size).unwrap_or_else(|| {
            panic!(
                "a transmit of {} bytes in a buffer of {} (lab seed {})",
                transmit.size,
                buffer.len(),
                self.seed
            )
        });
        let segment = transmit.segment_size.unwrap_or(transmit.size);
        assert!(
            segment > 0 || transmit.size == 0,
            "segments of no bytes (lab seed {})",
            self.seed
        );
        if contents.is_empty() {
            return self.send_datagram(host, transmit, &[]);
        }
        for datagram in contents.chunks(segment) {
            self.send_datagram(host, transmit, datagram);
        }
    }

    fn send_datagram(&mut self, host: HostId, transmit: Transmit, contents: &[u8]) {
        if let SocketName::Tunnel(number) = transmit.socket {
            return self.send_through(host, number, contents);
        }
        let mut packet = Packet {
            origin: host,
            source: transmit.destination,
            destination: transmit.destination,
            contents: Bytes::copy_from_slice(contents),
            ecn: transmit.ecn,
            time_to_live: transmit.time_to_live.unwrap_or(DEFAULT_TIME_TO_LIVE),
        };
        let Some((source, attachment)) = self.way_out(host, transmit) else {
            return self.dropped_on_the_way(&packet, DropReason::NoSuchSocket);
        };
        packet.source = source;
        let counters = &mut self.hosts[host.0].counters;
        counters.sent += 1;
        counters.bytes_sent += contents.len() as u64;
        self.note(Fate::Sent, host, &packet);
        self.keep_sent(host, &transmit, &packet);
        let destination = packet.destination.ip();
        if destination.is_loopback() || self.hosts[host.0].addresses().any(|address| address == destination) {
            self.agenda.add(self.time, Happening::AtHost { host, packet });
            return;
        }
        let step = self.internet.send_up(self.time, &mut self.agenda, attachment, packet);
        self.after_step(step);
    }

    fn keep_sent(&mut self, host: HostId, transmit: &Transmit, packet: &Packet) {
        if let Some(probes) = &mut self.probes {
            let probes = probes.entry(host).or_default();
            probes.sent(self.time, transmit.socket, packet.destination, &packet.contents);
        }
        if let Some(sent) = &mut self.sent {
            sent.push(Sent {
                time: self.time,
                host,
                socket: transmit.socket,
                source: packet.source,
                destination: packet.destination,
                time_to_live: transmit.time_to_live,
                contents: packet.contents.clone(),
            });
        }
    }

    /// The source address and the interface for a datagram, as a system chooses them: the interface of the socket's
    /// address; else one whose network has the destination; else the first of that IP version.
    fn way_out(&mut self, host: HostId, transmit: Transmit) -> Option<(SocketAddr, AttachmentId)> {
        let destination = transmit.destination;
        let bound = self.hosts[host.0].bound(transmit.socket, destination)?;
        if bound.is_ipv4() != destination.is_ipv4() {
            return None;
        }
        let fits = |address: &std::net::IpAddr| {
            address.is_ipv4() == destination.is_ipv4() && (bound.ip().is_unspecified() || *address == bound.ip())
        };
        let interfaces = self.hosts[host.0].interfaces.iter();
        let mut ways = interfaces.filter_map(|(attachment, addresses)| {
            let address = addresses.iter().copied().find(fits)?;
            Some((SocketAddr::new(address, bound.port()), *attachment))
        });
        let local = ways.clone().find(|way| self.internet.is_local(way.1, destination.ip()));
        local.or_else(|| ways.next())
    }

    /// Nothing gets from one to the other.
    pub(super) fn is_partitioned(&self, one: HostId, other: HostId) -> bool {
        self.partitions.iter().any(|(left, right)| {
            (self.belongs(one, *left) && self.belongs(other, *right))
                || (self.belongs(one, *right) && self.belongs(other, *left))
        }) || self
            .one_way_partitions
            .iter()
            .any(|(from, to)| self.belongs(one, *from) && self.belongs(other, *to))
    }

    fn belongs(&self, host: HostId, party: Party) -> bool {
        match party {
            Party::Host(other) => host == other,
            Party::Network(network) => {
                let mut interfaces = self.hosts[host.0].interfaces.iter();
                interfaces.any(|(attachment, _)| {
                    self.internet
                        .networks_around(*attachment)
                        .any(|around| around == network)
                })
            }
        }
    }

    fn dropped_on_the_way(&mut self, packet: &Packet, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
        self.note(Fate::Dropped(reason), packet.origin, packet);
    }

    fn note(&mut self, fate: Fate, host: HostId, packet: &Packet) {
        if let Some(trace) = &mut self.trace {
            trace.push(TraceEntry {
                time: self.time,
                fate,
                host,
                source: packet.source,
                destination: packet.destination,
                length: packet.contents.len(),
                hash: trace::hash(&packet.contents),
            });
        }
    }
}
