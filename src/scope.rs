//! What kind of network an address belongs to.
//!
//! At the server that decides which limits hold for an address and who may be told of it; at nodes, what a server can have seen, and
//! whether a router stands at the edge of the internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The reach of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nobody can be reached there, or more than one: unspecified, multicast, broadcast, reserved, link-local (which
    /// means something else on every link).
    Unusable,
    /// The machine itself.
    Loopback,
    /// A local network or a carrier's: RFC 1918, 100.64/10 (RFC 6598), fc00::/7 (RFC 4193).
    Private,
    /// The internet.
    Global,
}

/// The reach of `ip`. IPv4-mapped IPv6 addresses count as the IPv4 addresses that they are.
pub fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Scope {
    let [first, second, ..] = ip.octets();
    match first {
        // 0/8 "this network", 224/4 multicast, 240/4 reserved and broadcast
        0 | 224..=255 => Scope::Unusable,
        127 => Scope::Loopback,
        169 if second == 254 => Scope::Unusable,
        10 => Scope::Private,
        172 if second & 0xf0 == 16 => Scope::Private,
        192 if second == 168 => Scope::Private,
        _ if is_shared(ip.into()) => Scope::Private,
        _ => Scope::Global,
    }
}

/// 100.64.0.0/10 (RFC 6598): between a provider's router and its customers.
pub fn is_shared(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64,
        IpAddr::V6(_) => false,
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    let first = ip.segments()[0];
    if ip.is_loopback() {
        Scope::Loopback
    } else if first & 0xfe00 == 0xfc00 {
        Scope::Private
    } else if first & 0xe000 == 0x2000 {
        // Of everything else only 2000::/3 has ever been given out.
        Scope::Global
    } else {
        Scope::Unusable
    }
}

/// The block of addresses that one customer, household or office usually has: an IPv4 /24, an IPv6 /56.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// The block that `ip` is in.
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & (!0 << 8)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (!0 << 72)).into(),
        })
    }
}

/// True if both are in one local network as the internet sees it: the same IPv4 address, or the same IPv6 /64.
pub fn same_public_address(one: IpAddr, other: IpAddr) -> bool {
    match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one == other,
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() >> 64 == other.to_bits() >> 64,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_well_known_addresses() {
        let expected = [
            ("0.0.0.0", Scope::Unusable),
            ("0.1.2.3", Scope::Unusable),
            ("224.0.0.1", Scope::Unusable),
            ("255.255.255.255", Scope::Unusable),
            ("169.254.1.1", Scope::Unusable),
            ("127.0.0.1", Scope::Loopback),
            ("127.255.0.9", Scope::Loopback),
            ("10.0.0.1", Scope::Private),
            ("172.16.0.1", Scope::Private),
            ("172.31.255.1", Scope::Private),
            ("172.32.0.1", Scope::Global),
            ("192.168.1.1", Scope::Private),
            ("100.64.0.1", Scope::Private),
            ("100.128.0.1", Scope::Global),
            ("203.0.113.7", Scope::Global),
            ("::", Scope::Unusable),
            ("::1", Scope::Loopback),
            ("fe80::1", Scope::Unusable),
            ("ff02::1", Scope::Unusable),
            ("fd12::1", Scope::Private),
            ("2001:db8::1", Scope::Global),
            ("::ffff:127.0.0.1", Scope::Loopback),
            ("::ffff:224.0.0.1", Scope::Unusable),
            ("::127.0.0.1", Scope::Unusable),
        ];
        for (text, scope_of_it) in expected {
            assert_eq!(scope(text.parse().unwrap()), scope_of_it, "{text}");
        }
    }

    #[test]
    fn networks_are_a_24_and_a_56() {
        let network = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(network("203.0.113.1"), network("203.0.113.255"));
        assert_eq!(network("203.0.113.1"), network("::ffff:203.0.113.9"));
        assert_ne!(network("203.0.113.1"), network("203.0.114.1"));
        assert_eq!(network("2001:db8:0:ff::1"), network("2001:db8:0:0:5::9"));
        assert_ne!(network("2001:db8:0:100::1"), network("2001:db8::1"));
    }

    #[test]
    fn one_household_is_one_ipv4_address_or_one_ipv6_64() {
        let same = |one: &str, other: &str| same_public_address(one.parse().unwrap(), other.parse().unwrap());
        assert!(same("203.0.113.1", "203.0.113.1"));
        assert!(!same("203.0.113.1", "203.0.113.2"));
        assert!(same("2001:db8::1", "2001:db8::2:3"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("203.0.113.1", "2001:db8::1"));
    }
}
