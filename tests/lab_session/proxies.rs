//! Proxy servers on machines of their own: which one is taken, and what happens when it is full, silent, lost or restarted.

use std::time::Duration;

use lanline::codes::{PathKind, SendMode};
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{Allocation, HostId, OwnedEvent};
use lanline::peer::api::Command;
use lanline::relay::RelayLimits;
use lanline::server::proxy_server::{ProxyServer, ProxyServerCounters};
use lanline::server::{RelayConfig, Server, ServerCounters};

use super::{ms, pair};

const SYMMETRIC: RouterKind = RouterKind::Symmetric(Allocation::Random);

/// Two players who need a relay, and two proxy servers: one near, one far. The server is farther than both.
fn two_proxies(
    seed: u64,
    change: impl Fn(&mut lanline::server::proxy_server::ProxyServerConfig),
) -> (Scenario, [HostId; 2]) {
    let mut scenario = pair(seed, SYMMETRIC, SYMMETRIC).round_trips(ms(120), ms(60)).build();
    let near = scenario.add_proxy(ms(5), change);
    let far = scenario.add_proxy(ms(30), |_| {});
    scenario.lab.run_for(ms(2_000));
    (scenario, [near, far])
}

fn proxy(scenario: &mut Scenario, host: HostId) -> ProxyServerCounters {
    scenario
        .lab
        .with_engine(host, |engine: &mut ProxyServer, _| engine.counters())
}

fn server(scenario: &mut Scenario) -> ServerCounters {
    let host = scenario.server;
    scenario
        .lab
        .with_engine(host, |engine: &mut Server, _| engine.counters())
}

/// Player 0 connects to player 1, over a relay. Takes so long.
fn connect(scenario: &mut Scenario) -> Duration {
    let (peer, address) = (Some(scenario.guids[1]), None);
    let begun = scenario.lab.elapsed();
    scenario.request(0, |request| Command::ConnectPeer { request, peer, address });
    for player in [0, 1] {
        let connected = scenario.expect(player, "CONNECTED", |event| {
            matches!(
                event,
                OwnedEvent::Connected { .. } | OwnedEvent::ConnectionFailed { .. }
            )
        });
        match connected.event {
            OwnedEvent::Connected { path, .. } => assert_eq!(path, PathKind::Proxied),
            other => panic!("player {player}, lab seed {}: {other:?}", scenario.lab.seed()),
        }
    }
    scenario.lab.elapsed() - begun
}

/// A reliable message each way.
fn talk(scenario: &mut Scenario) {
    for (from, to) in [(0, 1), (1, 0)] {
        let (node, peer) = (scenario.nodes[from], scenario.guids[to]);
        scenario.lab.send(node, peer, 0, SendMode::Reliable, b"hello").unwrap();
        scenario.expect(to, "the message", |event| matches!(event, OwnedEvent::Message { .. }));
    }
}

/// Who forwarded anything: the near proxy, the far one, the server.
fn forwarded(scenario: &mut Scenario, [near, far]: [HostId; 2]) -> [bool; 3] {
    [
        proxy(scenario, near).relay.forwarded > 0,
        proxy(scenario, far).relay.forwarded > 0,
        server(scenario).relay.forwarded > 0,
    ]
}

#[test]
fn the_nearest_to_both_is_taken() {
    for seed in 0..10 {
        let (mut scenario, proxies) = two_proxies(seed, |_| {});
        scenario.connect_all();
        scenario.lab.run_for(ms(2_000));
        assert_eq!(server(&mut scenario).round_trip_reports, 4, "seed {seed}");
        connect(&mut scenario);
        talk(&mut scenario);
        assert_eq!(forwarded(&mut scenario, proxies), [true, false, false], "seed {seed}");
        assert_eq!(server(&mut scenario).proxies, 2);
    }
}

#[test]
fn a_proxy_server_that_comes_later_is_heard_of() {
    let mut scenario = pair(3, SYMMETRIC, SYMMETRIC).round_trips(ms(120), ms(60)).build();
    scenario.connect_all();
    let near = scenario.add_proxy(ms(5), |_| {});
    scenario.lab.run_for(ms(5_000));
    connect(&mut scenario);
    talk(&mut scenario);
    assert!(proxy(&mut scenario, near).relay.forwarded > 0 && server(&mut scenario).relay.forwarded == 0);
}

