//! Each behaviour of routers, as it is seen from outside.

use std::net::SocketAddr;

use super::super::{
    Allocation, BurstLimit, Dependence, DropReason, Families, Lab, Link, Pooling, Prefix, RouterConfig, with_seeds,
};
use super::*;
use crate::engine::SocketName;

/// What three destinations see of one socket: two ports of one host, one of another.
fn three_views(config: RouterConfig, seed: u64) -> [SocketAddr; 3] {
    let mut lab = Lab::new(seed);
    let (one, other) = (observer(&mut lab, "one"), observer(&mut lab, "other"));
    let (_, lan) = router(&mut lab, config);
    let inside = raw(&mut lab, "inside", lan, 5000);
    [(one, UDP), (one, SECOND), (other, UDP)]
        .map(|(host, socket)| seen(&mut lab, inside, host, socket).expect("outbound datagrams arrive"))
}

fn nat(mapping: Dependence) -> RouterConfig {
    RouterConfig {
        mapping,
        ..RouterConfig::symmetric(Allocation::Random)
    }
}

#[test]
fn mappings_depend_on_the_destination_as_their_kind_says() {
    with_seeds(0..4, |seed| {
        let [a, b, c] = three_views(nat(Dependence::EndpointIndependent), seed);
        assert!(a == b && b == c, "EIM: {a} {b} {c}");
        let [a, b, c] = three_views(nat(Dependence::Address), seed);
        assert!(a == b && b != c, "ADM: {a} {b} {c}");
        let [a, b, c] = three_views(nat(Dependence::AddressAndPort), seed);
        assert!(a != b && b != c && a != c, "APDM: {a} {b} {c}");
    });
}

/// Who gets in after a datagram to the first socket of one host: that socket, another socket of it, another host.
fn three_entries(filtering: Dependence) -> [bool; 3] {
    let mut lab = Lab::new(1);
    let (one, other) = (observer(&mut lab, "one"), observer(&mut lab, "other"));
    let config = RouterConfig {
        filtering,
        ..RouterConfig::full_cone()
    };
    let (_, lan) = router(&mut lab, config);
    let inside = raw(&mut lab, "inside", lan, 5000);
    let outside = seen(&mut lab, inside, one, UDP).unwrap();
    [(one, UDP), (one, SECOND), (other, UDP)].map(|(host, socket)| reaches(&mut lab, host, socket, outside, inside))
}

#[test]
fn filters_let_in_whom_their_kind_says() {
    assert_eq!(three_entries(Dependence::EndpointIndependent), [true, true, true]);
    assert_eq!(three_entries(Dependence::Address), [true, true, false]);
    assert_eq!(three_entries(Dependence::AddressAndPort), [true, false, false]);
}

#[test]
fn nobody_gets_in_without_a_mapping() {
    for config in [
        RouterConfig::full_cone(),
        RouterConfig::port_restricted(),
        RouterConfig::symmetric(Allocation::Preserving),
    ] {
        let mut lab = Lab::new(2);
        let stranger = observer(&mut lab, "stranger");
        let (router, lan) = router(&mut lab, config);
        let inside = raw(&mut lab, "inside", lan, 5000);
        let address = SocketAddr::new(lab.public_addresses(router)[0], 5000);
        assert!(!reaches(&mut lab, stranger, UDP, address, inside));
        assert_eq!(lab.dropped(DropReason::NoMapping), 1);
    }
}

#[test]
fn filters_name_their_drops() {
    let mut lab = Lab::new(3);
    let (one, other) = (observer(&mut lab, "one"), observer(&mut lab, "other"));
    let (_, lan) = router(&mut lab, RouterConfig::port_restricted());
    let inside = raw(&mut lab, "inside", lan, 5000);
    let outside = seen(&mut lab, inside, one, UDP).unwrap();
    assert!(!reaches(&mut lab, other, UDP, outside, inside));
    assert_eq!(lab.dropped(DropReason::Filtered), 1);
}

#[test]
fn preserving_keeps_the_port_and_the_second_to_want_it_gets_the_next() {
    let mut lab = Lab::new(4);
    let one = observer(&mut lab, "one");
    let (_, lan) = router(&mut lab, RouterConfig::port_restricted());
    let first = raw(&mut lab, "first", lan, 5000);
    let second = raw(&mut lab, "second", lan, 5000);
    assert_eq!(seen(&mut lab, first, one, UDP).unwrap().port(), 5000);
    assert_eq!(seen(&mut lab, second, one, UDP).unwrap().port(), 5001);
    assert_eq!(seen(&mut lab, first, one, SECOND).unwrap().port(), 5000);
}

