//! Which of the machine's addresses a server that listens on all of them knows by name.
//!
//! A socket that is bound to all addresses can answer from each of them. Two of one family are what tells routers apart best
//! (RFC 5780), and one of the other IP version is where players prove theirs. But an answer from an address that is lost on the way
//! looks as if the player's router had dropped it. So a second address is used by itself only if it stands beside the first on the
//! same interface and has the same reach, and only for IPv4: a machine's further IPv6 addresses come and go (RFC 8981). Others can be
//! asked for with `--listen`.

use std::net::IpAddr;

use crate::scope::{Scope, scope};

/// An interface's name and one of its addresses.
pub type InterfaceAddress = (String, IpAddr);

/// The addresses of all interfaces, in the system's order.
pub fn of_machine() -> Vec<InterfaceAddress> {
    if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| {
            let ip = interface.ip();
            (interface.name, ip)
        })
        .collect()
}

/// The address that a server can name as its own, and a second one if there is one; public ones before private ones.
pub fn choose(addresses: &[InterfaceAddress], ipv4: bool) -> Vec<IpAddr> {
    let of_reach = |reach: Scope| -> Vec<&InterfaceAddress> {
        addresses
            .iter()
            .filter(|(_, ip)| ip.is_ipv4() == ipv4 && scope(*ip) == reach)
            .collect()
    };
    let mut usable = of_reach(Scope::Global);
    if usable.is_empty() {
        usable = of_reach(Scope::Private);
    }
    let beside = |one: &InterfaceAddress| {
        usable
            .iter()
            .find(|other| other.0 == one.0 && other.1 != one.1)
            .map(|other| other.1)
    };
    let pair = usable
        .iter()
        .filter(|_| ipv4)
        .find_map(|one| Some(vec![one.1, beside(one)?]));
    pair.unwrap_or_else(|| usable.first().map(|one| one.1).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(list: &[(&str, &str)], ipv4: bool) -> Vec<String> {
        let addresses: Vec<InterfaceAddress> = list
            .iter()
            .map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap()))
            .collect();
        choose(&addresses, ipv4).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_of_one_interface_and_reach_are_a_pair() {
        let machine = [
            ("lo", "127.0.0.1"),
            ("eth0", "203.0.113.1"),
            ("eth0", "2001:db8::1"),
            ("docker0", "172.17.0.1"),
            ("eth0", "203.0.113.2"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::2"),
        ];
        assert_eq!(chosen(&machine, true), ["203.0.113.1", "203.0.113.2"]);
        assert_eq!(chosen(&machine, false), ["2001:db8::1"]);
        assert_eq!(
            chosen(&[("eth0", "10.0.0.1"), ("eth0", "10.0.0.2")], true),
            ["10.0.0.1", "10.0.0.2"]
        );
    }

    #[test]
    fn different_interfaces_or_reaches_are_none() {
        let two_providers = [("eth0", "203.0.113.1"), ("eth1", "198.51.100.1")];
        assert_eq!(chosen(&two_providers, true), ["203.0.113.1"]);
        let container_host = [("docker0", "172.17.0.1"), ("eth0", "10.0.0.5")];
        assert_eq!(chosen(&container_host, true), ["172.17.0.1"]);
        let mixed = [("eth0", "10.0.0.5"), ("eth0", "203.0.113.1")];
        assert_eq!(chosen(&mixed, true), ["203.0.113.1"]);
        let later_pair = [("a", "198.51.100.1"), ("b", "203.0.113.1"), ("b", "203.0.113.2")];
        assert_eq!(chosen(&later_pair, true), ["203.0.113.1", "203.0.113.2"]);
    }

    #[test]
    fn a_machine_without_any_has_none() {
        assert_eq!(chosen(&[("lo", "127.0.0.1"), ("eth0", "169.254.1.1")], true), [""; 0]);
        assert_eq!(chosen(&[("lo", "::1"), ("eth0", "fe80::1")], false), [""; 0]);
    }
}
