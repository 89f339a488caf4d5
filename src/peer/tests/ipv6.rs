//! Players whose IPv4 cannot meet, and who both have IPv6 behind firewalls.

use std::time::Duration;

use super::ms;
use crate::codes::{Code, PathKind};
use crate::lab::scenario::{RouterKind, Scenario, ScenarioBuilder};
use crate::lab::{Allocation, OwnedEvent, with_seeds};
use crate::peer::Node;
use crate::peer::api::Command;

/// Two players behind routers that draw their ports, and whose IPv6 firewalls let in answers alone.
fn hard(seed: u64) -> ScenarioBuilder {
    Scenario::builder(seed)
        .ipv6()
        .nodes(2, RouterKind::Symmetric(Allocation::Random))
}

/// Everybody's session is over IPv4, as the server was given by an address.
fn connect_over_ipv4(scenario: &mut Scenario) {
    for player in 0..scenario.nodes.len() {
        let (address, key) = (scenario.server_address, Some(scenario.server_key));
        assert!(address.is_ipv4());
        let request = scenario.request(player, |request| Command::ConnectServer {
            request,
            host: address.ip().to_string(),
            port: address.port(),
            key,
        });
        let outcome = scenario.outcome(player, request);
        assert!(matches!(outcome, OwnedEvent::ServerConnected { .. }), "{outcome:?}");
    }
    // The discovery that begins by itself shows the server the other address.
    scenario.lab.run_for(ms(2_000));
}

#[test]
fn players_whose_ipv4_cannot_meet_meet_over_ipv6() {
    with_seeds(0..20, |seed| {
        let mut scenario = hard(seed).build();
        if seed % 2 == 0 {
            connect_over_ipv4(&mut scenario);
        } else {
            scenario.connect_all();
            scenario.lab.run_for(ms(2_000));
        }
        for player in 0..2 {
            let node = scenario.nodes[player];
            let proofs = scenario.lab.engine::<Node>(node).nat_proofs();
            assert_eq!(proofs.len(), 1, "one of each version, one of them the session's");
            if seed % 2 == 0 {
                assert!(proofs[0].address.is_ipv6(), "{proofs:?}");
            }
        }
        let opened = scenario.open_nat(0, 1).unwrap();
        assert_eq!(opened.path, PathKind::Direct);
        assert!(opened.address.is_ipv6(), "{opened:?}");
        assert!(opened.took < ms(400), "{opened:?}");
        scenario.connect_pair(0, 1);
    });
}

#[test]
fn ipv6_at_one_side_alone_ends_with_a_clear_failure() {
    for only in [0, 1] {
        let mut scenario = hard(30).only_ipv4(only).build();
        connect_over_ipv4(&mut scenario);
        let begin = scenario.lab.elapsed();
        let failed = scenario.open_nat(0, 1).unwrap_err();
        let OwnedEvent::NatFailed { reason, .. } = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(reason.code, Code::NoDirectPath);
        assert!(scenario.lab.elapsed() - begin <= Duration::from_secs(12));
        // The node goes on: somebody else is reached.
        assert!(scenario.connect_server(0) > 0);
    }
}

#[test]
fn where_both_versions_are_open_both_sides_use_the_same_way() {
    with_seeds(40..50, |seed| {
        let mut scenario = Scenario::builder(seed)
            .ipv6()
            .nodes(2, RouterKind::PortRestricted)
            .build();
        connect_over_ipv4(&mut scenario);
        let opened = scenario.open_nat(0, 1).unwrap();
        assert_eq!(opened.path, PathKind::Direct);
        scenario.connect_pair(0, 1);
        scenario.lab.run_for(ms(5_000));
        let way = |scenario: &mut Scenario, player: usize| {
            let node = scenario.nodes[player];
            let view = scenario.lab.with_engine(node, |node: &mut Node, now| {
                node.expire_view();
                node.take_view(now)
            });
            let peer = view.unwrap().peers[0];
            (peer.path, peer.address.is_ipv6())
        };
        let ways = [way(&mut scenario, 0), way(&mut scenario, 1)];
        assert_eq!(ways[0], ways[1]);
    });
}