#[test]
fn overloaded_ports_are_preserved_towards_each_destination() {
    let mut lab = Lab::new(5);
    let (one, other) = (observer(&mut lab, "one"), observer(&mut lab, "other"));
    let (_, lan) = router(&mut lab, RouterConfig::symmetric(Allocation::Preserving));
    let first = raw(&mut lab, "first", lan, 5000);
    let second = raw(&mut lab, "second", lan, 5000);
    let mut views = Vec::new();
    for (host, to) in [(first, one), (first, other), (second, one)] {
        views.push(seen(&mut lab, host, to, UDP).unwrap());
    }
    let ports: Vec<u16> = views.iter().map(SocketAddr::port).collect();
    assert_eq!(ports, [5000, 5000, 5001]);
    // The same outside endpoint leads to another inside host, by who sends.
    let third = raw(&mut lab, "third", lan, 5001);
    assert_eq!(seen(&mut lab, third, other, UDP), Some(views[2]));
    assert!(reaches(&mut lab, other, UDP, views[2], third));
    assert!(reaches(&mut lab, one, UDP, views[2], second));
}

#[test]
fn sequential_ports_are_a_step_apart() {
    for step in [1, 2, -3] {
        let config = RouterConfig::symmetric(Allocation::Sequential {
            step,
            foreign_per_second: 0.0,
        });
        let [a, b, c] = three_views(config, 7).map(|address| i32::from(address.port()));
        assert_eq!([b - a, c - b], [i32::from(step); 2]);
    }
}

#[test]
fn foreign_mappings_widen_the_step() {
    let config = RouterConfig::symmetric(Allocation::Sequential {
        step: 1,
        foreign_per_second: 10.0,
    });
    let mut steps = 0;
    for seed in 0..20 {
        let [a, b, _] = three_views(config.clone(), seed).map(|address| i64::from(address.port()));
        // Going around the end of the range would make a huge difference.
        steps += (b - a).rem_euclid(64_512);
    }
    // One second lies between two mappings of ours: 1 + 10 on average; the sum of 20 deviates by 14 (Poisson).
    assert!((150..290).contains(&steps), "{steps}");
}

#[test]
fn random_ports_differ_by_seed_and_blocks_hold_them() {
    let mut seen_ports = std::collections::BTreeSet::new();
    let mut blocks = std::collections::BTreeSet::new();
    for seed in 0..20 {
        for address in three_views(RouterConfig::symmetric(Allocation::Random), seed) {
            assert!(address.port() >= 1024);
            seen_ports.insert(address.port());
        }
        let in_block = three_views(RouterConfig::symmetric(Allocation::RandomInBlock { size: 2048 }), seed);
        let [a, b, c] = in_block.map(|address| address.port() / 2048);
        assert!(a == b && b == c && a > 0, "{in_block:?}");
        blocks.insert(a);
    }
    assert!(seen_ports.len() > 50, "{seen_ports:?}");
    assert!(blocks.len() > 5, "{blocks:?}");
}

#[test]
fn silence_ends_a_mapping_and_outbound_datagrams_keep_it() {
    let mut lab = Lab::new(8);
    let one = observer(&mut lab, "one");
    let config = RouterConfig::full_cone()
        .with_allocation(Allocation::Random)
        .with_timeout(ms(20_000));
    let (router, lan) = router(&mut lab, config);
    let inside = raw(&mut lab, "inside", lan, 5000);
    let outside = seen(&mut lab, inside, one, UDP).unwrap();
    for _ in 0..3 {
        lab.run_for(ms(15_000));
        assert_eq!(seen(&mut lab, inside, one, UDP), Some(outside), "refreshed in time");
    }
    // Inbound datagrams alone do not keep it.
    for _ in 0..2 {
        lab.run_for(ms(8_000));
        assert!(reaches(&mut lab, one, UDP, outside, inside));
    }
    lab.run_for(ms(1_000));
    assert!(!reaches(&mut lab, one, UDP, outside, inside));
    assert_eq!(lab.mapping_count(router), 0);
    assert_ne!(seen(&mut lab, inside, one, UDP), Some(outside), "a new mapping");
}

#[test]
fn inbound_datagrams_keep_a_mapping_where_the_router_says_so() {
    let mut lab = Lab::new(9);
    let one = observer(&mut lab, "one");
    let config = RouterConfig {
        inbound_refreshes: true,
        ..RouterConfig::port_restricted()
    };
    let (_, lan) = router(&mut lab, config.with_timeout(ms(20_000)));
    let inside = raw(&mut lab, "inside", lan, 5000);
    let outside = seen(&mut lab, inside, one, UDP).unwrap();
    for _ in 0..4 {
        lab.run_for(ms(15_000));
        assert!(reaches(&mut lab, one, UDP, outside, inside));
    }
}

