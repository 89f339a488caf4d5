//! What to change for the better, in order of effect.

use super::super::nat;
use super::findings::{Findings, Ipv6, Mapping};
use super::players::Class;
use crate::codes::NatType;

/// Silent mappings that live shorter than this make routers forget quiet players. RFC 4787 asks for two minutes; many keep 30 s.
const SHORT_LIFETIME_S: u64 = 30;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// Its name in the JSON.
    pub id: &'static str,
    /// For people.
    pub text: String,
}

/// What to change, the most effective first. Empty: nothing.
pub fn advice(findings: &Findings) -> Vec<Advice> {
    let mut list = Vec::new();
    let mut add = |id, text: String| list.push(Advice { id, text });
    if findings.udp_blocked() == Some(true) {
        add(
            "allow_udp",
            "Let UDP through: in the firewall of this computer, or ask whoever runs this network. Until then no other player is \
             reached directly."
                .to_owned(),
        );
        return list;
    }
    if findings.class().is_none() {
        // Whatever was advised would be a guess.
        return list;
    }
    if findings.class() != Some(Class::Open) {
        open_a_port(findings, &mut add);
    }
    if let (Ipv6::Firewalled | Ipv6::Outgoing, true) = (findings.ipv6(), findings.class() != Some(Class::Open)) {
        add(
            "ipv6_firewall",
            "Allow incoming UDP to this computer in the router's IPv6 firewall, or switch on PCP there.".to_owned(),
        );
    }
    if findings.ipv6() == Ipv6::No && findings.class() != Some(Class::Open) {
        add(
            "ipv6",
            "Switch IPv6 on in the router, if the provider has it: players who both have it need no translation."
                .to_owned(),
        );
    }
    if let Some((_, Some(below))) = findings.nat.lifetime
        && below.as_secs() < SHORT_LIFETIME_S
    {
        add(
            "mapping_lifetime",
            format!(
                "The router forgets a silent connection within {} s. If it has a setting for UDP time-outs, raise it.",
                below.as_secs()
            ),
        );
    }
    list
}

/// Ways to let strangers in, by what stands before this node.
fn open_a_port(findings: &Findings, add: &mut impl FnMut(&'static str, String)) {
    if let (Some(manual), Some(false), Some(inside)) = (findings.manual, findings.nat.manual_open, findings.inside()) {
        add(
            "check_forward",
            format!("The port forwarded by hand ({manual}) is not open: check that it leads to {inside} (UDP)."),
        );
    }
    if findings.nat.untranslated == Some(true) {
        add(
            "local_firewall",
            format!(
                "Allow incoming UDP to port {} in the firewall of this computer (or of its provider): its address is public already.",
                port_words(findings)
            ),
        );
        return;
    }
    if findings.carrier_grade() == Some(true) {
        add(
            "public_address",
            "The provider puts its customers behind a router of its own. Ask it for a public IPv4 address, or for IPv6; no \
             setting at home helps."
                .to_owned(),
        );
    } else if findings.double_nat() == Some(true) {
        add(
            "bridge",
            "There are two routers in a row. Let the first one only pass packets on (bridge, or modem mode), or forward the port \
             in both. If the outer one is the provider's, ask the provider for a public IPv4 address, or for IPv6."
                .to_owned(),
        );
    } else {
        match &findings.mapping {
            Mapping::NotAsked => add(
                "ask_router",
                "Let the game ask the router for a port (UPnP, PCP or NAT-PMP); this report did not try.".to_owned(),
            ),
            Mapping::Asked { .. } => {
                add(
                    "enable_upnp",
                    "Switch on UPnP (some routers call it \"automatic port forwarding\"), PCP or NAT-PMP in the router."
                        .to_owned(),
                );
            }
        }
        add("forward_port", forward_text(findings));
    }
    if nat::name(&findings.nat).0 == NatType::Symmetric {
        add(
            "nat_type",
            "If the router has a setting for the kind of NAT, choose \"full cone\", \"open\" or \"endpoint independent\" \
             instead of \"symmetric\" or \"strict\"."
                .to_owned(),
        );
    }
}

fn forward_text(findings: &Findings) -> String {
    let Some(inside) = findings.inside() else {
        return "Forward a UDP port by hand in the router.".to_owned();
    };
    format!(
        "Or forward UDP port {0} by hand in the router, to {1} port {0}; let the game use that port always.",
        inside.port(),
        inside.ip()
    )
}

fn port_words(findings: &Findings) -> String {
    findings
        .inside()
        .map_or_else(|| "of the game".to_owned(), |inside| inside.port().to_string())
}
