//! Which real path carries the packets of which synthetic address.
//!
//! QUIC knows the other side of a link by a [`SyntheticAddress`]. Behind it stands a *route*: the real ways (socket and
//! address) that lead to the same node. Outgoing packets take the route's best path; incoming ones are told apart by where
//! they came from. In: verified paths from punching, addresses that are dialled, addresses that strangers dial from. Out: the
//! path for a packet, the route of a packet, and whether a route's best path changed.
//!
//! Rules. A path that a punch or a handshake verified beats one that was not; then lan beats direct, direct beats routed, routed beats
//! proxied; then a clearly shorter round trip ([`CLEARLY_SHORTER`]). What is not verified never displaces another. After a change the old
//! path is *fed* as well for [`FEED_TIME`], and one that may have to take over as long as its owner says ([`Paths::feed_too`]): QUIC drops
//! the duplicates. An address belongs to one route at a time: who was verified on it last has it; nobody takes it by a mere wish from a route that
//! has links, and nobody at all from a server's. A route without links goes away at its
//! expiry, so everything here is bounded: strangers' routes by [`MAX_STRANGERS`], a route's paths by [`MAX_PATHS`], and the
//! rest by the node's own limits on attempts and links.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::codes::PathKind;
use crate::engine::SocketName;
use crate::transport::SyntheticAddress;
use crate::transport::identity::{Guid, PublicKey};

/// Most routes of strangers that have not proven a key yet. A handshake takes a few round trips, so this is some hundred
/// newcomers a second; the oldest gives way, because a flood must not lock honest callers out.
pub const MAX_STRANGERS: usize = 256;
/// Time that a stranger's route is kept without a finished handshake: the time that dialling is given, and a little more.
pub const STRANGER_TIME: Duration = Duration::from_secs(8);
/// Time that a route outlives its last link, so that the close still finds its way (QUIC repeats it for three probe timeouts).
pub const LINGER: Duration = Duration::from_secs(3);
/// Most paths of one route: both families, each local, observed, mapped and by hand; and those over forwarders.
pub const MAX_PATHS: usize = 12;
/// How much shorter a round trip must be to displace another path of the same kind: at least so much, and by the part [`SHORTER_PART`]. Below
/// that a game does not notice, and round trips vary by themselves, so that two equal paths would take turns.
pub const CLEARLY_SHORTER: Duration = Duration::from_millis(5);
/// See [`CLEARLY_SHORTER`]: a quarter.
const SHORTER_PART: u32 = 4;
/// How long the path that was left is fed beside the new best one: some round trips, in which what was lost on the new path, because it
/// does not carry yet what its probes promised, comes over the old one.
pub const FEED_TIME: Duration = Duration::from_millis(500);

/// One way to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The socket to send from.
    pub socket: SocketName,
    /// Where to.
    pub address: SocketAddr,
    /// Inside one network, or across the internet.
    pub kind: PathKind,
    /// As the punch measured it.
    pub round_trip: Option<Duration>,
    /// A full-size packet went there and came back.
    pub verified: bool,
}

impl Path {
    /// Smaller is better.
    ///
    /// Of paths that nobody has verified, or that are doubted, one at a forwarder comes first: a server made it for these two, while the others
    /// may lead to where the player was long ago.
    fn rank(&self) -> (bool, bool, PathKind, Duration) {
        let stale = !self.verified && !matches!(self.socket, SocketName::Relay(_));
        let round_trip = self.round_trip.unwrap_or(Duration::MAX);
        (!self.verified, stale, self.kind, round_trip)
    }

    fn source(&self) -> Source {
        (self.socket, self.address)
    }

    /// True if packets go over to this path from `other`, which they take now.
    fn displaces(&self, other: &Self) -> bool {
        if !self.verified || !other.verified || self.kind != other.kind {
            return self.verified && self.rank() < other.rank();
        }
        self.is_clearly_shorter(other)
    }

