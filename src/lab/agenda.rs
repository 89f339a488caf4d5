//! What will happen, in order of time; what happens at the same time, in the order in which it was planned.

use std::collections::BTreeMap;
use std::time::Duration;

use super::HostId;
use super::network::{AttachmentId, NetworkId, Packet};
use super::tunnels::{FromPipe, PipeId};
use crate::peer::api::SideEffectAnswer;

/// Something that happens.
#[derive(Debug)]
pub(super) enum Happening {
    /// A datagram reaches the middle of a network.
    AtMiddle { network: NetworkId, packet: Packet },
    /// A datagram reaches the host or router at the end of a link.
    AtEnd { attachment: AttachmentId, packet: Packet },
    /// A datagram reaches its own sender.
    AtHost { host: HostId, packet: Packet },
    /// Something comes out of a stream.
    OutOfPipe { id: PipeId, what: FromPipe },
    /// An engine's deadline.
    Wake { host: HostId },
    /// The answer to a side effect of that incarnation of the host's engine.
    Answer {
        host: HostId,
        incarnation: u64,
        answer: SideEffectAnswer,
    },
}

/// A place in the agenda.
pub(super) type Slot = (Duration, u64);

#[derive(Default)]
pub(super) struct Agenda {
    queue: BTreeMap<Slot, Happening>,
    next: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Duration, happening: Happening) -> Slot {
        let slot = (at, self.next);
        self.next += 1;
        self.queue.insert(slot, happening);
        slot
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.queue.remove(&slot);
    }

    /// The next happening, if it comes no later than `limit`.
    pub(super) fn pop(&mut self, limit: Duration) -> Option<(Duration, Happening)> {
        let entry = self.queue.first_entry()?;
        if entry.key().0 > limit {
            return None;
        }
        let ((at, _), happening) = entry.remove_entry();
        Some((at, happening))
    }
}