#[test]
fn a_filter_forgets_each_remote_endpoint_by_itself() {
    let mut lab = Lab::new(10);
    let (one, other) = (observer(&mut lab, "one"), observer(&mut lab, "other"));
    let (_, lan) = router(&mut lab, RouterConfig::port_restricted().with_timeout(ms(20_000)));
    let inside = raw(&mut lab, "inside", lan, 5000);
    let outside = seen(&mut lab, inside, one, UDP).unwrap();
    lab.run_for(ms(15_000));
    assert_eq!(seen(&mut lab, inside, other, UDP), Some(outside));
    lab.run_for(ms(5_000));
    assert!(reaches(&mut lab, other, UDP, outside, inside));
    assert!(!reaches(&mut lab, one, UDP, outside, inside));
}

#[test]
fn hairpin_shows_the_outside_address_or_nothing() {
    for hairpins in [false, true] {
        let mut lab = Lab::new(11);
        let one = observer(&mut lab, "one");
        let config = RouterConfig {
            hairpin: hairpins,
            ..RouterConfig::full_cone()
        };
        let (router, lan) = router(&mut lab, config);
        let (left, right) = (raw(&mut lab, "left", lan, 5000), raw(&mut lab, "right", lan, 6000));
        let outside = seen(&mut lab, right, one, UDP).unwrap();
        assert_eq!(reaches(&mut lab, left, UDP, outside, right), hairpins);
        assert_eq!(lab.dropped(DropReason::NoHairpin), u64::from(!hairpins));
        if hairpins {
            lab.send_raw(left, UDP, outside, b"!");
            lab.run_for(A_WHILE);
            let source = lab.take_received(right).pop().unwrap().source;
            assert_eq!(source, SocketAddr::new(lab.public_addresses(router)[0], 5000));
        }
    }
}

#[test]
fn two_routers_in_a_row_translate_twice() {
    let mut lab = Lab::new(12);
    let one = observer(&mut lab, "one");
    let carrier = lab.add_router_with_lan(
        lab.internet(),
        RouterConfig::port_restricted(),
        Link::internet(LATENCY),
        Prefix::v4(100, 64, 0, 0, 16),
    );
    let home = lab.add_router(lab.lan(carrier), RouterConfig::full_cone(), Link::lan(LATENCY));
    assert!(lab.public_addresses(home)[0].to_string().starts_with("100.64."));
    let home_lan = lab.lan(home);
    let inside = raw(&mut lab, "inside", home_lan, 5000);
    let outside = seen(&mut lab, inside, one, UDP).unwrap();
    assert_eq!(outside.ip(), lab.public_addresses(carrier)[0]);
    assert!(reaches(&mut lab, one, UDP, outside, inside));
    // The stricter of the two decides who gets in.
    assert!(!reaches(&mut lab, one, SECOND, outside, inside));
    assert_eq!((lab.mapping_count(carrier), lab.mapping_count(home)), (1, 1));
}

#[test]
fn neighbours_meet_without_their_router() {
    let mut lab = Lab::new(13);
    let (router, lan) = router(&mut lab, RouterConfig::symmetric(Allocation::Random));
    let (left, right) = (raw(&mut lab, "left", lan, 5000), raw(&mut lab, "right", lan, 6000));
    let left_address = lab.socket_address(left, UDP);
    assert_eq!(seen(&mut lab, left, right, UDP), Some(left_address));
    assert_eq!(lab.mapping_count(router), 0);
}

#[test]
fn the_same_private_address_in_another_lan_is_another_host() {
    let mut lab = Lab::new(14);
    let (_, here) = router(&mut lab, RouterConfig::full_cone());
    let (_, there) = router(&mut lab, RouterConfig::full_cone());
    let sender = raw(&mut lab, "sender", here, 5000);
    let neighbour = raw(&mut lab, "neighbour", here, 6000);
    raw(&mut lab, "first there", there, 6000);
    let far = raw(&mut lab, "second there", there, 6000);
    let address = lab.socket_address(far, UDP);
    assert_eq!(address, lab.socket_address(neighbour, UDP));
    assert!(!reaches(&mut lab, sender, UDP, address, far));
    assert!(reaches(&mut lab, sender, UDP, address, neighbour));
}

