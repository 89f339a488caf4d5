//! One turn of a node, run by whoever holds its lock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::clock;
use super::convert::{convert, message_record};
use super::events::EventWriter;
use super::interfaces;
use super::node::Node;
use super::outbox::Lanes;
use super::pool::SocketPool;
use super::port_mapping::PortMapper;
use super::record::EventRecord;
use super::runtime;
use super::signals::{NodeIo, NodeSocket};
use super::tunnel::{Order, Tunnels};
use super::udp::{BATCH_SIZE, ReceiveBuffer, SendOutcome};
use crate::codes::EventType;
use crate::engine::{Datagram, Engine, SocketName, Transmit};
use crate::peer::Node as PeerEngine;
use crate::peer::api::{Command, Event, MeshCommand, RequestId, SideEffect, SideEffectAnswer};
use crate::transport::SendError;
use crate::transport::identity::Guid;

/// Transmits of one turn, about a megabyte: after that received acknowledgements get their turn.
const MAX_TRANSMITS: usize = 64;

/// Bytes of a lane that one turn takes. What is written for them is still in the core's own cache when it is sent, and the game has its lane
/// back sooner; a turn has some hundred packets to send all the same.
const MAX_TAKEN: usize = 128 << 10;

/// When to try again if a socket's buffer was full: a few datagrams' time at 100 Mbit/s.
const RETRY_BLOCKED: Duration = Duration::from_micros(500);

/// Sends shortly after a flush that only sent wait for this long and leave together: one wake-up for all messages of
/// that time. Below the precision of any game's frame, above the cost of a wake-up (some 10 µs) by a wide margin.
pub const COALESCE: Duration = Duration::from_micros(200);

/// Lingering sets a timer and wakes once more, so it has to pay: it begins when messages came so soon after those before
/// them for [`LINGER_AFTER`] times in a row, and ends when there are none for so long. One burst a frame is sent by the
/// wake-up that its first message causes, or in two parts.
const LINGER_WITHIN: Duration = Duration::from_micros(400);
/// See [`LINGER_WITHIN`].
const LINGER_AFTER: u32 = 3;
/// So many messages in a row are a burst, and where there was one the next is expected to be one.
const BURST: usize = 8;

/// What a turn found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// There is more to do at once.
    pub more: bool,
    /// A socket may hold more.
    pub readable: bool,
    /// When the engine (or a socket) wants the next turn.
    pub until: Option<Instant>,
    /// The game's messages were sent, and more are likely to follow at once.
    pub linger: bool,
    /// There are events for the game.
    pub delivered: bool,
}

/// A payload that a full socket did not take.
struct Blocked {
    transmit: Transmit,
    payload: Vec<u8>,
    sent: usize,
}

/// The engine and everything a turn needs.
pub struct Driver {
    engine: PeerEngine,
    sockets: Vec<NodeSocket>,
    pool: SocketPool,
    receive_buffer: ReceiveBuffer,
    datagrams: Vec<Datagram>,
    payload: Vec<u8>,
    blocked: Option<Blocked>,
    events: EventWriter,
    /// Events CONNECTED written so far.
    connects: u64,
    /// Those of them that the game has not fetched, by number.
    unfetched: VecDeque<(u64, Guid)>,
    lanes: FxHashMap<Guid, Lanes>,
    active: Vec<Guid>,
    commands: VecDeque<Command>,
    answers: VecDeque<SideEffectAnswer>,
    bound: Vec<SocketAddr>,
    look_at_interfaces: Instant,
    view_changed: bool,
    last_sent: Option<Instant>,
    /// Turns in a row that sent messages within [`LINGER_WITHIN`] of the one before.
    close_sends: u32,
    /// Messages sent in a row, and in the row before.
    rows: [usize; 2],
    /// The last look at the lanes left messages there that the engine may take.
    more_in_lanes: bool,
    /// There from the first order on.
    port_mapper: Option<PortMapper>,
    /// There from the first stream on.
    tunnels: Option<Tunnels>,
}

