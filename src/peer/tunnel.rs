//! The session with a server where no UDP gets through: over a TLS stream on TCP ([`SocketName::Tunnel`], [`crate::wire::tunnel`]).
//!
//! In: how dialling by UDP goes, answers of the outside to streams that it opened, link events, STUN answers. Out: streams, dials through them, the session.
//! To everything else the session is the same: its packets only take another socket.
//!
//! **Getting there.** UDP is tried first, as ever (`rendezvous`). When not one UDP packet of the server has come within [`UDP_TIME`], streams are opened
//! beside: at the port that this server told earlier, at 443 (the one that networks let through) and at the number of the UDP port, all at once. Each
//! that opens gets a QUIC dial. The first way whose handshake is done, UDP or stream, says Hello and the others are given up; only one may
//! say it, because a server takes a second Hello of the same node for a newer one that replaces the first. A stream proves the server's key before
//! anything is sent through it, the QUIC connection inside proves it again.
//!
//! **Getting back.** While the session is on a stream the server's UDP address is asked by STUN every [`LOOK_INTERVAL`], and when the machine's network
//! changes. Once it answers, and no attempt to reach a player is under way, a second QUIC connection is made by UDP; its Welcome makes it the session. The
//! server takes the old one off by itself, wishes that it had not answered are asked anew, and the game hears nothing.
//!
//! **Nothing of a stream is a fact about UDP.** The address that the server sees is TCP's: it is shown in SERVER_CONNECTED and goes nowhere else, no STUN
//! answer that comes by a stream counts, and no probe.
//!
//! Timers: [`UDP_TIME`], [`HEAD_START`], [`OPEN_TIME`], [`DIAL_TIME`], [`LEAVE_TIME`], those of looking for UDP, and [`MOVE_PATIENCE`].

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng;

use super::Node;
use super::api::{Reason, SideEffect};
use super::paths::{Owner, Path, kind_of, may_send_to};
use crate::codes::Code;
use crate::engine::{Datagram, SocketName, Transmit};
use crate::transport::{CloseInfo, CloseReason, LinkId, LinkKind};
use crate::wire::control::FromServer;
use crate::wire::stun::{Request, Response, TransactionId};

/// Without a single packet of the server in this time, UDP is taken for blocked: a handshake's first packet was sent four times by then.
const UDP_TIME: Duration = Duration::from_secs(2);
/// The same if the session before was on a stream: a round trip across an ocean, in case UDP is let through again.
const HEAD_START: Duration = Duration::from_millis(250);
/// The outside has time limits of its own for TCP (4 s) and TLS (4 s); this is for one that does not keep them.
const OPEN_TIME: Duration = Duration::from_secs(9);
/// QUIC's handshake through a stream: as by UDP.
const DIAL_TIME: Duration = Duration::from_secs(5);
/// How long a stream stays open after the session has left it: for the close, and for what is still on its way here.
const LEAVE_TIME: Duration = Duration::from_secs(3);
/// The port that nearly every network lets through.
const HTTPS_PORT: u16 = 443;
/// Addresses of the server that streams are tried at: one of each IP version.
const MAX_TRIED: usize = 2;

/// From the session on a stream to the first look for UDP: a network that has just come up is complete by then.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Between two looks: soon enough for an evening's game, too rare to cost anything.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Requests of one look, for networks that lose packets.
const LOOK_REQUESTS: u8 = 3;
/// Between them.
const LOOK_REPEAT: Duration = Duration::from_millis(500);
/// How long a move waits for attempts to reach players, which it would disturb: they live at most as long.
const MOVE_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether they are over.
const MOVE_STEP: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening {
        deadline: Instant,
    },
    Dialling {
        link: LinkId,
        deadline: Instant,
    },
    /// The session's link runs through it.
    Session,
    /// To be closed.
    Leaving {
        until: Instant,
    },
}

#[derive(Debug)]
struct Stream {
    number: u32,
    address: SocketAddr,
    stage: Stage,
}

