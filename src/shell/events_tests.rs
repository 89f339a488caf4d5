//! Tests of the event queue: bounds, order, recycling, allocations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::events::*;
use super::record::EventRecord;
use crate::codes::{EventType, SendMode};

fn message(mode: SendMode, number: u32) -> EventRecord {
    EventRecord {
        r#type: EventType::Message.number(),
        mode: mode.number(),
        count: number,
        ..EventRecord::default()
    }
}

fn lifecycle(number: u32) -> EventRecord {
    EventRecord {
        r#type: EventType::Connected.number(),
        count: number,
        ..EventRecord::default()
    }
}

/// An event with what it pointed to.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    kind: u32,
    count: u32,
    data: Vec<u8>,
    text: String,
}

fn see(event: &EventRecord) -> Seen {
    let bytes = |pointer: *const u8, length: u32| {
        if pointer.is_null() {
            assert_eq!(length, 0);
            return Vec::new();
        }
        // SAFETY: borrowed until the next poll, which has not happened yet.
        unsafe { std::slice::from_raw_parts(pointer, length as usize) }.to_vec()
    };
    if !event.text.is_null() {
        // SAFETY: as above, one byte further.
        assert_eq!(
            unsafe { *event.text.add(event.text_len as usize) },
            0,
            "text ends with NUL"
        );
    }
    Seen {
        kind: event.r#type,
        count: event.count,
        data: bytes(event.data, event.data_len),
        text: String::from_utf8(bytes(event.text.cast(), event.text_len)).unwrap(),
    }
}

fn poll(queue: &EventQueue, capacity: usize) -> Vec<Seen> {
    let mut events = Vec::new();
    queue
        .poll(capacity, |index, event| {
            assert_eq!(index, events.len());
            events.push(event);
        })
        .unwrap();
    events.iter().map(see).collect()
}

#[test]
fn events_come_out_as_they_went_in_whatever_the_batches() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    let (mut written, mut read) = (0u32, 0u32);
    // Steps of co-prime sizes make every kind of boundary between chunks, hand-overs and polls.
    for step in 0..400u32 {
        for _ in 0..step % 37 {
            let data = vec![written as u8; (written * 31 % 500) as usize];
            let text = if written.is_multiple_of(3) {
                format!("text {written}")
            } else {
                String::new()
            };
            writer.push(message(SendMode::Reliable, written), &data, &text);
            written += 1;
        }
        writer.hand_over(0);
        for seen in poll(&queue, (step % 41) as usize) {
            assert_eq!(seen.count, read);
            assert_eq!(seen.data, vec![read as u8; (read * 31 % 500) as usize]);
            assert_eq!(
                seen.text,
                if read.is_multiple_of(3) {
                    format!("text {read}")
                } else {
                    String::new()
                }
            );
            read += 1;
        }
        assert_eq!(queue.pending() as u32, written - read);
    }
    assert_eq!(poll(&queue, usize::MAX).len() as u32, written - read);
    assert!(poll(&queue, 10).is_empty());
}

#[test]
fn data_stays_borrowed_until_the_next_poll_that_finds_something() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    let mut events = Vec::new();
    for round in 0..50u8 {
        for _ in 0..300 {
            writer.push(message(SendMode::Reliable, 0), &[round; 100], "");
        }
        writer.hand_over(0);
        events.clear();
        queue.poll(300, |_, event| events.push(event)).unwrap();
        // The writer goes on meanwhile, over whatever chunks it finds free.
        for _ in 0..300 {
            writer.push(message(SendMode::Reliable, 0), &[255; 100], "");
        }
        writer.hand_over(0);
        assert!(events.iter().all(|event| see(event).data == [round; 100]));
        assert_eq!(poll(&queue, 1000).len(), 300);
    }
}

