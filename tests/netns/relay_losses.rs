//! Connections that outlive the death of their direct way, and of their relay.

use crate::conversation::Pair;
use crate::network::{Network, Router};
use crate::players::{self, Player, Server, Transcript};
use crate::relay::{TIMEOUT, homes, pair};

/// Frames before and after something happens.
const SOME_FRAMES: usize = 30;
/// About two seconds without a relay; up to three are promised.
const DOWN_FRAMES: usize = 40;

#[test]
fn a_dead_direct_way_is_replaced_by_the_relay_and_comes_back() {
    let test = "a_dead_direct_way_is_replaced_by_the_relay_and_comes_back";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::PortRestricted; 2]);
    let other = network.public_address(2);
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    pair.connect();
    pair.talk_until_path("direct");
    // Both ways and without a word; one way, and sending fails.
    for silent in [true, false] {
        for player in 0..2 {
            pair.changes(player);
        }
        pair.ticks(SOME_FRAMES);
        transcript.add(test, &format!("the direct way dies, silently: {silent}"));
        if silent {
            network.cut("one", other);
        } else {
            network.forbid(&hosts[0], other);
        }
        pair.talk_until_path("proxied");
        pair.ticks(SOME_FRAMES);
        pair.catch_up();
        transcript.add(test, "the direct way is whole again");
        if silent {
            network.mend("one");
        } else {
            network.allow(&hosts[0]);
        }
        pair.talk_until_path("direct");
        pair.ticks(SOME_FRAMES);
        pair.catch_up();
        for player in 0..2 {
            let changes = pair.changes(player);
            let ways: Vec<&str> = changes.iter().filter_map(|change| change["to"].as_str()).collect();
            if !ways.contains(&"proxied") || ways.last() != Some(&"direct") {
                pair.fail(&format!(
                    "player {player} was to hear of proxied, then of direct: {ways:?}"
                ));
            }
        }
    }
}

/// The idle side has nothing that could stay unanswered: it notices within the lost-peer time.
#[test]
fn an_idle_connection_outlives_its_direct_way() {
    let test = "an_idle_connection_outlives_its_direct_way";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::PortRestricted; 2]);
    let addresses = [1, 2].map(|number| network.public_address(number));
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    pair.connect();
    pair.talk_until_path("direct");
    pair.catch_up();
    // At both ends: also what an answer would bring is gone.
    network.cut("one", addresses[1]);
    network.cut("other", addresses[0]);
    for player in 0..2 {
        let peer = pair.guid(1 - player);
        pair.players[player].stats_become(&peer, "on the relay", |stats| stats["path"] == "proxied");
    }
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
}

/// With the same data folder, and so the same keys: the ticket of before counts.
fn the_relay_restarts(test: &'static str, signal: &str) {
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    let mut server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    pair.connect_by("proxied");
    pair.ticks(SOME_FRAMES);
    // Twice: what the first restart brought must be as good as what was there before.
    for _ in 0..2 {
        server.end(signal);
        pair.ticks(DOWN_FRAMES);
        server.start_again();
        pair.ticks(SOME_FRAMES);
        pair.catch_up();
        for player in &mut pair.players {
            player.event("SERVER_RECONNECTED", None);
        }
        pair.ticks(SOME_FRAMES);
        pair.catch_up();
        for player in 0..2 {
            let stats = pair.stats(player);
            if stats["path"] != "proxied" {
                pair.fail(&format!("after the restart: {stats}"));
            }
        }
    }
    // The server knows both again: a third player meets them.
    let host = network.hosts("third", Router::Symmetric, 1).remove(0);
    let third = Player::start_with(test, &transcript, &network, "third", &host, &[TIMEOUT]);
    let Pair {
        players: [_, other], ..
    } = pair;
    let mut pair = Pair::new(test, &transcript, [third, other]);
    pair.connect_by("proxied");
    pair.all_modes();
}

#[test]
fn a_relayed_pair_outlives_a_relay_that_is_killed() {
    the_relay_restarts("a_relayed_pair_outlives_a_relay_that_is_killed", "-KILL");
}

#[test]
fn a_relayed_pair_outlives_a_relay_that_is_ended() {
    the_relay_restarts("a_relayed_pair_outlives_a_relay_that_is_ended", "-TERM");
}

/// Whoever has a direct way does not notice the server's end, and loses the server alone.
#[test]
fn a_direct_pair_does_not_notice_the_end_of_the_server() {
    let test = "a_direct_pair_does_not_notice_the_end_of_the_server";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::PortRestricted; 2]);
    let mut server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    pair.connect();
    pair.talk_until_path("direct");
    server.end("-KILL");
    for player in &mut pair.players {
        player.event("SERVER_LOST", None);
    }
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
    for player in 0..2 {
        let stats = pair.stats(player);
        if stats["path"] != "direct" {
            pair.fail(&format!("without the server: {stats}"));
        }
    }
}

/// What the direct way took in one packet the relay's way does not, and nobody says so.
#[test]
fn a_relay_with_a_narrow_cable_takes_over() {
    let test = "a_relay_with_a_narrow_cable_takes_over";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::PortRestricted; 2]);
    let other = network.public_address(2);
    // The least that IPv6 asks of a network, and what QUIC's packets and a relay's frame must fit in.
    network.narrow_server(1_280);
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    pair.connect();
    pair.talk_until_path("direct");
    // Long enough for the larger packets to be found out about.
    for _ in 0..4 {
        pair.all_modes();
        pair.ticks(SOME_FRAMES);
    }
    network.cut("one", other);
    pair.large();
    pair.talk_until_path("proxied");
    pair.all_modes();
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
}

/// Their routers forget them, and give them other ports: the relay knows them by their tickets.
#[test]
fn relayed_players_outlive_their_routers_restarts() {
    let test = "relayed_players_outlive_their_routers_restarts";
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
    for forgetting in [&["one"][..], &["other"], &["one", "other"]] {
        for label in forgetting {
            network.forget_connections(label);
        }
        pair.ticks(SOME_FRAMES);
        pair.catch_up();
    }
}

/// Into another home, with another address inside and outside.
#[test]
fn a_relayed_player_moves_to_another_home() {
    let test = "a_relayed_player_moves_to_another_home";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let hosts = homes(&mut network, [Router::Symmetric; 2]);
    network.hosts("after", Router::Symmetric, 0);
    let _server = Server::start(test, &transcript, &network);
    let mut pair = pair(test, &transcript, &network, &hosts);
    pair.connect_by("proxied");
    pair.ticks(SOME_FRAMES);
    network.move_host(&hosts[0], "after", 7);
    pair.ticks(SOME_FRAMES);
    pair.catch_up();
}
