//! Putting unreliable messages together that are larger than a datagram.
//!
//! Bounded per link: a few messages at a time, each at most 64 KiB; the oldest gives way, and one that does not become whole within
//! a time is dropped.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::datagram::{EntryHeader, Fragment};
use crate::codes::MAX_UNRELIABLE_MESSAGE;

/// Most messages that are being put together at a time. A game that sends large unreliable messages has few of them under way; more
/// would be held only under loss.
const MAX_MESSAGES: usize = 16;
/// Most bytes that they may take together: eight of the largest.
const MAX_BYTES: usize = 8 * MAX_UNRELIABLE_MESSAGE;
/// Parts of one message that do not touch each other. 64 KiB in datagrams of a kilobyte have 64 parts; the reach allows for the
/// smallest of paths, and keeps a hostile one-byte pattern cheap.
const MAX_GAPS: usize = 96;
/// A message whose parts have not all come by now will not become whole: parts are sent together and never repeated.
const LIFETIME: Duration = Duration::from_secs(2);

struct Partial {
    channel: u8,
    sequence: Option<u32>,
    message: u16,
    started: Instant,
    bytes: Vec<u8>,
    /// What has come, as sorted ranges that neither touch nor overlap.
    ranges: Vec<(u32, u32)>,
}

impl Partial {
    /// Notes that `start..end` has come. False: too scattered.
    fn add(&mut self, start: u32, end: u32) -> bool {
        let first = self.ranges.partition_point(|range| range.1 < start);
        let last = self.ranges.partition_point(|range| range.0 <= end);
        if first == last {
            if self.ranges.len() == MAX_GAPS {
                return false;
            }
            self.ranges.insert(first, (start, end));
        } else {
            let merged = (start.min(self.ranges[first].0), end.max(self.ranges[last - 1].1));
            self.ranges.drain(first + 1..last);
            self.ranges[first] = merged;
        }
        true
    }

    fn is_whole(&self) -> bool {
        self.ranges == [(0, self.bytes.len() as u32)]
    }
}

/// Messages in the making.
#[derive(Default)]
pub(in crate::transport) struct Reassembly {
    /// Oldest first.
    partials: VecDeque<Partial>,
    bytes: usize,
    dropped: u64,
}

impl Reassembly {
    /// Takes a part; gives the message back if that made it whole.
    pub(in crate::transport) fn insert(
        &mut self,
        now: Instant,
        header: EntryHeader,
        fragment: Fragment,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let total = fragment.total as usize;
        let start = fragment.offset as usize;
        let end = start + payload.len();
        if payload.is_empty() || end > total || total > MAX_UNRELIABLE_MESSAGE {
            return None;
        }
        self.expire(now);
        let index = match self.partials.iter().position(|partial| {
            partial.message == fragment.message
                && partial.channel == header.channel
                && partial.sequence == header.sequence
                && partial.bytes.len() == total
        }) {
            Some(index) => index,
            None => self.start(now, header, fragment),
        };
        let partial = &mut self.partials[index];
        if !partial.add(fragment.offset, end as u32) {
            self.dropped += 1;
            self.remove(index);
            return None;
        }
        partial.bytes[start..end].copy_from_slice(payload);
        partial.is_whole().then(|| self.remove(index))
    }

    fn start(&mut self, now: Instant, header: EntryHeader, fragment: Fragment) -> usize {
        let total = fragment.total as usize;
        while self.partials.len() >= MAX_MESSAGES || self.bytes + total > MAX_BYTES {
            self.dropped += 1;
            self.remove(0);
        }
        self.bytes += total;
        self.partials.push_back(Partial {
            channel: header.channel,
            sequence: header.sequence,
            message: fragment.message,
            started: now,
            bytes: vec![0; total],
            ranges: Vec::new(),
        });
        self.partials.len() - 1
    }

    fn remove(&mut self, index: usize) -> Vec<u8> {
        match self.partials.remove(index) {
            Some(partial) => {
                self.bytes -= partial.bytes.len();
                partial.bytes
            }
            None => Vec::new(),
        }
    }

    fn expire(&mut self, now: Instant) {
        while self
            .partials
            .front()
            .is_some_and(|partial| now.saturating_duration_since(partial.started) > LIFETIME)
        {
            self.dropped += 1;
            self.remove(0);
        }
    }

    /// Messages given up since the last call.
    pub(in crate::transport) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> EntryHeader {
        EntryHeader {
            channel: 1,
            sequence: None,
            fragment: None,
        }
    }

    fn part(message: u16, total: u32, offset: u32) -> Fragment {
        Fragment { message, total, offset }
    }

    #[test]
    fn parts_in_any_order_make_the_message() {
        let now = Instant::now();
        let whole: Vec<u8> = (0..1000u32).map(|value| value as u8).collect();
        for step in [7, 100, 999, 1000] {
            let mut reassembly = Reassembly::default();
            let mut offsets: Vec<usize> = (0..1000).step_by(step).collect();
            let pivot = offsets.len() / 2;
            offsets.rotate_left(pivot);
            let mut result = None;
            let count = offsets.len().min(MAX_GAPS);
            if offsets.len() > count {
                continue;
            }
            for offset in offsets {
                assert_eq!(result, None);
                let end = (offset + step).min(1000);
                result = reassembly.insert(now, header(), part(5, 1000, offset as u32), &whole[offset..end]);
            }
            assert_eq!(result.as_deref(), Some(&whole[..]));
            assert_eq!(reassembly.bytes, 0);
        }
    }

    #[test]
    fn overlaps_and_repeats_do_not_make_a_message_whole_early() {
        let now = Instant::now();
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.insert(now, header(), part(1, 10, 0), &[1; 6]), None);
        assert_eq!(reassembly.insert(now, header(), part(1, 10, 0), &[1; 6]), None);
        assert_eq!(reassembly.insert(now, header(), part(1, 10, 3), &[1; 6]), None);
        assert_eq!(
            reassembly.insert(now, header(), part(1, 10, 9), &[1]),
            Some(vec![1; 10])
        );
    }

    #[test]
    fn hostile_parts_stay_within_the_bounds() {
        let mut now = Instant::now();
        let mut reassembly = Reassembly::default();
        for message in 0..1000 {
            assert_eq!(reassembly.insert(now, header(), part(message, 65536, 1), &[1]), None);
            assert!(reassembly.partials.len() <= MAX_MESSAGES && reassembly.bytes <= MAX_BYTES);
        }
        for offset in 0..1000 {
            reassembly.insert(now, header(), part(7, 65536, offset * 2 + 1), &[1]);
        }
        assert!(reassembly.take_dropped() > 900);
        assert_eq!(reassembly.insert(now, header(), part(1, 10, 9), &[1, 2]), None);
        assert_eq!(reassembly.insert(now, header(), part(1, 65537, 0), &[1]), None);
        now += LIFETIME + Duration::from_millis(1);
        reassembly.expire(now);
        assert_eq!((reassembly.partials.len(), reassembly.bytes), (0, 0));
    }
}
