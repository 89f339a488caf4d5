//! The control stream of a link: ordered, reliable messages of Lanline itself, one stream each way.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn_proto::{Connection, Dir, ReadError, StreamId, WriteError};

use super::SendError;
use super::config::{CONTROL_PRIORITY, PEER_SEND_WINDOW};
use super::framing::stream::{HeaderForm, Malformed, MessageCutter, Place};
use super::framing::{Length, STREAM_CONTROL, length_bytes, read_length};
use crate::wire::MAX_CONTROL_MESSAGE;

/// Most bytes waiting to be sent: a join with full user data and as much again behind it.
pub(super) const MAX_SEND_QUEUE: usize = 4 * MAX_CONTROL_MESSAGE;
/// Most bytes received and not taken yet; what is beyond stays with QUIC, whose flow control holds the sender.
const MAX_RECEIVE_QUEUE: usize = 2 * MAX_CONTROL_MESSAGE;
/// A message of the layers above.
const KIND_MESSAGE: u8 = 0;
/// u64: bytes of reliable messages that were taken from the sender's streams since the link began.
const KIND_TAKEN: u8 = 1;
/// Longest preface that is read; later versions may say more in it.
const MAX_PREFACE: usize = 64;

/// The way out.
#[derive(Default)]
pub(super) struct ControlSender {
    stream: Option<StreamId>,
    queue: BytesMut,
}

impl ControlSender {
    /// Queues a message; possible from the moment of dialling.
    pub(super) fn push(&mut self, message: &[u8]) -> Result<(), SendError> {
        if message.len() > MAX_CONTROL_MESSAGE {
            return Err(SendError::TooLarge);
        }
        if self.queue.len() + message.len() > MAX_SEND_QUEUE {
            return Err(SendError::Full);
        }
        self.push_kind(KIND_MESSAGE, message);
        Ok(())
    }

    fn push_kind(&mut self, kind: u8, message: &[u8]) {
        let (length, size) = length_bytes(1 + message.len());
        self.queue.put_slice(&length[..size]);
        self.queue.put_u8(kind);
        self.queue.put_slice(message);
    }

    /// True if the other side has acknowledged everything that quinn was given, on any stream. Quinn does not tell; but with a window of
    /// one byte it takes something (here: nothing at all) only if no byte is unacknowledged.
    pub(super) fn nothing_unacknowledged(&self, connection: &mut Connection) -> bool {
        let Some(stream) = self.stream else { return true };
        connection.set_send_window(1);
        let result = connection.send_stream(stream).write(&[]);
        connection.set_send_window(PEER_SEND_WINDOW);
        !matches!(result, Err(WriteError::Blocked))
    }

    /// Tells the other side how many bytes of reliable messages were taken from its streams so far.
    pub(super) fn push_taken(&mut self, total: u64) {
        self.push_kind(KIND_TAKEN, &total.to_be_bytes());
    }

    /// True if the stream was opened.
    pub(super) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Opens the stream: once this side may send, before any other stream, so that it is the first.
    pub(super) fn open(&mut self, connection: &mut Connection, lost_peer_timeout: Duration) {
        self.stream = connection.streams().open(Dir::Uni);
        let Some(stream) = self.stream else { return };
        let timeout = u32::try_from(lost_peer_timeout.as_millis()).unwrap_or(0);
        let mut start = BytesMut::with_capacity(6 + self.queue.len());
        start.put_u8(STREAM_CONTROL);
        start.put_u8(4);
        start.put_u32(timeout);
        start.put_slice(&self.queue);
        self.queue = start;
        let _ = connection.send_stream(stream).set_priority(CONTROL_PRIORITY);
    }

    /// Hands what waits to quinn.
    pub(super) fn flush(&mut self, connection: &mut Connection) {
        let (Some(stream), false) = (self.stream, self.queue.is_empty()) else {
            return;
        };
        let mut chunk = [std::mem::take(&mut self.queue).freeze()];
        match connection.send_stream(stream).write_chunks(&mut chunk) {
            Ok(_) | Err(WriteError::Blocked) => {
                let [rest] = chunk;
                if !rest.is_empty() {
                    self.queue = BytesMut::from(rest);
                }
            }
            // The other side does not want to hear any more; it will say why, or not at all.
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => self.stream = None,
        }
    }

    /// Bytes waiting.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.queue = BytesMut::new();
        self.stream = None;
    }
}

enum Stage {
    /// The kind byte and the preface are still coming.
    Preface(Vec<u8>),
    Messages,
}

