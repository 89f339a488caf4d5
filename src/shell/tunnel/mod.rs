//! TLS streams over TCP, for nodes in networks that let no UDP through ([`crate::wire::tunnel`]).
//!
//! | file | what it does |
//! |---|---|
//! | this one | a node's streams: opened, fed and closed as its engine says |
//! | [`stream`] | one stream, at either end: a task in the background |
//! | [`queue`] | what waits to be written to one |
//!
//! In: the engine's side effects and transmits for [`SocketName::Tunnel`]. Out: datagrams of such sockets, and the answers
//! [`SideEffectAnswer::TunnelOpened`], [`SideEffectAnswer::TunnelFailed`], [`SideEffectAnswer::TunnelClosed`]. Which addresses are tried, and when, is the
//! engine's business (`peer/tunnel`).

pub mod queue;
pub mod stream;
#[cfg(all(test, feature = "program"))]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::node::Node;
use super::runtime;
use crate::codes::Code;
use crate::engine::{Datagram, SocketName};
use crate::peer::api::SideEffectAnswer;
use crate::transport::identity::PublicKey;
use crate::transport::tunnel_tls;
use queue::Queue;
use stream::{Arrived, End, Owner, Stream};

/// Until TCP's connection stands: the system repeats its first packet after one and three seconds.
const CONNECT_TIME: Duration = Duration::from_secs(4);
/// Datagrams that wait for the engine: a few milliseconds' worth at 100 Mbit/s. While it is full TCP holds the server back.
const ARRIVED: usize = 64;

/// A stream to open.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Its number, of the engine's choice.
    pub number: u32,
    /// The server's.
    pub address: SocketAddr,
    /// The key that it must prove; `None`: any.
    pub key: Option<PublicKey>,
    /// The local address that the node is bound to, if it is bound to one.
    pub from: Option<SocketAddr>,
}

/// The streams of a node.
pub struct Tunnels {
    owner: Owner,
    arrived: mpsc::Receiver<Arrived>,
    /// A handful.
    open: Vec<(u32, Arc<Queue>)>,
    /// Closed, with something left to write perhaps.
    leaving: Vec<Arc<Queue>>,
}

impl Tunnels {
    /// None yet.
    pub fn new(node: Weak<Node>) -> Self {
        let (sender, arrived) = mpsc::channel(ARRIVED);
        let wake = Arc::new(move || {
            if let Some(node) = node.upgrade() {
                node.tunnel_arrived();
            }
        });
        Self {
            owner: Owner { arrived: sender, wake },
            arrived,
            open: Vec::new(),
            leaving: Vec::new(),
        }
    }

    /// Begins to open a stream; the outcome is told to the node.
    pub fn open(&mut self, node: Weak<Node>, crypto: &CryptoProvider, order: Order) {
        // Those that ended by themselves; the engine opens a few at a time.
        self.open.retain(|(_, queue)| !queue.is_gone());
        self.leaving.retain(|queue| !queue.is_flushed());
        let queue = Arc::new(Queue::default());
        self.open.push((order.number, queue.clone()));
        let client = tunnel_tls::client(crypto, order.key);
        let (owner, told) = (self.owner.clone(), node.clone());
        let begun = runtime::spawn(async move {
            let answer = match client {
                Ok(client) => carry(&node, order, &client, &queue, &owner).await,
                Err(text) => failed(order.number, Code::Internal, text),
            };
            queue.abandon();
            tell(&node, answer);
        });
        if !begun {
            let text = "this process was forked".to_owned();
            tell(&told, failed(order.number, Code::Unsupported, text));
        }
    }

    /// Closes a stream, after what was sent before.
    pub fn close(&mut self, number: u32) {
        self.leaving.retain(|queue| !queue.is_flushed());
        if let Some(place) = self.open.iter().position(|(open, _)| *open == number) {
            let (_, queue) = self.open.swap_remove(place);
            queue.close();
            self.leaving.push(queue);
        }
    }

