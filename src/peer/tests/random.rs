//! Random command sequences: every request ends in exactly one terminal event, whatever happens around it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ms;
use crate::lab::scenario::{RouterKind, Scenario};
use crate::lab::with_seeds;
use crate::peer::api::{Command, RequestId};

/// Longer than every time limit there is.
const QUIET: Duration = Duration::from_secs(90);

fn random_command(scenario: &mut Scenario, random: &mut StdRng, player: usize, requests: &mut Vec<(usize, RequestId)>) {
    let other = (player + 1 + random.random_range(0..2)) % 3;
    let peer = scenario.guids[other];
    let address = scenario
        .lab
        .socket_address(scenario.nodes[other], crate::engine::SocketName::Udp4);
    let server = scenario.server_address;
    let request = scenario.lab.next_request();
    let command = match random.random_range(0..12) {
        0 | 1 => Command::ConnectServer {
            request,
            host: server.ip().to_string(),
            port: if random.random_bool(0.9) { server.port() } else { 9 },
            key: random.random_bool(0.5).then_some(scenario.server_key),
        },
        2 => Command::DisconnectServer { request },
        3..=5 => Command::OpenNat { request, peer },
        6..=8 => Command::ConnectPeer {
            request,
            peer: random.random_bool(0.8).then_some(peer),
            address: None.or(random.random_bool(0.3).then_some(address)),
        },
        9 => {
            let text = "random".to_owned();
            return scenario.lab.command(
                scenario.nodes[player],
                Command::Disconnect {
                    peer,
                    user_code: 1,
                    text,
                },
            );
        }
        _ => {
            let known: Vec<RequestId> = requests
                .iter()
                .filter(|(owner, _)| *owner == player)
                .map(|(_, request)| *request)
                .collect();
            if !known.is_empty() {
                let request = known[random.random_range(0..known.len())];
                scenario
                    .lab
                    .command(scenario.nodes[player], Command::Cancel { request });
            }
            return;
        }
    };
    // A call with neither is refused before it gets here.
    if matches!(
        command,
        Command::ConnectPeer {
            peer: None,
            address: None,
            ..
        }
    ) {
        return;
    }
    requests.push((player, request));
    scenario.lab.command(scenario.nodes[player], command);
}

#[test]
fn every_request_ends_exactly_once() {
    with_seeds(0..60, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let loss = if seed % 2 == 0 { 0.0 } else { 0.1 };
        let mut scenario = Scenario::builder(seed)
            .node(RouterKind::Open)
            .node(RouterKind::PortRestricted)
            .node(RouterKind::FullCone)
            .configure_nodes(|number, config| {
                config.max_peers = 1 + number;
                config.lost_peer_timeout = Duration::from_secs(3);
            })
            .loss(loss)
            .build();
        let mut requests = Vec::new();
        for _ in 0..60 {
            let player = random.random_range(0..3);
            match random.random_range(0..40) {
                0 => scenario.lab.restart(scenario.server),
                _ => random_command(&mut scenario, &mut random, player, &mut requests),
            }
            scenario.lab.run_for(ms(random.random_range(0..400)));
        }
        scenario.lab.run_for(QUIET);
        let mut ends: BTreeMap<(usize, RequestId), usize> = BTreeMap::new();
        for player in 0..3 {
            for recorded in scenario.lab.take_events(scenario.nodes[player]) {
                if let Some(request) = recorded.event.ends_request().filter(|request| *request != 0) {
                    *ends.entry((player, request)).or_default() += 1;
                }
            }
        }
        for request in requests {
            assert_eq!(
                ends.get(&request),
                Some(&1),
                "request {} of player {}",
                request.1,
                request.0
            );
        }
    });
}
