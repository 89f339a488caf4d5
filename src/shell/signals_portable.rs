//! What wakes whom, where there is no eventfd: the background task always drives, on tokio's readiness and timers (to a
//! millisecond); a thread that waits is told by it.

use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::node::Node;
use super::pool::Watch;

/// A node's socket: system calls and readiness through tokio.
pub type NodeIo = Arc<tokio::net::UdpSocket>;
/// A node's socket.
pub type NodeSocket = super::udp::UdpSocket<NodeIo>;

/// Wakes the background task and a thread that waits.
pub struct Signals {
    background: Notify,
    /// The node's further sockets.
    pool: Arc<Watch>,
    told: Mutex<bool>,
    changed: Condvar,
}

impl Signals {
    /// Never fails here.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            background: Notify::new(),
            pool: Arc::default(),
            told: Mutex::new(false),
            changed: Condvar::new(),
        })
    }

    /// What watches the node's further sockets.
    pub fn pool(&self) -> &Arc<Watch> {
        &self.pool
    }

    /// Wakes whoever drives the node, and who waits for its events.
    pub fn notify(&self) {
        self.background.notify_one();
        *self.told.lock() = true;
        self.changed.notify_all();
    }

    /// As [`notify`](Self::notify): the background task never stands back.
    pub fn notify_within(&self, _within: Duration) {
        self.notify();
    }

    /// Wakes everybody: the node is gone.
    pub fn end(&self) {
        self.notify();
    }

    /// A thread begins to wait.
    pub fn waiter_comes(&self) {}

    /// It has stopped waiting.
    pub fn waiter_goes(&self, _until: Option<Instant>) {
        self.notify();
    }

    /// Blocks the calling thread until somebody notifies, or the time has come. Always false: sockets are the background
    /// task's.
    pub fn wait(&self, _sockets: &[NodeIo], until: Instant, _awake: Option<Instant>) -> bool {
        let mut told = self.told.lock();
        while !*told && !self.changed.wait_until(&mut told, until).timed_out() {}
        *told = false;
        false
    }
}

/// How the background task of a node sleeps.
pub struct Sleeper;

impl Sleeper {
    /// Must be called inside the runtime.
    pub fn new(_node: &Node) -> io::Result<Self> {
        Ok(Self)
    }

    /// Returns when there may be something to do for the background task, at `until` at the latest.
    pub async fn sleep(&mut self, node: &Node, until: Option<Instant>) -> io::Result<()> {
        let readable = std::future::poll_fn(|context| {
            for socket in node.sockets() {
                if let Poll::Ready(result) = socket.poll_recv_ready(context) {
                    node.note_readable();
                    return Poll::Ready(result);
                }
            }
            let pool = node.signals().pool.poll_readable(context);
            if pool.is_ready() {
                node.note_readable();
            }
            pool
        });
        let until = until.unwrap_or_else(|| Instant::now() + FAR);
        let mut readable = std::pin::pin!(readable);
        let mut notified = std::pin::pin!(node.signals().background.notified());
        let mut timer = std::pin::pin!(tokio::time::sleep_until(until.into()));
        std::future::poll_fn(|context| {
            if let Poll::Ready(result) = readable.as_mut().poll(context) {
                return Poll::Ready(result);
            }
            if notified.as_mut().poll(context).is_ready() || timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await
    }
}

/// Without a deadline the task looks once a minute.
const FAR: Duration = Duration::from_secs(60);