    fn is_clearly_shorter(&self, other: &Self) -> bool {
        match (self.round_trip, other.round_trip) {
            (Some(own), Some(others)) => own + CLEARLY_SHORTER.max(others / SHORTER_PART) <= others,
            (own, _) => own.is_some(),
        }
    }
}

/// What a path is known by.
pub type Source = (SocketName, SocketAddr);

/// Who is at the other end of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Not proven yet.
    Stranger,
    /// A server.
    Server,
    /// A player.
    Peer(PublicKey),
}

#[derive(Debug)]
struct Route {
    owner: Owner,
    paths: Vec<Path>,
    best: usize,
    /// What is sent goes there as well, until then.
    fed: Option<(Source, Instant)>,
    links: u32,
    expires: Instant,
    /// When a datagram last came over it.
    heard: Instant,
}

/// The table.
#[derive(Debug, Default)]
pub struct Paths {
    routes: FxHashMap<SyntheticAddress, Route>,
    by_source: FxHashMap<Source, SyntheticAddress>,
    /// Sources that another route than the one that has them leads to as well. Packets from there may belong to either.
    contested: FxHashSet<Source>,
    /// Routes of peers that a punch opened, by guid.
    opened: BTreeMap<Guid, SyntheticAddress>,
    /// Oldest first; may name routes that are gone or known by now.
    strangers: VecDeque<SyntheticAddress>,
    /// Every route with its expiry, for the sweep; ordered, so that the sweep is the same in every run.
    order: BTreeMap<SyntheticAddress, ()>,
}

impl Paths {
    /// The route that a datagram from there belongs to.
    #[inline]
    pub fn route_from(&self, socket: SocketName, source: SocketAddr) -> Option<SyntheticAddress> {
        self.by_source.get(&(socket, source)).copied()
    }

    /// True if packets from there may belong to another route than [`route_from`](Self::route_from) says.
    #[inline]
    pub fn is_contested(&self, socket: SocketName, source: SocketAddr) -> bool {
        !self.contested.is_empty() && self.contested.contains(&(socket, source))
    }

    /// A datagram of the connection came over that route.
    #[inline]
    pub fn note_heard(&mut self, now: Instant, address: SyntheticAddress) {
        if let Some(route) = self.routes.get_mut(&address) {
            route.heard = now;
        }
    }

    /// When a datagram last came over that route (or when it was made).
    pub fn heard(&self, address: SyntheticAddress) -> Option<Instant> {
        self.routes.get(&address).map(|route| route.heard)
    }

    /// Nothing is certain about the paths of that route any more: the next one that is verified is the best.
    pub fn doubt(&mut self, address: SyntheticAddress) {
        if let Some(route) = self.routes.get_mut(&address) {
            for path in &mut route.paths {
                path.verified = false;
            }
        }
    }

    /// The same of the paths that lead through no forwarder.
    pub fn doubt_direct(&mut self, address: SyntheticAddress) {
        if let Some(route) = self.routes.get_mut(&address) {
            let direct = route.paths.iter_mut().filter(|path| path.kind <= PathKind::Direct);
            direct.for_each(|path| path.verified = false);
            route.choose(Some(route.best));
        }
    }

    /// That path has to prove itself anew. True if the route's best path is another one now.
    pub fn doubt_path(&mut self, address: SyntheticAddress, source: Source) -> bool {
        let Some(route) = self.routes.get_mut(&address) else {
            return false;
        };
        let before = route.best;
        if let Some(path) = route.paths.iter_mut().find(|path| path.source() == source) {
            path.verified = false;
        }
        route.choose(Some(before));
        before != route.best
    }

    /// True if that path of the route has proven itself since it was last doubted.
    pub fn is_verified(&self, address: SyntheticAddress, source: Source) -> bool {
        let mut paths = self.routes.get(&address).into_iter().flat_map(|route| &route.paths);
        paths.any(|path| path.source() == source && path.verified)
    }

