//! Pairs that a relay carries, for good or until the direct way is open.

use std::net::IpAddr;

use crate::NAT_OUTCOMES;
use crate::conversation::Pair;
use crate::network::{Network, Router};
use crate::players::{self, PORT, Player, Server, Transcript};

/// A game's frames, some seconds of them.
const FRAMES: usize = 100;
/// Shorter than the tests' patience, and long enough for whatever a busy machine needs to find another way.
pub const TIMEOUT: &str = "timeout_ms=12000";

/// Two homes with a host each.
pub fn homes(network: &mut Network, kinds: [Router; 2]) -> [String; 2] {
    let [one, other] = kinds;
    [
        network.hosts("one", one, 1).remove(0),
        network.hosts("other", other, 1).remove(0),
    ]
}

/// The players in two namespaces, with the same settings, at the server.
pub fn pair(test: &'static str, transcript: &Transcript, network: &Network, hosts: &[String; 2]) -> Pair {
    pair_with(test, transcript, network, hosts, [&[], &[]])
}

pub fn pair_with(
    test: &'static str,
    transcript: &Transcript,
    network: &Network,
    hosts: &[String; 2],
    settings: [&[&str]; 2],
) -> Pair {
    let start = |name, place: usize| {
        let settings = [&[TIMEOUT], settings[place]].concat();
        Player::start_with(test, transcript, network, name, &hosts[place], &settings)
    };
    Pair::new(test, transcript, [start("one", 0), start("other", 1)])
}

#[test]
fn two_symmetric_routers_play_over_the_relay() {
    let test = "two_symmetric_routers_play_over_the_relay";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    let relay = format!("{}:{PORT}", network.server_address());
    for event in pair.connect_by("proxied") {
        if event["address"] != *relay {
            pair.fail(&format!("the relay is at {relay}: {event}"));
        }
    }
    pair.all_modes();
    pair.ticks(FRAMES);
    pair.catch_up();
    for player in 0..2 {
        let (stats, changes) = (pair.stats(player), pair.changes(player));
        if stats["path"] != "proxied" || !changes.is_empty() {
            pair.fail(&format!("it did not stay on the relay: {stats}, {changes:?}"));
        }
    }
}

/// While messages flow, and whether or not the direct way was proven before the first of them.
#[test]
fn a_pair_moves_from_the_relay_to_the_direct_way() {
    let test = "a_pair_moves_from_the_relay_to_the_direct_way";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::PortRestricted; 2]);
    let addresses = [1, 2].map(|number| network.public_address(number));
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    // Without the direct way it is the relay for certain.
    network.cut("one", addresses[1]);
    pair.connect_by("proxied");
    pair.ticks(10);
    network.mend("one");
    pair.talk_until_path("direct");
    pair.ticks(20);
    pair.catch_up();
    for player in 0..2 {
        let changes = pair.changes(player);
        let direct = format!("{}:", addresses[1 - player]);
        let fits = changes.iter().any(|change| {
            change["from"] == "proxied"
                && change["to"] == "direct"
                && change["address"]
                    .as_str()
                    .is_some_and(|address| address.starts_with(&direct))
        });
        if !fits {
            pair.fail(&format!("no change from proxied to direct at {direct}: {changes:?}"));
        }
    }
}

/// The usual case: the direct way opens while the relay carries the first packets.
#[test]
fn ordinary_pairs_become_direct_at_once() {
    let test = "ordinary_pairs_become_direct_at_once";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let kinds = [
        Router::PortRestricted,
        Router::PortRestricted,
        Router::Symmetric,
        Router::AddressRestricted,
        Router::Carrier,
        Router::Open,
    ];
    let mut labels = 'a'..;
    let hosts = kinds.map(|kind| {
        let label = labels.next().expect("few");
        network.hosts(&label.to_string(), kind, 1).remove(0)
    });
    let _server = Server::start(test, &transcript, &network);
    for (number, hosts) in hosts.chunks_exact(2).enumerate() {
        let hosts = [hosts[0].clone(), hosts[1].clone()];
        let mut pair = pair(test, &transcript, &network, &hosts);
        let connected = pair.connect();
        pair.talk_until_path("direct");
        pair.catch_up();
        for (player, connected) in connected.iter().enumerate() {
            // Whoever began on the relay is told of the change, once.
            let changes = pair.changes(player);
            let changed = changes.iter().filter(|change| change["from"] == "proxied").count();
            if changed != usize::from(connected["path"] == "proxied") {
                pair.fail(&format!("pair {number}: {connected}, then {changes:?}"));
            }
        }
    }
}

