//! The streams of a server: TLS over TCP, for nodes in networks that let no UDP through.
//!
//! In: TCP connections, the engine's transmits for [`SocketName::Tunnel`]. Out: datagrams of such sockets, and which of them ended. A task accepts, and
//! each stream has a task of its own ([`crate::shell::tunnel::stream`]), all on the server's one thread.
//!
//! **Bounds.** Strangers open streams, so there are at most [`MAX_STREAMS`], [`MAX_OF_ADDRESS`] of an address and [`MAX_OF_NETWORK`] of its network, and of those
//! whose handshake is not done [`MAX_HANDSHAKES`], [`MAX_HANDSHAKES_OF_NETWORK`] of a network. A newcomer above its address' or network's share, or
//! above the whole, is closed without a word; of too many handshakes the oldest gives way, because a flood must not lock honest callers out. As
//! everywhere, private networks have sixteen times the share, and loopback has none of these by address or network.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::engine::{Datagram, SocketName};
use crate::scope::{Network, Scope, scope};
use crate::shell::tunnel::queue::Queue;
use crate::shell::tunnel::stream::{Arrived, Owner, Stream};

/// Streams in all. Each costs some 40 kB, and 400 kB with the system's buffers if its other side takes nothing.
pub const MAX_STREAMS: usize = 2_048;
/// Of one address: an office, a dormitory or a carrier's router with many players behind it.
pub const MAX_OF_ADDRESS: usize = 64;
/// Of one /24 or /56.
pub const MAX_OF_NETWORK: usize = 256;
/// Streams whose handshake is not done. It takes two round trips, so this is a thousand newcomers a second; each costs some 20 kB.
pub const MAX_HANDSHAKES: usize = 256;
/// Of one /24 or /56: everybody there comes back at once after the server was restarted, in a second or two.
pub const MAX_HANDSHAKES_OF_NETWORK: usize = 32;
/// See [`crate::server`]'s limits: strangers do not come from private networks.
const PRIVATE_FACTOR: usize = 16;
/// Connections that the system holds until they are accepted.
const BACKLOG: i32 = 1_024;
/// Datagrams that wait for the engine: a turn's worth. While it is full TCP holds the senders back.
const ARRIVED: usize = 512;
/// When the system has no descriptor left it says so without end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Entry {
    queue: Arc<Queue>,
    peer: SocketAddr,
    task: Option<AbortHandle>,
    handshake_done: bool,
}

/// Streams of a network.
#[derive(Default)]
struct Share {
    streams: usize,
    handshakes: usize,
}

#[derive(Default)]
struct Table {
    streams: BTreeMap<u32, Entry>,
    /// Numbers of those whose handshake is not done: the first is the oldest.
    handshakes: VecDeque<u32>,
    addresses: BTreeMap<IpAddr, usize>,
    networks: BTreeMap<Network, Share>,
    next: u32,
    counters: TunnelCounters,
}

/// Figures of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelCounters {
    /// Streams whose handshake is done, now.
    pub open: u64,
    /// Handshakes that run.
    pub handshakes: u64,
    /// Streams since the start whose handshake was done.
    pub opened: u64,
    /// Connections that were closed because of a limit.
    pub refused: u64,
    /// Handshakes that failed, took too long, or gave way.
    pub failed: u64,
}

impl Table {
    /// Takes a connection in, if the limits allow it. Of too many handshakes the oldest goes.
    fn admit(&mut self, peer: SocketAddr) -> Option<(u32, Arc<Queue>)> {
        if self.streams.len() >= MAX_STREAMS + MAX_HANDSHAKES || !self.has_share(peer.ip()) {
            self.counters.refused += 1;
            return None;
        }
        if self.handshakes.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.handshakes.front().copied()
        {
            self.handshake_failed(oldest);
        }
        // Numbers come back after four thousand million; one may still be in use then.
        while self.streams.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        let queue = Arc::new(Queue::default());
        let entry = Entry {
            queue: queue.clone(),
            peer,
            task: None,
            handshake_done: false,
        };
        self.streams.insert(number, entry);
        self.handshakes.push_back(number);
        *self.addresses.entry(peer.ip()).or_default() += 1;
        let share = self.networks.entry(Network::of(peer.ip())).or_default();
        share.streams += 1;
        share.handshakes += 1;
        Some((number, queue))
    }

    fn has_share(&self, ip: IpAddr) -> bool {
        let factor = match scope(ip) {
            Scope::Loopback => return true,
            Scope::Private => PRIVATE_FACTOR,
            Scope::Global | Scope::Unusable => 1,
        };
        let address = self.addresses.get(&ip).copied().unwrap_or_default();
        let network = self.networks.get(&Network::of(ip));
        address < MAX_OF_ADDRESS * factor
            && network.is_none_or(|share| {
                share.streams < MAX_OF_NETWORK * factor && share.handshakes < MAX_HANDSHAKES_OF_NETWORK * factor
            })
    }

