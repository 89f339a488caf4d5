//! Players who forward for others.

use crate::conversation::Pair;
use crate::network::{Network, Router};
use crate::players::{self, Player, Server, Transcript};
use crate::relay::{TIMEOUT, homes, pair};

const SOME_FRAMES: usize = 30;
/// What a player must be told to forward for others.
const FORWARDS: &str = "router_max=4";
const ROUTE_OUTCOMES: [&str; 3] = [
    "ROUTER_FORWARDING_ESTABLISHED",
    "ROUTER_FORWARDING_NO_PATH",
    "ROUTER_FORWARDING_FAILED",
];

/// A player with a public address that forwards, connected to both of the pair.
fn router(pair: &mut Pair, network: &mut Network, name: &str, settings: &[&str]) -> Player {
    let host = network.hosts(name, Router::Open, 1).remove(0);
    let settings = [&[TIMEOUT], settings].concat();
    let mut router = Player::start_with(pair.test, &pair.transcript, network, name, &host, &settings);
    let guid = router.guid.clone();
    for player in &mut pair.players {
        player.command(&format!("connect_peer peer={guid}"));
        player.event("CONNECTED", Some(&guid));
        router.event("CONNECTED", Some(&player.guid));
        player.stats_become(&guid, "direct", |stats| stats["path"] == "direct");
        router.stats_become(&player.guid, "direct", |stats| stats["path"] == "direct");
    }
    router
}

/// The first asks for a route to the second: the router that was found.
fn route(pair: &mut Pair) -> String {
    let guids = [pair.guid(0), pair.guid(1)];
    let asked = pair.players[0].command(&format!("route peer={}", guids[1]))["request"].clone();
    let established = pair.players[0].answer(&ROUTE_OUTCOMES, &asked);
    if established["event"] != "ROUTER_FORWARDING_ESTABLISHED" || established["peer"] != *guids[1] {
        pair.fail(&format!("route: {established}"));
    }
    let told = pair.players[1].event("ROUTER_REROUTED", Some(&guids[0]));
    if told["via"] != established["via"] {
        pair.fail(&format!("two routers: {established}, {told}"));
    }
    established["via"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn players_are_routed_where_there_is_no_other_way_and_rerouted_when_the_router_leaves() {
    let test = "players_are_routed_where_there_is_no_other_way_and_rerouted_when_the_router_leaves";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let _server = Server::start_with(test, &transcript, &network, &["--relay", "off"]);
    let mut pair = pair(test, &transcript, &network, &hosts);
    let guids = [pair.guid(0), pair.guid(1)];
    // Connected to both, and not willing.
    let unwilling = router(&mut pair, &mut network, "unwilling", &[]);
    let asked = pair.players[0].command(&format!("route peer={}", guids[1]))["request"].clone();
    let outcome = pair.players[0].answer(&ROUTE_OUTCOMES, &asked);
    if outcome["event"] != "ROUTER_FORWARDING_NO_PATH" {
        pair.fail(&format!("nobody forwards: {outcome}"));
    }
    let mut routers = ["first", "second"].map(|name| Some(router(&mut pair, &mut network, name, &[FORWARDS])));
    let via = route(&mut pair);
    if via == unwilling.guid {
        pair.fail("a player forwards that was not asked to");
    }
    for event in pair.connect_by("routed") {
        let address = event["address"].as_str().unwrap_or_default().to_owned();
        if !address.starts_with("45.60.1.") {
            pair.fail(&format!("the router's address was expected: {event}"));
        }
    }
    pair.all_modes();
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
    let at = routers
        .iter()
        .position(|router| router.as_ref().is_some_and(|router| router.guid == via));
    let leaves = at.and_then(|at| routers[at].take()).expect("one of the two forwards");
    leaves.quit();
    let next = routers.iter().flatten().next().expect("the other one").guid.clone();
    pair.talk_until("both are told of the other router", |pair| {
        let told = |player: &mut Player| {
            player
                .has_heard("ROUTER_REROUTED")
                .is_some_and(|event| event["via"] == *next)
        };
        pair.players.iter_mut().all(told)
    });
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
    for player in 0..2 {
        let stats = pair.stats(player);
        if stats["path"] != "routed" {
            pair.fail(&format!("after the first router left: {stats}"));
        }
    }
}

#[test]
fn a_routed_pair_falls_back_to_the_proxy_when_its_router_dies() {
    let test = "a_routed_pair_falls_back_to_the_proxy_when_its_router_dies";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    pair.connect_by("proxied");
    pair.ticks(SOME_FRAMES);
    let forwards = router(&mut pair, &mut network, "forwards", &[FORWARDS]);
    if route(&mut pair) != forwards.guid {
        pair.fail("somebody else forwards");
    }
    // Better than the proxy.
    pair.talk_until_path("routed");
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
    forwards.kill();
    pair.talk_until_path("proxied");
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
    for player in 0..2 {
        let changes = pair.changes(player);
        let ways: Vec<&str> = changes.iter().filter_map(|change| change["to"].as_str()).collect();
        if !ways.contains(&"routed") || ways.last() != Some(&"proxied") {
            pair.fail(&format!(
                "player {player} was to hear of routed, then of proxied: {ways:?}"
            ));
        }
    }
}