/// What a player may not learn, and where its packets may not go.
struct Secret {
    addresses: Vec<IpAddr>,
}

impl Secret {
    /// Whether a line names one of them: the digits before and after do not belong to it.
    fn is_in(&self, line: &str) -> bool {
        let alone = |text: &str| !text.starts_with(|next: char| next.is_ascii_digit());
        self.addresses.iter().any(|address| {
            let address = address.to_string();
            line.match_indices(&address).any(|(at, _)| {
                alone(&line[at + address.len()..]) && !line[..at].ends_with(|last: char| last.is_ascii_digit())
            })
        })
    }
}

/// These two would connect directly; one of them does not want to be known.
#[test]
fn players_who_hide_never_meet_each_others_address() {
    let test = "players_who_hide_never_meet_each_others_address";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let one = network.hosts("one", Router::PortRestricted, 1).remove(0);
    // The second host of its home: its inside address is not the one of the other player.
    let other = network.hosts("other", Router::PortRestricted, 2).remove(1);
    let inside = ["192.168.1.2", "192.168.1.3"].map(|address| address.parse::<IpAddr>().expect("an address"));
    let secrets = [1, 0].map(|whose: usize| Secret {
        addresses: vec![
            network.public_address(u32::try_from(whose).expect("few") + 1),
            inside[whose],
        ],
    });
    let namespaces = [
        [one.clone(), network.router_namespace("one")],
        [other.clone(), network.router_namespace("other")],
    ];
    for (secret, namespaces) in secrets.iter().zip(&namespaces) {
        for namespace in namespaces {
            network.watch(namespace, &secret.addresses);
        }
    }
    // What the watch sees where there is something.
    let control = network.server_namespace();
    network.watch(&control, &[network.public_address(1), network.public_address(2)]);
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair_with(test, &transcript, &network, &[one, other], [&["relay=only"], &[]]);
    let guids = [pair.guid(0), pair.guid(1)];
    for player in 0..2 {
        let peer = &guids[1 - player];
        pair.players[player].command(&format!("open_nat peer={peer}"));
        let outcome = pair.players[player].any_event(&NAT_OUTCOMES, peer);
        if outcome["event"] != "NAT_PUNCHTHROUGH_FAILED" || outcome["name"] != "POLICY" {
            pair.fail(&format!("a direct way was asked for: {outcome}"));
        }
    }
    pair.connect_by("proxied");
    pair.all_modes();
    pair.ticks(FRAMES);
    // And by the one that does not hide, after a farewell.
    pair.players[0].command(&format!("disconnect peer={}", guids[1]));
    pair.players[1].event("DISCONNECTED", Some(&guids[0]));
    pair.players[1].command(&format!("connect_peer peer={}", guids[0]));
    let connected = pair.players[1].any_event(&["CONNECTED", "CONNECTION_FAILED"], &guids[0]);
    if connected["path"] != "proxied" {
        pair.fail(&format!("the other way round: {connected}"));
    }
    if network.seen(&control) == 0 {
        pair.fail("the watch sees nothing at all");
    }
    for (player, namespaces) in namespaces.iter().enumerate() {
        for namespace in namespaces {
            let seen = network.seen(namespace);
            if seen != 0 {
                pair.fail(&format!(
                    "{namespace}: {seen} packets to or from the other player's addresses"
                ));
            }
        }
        let secret = &secrets[player];
        if let Some(line) = transcript.has_said(["one", "other"][player], |line| secret.is_in(line)) {
            pair.fail(&format!("player {player} was told where the other one is: {line}"));
        }
    }
}

#[test]
fn without_relays_a_pair_fails_with_both_routers_named() {
    let test = "without_relays_a_pair_fails_with_both_routers_named";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let third = network.hosts("third", Router::Open, 1).remove(0);
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair_with(test, &transcript, &network, &hosts, [&["relay=never"], &[]]);
    let mut hides = Player::start_with(test, &transcript, &network, "hides", &third, &["relay=only"]);
    for player in &mut pair.players {
        player.command("detect_nat");
        player.event("NAT_TYPE", None);
    }
    let (other, hidden) = (pair.guid(1), hides.guid.clone());
    pair.players[0].command(&format!("connect_peer peer={other}"));
    let failed = pair.players[0].any_event(&["CONNECTED", "CONNECTION_FAILED"], &other);
    let text = failed["text"].as_str().unwrap_or_default();
    if failed["name"] != "NO_DIRECT_PATH" || text.matches("random").count() != 2 {
        pair.fail(&format!(
            "a failure that names both sides' random ports was expected: {failed}"
        ));
    }
    // One wants no relay, the other nothing else.
    let one = pair.guid(0);
    for (asks, peer) in [(&mut pair.players[0], &hidden), (&mut hides, &one)] {
        asks.command(&format!("connect_peer peer={peer}"));
        let failed = asks.any_event(&["CONNECTED", "CONNECTION_FAILED"], peer);
        if failed["name"] != "POLICY" {
            transcript.fail(test, &format!("opposite policies cannot meet: {failed}"));
        }
    }
}

