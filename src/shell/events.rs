//! Events on their way from the engine to the game.
//!
//! One writer (whoever holds the engine), one reader (whoever polls). The writer fills a *chunk* — records and the bytes
//! they point to — without a lock and hands it over with a short one; the reader copies records out of the chunk that it
//! owns and gives it back with its next poll, which is how long data and text stay borrowed. So a poll allocates nothing,
//! an empty one takes no lock, and the lock is taken once a chunk.
//!
//! Bounds, while a game does not poll: unreliable messages drop their oldest and leave a DROPPED event in their place;
//! reliable ones are left with the engine (`EventQueue::reliable_room`), which holds their senders back; what happens
//! in a node's life is never dropped, and beyond [`MAX_LIFECYCLE`] the node takes in no new connections.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ffi::c_char;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::record::EventRecord;
use crate::codes::{EventType, SendMode};

/// Records in a chunk: 32 KiB of them, a few polls' worth.
const CHUNK_RECORDS: usize = 256;
/// Bytes of data and text in a chunk, unless one event alone needs more: about 100 a record.
const CHUNK_BYTES: usize = 32 << 10;
/// Chunks with larger arenas than this are not kept for reuse.
const KEPT_CHUNK_BYTES: usize = 256 << 10;
/// Empty chunks kept for reuse: enough that writer and reader never wait for each other in steady state.
const KEPT_CHUNKS: usize = 16;
/// Unreliable bytes that may wait: a second of 100 Mbit/s and more.
pub const MAX_UNRELIABLE_BYTES: usize = 16 << 20;
/// Unreliable messages that may wait: a second at 65,000 a second.
pub const MAX_UNRELIABLE: usize = 64 << 10;
/// Reliable bytes that may wait before senders are held back: eight of the largest messages.
pub const MAX_RELIABLE_BYTES: usize = 8 << 20;
/// Reliable messages that may wait before senders are held back.
pub const MAX_RELIABLE: usize = 64 << 10;
/// Other events that may wait before the node takes in no new connections.
pub const MAX_LIFECYCLE: usize = 4 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Unreliable,
    Reliable,
    Lifecycle,
}

fn class(record: &EventRecord) -> Class {
    if record.r#type != EventType::Message.number() {
        Class::Lifecycle
    } else if record.mode <= SendMode::UnreliableSequenced.number() {
        Class::Unreliable
    } else {
        Class::Reliable
    }
}

/// What waits, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    unreliable: usize,
    unreliable_bytes: usize,
    reliable: usize,
    reliable_bytes: usize,
    lifecycle: usize,
}

impl Load {
    fn count(&mut self, record: &EventRecord) {
        let bytes = record.data_len as usize;
        match class(record) {
            Class::Unreliable => {
                self.unreliable += 1;
                self.unreliable_bytes += bytes;
            }
            Class::Reliable => {
                self.reliable += 1;
                self.reliable_bytes += bytes;
            }
            Class::Lifecycle => self.lifecycle += 1,
        }
    }

    fn add(&mut self, other: &Load) {
        self.unreliable += other.unreliable;
        self.unreliable_bytes += other.unreliable_bytes;
        self.reliable += other.reliable;
        self.reliable_bytes += other.reliable_bytes;
        self.lifecycle += other.lifecycle;
    }

    fn subtract(&mut self, other: &Load) {
        self.unreliable -= other.unreliable;
        self.unreliable_bytes -= other.unreliable_bytes;
        self.reliable -= other.reliable;
        self.reliable_bytes -= other.reliable_bytes;
        self.lifecycle -= other.lifecycle;
    }

    fn reliable_room(&self) -> bool {
        self.reliable_bytes < MAX_RELIABLE_BYTES && self.reliable < MAX_RELIABLE
    }

    fn unreliable_over(&self) -> bool {
        self.unreliable_bytes > MAX_UNRELIABLE_BYTES || self.unreliable > MAX_UNRELIABLE
    }
}

/// Events and the bytes they point to. Inside a chunk `data` and `text` of a record are offsets into the arena.
struct Chunk {
    records: Vec<EventRecord>,
    arena: Vec<u8>,
    load: Load,
    /// Chunks that are put aside form a list, so that putting aside allocates nothing.
    next: Option<Box<Chunk>>,
}

