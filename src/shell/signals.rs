//! What wakes whom, on Linux: a node's sockets, one eventfd (something to do) and one timerfd (a deadline, to well below a
//! millisecond, which tokio's own timers are not).
//!
//! A node is driven by its background task ([`Sleeper`]) or, inside `lanline_wait`, by the waiting thread
//! ([`Signals::wait`]). While a thread waits, the background task *stands back*: it takes the sockets out of its epoll set,
//! so that a datagram wakes one thread and not two. It comes back when no thread has come to wait again by the time at
//! which something is to be done: a moment after the game has sent something, `STAND_IN` after the last wait at the
//! latest. Setting a timer costs as much as sending a datagram (10 µs on a virtual machine), so one that is set is left
//! alone: if it goes off while a thread waits, or too early, it is set anew only then.

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
use super::pool::Watch;

/// A node's socket: system calls directly, readiness from whoever drives.
pub type NodeIo = Arc<std::net::UdpSocket>;
/// A node's socket.
pub type NodeSocket = super::udp::UdpSocket<NodeIo>;

/// How long after a wait has returned, or after a send that followed it, the background task takes over what is to be
/// done: longer than a server's loop needs to come back to its wait, shorter than a player notices.
const HAND_BACK: Duration = Duration::from_micros(500);
/// The same if there is nothing to do but to look for datagrams: a game that computes for so long between two waits does
/// not read its events meanwhile anyway; the other side's round trip is what may grow by it.
const STAND_IN: Duration = Duration::from_millis(16);

/// Who drives.
#[derive(Default)]
struct Turns {
    /// A thread is inside `lanline_wait`.
    waiter: bool,
    /// When the background task is to come back, since the last one left it.
    due: Option<Instant>,
    /// The background task watches nothing but the timer.
    standing_back: bool,
    /// For when the timer is set while standing back. It may go off although this is `None`.
    alarm: Option<Instant>,
}

impl Turns {
    /// Sees to it that the timer goes off at `due` at the latest.
    fn alarm_by(&mut self, timer: &OwnedFd, now: Instant, due: Instant) {
        if self.alarm.is_none_or(|alarm| alarm > due) {
            set_timer(timer, due.saturating_duration_since(now));
            self.alarm = Some(due);
        }
    }
}

/// A node's eventfd and timerfd. The timer belongs to the background task; a waiter sets it only while that one stands back.
pub struct Signals {
    event: Arc<OwnedFd>,
    timer: Arc<OwnedFd>,
    /// The node's further sockets.
    pool: Arc<Watch>,
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
            pool: Arc::default(),
            turns: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// What watches the node's further sockets.
    pub fn pool(&self) -> &Arc<Watch> {
        &self.pool
    }

    /// Wakes whoever drives the node.
    pub fn notify(&self) {
        let one = 1u64;
        // SAFETY: eight bytes are valid for the read. A full counter wakes as well.
        unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// The game does something behind its wait: whoever drives the node sees to it by `within` at the latest.
    pub fn notify_within(&self, within: Duration) {
        let mut turns = self.turns.lock();
        if turns.waiter || !turns.standing_back {
            drop(turns);
            self.notify();
            return;
        }
        let now = Instant::now();
        let due = now + within;
        turns.due = Some(turns.due.map_or(due, |earlier| earlier.min(due)));
        turns.alarm_by(&self.timer, now, due);
    }

    /// Wakes everybody for good, even a background task that stands back: the node is gone.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.notify();
        set_timer(&self.timer, Duration::ZERO);
    }

    /// A thread begins to drive.
    pub fn waiter_comes(&self) {
        self.turns.lock().waiter = true;
    }

    /// It has stopped driving; the node wants its next turn at `until`.
    pub fn waiter_goes(&self, until: Option<Instant>) {
        let mut turns = self.turns.lock();
        turns.waiter = false;
        let now = Instant::now();
        let latest = now + STAND_IN;
        let due = until.map_or(latest, |until| until.clamp(now + HAND_BACK, latest));
        turns.due = Some(due);
        if turns.standing_back {
            turns.alarm_by(&self.timer, now, due);
        } else {
            // It shall not wait for a datagram to learn that it is in charge.
            self.notify();
        }
    }

    /// Whether the background task has to stand back (or go on doing so, its timer having gone off). Sets the timer for
    /// its return.
    fn stand_back(&self) -> bool {
        let mut turns = self.turns.lock();
        let now = Instant::now();
        let due = turns.due.filter(|due| *due > now);
        turns.standing_back = !self.ended.load(Ordering::Acquire) && (turns.waiter || due.is_some());
        turns.alarm = None;
        if let (true, false, Some(due)) = (turns.standing_back, turns.waiter, due) {
            turns.alarm_by(&self.timer, now, due);
        }
        turns.standing_back
    }

