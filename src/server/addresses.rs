//! Real addresses and the synthetic ones under which QUIC knows them.
//!
//! In: (socket, address) of received packets. Out: the synthetic address for the transport, and the way back for what the
//! transport sends. An address that no link uses is forgotten [`UNLINKED_TIME`] after its last packet; there are at most
//! [`MAX_UNLINKED`] such, because anybody can make them up: the oldest goes first.
//!
//! An entry never moves from one real address to another: what QUIC has proven of one address says nothing of the next.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::engine::SocketName;
use crate::transport::SyntheticAddress;

/// How long an address without a link is kept after its last packet: longer than any handshake takes, and than a closed
/// link may still repeat its goodbye.
pub const UNLINKED_TIME: Duration = Duration::from_secs(15);

/// Most addresses without a link, about 150 bytes each. More than the 10,000 nodes that may come back at once after a
/// restart of the server.
pub const MAX_UNLINKED: usize = 16_384;

struct Entry {
    socket: SocketName,
    real: SocketAddr,
    /// The server's own address that the first packet was sent to.
    local_ip: Option<IpAddr>,
    /// Links whose packets go here.
    links: u32,
    /// When the last packet came.
    heard: Instant,
    /// It stands in `unlinked`.
    queued: bool,
}

/// The table.
#[derive(Default)]
pub struct AddressTable {
    synthetic: BTreeMap<(SocketName, SocketAddr), SyntheticAddress>,
    entries: BTreeMap<SyntheticAddress, Entry>,
    /// Addresses that may be without a link, each with the moment at which it is looked at again less
    /// [`UNLINKED_TIME`]; in order of time. Every entry without a link is in here exactly once.
    unlinked: VecDeque<(Instant, SyntheticAddress)>,
}

impl AddressTable {
    /// The synthetic address of a real one, if it has one. Notes that a packet came from there.
    pub fn heard(&mut self, now: Instant, socket: SocketName, real: SocketAddr) -> Option<SyntheticAddress> {
        let synthetic = *self.synthetic.get(&(socket, real))?;
        if let Some(entry) = self.entries.get_mut(&synthetic) {
            entry.heard = now;
        }
        Some(synthetic)
    }

    /// Gives a real address, which has none yet, a synthetic one.
    pub fn insert(
        &mut self,
        now: Instant,
        (socket, real): (SocketName, SocketAddr),
        local_ip: Option<IpAddr>,
        synthetic: SyntheticAddress,
    ) {
        while self.unlinked.len() >= MAX_UNLINKED {
            self.look_at_oldest(now, true);
        }
        let entry = Entry {
            socket,
            real,
            local_ip,
            links: 0,
            heard: now,
            queued: true,
        };
        self.synthetic.insert((socket, real), synthetic);
        self.entries.insert(synthetic, entry);
        self.unlinked.push_back((now, synthetic));
    }

    /// Where packets for a synthetic address go.
    pub fn real(&self, synthetic: SyntheticAddress) -> Option<(SocketName, SocketAddr)> {
        self.entries.get(&synthetic).map(|entry| (entry.socket, entry.real))
    }

    /// The server's own address as that node uses it, where the system told.
    pub fn local_ip(&self, synthetic: SyntheticAddress) -> Option<IpAddr> {
        self.entries.get(&synthetic)?.local_ip
    }

    /// Addresses on that socket that links use.
    pub fn linked_at(&self, socket: SocketName) -> Vec<SyntheticAddress> {
        let lowest = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let here = self
            .synthetic
            .range((socket, lowest)..)
            .take_while(|((name, _), _)| *name == socket);
        here.map(|(_, address)| *address)
            .filter(|address| self.entries.get(address).is_some_and(|entry| entry.links > 0))
            .collect()
    }

    /// A link uses the address: it is kept until [`link_closed`](Self::link_closed).
    pub fn link_opened(&mut self, synthetic: SyntheticAddress) {
        if let Some(entry) = self.entries.get_mut(&synthetic) {
            entry.links += 1;
        }
    }

    /// A link no longer uses the address.
    pub fn link_closed(&mut self, now: Instant, synthetic: SyntheticAddress) {
        let Some(entry) = self.entries.get_mut(&synthetic) else {
            return;
        };
        entry.links = entry.links.saturating_sub(1);
        if entry.links == 0 && !entry.queued {
            entry.queued = true;
            self.unlinked.push_back((now, synthetic));
        }
    }

