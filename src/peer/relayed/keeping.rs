//! Sessions of players who are connected: kept at rest while another path is better, woken when it dies, bound again when the forwarder was
//! restarted, renewed before their tickets are void.
//!
//! In: doubts about a player's paths, news of the sessions, the time. Out: sessions that are bound, paths that are fed, wishes for tickets. While a
//! player's paths are doubted one path over a forwarder is fed beside the best one, whatever is known of it: that the game goes on costs
//! some packets twice.

use std::time::{Duration, Instant};

use rand::Rng;

use super::super::Node;
use super::super::paths::Path;
use super::session::State;
use super::{MAX_REPLACED, MAX_SESSIONS, News, REPLACE_TIME, RETIRE_TIME, SPARE_TIME};
use crate::codes::PathKind;
use crate::engine::SocketName;
use crate::transport::SyntheticAddress;
use crate::transport::identity::Guid;
use crate::wire::control::RelayPolicy;

/// How long a second path is fed while neither has proven itself: as long as a player is given before it is lost.
const DOUBT_FEED: Duration = Duration::from_secs(10);
/// Time between two wishes for another ticket while none comes.
const RENEW_INTERVAL: Duration = Duration::from_secs(30);
/// When a ticket is asked for whose forwarder forgot the session: a restarted server's sessions stand again by then.
const RENEW_AFTER_LOSS: Duration = Duration::from_secs(3);
/// Frames of one session that may be due at a moment: its ticket and a probe.
const FRAMES_AT_A_TIME: usize = 2;

impl Node {
    /// Every way to that player is doubted: the tickets that are still good are shown again, and what is sent goes over a forwarder as well until
    /// a path has proven itself.
    pub(in super::super) fn wake_sessions(&mut self, now: Instant, peer: Guid) {
        if self.effective_relay_policy() == RelayPolicy::Never {
            return;
        }
        let mut numbers: Vec<u32> = self.relayed.of(peer).map(|(number, _)| number).collect();
        // The newest one of the server's is fed: that needs nobody else to live.
        numbers.sort_by_key(|number| self.relayed.sessions[number].session.kind);
        for number in numbers {
            self.wake_session(now, number);
            self.feed_if_doubted(now, number);
        }
        self.relayed_timeout(now);
    }

    fn wake_session(&mut self, now: Instant, number: u32) {
        let Some(entry) = self.relayed.sessions.get_mut(&number) else {
            return;
        };
        (entry.rests, entry.used, entry.failed) = (false, now, true);
        entry.session.bind_again(now);
        let (peer, route) = (entry.session.peer.guid(), entry.route);
        if let Some(path) = self.path_of(number) {
            let path = Path {
                verified: false,
                ..path
            };
            self.add_path(now, peer, route, path);
        }
    }