#[test]
fn unreliable_messages_over_the_bound_drop_their_oldest_and_say_how_many() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    let total = 3 * MAX_UNRELIABLE as u32;
    for number in 0..total {
        // Something that must not be dropped, now and then.
        if number.is_multiple_of(1000) {
            writer.push(lifecycle(number), &[], "kept");
            writer.push(message(SendMode::ReliableOrdered, number), b"kept", "");
        }
        writer.push(message(SendMode::Unreliable, number), &number.to_le_bytes(), "");
    }
    writer.hand_over(7);
    let events = poll(&queue, usize::MAX);
    let of = |kind: EventType| events.iter().filter(move |event| event.kind == kind.number());
    let unreliable: Vec<_> = of(EventType::Message).filter(|event| event.data != b"kept").collect();
    let dropped: u32 = of(EventType::Dropped).map(|event| event.count).sum();
    assert_eq!(unreliable.len() as u32 + dropped, total);
    assert_eq!(u64::from(dropped), queue.dropped());
    assert!(
        unreliable.len() <= MAX_UNRELIABLE && unreliable.len() > MAX_UNRELIABLE - 512,
        "{}",
        unreliable.len()
    );
    // The newest are there, whole and in order.
    for (event, number) in unreliable.iter().zip(dropped..) {
        assert_eq!((event.count, &event.data[..]), (number, &number.to_le_bytes()[..]));
    }
    let kept: Vec<_> = of(EventType::Connected).map(|event| event.count).collect();
    assert_eq!(kept, (0..total).step_by(1000).collect::<Vec<_>>());
    assert_eq!(events.iter().filter(|event| event.data == b"kept").count(), kept.len());
    // The gaps are noted where they are, and not once a chunk.
    assert!(
        of(EventType::Dropped).count() <= kept.len() + 1,
        "{}",
        of(EventType::Dropped).count()
    );
    assert_eq!(queue.pending(), 0);
}

#[test]
fn unreliable_bytes_are_bounded_too() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    let data = vec![1; 64 << 10];
    for number in 0..1000 {
        writer.push(message(SendMode::UnreliableSequenced, number), &data, "");
        writer.hand_over(0);
    }
    let events = poll(&queue, usize::MAX);
    assert_eq!(
        events.iter().filter(|event| !event.data.is_empty()).count(),
        MAX_UNRELIABLE_BYTES / data.len()
    );
    assert_eq!(events[0].kind, EventType::Dropped.number());
}

#[test]
fn reliable_messages_push_back_and_a_poll_tells_that_there_is_room() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    let data = vec![1; 100 << 10];
    let mut written = 0;
    while writer.reliable_room() {
        writer.push(message(SendMode::Reliable, written), &data, "");
        writer.hand_over(0);
        written += 1;
        assert!(written < 1000, "no bound");
    }
    assert_eq!(written as usize, MAX_RELIABLE_BYTES.div_ceil(data.len()));
    let mut woken = 0;
    for _ in 0..written {
        let (count, wake) = queue.poll(1, |_, _| {}).unwrap();
        assert_eq!(count, 1);
        woken += u32::from(wake);
    }
    // Exactly once: the writer is told, and asks again.
    assert_eq!(woken, 1);
    assert!(writer.reliable_room());
}

#[test]
fn too_many_unread_lifecycle_events_close_the_door_and_reading_opens_it() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    for number in 0..MAX_LIFECYCLE as u32 {
        assert!(queue.lifecycle_room());
        writer.push(lifecycle(number), &[], "");
        writer.hand_over(0);
    }
    assert!(!queue.lifecycle_room());
    assert_eq!(poll(&queue, usize::MAX).len(), MAX_LIFECYCLE);
    assert!(queue.lifecycle_room());
}

#[test]
fn a_second_poller_is_told_that_it_is_one() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    writer.push(lifecycle(1), &[], "");
    writer.hand_over(0);
    let mut second = None;
    queue.poll(10, |_, _| second = Some(queue.poll(10, |_, _| {}))).unwrap();
    assert_eq!(second, Some(Err(Busy)));
}

#[test]
fn writer_and_reader_at_the_same_time_lose_and_reorder_nothing() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    const TOTAL: u32 = 200_000;
    let reader = std::thread::spawn(move || {
        let mut next = 0;
        while next < TOTAL {
            for seen in poll(&queue, 64) {
                assert_eq!((seen.count, seen.data), (next, next.to_le_bytes().to_vec()));
                next += 1;
            }
            std::thread::yield_now();
        }
    });
    for number in 0..TOTAL {
        while !writer.reliable_room() {
            std::thread::yield_now();
        }
        writer.push(message(SendMode::Reliable, number), &number.to_le_bytes(), "");
        if number.is_multiple_of(17) {
            writer.hand_over(0);
        }
    }
    writer.hand_over(0);
    reader.join().unwrap();
}

