//! What the game wants sent or done, on its way to the engine.
//!
//! Each connected player has two *lanes* (reliable, unreliable): contiguous bytes, a small header before each message. A
//! send appends to the lane under a short lock; the driver swaps the whole lane for an empty one and works it off without
//! the lock. While the engine does not take a player's messages, its lane is not swapped, fills up to its bound, and the
//! game is told QUEUE_FULL. Nothing allocates once the lanes have grown.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::failure::Failure;
use crate::codes::{Code, SendMode};
use crate::peer::api::{Command, RequestId, SideEffectAnswer};
use crate::peer::requests::FIRST_OWN;
use crate::transport::identity::Guid;

/// Reliable bytes that a player's lane holds: one of the largest messages, and a frame's worth at 60 MB/s. Twice as much leaves the
/// core's cache before the driver reads it.
pub const RELIABLE_LANE: usize = 1 << 20;
/// Unreliable bytes that a player's lane holds: eight of the largest messages; much more would only be stale on arrival.
pub const UNRELIABLE_LANE: usize = 512 << 10;
/// A lane that was swapped and needed less than this gives larger memory back.
const KEPT_LANE: usize = 64 << 10;
/// Commands that may wait; the driver takes them all with every turn.
const MAX_COMMANDS: usize = 4096;
/// Requests that may be open: more than one for each of 1024 players, several times over.
const MAX_REQUESTS: usize = 16 << 10;
/// The numbers behind this one are the engine's own.
const LAST_REQUEST: RequestId = FIRST_OWN - 1;
/// Bytes before each message: length, channel, mode.
const HEADER: usize = 8;

/// Which lane a mode uses.
fn lane_of(mode: SendMode) -> usize {
    match mode {
        SendMode::Unreliable | SendMode::UnreliableSequenced => 0,
        SendMode::Reliable | SendMode::ReliableOrdered => 1,
    }
}

/// Bounds of the lanes, by [`lane_of`].
const LANE_BOUNDS: [usize; 2] = [UNRELIABLE_LANE, RELIABLE_LANE];

/// Messages of one player and class that the driver is working off.
#[derive(Default)]
pub struct Lane {
    bytes: Vec<u8>,
    position: usize,
}

/// A message of a lane.
#[derive(Debug, PartialEq, Eq)]
pub struct Queued<'a> {
    /// 0 to 63.
    pub channel: u8,
    /// How it travels.
    pub mode: SendMode,
    /// The payload.
    pub data: &'a [u8],
}

impl Lane {
    /// The oldest message, if there is one.
    pub fn first(&self) -> Option<Queued<'_>> {
        let header = self.bytes.get(self.position..self.position + HEADER)?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let start = self.position + HEADER;
        Some(Queued {
            channel: header[4],
            mode: SendMode::from_number(header[5])?,
            data: &self.bytes[start..start + length],
        })
    }

    /// Done with the oldest message, which had `length` bytes.
    pub fn advance(&mut self, length: usize) {
        self.position += HEADER + length;
    }

    /// Nothing left.
    pub fn is_empty(&self) -> bool {
        self.position >= self.bytes.len()
    }
}

/// A player's lanes as the driver holds them.
#[derive(Default)]
pub struct Lanes(pub [Lane; 2]);

impl Lanes {
    /// Nothing left in either.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Lane::is_empty)
    }
}

#[derive(Default)]
struct Peer {
    lanes: [Vec<u8>; 2],
    /// It is in the list of those with something new.
    listed: bool,
}

/// How soon the driver must hear of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// With its next flush.
    Soon,
    /// At once: a command, or a lane that is half full.
    Now,
}

/// The game's side. Lives behind a mutex.
#[derive(Default)]
pub struct Outbox {
    peers: FxHashMap<Guid, Peer>,
    listed: Vec<Guid>,
    commands: VecDeque<Command>,
    answers: VecDeque<SideEffectAnswer>,
    requests: FxHashSet<RequestId>,
    last_request: RequestId,
    /// Messages since the last take.
    fresh: usize,
}

impl Outbox {
    /// Messages queued since the driver took the last ones.
    pub fn fresh(&self) -> usize {
        self.fresh
    }