    /// Forgets what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self
            .unlinked
            .front()
            .is_some_and(|(since, _)| *since + UNLINKED_TIME <= now)
        {
            self.look_at_oldest(now, false);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.unlinked.front().map(|(since, _)| *since + UNLINKED_TIME)
    }

    /// Takes the oldest out of the queue; forgets it if it has no link and was not heard from lately (or `forced`).
    fn look_at_oldest(&mut self, now: Instant, forced: bool) {
        let Some((_, synthetic)) = self.unlinked.pop_front() else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&synthetic) else {
            return;
        };
        if entry.links > 0 {
            entry.queued = false;
        } else if forced || entry.heard + UNLINKED_TIME <= now {
            let key = (entry.socket, entry.real);
            self.entries.remove(&synthetic);
            self.synthetic.remove(&key);
        } else {
            self.unlinked.push_back((now, synthetic));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.synthetic.len(), self.entries.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const SOCKET: SocketName = SocketName::Udp4;

    fn real(number: u32) -> SocketAddr {
        SocketAddr::from(((0x0a00_0000 + number).to_be_bytes(), 4_000))
    }

    fn synthetic(number: u32) -> SyntheticAddress {
        SyntheticAddress(Ipv6Addr::from_bits((0xfd << 120) + u128::from(number)))
    }

    #[test]
    fn an_address_is_known_by_socket_and_address() {
        let now = Instant::now();
        let mut table = AddressTable::default();
        table.insert(now, (SOCKET, real(1)), None, synthetic(1));
        assert_eq!(table.heard(now, SOCKET, real(1)), Some(synthetic(1)));
        assert_eq!(table.heard(now, SocketName::Udp6, real(1)), None);
        assert_eq!(table.heard(now, SOCKET, real(2)), None);
        assert_eq!(table.real(synthetic(1)), Some((SOCKET, real(1))));
        assert_eq!(table.real(synthetic(2)), None);
    }

    #[test]
    fn without_a_link_it_is_forgotten_after_its_last_packet() {
        let start = Instant::now();
        let mut table = AddressTable::default();
        table.insert(start, (SOCKET, real(1)), None, synthetic(1));
        let heard = start + Duration::from_secs(10);
        table.heard(heard, SOCKET, real(1));
        let due = table.poll_timeout().unwrap();
        assert_eq!(due, start + UNLINKED_TIME);
        table.handle_timeout(due);
        assert_eq!(table.len(), 1);
        while let Some(due) = table.poll_timeout() {
            assert!(due <= heard + 2 * UNLINKED_TIME);
            table.handle_timeout(due);
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn with_a_link_it_stays_until_some_time_after_the_last_link() {
        let start = Instant::now();
        let mut table = AddressTable::default();
        table.insert(start, (SOCKET, real(1)), None, synthetic(1));
        table.link_opened(synthetic(1));
        table.link_opened(synthetic(1));
        let much_later = start + 100 * UNLINKED_TIME;
        table.handle_timeout(much_later);
        assert_eq!((table.len(), table.poll_timeout()), (1, None));
        table.link_closed(much_later, synthetic(1));
        table.handle_timeout(much_later + 2 * UNLINKED_TIME);
        assert_eq!((table.len(), table.poll_timeout()), (1, None));
        let closed = much_later + 3 * UNLINKED_TIME;
        table.link_closed(closed, synthetic(1));
        table.handle_timeout(closed);
        assert_eq!(table.len(), 1);
        table.handle_timeout(closed + UNLINKED_TIME);
        assert_eq!((table.len(), table.poll_timeout()), (0, None));
    }

    #[test]
    fn strangers_cannot_fill_it_nor_push_out_those_with_links() {
        let now = Instant::now();
        let mut table = AddressTable::default();
        table.insert(now, (SOCKET, real(0)), None, synthetic(0));
        table.link_opened(synthetic(0));
        for number in 1..=(2 * MAX_UNLINKED as u32) {
            table.insert(now, (SOCKET, real(number)), None, synthetic(number));
        }
        assert!(table.len() <= MAX_UNLINKED + 1);
        assert!(table.real(synthetic(0)).is_some());
        assert!(table.real(synthetic(1)).is_none());
        assert!(table.real(synthetic(2 * MAX_UNLINKED as u32)).is_some());
    }
}
