//! Game messages in and out of links: one by one, and in rows, where the link is looked up once for all of them.

use bytes::Bytes;

use super::endpoint::Transport;
use super::link::{Link, Place};
use super::{LinkId, Message, SendError};
use crate::codes::SendMode;

/// Where a message that was taken out of its queue lies.
pub struct TakenMessage {
    slot: u32,
    place: Place,
}

/// The way out of one link, for several messages in a row.
pub struct Outgoing<'a> {
    link: &'a mut Link,
}

impl Outgoing<'_> {
    /// As [`Transport::send`].
    ///
    /// # Errors
    /// As [`Transport::send`].
    #[inline]
    pub fn send(&mut self, channel: u8, mode: SendMode, data: &[u8]) -> Result<(), SendError> {
        self.link.send(channel, mode, data)
    }
}

impl Transport {
    /// Queues a game message. Small ones are packed together and leave with the next `poll_transmit`.
    ///
    /// # Errors
    /// [`SendError::NotConnected`] also if the link is one to a server, or the channel above 63.
    pub fn send(&mut self, link: LinkId, channel: u8, mode: SendMode, data: &[u8]) -> Result<(), SendError> {
        self.outgoing(link)
            .ok_or(SendError::NotConnected)?
            .send(channel, mode, data)
    }

    /// For several messages in a row. They leave with the next `poll_transmit`.
    pub fn outgoing(&mut self, link: LinkId) -> Option<Outgoing<'_>> {
        let slot = self.slot_of(link)?;
        self.note_transmit(slot);
        let link = self.links[slot as usize].as_mut()?;
        Some(Outgoing { link })
    }

    /// As [`send`](Self::send) for data that is already shared: large reliable messages are not copied again.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_shared(&mut self, link: LinkId, channel: u8, mode: SendMode, data: Bytes) -> Result<(), SendError> {
        let slot = self.slot_of(link).ok_or(SendError::NotConnected)?;
        match &mut self.links[slot as usize] {
            Some(link) => link.send_shared(channel, mode, data)?,
            None => return Err(SendError::NotConnected),
        }
        self.note_transmit(slot);
        Ok(())
    }

    /// The next game message. With `reliable_room` false only unreliable ones are taken out: reliable ones stay, and flow control holds the sender.
    pub fn next_message(&mut self, link: LinkId, reliable_room: bool) -> Option<Message<'_>> {
        let taken = self.take_message(link, reliable_room)?;
        self.message(&taken)
    }

    /// Takes the next game message out of its queue, as [`next_message`](Self::next_message) does, without borrowing it yet: so that a caller can
    /// look at several links. It is looked at by [`message`](Self::message) until anything else is done with the link.
    pub fn take_message(&mut self, link: LinkId, reliable_room: bool) -> Option<TakenMessage> {
        let slot = self.slot_of(link)?;
        let found = self.links[slot as usize].as_mut()?;
        let mut should_transmit = false;
        let place = match found.take_message(reliable_room, &mut should_transmit) {
            Ok(place) => place,
            Err(_) => {
                self.end_malformed(slot);
                None
            }
        };
        if should_transmit {
            self.note_transmit(slot);
        }
        Some(TakenMessage { slot, place: place? })
    }

    /// The message that [`take_message`](Self::take_message) took.
    pub fn message(&self, taken: &TakenMessage) -> Option<Message<'_>> {
        self.links.get(taken.slot as usize)?.as_ref()?.message(&taken.place)
    }

    /// Takes up to `limit` game messages of a link and hands each to `put`, which returns whether there is room for more reliable ones.
    /// `reliable_room` says so for the first, and is left as `put` said last. Returns how many were taken: fewer than `limit` mean that
    /// nothing is left (without room: nothing unreliable).
    #[inline]
    pub fn take_messages(
        &mut self,
        link: LinkId,
        limit: usize,
        reliable_room: &mut bool,
        mut put: impl FnMut(Message<'_>) -> bool,
    ) -> usize {
        let Some(slot) = self.slot_of(link) else { return 0 };
        let Some(found) = self.links[slot as usize].as_mut() else {
            return 0;
        };
        let (mut count, mut should_transmit, mut malformed) = (0, false, false);
        while count < limit {
            match found.take_message(*reliable_room, &mut should_transmit) {
                Ok(Some(place)) => {
                    if let Some(message) = found.message(&place) {
                        *reliable_room = put(message);
                    }
                    count += 1;
                }
                Ok(None) => break,
                Err(_) => {
                    malformed = true;
                    break;
                }
            }
        }
        if malformed {
            self.end_malformed(slot);
        }
        if should_transmit {
            self.note_transmit(slot);
        }
        count
    }
}
