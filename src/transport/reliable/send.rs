//! The way out.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use quinn_proto::{Connection, Dir, StreamId, WriteError};

use super::super::SendError;
use super::super::config::{MAX_BATCHES, ORDERED_PRIORITY, RELIABLE_WINDOW};
use super::super::framing::{MAX_LENGTH_BYTES, STREAM_BATCH, STREAM_ORDERED, length_bytes};
use crate::codes::{CHANNEL_COUNT, MAX_RELIABLE_MESSAGE};

/// Most bytes that wait for quinn: four of the largest messages. With quinn's send window as much again may be on its way.
pub(in crate::transport) const MAX_SEND_QUEUE: usize = 4 * MAX_RELIABLE_MESSAGE;
/// From here on a message counts as large: its own stream, not copied if it is shared, behind the small ones.
const LARGE_MESSAGE: usize = 16 << 10;
/// A batch is closed when it has this many bytes: five hundred messages of 100 bytes an own stream, an allocation and an entry in
/// quinn's send buffer.
const BATCH_SIZE: usize = 48 << 10;
/// How far a batch may grow when there is no stream for another.
const GROWN_BATCH: usize = 256 << 10;
/// Large data is written in pieces of this: quinn releases memory by the piece, and searches pieces one by one.
const PIECE: usize = 64 << 10;
/// Most bytes of large messages in quinn's hands; the rest of its send window stays free for small ones.
const MAX_LARGE_IN_FLIGHT: usize = 3 << 20;
/// An ordered channel with more waiting than this ranks as large.
const LARGE_BACKLOG: usize = 64 << 10;
/// Buffers are taken in blocks of this.
const BLOCK: usize = 4 << 10;
/// Ranks of streams count down within this range, older first; then they start again (a moment of disorder in 16 million batches).
const RANKS: i32 = 1 << 24;

/// A stream that is being written.
struct Writing {
    stream: StreamId,
    chunks: VecDeque<Bytes>,
}

enum Progress {
    Done,
    Blocked,
}

/// What all streams share.
struct Account {
    /// Bytes that quinn has not taken yet.
    queued: usize,
    /// Bytes that quinn has taken since the link began.
    written: u64,
    /// How far `written` may go, give or take a piece.
    limit: u64,
}

impl Account {
    /// Writes as much as quinn takes, within what the other side has room for.
    fn write(&mut self, connection: &mut Connection, stream: StreamId, chunks: &mut VecDeque<Bytes>) -> Progress {
        let mut room = self.limit.saturating_sub(self.written);
        let mut count = 0;
        for chunk in chunks.iter() {
            if room == 0 {
                break;
            }
            room = room.saturating_sub(chunk.len() as u64);
            count += 1;
        }
        if count == 0 {
            return if chunks.is_empty() {
                Progress::Done
            } else {
                Progress::Blocked
            };
        }
        let result = connection
            .send_stream(stream)
            .write_chunks(&mut chunks.make_contiguous()[..count]);
        match result {
            Ok(written) => {
                self.queued = self.queued.saturating_sub(written.bytes);
                self.written += written.bytes as u64;
                chunks.drain(..written.chunks);
                if chunks.is_empty() {
                    Progress::Done
                } else {
                    Progress::Blocked
                }
            }
            Err(WriteError::Blocked) => Progress::Blocked,
            // The other side wants no more of this stream: what is left of it has nowhere to go.
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                self.queued = self.queued.saturating_sub(chunks.iter().map(Bytes::len).sum());
                chunks.clear();
                Progress::Done
            }
        }
    }
}

/// Moves a message's bytes into pieces.
fn push_pieces(chunks: &mut VecDeque<Bytes>, mut data: Bytes) {
    while data.len() > PIECE {
        chunks.push_back(data.split_to(PIECE));
    }
    if !data.is_empty() {
        chunks.push_back(data);
    }
}

/// Ordered messages of one channel.
#[derive(Default)]
struct OrderedChannel {
    stream: Option<StreamId>,
    open: BytesMut,
    sealed: VecDeque<Bytes>,
    waiting: usize,
    ranks_as_large: bool,
    /// Size of the block that `open` was last given.
    block: usize,
}

impl OrderedChannel {
    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed.push_back(self.open.split().freeze());
        }
    }

    /// Makes room for `size` bytes behind what is open. A block that is full is sealed and followed by one of twice its size, so that
    /// nothing is moved and a busy channel soon has large pieces.
    #[inline]
    fn make_room(&mut self, size: usize) {
        if self.open.capacity() - self.open.len() < size {
            self.seal();
            self.block = (self.block * 2).clamp(BLOCK, PIECE);
            self.open = BytesMut::with_capacity(self.block.max(size));
        }
    }
}

