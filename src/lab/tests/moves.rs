//! Hosts and routers whose addresses change.

use std::net::IpAddr;
use std::time::Instant;

use super::super::{DropReason, Families, Lab, LabEngine, Link, Prefix, RouterConfig};
use super::*;
use crate::engine::{Datagram, Engine, Transmit};
use crate::peer::api::SideEffectAnswer;

/// Notes what the system tells of the interfaces.
#[derive(Default)]
struct Watcher {
    told: Vec<Vec<IpAddr>>,
}

impl Engine for Watcher {
    fn handle_datagram(&mut self, _now: Instant, _datagram: Datagram) {}

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self, _now: Instant, _buffer: &mut Vec<u8>) -> Option<Transmit> {
        None
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }
}

impl LabEngine for Watcher {
    fn answer(&mut self, _now: Instant, answer: SideEffectAnswer) {
        if let SideEffectAnswer::LocalAddresses(addresses) = answer {
            self.told.push(addresses);
        }
    }
}

#[test]
fn a_host_that_moves_is_reached_at_its_new_address_alone() {
    let mut lab = Lab::new(1);
    let one = observer(&mut lab, "one");
    let (home, home_lan) = router(&mut lab, RouterConfig::port_restricted());
    let (mobile, mobile_lan) = router(&mut lab, RouterConfig::port_restricted());
    let inside = raw(&mut lab, "inside", home_lan, 5000);
    let before = seen(&mut lab, inside, one, UDP).unwrap();
    assert_eq!(before.ip(), lab.public_addresses(home)[0]);
    // What is under way is lost.
    lab.send_raw(one, UDP, before, b"late");
    lab.run_for(LATENCY * 2 + LATENCY / 2);
    lab.move_host(inside, 0, mobile_lan, Link::internet(LATENCY), Families::V4);
    lab.run_for(A_WHILE);
    assert!(lab.take_received(inside).is_empty());
    assert_eq!(lab.dropped(DropReason::LinkDown), 1);
    let after = seen(&mut lab, inside, one, UDP).unwrap();
    assert_eq!(after.ip(), lab.public_addresses(mobile)[0]);
    assert!(reaches(&mut lab, one, UDP, after, inside));
    assert!(!reaches(&mut lab, one, UDP, before, inside));
}

#[test]
fn engines_hear_of_every_change_of_their_addresses() {
    let mut lab = Lab::new(2);
    let (_, lan) = router(&mut lab, RouterConfig::full_cone());
    let internet = lab.internet();
    let host = lab.add_host("watcher", internet, Link::default());
    lab.start(host, |_| Watcher::default());
    let mut expected = Vec::new();
    lab.add_interface(host, lan, Link::default(), Families::Both);
    expected.push(lab.addresses(host));
    lab.run_for(ms(1));
    lab.move_host(host, 0, lan, Link::default(), Families::V4);
    expected.push(lab.addresses(host));
    lab.run_for(ms(1));
    lab.remove_interface(host, 1);
    expected.push(lab.addresses(host));
    lab.run_for(ms(1));
    assert_eq!(lab.engine::<Watcher>(host).told, expected);
    let counts: Vec<usize> = expected.iter().map(Vec::len).collect();
    assert_eq!(counts, [3, 3, 1]);
}

#[test]
fn a_renumbered_router_has_another_address_and_no_mappings() {
    let mut lab = Lab::new(3);
    let one = observer(&mut lab, "one");
    let (router, lan) = router(&mut lab, RouterConfig::full_cone());
    let inside = raw(&mut lab, "inside", lan, 5000);
    let before = seen(&mut lab, inside, one, UDP).unwrap();
    lab.renumber_router(router);
    assert!(!reaches(&mut lab, one, UDP, before, inside));
    assert_eq!(lab.dropped(DropReason::NoRoute), 1);
    let after = seen(&mut lab, inside, one, UDP).unwrap();
    assert_ne!(after.ip(), before.ip());
    assert_eq!(after.ip(), lab.public_addresses(router)[0]);
    assert!(reaches(&mut lab, one, UDP, after, inside));
}

#[test]
fn a_host_with_two_interfaces_uses_each_for_what_is_behind_it() {
    let mut lab = Lab::new(4);
    let one = observer(&mut lab, "one");
    let (home, home_lan) = router(&mut lab, RouterConfig::port_restricted());
    // Another range: in both LANs the host would have the same address.
    let other = (RouterConfig::port_restricted(), Prefix::v4(10, 0, 0, 0, 24));
    let other = lab.add_router_with_lan(lab.internet(), other.0, Link::internet(LATENCY), other.1);
    let other_lan = lab.lan(other);
    let host = raw(&mut lab, "host", home_lan, 5000);
    lab.add_interface(host, other_lan, Link::internet(LATENCY), Families::V4);
    let neighbour = raw(&mut lab, "neighbour", other_lan, 6000);
    let addresses = lab.addresses(host);
    assert_eq!(addresses.len(), 2);
    // The internet by the first one; a neighbour of the second one by that, from its address.
    assert_eq!(
        seen(&mut lab, host, one, UDP).unwrap().ip(),
        lab.public_addresses(home)[0]
    );
    assert_eq!(seen(&mut lab, host, neighbour, UDP).unwrap().ip(), addresses[1]);
    // A socket that is bound to the second address goes out there.
    lab.open_socket(host, SECOND, SocketAddr::new(addresses[1], 5001));
    let to = lab.socket_address(one, UDP);
    lab.take_received(one);
    lab.send_raw(host, SECOND, to, b"?");
    lab.run_for(A_WHILE);
    let source = lab.take_received(one).pop().unwrap().source;
    assert_eq!(source.ip(), lab.public_addresses(other)[0]);
}
