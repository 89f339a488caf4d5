//! The forwarder on Linux, as the main loop sees it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::Notify;

use super::outlet::Outlet;
use super::queue::{Frames, Queue};
use super::shard::{Common, Mailbox, Shard};
use super::steering::{attach, shard_of};
use super::{ForwarderConfig, ForwarderCounters, Handed, MAX_SHARDS};
use crate::engine::SocketName;
use crate::relay::ticket::TicketKey;
use crate::relay::{Relay, RelayCounters, RelayShared, Way};
use crate::server::OutsideRelay;
use crate::shell::udp::{SERVER_BUFFER, UdpSocket as MainSocket};

/// Kernel buffer for sending, in the kernel's count: 1,400 small frames, 1.6 ms of a gigabit link. Longer queues help nobody: what
/// does not fit waits in the shard, where the oldest gives way.
const SEND_BUFFER: usize = 1 << 20;

/// What waits for the main loop.
#[derive(Default)]
pub struct MainQueues {
    tunnels: Queue,
    strays: Queue,
    notify: Notify,
}

impl MainQueues {
    /// A frame for a tunnel.
    pub fn to_tunnel(&self, way: Way, frame: &[u8]) {
        if self.tunnels.push(way, frame) {
            self.notify.notify_one();
        }
    }

    /// A datagram that is not a shard's.
    pub fn stray(&self, way: Way, frame: &[u8]) {
        if self.strays.push(way, frame) {
            self.notify.notify_one();
        }
    }
}

/// The relay that the threads are together, as the server's engine knows it.
#[derive(Clone)]
pub struct ForwarderRelay {
    common: Arc<Common>,
    shared: Arc<RelayShared>,
}

impl fmt::Debug for ForwarderRelay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ForwarderRelay({} threads)", self.common.shards.len())
    }
}

impl OutsideRelay for ForwarderRelay {
    fn counters(&self) -> RelayCounters {
        let mut sum = RelayCounters {
            // Those of the shards are a batch old; how many places are taken is known at once.
            sessions: self.shared.sessions() as u64,
            ..RelayCounters::default()
        };
        for shard in &self.common.shards {
            sum += RelayCounters {
                sessions: 0,
                ..shard.counters().relay
            };
        }
        sum
    }

    fn max_sessions(&self) -> u64 {
        self.shared.max_sessions() as u64
    }

    fn set_ticket_key(&self, now: Instant, key: TicketKey, ticket_time: u64) {
        self.shared.set_ticket_key(now, key, ticket_time);
    }
}

/// The threads that forward. Dropping it ends them.
pub struct Forwarder {
    common: Arc<Common>,
    shared: Arc<RelayShared>,
    threads: Vec<JoinHandle<()>>,
    taken: Mutex<Frames>,
}

impl Forwarder {
    /// Starts on the main loop's sockets. Returns when everything that arrives from now on comes where it belongs. No ticket is opened before
    /// [`relay`](Self::relay) is given a key.
    ///
    /// # Errors
    /// What the system says: no descriptors, no threads, a kernel that cannot steer. Then the sockets are as before but for their port being open to
    /// others of the same user, and nothing forwards.
    pub fn start(config: &ForwarderConfig, sockets: &[&MainSocket]) -> io::Result<Self> {
        let shards = config.shards.unwrap_or_else(default_shards).max(1);
        let groups: Vec<Vec<UdpSocket>> = sockets
            .iter()
            .map(|socket| open_group(socket.local_address(), socket.io().as_fd(), shards))
            .collect::<io::Result<_>>()?;
        let common = Arc::new(Common {
            shards: (0..shards).map(|_| Mailbox::new()).collect::<io::Result<_>>()?,
            main: MainQueues::default(),
        });
        let shared = Arc::new(RelayShared::new(Instant::now(), config.limits));
        let mut forwarder = Self {
            common: common.clone(),
            shared: shared.clone(),
            threads: Vec::new(),
            taken: Mutex::default(),
        };
        // Every shard takes its socket of every group.
        let mut members: Vec<_> = groups.into_iter().map(Vec::into_iter).collect();
        for number in 0..shards {
            let outlets: Vec<(SocketName, UdpSocket)> = sockets
                .iter()
                .zip(&mut members)
                .filter_map(|(socket, group)| Some((socket.name(), group.next()?)))
                .collect();
            let (common, shared) = (common.clone(), shared.clone());
            let thread = std::thread::Builder::new()
                .name(format!("relay-{number}"))
                .spawn(move || {
                    keep_running(number, || {
                        let copies = outlets.iter().map(|(name, socket)| Ok((*name, socket.try_clone()?)));
                        let outlets = copies
                            .map(|copy: io::Result<_>| copy.map(|(name, socket)| Outlet::new(name, socket)))
                            .collect::<io::Result<_>>()?;
                        let relay = Relay::shard(shared.clone());
                        Shard::new(number, common.clone(), relay, outlets).run();
                        Ok(())
                    });
                })?;
            forwarder.threads.push(thread);
        }
        Ok(forwarder)
    }

