//! Unreliable messages of a link: packing them into DATAGRAM frames on the way out, holding them for the game on the way in.
//!
//! Small messages share a frame, because a frame, a packet and an acknowledgement each cost more than a message. Large ones are split.
//! Both queues are bounded: out, the game is told that it is full; in, the oldest is dropped and counted.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, SendDatagramError};

use super::SendError;
use super::framing::datagram::{EntryHeader, Fragment, SEQUENCE_BITS, read_entry};
use super::framing::fragments::Reassembly;
use crate::codes::{CHANNEL_COUNT, MAX_UNRELIABLE_MESSAGE, SendMode};

/// Most bytes waiting to leave. A tenth of a second at 20 Mbit/s: older unreliable data is worth nothing, and four of the largest
/// messages must fit.
pub(super) const MAX_SEND_QUEUE: usize = 256 << 10;
/// The buffer that messages are packed into is taken in blocks of this: about eleven frames of a kilobyte an allocation.
const PACK_BLOCK: usize = 16 << 10;
/// Frames are built for the smallest QUIC path until the connection says more.
const SMALLEST_FRAME: usize = 1100;
/// Most bytes of received messages that the game has not taken. Ten milliseconds at a gigabit; a game that does not poll for longer
/// loses the oldest.
pub(super) const MAX_RECEIVE_QUEUE: usize = 1 << 20;
/// A buffer above this is given back when the link has been quiet.
const KEPT_BUFFER: usize = 16 << 10;

/// The way out.
#[derive(Default)]
pub(super) struct UnreliableSender {
    /// The frame that is being filled.
    open: BytesMut,
    /// Full frames.
    sealed: VecDeque<Bytes>,
    /// Bytes in both.
    queued: usize,
    /// Largest frame, as of the last look.
    frame_limit: usize,
    next_fragmented: u16,
    /// The next sequence number of each channel; empty until one is used.
    sequences: Vec<u32>,
    /// Messages that no longer fitted the path.
    dropped: u64,
}

impl UnreliableSender {
    /// Bytes waiting.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// True if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Packs a message.
    #[inline]
    pub(super) fn push(&mut self, channel: u8, sequenced: bool, data: &[u8]) -> Result<(), SendError> {
        if self.queued + data.len() > MAX_SEND_QUEUE {
            return Err(SendError::Full);
        }
        if data.len() > MAX_UNRELIABLE_MESSAGE {
            return Err(SendError::TooLarge);
        }
        let header = EntryHeader {
            channel,
            sequence: if sequenced {
                Some(self.next_sequence(channel))
            } else {
                None
            },
            fragment: None,
        };
        let size = header.entry_size(data.len());
        if size > self.frame_limit {
            self.push_fragments(header, data);
        } else {
            self.append(header, data, size);
        }
        Ok(())
    }

    fn next_sequence(&mut self, channel: u8) -> u32 {
        if self.sequences.is_empty() {
            self.sequences = vec![0; usize::from(CHANNEL_COUNT)];
        }
        let sequence = &mut self.sequences[usize::from(channel)];
        let this = *sequence;
        *sequence = (this + 1) & ((1 << SEQUENCE_BITS) - 1);
        this
    }

