//! Strangers that begin handshakes and never go on, from made-up addresses.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::super::half_open::{MAX_PROVEN_OF_NETWORK, MAX_TRUSTED_OF_ADDRESS, MAX_UNPROVEN, MAX_UNPROVEN_OF_NETWORK};
use super::super::*;
use super::harness::{Wire, World, config};
use crate::engine::SocketName;

fn source(number: u32) -> SocketAddr {
    // Each in a /24 of its own.
    SocketAddr::new(Ipv4Addr::from_bits(0x0b00_0001 + (number << 8)).into(), 4000)
}

fn origin(source: SocketAddr) -> Origin {
    Origin {
        trusted: false,
        ip: Some(source.ip()),
        shared: false,
    }
}

/// A real client that dials `target`: its first datagram.
fn initial(client: &mut Transport, now: Instant, kind: LinkKind) -> Vec<u8> {
    let address = client.new_address();
    client.connect(now, address, kind, None, None);
    let mut packet = Vec::new();
    while client.poll_transmit(now, &mut packet).is_some() && packet.is_empty() {}
    packet
}

/// Sends the first datagrams of `count` strangers; `networks` apart.
fn flood(target: &mut Transport, now: Instant, kind: LinkKind, count: u32, from: impl Fn(u32) -> SocketAddr) {
    let mut client = Transport::new(TransportConfig {
        max_links: 10_000,
        ..config(count as u8 | 64, None)
    });
    for number in 0..count {
        let packet = initial(&mut client, now, kind);
        assert!(packet.len() >= 1200);
        let source = from(number);
        let address = target.address_of(SocketName::Udp4, source);
        target.handle_datagram_from(now, address, origin(source), None, BytesMut::from(&packet[..]));
    }
}

/// Everything that the target sends until `until`, by address. Nobody answers.
fn sent_until(target: &mut Transport, mut now: Instant, until: Instant) -> BTreeMap<SyntheticAddress, usize> {
    let mut sent = BTreeMap::new();
    loop {
        let mut buffer = Vec::new();
        while let Some((address, _, _)) = target.poll_transmit(now, &mut buffer) {
            *sent.entry(address).or_default() += buffer.len();
            buffer.clear();
        }
        match target.poll_timeout() {
            Some(next) if next <= until => now = next.max(now),
            _ => return sent,
        }
        target.handle_timeout(now);
    }
}

#[test]
fn a_made_up_source_gets_no_more_bytes_than_it_sent() {
    for kind in [LinkKind::Server, LinkKind::Peer] {
        let mut target = Transport::new(config(2, Some(kind)));
        let now = Instant::now();
        flood(&mut target, now, kind, 200, source);
        let sent = sent_until(&mut target, now, now + Duration::from_secs(60));
        assert_eq!(sent.len(), 200);
        assert!(sent.values().all(|&bytes| bytes <= 1200), "{sent:?}");
        let retries = target.counters().retries as usize;
        assert_eq!(retries, 200 - MAX_UNPROVEN);
        assert!(sent.values().filter(|&&bytes| bytes < 300).count() >= retries);
    }
}

#[test]
fn a_flood_holds_little_memory_and_is_forgotten_after_three_seconds() {
    let mut target = Transport::new(config(2, Some(LinkKind::Server)));
    let now = Instant::now();
    flood(&mut target, now, LinkKind::Server, 1500, source);
    assert_eq!(target.open_links(), MAX_UNPROVEN);
    assert_eq!(target.links.len(), MAX_UNPROVEN);
    sent_until(&mut target, now, now + Duration::from_millis(3_001));
    assert_eq!((target.open_links(), target.incoming_handshakes), (0, 0));
    assert!(target.half_open.is_empty());
    assert!(target.links.iter().all(Option::is_none));
    assert_eq!(target.timers.len(), 0);
}