#[test]
fn a_low_time_to_live_opens_the_own_router_and_ends_before_the_other() {
    let mut lab = Lab::new(15);
    let (here, here_lan) = router(&mut lab, RouterConfig::port_restricted());
    let (there, there_lan) = router(&mut lab, RouterConfig::full_cone());
    let left = raw_by(&mut lab, "left", here_lan, 5000, Link::lan(LATENCY));
    let right = raw_by(&mut lab, "right", there_lan, 6000, Link::lan(LATENCY));
    let (left_outside, right_outside) = (
        SocketAddr::new(lab.public_addresses(here)[0], 5000),
        SocketAddr::new(lab.public_addresses(there)[0], 6000),
    );
    // 1 ends at the own router, before its NAT; 3 ends in the internet.
    lab.send_raw_with(left, UDP, right_outside, b"ttl", Some(1));
    lab.run_for(A_WHILE);
    assert_eq!((lab.dropped(DropReason::HopLimit), lab.mapping_count(here)), (1, 0));
    lab.send_raw_with(left, UDP, right_outside, b"ttl", Some(3));
    lab.run_for(A_WHILE);
    assert_eq!((lab.dropped(DropReason::HopLimit), lab.mapping_count(here)), (2, 1));
    assert_eq!(lab.dropped(DropReason::NoMapping), 0, "the other router never saw it");
    assert!(reaches(&mut lab, right, UDP, left_outside, left));
    assert!(
        reaches(&mut lab, left, UDP, right_outside, right),
        "an ordinary one gets through"
    );
}

#[test]
fn quotas_and_blocks_bound_the_mappings_of_one_host() {
    let quota = RouterConfig {
        port_quota: Some(2),
        ..RouterConfig::symmetric(Allocation::Random)
    };
    let block = RouterConfig::symmetric(Allocation::RandomInBlock { size: 2 });
    for (config, reason) in [(quota, DropReason::QuotaExceeded), (block, DropReason::PortsExhausted)] {
        let mut lab = Lab::new(16);
        let (one, other) = (observer(&mut lab, "one"), observer(&mut lab, "other"));
        let (_, lan) = router(&mut lab, config);
        let inside = raw(&mut lab, "inside", lan, 5000);
        assert!(seen(&mut lab, inside, one, UDP).is_some());
        assert!(seen(&mut lab, inside, one, SECOND).is_some());
        assert_eq!(seen(&mut lab, inside, other, UDP), None);
        assert_eq!(lab.dropped(reason), 1);
        lab.run_for(ms(30_000));
        assert!(
            seen(&mut lab, inside, other, UDP).is_some(),
            "ended mappings do not count"
        );
    }
}

#[test]
fn pooled_addresses_are_paired_or_not() {
    let addresses = |pooling| {
        let config = RouterConfig {
            public_addresses: 4,
            pooling,
            ..RouterConfig::symmetric(Allocation::Random)
        };
        (0..12)
            .map(|seed| {
                let ips = three_views(config.clone(), seed).map(|address| address.ip());
                ips[0] == ips[1] && ips[1] == ips[2]
            })
            .filter(|same| *same)
            .count()
    };
    assert_eq!(addresses(Pooling::Paired), 12);
    // Three equal ones of four by chance: one seed in 16.
    assert!(addresses(Pooling::Arbitrary) < 5);
}

#[test]
fn blocked_udp_passes_in_neither_direction() {
    let mut lab = Lab::new(17);
    let one = observer(&mut lab, "one");
    let (_, lan) = router(
        &mut lab,
        RouterConfig {
            blocks_udp: true,
            ..RouterConfig::full_cone()
        },
    );
    let inside = raw(&mut lab, "inside", lan, 5000);
    assert_eq!(seen(&mut lab, inside, one, UDP), None);
    assert_eq!(lab.dropped(DropReason::UdpBlocked), 1);
}

#[test]
fn a_rebooted_router_has_forgotten() {
    let mut lab = Lab::new(18);
    let one = observer(&mut lab, "one");
    let (router, lan) = router(&mut lab, RouterConfig::full_cone());
    let inside = raw(&mut lab, "inside", lan, 5000);
    let outside = seen(&mut lab, inside, one, UDP).unwrap();
    lab.reboot_router(router);
    assert!(!reaches(&mut lab, one, UDP, outside, inside));
}