    /// The addresses of that route's paths that lead through no forwarder.
    pub fn addresses(&self, address: SyntheticAddress) -> impl Iterator<Item = SocketAddr> + '_ {
        let paths = self.routes.get(&address).into_iter().flat_map(|route| &route.paths);
        let direct = paths.filter(|path| !matches!(path.socket, SocketName::Relay(_)));
        direct.map(|path| path.address)
    }

    /// The path that packets of this route take now, and the one that they take as well.
    #[inline]
    pub fn ways(&self, now: Instant, address: SyntheticAddress) -> Option<(Path, Option<Path>)> {
        let route = self.routes.get(&address)?;
        let best = route.paths.get(route.best)?;
        let fed = match route.fed {
            Some((source, until)) if now < until && source != best.source() => {
                route.paths.iter().find(|path| path.source() == source).copied()
            }
            _ => None,
        };
        Some((*best, fed))
    }

    /// What is sent goes over that path as well, until then: one of a route has this at a time.
    pub fn feed_too(&mut self, address: SyntheticAddress, source: Source, until: Instant) {
        if let Some(route) = self.routes.get_mut(&address) {
            route.fed = Some((source, until));
        }
    }

    /// If the best path is certain, the other one is fed no longer than until then.
    pub fn feed_no_longer_than(&mut self, address: SyntheticAddress, until: Instant) {
        if let Some(route) = self.routes.get_mut(&address)
            && route.paths.get(route.best).is_some_and(|best| best.verified)
            && let Some(fed) = &mut route.fed
        {
            fed.1 = fed.1.min(until);
        }
    }

    /// The round trip of the path in use, as its traffic shows it. True if another verified path of its kind was clearly shorter when it was
    /// measured.
    pub fn note_round_trip(&mut self, address: SyntheticAddress, round_trip: Duration) -> bool {
        let Some(route) = self.routes.get_mut(&address) else {
            return false;
        };
        let Some(best) = route.paths.get_mut(route.best) else {
            return false;
        };
        best.round_trip = Some(round_trip);
        let best = *best;
        let rival = |path: &Path| path.verified && path.kind == best.kind && path.is_clearly_shorter(&best);
        best.verified && route.paths.iter().any(rival)
    }

    /// The path that packets of this route take now.
    #[inline]
    pub fn best(&self, address: SyntheticAddress) -> Option<&Path> {
        self.routes.get(&address).and_then(|route| route.paths.get(route.best))
    }

    /// Who is at the other end.
    pub fn owner(&self, address: SyntheticAddress) -> Option<Owner> {
        self.routes.get(&address).map(|route| route.owner)
    }

    /// Makes a route with one path. `address` is a fresh synthetic address. What stood for the same source before loses it,
    /// unless links need it: then the new route has no path.
    pub fn insert(&mut self, now: Instant, address: SyntheticAddress, owner: Owner, path: Path) {
        if owner == Owner::Stranger {
            self.make_room_for_stranger();
            self.strangers.push_back(address);
        }
        let route = Route {
            owner,
            paths: Vec::with_capacity(1),
            best: 0,
            fed: None,
            links: 0,
            expires: now + STRANGER_TIME,
            heard: now,
        };
        self.routes.insert(address, route);
        self.order.insert(address, ());
        self.add(address, path);
    }

    /// Makes a route without a path, for a link that waits for its first one. It expires as any other.
    pub fn reserve(&mut self, now: Instant, address: SyntheticAddress) {
        let route = Route {
            owner: Owner::Stranger,
            paths: Vec::with_capacity(1),
            best: 0,
            fed: None,
            links: 0,
            expires: now + STRANGER_TIME,
            heard: now,
        };
        self.routes.insert(address, route);
        self.order.insert(address, ());
    }

    /// The server said who is at the other end.
    pub fn name_owner(&mut self, address: SyntheticAddress, owner: Owner) {
        if let Some(route) = self.routes.get_mut(&address) {
            route.owner = owner;
        }
    }

    fn make_room_for_stranger(&mut self) {
        let routes = &self.routes;
        self.strangers.retain(
            |address| matches!(routes.get(address), Some(route) if route.owner == Owner::Stranger && route.links == 0),
        );
        while self.strangers.len() >= MAX_STRANGERS {
            let Some(oldest) = self.strangers.pop_front() else {
                break;
            };
            self.remove(oldest);
        }
    }

    /// Adds a path to a route, or updates the one with the same socket and address. True if the route's best path is
    /// another one now.
    pub fn add(&mut self, address: SyntheticAddress, path: Path) -> bool {
        let source = (path.socket, path.address);
        if self.is_held(address, source, path.verified) {
            self.contested.insert(source);
            return false;
        }
        if let Some(previous) = self.by_source.insert(source, address)
            && previous != address
        {
            self.contested.remove(&source);
            self.drop_path(previous, source);
        }
        let Some(route) = self.routes.get_mut(&address) else {
            self.by_source.remove(&source);
            return false;
        };
        let before = route.best_source();
        match route.paths.iter_mut().find(|known| known.source() == source) {
            Some(known) => *known = path,
            None => route.paths.push(path),
        }
        if route.paths.len() > MAX_PATHS
            && let Some(worst) = route.worst()
        {
            let gone = route.paths.swap_remove(worst);
            self.by_source.remove(&gone.source());
        }
        route.choose_from(before);
        before.is_some() && before != route.best_source()
    }

    /// True if links of another route need that address and keep it: packets from there cannot be told apart. They lose it only to another
    /// player that was verified there (a router gave the address to somebody else), and never if they lead to the same node, to a server,
    /// or to somebody whose handshake is still running.
    fn is_held(&self, address: SyntheticAddress, source: Source, verified: bool) -> bool {
        let holder = self.by_source.get(&source).filter(|holder| **holder != address);
        let Some(holder) = holder.and_then(|holder| self.routes.get(holder)) else {
            return false;
        };
        let same = self.owner(address) == Some(holder.owner);
        holder.links > 0 && (!verified || same || !matches!(holder.owner, Owner::Peer(_)))
    }

    /// True if a path leads through that socket.
    pub fn uses_socket(&self, socket: SocketName) -> bool {
        self.by_source.keys().any(|(used, _)| *used == socket)
    }

    /// True if a link needs this route.
    pub fn is_in_use(&self, address: SyntheticAddress) -> bool {
        self.routes.get(&address).is_some_and(|route| route.links > 0)
    }

    fn drop_path(&mut self, address: SyntheticAddress, source: Source) {
        if let Some(route) = self.routes.get_mut(&address) {
            let before = route.best_source();
            route.paths.retain(|path| path.source() != source);
            route.choose_from(before);
            if route.paths.is_empty() && route.links == 0 {
                self.remove(address);
            }
        }
    }

    /// A handshake proved who is at the other end; its path is verified by that.
    pub fn prove(&mut self, address: SyntheticAddress, owner: Owner) {
        if let Some(route) = self.routes.get_mut(&address) {
            route.owner = owner;
            if let Some(best) = route.paths.get_mut(route.best) {
                best.verified = true;
            }
        }
    }

    /// Remembers the route as the opened way to a peer until `expires`.
    pub fn open(&mut self, peer: Guid, address: SyntheticAddress, expires: Instant) {
        if let Some(route) = self.routes.get_mut(&address) {
            route.expires = route.expires.max(expires);
            if let Some(previous) = self.opened.insert(peer, address)
                && previous != address
                && self.routes.get(&previous).is_some_and(|route| route.links == 0)
            {
                self.remove(previous);
                self.opened.insert(peer, address);
            }
        }
    }

    /// The opened way to a peer, if its best path is verified.
    pub fn opened(&self, peer: Guid) -> Option<(SyntheticAddress, &Path)> {
        let address = *self.opened.get(&peer)?;
        self.best(address)
            .filter(|path| path.verified)
            .map(|path| (address, path))
    }

    /// The route of the opened way to a peer, whatever its paths are worth.
    pub fn opened_route(&self, peer: Guid) -> Option<SyntheticAddress> {
        self.opened.get(&peer).copied()
    }

    /// Takes a path away from a route. True if the route's best path is another one now.
    pub fn take(&mut self, address: SyntheticAddress, source: Source) -> bool {
        let before = self.best(address).map(|best| (best.socket, best.address));
        if self.by_source.get(&source) == Some(&address) {
            self.by_source.remove(&source);
        }
        self.drop_path(address, source);
        let after = self.best(address).map(|best| (best.socket, best.address));
        after.is_some() && before != after
    }

    /// Forgets the opened way to a peer; what links it carries stay.
    pub fn close(&mut self, now: Instant, peer: Guid) {
        if let Some(address) = self.opened.remove(&peer)
            && let Some(route) = self.routes.get_mut(&address)
        {
            route.expires = now + LINGER;
        }
    }

    /// A link uses the route.
    pub fn link_added(&mut self, address: SyntheticAddress) {
        if let Some(route) = self.routes.get_mut(&address) {
            route.links += 1;
        }
    }

    /// A link of the route is gone.
    pub fn link_removed(&mut self, now: Instant, address: SyntheticAddress) {
        if let Some(route) = self.routes.get_mut(&address) {
            route.links = route.links.saturating_sub(1);
            route.expires = route.expires.max(now + LINGER);
        }
    }

    fn remove(&mut self, address: SyntheticAddress) {
        self.order.remove(&address);
        let Some(route) = self.routes.remove(&address) else {
            return;
        };
        for path in &route.paths {
            let source = (path.socket, path.address);
            if self.by_source.get(&source) == Some(&address) {
                self.by_source.remove(&source);
                self.contested.remove(&source);
            }
        }
        if let Owner::Peer(key) = route.owner
            && self.opened.get(&key.guid()) == Some(&address)
        {
            self.opened.remove(&key.guid());
        }
    }

    /// Removes routes that expired.
    pub fn sweep(&mut self, now: Instant) {
        let expired: Vec<_> = self
            .order
            .keys()
            .copied()
            .filter(|address| {
                self.routes
                    .get(address)
                    .is_none_or(|route| route.links == 0 && route.expires <= now)
            })
            .collect();
        for address in expired {
            self.remove(address);
        }
    }

    /// When the next route expires.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let idle = self.routes.values().filter(|route| route.links == 0);
        idle.map(|route| route.expires).min()
    }

    /// Routes there are.
    #[cfg(all(test, feature = "lab"))]
    pub fn len(&self) -> usize {
        self.routes.len()
    }
}

