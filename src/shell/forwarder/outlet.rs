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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn to(address: SocketAddr) -> Way {
        Way {
            socket: SocketName::Udp4,
            address,
            local_ip: None,
        }
    }

    fn sockets() -> (Outlet, UdpSocket, Way) {
        let [own, receiver] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let way = to(receiver.local_addr().unwrap());
        (Outlet::new(SocketName::Udp4, own), receiver, way)
    }

    fn receive(receiver: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        // Only so that a failure is one, instead of a test that hangs.
        receiver
            .set_read_timeout(Some(std::time::Duration::from_secs(30)))
            .unwrap();
        let mut buffer = [0; 2_000];
        (0..count)
            .map(|_| {
                let length = receiver.recv(&mut buffer).unwrap();
                buffer[..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn what_comes_while_the_socket_is_full_waits_behind_what_waits() {
        let (mut outlet, receiver, way) = sockets();
        outlet.backlog.push(way, b"first");
        let (mut runs, mut outgoing, bytes) = (Runs::new(), Outgoing::default(), b"secondthird!");
        runs.push(0, &way, Some(0), 0, 6);
        runs.push(0, &way, Some(0), 6, 6);
        outlet.send_runs(0, &runs, bytes, &mut outgoing);
        outlet.send_one(&way, b"fourth");
        assert!(outlet.is_blocked());
        outlet.send_backlog();
        assert!(!outlet.is_blocked());
        assert_eq!(receive(&receiver, 4), [&b"first"[..], b"second", b"third!", b"fourth"]);
        assert_eq!(outlet.counters.blocked_drops, 0);
    }

    #[test]
    fn what_the_system_refuses_costs_nothing_else() {
        let (mut outlet, receiver, way) = sockets();
        let (mut runs, mut outgoing, bytes) = (Runs::new(), Outgoing::default(), [7; 40]);
        // IPv6 through an IPv4 socket, as a run and alone, between what is right.
        let wrong = to("[::1]:9".parse().unwrap());
        for (lane, (way, length)) in [(way, 1), (wrong, 2), (wrong, 2), (way, 3)].into_iter().enumerate() {
            runs.push(0, &way, Some(lane.min(1) as u32), lane * 5, length);
        }
        runs.push(0, &wrong, None, 30, 4);
        runs.push(0, &way, None, 34, 5);
        outlet.send_runs(0, &runs, &bytes, &mut outgoing);
        let lengths: Vec<usize> = receive(&receiver, 3).iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, 3, 5]);
        assert_eq!(outlet.counters.send_errors, 3);
    }

    #[test]
    fn a_run_that_the_route_cannot_carry_as_one_goes_in_single_frames() {
        let (mut outlet, receiver, way) = sockets();
        let (mut runs, mut outgoing) = (Runs::new(), Outgoing::default());
        let bytes: Vec<u8> = (0..3_000_u32).map(|place| (place / 1_000) as u8).collect();
        for place in 0..3 {
            runs.push(0, &way, Some(0), place * 1_000, 1_000);
        }
        let run = runs.all()[0];
        outlet.send_singly(&run, &runs, &bytes, &io::Error::from_raw_os_error(libc::EIO));
        assert!(!outlet.takes_runs(), "the next ones are not even tried");
        outlet.send_runs(0, &runs, &bytes, &mut outgoing);
        let frames = receive(&receiver, 6);
        for (place, frame) in frames.iter().enumerate() {
            assert_eq!(*frame, vec![(place % 3) as u8; 1_000]);
        }
    }
}
