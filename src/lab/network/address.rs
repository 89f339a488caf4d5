//! Addresses of the virtual internet.
//!
//! Public addresses are ordinary global unicast ones, each attachment in a /24 (IPv4) and a /48 (IPv6) of its own,
//! because engines treat documentation ranges, and many nodes of one /24, differently. LANs behind a router all use
//! the same private range, as real ones do: an engine that takes another LAN's address for one of its own is found out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// An address in it; the bits behind the prefix do not count.
    pub base: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
}

impl Prefix {
    /// An IPv4 range.
    pub const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Self {
        Self {
            base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            bits,
        }
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differing = base.to_bits() ^ address.to_bits();
                differing.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differing = base.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// The address `number` places behind the base.
    pub(crate) fn host(&self, number: u32) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() + number)),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from_bits(base.to_bits() + u128::from(number))),
        }
    }

    /// Of an IPv6 range: the `number`th range of 16 more bits inside of it.
    pub(super) fn subnet(&self, number: u32) -> Self {
        let IpAddr::V6(base) = self.base else {
            unreachable!("only IPv6 ranges are divided")
        };
        let bits = self.bits + 16;
        assert!(bits <= 112, "routers nested too deep for IPv6");
        Self {
            base: IpAddr::V6(Ipv6Addr::from_bits(
                base.to_bits() | (u128::from(number) << (128 - bits)),
            )),
            bits,
        }
    }
}

/// The `number`th public IPv4 address: 20.x.y.1.
pub(super) fn public_v4(number: u32) -> IpAddr {
    assert!(
        number < 1 << 16,
        "the virtual internet has 65,536 public IPv4 addresses"
    );
    IpAddr::V4(Ipv4Addr::from_bits((20 << 24) | (number << 8) | 1))
}

/// The `number`th public IPv6 network: 2a00:x:y::/48.
pub(super) fn public_v6(number: u32) -> Prefix {
    Prefix {
        base: IpAddr::V6(Ipv6Addr::from_bits((0x2a00 << 112) | (u128::from(number) << 80))),
        bits: 48,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_hold_what_is_in_them() {
        let lan = Prefix::v4(192, 168, 1, 0, 24);
        assert!(lan.contains(lan.host(0)) && lan.contains(lan.host(255)) && !lan.contains(lan.host(256)));
        let all = Prefix::v4(0, 0, 0, 0, 0);
        assert!(all.contains(public_v4(77)));
        assert!(!all.contains(public_v6(77).host(1)));
        assert!(public_v6(77).contains(public_v6(77).host(u32::MAX)));
        assert!(!public_v6(77).contains(public_v6(78).host(0)));
    }
}
