//! From which of the machine's addresses a node must be answered.
//!
//! A socket that is bound to all addresses answers from the one that the routing table names. On a machine with several,
//! that need not be the one that the node sent to; the node (and its NAT) would drop such an answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Most remembered nodes, about 80 bytes each. When there are more, all are forgotten: each is known again with its next
/// datagram.
const MAX_REMEMBERED: usize = 1 << 16;

/// Remembers nodes that do not use the address that most use.
#[derive(Debug, Default)]
pub struct ReturnAddresses {
    /// The first address that anyone used, of each family.
    usual: [Option<IpAddr>; 2],
    others: BTreeMap<SocketAddr, IpAddr>,
}

impl ReturnAddresses {
    /// A datagram of `source` was sent to `destination_ip`.
    pub fn note(&mut self, source: SocketAddr, destination_ip: Option<IpAddr>) {
        let Some(ip) = destination_ip else { return };
        let usual = self.usual[usize::from(source.is_ipv6())].get_or_insert(ip);
        if *usual != ip {
            if self.others.len() >= MAX_REMEMBERED {
                self.others.clear();
            }
            self.others.insert(source, ip);
        } else if !self.others.is_empty() {
            self.others.remove(&source);
        }
    }

    /// The address to answer from; `None`: the system's choice.
    pub fn for_destination(&self, destination: SocketAddr) -> Option<IpAddr> {
        let usual = self.usual[usize::from(destination.is_ipv6())];
        if self.others.is_empty() {
            usual
        } else {
            self.others.get(&destination).copied().or(usual)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_answered_from_the_address_that_it_sent_to() {
        let mut addresses = ReturnAddresses::default();
        let [a, b, c]: [SocketAddr; 3] =
            ["203.0.113.1:1", "203.0.113.2:1", "[2001:db8::2]:1"].map(|address| address.parse().unwrap());
        let [first, second]: [IpAddr; 2] = ["198.51.100.1", "198.51.100.2"].map(|ip| ip.parse().unwrap());
        assert_eq!(addresses.for_destination(a), None);
        addresses.note(a, Some(first));
        addresses.note(b, Some(second));
        addresses.note(c, None);
        assert_eq!(addresses.for_destination(a), Some(first));
        assert_eq!(addresses.for_destination(b), Some(second));
        assert_eq!(addresses.for_destination(c), None);
        addresses.note(b, Some(first));
        assert_eq!(addresses.for_destination(b), Some(first));
    }

    #[test]
    fn strangers_cannot_fill_it() {
        let mut addresses = ReturnAddresses::default();
        addresses.note("203.0.113.1:1".parse().unwrap(), Some("198.51.100.1".parse().unwrap()));
        for number in 0..2 * MAX_REMEMBERED as u32 {
            let source = SocketAddr::from(((0x0b00_0000 + number).to_be_bytes(), 1));
            addresses.note(source, Some("198.51.100.2".parse().unwrap()));
        }
        assert!(addresses.others.len() <= MAX_REMEMBERED);
    }
}
