//! Better paths for players who are connected: the search for a direct one while packets go over a forwarder, and the choice between direct
//! ones whose round trips have changed.
//!
//! In: which path is in use, changes of it, of the machine's interfaces and of what is known of the routers, the time. Out: wishes for an
//! introduction without relays, probes. The game hears nothing of it but PATH_CHANGED.
//!
//! **Search.** At growing intervals ([`INTERVALS`]), as a whole attempt costs up to some thousand small packets, and routers that could not be
//! crossed seldom can be a minute later. Any change of interfaces or of the facts begins the intervals anew. The side that dialled asks; the
//! other one does half as late again, should the first have no server.
//!
//! **A path that comes and goes.** A direct path that died again within [`STEADY_TIME`] of its return is left alone for [`FIRST_PAUSE`], then twice
//! as long each time: the game plays on over the forwarder instead of stumbling every few seconds. It is no longer trusted then: when the pause is
//! over it is searched for like any other.

use std::time::{Duration, Instant};

use super::super::Node;
use crate::codes::PathKind;
use crate::transport::SyntheticAddress;
use crate::transport::identity::Guid;
use crate::wire::control::{RelayPolicy, Ways};

/// From the end of one attempt to the next one, in seconds.
const INTERVALS: [u64; 5] = [10, 30, 60, 120, 300];
/// After a change that makes another attempt worth while: changes come in rows.
const AFTER_CHANGE: Duration = Duration::from_secs(2);
/// The two sides take a path into use at about the same time: within some repeats of a probe.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// A path that lives for so long after its return is as good as any.
const STEADY_TIME: Duration = Duration::from_secs(60);
/// How long a path that came back and died is left alone the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Time for which the smallest round trip of the path in use stands for it: the game's own bursts must not count.
const ROUND_TRIP_PERIOD: Duration = Duration::from_secs(10);
/// Paths are not measured against each other more often than this.
const MEASURE_INTERVAL: Duration = Duration::from_secs(60);

/// The search for a direct path to one player, and what became of former ones.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// When it goes on; `None`: the path in use is direct.
    at: Option<Instant>,
    tries: usize,
    /// When the path in use became one of another kind.
    changed: Option<Instant>,
    /// When a direct path that had died came back.
    returned: Option<Instant>,
    /// One has died.
    died: bool,
    /// How often one died soon after it had come back, in a row.
    relapses: u32,
    /// Until when none is taken.
    pause_ends: Option<Instant>,
    measured: Option<Instant>,
    /// Since when, and the smallest round trip in that time.
    round_trip: Option<(Instant, Duration)>,
}

impl Search {
    /// The connection stands since then, over whatever kind of path.
    pub fn of_new_connection(now: Instant) -> Self {
        Self {
            changed: Some(now),
            ..Self::default()
        }
    }

    fn interval(&self, dialled: bool) -> Duration {
        let seconds = INTERVALS[self.tries.min(INTERVALS.len() - 1)];
        let own = Duration::from_secs(seconds);
        if dialled { own } else { own * 3 / 2 }
    }

    fn go_on_later(&mut self, now: Instant, dialled: bool) {
        self.at = Some(now + self.interval(dialled));
        self.tries += 1;
    }

    /// The two were introduced, whoever wished for it.
    pub fn introduced(&mut self, now: Instant, dialled: bool) {
        if self.at.is_some() {
            self.go_on_later(now, dialled);
        }
    }

    /// Something changed that makes another attempt worth while.
    pub fn begin_anew(&mut self, now: Instant) {
        if self.at.is_some() {
            self.tries = 0;
            self.at = Some((now + AFTER_CHANGE).max(self.pause_ends.unwrap_or(now)));
        }
    }

    /// The path in use is of another kind.
    fn kind_changed(&mut self, now: Instant, before: PathKind, after: PathKind) {
        self.round_trip = None;
        self.changed = Some(now);
        let direct = |kind: PathKind| kind <= PathKind::Direct;
        if direct(after) && !direct(before) {
            self.at = None;
            self.returned = self.died.then_some(now);
        } else if direct(before) && !direct(after) {
            self.died = true;
            (self.at, self.tries) = (None, 0);
            let relapse = self.returned.is_some_and(|returned| now < returned + STEADY_TIME);
            self.relapses = if relapse { self.relapses + 1 } else { 0 };
            self.pause_ends = self.relapses.checked_sub(1).map(|doublings| {
                let pause = FIRST_PAUSE.saturating_mul(1 << doublings.min(16));
                now + pause.min(LONGEST_PAUSE)
            });
        }
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.pause_ends.is_some_and(|ends| now < ends)
    }

