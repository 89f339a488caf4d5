//! What saves round trips at the beginning of a connection between players that the server introduced.
//!
//! **The early greeting.** Whoever begins a handshake over a way that the server or authenticated probes opened is expected. If nothing stands
//! against the connection, a Hello travels with this side's part of the handshake: the dialler is connected when that is done. Here
//! the link counts when the expected key is proven and its Hello is there; they come with the dialler's first messages. Then Welcome follows:
//! until it has come, the dialler's session does not tell others that the two are connected. A side that has
//! greeted has promised: it takes that link, holds a place for it, and does not dial meanwhile. Its game's wishes wait for it. If it dies, they
//! dial. (The side with the higher guid greets although its own dial is under way, because that would give way in any case.)
//!
//! **The first flight.** A dial to a player without a way makes its link at once, on a route that has no path yet. The first datagram
//! travels with the request for an introduction, and the other side has it when it hears of the introduction. The relay of that introduction becomes
//! the route's path. Without a relay the link is dropped, and the dial begins anew when a way opens.
//!
//! In: handshakes of introduced players, wishes without a way, introductions. Out: greeted links, links without a path, and what becomes of
//! them. Timers: [`EARLY_TIME`]; a greeted link's is that of greetings.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::Node;
use super::connections::{GREETING_TIME, Link, SUPERSEDED, Stage};
use super::dials::Dial;
use super::incoming::begins_connection;
use super::paths::Owner;
use crate::codes::{Code, PathKind};
use crate::engine::{Datagram, SocketName};
use crate::transport::identity::{Guid, PublicKey};
use crate::transport::{LinkId, SyntheticAddress};
use crate::wire::introduction::MAX_FIRST_FLIGHT;
use crate::wire::peer::PeerControl;

/// How long a link waits for its first path: the introduction takes one round trip, and a few more if its packets are lost. QUIC's own
/// time-out for silence, at least 3 s, must not run out meanwhile.
const EARLY_TIME: Duration = Duration::from_secs(2);

impl Node {
    /// Greets whoever began a handshake just now and is expected.
    pub(super) fn greet_early(&mut self, now: Instant) {
        while let Some((link, address)) = self.transport.poll_greetable() {
            let Some(Owner::Peer(key)) = self.paths.owner(address) else {
                continue;
            };
            if !self.may_greet(key) || self.paths.best(address).is_none() {
                continue;
            }
            self.scratch.clear();
            PeerControl::Hello(self.greeting()).encode(&mut self.scratch);
            if !self.transport.send_early(link, &self.scratch) {
                continue;
            }
            self.paths.link_added(address);
            let mut entry = Link::new(address, false, Stage::Greeted, now + GREETING_TIME);
            entry.set_key(Some(key));
            self.links.insert(link, entry);
            self.timers_changed = true;
        }
    }

    /// Nothing stands against a link with that player, whatever its Hello says.
    fn may_greet(&self, key: PublicKey) -> bool {
        let guid = key.guid();
        let came_in = |link: &Link| {
            link.guid() == Some(guid)
                && !link.dialled
                && matches!(link.stage, Stage::AwaitHello | Stage::Parked | Stage::Greeted)
        };
        let dialling = |dial: &Dial| dial.guid == Some(guid) && dial.link.is_some();
        key != self.own_key
            && self.current_link(guid).is_none()
            && !self.links.values().any(came_in)
            && !(self.guid < guid && self.dials.values().any(dialling))
            && self.no_room_for(guid).is_none()
    }

    /// The link of that player that was greeted, and on which its Hello has not come yet.
    pub(super) fn greeted_link(&self, guid: Guid) -> Option<LinkId> {
        let mut links = self.links.iter();
        let found = links.find(|(_, link)| link.stage == Stage::Greeted && link.guid() == Some(guid));
        found.map(|(link, _)| *link)
    }

