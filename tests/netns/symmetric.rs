//! Symmetric routers: the kernel's `masquerade fully-random` gives every destination another port between 1024 and 65535.

use crate::network::{Network, Router};
use crate::players::{self, Player, Server, Transcript};
use crate::{NAT_OUTCOMES, finish_meeting};

/// Who asks, who is asked.
type Pair = (Router, Router);

/// Homes of their own for both of each pair, and players in them.
fn players(test: &'static str, transcript: &Transcript, network: &mut Network, pairs: &[Pair]) -> Vec<[Player; 2]> {
    let namespaces: Vec<[(String, String); 2]> = pairs
        .iter()
        .enumerate()
        .map(|(number, (one, other))| {
            [(one, "asks"), (other, "is-asked")].map(|(kind, role)| {
                let label = format!("{number}-{kind:?}-{role}").to_lowercase();
                let host = network.hosts(&label, *kind, 1).remove(0);
                (label, host)
            })
        })
        .collect();
    namespaces
        .iter()
        .map(|pair| {
            pair.each_ref()
                .map(|(label, namespace)| Player::start(test, transcript, network, label, namespace))
        })
        .collect()
}

/// All pairs open ways at once, connect and talk.
fn all_meet(test: &'static str, pairs: &[Pair]) {
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let _server = Server::start(test, &transcript, &network);
    let mut players = players(test, &transcript, &mut network, pairs);
    for [one, other] in &mut players {
        one.command(&format!("open_nat peer={}", other.guid));
    }
    let wrong: Vec<String> = players
        .iter_mut()
        .filter_map(|[one, other]| finish_meeting(one, other, "direct"))
        .collect();
    if !wrong.is_empty() {
        transcript.fail(test, &wrong.join("\n"));
    }
}

/// One packet from the open side to the symmetric router's address is enough; where no port is filtered not even that.
#[test]
fn a_symmetric_router_meets_one_that_filters_no_ports() {
    let mut pairs = Vec::new();
    for symmetric in [Router::Symmetric, Router::SymmetricCarrier] {
        for open in [Router::Open, Router::FullCone, Router::AddressRestricted] {
            pairs.extend([(symmetric, open), (open, symmetric)]);
        }
    }
    all_meet("a_symmetric_router_meets_one_that_filters_no_ports", &pairs);
}

/// Many sockets behind the symmetric router, many ports probed by the other side: two of them meet.
#[test]
fn a_symmetric_router_meets_a_port_restricted_one() {
    let pairs = [
        (Router::Symmetric, Router::PortRestricted),
        (Router::PortRestricted, Router::Symmetric),
        (Router::SymmetricCarrier, Router::PortRestricted),
        (Router::Carrier, Router::Symmetric),
        (Router::Symmetric, Router::Firewall),
    ];
    all_meet("a_symmetric_router_meets_a_port_restricted_one", &pairs);
}

#[test]
fn two_symmetric_routers_fail_with_the_reason() {
    let test = "two_symmetric_routers_fail_with_the_reason";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let _server = Server::start(test, &transcript, &network);
    let pairs = [
        (Router::Symmetric, Router::Symmetric),
        (Router::Symmetric, Router::SymmetricCarrier),
    ];
    let mut players = players(test, &transcript, &mut network, &pairs);
    for [one, other] in &mut players {
        one.command("detect_nat");
        one.event("NAT_TYPE", None);
        other.command("detect_nat");
        other.event("NAT_TYPE", None);
        one.command(&format!("open_nat peer={}", other.guid));
    }
    for [one, other] in &mut players {
        let outcome = one.any_event(&NAT_OUTCOMES, &other.guid);
        let text = outcome["text"].as_str().unwrap_or_default();
        if outcome["event"] != "NAT_PUNCHTHROUGH_FAILED" || text.matches("random").count() != 2 {
            transcript.fail(
                test,
                &format!("a failure that names both sides' random ports was expected: {outcome}"),
            );
        }
    }
}
