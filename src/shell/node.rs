//! x
use super::failure::Failure;
use super::record::EventRecord;
use crate::codes::SendMode;
use crate::peer::api::{Command, View};
use crate::transport::identity::{Guid, PublicKey};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
/// x
pub struct Node {}
#[allow(missing_docs, unused_variables)]
impl Node {
    pub fn guid(&self) -> Guid {
        unimplemented!()
    }
    pub fn key(&self) -> PublicKey {
        unimplemented!()
    }
    pub fn local_address(&self) -> SocketAddr {
        unimplemented!()
    }
    pub fn poll(&self, capacity: u32, put: impl FnMut(usize, EventRecord)) -> Result<i32, Failure> {
        unimplemented!()
    }
    pub fn wait(&self, timeout: Duration) -> Result<bool, Failure> {
        unimplemented!()
    }
    pub fn not_self(&self, peer: Guid) -> Result<(), Failure> {
        unimplemented!()
    }
    pub fn connected(&self, peer: Guid) -> Result<(), Failure> {
        unimplemented!()
    }
    pub fn command(&self, command: Command) -> Result<(), Failure> {
        unimplemented!()
    }
    pub fn ask(&self, make: impl FnOnce(u32) -> Result<Command, Failure>) -> Result<u32, Failure> {
        unimplemented!()
    }
    pub fn send(&self, peer: Option<Guid>, channel: u8, mode: SendMode, data: &[u8]) -> Result<(), Failure> {
        unimplemented!()
    }
    pub fn cancel(&self, request: u32) -> Result<(), Failure> {
        unimplemented!()
    }
    pub fn view(&self) -> Arc<View> {
        unimplemented!()
    }
    pub fn unreliable_dropped(&self) -> u64 {
        unimplemented!()
    }
    pub fn events_pending(&self) -> usize {
        unimplemented!()
    }
}
