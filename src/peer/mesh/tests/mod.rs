//! Scenarios and random sessions in virtual time.

mod hostile;
mod joins;
mod migration;
mod policy;
mod random;
mod simulator;

use std::time::Duration;

use simulator::Simulator;

/// Longer than anything that still goes on by itself (a host that nobody replaces: a minute).
const QUIET: Duration = Duration::from_secs(120);

/// Runs until nothing happens any more, and checks what must hold then.
fn settle(simulator: &mut Simulator) {
    simulator.run(QUIET);
    simulator.check_quiet();
}
