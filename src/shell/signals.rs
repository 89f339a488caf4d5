//! What wakes whom, on Linux: a node's sockets, one eventfd (something to do) and one timerfd (a deadline, to well below a
//! millisecond, which tokio's own timers are not).
//!
//! A node is driven by its background task ([`Sleeper`]) or, inside `lanline_wait`, by the waiting thread
//! ([`Signals::wait`]). While a thread waits, the background task *stands back*: it takes the sockets out of its epoll set,
//! so that a datagram wakes one thread and not two. It comes back `HAND_BACK` after the last wait has returned.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::node::Node;

/// A node's socket: system calls directly, readiness from whoever drives.
pub type NodeIo = Arc<std::net::UdpSocket>;
/// A node's socket.
pub type NodeSocket = super::udp::UdpSocket<NodeIo>;

/// How long after a wait has returned the background task takes the sockets back: longer than a server's loop needs to
/// come back to its wait, shorter than a player notices.
const HAND_BACK: Duration = Duration::from_micros(500);

/// Who drives.
#[derive(Default)]
struct Turns {
    /// A thread is inside `lanline_wait`.
    waiter: bool,
    /// When the last one left it.
    left: Option<Instant>,
    /// The background task watches nothing but the timer.
    standing_back: bool,
}

/// A node's eventfd and timerfd. The timer belongs to the background task; a waiter sets it only while that one stands back.
pub struct Signals {
    event: Arc<OwnedFd>,
    timer: Arc<OwnedFd>,
    turns: Mutex<Turns>,
    /// The node is gone: the event stays set.
    ended: AtomicBool,
}

fn owned(result: RawFd) -> io::Result<Arc<OwnedFd>> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a file descriptor that was just made and belongs to nobody else.
    Ok(Arc::new(unsafe { OwnedFd::from_raw_fd(result) }))
}

impl Signals {
    /// Fails if the process has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are involved.
        let (event, timer) = unsafe {
            (
                owned(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?,
                owned(libc::timerfd_create(
                    libc::CLOCK_MONOTONIC,
                    libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
                ))?,
            )
        };
        Ok(Self {
            event,
            timer,
            turns: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// Wakes whoever drives the node.
    pub fn notify(&self) {
        let one = 1u64;
        // SAFETY: eight bytes are valid for the read. A full counter wakes as well.
        unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Wakes everybody for good, even a background task that stands back: the node is gone.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.notify();
        set_timer(&self.timer, Some(Duration::ZERO));
    }

    /// A thread begins to drive.
    pub fn waiter_comes(&self) {
        let mut turns = self.turns.lock();
        turns.waiter = true;
        if turns.standing_back {
            set_timer(&self.timer, None);
        }
    }

    /// It has stopped driving.
    pub fn waiter_goes(&self) {
        let mut turns = self.turns.lock();
        turns.waiter = false;
        turns.left = Some(Instant::now());
        if turns.standing_back {
            set_timer(&self.timer, Some(HAND_BACK));
        } else {
            // It shall not wait for a datagram to learn that it is in charge.
            self.notify();
        }
    }

    /// Whether the background task has to stand back (or go on doing so). Sets the timer for its return.
    fn stand_back(&self) -> bool {
        let mut turns = self.turns.lock();
        let rest = turns.left.and_then(|left| HAND_BACK.checked_sub(left.elapsed()));
        turns.standing_back = !self.ended.load(Ordering::Acquire) && (turns.waiter || rest.is_some());
        if turns.standing_back {
            set_timer(&self.timer, if turns.waiter { None } else { rest });
        }
        turns.standing_back
    }

    /// Blocks the calling thread until a socket is readable, somebody notifies, or the time has come.
    pub fn wait(&self, sockets: &[NodeIo], until: Instant) {
        let mut watched = [libc::pollfd {
            fd: self.event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }; MAX_WATCHED];
        let count = sockets.len().min(MAX_WATCHED - 1);
        for (entry, socket) in watched[1..].iter_mut().zip(&sockets[..count]) {
            entry.fd = socket.as_raw_fd();
        }
        let time = timespec(until.saturating_duration_since(Instant::now()));
        // SAFETY: the array and the time are valid for the call.
        let ready = unsafe { libc::ppoll(watched.as_mut_ptr(), count as libc::nfds_t + 1, &time, std::ptr::null()) };
        if ready > 0 && watched[0].revents != 0 && !self.ended.load(Ordering::SeqCst) {
            clear(&self.event);
        }
    }
}

/// A node has two sockets; some room for later.
const MAX_WATCHED: usize = 8;

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: duration.subsec_nanos() as _,
    }
}

/// Sets or (with `None`) stops the timer.
fn set_timer(timer: &OwnedFd, after: Option<Duration>) {
    // A timer of zero would be stopped.
    let value = after.map_or(Duration::ZERO, |after| after.max(Duration::from_nanos(1)));
    let setting = libc::itimerspec {
        it_interval: timespec(Duration::ZERO),
        it_value: timespec(value),
    };
    // SAFETY: the setting is valid for the call; the old one is not asked for.
    unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &setting, std::ptr::null_mut()) };
}

