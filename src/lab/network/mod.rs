//! The virtual internet: networks, what is attached to them, and the way of a datagram through them.
//!
//! A network is a middle without delay that knows the addresses attached to it. A host's interface or a router's outside
//! is *attached* by a link, which has all the delay and loss there is. What a LAN's middle does not know goes through its
//! router: to the network outside, or (hairpin) back.
//!
//! ```text
//!   host ═link═ LAN ─ router ═link═ internet ═link═ server
//! ```
//!
//! Inputs: datagrams of hosts, arrivals that the agenda brings back. Outputs: arrivals on the agenda, datagrams for
//! hosts, entries of the trace.

mod address;
mod link;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

pub use address::Prefix;
pub use link::{Link, LinkDirection, half_loss};

use super::HostId;
use super::agenda::{Agenda, Happening};
use super::random::generator;
use super::router::{RouterConfig, RouterState, Translation, Way};
use super::trace::DropReason;
use crate::engine::EcnCodepoint;
use link::{Crossing, LinkState};

/// A network of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub(super) usize);

/// The place where a host's interface or a router is attached to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId(pub(super) usize);

/// A router of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub(super) usize);

/// The time to live of an ordinary datagram.
pub(super) const DEFAULT_TIME_TO_LIVE: u8 = 64;

/// A UDP datagram under way.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    /// The host that sent it, whatever its source address says by now.
    pub(crate) origin: HostId,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) contents: Bytes,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) time_to_live: u8,
}

impl Packet {
    /// Bytes of the IP packet.
    fn wire_size(&self) -> usize {
        const UDP_HEADER: usize = 8;
        let ip_header = if self.destination.is_ipv4() { 20 } else { 40 };
        ip_header + UDP_HEADER + self.contents.len()
    }

    /// Passes that many routers, if its time to live suffices.
    fn spend_hops(&mut self, hops: u8) -> bool {
        self.time_to_live = self.time_to_live.saturating_sub(hops);
        self.time_to_live > 0
    }
}

/// Which IP versions an interface has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Families {
    /// IPv4 alone.
    #[default]
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Both,
}

impl Families {
    fn v4(self) -> bool {
        self != Self::V6
    }

