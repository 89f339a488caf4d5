//! Cutting a stream's bytes into messages.
//!
//! A message that lies within one chunk is handed out where it lies; one that spans chunks is gathered in a buffer first. The buffer
//! grows with what has come, never with what a length promises.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Buf, Bytes};

use super::{Length, read_length};

/// Where a message lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::transport) enum Place {
    /// In the chunk that [`MessageCutter::cut`] keeps.
    Chunk,
    /// In the buffer, there.
    Buffer(Range<usize>),
}

/// A message's place and channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::transport) struct Cut {
    pub(in crate::transport) channel: u8,
    pub(in crate::transport) place: Place,
}

/// The bytes are not messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) struct Malformed;

/// What stands before each message of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum HeaderForm {
    /// Only a length; the channel is the stream's.
    Length {
        /// The stream's channel.
        channel: u8,
    },
    /// A channel, then a length.
    ChannelAndLength,
}

/// What is known of a message's header.
enum Header {
    Complete { channel: u8, size: usize, length: usize },
    Truncated,
}

impl HeaderForm {
    #[inline]
    fn read(self, bytes: &[u8], limit: usize) -> Result<Header, Malformed> {
        let (channel, skip) = match self {
            Self::Length { channel } => (channel, 0),
            Self::ChannelAndLength => match bytes.first() {
                Some(&channel) if channel < crate::codes::CHANNEL_COUNT => (channel, 1),
                Some(_) => return Err(Malformed),
                None => return Ok(Header::Truncated),
            },
        };
        match read_length(&bytes[skip..]) {
            Length::Complete(length, size) if length <= limit => Ok(Header::Complete {
                channel,
                size: skip + size,
                length,
            }),
            Length::Truncated => Ok(Header::Truncated),
            _ => Err(Malformed),
        }
    }
}

/// Cuts one stream.
#[derive(Debug)]
pub(in crate::transport) struct MessageCutter {
    form: HeaderForm,
    /// Largest message.
    limit: usize,
    /// A message that spans chunks, its header included.
    gathered: Vec<u8>,
    /// The message in `gathered` has been handed out.
    spent: bool,
}

/// A buffer larger than this is given back once its message has been read.
const KEPT_BUFFER: usize = 64 << 10;

impl MessageCutter {
    pub(in crate::transport) fn new(form: HeaderForm, limit: usize) -> Self {
        Self {
            form,
            limit,
            gathered: Vec::new(),
            spent: false,
        }
    }

    /// Bytes of a message that is not whole yet.
    pub(in crate::transport) fn pending(&self) -> usize {
        if self.spent { 0 } else { self.gathered.len() }
    }

    /// The buffer that [`Place::Buffer`] points into.
    pub(in crate::transport) fn buffer(&self) -> &[u8] {
        &self.gathered
    }

    /// Takes the message out of the buffer.
    pub(in crate::transport) fn take_buffer(&mut self, range: Range<usize>) -> Bytes {
        self.spent = false;
        Bytes::from(std::mem::take(&mut self.gathered)).slice(range)
    }

    /// Cuts the next message off the chunks; a message within a chunk is put into `kept`.
    #[inline]
    pub(in crate::transport) fn cut(
        &mut self,
        chunks: &mut VecDeque<Bytes>,
        kept: &mut Bytes,
    ) -> Result<Option<Cut>, Malformed> {
        if self.spent {
            self.spent = false;
            if self.gathered.capacity() > KEPT_BUFFER {
                self.gathered = Vec::new();
            } else {
                self.gathered.clear();
            }
        }
        while let Some(chunk) = chunks.front_mut() {
            if chunk.is_empty() {
                chunks.pop_front();
                continue;
            }
            if self.gathered.is_empty() {
                if let Header::Complete { channel, size, length } = self.form.read(chunk, self.limit)? {
                    if chunk.len() >= size + length {
                        chunk.advance(size);
                        *kept = chunk.split_to(length);
                        return Ok(Some(Cut {
                            channel,
                            place: Place::Chunk,
                        }));
                    }
                }
            }
            if let Some(cut) = self.gather(chunk)? {
                return Ok(Some(cut));
            }
        }
        Ok(None)
    }

    /// Moves bytes of a chunk into the buffer: as many as the message at its start lacks.
    fn gather(&mut self, chunk: &mut Bytes) -> Result<Option<Cut>, Malformed> {
        loop {
            match self.form.read(&self.gathered, self.limit)? {
                Header::Complete { channel, size, length } => {
                    let wanted = size + length - self.gathered.len();
                    let taken = wanted.min(chunk.len());
                    self.gathered.extend_from_slice(&chunk[..taken]);
                    chunk.advance(taken);
                    if taken < wanted {
                        return Ok(None);
                    }
                    self.spent = true;
                    return Ok(Some(Cut {
                        channel,
                        place: Place::Buffer(size..size + length),
                    }));
                }
                Header::Truncated if chunk.is_empty() => return Ok(None),
                Header::Truncated => {
                    self.gathered.push(chunk[0]);
                    chunk.advance(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::length_bytes;
    use super::*;
    use proptest::prelude::*;

    fn cut_all(bytes: &[u8], chunk_size: usize, form: HeaderForm) -> Result<Vec<(u8, Vec<u8>)>, Malformed> {
        let mut cutter = MessageCutter::new(form, 1 << 20);
        let mut messages = Vec::new();
        let mut kept = Bytes::new();
        for chunk in bytes.chunks(chunk_size) {
            let mut chunks = VecDeque::from([Bytes::copy_from_slice(chunk)]);
            while let Some(cut) = cutter.cut(&mut chunks, &mut kept)? {
                let data = match cut.place {
                    Place::Chunk => kept.to_vec(),
                    Place::Buffer(range) => cutter.buffer()[range].to_vec(),
                };
                messages.push((cut.channel, data));
            }
        }
        assert!(cutter.pending() <= bytes.len());
        Ok(messages)
    }

    proptest! {
        #[test]
        fn messages_survive_any_cutting_into_chunks(
            messages in proptest::collection::vec((0..64u8, proptest::collection::vec(any::<u8>(), 0..400)), 0..20),
            chunk_size in 1..700usize,
        ) {
            let mut bytes = Vec::new();
            for (channel, data) in &messages {
                let (length, size) = length_bytes(data.len());
                bytes.push(*channel);
                bytes.extend_from_slice(&length[..size]);
                bytes.extend_from_slice(data);
            }
            prop_assert_eq!(cut_all(&bytes, chunk_size, HeaderForm::ChannelAndLength), Ok(messages));
        }

        #[test]
        fn any_bytes_are_cut_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), size in 1..100usize) {
            let _ = cut_all(&bytes, size, HeaderForm::ChannelAndLength);
            let _ = cut_all(&bytes, size, HeaderForm::Length { channel: 3 });
        }
    }

    #[test]
    fn lengths_above_the_limit_are_malformed() {
        let (length, size) = length_bytes((1 << 20) + 1);
        assert_eq!(
            cut_all(&length[..size], 1, HeaderForm::Length { channel: 0 }),
            Err(Malformed)
        );
        assert_eq!(cut_all(&[64, 0], 2, HeaderForm::ChannelAndLength), Err(Malformed));
    }
}
