//! Ways through other players (RakNet's Router2), in virtual time. Players 0 and 1 sit behind symmetric routers, so that nothing else connects
//! them; the further ones have public addresses and may forward.

use std::time::Duration;

use lanline::codes::{Code, PathKind, SendMode};
use lanline::lab::scenario::{RouterKind, Scenario};
use lanline::lab::{Allocation, OwnedEvent, with_seeds};
use lanline::peer::Node;
use lanline::peer::api::relay::{RelayCommand, RelayEvent, RouterOutcome};
use lanline::peer::api::{Command, NodeConfig, RequestId};
use lanline::wire::control::{Consent, RelayPolicy};

use super::ms;

const SYMMETRIC: RouterKind = RouterKind::Symmetric(Allocation::Random);
/// Pairs that the routers of these tests forward for.
const PAIRS: usize = 4;

/// Two players behind symmetric routers, and such that may forward; nobody is connected to anybody.
fn strangers(seed: u64, routers: usize, relay: bool, change: impl Fn(usize, &mut NodeConfig) + 'static) -> Scenario {
    let mut scenario = Scenario::builder(seed)
        .nodes(2, SYMMETRIC)
        .nodes(routers, RouterKind::Open)
        .configure_nodes(move |player, config| {
            config.router_max = if player >= 2 { PAIRS } else { 0 };
            change(player, config);
        })
        .configure_server(move |config| {
            if !relay {
                config.relay = lanline::server::RelayConfig::Off;
            }
        })
        .build();
    scenario.connect_all();
    scenario
}

/// The same, where everybody but the two is connected to both.
fn friends(seed: u64, routers: usize, relay: bool) -> Scenario {
    friends_with(seed, routers, relay, |_, _| {})
}

fn friends_with(seed: u64, routers: usize, relay: bool, change: impl Fn(usize, &mut NodeConfig) + 'static) -> Scenario {
    let mut scenario = strangers(seed, routers, relay, change);
    for router in 2..2 + routers {
        scenario.connect_pair(0, router);
        scenario.connect_pair(1, router);
    }
    // Whatever began on a relay is direct by then.
    scenario.lab.run_for(ms(3_000));
    forget(&mut scenario);
    scenario
}

fn forget(scenario: &mut Scenario) {
    for node in scenario.nodes.clone() {
        scenario.lab.take_events(node);
    }
}

fn route(scenario: &mut Scenario, asker: usize, target: usize) -> RequestId {
    let peer = scenario.guids[target];
    scenario.request(asker, |request| Command::Relay(RelayCommand::Route { request, peer }))
}

/// The number of the player through whom a way was established.
fn established(scenario: &mut Scenario, asker: usize, target: usize) -> usize {
    let request = route(scenario, asker, target);
    match scenario.outcome(asker, request) {
        OwnedEvent::Relay(RelayEvent::RouterEstablished { peer, via, .. }) => {
            assert_eq!(peer, scenario.guids[target]);
            number(scenario, via)
        }
        other => panic!("lab seed {}: {other:?}", scenario.lab.seed()),
    }
}

fn failed(scenario: &mut Scenario, asker: usize, request: RequestId) -> (RouterOutcome, Code) {
    match scenario.outcome(asker, request) {
        OwnedEvent::Relay(RelayEvent::RouterFailed { outcome, reason, .. }) => (outcome, reason.code),
        other => panic!("lab seed {}: {other:?}", scenario.lab.seed()),
    }
}

fn number(scenario: &Scenario, guid: lanline::transport::identity::Guid) -> usize {
    scenario.guids.iter().position(|known| *known == guid).unwrap()
}

/// Through whom a player hears that a way to another one leads now.
fn rerouted(scenario: &mut Scenario, player: usize, other: usize) -> usize {
    let other = scenario.guids[other];
    let event = scenario.expect(
        player,
        "ROUTER_REROUTED",
        |event| matches!(event, OwnedEvent::Relay(RelayEvent::Rerouted { peer, .. }) if *peer == other),
    );
    match event.event {
        OwnedEvent::Relay(RelayEvent::Rerouted { via, .. }) => number(scenario, via),
        _ => unreachable!(),
    }
}

