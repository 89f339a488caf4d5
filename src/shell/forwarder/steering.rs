//! Which socket of a port's group a datagram comes to, decided in the kernel.
//!
//! The same question is answered twice and must be answered alike: by a classic BPF program for what arrives, and by [`shard_of`] for
//! frames that the program could not tell apart (the kernel coalesces datagrams of one sender, whatever they are, and looks at the first one) or that
//! came another way.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::wire::relay::{BIND_BYTE, DATA_BYTE};

/// Where the lower half of the session stands in a data frame: its bytes 12 to 19. Half of a random number is enough to share out.
const SESSION_IN_DATA: u32 = 16;
/// The same in a bind frame: bytes 6 to 13.
const SESSION_IN_BIND: u32 = 10;

/// The shard, of `shards`, that a frame belongs to; `None`: it belongs to the main loop.
pub fn shard_of(frame: &[u8], shards: usize) -> Option<usize> {
    let place = match *frame.first()? {
        DATA_BYTE => SESSION_IN_DATA,
        BIND_BYTE => SESSION_IN_BIND,
        _ => return None,
    } as usize;
    let session: &[u8; 4] = frame.get(place..place + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(*session) as usize % shards)
}

/// The program: the place in the group, 0 being the main loop's socket. Bytes are those of the UDP payload; a load behind its end makes
/// the answer 0.
fn program(shards: u32) -> [libc::sock_filter; 10] {
    let filter = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let load_word = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let jump_if_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    [
        filter(load_byte, 0, 0, 0),
        // To 4, if it is a data frame.
        filter(jump_if_equal, 2, 0, DATA_BYTE.into()),
        // To 6, if it is a bind frame.
        filter(jump_if_equal, 3, 0, BIND_BYTE.into()),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        filter(load_word, 0, 0, SESSION_IN_DATA),
        filter(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        filter(load_word, 0, 0, SESSION_IN_BIND),
        filter(libc::BPF_ALU | BPF_MOD | libc::BPF_K, 0, 0, shards),
        filter(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 0, 0, 1),
        filter(libc::BPF_RET | BPF_ACCUMULATOR, 0, 0, 0),
    ]
}

/// Linux' remainder, which is not among BPF's first operations.
const BPF_MOD: u32 = 0x90;
/// "The accumulator" as what is returned.
const BPF_ACCUMULATOR: u32 = 0x10;

/// Has the kernel share out what arrives at the group of `member`. The group's sockets stand in the order in which they joined: the main
/// loop's, then those of the shards.
pub fn attach(member: BorrowedFd<'_>, shards: usize) -> io::Result<()> {
    let mut filters = program(shards as u32);
    let program = libc::sock_fprog {
        len: filters.len() as u16,
        filter: filters.as_mut_ptr(),
    };
    // SAFETY: the program and what it points to live through the call, which copies it; the length is that of the structure.
    let result = unsafe {
        libc::setsockopt(
            member.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_belong_to_their_sessions_shard_and_everything_else_to_the_main_loop() {
        let session = 0x0102_0304_0000_0007_u64;
        let mut data = vec![0; 28];
        data[0] = DATA_BYTE;
        data[12..20].copy_from_slice(&session.to_be_bytes());
        let mut bind = vec![0; 64];
        bind[0] = BIND_BYTE;
        bind[6..14].copy_from_slice(&session.to_be_bytes());
        for shards in 1..=8 {
            let expected = Some((session % (1 << 32)) as usize % shards);
            assert_eq!(shard_of(&data, shards), expected);
            assert_eq!(shard_of(&bind, shards), expected);
        }
        for other in [&data[..19], &bind[..13], &[8; 64], &[0x40; 1_200], &[]] {
            assert_eq!(shard_of(other, 4), None);
        }
    }
}
