//! The only place with tokio, sockets, the clock and OS randomness; runs the engines.
//!
//! | file | what it does |
//! |---|---|
//! | [`runtime`] | one background thread for all nodes of the process; a node's background task |
//! | [`driver`] | one turn of a node: receive → engine → outbox → events → transmit → next deadline |
//! | [`node`] | a node as callers see it: poll, wait, send, ask |
//! | [`outbox`] | messages and commands on their way to the engine |
//! | [`events`], [`owned`] | events on their way to the game; copied, for programs in Rust |
//! | [`signals`] | what wakes whom: readiness, wake-ups, timers |
//! | [`spinning`] | game threads that poll without pause |
//! | [`table`] | ids of nodes: look-up without a lock, destroy in the middle of anything |
//! | [`crypto`] | TLS primitives |
//! | [`identity_file`] | who a node is, kept and locked |
//! | [`interfaces`] | addresses of the machine, and news of them |
//! | [`udp`] | sockets: batches in, segments out |
//! | `forwarder` | the server's threads that pass relay frames on |
//! | [`tunnel`] | TLS streams over TCP, where UDP is blocked |
//! | [`pool`] | further sockets, hundreds of them, behind one descriptor |
//!
//! Whoever holds a node's driver may run its turn: normally the background task, but also a game's thread inside
//! `lanline_wait`, so that an answer to a message costs one wake-up and not three.

pub mod clock;
pub mod convert;
pub mod crypto;
pub mod driver;
pub mod events;
pub mod failure;
#[cfg(feature = "program")]
pub mod forwarder;
pub mod identity_file;
pub mod interfaces;
pub mod node;
pub mod options;
pub mod outbox;
pub mod owned;
pub mod pool;
pub mod port_mapping;
pub mod record;
pub mod runtime;
#[cfg(feature = "program")]
pub mod server;
pub mod spinning;
pub mod table;
pub mod tunnel;
pub mod udp;

#[cfg(target_os = "linux")]
mod interface_changes;
#[cfg(not(target_os = "linux"))]
#[path = "interface_changes_portable.rs"]
mod interface_changes;

#[cfg(target_os = "linux")]
pub mod signals;
#[cfg(not(target_os = "linux"))]
#[path = "signals_portable.rs"]
pub mod signals;

#[cfg(test)]
mod events_tests;

use std::time::{Duration, Instant};

use failure::Failure;
use node::Node;
use options::NodeOptions;

/// Creates a node and returns its id.
///
/// # Errors
/// IO (socket, identity file), OUT_OF_RESOURCES (nodes, threads), INVALID_ARGUMENT.
pub fn create(options: NodeOptions) -> Result<u32, Failure> {
    let node = Node::create(options)?;
    match table::insert(node.clone()) {
        Some(id) => {
            runtime::run(node)?;
            Ok(id)
        }
        None => Err(Failure::new(
            crate::codes::Code::OutOfResources,
            "there are 1024 nodes in this process already",
        )),
    }
}

/// Ends a node; see `lanline_node_destroy`.
///
/// # Errors
/// INVALID_NODE.
pub fn destroy(id: u32, timeout: Duration) -> Result<(), Failure> {
    let leaving = table::begin_removal(id).ok_or_else(invalid_node)?;
    let deadline = Instant::now() + timeout;
    leaving.node().close(deadline);
    leaving.wait_for_others();
    Ok(())
}

/// Ends all nodes together within `timeout`; returns how many there were.
pub fn shutdown_all(timeout: Duration) -> usize {
    let deadline = Instant::now() + timeout;
    let ids = table::ids();
    ids.iter()
        .filter(|id| destroy(**id, deadline.saturating_duration_since(Instant::now())).is_ok())
        .count()
}

/// Calls `call` with the node of that id, which is not freed meanwhile.
///
/// # Errors
/// INVALID_NODE, and what `call` returns.
#[inline]
pub fn with_node<R>(id: u32, call: impl FnOnce(&Node) -> Result<R, Failure>) -> Result<R, Failure> {
    match table::look_up(id) {
        Some(node) => call(&node),
        None => Err(invalid_node()),
    }
}

fn invalid_node() -> Failure {
    Failure::new(
        crate::codes::Code::InvalidNode,
        "`node` is not the id of a living node: it is 0, was destroyed, or never existed",
    )
}