#[test]
fn open_routers_pass_everything_and_firewalls_only_answers() {
    for (config, strangers_enter) in [(RouterConfig::open(), true), (RouterConfig::firewall(), false)] {
        let mut lab = Lab::new(19);
        let (one, other) = (observer(&mut lab, "one"), observer(&mut lab, "other"));
        let (_, lan) = router(&mut lab, config);
        let inside = raw(&mut lab, "inside", lan, 5000);
        let address = lab.socket_address(inside, UDP);
        assert_eq!(reaches(&mut lab, one, UDP, address, inside), strangers_enter);
        assert_eq!(seen(&mut lab, inside, one, UDP), Some(address), "the address stays");
        assert!(reaches(&mut lab, one, UDP, address, inside));
        assert_eq!(reaches(&mut lab, other, UDP, address, inside), strangers_enter);
    }
}

#[test]
fn ipv6_is_filtered_but_not_translated_behind_two_nats() {
    const UDP6: SocketName = SocketName::Udp6;
    let mut lab = Lab::new(20);
    let internet = lab.internet();
    let outer = lab.add_router(internet, RouterConfig::port_restricted(), Link::internet(LATENCY));
    let inner = lab.add_router(lab.lan(outer), RouterConfig::full_cone(), Link::lan(LATENCY));
    let (inner_lan, bound) = (lab.lan(inner), "[::]:5000".parse().unwrap());
    let inside = lab.add_host_with("inside", inner_lan, Link::lan(LATENCY), Families::Both);
    let outside = lab.add_host_with("outside", internet, Link::internet(LATENCY), Families::Both);
    for host in [inside, outside] {
        lab.open_socket(host, UDP6, bound);
        lab.start_raw(host);
    }
    let (inside_address, outside_address) = (lab.socket_address(inside, UDP6), lab.socket_address(outside, UDP6));
    assert!(!reaches(&mut lab, outside, UDP6, inside_address, inside));
    assert!(reaches(&mut lab, inside, UDP6, outside_address, outside));
    lab.send_raw(inside, UDP6, outside_address, b"?");
    lab.run_for(A_WHILE);
    assert_eq!(lab.take_received(outside).pop().unwrap().source, inside_address);
    assert!(reaches(&mut lab, outside, UDP6, inside_address, inside));
}

#[test]
fn ipv6_comes_in_where_the_router_is_open_for_it() {
    const UDP6: SocketName = SocketName::Udp6;
    for ipv6_open in [false, true] {
        let mut lab = Lab::new(21);
        let config = RouterConfig {
            ipv6_open,
            ..RouterConfig::port_restricted()
        };
        let (_, lan) = router(&mut lab, config);
        let internet = lab.internet();
        let inside = lab.add_host_with("inside", lan, Link::lan(LATENCY), Families::Both);
        let outside = lab.add_host_with("outside", internet, Link::internet(LATENCY), Families::Both);
        for host in [inside, outside] {
            lab.open_socket(host, UDP, "0.0.0.0:5000".parse().unwrap());
            lab.open_socket(host, UDP6, "[::]:5000".parse().unwrap());
            lab.start_raw(host);
        }
        let address = lab.socket_address(inside, UDP6);
        assert_eq!(reaches(&mut lab, outside, UDP6, address, inside), ipv6_open);
        // IPv4 stays filtered.
        let seen_from_outside = seen(&mut lab, inside, outside, UDP).unwrap();
        let stranger = observer(&mut lab, "stranger");
        assert!(!reaches(&mut lab, stranger, UDP, seen_from_outside, inside));
    }
}

#[test]
fn a_burst_is_dropped_until_its_window_has_passed() {
    let mut lab = Lab::new(22);
    let one = observer(&mut lab, "one");
    let config = RouterConfig {
        burst_limit: Some(BurstLimit {
            packets: 10,
            window: ms(1_000),
        }),
        ..RouterConfig::full_cone()
    };
    let (_, lan) = router(&mut lab, config);
    let (loud, quiet) = (raw(&mut lab, "loud", lan, 5000), raw(&mut lab, "quiet", lan, 6000));
    let to = lab.socket_address(one, UDP);
    for _ in 0..15 {
        lab.send_raw(loud, UDP, to, b"burst");
    }
    lab.send_raw(quiet, UDP, to, b"quiet");
    lab.run_for(ms(500));
    let received = lab.take_received(one);
    let outside = received[0].source;
    let of_loud = received.iter().filter(|received| received.source == outside).count();
    assert_eq!((of_loud, received.len()), (10, 11), "others are not held to it");
    assert_eq!(lab.dropped(DropReason::Burst), 5);
    // Answers count, too.
    lab.send_raw(one, UDP, outside, b"answer");
    lab.run_for(ms(100));
    assert!(lab.take_received(loud).is_empty());
    lab.run_for(ms(500));
    assert!(reaches(&mut lab, one, UDP, outside, loud));
}
