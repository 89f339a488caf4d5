//! Entries of a DATAGRAM frame: writing them, and reading them one by one.

use bytes::{BufMut, BytesMut};

use super::{Length, length_bytes, length_size, read_length};
use crate::codes::MAX_UNRELIABLE_MESSAGE;

const CHANNEL_MASK: u8 = 0x3f;
const FLAG_SEQUENCED: u8 = 0x40;
const FLAG_FRAGMENT: u8 = 0x80;

/// Bytes of a sequence number. Three: with two, a second of loss at 50,000 messages a second would be ambiguous.
pub(in crate::transport) const SEQUENCE_BITS: u32 = 24;
const SEQUENCE_BYTES: usize = 3;
const FRAGMENT_BYTES: usize = 8;

/// Which part of a larger message an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) struct Fragment {
    /// Number of the message within the link; wraps.
    pub(in crate::transport) message: u16,
    /// Size of the whole message.
    pub(in crate::transport) total: u32,
    /// Where this part begins.
    pub(in crate::transport) offset: u32,
}

/// What stands before an entry's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) struct EntryHeader {
    /// 0 to 63.
    pub(in crate::transport) channel: u8,
    /// 24 bits, if sequenced.
    pub(in crate::transport) sequence: Option<u32>,
    /// If this is a part of a larger message.
    pub(in crate::transport) fragment: Option<Fragment>,
}

impl EntryHeader {
    /// Bytes of an entry with a payload of that length.
    #[inline]
    pub(in crate::transport) fn entry_size(&self, length: usize) -> usize {
        self.fixed_size() + length_size(length) + length
    }

    #[inline]
    fn fixed_size(&self) -> usize {
        1 + if self.sequence.is_some() { SEQUENCE_BYTES } else { 0 }
            + if self.fragment.is_some() { FRAGMENT_BYTES } else { 0 }
    }

    /// Appends an entry.
    #[inline]
    pub(in crate::transport) fn write(&self, out: &mut BytesMut, payload: &[u8]) {
        let mut header = [0; 1 + SEQUENCE_BYTES + FRAGMENT_BYTES + super::MAX_LENGTH_BYTES];
        let mut size = 1;
        header[0] = self.channel & CHANNEL_MASK;
        if let Some(sequence) = self.sequence {
            header[0] |= FLAG_SEQUENCED;
            header[size..size + SEQUENCE_BYTES].copy_from_slice(&sequence.to_be_bytes()[1..]);
            size += SEQUENCE_BYTES;
        }
        if let Some(fragment) = self.fragment {
            header[0] |= FLAG_FRAGMENT;
            header[size..size + 2].copy_from_slice(&fragment.message.to_be_bytes());
            header[size + 2..size + 5].copy_from_slice(&fragment.total.to_be_bytes()[1..]);
            header[size + 5..size + 8].copy_from_slice(&fragment.offset.to_be_bytes()[1..]);
            size += FRAGMENT_BYTES;
        }
        let (length, length_size) = length_bytes(payload.len());
        header[size..size + length_size].copy_from_slice(&length[..length_size]);
        size += length_size;
        out.put_slice(&header[..size]);
        out.put_slice(payload);
    }
}

/// Takes the first entry off a frame. `None`: it is malformed (or empty).
#[inline]
pub(in crate::transport) fn read_entry<'a>(frame: &mut &'a [u8]) -> Option<(EntryHeader, &'a [u8])> {
    let (&first, mut rest) = frame.split_first()?;
    let mut header = EntryHeader {
        channel: first & CHANNEL_MASK,
        sequence: None,
        fragment: None,
    };
    if first & FLAG_SEQUENCED != 0 {
        let (bytes, behind) = rest.split_first_chunk::<SEQUENCE_BYTES>()?;
        header.sequence = Some(u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]));
        rest = behind;
    }
    if first & FLAG_FRAGMENT != 0 {
        let (bytes, behind) = rest.split_first_chunk::<FRAGMENT_BYTES>()?;
        header.fragment = Some(Fragment {
            message: u16::from_be_bytes([bytes[0], bytes[1]]),
            total: u32::from_be_bytes([0, bytes[2], bytes[3], bytes[4]]),
            offset: u32::from_be_bytes([0, bytes[5], bytes[6], bytes[7]]),
        });
        rest = behind;
    }
    let Length::Complete(length, length_size) = read_length(rest) else {
        return None;
    };
    if length > MAX_UNRELIABLE_MESSAGE {
        return None;
    }
    let payload = rest.get(length_size..length_size + length)?;
    *frame = &rest[length_size + length..];
    Some((header, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers() -> impl Strategy<Value = EntryHeader> {
        (
            0..64u8,
            proptest::option::of(0..1u32 << SEQUENCE_BITS),
            proptest::option::of((any::<u16>(), 0..1u32 << 24, 0..1u32 << 24)),
        )
            .prop_map(|(channel, sequence, fragment)| EntryHeader {
                channel,
                sequence,
                fragment: fragment.map(|(message, total, offset)| Fragment { message, total, offset }),
            })
    }

    proptest! {
        #[test]
        fn packed_entries_come_out_as_they_went_in(
            entries in proptest::collection::vec((headers(), proptest::collection::vec(any::<u8>(), 0..300)), 1..20)
        ) {
            let mut frame = BytesMut::new();
            let mut size = 0;
            for (header, payload) in &entries {
                header.write(&mut frame, payload);
                size += header.entry_size(payload.len());
                prop_assert_eq!(frame.len(), size);
            }
            let mut rest = &frame[..];
            for (header, payload) in &entries {
                prop_assert_eq!(read_entry(&mut rest), Some((*header, &payload[..])));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic_and_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut rest = &bytes[..];
            while read_entry(&mut rest).is_some() {}
        }
    }
}