    /// A player connected.
    pub fn connected(&mut self, peer: Guid) {
        self.peers.entry(peer).or_default();
    }

    /// A player is gone; what waited for it is dropped.
    pub fn disconnected(&mut self, peer: Guid) {
        self.peers.remove(&peer);
    }

    /// Who is connected, by guid.
    pub fn peers(&self) -> Vec<Guid> {
        let mut peers: Vec<_> = self.peers.keys().copied().collect();
        peers.sort_unstable();
        peers
    }

    /// Whether anybody is connected.
    pub fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// Whether that player is connected.
    pub fn is_connected(&self, peer: Guid) -> bool {
        self.peers.contains_key(&peer)
    }

    /// Queues a message for one player.
    pub fn send(&mut self, peer: Guid, channel: u8, mode: SendMode, data: &[u8]) -> Result<Urgency, Failure> {
        let Some(slot) = self.peers.get_mut(&peer) else {
            return Err(Failure::new(Code::NotConnected, "`peer` is not connected"));
        };
        if !slot.has_room(mode, data.len()) {
            return Err(full());
        }
        self.fresh += 1;
        Ok(slot.append(peer, &mut self.listed, channel, mode, data))
    }

    /// Queues a message for everybody: a reliable one for all or none, an unreliable one for those with room.
    pub fn send_all(&mut self, channel: u8, mode: SendMode, data: &[u8]) -> Result<Urgency, Failure> {
        let reliable = lane_of(mode) == 1;
        if reliable && self.peers.values().any(|peer| !peer.has_room(mode, data.len())) {
            return Err(full());
        }
        let (mut urgency, mut sent) = (Urgency::Soon, self.peers.is_empty());
        for (guid, peer) in &mut self.peers {
            if peer.has_room(mode, data.len()) {
                sent = true;
                self.fresh += 1;
                if peer.append(*guid, &mut self.listed, channel, mode, data) == Urgency::Now {
                    urgency = Urgency::Now;
                }
            }
        }
        if sent { Ok(urgency) } else { Err(full()) }
    }

    /// Queues a command.
    pub fn command(&mut self, command: Command) -> Result<(), Failure> {
        if self.commands.len() >= MAX_COMMANDS {
            return Err(Failure::new(
                Code::QueueFull,
                "too many calls in one moment; poll and try again",
            ));
        }
        self.commands.push_back(command);
        Ok(())
    }

    /// Queues a command with a fresh request id.
    pub fn ask(&mut self, make: impl FnOnce(RequestId) -> Command) -> Result<RequestId, Failure> {
        if self.requests.len() >= MAX_REQUESTS {
            return Err(Failure::new(Code::QueueFull, "too many requests are open"));
        }
        let mut request = self.last_request;
        loop {
            request = if request >= LAST_REQUEST { 1 } else { request + 1 };
            if !self.requests.contains(&request) {
                break;
            }
        }
        self.command(make(request))?;
        self.requests.insert(request);
        self.last_request = request;
        Ok(request)
    }

    /// Whether that request is still open.
    pub fn is_open(&self, request: RequestId) -> bool {
        self.requests.contains(&request)
    }

    /// A request's event was written.
    pub fn ended(&mut self, request: RequestId) {
        self.requests.remove(&request);
    }

    /// An answer of the outside to the engine.
    pub fn answer(&mut self, answer: SideEffectAnswer) {
        self.answers.push_back(answer);
    }

    /// Moves everything to the driver's side: `lanes` are swapped where the driver's are empty, and the players that
    /// have something now are added to `active`.
    pub fn take(
        &mut self,
        lanes: &mut FxHashMap<Guid, Lanes>,
        active: &mut Vec<Guid>,
        commands: &mut VecDeque<Command>,
        answers: &mut VecDeque<SideEffectAnswer>,
    ) {
        self.fresh = 0;
        let Self { peers, listed, .. } = self;
        listed.retain(|guid| {
            let Some(peer) = peers.get_mut(guid) else { return false };
            let taken = lanes.entry(*guid).or_default();
            let idle = taken.is_empty();
            for (from, to) in peer.lanes.iter_mut().zip(&mut taken.0) {
                if to.is_empty() {
                    swap(from, to);
                }
            }
            if idle && !taken.is_empty() {
                active.push(*guid);
            }
            peer.listed = peer.lanes.iter().any(|lane| !lane.is_empty());
            peer.listed
        });
        if commands.is_empty() {
            std::mem::swap(commands, &mut self.commands);
        } else {
            commands.append(&mut self.commands);
        }
        answers.append(&mut self.answers);
    }
}

