//! What a report is made of, and what follows from it.

use std::net::{IpAddr, SocketAddr};

use super::super::api::Reason;
use super::super::api::nat::{FailedProtocol, MappedPort, MappingFailure, NatReport};
use super::super::port_mapping::is_public;
use super::players::{Class, Way, class, way};
use crate::scope::is_shared;

/// Everything that a report says comes from here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What is known of the node's NAT.
    pub nat: NatReport,
    /// Why less is known than usual.
    pub detection: Option<Reason>,
    /// What came of asking routers for a port.
    pub mapping: Mapping,
    /// What the node's sockets are bound to.
    pub sockets: Vec<SocketAddr>,
    /// The machine's addresses.
    pub local_addresses: Vec<IpAddr>,
    /// A port forwarded by hand.
    pub manual: Option<SocketAddr>,
    /// The server of the node's session.
    pub server: Option<Server>,
}

/// The server of the node's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address as the game gave it.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// The session stands.
    pub connected: bool,
    /// It goes over TLS on TCP.
    pub tls: bool,
}

/// What came of asking routers for a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mapping {
    /// They were not asked.
    #[default]
    NotAsked,
    /// They were asked.
    Asked {
        /// What they forwarded: at most one port of each IP version.
        ports: Vec<MappedPort>,
        /// What went wrong, by protocol.
        failures: Vec<FailedProtocol>,
        /// The ports were given back: the game did not want them.
        taken_back: bool,
    },
}

/// What IPv6 is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6 {
    /// Strangers get in: a router forwards a port, or nothing filters.
    Works,
    /// A server was reached; strangers are kept out, as firewalls do.
    Firewalled,
    /// A server was reached; whether strangers get in is not known.
    Outgoing,
    /// The machine has no address that is valid outside of its network.
    No,
    /// The machine has an address; no server was seen over it.
    Unknown,
}

impl Ipv6 {
    /// Its name in the JSON.
    pub fn label(self) -> &'static str {
        match self {
            Ipv6::Works => "works",
            Ipv6::Firewalled => "firewalled",
            Ipv6::Outgoing => "outgoing",
            Ipv6::No => "no",
            Ipv6::Unknown => "unknown",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Ipv6::Works => "works, in both directions",
            Ipv6::Firewalled => "works outwards; a firewall keeps strangers out",
            Ipv6::Outgoing => "works outwards; whether a firewall keeps strangers out is not known",
            Ipv6::No => "no: this machine has no address for it",
            Ipv6::Unknown => "not known: there is an address, but no server was seen over it",
        }
    }
}

impl Findings {
    /// All ports that routers forward now, or did for this report.
    pub fn mapped(&self) -> Vec<MappedPort> {
        match &self.mapping {
            Mapping::NotAsked => self.nat.mappings.clone(),
            Mapping::Asked { ports, .. } => ports.clone(),
        }
    }

    /// Two routers in a row. `None`: not known.
    pub fn double_nat(&self) -> Option<bool> {
        let ports = self.mapped();
        if self.carrier_grade() == Some(true) || ports.iter().any(|port| port.double_nat) {
            return Some(true);
        }
        let plain = ports.iter().any(|port| port.external.is_ipv4() && port.is_good());
        if plain || self.nat.untranslated == Some(true) {
            return Some(false);
        }
        self.router_lacks_public_address().then_some(true)
    }

    /// A router says that it has no public address, and yet this node is seen at one: so its line is up, and another router stands before
    /// it.
    pub fn router_lacks_public_address(&self) -> bool {
        let Mapping::Asked { failures, .. } = &self.mapping else {
            return false;
        };
        let lacks = |failed: &FailedProtocol| failed.why == MappingFailure::NoPublicAddress;
        self.nat.public_v4.is_some_and(|seen| is_public(seen.ip())) && failures.iter().any(lacks)
    }

    /// The provider translates addresses for many customers (RFC 6598). `None`: not known.
    pub fn carrier_grade(&self) -> Option<bool> {
        let outside = self.mapped().into_iter().map(|port| port.external.ip());
        let mut seen = outside.chain(self.local_addresses.iter().copied());
        if seen.any(is_shared) {
            return Some(true);
        }
        if self.nat.untranslated == Some(true) {
            return Some(false);
        }
        let plain = self
            .mapped()
            .iter()
            .any(|port| port.external.is_ipv4() && port.is_good());
        plain.then_some(false)
    }

