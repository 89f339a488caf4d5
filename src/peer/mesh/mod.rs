//! The session: verified joins, membership, host order. A sub-engine of [`super::Node`]: it hears of connections and
//! mesh messages, and answers with messages to send, peers to connect to, connections to close, and events.

use std::time::{Duration, Instant};

use super::api::{MeshCommand, MeshEvent, MeshView, Reason};
use crate::transport::identity::{Guid, PublicKey};
use crate::wire::mesh::MeshMessage;

/// How to set up a [`Mesh`].
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// This node.
    pub own: PublicKey,
    /// Everything random in it comes from this.
    pub seed: [u8; 32],
    /// Connect to the members of a join by itself.
    pub join_auto: bool,
    /// A join may succeed with unreached members.
    pub partial: bool,
    /// Most connected players, this node not counted.
    pub max_peers: usize,
    /// Time for a whole join.
    pub join_time_limit: Duration,
}

/// What the mesh wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshOutput {
    /// Send to a connected peer.
    Send { to: Guid, message: MeshMessage },
    /// Open a way to this peer and connect to it (its key must match); ends in `connected` or `connect_failed`.
    Connect { peer: PublicKey },
    /// Close a connection that was made for a join.
    Disconnect { peer: Guid, reason: Reason },
    /// Tell the server this session tag (zeros: none).
    SessionTag([u8; 16]),
    /// Tell the game.
    Event(MeshEvent),
}

/// The session as one node knows it.
pub struct Mesh {}

#[allow(unused_variables, missing_docs)]
impl Mesh {
    pub fn new(now: Instant, config: MeshConfig) -> Self {
        unimplemented!()
    }
    pub fn command(&mut self, now: Instant, command: MeshCommand) {
        unimplemented!()
    }
    /// A connection stands. `dialled`: this node dialled it (at the game's wish or the mesh's).
    pub fn connected(&mut self, now: Instant, peer: PublicKey, dialled: bool) {
        unimplemented!()
    }
    /// A connection that the mesh asked for could not be made.
    pub fn connect_failed(&mut self, now: Instant, peer: Guid, reason: Reason) {
        unimplemented!()
    }
    /// A connection ended; the reason's code tells LOST from CLOSED.
    pub fn disconnected(&mut self, now: Instant, peer: Guid, reason: Reason) {
        unimplemented!()
    }
    /// A mesh message from a connected peer.
    pub fn message(&mut self, now: Instant, from: Guid, message: MeshMessage) {
        unimplemented!()
    }
    pub fn handle_timeout(&mut self, now: Instant) {
        unimplemented!()
    }
    pub fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }
    pub fn poll_output(&mut self) -> Option<MeshOutput> {
        unimplemented!()
    }
    pub fn view(&self) -> MeshView {
        unimplemented!()
    }
    /// Messages that were dropped because their sender had no right to send them.
    pub fn dropped(&self) -> u64 {
        unimplemented!()
    }
}