    /// Blocks the calling thread until a socket is readable (true), somebody notifies, or the time has come. Until `awake`
    /// it only lets other threads go first: coming back from there costs much less than waking up.
    pub fn wait(&self, sockets: &[NodeIo], until: Instant, awake: Option<Instant>) -> bool {
        let mut watched = [libc::pollfd {
            fd: self.event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }; MAX_WATCHED];
        let sockets = sockets.iter().take(MAX_WATCHED - 2).map(|socket| socket.as_raw_fd());
        let mut count = 0;
        for (entry, descriptor) in watched[1..].iter_mut().zip(sockets.chain(self.pool.now())) {
            entry.fd = descriptor;
            count += 1;
        }
        let mut look = |time: Duration| {
            let time = timespec(time);
            // SAFETY: the array and the time are valid for the call.
            unsafe { libc::ppoll(watched.as_mut_ptr(), count as libc::nfds_t + 1, &time, std::ptr::null()) }
        };
        let mut ready = 0;
        while ready == 0 && awake.is_some_and(|awake| Instant::now() < awake.min(until)) {
            std::thread::yield_now();
            ready = look(Duration::ZERO);
        }
        if ready == 0 {
            ready = look(until.saturating_duration_since(Instant::now()));
        }
        if ready > 0 && watched[0].revents != 0 && !self.ended.load(Ordering::SeqCst) {
            clear(&self.event);
        }
        ready > 0 && watched[1..].iter().any(|entry| entry.revents != 0)
    }
}

/// A node has two sockets, and one descriptor for all its further ones; some room for later.
const MAX_WATCHED: usize = 8;

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: duration.subsec_nanos() as _,
    }
}

/// Sets the timer.
fn set_timer(timer: &OwnedFd, after: Duration) {
    // A timer of zero would be stopped.
    let value = after.max(Duration::from_nanos(1));
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

/// A timer that is set already may be late by this part of the time that is left: pacing's deadlines, below a millisecond,
/// stay as exact as a thread's wake-up is.
const LATENESS: u32 = 8;

/// Sets the timer unless it goes off soon enough: an earlier alarm only wakes for nothing, which is cheaper than setting it
/// anew with each datagram, and one that is late by [`LATENESS`] is as good (QUIC's timers move a little with each
/// acknowledgement).
fn arm(armed: &mut Option<Instant>, timer: &OwnedFd, until: Instant) {
    let rest = until.saturating_duration_since(Instant::now());
    if armed.is_none_or(|armed| armed > until + rest / LATENESS) {
        set_timer(timer, rest);
        *armed = Some(until);
    }
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
    /// For all further sockets, once there was one.
    pool: Option<AsyncFd<Arc<OwnedFd>>>,
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
            pool: None,
            event: watch(node.signals().event.clone())?,
        })
    }

    /// Further sockets came to be since the last sleep. What they hold already counts as new.
    fn add_pool(&mut self, pool: &Watch) -> io::Result<()> {
        if let (None, Some(descriptor)) = (&self.pool, pool.descriptor()) {
            self.pool = Some(watch(descriptor.clone())?);
        }
        Ok(())
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
            let Some(watched) = &mut self.watched else {
                // Back again: whatever came in between is waiting.
                node.note_readable();
                self.watched = Some(Watched::new(node)?);
                return Ok(());
            };
            watched.add_pool(&signals.pool)?;
            if let Some(until) = until {
                arm(&mut self.armed, &signals.timer, until);
            }
            let fired = any_ready(node, watched, &self.timer).await?;
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
async fn any_ready(node: &Node, watched: &Watched, timer: &AsyncFd<Arc<OwnedFd>>) -> io::Result<bool> {
    std::future::poll_fn(|context| {
        let (mut ready, mut fired) = (false, false);
        for socket in &watched.sockets {
            // Readiness is edge-triggered: forget it first, then the turn reads until the socket is empty.
            if let Poll::Ready(guard) = socket.poll_read_ready(context) {
                guard?.clear_ready();
                node.note_readable();
                ready = true;
            }
        }
        if let Some(pool) = &watched.pool
            && let Poll::Ready(guard) = pool.poll_read_ready(context)
        {
            guard?.clear_ready();
            node.note_readable();
            ready = true;
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