    /// What is sent to a player whose paths are doubted goes over that session too.
    pub(super) fn feed_if_doubted(&mut self, now: Instant, number: u32) {
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return;
        };
        let (route, label) = (entry.route, entry.session.label);
        let own = SocketName::Relay(number);
        if self
            .paths
            .best(route)
            .is_some_and(|best| !best.verified && best.socket != own)
        {
            self.paths.feed_too(route, (own, label), now + DOUBT_FEED);
        }
    }

    /// The other side sends over a session although both have had a better path for a while: it has lost that one.
    pub(super) fn heard_on_session(&mut self, now: Instant, number: u32) {
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return;
        };
        let (peer, kind, rests) = (entry.session.peer.guid(), entry.session.kind, entry.rests);
        if !rests && !self.is_settled_on_better(now, peer, kind) {
            return;
        }
        if let Some(entry) = self.relayed.sessions.get_mut(&number) {
            entry.rests = false;
        }
        self.timers_changed = true;
        self.other_side_seeks(now, peer, Some(kind));
    }

    /// A forwarder said that it has this side.
    pub(super) fn forwarder_is_back(&mut self, now: Instant, number: u32) {
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return;
        };
        if entry.session.hop == super::Hop::ServerSession {
            self.server_lives(now);
        }
    }

    /// A forwarder does not know the session any more: it was restarted, or both sides were silent for long.
    pub(super) fn forwarder_forgot(&mut self, now: Instant, number: u32) {
        if let Some(entry) = self.relayed.sessions.get_mut(&number) {
            entry.failed = true;
            entry.renew_at = entry.renew_at.min(now + RENEW_AFTER_LOSS);
        }
        // If it is the server's, that may have been restarted, and the session with it is over.
        self.ping_server(now);
        self.forwarder_is_back(now, number);
    }

    /// The other side answered through the forwarder: the session's path may be used, and older ones are left.
    pub(super) fn session_proven(&mut self, now: Instant, number: u32, route: SyntheticAddress) {
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return;
        };
        let (peer, kind) = (entry.session.peer.guid(), entry.session.kind);
        let replaced = entry.retires.is_some();
        if !replaced {
            self.leave_replaced(now, peer, kind);
        }
        let Some(path) = self.path_of(number) else { return };
        self.add_path(now, peer, route, path);
        let in_use = self
            .paths
            .best(route)
            .is_some_and(|best| best.socket == SocketName::Relay(number));
        if !in_use {
            return;
        }
        // Another session at the same forwarder is the same path to QUIC, which must hear that it works again.
        let mut failed = false;
        for entry in self.relayed.sessions.values_mut().filter(|entry| entry.route == route) {
            failed |= std::mem::take(&mut entry.failed);
        }
        if failed {
            self.path_works_again(now, route);
        }
    }

    /// Older sessions have done their duty.
    fn leave_replaced(&mut self, now: Instant, peer: Guid, kind: PathKind) {
        let mut left = Vec::new();
        for (number, entry) in &mut self.relayed.sessions {
            if entry.session.peer.guid() != peer || entry.session.kind != kind {
                continue;
            }
            if let Some(retires) = &mut entry.retires {
                *retires = (*retires).min(now + RETIRE_TIME);
                left.push((entry.route, (SocketName::Relay(*number), entry.session.label)));
            }
        }
        // The newer one's path, which is added next, takes over.
        for (route, source) in left {
            self.paths.doubt_path(route, source);
        }
    }

    /// A newer session between the two is about to begin.
    pub(super) fn replace_sessions(&mut self, now: Instant, peer: Guid, kind: PathKind) {
        let of_kind = |entry: &super::Entry| entry.session.peer.guid() == peer && entry.session.kind == kind;
        let mut older: Vec<u32> = Vec::new();
        for (number, entry) in self.relayed.sessions.iter_mut().filter(|(_, entry)| of_kind(entry)) {
            entry.retires.get_or_insert(now + REPLACE_TIME);
            older.push(*number);
        }
        for number in older.iter().rev().skip(MAX_REPLACED) {
            self.end_session(now, *number);
        }
    }

    /// Room for one more session: the one that has rested longest gives way. False if there is none.
    pub(super) fn make_room_for_session(&mut self, now: Instant) -> bool {
        if self.relayed.sessions.len() < MAX_SESSIONS {
            return true;
        }
        let resting = self.relayed.sessions.iter().filter(|(_, entry)| entry.rests);
        let oldest = resting.min_by_key(|(_, entry)| entry.used).map(|(number, _)| *number);
        if let Some(number) = oldest {
            self.end_session(now, number);
        }
        oldest.is_some()
    }

    /// Sends what is due on a session, puts it to rest or ends it when its time has come.
    pub(super) fn look_at_session(&mut self, now: Instant, number: u32) {
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return;
        };
        let (peer, route) = (entry.session.peer.guid(), entry.route);
        let own = SocketName::Relay(number);
        let carries = self
            .paths
            .ways(now, route)
            .is_some_and(|(best, fed)| best.socket == own || fed.is_some_and(|fed| fed.socket == own));
        let connected = self.paths.is_in_use(route);
        let wanted = carries && (connected || self.dial_waits_for(peer));
        let Some(entry) = self.relayed.sessions.get_mut(&number) else {
            return;
        };
        if wanted {
            (entry.used, entry.rests) = (now, false);
        }
        let unused = entry.used + SPARE_TIME <= now;
        if wanted && entry.retires.is_some_and(|at| at <= now) {
            self.keep_if_alone(now, number);
        }
        let Some(entry) = self.relayed.sessions.get_mut(&number) else {
            return;
        };
        if entry.retires.is_some_and(|at| at <= now) || entry.session.expires <= now || (unused && !connected) {
            return self.end_session(now, number);
        }
        entry.rests |= unused;
        if entry.rests {
            return;
        }
        self.send_due_frames(now, number);
        let renewable = |entry: &super::Entry| entry.retires.is_none() && entry.session.kind == PathKind::Proxied;
        let Some(entry) = self.relayed.sessions.get_mut(&number) else {
            return;
        };
        if entry.renew_at <= now {
            entry.renew_at = now + RENEW_INTERVAL;
            if wanted && renewable(entry) {
                self.wish_for_relay(now, peer, Duration::ZERO, false);
            }
        }
    }

    /// The time of a session that was replaced is up, and packets still take it. If none of the newer ones has proven itself, it is they that go:
    /// otherwise nothing would be left but paths that nobody has proven.
    fn keep_if_alone(&mut self, now: Instant, number: u32) {
        let Some(entry) = self.relayed.sessions.get(&number) else {
            return;
        };
        let (peer, kind) = (entry.session.peer.guid(), entry.session.kind);
        let proven = |entry: &super::Entry| entry.session.round_trip.is_some() && entry.session.state == State::Bound;
        if kind != PathKind::Proxied {
            return;
        }
        let is_proven = proven(entry);
        let newer = self.relayed.of(peer).filter(|(_, entry)| entry.session.kind == kind);
        let (good, bad): (Vec<_>, Vec<_>) = newer.partition(|(_, entry)| proven(entry));
        if !good.is_empty() {
            return;
        }
        let bad: Vec<u32> = bad.into_iter().map(|(number, _)| number).collect();
        if let Some(entry) = self.relayed.sessions.get_mut(&number) {
            entry.retires = (!is_proven).then_some(now + REPLACE_TIME);
        }
        // While none has, all are kept.
        for number in bad.into_iter().filter(|_| is_proven) {
            self.end_session(now, number);
        }
    }

    fn send_due_frames(&mut self, now: Instant, number: u32) {
        for _ in 0..FRAMES_AT_A_TIME {
            let (mut frame, random) = (Vec::new(), self.random.next_u64());
            let Some(entry) = self.relayed.sessions.get_mut(&number) else {
                return;
            };
            let news = entry.session.next_frame(now, || random, &mut frame);
            self.relayed.enqueue(number, frame);
            if news != News::Nothing {
                self.relay_news(now, number, news);
            }
        }
    }
}