    /// The stream is gone.
    fn remove(&mut self, number: u32) -> Option<Entry> {
        let entry = self.streams.remove(&number)?;
        let ip = entry.peer.ip();
        if !entry.handshake_done {
            self.handshakes.retain(|other| *other != number);
        }
        if let Some(share) = self.networks.get_mut(&Network::of(ip)) {
            share.streams -= 1;
            share.handshakes -= usize::from(!entry.handshake_done);
            if share.streams == 0 {
                self.networks.remove(&Network::of(ip));
            }
        }
        if let Some(count) = self.addresses.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&ip);
            }
        }
        Some(entry)
    }

    fn handshake_failed(&mut self, number: u32) {
        if let Some(gone) = self.remove(number) {
            gone.task.iter().for_each(AbortHandle::abort);
            self.counters.failed += 1;
        }
    }

    fn open(&self) -> usize {
        self.streams.len() - self.handshakes.len()
    }

    /// The handshake of a stream is done. False: there are too many.
    fn established(&mut self, number: u32) -> bool {
        if self.open() >= MAX_STREAMS {
            self.counters.refused += 1;
            return false;
        }
        let Some(entry) = self.streams.get_mut(&number) else {
            return false;
        };
        entry.handshake_done = true;
        self.handshakes.retain(|other| *other != number);
        if let Some(share) = self.networks.get_mut(&Network::of(entry.peer.ip())) {
            share.handshakes -= 1;
        }
        self.counters.opened += 1;
        true
    }
}

/// The listening sockets and all streams.
pub struct Tunnels {
    addresses: Vec<SocketAddr>,
    table: Arc<Mutex<Table>>,
    arrived: mpsc::Receiver<Arrived>,
    /// Streams that ended after their handshake. Bounded by [`MAX_STREAMS`]: each keeps its place in the table until this is read.
    ended: mpsc::UnboundedReceiver<u32>,
    batch: Vec<Arrived>,
    gone: Vec<u32>,
}

