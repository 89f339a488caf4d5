//! Dials: wishes to connect that are under way, from the call to a greeted link or a failure. Several requests may wait for one dial.
//!
//! In: wishes of the game and of the mesh, opened ways, proven keys, failures. Out: links that are dialled, `CONNECTION_FAILED`, what the
//! mesh hears of its own wishes. Timer: [`DIAL_TIME`]; the greeting's are in [`super::connections`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Node;
use super::api::{Event, Reason, RequestId};
use super::attempts::cancelled;
use super::connections::{GREETING_TIME, Link, SUPERSEDED, Stage};
use super::early::is_forwarded;
use super::paths::{Owner, Path, kind_of, may_send_to};
use super::requests::Pending;
use crate::codes::{Code, PathKind};
use crate::engine::SocketName;
use crate::transport::identity::{Guid, PublicKey};
use crate::transport::{CloseReason, LinkId, LinkKind, SyntheticAddress};
use crate::wire::control::RelayPolicy;
use crate::wire::peer::PeerControl;

/// Handshake of a dial: one round trip, with room for four losses in a row.
const DIAL_TIME: Duration = Duration::from_secs(5);
/// Guess for an unprobed path's round trip.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);
/// A wish to connect.
#[derive(Debug)]
pub(super) struct Dial {
    pub guid: Option<Guid>,
    pub address: Option<SocketAddr>,
    pub expected: Option<PublicKey>,
    pub requests: Vec<RequestId>,
    pub for_mesh: bool,
    /// `None`: a way is being opened, or the other side's link is awaited.
    pub link: Option<LinkId>,
    /// A link that has no path yet. See [`super::early`].
    pub early: Option<LinkId>,
}

/// Dials by number.
pub(super) type Dials = BTreeMap<u64, Dial>;

/// Somebody wants a connection.
struct Wish {
    guid: Option<Guid>,
    address: Option<SocketAddr>,
    expected: Option<PublicKey>,
    /// `None`: the mesh.
    request: Option<RequestId>,
}

impl Node {
    /// The game's call.
    pub(super) fn connect_peer(
        &mut self,
        now: Instant,
        request: RequestId,
        peer: Option<Guid>,
        address: Option<SocketAddr>,
    ) {
        self.requests.begin(request, Pending::Connect);
        self.begin_dial(
            now,
            Wish {
                guid: peer,
                address,
                expected: None,
                request: Some(request),
            },
        );
    }

    /// The mesh's call.
    pub(super) fn connect_for_mesh(&mut self, now: Instant, peer: PublicKey) {
        self.begin_dial(
            now,
            Wish {
                guid: Some(peer.guid()),
                address: None,
                expected: Some(peer),
                request: None,
            },
        );
    }

    fn begin_dial(&mut self, now: Instant, wish: Wish) {
        self.timers_changed = true;
        if let Some(link) = wish.guid.and_then(|guid| self.current_link(guid)) {
            return self.already_connected(now, link, &wish);
        }
        let same = |dial: &Dial| match wish.guid {
            Some(guid) => dial.guid == Some(guid),
            None => dial.guid.is_none() && dial.address == wish.address,
        };
        let running = self
            .dials
            .iter()
            .find(|(_, dial)| same(dial))
            .map(|(number, _)| *number);
        let number = match running {
            Some(number) => number,
            None => self.new_dial(&wish),
        };
        let Some(dial) = self.dials.get_mut(&number) else {
            return;
        };
        dial.requests.extend(wish.request);
        dial.for_mesh |= wish.request.is_none();
        dial.expected = dial.expected.or(wish.expected);
        let waits = dial.link.is_none();
        if let Some(address) = wish.address
            && waits
        {
            dial.address = Some(address);
            return self.dial_address(now, number, address);
        }
        if running.is_none() {
            self.dial_peer(now, number);
        }
    }

