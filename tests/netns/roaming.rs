//! Connections that go on while routers forget them and hosts move.

use crate::meet;
use crate::network::{Network, Router};
use crate::players::{self, Player, Server, Transcript};

/// The connection's time-out: long enough for a busy machine to find another way, and shorter than the tests' patience.
const TIMEOUT: &str = "timeout_ms=12000";

/// Two connected players: the one that stays, the one whose way breaks.
struct Story {
    test: &'static str,
    transcript: Transcript,
    stays: Player,
    moves: Player,
}

impl Story {
    fn start(test: &'static str, network: &Network, stays: &str, moves: &str) -> (Self, Server) {
        let transcript = Transcript::new();
        let server = Server::start(test, &transcript, network);
        let player =
            |name: &str, namespace: &str| Player::start_with(test, &transcript, network, name, namespace, &[TIMEOUT]);
        let (mut stays, mut moves) = (player("stays", stays), player("moves", moves));
        if let Some(wrong) = meet(&mut stays, &mut moves, "direct") {
            transcript.fail(test, &wrong);
        }
        let story = Self {
            test,
            transcript,
            stays,
            moves,
        };
        (story, server)
    }

    /// Both talk and hear each other; nobody lost anybody.
    fn goes_on(&mut self, round: u32) {
        let (stays, moves) = (self.stays.guid.clone(), self.moves.guid.clone());
        let text = format!("round {round}");
        self.moves
            .command(&format!("send peer={stays} mode=reliable text=\"{text}\""));
        self.stays
            .command(&format!("send peer={moves} mode=reliable text=\"{text}\""));
        self.stays.message(&moves, &text);
        self.moves.message(&stays, &text);
        for player in [&mut self.stays, &mut self.moves] {
            if let Some(event) = player.has_heard("DISCONNECTED") {
                let what = format!("{} lost its connection: {event}", player.name());
                self.transcript.fail(self.test, &what);
            }
        }
    }

    /// The one that stays is told where the other one is now; on the way there a relay may carry the two.
    fn moved_to(&mut self, address: &str) {
        let moves = self.moves.guid.clone();
        loop {
            let changed = self.stays.event("PATH_CHANGED", Some(&moves));
            let now = changed["address"].as_str().unwrap_or_default();
            if now.starts_with(&format!("{address}:")) {
                return;
            }
            if changed["to"] != "proxied" {
                self.transcript
                    .fail(self.test, &format!("expected at {address}: {changed}"));
            }
        }
    }
}

#[test]
fn a_router_that_gives_other_ports_does_not_end_a_connection() {
    let test = "a_router_that_gives_other_ports_does_not_end_a_connection";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let mut network = Network::new();
    let open = network.hosts("open", Router::AddressRestricted, 1).remove(0);
    let home = network.hosts("home", Router::PortRestricted, 1).remove(0);
    let (mut story, _server) = Story::start(test, &network, &open, &home);
    network.restart_router("home", Router::Symmetric);
    story.goes_on(1);
    let address = network.public_address(2).to_string();
    story.moved_to(&address);
    // Every emptied table means other ports now.
    for round in 2..4 {
        network.forget_connections("home");
        story.goes_on(round);
        story.moved_to(&address);
    }
}

#[test]
fn routers_that_forget_everything_do_not_end_a_connection() {
    let test = "routers_that_forget_everything_do_not_end_a_connection";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let mut network = Network::new();
    let one = network.hosts("one", Router::PortRestricted, 1).remove(0);
    let other = network.hosts("other", Router::PortRestricted, 1).remove(0);
    let (mut story, _server) = Story::start(test, &network, &one, &other);
    for round in 0..3 {
        network.forget_connections("one");
        network.forget_connections("other");
        story.goes_on(round);
    }
}

#[test]
fn a_host_that_moves_to_another_home_keeps_its_connection() {
    let test = "a_host_that_moves_to_another_home_keeps_its_connection";
    let Some(_turn) = crate::turn(test, players::obstacle_with_programs()) else {
        return;
    };
    let mut network = Network::new();
    let stays = network.hosts("stays", Router::PortRestricted, 1).remove(0);
    let moves = network.hosts("before", Router::PortRestricted, 1).remove(0);
    network.hosts("after", Router::PortRestricted, 0);
    network.hosts("last", Router::Carrier, 0);
    let (mut story, _server) = Story::start(test, &network, &stays, &moves);
    // With another inside address, then with the same one.
    for (round, (label, number, public)) in [("after", 7, 3), ("last", 2, 4)].into_iter().enumerate() {
        network.move_host(&moves, label, number);
        story.goes_on(u32::try_from(round).expect("few"));
        let public = network.public_address(public).to_string();
        story.moved_to(&public);
    }
}
