//! The table of paths by itself.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Instant;

use super::ms;
use crate::codes::PathKind;
use crate::engine::SocketName::Udp4;
use crate::peer::paths::{LINGER, MAX_PATHS, MAX_STRANGERS, Owner, Path, Paths, STRANGER_TIME, kind_of, may_send_to};
use crate::transport::SyntheticAddress;
use crate::transport::identity::PublicKey;

fn synthetic(number: u32) -> SyntheticAddress {
    SyntheticAddress(Ipv6Addr::from(0xfd << 120 | u128::from(number)))
}

fn path(port: u16, kind: PathKind, verified: bool) -> Path {
    Path {
        socket: Udp4,
        address: SocketAddr::from(([192, 0, 2, 1], port)),
        kind,
        round_trip: Some(ms(50)),
        verified,
    }
}

const PEER: Owner = Owner::Peer(PublicKey([7; 32]));

#[test]
fn verified_beats_unverified_then_lan_beats_direct_then_the_shorter_wins() {
    let (now, mut paths) = (Instant::now(), Paths::default());
    let route = synthetic(1);
    paths.insert(now, route, PEER, path(1, PathKind::Lan, false));
    assert!(paths.add(route, path(2, PathKind::Direct, true)));
    assert_eq!(paths.best(route).unwrap().address.port(), 2);
    let shorter = Path {
        round_trip: Some(ms(20)),
        ..path(3, PathKind::Direct, true)
    };
    assert!(paths.add(route, shorter));
    assert!(
        !paths.add(route, path(4, PathKind::Direct, true)),
        "a longer one changes nothing"
    );
    assert!(paths.add(route, path(1, PathKind::Lan, true)));
    assert_eq!(paths.best(route).unwrap().kind, PathKind::Lan);
}

#[test]
fn an_address_belongs_to_whom_it_was_verified_for_last() {
    let (now, mut paths) = (Instant::now(), Paths::default());
    paths.insert(now, synthetic(1), Owner::Stranger, path(1, PathKind::Direct, false));
    paths.insert(now, synthetic(2), PEER, path(1, PathKind::Direct, true));
    assert_eq!(
        paths.route_from(Udp4, path(1, PathKind::Direct, true).address),
        Some(synthetic(2))
    );
    assert_eq!(paths.best(synthetic(1)), None);
    assert_eq!(paths.len(), 1);
}

#[test]
fn a_flood_of_strangers_is_bounded_and_spares_those_with_links() {
    let (now, mut paths) = (Instant::now(), Paths::default());
    for number in 0..5_000u16 {
        paths.insert(
            now,
            synthetic(number.into()),
            Owner::Stranger,
            path(number + 1, PathKind::Direct, false),
        );
        if number == 0 {
            paths.link_added(synthetic(0));
        }
        assert!(paths.len() <= MAX_STRANGERS + 1);
    }
    assert!(paths.best(synthetic(0)).is_some());
    assert!(paths.best(synthetic(1)).is_none());
    assert!(paths.best(synthetic(4_999)).is_some());
}

#[test]
fn routes_without_links_expire() {
    let (now, mut paths) = (Instant::now(), Paths::default());
    paths.insert(now, synthetic(1), Owner::Stranger, path(1, PathKind::Direct, false));
    paths.insert(now, synthetic(2), PEER, path(2, PathKind::Direct, true));
    paths.link_added(synthetic(2));
    paths.sweep(now + STRANGER_TIME);
    assert_eq!(paths.len(), 1);
    paths.link_removed(now + STRANGER_TIME, synthetic(2));
    paths.sweep(now + STRANGER_TIME);
    assert_eq!(paths.len(), 1, "the close still needs it");
    assert_eq!(paths.poll_timeout(), Some(now + STRANGER_TIME + LINGER));
    paths.sweep(now + STRANGER_TIME + LINGER);
    assert_eq!(paths.len(), 0);
    assert_eq!(paths.route_from(Udp4, path(2, PathKind::Direct, true).address), None);
}

#[test]
fn a_route_has_a_bounded_number_of_paths_and_keeps_the_best() {
    let (now, mut paths) = (Instant::now(), Paths::default());
    paths.insert(now, synthetic(1), PEER, path(1, PathKind::Lan, true));
    for port in 2..100 {
        paths.add(synthetic(1), path(port, PathKind::Direct, port % 2 == 0));
    }
    let known = (1..100).filter(|port| {
        paths
            .route_from(Udp4, path(*port, PathKind::Lan, true).address)
            .is_some()
    });
    assert_eq!(known.count(), MAX_PATHS);
    assert_eq!(paths.best(synthetic(1)).unwrap().address.port(), 1);
}

#[test]
fn addresses_are_told_apart() {
    let kind = |text: &str| kind_of(text.parse().unwrap());
    for local in [
        "10.1.2.3:4",
        "192.168.0.1:4",
        "172.16.0.1:4",
        "127.0.0.1:4",
        "[::1]:4",
        "[fd00::1]:4",
        "[fe80::1]:4",
    ] {
        assert_eq!(kind(local), PathKind::Lan, "{local}");
    }
    for public in ["8.8.8.8:4", "100.64.0.1:4", "[2001:db8::1]:4"] {
        assert_eq!(kind(public), PathKind::Direct, "{public}");
    }
    for never in [
        "0.0.0.0:4",
        "255.255.255.255:4",
        "224.0.0.1:4",
        "8.8.8.8:0",
        "[::]:4",
        "[ff02::1]:4",
    ] {
        assert!(!may_send_to(never.parse().unwrap()), "{never}");
    }
}

#[test]
fn a_running_handshake_keeps_its_route() {
    let (now, mut paths) = (Instant::now(), Paths::default());
    paths.insert(now, synthetic(1), Owner::Stranger, path(1, PathKind::Direct, false));
    paths.link_added(synthetic(1));
    paths.insert(now, synthetic(2), PEER, path(2, PathKind::Direct, true));
    assert!(!paths.add(synthetic(2), path(1, PathKind::Lan, true)));
    assert_eq!(
        paths.route_from(Udp4, path(1, PathKind::Lan, true).address),
        Some(synthetic(1))
    );
    // Another player who is verified there now has it: the first one is gone.
    paths.prove(synthetic(1), Owner::Peer(PublicKey([8; 32])));
    paths.add(synthetic(2), path(1, PathKind::Lan, true));
    assert_eq!(
        paths.route_from(Udp4, path(1, PathKind::Lan, true).address),
        Some(synthetic(2))
    );
}
