//! A node as callers see it. Any thread may call; whoever needs the engine locks it, everything else goes through the
//! outbox and the event queue.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::driver::{COALESCE, Driver, Turn};
use super::events::{EventQueue, EventWriter};
use super::failure::{Failure, words_of};
use super::options::{self, NodeOptions};
use super::outbox::{Outbox, Urgency};
use super::pool::{self, SocketPool};
use super::record::EventRecord;
use super::signals::{NodeIo, NodeSocket, Signals};
use super::spinning::Spinning;
use super::{identity_file, interfaces, runtime, udp};
use crate::codes::{Code, EventType, SendMode};
use crate::engine::SocketName;
use crate::peer::Node as PeerEngine;
use crate::peer::api::{Command, NodeConfig, RequestId, SideEffectAnswer, View};
use crate::transport::identity::{Guid, PublicKey};

/// The driver works, or will look into the outbox before it sleeps.
const AWAKE: u8 = 0;
/// The driver sleeps: the first send wakes it.
const SLEEPING: u8 = 1;
/// The driver has just sent and looks again by itself within [`COALESCE`]: only urgent things wake it.
const LINGERING: u8 = 2;
/// A wait has returned and the game is about to answer and to wait again, which does what is to be done: the background
/// task shall look in only if it does not.
const WAITED: u8 = 3;

/// How long a message that was sent behind a wait waits for the next one: longer than a game needs to come back to it,
/// shorter than a player notices.
const WAITED_PATIENCE: Duration = Duration::from_millis(1);

/// [`DIALOGUE`] waits in a row that ended within this time make the next one stay awake for [`STAY_AWAKE`]: the next answer
/// is as near, and two wake-ups of some 50 µs each are most of its round trip.
const ANSWERED_SOON: Duration = Duration::from_micros(200);
/// See [`ANSWERED_SOON`]: a burst that arrives in two parts is not a dialogue.
const DIALOGUE: u32 = 3;
/// See [`ANSWERED_SOON`]. Other threads that want to run go first all the time.
const STAY_AWAKE: Duration = Duration::from_micros(100);

/// How long a destroy that was given no time still waits for the background task to let go of the sockets. It is on its
/// way out; without this a port could not be bound again at once.
const LET_GO: Duration = Duration::from_millis(20);

/// A turn takes some 10 µs; this is for the case that its thread is not being scheduled.
const VIEW_PATIENCE: Duration = Duration::from_millis(1);

/// How long a burst may take to be waited for: some hundred messages. Where many threads want to run, this is the first
/// time that they let the background thread run again.
const BURST_PATIENCE: Duration = Duration::from_micros(50);

/// How often a destroy looks at connections that are closing.
const CLOSE_STEP: Duration = Duration::from_millis(5);

/// What the background task does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another turn.
    Again,
    /// Sleep until then at the latest.
    Sleep(Option<Instant>),
    /// The node is gone.
    Ended,
}

/// A node.
pub struct Node {
    own: Weak<Node>,
    key: PublicKey,
    guid: Guid,
    local_address: SocketAddr,
    /// The game chose the port, so it is the same the next time.
    port_chosen: bool,
    ios: Vec<NodeIo>,
    signals: Signals,
    driver: Mutex<Option<Driver>>,
    outbox: Mutex<Outbox>,
    events: Arc<EventQueue>,
    view: Mutex<Arc<View>>,
    /// [`AWAKE`], [`SLEEPING`] or [`LINGERING`].
    idle: AtomicU8,
    /// 0: the outbox is empty; 1: there is something; 2: something urgent.
    work: AtomicU8,
    /// A socket may hold something.
    readable: AtomicBool,
    waiting: AtomicBool,
    spinning: Spinning,
    /// Waits in a row that ended within [`ANSWERED_SOON`], with events.
    quick_waits: AtomicU32,
    closing: AtomicBool,
    dead: AtomicBool,
    /// The next turn panics.
    #[cfg(test)]
    fault: AtomicBool,
    ended: Mutex<bool>,
    ended_changed: Condvar,
    /// Keeps other nodes from using the identity.
    _identity_lock: Option<File>,
}

