//! The player's engine. No IO.

pub mod api;
pub mod mesh;

use std::time::Instant;

use crate::engine::{Datagram, Engine, Transmit};
use crate::transport::SendError;
use api::{Command, Event, NodeConfig, SideEffect, SideEffectAnswer, View};

/// A node: one player's endpoint.
pub struct Node {}

#[allow(unused_variables, missing_docs)]
impl Node {
    pub fn new(now: Instant, config: NodeConfig) -> Self {
        unimplemented!()
    }

    /// Takes a command. Its outcome follows as events; a command with a request id ends in exactly one terminal event.
    pub fn command(&mut self, now: Instant, command: Command) {
        unimplemented!()
    }

    /// Queues a game message for a connected peer.
    pub fn send(
        &mut self,
        now: Instant,
        peer: crate::transport::identity::Guid,
        channel: u8,
        mode: crate::codes::SendMode,
        data: &[u8],
    ) -> Result<(), SendError> {
        unimplemented!()
    }

    /// The next event. With `reliable_room` false, reliable messages stay where they are (their senders are held back).
    pub fn poll_event(&mut self, reliable_room: bool) -> Option<Event<'_>> {
        unimplemented!()
    }

    /// The next thing that only the outside can do; answered by [`side_effect_answer`](Self::side_effect_answer).
    pub fn poll_side_effect(&mut self) -> Option<SideEffect> {
        unimplemented!()
    }

    pub fn side_effect_answer(&mut self, now: Instant, answer: SideEffectAnswer) {
        unimplemented!()
    }

    /// What accessor calls show. `None` if nothing changed since the last call.
    pub fn take_view(&mut self, now: Instant) -> Option<View> {
        unimplemented!()
    }
}

#[allow(unused_variables)]
impl Engine for Node {
    fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        unimplemented!()
    }
    fn handle_timeout(&mut self, now: Instant) {
        unimplemented!()
    }
    fn poll_transmit(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<Transmit> {
        unimplemented!()
    }
    fn poll_timeout(&mut self) -> Option<Instant> {
        unimplemented!()
    }
}