/// A search for UDP while the session is on a stream.
#[derive(Debug)]
struct Look {
    next: Instant,
    /// Requests that this look has left.
    left: u8,
    transaction: TransactionId,
    targets: Vec<(SocketName, SocketAddr)>,
    /// The server answers there, and since when that is known.
    found: Option<(SocketAddr, Instant)>,
}

/// The session's way back to UDP.
#[derive(Debug)]
struct Move {
    link: LinkId,
    deadline: Instant,
    /// Hello was said: the server may have taken the old session off.
    greeting: bool,
    /// The old session's end, which came before the new one's beginning.
    lost: Option<CloseReason>,
}

/// All streams of a node.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    /// A handful.
    streams: Vec<Stream>,
    next: u32,
    /// When UDP was dialled, and when streams are tried beside it.
    dialled: Option<(Instant, Instant)>,
    /// Streams were tried since.
    tried: bool,
    /// Why they came to nothing.
    failures: Vec<(SocketAddr, Reason)>,
    /// The last server that said at which port it takes streams (0: none): its name, its UDP port, that port.
    told: Option<(String, u16, u16)>,
    /// The session before was on a stream.
    last_by_stream: bool,
    look: Option<Look>,
    moving: Option<Move>,
    requests: Vec<(SocketName, SocketAddr, TransactionId)>,
}

impl Tunnels {
    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stages = self.streams.iter().filter_map(|stream| match stream.stage {
            Stage::Opening { deadline } | Stage::Dialling { deadline, .. } => Some(deadline),
            Stage::Leaving { until } => Some(until),
            Stage::Session => None,
        });
        let begin = self.dialled.filter(|_| !self.tried).map(|(_, begin)| begin);
        let look = self
            .look
            .as_ref()
            .filter(|_| self.moving.is_none())
            .map(|look| look.next);
        let moving = self.moving.as_ref().map(|moving| moving.deadline);
        stages.chain(begin).chain(look).chain(moving).min()
    }

    /// The session is on its way back to UDP.
    #[cfg(all(test, feature = "lab"))]
    pub fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// STUN requests wait to be sent.
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Writes the next STUN request.
    pub fn poll_request(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (socket, destination, transaction) = self.requests.pop()?;
        Request::new(transaction).encode(buffer);
        Some(Transmit {
            socket,
            destination,
            ecn: None,
            size: buffer.len(),
            segment_size: None,
            time_to_live: None,
        })
    }

    /// True while a stream may still lead to the server.
    fn are_under_way(&self) -> bool {
        let mut stages = self.streams.iter().map(|stream| stream.stage);
        stages.any(|stage| matches!(stage, Stage::Opening { .. } | Stage::Dialling { .. }))
    }

    fn stream(&self, number: u32) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.number == number)
    }

    fn stream_mut(&mut self, number: u32) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.number == number)
    }

    fn take_stream(&mut self, number: u32) -> Option<Stream> {
        let place = self.streams.iter().position(|stream| stream.number == number)?;
        Some(self.streams.remove(place))
    }

    /// Their numbers, of those at stages that fit.
    fn numbers(&self, fits: impl Fn(Stage) -> bool) -> Vec<u32> {
        let fitting = self.streams.iter().filter(|stream| fits(stream.stage));
        fitting.map(|stream| stream.number).collect()
    }

    fn number_of(&self, wanted: LinkId) -> Option<u32> {
        let of = |stage: Stage| matches!(stage, Stage::Dialling { link, .. } if link == wanted);
        let found = self.streams.iter().find(|stream| of(stream.stage))?;
        Some(found.number)
    }

    /// The server said at which port it takes streams.
    pub fn note_port(&mut self, host: &str, port: u16, tunnel_port: u16) {
        self.told = Some((host.to_owned(), port, tunnel_port));
    }

    /// Ports to try at a server, the most promising first. None: it said that it takes no streams.
    fn ports(&self, host: &str, port: u16) -> Vec<u16> {
        let told = self.told.as_ref().filter(|told| told.0 == host && told.1 == port);
        let mut ports = match told {
            Some((.., 0)) => Vec::new(),
            Some((.., told)) => vec![*told, HTTPS_PORT, port],
            None => vec![HTTPS_PORT, port],
        };
        ports.dedup();
        if ports.len() == 3 && ports[0] == ports[2] {
            ports.pop();
        }
        ports
    }

    /// The code and the words for a server that answered neither by UDP nor through a stream.
    fn words(&self, udp: &[SocketAddr]) -> Reason {
        let code = match self.failures.iter().any(|(_, reason)| reason.code == Code::WrongKey) {
            true => Code::WrongKey,
            false => Code::NoAnswer,
        };
        let addresses: Vec<String> = udp.iter().map(ToString::to_string).collect();
        let mut text = format!("no UDP answer from {}", addresses.join(", "));
        let one = self
            .failures
            .iter()
            .all(|(address, _)| address.ip() == self.failures[0].0.ip());
        for (address, reason) in &self.failures {
            text += &match one {
                true => format!("; TCP {}: {}", address.port(), reason.text),
                false => format!("; TCP {address}: {}", reason.text),
            };
        }
        Reason { code, text }
    }
}