impl Node {
    /// Opens sockets, reads the identity, makes the engine. Nothing runs yet.
    ///
    /// # Errors
    /// IO, OUT_OF_RESOURCES, INVALID_ARGUMENT.
    pub fn create(options: NodeOptions) -> Result<Arc<Self>, Failure> {
        let loaded = identity_file::load(&options.identity_file)?;
        let sockets = runtime::inside(|| open_sockets(&options.bind))?;
        let port_chosen = options::bind_addresses(&options.bind)?.is_some_and(|address| address.port() != 0);
        let signals = Signals::new()
            .map_err(|error| Failure::new(Code::OutOfResources, format!("no file descriptors: {error}")))?;
        let bound: Vec<_> = sockets.iter().map(NodeSocket::local_address).collect();
        let identity = Arc::new(loaded.identity);
        let now = Instant::now();
        let engine = PeerEngine::new(
            now,
            NodeConfig {
                identity: identity.clone(),
                seed: identity_file::random_seed()?,
                crypto: crypto(),
                app: options.app,
                access_key: options.access_key,
                max_peers: options.max_peers as usize,
                lost_peer_timeout: Duration::from_millis(options.lost_peer_timeout_ms.into()),
                relay_policy: options.relay_policy,
                router_max: options.router_max as usize,
                accept_from: options.accept_from,
                join_auto: !options.join_manual,
                partial_mesh: options.partial_mesh,
                join_time_limit: Duration::from_millis(options.join_timeout_ms.into()),
                manual_address: options.public_address,
                sockets: sockets
                    .iter()
                    .map(|socket| (socket.name(), socket.local_address()))
                    .collect(),
                local_addresses: interfaces::addresses(&bound),
                max_sockets: pool::limit_of_node(),
            },
        );
        let events = EventWriter::new();
        let queue = events.queue().clone();
        let mut driver = Driver::new(now, engine, sockets, SocketPool::new(signals.pool().clone()), events);
        if let Some(notice) = loaded.notice {
            driver.say(EventType::Notice, Code::Ok.number(), &notice);
        }
        Ok(Arc::new_cyclic(|own| Self {
            own: own.clone(),
            key: identity.public(),
            guid: identity.guid(),
            local_address: bound[0],
            port_chosen,
            ios: driver.ios(),
            signals,
            driver: Mutex::new(Some(driver)),
            outbox: Mutex::default(),
            events: queue,
            view: Mutex::default(),
            idle: AtomicU8::new(AWAKE),
            work: AtomicU8::new(0),
            readable: AtomicBool::new(true),
            waiting: AtomicBool::new(false),
            spinning: Spinning::default(),
            quick_waits: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            #[cfg(test)]
            fault: AtomicBool::new(false),
            ended: Mutex::new(false),
            ended_changed: Condvar::new(),
            _identity_lock: loaded.lock,
        }))
    }

    /// Its guid.
    pub fn guid(&self) -> Guid {
        self.guid
    }

    /// Its public key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Where its first socket is bound.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// The game chose its port, so that it is the same the next time.
    pub fn port_is_chosen(&self) -> bool {
        self.port_chosen
    }

    /// Its sockets, to be watched.
    pub fn sockets(&self) -> &[NodeIo] {
        &self.ios
    }

    /// What wakes whoever drives it.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// A reference that does not keep it alive.
    pub fn weak(&self) -> Weak<Node> {
        self.own.clone()
    }

