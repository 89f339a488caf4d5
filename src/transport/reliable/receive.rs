//! The way in.
//!
//! Streams are read only when the game asks for messages, and only as far as it asks: what it does not take stays in QUIC's receive
//! buffers, whose flow control holds the sender.

use std::collections::VecDeque;

use bytes::Bytes;
use quinn_proto::{Connection, ReadError, StreamId};
use rustc_hash::FxHashMap;

use super::super::framing::stream::{HeaderForm, Malformed, MessageCutter, Place};
use super::super::framing::{STREAM_BATCH, STREAM_ORDERED};
use crate::codes::{CHANNEL_COUNT, MAX_RELIABLE_MESSAGE, SendMode};

/// Chunks (packets' worth of data) that are taken from a stream at a time: enough to make the lookup in quinn cheap, few enough that
/// what has been taken from flow control's hold is small.
const READ_AHEAD: usize = 32;
/// Most bytes of messages that are not whole yet, over all streams. A sender has no more than its send window on the way, so that an
/// honest one stays below; another one is cut off.
const MAX_PARTIAL: usize = 16 << 20;

/// A stream that is being read.
#[derive(Debug)]
struct Reader {
    /// The first bytes, until they tell what the stream is.
    start: Vec<u8>,
    cutter: Option<MessageCutter>,
    mode: SendMode,
    /// In the list of streams to read.
    queued: bool,
}

/// A message that was taken.
#[derive(Debug)]
pub(in crate::transport) struct Taken {
    pub(in crate::transport) channel: u8,
    pub(in crate::transport) mode: SendMode,
    place: Place,
}

/// The way in of reliable messages.
#[derive(Default)]
pub(in crate::transport) struct ReliableReceiver {
    streams: FxHashMap<StreamId, Reader>,
    ready: VecDeque<StreamId>,
    current: Option<(StreamId, Reader)>,
    /// What was read of the current stream and not cut yet.
    chunks: VecDeque<Bytes>,
    /// The current stream has no more behind `chunks`.
    at_end: bool,
    /// The message that was handed out last, if it lay within a chunk.
    kept: Bytes,
    /// Bytes of messages that are not whole, of all streams but the current one.
    partial: usize,
    /// Channels that have their ordered stream, a bit each.
    ordered: u64,
}

impl ReliableReceiver {
    /// A stream was opened by the other side.
    pub(in crate::transport) fn accept(&mut self, stream: StreamId) {
        let reader = Reader {
            start: Vec::new(),
            cutter: None,
            mode: SendMode::Reliable,
            queued: true,
        };
        self.streams.insert(stream, reader);
        self.ready.push_back(stream);
    }

    /// More of a stream has come.
    pub(in crate::transport) fn readable(&mut self, stream: StreamId) {
        if let Some(reader) = self.streams.get_mut(&stream) {
            if !reader.queued {
                reader.queued = true;
                self.ready.push_back(stream);
            }
        }
    }

    /// True if there may be a message.
    pub(in crate::transport) fn may_have_messages(&self) -> bool {
        self.current.is_some() || !self.ready.is_empty()
    }

    /// The bytes of the message that was taken last.
    #[inline]
    pub(in crate::transport) fn data(&self, taken: &Taken) -> &[u8] {
        match (&taken.place, &self.current) {
            (Place::Chunk, _) => &self.kept,
            (
                Place::Buffer(range),
                Some((
                    _,
                    Reader {
                        cutter: Some(cutter), ..
                    },
                )),
            ) => &cutter.buffer()[range.clone()],
            // A message lies in the current stream's buffer, and the current stream stays current until the next call.
            (Place::Buffer(_), _) => &[],
        }
    }

    /// Takes the next message. `should_transmit` is set if flow control has something to tell the sender.
    pub(in crate::transport) fn take(
        &mut self,
        connection: &mut Connection,
        should_transmit: &mut bool,
    ) -> Result<Option<Taken>, Malformed> {
        loop {
            let Some((stream, reader)) = &mut self.current else {
                let Some(stream) = self.ready.pop_front() else {
                    return Ok(None);
                };
                if let Some(mut reader) = self.streams.remove(&stream) {
                    reader.queued = false;
                    self.partial -= reader.pending();
                    self.at_end = false;
                    self.current = Some((stream, reader));
                }
                continue;
            };
            let stream = *stream;
            if let Some(taken) = reader.cut(&mut self.chunks, &mut self.kept, &mut self.ordered)? {
                return Ok(Some(taken));
            }
            if self.at_end || !self.read(connection, stream, should_transmit) {
                self.leave_stream()?;
            }
        }
    }

    /// Takes chunks of the current stream. False: there are none now.
    fn read(&mut self, connection: &mut Connection, stream: StreamId, should_transmit: &mut bool) -> bool {
        let mut receive = connection.recv_stream(stream);
        let Ok(mut reading) = receive.read(true) else {
            self.at_end = true;
            return false;
        };
        let mut any = false;
        for _ in 0..READ_AHEAD {
            match reading.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    any = true;
                    self.chunks.push_back(chunk.bytes);
                }
                Ok(None) => {
                    self.at_end = true;
                    break;
                }
                Err(ReadError::Reset(_)) => {
                    self.at_end = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        *should_transmit |= reading.finalize().should_transmit();
        any
    }

    fn leave_stream(&mut self) -> Result<(), Malformed> {
        let Some((stream, reader)) = self.current.take() else {
            return Ok(());
        };
        self.chunks.clear();
        if self.at_end {
            return Ok(());
        }
        self.partial += reader.pending();
        self.streams.insert(stream, reader);
        if self.partial > MAX_PARTIAL {
            Err(Malformed)
        } else {
            Ok(())
        }
    }
}

impl Reader {
    fn pending(&self) -> usize {
        self.cutter.as_ref().map_or(0, MessageCutter::pending)
    }

    #[inline]
    fn cut(
        &mut self,
        chunks: &mut VecDeque<Bytes>,
        kept: &mut Bytes,
        ordered: &mut u64,
    ) -> Result<Option<Taken>, Malformed> {
        if self.cutter.is_none() && !self.read_start(chunks, ordered)? {
            return Ok(None);
        }
        let Some(cutter) = &mut self.cutter else {
            return Ok(None);
        };
        let cut = cutter.cut(chunks, kept)?;
        Ok(cut.map(|cut| Taken {
            channel: cut.channel,
            mode: self.mode,
            place: cut.place,
        }))
    }

    /// Reads the kind of the stream. True once it is known.
    fn read_start(&mut self, chunks: &mut VecDeque<Bytes>, ordered: &mut u64) -> Result<bool, Malformed> {
        while let Some(chunk) = chunks.front_mut() {
            if chunk.is_empty() {
                chunks.pop_front();
                continue;
            }
            self.start.push(chunk.split_to(1)[0]);
            let form = match self.start[..] {
                [STREAM_BATCH] => HeaderForm::ChannelAndLength,
                [STREAM_ORDERED] => continue,
                [STREAM_ORDERED, channel] if channel < CHANNEL_COUNT && *ordered & (1 << channel) == 0 => {
                    *ordered |= 1 << channel;
                    self.mode = SendMode::ReliableOrdered;
                    HeaderForm::Length { channel }
                }
                _ => return Err(Malformed),
            };
            self.cutter = Some(MessageCutter::new(form, MAX_RELIABLE_MESSAGE));
            return Ok(true);
        }
        Ok(false)
    }
}
