//! When which link wants to be called.
//!
//! One entry a link, moved when its deadline moves: stale entries would wake the loop for nothing (measured: double the CPU and a
//! p999 of more than a millisecond).

use std::collections::BTreeSet;
use std::time::Instant;

/// Deadlines of links, by slot.
#[derive(Debug, Default)]
pub(super) struct Timers {
    entries: BTreeSet<(Instant, u32)>,
}

impl Timers {
    /// Replaces a slot's deadline.
    pub(super) fn replace(&mut self, slot: u32, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.entries.remove(&(old, slot));
        }
        if let Some(new) = new {
            self.entries.insert((new, slot));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.entries.first().map(|entry| entry.0)
    }

    /// Takes out a slot whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let &(deadline, slot) = self.entries.first()?;
        if deadline > now {
            return None;
        }
        self.entries.pop_first();
        Some(slot)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
