//! Where a port cannot be shared out between threads: nothing starts, and the server's engine forwards in the main loop.

use std::convert::Infallible;
use std::io;
use std::time::Instant;

use super::{ForwarderConfig, ForwarderCounters, Handed};
use crate::relay::ticket::TicketKey;
use crate::relay::{RelayCounters, Way};
use crate::server::OutsideRelay;
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
    pub fn relay(&self) -> ForwarderRelay {
        match self.0 {}
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

/// There is none.
#[derive(Debug, Clone)]
pub struct ForwarderRelay(Infallible);

impl OutsideRelay for ForwarderRelay {
    fn counters(&self) -> RelayCounters {
        match self.0 {}
    }

    fn max_sessions(&self) -> u64 {
        match self.0 {}
    }

    fn set_ticket_key(&self, _now: Instant, _key: TicketKey, _ticket_time: u64) {
        match self.0 {}
    }
}