fn connect(scenario: &mut Scenario, asker: usize, target: usize) -> [PathKind; 2] {
    let peer = Some(scenario.guids[target]);
    let address = None;
    scenario.request(asker, |request| Command::ConnectPeer { request, peer, address });
    [(asker, target), (target, asker)].map(|(player, other)| {
        let other = scenario.guids[other];
        let connected = scenario.expect(
            player,
            "CONNECTED",
            |event| matches!(event, OwnedEvent::Connected { peer, .. } if *peer == other),
        );
        match connected.event {
            OwnedEvent::Connected { path, .. } => path,
            _ => unreachable!(),
        }
    })
}

/// The path of a player's connection to another one.
fn path(scenario: &mut Scenario, player: usize, other: usize) -> Option<PathKind> {
    let (node, other) = (scenario.nodes[player], scenario.guids[other]);
    scenario.lab.with_engine(node, |engine: &mut Node, now| {
        engine.expire_view();
        let view = engine.take_view(now).unwrap();
        view.peers.iter().find(|peer| peer.peer == other).map(|peer| peer.path)
    })
}

/// Reliable, ordered messages both ways while something happens: each sends one every 20 ms and keeps count.
struct Traffic {
    sent: u32,
}

impl Traffic {
    fn send(&mut self, scenario: &mut Scenario, count: u32) {
        for _ in 0..count {
            for (from, to) in [(0, 1), (1, 0)] {
                let (node, peer) = (scenario.nodes[from], scenario.guids[to]);
                let data = self.sent.to_be_bytes();
                scenario
                    .lab
                    .send(node, peer, 0, SendMode::ReliableOrdered, &data)
                    .unwrap();
            }
            self.sent += 1;
            scenario.lab.run_for(ms(20));
        }
    }

    /// Each message came once, in its order, and nobody was disconnected. Returns the longest time without one.
    fn arrived(&self, scenario: &mut Scenario) -> Duration {
        scenario.lab.run_for(ms(5_000));
        let seed = scenario.lab.seed();
        let mut longest = Duration::ZERO;
        for player in [0, 1] {
            let other = scenario.guids[1 - player];
            let (mut numbers, mut before) = (Vec::new(), None);
            for recorded in scenario.lab.take_events(scenario.nodes[player]) {
                match recorded.event {
                    OwnedEvent::Message { peer, data, .. } if peer == other => {
                        numbers.push(u32::from_be_bytes(data.try_into().unwrap()));
                        let since = before.replace(recorded.time).unwrap_or(recorded.time);
                        longest = longest.max(recorded.time - since);
                    }
                    OwnedEvent::Disconnected { peer, reason, .. } if peer == other => {
                        panic!("lab seed {seed}: {reason:?}");
                    }
                    _ => {}
                }
            }
            assert_eq!(numbers, (0..self.sent).collect::<Vec<_>>(), "lab seed {seed}");
        }
        longest
    }
}

#[test]
fn two_symmetric_routers_play_through_a_third_player() {
    with_seeds(0..10, |seed| {
        let mut scenario = friends(seed, 1, false);
        let begun = scenario.lab.elapsed();
        assert_eq!(established(&mut scenario, 0, 1), 2);
        let took = scenario.lab.elapsed() - begun;
        // Query, request with offer, proof with the bind frame before it: five round trips of 60 ms at most.
        assert!(took <= ms(6 * 60), "{took:?}");
        assert_eq!(rerouted(&mut scenario, 1, 0), 2);
        // Again: at once, with the new request's id.
        let begun = scenario.lab.elapsed();
        assert_eq!(established(&mut scenario, 0, 1), 2);
        assert_eq!(scenario.lab.elapsed(), begun);
        assert_eq!(connect(&mut scenario, 0, 1), [PathKind::Routed; 2]);
        let mut traffic = Traffic { sent: 0 };
        traffic.send(&mut scenario, 100);
        traffic.arrived(&mut scenario);
        // It is no path that wears out.
        scenario.lab.run_for(ms(180_000));
        assert_eq!(path(&mut scenario, 0, 1), Some(PathKind::Routed));
        traffic.sent = 0;
        traffic.send(&mut scenario, 10);
        traffic.arrived(&mut scenario);
    });
}

#[test]
fn the_target_can_be_the_one_that_connects() {
    let mut scenario = friends(3, 1, false);
    established(&mut scenario, 0, 1);
    rerouted(&mut scenario, 1, 0);
    assert_eq!(connect(&mut scenario, 1, 0), [PathKind::Routed; 2]);
}

