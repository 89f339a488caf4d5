//! Which of a node's addresses another node is told.
//!
//! A node can claim any address. Passing on whatever it claims would let it aim other players' probes at a third party,
//! or at services on their own machines and in their own networks. So what goes through is what the server saw itself,
//! and of the claims only those that fit what it saw:
//!
//! | claim | passes if |
//! |---|---|
//! | private address (`Local`) | both nodes are in one local network |
//! | global address (`Local`) | it is the observed IPv4 address, or in the observed IPv6 /64 |
//! | `Mapped`, `Manual` | its IP address is the observed one |
//! | loopback | the server saw both nodes on loopback |
//! | multicast, link-local, unspecified, reserved, port 0; `Observed` | never |

use std::net::{IpAddr, SocketAddr};

use super::scope::{Scope, same_public_address, scope};
use crate::wire::MAX_CANDIDATES;
use crate::wire::introduction::{Candidate, CandidateKind};

/// A node's addresses: what the server saw, and what the node claims.
#[derive(Debug, Clone, Copy)]
pub struct Addresses<'a> {
    /// As the server sees it.
    pub observed: SocketAddr,
    /// As the node says.
    pub claimed: &'a [Candidate],
}

/// What `receiver` is told of `node`: the observed address first, no address twice.
pub fn for_introduction(node: Addresses<'_>, receiver: Addresses<'_>) -> Vec<Candidate> {
    let mut candidates = Vec::with_capacity(1 + node.claimed.len().min(MAX_CANDIDATES));
    let both_on_loopback = [node, receiver]
        .iter()
        .all(|side| scope(side.observed.ip()) == Scope::Loopback);
    // One that the server saw on loopback has no address there that anybody else could use.
    if both_on_loopback || scope(node.observed.ip()) != Scope::Loopback {
        candidates.push(Candidate {
            kind: CandidateKind::Observed,
            address: node.observed,
        });
    }
    let local_network = in_one_local_network(node.observed.ip(), receiver.observed.ip());
    for claim in node.claimed {
        if candidates.len() == MAX_CANDIDATES {
            break;
        }
        let address = SocketAddr::new(claim.address.ip().to_canonical(), claim.address.port());
        let known = candidates.iter().any(|candidate| candidate.address == address);
        if !known && passes(claim.kind, address, node.observed.ip(), local_network, both_on_loopback) {
            candidates.push(Candidate {
                kind: claim.kind,
                address,
            });
        }
    }
    candidates
}

/// Behind one public address; or the server sees both without one: one on its own machine, the other in a private network.
fn in_one_local_network(one: IpAddr, other: IpAddr) -> bool {
    let on_the_servers_side = |ip| matches!(scope(ip), Scope::Loopback | Scope::Private);
    let one_on_loopback = scope(one) == Scope::Loopback || scope(other) == Scope::Loopback;
    same_public_address(one, other) || (one_on_loopback && on_the_servers_side(one) && on_the_servers_side(other))
}

fn passes(kind: CandidateKind, address: SocketAddr, observed: IpAddr, local_network: bool, loopback: bool) -> bool {
    if address.port() == 0 {
        return false;
    }
    let seen = same_public_address(address.ip(), observed);
    match (kind, scope(address.ip())) {
        (CandidateKind::Observed, _) | (_, Scope::Unusable) => false,
        (_, Scope::Loopback) => loopback,
        (CandidateKind::Local, Scope::Private) => local_network,
        (CandidateKind::Local, Scope::Global) => seen,
        (CandidateKind::Mapped | CandidateKind::Manual, Scope::Private | Scope::Global) => {
            address.ip() == observed.to_canonical()
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
        let claimed = claims(claimed);
        let node = Addresses {
            observed: observed.parse().unwrap(),
            claimed: &claimed,
        };
        let receiver = Addresses {
            observed: receiver.parse().unwrap(),
            claimed: &[],
        };
        for_introduction(node, receiver)
            .into_iter()
            .map(|candidate| (candidate.kind, candidate.address.to_string()))
            .collect()
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