/// Getting there.
impl Node {
    /// The server's UDP addresses are about to be dialled.
    pub(super) fn udp_is_tried(&mut self, now: Instant) {
        let time = if self.tunnels.last_by_stream {
            HEAD_START
        } else {
            UDP_TIME
        };
        self.tunnels.dialled = Some((now, now + time));
        self.tunnels.tried = false;
        self.tunnels.failures.clear();
    }

    /// Opens streams, unless the server was heard by UDP.
    fn begin_streams(&mut self, now: Instant) {
        let Some((dialled, _)) = self.tunnels.dialled else {
            return;
        };
        self.tunnels.tried = true;
        let route = self.server_address_of_session();
        let heard = route
            .and_then(|route| self.paths.heard(route))
            .is_some_and(|heard| heard > dialled);
        let Some((host, port)) = self.rendezvous.server().filter(|_| !heard) else {
            return;
        };
        let ports = self.tunnels.ports(host, port);
        let mut ips: Vec<IpAddr> = Vec::new();
        for address in &self.rendezvous.known_addresses {
            if ips.len() < MAX_TRIED && ips.iter().all(|ip| ip.is_ipv4() != address.is_ipv4()) {
                ips.push(address.ip());
            }
        }
        let addresses = ips
            .iter()
            .flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port)));
        let addresses: Vec<SocketAddr> = addresses.filter(|address| may_send_to(*address)).collect();
        let (key, deadline) = (self.rendezvous.expected_key(), now + OPEN_TIME);
        for address in addresses {
            let tunnel = self.tunnels.next;
            self.tunnels.next = tunnel.wrapping_add(1);
            let stage = Stage::Opening { deadline };
            let number = tunnel;
            self.tunnels.streams.push(Stream { number, address, stage });
            self.side_effects
                .push_back(SideEffect::OpenTunnel { tunnel, address, key });
        }
    }

    /// UDP has come to nothing. True: a stream may still lead to the server.
    pub(super) fn streams_go_on(&mut self, now: Instant) -> bool {
        if self.tunnels.dialled.is_some() && !self.tunnels.tried {
            self.begin_streams(now);
        }
        self.tunnels.are_under_way()
    }

    /// What to say when the server answered in no way; `reason`: how UDP ended.
    pub(super) fn no_way_to_server(&self, reason: Reason) -> Reason {
        let unanswered = reason.code == Code::NoAnswer && !self.rendezvous.known_addresses.is_empty();
        match unanswered && self.tunnels.tried {
            true => self.tunnels.words(&self.rendezvous.known_addresses),
            false => reason,
        }
    }

    /// The outside has opened a stream.
    pub(super) fn tunnel_opened(&mut self, now: Instant, number: u32) {
        self.timers_changed = true;
        let Some(stream) = self.tunnels.stream(number) else {
            return self.side_effects.push_back(SideEffect::CloseTunnel { tunnel: number });
        };
        if !matches!(stream.stage, Stage::Opening { .. }) {
            return;
        }
        let path = Path {
            socket: SocketName::Tunnel(number),
            address: stream.address,
            kind: kind_of(stream.address),
            round_trip: None,
            verified: false,
        };
        let synthetic = self.transport.new_address();
        self.paths.insert(now, synthetic, Owner::Server, path);
        let link = self.dial_server(now, synthetic);
        let deadline = now + DIAL_TIME;
        if let Some(stream) = self.tunnels.stream_mut(number) {
            stream.stage = Stage::Dialling { link, deadline };
        }
    }

    /// The outside could not open a stream.
    pub(super) fn tunnel_failed(&mut self, now: Instant, number: u32, reason: Reason) {
        self.stream_over(now, number, reason);
    }

    /// A stream has ended.
    pub(super) fn tunnel_closed(&mut self, now: Instant, number: u32, text: &str) {
        let stage = self.tunnels.stream(number).map(|stream| stream.stage);
        let text = format!("the stream to the server has ended: {text}");
        if stage != Some(Stage::Session) {
            let code = Code::NoAnswer;
            return self.stream_over(now, number, Reason { code, text });
        }
        self.tunnels.take_stream(number);
        self.server_session_over(now, Reason { code: Code::Lost, text });
    }

    /// One that was no session (yet) is over.
    fn stream_over(&mut self, now: Instant, number: u32, reason: Reason) {
        self.timers_changed = true;
        let Some(stream) = self.tunnels.take_stream(number) else {
            return;
        };
        if let Stage::Dialling { link, .. } = stream.stage {
            self.close_link(now, link, closed("given up"));
        }
        if matches!(stream.stage, Stage::Leaving { .. }) {
            return;
        }
        self.tunnels.failures.push((stream.address, reason));
        if self.rendezvous.waits_for_streams() && !self.tunnels.are_under_way() {
            let reason = self.tunnels.words(&self.rendezvous.known_addresses);
            self.server_attempt_failed(now, reason);
        }
    }

    /// Gives a stream up, and whoever waits for it.
    fn leave_stream(&mut self, now: Instant, number: u32) {
        self.timers_changed = true;
        let Some(stream) = self.tunnels.stream_mut(number) else {
            return;
        };
        let before = stream.stage;
        stream.stage = Stage::Leaving {
            until: now + LEAVE_TIME,
        };
        match before {
            Stage::Opening { .. } => {
                self.tunnels.take_stream(number);
                self.side_effects.push_back(SideEffect::CloseTunnel { tunnel: number });
            }
            Stage::Dialling { link, .. } => self.close_link(now, link, closed("another way was quicker")),
            Stage::Session | Stage::Leaving { .. } => {}
        }
    }

    /// Gives all streams up, with what was under way beside the session.
    pub(super) fn leave_streams(&mut self, now: Instant) {
        let staying = |stage| !matches!(stage, Stage::Leaving { .. });
        for number in self.tunnels.numbers(staying) {
            self.leave_stream(now, number);
        }
        self.tunnels.dialled = None;
        self.tunnels.look = None;
        if let Some(moving) = self.tunnels.moving.take() {
            self.close_link(now, moving.link, closed("given up"));
        }
    }

    /// A handshake with a server is done that is not the session's own dial. True: it is the session's from now on, and Hello is to be said.
    pub(super) fn side_link_connected(&mut self, now: Instant, link: LinkId) -> bool {
        self.timers_changed = true;
        let busy = self.attempts.are_under_way() && !self.move_is_overdue(now);
        if let Some(moving) = self.tunnels.moving.as_mut().filter(|moving| moving.link == link) {
            if busy {
                // One has begun meanwhile: it is waited for, too.
                self.tunnels.moving = None;
                self.close_link(now, link, closed("not now"));
                return false;
            }
            moving.greeting = true;
            moving.deadline = now + DIAL_TIME;
            self.say_hello(link);
            return false;
        }
        let Some(number) = self.tunnels.number_of(link).filter(|_| self.rendezvous.is_dialling()) else {
            self.close_link(now, link, closed("another way was quicker"));
            return false;
        };
        if let Some(stream) = self.tunnels.stream_mut(number) {
            stream.stage = Stage::Session;
        }
        if let Some(by_udp) = self.rendezvous.link() {
            self.close_link(now, by_udp, closed("another way was quicker"));
        }
        true
    }

    /// One of the ways has led to the server: the others are given up.
    pub(super) fn server_way_chosen(&mut self, now: Instant) {
        self.tunnels.dialled = None;
        self.tunnels.tried = false;
        for number in self.tunnels.numbers(|stage| stage != Stage::Session) {
            self.leave_stream(now, number);
        }
    }

    /// A link to a server that is not the session's is over.
    pub(super) fn side_link_closed(&mut self, now: Instant, link: LinkId, reason: &CloseReason) {
        self.timers_changed = true;
        if let Some(number) = self.tunnels.number_of(link) {
            let reason = super::rendezvous::server_reason(reason.clone(), false);
            self.side_effects.push_back(SideEffect::CloseTunnel { tunnel: number });
            self.stream_over(now, number, reason);
        } else if let Some(moving) = self.tunnels.moving.take_if(|moving| moving.link == link) {
            self.move_failed(now, moving);
        }
    }

    /// The session's link stands: whether on a stream.
    pub(super) fn is_on_stream(&self) -> bool {
        self.tunnels.streams.iter().any(|stream| stream.stage == Stage::Session)
    }

    /// Whether a datagram that a stream brought may be looked at: a packet of the QUIC connection through it, or a relay's frame. Everything else that comes
    /// by UDP has no business there.
    pub(super) fn stream_admits(&self, number: u32, datagram: &Datagram) -> bool {
        let known = self.tunnels.stream(number);
        if known.is_none_or(|stream| stream.address != datagram.source) {
            return false;
        }
        match datagram.contents.first() {
            Some(6..=15) => true,
            Some(first) if *first >= 0x40 => self.paths.route_from(datagram.socket, datagram.source).is_some(),
            _ => false,
        }
    }

    /// Where the session's packets go, whatever way that is.
    pub(super) fn server_hop(&self) -> Option<(SocketName, SocketAddr)> {
        let path = self.paths.best(self.server_address_of_session()?)?;
        Some((path.socket, path.address))
    }

    /// What is due.
    pub(super) fn tunnels_timeout(&mut self, now: Instant) {
        if self.tunnels.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.timers_changed = true;
        if self.tunnels.dialled.is_some_and(|(_, begin)| begin <= now) && !self.tunnels.tried {
            self.begin_streams(now);
        }
        for number in self.tunnels.numbers(|_| true) {
            let over = |text: &str| Reason {
                code: Code::NoAnswer,
                text: text.to_owned(),
            };
            match self.tunnels.stream(number).map(|stream| stream.stage) {
                Some(Stage::Opening { deadline }) if deadline <= now => {
                    self.side_effects.push_back(SideEffect::CloseTunnel { tunnel: number });
                    self.stream_over(now, number, over("no answer"));
                }
                Some(Stage::Dialling { deadline, .. }) if deadline <= now => {
                    self.side_effects.push_back(SideEffect::CloseTunnel { tunnel: number });
                    self.stream_over(now, number, over("the server behind it does not answer"));
                }
                Some(Stage::Leaving { until }) if until <= now => {
                    self.side_effects.push_back(SideEffect::CloseTunnel { tunnel: number });
                    self.tunnels.take_stream(number);
                }
                _ => {}
            }
        }
        if let Some(moving) = self.tunnels.moving.take_if(|moving| moving.deadline <= now) {
            self.close_link(now, moving.link, closed("no answer"));
            self.move_failed(now, moving);
        }
        self.look_for_udp(now);
    }
}

