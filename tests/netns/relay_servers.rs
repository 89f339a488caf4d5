//! Proxies on other machines, and servers that are reached over TLS.

use std::net::IpAddr;

use crate::conversation::Pair;
use crate::network::{Network, Router};
use crate::players::{self, PORT, Player, Server, Transcript};
use crate::relay::{TIMEOUT, homes, pair};

const SOME_FRAMES: usize = 30;
/// What proxies must know.
const PASSWORD: [&str; 2] = ["--password", "open sesame"];
/// Where a server takes those without UDP.
const TLS_PORT: &str = "443";

/// A proxy in a namespace of its own, and its address.
fn proxy(test: &'static str, transcript: &Transcript, network: &mut Network, name: &str) -> (String, Server) {
    let (namespace, address) = open_host(network, name);
    let join = format!("{}:{PORT}", network.server_address());
    let flags = [&["--relay-only", "--join", &join, "--listen", &address], &PASSWORD[..]].concat();
    let server = Server::start_in(test, transcript, name, &namespace, &flags);
    (format!("{address}:{PORT}"), server)
}

fn open_host(network: &mut Network, name: &str) -> (String, String) {
    let namespace = network.hosts(name, Router::Open, 1).remove(0);
    let address = network.newest_public_address().to_string();
    (namespace, address)
}

/// Until the server offers proxies: they join while players come.
fn proxies_are_there(pair: &mut Pair) {
    let peer = pair.guid(1);
    let fits = [
        "PROXY_FORWARDING_SUCCEEDED",
        "PROXY_NO_SERVERS_ONLINE",
        "PROXY_ALL_SERVERS_BUSY",
    ];
    let mut there = false;
    for _ in 0..200 {
        let asked = pair.players[0].command(&format!("proxy peer={peer}"))["request"].clone();
        there = pair.players[0].answer(&fits, &asked)["event"] == "PROXY_FORWARDING_SUCCEEDED";
        if there {
            break;
        }
        pair.players[0].command("sleep ms=100");
    }
    if !there {
        pair.fail("no proxy comes online");
    }
}

#[test]
fn a_pair_moves_to_another_proxy_when_its_own_dies() {
    let test = "a_pair_moves_to_another_proxy_when_its_own_dies";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let flags = [&["--relay", "off"], &PASSWORD[..]].concat();
    let _server = Server::start_with(test, &transcript, &network, &flags);
    let mut proxies = ["proxy-a", "proxy-b"].map(|name| proxy(test, &transcript, &mut network, name));
    let mut pair = pair(test, &transcript, &network, &hosts);
    proxies_are_there(&mut pair);
    let [connected, passive] = pair.connect_by("proxied");
    let first = connected["address"].clone();
    let place = proxies.iter().position(|(address, _)| first == **address);
    let (Some(place), true) = (place, passive["address"] == first) else {
        pair.fail(&format!("both at one of the proxies: {connected}, {passive}"));
    };
    pair.all_modes();
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
    proxies[place].1.end("-KILL");
    let next = proxies[1 - place].0.clone();
    pair.talk_until("both are at the other proxy", |pair| {
        (0..2).all(|player| pair.stats(player)["address"] == *next)
    });
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
    // It comes back, and the other one goes: over and over.
    proxies[place].1.start_again();
    proxies_are_there(&mut pair);
    proxies[1 - place].1.end("-TERM");
    let back = proxies[place].0.clone();
    pair.talk_until("both are at the first proxy again", |pair| {
        (0..2).all(|player| pair.stats(player)["address"] == *back)
    });
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
}

/// One that neither player's packets get to is there for nobody.
#[test]
fn a_proxy_that_a_player_cannot_reach_is_left_for_the_next() {
    let test = "a_proxy_that_a_player_cannot_reach_is_left_for_the_next";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let flags = [&["--relay", "off"], &PASSWORD[..]].concat();
    let _server = Server::start_with(test, &transcript, &network, &flags);
    let proxies = ["proxy-a", "proxy-b"].map(|name| proxy(test, &transcript, &mut network, name));
    let ip: IpAddr = proxies[0]
        .0
        .split(':')
        .next()
        .and_then(|ip| ip.parse().ok())
        .expect("an address");
    network.cut("other", ip);
    let mut pair = pair(test, &transcript, &network, &hosts);
    proxies_are_there(&mut pair);
    pair.connect_by("proxied");
    pair.all_modes();
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
    for player in 0..2 {
        let stats = pair.stats(player);
        if stats["address"] != *proxies[1].0 {
            pair.fail(&format!("the only one that both reach is {}: {stats}", proxies[1].0));
        }
    }
}

#[test]
fn a_proxy_with_a_wrong_password_is_not_taken() {
    let test = "a_proxy_with_a_wrong_password_is_not_taken";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let flags = [&["--relay", "off"], &PASSWORD[..]].concat();
    let _server = Server::start_with(test, &transcript, &network, &flags);
    let (namespace, address) = open_host(&mut network, "stranger");
    let join = format!("{}:{PORT}", network.server_address());
    let flags = [
        "--relay-only",
        "--join",
        &join,
        "--listen",
        &address,
        "--password",
        "open barley",
    ];
    let _stranger = Server::start_in(test, &transcript, "stranger", &namespace, &flags);
    transcript.wait_for(test, "stranger (stderr)", |line| line.contains("password"));
    let mut pair = pair(test, &transcript, &network, &hosts);
    let peer = pair.guid(1);
    let asked = pair.players[0].command(&format!("proxy peer={peer}"))["request"].clone();
    pair.players[0].answer(&["PROXY_NO_SERVERS_ONLINE"], &asked);
}

#[test]
fn players_without_udp_are_relayed_over_tls() {
    let test = "players_without_udp_are_relayed_over_tls";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::UdpBlocked, Router::PortRestricted]);
    let third = network.hosts("third", Router::UdpBlocked, 1).remove(0);
    let mut server = Server::start_with(test, &transcript, &network, &["--tls-port", TLS_PORT]);
    let mut pair = pair(test, &transcript, &network, &hosts);
    pair.connect_by("proxied");
    pair.all_modes();
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
    // Two of them, called by the one that has UDP in between.
    let third = Player::start_with(test, &transcript, &network, "third", &third, &[TIMEOUT]);
    let third_guid = third.guid.clone();
    let Pair {
        players: [blocked, free],
        ..
    } = pair;
    let mut second = Pair::new(test, &transcript, [free, third]);
    second.connect_by("proxied");
    second.all_modes();
    let Pair {
        players: [_free, third],
        ..
    } = second;
    let mut both = Pair::new(test, &transcript, [blocked, third]);
    both.connect_by("proxied");
    both.all_modes();
    both.ticks(SOME_FRAMES);
    both.catch_up();
    // The server's restart ends the streams, and no connection.
    server.end("-KILL");
    both.ticks(SOME_FRAMES);
    server.start_again();
    both.ticks(SOME_FRAMES);
    both.catch_up();
    let stats = both.stats(0);
    if stats["path"] != "proxied" || both.guid(1) != third_guid {
        both.fail(&format!("after the restart: {stats}"));
    }
}
