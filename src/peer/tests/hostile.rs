//! What strangers can send: dropped, counted, never answered beyond the bounds.

use std::net::SocketAddr;

use super::ms;
use crate::engine::SocketName;
use crate::lab::scenario::{RouterKind, Scenario};
use crate::lab::{HostId, Link, with_seeds};
use crate::peer::Node;
use crate::wire::probe::{Probe, ProbeKey, ProbeKind};

/// A node, and a stranger who knows its address.
fn stranger(seed: u64) -> (Scenario, HostId, SocketAddr) {
    let mut scenario = Scenario::builder(seed).nodes(2, RouterKind::Open).build();
    scenario.connect_all();
    let internet = scenario.lab.internet();
    let host = scenario.lab.add_host("stranger", internet, Link::internet(ms(5)));
    scenario
        .lab
        .open_socket(host, SocketName::Udp4, SocketAddr::from(([0, 0, 0, 0], 666)));
    scenario.lab.start_raw(host);
    let target = scenario.lab.socket_address(scenario.nodes[0], SocketName::Udp4);
    (scenario, host, target)
}

fn dropped(scenario: &mut Scenario) -> u64 {
    scenario.lab.with_engine(scenario.nodes[0], |node: &mut Node, now| {
        node.view_changed = true;
        node.take_view(now).unwrap().dropped_datagrams
    })
}

#[test]
fn noise_is_counted_and_never_answered() {
    with_seeds(0..8, |seed| {
        let (mut scenario, host, target) = stranger(seed);
        let before = dropped(&mut scenario);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for number in 0..500u64 {
            let length = (number * 37 % 1_199) as usize;
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            scenario.lab.send_raw(host, SocketName::Udp4, target, &bytes);
        }
        scenario.lab.run_for(ms(2_000));
        assert_eq!(scenario.lab.received(host).len(), 0);
        assert!(dropped(&mut scenario) >= before + 490);
    });
}

#[test]
fn probes_without_the_secret_are_dropped() {
    let (mut scenario, host, target) = stranger(1);
    let peer = scenario.guids[1];
    scenario.request(0, |request| crate::peer::api::Command::OpenNat { request, peer });
    scenario.lab.run_for(ms(70));
    let before = dropped(&mut scenario);
    let introduction = *scenario
        .lab
        .engine::<Node>(scenario.nodes[0])
        .attempts
        .introductions()
        .first()
        .unwrap();
    for transaction in 0..300 {
        let probe = Probe {
            introduction,
            from_asker: false,
            transaction,
            kind: ProbeKind::Request,
        };
        let mut bytes = Vec::new();
        probe.encode(&ProbeKey::new(&[9; 32]), 1200, &mut bytes);
        scenario.lab.send_raw(host, SocketName::Udp4, target, &bytes);
    }
    scenario.lab.run_for(ms(1_000));
    assert_eq!(scenario.lab.received(host).len(), 0);
    assert_eq!(dropped(&mut scenario), before + 300);
}

#[test]
fn a_flood_of_first_packets_is_answered_with_less_than_it_sent_and_leaves_nothing() {
    let (mut scenario, host, target) = stranger(2);
    let mut initial = vec![0; 1200];
    initial[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 8]);
    for number in 0..2_000u32 {
        initial[6..10].copy_from_slice(&number.to_be_bytes());
        scenario.lab.send_raw(host, SocketName::Udp4, target, &initial);
    }
    scenario.lab.run_for(ms(30_000));
    let counters = scenario.lab.counters(host);
    assert!(counters.bytes_received <= counters.bytes_sent);
    // Whoever comes honestly is served.
    scenario.connect_pair(1, 0);
}
