//! Tests of the node, most of them with a server and players in the lab. A failure prints the seed that replays it.

mod connections;
mod doors;
mod early;
mod hostile;
mod ipv6;
mod nat;
mod paths;
mod punch;
mod random;
mod roaming;
mod router;
mod server;
mod tunnel;

use std::time::Duration;

use crate::lab::OwnedEvent;
use crate::lab::scenario::{RouterKind, Scenario};
use crate::transport::identity::Guid;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Players with public addresses, connected to the server.
fn players(seed: u64, count: usize) -> Scenario {
    let mut scenario = Scenario::builder(seed).nodes(count, RouterKind::Open).build();
    scenario.connect_all();
    scenario
}

/// What a player heard of another player's connection, in order, taken.
fn connection_story(scenario: &mut Scenario, player: usize, other: Guid) -> Vec<&'static str> {
    let events = scenario.lab.take_events(scenario.nodes[player]);
    let word = |event: &OwnedEvent| match event {
        OwnedEvent::Connected { peer, .. } if *peer == other => Some("connected"),
        OwnedEvent::Disconnected { peer, .. } if *peer == other => Some("disconnected"),
        OwnedEvent::ConnectionFailed { peer, .. } if *peer == Some(other) => Some("failed"),
        OwnedEvent::Message { peer, .. } if *peer == other => Some("message"),
        _ => None,
    };
    events.iter().filter_map(|recorded| word(&recorded.event)).collect()
}