#[test]
fn both_may_ask_at_the_same_moment() {
    with_seeds(0..10, |seed| {
        let mut scenario = friends(seed, 2, false);
        let requests = [route(&mut scenario, 0, 1), route(&mut scenario, 1, 0)];
        for (player, request) in requests.into_iter().enumerate() {
            let outcome = scenario.outcome(player, request);
            let success = matches!(outcome, OwnedEvent::Relay(RelayEvent::RouterEstablished { .. }));
            assert!(success, "{outcome:?}");
        }
        scenario.lab.run_for(ms(5_000));
        connect(&mut scenario, 0, 1);
        let mut traffic = Traffic { sent: 0 };
        traffic.send(&mut scenario, 50);
        traffic.arrived(&mut scenario);
    });
}

#[test]
fn a_connection_over_the_relay_moves_to_the_player_that_forwards() {
    let mut scenario = friends(4, 1, true);
    assert_eq!(connect(&mut scenario, 0, 1), [PathKind::Proxied; 2]);
    let mut traffic = Traffic { sent: 0 };
    traffic.send(&mut scenario, 10);
    established(&mut scenario, 0, 1);
    traffic.send(&mut scenario, 50);
    assert_eq!(path(&mut scenario, 0, 1), Some(PathKind::Routed));
    assert_eq!(path(&mut scenario, 1, 0), Some(PathKind::Routed));
    traffic.arrived(&mut scenario);
}

#[test]
fn the_nearest_router_is_chosen() {
    with_seeds(0..4, |seed| {
        let mut scenario = friends(seed, 3, false);
        let near = 2 + seed as usize % 3;
        for router in (2..5).filter(|router| *router != near) {
            let attachment = scenario.lab.attachment(scenario.nodes[router], 0);
            scenario.lab.change_link(attachment, |link| {
                link.up.latency += ms(40);
                link.down.latency += ms(40);
            });
        }
        // Until the round trips are known.
        for _ in 0..20 {
            for router in 2..5 {
                for player in [0, 1] {
                    let (node, peer) = (scenario.nodes[router], scenario.guids[player]);
                    scenario.lab.send(node, peer, 0, SendMode::Reliable, b"tick").unwrap();
                    let (node, peer) = (scenario.nodes[player], scenario.guids[router]);
                    scenario.lab.send(node, peer, 0, SendMode::Reliable, b"tock").unwrap();
                }
            }
            scenario.lab.run_for(ms(300));
        }
        assert_eq!(established(&mut scenario, 0, 1), near);
    });
}

#[test]
fn a_router_that_has_a_pair_already_counts_as_twice_as_far() {
    with_seeds(0..6, |seed| {
        let mut scenario = Scenario::builder(seed)
            .nodes(4, SYMMETRIC)
            .nodes(2, RouterKind::Open)
            .configure_nodes(|player, config| config.router_max = if player >= 4 { PAIRS } else { 0 })
            .configure_server(|config| config.relay = lanline::server::RelayConfig::Off)
            .build();
        scenario.connect_all();
        for (player, router) in (0..4).flat_map(|player| [(player, 4), (player, 5)]) {
            scenario.connect_pair(player, router);
        }
        scenario.lab.run_for(ms(3_000));
        forget(&mut scenario);
        let first = established(&mut scenario, 0, 1);
        assert_eq!(established(&mut scenario, 2, 3), 9 - first);
    });
}