/// The way in.
pub(super) struct ControlReceiver {
    stream: Option<StreamId>,
    stage: Stage,
    cutter: MessageCutter,
    messages: VecDeque<Bytes>,
    queued: usize,
    /// What the other side said of its lost-peer time.
    peer_timeout: Option<Duration>,
    /// What the other side has taken of our reliable messages.
    taken: u64,
}

impl Default for ControlReceiver {
    fn default() -> Self {
        Self {
            stream: None,
            stage: Stage::Preface(Vec::new()),
            // The form has no channel; the number is never looked at.
            cutter: MessageCutter::new(HeaderForm::Length { channel: 0 }, 1 + MAX_CONTROL_MESSAGE),
            messages: VecDeque::new(),
            queued: 0,
            peer_timeout: None,
            taken: 0,
        }
    }
}

impl ControlReceiver {
    /// Names the stream.
    pub(super) fn accept(&mut self, stream: StreamId) {
        self.stream = Some(stream);
    }

    /// The next message.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let message = self.messages.pop_front()?;
        self.queued -= message.len();
        Some(message)
    }

    /// True if a message waits.
    pub(super) fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    /// The other side's lost-peer time, once it is known.
    pub(super) fn peer_timeout(&self) -> Option<Duration> {
        self.peer_timeout
    }

    /// Bytes of reliable messages that the other side has taken from its streams.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes from quinn what there is room for.
    pub(super) fn read(&mut self, connection: &mut Connection) -> Result<(), Malformed> {
        let Some(stream) = self.stream else { return Ok(()) };
        let mut receive = connection.recv_stream(stream);
        let Ok(mut reading) = receive.read(true) else {
            return Ok(());
        };
        let mut result = Ok(());
        while self.queued < MAX_RECEIVE_QUEUE && result.is_ok() {
            match reading.next(usize::MAX) {
                Ok(Some(chunk)) => result = self.take(chunk.bytes),
                Err(ReadError::Blocked) => break,
                // The control stream lives as long as the link.
                Ok(None) | Err(ReadError::Reset(_)) => {
                    self.stream = None;
                    break;
                }
            }
        }
        let _ = reading.finalize();
        result
    }

    fn take(&mut self, mut chunk: Bytes) -> Result<(), Malformed> {
        if let Stage::Preface(bytes) = &mut self.stage {
            while bytes.len() < preface_size(bytes)? {
                if chunk.is_empty() {
                    return Ok(());
                }
                bytes.push(chunk[0]);
                chunk.advance(1);
            }
            // Two bytes of kind and length stand before what it says.
            self.peer_timeout = bytes
                .get(2..6)
                .map(|field| u32::from_be_bytes([field[0], field[1], field[2], field[3]]))
                .filter(|&timeout| timeout > 0)
                .map(|timeout| Duration::from_millis(timeout.into()));
            self.stage = Stage::Messages;
        }
        let mut chunks = VecDeque::from([chunk]);
        while let Some(cut) = self.cutter.cut(&mut chunks)? {
            let message = match cut.place {
                // Copied: a slice would keep the whole packet's buffer.
                Place::Chunk(range) => Bytes::copy_from_slice(&chunks[0][range]),
                Place::Buffer(range) => self.cutter.take_buffer(range),
            };
            self.sort(message);
        }
        Ok(())
    }
}

impl ControlReceiver {
    fn sort(&mut self, mut message: Bytes) {
        match message.first() {
            Some(&KIND_MESSAGE) => {
                message.advance(1);
                self.queued += message.len();
                self.messages.push_back(message);
            }
            Some(&KIND_TAKEN) if message.len() >= 9 => {
                message.advance(1);
                // Totals only grow; an order of magnitude that cannot be true opens no more than QUIC's own window allows.
                self.taken = self.taken.max(message.get_u64());
            }
            // Room for later versions.
            _ => {}
        }
    }
}

/// Bytes that the preface has as far as that can be told yet: always at least one more than there are, until it is whole.
fn preface_size(bytes: &[u8]) -> Result<usize, Malformed> {
    match bytes {
        [] => Ok(1),
        [STREAM_CONTROL] => Ok(2),
        [STREAM_CONTROL, rest @ ..] => match read_length(rest) {
            Length::Complete(length, 1) if length <= MAX_PREFACE => Ok(2 + length),
            _ => Err(Malformed),
        },
        _ => Err(Malformed),
    }
}