fn full() -> Failure {
    Failure::new(
        Code::QueueFull,
        "the queue for `peer` is full: the network is slower than the game; poll and try again",
    )
}

fn swap(from: &mut Vec<u8>, to: &mut Lane) {
    let used = to.bytes.len();
    to.bytes.clear();
    if used < KEPT_LANE && to.bytes.capacity() > 4 * KEPT_LANE {
        to.bytes.shrink_to(KEPT_LANE);
    }
    to.position = 0;
    std::mem::swap(from, &mut to.bytes);
}

impl Peer {
    fn has_room(&self, mode: SendMode, length: usize) -> bool {
        let lane = lane_of(mode);
        let used = self.lanes[lane].len();
        used == 0 || used + HEADER + length <= LANE_BOUNDS[lane]
    }

    fn append(&mut self, own: Guid, listed: &mut Vec<Guid>, channel: u8, mode: SendMode, data: &[u8]) -> Urgency {
        let index = lane_of(mode);
        let lane = &mut self.lanes[index];
        lane.reserve(HEADER + data.len());
        let length = (data.len() as u32).to_le_bytes();
        lane.extend_from_slice(&[length[0], length[1], length[2], length[3], channel, mode.number(), 0, 0]);
        lane.extend_from_slice(data);
        let half = LANE_BOUNDS[index] / 2;
        // Only the message that crosses the half is urgent: the ones behind it find the driver awake.
        let urgency = if lane.len() >= half && lane.len() - (HEADER + data.len()) < half {
            Urgency::Now
        } else {
            Urgency::Soon
        };
        if !self.listed {
            self.listed = true;
            listed.push(own);
        }
        urgency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Side {
        lanes: FxHashMap<Guid, Lanes>,
        active: Vec<Guid>,
        commands: VecDeque<Command>,
        answers: VecDeque<SideEffectAnswer>,
    }

    impl Side {
        fn new() -> Self {
            Self {
                lanes: FxHashMap::default(),
                active: Vec::new(),
                commands: VecDeque::new(),
                answers: VecDeque::new(),
            }
        }
        fn take(&mut self, outbox: &mut Outbox) {
            outbox.take(&mut self.lanes, &mut self.active, &mut self.commands, &mut self.answers);
        }
        fn drain(&mut self, peer: Guid) -> Vec<(u8, SendMode, Vec<u8>)> {
            let mut out = Vec::new();
            for lane in &mut self.lanes.get_mut(&peer).unwrap().0 {
                while let Some(message) = lane.first() {
                    out.push((message.channel, message.mode, message.data.to_vec()));
                    let length = message.data.len();
                    lane.advance(length);
                }
            }
            out
        }
    }

    const PEER: Guid = Guid(7);

    #[test]
    fn messages_of_a_lane_keep_their_order_and_content() {
        let (mut outbox, mut side) = (Outbox::default(), Side::new());
        outbox.connected(PEER);
        for index in 0..100u8 {
            outbox
                .send(
                    PEER,
                    index % 64,
                    SendMode::ReliableOrdered,
                    &vec![index; index as usize],
                )
                .unwrap();
        }
        side.take(&mut outbox);
        assert_eq!(side.active, [PEER]);
        let messages = side.drain(PEER);
        assert_eq!(messages.len(), 100);
        for (index, message) in messages.iter().enumerate() {
            let expected = (index as u8 % 64, SendMode::ReliableOrdered, vec![index as u8; index]);
            assert_eq!(message, &expected);
        }
    }

    #[test]
    fn a_full_lane_pushes_back_and_the_other_lane_does_not_care() {
        let (mut outbox, mut side) = (Outbox::default(), Side::new());
        outbox.connected(PEER);
        let data = vec![0; 60_000];
        let mut taken = 0;
        while outbox.send(PEER, 0, SendMode::Unreliable, &data).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, UNRELIABLE_LANE / (data.len() + HEADER));
        assert_eq!(
            outbox.send(PEER, 0, SendMode::Unreliable, &data).unwrap_err().code,
            Code::QueueFull
        );
        outbox.send(PEER, 0, SendMode::Reliable, &data).unwrap();
        // The driver cannot get rid of its lane: the game's side fills once more, and then is full for good.
        side.take(&mut outbox);
        while outbox.send(PEER, 0, SendMode::Unreliable, &data).is_ok() {
            taken += 1;
        }
        side.take(&mut outbox);
        assert!(outbox.send(PEER, 0, SendMode::Unreliable, &data).is_err());
        assert_eq!(side.drain(PEER).len(), taken / 2 + 1);
        side.take(&mut outbox);
        assert_eq!(side.drain(PEER).len(), taken / 2);
        outbox.send(PEER, 0, SendMode::Unreliable, &data).unwrap();
    }