/// Getting back.
impl Node {
    /// A session stands, by whatever way.
    pub(super) fn session_has_way(&mut self, now: Instant) {
        self.tunnels.last_by_stream = self.is_on_stream();
        self.tunnels.look = self.tunnels.last_by_stream.then(|| Look {
            next: now + FIRST_LOOK,
            left: 0,
            transaction: TransactionId::default(),
            targets: Vec::new(),
            found: None,
        });
    }

    /// The machine's network changed: UDP may be let through now.
    pub(super) fn look_for_udp_now(&mut self, now: Instant) {
        if let Some(look) = &mut self.tunnels.look {
            (look.next, look.left) = (now, 0);
            self.timers_changed = true;
        }
    }

    fn look_for_udp(&mut self, now: Instant) {
        let up = self.server_is_up() && self.is_on_stream();
        let Some(look) = self.tunnels.look.as_mut().filter(|look| up && look.next <= now) else {
            return;
        };
        if self.tunnels.moving.is_some() {
            return;
        }
        if let Some((address, since)) = look.found {
            look.next = now + MOVE_STEP;
            if !self.attempts.are_under_way() || now >= since + MOVE_PATIENCE {
                self.begin_move(now, address);
            }
            return;
        }
        if look.left == 0 {
            look.left = LOOK_REQUESTS;
            self.random.fill_bytes(&mut look.transaction);
            look.targets.clear();
            for address in &self.rendezvous.known_addresses {
                let socket = match address.is_ipv4() {
                    true => SocketName::Udp4,
                    false => SocketName::Udp6,
                };
                if look.targets.iter().all(|(known, _)| *known != socket) {
                    look.targets.push((socket, *address));
                }
            }
        }
        look.left -= 1;
        look.next = now + if look.left == 0 { LOOK_INTERVAL } else { LOOK_REPEAT };
        let transaction = look.transaction;
        let requests = look
            .targets
            .iter()
            .map(|(socket, address)| (*socket, *address, transaction));
        self.tunnels.requests.extend(requests);
    }

