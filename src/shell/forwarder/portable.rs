//! Where a port cannot be shared out between threads: nothing starts, and the server's engine forwards in the main loop.

use std::convert::Infallible;
use std::io;

use super::{ForwarderConfig, ForwarderCounters, Handed};
use crate::relay::Way;
use crate::shell::udp::UdpSocket;

/// There is none.
pub struct Forwarder(Infallible);

impl Forwarder {
    /// Never starts.
    ///
    /// # Errors
    /// Always: unsupported.
    pub fn start(_config: &ForwarderConfig, _sockets: &[&UdpSocket]) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// See the Linux one.
    pub fn shards(&self) -> usize {
        match self.0 {}
    }

    /// See the Linux one.
    pub fn hand_in(&self, _way: Way, _frame: &[u8]) -> bool {
        match self.0 {}
    }

    /// See the Linux one.
    pub async fn ready(&self) {
        match self.0 {}
    }

    /// See the Linux one.
    pub fn take(&self, _act: impl FnMut(Handed, &[u8])) {
        match self.0 {}
    }

    /// See the Linux one.
    pub fn counters(&self) -> ForwarderCounters {
        match self.0 {}
    }
}