#[test]
fn a_newcomer_connects_during_a_flood_with_one_more_round_trip() {
    for kind in [LinkKind::Server, LinkKind::Peer] {
        let wire = Wire::ideal(Duration::from_millis(20));
        let mut world = World::with(1, wire, config(1, None), config(2, Some(kind)));
        let now = world.now;
        flood(&mut world.ends[1], now, kind, 1500, source);
        let mut buffer = Vec::new();
        while world.ends[1].poll_transmit(now, &mut buffer).is_some() {
            buffer.clear();
        }
        let retries = world.ends[1].counters().retries;
        world.dial(kind, None);
        world.run(Duration::from_secs(1));
        assert_eq!(world.ends[1].counters().retries, retries + 1);
        assert!(world.link_of(1).is_some());
        assert_eq!(world.events[0][0].0, Duration::from_millis(80));
    }
}

#[test]
fn usually_connecting_takes_no_retry() {
    let mut world = World::new(1, Wire::ideal(Duration::from_millis(20)));
    world.connected();
    assert_eq!(world.ends[1].counters().retries, 0);
    assert!(world.ends[1].half_open.is_empty());
}

#[test]
fn one_network_uses_up_only_its_share() {
    let mut target = Transport::new(config(2, Some(LinkKind::Server)));
    let now = Instant::now();
    let same = |number: u32| SocketAddr::from(([11, 0, 0, 1], 1000 + number as u16));
    flood(&mut target, now, LinkKind::Server, 500, same);
    assert_eq!(target.open_links(), usize::from(MAX_UNPROVEN_OF_NETWORK));
    flood(&mut target, now, LinkKind::Server, 10, |number| source(9 + number));
    assert_eq!(target.open_links(), usize::from(MAX_UNPROVEN_OF_NETWORK) + 10);
    // Loopback is one machine's own: no limit by network.
    let mut target = Transport::new(config(2, Some(LinkKind::Server)));
    let own = |number: u32| SocketAddr::from(([127, 0, 0, 1], 1000 + number as u16));
    flood(&mut target, now, LinkKind::Server, 50, own);
    assert_eq!(target.open_links(), 50);
}

#[test]
fn proven_handshakes_of_one_network_are_bounded() {
    let mut target = Transport::new(config(2, Some(LinkKind::Server)));
    let now = Instant::now();
    flood(&mut target, now, LinkKind::Server, 100, source);
    let mut drop_all = Vec::new();
    while target.poll_transmit(now, &mut drop_all).is_some() {
        drop_all.clear();
    }
    let mut client = Transport::new(config(3, None));
    for number in 0..100 {
        let source = SocketAddr::from(([12, 0, 0, 1], 1000 + number));
        let address = target.address_of(SocketName::Udp4, source);
        let there = client.new_address();
        client.connect(now, there, LinkKind::Server, None, None);
        let mut packet = Vec::new();
        client.poll_transmit(now, &mut packet).unwrap();
        target.handle_datagram_from(now, address, origin(source), None, BytesMut::from(&packet[..]));
        let mut retry = Vec::new();
        let Some((to, _, _)) = target.poll_transmit(now, &mut retry) else {
            panic!("no answer");
        };
        assert_eq!(to, address);
        if retry.len() > 300 {
            continue;
        }
        client.handle_datagram(now, there, None, BytesMut::from(&retry[..]));
        packet.clear();
        client.poll_transmit(now, &mut packet).unwrap();
        target.handle_datagram_from(now, address, origin(source), None, BytesMut::from(&packet[..]));
        retry.clear();
        while target.poll_transmit(now, &mut retry).is_some() {
            retry.clear();
        }
    }
    assert_eq!(target.open_links(), MAX_UNPROVEN + usize::from(MAX_PROVEN_OF_NETWORK));
    assert!(target.counters().refused_full > 0);
}