    /// Takes a sample of the path in use; gives the smallest of a period at its end.
    fn sample(&mut self, now: Instant, round_trip: Duration) -> Option<Duration> {
        let (since, least) = self.round_trip.unwrap_or((now, round_trip));
        let least = least.min(round_trip);
        let over = now >= since + ROUND_TRIP_PERIOD;
        self.round_trip = if over { None } else { Some((since, least)) };
        over.then_some(least)
    }
}

impl Node {
    /// The best path to a player is of another kind.
    pub(in super::super) fn note_change_of_kind(
        &mut self,
        now: Instant,
        peer: Guid,
        before: PathKind,
        after: PathKind,
    ) {
        if let Some(watched) = self.roaming.watched.get_mut(&peer) {
            watched.search.kind_changed(now, before, after);
        }
    }

    /// A direct path to that player came and went lately: the one over the forwarder stays for now.
    pub(in super::super) fn leaves_direct_path_alone(&self, now: Instant, peer: Guid) -> bool {
        let paused = self
            .roaming
            .watched
            .get(&peer)
            .is_some_and(|watched| watched.search.is_paused(now));
        let best = self.link_address(peer).and_then(|address| self.paths.best(address));
        paused && best.is_some_and(|best| best.verified && best.kind > PathKind::Direct)
    }

    /// Packets to that player have taken a certain path of a better kind for a while.
    pub(in super::super) fn is_settled_on_better(&self, now: Instant, peer: Guid, kind: PathKind) -> bool {
        let best = self.link_address(peer).and_then(|address| self.paths.best(address));
        let changed = self
            .roaming
            .watched
            .get(&peer)
            .and_then(|watched| watched.search.changed);
        best.is_some_and(|best| best.verified && best.kind < kind)
            && changed.is_none_or(|changed| now >= changed + SETTLE_TIME)
    }

    /// Nothing is wrong with the paths to that player. Could there be a better one?
    pub(super) fn look_for_better(&mut self, now: Instant, peer: Guid, address: SyntheticAddress, seen: Duration) {
        let Some(best) = self.paths.best(address).copied() else {
            return;
        };
        if best.kind <= PathKind::Direct {
            return self.compare_paths(now, peer, address, seen);
        }
        if self.effective_relay_policy() == RelayPolicy::Only {
            return;
        }
        let dialled = self.dialled(peer);
        let Some(watched) = self.roaming.watched.get_mut(&peer) else {
            return;
        };
        let search = &mut watched.search;
        match search.at {
            None if search.is_paused(now) => search.at = search.pause_ends,
            // Over a way that the game opened step by step nobody has looked for a direct one yet.
            None if !self.attempts.has_introduction(peer) => self.search_direct(now, peer, dialled),
            None => search.go_on_later(now, dialled),
            Some(at) if at <= now => self.search_direct(now, peer, dialled),
            Some(_) => {}
        }
    }

    fn search_direct(&mut self, now: Instant, peer: Guid, dialled: bool) {
        if self.attempts.is_running(peer) {
            return;
        }
        if let Some(watched) = self.roaming.watched.get_mut(&peer) {
            watched.search.go_on_later(now, dialled);
        }
        if self.ask_for(now, 0, peer, Ways::Direct).is_err() {
            self.probe_known_addresses(now, peer);
        }
    }

    /// Measures the direct paths anew if another one than that in use seems shorter by now.
    fn compare_paths(&mut self, now: Instant, peer: Guid, address: SyntheticAddress, seen: Duration) {
        let Some(watched) = self.roaming.watched.get_mut(&peer) else {
            return;
        };
        let search = &mut watched.search;
        let Some(round_trip) = search.sample(now, seen) else {
            return;
        };
        let due = search
            .measured
            .is_none_or(|measured| now >= measured + MEASURE_INTERVAL);
        if self.paths.note_round_trip(address, round_trip) && due {
            search.measured = Some(now);
            self.probe_known_addresses(now, peer);
        }
    }

    /// This side began the connection with that player.
    pub(super) fn dialled(&self, peer: Guid) -> bool {
        let link = self.current_link(peer).and_then(|link| self.links.get(&link));
        link.is_some_and(|entry| entry.dialled)
    }
}