    /// It is being destroyed.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The game's side of the engine. Locked for moments only.
    pub fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock()
    }

    // ---- what games call ----

    /// Up to `capacity` events to `put`; returns how many.
    ///
    /// # Errors
    /// BUSY.
    #[inline]
    pub fn poll(&self, capacity: u32, put: impl FnMut(usize, EventRecord)) -> Result<i32, Failure> {
        match self.events.poll(capacity.min(i32::MAX as u32) as usize, put) {
            Ok((0, _)) => {
                if self.spinning.note_empty() {
                    // The background thread may be waiting for this very core.
                    thread::yield_now();
                }
                Ok(0)
            }
            Ok((count, wake)) => {
                self.spinning.note_events();
                if wake {
                    self.wake(Urgency::Now);
                }
                Ok(count as i32)
            }
            Err(super::events::Busy) => Err(Failure::new(Code::Busy, "another thread is polling this node")),
        }
    }

    /// Blocks until there are events (true) or the time is over (false), driving the node meanwhile.
    ///
    /// # Errors
    /// BUSY; INVALID_NODE if the node is destroyed meanwhile.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Failure> {
        if self.events.pending() > 0 {
            return Ok(true);
        }
        if timeout.is_zero() {
            return Ok(false);
        }
        if self.waiting.swap(true, Ordering::AcqRel) {
            return Err(Failure::new(Code::Busy, "another thread is waiting on this node"));
        }
        self.signals.waiter_comes();
        let began = Instant::now();
        let deadline = began + timeout;
        let quick = self.quick_waits.load(Ordering::Relaxed);
        let awake = (quick >= DIALOGUE).then(|| began + STAY_AWAKE);
        let (result, next) = loop {
            let next = self.turn();
            if self.events.pending() > 0 {
                break (Ok(true), next);
            }
            if self.is_closing() {
                let failure = Failure::new(Code::InvalidNode, "`node` was destroyed during the wait");
                break (Err(failure), next);
            }
            let now = Instant::now();
            if now >= deadline {
                break (Ok(false), next);
            }
            match next {
                Next::Again => {}
                Next::Sleep(until) => {
                    let until = until.map_or(deadline, |until| until.min(deadline));
                    if self.signals.wait(&self.ios, until, awake) {
                        self.note_readable();
                    }
                }
                // A dead node has nothing to wait for but its destruction.
                Next::Ended => {
                    self.signals.wait(&[], deadline, None);
                }
            }
        };
        let answered_soon = result == Ok(true) && began.elapsed() < ANSWERED_SOON;
        self.quick_waits.store(
            if answered_soon { quick.saturating_add(1) } else { 0 },
            Ordering::Relaxed,
        );
        if result.is_ok() {
            // The game is about to answer, and to come back; until then nobody needs to be woken.
            self.idle.store(WAITED, Ordering::SeqCst);
        }
        let until = match next {
            Next::Sleep(until) if self.work.load(Ordering::SeqCst) == 0 => until,
            // Something is left to do.
            _ => Some(Instant::now()),
        };
        self.signals.waiter_goes(until);
        self.waiting.store(false, Ordering::Release);
        result
    }

    /// Fails if `peer` is this node.
    ///
    /// # Errors
    /// SELF.
    pub fn not_self(&self, peer: Guid) -> Result<(), Failure> {
        if peer == self.guid {
            return Err(Failure::new(Code::Self_, "`peer` is this node itself"));
        }
        Ok(())
    }

    /// Fails if `peer` is not connected.
    ///
    /// # Errors
    /// NOT_CONNECTED.
    pub fn connected(&self, peer: Guid) -> Result<(), Failure> {
        if !self.outbox().is_connected(peer) {
            return Err(Failure::new(Code::NotConnected, "`peer` is not connected"));
        }
        Ok(())
    }

    /// Queues a command.
    ///
    /// # Errors
    /// QUEUE_FULL; INTERNAL if the node is dead.
    pub fn command(&self, command: Command) -> Result<(), Failure> {
        self.alive()?;
        self.outbox().command(command)?;
        self.wake(Urgency::Now);
        Ok(())
    }

    /// Queues a command with a fresh request id, which is returned.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn ask(&self, make: impl FnOnce(RequestId) -> Command) -> Result<RequestId, Failure> {
        self.alive()?;
        let request = self.outbox().ask(make)?;
        self.wake(Urgency::Now);
        Ok(request)
    }

    /// Queues a message for a connected player, or (`None`) for all of them.
    ///
    /// # Errors
    /// NOT_CONNECTED, QUEUE_FULL; INTERNAL if the node is dead.
    #[inline]
    pub fn send(&self, peer: Option<Guid>, channel: u8, mode: SendMode, data: &[u8]) -> Result<(), Failure> {
        self.alive()?;
        let urgency = match peer {
            Some(peer) => self.outbox().send(peer, channel, mode, data),
            None => self.outbox().send_all(channel, mode, data),
        }?;
        self.wake(urgency);
        Ok(())
    }

    /// Cancels a request.
    ///
    /// # Errors
    /// NOT_FOUND, QUEUE_FULL.
    pub fn cancel(&self, request: RequestId) -> Result<(), Failure> {
        if !self.outbox().is_open(request) {
            return Err(Failure::new(
                Code::NotFound,
                "`request` is not open: it has ended, or never was",
            ));
        }
        self.command(Command::Cancel { request })
    }

    /// What accessor calls show: as of now, or as of the last change if the engine is busy for longer than `VIEW_PATIENCE`.
    pub fn view(&self) -> Arc<View> {
        if let Some(mut driver) = self.driver.try_lock_for(VIEW_PATIENCE)
            && let Some(running) = driver.as_mut()
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| running.refresh_view_now(self, Instant::now())))
        {
            self.die(&mut driver, words_of(&*panic));
        }
        self.view.lock().clone()
    }

    /// Unreliable messages dropped because the game did not poll.
    pub fn unreliable_dropped(&self) -> u64 {
        self.events.dropped()
    }

    /// Events that wait for the poll.
    pub fn events_pending(&self) -> usize {
        self.events.pending()
    }

    fn alive(&self) -> Result<(), Failure> {
        if self.dead.load(Ordering::Acquire) {
            return Err(Failure::new(
                Code::Internal,
                "the node is dead (its FATAL event says why); destroy it",
            ));
        }
        Ok(())
    }

    // ---- what drives it ----

    /// An answer of the outside to the engine.
    pub fn answer(&self, answer: SideEffectAnswer) {
        self.outbox().answer(answer);
        self.wake(Urgency::Now);
    }

    /// A stream brought datagrams.
    pub fn tunnel_arrived(&self) {
        self.wake(Urgency::Now);
    }

    /// The machine's addresses changed.
    pub fn interfaces_changed(&self) {
        if self.alive().is_err() {
            return;
        }
        let bound: Vec<_> = self.ios.iter().filter_map(|io| io.local_addr().ok()).collect();
        self.answer(SideEffectAnswer::LocalAddresses(interfaces::addresses(&bound)));
    }

    /// Puts a new view in place.
    pub fn set_view(&self, view: Arc<View>) {
        *self.view.lock() = view;
    }

    /// Tells the driver that the outbox holds something.
    #[inline]
    fn wake(&self, urgency: Urgency) {
        let work = match urgency {
            Urgency::Soon => 1,
            Urgency::Now => 2,
        };
        // If it was said before, whoever said it has seen to the rest: the driver clears this before it looks.
        if self.work.load(Ordering::SeqCst) >= work {
            return;
        }
        self.work.fetch_max(work, Ordering::SeqCst);
        let idle = self.idle.load(Ordering::SeqCst);
        if idle == AWAKE || (idle == LINGERING && work < 2) {
            return;
        }
        let ours = self
            .idle
            .compare_exchange(idle, AWAKE, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        match (ours, idle, urgency) {
            (false, ..) => {}
            (true, WAITED, Urgency::Soon) => self.signals.notify_within(WAITED_PATIENCE),
            (true, WAITED, Urgency::Now) => self.signals.notify_within(Duration::ZERO),
            (true, ..) => self.signals.notify(),
        }
    }

    /// A socket may hold something.
    pub fn note_readable(&self) {
        self.readable.store(true, Ordering::Release);
    }

    /// The first message of a burst wakes the background thread, often in the place of the thread that sends: gives it the
    /// chance to go on, so that the burst leaves in one piece.
    fn let_burst_through(&self) {
        let began = Instant::now();
        let mut fresh = self.outbox().fresh();
        while fresh > 0 && self.work.load(Ordering::SeqCst) == 1 {
            thread::yield_now();
            let before = std::mem::replace(&mut fresh, self.outbox().fresh());
            if fresh == before || began.elapsed() >= BURST_PATIENCE {
                return;
            }
        }
    }

    /// A turn by the thread that waits.
    fn turn(&self) -> Next {
        let mut driver = self.driver.lock();
        self.turn_locked(&mut driver)
    }

    /// A turn by the background task, which never blocks: it serves other nodes as well.
    pub fn background_turn(&self) -> Next {
        if self.is_closing() {
            return Next::Ended;
        }
        let Some(mut driver) = self.driver.try_lock() else {
            // Somebody else is at it, and will be done before this.
            return Next::Sleep(Some(Instant::now() + COALESCE));
        };
        if driver.as_ref().is_some_and(Driver::expects_burst) {
            self.let_burst_through();
        }
        let pending = self.events.pending();
        let next = self.turn_locked(&mut driver);
        if self.waiting.load(Ordering::Acquire) && self.events.pending() > pending {
            // It may be asleep already, and would not see them.
            self.signals.notify();
        }
        next
    }

    fn turn_locked(&self, slot: &mut Option<Driver>) -> Next {
        let Some(driver) = slot.as_mut() else {
            return Next::Ended;
        };
        self.idle.store(AWAKE, Ordering::SeqCst);
        self.work.store(0, Ordering::SeqCst);
        let readable = self.readable.swap(false, Ordering::AcqRel);
        let turn = || {
            #[cfg(test)]
            assert!(
                !self.fault.load(Ordering::SeqCst),
                "this test breaks the engine on purpose"
            );
            driver.turn(self, readable)
        };
        match catch_unwind(AssertUnwindSafe(turn)) {
            Ok(turn) => {
                if turn.readable {
                    self.note_readable();
                }
                self.plan(turn)
            }
            Err(panic) => {
                self.die(slot, words_of(&*panic));
                Next::Ended
            }
        }
    }

    /// When to be back, and who may wake before.
    fn plan(&self, turn: Turn) -> Next {
        if turn.more {
            return Next::Again;
        }
        let (idle, enough) = if turn.linger { (LINGERING, 2) } else { (SLEEPING, 1) };
        self.idle.store(idle, Ordering::SeqCst);
        // Said before the store, it woke nobody.
        if self.work.load(Ordering::SeqCst) >= enough {
            self.idle.store(AWAKE, Ordering::SeqCst);
            return Next::Again;
        }
        if !turn.linger {
            return Next::Sleep(turn.until);
        }
        let soon = Instant::now() + COALESCE;
        Next::Sleep(Some(turn.until.map_or(soon, |until| until.min(soon))))
    }

    /// The driver, between two turns; `None`: it is gone.
    #[cfg(test)]
    pub fn with_driver<R>(&self, look: impl FnOnce(&mut Driver) -> R) -> Option<R> {
        self.driver.lock().as_mut().map(look)
    }

    /// Polls that let other threads go first.
    #[cfg(test)]
    pub fn polls_that_yielded(&self) -> u64 {
        self.spinning.told()
    }

    /// Makes the engine's next turn panic, and brings that turn about.
    #[cfg(test)]
    pub fn break_engine(&self) {
        self.fault.store(true, Ordering::SeqCst);
        self.wake(Urgency::Now);
    }

    /// The node cannot go on.
    pub fn fail(&self, why: &str) {
        self.die(&mut self.driver.lock(), why);
    }

    fn die(&self, slot: &mut Option<Driver>, why: &str) {
        self.dead.store(true, Ordering::Release);
        let Some(mut driver) = slot.take() else { return };
        let text = format!("the node is dead, destroy it; please report this fault inside the library: {why}");
        // What is left of the driver after a panic can be broken in any way.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            driver.say(EventType::Fatal, Code::Internal.number(), &text);
            drop(driver);
        }));
        self.signals.notify();
    }

    /// Ends everything: closes connections, gives that until `deadline` to leave, lets go of the sockets.
    pub fn close(&self, deadline: Instant) {
        self.closing.store(true, Ordering::SeqCst);
        self.signals.notify();
        {
            let mut driver = self.driver.lock();
            if let Some(driver) = driver.as_mut() {
                // A panic here changes nothing: the node goes anyway.
                let _ = catch_unwind(AssertUnwindSafe(|| self.say_goodbye(driver, deadline)));
            }
            let gone = driver.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(gone)));
        }
        self.signals.end();
        let until = deadline.max(Instant::now() + LET_GO);
        let mut ended = self.ended.lock();
        while !*ended && !self.ended_changed.wait_until(&mut ended, until).timed_out() {}
    }

    fn say_goodbye(&self, driver: &mut Driver, deadline: Instant) {
        driver.close(self);
        loop {
            let turn = driver.turn(self, true);
            let open = self.outbox().has_peers() || self.view.lock().server_connected || !driver.is_flushed();
            let now = Instant::now();
            if !open {
                return;
            }
            if now >= deadline {
                return driver.hang_up();
            }
            if !turn.more {
                let step = deadline.min(now + CLOSE_STEP);
                self.signals
                    .wait(&self.ios, turn.until.map_or(step, |until| until.min(step)), None);
            }
        }
    }

    /// The background task has let go of everything.
    pub fn background_ended(&self) {
        *self.ended.lock() = true;
        self.ended_changed.notify_all();
    }
}

