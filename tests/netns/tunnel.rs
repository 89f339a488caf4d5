//! A player in a network that lets no UDP through.

use std::time::{Duration, Instant};

use crate::network::{Network, Router, run_in};
use crate::players::{self, PORT, Player, Server, Transcript};

/// Until something is so that nobody is told of; a bound for a broken run.
const PATIENCE: Duration = Duration::from_secs(30);

/// TCP connections of a host to the server's TLS port.
fn streams(host: &str) -> usize {
    let connections = run_in(host, &["ss", "-Htn", "state", "established", "dport", "=", ":443"], "");
    connections.lines().count()
}

#[test]
fn without_udp_a_player_comes_by_tls_and_moves_when_udp_is_let_through() {
    let test = "without_udp_a_player_comes_by_tls_and_moves_when_udp_is_let_through";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let office = network.hosts("office", Router::UdpBlocked, 1).remove(0);
    let home = network.hosts("home", Router::PortRestricted, 1).remove(0);
    let listen = [network.server_address()];
    let _server = Server::start_in(
        test,
        &transcript,
        "server",
        &network.server_namespace(),
        &[
            &listen.map(|address| ["--listen", address]).concat()[..],
            &["--tls-port", "443"],
        ]
        .concat(),
    );
    let mut a = Player::start(test, &transcript, &network, "office", &office);
    assert_eq!(streams(&office), 1, "the session is on a stream");
    let mut b = Player::start(test, &transcript, &network, "home", &home);
    assert_eq!(streams(&home), 0);
    // It is known to the server like everybody else.
    let peer = a.guid.clone();
    b.command(&format!("open_nat peer={peer}"));
    let outcome = b.any_event(&["NAT_PUNCHTHROUGH_SUCCEEDED", "NAT_PUNCHTHROUGH_FAILED"], &peer);
    if outcome["event"] != "NAT_PUNCHTHROUGH_FAILED" || outcome["name"] != "NO_DIRECT_PATH" {
        transcript.fail(test, &format!("there is no direct way: {outcome}"));
    }
    a.event("NAT_PUNCHTHROUGH_FAILED", Some(&b.guid));
    // The router lets UDP through and keeps what it has (its restart would end the stream), and a change of the network makes the player look.
    network.change_router("office", Router::PortRestricted);
    run_in(&office, &["ip", "address", "add", "192.168.1.77/24", "dev", "eth"], "");
    let began = Instant::now();
    while streams(&office) > 0 {
        if began.elapsed() > PATIENCE {
            transcript.fail(test, "the session stays on its stream");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if let Some(lost) = a.has_heard("SERVER_LOST") {
        transcript.fail(test, &format!("the game was to hear nothing: {lost}"));
    }
    if let Some(wrong) = crate::meet(&mut b, &mut a, "direct") {
        transcript.fail(test, &wrong);
    }
}

#[test]
fn without_udp_and_tls_a_player_is_told_what_was_tried() {
    let test = "without_udp_and_tls_a_player_is_told_what_was_tried";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let office = network.hosts("office", Router::UdpBlocked, 1).remove(0);
    let _server = Server::start(test, &transcript, &network);
    let mut player = Player::start_alone(test, &transcript, "office", &office, &[]);
    player.command(&format!("connect server={}:{PORT}", network.server_address()));
    let failed = player.event("SERVER_FAILED", None);
    let tried = format!(
        "no UDP answer from {}:{PORT}; TCP 443: refused; TCP {PORT}: refused",
        network.server_address()
    );
    if failed["name"] != "NO_ANSWER" || !failed["text"].as_str().unwrap_or_default().contains(&tried) {
        transcript.fail(test, &format!("it was to hear {tried:?}: {failed}"));
    }
}
