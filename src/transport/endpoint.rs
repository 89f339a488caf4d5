//! The endpoint: links by id, events, and lists of what has to be done.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, ConnectionId, DatagramEvent, EcnCodepoint, Endpoint, EndpointEvent,
    Incoming, NoneTokenStore,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ring::hmac;

use super::congestion;
use super::connection_id::ConnectionIdKey;
use super::half_open::{self, Class, HalfOpen, Origin, TokenClock, Verdict};
use super::identity::PublicKey;
use super::link::{Link, NewLink, Stage};
use super::timers::Timers;
use super::tls::{TlsSetup, TurnedDownKey};
use super::{
    CloseInfo, CloseReason, LinkEvent, LinkId, LinkKind, LinkStats, SendError, SyntheticAddress, TransportConfig,
    TransportCounters, config,
};
use crate::engine::SocketName;

/// One QUIC endpoint and its links.
///
/// Drained like an engine: [`poll_transmit`](Self::poll_transmit), [`poll_event`](Self::poll_event),
/// [`poll_timeout`](Self::poll_timeout).
pub struct Transport {
    pub(super) config: TransportConfig,
    endpoint: Endpoint,
    tls: TlsSetup,
    connection_ids: ConnectionIdKey,
    random: StdRng,
    /// Links by slot; a slot's number is the low part of its link's id.
    pub(super) links: Vec<Option<Box<Link>>>,
    free_slots: Vec<u32>,
    next_serial: u64,
    /// Slots by quinn's connection handle.
    slots: Vec<u32>,
    pub(super) timers: Timers,
    /// Links whose deadline may have changed.
    timer_changes: Vec<u32>,
    /// Links that may have something to transmit, served in turn.
    transmitting: VecDeque<u32>,
    /// Answers to strangers.
    responses: VecDeque<(SyntheticAddress, Vec<u8>)>,
    /// Until when packets are expected that come under the address of another link.
    straying_until: Option<Instant>,
    events: VecDeque<LinkEvent>,
    /// Links that came in from trusted sources and may be greeted early.
    greetable: VecDeque<(LinkId, SyntheticAddress)>,
    scratch: Vec<u8>,
    /// The last time that was handed in: calls that take none need it when they end a link.
    latest: Option<Instant>,
    open_links: usize,
    pub(super) incoming_handshakes: usize,
    pub(super) half_open: HalfOpen,
    token_clock: Arc<TokenClock>,
    /// Makes the synthetic addresses of strangers from the real ones.
    address_key: hmac::Key,
    counters: TransportCounters,
}

/// Bits of a [`LinkId`] that are the slot; the rest is a serial number.
const SLOT_BITS: u32 = 24;
/// Most slots.
const MAX_SLOTS: usize = 1 << SLOT_BITS;
/// Answers to strangers that wait to be sent; more are dropped.
const MAX_RESPONSES: usize = 256;
/// A datagram below this is never answered (RFC 9000 §14.1).
const MIN_ANSWERED: usize = 1200;
/// Form, fixed bit and type in a packet's first byte (RFC 9000 §17.2), and what they are in a Handshake packet.
const LONG_PACKET_TYPE: u8 = 0xf0;
const HANDSHAKE_PACKET: u8 = 0xe0;
/// After a packet came under the address of another link (two ways to one player are being sorted out), all packets are copied for so
/// long before QUIC has them, because QUIC has to be told another address. Longer than a route outlives its link.
const STRAY_TIME: Duration = Duration::from_secs(10);
/// No slot belongs to that handle.
const NO_SLOT: u32 = u32::MAX;