    /// The other side counts a link, too, on which it greeted early.
    pub(super) fn link_confirmed(&mut self, now: Instant, link: LinkId, peer: Guid) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.unconfirmed = false;
            self.mesh_changed().confirmed(now, peer);
        }
    }

    /// A greeted link comes to nothing.
    pub(super) fn give_up_greeted(&mut self, now: Instant, link: LinkId, code: Code, text: &str) {
        let guid = self.links.get(&link).and_then(Link::guid);
        self.refuse(now, link, code, text);
        if let Some(guid) = guid {
            self.dial_after_greeting(now, guid);
        }
    }

    /// The wishes that waited for a greeted link go their own way.
    pub(super) fn dial_after_greeting(&mut self, now: Instant, guid: Guid) {
        if self.current_link(guid).is_some() || self.greeted_link(guid).is_some() {
            return;
        }
        let waits = |dial: &Dial| dial.guid == Some(guid) && dial.link.is_none();
        let numbers = self.dials.iter().filter(|(_, dial)| waits(dial));
        let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        for number in numbers {
            self.dial_peer(now, number);
        }
    }

    /// Begins the connection that a dial without a way wants, for the request to carry its first datagram. Empty: the dial waits for its way.
    pub(super) fn first_flight_to(&mut self, now: Instant, peer: Guid) -> Bytes {
        let waits = |dial: &Dial| dial.guid == Some(peer) && dial.link.is_none() && dial.early.is_none();
        let found = self.dials.iter().find(|(_, dial)| waits(dial));
        let Some((number, expected)) = found.map(|(number, dial)| (*number, dial.expected)) else {
            return Bytes::new();
        };
        let round_trip = self.round_trip_to_server();
        let address = self.transport.new_address();
        let Some((link, flight)) = self.transport.connect_held(now, address, expected, round_trip) else {
            return Bytes::new();
        };
        self.paths.reserve(now, address);
        self.paths.link_added(address);
        let mut entry = Link::new(address, true, Stage::Early, now + EARLY_TIME);
        entry.dial = Some(number);
        entry.set_key(expected);
        self.links.insert(link, entry);
        if let Some(dial) = self.dials.get_mut(&number) {
            dial.early = Some(link);
        }
        self.timers_changed = true;
        if flight.len() > MAX_FIRST_FLIGHT {
            self.drop_early(now, number);
            return Bytes::new();
        }
        Bytes::from(flight)
    }

    /// As QUIC measured it on the session: what a way over the server's relay is about as long as.
    pub(super) fn round_trip_to_server(&self) -> Option<Duration> {
        Some(self.transport.stats(self.rendezvous.link()?)?.round_trip)
    }

    /// An introduction with relays: their path goes behind the route of the link that is there already.
    pub(super) fn early_introduced(&mut self, now: Instant, peer: PublicKey) {
        let guid = peer.guid();
        if let Some((_, _, route)) = self.early_link(guid)
            && self.paths.opened_route(guid).is_none()
        {
            self.paths.name_owner(route, Owner::Peer(peer));
            self.paths.open(guid, route, now + EARLY_TIME);
        }
    }

    /// An introduction without a relay for this node: the dial waits for a direct way.
    pub(super) fn early_not_relayed(&mut self, now: Instant, peer: Guid) {
        if let Some((number, _, route)) = self.early_link(peer) {
            self.drop_early(now, number);
            if self.paths.opened_route(peer) == Some(route) {
                self.paths.close(now, peer);
            }
        }
    }

    fn early_link(&self, peer: Guid) -> Option<(u64, LinkId, SyntheticAddress)> {
        let mut dials = self.dials.iter().filter(|(_, dial)| dial.guid == Some(peer));
        let (number, link) = dials.find_map(|(number, dial)| Some((*number, dial.early?)))?;
        Some((number, link, self.links.get(&link)?.address))
    }

    /// The way of a dial is open at that route. True: it is the one that the dial's link has waited for, and the link goes on.
    pub(super) fn early_goes_on(
        &mut self,
        now: Instant,
        number: u64,
        (route, deadline): (SyntheticAddress, Instant),
    ) -> bool {
        let Some(dial) = self.dials.get_mut(&number) else {
            return false;
        };
        let Some(link) = dial
            .early
            .filter(|link| self.links.get(link).is_some_and(|entry| entry.address == route))
        else {
            self.drop_early(now, number);
            return false;
        };
        (dial.early, dial.link) = (None, Some(link));
        let owner = self.paths.owner(route);
        if let Some(entry) = self.links.get_mut(&link) {
            entry.stage = Stage::Handshake;
            entry.deadline = Some(deadline);
            if let Some(Owner::Peer(key)) = owner {
                entry.set_key(Some(key));
            }
        }
        self.transport.release(now, link);
        self.timers_changed = true;
        true
    }

    /// A dial's link without a path is not wanted any more. Nobody hears of it.
    pub(super) fn drop_early(&mut self, now: Instant, number: u64) {
        if let Some(link) = self.dials.get_mut(&number).and_then(|dial| dial.early.take()) {
            self.refuse(now, link, SUPERSEDED, "");
        }
    }

    /// What came with an introduction over a relay: as if it had come through that.
    pub(super) fn first_flight_arrived(&mut self, now: Instant, peer: Guid, flight: &Bytes) {
        if flight.is_empty() {
            return;
        }
        let session = self.relayed.socket_of(peer, PathKind::Proxied);
        let Some((socket, source)) = session.filter(|_| begins_connection(flight)) else {
            self.dropped.unknown += 1;
            return;
        };
        self.tell_apart(
            now,
            Datagram {
                socket,
                source,
                destination_ip: None,
                ecn: None,
                contents: BytesMut::from(&flight[..]),
            },
        );
    }
}

/// True for a forwarder's socket: what the round trip to the server says something about.
pub(super) fn is_forwarded(socket: SocketName) -> bool {
    matches!(socket, SocketName::Relay(_))
}
