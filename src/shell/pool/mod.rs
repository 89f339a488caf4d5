//! Further sockets of a node: hundreds for a moment (birthday punching, samples of how a router gives ports), a few for
//! longer (those that became paths).
//!
//! In: the engine's orders to open and to close, transmits. Out: datagrams of those sockets alone that hold some.
//!
//! All sockets of a pool hang on one [`Watch`], so that neither a turn nor whoever waits for readiness has more to do with
//! three hundred of them than with one; a node without any pays nothing. What cannot be opened is not there: the engine
//! hears of fewer, and nothing fails.

mod budget;
#[cfg(test)]
mod tests;

#[cfg(target_os = "linux")]
mod watch;
#[cfg(not(target_os = "linux"))]
#[path = "watch_portable.rs"]
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;

use budget::Permit;
pub use budget::limit_of_node;
use rustc_hash::FxHashMap;
pub use watch::Watch;

use super::runtime;
use super::signals::NodeSocket;
use super::udp::{BATCH_SIZE, DEFAULT_BUFFER, ReceiveBuffer, UdpCounters};
use crate::engine::{Datagram, SocketName};

/// Readable sockets that a turn reads, one batch each: as many datagrams as a few batches of the main socket, after which
/// it is the engine's turn to answer. The others come with the next turn, first.
const READ_IN_A_TURN: usize = 64;

struct Pooled {
    socket: NodeSocket,
    _permit: Permit,
}

/// The sockets that a node's engine had opened.
pub struct SocketPool {
    sockets: FxHashMap<u16, Pooled>,
    watch: Arc<Watch>,
    /// Numbers of readable sockets, for the length of a call.
    readable: Vec<u16>,
    /// Figures of sockets that are closed.
    closed: UdpCounters,
}

impl SocketPool {
    /// An empty one, whose sockets `watch` watches.
    pub fn new(watch: Arc<Watch>) -> Self {
        Self {
            sockets: FxHashMap::default(),
            watch,
            readable: Vec::new(),
            closed: UdpCounters::default(),
        }
    }

    /// Opens up to `count` sockets, `Birthday(first)` and so on, on ports of the system's choice at the address of `like`
    /// (the main socket of that family). Fewer if the process has no descriptors for more, or the system refuses.
    pub fn open(&mut self, first: u16, count: u16, like: SocketAddr) -> Vec<(SocketName, SocketAddr)> {
        self.open_within(budget::limit_of_process(), first, count, like)
    }

    fn open_within(
        &mut self,
        limit: usize,
        first: u16,
        count: u16,
        mut like: SocketAddr,
    ) -> Vec<(SocketName, SocketAddr)> {
        like.set_port(0);
        let open = || {
            let numbers = (first..=u16::MAX).take(count.into());
            let opened = numbers.map_while(|number| self.open_one(limit, number, like));
            Ok(opened.collect())
        };
        // Without a runtime there is no node either.
        runtime::inside(open).unwrap_or_default()
    }

    fn open_one(&mut self, limit: usize, number: u16, address: SocketAddr) -> Option<(SocketName, SocketAddr)> {
        if self.sockets.contains_key(&number) {
            return None;
        }
        let permit = Permit::take(limit)?;
        // Any of them may become the path of a game: it gets the buffers of one. They are bounds, not memory.
        let name = SocketName::Birthday(number);
        let opened = NodeSocket::bind_shared(name, address, DEFAULT_BUFFER);
        let opened = opened.and_then(|socket| self.watch.add(number, socket.io()).map(|()| socket));
        match opened {
            Ok(socket) => {
                let local = socket.local_address();
                let _permit = permit;
                self.sockets.insert(number, Pooled { socket, _permit });
                Some((name, local))
            }
            Err(error) => {
                tracing::debug!("no further socket: {error}");
                None
            }
        }
    }

    /// Closes sockets. What waits in them is gone; names that are not open are passed over.
    pub fn close(&mut self, names: &[SocketName]) {
        for name in names {
            if let SocketName::Birthday(number) = name
                && let Some(pooled) = self.sockets.remove(number)
            {
                self.watch.remove(*number, pooled.socket.io());
                self.closed = sum(self.closed, pooled.socket.counters());
            }
        }
    }

    /// None is open.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// `Birthday(number)`, if it is open.
    pub fn socket(&mut self, number: u16) -> Option<&mut NodeSocket> {
        self.sockets.get_mut(&number).map(|pooled| &mut pooled.socket)
    }

    /// Hands what has arrived to `take`, without waiting. True if there may be more.
    pub fn receive(
        &mut self,
        buffer: &mut ReceiveBuffer,
        datagrams: &mut Vec<Datagram>,
        mut take: impl FnMut(Datagram),
    ) -> bool {
        if self.sockets.is_empty() {
            return false;
        }
        self.readable.clear();
        let mut more = self.watch.readable(&mut self.readable, READ_IN_A_TURN);
        for number in &self.readable {
            if let Some(pooled) = self.sockets.get_mut(number) {
                more |= pooled.socket.receive_batch(buffer, datagrams) >= BATCH_SIZE;
                datagrams.drain(..).for_each(&mut take);
            }
        }
        more
    }

    /// Figures of all sockets there are and were.
    pub fn counters(&self) -> UdpCounters {
        let open = self.sockets.values().map(|pooled| pooled.socket.counters());
        open.fold(self.closed, sum)
    }
}

impl Drop for SocketPool {
    fn drop(&mut self) {
        for (number, pooled) in self.sockets.drain() {
            self.watch.remove(number, pooled.socket.io());
        }
    }
}

fn sum(one: UdpCounters, other: UdpCounters) -> UdpCounters {
    UdpCounters {
        received: one.received + other.received,
        receive_errors: one.receive_errors + other.receive_errors,
        send_errors: one.send_errors + other.send_errors,
    }
}
