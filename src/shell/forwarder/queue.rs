//! Frames that go from one thread to another: those of TLS tunnels, and those that came to the wrong socket.
//!
//! Short, and the oldest give way: a frame that waits is worth less with every millisecond, and QUIC repeats what matters. Two buffers take
//! turns, so that nothing is allocated for a frame: one is filled while the other is worked off.

use parking_lot::Mutex;

use crate::relay::Way;

/// Bytes that wait: some 1,700 small frames, or 200 of the largest; 2 ms of what one shard passes on at most.
const MAX_BYTES: usize = 256 << 10;

/// Frames in one buffer, oldest first.
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where each came from, or goes to; where it stands.
    entries: Vec<(Way, usize, usize)>,
}

impl Frames {
    /// Nothing left in it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// No frames.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where the frame of that number came from, or goes to, and where it stands in [`bytes`](Self::bytes): start and length.
    pub fn entry(&self, number: usize) -> (Way, usize, usize) {
        self.entries[number]
    }

    /// All frames, one behind the other.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Appends one. Returns how many old ones gave way.
    pub fn push(&mut self, way: Way, frame: &[u8]) -> u64 {
        let mut dropped = 0;
        if self.bytes.len() + frame.len() > MAX_BYTES {
            dropped = self.drop_older_half();
        }
        self.entries.push((way, self.bytes.len(), frame.len()));
        self.bytes.extend_from_slice(frame);
        dropped
    }

    /// Half of it at once: moving the rest up costs little for each.
    fn drop_older_half(&mut self) -> u64 {
        let kept_from = self
            .entries
            .iter()
            .find(|(_, start, _)| *start >= MAX_BYTES / 2)
            .map_or(self.bytes.len(), |(_, start, _)| *start);
        let before = self.entries.len();
        self.entries
            .retain_mut(|(_, start, _)| match start.checked_sub(kept_from) {
                Some(moved) => {
                    *start = moved;
                    true
                }
                None => false,
            });
        self.bytes.drain(..kept_from);
        (before - self.entries.len()) as u64
    }

    /// Takes the first `count` away.
    pub fn remove_first(&mut self, count: usize) {
        let end = self.entries.get(count).map_or(self.bytes.len(), |(_, start, _)| *start);
        self.entries.drain(..count.min(self.entries.len()));
        for (_, start, _) in &mut self.entries {
            *start -= end;
        }
        self.bytes.drain(..end);
    }
}

/// What waits for another thread.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<(Frames, u64)>,
}

impl Queue {
    /// Appends a frame; true if the other side sleeps and must be woken.
    #[must_use]
    pub fn push(&self, way: Way, frame: &[u8]) -> bool {
        let (frames, dropped) = &mut *self.waiting.lock();
        let was_empty = frames.is_empty();
        *dropped += frames.push(way, frame);
        was_empty
    }

    /// Swaps everything that waits into `frames`, which comes in empty.
    pub fn take(&self, frames: &mut Frames) {
        std::mem::swap(frames, &mut self.waiting.lock().0);
    }

    /// Frames that gave way.
    pub fn dropped(&self) -> u64 {
        self.waiting.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SocketName;

    fn way(port: u16) -> Way {
        Way {
            socket: SocketName::Tunnel(1),
            address: ([127, 0, 0, 1], port).into(),
            local_ip: None,
        }
    }

    fn contents(frames: &mut Frames) -> Vec<(u16, Vec<u8>)> {
        (0..frames.len())
            .map(|number| {
                let (way, start, length) = frames.entry(number);
                (way.address.port(), frames.bytes()[start..start + length].to_vec())
            })
            .collect()
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let (queue, mut frames) = (Queue::default(), Frames::default());
        assert!(queue.push(way(1), b"one") && !queue.push(way(2), b"three"));
        queue.take(&mut frames);
        assert_eq!(contents(&mut frames), [(1, b"one".to_vec()), (2, b"three".to_vec())]);
        frames.remove_first(1);
        assert_eq!(contents(&mut frames), [(2, b"three".to_vec())]);
        frames.clear();
        assert!(queue.push(way(3), b"later"), "empty again");
        queue.take(&mut frames);
        assert_eq!((frames.len(), queue.dropped()), (1, 0));
    }

    #[test]
    fn the_oldest_give_way_and_are_counted() {
        let (queue, mut frames) = (Queue::default(), Frames::default());
        let sent = 10_000_u16;
        for number in 0..sent {
            let _ = queue.push(way(number), &[(number % 251) as u8; 100]);
        }
        queue.take(&mut frames);
        assert!(frames.bytes().len() <= MAX_BYTES && frames.bytes().len() >= MAX_BYTES / 2 - 100);
        let contents = contents(&mut frames);
        assert_eq!(contents.len() as u64 + queue.dropped(), u64::from(sent));
        let first = sent - contents.len() as u16;
        for (place, (port, frame)) in contents.iter().enumerate() {
            let number = first + place as u16;
            assert_eq!((*port, &frame[..]), (number, &[(number % 251) as u8; 100][..]));
        }
    }
}
