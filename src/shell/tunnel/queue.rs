//! Datagrams that wait to be written to a stream: few, and the oldest goes first when there are too many.
//!
//! In: datagrams of an engine. Out: frames of [`crate::wire::tunnel`], whole ones, for the task that writes ([`super::stream`]). They stand in one
//! ring of bytes, so nothing is allocated for a datagram once the ring has grown.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::wire::tunnel::{TUNNEL_HEADER, header};

/// Bytes that may wait: a tenth of a second at 5 Mbit/s, more than a relayed game needs. What would wait for longer is stale on arrival; QUIC sees
/// the loss and slows down, as it does when a router's queue is full.
pub const QUEUE_BYTES: usize = 64 << 10;

/// Bytes that are taken at once: what one TLS record holds.
pub const BATCH_BYTES: usize = 16 << 10;

#[derive(Default)]
struct State {
    /// Whole frames.
    frames: VecDeque<u8>,
    dropped: u64,
    /// No more will come: what waits is written, then the stream is closed.
    closing: bool,
    /// Nobody writes any more.
    gone: bool,
    /// Bytes that the task has taken and not yet given to the system.
    writing: bool,
}

impl State {
    /// Where the frame ends that begins there.
    fn end_of_frame(&self, at: usize) -> Option<usize> {
        let header = [*self.frames.get(at)?, *self.frames.get(at + 1)?];
        Some(at + TUNNEL_HEADER + usize::from(u16::from_be_bytes(header)))
    }

    fn drop_oldest(&mut self) {
        if let Some(end) = self.end_of_frame(0) {
            self.frames.drain(..end);
            self.dropped += 1;
        }
    }
}

/// A queue, shared by the engine's driver and the task that writes.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    given: Notify,
}

impl Queue {
    /// Queues what an engine transmits: one datagram, or several of `segment_size` bytes each. What no frame can hold is dropped.
    pub fn send(&self, payload: &[u8], segment_size: Option<usize>) {
        let mut state = self.state.lock();
        if state.closing || state.gone {
            return;
        }
        for datagram in payload.chunks(segment_size.unwrap_or(payload.len()).max(1)) {
            let Some(header) = header(datagram) else {
                state.dropped += 1;
                continue;
            };
            while state.frames.len() + TUNNEL_HEADER + datagram.len() > QUEUE_BYTES {
                state.drop_oldest();
            }
            state.frames.extend(header);
            state.frames.extend(datagram);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// No more will come.
    pub fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_one();
    }

    /// Everything was given to the system, or never will be.
    pub fn is_flushed(&self) -> bool {
        let state = self.state.lock();
        state.gone || (state.frames.is_empty() && !state.writing)
    }

    /// Nobody writes any more.
    pub fn is_gone(&self) -> bool {
        self.state.lock().gone
    }

    /// Datagrams that were dropped since the beginning.
    pub fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }

    /// Moves whole frames, at most [`BATCH_BYTES`], to `out`.
    pub(super) fn take(&self, out: &mut Vec<u8>) {
        let mut state = self.state.lock();
        let mut end = 0;
        while let Some(next) = state.end_of_frame(end).filter(|next| *next <= BATCH_BYTES) {
            end = next;
        }
        state.writing = end > 0;
        out.extend(state.frames.drain(..end));
    }

    /// What was taken has been given to the system.
    pub(super) fn written(&self) {
        self.state.lock().writing = false;
        self.given.notify_one();
    }

    /// No more will come, and nothing waits.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.closing && state.frames.is_empty()
    }

    /// Nobody writes any more.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.gone = true;
        state.frames = VecDeque::new();
        drop(state);
        self.given.notify_one();
    }

    /// Ready once [`is_flushed`](Self::is_flushed).
    #[cfg(feature = "program")]
    pub async fn flushed(&self) {
        while !self.is_flushed() {
            self.given.notified().await;
        }
    }

    /// Ready once no more will come.
    pub(super) async fn closed(&self) {
        while !self.state.lock().closing {
            self.changed.notified().await;
        }
        // Whoever waits next shall not miss it.
        self.changed.notify_one();
    }

    /// Ready after [`send`](Self::send) or [`close`](Self::close).
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().frames.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tunnel::{MAX_TUNNEL_DATAGRAM, first_datagram};

    fn taken(queue: &Queue) -> Vec<Vec<u8>> {
        let (mut bytes, mut all) = (Vec::new(), Vec::new());
        queue.take(&mut bytes);
        let mut rest = &bytes[..];
        while let Some(datagram) = first_datagram(rest).unwrap() {
            all.push(datagram.to_vec());
            rest = &rest[TUNNEL_HEADER + datagram.len()..];
        }
        assert!(rest.is_empty(), "whole frames");
        all
    }

    #[test]
    fn runs_are_cut_into_datagrams() {
        let queue = Queue::default();
        queue.send(b"aaabbbc", Some(3));
        queue.send(b"dd", None);
        queue.send(b"", None);
        queue.send(&[1; MAX_TUNNEL_DATAGRAM + 1], None);
        assert_eq!(taken(&queue), [&b"aaa"[..], b"bbb", b"c", b"dd"]);
        assert_eq!(queue.dropped(), 1);
        assert!(!queue.is_flushed());
        queue.written();
        assert!(queue.is_flushed());
    }

    #[test]
    fn the_oldest_gives_way() {
        let queue = Queue::default();
        for number in 0..1_000_u32 {
            let mut datagram = vec![0; 1_000];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            queue.send(&datagram, None);
            assert!(queue.waiting() <= QUEUE_BYTES);
        }
        let mut numbers = Vec::new();
        loop {
            let batch = taken(&queue);
            if batch.is_empty() {
                break;
            }
            assert!(batch.len() * 1_002 <= BATCH_BYTES);
            numbers.extend(
                batch
                    .iter()
                    .map(|datagram| u32::from_be_bytes(datagram[..4].try_into().unwrap())),
            );
        }
        let kept = QUEUE_BYTES / 1_002;
        assert_eq!(numbers, (1_000 - kept as u32..1_000).collect::<Vec<_>>());
        assert_eq!(queue.dropped(), 1_000 - kept as u64);
    }

    #[test]
    fn after_the_close_nothing_is_taken_in() {
        let queue = Queue::default();
        queue.send(b"last", None);
        queue.close();
        queue.send(b"too late", None);
        assert!(!queue.is_over());
        assert_eq!(taken(&queue), [b"last"]);
        assert!(queue.is_over());
        queue.abandon();
        assert!(queue.is_flushed());
    }
}
