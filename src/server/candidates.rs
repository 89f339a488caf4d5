//! Which of a node's addresses another node is told.
//!
//! A node can claim any address. Passing on whatever it claims would let it aim other players' probes at a third party,
//! or at services on their own machines and in their own networks. So what goes through is what the server saw itself,
//! and of the claims only those that fit what it saw:
//!
//! | claim | passes if |
//! |---|---|
//! | private address (`Local`) | both nodes are in one local network |
//! | global address (`Local`) | it is an IPv4 address that was seen, or in an IPv6 /64 that was |
//! | `Mapped`, `Manual` | its IP address was seen |
//! | loopback | the server saw both nodes on loopback |
//! | multicast, link-local, unspecified, reserved, port 0; `Observed` | never |
//!
//! Seen are the address of the node's session (on a tunnel: of its TCP stream, which is told to nobody) and those that it has proven with the server's cookies (of the other IP version, of
//! another interface). Others are told of all of these, as `Observed`.

use std::net::{IpAddr, SocketAddr};

use crate::scope::{Scope, same_public_address, scope};
use crate::wire::MAX_CANDIDATES;
use crate::wire::control::AddressProof;
use crate::wire::introduction::{Candidate, CandidateKind};

/// A node's addresses: what the server saw, and what the node claims.
#[derive(Debug, Clone, Copy)]
pub struct Addresses<'a> {
    /// As the server sees it.
    pub observed: SocketAddr,
    /// That is the address of a TCP stream: it shows which network the node is in, and nobody can send to it.
    pub tunnelled: bool,
    /// What it has proven, checked.
    pub proofs: &'a [AddressProof],
    /// As the node says.
    pub claimed: &'a [Candidate],
}

impl Addresses<'_> {
    /// What the server saw: the address of the session, then the proven ones.
    fn seen(&self) -> impl Iterator<Item = SocketAddr> + use<'_> {
        let proven = self.proofs.iter().map(|proof| proof.address);
        std::iter::once(self.observed)
            .chain(proven)
            .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    fn on_loopback(&self) -> bool {
        self.seen().any(|address| scope(address.ip()) == Scope::Loopback)
    }
}

/// What `receiver` is told of `node`: the observed addresses first, that of its session before all, no address twice.
pub fn for_introduction(node: Addresses<'_>, receiver: Addresses<'_>) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::with_capacity(1 + node.claimed.len().min(MAX_CANDIDATES));
    let both_on_loopback = node.on_loopback() && receiver.on_loopback();
    let mut add = |kind, address: SocketAddr| {
        if candidates.len() < MAX_CANDIDATES && candidates.iter().all(|candidate| candidate.address != address) {
            candidates.push(Candidate { kind, address });
        }
    };
    for address in node.seen().skip(usize::from(node.tunnelled)) {
        // One that the server saw on loopback has no address there that anybody else could use.
        let usable = match scope(address.ip()) {
            Scope::Loopback => both_on_loopback,
            Scope::Unusable => address == node.observed,
            Scope::Private | Scope::Global => true,
        };
        if usable {
            add(CandidateKind::Observed, address);
        }
    }
    let local_network = in_one_local_network(&node, &receiver);
    for claim in node.claimed {
        let address = SocketAddr::new(claim.address.ip().to_canonical(), claim.address.port());
        if passes(claim.kind, address, &node, local_network, both_on_loopback) {
            add(claim.kind, address);
        }
    }
    candidates
}

/// Behind one public address, of either IP version; or the server sees both without one: one on its own machine, the other in a private
/// network.
fn in_one_local_network(one: &Addresses<'_>, other: &Addresses<'_>) -> bool {
    one.seen().any(|address| {
        other
            .seen()
            .any(|other| share_a_local_network(address.ip(), other.ip()))
    })
}

fn share_a_local_network(one: IpAddr, other: IpAddr) -> bool {
    let on_the_servers_side = |ip| matches!(scope(ip), Scope::Loopback | Scope::Private);
    let one_on_loopback = scope(one) == Scope::Loopback || scope(other) == Scope::Loopback;
    same_public_address(one, other) || (one_on_loopback && on_the_servers_side(one) && on_the_servers_side(other))
}

