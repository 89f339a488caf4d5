//! Two players whose IPv4 cannot meet, and whose IPv6 firewalls let in answers only.

use crate::meet;
use crate::network::{Network, Router};
use crate::players::{self, Player, Server, Transcript};

#[test]
fn players_whose_ipv4_cannot_meet_connect_over_ipv6() {
    let test = "players_whose_ipv4_cannot_meet_connect_over_ipv6";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let transcript = Transcript::new();
    let mut network = Network::new();
    let homes = ["left", "right"].map(|label| network.hosts(label, Router::Symmetric, 1).remove(0));
    network.add_ipv6(&[("left", &homes[0]), ("right", &homes[1])]);
    // The session is over IPv4; the server has both.
    let _server = Server::start_on(test, &transcript, &network, &[]);
    let [mut left, mut right] =
        homes.map(|namespace| Player::start(test, &transcript, &network, &namespace, &namespace));
    // At once: what is found out of IPv6 comes while the attempt runs.
    if let Some(wrong) = meet(&mut left, &mut right, "direct") {
        transcript.fail(test, &wrong);
    }
    let stats = left.command(&format!("stats peer={}", right.guid));
    if stats["address"]
        .as_str()
        .is_none_or(|address| !address.starts_with("[2a0b:6000:0:2:"))
    {
        transcript.fail(test, &format!("not over IPv6: {stats}"));
    }
}