    fn new_dial(&mut self, wish: &Wish) -> u64 {
        let number = self.next_dial;
        self.next_dial += 1;
        let dial = Dial {
            guid: wish.guid,
            address: wish.address,
            expected: wish.expected,
            requests: Vec::new(),
            for_mesh: false,
            link: None,
            early: None,
        };
        self.dials.insert(number, dial);
        number
    }

    fn already_connected(&mut self, now: Instant, link: LinkId, wish: &Wish) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        let key = entry.key;
        entry.wished = true;
        match wish.request {
            // CONNECTED of the older wish is still to come: it will serve for both.
            Some(request) if !entry.raised => entry.waiting.push(request),
            Some(request) => {
                self.raise_connected_event(link, request);
                if let Some(key) = key {
                    self.mesh_changed().allow(key.guid());
                }
            }
            None if entry.raised => {
                if let Some(key) = key {
                    self.mesh_changed().connected(now, key, true);
                }
            }
            None => {}
        }
    }

    /// Refuses before anything is sent.
    fn dial_refusal(&self, dial: &Dial) -> Option<Reason> {
        let (code, text) = if dial.guid == Some(self.guid) {
            (Code::Self_, "that is this node itself".to_owned())
        } else if self.effective_relay_policy() == RelayPolicy::Only && (dial.address.is_some() || dial.guid.is_none())
        {
            let text = "this node's relay policy is \"only\": it never shows its address to players";
            (Code::Policy, text.to_owned())
        } else if self.connected_or_dialling(dial.guid) >= self.max_peers {
            (
                Code::Full,
                format!("this node allows {} connections and has them", self.max_peers),
            )
        } else {
            return None;
        };
        Some(Reason { code, text })
    }

    /// A greeted link has a place, unless a dial to the same player has one already.
    fn is_promised(&self, link: &Link) -> bool {
        let same = |dial: &Dial| dial.link.is_some() && dial.guid == link.guid();
        link.stage == Stage::Greeted && !self.dials.values().any(same)
    }

    /// Places taken by others than `except`.
    pub(super) fn connected_or_dialling(&self, except: Option<Guid>) -> usize {
        let open = self
            .links
            .values()
            .filter(|link| (link.stage == Stage::Open || self.is_promised(link)) && link.guid() != except);
        let dialling = self
            .dials
            .values()
            .filter(|dial| dial.link.is_some() && (dial.guid.is_none() || dial.guid != except));
        open.count() + dialling.count()
    }

    pub(super) fn dial_peer(&mut self, now: Instant, number: u64) {
        let Some(dial) = self.dials.get(&number) else { return };
        if let Some(reason) = self.dial_refusal(dial) {
            return self.dial_failed(now, number, reason);
        }
        let (guid, address) = (dial.guid, dial.address);
        if guid.is_some_and(|guid| self.greeted_link(guid).is_some()) {
            return;
        }
        if let Some(address) = address {
            return self.dial_address(now, number, address);
        }
        let Some(guid) = guid else { return };
        if self.paths.opened(guid).is_some() {
            return self.dial_opened(now, number, guid);
        }
        if self.attempts.is_running(guid) {
            // It may take its time, or fail; a connection need not wait for it where relays are welcome.
            let offered = self.relayed.socket_of(guid, PathKind::Proxied).is_some();
            if !offered && self.attempts.is_direct_only(guid) && self.effective_relay_policy() != RelayPolicy::Never {
                self.wish_for_relay(now, guid, Duration::ZERO, false);
            }
            return;
        }
        if let Err(reason) = self.ask(now, 0, guid) {
            self.dial_failed(now, number, reason);
        }
    }

    fn dial_opened(&mut self, now: Instant, number: u64, guid: Guid) {
        if self.greeted_link(guid).is_some() {
            return self.drop_early(now, number);
        }
        let Some((address, path)) = self.paths.opened(guid) else {
            let text = "the opened way is gone already".to_owned();
            let code = Code::NoAnswer;
            return self.dial_failed(now, number, Reason { code, text });
        };
        let round_trip = path.round_trip;
        let proven = match self.paths.owner(address) {
            Some(Owner::Peer(key)) => Some(key),
            _ => None,
        };
        let wanted = self.dials.get(&number).and_then(|dial| dial.expected);
        if wanted.is_some() && wanted != proven {
            let text = "the server introduced another key than the session's host named".to_owned();
            let code = Code::WrongKey;
            return self.dial_failed(now, number, Reason { code, text });
        }
        self.start_link(now, number, address, proven, round_trip);
    }

    fn dial_address(&mut self, now: Instant, number: u64, address: SocketAddr) {
        let Some(dial) = self.dials.get(&number) else { return };
        if let Some(reason) = self.dial_refusal(dial) {
            return self.dial_failed(now, number, reason);
        }
        if dial.guid.is_some_and(|guid| self.greeted_link(guid).is_some()) {
            return self.drop_early(now, number);
        }
        let expected = dial.expected;
        let socket = if address.is_ipv4() {
            SocketName::Udp4
        } else {
            SocketName::Udp6
        };
        if !may_send_to(address) || !self.has_socket(socket) {
            let text = format!("nothing can be sent to {address} from this node's sockets");
            let code = Code::InvalidArgument;
            return self.dial_failed(now, number, Reason { code, text });
        }
        let known = self.paths.route_from(socket, address);
        let is_server = |route: &SyntheticAddress| self.paths.owner(*route) == Some(Owner::Server);
        if known.is_some_and(|route| is_server(&route) && self.paths.is_in_use(route)) {
            let text = format!("{address} is the server's address, not a player's");
            let code = Code::Incompatible;
            return self.dial_failed(now, number, Reason { code, text });
        }
        let usable = known.filter(|route| !is_server(route));
        let route = usable.unwrap_or_else(|| {
            let route = self.transport.new_address();
            let path = Path {
                socket,
                address,
                kind: kind_of(address),
                round_trip: None,
                verified: false,
            };
            self.paths.insert(now, route, Owner::Stranger, path);
            route
        });
        let round_trip = self.paths.best(route).and_then(|path| path.round_trip);
        self.start_link(now, number, route, expected, round_trip);
    }

    fn start_link(
        &mut self,
        now: Instant,
        number: u64,
        address: SyntheticAddress,
        expected: Option<PublicKey>,
        round_trip: Option<Duration>,
    ) {
        if self.early_goes_on(now, number, (address, now + DIAL_TIME)) {
            return;
        }
        let forwarded = self.paths.best(address).is_some_and(|path| is_forwarded(path.socket));
        let known = round_trip.or_else(|| self.round_trip_to_server().filter(|_| forwarded));
        let round_trip = known.unwrap_or(INITIAL_ROUND_TRIP);
        let link = self
            .transport
            .connect(now, address, LinkKind::Peer, expected, Some(round_trip));
        self.paths.link_added(address);
        let mut entry = Link::new(address, true, Stage::Handshake, now + DIAL_TIME);
        entry.dial = Some(number);
        entry.set_key(expected);
        self.links.insert(link, entry);
        if let Some(dial) = self.dials.get_mut(&number) {
            dial.link = Some(link);
        }
        self.timers_changed = true;
    }

    /// A way is open: whoever waited for it dials.
    pub(super) fn way_opened(&mut self, now: Instant, peer: Guid) {
        self.abandon_attempt(peer);
        for number in self.waiting_dials(peer) {
            self.dial_opened(now, number, peer);
        }
    }

    /// No way could be opened.
    pub(super) fn no_way(&mut self, now: Instant, peer: Guid, reason: Reason) {
        for number in self.waiting_dials(peer) {
            self.dial_failed(now, number, reason.clone());
        }
    }

    fn waiting_dials(&self, peer: Guid) -> Vec<u64> {
        let waits = |dial: &Dial| dial.guid == Some(peer) && dial.link.is_none() && dial.address.is_none();
        let numbers = self.dials.iter().filter(|(_, dial)| waits(dial));
        numbers.map(|(number, _)| *number).collect()
    }

    /// True if a dial waits for a way to that peer.
    pub(super) fn dial_waits_for(&self, peer: Guid) -> bool {
        !self.waiting_dials(peer).is_empty()
    }

    pub(super) fn dial_failed(&mut self, now: Instant, number: u64, reason: Reason) {
        self.timers_changed = true;
        self.drop_early(now, number);
        let Some(dial) = self.dials.remove(&number) else { return };
        if let Some(guid) = dial.guid {
            // The other side called as well, and will be through in a moment.
            if dial.link.is_some() && reason.code != Code::Cancelled && self.greeted_link(guid).is_some() {
                self.dials.insert(number, Dial { link: None, ..dial });
                return;
            }
            if reason.code == Code::NoAnswer && dial.address.is_none() {
                // The opened path is dead: the next wish opens a new one.
                self.paths.close(now, guid);
            }
            // The other side called as well, and its call got through.
            if let Some(link) = self.parked_link(guid) {
                self.dials.insert(number, Dial { link: None, ..dial });
                return self.accept(now, link);
            }
        }
        for request in dial.requests {
            self.raise_connection_failed(request, dial.guid, dial.address, reason.clone());
        }
        if dial.for_mesh
            && let Some(guid) = dial.guid
        {
            self.mesh_changed().connect_failed(now, guid, reason);
        }
    }

    pub(super) fn raise_connection_failed(
        &mut self,
        request: RequestId,
        peer: Option<Guid>,
        address: Option<SocketAddr>,
        reason: Reason,
    ) {
        if self.requests.end(request) {
            self.raise(Event::ConnectionFailed {
                request,
                peer,
                address,
                reason,
            });
        }
    }

    /// `introduced`: who was expected, as far as that is known by now.
    pub(super) fn dial_connected(&mut self, now: Instant, link: LinkId, key: PublicKey, introduced: Option<PublicKey>) {
        let number = self.links.get(&link).and_then(|entry| entry.dial);
        let Some((number, dial)) = number.and_then(|number| Some((number, self.dials.get_mut(&number)?))) else {
            return self.refuse(now, link, SUPERSEDED, "");
        };
        let guid = key.guid();
        let other = dial.guid.is_some_and(|wanted| wanted != guid) || introduced.is_some_and(|wanted| wanted != key);
        if other || key == self.own_key {
            let code = if key == self.own_key {
                Code::Self_
            } else {
                Code::WrongKey
            };
            let text = format!("{guid} answered at that address");
            self.refuse(now, link, Code::WrongKey, "another player was expected here");
            return self.dial_failed(now, number, Reason { code, text });
        }
        dial.guid = Some(guid);
        let twin = self.links.iter().any(|(other, entry)| {
            *other != link
                && entry.guid() == Some(guid)
                && (entry.stage == Stage::Open || (entry.dialled && entry.stage == Stage::AwaitWelcome))
        });
        // The lower side has greeted the other's link only because it did not know of this dial.
        let promised = self.guid < guid && self.greeted_link(guid).is_some();
        if twin || promised {
            self.refuse(now, link, SUPERSEDED, "");
            return self.merge_dial(now, number, guid);
        }
        if let Some(entry) = self.links.get_mut(&link) {
            entry.stage = Stage::AwaitWelcome;
            entry.deadline = Some(now + GREETING_TIME);
        }
        let hello = PeerControl::Hello(self.greeting());
        self.send_control(link, &hello);
    }

    /// A second dial led to a player who is connected, or being greeted, already.
    fn merge_dial(&mut self, now: Instant, number: u64, guid: Guid) {
        let Some(dial) = self.dials.remove(&number) else { return };
        if let Some(link) = self.current_link(guid) {
            for request in dial.requests {
                let wish = Wish {
                    guid: Some(guid),
                    address: None,
                    expected: None,
                    request: Some(request),
                };
                self.already_connected(now, link, &wish);
            }
        } else if let Some(other) = self.dials.values_mut().find(|other| other.guid == Some(guid)) {
            other.requests.extend(dial.requests);
            other.for_mesh |= dial.for_mesh;
        } else {
            // It waits for the link that was greeted.
            self.dials.insert(number, Dial { link: None, ..dial });
            self.dial_after_greeting(now, guid);
        }
    }

    /// Ends all wishes for that peer with success, and the links that they had begun.
    pub(super) fn satisfy_dials(&mut self, now: Instant, guid: Guid, link: LinkId) {
        let own = self.links.get(&link).and_then(|entry| entry.dial);
        let wanted =
            |(number, dial): (&u64, &Dial)| (dial.guid == Some(guid) || own == Some(*number)).then_some(*number);
        let numbers: Vec<u64> = self.dials.iter().filter_map(wanted).collect();
        let (mut waiting, wished) = (Vec::new(), !numbers.is_empty());
        for number in numbers {
            self.drop_early(now, number);
            let Some(dial) = self.dials.remove(&number) else {
                continue;
            };
            waiting.extend(dial.requests);
            if let Some(other) = dial.link.filter(|other| *other != link) {
                self.refuse(now, other, SUPERSEDED, "");
            }
        }
        if let Some(entry) = self.links.get_mut(&link) {
            entry.waiting.extend(waiting);
            entry.wished |= wished;
            entry.dial = None;
        }
        if let Some(parked) = self.parked_link(guid).filter(|parked| *parked != link) {
            self.refuse(now, parked, SUPERSEDED, "");
        }
        // Its dialler sees at the end of the handshake that another link stands, and gives it up. Closed now, it would take that for a failure.
        if let Some(greeted) = self.greeted_link(guid).filter(|greeted| *greeted != link)
            && let Some(entry) = self.links.get_mut(&greeted)
        {
            entry.stage = Stage::AwaitHello;
        }
    }

    pub(super) fn abort_dial(&mut self, now: Instant, number: u64) {
        let Some(dial) = self.dials.get(&number) else { return };
        let (link, guid) = (dial.link, dial.guid);
        if let Some(link) = link {
            self.refuse(now, link, Code::Cancelled, "the other side cancelled");
        } else if let Some(guid) = guid {
            self.abandon_attempt(guid);
        }
        self.dial_failed(now, number, cancelled());
    }

    /// The game cancels its request; whoever else waits for the same connection goes on.
    pub(super) fn cancel_connect(&mut self, now: Instant, request: RequestId) {
        let found = self
            .dials
            .iter()
            .find(|(_, dial)| dial.requests.contains(&request))
            .map(|(number, _)| *number);
        if let Some(number) = found
            && let Some(dial) = self.dials.get_mut(&number)
        {
            if dial.requests.len() == 1 && !dial.for_mesh {
                return self.abort_dial(now, number);
            }
            dial.requests.retain(|waiting| *waiting != request);
            let (guid, address) = (dial.guid, dial.address);
            return self.raise_connection_failed(request, guid, address, cancelled());
        }
        let holder = self.links.values_mut().find(|link| link.waiting.contains(&request));
        let guid = holder.and_then(|link| {
            link.waiting.retain(|waiting| *waiting != request);
            link.guid()
        });
        self.raise_connection_failed(request, guid, None, cancelled());
    }
}

/// Why a dial failed, as the game hears it.
pub(super) fn dial_reason(reason: CloseReason) -> Reason {
    let (code, text) = match reason {
        CloseReason::Remote(info) => {
            let code = Code::from_number(info.code).filter(|code| code.number() <= Code::NoAnswer.number());
            (code.unwrap_or(Code::Refused), info.text)
        }
        CloseReason::NoAnswer | CloseReason::TimedOut => {
            (Code::NoAnswer, "no answer came from that address".to_owned())
        }
        CloseReason::WrongKey(key) => (Code::WrongKey, format!("{} answered instead", key.guid())),
        CloseReason::Incompatible => (
            Code::Incompatible,
            "the other side speaks another protocol version".to_owned(),
        ),
        CloseReason::ProtocolViolation(text) => (Code::ProtocolViolation, text),
        CloseReason::Local => (Code::Cancelled, String::new()),
    };
    Reason { code, text }
}