#[test]
fn a_proxy_is_asked_for_step_by_step() {
    let test = "a_proxy_is_asked_for_step_by_step";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    let relay = format!("{}:{PORT}", network.server_address());
    let guids = [pair.guid(0), pair.guid(1)];
    let asked = pair.players[0].command(&format!("proxy peer={} idle_ms=60000", guids[1]))["request"].clone();
    let found = pair.players[0].answer(&["PROXY_FORWARDING_SUCCEEDED", "PROXY_NO_SERVERS_ONLINE"], &asked);
    let told = pair.players[1].event("PROXY_FORWARDING_NOTIFICATION", Some(&guids[0]));
    for end in [&found, &told] {
        if end["address"] != *relay || end["path"] != "proxied" {
            pair.fail(&format!("the proxy is at {relay}: {end}"));
        }
    }
    let asked = pair.players[0].command("proxy peer=4711")["request"].clone();
    pair.players[0].answer(&["PROXY_RECIPIENT_NOT_CONNECTED"], &asked);
    pair.connect_by("proxied");
    pair.all_modes();
}

#[test]
fn a_server_without_a_relay_says_so() {
    let test = "a_server_without_a_relay_says_so";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let _server = Server::start_with(test, &transcript, &network, &["--relay", "off"]);
    let mut pair = pair(test, &transcript, &network, &hosts);
    let other = pair.guid(1);
    let asked = pair.players[0].command(&format!("proxy peer={other}"))["request"].clone();
    pair.players[0].answer(&["PROXY_NO_SERVERS_ONLINE"], &asked);
    pair.players[0].command(&format!("connect_peer peer={other}"));
    let failed = pair.players[0].any_event(&["CONNECTED", "CONNECTION_FAILED"], &other);
    if failed["name"] != "NO_DIRECT_PATH" {
        pair.fail(&format!("neither a direct way nor a relay: {failed}"));
    }
}

/// A whole game over the relay, and its host dies.
#[test]
fn three_players_behind_symmetric_routers_form_a_mesh() {
    let test = "three_players_behind_symmetric_routers_form_a_mesh";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let homes = ["a", "b", "c"].map(|label| (label, network.hosts(label, Router::Symmetric, 1).remove(0)));
    let _server = Server::start(test, &transcript, &network);
    let start = |(label, host): &(&str, String)| Player::start(test, &transcript, &network, label, host);
    let mut players: Vec<Player> = homes.iter().map(start).collect();
    players[0].command("reset_host_calculation");
    for joiner in 1..players.len() {
        crate::join(&mut players, joiner);
    }
    crate::chat(&mut players, "hello from");
    let host = players.remove(0);
    let (old, next) = (host.guid.clone(), players[0].guid.clone());
    host.kill();
    for player in &mut players {
        player.event("DISCONNECTED", Some(&old));
        player.event("NEW_HOST", Some(&next));
    }
    crate::chat(&mut players, "still here");
}

/// Nothing but the relay has both families.
#[test]
fn an_ipv6_player_meets_an_ipv4_player_over_the_relay() {
    let test = "an_ipv6_player_meets_an_ipv4_player_over_the_relay";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::PortRestricted; 2]);
    network.add_ipv6(&[("one", &hosts[0])]);
    network.remove_ipv4(&hosts[0]);
    let _server = Server::start_on(test, &transcript, &network, &[]);
    let mut one = Player::start_alone(test, &transcript, "one", &hosts[0], &[TIMEOUT]);
    one.command(&format!("connect server=[{}]:{PORT}", Network::SERVER_IPV6));
    one.event("SERVER_CONNECTED", None);
    let other = Player::start_with(test, &transcript, &network, "other", &hosts[1], &[TIMEOUT]);
    let mut pair = Pair::new(test, &transcript, [one, other]);
    let connected = pair.connect_by("proxied");
    for (event, begins) in connected.iter().zip(["[2a0b:", "45.60."]) {
        if !event["address"]
            .as_str()
            .is_some_and(|address| address.starts_with(begins))
        {
            pair.fail(&format!(
                "the relay's address was expected to begin with {begins}: {event}"
            ));
        }
    }
    pair.all_modes();
    pair.ticks(FRAMES / 2);
    pair.catch_up();
}