    #[test]
    fn the_largest_message_always_fits_an_empty_lane() {
        let mut outbox = Outbox::default();
        outbox.connected(PEER);
        let data = vec![0; crate::codes::MAX_RELIABLE_MESSAGE];
        assert_eq!(outbox.send(PEER, 0, SendMode::Reliable, &data), Ok(Urgency::Now));
        assert_eq!(
            outbox
                .send(PEER, 0, SendMode::Reliable, &data)
                .map_err(|failure| failure.code),
            Err(Code::QueueFull)
        );
    }

    #[test]
    fn reliable_to_all_is_all_or_none_and_unreliable_skips_the_full() {
        let (mut outbox, mut side) = (Outbox::default(), Side::new());
        let other = Guid(8);
        outbox.connected(PEER);
        outbox.connected(other);
        for mode in [SendMode::Reliable, SendMode::Unreliable] {
            while outbox.send(PEER, 0, mode, &[0; 30_000]).is_ok() {}
        }
        let big = [1; 30_000];
        assert!(outbox.send_all(0, SendMode::Reliable, &big).is_err());
        outbox.send_all(0, SendMode::Unreliable, &big).unwrap();
        side.take(&mut outbox);
        assert_eq!(side.drain(other), [(0, SendMode::Unreliable, big.to_vec())]);
    }

    #[test]
    fn strangers_and_the_departed_are_not_connected() {
        let mut outbox = Outbox::default();
        let code = |outbox: &mut Outbox| outbox.send(PEER, 0, SendMode::Reliable, b"x").unwrap_err().code;
        assert_eq!(code(&mut outbox), Code::NotConnected);
        outbox.connected(PEER);
        outbox.send(PEER, 0, SendMode::Reliable, b"x").unwrap();
        outbox.disconnected(PEER);
        assert_eq!(code(&mut outbox), Code::NotConnected);
        let mut side = Side::new();
        side.take(&mut outbox);
        assert!(side.active.is_empty());
    }

    #[test]
    fn request_ids_are_never_zero_nor_open_twice() {
        let mut outbox = Outbox {
            last_request: LAST_REQUEST - 1,
            ..Outbox::default()
        };
        let ask = |outbox: &mut Outbox| outbox.ask(|request| Command::DisconnectServer { request }).unwrap();
        assert_eq!([ask(&mut outbox), ask(&mut outbox)], [LAST_REQUEST, 1]);
        outbox.last_request = LAST_REQUEST;
        assert_eq!(ask(&mut outbox), 2);
        outbox.ended(1);
        assert!(!outbox.is_open(1) && outbox.is_open(2));
    }

    #[test]
    fn commands_are_bounded() {
        let mut outbox = Outbox::default();
        for _ in 0..MAX_COMMANDS {
            outbox.command(Command::Cancel { request: 1 }).unwrap();
        }
        assert_eq!(
            outbox.command(Command::Cancel { request: 1 }).unwrap_err().code,
            Code::QueueFull
        );
    }
}
