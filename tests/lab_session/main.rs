//! The first playable session in the lab: real engines of players and server, virtual routers, virtual time.
//!
//! A failure prints the seed that replays it.

mod hostile;
mod joins;
mod messages;
mod opening;
mod outcomes;
mod paths;
mod proxies;
mod refusals;
mod relay;
mod relay_start;
mod replay;
mod report;
mod router;
mod server;
mod session;
mod techniques;

use std::time::Duration;

use lanline::lab::scenario::{RouterKind, Scenario, ScenarioBuilder};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Two players, each behind a router of that kind.
fn pair(seed: u64, one: RouterKind, other: RouterKind) -> ScenarioBuilder {
    Scenario::builder(seed).node(one).node(other)
}