impl Chunk {
    fn new() -> Box<Self> {
        Box::new(Self {
            records: Vec::with_capacity(CHUNK_RECORDS),
            arena: Vec::with_capacity(CHUNK_BYTES),
            load: Load::default(),
            next: None,
        })
    }

    fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.records.len() + records <= CHUNK_RECORDS && self.arena.len() + bytes <= CHUNK_BYTES
    }

    fn push(&mut self, mut record: EventRecord, data: &[u8], text: &[u8]) {
        record.data = ptr::without_provenance(self.arena.len());
        record.data_len = data.len() as u32;
        self.arena.extend_from_slice(data);
        record.text = ptr::without_provenance(self.arena.len());
        record.text_len = text.len() as u32;
        if !text.is_empty() {
            self.arena.extend_from_slice(text);
            self.arena.push(0);
        }
        self.load.count(&record);
        self.records.push(record);
    }

    fn data(&self, record: &EventRecord) -> &[u8] {
        let start = record.data.addr();
        &self.arena[start..start + record.data_len as usize]
    }

    fn text(&self, record: &EventRecord) -> &[u8] {
        let start = record.text.addr();
        &self.arena[start..start + record.text_len as usize]
    }

    /// The record with pointers instead of offsets.
    fn export(&self, index: usize) -> EventRecord {
        let mut record = self.records[index];
        record.data = if record.data_len == 0 {
            ptr::null()
        } else {
            self.data(&record).as_ptr()
        };
        record.text = if record.text_len == 0 {
            ptr::null()
        } else {
            self.text(&record).as_ptr().cast::<c_char>()
        };
        record
    }

    /// Copies everything behind what is in `self`.
    fn append(&mut self, other: &Chunk) {
        let shift = self.arena.len();
        self.arena.extend_from_slice(&other.arena);
        self.records.extend(other.records.iter().map(|record| {
            let mut record = *record;
            record.data = ptr::without_provenance(record.data.addr() + shift);
            record.text = ptr::without_provenance(record.text.addr() + shift);
            record
        }));
        self.load.add(&other.load);
    }

    fn clear(&mut self) {
        self.records.clear();
        self.arena.clear();
        self.load = Load::default();
    }
}

/// A list of chunks that are put aside.
#[derive(Default)]
struct ChunkList(Option<Box<Chunk>>);

impl ChunkList {
    fn push(&mut self, mut chunk: Box<Chunk>) {
        chunk.next = self.0.take();
        self.0 = Some(chunk);
    }

    fn pop(&mut self) -> Option<Box<Chunk>> {
        let mut chunk = self.0.take()?;
        self.0 = chunk.next.take();
        Some(chunk)
    }
}

impl Drop for ChunkList {
    // Not recursively: a long list would overflow the stack.
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// What writer and reader hand each other.
#[derive(Default)]
struct Handover {
    ready: VecDeque<Box<Chunk>>,
    free: ChunkList,
    free_count: usize,
    load: Load,
}

impl Handover {
    /// Takes a chunk back, emptied: whoever takes it next puts events behind what is in it.
    fn give_back(&mut self, mut chunk: Box<Chunk>) {
        chunk.clear();
        self.free.push(chunk);
        self.free_count += 1;
    }

    fn take_free(&mut self) -> Option<Box<Chunk>> {
        let chunk = self.free.pop()?;
        self.free_count -= 1;
        Some(chunk)
    }

