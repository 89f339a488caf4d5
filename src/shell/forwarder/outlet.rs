//! One socket of a shard: what it could not send waits here, briefly.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use super::messages::{Outgoing, Sending};
use super::queue::Frames;
use super::runs::{Run, Runs};
use crate::engine::SocketName;
use crate::relay::Way;

/// Figures of a socket.
#[derive(Debug, Clone, Copy, Default)]
pub struct OutletCounters {
    /// Messages that the system refused: no route, too large.
    pub send_errors: u64,
    /// Frames that gave way while the socket was full.
    pub blocked_drops: u64,
}

/// A socket and what waits for it.
pub struct Outlet {
    /// The name of the main loop's socket at the same address.
    pub name: SocketName,
    /// The shard's own socket there.
    pub socket: UdpSocket,
    /// The system takes runs and cuts them.
    segments: bool,
    backlog: Frames,
    /// Figures so far.
    pub counters: OutletCounters,
}

impl Outlet {
    /// One that has sent nothing.
    pub fn new(name: SocketName, socket: UdpSocket) -> Self {
        Self {
            name,
            socket,
            segments: true,
            backlog: Frames::default(),
            counters: OutletCounters::default(),
        }
    }

    /// Whether the system takes runs and cuts them.
    pub fn takes_runs(&self) -> bool {
        self.segments
    }

    /// Frames wait for room.
    pub fn is_blocked(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Sends those of `runs` that are its own: number `own`. `bytes` is where their frames stand.
    pub fn send_runs(&mut self, own: usize, runs: &Runs, bytes: &[u8], outgoing: &mut Outgoing) {
        outgoing.clear();
        let is_own = |run: &&Run| run.socket == own;
        if self.is_blocked() {
            for run in runs.all().iter().filter(is_own) {
                self.keep(run, runs, bytes);
            }
            return;
        }
        for run in runs.all().iter().filter(is_own) {
            let sending = Sending {
                destination: run.destination,
                local_ip: run.local_ip,
                // At most MAX_RUN.
                segment: if run.frames > 1 { run.segment as u16 } else { 0 },
            };
            outgoing.push(&sending, bytes, runs.pieces(run));
        }
        let (mut sent, total) = (0, outgoing.len());
        while sent < total {
            let error = match outgoing.send(self.socket.as_fd(), sent, bytes) {
                Ok(count) => {
                    sent += count.max(1);
                    continue;
                }
                Err(error) => error,
            };
            let mut rest = runs.all().iter().filter(is_own).skip(sent);
            if error.kind() == io::ErrorKind::WouldBlock {
                rest.for_each(|run| self.keep(run, runs, bytes));
                return;
            }
            match rest.next() {
                Some(run) if run.frames > 1 => self.send_singly(run, runs, bytes, &error),
                _ => self.counters.send_errors += 1,
            }
            sent += 1;
        }
    }

    /// A run that the system did not take as one: the network card or the route cannot cut it (EIO: never will), or a frame is larger than
    /// the route's packets.
    fn send_singly(&mut self, run: &Run, runs: &Runs, bytes: &[u8], error: &io::Error) {
        if error.raw_os_error() == Some(libc::EIO) {
            self.segments = false;
        }
        for_each_frame(run, runs, |frame| {
            let way = Way {
                socket: self.name,
                address: run.destination,
                local_ip: run.local_ip,
            };
            self.send_one(&way, &bytes[frame]);
        });
    }

    /// Sends one frame that stands alone.
    pub fn send_one(&mut self, to: &Way, frame: &[u8]) {
        if self.is_blocked() || !self.try_send(to, frame) {
            self.counters.blocked_drops += self.backlog.push(*to, frame);
        }
    }

    /// False: there is no room.
    fn try_send(&mut self, to: &Way, frame: &[u8]) -> bool {
        let mut outgoing = Outgoing::default();
        let sending = Sending {
            destination: to.address,
            local_ip: to.local_ip,
            segment: 0,
        };
        outgoing.push(&sending, frame, std::iter::once(0..frame.len()));
        match outgoing.send(self.socket.as_fd(), 0, frame) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.counters.send_errors += 1;
                true
            }
        }
    }

    /// There is room again, perhaps.
    pub fn send_backlog(&mut self) {
        let mut sent = 0;
        let mut backlog = std::mem::take(&mut self.backlog);
        while sent < backlog.len() {
            let (to, start, length) = backlog.entry(sent);
            if !self.try_send(&to, &backlog.bytes()[start..start + length]) {
                break;
            }
            sent += 1;
        }
        backlog.remove_first(sent);
        self.backlog = backlog;
    }

    fn keep(&mut self, run: &Run, runs: &Runs, bytes: &[u8]) {
        let way = Way {
            socket: self.name,
            address: run.destination,
            local_ip: run.local_ip,
        };
        for_each_frame(run, runs, |frame| {
            self.counters.blocked_drops += self.backlog.push(way, &bytes[frame]);
        });
    }
}

/// A piece holds whole frames, all of the run's length but the run's last.
fn for_each_frame(run: &Run, runs: &Runs, mut act: impl FnMut(std::ops::Range<usize>)) {
    for piece in runs.pieces(run) {
        let mut start = piece.start;
        while start < piece.end {
            let end = piece.end.min(start + run.segment as usize);
            act(start..end);
            start = end;
        }
    }
}