    #[inline]
    fn append(&mut self, header: EntryHeader, data: &[u8], size: usize) {
        if self.open.len() + size > self.frame_limit {
            self.seal();
        }
        if self.open.capacity() - self.open.len() < size {
            self.open.reserve(PACK_BLOCK.max(size));
        }
        header.write(&mut self.open, data);
        self.queued += size;
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed.push_back(self.open.split().freeze());
        }
    }

    fn push_fragments(&mut self, mut header: EntryHeader, data: &[u8]) {
        let message = self.next_fragmented;
        self.next_fragmented = message.wrapping_add(1);
        let mut offset = 0;
        header.fragment = Some(Fragment {
            message,
            total: data.len() as u32,
            offset: 0,
        });
        // The header of a fragment takes the same room whatever it says, three bytes of length at most.
        let part_limit = self.frame_limit.max(SMALLEST_FRAME) - header.entry_size(0) - 2;
        while offset < data.len() {
            let end = (offset + part_limit).min(data.len());
            header.fragment = Some(Fragment {
                message,
                total: data.len() as u32,
                offset: offset as u32,
            });
            let part = &data[offset..end];
            self.append(header, part, header.entry_size(part.len()));
            offset = end;
        }
    }

    /// Hands as many frames to quinn as it takes. Quinn's own queue is kept short: what waits there cannot be packed together any more.
    pub(super) fn flush(&mut self, connection: &mut Connection) {
        let mut datagrams = connection.datagrams();
        self.frame_limit = datagrams.max_size().unwrap_or(SMALLEST_FRAME);
        if self.is_empty() {
            return;
        }
        loop {
            let frame = match self.sealed.pop_front() {
                Some(frame) => frame,
                None if self.open.is_empty() || datagrams.send_buffer_space() < self.frame_limit => return,
                None => self.open.split().freeze(),
            };
            let size = frame.len();
            match datagrams.send(frame.clone(), false) {
                Ok(()) => self.queued -= size,
                Err(SendDatagramError::Blocked(frame)) => {
                    self.sealed.push_front(frame);
                    return;
                }
                // The path's limit has shrunk since the frame was filled.
                Err(SendDatagramError::TooLarge) => {
                    self.queued -= size;
                    self.split_again(&frame);
                }
                Err(SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => {
                    self.queued -= size;
                    self.dropped += 1;
                }
            }
        }
    }

    /// Spreads the entries of a frame over smaller ones, in front of everything else.
    fn split_again(&mut self, frame: &Bytes) {
        let mut rest = &frame[..];
        let mut smaller = VecDeque::new();
        let mut open = BytesMut::new();
        while let Some((header, payload)) = read_entry(&mut rest) {
            let size = header.entry_size(payload.len());
            if size > self.frame_limit {
                self.dropped += 1;
                continue;
            }
            if open.len() + size > self.frame_limit {
                smaller.push_front(open.split().freeze());
            }
            header.write(&mut open, payload);
            self.queued += size;
        }
        if !open.is_empty() {
            smaller.push_front(open.freeze());
        }
        for frame in smaller {
            self.sealed.push_front(frame);
        }
    }

    /// Messages given up on the way out since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Gives memory back that a quiet link does not need.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.open = BytesMut::new();
            self.sealed = VecDeque::new();
        }
    }

    /// Forgets everything that waits.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.sealed.clear();
        self.queued = 0;
    }
}

/// A received message's place in the queue.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) channel: u8,
    pub(super) mode: SendMode,
    pub(super) range: Range<usize>,
}

/// Bytes before each message of the receive queue: channel, mode, u32 length.
const RECORD_HEADER: usize = 6;
/// No sequenced message has come on a channel yet.
const NONE_YET: u32 = u32::MAX;

/// The way in: messages one behind the other in one buffer, so that memory is what was counted and packets are freed at once.
#[derive(Default)]
pub(super) struct UnreliableReceiver {
    queue: Vec<u8>,
    /// Where the next message stands.
    next: usize,
    reassembly: Reassembly,
    /// Newest sequence number of each channel; empty until one is used.
    newest: Vec<u32>,
    dropped: u64,
}

impl UnreliableReceiver {
    /// True if a message waits.
    pub(super) fn has_messages(&self) -> bool {
        self.next < self.queue.len()
    }

    /// Takes the contents of a DATAGRAM frame. False: part of it was malformed (that part is dropped).
    pub(super) fn receive(&mut self, now: Instant, mut frame: &[u8]) -> bool {
        while let Some((header, payload)) = read_entry(&mut frame) {
            match header.fragment {
                None => self.deliver(header, payload),
                Some(fragment) => {
                    if let Some(message) = self.reassembly.insert(now, header, fragment, payload) {
                        self.deliver(header, &message);
                    }
                }
            }
        }
        frame.is_empty()
    }

