//! Connections over the server's relay: at once for everybody, and for good where no direct path exists.

use lanline::codes::{Code, PathKind, SendMode};
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{Allocation, OwnedEvent};
use lanline::peer::api::relay::{RelayCommand, RelayEvent};
use lanline::peer::api::{Command, NodeConfig};
use lanline::wire::control::RelayPolicy;

use super::{ms, pair};

const SYMMETRIC: RouterKind = RouterKind::Symmetric(Allocation::Random);

/// Player 0 connects to player 1. Returns the kind of path that each heard of first.
fn connect(scenario: &mut Scenario) -> [PathKind; 2] {
    let peer = Some(scenario.guids[1]);
    let address = None;
    scenario.request(0, |request| Command::ConnectPeer { request, peer, address });
    [0, 1].map(|player| {
        let connected = scenario.expect(player, "CONNECTED", |event| {
            matches!(
                event,
                OwnedEvent::Connected { .. } | OwnedEvent::ConnectionFailed { .. }
            )
        });
        match connected.event {
            OwnedEvent::Connected { path, .. } => path,
            other => panic!("player {player}, lab seed {}: {other:?}", scenario.lab.seed()),
        }
    })
}

/// A reliable message each way.
fn talk(scenario: &mut Scenario) {
    for (from, to) in [(0, 1), (1, 0)] {
        let (node, peer) = (scenario.nodes[from], scenario.guids[to]);
        scenario.lab.send(node, peer, 0, SendMode::Reliable, b"hello").unwrap();
        scenario.expect(to, "the message", |event| matches!(event, OwnedEvent::Message { .. }));
    }
}

/// The path that a player's only connection takes now.
fn path(scenario: &mut Scenario, player: usize) -> PathKind {
    let node = scenario.nodes[player];
    scenario.lab.with_engine(node, |engine: &mut lanline::peer::Node, now| {
        engine.expire_view();
        engine.take_view(now).unwrap().peers[0].path
    })
}

fn policy(policies: [RelayPolicy; 2]) -> impl Fn(usize, &mut NodeConfig) {
    move |player, config| config.relay_policy = policies[player]
}

#[test]
fn two_symmetric_routers_play_over_the_relay() {
    for seed in 0..20 {
        let mut scenario = pair(seed, SYMMETRIC, SYMMETRIC).build();
        scenario.connect_all();
        assert_eq!(connect(&mut scenario), [PathKind::Proxied; 2], "seed {seed}");
        talk(&mut scenario);
        scenario.lab.run_for(ms(120_000));
        talk(&mut scenario);
        assert_eq!(path(&mut scenario, 0), PathKind::Proxied);
    }
}

#[test]
fn a_connection_begins_on_the_relay_and_becomes_direct() {
    for seed in 0..20 {
        let mut scenario = pair(seed, RouterKind::PortRestricted, RouterKind::PortRestricted).build();
        scenario.connect_all();
        connect(&mut scenario);
        scenario.lab.run_for(ms(3_000));
        assert_eq!(path(&mut scenario, 0), PathKind::Direct, "seed {seed}");
        assert_eq!(path(&mut scenario, 1), PathKind::Direct, "seed {seed}");
        talk(&mut scenario);
    }
}

#[test]
fn without_relays_two_symmetric_routers_are_told_so() {
    let policies = policy([RelayPolicy::Never; 2]);
    let mut scenario = pair(1, SYMMETRIC, SYMMETRIC).configure_nodes(policies).build();
    scenario.connect_all();
    let failed = scenario.try_connect_pair(0, 1).unwrap_err();
    assert_eq!(failed.code(), Some(Code::NoDirectPath));
}

/// It used to wait for the end of the attempt, and fail with it.
#[test]
fn a_connection_that_is_wished_for_while_nat_is_being_opened_comes_over_the_relay() {
    for seed in 0..10 {
        let mut scenario = pair(seed, SYMMETRIC, SYMMETRIC).build();
        scenario.connect_all();
        let peer = scenario.guids[1];
        scenario.request(0, |request| Command::OpenNat { request, peer });
        scenario.lab.run_for(ms(500));
        let begin = scenario.lab.elapsed();
        assert_eq!(connect(&mut scenario), [PathKind::Proxied; 2], "seed {seed}");
        assert!(scenario.lab.elapsed() - begin < ms(1_000), "seed {seed}");
        talk(&mut scenario);
    }
}

/// It used to stay on the proxy until the first interval of the search was over.
#[test]
fn a_connection_over_a_proxy_that_was_asked_for_looks_for_a_direct_way_at_once() {
    for seed in 0..10 {
        let mut scenario = pair(seed, RouterKind::PortRestricted, RouterKind::PortRestricted).build();
        scenario.connect_all();
        let peer = scenario.guids[1];
        let idle = ms(0);
        let request = scenario.request(0, |request| Command::Relay(RelayCommand::Proxy { request, peer, idle }));
        let outcome = scenario.outcome(0, request);
        assert!(
            matches!(outcome, OwnedEvent::Relay(RelayEvent::ProxySucceeded { .. })),
            "{outcome:?}"
        );
        assert_eq!(connect(&mut scenario), [PathKind::Proxied; 2], "seed {seed}");
        scenario.lab.run_for(ms(4_000));
        assert_eq!(path(&mut scenario, 0), PathKind::Direct, "seed {seed}");
        assert_eq!(path(&mut scenario, 1), PathKind::Direct, "seed {seed}");
        talk(&mut scenario);
    }
}

/// Packets that were still under way on the relay when the direct path was proven are no sign that the other side has lost it.
#[test]
fn a_connection_that_is_direct_does_not_go_back_to_the_relay() {
    let kinds = [RouterKind::PortRestricted, RouterKind::FullCone, RouterKind::Open];
    for seed in 0..90 {
        let kind = &kinds[seed as usize % kinds.len()];
        // From a relay next door to one far away, so that the two ways take turns in being the faster one.
        let to_server = ms(2 + 2 * seed);
        let builder = pair(seed, kind.clone(), RouterKind::Open);
        let mut scenario = builder.round_trips(to_server, ms(2)).build();
        scenario.connect_all();
        connect(&mut scenario);
        scenario.lab.run_for(ms(2_000));
        for player in [0, 1] {
            let back =
                |event: &OwnedEvent| matches!(event, OwnedEvent::PathChanged { from, .. } if *from <= PathKind::Direct);
            let events = scenario.lab.take_events(scenario.nodes[player]);
            let wrong = events.iter().find(|recorded| back(&recorded.event));
            assert!(wrong.is_none(), "seed {seed}, {kind:?}, player {player}: {wrong:?}");
        }
    }
}
