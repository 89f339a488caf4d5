//! What players are told about ports at routers.

use std::net::{IpAddr, SocketAddr};

use crate::codes::MappingProtocol;
use crate::peer::api::nat::{MappedPort, NatReport};
use crate::scope::{Scope, scope};

/// What a player has to set at the router to forward a port by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualPort {
    /// The UDP port at the router: the one that the game named as forwarded by hand, else the same as inside.
    pub port: u16,
    /// Where the router shall send what arrives there. `None`: the machine has no address that a router could send to.
    pub internal: Option<SocketAddr>,
    /// In words.
    pub text: String,
}

/// What to tell a player who forwards the node's port by hand. `bound`: the node's socket; `interfaces`: the machine's addresses, the
/// preferred one first; `report`: what is known of ports that are forwarded already.
pub fn manual_instructions(bound: SocketAddr, interfaces: &[IpAddr], report: &NatReport) -> ManualPort {
    let port = bound.port();
    // Outside a player may have chosen another number.
    let outside = report.manual.map_or(port, |manual| manual.port());
    let is_bound = !bound.ip().is_unspecified();
    // A port is forwarded to a private address; one that is public needs none. The order of the interfaces is the system's.
    let of_family = interfaces.iter().filter(|ip| ip.is_ipv4() == bound.is_ipv4());
    let private = of_family.clone().find(|ip| !is_public(**ip));
    let internal = if is_bound {
        Some(bound.ip())
    } else {
        private.or(of_family.clone().next()).copied()
    };
    let internal = internal
        .filter(|ip| !ip.is_loopback())
        .map(|ip| SocketAddr::new(ip, port));
    let text = match (report.mappings.iter().find(|port| port.is_good()), internal) {
        _ if report.manual_open == Some(true) => {
            "Nothing needs to be done: the port that was forwarded by hand is open.".to_owned()
        }
        (Some(mapped), _) => format!(
            "Nothing needs to be done: the router forwards UDP port {} to this machine ({}).",
            mapped.external.port(),
            protocol_name(mapped.protocol)
        ),
        (None, None) => "This machine has no address that a router could forward a port to.".to_owned(),
        (None, Some(internal)) if is_public(internal.ip()) => format!(
            "This machine has the public address {}: nothing is to be forwarded. Let UDP port {port} through its firewall.",
            internal.ip()
        ),
        (None, Some(internal)) => {
            let closed = if report.manual_open == Some(false) {
                "The port that was forwarded by hand is not open. "
            } else {
                ""
            };
            let second = if report.mappings.is_empty() {
                ""
            } else {
                " That router stands behind another one: forward the same port there as well, to the first router."
            };
            format!(
                "{closed}Forward UDP port {outside} to {} port {port} in the settings of the router (often called port forwarding or \
                 virtual server).{second} Give this machine that address permanently, and the game that port, so that \
                 the setting stays right.",
                internal.ip()
            )
        }
    };
    ManualPort {
        port: outside,
        internal,
        text,
    }
}

/// What a mapped port means, for the player.
pub fn mapped_text(port: &MappedPort, observed: Option<IpAddr>) -> String {
    let (external, protocol) = (port.external, protocol_name(port.protocol));
    if external.is_ipv6() {
        return format!("the router's firewall lets UDP through to {external} ({protocol})");
    }
    let forwarded = format!("the router forwards UDP {external} to this node ({protocol})");
    if !port.double_nat {
        return forwarded;
    }
    let why = match observed.filter(|observed| is_public(*observed)) {
        Some(observed) => format!("others see {observed}, and not {}", external.ip()),
        None => format!("{} is no public address", external.ip()),
    };
    format!(
        "{forwarded}, but another router stands before it: {why}. Set the first router to bridge mode, or forward port {} in \
         the outer one to {}; if the outer one is the provider's, ask for a public address or use IPv6",
        external.port(),
        external.ip()
    )
}

/// As players find it in the settings of their router.
pub fn protocol_name(protocol: MappingProtocol) -> &'static str {
    match protocol {
        MappingProtocol::Upnp => "UPnP",
        MappingProtocol::Pcp => "PCP",
        MappingProtocol::NatPmp => "NAT-PMP",
    }
}

/// Another router stands before the one with that address: it is no public one, or not what the server sees.
pub fn is_double_nat(external: IpAddr, observed: Option<IpAddr>) -> bool {
    // A server inside the home, or of the other IP version, sees nothing of it.
    let seen = observed.filter(|seen| seen.is_ipv4() && is_public(*seen));
    external.is_ipv4() && (!is_public(external) || seen.is_some_and(|seen| seen != external))
}

/// An address that is reached from everywhere (as far as an address can tell).
pub fn is_public(ip: IpAddr) -> bool {
    scope(ip) == Scope::Global
}