    /// No UDP gets through. `None`: not known.
    pub fn udp_blocked(&self) -> Option<bool> {
        match &self.server {
            Some(server) if server.connected && !server.tls => Some(false),
            _ => self.nat.udp_blocked,
        }
    }

    /// What IPv6 is good for.
    pub fn ipv6(&self) -> Ipv6 {
        let mapped = self
            .mapped()
            .iter()
            .any(|port| port.external.is_ipv6() && port.is_good());
        if mapped {
            return Ipv6::Works;
        }
        if self.nat.public_v6.is_some() {
            // Without an IPv4 address the facts are those of IPv6.
            match self.nat.v6_open {
                Some(true) => return Ipv6::Works,
                Some(false) => return Ipv6::Firewalled,
                None if self.nat.public_v4.is_some() => return Ipv6::Outgoing,
                None => {}
            }
            return match class(&self.nat) {
                Some(Class::Open) => Ipv6::Works,
                Some(_) => Ipv6::Firewalled,
                None => Ipv6::Outgoing,
            };
        }
        if self.local_addresses.iter().any(|ip| ip.is_ipv6() && is_public(*ip)) {
            Ipv6::Unknown
        } else {
            Ipv6::No
        }
    }

    /// A port at which strangers get in, whatever the routers do otherwise.
    pub fn open_port(&self) -> Option<SocketAddr> {
        let manual = self.manual.filter(|_| self.nat.manual_open != Some(false));
        let mapped = self.mapped().into_iter().filter(MappedPort::is_good);
        let mut mapped = mapped.map(|port| port.external);
        manual.or_else(|| mapped.find(|address| !is_shared(address.ip())))
    }

    /// What the node sits behind for others; a forwarded port makes it open. `None`: not known, or nothing gets through.
    pub fn class(&self) -> Option<Class> {
        if self.udp_blocked() == Some(true) {
            return None;
        }
        match self.open_port() {
            Some(_) => Some(Class::Open),
            None => class(&self.nat),
        }
    }

    /// How each kind of player reaches this one.
    pub fn ways(&self) -> Vec<(Class, Option<Way>)> {
        let blocked = self.udp_blocked() == Some(true);
        let own = self.class();
        let of = |other| match own {
            Some(own) => Some(way(own, other)),
            None => blocked.then_some(Way::Relay),
        };
        Class::ALL.map(|other| (other, of(other))).to_vec()
    }

    /// What points to a firewall rather than a router.
    pub fn firewall_hints(&self) -> Vec<&'static str> {
        let mut hints = Vec::new();
        let filtered = matches!(class(&self.nat), Some(Class::AddressRestricted | Class::PortRestricted));
        if self.nat.untranslated == Some(true) && filtered {
            hints.push(
                "the address is public, and yet strangers are kept out: a firewall on this computer or before it",
            );
        }
        if self.udp_blocked() == Some(true) {
            hints.push("no UDP packet is answered: a firewall of this computer or of its network lets none through");
        }
        if self.ipv6() == Ipv6::Firewalled {
            hints.push("IPv6 works, and strangers are kept out: the router's IPv6 firewall");
        }
        hints
    }

    /// The address under which this computer is known to its router, with the node's port: where packets leave from.
    pub fn inside(&self) -> Option<SocketAddr> {
        let v4 = self.sockets.iter().find(|socket| socket.is_ipv4());
        let socket = v4.or(self.sockets.first())?;
        if !socket.ip().is_unspecified() {
            return Some(*socket);
        }
        let same = |ip: &&IpAddr| ip.is_ipv4() == socket.is_ipv4();
        let mut fitting = self.local_addresses.iter().filter(same);
        // The one that the server sees is where packets leave from; else the first that is not a container's bridge.
        let seen = self.nat.public_v4.map(|address| address.ip());
        let chosen = fitting.clone().find(|ip| Some(**ip) == seen);
        let ip = chosen.or_else(|| fitting.next())?;
        Some(SocketAddr::new(*ip, socket.port()))
    }
}
