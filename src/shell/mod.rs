//! The only place with tokio, sockets, the clock and OS randomness; runs the engines.

pub mod failure;
pub mod node;
pub mod options;
pub mod record;
#[cfg(feature = "program")]
pub mod server;
pub mod udp;

use std::time::Duration;

use failure::Failure;
use node::Node;
use options::NodeOptions;

/// x
pub fn create(_options: NodeOptions) -> Result<u32, Failure> {
    unimplemented!()
}
/// x
pub fn destroy(_id: u32, _timeout: Duration) -> Result<(), Failure> {
    unimplemented!()
}
/// x
pub fn shutdown_all(_timeout: Duration) -> usize {
    unimplemented!()
}
/// x
pub fn with_node<R>(_id: u32, _call: impl FnOnce(&Node) -> Result<R, Failure>) -> Result<R, Failure> {
    unimplemented!()
}