/// What a slow reader beside a writer in overflow must see: numbers in order, each once.
#[derive(Default)]
struct Tally {
    unreliable: u64,
    dropped: u64,
    next_unreliable: u32,
    reliable: u32,
    lifecycle: u32,
}

impl Tally {
    fn count(&mut self, seen: &Seen) {
        if seen.kind == EventType::Dropped.number() {
            self.dropped += u64::from(seen.count);
        } else if seen.kind == EventType::Connected.number() {
            assert_eq!(
                seen.count, self.lifecycle,
                "events of a node's life stay whole and in order"
            );
            self.lifecycle += 1;
        } else if seen.text == "reliable" {
            assert_eq!(seen.count, self.reliable, "reliable messages stay whole and in order");
            self.reliable += 1;
        } else {
            assert!(
                seen.count >= self.next_unreliable,
                "{} came again or late, {} was due",
                seen.count,
                self.next_unreliable
            );
            assert_eq!(seen.data[..4], seen.count.to_le_bytes());
            self.next_unreliable = seen.count + 1;
            self.unreliable += 1;
        }
    }
}

/// Writes numbered messages of all classes, as fast as the queue lets it.
#[derive(Default)]
struct Flood {
    data: Vec<u8>,
    unreliable: u32,
    reliable: u32,
    lifecycle: u32,
}

impl Flood {
    fn write(&mut self, writer: &mut EventWriter, count: u32) {
        self.data.resize(100, 0);
        for _ in 0..count {
            let number = self.unreliable;
            if number.is_multiple_of(100) && writer.reliable_room() {
                writer.push(message(SendMode::ReliableOrdered, self.reliable), b"", "reliable");
                self.reliable += 1;
            }
            if number.is_multiple_of(200) && writer.queue().lifecycle_room() {
                writer.push(lifecycle(self.lifecycle), &[], "");
                self.lifecycle += 1;
            }
            self.data[..4].copy_from_slice(&number.to_le_bytes());
            writer.push(message(SendMode::Unreliable, number), &self.data, "");
            self.unreliable += 1;
            if number.is_multiple_of(23) {
                writer.hand_over(0);
            }
        }
        writer.hand_over(0);
    }

    /// Everything came once, or was dropped and noted; the queue is empty and open.
    fn agrees(&self, tally: &Tally, writer: &EventWriter) {
        let queue = writer.queue();
        assert_eq!(tally.dropped, queue.dropped());
        assert!(tally.dropped > 0, "the queue never overflowed: the test shows nothing");
        assert_eq!(tally.unreliable + tally.dropped, u64::from(self.unreliable));
        assert_eq!((tally.reliable, tally.lifecycle), (self.reliable, self.lifecycle));
        assert_eq!(queue.pending(), 0);
        assert!(writer.reliable_room() && queue.lifecycle_room());
    }
}

#[test]
fn chunks_given_back_by_polls_are_not_delivered_again_in_overflow() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    let (mut flood, mut tally) = (Flood::default(), Tally::default());
    flood.write(&mut writer, MAX_UNRELIABLE as u32);
    for _ in 0..100 {
        // More in than out, and several chunks given back at a time.
        flood.write(&mut writer, 2000);
        poll(&queue, 1000).iter().for_each(|seen| tally.count(seen));
    }
    poll(&queue, usize::MAX).iter().for_each(|seen| tally.count(seen));
    flood.agrees(&tally, &writer);
}

#[test]
fn a_reader_beside_a_writer_in_overflow_sees_each_message_at_most_once() {
    let mut writer = EventWriter::new();
    let queue = writer.queue().clone();
    let mut flood = Flood::default();
    // Certain to overflow before the reader comes.
    flood.write(&mut writer, 2 * MAX_UNRELIABLE as u32);
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    let reader = std::thread::spawn(move || {
        let mut tally = Tally::default();
        loop {
            // Asked before the poll: nothing comes after an empty poll that began after the end.
            let last = end.load(Ordering::Acquire);
            let events = poll(&queue, 64);
            events.iter().for_each(|seen| tally.count(seen));
            if events.is_empty() && last {
                return tally;
            }
            std::thread::yield_now();
        }
    });
    for _ in 0..4 * MAX_UNRELIABLE / 1000 {
        flood.write(&mut writer, 1000);
        std::thread::yield_now();
    }
    ended.store(true, Ordering::Release);
    flood.agrees(&reader.join().unwrap(), &writer);
}