#[test]
fn a_token_of_another_address_is_worth_nothing() {
    let mut target = Transport::new(config(2, Some(LinkKind::Server)));
    let now = Instant::now();
    flood(&mut target, now, LinkKind::Server, 100, source);
    let mut buffer = Vec::new();
    while target.poll_transmit(now, &mut buffer).is_some() {
        buffer.clear();
    }
    let open = target.open_links();
    let mut client = Transport::new(config(3, None));
    let there = client.new_address();
    client.connect(now, there, LinkKind::Server, None, None);
    let mut packet = Vec::new();
    client.poll_transmit(now, &mut packet).unwrap();
    let own = target.address_of(SocketName::Udp4, source(5000));
    target.handle_datagram_from(now, own, origin(source(5000)), None, BytesMut::from(&packet[..]));
    target.poll_transmit(now, &mut buffer).unwrap();
    client.handle_datagram(now, there, None, BytesMut::from(&buffer[..]));
    packet.clear();
    client.poll_transmit(now, &mut packet).unwrap();
    let other = target.address_of(SocketName::Udp4, source(5001));
    target.handle_datagram_from(now, other, origin(source(5001)), None, BytesMut::from(&packet[..]));
    assert_eq!(target.open_links(), open);
    // Nor is one that is old.
    let later = now + Duration::from_secs(17);
    target.handle_datagram_from(later, own, origin(source(5000)), None, BytesMut::from(&packet[..]));
    assert_eq!(target.open_links(), open);
    target.handle_datagram_from(now, own, origin(source(5000)), None, BytesMut::from(&packet[..]));
    assert_eq!(target.open_links(), open + 1);
}

#[test]
fn an_introduced_peer_is_accepted_at_once_during_a_flood_and_beyond_max_links() {
    let mut full = config(2, Some(LinkKind::Peer));
    full.max_links = 0;
    for mut settings in [config(2, Some(LinkKind::Peer)), full] {
        settings.seed = [7; 32];
        let mut target = Transport::new(settings);
        let now = Instant::now();
        flood(&mut target, now, LinkKind::Peer, 1500, source);
        let before = (target.open_links(), target.counters().retries);
        let address = target.new_address();
        let trusted = Origin {
            trusted: true,
            ip: Some(source(0).ip()),
            shared: false,
        };
        let mut client = Transport::new(config(3, None));
        for _ in 0..2 * MAX_TRUSTED_OF_ADDRESS {
            let packet = initial(&mut client, now, LinkKind::Peer);
            target.handle_datagram_from(now, address, trusted, None, BytesMut::from(&packet[..]));
        }
        // What is beyond may be forged, and counts as a stranger's.
        let accepted = target.open_links() - before.0;
        assert_eq!(accepted, usize::from(MAX_TRUSTED_OF_ADDRESS));
    }
}

#[test]
fn a_stranger_keeps_its_synthetic_address_and_no_two_share_one() {
    let target = Transport::new(config(2, Some(LinkKind::Peer)));
    let other = Transport::new(config(3, Some(LinkKind::Peer)));
    let of = |target: &Transport, socket, number| target.address_of(socket, source(number));
    let one = of(&target, SocketName::Udp4, 1);
    assert_eq!(one, of(&target, SocketName::Udp4, 1));
    assert_ne!(one, of(&target, SocketName::Udp4, 2));
    assert_ne!(one, of(&target, SocketName::Udp6, 1));
    assert_ne!(one, of(&other, SocketName::Udp4, 1));
    assert_eq!(one.0.octets()[0], 0xfd);
}

#[test]
fn a_lost_reply_is_repeated_when_the_other_side_repeats_its_request() {
    for seed in 0..40 {
        let wire = Wire {
            loss: 0.3,
            ..Wire::ideal(Duration::from_millis(20))
        };
        let mut world = World::new(seed, wire);
        world.wires[0].loss = 0.0;
        world.dial(LinkKind::Peer, None);
        world.run(Duration::from_secs(5));
        assert!(world.link_of(0).is_some(), "seed {seed}");
    }
}