impl Transport {
    /// Sets the endpoint up.
    ///
    /// # Panics
    /// If the crypto provider lacks TLS 1.3 with AES-128-GCM for QUIC: a fault of the program that hands it in, found by its first test.
    pub fn new(config: TransportConfig) -> Self {
        let tls = match TlsSetup::new(&config.identity, &config.crypto) {
            Ok(tls) => tls,
            Err(error) => panic!("{error}"),
        };
        let (endpoint, connection_ids) = config::endpoint(&config.seed);
        let token_clock = Arc::new(TokenClock::default());
        let server = config.accepts.map(|kind| {
            let transport = config::transport(kind, config.lost_peer_timeout, config.keep_alive, None);
            let alpn = kind.accepted().iter().map(|kind| kind.alpn().to_vec());
            match tls.server(alpn.collect()) {
                Ok(tls) => Arc::new(config::server(&config.seed, tls, transport, token_clock.clone())),
                Err(error) => panic!("{error}"),
            }
        });
        Self {
            // The shell forbids fragmentation, so that searching for the largest packet works.
            endpoint: Endpoint::new(Arc::new(endpoint), server, true, None),
            tls,
            connection_ids,
            random: StdRng::from_seed(config::derive(&config.seed, "addresses")),
            links: Vec::new(),
            free_slots: Vec::new(),
            next_serial: 1,
            slots: Vec::new(),
            timers: Timers::default(),
            timer_changes: Vec::new(),
            transmitting: VecDeque::new(),
            responses: VecDeque::new(),
            straying_until: None,
            events: VecDeque::new(),
            greetable: VecDeque::new(),
            scratch: Vec::new(),
            latest: None,
            open_links: 0,
            incoming_handshakes: 0,
            half_open: HalfOpen::new(config.accepts),
            token_clock,
            address_key: hmac::Key::new(hmac::HMAC_SHA256, &config::derive(&config.seed, "stranger addresses")),
            counters: TransportCounters::default(),
            config,
        }
    }

    /// Draws a fresh synthetic address.
    pub fn new_address(&mut self) -> SyntheticAddress {
        let mut octets = [0; 16];
        self.random.fill_bytes(&mut octets);
        octets[0] = 0xfd;
        SyntheticAddress(octets.into())
    }

    /// The synthetic address of a stranger: always the same for the same real one, so that a Retry's token holds although the stranger was
    /// forgotten meanwhile. Not to be guessed from outside.
    pub fn address_of(&self, socket: SocketName, source: SocketAddr) -> SyntheticAddress {
        half_open::stranger_address(&self.address_key, socket, source)
    }

    /// Dials. `expected`: the key that the other side must prove; `None` accepts any and reports it. `initial_round_trip`: an estimate, so
    /// that a lost first packet is repeated soon. Ends in [`LinkEvent::Connected`] or [`LinkEvent::Closed`].
    pub fn connect(
        &mut self,
        now: Instant,
        address: SyntheticAddress,
        kind: LinkKind,
        expected: Option<PublicKey>,
        initial_round_trip: Option<Duration>,
    ) -> LinkId {
        let turned_down = TurnedDownKey::default();
        let connection = self.dial(now, address, kind, expected, initial_round_trip, turned_down.clone());
        match connection {
            Ok((handle, connection)) => {
                let slot = self.add_link(now, handle, connection, address, kind, None, turned_down);
                self.process(now, slot);
                self.links[slot as usize].as_ref().map_or(LinkId(0), |link| link.id)
            }
            Err(text) => {
                // Nothing was sent; the link exists only to say so.
                let id = LinkId(self.next_serial << SLOT_BITS | u64::from(NO_SLOT >> (32 - SLOT_BITS)));
                self.next_serial += 1;
                self.events.push_back(LinkEvent::Closed {
                    link: id,
                    reason: CloseReason::ProtocolViolation(text),
                });
                id
            }
        }
    }

