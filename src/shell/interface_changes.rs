//! News of the machine's addresses, on Linux: a netlink socket that the kernel writes to when an address comes or goes. It
//! costs nothing until then, so a player who changes the network is noticed at once and an idle node does nothing.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One message is enough to know that something changed; what does not fit is cut off.
const MESSAGE: usize = 512;

/// Messages that are thrown away in one go: more than a change of the network brings, and an end if they do not stop.
const BURST: usize = 256;

/// What the kernel says about addresses.
pub struct Changes {
    socket: AsyncFd<OwnedFd>,
}

impl Changes {
    /// Begins to listen, for the network namespace of the calling thread. Must be called inside the runtime.
    ///
    /// Some systems (Android, sandboxes) do not allow it.
    pub fn subscribe() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers are involved.
        let socket = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: all zero is a valid address of this kind.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the address is valid for the call, and as long as is said.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is owned, so it stays open and the same.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let socket = socket.map_err(|error| error.into_parts().1)?;
        Ok(Self { socket })
    }

    /// Returns when addresses came or went since the last call.
    pub async fn next(&self) -> io::Result<()> {
        let mut ready = self.socket.readable().await?;
        for _ in 0..BURST {
            // That messages were lost (ENOBUFS) is news of a change as well.
            match ready.try_io(|socket| discard(socket.get_ref())) {
                Ok(_) => {}
                Err(_would_block) => break,
            }
        }
        Ok(())
    }
}

fn discard(socket: &OwnedFd) -> io::Result<()> {
    let mut message = [0u8; MESSAGE];
    // SAFETY: the buffer is valid for the call, and as long as is said.
    let length = unsafe { libc::recv(socket.as_raw_fd(), message.as_mut_ptr().cast(), message.len(), 0) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    fn ip(arguments: &str) -> bool {
        let done = Command::new("ip").args(arguments.split(' ')).output();
        done.is_ok_and(|done| done.status.success())
    }

    /// In a network namespace that only this thread has.
    #[test]
    fn an_address_that_comes_or_goes_is_noticed() {
        let test = || {
            // SAFETY: no pointers are involved; it concerns this thread alone.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 || !ip("link set lo up") {
                println!("skipped: network namespaces need root and `ip`");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let changes = Changes::subscribe().unwrap();
                for order in ["add", "del"] {
                    for address in ["192.0.2.1/32", "2001:db8::1/128"] {
                        assert!(ip(&format!("addr {order} {address} dev lo")));
                        changes.next().await.unwrap();
                    }
                }
                // All were read: nothing more comes without a change.
                let silence = tokio::time::timeout(Duration::from_millis(1), changes.next()).await;
                assert!(silence.is_err());
            });
        };
        std::thread::spawn(test).join().unwrap();
    }
}