    fn v6(self) -> bool {
        self != Self::V4
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Host(HostId),
    Router(RouterId),
}

struct Network {
    /// `None`: the internet.
    lan: Option<Lan>,
    addresses: BTreeMap<IpAddr, AttachmentId>,
    routes: Vec<(Prefix, AttachmentId)>,
    /// The number of the next address.
    next: u32,
}

struct Lan {
    router: RouterId,
    v4: Prefix,
    v6: Prefix,
    depth: u8,
}

struct Attachment {
    network: NetworkId,
    end: End,
    up: LinkState,
    down: LinkState,
    hops: u8,
    connected: bool,
    /// Nobody is there any more.
    detached: bool,
}

struct Router {
    inside: NetworkId,
    outside: AttachmentId,
    state: RouterState,
}

/// A datagram that ended on the way.
pub(super) struct Lost {
    pub(super) packet: Packet,
    pub(super) reason: DropReason,
}

/// What a step of the network gave.
pub(super) type Step = Result<Option<(HostId, Packet)>, Lost>;

pub(super) struct Internet {
    seed: u64,
    networks: Vec<Network>,
    attachments: Vec<Attachment>,
    routers: Vec<Router>,
}

impl Internet {
    pub(super) const ROOT: NetworkId = NetworkId(0);

    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            networks: vec![Network::new(None)],
            attachments: Vec::new(),
            routers: Vec::new(),
        }
    }

    fn attach(&mut self, network: NetworkId, end: End, link: Link) -> AttachmentId {
        let number = self.attachments.len() as u64;
        self.attachments.push(Attachment {
            network,
            end,
            up: LinkState::new(link.up, generator(self.seed, "link up", number)),
            down: LinkState::new(link.down, generator(self.seed, "link down", number)),
            hops: link.hops,
            connected: true,
            detached: false,
        });
        AttachmentId(number as usize)
    }

    /// Attaches a host; returns its addresses there.
    pub(super) fn attach_host(
        &mut self,
        host: HostId,
        network: NetworkId,
        link: Link,
        families: Families,
    ) -> (AttachmentId, Vec<IpAddr>) {
        let attachment = self.attach(network, End::Host(host), link);
        let network = &mut self.networks[network.0];
        let number = network.take_number();
        let mut addresses = Vec::new();
        if families.v4() {
            addresses.push(network.v4_address(number));
        }
        if families.v6() {
            addresses.push(network.v6_address(number));
        }
        for address in &addresses {
            network.addresses.insert(*address, attachment);
        }
        (attachment, addresses)
    }

    /// Takes a host's interface away; what is under way to it is lost.
    pub(super) fn detach_host(&mut self, attachment: AttachmentId) {
        let state = &mut self.attachments[attachment.0];
        state.connected = false;
        state.detached = true;
        self.networks[state.network.0]
            .addresses
            .retain(|_, at| *at != attachment);
    }

    /// The router of the LAN that an attachment is in.
    pub(super) fn router_of(&self, attachment: AttachmentId) -> Option<RouterId> {
        let network = &self.networks[self.attachments[attachment.0].network.0];
        network.lan.as_ref().map(|lan| lan.router)
    }

    /// Gives a router other outside addresses.
    pub(super) fn renumber_router(&mut self, now: Duration, router: RouterId) {
        let outside = self.routers[router.0].outside;
        let network = &mut self.networks[self.attachments[outside.0].network.0];
        network.addresses.retain(|_, at| *at != outside);
        let state = &mut self.routers[router.0].state;
        let fresh = state.public().iter().map(|_| {
            let number = network.take_number();
            network.v4_address(number)
        });
        let fresh: Vec<IpAddr> = fresh.collect();
        network
            .addresses
            .extend(fresh.iter().map(|address| (*address, outside)));
        state.renumber(now, fresh);
    }

    /// Attaches a router and makes the LAN behind it.
    pub(super) fn add_router(
        &mut self,
        outer: NetworkId,
        config: RouterConfig,
        link: Link,
        lan_v4: Option<Prefix>,
    ) -> RouterId {
        let router = RouterId(self.routers.len());
        let outside = self.attach(outer, End::Router(router), link);
        let network = &mut self.networks[outer.0];
        let number = network.take_number();
        let depth = network.lan.as_ref().map_or(1, |lan| lan.depth + 1);
        let mut public = Vec::new();
        let v4 = if config.translation == Translation::Nat {
            public.push(network.v4_address(number));
            for _ in 1..config.public_addresses {
                let number = network.take_number();
                public.push(network.v4_address(number));
            }
            // The same range in every home; behind two routers it differs, as it must for both to work.
            lan_v4.unwrap_or(Prefix::v4(192, 168, depth, 0, 24))
        } else {
            lan_v4.unwrap_or_else(|| network.routed_v4(number))
        };
        for address in &public {
            network.addresses.insert(*address, outside);
        }
        let v6 = network.v6_prefix(number);
        network.routes.push((v6, outside));
        if config.translation != Translation::Nat {
            network.routes.push((v4, outside));
        }
        let inside = NetworkId(self.networks.len());
        self.networks.push(Network::new(Some(Lan { router, v4, v6, depth })));
        let state = RouterState::new(config, public, generator(self.seed, "router", router.0 as u64));
        self.routers.push(Router { inside, outside, state });
        router
    }

    pub(super) fn lan_of(&self, router: RouterId) -> NetworkId {
        self.routers[router.0].inside
    }

    pub(super) fn outside_of(&self, router: RouterId) -> AttachmentId {
        self.routers[router.0].outside
    }

    pub(super) fn router(&mut self, router: RouterId) -> &mut RouterState {
        &mut self.routers[router.0].state
    }

    pub(super) fn change_link(&mut self, attachment: AttachmentId, change: impl FnOnce(&mut Link)) {
        let attachment = &mut self.attachments[attachment.0];
        let mut link = Link {
            up: attachment.up.direction,
            down: attachment.down.direction,
            hops: attachment.hops,
        };
        change(&mut link);
        attachment.up.direction = link.up;
        attachment.down.direction = link.down;
        attachment.hops = link.hops;
    }

    pub(super) fn set_connected(&mut self, attachment: AttachmentId, connected: bool) {
        self.attachments[attachment.0].connected = connected;
    }

    /// The network of an attachment, the one outside of that, and so on to the internet.
    pub(super) fn networks_around(&self, attachment: AttachmentId) -> impl Iterator<Item = NetworkId> {
        let first = self.attachments[attachment.0].network;
        std::iter::successors(Some(first), |network| {
            let lan = self.networks[network.0].lan.as_ref()?;
            Some(self.attachments[self.routers[lan.router.0].outside.0].network)
        })
    }

    /// Whether a cable is plugged in there.
    pub(super) fn is_connected(&self, attachment: AttachmentId) -> bool {
        self.attachments[attachment.0].connected
    }

    /// Where a TCP connection from that attachment of a host leads: the host that has the destination, the address by which the client is seen there, and
    /// the delay one way. `None`: it gets no answer.
    pub(super) fn tcp_way(
        &self,
        from: AttachmentId,
        source: IpAddr,
        destination: IpAddr,
    ) -> Option<(HostId, IpAddr, Duration)> {
        let (mut at, mut seen_as, mut delay) = (from, source, Duration::ZERO);
        loop {
            let attachment = self.attachments.get(at.0).filter(|attachment| attachment.connected)?;
            delay += attachment.up.direction.latency;
            let network = &self.networks[attachment.network.0];
            if let Some(end) = network.addresses.get(&destination) {
                let end = self.attachments.get(end.0).filter(|end| end.connected)?;
                let End::Host(host) = end.end else { return None };
                return Some((host, seen_as, delay + end.down.direction.latency));
            }
            let router = &self.routers[network.lan.as_ref()?.router.0];
            let config = router.state.config();
            if config.blocks_tcp {
                return None;
            }
            if config.translation == Translation::Nat && destination.is_ipv4() {
                seen_as = *router.state.public().first()?;
            }
            at = router.outside;
        }
    }

    /// Whether an address belongs to the network of that attachment itself, without a router between.
    pub(super) fn is_local(&self, attachment: AttachmentId, address: IpAddr) -> bool {
        let network = &self.networks[self.attachments[attachment.0].network.0];
        network.addresses.contains_key(&address)
    }

    /// Puts a datagram on an attachment's link, in the direction of its network.
    pub(super) fn send_up(&mut self, now: Duration, agenda: &mut Agenda, from: AttachmentId, packet: Packet) -> Step {
        let attachment = &mut self.attachments[from.0];
        let network = attachment.network;
        let arrive = |packet| Happening::AtMiddle { network, packet };
        Self::cross(now, agenda, attachment, true, packet, arrive)
    }

    fn cross(
        now: Duration,
        agenda: &mut Agenda,
        attachment: &mut Attachment,
        upwards: bool,
        mut packet: Packet,
        arrive: impl Fn(Packet) -> Happening,
    ) -> Step {
        let lost = |packet, reason| Err(Lost { packet, reason });
        if !attachment.connected {
            return lost(packet, DropReason::LinkDown);
        }
        let link = if upwards {
            &mut attachment.up
        } else {
            &mut attachment.down
        };
        match link.cross(now, packet.wire_size()) {
            Crossing::Dropped(reason) => lost(packet, reason),
            Crossing::Arrives { .. } if !packet.spend_hops(attachment.hops) => lost(packet, DropReason::HopLimit),
            Crossing::Arrives { at, doubled } => {
                if doubled {
                    agenda.add(at, arrive(packet.clone()));
                }
                agenda.add(at, arrive(packet));
                Ok(None)
            }
        }
    }

    /// A datagram is in the middle of a network: on to whom it is for.
    pub(super) fn at_middle(&mut self, now: Duration, agenda: &mut Agenda, at: NetworkId, mut packet: Packet) -> Step {
        let network = &self.networks[at.0];
        let destination = packet.destination.ip();
        let next = network.addresses.get(&destination).copied();
        let next = next.or_else(|| {
            let mut routes = network.routes.iter().filter(|(prefix, _)| prefix.contains(destination));
            routes.next().map(|(_, attachment)| *attachment)
        });
        if let Some(next) = next {
            let arrive = |packet| Happening::AtEnd {
                attachment: next,
                packet,
            };
            return Self::cross(now, agenda, &mut self.attachments[next.0], false, packet, arrive);
        }
        let Some(lan) = &network.lan else {
            return Err(Lost {
                packet,
                reason: DropReason::NoRoute,
            });
        };
        let router = &mut self.routers[lan.router.0];
        if !packet.spend_hops(1) {
            return Err(Lost {
                packet,
                reason: DropReason::HopLimit,
            });
        }
        match router.state.outbound(now, packet) {
            Ok(Way::Outside(packet)) => {
                let outside = router.outside;
                self.send_up(now, agenda, outside, packet)
            }
            Ok(Way::Inside(packet)) => self.at_inside(now, agenda, at, packet),
            Err((packet, reason)) => Err(Lost { packet, reason }),
        }
    }

    /// A datagram has come down a link.
    pub(super) fn at_end(&mut self, now: Duration, agenda: &mut Agenda, at: AttachmentId, mut packet: Packet) -> Step {
        let attachment = &self.attachments[at.0];
        if attachment.detached {
            return Err(Lost {
                packet,
                reason: DropReason::LinkDown,
            });
        }
        match attachment.end {
            End::Host(host) => Ok(Some((host, packet))),
            End::Router(router) => {
                if !packet.spend_hops(1) {
                    return Err(Lost {
                        packet,
                        reason: DropReason::HopLimit,
                    });
                }
                let router = &mut self.routers[router.0];
                let inside = router.inside;
                match router.state.inbound(now, packet) {
                    Ok(packet) => self.at_inside(now, agenda, inside, packet),
                    Err((packet, reason)) => Err(Lost { packet, reason }),
                }
            }
        }
    }

    /// A datagram that a router let in. What nobody there has goes nowhere (certainly not out again).
    fn at_inside(&mut self, now: Duration, agenda: &mut Agenda, lan: NetworkId, packet: Packet) -> Step {
        let network = &self.networks[lan.0];
        let destination = packet.destination.ip();
        let known = network.addresses.contains_key(&destination)
            || network.routes.iter().any(|(prefix, _)| prefix.contains(destination));
        if !known {
            return Err(Lost {
                packet,
                reason: DropReason::NoRoute,
            });
        }
        self.at_middle(now, agenda, lan, packet)
    }
}