/// The way out of reliable messages.
pub(in crate::transport) struct ReliableSender {
    /// Small unordered messages since the last flush; begins with the kind byte.
    open_batch: BytesMut,
    /// Closed batches, each beginning with the kind byte.
    batches: VecDeque<Bytes>,
    /// Large unordered messages, each ready for a stream of its own.
    large: VecDeque<VecDeque<Bytes>>,
    /// Streams of batches that quinn did not take whole.
    writing_batches: VecDeque<Writing>,
    /// As `writing_batches`, for large messages.
    writing_large: VecDeque<Writing>,
    /// Batch streams that are not wholly acknowledged.
    unacknowledged_batches: Vec<StreamId>,
    /// Large streams that are not wholly acknowledged, with their sizes.
    unacknowledged_large: Vec<(StreamId, usize)>,
    ordered: Vec<OrderedChannel>,
    /// Channels with something waiting, a bit each.
    ordered_waiting: u64,
    account: Account,
    rank: i32,
}

impl Default for ReliableSender {
    fn default() -> Self {
        Self {
            open_batch: BytesMut::new(),
            batches: VecDeque::new(),
            large: VecDeque::new(),
            writing_batches: VecDeque::new(),
            writing_large: VecDeque::new(),
            unacknowledged_batches: Vec::new(),
            unacknowledged_large: Vec::new(),
            ordered: Vec::new(),
            ordered_waiting: 0,
            account: Account {
                queued: 0,
                written: 0,
                limit: RELIABLE_WINDOW,
            },
            rank: 0,
        }
    }
}

impl ReliableSender {
    /// Bytes that quinn has not taken yet.
    pub(in crate::transport) fn queued(&self) -> usize {
        self.account.queued
    }