impl Route {
    fn best_source(&self) -> Option<Source> {
        self.paths.get(self.best).map(Path::source)
    }

    /// The path to do without: neither the one in use nor the one that is fed.
    fn worst(&self) -> Option<usize> {
        let (best, fed) = (self.best_source(), self.fed.map(|(source, _)| source));
        let spare = self.paths.iter().enumerate().filter(|(_, path)| {
            let source = Some(path.source());
            source != best && source != fed
        });
        spare.max_by_key(|(_, path)| path.rank()).map(|(index, _)| index)
    }

    /// Chooses after places in the list have changed. `before`: the path in use.
    fn choose_from(&mut self, before: Option<Source>) {
        let held = self.paths.iter().position(|path| Some(path.source()) == before);
        self.choose(held);
    }

    /// Chooses the path in use; `held`: the present one.
    fn choose(&mut self, held: Option<usize>) {
        let leader = self.paths.iter().enumerate().min_by_key(|(_, path)| path.rank());
        self.best = match (leader, held) {
            (Some((_, leader)), Some(held)) if !leader.displaces(&self.paths[held]) => held,
            (Some((index, _)), _) => index,
            (None, _) => 0,
        };
    }
}

/// What kind of path an address makes by itself: private, loopback and link-local ones are inside one network.
pub fn kind_of(address: SocketAddr) -> PathKind {
    let local = match address.ip() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    if local { PathKind::Lan } else { PathKind::Direct }
}

/// True if something may be sent there at all: one machine's address with a port.
pub fn may_send_to(address: SocketAddr) -> bool {
    let ip = match address.ip() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    };
    ip && address.port() != 0
}
