//! Reliable messages of a link.
//!
//! Ordered: one stream a channel. Unordered: whatever was sent since the last flush leaves as one short stream, finished at once, so
//! that a lost packet holds up only its own batch; a large message has a stream to itself. When the other side grants no more streams
//! (or has not read the old ones), batches grow instead: that is when coalescing pays most.
//!
//! Small before large: large messages are written at a lower priority and never fill quinn's send window, so that a chat line does not
//! wait for a level.

mod receive;
mod send;

pub(super) use receive::{ReliableReceiver, Taken};
pub(super) use send::{MAX_SEND_QUEUE, ReliableSender};
