//! The pool of further sockets, for all attempts and measurements of a node together.
//!
//! In: leases (so many sockets, for one purpose), the outside's answer, ends of leases. Out: side effects that open and close
//! sockets, and which socket belongs to which lease. A socket that became a path is *adopted*: it outlives its lease, until
//! [`SocketPool::close`].
//!
//! Sockets are not reused: a fresh one has a fresh local port, and so a mapping that no router has seen before, which is what
//! both birthday punching and sampling want. Their number is bounded by [`SocketPool::new`]'s limit; a lease gets what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::api::SideEffect;
use crate::engine::SocketName;

/// Names a lease.
pub type LeaseId = u32;

#[derive(Debug, Default)]
struct Lease {
    /// The outside has answered.
    opened: bool,
    asked: u16,
    sockets: Vec<(SocketName, SocketAddr)>,
}

/// The pool.
#[derive(Debug)]
pub struct SocketPool {
    limit: u16,
    next_lease: LeaseId,
    next_socket: u16,
    leases: BTreeMap<LeaseId, Lease>,
    adopted: BTreeMap<SocketName, SocketAddr>,
    effects: Vec<SideEffect>,
}

impl SocketPool {
    /// A pool of at most `limit` sockets.
    pub fn new(limit: u16) -> Self {
        Self {
            limit,
            next_lease: 1,
            next_socket: 0,
            leases: BTreeMap::new(),
            adopted: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    fn taken(&self) -> u16 {
        let leased = self.leases.values().map(|lease| lease.asked);
        leased.fold(self.adopted.len() as u16, u16::saturating_add)
    }

    /// Asks for `count` sockets, or as many as are left. `None`: none is left. [`SocketPool::opened`] has them as soon as the outside has
    /// answered.
    pub fn lease(&mut self, count: u16, ipv6: bool) -> Option<LeaseId> {
        let count = count.min(self.limit.saturating_sub(self.taken()));
        if count == 0 {
            return None;
        }
        let first = self.free_names(count)?;
        let id = self.next_lease;
        self.next_lease = id.wrapping_add(1).max(1);
        self.next_socket = first.wrapping_add(count);
        let lease = Lease {
            asked: count,
            ..Lease::default()
        };
        self.leases.insert(id, lease);
        self.effects.push(SideEffect::OpenSockets { id, first, count, ipv6 });
        Some(id)
    }

    /// A run of names that nobody has. Names come round after 65,536 sockets.
    fn free_names(&self, count: u16) -> Option<u16> {
        let leased = self
            .leases
            .values()
            .flat_map(|lease| lease.sockets.iter().map(|socket| socket.0));
        let used: BTreeSet<SocketName> = leased.chain(self.adopted.keys().copied()).collect();
        let is_free = |first: u16| (0..count).all(|n| !used.contains(&SocketName::Birthday(first.wrapping_add(n))));
        let starts = (0..=u16::MAX).step_by(usize::from(count.max(1)));
        // A lease that was not answered yet holds the names right before the next one: they come round last.
        starts
            .map(|offset| self.next_socket.wrapping_add(offset))
            .find(|first| first.checked_add(count).is_some() && is_free(*first))
    }

    /// The outside's answer. What came for a lease that is over is closed at once.
    pub fn answered(&mut self, id: LeaseId, sockets: Vec<(SocketName, SocketAddr)>) {
        match self.leases.get_mut(&id) {
            Some(lease) => {
                lease.opened = true;
                lease.asked = sockets.len() as u16;
                lease.sockets = sockets;
            }
            None => self.close_all(sockets.into_iter().map(|(name, _)| name).collect()),
        }
    }

    /// The sockets of a lease with the addresses they are bound to; `None` until the outside has answered.
    pub fn opened(&self, id: LeaseId) -> Option<&[(SocketName, SocketAddr)]> {
        let lease = self.leases.get(&id)?;
        lease.opened.then_some(&lease.sockets[..])
    }

    /// Ends a lease: its sockets are closed, but those that were adopted.
    pub fn release(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.close_all(lease.sockets.into_iter().map(|(name, _)| name).collect());
        }
    }

    /// A socket became a path: it stays when its lease ends. False if no lease holds it.
    pub fn adopt(&mut self, name: SocketName) -> bool {
        if self.adopted.contains_key(&name) {
            return true;
        }
        for lease in self.leases.values_mut() {
            if let Some(position) = lease.sockets.iter().position(|socket| socket.0 == name) {
                let (name, address) = lease.sockets.swap_remove(position);
                lease.asked = lease.asked.saturating_sub(1);
                self.adopted.insert(name, address);
                return true;
            }
        }
        false
    }

    /// No path needs that adopted socket any more.
    pub fn close(&mut self, name: SocketName) {
        if self.adopted.remove(&name).is_some() {
            self.close_all(vec![name]);
        }
    }

    /// Sockets that became paths.
    pub fn adopted(&self) -> impl Iterator<Item = SocketName> + '_ {
        self.adopted.keys().copied()
    }