    fn check(&self, length: usize) -> Result<(), SendError> {
        if length > MAX_RELIABLE_MESSAGE {
            return Err(SendError::TooLarge);
        }
        if self.account.queued + length > MAX_SEND_QUEUE {
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// Queues an unordered message.
    #[inline]
    pub(in crate::transport) fn push_unordered(&mut self, channel: u8, data: &[u8]) -> Result<(), SendError> {
        self.check(data.len())?;
        if data.len() >= LARGE_MESSAGE {
            self.push_large(channel, Bytes::copy_from_slice(data));
            return Ok(());
        }
        let (length, length_size) = length_bytes(data.len());
        let size = 1 + length_size + data.len();
        if self.open_batch.len() + size > BATCH_SIZE {
            self.close_batch();
        }
        let batch = &mut self.open_batch;
        if batch.capacity() - batch.len() <= size {
            // A batch that has grown keeps growing: twice what it has, so that filling it costs a move a byte.
            batch.reserve(batch.len().clamp(BLOCK, BATCH_SIZE) + size);
        }
        if batch.is_empty() {
            batch.put_u8(STREAM_BATCH);
            self.account.queued += 1;
        }
        batch.put_u8(channel);
        batch.put_slice(&length[..length_size]);
        batch.put_slice(data);
        self.account.queued += size;
        Ok(())
    }

    /// Queues an unordered message whose bytes are shared.
    pub(in crate::transport) fn push_unordered_shared(&mut self, channel: u8, data: Bytes) -> Result<(), SendError> {
        if data.len() < LARGE_MESSAGE {
            return self.push_unordered(channel, &data);
        }
        self.check(data.len())?;
        self.push_large(channel, data);
        Ok(())
    }

    fn push_large(&mut self, channel: u8, data: Bytes) {
        let (length, length_size) = length_bytes(data.len());
        let mut header = BytesMut::with_capacity(2 + MAX_LENGTH_BYTES);
        header.put_u8(STREAM_BATCH);
        header.put_u8(channel);
        header.put_slice(&length[..length_size]);
        self.account.queued += header.len() + data.len();
        let mut chunks = VecDeque::from([header.freeze()]);
        push_pieces(&mut chunks, data);
        self.large.push_back(chunks);
    }

    fn close_batch(&mut self) {
        if !self.open_batch.is_empty() {
            self.batches.push_back(self.open_batch.split().freeze());
        }
    }

    fn channel_mut(&mut self, channel: u8) -> &mut OrderedChannel {
        if self.ordered.is_empty() {
            self.ordered
                .resize_with(usize::from(CHANNEL_COUNT), OrderedChannel::default);
        }
        &mut self.ordered[usize::from(channel)]
    }

    /// Queues a message on a channel's ordered stream.
    #[inline]
    pub(in crate::transport) fn push_ordered(&mut self, channel: u8, data: &[u8]) -> Result<(), SendError> {
        self.check(data.len())?;
        let size = self.push_ordered_header(channel, data.len());
        let state = self.channel_mut(channel);
        state.make_room(data.len());
        state.open.extend_from_slice(data);
        self.after_ordered(channel, size + data.len());
        Ok(())
    }

    /// Queues a message whose bytes are shared on a channel's ordered stream.
    pub(in crate::transport) fn push_ordered_shared(&mut self, channel: u8, data: Bytes) -> Result<(), SendError> {
        if data.len() < LARGE_MESSAGE {
            return self.push_ordered(channel, &data);
        }
        self.check(data.len())?;
        let size = self.push_ordered_header(channel, data.len()) + data.len();
        let state = self.channel_mut(channel);
        state.seal();
        push_pieces(&mut state.sealed, data);
        self.after_ordered(channel, size);
        Ok(())
    }

    #[inline]
    fn push_ordered_header(&mut self, channel: u8, length: usize) -> usize {
        let state = self.channel_mut(channel);
        if state.open.len() >= PIECE {
            state.seal();
        }
        state.make_room(2 + MAX_LENGTH_BYTES);
        let before = state.open.len();
        if state.stream.is_none() && state.waiting == 0 {
            state.open.put_u8(STREAM_ORDERED);
            state.open.put_u8(channel);
        }
        let (length, length_size) = length_bytes(length);
        state.open.put_slice(&length[..length_size]);
        state.open.len() - before
    }

    #[inline]
    fn after_ordered(&mut self, channel: u8, size: usize) {
        self.channel_mut(channel).waiting += size;
        self.ordered_waiting |= 1 << channel;
        self.account.queued += size;
    }

    /// The other side has taken so many bytes since the link began.
    pub(in crate::transport) fn note_taken(&mut self, taken: u64) {
        self.account.limit = taken.saturating_add(RELIABLE_WINDOW);
    }

    /// Hands to quinn what it takes.
    pub(in crate::transport) fn flush(&mut self, connection: &mut Connection) {
        if self.account.queued == 0 && self.writing_batches.is_empty() && self.writing_large.is_empty() {
            return;
        }
        self.flush_ordered(connection);
        self.flush_batches(connection);
        self.flush_large(connection);
    }

    fn flush_ordered(&mut self, connection: &mut Connection) {
        let mut waiting = self.ordered_waiting;
        while waiting != 0 {
            let channel = waiting.trailing_zeros() as usize;
            waiting &= waiting - 1;
            let state = &mut self.ordered[channel];
            if state.stream.is_none() {
                state.stream = connection.streams().open(Dir::Uni);
            }
            let Some(stream) = state.stream else { return };
            let ranks_as_large = state.waiting > LARGE_BACKLOG;
            if ranks_as_large != state.ranks_as_large || state.waiting > 0 {
                state.ranks_as_large = ranks_as_large;
                let priority = if ranks_as_large { -2 * RANKS } else { ORDERED_PRIORITY };
                let _ = connection.send_stream(stream).set_priority(priority);
            }
            state.seal();
            let before = self.account.queued;
            let progress = self.account.write(connection, stream, &mut state.sealed);
            state.waiting = state.waiting.saturating_sub(before - self.account.queued);
            if matches!(progress, Progress::Done) {
                state.waiting = 0;
                self.ordered_waiting &= !(1 << channel);
            }
        }
    }

    fn next_rank(&mut self) -> i32 {
        self.rank = (self.rank + 1) % RANKS;
        -self.rank
    }

    fn flush_batches(&mut self, connection: &mut Connection) {
        if !Self::continue_writing(connection, &mut self.writing_batches, &mut self.account) {
            return;
        }
        while !(self.batches.is_empty() && self.open_batch.is_empty()) {
            if self.unacknowledged_batches.len() >= MAX_BATCHES {
                return;
            }
            let Some(stream) = connection.streams().open(Dir::Uni) else {
                return;
            };
            if self.batches.is_empty() {
                self.close_batch();
            }
            let mut chunks = VecDeque::from_iter(self.batches.pop_front());
            if self.unacknowledged_batches.len() + 1 == MAX_BATCHES {
                self.grow(&mut chunks);
            }
            let priority = self.next_rank();
            let _ = connection.send_stream(stream).set_priority(priority);
            self.unacknowledged_batches.push(stream);
            self.writing_batches.push_back(Writing { stream, chunks });
            if !Self::continue_writing(connection, &mut self.writing_batches, &mut self.account) {
                return;
            }
        }
    }

    /// The last stream that is left takes as much as may go into one.
    fn grow(&mut self, chunks: &mut VecDeque<Bytes>) {
        let mut size: usize = chunks.iter().map(Bytes::len).sum();
        if self.batches.is_empty() {
            self.close_batch();
        }
        while let Some(batch) = self.batches.front() {
            size += batch.len();
            if size > GROWN_BATCH {
                return;
            }
            if let Some(batch) = self.batches.pop_front() {
                // Without its kind byte: the stream has one already.
                self.account.queued -= 1;
                chunks.push_back(batch.slice(1..));
            }
        }
    }

    fn flush_large(&mut self, connection: &mut Connection) {
        if !Self::continue_writing(connection, &mut self.writing_large, &mut self.account) {
            return;
        }
        while let Some(chunks) = self.large.front() {
            let size: usize = chunks.iter().map(Bytes::len).sum();
            let in_flight: usize = self.unacknowledged_large.iter().map(|entry| entry.1).sum();
            if in_flight > 0
                && (in_flight + size > MAX_LARGE_IN_FLIGHT || self.unacknowledged_large.len() >= MAX_BATCHES)
            {
                return;
            }
            let Some(stream) = connection.streams().open(Dir::Uni) else {
                return;
            };
            let priority = self.next_rank() - RANKS;
            let _ = connection.send_stream(stream).set_priority(priority);
            self.unacknowledged_large.push((stream, size));
            if let Some(chunks) = self.large.pop_front() {
                self.writing_large.push_back(Writing { stream, chunks });
            }
            if !Self::continue_writing(connection, &mut self.writing_large, &mut self.account) {
                return;
            }
        }
    }

    /// Writes on at streams that were not taken whole, in order; finishes those that are. True: none is left.
    fn continue_writing(connection: &mut Connection, writing: &mut VecDeque<Writing>, account: &mut Account) -> bool {
        while let Some(front) = writing.front_mut() {
            match account.write(connection, front.stream, &mut front.chunks) {
                Progress::Done => {
                    let _ = connection.send_stream(front.stream).finish();
                    writing.pop_front();
                }
                Progress::Blocked => return false,
            }
        }
        true
    }

    /// A stream is wholly acknowledged (or its data is not wanted any more).
    pub(in crate::transport) fn finished(&mut self, stream: StreamId) {
        if let Some(index) = self.unacknowledged_batches.iter().position(|&other| other == stream) {
            self.unacknowledged_batches.swap_remove(index);
        } else if let Some(index) = self.unacknowledged_large.iter().position(|entry| entry.0 == stream) {
            self.unacknowledged_large.swap_remove(index);
        }
    }

    /// Gives memory back that a quiet link does not need.
    pub(in crate::transport) fn shrink(&mut self) {
        if self.account.queued == 0 {
            self.open_batch = BytesMut::new();
            for channel in &mut self.ordered {
                channel.open = BytesMut::new();
                channel.block = 0;
            }
        }
    }

    /// Forgets everything that waits.
    pub(in crate::transport) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_and_an_oversize_message_are_told_apart() {
        let mut sender = ReliableSender::default();
        let large = vec![0; MAX_RELIABLE_MESSAGE + 1];
        assert_eq!(sender.push_unordered(0, &large), Err(SendError::TooLarge));
        assert_eq!(sender.push_ordered(0, &large), Err(SendError::TooLarge));
        for _ in 0..3 {
            sender.push_unordered(0, &large[1..]).unwrap();
        }
        while sender.push_ordered(5, &large[..50_000]).is_ok() {}
        assert_eq!(sender.push_ordered(0, &large[1..]), Err(SendError::Full));
        assert_eq!(
            sender.push_unordered_shared(0, Bytes::from(large).slice(1..)),
            Err(SendError::Full)
        );
        assert!(sender.queued() <= MAX_SEND_QUEUE + 1000);
    }

    #[test]
    fn a_busy_channel_gets_larger_blocks_and_what_stands_in_one_is_never_moved() {
        let mut sender = ReliableSender::default();
        let mut starts = vec![];
        for _ in 0..3_000 {
            sender.push_ordered(7, &[9; 100]).unwrap();
            starts.push(sender.ordered[7].open.as_ptr());
        }
        starts.dedup();
        let channel = &mut sender.ordered[7];
        channel.seal();
        let sizes: Vec<_> = channel.sealed.iter().map(Bytes::len).collect();
        // A start for each piece: had a block grown instead, its start would have moved.
        assert_eq!(starts.len(), sizes.len(), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 2 + 3_000 * 101);
        // 4, 8, 16, 32, then 64 KiB each; a block ends where the next message does not fit.
        assert_eq!(sizes.len(), 8, "{sizes:?}");
        assert!(sizes[4..7].iter().all(|size| *size + 101 > PIECE), "{sizes:?}");
    }
}