fn passes(kind: CandidateKind, address: SocketAddr, node: &Addresses<'_>, local_network: bool, loopback: bool) -> bool {
    if address.port() == 0 {
        return false;
    }
    match (kind, scope(address.ip())) {
        (CandidateKind::Observed, _) | (_, Scope::Unusable) => false,
        (_, Scope::Loopback) => loopback,
        (CandidateKind::Local, Scope::Private) => local_network,
        (CandidateKind::Local, Scope::Global) => node.seen().any(|seen| same_public_address(address.ip(), seen.ip())),
        (CandidateKind::Mapped | CandidateKind::Manual, Scope::Private | Scope::Global) => {
            node.seen().any(|seen| address.ip() == seen.ip())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(list: &[(CandidateKind, &str)]) -> Vec<Candidate> {
        list.iter()
            .map(|(kind, address)| Candidate {
                kind: *kind,
                address: address.parse().unwrap(),
            })
            .collect()
    }

    /// What one at `receiver` is told of a node at `observed` with those claims.
    fn told(observed: &str, claimed: &[(CandidateKind, &str)], receiver: &str) -> Vec<(CandidateKind, String)> {
        told_with_proofs((observed, &[]), claimed, (receiver, &[]))
    }

    /// The same, with addresses that each side has proven.
    fn told_with_proofs(
        (observed, proven): (&str, &[&str]),
        claimed: &[(CandidateKind, &str)],
        (receiver, receiver_proven): (&str, &[&str]),
    ) -> Vec<(CandidateKind, String)> {
        let proofs = |list: &[&str]| -> Vec<AddressProof> {
            list.iter()
                .map(|address| AddressProof {
                    address: address.parse().unwrap(),
                    cookie: [0; 16],
                })
                .collect()
        };
        let (claimed, proofs, receiver_proofs) = (claims(claimed), proofs(proven), proofs(receiver_proven));
        let node = Addresses {
            observed: observed.parse().unwrap(),
            tunnelled: false,
            proofs: &proofs,
            claimed: &claimed,
        };
        let receiver = Addresses {
            observed: receiver.parse().unwrap(),
            tunnelled: false,
            proofs: &receiver_proofs,
            claimed: &[],
        };
        for_introduction(node, receiver)
            .into_iter()
            .map(|candidate| (candidate.kind, candidate.address.to_string()))
            .collect()
    }

    #[test]
    fn a_proven_address_of_the_other_version_counts_as_seen() {
        let claimed = [
            (Local, "[2001:db8::77]:4000"),
            (Local, "[2001:db8:0:1::77]:4000"),
            (Manual, "[2001:db8::5]:7000"),
            (Mapped, "203.0.113.1:7000"),
            (Local, "192.168.1.5:4000"),
        ];
        let node = ("203.0.113.1:4000", &["[2001:db8::5]:4000"][..]);
        let expected = [
            (Observed, "203.0.113.1:4000".to_owned()),
            (Observed, "[2001:db8::5]:4000".to_owned()),
            (Local, "[2001:db8::77]:4000".to_owned()),
            (Manual, "[2001:db8::5]:7000".to_owned()),
            (Mapped, "203.0.113.1:7000".to_owned()),
        ];
        assert_eq!(told_with_proofs(node, &claimed, ("198.51.100.2:5000", &[])), expected);
        // Without the proof nothing of IPv6 passes.
        assert_eq!(told("203.0.113.1:4000", &claimed, "198.51.100.2:5000").len(), 2);
    }

    #[test]
    fn one_public_address_may_be_any_that_was_proven() {
        let claimed = [(Local, "192.168.1.5:4000")];
        let knows = |node, receiver| {
            told_with_proofs(node, &claimed, receiver)
                .iter()
                .any(|(kind, _)| *kind == Local)
        };
        let six = ("[2001:db8::5]:4000", &["203.0.113.1:4000"][..]);
        assert!(knows(six, ("203.0.113.1:5000", &[])));
        assert!(knows(("203.0.113.1:4000", &[]), six));
        assert!(knows(six, ("198.51.100.2:1", &["[2001:db8::9]:1"])));
        assert!(!knows(six, ("198.51.100.2:1", &["[2001:db8:0:1::9]:1"])));
        assert!(!knows(
            ("203.0.113.1:4000", &[]),
            ("203.0.113.2:1", &["[2001:db8::9]:1"])
        ));
    }

    #[test]
    fn a_proven_loopback_address_goes_to_nobody_elsewhere() {
        let node = ("203.0.113.1:4000", &["[::1]:4000", "203.0.113.1:4000"][..]);
        assert_eq!(told_with_proofs(node, &[], ("198.51.100.2:1", &[])).len(), 1);
        assert_eq!(told_with_proofs(node, &[], ("127.0.0.1:1", &[])).len(), 2);
    }

    use CandidateKind::{Local, Manual, Mapped, Observed};

    const HOME: &[(CandidateKind, &str)] = &[
        (Local, "192.168.1.5:4000"),
        (Local, "[fd00::5]:4000"),
        (Local, "127.0.0.1:4000"),
        (Local, "169.254.7.7:4000"),
        (Local, "224.0.0.1:4000"),
        (Local, "0.0.0.0:4000"),
        (Local, "192.168.1.5:0"),
        (Local, "[fe80::1]:4000"),
        (Local, "[::]:4000"),
    ];

    #[test]
    fn private_addresses_go_only_to_those_behind_the_same_public_address() {
        let outside = told("203.0.113.1:4000", HOME, "203.0.113.2:5000");
        assert_eq!(outside, [(Observed, "203.0.113.1:4000".to_owned())]);
        let inside = told("203.0.113.1:4000", HOME, "203.0.113.1:5000");
        assert_eq!(
            inside,
            [
                (Observed, "203.0.113.1:4000".to_owned()),
                (Local, "192.168.1.5:4000".to_owned()),
                (Local, "[fd00::5]:4000".to_owned())
            ]
        );
        let inside_v6 = told("[2001:db8::5]:4000", HOME, "[2001:db8::9]:5000");
        assert_eq!(inside_v6.len(), 3);
    }

    #[test]
    fn claims_aimed_at_a_third_party_do_not_pass() {
        let fakes = [
            (Local, "198.51.100.9:53"),
            (Mapped, "198.51.100.9:53"),
            (Manual, "198.51.100.9:53"),
            (Observed, "198.51.100.9:53"),
            (Mapped, "192.168.1.1:80"),
            (Mapped, "127.0.0.1:80"),
            (Local, "[2001:db8:dead::1]:53"),
        ];
        for receiver in ["203.0.113.2:5000", "203.0.113.1:5000"] {
            assert_eq!(told("203.0.113.1:4000", &fakes, receiver).len(), 1, "{receiver}");
        }
    }

    #[test]
    fn mapped_and_manual_ports_pass_at_the_observed_address() {
        let claimed = [
            (Mapped, "203.0.113.1:7000"),
            (Manual, "203.0.113.1:8000"),
            (Mapped, "203.0.113.1:4000"),
        ];
        assert_eq!(
            told("203.0.113.1:4000", &claimed, "198.51.100.2:5000"),
            [
                (Observed, "203.0.113.1:4000".to_owned()),
                (Mapped, "203.0.113.1:7000".to_owned()),
                (Manual, "203.0.113.1:8000".to_owned())
            ]
        );
    }

    #[test]
    fn a_mapped_port_of_a_neighbour_does_not_pass() {
        let claimed = [(Mapped, "[2001:db8::77]:4000"), (Manual, "[2001:db8::5]:7000")];
        let told = told("[2001:db8::5]:4000", &claimed, "[2001:db8:9::1]:5000");
        assert_eq!((told.len(), &told[1]), (2, &(Manual, "[2001:db8::5]:7000".to_owned())));
    }

    #[test]
    fn global_ipv6_passes_within_the_observed_64() {
        let claimed = [(Local, "[2001:db8::77]:4000"), (Local, "[2001:db8:0:1::77]:4000")];
        let told = told("[2001:db8::5]:4000", &claimed, "[2001:db8:9::1]:5000");
        assert_eq!(told.len(), 2);
        assert_eq!(told[1], (Local, "[2001:db8::77]:4000".to_owned()));
    }

    #[test]
    fn loopback_stays_among_those_that_the_server_saw_there() {
        let claimed = [(Local, "127.0.0.1:4001"), (Local, "192.168.1.5:4001")];
        assert_eq!(told("127.0.0.1:4000", &claimed, "127.0.0.1:5000").len(), 3);
        // The other one is in the server's own network: it is told where that network finds the node.
        assert_eq!(
            told("127.0.0.1:4000", &claimed, "192.168.1.9:5000"),
            [(Local, "192.168.1.5:4001".to_owned())]
        );
        assert_eq!(told("127.0.0.1:4000", &claimed, "203.0.113.1:5000"), []);
        assert_eq!(told("192.168.1.9:4000", &claimed, "127.0.0.1:5000").len(), 2);
        // Two private networks that the server sees beside each other are not one.
        assert_eq!(told("10.1.0.1:4000", &claimed, "10.2.0.1:5000").len(), 1);
    }

    #[test]
    fn there_are_never_more_than_a_message_holds() {
        let many: Vec<String> = (1..200).map(|port| format!("192.168.1.5:{port}")).collect();
        let many: Vec<(CandidateKind, &str)> = many.iter().map(|address| (Local, address.as_str())).collect();
        assert_eq!(
            told("203.0.113.1:4000", &many, "203.0.113.1:5000").len(),
            MAX_CANDIDATES
        );
    }
}