/// TLS primitives, made once.
pub(super) fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    static CRYPTO: OnceLock<Arc<rustls::crypto::CryptoProvider>> = OnceLock::new();
    CRYPTO.get_or_init(|| Arc::new(super::crypto::provider())).clone()
}

/// The sockets that `bind` asks for: one, or (empty) IPv4 and IPv6 with the same port if that is free for both.
fn open_sockets(bind: &str) -> Result<Vec<NodeSocket>, Failure> {
    let open = |address: SocketAddr| {
        let name = if address.is_ipv4() {
            SocketName::Udp4
        } else {
            SocketName::Udp6
        };
        NodeSocket::bind_shared(name, address, udp::DEFAULT_BUFFER)
            .map_err(|error| Failure::io(format_args!("UDP socket {address}"), &error))
    };
    if let Some(address) = options::bind_addresses(bind)? {
        return Ok(vec![open(address)?]);
    }
    let v6 = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    match open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)) {
        Ok(v4) => {
            let port = v4.local_address().port();
            let second = open(v6(port)).or_else(|_| open(v6(0)));
            // A machine without IPv6 is fine.
            Ok([Some(v4), second.ok()].into_iter().flatten().collect())
        }
        // So is one without IPv4.
        Err(failure) => open(v6(0)).map(|v6| vec![v6]).map_err(|_| failure),
    }
}