    /// A STUN datagram by UDP. True: it answers the question whether the server is there.
    pub(super) fn udp_answers(&mut self, now: Instant, datagram: &Datagram) -> bool {
        let Some(look) = &mut self.tunnels.look else {
            return false;
        };
        if look.found.is_some() || !look.targets.contains(&(datagram.socket, datagram.source)) {
            return false;
        }
        let answers = Response::decode(&datagram.contents).is_ok_and(
            |response| matches!(response, Response::Success { transaction, .. } if transaction == look.transaction),
        );
        if answers {
            look.found = Some((datagram.source, now));
            look.next = now;
            self.timers_changed = true;
        }
        answers
    }

    /// The attempts that a move waits for have no end.
    fn move_is_overdue(&self, now: Instant) -> bool {
        let found = self.tunnels.look.as_ref().and_then(|look| look.found);
        found.is_some_and(|(_, since)| now >= since + MOVE_PATIENCE)
    }

    /// True while the server may take the old session off at any moment: what is asked by it now may get lost, and is asked after the move.
    pub(super) fn asks_wait_for_move(&self) -> bool {
        self.tunnels.moving.as_ref().is_some_and(|moving| moving.greeting)
    }

    fn begin_move(&mut self, now: Instant, address: SocketAddr) {
        let Some(route) = self.server_route(now, address) else {
            return self.forget_udp(now);
        };
        let link = self.dial_server(now, route);
        self.tunnels.moving = Some(Move {
            link,
            deadline: now + DIAL_TIME,
            greeting: false,
            lost: None,
        });
    }