    /// Removes the unreliable messages of the oldest chunk that has any. Returns how many that were, and how many
    /// events fewer there are. What stays is packed into the chunk before it, so that many half-empty chunks cannot pile up.
    fn drop_oldest(&mut self, time_us: u64) -> Option<(usize, usize)> {
        let index = self.ready.iter().position(|chunk| chunk.load.unreliable > 0)?;
        let old = self.ready.remove(index)?;
        self.load.subtract(&old.load);
        let (dropped, kept_bytes) = (old.load.unreliable, old.arena.len() - old.load.unreliable_bytes);
        let kept = old.records.len() - dropped;
        let into = index
            .checked_sub(1)
            .filter(|before| self.ready[*before].has_room(kept + 1, kept_bytes));
        let into = match into {
            Some(before) => before,
            None => {
                let chunk = self.take_free().unwrap_or_else(Chunk::new);
                self.ready.insert(index, chunk);
                index
            }
        };
        let target = &mut self.ready[into];
        self.load.subtract(&target.load);
        let before = target.records.len();
        note_dropped(target, dropped, time_us);
        for record in old.records.iter().filter(|record| class(record) != Class::Unreliable) {
            target.push(*record, old.data(record), old.text(record));
        }
        let added = target.records.len() - before;
        self.load.add(&target.load);
        let removed = old.records.len() - added;
        self.give_back(old);
        Some((dropped, removed))
    }
}

/// Adds to the DROPPED event at the chunk's end, or puts one there.
fn note_dropped(chunk: &mut Chunk, dropped: usize, time_us: u64) {
    let dropped = u32::try_from(dropped).unwrap_or(u32::MAX);
    if let Some(last) = chunk
        .records
        .last_mut()
        .filter(|last| last.r#type == EventType::Dropped.number())
    {
        last.count = last.count.saturating_add(dropped);
        return;
    }
    let record = EventRecord {
        r#type: EventType::Dropped.number(),
        time_us,
        count: dropped,
        ..EventRecord::default()
    };
    chunk.push(record, &[], &[]);
}

/// What only the poller touches.
#[derive(Default)]
struct Reader {
    current: Option<Box<Chunk>>,
    position: usize,
    /// Read to the end by the last poll; still borrowed.
    held: ChunkList,
}

/// The queue. Shared by writer and reader.
pub struct EventQueue {
    /// Events handed over and not yet taken.
    pending: AtomicUsize,
    handover: Mutex<Handover>,
    polling: AtomicBool,
    reader: UnsafeCell<Reader>,
    reliable_room: AtomicBool,
    lifecycle_room: AtomicBool,
    /// The writer left reliable messages with the engine and wants to hear of room.
    held_back: AtomicBool,
    dropped: AtomicU64,
    connects_fetched: AtomicU64,
}

// SAFETY: `reader` is only touched by who has set `polling`; everything else is atomic or locked.
unsafe impl Sync for EventQueue {}

/// Another thread is polling.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

impl EventQueue {
    fn new() -> Self {
        Self {
            pending: AtomicUsize::new(0),
            handover: Mutex::new(Handover::default()),
            polling: AtomicBool::new(false),
            reader: UnsafeCell::new(Reader::default()),
            reliable_room: AtomicBool::new(true),
            lifecycle_room: AtomicBool::new(true),
            held_back: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            connects_fetched: AtomicU64::new(0),
        }
    }

    /// Events that wait.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Unreliable messages dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Events CONNECTED that the game has taken so far.
    pub fn connects_fetched(&self) -> u64 {
        self.connects_fetched.load(Ordering::Acquire)
    }

    /// Whether new connections may be taken in.
    pub fn lifecycle_room(&self) -> bool {
        self.lifecycle_room.load(Ordering::Relaxed)
    }

    /// Hands up to `capacity` events to `put`, oldest first. `Ok((n, true))`: the writer had been held back and there is
    /// room again, so it must be woken.
    pub fn poll(&self, capacity: usize, mut put: impl FnMut(usize, EventRecord)) -> Result<(usize, bool), Busy> {
        if capacity == 0 || self.pending.load(Ordering::Acquire) == 0 {
            return Ok((0, false));
        }
        if self.polling.swap(true, Ordering::Acquire) {
            return Err(Busy);
        }
        // SAFETY: `polling` was false and is ours now.
        let reader = unsafe { &mut *self.reader.get() };
        let (mut taken, mut freed, mut connects) = (0, false, 0);
        let mut done = std::mem::take(&mut reader.held);
        if reader
            .current
            .as_ref()
            .is_some_and(|chunk| reader.position == chunk.records.len())
        {
            done.push(reader.current.take().expect("it is some"));
        }
        while taken < capacity {
            if let Some(chunk) = &reader.current {
                let until = reader.position + (chunk.records.len() - reader.position).min(capacity - taken);
                for index in reader.position..until {
                    let record = chunk.export(index);
                    connects += u64::from(record.r#type == EventType::Connected.number());
                    put(taken, record);
                    taken += 1;
                }
                reader.position = until;
                if taken == capacity {
                    break;
                }
            }
            let Some(next) = self.next_chunk(&mut done) else { break };
            freed = true;
            reader.position = 0;
            if let Some(read) = reader.current.replace(next) {
                reader.held.push(read);
            }
        }
        if done.0.is_some() {
            let mut handover = self.handover.lock();
            while let Some(chunk) = done.pop() {
                handover.give_back(chunk);
            }
        }
        if connects > 0 {
            self.connects_fetched.fetch_add(connects, Ordering::Release);
        }
        self.pending.fetch_sub(taken, Ordering::AcqRel);
        self.polling.store(false, Ordering::Release);
        let wake = freed && self.reliable_room.load(Ordering::SeqCst) && self.held_back.swap(false, Ordering::SeqCst);
        Ok((taken, wake))
    }

    /// The next chunk for the reader; takes back those that are read and no longer borrowed.
    fn next_chunk(&self, done: &mut ChunkList) -> Option<Box<Chunk>> {
        let mut handover = self.handover.lock();
        while let Some(chunk) = done.pop() {
            handover.give_back(chunk);
        }
        let chunk = handover.ready.pop_front()?;
        handover.load.subtract(&chunk.load);
        self.publish_room(&handover.load);
        Some(chunk)
    }

    fn publish_room(&self, load: &Load) {
        self.reliable_room.store(load.reliable_room(), Ordering::SeqCst);
        self.lifecycle_room
            .store(load.lifecycle < MAX_LIFECYCLE, Ordering::Relaxed);
    }
}

/// The writer's end of a queue.
pub struct EventWriter {
    queue: Arc<EventQueue>,
    chunk: Box<Chunk>,
}

impl EventWriter {
    /// A new queue.
    pub fn new() -> Self {
        Self {
            queue: Arc::new(EventQueue::new()),
            chunk: Chunk::new(),
        }
    }

    /// The reader's end.
    pub fn queue(&self) -> &Arc<EventQueue> {
        &self.queue
    }

    /// Whether the game takes more reliable messages. Asked before each event; false makes the queue remember that the
    /// writer wants to be woken when there is room.
    pub fn reliable_room(&self) -> bool {
        // The chunk in hand is bounded by CHUNK_BYTES and one message: it need not be counted.
        if self.queue.reliable_room.load(Ordering::Relaxed) {
            return true;
        }
        self.queue.held_back.store(true, Ordering::SeqCst);
        // The reader may have made room just before it could see the flag.
        self.queue.reliable_room.load(Ordering::SeqCst)
    }

    /// Adds an event. Its data and text are copied; those fields of `record` are set here.
    pub fn push(&mut self, record: EventRecord, data: &[u8], text: &str) {
        let bytes = data.len() + text.len() + 1;
        if !self.chunk.records.is_empty() && !self.chunk.has_room(1, bytes) {
            self.hand_over(record.time_us);
        }
        self.chunk.push(record, data, text.as_bytes());
    }

    /// Makes everything visible to the reader. Returns whether there was anything.
    pub fn hand_over(&mut self, time_us: u64) -> bool {
        let count = self.chunk.records.len();
        if count == 0 {
            return false;
        }
        let mut surplus = None;
        let mut lost = (0, 0);
        {
            let mut handover = self.queue.handover.lock();
            let load = self.chunk.load;
            handover.load.add(&load);
            let bytes = self.chunk.arena.len();
            match handover.ready.back_mut().filter(|last| last.has_room(count, bytes)) {
                // A few events more for a chunk that the reader has not taken yet: cheaper than a chunk of their own.
                Some(last) => {
                    last.append(&self.chunk);
                    self.chunk.clear();
                }
                None => {
                    let next = handover.take_free().unwrap_or_else(Chunk::new);
                    handover.ready.push_back(std::mem::replace(&mut self.chunk, next));
                }
            }
            while handover.load.unreliable_over() {
                let Some((dropped, removed)) = handover.drop_oldest(time_us) else {
                    break;
                };
                lost = (lost.0 + dropped, lost.1 + removed);
            }
            if handover.free_count > KEPT_CHUNKS {
                surplus = handover.take_free();
            }
            self.queue.publish_room(&handover.load);
            // Inside the lock: the reader must not take events before they are counted.
            self.queue.pending.fetch_add(count, Ordering::AcqRel);
            self.queue.pending.fetch_sub(lost.1, Ordering::AcqRel);
        }
        drop(surplus);
        self.queue.dropped.fetch_add(lost.0 as u64, Ordering::Relaxed);
        if self.chunk.arena.capacity() > KEPT_CHUNK_BYTES {
            self.chunk = Chunk::new();
        }
        true
    }
}

impl Default for EventWriter {
    fn default() -> Self {
        Self::new()
    }
}