    /// For the server's engine.
    pub fn relay(&self) -> ForwarderRelay {
        ForwarderRelay {
            common: self.common.clone(),
            shared: self.shared.clone(),
        }
    }

    /// How many threads there are.
    pub fn shards(&self) -> usize {
        self.common.shards.len()
    }

    /// Takes a frame that came another way than to a shard's own socket: through a tunnel, or to the main loop's socket among others of the same
    /// sender. False: it is none for a relay.
    pub fn hand_in(&self, way: Way, frame: &[u8]) -> bool {
        let Some(shard) = shard_of(frame, self.shards()) else {
            return false;
        };
        self.common.shards[shard].hand(way, frame);
        true
    }

    /// Ready when there is something to [`take`](Self::take).
    pub async fn ready(&self) {
        self.common.main.notify.notified().await;
    }

    /// Gives `act` everything that the main loop is to do, and the frames to do it with.
    pub fn take(&self, mut act: impl FnMut(Handed, &[u8])) {
        let main = &self.common.main;
        let mut frames = self.taken.lock();
        for (queue, handed) in [
            (&main.tunnels, Handed::ToTunnel as fn(Way) -> Handed),
            (&main.strays, Handed::Stray),
        ] {
            queue.take(&mut frames);
            for number in 0..frames.len() {
                let (way, start, length) = frames.entry(number);
                act(handed(way), &frames.bytes()[start..start + length]);
            }
            frames.clear();
        }
    }

    /// Figures since the start.
    pub fn counters(&self) -> ForwarderCounters {
        let main = &self.common.main;
        let mut sum = ForwarderCounters {
            relay: self.relay().counters(),
            handed_dropped: main.tunnels.dropped() + main.strays.dropped(),
            ..ForwarderCounters::default()
        };
        for shard in &self.common.shards {
            let counters = shard.counters();
            sum.misdirected += counters.misdirected;
            sum.socket_errors += counters.socket_errors;
            sum.blocked_drops += counters.blocked_drops;
            sum.handed_dropped += counters.handed_dropped;
        }
        sum
    }
}

/// A thread ends within its batch.
impl Drop for Forwarder {
    fn drop(&mut self) {
        self.common.shards.iter().for_each(Mailbox::end);
        for thread in self.threads.drain(..) {
            // It reports its own faults.
            let _ = thread.join();
        }
    }
}

/// One a processor: forwarding is work without waiting.
fn default_shards() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(MAX_SHARDS))
}

/// Runs a shard until it ends. A fault of the program costs the shard's sessions, which their nodes begin anew, and not the server; the sockets, whose
/// places in their groups matter, outlive it.
fn keep_running(number: usize, mut run: impl FnMut() -> io::Result<()>) {
    loop {
        match catch_unwind(AssertUnwindSafe(&mut run)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::error!("relay thread {number} cannot go on: {error}");
                return;
            }
            Err(_) => tracing::error!("relay thread {number} failed and begins anew, without its sessions"),
        }
    }
}

/// Opens the shards' sockets at the address of the main loop's.
fn open_group(bound: SocketAddr, main: BorrowedFd<'_>, shards: usize) -> io::Result<Vec<UdpSocket>> {
    // Allowed behind the bind, which proved that the port was free.
    SockRef::from(&main).set_reuse_port(true)?;
    let group: Vec<UdpSocket> = (0..shards).map(|_| open_member(bound)).collect::<io::Result<_>>()?;
    attach(main, shards)?;
    Ok(group)
}

fn open_member(bound: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(bound), Type::DGRAM, Some(Protocol::UDP))?;
    let descriptor = socket.as_fd();
    if bound.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // More than what the system grants to everybody, if this process may. Less than what was asked for is no reason not to run.
    if set(
        descriptor,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        SERVER_BUFFER as libc::c_int,
    )
    .is_err()
    {
        let _ = socket.set_recv_buffer_size(SERVER_BUFFER);
    }
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    let (level, tell_address, discover, probe) = if bound.is_ipv4() {
        (
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        )
    } else {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        )
    };
    if bound.ip().is_unspecified() {
        set(descriptor, level, tell_address, 1)?;
    }
    // A packet that is too large is lost, so that the nodes' own search for the largest one finds the truth.
    let _ = set(descriptor, level, discover, probe);
    // As the main loop's: a sender's datagrams are coalesced for all of a group or for none.
    let _ = set(descriptor, libc::SOL_UDP, libc::UDP_GRO, 1);
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&bound.into())?;
    Ok(socket.into())
}

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives through the call, and is as long as is said.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