impl Network {
    fn new(lan: Option<Lan>) -> Self {
        Self {
            lan,
            addresses: BTreeMap::new(),
            routes: Vec::new(),
            // In a LAN .1 is the router.
            next: 2,
        }
    }

    fn take_number(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    fn v4_address(&self, number: u32) -> IpAddr {
        match &self.lan {
            None => address::public_v4(number),
            Some(lan) => lan.v4.host(number),
        }
    }

    fn v6_address(&self, number: u32) -> IpAddr {
        match &self.lan {
            None => address::public_v6(number).host(1),
            Some(lan) => lan.v6.host(number),
        }
    }

    /// The IPv4 range of a LAN that is routed here without translation.
    fn routed_v4(&self, number: u32) -> Prefix {
        assert!(
            self.lan.is_none(),
            "an untranslated LAN inside a LAN needs a range of its own: name one"
        );
        let IpAddr::V4(base) = address::public_v4(number) else {
            unreachable!("it is an IPv4 address")
        };
        let [a, b, c, _] = base.octets();
        Prefix::v4(a, b, c, 0, 24)
    }

    /// The IPv6 range of a LAN behind a router that is attached here: a /48 from the internet, a /64 out of that.
    fn v6_prefix(&self, number: u32) -> Prefix {
        match &self.lan {
            None => address::public_v6(number),
            Some(lan) => lan.v6.subnet(number),
        }
    }
}
