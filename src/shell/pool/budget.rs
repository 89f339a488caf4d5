//! How many further sockets there may be: the game, and other nodes of the process, need descriptors as well.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Most further sockets of a node: 256 for birthday punching, with which guessing among 64,512 ports succeeds nearly always
/// within 2,048 tries, and 64 for measurements and for those that became paths.
const MAX_OF_NODE: usize = 256 + 64;

/// Most further sockets of a process, whatever its nodes ask for: a seventh of the ports that Linux gives out by itself
/// (28,232; Windows and macOS have 16,384), which all programs of the machine share.
const MAX_OF_PROCESS: usize = 4096;

/// The part of the descriptors not in use that further sockets may take: a half. The least that leaves as much to
/// the game, and the least part of the usual 1,024 that still holds [`MAX_OF_NODE`].
const PART: usize = 2;

/// Further sockets of all nodes.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The right to one further socket; given back when dropped.
pub struct Permit(());

impl Permit {
    /// One more, if that keeps the process within `limit`.
    pub fn take(limit: usize) -> Option<Self> {
        TAKEN
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < limit).then_some(taken + 1)
            })
            .ok()
            .map(|_| Self(()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a new node may open at most.
pub fn limit_of_node() -> u16 {
    limit_of_process().min(MAX_OF_NODE) as u16
}

/// What all nodes together may have open now.
pub fn limit_of_process() -> usize {
    limit(descriptors(), TAKEN.load(Ordering::Relaxed))
}

/// `descriptors`: how many the system lets the process have, and how many are open, `taken` of them further sockets.
fn limit(descriptors: Option<(usize, usize)>, taken: usize) -> usize {
    match descriptors {
        Some((allowed, open)) => {
            let of_others = open.saturating_sub(taken);
            (allowed.saturating_sub(of_others) / PART).min(MAX_OF_PROCESS)
        }
        // No such limit.
        None => MAX_OF_PROCESS,
    }
}

/// Descriptors that the process may have, and has. `None`: the system has no limit.
#[cfg(unix)]
fn descriptors() -> Option<(usize, usize)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is valid for the call.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if asked != 0 || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    let allowed = usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX);
    Some((allowed, open_descriptors().unwrap_or(allowed)))
}

/// Windows: handles are limited by memory alone.
#[cfg(not(unix))]
fn descriptors() -> Option<(usize, usize)> {
    None
}

/// Descriptors that are open; `None` if the system does not tell, or has none left to look with.
#[cfg(unix)]
fn open_descriptors() -> Option<usize> {
    #[cfg(target_os = "linux")]
    const LIST: &str = "/proc/self/fd";
    #[cfg(not(target_os = "linux"))]
    const LIST: &str = "/dev/fd";
    // Since Linux 6.2 that is the folder's size, which costs one system call however many there are.
    #[cfg(target_os = "linux")]
    if let Ok(folder) = std::fs::metadata(LIST)
        && folder.len() > 0
    {
        return usize::try_from(folder.len()).ok();
    }
    Some(std::fs::read_dir(LIST).ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_game_keeps_as_many_descriptors_as_all_pools_get() {
        // The usual limit of Linux, and of macOS.
        assert!(limit(Some((1024, 60)), 0) >= MAX_OF_NODE);
        assert_eq!(limit(Some((256, 56)), 0), 100);
        // What is taken already does not count against the rest.
        assert_eq!(limit(Some((256, 156)), 100), 100);
        assert_eq!(limit(Some((256, 256)), 0), 0);
        assert_eq!(limit(Some((64, 300)), 0), 0);
        assert_eq!(limit(Some((1 << 20, 60)), 0), MAX_OF_PROCESS);
        assert_eq!(limit(None, 0), MAX_OF_PROCESS);
    }

    #[cfg(unix)]
    #[test]
    fn open_descriptors_are_counted() {
        let (allowed, open) = descriptors().unwrap_or((usize::MAX, 3));
        assert!((3..=allowed).contains(&open), "{open} of {allowed}");
    }
}