    /// Queues a transmit.
    pub fn send(&self, number: u32, payload: &[u8], segment_size: Option<usize>) {
        // The engine was told which there are; one may have ended since.
        if let Some((_, queue)) = self.open.iter().find(|(open, _)| *open == number) {
            queue.send(payload, segment_size);
        }
    }

    /// Hands over what has arrived, one batch. True if there may be more.
    pub fn receive(&mut self, mut take: impl FnMut(Datagram)) -> bool {
        for _ in 0..ARRIVED {
            let Ok(arrived) = self.arrived.try_recv() else {
                return false;
            };
            take(Datagram {
                socket: SocketName::Tunnel(arrived.number),
                source: arrived.source,
                destination_ip: None,
                ecn: None,
                contents: arrived.contents,
            });
        }
        true
    }

    /// Everything that was sent has been given to the system.
    pub fn is_flushed(&self) -> bool {
        self.open
            .iter()
            .map(|(_, queue)| queue)
            .chain(&self.leaving)
            .all(|queue| queue.is_flushed())
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.open.iter().for_each(|(_, queue)| queue.close());
    }
}

fn tell(node: &Weak<Node>, answer: SideEffectAnswer) {
    if let Some(node) = node.upgrade() {
        node.answer(answer);
    }
}

fn failed(tunnel: u32, code: Code, text: String) -> SideEffectAnswer {
    SideEffectAnswer::TunnelFailed { tunnel, code, text }
}

/// Opens a stream and carries it to its end; how that came.
async fn carry(
    node: &Weak<Node>,
    order: Order,
    client: &tunnel_tls::Client,
    queue: &Queue,
    owner: &Owner,
) -> SideEffectAnswer {
    let Order { number, address, .. } = order;
    let connecting = unless_closed(queue, tokio::time::timeout(CONNECT_TIME, connect(order)));
    let tcp = match connecting.await {
        Some(Ok(Ok(tcp))) => tcp,
        Some(Ok(Err(error))) => return failed(number, Code::NoAnswer, stream::tcp_words(&error)),
        Some(Err(_)) => return failed(number, Code::NoAnswer, "no answer".to_owned()),
        None => return failed(number, Code::Cancelled, String::new()),
    };
    // The name is not sent; TLS wants one.
    let name = ServerName::IpAddress(address.ip().into());
    let tls = match rustls::ClientConnection::new(client.config.clone(), name) {
        Ok(tls) => tls,
        Err(error) => return failed(number, Code::Internal, error.to_string()),
    };
    let mut stream = Stream::new(number, address, tcp, tls, queue, owner);
    match unless_closed(queue, stream.handshake()).await {
        Some(Ok(())) => {}
        Some(Err(end)) => return handshake_failed(number, &end, client.turned_down_key()),
        None => return failed(number, Code::Cancelled, String::new()),
    }
    tell(node, SideEffectAnswer::TunnelOpened { tunnel: number });
    let end = stream.run().await;
    SideEffectAnswer::TunnelClosed {
        tunnel: number,
        text: end.to_string(),
    }
}

fn handshake_failed(number: u32, end: &End, turned_down: Option<PublicKey>) -> SideEffectAnswer {
    match (end, turned_down) {
        (_, Some(key)) => failed(number, Code::WrongKey, format!("another key ({})", key.to_hex())),
        (End::Tls(_), None) => failed(number, Code::NoAnswer, "no Lanline server".to_owned()),
        (end, None) => failed(number, Code::NoAnswer, end.to_string()),
    }
}

async fn connect(order: Order) -> io::Result<TcpStream> {
    let socket = if order.address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A node that was bound to one interface stays there.
    if let Some(from) = order.from {
        socket.bind(SocketAddr::new(from.ip(), 0))?;
    }
    socket.connect(order.address).await
}

/// What comes of a future; `None`: the queue was closed before.
async fn unless_closed<T>(queue: &Queue, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut closed) = (pin!(future), pin!(queue.closed()));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        closed.as_mut().poll(context).map(|()| None)
    })
    .await
}