impl Driver {
    /// A driver whose engine has not run yet.
    pub fn new(
        now: Instant,
        engine: PeerEngine,
        sockets: Vec<NodeSocket>,
        pool: SocketPool,
        events: EventWriter,
    ) -> Self {
        Self {
            bound: sockets.iter().map(NodeSocket::local_address).collect(),
            engine,
            sockets,
            pool,
            receive_buffer: ReceiveBuffer::new(),
            datagrams: Vec::new(),
            payload: Vec::new(),
            blocked: None,
            events,
            connects: 0,
            unfetched: VecDeque::new(),
            lanes: FxHashMap::default(),
            active: Vec::new(),
            commands: VecDeque::new(),
            answers: VecDeque::new(),
            look_at_interfaces: now + interfaces::refresh(),
            view_changed: true,
            last_sent: None,
            close_sends: 0,
            rows: [0; 2],
            more_in_lanes: false,
            port_mapper: None,
            tunnels: None,
        }
    }

    /// What the sockets' system calls go through, for whoever waits for readiness.
    pub fn ios(&self) -> Vec<NodeIo> {
        self.sockets.iter().map(|socket| NodeIo::clone(socket.io())).collect()
    }

    /// Receive → engine → commands and messages → events → transmit → next deadline. `readable`: a socket may hold
    /// something; otherwise they are not asked, which saves a system call each.
    pub fn turn(&mut self, node: &Node, readable: bool) -> Turn {
        let now = Instant::now();
        self.tell_what_was_fetched();
        let more_in = (readable && self.receive(now)) | self.receive_tunnels(now);
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
        }
        self.watch_interfaces(now);
        let sent = self.take_outbox(node, now);
        let received = self.drain_events(node, now);
        let linger = sent > 0 && self.sends_closely(now, sent) && !received;
        let answered = self.side_effects(node, now);
        let more_out = self.transmit(now);
        if self.view_changed {
            self.refresh_view(node, now);
        }
        let delivered = self.events.hand_over(clock::microseconds(now));
        let until = earliest(self.engine.poll_timeout(), Some(self.look_at_interfaces));
        let until = if self.blocked.is_some() {
            earliest(until, Some(now + RETRY_BLOCKED))
        } else {
            until
        };
        Turn {
            more: more_in || more_out || answered || self.more_in_lanes,
            readable: more_in,
            until,
            linger,
            delivered,
        }
    }

    /// What the game has fetched since the last turn, as far as the engine decides by it whom to take in.
    fn tell_what_was_fetched(&mut self) {
        let queue = self.events.queue();
        self.engine.set_accepting(queue.lifecycle_room());
        let fetched = queue.connects_fetched();
        while let Some((number, peer)) = self.unfetched.front().copied()
            && number <= fetched
        {
            self.unfetched.pop_front();
            self.engine.fetched(peer);
        }
    }

    /// Whether the game's next message is likely to be the first of several.
    pub fn expects_burst(&self) -> bool {
        self.rows.iter().any(|row| *row >= BURST)
    }

    /// Notes that `count` messages were sent. True if more are likely to follow at once.
    fn sends_closely(&mut self, now: Instant, count: usize) -> bool {
        if self.last_sent.is_some_and(|last| now < last + LINGER_WITHIN) {
            self.close_sends = self.close_sends.saturating_add(1);
            self.rows[0] = self.rows[0].saturating_add(count);
        } else {
            self.close_sends = 0;
            self.rows = [count, self.rows[0]];
        }
        self.last_sent = Some(now);
        self.close_sends >= LINGER_AFTER
    }

    /// One batch of each socket. True if one may hold more.
    fn receive(&mut self, now: Instant) -> bool {
        let mut more = false;
        for socket in &mut self.sockets {
            more |= socket.receive_batch(&mut self.receive_buffer, &mut self.datagrams) >= BATCH_SIZE;
            for datagram in self.datagrams.drain(..) {
                self.engine.handle_datagram(now, datagram);
            }
        }
        let Self { engine, pool, .. } = self;
        let take = |datagram| engine.handle_datagram(now, datagram);
        more | pool.receive(&mut self.receive_buffer, &mut self.datagrams, take)
    }

    /// What streams brought. True if there may be more.
    fn receive_tunnels(&mut self, now: Instant) -> bool {
        let Self { engine, tunnels, .. } = self;
        match tunnels {
            Some(tunnels) => tunnels.receive(|datagram| engine.handle_datagram(now, datagram)),
            None => false,
        }
    }

    /// Commands, answers and messages to the engine. Returns how many messages went in.
    fn take_outbox(&mut self, node: &Node, now: Instant) -> usize {
        let mut sent = self.take_part(node, now, MAX_TAKEN);
        // A command comes after all messages: what was sent before a disconnect goes first.
        if !self.commands.is_empty() {
            sent += self.take_all(node, now);
        }
        while let Some(command) = self.commands.pop_front() {
            self.engine.command(now, command);
        }
        sent
    }

    /// All messages that the engine has room for.
    fn take_all(&mut self, node: &Node, now: Instant) -> usize {
        let parts = std::iter::from_fn(|| Some(self.take_part(node, now, usize::MAX)).filter(|sent| *sent > 0));
        parts.sum()
    }

    /// Answers, and of each lane at most that many bytes; fetches the commands.
    fn take_part(&mut self, node: &Node, now: Instant, most: usize) -> usize {
        node.outbox()
            .take(&mut self.lanes, &mut self.active, &mut self.commands, &mut self.answers);
        while let Some(answer) = self.answers.pop_front() {
            self.engine.side_effect_answer(now, answer);
        }
        self.work_off_lanes(now, most)
    }

    fn work_off_lanes(&mut self, now: Instant, most: usize) -> usize {
        let Self {
            engine, lanes, active, ..
        } = self;
        let (mut sent, mut more) = (0, false);
        active.retain(|guid| {
            let Some(lanes) = lanes.get_mut(guid) else { return false };
            let mut outgoing = engine.outgoing(now, *guid);
            for lane in &mut lanes.0 {
                let mut taken = 0;
                while let Some(message) = lane.first() {
                    if taken >= most {
                        more = true;
                        break;
                    }
                    let length = message.data.len();
                    taken += length;
                    let result = match &mut outgoing {
                        Some(outgoing) => outgoing.send(message.channel, message.mode, message.data),
                        None => Err(SendError::NotConnected),
                    };
                    match result {
                        Err(SendError::Full) => break,
                        // The player is gone, which the game hears of otherwise.
                        Ok(()) | Err(SendError::NotConnected | SendError::TooLarge) => lane.advance(length),
                    }
                    sent += 1;
                }
            }
            !lanes.is_empty()
        });
        self.more_in_lanes = more;
        sent
    }

    /// Events of the engine to the game. True if there were messages.
    fn drain_events(&mut self, node: &Node, now: Instant) -> bool {
        let time_us = clock::microseconds(now);
        let Self { engine, events, .. } = self;
        let mut messages = false;
        loop {
            messages |= engine.poll_messages(events.reliable_room(), |peer, message| {
                events.push(message_record(peer, &message, time_us), message.data, "");
                events.reliable_room()
            }) > 0;
            let Some(event) = engine.poll_event(events.reliable_room()) else {
                break;
            };
            if matches!(event, Event::Message { .. }) {
                messages = true;
            } else {
                self.view_changed = true;
                keep_books(node, &mut self.lanes, &event);
            }
            convert(&event, time_us, |record, data, text| events.push(record, data, text));
            if let Event::Connected { peer, .. } = event {
                self.connects += 1;
                self.unfetched.push_back((self.connects, peer));
                engine.unfetched(peer);
            }
        }
        messages
    }

    /// True if the engine was told something by which it may have become busy.
    fn side_effects(&mut self, node: &Node, now: Instant) -> bool {
        let mut answered = false;
        while let Some(effect) = self.engine.poll_side_effect() {
            match effect {
                SideEffect::Resolve { id, host } => runtime::resolve(node.weak(), id, host),
                SideEffect::OpenSockets { id, first, count, ipv6 } => {
                    let sockets = self.open_sockets(node, first, count, ipv6);
                    self.engine
                        .side_effect_answer(now, SideEffectAnswer::SocketsOpened { id, sockets });
                    answered = true;
                }
                SideEffect::CloseSockets(names) => self.pool.close(&names),
                SideEffect::MapPort(order) => {
                    let mapper = self.port_mapper.get_or_insert_with(|| {
                        let node = node.weak();
                        PortMapper::new(Arc::new(move |answer| {
                            if let Some(node) = node.upgrade() {
                                node.answer(SideEffectAnswer::Mapping(answer));
                            }
                        }))
                    });
                    mapper.order(order);
                }
                SideEffect::OpenTunnel { tunnel, address, key } => {
                    let bound = self.bound.iter().find(|bound| bound.is_ipv4() == address.is_ipv4());
                    let from = bound.filter(|bound| !bound.ip().is_unspecified()).copied();
                    let tunnels = self.tunnels.get_or_insert_with(|| Tunnels::new(node.weak()));
                    let order = Order {
                        number: tunnel,
                        address,
                        key,
                        from,
                    };
                    tunnels.open(node.weak(), &super::node::crypto(), order);
                }
                SideEffect::CloseTunnel { tunnel } => {
                    if let Some(tunnels) = &mut self.tunnels {
                        tunnels.close(tunnel);
                    }
                }
            }
        }
        answered
    }

    /// Further sockets where the main one of that family is bound: a node that was bound to one interface stays there.
    pub(super) fn open_sockets(
        &mut self,
        node: &Node,
        first: u16,
        count: u16,
        ipv6: bool,
    ) -> Vec<(SocketName, SocketAddr)> {
        let Some(like) = self.bound.iter().find(|address| address.is_ipv6() == ipv6) else {
            return Vec::new();
        };
        let sockets = self.pool.open(first, count, *like);
        // Whoever sleeps does not watch them yet.
        node.signals().notify();
        sockets
    }

    /// What it drives.
    #[cfg(test)]
    pub fn engine(&mut self) -> &mut PeerEngine {
        &mut self.engine
    }

    /// Its further sockets.
    #[cfg(test)]
    pub fn pool(&mut self) -> &mut SocketPool {
        &mut self.pool
    }

    /// True if the engine has more than one turn's worth.
    fn transmit(&mut self, now: Instant) -> bool {
        if let Some(blocked) = &mut self.blocked {
            match send(
                &mut self.sockets,
                &mut self.pool,
                &blocked.transmit,
                &blocked.payload[blocked.sent..],
            ) {
                SendOutcome::Done => self.blocked = None,
                SendOutcome::Blocked { sent } => {
                    blocked.sent += sent;
                    return false;
                }
            }
        }
        for _ in 0..MAX_TRANSMITS {
            self.payload.clear();
            let Some(transmit) = self.engine.poll_transmit(now, &mut self.payload) else {
                return false;
            };
            let payload = &self.payload[..transmit.size.min(self.payload.len())];
            if let (SocketName::Tunnel(number), Some(tunnels)) = (transmit.socket, &self.tunnels) {
                tunnels.send(number, payload, transmit.segment_size);
                continue;
            }
            if let SendOutcome::Blocked { sent } = send(&mut self.sockets, &mut self.pool, &transmit, payload) {
                self.blocked = Some(Blocked {
                    transmit,
                    payload: payload.to_vec(),
                    sent,
                });
                return false;
            }
        }
        true
    }

    fn watch_interfaces(&mut self, now: Instant) {
        if now < self.look_at_interfaces {
            return;
        }
        self.look_at_interfaces = now + interfaces::refresh();
        // The engine compares: it may have been told meanwhile.
        let addresses = interfaces::addresses(&self.bound);
        self.engine
            .side_effect_answer(now, SideEffectAnswer::LocalAddresses(addresses));
    }

    /// Puts what accessor calls show where they find it.
    pub fn refresh_view(&mut self, node: &Node, now: Instant) {
        self.view_changed = false;
        if let Some(view) = self.engine.take_view(now) {
            node.set_view(Arc::new(view));
        }
    }

    /// The same with the figures of this moment: a game that has just fetched a message finds it counted.
    pub fn refresh_view_now(&mut self, node: &Node, now: Instant) {
        self.engine.expire_view();
        self.refresh_view(node, now);
    }

    /// Tells everybody that this node goes. Messages that wait are given to the engine first.
    pub fn close(&mut self, node: &Node) {
        self.turn(node, true);
        let now = Instant::now();
        self.take_all(node, now);
        self.engine.command(now, Command::Mesh(MeshCommand::Leave));
        // Leaving is said on connections that are closed next: let it go out first.
        self.drain_events(node, now);
        self.transmit(now);
        self.engine.shut_down(now);
        self.view_changed = true;
    }

    /// Writes an event of the shell's own.
    pub fn say(&mut self, kind: EventType, code: i32, text: &str) {
        let time_us = clock::microseconds(Instant::now());
        let record = EventRecord {
            r#type: kind.number(),
            code,
            time_us,
            ..EventRecord::default()
        };
        self.events.push(record, &[], text);
        self.events.hand_over(time_us);
    }

    /// Nothing waits for room in a socket, everybody who was left has been told, and routers have taken back what they gave.
    pub fn is_flushed(&self) -> bool {
        let taken_back = self.port_mapper.as_ref().is_none_or(PortMapper::is_idle);
        let written = self.tunnels.as_ref().is_none_or(Tunnels::is_flushed);
        taken_back && written && self.blocked.is_none() && !self.engine.is_leaving()
    }

    /// Tells whoever has not been told yet, without waiting for anything any more.
    pub fn hang_up(&mut self) {
        let now = Instant::now();
        self.engine.hang_up(now);
        self.transmit(now);
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn send(sockets: &mut [NodeSocket], pool: &mut SocketPool, transmit: &Transmit, payload: &[u8]) -> SendOutcome {
    let socket = match transmit.socket {
        SocketName::Birthday(number) => pool.socket(number),
        name => sockets.iter_mut().find(|socket| socket.name() == name),
    };
    match socket {
        Some(socket) => socket.send(transmit, payload, None),
        // The engine was told which sockets there are; one may have been closed since.
        None => SendOutcome::Done,
    }
}

/// Who is connected, and which requests are open.
fn keep_books(node: &Node, lanes: &mut FxHashMap<Guid, Lanes>, event: &Event<'_>) {
    let mut outbox = node.outbox();
    match event {
        Event::Connected { peer, .. } => outbox.connected(*peer),
        Event::Disconnected { peer, .. } => {
            outbox.disconnected(*peer);
            lanes.remove(peer);
        }
        _ => {}
    }
    let request = request_of(event);
    if request != 0 {
        outbox.ended(request);
    }
}

fn request_of(event: &Event<'_>) -> RequestId {
    use crate::peer::api::MeshEvent;
    match event {
        Event::ServerConnected { request, .. }
        | Event::ServerFailed { request, .. }
        | Event::ServerDisconnected { request }
        | Event::NatSucceeded { request, .. }
        | Event::NatFailed { request, .. }
        | Event::Connected { request, .. }
        | Event::ConnectionFailed { request, .. }
        | Event::NatDetected { request, .. }
        | Event::PortMapped { request, .. }
        | Event::PortMappingFailed { request, .. }
        | Event::Report { request, .. }
        | Event::Mesh(MeshEvent::JoinCapable { request, .. } | MeshEvent::JoinFailed { request, .. }) => *request,
        Event::Relay(event) => event.ends_request().unwrap_or(0),
        _ => 0,
    }
}
