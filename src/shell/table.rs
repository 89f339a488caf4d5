//! Ids of nodes. An id names a slot and the generation of what is in it, so a stale one is an error and never somebody
//! else's node. Looking up takes no lock: it counts a user into the slot's word, which keeps the node alive until it is
//! counted out. A node that is being removed takes no new users; whoever leaves it last frees it.

use std::ops::Deref;
use std::ptr;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::node::Node;

/// Nodes of a process: more than any test of bots needs, each with its own sockets.
const SLOTS: usize = 1024;
const INDEX_BITS: u32 = SLOTS.trailing_zeros();

// The word of a slot: id in the upper half (0: free), then one bit for "being removed", then users.
const ID_SHIFT: u32 = 32;
const REMOVING: u64 = 1 << 31;
const USERS: u64 = REMOVING - 1;

/// How long a removal sleeps before it looks for users again; they are on their way out.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

struct Slot {
    word: AtomicU64,
    node: AtomicPtr<Node>,
    /// A removal waits for other users; tests cannot see it from outside.
    #[cfg(test)]
    awaited: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        word: AtomicU64::new(0),
        node: AtomicPtr::new(ptr::null_mut()),
        #[cfg(test)]
        awaited: AtomicBool::new(false),
    }
}; SLOTS];

/// Where to look for a free slot next, and the generations given out so far.
static NEXT: Mutex<(usize, u32)> = Mutex::new((0, 0));

/// A user of a node. As long as it lives, so does the node.
pub struct User {
    slot: &'static Slot,
    node: *const Node,
}

impl Deref for User {
    type Target = Node;
    fn deref(&self) -> &Node {
        // SAFETY: the slot counts this user, so the node is not freed.
        unsafe { &*self.node }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.slot.leave();
    }
}

impl Slot {
    /// Counts a user out. The last one out of a node that is being removed frees it.
    fn leave(&self) {
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        let after = before - 1;
        if after & REMOVING == 0 || after & USERS != 0 || after >> ID_SHIFT == 0 {
            return;
        }
        // From here on the id is gone; if somebody just looked a stale id up, that one comes here again.
        if self
            .word
            .compare_exchange(after, REMOVING, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return;
        }
        let node = self.node.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: the pointer came from `Arc::into_raw`, and the exchange above succeeds once for each removal.
        drop(unsafe { Arc::from_raw(node) });
        // Arithmetic, not a store: users of stale ids may be counting themselves in and out.
        self.word.fetch_and(!REMOVING, Ordering::AcqRel);
    }
}

/// Puts a node into the table and returns its id; `None` if the table is full.
pub fn insert(node: Arc<Node>) -> Option<u32> {
    let mut next = NEXT.lock();
    for offset in 0..SLOTS {
        let index = (next.0 + offset) % SLOTS;
        let slot = &TABLE[index];
        if slot.word.load(Ordering::Acquire) & !USERS != 0 {
            continue;
        }
        // Round robin, so that a slot (and with it an id) comes back as late as possible.
        next.0 = index + 1;
        next.1 = next.1 % ((1 << (32 - INDEX_BITS)) - 1) + 1;
        let id = next.1 << INDEX_BITS | index as u32;
        #[cfg(test)]
        slot.awaited.store(false, Ordering::Release);
        slot.node.store(Arc::into_raw(node).cast_mut(), Ordering::Release);
        slot.word.fetch_add(u64::from(id) << ID_SHIFT, Ordering::AcqRel);
        return Some(id);
    }
    None
}

/// The node of that id, kept alive by the result.
#[inline]
pub fn look_up(id: u32) -> Option<User> {
    let slot = &TABLE[id as usize % SLOTS];
    let word = slot.word.fetch_add(1, Ordering::AcqRel);
    if id == 0 || (word >> ID_SHIFT) as u32 != id || word & REMOVING != 0 {
        slot.leave();
        return None;
    }
    Some(User {
        slot,
        node: slot.node.load(Ordering::Acquire),
    })
}

/// A node that is being removed.
pub struct Leaving(User);

/// Makes an id invalid. `None` if it already is.
pub fn begin_removal(id: u32) -> Option<Leaving> {
    let user = look_up(id)?;
    if user.slot.word.fetch_or(REMOVING, Ordering::AcqRel) & REMOVING != 0 {
        return None;
    }
    Some(Leaving(user))
}

impl Leaving {
    /// The node.
    pub fn node(&self) -> &Node {
        &self.0
    }

    /// Waits until all calls that were under way have returned, however long `close` took: events borrow from the node.
    /// None of them blocks for long, and a wait that is in progress is woken when the node closes.
    pub fn wait_for_others(self) {
        while self.0.slot.word.load(Ordering::Acquire) & USERS > 1 {
            #[cfg(test)]
            self.0.slot.awaited.store(true, Ordering::Release);
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Whether the removal of that id has nothing left to do but to wait for other users.
#[cfg(test)]
pub fn is_awaited(id: u32) -> bool {
    TABLE[id as usize % SLOTS].awaited.load(Ordering::Acquire)
}

/// All valid ids.
pub fn ids() -> Vec<u32> {
    TABLE
        .iter()
        .map(|slot| slot.word.load(Ordering::Acquire))
        .filter(|word| word & REMOVING == 0 && word >> ID_SHIFT != 0)
        .map(|word| (word >> ID_SHIFT) as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    // The table takes nodes; a node needs an engine, so its tests are with the C ABI's (`ffi::tests`).

    /// Of generation 0, which is none, and of some that no test run comes to: other tests have nodes in this table.
    const IDS: [u32; 5] = [0, 1, 1023, 1 << 31, u32::MAX];
    /// A bound of a broken run, not a measurement: the machine may be busy.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn ids_that_never_were_are_nobody() {
        for id in IDS {
            assert!(look_up(id).is_none(), "{id}");
            assert!(begin_removal(id).is_none(), "{id}");
        }
        // Looking up counts in and out again. Nodes of tests that run beside this one have users, who leave.
        let patience = Instant::now() + PATIENCE;
        for id in IDS {
            let slot = &TABLE[id as usize % SLOTS];
            while slot.word.load(Ordering::Acquire) & USERS != 0 {
                assert!(Instant::now() < patience, "{id}: somebody was counted in and never out");
                std::thread::yield_now();
            }
        }
    }
}