    fn dial(
        &mut self,
        now: Instant,
        address: SyntheticAddress,
        kind: LinkKind,
        expected: Option<PublicKey>,
        initial_round_trip: Option<Duration>,
        turned_down: TurnedDownKey,
    ) -> Result<(ConnectionHandle, Connection), String> {
        let tls = self
            .tls
            .client(kind.alpn(), expected, turned_down)
            .map_err(|error| error.to_string())?;
        let mut first_id = [0; 16];
        self.random.fill_bytes(&mut first_id);
        let transport = config::transport(
            kind,
            self.config.lost_peer_timeout,
            self.config.keep_alive,
            initial_round_trip,
        );
        let mut client = ClientConfig::new(Arc::new(tls));
        client
            .transport_config(Arc::new(transport))
            .token_store(Arc::new(NoneTokenStore))
            .initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&first_id)));
        // The name is not sent; TLS wants one.
        self.endpoint
            .connect(now, client, socket_address(address), "lanline")
            .map_err(|error| error.to_string())
    }

    #[allow(clippy::too_many_arguments)]
    fn add_link(
        &mut self,
        now: Instant,
        handle: ConnectionHandle,
        connection: Connection,
        address: SyntheticAddress,
        kind: LinkKind,
        half_open: Option<Class>,
        turned_down: TurnedDownKey,
    ) -> u32 {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() as u32 - 1
        });
        let id = LinkId(self.next_serial << SLOT_BITS | u64::from(slot));
        self.next_serial += 1;
        if self.slots.len() <= handle.0 {
            self.slots.resize(handle.0 + 1, NO_SLOT);
        }
        self.slots[handle.0] = slot;
        let new = NewLink {
            id,
            handle,
            connection,
            address,
            dialled: half_open.is_none(),
            half_open,
            kind,
            turned_down,
            lost_peer_timeout: self.config.lost_peer_timeout,
        };
        self.links[slot as usize] = Some(Box::new(Link::new(now, new)));
        self.open_links += 1;
        if let Some(class) = half_open {
            self.half_open.add(address, class);
            self.incoming_handshakes += 1;
        }
        slot
    }

    pub(super) fn slot_of(&self, link: LinkId) -> Option<u32> {
        let slot = (link.0 & ((1 << SLOT_BITS) - 1)) as u32;
        match self.links.get(slot as usize) {
            Some(Some(found)) if found.id == link && !found.forgotten => Some(slot),
            _ => None,
        }
    }

    #[inline]
    fn link(&self, link: LinkId) -> Option<&Link> {
        self.links[self.slot_of(link)? as usize].as_deref()
    }

    /// Takes a QUIC packet that came over a path of `address`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        address: SyntheticAddress,
        ecn: Option<EcnCodepoint>,
        contents: BytesMut,
    ) {
        self.handle_datagram_from(now, address, Origin::default(), ecn, contents);
    }

    /// As [`handle_datagram`](Self::handle_datagram) for packets that may begin a connection (those with a long header): `origin` is what is
    /// known of their source. A packet of a player's link of another address is that link's all the same: its connection id says so, and its key
    /// proves it. Returns the address of the link that it belongs to; `address`, if to none.
    pub fn handle_datagram_from(
        &mut self,
        now: Instant,
        address: SyntheticAddress,
        origin: Origin,
        ecn: Option<EcnCodepoint>,
        contents: BytesMut,
    ) -> SyntheticAddress {
        let Some(&first) = contents.first() else {
            self.counters.malformed += 1;
            return address;
        };
        self.latest = Some(now);
        let size = contents.len();
        let has_long_header = first & 0x80 != 0;
        if has_long_header {
            self.token_clock.set(now);
        }
        self.scratch.clear();
        let is_handshake = first & LONG_PACKET_TYPE == HANDSHAKE_PACKET;
        let may_stray = origin.shared || has_long_header || self.straying_until.is_some_and(|until| now < until);
        let copy = may_stray.then(|| contents.clone());
        let event = self
            .endpoint
            .handle(now, socket_address(address), None, ecn, contents, &mut self.scratch);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(slot) = self.slot_of_handle(handle) else {
                    return address;
                };
                let Some(link) = &mut self.links[slot as usize] else {
                    return address;
                };
                let own = link.address;
                let mut event = Some(event);
                if own != address && link.kind == LinkKind::Peer {
                    self.straying_until = Some(now + STRAY_TIME);
                    let to = socket_address(own);
                    let again = copy.and_then(|copy| self.endpoint.handle(now, to, None, ecn, copy, &mut self.scratch));
                    event = match again {
                        Some(DatagramEvent::ConnectionEvent(_, event)) => Some(event),
                        _ => None,
                    };
                }
                if let Some(event) = event {
                    if own == address || link.kind == LinkKind::Peer {
                        link.note_received(now, size);
                    }
                    link.handle_event(event, is_handshake);
                }
                self.process(now, slot);
                return own;
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(now, address, origin, size, incoming),
            // Short headers would be answered by a stateless reset: whoever guesses an id learns nothing from us.
            Some(DatagramEvent::Response(transmit)) => {
                if has_long_header && size >= MIN_ANSWERED && transmit.size <= size && self.config.accepts.is_some() {
                    self.respond(address, transmit.size);
                }
                self.counters.unknown_connection += 1;
            }
            None if has_long_header => self.counters.malformed += 1,
            None => self.counters.unknown_connection += 1,
        }
        address
    }

    fn slot_of_handle(&self, handle: ConnectionHandle) -> Option<u32> {
        self.slots.get(handle.0).copied().filter(|&slot| slot != NO_SLOT)
    }

    fn respond(&mut self, address: SyntheticAddress, size: usize) {
        if self.responses.len() < MAX_RESPONSES {
            self.responses.push_back((address, self.scratch[..size].to_vec()));
        }
    }

    fn accept(&mut self, now: Instant, address: SyntheticAddress, origin: Origin, size: usize, incoming: Incoming) {
        let Some(kind) = self.config.accepts else {
            self.endpoint.ignore(incoming);
            return;
        };
        let shows_token = incoming.remote_address_validated();
        let settled = self.open_links - self.incoming_handshakes;
        let verdict = match self.links.len() {
            0..MAX_SLOTS => self
                .half_open
                .judge(address, origin, shows_token, settled, self.config.max_links),
            _ => Verdict::Drop,
        };
        self.scratch.clear();
        let class = match verdict {
            Verdict::Accept(class) => class,
            Verdict::Retry => {
                self.counters.retries += 1;
                if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.scratch)
                    && transmit.size <= size
                {
                    self.respond(address, transmit.size);
                }
                return;
            }
            Verdict::Drop => {
                self.counters.refused_full += 1;
                self.endpoint.ignore(incoming);
                return;
            }
        };
        match self.endpoint.accept(incoming, now, &mut self.scratch, None) {
            Ok((handle, connection)) => {
                let slot = self.add_link(
                    now,
                    handle,
                    connection,
                    address,
                    kind,
                    Some(class),
                    TurnedDownKey::default(),
                );
                if let Some(link) = &mut self.links[slot as usize] {
                    link.note_received(now, size);
                }
                self.process(now, slot);
            }
            Err(error) => {
                self.counters.malformed += 1;
                if let Some(transmit) = error.response.filter(|transmit| transmit.size <= size) {
                    self.respond(address, transmit.size);
                }
            }
        }
    }

    /// True while a handshake that came in from that address is running.
    pub fn is_greeting(&self, address: SyntheticAddress) -> bool {
        let mut links = self.links.iter().flatten();
        links.any(|link| link.address == address && !link.dialled && link.stage == Stage::Handshaking)
    }

    /// True if the packet (first bits 01) carries a connection id that this endpoint gave out; it does not say for which link.
    pub fn knows_connection_id(&self, packet: &[u8]) -> bool {
        self.connection_ids.validate_short_header(packet)
    }

    /// Time passed. Calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.latest = Some(now);
        self.update_timers();
        while let Some(slot) = self.timers.pop_due(now) {
            let Some(link) = &mut self.links[slot as usize] else {
                continue;
            };
            link.deadline = None;
            link.handle_timeout(now);
            if link.is_lost(now) {
                let reason = link.silence_reason();
                self.end(now, slot, reason, None);
            }
            self.process(now, slot);
            // A deadline that stays in the past would keep this loop going; it is entered again at the next look.
        }
    }

    /// Exchanges what there is between a connection, the endpoint and the events; then notes that the link may want to be served.
    fn process(&mut self, now: Instant, slot: u32) {
        let Some(link) = &mut self.links[slot as usize] else {
            return;
        };
        let (connected, ended) = link.process(now);
        while let Some(event) = link.connection.poll_endpoint_events() {
            if event.is_drained() {
                link.drained = true;
                self.slots[link.handle.0] = NO_SLOT;
            }
            if let Some(event) = self.endpoint.handle_event(link.handle, event) {
                link.connection.handle_event(event);
            }
        }
        if std::mem::take(&mut link.greetable) && ended.is_none() {
            self.greetable.push_back((link.id, link.address));
        }
        if link.stage != Stage::Handshaking
            && let Some(class) = link.half_open.take()
        {
            self.half_open.remove(link.address, class);
            self.incoming_handshakes -= 1;
        }
        self.events.extend(connected);
        if let Some(reason) = ended {
            self.end(now, slot, reason, None);
        }
        self.note_readable(slot);
        self.note_transmit(slot);
        self.note_timer(slot);
        self.remove_if_done(slot);
    }

    fn note_readable(&mut self, slot: u32) {
        let Some(link) = &mut self.links[slot as usize] else {
            return;
        };
        // Behind `Closed` nobody expects more; what is left is read by then.
        if link.stage == Stage::Connected && !link.readable_pending && link.is_readable() {
            link.readable_pending = true;
            self.events.push_back(LinkEvent::Readable { link: link.id });
        }
    }

    #[inline]
    pub(super) fn note_transmit(&mut self, slot: u32) {
        if let Some(link) = &mut self.links[slot as usize]
            && !link.wants_transmit
            && !link.drained
        {
            link.wants_transmit = true;
            self.transmitting.push_back(slot);
        }
    }

    fn note_timer(&mut self, slot: u32) {
        if let Some(link) = &mut self.links[slot as usize]
            && !link.wants_timer
        {
            link.wants_timer = true;
            self.timer_changes.push(slot);
        }
    }

    /// Ends a link, with an event unless nobody has heard of it.
    fn end(&mut self, now: Instant, slot: u32, reason: CloseReason, info: Option<&CloseInfo>) {
        let Some(link) = &mut self.links[slot as usize] else {
            return;
        };
        if !link.is_open() {
            return;
        }
        let unheard_of = link.stage == Stage::Handshaking && !link.announced;
        if link.stage == Stage::Connected && !link.readable_pending && link.is_readable() {
            link.readable_pending = true;
            self.events.push_back(LinkEvent::Readable { link: link.id });
        }
        link.close(now, &reason, info);
        self.open_links -= 1;
        if let Some(class) = link.half_open.take() {
            self.half_open.remove(link.address, class);
            self.incoming_handshakes -= 1;
        }
        // Nobody proved to be there: no last words, and the memory is free at once.
        let unproven = unheard_of && reason == CloseReason::NoAnswer && link.budget.is_some();
        if unproven || std::mem::take(&mut link.held) {
            link.drained = true;
            self.slots[link.handle.0] = NO_SLOT;
            self.endpoint.handle_event(link.handle, EndpointEvent::drained());
        }
        if unheard_of {
            link.forgotten = true;
        } else {
            self.events.push_back(LinkEvent::Closed { link: link.id, reason });
        }
        self.note_transmit(slot);
        self.note_timer(slot);
    }

    fn remove_if_done(&mut self, slot: u32) {
        let entry = &mut self.links[slot as usize];
        // A link in a list stays until the list has been gone through, so that a slot never stands in one twice.
        if let Some(link) = entry
            && link.forgotten
            && link.drained
            && !link.wants_transmit
            && !link.wants_timer
        {
            self.timers.replace(slot, link.deadline, None);
            *entry = None;
            self.free_slots.push(slot);
        }
    }

    fn update_timers(&mut self) {
        while let Some(slot) = self.timer_changes.pop() {
            if let Some(link) = &mut self.links[slot as usize] {
                link.wants_timer = false;
                let deadline = link.next_deadline();
                self.timers.replace(slot, link.deadline, deadline);
                link.deadline = deadline;
            }
            self.remove_if_done(slot);
        }
    }

    /// Appends the next packets to `buffer`; returns where they go, the ECN mark, and the segment size if there are several.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        buffer: &mut Vec<u8>,
    ) -> Option<(SyntheticAddress, Option<EcnCodepoint>, Option<usize>)> {
        if let Some((address, response)) = self.responses.pop_front() {
            buffer.extend_from_slice(&response);
            return Some((address, None, None));
        }
        while let Some(slot) = self.transmitting.pop_front() {
            let Some(link) = &mut self.links[slot as usize] else {
                continue;
            };
            link.wants_transmit = false;
            if link.drained {
                self.remove_if_done(slot);
                continue;
            }
            if link.held {
                continue;
            }
            if link.flush() {
                self.events.push_back(LinkEvent::Writable { link: link.id });
            }
            let transmit = if buffer.is_empty() {
                link.poll_transmit(now, buffer)
            } else {
                // quinn takes the buffer's start for the first packet's.
                self.scratch.clear();
                let transmit = link.poll_transmit(now, &mut self.scratch);
                buffer.extend_from_slice(&self.scratch);
                transmit
            };
            if let Some(transmit) = transmit {
                // There may be more; the others come first.
                let address = link.address;
                self.note_transmit(slot);
                self.note_timer(slot);
                return Some((address, transmit.ecn, transmit.segment_size));
            }
            self.note_timer(slot);
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.update_timers();
        self.timers.next()
    }

    /// A link of a player that came in just now from a source that the engine trusts. Its other side has not proven its key yet; but what
    /// [`send_early`](Self::send_early) is given before the next transmit travels with this side's part of the handshake.
    pub fn poll_greetable(&mut self) -> Option<(LinkId, SyntheticAddress)> {
        self.greetable.pop_front()
    }

    /// Sends a control message, the first one, to whoever began a link of [`poll_greetable`](Self::poll_greetable). Only the other side of
    /// the handshake can read it, but who that is will be proven later. From now on the link is known to the caller: it ends in
    /// [`LinkEvent::Closed`], also if it never is [`LinkEvent::Connected`]. False: it cannot be sent, and nothing has changed.
    pub fn send_early(&mut self, link: LinkId, message: &[u8]) -> bool {
        let Some(slot) = self.slot_of(link) else { return false };
        let sent = self.links[slot as usize]
            .as_mut()
            .is_some_and(|link| link.send_early(message));
        self.note_transmit(slot);
        sent
    }

    /// Dials as [`connect`](Self::connect) does, without a path: returns the first datagram, which somebody else will carry to the other side,
    /// and sends nothing and lets no time run out until [`release`](Self::release). `None` if there is more than one datagram.
    pub fn connect_held(
        &mut self,
        now: Instant,
        address: SyntheticAddress,
        expected: Option<PublicKey>,
        initial_round_trip: Option<Duration>,
    ) -> Option<(LinkId, Vec<u8>)> {
        let id = self.connect(now, address, LinkKind::Peer, expected, initial_round_trip);
        let slot = self.slot_of(id)?;
        let mut flight = Vec::new();
        let link = self.links[slot as usize].as_mut()?;
        let first = link.connection.poll_transmit(now, 1, &mut flight);
        let further = link.connection.poll_transmit(now, 1, &mut Vec::new());
        link.held = true;
        self.note_timer(slot);
        if first.is_none() || further.is_some() {
            self.end(now, slot, CloseReason::Local, None);
            self.events
                .retain(|event| !matches!(event, LinkEvent::Closed { link, .. } if *link == id));
            self.forget(id);
            return None;
        }
        Some((id, flight))
    }

    /// There is a path for a link of [`connect_held`](Self::connect_held) now. QUIC repeats the first datagram if no answer comes in time,
    /// counted from when it was made.
    pub fn release(&mut self, now: Instant, link: LinkId) {
        let Some(slot) = self.slot_of(link) else { return };
        if let Some(link) = &mut self.links[slot as usize] {
            link.release(now);
        }
        self.note_transmit(slot);
        self.note_timer(slot);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        let event = self.events.pop_front()?;
        if let LinkEvent::Readable { link } = event
            && let Some(slot) = self.slot_of(link)
            && let Some(link) = &mut self.links[slot as usize]
        {
            link.readable_pending = false;
        }
        Some(event)
    }

    /// Queues a control message (ordered, reliable; at most [`crate::wire::MAX_CONTROL_MESSAGE`] bytes). May be called from the moment of `connect`.
    ///
    /// # Errors
    /// [`SendError::TooLarge`], [`SendError::Full`], or [`SendError::NotConnected`] if the link is closed.
    pub fn send_control(&mut self, link: LinkId, message: &[u8]) -> Result<(), SendError> {
        let slot = self.slot_of(link).ok_or(SendError::NotConnected)?;
        match &mut self.links[slot as usize] {
            Some(link) => link.send_control(message)?,
            None => return Err(SendError::NotConnected),
        }
        self.note_transmit(slot);
        Ok(())
    }

    /// The control message that was queued last is urgent: a few pings behind it make QUIC notice a loss after little more than a round trip.
    pub fn hurry(&mut self, now: Instant, link: LinkId) {
        let Some(slot) = self.slot_of(link) else { return };
        if let Some(link) = &mut self.links[slot as usize] {
            link.hurry(now);
            self.note_timer(slot);
        }
    }

    /// The next control message.
    pub fn next_control(&mut self, link: LinkId) -> Option<Bytes> {
        let slot = self.slot_of(link)?;
        let found = self.links[slot as usize].as_mut()?;
        match found.next_control() {
            // Reading may have given flow control something to say.
            Ok(message) => {
                if message.is_some() {
                    self.note_transmit(slot);
                }
                message
            }
            Err(_) => {
                self.end_malformed(slot);
                None
            }
        }
    }

    pub(super) fn end_malformed(&mut self, slot: u32) {
        if let Some(now) = self.latest {
            self.end(
                now,
                slot,
                CloseReason::ProtocolViolation("malformed message".into()),
                None,
            );
        }
    }

    /// Closes on purpose. [`LinkEvent::Closed`] with [`CloseReason::Local`] follows. What was not sent yet is not sent any more.
    pub fn close(&mut self, now: Instant, link: LinkId, info: CloseInfo) {
        if let Some(slot) = self.slot_of(link) {
            self.end(now, slot, CloseReason::Local, Some(&info));
            self.process(now, slot);
        }
    }

    /// What a link is for; of one that came in it is known when it is connected.
    pub fn kind(&self, link: LinkId) -> Option<LinkKind> {
        Some(self.link(link)?.kind)
    }

    /// Drops what is left of a closed link. An open one is left alone.
    pub fn forget(&mut self, link: LinkId) {
        let Some(slot) = self.slot_of(link) else { return };
        if let Some(link) = &mut self.links[slot as usize] {
            link.forgotten = !link.is_open();
        }
        self.remove_if_done(slot);
    }

    /// The link's packets now take a truly different path: congestion, round trip and MTU start afresh. Pings follow at once, whose
    /// acknowledgements show what the old path has lost.
    pub fn path_changed(&mut self, now: Instant, link: LinkId) {
        let Some(slot) = self.slot_of(link) else { return };
        if let Some(link) = &mut self.links[slot as usize]
            && link.is_open()
        {
            congestion::on_new_path(&mut link.connection, now);
            link.connection.ping();
            link.hurry(now);
        }
        self.note_transmit(slot);
        self.note_timer(slot);
    }

    /// True if nothing waits to be sent over a link to a player, and everything reliable has been acknowledged; also if there is no such
    /// link. For closing without loss: not cheap enough for every packet.
    pub fn is_delivered(&mut self, link: LinkId) -> bool {
        let slot = self.slot_of(link);
        let link = slot.and_then(|slot| self.links[slot as usize].as_mut());
        link.is_none_or(|link| !link.is_open() || link.is_delivered())
    }

    /// A link's figures.
    pub fn stats(&self, link: LinkId) -> Option<LinkStats> {
        Some(self.link(link)?.stats())
    }

    /// Unreliable messages of a link that were dropped since the last call: the game did not take them in time, a part of them was lost,
    /// or the path became too small for them.
    pub fn take_unreliable_dropped(&mut self, link: LinkId) -> u64 {
        match self.slot_of(link) {
            Some(slot) => self.links[slot as usize]
                .as_mut()
                .map_or(0, |link| link.take_unreliable_dropped()),
            None => 0,
        }
    }

    /// Datagrams that were not for any link.
    pub fn counters(&self) -> TransportCounters {
        self.counters
    }

    /// TLS exporter bytes of a connected link (RFC 8446 §7.5): the same at both ends, and nowhere else.
    pub fn export_keying_material(&self, link: LinkId, label: &[u8]) -> Option<[u8; 32]> {
        let link = self.link(link)?;
        if link.stage == Stage::Handshaking {
            return None;
        }
        let mut bytes = [0; 32];
        link.connection
            .crypto_session()
            .export_keying_material(&mut bytes, label, &[])
            .ok()?;
        Some(bytes)
    }

    /// Links that are not closed.
    pub fn open_links(&self) -> usize {
        self.open_links
    }
}

fn socket_address(address: SyntheticAddress) -> SocketAddr {
    SocketAddr::new(address.0.into(), config::SYNTHETIC_PORT)
}