    /// What the last look found counts no more.
    fn forget_udp(&mut self, now: Instant) {
        if let Some(look) = &mut self.tunnels.look {
            (look.found, look.left, look.next) = (None, 0, now + LOOK_INTERVAL);
            look.targets.clear();
        }
    }

    /// Something arrived by a link that is not the session's.
    pub(super) fn side_link_readable(&mut self, now: Instant, link: LinkId) {
        while let Some(message) = self.transport.next_control(link) {
            let welcome = match FromServer::decode(&message) {
                Ok(welcome @ FromServer::Welcome { .. }) => welcome,
                // What an older session still had to say.
                _ => continue,
            };
            if self
                .tunnels
                .moving
                .take_if(|moving| moving.link == link && moving.greeting)
                .is_some()
            {
                self.complete_move(now, link, welcome);
                return self.server_readable(now, link);
            }
        }
    }

    /// The server has the node by UDP now.
    fn complete_move(&mut self, now: Instant, link: LinkId, welcome: FromServer) {
        let old = self.rendezvous.link();
        for number in self.tunnels.numbers(|stage| stage == Stage::Session) {
            self.leave_stream(now, number);
        }
        self.session_moves(now, link, welcome);
        if let Some(old) = old {
            self.close_link(now, old, closed("the session goes on by UDP"));
        }
        self.repeat_asks(now);
        self.update_server();
    }