impl Tunnels {
    /// Listens on that port of each address. Must be called inside a tokio runtime with IO and time.
    ///
    /// # Errors
    /// The address that cannot be listened on. On a machine without IPv6 it is left out if `by_default`.
    pub fn open(
        listen: &[IpAddr],
        port: u16,
        tls: &Arc<rustls::ServerConfig>,
        by_default: bool,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let (sender, arrived) = mpsc::channel(ARRIVED);
        let (gone, ended) = mpsc::unbounded_channel();
        let table = Arc::new(Mutex::new(Table::default()));
        let owner = Owner {
            arrived: sender,
            wake: Arc::new(|| {}),
        };
        let (mut addresses, mut port): (Vec<SocketAddr>, u16) = (Vec::new(), port);
        for ip in listen {
            let address = SocketAddr::new(ip.to_canonical(), port);
            let listener = match bind(address) {
                Err(error) if by_default && address.is_ipv6() && super::sockets::no_ipv6(&error) => continue,
                result => result.map_err(|error| (address, error))?,
            };
            let bound = listener.local_addr().map_err(|error| (address, error))?;
            port = bound.port();
            addresses.push(bound);
            let acceptor = Acceptor {
                table: table.clone(),
                tls: tls.clone(),
                owner: owner.clone(),
                ended: gone.clone(),
            };
            tokio::spawn(acceptor.accept(listener));
        }
        Ok(Self {
            addresses,
            table,
            arrived,
            ended,
            batch: Vec::new(),
            gone: Vec::new(),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Figures since the start.
    pub fn counters(&self) -> TunnelCounters {
        let table = self.table.lock();
        TunnelCounters {
            open: table.open() as u64,
            handshakes: table.handshakes.len() as u64,
            ..table.counters
        }
    }

    /// Ready when a datagram has arrived or a stream has ended.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let arrived = !self.batch.is_empty()
            || self
                .arrived
                .poll_recv_many(context, &mut self.batch, ARRIVED)
                .is_ready();
        let ended = !self.gone.is_empty() || self.ended.poll_recv_many(context, &mut self.gone, ARRIVED).is_ready();
        if arrived || ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// What has arrived.
    pub fn receive(&mut self) -> impl Iterator<Item = Datagram> + use<'_> {
        self.batch.drain(..).map(|arrived| Datagram {
            socket: SocketName::Tunnel(arrived.number),
            source: arrived.source,
            destination_ip: None,
            ecn: None,
            contents: arrived.contents,
        })
    }

    /// Streams that ended, after everything that they brought.
    pub fn take_ended(&mut self) -> Vec<u32> {
        let gone = std::mem::take(&mut self.gone);
        let mut table = self.table.lock();
        for number in &gone {
            table.remove(*number);
        }
        gone
    }

    /// Queues a transmit.
    pub fn send(&self, number: u32, payload: &[u8], segment_size: Option<usize>) {
        // One that is gone takes what it is sent along.
        if let Some(entry) = self.table.lock().streams.get(&number) {
            entry.queue.send(payload, segment_size);
        }
    }

    /// Ends all streams, after what was sent to them.
    pub async fn close(&self) {
        let queues: Vec<_> = self
            .table
            .lock()
            .streams
            .values()
            .map(|entry| entry.queue.clone())
            .collect();
        for queue in &queues {
            queue.close();
        }
        for queue in &queues {
            queue.flushed().await;
        }
    }
}

/// Takes connections in.
#[derive(Clone)]
struct Acceptor {
    table: Arc<Mutex<Table>>,
    tls: Arc<rustls::ServerConfig>,
    owner: Owner,
    ended: mpsc::UnboundedSender<u32>,
}

impl Acceptor {
    async fn accept(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((tcp, peer)) => self.admit(tcp, crate::wire::unmapped(peer)),
                Err(error) => {
                    tracing::debug!("a TCP connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, tcp: TcpStream, peer: SocketAddr) {
        let Some((number, queue)) = self.table.lock().admit(peer) else {
            return;
        };
        let task = tokio::spawn(self.clone().carry(number, tcp, peer, queue));
        if let Some(entry) = self.table.lock().streams.get_mut(&number) {
            entry.task = Some(task.abort_handle());
        }
    }

    /// Carries a stream from its handshake to its end.
    async fn carry(self, number: u32, tcp: TcpStream, peer: SocketAddr, queue: Arc<Queue>) {
        let opened = match rustls::ServerConnection::new(self.tls.clone()) {
            Ok(tls) => {
                let mut stream = Stream::new(number, peer, tcp, tls, &queue, &self.owner);
                match stream.handshake().await {
                    Ok(()) if self.table.lock().established(number) => Ok(stream),
                    Ok(()) => Err("there are too many".to_owned()),
                    Err(end) => Err(end.to_string()),
                }
            }
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok(stream) => {
                let end = stream.run().await;
                tracing::trace!("the stream of {peer} has ended: {end}");
                queue.abandon();
                let _ = self.ended.send(number);
            }
            Err(why) => {
                tracing::trace!("no stream with {peer}: {why}");
                queue.abandon();
                self.table.lock().handshake_failed(number);
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the server before this one may not be over yet. (On Windows the option means that two may share a port.)
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_and_a_network_have_their_shares() {
        let mut table = Table::default();
        let mut admitted = |ip: &str, done: bool| match table.admit(peer(&format!("{ip}:5"))) {
            Some((number, _)) => !done || table.established(number),
            None => false,
        };
        for _ in 0..MAX_OF_ADDRESS {
            assert!(admitted("203.0.113.1", true));
        }
        assert!(!admitted("203.0.113.1", true));
        for _ in 0..MAX_HANDSHAKES_OF_NETWORK {
            assert!(admitted("203.0.113.2", false));
        }
        assert!(!admitted("203.0.113.3", false));
        for last in 0..4 {
            for _ in 0..MAX_OF_ADDRESS {
                assert!(admitted(&format!("198.51.100.{last}"), true));
            }
        }
        assert!(!admitted("198.51.100.77", true), "the network has its share");
        assert!(admitted("198.51.101.1", true));
        for _ in 0..2 * MAX_OF_NETWORK {
            assert!(admitted("127.0.0.1", true));
        }
        assert_eq!(table.counters.refused, 3);
    }

    #[test]
    fn a_flood_of_half_open_streams_pushes_out_the_oldest_and_nobody_else() {
        let mut table = Table::default();
        let (honest, _) = table.admit(peer("203.0.113.1:5")).unwrap();
        assert!(table.established(honest));
        for number in 0..10 * MAX_HANDSHAKES as u32 {
            let source = SocketAddr::from(((0x0b00_0000 + (number << 8)).to_be_bytes(), 1));
            assert!(table.admit(source).is_some());
            assert!(table.streams.len() <= 1 + MAX_HANDSHAKES);
        }
        assert!(table.streams.contains_key(&honest));
        let (newcomer, _) = table.admit(peer("203.0.113.1:6")).unwrap();
        assert!(table.established(newcomer));
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let mut table = Table::default();
        let sources = 0..2 * MAX_STREAMS as u32;
        let open = sources.filter(|number| {
            let source = SocketAddr::from(((0x0b00_0000 + (number << 8)).to_be_bytes(), 1));
            let admitted = table.admit(source).map(|(number, _)| number);
            admitted.is_some_and(|number| {
                let open = table.established(number);
                if !open {
                    table.handshake_failed(number);
                }
                open
            })
        });
        assert_eq!(open.count(), MAX_STREAMS);
    }
}