#[test]
fn the_next_router_is_tried_when_the_first_fails() {
    with_seeds(0..6, |seed| {
        // One round trip after the call everybody has said that it would; then the first choice falls silent.
        let mut scenario = friends(seed, 2, false);
        let first = established(&mut scenario, 0, 1);
        let mut scenario = friends(seed, 2, false);
        let request = route(&mut scenario, 0, 1);
        scenario.lab.run_for(ms(70));
        scenario.lab.crash(scenario.nodes[first]);
        match scenario.outcome(0, request) {
            OwnedEvent::Relay(RelayEvent::RouterEstablished { via, .. }) => {
                assert_eq!(number(&scenario, via), 5 - first);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(rerouted(&mut scenario, 1, 0), 5 - first);
    });
}

#[test]
fn who_is_silent_is_not_waited_for_long() {
    let mut scenario = friends(5, 2, false);
    scenario.lab.crash(scenario.nodes[2]);
    let begun = scenario.lab.elapsed();
    assert_eq!(established(&mut scenario, 0, 1), 3);
    let took = scenario.lab.elapsed() - begun;
    assert!(took <= ms(1_000), "{took:?}");
}

/// How a router goes.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Crash,
    ShutDown,
    Disconnects(usize),
}

fn leave(scenario: &mut Scenario, router: usize, how: Leaving) {
    let node = scenario.nodes[router];
    match how {
        Leaving::Crash => scenario.lab.crash(node),
        Leaving::ShutDown => {
            scenario
                .lab
                .with_engine(node, |engine: &mut Node, now| engine.shut_down(now));
            scenario.lab.run_for(ms(600));
            scenario.lab.crash(node);
        }
        Leaving::Disconnects(player) => {
            let peer = scenario.guids[player];
            let (user_code, text) = (0, String::new());
            scenario
                .lab
                .command(node, Command::Disconnect { peer, user_code, text });
        }
    }
}

#[test]
fn when_the_router_leaves_another_takes_over_and_nothing_is_lost() {
    let ways = [
        Leaving::Crash,
        Leaving::ShutDown,
        Leaving::Disconnects(0),
        Leaving::Disconnects(1),
    ];
    with_seeds(0..8, |seed| {
        let how = ways[seed as usize % ways.len()];
        let mut scenario = friends(seed, 2, false);
        let first = established(&mut scenario, 0, 1);
        rerouted(&mut scenario, 1, 0);
        connect(&mut scenario, 0, 1);
        let mut traffic = Traffic { sent: 0 };
        traffic.send(&mut scenario, 50);
        leave(&mut scenario, first, how);
        traffic.send(&mut scenario, 150);
        assert_eq!(rerouted(&mut scenario, 0, 1), 5 - first, "{how:?}");
        assert_eq!(rerouted(&mut scenario, 1, 0), 5 - first, "{how:?}");
        let silence = traffic.arrived(&mut scenario);
        // One that says so is replaced within a search; one that is silent is doubted first.
        let bound = if matches!(how, Leaving::Crash) { 2_500 } else { 1_500 };
        assert!(silence <= ms(bound), "{how:?}: {silence:?}");
        assert_eq!(path(&mut scenario, 0, 1), Some(PathKind::Routed));
    });
}

#[test]
fn when_the_last_router_leaves_the_servers_relay_takes_over() {
    with_seeds(0..6, |seed| {
        let how = [Leaving::Crash, Leaving::ShutDown, Leaving::Disconnects(0)][seed as usize % 3];
        let mut scenario = friends(seed, 1, true);
        established(&mut scenario, 0, 1);
        assert_eq!(connect(&mut scenario, 0, 1), [PathKind::Routed; 2]);
        let mut traffic = Traffic { sent: 0 };
        traffic.send(&mut scenario, 50);
        leave(&mut scenario, 2, how);
        traffic.send(&mut scenario, 200);
        let silence = traffic.arrived(&mut scenario);
        assert!(silence <= ms(1_500), "{how:?}: {silence:?}");
        assert_eq!(path(&mut scenario, 0, 1), Some(PathKind::Proxied), "{how:?}");
        assert_eq!(path(&mut scenario, 1, 0), Some(PathKind::Proxied), "{how:?}");
    });
}

/// The server's attempt between the two is still running, so that it introduces nobody anew; and whoever has nothing unanswered yet hears the other
/// one over the proxy before it could doubt its own way.
#[test]
fn who_notices_late_that_the_router_is_gone_follows_the_other_one() {
    with_seeds(0..6, |seed| {
        let mut scenario = friends(seed, 1, true);
        connect(&mut scenario, 0, 1);
        established(&mut scenario, 0, 1);
        let mut traffic = Traffic { sent: 0 };
        traffic.send(&mut scenario, 50);
        assert_eq!(path(&mut scenario, 1, 0), Some(PathKind::Routed));
        scenario.lab.run_for(ms(100));
        forget(&mut scenario);
        leave(&mut scenario, 2, Leaving::Crash);
        let (first, second) = ((0, 1), (1, 0));
        let crashed = scenario.lab.elapsed();
        let (mut sent, mut heard) = (0_u32, Vec::new());
        for tick in 0..400 {
            let mut senders = vec![first];
            // Late enough to be answered for by what comes over the proxy.
            if tick >= 25 {
                senders.push(second);
                sent += 1;
            }
            for (from, to) in senders {
                let (node, peer) = (scenario.nodes[from], scenario.guids[to]);
                let mode = SendMode::ReliableOrdered;
                scenario.lab.send(node, peer, 0, mode, &sent.to_be_bytes()).unwrap();
            }
            scenario.lab.run_for(ms(20));
            let events = scenario.lab.take_events(scenario.nodes[0]);
            let message = |event: &OwnedEvent| matches!(event, OwnedEvent::Message { .. });
            heard.extend(events.into_iter().filter(|recorded| message(&recorded.event)));
        }
        assert_eq!(path(&mut scenario, 1, 0), Some(PathKind::Proxied));
        let first_heard = heard.first().expect("the late one is heard again").time - crashed;
        // Three seconds are what two sides are given to agree on a path that has just changed.
        assert!(first_heard <= ms(3_500), "{first_heard:?}");
        assert!(heard.len() as u32 >= sent - 10, "{} of {sent}", heard.len());
    });
}

#[test]
fn where_the_server_has_a_relay_the_next_router_takes_over_all_the_same() {
    with_seeds(0..6, |seed| {
        let how = [Leaving::Crash, Leaving::ShutDown, Leaving::Disconnects(1)][seed as usize % 3];
        let mut scenario = friends(seed, 2, true);
        let first = established(&mut scenario, 0, 1);
        assert_eq!(connect(&mut scenario, 0, 1), [PathKind::Routed; 2]);
        let mut traffic = Traffic { sent: 0 };
        traffic.send(&mut scenario, 50);
        leave(&mut scenario, first, how);
        traffic.send(&mut scenario, 200);
        let silence = traffic.arrived(&mut scenario);
        assert!(silence <= ms(1_500), "{how:?}: {silence:?}");
        assert_eq!(path(&mut scenario, 0, 1), Some(PathKind::Routed), "{how:?}");
        assert_eq!(path(&mut scenario, 1, 0), Some(PathKind::Routed), "{how:?}");
    });
}

#[test]
fn nobody_to_ask_or_nobody_willing_is_no_path() {
    // Nobody is connected: said at once.
    let mut scenario = strangers(1, 1, false, |_, _| {});
    let request = route(&mut scenario, 0, 1);
    let begun = scenario.lab.elapsed();
    assert_eq!(
        failed(&mut scenario, 0, request),
        (RouterOutcome::NoPath, Code::NoDirectPath)
    );
    assert_eq!(scenario.lab.elapsed(), begun);
    // One is, but not to the target.
    scenario.connect_pair(0, 2);
    let request = route(&mut scenario, 0, 1);
    assert_eq!(failed(&mut scenario, 0, request).0, RouterOutcome::NoPath);
    // The only connected player is the target.
    let request = route(&mut scenario, 0, 2);
    assert_eq!(failed(&mut scenario, 0, request).0, RouterOutcome::NoPath);
    // Forwarding is off.
    let mut scenario = friends_with(1, 1, false, |_, config| config.router_max = 0);
    let request = route(&mut scenario, 0, 1);
    assert_eq!(failed(&mut scenario, 0, request).0, RouterOutcome::NoPath);
    // Whoever is reached over a forwarder only is not asked.
    let mut scenario = strangers(1, 1, true, |player, config| {
        if player == 1 {
            config.router_max = 4;
        }
    });
    scenario.connect_pair(0, 1);
    scenario.connect_pair(1, 2);
    scenario.lab.run_for(ms(3_000));
    assert_eq!(path(&mut scenario, 0, 1), Some(PathKind::Proxied));
    let request = route(&mut scenario, 0, 2);
    assert_eq!(failed(&mut scenario, 0, request).0, RouterOutcome::NoPath);
}

#[test]
fn a_router_that_is_full_is_not_asked_for_more() {
    let mut scenario = Scenario::builder(2)
        .nodes(3, SYMMETRIC)
        .node(RouterKind::Open)
        .configure_nodes(|_, config| config.router_max = 1)
        .configure_server(|config| config.relay = lanline::server::RelayConfig::Off)
        .build();
    scenario.connect_all();
    for player in 0..3 {
        scenario.connect_pair(player, 3);
    }
    scenario.lab.run_for(ms(3_000));
    assert_eq!(established(&mut scenario, 0, 1), 3);
    let request = route(&mut scenario, 0, 2);
    assert_eq!(failed(&mut scenario, 0, request).0, RouterOutcome::NoPath);
    // The pair that stands is as whole as before, and makes room when it is needed no more.
    assert_eq!(connect(&mut scenario, 0, 1), [PathKind::Routed; 2]);
    let (peer, user_code, text) = (scenario.guids[1], 0, String::new());
    scenario
        .lab
        .command(scenario.nodes[0], Command::Disconnect { peer, user_code, text });
    scenario.lab.run_for(ms(30_000));
    assert_eq!(established(&mut scenario, 0, 2), 3);
}

#[test]
fn policies_and_consent_are_kept() {
    for policy in [RelayPolicy::Never, RelayPolicy::Only] {
        // At the asker, whoever is connected.
        let mut scenario = strangers(1, 1, true, move |player, config| {
            if player == 0 {
                config.relay_policy = policy;
            }
        });
        let request = route(&mut scenario, 0, 1);
        assert_eq!(failed(&mut scenario, 0, request), (RouterOutcome::Failed, Code::Policy));
    }
    // At the target.
    let mut scenario = friends_with(1, 1, false, |player, config| {
        if player == 1 {
            config.relay_policy = RelayPolicy::Never;
        }
    });
    let request = route(&mut scenario, 0, 1);
    assert_eq!(failed(&mut scenario, 0, request), (RouterOutcome::Failed, Code::Policy));
    let mut scenario = friends_with(1, 1, false, |player, config| {
        if player == 1 {
            config.accept_from = Consent::Session;
        }
    });
    let request = route(&mut scenario, 0, 1);
    assert_eq!(
        failed(&mut scenario, 0, request),
        (RouterOutcome::Failed, Code::Refused)
    );
    assert!(scenario.lab.events(scenario.nodes[1]).is_empty());
}

#[test]
fn a_cancelled_request_ends_once_and_leaves_nothing() {
    for after in [0, 30, 65, 100, 140, 200] {
        let mut scenario = friends(6, 1, false);
        let request = route(&mut scenario, 0, 1);
        let other = route(&mut scenario, 0, 1);
        scenario.lab.run_for(ms(after));
        scenario.lab.command(scenario.nodes[0], Command::Cancel { request });
        assert_eq!(
            failed(&mut scenario, 0, request),
            (RouterOutcome::Failed, Code::Cancelled)
        );
        scenario
            .lab
            .command(scenario.nodes[0], Command::Cancel { request: other });
        assert_eq!(
            failed(&mut scenario, 0, other),
            (RouterOutcome::Failed, Code::Cancelled)
        );
        scenario.lab.run_for(ms(10_000));
        assert!(scenario.lab.events(scenario.nodes[0]).is_empty(), "{after}");
        assert!(scenario.lab.events(scenario.nodes[1]).is_empty(), "{after}");
        assert_eq!(established(&mut scenario, 0, 1), 2);
    }
}

#[test]
fn a_router_gives_a_pair_no_more_than_its_budget() {
    let mut scenario = friends(7, 1, false);
    established(&mut scenario, 0, 1);
    connect(&mut scenario, 0, 1);
    let before = scenario.lab.counters(scenario.nodes[2]);
    let (node, peer) = (scenario.nodes[0], scenario.guids[1]);
    let seconds = 20;
    for _ in 0..seconds * 100 {
        // 800 kB a second are wished for.
        for _ in 0..8 {
            let _ = scenario.lab.send(node, peer, 0, SendMode::Unreliable, &[0; 1_000]);
        }
        scenario.lab.run_for(ms(10));
    }
    let after = scenario.lab.counters(scenario.nodes[2]);
    let sent = after.bytes_sent - before.bytes_sent;
    // 128 KiB a second, saved up for two seconds, and a tenth for the way back and the headers.
    let allowed = (seconds + 2) * (128 << 10) * 11 / 10;
    assert!(sent <= allowed, "{sent} of {allowed}");
    assert!(sent >= allowed / 4, "{sent} of {allowed}");
    // What follows when the game is reasonable again arrives.
    scenario.lab.run_for(ms(5_000));
    forget(&mut scenario);
    let mut traffic = Traffic { sent: 0 };
    traffic.send(&mut scenario, 20);
    traffic.arrived(&mut scenario);
}