    fn close_all(&mut self, names: Vec<SocketName>) {
        if !names.is_empty() {
            self.effects.push(SideEffect::CloseSockets(names));
        }
    }

    /// What the outside is to do.
    pub fn take_effects(&mut self) -> Vec<SideEffect> {
        std::mem::take(&mut self.effects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the one request to open sockets that waits; returns the lease and the names.
    fn open(pool: &mut SocketPool) -> (LeaseId, Vec<SocketName>) {
        let effects = pool.take_effects();
        let [SideEffect::OpenSockets { id, first, count, .. }] = effects[..] else {
            panic!("{effects:?}")
        };
        let names: Vec<SocketName> = (0..count).map(|number| SocketName::Birthday(first + number)).collect();
        let address: SocketAddr = "0.0.0.0:4000".parse().unwrap();
        pool.answered(id, names.iter().map(|name| (*name, address)).collect());
        (id, names)
    }

    fn closed(pool: &mut SocketPool) -> Vec<SocketName> {
        let closed = pool.take_effects().into_iter().map(|effect| match effect {
            SideEffect::CloseSockets(names) => names,
            other => panic!("{other:?}"),
        });
        closed.flatten().collect()
    }

    #[test]
    fn leases_share_the_limit() {
        let mut pool = SocketPool::new(10);
        let first = pool.lease(6, false).unwrap();
        assert_eq!(pool.opened(first), None);
        assert_eq!(open(&mut pool).1.len(), 6);
        assert_eq!(pool.opened(first).unwrap().len(), 6);
        pool.lease(6, false).unwrap();
        assert_eq!(open(&mut pool).1.len(), 4);
        assert_eq!(pool.lease(1, false), None);
        pool.release(first);
        assert_eq!(closed(&mut pool).len(), 6);
        pool.lease(100, true).unwrap();
        assert_eq!(open(&mut pool).1.len(), 6);
        assert_eq!(SocketPool::new(0).lease(1, false), None);
    }

    #[test]
    fn what_could_not_be_opened_is_free_for_others() {
        let mut pool = SocketPool::new(10);
        let lease = pool.lease(10, false).unwrap();
        pool.answered(lease, Vec::new());
        assert_eq!(pool.opened(lease), Some(&[][..]));
        assert!(pool.lease(10, false).is_some());
    }

    #[test]
    fn a_lease_that_ended_before_its_answer_closes_what_comes() {
        let mut pool = SocketPool::new(10);
        let lease = pool.lease(3, false).unwrap();
        pool.release(lease);
        let (_, names) = open(&mut pool);
        assert_eq!(closed(&mut pool), names);
        assert_eq!(pool.opened(lease), None);
    }

    #[test]
    fn adopted_sockets_outlive_their_lease() {
        let mut pool = SocketPool::new(3);
        let lease = pool.lease(3, false).unwrap();
        let (_, names) = open(&mut pool);
        assert!(pool.adopt(names[1]) && pool.adopt(names[1]));
        assert!(!pool.adopt(SocketName::Birthday(99)));
        pool.release(lease);
        assert_eq!(closed(&mut pool), [names[0], names[2]]);
        assert_eq!(pool.adopted().collect::<Vec<_>>(), [names[1]]);
        // It counts against the limit until it is closed.
        pool.lease(3, false).unwrap();
        assert_eq!(open(&mut pool).1.len(), 2);
        pool.close(names[1]);
        pool.close(names[1]);
        assert_eq!(closed(&mut pool), [names[1]]);
    }

    #[test]
    fn names_are_fresh_and_come_round_without_a_clash() {
        let mut pool = SocketPool::new(300);
        let kept = pool.lease(1, false).unwrap();
        let (_, kept_names) = open(&mut pool);
        let mut before = kept_names.clone();
        for round in 0..600 {
            let lease = pool.lease(256, false).unwrap();
            let (_, names) = open(&mut pool);
            assert!(!names.contains(&kept_names[0]), "round {round}");
            assert!(names.iter().all(|name| !before.contains(name)), "round {round}");
            pool.release(lease);
            pool.take_effects();
            before = names;
        }
        assert!(pool.opened(kept).is_some());
    }
}