    #[inline]
    fn deliver(&mut self, header: EntryHeader, payload: &[u8]) {
        let mode = match header.sequence {
            None => SendMode::Unreliable,
            Some(sequence) if self.is_newer(header.channel, sequence) => SendMode::UnreliableSequenced,
            // Late: that is what sequenced means, so it is not counted as a loss.
            Some(_) => return,
        };
        self.make_room(RECORD_HEADER + payload.len());
        let mut record = [header.channel, mode.number(), 0, 0, 0, 0];
        record[2..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        self.queue.extend_from_slice(&record);
        self.queue.extend_from_slice(payload);
    }

    fn is_newer(&mut self, channel: u8, sequence: u32) -> bool {
        if self.newest.is_empty() {
            self.newest = vec![NONE_YET; usize::from(CHANNEL_COUNT)];
        }
        let newest = &mut self.newest[usize::from(channel)];
        let ahead = sequence.wrapping_sub(*newest) & ((1 << SEQUENCE_BITS) - 1);
        // Half of the numbers count as ahead, so that they may wrap.
        if *newest == NONE_YET || (ahead != 0 && ahead < 1 << (SEQUENCE_BITS - 1)) {
            *newest = sequence;
            return true;
        }
        false
    }

    fn make_room(&mut self, size: usize) {
        if self.next == self.queue.len() {
            self.queue.clear();
            self.next = 0;
        }
        while self.queue.len() - self.next + size > MAX_RECEIVE_QUEUE && self.pop().is_some() {
            self.dropped += 1;
        }
        // Moving half of the buffer for each half that was read costs one move a byte at most.
        if self.next > self.queue.len() / 2 && self.queue.len() + size > self.queue.capacity() {
            self.queue.drain(..self.next);
            self.next = 0;
        }
    }

    /// The next message's place; it stays there until the next call of anything.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Received> {
        let record = self.queue.get(self.next..self.next + RECORD_HEADER)?;
        let length = u32::from_le_bytes([record[2], record[3], record[4], record[5]]) as usize;
        let start = self.next + RECORD_HEADER;
        let received = Received {
            channel: record[0],
            mode: SendMode::from_number(record[1]).unwrap_or(SendMode::Unreliable),
            range: start..start + length,
        };
        self.next = start + length;
        Some(received)
    }

    /// The bytes of a message.
    #[inline]
    pub(super) fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.queue[range]
    }

    /// Messages dropped since the last call because the game did not take them, or because a part of them was lost.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped) + self.reassembly.take_dropped()
    }

    /// Gives memory back that a quiet link does not need.
    pub(super) fn shrink(&mut self) {
        if !self.has_messages() && self.queue.capacity() > KEPT_BUFFER {
            self.queue = Vec::new();
            self.next = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: Option<u32>, payload: &[u8]) -> BytesMut {
        let mut frame = BytesMut::new();
        EntryHeader {
            channel: 3,
            sequence,
            fragment: None,
        }
        .write(&mut frame, payload);
        frame
    }

    #[test]
    fn sequence_numbers_wrap_and_older_ones_are_dropped() {
        let now = Instant::now();
        let mut receiver = UnreliableReceiver::default();
        let last = (1 << SEQUENCE_BITS) - 1;
        for (sequence, accepted) in [
            (last - 1, true),
            (last - 2, false),
            (last, true),
            (0, true),
            (last, false),
            (0, false),
            (5, true),
            (3, false),
        ] {
            assert!(receiver.receive(now, &entry(Some(sequence), b"x")));
            assert_eq!(receiver.pop().is_some(), accepted, "{sequence}");
        }
    }

    #[test]
    fn a_full_receive_queue_drops_the_oldest_and_counts() {
        let now = Instant::now();
        let mut receiver = UnreliableReceiver::default();
        let count = 2 * MAX_RECEIVE_QUEUE / 1000;
        for number in 0..count as u32 {
            let mut payload = [0; 1000];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            receiver.receive(now, &entry(None, &payload));
        }
        let dropped = receiver.take_dropped();
        let mut expected = dropped as u32;
        while let Some(message) = receiver.pop() {
            let data = receiver.slice(message.range);
            assert_eq!(data[..4], expected.to_be_bytes());
            expected += 1;
        }
        assert_eq!(expected as usize, count);
        assert!(dropped > 0 && receiver.queue.capacity() <= 4 * MAX_RECEIVE_QUEUE);
    }

    #[test]
    fn a_full_send_queue_says_so_and_an_oversize_message_too() {
        let mut sender = UnreliableSender::default();
        assert_eq!(
            sender.push(0, false, &vec![0; MAX_UNRELIABLE_MESSAGE + 1]),
            Err(SendError::TooLarge)
        );
        let mut sent = 0;
        while sender.push(0, false, &[0; 100]).is_ok() {
            sent += 1;
        }
        assert_eq!(sender.push(0, false, &[0; 100]), Err(SendError::Full));
        assert!(sent * 100 <= MAX_SEND_QUEUE && sender.queued() <= MAX_SEND_QUEUE + 1000);
    }
}