/// Empties an eventfd or timerfd.
fn clear(descriptor: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: eight bytes are valid for the write.
    unsafe { libc::read(descriptor.as_raw_fd(), (&raw mut count).cast(), 8) };
}

/// How the background task of a node sleeps.
pub struct Sleeper {
    timer: AsyncFd<Arc<OwnedFd>>,
    /// Sockets and eventfd; `None` while standing back.
    watched: Option<Watched>,
    armed: Option<Instant>,
}

struct Watched {
    sockets: Vec<AsyncFd<NodeIo>>,
    event: AsyncFd<Arc<OwnedFd>>,
}

fn watch<T: AsRawFd>(descriptor: Arc<T>) -> io::Result<AsyncFd<Arc<T>>> {
    // SAFETY: the Arc keeps the descriptor open, and it stays the same.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

impl Watched {
    fn new(node: &Node) -> io::Result<Self> {
        Ok(Self {
            sockets: node
                .sockets()
                .iter()
                .map(|socket| watch(socket.clone()))
                .collect::<io::Result<_>>()?,
            event: watch(node.signals().event.clone())?,
        })
    }
}

impl Sleeper {
    /// Must be called inside the runtime.
    pub fn new(node: &Node) -> io::Result<Self> {
        Ok(Self {
            timer: watch(node.signals().timer.clone())?,
            watched: Some(Watched::new(node)?),
            armed: None,
        })
    }

    /// Returns when there may be something to do for the background task, at `until` at the latest.
    pub async fn sleep(&mut self, node: &Node, until: Option<Instant>) -> io::Result<()> {
        let signals = node.signals();
        loop {
            if signals.stand_back() {
                self.watched = None;
                self.armed = None;
                self.timer.readable().await?.clear_ready();
                clear(&signals.timer);
                if node.is_closing() {
                    return Ok(());
                }
                continue;
            }
            let Some(watched) = &self.watched else {
                // Back again: whatever came in between is waiting.
                self.watched = Some(Watched::new(node)?);
                return Ok(());
            };
            // An earlier alarm only wakes for nothing, which is cheaper than setting it anew with each datagram.
            if let Some(until) = until
                && self.armed.is_none_or(|armed| armed > until)
            {
                set_timer(&signals.timer, Some(until.saturating_duration_since(Instant::now())));
                self.armed = Some(until);
            }
            let fired = any_ready(watched, &self.timer).await?;
            if fired {
                clear(&signals.timer);
                self.armed = None;
            }
            if !signals.stand_back() {
                return Ok(());
            }
        }
    }
}

/// Waits for any of them; true if the timer was among them.
async fn any_ready(watched: &Watched, timer: &AsyncFd<Arc<OwnedFd>>) -> io::Result<bool> {
    std::future::poll_fn(|context| {
        let (mut ready, mut fired) = (false, false);
        for socket in &watched.sockets {
            // Readiness is edge-triggered: forget it first, then the turn reads until the socket is empty.
            if let Poll::Ready(guard) = socket.poll_read_ready(context) {
                guard?.clear_ready();
                ready = true;
            }
        }
        if let Poll::Ready(guard) = watched.event.poll_read_ready(context) {
            // Not emptied: that is for a waiting thread, which must not miss it. Each write is an edge of its own.
            guard?.clear_ready();
            ready = true;
        }
        if let Poll::Ready(guard) = timer.poll_read_ready(context) {
            guard?.clear_ready();
            (ready, fired) = (true, true);
        }
        if ready { Poll::Ready(Ok(fired)) } else { Poll::Pending }
    })
    .await
}