#[test]
fn a_full_one_is_left_out() {
    let (mut scenario, proxies) = two_proxies(1, |config| {
        config.relay = RelayConfig::Own(RelayLimits {
            max_sessions: 0,
            ..RelayLimits::default()
        });
    });
    scenario.connect_all();
    scenario.lab.run_for(ms(2_000));
    connect(&mut scenario);
    talk(&mut scenario);
    assert_eq!(forwarded(&mut scenario, proxies), [false, true, false]);
}

#[test]
fn one_that_is_gone_is_noticed_within_seconds() {
    for seed in 0..5 {
        let (mut scenario, [near, far]) = two_proxies(seed, |_| {});
        scenario.connect_all();
        scenario.lab.run_for(ms(2_000));
        scenario.lab.crash(near);
        let host = scenario.server;
        let limit = scenario.lab.elapsed() + ms(6_000);
        while scenario.lab.elapsed() < limit {
            scenario.lab.run_for(ms(100));
        }
        let counters = scenario
            .lab
            .with_engine(host, |engine: &mut Server, _| engine.counters());
        assert_eq!((counters.proxies, counters.proxies_lost), (1, 1), "seed {seed}");
        connect(&mut scenario);
        talk(&mut scenario);
        assert!(proxy(&mut scenario, far).relay.forwarded > 0);
    }
}

#[test]
fn while_one_is_silent_the_next_one_is_taken() {
    for seed in 0..5 {
        let (mut scenario, [near, _]) = two_proxies(seed, |_| {});
        scenario.connect_all();
        scenario.lab.run_for(ms(2_000));
        // The server has not noticed it yet, and offers it.
        scenario.lab.crash(near);
        connect(&mut scenario);
        talk(&mut scenario);
    }
}

#[test]
fn a_pair_survives_the_restart_of_its_proxy_server() {
    for seed in 0..5 {
        let (mut scenario, [near, _]) = two_proxies(seed, |_| {});
        scenario.connect_all();
        scenario.lab.run_for(ms(2_000));
        connect(&mut scenario);
        talk(&mut scenario);
        scenario.lab.crash(near);
        scenario.lab.run_for(ms(3_000));
        scenario.lab.restart(near);
        // The same connection: nobody is told that it ended.
        talk(&mut scenario);
        scenario.lab.run_for(ms(20_000));
        talk(&mut scenario);
        assert!(proxy(&mut scenario, near).admitted, "seed {seed}");
    }
}

#[test]
fn without_its_coordinator_a_proxy_server_goes_on_and_is_there_when_it_is_back() {
    let (mut scenario, [near, far]) = two_proxies(1, |_| {});
    scenario.connect_all();
    scenario.lab.run_for(ms(2_000));
    connect(&mut scenario);
    scenario.lab.crash(scenario.server);
    scenario.lab.run_for(ms(30_000));
    let before = proxy(&mut scenario, near);
    assert!(!before.admitted);
    talk(&mut scenario);
    assert!(proxy(&mut scenario, near).relay.forwarded > before.relay.forwarded);
    scenario.lab.restart(scenario.server);
    scenario.lab.run_for(ms(20_000));
    assert!(proxy(&mut scenario, near).admitted && proxy(&mut scenario, far).admitted);
    assert_eq!(server(&mut scenario).proxies, 2);
    talk(&mut scenario);
}

#[test]
fn a_wrong_password_is_not_let_in_and_does_not_try_without_end() {
    let (mut scenario, [near, far]) = two_proxies(1, |config| "another password".clone_into(&mut config.password));
    scenario.lab.run_for(ms(120_000));
    let counters = proxy(&mut scenario, near);
    assert!(!counters.admitted && (2..=12).contains(&counters.tries), "{counters:?}");
    let counters = server(&mut scenario);
    assert_eq!((counters.proxies, counters.proxies_lost), (1, 0));
    assert!(counters.proxy_logins_refused >= 2);
    // Its coordinator's players do not hear of it, and it forwards nothing.
    scenario.connect_all();
    scenario.lab.run_for(ms(2_000));
    connect(&mut scenario);
    talk(&mut scenario);
    assert_eq!(forwarded(&mut scenario, [near, far]), [false, true, false]);
}
