//! The game's side of the node: messages in, messages, events and views out.
//!
//! In: messages for connected players, calls that fetch. Out: messages of several players in turns, each before the event that comes after
//! it; events in the order in which they were raised; a snapshot for accessor calls, renewed every [`VIEW_INTERVAL`] at most.

use std::time::{Duration, Instant};

use super::Node;
use super::api::nat::NatReport;
use super::api::{Event, PeerView, View};
use super::connections::{Peer, Stage};
use crate::codes::SendMode;
use crate::transport::identity::Guid;
use crate::transport::{LinkId, Message, Outgoing, SendError, TakenMessage};

/// Figures in the view are refreshed at most this often: three frames.
const VIEW_INTERVAL: Duration = Duration::from_millis(50);
/// Messages of one player that are handed out before another player's: a packet's worth of small ones, several times over.
const MESSAGES_IN_A_ROW: usize = 64;

impl Node {
    /// Queues a game message for a connected peer.
    pub fn send(
        &mut self,
        now: Instant,
        peer: Guid,
        channel: u8,
        mode: SendMode,
        data: &[u8],
    ) -> Result<(), SendError> {
        self.outgoing(now, peer)
            .ok_or(SendError::NotConnected)?
            .send(channel, mode, data)
    }

    /// The way to a connected peer, for several messages in a row.
    pub fn outgoing(&mut self, now: Instant, peer: Guid) -> Option<Outgoing<'_>> {
        self.now = now;
        let link = self.peers.get(&peer)?.current?;
        self.timers_changed |= self.roaming.note_sent(now, peer);
        self.transport.outgoing(link)
    }

    /// Hands all messages to `put` that come before the next event of another kind, which [`poll_event`](Self::poll_event) returns: the same
    /// messages as there, at half the cost. `reliable_room` is as there; `put` returns it for the message behind the one that it was given.
    /// Returns how many messages there were.
    #[inline]
    pub fn poll_messages(&mut self, mut reliable_room: bool, mut put: impl FnMut(Guid, Message<'_>) -> bool) -> usize {
        let (mut total, mut empty_links) = (0, 0);
        while self.lifecycle.is_empty() && empty_links < self.readable.len() {
            let Some((link, peer)) = self.next_readable() else {
                continue;
            };
            let room = &mut reliable_room;
            let count = self
                .transport
                .take_messages(link, MESSAGES_IN_A_ROW, room, |message| put(peer, message));
            total += count;
            if count == MESSAGES_IN_A_ROW {
                empty_links = 0;
                self.readable.push_back(link);
            } else if self.leave_empty(link, reliable_room) {
                empty_links += 1;
            }
        }
        self.transmit_wanted |= total > 0;
        total
    }

    /// Takes the link whose turn it is out of the queue.
    fn next_readable(&mut self) -> Option<(LinkId, Guid)> {
        let link = self.readable.pop_front()?;
        let guid = self.links.get(&link)?.guid()?;
        Some((link, guid))
    }

    /// The next event. With `reliable_room` false, reliable messages stay where they are (their senders are held back).
    pub fn poll_event(&mut self, reliable_room: bool) -> Option<Event<'_>> {
        if self.lifecycle.is_empty() {
            if let Some((peer, taken)) = self.next_message(reliable_room) {
                self.transmit_wanted = true;
                let message = self.transport.message(&taken)?;
                return Some(Event::Message {
                    peer,
                    channel: message.channel,
                    mode: message.mode,
                    data: message.data,
                });
            }
            if self.mesh_touched {
                self.pump_mesh(self.now);
            }
        }
        self.lifecycle.pop_front()
    }

    /// The next message of the link whose turn it is. Links that turn out empty leave the queue; those that are over are reported.
    fn next_message(&mut self, reliable_room: bool) -> Option<(Guid, TakenMessage)> {
        for _ in 0..self.readable.len() {
            let Some((link, peer)) = self.next_readable() else {
                continue;
            };
            if let Some(taken) = self.transport.take_message(link, reliable_room) {
                self.readable.push_back(link);
                return Some((peer, taken));
            }
            if !self.leave_empty(link, reliable_room) && !self.lifecycle.is_empty() {
                return None;
            }
        }
        None
    }

    /// A link had no more messages. Without room for reliable ones it may, and goes back into the queue (true); otherwise it leaves
    /// it, and if it is over, that is reported.
    fn leave_empty(&mut self, link: LinkId, reliable_room: bool) -> bool {
        if !reliable_room {
            self.readable.push_back(link);
            return true;
        }
        let Some(entry) = self.links.get_mut(&link) else {
            return false;
        };
        entry.queued = false;
        let draining = entry.stage == Stage::Draining;
        self.note_dropped(link);
        if draining {
            self.drained(link);
        }
        false
    }

    /// Somebody looks: the next view has the figures of its moment, however short ago the last one was.
    pub fn expire_view(&mut self) {
        self.view_at = None;
    }

    /// What accessor calls show. `None` if nothing changed since the last call.
    pub fn take_view(&mut self, now: Instant) -> Option<View> {
        let fresh = self.view_at.is_some_and(|at| now < at + VIEW_INTERVAL);
        if !self.view_changed && (fresh || self.peers.is_empty()) {
            return None;
        }
        self.view_changed = false;
        self.view_at = Some(now);
        let mut peers: Vec<PeerView> = self
            .peers
            .iter()
            .filter_map(|(guid, peer)| self.peer_view(*guid, peer))
            .collect();
        peers.sort_unstable_by_key(|view| view.peer);
        let own = &self.dropped;
        let transport = self.transport.counters();
        Some(View {
            peers,
            mesh: self.mesh.view(),
            server_connected: self.server_is_up(),
            observed: self.rendezvous.observed,
            nat: NatReport {
                manual: self.manual_address,
                ..self.nat.report.clone()
            },
            dropped_datagrams: own.unknown
                + own.strangers
                + own.probes
                + own.unroutable
                + self.attempts.dropped
                + self.router.forwarding.dropped
                + self.nat.dropped()
                + transport.unknown_connection
                + transport.malformed,
        })
    }

    fn peer_view(&self, guid: Guid, peer: &Peer) -> Option<PeerView> {
        let link = peer.current?;
        let path = self.paths.best(self.links.get(&link)?.address)?;
        Some(PeerView {
            peer: guid,
            path: path.kind,
            address: path.address,
            stats: self.transport.stats(link)?,
        })
    }
}
