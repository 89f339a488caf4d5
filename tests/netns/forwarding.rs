//! Forwarded ports, through the harness: asked of a router, or set by hand. Both players sit behind symmetric routers with random
//! ports, which punching does not get through: whoever connects came in by the forwarded port.

use serde_json::Value;

use crate::mapping::{self, Daemon, Speaks};
use crate::network::{Network, Router};
use crate::players::{self, Player, Server, Transcript};
use crate::{NAT_OUTCOMES, meet};

/// The port that is forwarded by hand.
const BY_HAND: u16 = 40123;
/// Of the first host of a home.
const LAN_ADDRESS: &str = "192.168.1.2";

fn obstacle() -> Option<String> {
    players::obstacle_with_programs().or_else(mapping::obstacle)
}

/// `asks` reaches `has`, at `address`.
fn reach(test: &str, transcript: &Transcript, asks: &mut Player, has: &mut Player, address: &str) {
    if let Some(wrong) = meet(asks, has, "direct") {
        transcript.fail(test, &wrong);
    }
    let stats = asks.command(&format!("stats peer={}", has.guid));
    if stats["address"] != *address {
        transcript.fail(test, &format!("not over the forwarded port {address}: {stats}"));
    }
}

#[test]
fn each_protocol_lets_a_symmetric_router_be_passed() {
    let test = "each_protocol_lets_a_symmetric_router_be_passed";
    let Some(_turn) = crate::turn(test, obstacle()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let outside = network.hosts("outside", Router::Symmetric, 1).remove(0);
    let protocols = [Speaks::Upnp, Speaks::Pcp, Speaks::NatPmp];
    let homes = protocols.map(|speaks| network.hosts(speaks.word(), Router::Symmetric, 1).remove(0));
    let daemons = protocols.map(|speaks| Daemon::start(&network.router_namespace(speaks.word()), speaks));
    let _server = Server::start(test, &transcript, &network);
    let mut outside = Player::start(test, &transcript, &network, "outside", &outside);
    for (place, speaks) in protocols.into_iter().enumerate() {
        let mut player = Player::start(test, &transcript, &network, speaks.word(), &homes[place]);
        let before = player.command("manual_port");
        let asked = player.command("open_upnp")["request"].clone();
        let mapped = player.answer(&["PORT_MAPPED", "PORT_MAPPING_FAILED"], &asked);
        let external = mapped["external"].as_str().unwrap_or_default().to_owned();
        let place = u32::try_from(place).expect("few") + 2;
        let right = mapped["event"] == "PORT_MAPPED"
            && mapped["protocol"] == speaks.word()
            && mapped["double_nat"] == 0
            && external.starts_with(&format!("{}:", network.public_address(place)));
        if !right {
            transcript.fail(test, &format!("{speaks:?}: {mapped}"));
        }
        // What to forward by hand before; that nothing is to be done, afterwards.
        let after = player.command("manual_port");
        let port = &before["port"];
        let told = |result: &Value, what: &str| result["text"].as_str().is_some_and(|text| text.contains(what));
        let advised = before["internal"] == format!("{LAN_ADDRESS}:{port}")
            && before["protocol"] == "UDP"
            && told(
                &before,
                &format!("Forward UDP port {port} to {LAN_ADDRESS} port {port} "),
            );
        if !advised || after["port"] != *port || !told(&after, "Nothing needs to be done") {
            transcript.fail(test, &format!("manual_port said {before}, then {after}"));
        }
        reach(test, &transcript, &mut outside, &mut player, &external);
        drop(player);
    }
    drop(daemons);
}

#[test]
fn a_port_forwarded_by_hand_lets_a_symmetric_router_be_passed() {
    let test = "a_port_forwarded_by_hand_lets_a_symmetric_router_be_passed";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let home = network.hosts("home", Router::Symmetric, 1).remove(0);
    let outside = network.hosts("outside", Router::Symmetric, 2);
    network.forward_port("home", BY_HAND);
    let _server = Server::start(test, &transcript, &network);
    let public = format!("{}:{BY_HAND}", network.public_address(1));
    let settings = [format!("bind=0.0.0.0:{BY_HAND}"), format!("public={public}")];
    let settings = settings.each_ref().map(String::as_str);
    let mut has = Player::start_with(test, &transcript, &network, "has", &home, &settings);
    let mut first = Player::start(test, &transcript, &network, "first", &outside[0]);
    reach(test, &transcript, &mut first, &mut has, &public);
    // The other way round: the one with the forwarded port asks.
    let mut second = Player::start(test, &transcript, &network, "second", &outside[1]);
    if let Some(wrong) = meet(&mut has, &mut second, "direct") {
        transcript.fail(test, &wrong);
    }
    // Without the port they do not meet.
    first.command("disconnect_server");
    drop(first);
    let namespace = network.hosts("other-home", Router::Symmetric, 1).remove(0);
    let mut other = Player::start(test, &transcript, &network, "other", &namespace);
    other.command(&format!("open_nat peer={}", second.guid));
    let outcome = other.any_event(&NAT_OUTCOMES, &second.guid);
    if outcome["event"] != "NAT_PUNCHTHROUGH_FAILED" {
        transcript.fail(test, &format!("the routers are not what they were to be: {outcome}"));
    }
}