    /// UDP does not carry the session after all.
    fn move_failed(&mut self, now: Instant, moving: Move) {
        self.forget_udp(now);
        match moving.lost {
            Some(lost) => self.server_link_closed(now, lost),
            None => self.repeat_asks(now),
        }
    }

    /// The session's link is over. True: the server gave it up for the one that is being made by UDP, whose Welcome is about to come.
    pub(super) fn session_is_moving(&mut self, reason: &CloseReason) -> bool {
        let moving = self
            .tunnels
            .moving
            .as_mut()
            .filter(|moving| moving.greeting && moving.lost.is_none());
        match moving {
            Some(moving) => {
                moving.lost = Some(reason.clone());
                true
            }
            None => false,
        }
    }

    /// A dial to the server over that route.
    pub(super) fn dial_server(&mut self, now: Instant, route: crate::transport::SyntheticAddress) -> LinkId {
        self.paths.link_added(route);
        let expected = self.rendezvous.expected_key();
        let round_trip = Some(super::rendezvous::INITIAL_ROUND_TRIP);
        let link = self
            .transport
            .connect(now, route, LinkKind::Server, expected, round_trip);
        self.server_links.insert(link, route);
        link
    }
}

fn closed(text: &str) -> CloseInfo {
    CloseInfo {
        code: Code::Closed.number(),
        user_code: 0,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_that_was_told_comes_first_and_no_port_twice() {
        let mut tunnels = Tunnels::default();
        assert_eq!(tunnels.ports("a", 61_111), [443, 61_111]);
        assert_eq!(tunnels.ports("a", 443), [443]);
        for (told, expected) in [
            (8_443, &[8_443, 443, 61_111][..]),
            (443, &[443, 61_111]),
            (61_111, &[61_111, 443]),
            (0, &[]),
        ] {
            tunnels.note_port("a", 61_111, told);
            assert_eq!(tunnels.ports("a", 61_111), expected);
            // Of another server nothing is known.
            assert_eq!(tunnels.ports("b", 61_111), [443, 61_111]);
            assert_eq!(tunnels.ports("a", 7), [443, 7]);
        }
    }

    #[test]
    fn a_failure_names_what_was_tried() {
        let mut tunnels = Tunnels::default();
        let udp: Vec<SocketAddr> = vec!["203.0.113.5:61111".parse().unwrap()];
        let mut fail = |address: &str, code, text: &str| {
            let text = text.to_owned();
            tunnels.failures.push((address.parse().unwrap(), Reason { code, text }));
            tunnels.words(&udp)
        };
        let reason = fail("203.0.113.5:443", Code::NoAnswer, "refused");
        assert_eq!(
            (reason.code, reason.text.as_str()),
            (Code::NoAnswer, "no UDP answer from 203.0.113.5:61111; TCP 443: refused")
        );
        let reason = fail("203.0.113.5:61111", Code::WrongKey, "another key (ab)");
        assert_eq!(reason.code, Code::WrongKey);
        assert!(
            reason.text.ends_with("; TCP 443: refused; TCP 61111: another key (ab)"),
            "{}",
            reason.text
        );
        let reason = fail("[2001:db8::5]:443", Code::NoAnswer, "no answer");
        assert!(
            reason.text.ends_with("TCP [2001:db8::5]:443: no answer"),
            "{}",
            reason.text
        );
        assert_eq!(
            Tunnels::default().words(&udp).text,
            "no UDP answer from 203.0.113.5:61111"
        );
    }
}
