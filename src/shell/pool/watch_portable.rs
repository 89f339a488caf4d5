//! Which sockets of a pool are readable, where there is no epoll: tokio knows without a system call, once it has been told
//! to look. The background task is who looks.

use std::collections::BTreeMap;
use std::io;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::Interest;

use super::super::signals::NodeIo;

/// Watches the sockets of a pool.
#[derive(Default)]
pub struct Watch {
    sockets: Mutex<Sockets>,
}

#[derive(Default)]
struct Sockets {
    open: BTreeMap<u16, NodeIo>,
    /// Where to go on looking.
    next: u16,
}

impl Watch {
    /// Watches `socket` as well, from the background task's next sleep on.
    pub fn add(&self, number: u16, socket: &NodeIo) -> io::Result<()> {
        self.sockets.lock().open.insert(number, socket.clone());
        Ok(())
    }

    /// Watches it no longer.
    pub fn remove(&self, number: u16, _socket: &NodeIo) {
        self.sockets.lock().open.remove(&number);
    }

    /// Appends the numbers of up to `limit` sockets that can be read; true if there may be more. Those that were not named
    /// come first the next time.
    pub fn readable(&self, numbers: &mut Vec<u16>, limit: usize) -> bool {
        let mut sockets = self.sockets.lock();
        let next = sockets.next;
        let ready = sockets.open.range(next..).chain(sockets.open.range(..next));
        let ready = ready.filter(|(_, socket)| socket.try_io(Interest::READABLE, || Ok(())).is_ok());
        let before = numbers.len();
        numbers.extend(ready.map(|(number, _)| *number).take(limit));
        let full = numbers.len() - before == limit;
        if let (true, Some(last)) = (full, numbers.last()) {
            sockets.next = last.wrapping_add(1);
        }
        full
    }

    /// Ready when one of them may hold something.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sockets = self.sockets.lock();
        for socket in sockets.open.values() {
            if let Poll::Ready(result) = socket.poll_recv_ready(context) {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    }
}
