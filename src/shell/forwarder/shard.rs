//! One shard: a thread with a socket at each listen address, and a [`Relay`] of its own.
//!
//! Its loop: wait until a socket has something, a frame was handed over, or a session's time is over; take a batch; pass each frame through
//! the relay, in place; send what the batch made. The clock is read once a batch.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::messages::{Inbox, Outgoing};
use super::outlet::{Outlet, OutletCounters};
use super::queue::{Frames, Queue};
use super::runs::Runs;
use super::steering::shard_of;
use super::{ForwarderCounters, MainQueues};
use crate::relay::{Passage, Relay, Way};

/// Full batches that are taken from one socket before the others have their turn.
const BATCHES_A_TURN: usize = 8;

/// Longest wait: figures are brought up to date, nothing else needs it.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a shard is reached by.
pub struct Mailbox {
    /// Frames that came another way: through a tunnel, or to the wrong socket.
    pub frames: Queue,
    wake: OwnedFd,
    end: AtomicBool,
    counters: Mutex<ForwarderCounters>,
}

impl Mailbox {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are involved; the descriptor is new and belongs to nobody else.
        let wake = unsafe {
            let descriptor = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(descriptor)
        };
        Ok(Self {
            frames: Queue::default(),
            wake,
            end: AtomicBool::new(false),
            counters: Mutex::default(),
        })
    }

    /// Hands a frame over.
    pub fn hand(&self, way: Way, frame: &[u8]) {
        if self.frames.push(way, frame) {
            self.wake();
        }
    }

    /// Has the shard end.
    pub fn end(&self) {
        self.end.store(true, Ordering::Release);
        self.wake();
    }

    /// Its figures, a batch old at most.
    pub fn counters(&self) -> ForwarderCounters {
        let mut counters = *self.counters.lock();
        counters.handed_dropped += self.frames.dropped();
        counters
    }

    fn wake(&self) {
        let one = 1_u64;
        // SAFETY: eight bytes that live through the call. An event counter that is full is set, which is all that is wanted.
        unsafe { libc::write(self.wake.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    fn clear_wake(&self) {
        let mut count = 0_u64;
        // SAFETY: eight bytes that live through the call.
        unsafe { libc::read(self.wake.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }
}

/// What every shard can reach.
pub struct Common {
    /// All shards' mailboxes, in order.
    pub shards: Vec<Mailbox>,
    /// What the main loop is to do.
    pub main: MainQueues,
}

/// One shard.
pub struct Shard {
    number: usize,
    common: Arc<Common>,
    relay: Relay,
    outlets: Vec<Outlet>,
    inbox: Inbox,
    runs: Runs,
    outgoing: Outgoing,
    handed: Frames,
    /// Frames that came to this shard's socket and were another's, or the main loop's.
    misdirected: u64,
    receive_errors: u64,
}

impl Shard {
    /// Shard `number`, with its sockets.
    pub fn new(number: usize, common: Arc<Common>, relay: Relay, outlets: Vec<Outlet>) -> Self {
        Self {
            number,
            common,
            relay,
            outlets,
            inbox: Inbox::new(),
            runs: Runs::new(),
            outgoing: Outgoing::default(),
            handed: Frames::default(),
            misdirected: 0,
            receive_errors: 0,
        }
    }

    /// Works until it is told to end.
    pub fn run(&mut self) {
        let mut polled = vec![
            libc::pollfd {
                fd: 0,
                events: libc::POLLIN,
                revents: 0
            };
            self.outlets.len() + 1
        ];
        loop {
            self.wait(&mut polled);
            let mailbox = &self.common.shards[self.number];
            if mailbox.end.load(Ordering::Acquire) {
                return;
            }
            if polled[self.outlets.len()].revents != 0 {
                mailbox.clear_wake();
                self.pass_handed();
            }
            for (place, polled) in polled[..self.outlets.len()].iter().enumerate() {
                if polled.revents & libc::POLLOUT != 0 {
                    self.outlets[place].send_backlog();
                }
                if polled.revents & !libc::POLLOUT != 0 {
                    self.receive(place);
                }
            }
            let now = Instant::now();
            if self.relay.poll_timeout().is_some_and(|deadline| deadline <= now) {
                self.relay.handle_timeout(now);
            }
            self.publish();
        }
    }

    fn wait(&self, polled: &mut [libc::pollfd]) {
        for (polled, outlet) in polled.iter_mut().zip(&self.outlets) {
            polled.fd = outlet.socket.as_raw_fd();
            polled.events = match outlet.is_blocked() {
                true => libc::POLLIN | libc::POLLOUT,
                false => libc::POLLIN,
            };
        }
        polled[self.outlets.len()].fd = self.common.shards[self.number].wake.as_raw_fd();
        let timeout = self.relay.poll_timeout().map_or(LONGEST_WAIT, |deadline| {
            deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT)
        });
        // Rounded up: a millisecond early would be asked for again and again.
        let milliseconds = timeout.as_millis() as libc::c_int + 1;
        // SAFETY: the array lives through the call, which is told its length.
        let result = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) };
        if result < 0 {
            // A signal: what was asked for before is not an answer.
            polled.iter_mut().for_each(|polled| polled.revents = 0);
        }
    }

    /// Takes what has arrived at one socket, in a few batches at most.
    fn receive(&mut self, place: usize) {
        for _ in 0..BATCHES_A_TURN {
            let messages = match self.inbox.receive(self.outlets[place].socket.as_fd()) {
                Ok(messages) => messages,
                Err(error) => {
                    // What an ICMP message reported is reported once; the socket goes on.
                    if error.kind() != io::ErrorKind::WouldBlock {
                        self.receive_errors += 1;
                    }
                    return;
                }
            };
            let now = Instant::now();
            for number in 0..messages {
                self.pass_message(now, place, number);
            }
            self.flush_inbox();
            if messages < super::messages::BATCH {
                return;
            }
        }
    }

    /// Passes a message, which may be several frames.
    #[inline]
    fn pass_message(&mut self, now: Instant, place: usize, number: usize) {
        let message = self.inbox.message(number);
        let way = Way {
            socket: self.outlets[place].name,
            address: message.source,
            local_ip: message.local_ip,
        };
        let mut start = message.range.start;
        while start < message.range.end {
            let end = message.range.end.min(start + message.stride.max(1));
            let frame = &mut self.inbox.bytes()[start..end];
            match shard_of(frame, self.common.shards.len()) {
                Some(shard) if shard == self.number => {
                    let passage = self.relay.pass(now, &way, frame);
                    self.act(&passage, &way, start..end, None);
                }
                Some(shard) => {
                    self.misdirected += 1;
                    self.common.shards[shard].hand(way, frame);
                }
                None => {
                    self.misdirected += 1;
                    self.common.main.stray(way, frame);
                }
            }
            start = end;
            if self.runs.is_full() {
                self.flush_inbox();
            }
        }
    }

    /// Does what the relay said about the frame at `range`: of the inbox, or of `handed`.
    #[inline]
    fn act(&mut self, passage: &Passage, source: &Way, range: std::ops::Range<usize>, handed: Option<&mut Frames>) {
        match *passage {
            Passage::Forward { way, lane } => match self.outlets.iter().position(|outlet| outlet.name == way.socket) {
                Some(place) => {
                    let lane = self.outlets[place].takes_runs().then_some(lane);
                    self.runs.push(place, &way, lane, range.start, range.len());
                }
                None => {
                    let bytes = handed.map_or(self.inbox.bytes(), Frames::bytes);
                    self.common.main.to_tunnel(way, &bytes[range]);
                }
            },
            Passage::Answer => self.answer(source, range, handed),
            Passage::Kept | Passage::Dropped(_) => {}
        }
    }

    /// Answers in the frame's own place, which is long enough: no answer is longer than its request.
    #[cold]
    fn answer(&mut self, source: &Way, range: std::ops::Range<usize>, handed: Option<&mut Frames>) {
        let bytes = handed.map_or(self.inbox.bytes(), Frames::bytes);
        let answer = self.relay.answer();
        let length = answer.len().min(range.len());
        bytes[range.start..range.start + length].copy_from_slice(&answer[..length]);
        // What waited for this side is older than what this batch may still bring, and comes behind the answer.
        let mut waiting = self.relay.poll_waiting();
        match self.outlets.iter().position(|outlet| outlet.name == source.socket) {
            Some(place) if waiting.is_some() => {
                self.outlets[place].send_one(source, &bytes[range.start..range.start + length]);
            }
            Some(place) => self.runs.push(place, source, None, range.start, length),
            None => self
                .common
                .main
                .to_tunnel(*source, &bytes[range.start..range.start + length]),
        }
        while let Some(next) = waiting {
            let to = Way {
                socket: next.socket,
                address: next.destination,
                local_ip: next.local_ip,
            };
            match self.outlets.iter_mut().find(|outlet| outlet.name == to.socket) {
                Some(outlet) => outlet.send_one(&to, &next.frame),
                None => self.common.main.to_tunnel(to, &next.frame),
            }
            waiting = self.relay.poll_waiting();
        }
    }

    fn flush_inbox(&mut self) {
        for (own, outlet) in self.outlets.iter_mut().enumerate() {
            outlet.send_runs(own, &self.runs, self.inbox.bytes(), &mut self.outgoing);
        }
        self.runs.clear();
    }

    /// Passes what other threads handed over.
    fn pass_handed(&mut self) {
        let mut handed = std::mem::take(&mut self.handed);
        self.common.shards[self.number].frames.take(&mut handed);
        let now = Instant::now();
        for number in 0..handed.len() {
            let (way, start, length) = handed.entry(number);
            let range = start..start + length;
            let passage = self.relay.pass(now, &way, &mut handed.bytes()[range.clone()]);
            self.act(&passage, &way, range, Some(&mut handed));
            if self.runs.is_full() {
                self.flush(&mut handed);
            }
        }
        self.flush(&mut handed);
        handed.clear();
        self.handed = handed;
    }

    fn flush(&mut self, handed: &mut Frames) {
        for (own, outlet) in self.outlets.iter_mut().enumerate() {
            outlet.send_runs(own, &self.runs, handed.bytes(), &mut self.outgoing);
        }
        self.runs.clear();
    }

    /// Brings the figures that others see up to date.
    fn publish(&self) {
        let mut sum = OutletCounters::default();
        for outlet in &self.outlets {
            sum.send_errors += outlet.counters.send_errors;
            sum.blocked_drops += outlet.counters.blocked_drops;
        }
        *self.common.shards[self.number].counters.lock() = ForwarderCounters {
            relay: self.relay.counters(),
            misdirected: self.misdirected,
            socket_errors: sum.send_errors + self.receive_errors,
            blocked_drops: sum.blocked_drops,
            handed_dropped: 0,
        };
    }
}
