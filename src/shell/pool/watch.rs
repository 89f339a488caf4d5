//! Which sockets of a pool are readable, on Linux: one epoll descriptor holds them all and is itself readable as long as
//! one of them is. Whoever drives the node watches that one.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::super::signals::NodeIo;

/// Most sockets that are asked for at once; the array of events stands on the stack.
const BATCH: usize = 64;

/// Watches the sockets of a pool. Any thread may wait on its descriptor.
#[derive(Default)]
pub struct Watch {
    /// Made with the first socket: most nodes never need it.
    epoll: OnceLock<Arc<OwnedFd>>,
    open: AtomicUsize,
}

impl Watch {
    /// Watches `socket` as well.
    pub fn add(&self, number: u16, socket: &NodeIo) -> io::Result<()> {
        let epoll = self.made()?;
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: number.into(),
        };
        let (epoll, socket) = (epoll.as_raw_fd(), socket.as_raw_fd());
        // SAFETY: both descriptors are open, and the event is valid for the call.
        if unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &mut event) } != 0 {
            return Err(io::Error::last_os_error());
        }
        self.open.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn made(&self) -> io::Result<&Arc<OwnedFd>> {
        if let Some(epoll) = self.epoll.get() {
            return Ok(epoll);
        }
        // SAFETY: no pointers are involved.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just made and belongs to nobody else.
        let made = Arc::new(unsafe { OwnedFd::from_raw_fd(descriptor) });
        Ok(self.epoll.get_or_init(|| made))
    }

    /// Watches `socket` no longer. Closing it would not do: a child process may have inherited it.
    pub fn remove(&self, _number: u16, socket: &NodeIo) {
        if let Some(epoll) = self.epoll.get() {
            let (epoll, socket) = (epoll.as_raw_fd(), socket.as_raw_fd());
            // SAFETY: both descriptors are open; this call needs no event.
            unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, socket, std::ptr::null_mut()) };
            self.open.fetch_sub(1, Ordering::Release);
        }
    }

    /// Appends the numbers of up to `limit` (at most 64) sockets that can be read; true if there may be more. Those that were not named come
    /// first the next time.
    pub fn readable(&self, numbers: &mut Vec<u16>, limit: usize) -> bool {
        let Some(epoll) = self.epoll.get() else { return false };
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
        let limit = limit.clamp(1, BATCH);
        // SAFETY: the array has room for as many.
        let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), limit as i32, 0) };
        let found = events.iter().take(count.max(0) as usize);
        numbers.extend(found.map(|event| event.u64 as u16));
        count == limit as i32
    }

    /// What to watch for readiness, once there was a socket.
    pub fn descriptor(&self) -> Option<&Arc<OwnedFd>> {
        self.epoll.get()
    }

    /// The same for a single wait: nothing if no socket is open now.
    pub fn now(&self) -> Option<RawFd> {
        if self.open.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.epoll.get().map(|epoll| epoll.as_raw_fd())
    }
}
